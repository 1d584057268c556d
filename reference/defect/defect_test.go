package defect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tminus-live/tminus/reference/defect"
)

var begin = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }

func region() *defect.Set {
	return defect.NewSet(
		defect.Component{Name: "us-east/encoder", Kind: defect.Encoder}, defect.Component{Name: "us-east/packager", Kind: defect.Packager},
		defect.Component{Name: "us-east/origin", Kind: defect.Origin}, defect.Component{Name: "us-east/playback", Kind: defect.Playback},
		defect.Component{Name: "us-east/edge-1", Kind: defect.Edge}, defect.Component{Name: "us-east/edge-10", Kind: defect.Edge},
	)
}

func order(t testing.TB, part, kind, params string) defect.Order {
	t.Helper()
	o, err := defect.ParseOrder(fmt.Appendf(nil, `{"part":%q,"kind":%q,"params":{%s},"lease_ms":3000}`, part, kind, params))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// put puts a defect into force at begin, under the id "d".
func put(t testing.TB, s *defect.Set, part, kind, params string) {
	t.Helper()
	if _, _, err := s.Put(begin, "d", order(t, part, kind, params)); err != nil {
		t.Fatal(err)
	}
}

func TestADefectEndsWithItsLease(t *testing.T) {
	s := region()
	p := s.Part("us-east/encoder")
	if !p.Well() || p.Stopped(begin) {
		t.Error("something is wrong from the start")
	}
	o := order(t, "us-east/encoder", defect.EncoderRestart, "")
	d, renewed, err := s.Put(begin, "d", o)
	if err != nil || renewed || !d.Since.Equal(begin) || !d.Ends.Equal(at(3)) {
		t.Fatalf("%+v %v %v", d, renewed, err)
	}
	if !p.Stopped(at(2.9)) {
		t.Error("it is not in force")
	}
	if d, renewed, err = s.Put(at(2), "d", o); err != nil || !renewed || !d.Since.Equal(begin) || !d.Ends.Equal(at(5)) {
		t.Errorf("renewed: %+v %v %v", d, renewed, err)
	}
	if !p.Stopped(at(4.9)) || len(s.At(at(4.9))) != 1 {
		t.Error("its lease was renewed, but it ended")
	}
	if p.Stopped(at(5)) || !p.Well() || len(s.At(at(5))) != 0 {
		t.Error("it outlived its lease")
	}
	if d, renewed, err = s.Put(at(6), "d", o); err != nil || renewed || !d.Since.Equal(at(6)) {
		t.Errorf("a lapsed lease was renewed: %+v %v %v", d, renewed, err)
	}
	if !s.Delete(at(7), "d") || !p.Well() || s.Delete(at(7), "d") {
		t.Error("it was not ended by order")
	}
}

func TestOneOfAKindEach(t *testing.T) {
	s := region()
	put(t, s, "us-east/edge-1", defect.Clock, `"offset_ms":1000`)
	if _, _, err := s.Put(begin, "e", order(t, "us-east", defect.Clock, `"offset_ms":2000`)); !errors.Is(err, defect.ErrTaken) {
		t.Errorf("a second clock: %v", err)
	}
	// Another order under the same id takes the first one's place.
	put(t, s, "us-east", defect.Clock, `"offset_ms":2000`)
	for _, name := range []string{"encoder", "packager", "origin", "playback", "edge-1", "edge-10"} {
		if got := s.Part("us-east/" + name).Clock(begin); !got.Equal(at(2)) {
			t.Errorf("%s takes it to be %s", name, got)
		}
	}
	put(t, s, "us-east/edge-1", defect.Clock, `"offset_ms":1`)
	if s.Part("us-east/edge-10").Clock(begin) != begin {
		t.Error("edge-1's defect is edge-10's too")
	}
	for i := range 63 {
		if _, _, err := s.Put(begin, fmt.Sprint(i), order(t, "us-east/edge-10", defect.Clock, `"offset_ms":1`)); i > 0 && !errors.Is(err, defect.ErrTaken) {
			t.Fatal(err)
		}
	}
	if s.Part("us-east/edge-7") != nil || !s.Part("us-east/edge-7").Well() || s.Part("us-east/edge-7").Clock(begin) != begin {
		t.Error("a part that is not there is not well")
	}
}

func TestWhatIsWrongWithAnOrderIsNamed(t *testing.T) {
	for body, want := range map[string]string{
		`{"part":"us-east/origin","kind":"fire","lease_ms":100}`:                                                                     "there is encoder-restart, ",
		`{"part":"us-west/origin","kind":"clock","lease_ms":100}`:                                                                    "there is us-east/encoder, ",
		`{"part":"us-east/edge-1","kind":"store-failure","lease_ms":100}`:                                                            "there is us-east/origin)",
		`{"part":"us-east/edge","kind":"cache-wipe","lease_ms":100}`:                                                                 "there is us-east/edge-1, us-east/edge-10",
		`{"part":"us-east/origin","kind":"store-latency","lease_ms":100}`:                                                            "delay_ms",
		`{"part":"us-east/origin","kind":"store-latency","params":{"delay_ms":9000},"lease_ms":100}`:                                 "outside 1 to 8000",
		`{"part":"us-east/origin","kind":"store-latency","params":{"delay_ms":"9"},"lease_ms":100}`:                                  "want a number",
		`{"part":"us-east/origin","kind":"store-failure","params":{"on":"rename"},"lease_ms":100}`:                                   "read, write",
		`{"part":"us-east/origin","kind":"store-failure","params":{"on":1},"lease_ms":100}`:                                          "want a text",
		`{"part":"us-east/origin","kind":"store-failure","params":{"share":null},"lease_ms":100}`:                                    "neither",
		`{"part":"us-east/origin","kind":"store-failure","params":{"sharr":1},"lease_ms":100}`:                                       `"sharr"`,
		`{"part":"us-east/edge-1","kind":"edge-overload","params":{"slots":1.5},"lease_ms":100}`:                                     "whole",
		`{"part":"us-east/playback","kind":"playback-error","params":{"status":200},"lease_ms":100}`:                                 "outside 400 to 599",
		`{"part":"us-east/encoder","kind":"encoder-frozen","params":{"rendition":"` + strings.Repeat("x", 65) + `"},"lease_ms":100}`: "65 bytes",
		`{"part":"us-east/origin","kind":"clock"}`:                                                                                   "lease",
		`{"part":"us-east/origin","kind":"clock","lease_ms":10001}`:                                                                  "lease",
		`{"part":"us-east/origin","kind":"clock","lease_ms":100,"for":1}`:                                                            "for",
		`{"part":"us-east/origin","kind":"clock","lease_ms":100}{}`:                                                                  "more than one",
		`{"part":"us-east/origin","kind":"clock","lease_ms":100,` + strings.Repeat(" ", 4096) + `}`:                                  "more than 4096",
		``: "cannot be read",
	} {
		s := region()
		o, err := defect.ParseOrder([]byte(body))
		if err == nil {
			_, _, err = s.Put(begin, "d", o)
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.120s: %v, want %s", body, err, want)
		}
		if len(s.At(begin)) != 0 {
			t.Errorf("%.120s: it is in force", body)
		}
	}
	for _, id := range []string{"", "a/b", "a b", "é", strings.Repeat("x", 65)} {
		if _, _, err := region().Put(begin, id, order(t, "us-east", defect.Clock, "")); err == nil {
			t.Errorf("id %q is taken", id)
		}
	}
}

func TestDefectsAreBounded(t *testing.T) {
	var edges []defect.Component
	for i := range 100 {
		edges = append(edges, defect.Component{Name: fmt.Sprint("e/", i), Kind: defect.Edge})
	}
	s := defect.NewSet(edges...)
	put := func(now time.Time, i int) error {
		_, _, err := s.Put(now, fmt.Sprint(i), order(t, fmt.Sprint("e/", i), defect.CacheWipe, ""))
		return err
	}
	for i := range 64 {
		if err := put(begin, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(begin, 64); !errors.Is(err, defect.ErrFull) {
		t.Errorf("65 defects: %v", err)
	}
	if err := put(begin, 63); err != nil {
		t.Errorf("a lease cannot be renewed when the set is full: %v", err)
	}
	if err := put(at(3), 64); err != nil {
		t.Errorf("leases that are over hold places: %v", err)
	}
}

func TestClock(t *testing.T) {
	s := region()
	p := s.Part("us-east/origin")
	put(t, s, "us-east/origin", defect.Clock, `"offset_ms":-1500,"drift_ppm":250000`)
	for _, c := range []struct{ sec, want float64 }{{0, -1.5}, {2, 1}, {2.5, 1.625}, {3, 3}} { // after 3 s it is over
		if got := p.Clock(at(c.sec)); !got.Equal(at(c.want)) {
			t.Errorf("after %g s it takes it to be %s, want %s", c.sec, got, at(c.want))
		}
	}
}

func TestEncoder(t *testing.T) {
	s := region()
	p := s.Part("us-east/encoder")
	put(t, s, "us-east/encoder", defect.EncoderRestart, `"down_ms":1500`)
	if !p.Stopped(at(1.4)) || p.Stopped(at(1.5)) {
		t.Error("it is not away for as long as it should be")
	}
	put(t, s, "us-east/encoder", defect.EncoderFrozen, `"rendition":"v720"`)
	since, frozen := p.Frozen(at(1), "v720")
	if _, other := p.Frozen(at(1), "v360"); !frozen || other || !since.Equal(begin) || p.Stopped(at(1)) {
		t.Error("not v720, and v720 only, is frozen")
	}
	put(t, s, "us-east/encoder", defect.EncoderFrozen, "")
	if _, frozen := p.Frozen(at(1), "v360"); !frozen {
		t.Error("not every rendition is frozen")
	}
}

// wait is what is left of a hold.
func wait(h defect.Hold, now time.Time) time.Duration { d, _ := h.Next(now); return d }

func TestStoreIsSlow(t *testing.T) {
	s := region()
	p := s.Part("us-east/origin")
	put(t, s, "us-east/origin", defect.StoreLatency, `"delay_ms":500,"on":"read"`)
	holds, err := p.Store(at(1), defect.Read, 100)
	if err != nil || wait(holds[0], at(1)) != 500*time.Millisecond || wait(holds[0], at(1.5)) != 0 || holds[1] != (defect.Hold{}) {
		t.Errorf("a read waits for %s, %v", wait(holds[0], at(1)), err)
	}
	if holds, err := p.Store(at(1), defect.Write, 100); err != nil || holds[0] != (defect.Hold{}) {
		t.Errorf("a write waits too: %v", err)
	}
	put(t, s, "us-east/origin", defect.StoreLatency, `"delay_ms":500,"jitter_ms":100,"seed":7`)
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		holds, _ := p.Store(at(1), defect.Write, 100)
		d := wait(holds[0], at(1))
		least, most = min(least, d), max(most, d)
	}
	if least < 400*time.Millisecond || least > 405*time.Millisecond || most > 600*time.Millisecond || most < 595*time.Millisecond {
		t.Errorf("delays of 500 ms with 100 ms of jitter are %s to %s", least, most)
	}
}

// Whoever waits because of a defect waits no longer when it has ended, and longer than its lease when that is renewed.
func TestAHoldEndsWithItsDefect(t *testing.T) {
	s := region()
	p := s.Part("us-east/origin")
	put(t, s, "us-east/origin", defect.StoreLatency, `"delay_ms":5000`)
	holds, _ := p.Store(at(2), defect.Read, 100)
	d, over := holds[0].Next(at(2))
	if d != time.Second {
		t.Errorf("it waits for %s, want until the lease is over", d)
	}
	if _, renewed, err := s.Put(at(2.5), "d", order(t, "us-east/origin", defect.StoreLatency, `"delay_ms":5000`)); !renewed || err != nil {
		t.Fatal(err)
	}
	select {
	case <-over:
		t.Fatal("a renewed lease lets go")
	default:
	}
	if d := wait(holds[0], at(3)); d != 2500*time.Millisecond {
		t.Errorf("after its lease was renewed it waits for %s", d)
	}
	s.Delete(at(4), "d")
	select {
	case <-over:
	default:
		t.Error("an ended defect does not let go")
	}
	if d := wait(holds[0], at(4)); d != 0 {
		t.Errorf("after its end it holds for %s", d)
	}
	put(t, s, "us-east/origin", defect.StoreLatency, `"delay_ms":5000`)
	if d := wait(holds[0], at(1)); d != 0 {
		t.Errorf("the next defect holds who waited because of the last for %s", d)
	}
}

func TestStoreIsThrottled(t *testing.T) {
	s := region()
	p := s.Part("us-east/origin")
	put(t, s, "us-east/origin", defect.StoreThrottle, `"bits_per_s":1e6`)
	var last time.Duration
	for i := range 10 { // 25 000 bytes take 200 ms, one after the other, whatever they are for
		holds, err := p.Store(begin, []string{defect.Read, defect.Write}[i%2], 25000)
		if err != nil {
			t.Fatal(err)
		}
		last = wait(holds[1], begin)
	}
	if last != 2*time.Second {
		t.Errorf("250 kB at 1 Mb/s take %s", last)
	}
	if holds, _ := p.Store(at(2.5), defect.Read, 25000); wait(holds[1], at(2.5)) != 200*time.Millisecond {
		t.Error("idle time is not idle")
	}
	var err error
	for i := 0; err == nil; i++ {
		if _, err = p.Store(at(2.5), defect.Read, 125000); i > 10 {
			t.Fatal("it takes whatever comes")
		}
	}
	if !errors.Is(err, defect.ErrStore) {
		t.Error(err)
	}
}

// Shares are kept, and the same seed chooses the same requests.
func TestShares(t *testing.T) {
	draw := func(seed int, share float64) (n int, which string) {
		s := region()
		put(t, s, "us-east/origin", defect.StoreFailure, fmt.Sprintf(`"share":%g,"seed":%d`, share, seed))
		p := s.Part("us-east/origin")
		var b strings.Builder
		for range 10000 {
			if _, err := p.Store(at(1), defect.Read, 1); err != nil {
				n++
				b.WriteByte('1')
			} else {
				b.WriteByte('0')
			}
		}
		return n, b.String()
	}
	for _, share := range []float64{0, 0.01, 0.2, 0.5, 1} {
		if n, _ := draw(7, share); math.Abs(float64(n)/10000-share) > 0.02*math.Sqrt(share) {
			t.Errorf("a share of %g is %d of 10000", share, n)
		}
	}
	_, a := draw(7, 0.3)
	_, b := draw(7, 0.3)
	if _, c := draw(8, 0.3); a != b || a == c {
		t.Error("the seed does not decide")
	}
}

func TestPublishing(t *testing.T) {
	s := region()
	p := s.Part("us-east/packager")
	put(t, s, "us-east/packager", defect.PublishFailure, `"origin":"us-west","share":0.25,"seed":3`)
	refused := 0
	for n := range uint64(4000) {
		first, again := p.Refuses(begin, "us-west", n), p.Refuses(at(1), "us-west", n)
		if first != again || p.Refuses(begin, "us-east", n) {
			t.Fatalf("segment %d: %v, then %v", n, first, again)
		}
		if first {
			refused++
		}
	}
	if refused < 900 || refused > 1100 {
		t.Errorf("%d of 4000 segments are refused, want a quarter", refused)
	}
	put(t, s, "us-east/packager", defect.PublishFailure, "")
	if !p.Refuses(begin, "us-east", 1) || !p.Refuses(begin, "us-west", 2) {
		t.Error("without a share and an origin not every segment is refused by every origin")
	}
}

func TestCacheWipe(t *testing.T) {
	s := region()
	p := s.Part("us-east/edge-1")
	put(t, s, "us-east/edge-1", defect.CacheWipe, "")
	if !p.Wiped(at(2.9)).Equal(begin) || !p.Wiped(at(3)).IsZero() {
		t.Error("it is not wiped once, at the beginning")
	}
	put(t, s, "us-east/edge-1", defect.CacheWipe, `"every_ms":400`)
	if !p.Wiped(at(1.1)).Equal(at(0.8)) || !p.Wiped(at(0.3)).Equal(begin) {
		t.Errorf("wiped every 400 ms, at 1.1 s: %s", p.Wiped(at(1.1)))
	}
}

func TestOverload(t *testing.T) {
	s := region()
	p := s.Part("us-east/edge-1")
	put(t, s, "us-east/edge-1", defect.EdgeOverload, `"slots":2,"service_ms":100,"wait_ms":150`)
	var got []string
	for range 6 {
		if h, ok := p.Admit(begin); ok {
			got = append(got, wait(h, begin).String())
		} else {
			got = append(got, "503")
		}
	}
	if s := strings.Join(got, " "); s != "100ms 100ms 200ms 200ms 503 503" {
		t.Errorf("six at once: %s", s)
	}
	if h, ok := s.Part("us-east/edge-10").Admit(begin); !ok || wait(h, begin) != 0 {
		t.Error("another edge is overloaded too")
	}
	put(t, s, "us-east", defect.EdgeOverload, `"slots":1`)
	for _, name := range []string{"edge-1", "edge-10"} { // each has its own
		if _, ok := s.Part("us-east/" + name).Admit(begin); !ok {
			t.Errorf("%s has no hand", name)
		}
		if _, ok := s.Part("us-east/" + name).Admit(begin); ok {
			t.Errorf("%s has two hands", name)
		}
	}
	put(t, s, "us-east/edge-1", defect.EdgeOverload, `"slots":0`)
	if _, ok := p.Admit(begin); ok {
		t.Error("no hand takes a request")
	}
}

func TestPlayback(t *testing.T) {
	s := region()
	p := s.Part("us-east/playback")
	ends := []string{defect.Play, defect.Manifest, defect.Steering, defect.Licence}
	for _, c := range []struct{ kind, params, want string }{ // of each endpoint: how long it waits, what it fails with, whether it may not be on a loop
		{defect.SteeringGone, "", "0s - | 0s - | 0s 503 | 0s -"},
		{defect.SteeringGone, `"status":0`, "0s - | 0s - | 0s 0 | 0s -"},
		{defect.PlaybackSlow, `"delay_ms":700`, "700ms - aside | 700ms - aside | 700ms - aside | 700ms - aside"},
		{defect.PlaybackSlow, `"delay_ms":700,"endpoint":"manifest"`, "0s - | 700ms - aside | 0s - | 0s -"},
		{defect.PlaybackError, `"status":500,"endpoint":"play"`, "0s 500 | 0s - | 0s - | 0s -"},
		{defect.PlaybackError, `"status":0,"endpoint":"play"`, "0s 0 aside | 0s - | 0s - | 0s -"},
		{defect.PlaybackError, `"share":0`, "0s - | 0s - | 0s - | 0s -"},
	} {
		put(t, s, "us-east/playback", c.kind, c.params)
		var got []string
		for _, e := range ends {
			a := p.Answer(begin, e)
			word := wait(a.Hold, begin).String() + " -"
			if a.Fails {
				word = fmt.Sprint(wait(a.Hold, begin), " ", a.Status)
			}
			if p.Aside(begin, e) {
				word += " aside"
			}
			got = append(got, word)
		}
		if g := strings.Join(got, " | "); g != c.want {
			t.Errorf("%s %s: %s, want %s", c.kind, c.params, g, c.want)
		}
	}
	if a := p.Answer(begin, ""); a != (defect.Answer{}) {
		t.Errorf("what runs the service: %+v", a)
	}
}

// Every kind can be ordered with its defaults, or says what is missing, and says what it is and what its parameters are.
func TestEveryKindIsDocumented(t *testing.T) {
	for _, k := range defect.Kinds() {
		if k.Name == "" || k.Summary == "" || len(k.On) == 0 {
			t.Errorf("%+v", k)
		}
		given := map[string]any{}
		for _, p := range k.Params {
			if p.Summary == "" {
				t.Errorf("%s.%s says nothing", k.Name, p.Name)
			}
			if p.Default == nil {
				given[p.Name] = p.Least
			}
		}
		d, _, err := region().Put(begin, "d", defect.Order{Part: "us-east", Kind: k.Name, Params: given, Lease: 1})
		if err != nil || len(d.Params) != len(k.Params) {
			t.Errorf("%s: %+v %v", k.Name, d, err)
		}
	}
}

// Whatever is ordered, renewed and ended in whatever order, nothing is in force past its lease, and what is listed is what the
// components see.
func TestNothingOutlivesItsLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := region()
		p := s.Part("us-east/edge-1")
		ends := map[string]time.Time{}
		now := begin
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				s.Delete(now, id)
				delete(ends, id)
			case 1:
				p.Admit(now)
				p.Wiped(now)
				p.Clock(now)
			default:
				kind := rapid.SampledFrom([]string{defect.Clock, defect.CacheWipe, defect.EdgeOverload}).Draw(t, "kind")
				lease := rapid.Int64Range(1, 10000).Draw(t, "lease")
				if d, _, err := s.Put(now, id, defect.Order{Part: "us-east/edge-1", Kind: kind, Lease: lease}); err == nil {
					ends[id] = now.Add(time.Duration(lease) * time.Millisecond)
					if !d.Ends.Equal(ends[id]) {
						t.Fatalf("%+v", d)
					}
				}
			}
			for id, end := range ends {
				if !now.Before(end) {
					delete(ends, id)
				}
			}
			if list := s.At(now); len(list) != len(ends) || p.Well() != (len(ends) == 0) {
				t.Fatalf("in force are %+v, want %v; well: %v", list, ends, p.Well())
			}
		}
	})
}

func FuzzParseOrder(f *testing.F) {
	f.Add([]byte(`{"part":"us-east/origin","kind":"store-latency","params":{"delay_ms":500,"on":"read"},"lease_ms":3000}`))
	f.Add([]byte(`{"part":"us-east","kind":"clock","params":{"offset_ms":-1e400},"lease_ms":1}`))
	f.Add([]byte(`{"part":"us-east/playback","kind":"playback-error","params":{"status":0,"endpoint":"play","share":0.5},"lease_ms":10000}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := defect.ParseOrder(body)
		if err != nil {
			return
		}
		s := region()
		d, _, err := s.Put(begin, "d", o)
		if err != nil {
			if len(s.At(begin)) != 0 {
				t.Fatalf("%v, but it is in force", err)
			}
			return
		}
		// What is in force can be told, and asked about, whatever it is.
		text, err := json.Marshal(d)
		if err != nil || d.Ends.Sub(d.Since) > defect.MaxLease {
			t.Fatal(err, d)
		}
		again, err := defect.ParseOrder(fmt.Appendf(nil, `{"lease_ms":5,%s`, string(text[strings.Index(string(text), `"part"`):strings.Index(string(text), `,"since"`)])+"}"))
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if _, renewed, err := s.Put(begin, "d", again); err != nil || !renewed {
			t.Fatalf("%s is not the same again: %v %v", text, renewed, err)
		}
		for _, name := range []string{"encoder", "packager", "origin", "playback", "edge-1", "edge-10"} {
			p := s.Part("us-east/" + name)
			now := begin.Add(time.Millisecond)
			p.Clock(now)
			p.Stopped(now)
			p.Frozen(now, "v360")
			p.Store(now, defect.Read, 1<<20)
			p.Refuses(now, "us-east", 9)
			p.Wiped(now)
			if h, ok := p.Admit(now); ok && wait(h, now) > 3*defect.MaxDelay*time.Millisecond {
				t.Fatal("it holds for too long")
			}
			if a := p.Answer(now, defect.Play); a.Fails && a.Status != 0 && a.Status < 400 {
				t.Fatalf("it fails with %d", a.Status)
			}
		}
	})
}

// BenchmarkWell is what a component pays for asking while nothing is wrong.
func BenchmarkWell(b *testing.B) {
	p := region().Part("us-east/playback")
	for b.Loop() {
		if !p.Well() {
			b.Fatal("it is not")
		}
	}
}
