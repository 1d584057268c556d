package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
)

var epoch = time.Unix(1_800_000_000, 0)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

// tenToTwenty is a fault from 10 s to 20 s.
var tenToTwenty = evidence.Window{Inject: at(10), Injected: at(10), Restore: at(20), Restored: at(20)}

// steady makes requests every tenth of a second from 0 s to 30 s, spoiled during the fault as told.
func steady(spoil func(i int, s *sample)) (out []sample) {
	n := 0
	for i := range 300 {
		start := at(float64(i) / 10)
		s := sample{response: response{start: start, first: start.Add(10 * time.Millisecond), end: start.Add(20 * time.Millisecond), status: 200, length: 1e6, bytes: 1e6}, path: "/x", sum: 7}
		s.control = i%4 == 3
		if p := phaseOf(tenToTwenty, s.start, s.end); p == during && !s.control {
			spoil(n, &s)
			n++
		}
		out = append(out, s)
	}
	return out
}

// dense makes 200 requests a second from 0 s to 30 s; during the fault and wherever else it is told to be, one of the target's or
// of the control's in so many is answered 503.
func dense(every int, target, control func(p phase) bool) (out []sample) {
	n := map[bool]int{}
	for i := range 6000 {
		start := at(float64(i) / 200)
		s := sample{response: response{start: start, first: start.Add(time.Millisecond), end: start.Add(2 * time.Millisecond), status: 200}, path: "/x", control: i%4 == 3}
		p := phaseOf(tenToTwenty, s.start, s.end)
		if s.control && control(p) || !s.control && target(p) {
			if n[s.control]++; n[s.control]%every == 0 {
				s.status = 503
			}
		}
		out = append(out, s)
	}
	return out
}

// segmented gives requests the paths of segments that come and go, each asked for by target and control, with bytes of their own.
func segmented(samples []sample, corrupt func(s sample) bool) []sample {
	for i := range samples {
		s := &samples[i]
		n := s.start.Add(100*time.Millisecond).Unix() / 2
		s.path, s.sum = fmt.Sprintf("/%d.m4s", n), uint64(n)
		if corrupt(*s) {
			s.sum += 1e12 // the same whenever it is asked for
		}
	}
	return samples
}

// Faults that few requests feel must not be there before, after or elsewhere either, and too few requests do not tell.
func TestJudgeHTTPOfSmallShares(t *testing.T) {
	inFault := func(p phase) bool { return p == during }
	never := func(phase) bool { return false }
	always := func(phase) bool { return true }
	untilTheEnd := func(p phase) bool { return p == during || p == after }
	until := func(end float64, samples []sample) []sample {
		return only(samples, func(s sample) bool { return s.start.Before(at(end)) })
	}
	slow := Want{Kind: Latency, Share: 0.2, Delay: 5 * time.Second}
	late := func(p func(p phase) bool) []sample { // one in five takes five seconds, and the watch ends at 24 s
		out := until(24, dense(5, p, never))
		for i := range out {
			if out[i].status == 503 {
				out[i].status, out[i].first, out[i].end = 200, out[i].first.Add(5*time.Second), out[i].end.Add(5*time.Second)
				if out[i].start.After(at(20)) {
					out[i].status, out[i].fail, out[i].end = 0, unanswered, at(24)
				}
			}
		}
		return only(out, func(s sample) bool { return s.fail == "" || s.end.Sub(s.start) > stuck })
	}
	for _, c := range []struct {
		name           string
		want           Want
		samples        []sample
		status, detail string
	}{
		{"4 %", Want{Kind: Status, Share: 0.04, Status: 503}, dense(25, inFault, never), evidence.Confirmed, "was well throughout"},
		{"4 % for ever", Want{Kind: Status, Share: 0.04, Status: 503}, dense(25, untilTheEnd, never), evidence.Mismatch, "outlived its end"},
		{"4 % without a fault", Want{Kind: Status, Share: 0.04, Status: 503}, dense(25, always, never), evidence.Inconclusive, "not well before"},
		{"4 % of the control too", Want{Kind: Status, Share: 0.04, Status: 503}, dense(25, inFault, inFault), evidence.Mismatch, "reached us-west too"},
		{"too few after it", Want{Kind: Status, Share: 0.04, Status: 503}, until(20.5, dense(25, inFault, never)), evidence.Inconclusive, "too few to tell that a share of 4 % is gone"},
		{"enough after it", Want{Kind: Status, Share: 0.04, Status: 503}, until(21, dense(25, inFault, never)), evidence.Confirmed, ""},
		{"too few of the control", Want{Kind: Status, Share: 0.04, Status: 503}, only(dense(25, inFault, never), func(s sample) bool {
			return !s.control || s.start.Unix()%10 == 0
		}), evidence.Inconclusive, "did not reach it"},
		{"a fifth late", slow, late(inFault), evidence.Confirmed, ""},
		{"a fifth late for ever, none of which is there yet", slow, late(untilTheEnd), evidence.Mismatch, "outlived its end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeHTTP(HTTPConfig{Want: c.want, Elsewhere: "us-west", Hint: "say what to ask for"}, tenToTwenty, c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// Corruption is the same whenever it is asked for: what is fetched after the fault must not vouch for itself.
func TestJudgeCorruption(t *testing.T) {
	want := Want{Kind: Corrupt, Share: 1}
	from := func(seconds float64, control bool) func(s sample) bool {
		return func(s sample) bool { return s.control == control && !s.start.Before(at(seconds)) }
	}
	window := func(s sample) bool { return from(10, false)(s) && s.start.Before(at(20)) }
	fixed := func(corrupt func(s sample) bool) []sample {
		out := steady(func(int, *sample) {})
		for i := range out {
			if corrupt(out[i]) {
				out[i].sum = 8
			}
		}
		return out
	}
	healthy := func() []sample { return steady(func(int, *sample) {}) }
	alone := func(samples []sample) []sample { return only(samples, func(s sample) bool { return !s.control }) }
	for _, c := range []struct {
		name           string
		samples        []sample
		status, detail string
	}{
		{"one URL", fixed(window), evidence.Confirmed, ""},
		{"one URL, for ever", fixed(from(10, false)), evidence.Mismatch, "outlived its end"},
		{"one URL, for ever, and no control", alone(fixed(from(10, false))), evidence.Mismatch, "outlived its end"},
		{"one URL, that the control answers otherwise", func() []sample {
			out := fixed(window)
			for i := range out {
				if out[i].control {
					out[i].sum = 9
				}
			}
			return out
		}(), evidence.Confirmed, ""},
		{"one URL, of the control too", fixed(func(s sample) bool { return window(s) || s.control && phaseOf(tenToTwenty, s.start, s.end) == during }), evidence.Mismatch, "reached us-west too"},
		{"segments", segmented(healthy(), window), evidence.Confirmed, ""},
		{"segments, for ever", segmented(healthy(), from(10, false)), evidence.Mismatch, "outlived its end"},
		{"segments, without a control", alone(segmented(healthy(), window)), evidence.Inconclusive, "too little was measured"},
		{"segments, and nothing to compare with after it", only(segmented(healthy(), window), func(s sample) bool { return !s.control || s.start.Before(at(19)) }), evidence.Inconclusive, "nothing was measured after it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeHTTP(HTTPConfig{Want: want, Elsewhere: "us-west", Hint: "say what to ask for"}, tenToTwenty, c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestJudgeHTTP(t *testing.T) {
	delay := func(d time.Duration) func(int, *sample) {
		return func(_ int, s *sample) { s.first, s.end = s.first.Add(d), s.end.Add(d) }
	}
	status := func(code int, every int) func(int, *sample) {
		return func(i int, s *sample) {
			if i%every == 0 {
				s.status = code
			}
		}
	}
	fail := func(what string) func(int, *sample) { return func(_ int, s *sample) { s.fail = what } }
	all := func(k string) Want { return Want{Kind: k, Share: 1} }
	forbidden := steady(status(403, 1))
	for i := range forbidden {
		forbidden[i].status = 403
	}
	for _, c := range []struct {
		name    string
		want    Want
		samples []sample
		status  string
		detail  string
	}{
		{"status", Want{Kind: Status, Share: 1, Status: 503}, steady(status(503, 1)), evidence.Confirmed, "had status 503"},
		{"nothing instead of a status", Want{Kind: Status, Share: 1, Status: 503}, steady(func(int, *sample) {}), evidence.Mismatch, "status 503 was expected of 100 %"},
		{"half of a status", Want{Kind: Status, Share: 1, Status: 503}, steady(status(503, 2)), evidence.Mismatch, "was expected"},
		{"another status", Want{Kind: Status, Share: 1, Status: 503}, steady(status(404, 1)), evidence.Mismatch, "× 404"},
		{"a share of a half", Want{Kind: Status, Share: 0.5, Status: 503}, steady(status(503, 2)), evidence.Confirmed, ""},
		{"a quarter in place of a half", Want{Kind: Status, Share: 0.5, Status: 503}, steady(status(503, 4)), evidence.Mismatch, ""},
		{"a share too small to tell", Want{Kind: Status, Share: 0.05, Status: 503}, steady(status(503, 16)), evidence.Inconclusive, "too few to tell"},
		{"held", Want{Kind: Held, Share: 1, Rate: 1e6}, steady(func(i int, s *sample) {
			if delay(1200*time.Millisecond)(i, s); i%5 == 0 {
				s.status = 500
			}
		}), evidence.Confirmed, "no more than 8000 kbit/s"},
		{"held for longer than it may be", Want{Kind: Held, Share: 1, Rate: 1e6}, steady(delay(5 * time.Second)), evidence.Confirmed, ""},
		{"not held for long enough", Want{Kind: Held, Share: 1, Rate: 1e6}, steady(delay(600 * time.Millisecond)), evidence.Mismatch, ""},
		{"not held", Want{Kind: Held, Share: 1, Rate: 1e6}, steady(func(int, *sample) {}), evidence.Mismatch, ""},
		{"refused instead of held", Want{Kind: Held, Share: 1, Rate: 1e6}, steady(status(500, 1)), evidence.Mismatch, "every request was refused"},
		{"too small to be held", Want{Kind: Held, Share: 1, Rate: 1e9}, steady(func(int, *sample) {}), evidence.Inconclusive, "too small"},
		{"a share and other trouble", Want{Kind: Status, Share: 0.5, Status: 503}, steady(func(i int, s *sample) {
			if s.status = 503; i%2 == 1 {
				s.status, s.fail = 0, refused
			}
		}), evidence.Mismatch, "something else"},
		{"latency", Want{Kind: Latency, Share: 1, Delay: 300 * time.Millisecond}, steady(delay(310 * time.Millisecond)), evidence.Confirmed, ""},
		{"half the latency", Want{Kind: Latency, Share: 1, Delay: 300 * time.Millisecond}, steady(delay(150 * time.Millisecond)), evidence.Mismatch, "delayed by 150 ms, 300 ms was expected"},
		{"latency, and two hiccups of the machine", Want{Kind: Latency, Share: 1, Delay: 100 * time.Millisecond}, steady(func(i int, s *sample) {
			if delay(105*time.Millisecond)(i, s); i%30 == 10 {
				delay(1500*time.Millisecond)(i, s)
			}
		}), evidence.Confirmed, ""},
		{"no latency", Want{Kind: Latency, Share: 1, Delay: 300 * time.Millisecond}, steady(func(int, *sample) {}), evidence.Mismatch, ""},
		{"jitter", Want{Kind: Latency, Share: 1, Delay: 300 * time.Millisecond, Jitter: 200 * time.Millisecond}, steady(func(i int, s *sample) {
			delay(time.Duration(100+i*37%400)*time.Millisecond)(i, s)
		}), evidence.Confirmed, ""},
		{"reset", all(Reset), steady(fail(wasReset)), evidence.Confirmed, ""},
		{"refused in place of reset", all(Reset), steady(fail(refused)), evidence.Mismatch, "× refused"},
		{"truncate", all(Truncate), steady(fail(truncated)), evidence.Confirmed, ""},
		{"a stall", Want{Kind: Stall, Share: 1, For: time.Second}, steady(func(_ int, s *sample) { s.gap, s.end = time.Second, s.end.Add(time.Second) }), evidence.Confirmed, ""},
		{"too short a stall", Want{Kind: Stall, Share: 1, For: 2 * time.Second}, steady(func(_ int, s *sample) { s.gap = time.Second }), evidence.Mismatch, ""},
		{"a stall without end", all(Stall), steady(fail(stalled)), evidence.Confirmed, ""},
		{"throttle", Want{Kind: Throttle, Share: 1, Rate: 1e6}, steady(func(_ int, s *sample) { s.end = s.first.Add(time.Second) }), evidence.Confirmed, ""},
		{"half the rate", Want{Kind: Throttle, Share: 1, Rate: 1e6}, steady(func(_ int, s *sample) { s.end = s.first.Add(2 * time.Second) }), evidence.Mismatch, "4000 kbit/s, 8000 was expected"},
		{"bodies too small for a rate", Want{Kind: Throttle, Share: 1, Rate: 1e7}, steady(func(int, *sample) {}), evidence.Inconclusive, "too small"},
		{"corrupt", all(Corrupt), steady(func(_ int, s *sample) { s.sum = 8 }), evidence.Confirmed, ""},
		{"whole in place of corrupt", all(Corrupt), steady(func(int, *sample) {}), evidence.Mismatch, ""},
		{"nothing measured", all(Reset), nil, evidence.Inconclusive, "too little was measured: 0 requests during the fault; hold it longer"},
		{"nothing of a rate measured", Want{Kind: Held, Share: 1, Rate: 1e6}, nil, evidence.Inconclusive, "; hold it longer, or raise the rate"},
		{"never well", Want{Kind: Status, Share: 1, Status: 503}, forbidden, evidence.Inconclusive, "not well before the fault: 75 × 403 for /x; during the fault 0 of 71 requests had status 503; say what to ask for"},
		{"nothing before", all(Reset), only(steady(fail(wasReset)), func(s sample) bool { return s.start.After(at(10)) }), evidence.Inconclusive, "before"},
		{"nothing after", all(Reset), only(steady(fail(wasReset)), func(s sample) bool { return s.start.Before(at(19)) }), evidence.Inconclusive, "nothing was measured after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeHTTP(HTTPConfig{Want: c.want, Elsewhere: "us-west", Hint: "say what to ask for"}, tenToTwenty, c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
	// The same everywhere: what it must not reach, what it must not outlive, what was not well to begin with.
	spoil := func(from, to float64, control bool) []sample {
		out := steady(fail(wasReset))
		for i, s := range out {
			if s.control == control && !s.start.Before(at(from)) && s.start.Before(at(to)) {
				out[i].fail = wasReset
			}
		}
		return out
	}
	for _, c := range []struct {
		name           string
		samples        []sample
		status, detail string
	}{
		{"it reached the control", spoil(10, 20, true), evidence.Mismatch, "reached us-west too"},
		{"it outlived its end", spoil(20, 31, false), evidence.Mismatch, "outlived its end"},
		{"a third of it outlived its end", func() []sample {
			out := steady(fail(wasReset))
			for i := range out {
				if i > 210 && i%3 == 0 {
					out[i].fail = wasReset
				}
			}
			return out
		}(), evidence.Mismatch, "outlived its end"},
		{"the target died meanwhile", func() []sample {
			out := steady(fail(wasReset))
			for i, s := range out {
				if !s.control && !s.start.Before(at(20)) {
					out[i].status, out[i].fail = 0, "refused"
				}
			}
			return out
		}(), evidence.Mismatch, "the target was not well after the fault, which does not do that: "},
		{"it was there before", spoil(0, 10, false), evidence.Inconclusive, "not well before"},
		{"it took 3 s to come back", spoil(20, 23, false), evidence.Confirmed, "the first within 3."},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := judgeHTTP(HTTPConfig{Want: Want{Kind: Reset, Share: 1}, Elsewhere: "us-west", Hint: "say what to ask for"}, tenToTwenty, c.samples)
			if e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// What is asked with POST is asked with its body each time.
func TestRequestsHaveAMethodAndABody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.Method != http.MethodPost || string(body) != `{"title":"final"}` {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer server.Close()
	play := Fixed(server.URL + "/play")
	h, err := NewHTTP(HTTPConfig{
		Fault: "http-1", For: time.Second, Targets: []URL{play}, Method: http.MethodPost, Body: []byte(`{"title":"final"}`), Want: Want{Kind: Reset, Share: 1}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.once(t.Context(), play, false)
	}
	for _, s := range h.samples {
		if s.status != http.StatusOK || s.fail != "" {
			t.Errorf("%+v", s)
		}
	}
	if len(h.samples) != 2 {
		t.Errorf("%d requests", len(h.samples))
	}
}

// A request that has been open for long when the watch ends says something; one that has not does not.
func TestWhatIsBrokenOffCounts(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	for _, c := range []struct {
		open time.Duration
		kept int
	}{{100 * time.Millisecond, 0}, {2 * time.Second, 1}} {
		now := epoch
		h, err := NewHTTP(HTTPConfig{
			Fault: "http-1", For: time.Second, Targets: []URL{Fixed(server.URL)}, Want: Want{Kind: Latency, Share: 1, Delay: time.Minute},
			Now: func() time.Time { now = now.Add(c.open); return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h.once(ctx, Fixed(server.URL), false)
		if len(h.samples) != c.kept || c.kept == 1 && h.samples[0].fail != unanswered {
			t.Errorf("open for %v: %+v", c.open, h.samples)
		}
	}
}

func TestPaceTellsTheShareAndKeepsTheBounds(t *testing.T) {
	for _, w := range []Want{
		{Kind: Status, Share: 1}, {Kind: Status, Share: 0.3}, {Kind: Status, Share: 0.01}, {Kind: Latency, Share: 1, Delay: 3 * time.Second},
		{Kind: Stall, Share: 0.5}, {Kind: Throttle, Share: 1, Rate: 1000},
	} {
		for _, length := range []time.Duration{2 * time.Second, time.Minute, time.Hour} {
			every := pace(w, length)
			rate := float64(time.Second) / float64(every)
			if rate > fastest || every > 5*time.Second || rate*(length.Seconds()+30) > kept {
				t.Errorf("%+v for %v: one every %v", w, length, every)
			}
		}
	}
	if n := pace(Want{Kind: Status, Share: 0.3}, 20*time.Second); time.Duration(needed(0.3))*n > 19*time.Second {
		t.Errorf("30 %% is asked for every %v: %d in 20 s are too few", n, 20*time.Second/n)
	}
	for _, c := range []struct {
		share float64
		lasts time.Duration
		most  time.Duration
	}{{1, 20 * time.Second, 5 * time.Second}, {0.04, 20 * time.Second, 5 * time.Second}, {0.02, time.Hour, 2 * time.Minute}} {
		h, err := NewHTTP(HTTPConfig{For: c.lasts, Targets: []URL{Fixed("/")}, Control: []URL{Fixed("/")}, Want: Want{Kind: Reset, Share: c.share}, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		after := h.After()
		if n := float64(after/h.every) * 3 / 4; n*c.share < awaited || after > c.most {
			t.Errorf("%+v: %v after it are %.0f requests", c, after, n)
		}
	}
}

// What shares a rate with others is asked one after the other where nobody is in the way, and else for no more than the rate.
func TestWhatSharesARateIsNotAskedForTooMuch(t *testing.T) {
	for _, c := range []struct {
		kind  string
		sizes int64 // of a body
		open  int
		since time.Duration
		may   bool
	}{
		{Held, 1e6, 0, 0, true},
		{Held, 1e6, 1, 900 * time.Millisecond, false},
		{Held, 1e6, 1, time.Second, true},
		{Held, 1e6, abreast - 1, time.Second, true},
		{Held, 1e6, abreast, time.Minute, false},
		{Held, 0, 1, time.Minute, false}, // nobody knows how much it is
		{Throttle, 1e6, 5, 0, true},
	} {
		h := &HTTP{cfg: HTTPConfig{Want: Want{Kind: c.kind, Share: 1, Rate: 1e6}}, largest: c.sizes}
		if may := h.may(c.open, c.since); may != c.may {
			t.Errorf("%+v: %v", c, may)
		}
	}
}

// site is a server with a relay in front of it.
func site(t *testing.T, layout media.Layout, h http.Handler) (*httprelay.Relay, string) {
	t.Helper()
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	return behind(t, layout, up.Listener.Addr().String())
}

func behind(t *testing.T, layout media.Layout, upstream string) (*httprelay.Relay, string) {
	t.Helper()
	r, err := httprelay.Listen(httprelay.Config{Listen: "127.0.0.1:0", Upstream: upstream, Layout: layout, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r, "http://" + r.Addr()
}

// observer is what a run's observer is.
type observer interface {
	Watch(context.Context)
	Judge(evidence.Window) evidence.Evidence
}

type injector interface {
	Inject(context.Context) error
	Restore(context.Context) error
}

// both injects in two places.
type both [2]injector

func (b both) Inject(ctx context.Context) error {
	return errors.Join(b[0].Inject(ctx), b[1].Inject(ctx))
}
func (b both) Restore(ctx context.Context) error {
	return errors.Join(b[0].Restore(ctx), b[1].Restore(ctx))
}

// play runs one fault as a run does: watched before, during and after. A machine too busy to measure says so, and is given
// another chance.
func play(t *testing.T, i injector, watch func() (observer, error), before, during, after time.Duration) (e evidence.Evidence) {
	t.Helper()
	for range 3 {
		o, err := watch()
		if err != nil {
			t.Fatal(err)
		}
		if e = playOnce(t, i, o, before, during, after); e.Status != evidence.Inconclusive {
			break
		}
		t.Logf("again: %s", e.Detail)
	}
	return e
}

func playOnce(t *testing.T, i injector, o observer, before, during, after time.Duration) evidence.Evidence {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { o.Watch(ctx) })
	defer wg.Wait()
	defer cancel()
	sleep := func(d time.Duration) { // the schedule of the fault, not a wait for anything
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	var w evidence.Window
	sleep(before)
	w.Inject = time.Now()
	if err := i.Inject(ctx); err != nil {
		t.Fatal(err)
	}
	w.Injected = time.Now()
	sleep(during)
	w.Restore = time.Now()
	if err := i.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	w.Restored = time.Now()
	sleep(after)
	cancel()
	wg.Wait()
	return o.Judge(w)
}

// together runs subtests side by side, however few cores there are.
type together struct {
	t    *testing.T
	wg   sync.WaitGroup
	free chan struct{}
}

func newTogether(t *testing.T) *together {
	g := &together{t: t, free: make(chan struct{}, atOnce)}
	return g
}

func (g *together) run(name string, test func(t *testing.T)) {
	g.wg.Go(func() {
		g.free <- struct{}{}
		defer func() { <-g.free }()
		g.t.Run(name, test)
	})
}

// Every action of the relay is injected, confirmed from outside, and restored; and it is found out when half of it, or
// something else, is injected.
func TestHTTPFaultsAreProved(t *testing.T) {
	body := strings.Repeat("tminus ", 150_000/7)
	var served atomic.Int64
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write([]byte(body))
	})
	const all = 1.0
	g := newTogether(t)
	defer g.wg.Wait()
	sabotages := []string{"nothing is injected", "half of it is injected", "something else is injected", "elsewhere too"}
	for n, c := range []struct {
		name   string
		want   Want
		action httprelay.Action
		other  httprelay.Action // what a saboteur does in its place
	}{
		{"status", Want{Kind: Status, Share: 0.4, Status: 503}, httprelay.Action{Kind: httprelay.Status, Status: 503}, httprelay.Action{Kind: httprelay.Status, Status: 500}},
		{"latency", Want{Kind: Latency, Share: all, Delay: 300 * time.Millisecond, Jitter: 50 * time.Millisecond}, httprelay.Action{Kind: httprelay.Latency, Delay: 300 * time.Millisecond, Jitter: 50 * time.Millisecond}, httprelay.Action{Kind: httprelay.Latency, Delay: 120 * time.Millisecond}},
		{"stall", Want{Kind: Stall, Share: all, For: 400 * time.Millisecond}, httprelay.Action{Kind: httprelay.Stall, After: 5000, For: 400 * time.Millisecond}, httprelay.Action{Kind: httprelay.Stall, After: 5000, For: 150 * time.Millisecond}},
		{"reset", Want{Kind: Reset, Share: all}, httprelay.Action{Kind: httprelay.Reset, After: 2000}, httprelay.Action{Kind: httprelay.Truncate}},
		{"truncate", Want{Kind: Truncate, Share: all}, httprelay.Action{Kind: httprelay.Truncate}, httprelay.Action{Kind: httprelay.Reset}},
		{"throttle", Want{Kind: Throttle, Share: all, Rate: 200_000}, httprelay.Action{Kind: httprelay.Throttle, Rate: 200_000}, httprelay.Action{Kind: httprelay.Throttle, Rate: 500_000}},
		{"corrupt", Want{Kind: Corrupt, Share: all}, httprelay.Action{Kind: httprelay.Corrupt}, httprelay.Action{Kind: httprelay.Latency, Delay: 50 * time.Millisecond}},
	} {
		// Status is sabotaged in every way, the others in one each.
		tries := []string{"", sabotages[n%len(sabotages)]}
		if c.name == Status {
			tries = append(sabotages, "")
		}
		for _, sabotage := range tries {
			g.run(c.name+"/"+sabotage, func(t *testing.T) {
				r, base := site(t, media.Layout{}, h)
				other, elsewhere := site(t, media.Layout{}, h)
				cfg := HTTPConfig{
					Fault: c.name + "-1", For: 3 * time.Second, Targets: []URL{Fixed(base + "/a"), Fixed(base + "/b")}, Control: []URL{Fixed(elsewhere + "/a")},
					Elsewhere: "the other server", Want: c.want, Now: time.Now,
				}
				watch := func() (observer, error) { return NewHTTP(cfg) }
				rule := httprelay.Rule{Name: c.name, Path: regexp.MustCompile("^/[ab]$"), Share: c.want.Share, Seed: 11, Action: c.action}
				i := &httprelay.Injector{Relay: r, Owner: c.name + "-1", Rules: []httprelay.Rule{rule}}
				inject := injector(i)
				want := evidence.Mismatch
				switch sabotage {
				case "":
					want = evidence.Confirmed
				case "nothing is injected":
					i.Rules = nil
				case "half of it is injected":
					i.Rules[0].Share /= 2
				case "something else is injected":
					i.Rules[0].Action = c.other
				case "elsewhere too":
					inject = both{i, &httprelay.Injector{Relay: other, Owner: i.Owner, Rules: i.Rules}}
				}
				if e := play(t, inject, watch, time.Second, 3*time.Second, 1500*time.Millisecond); e.Status != want {
					t.Errorf("%+v", e)
				} else {
					t.Logf("%+v", e)
				}
			})
		}
	}
}

// pipes listens for connections within a test's bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A store that others keep waiting for longer than a fault has room for one after the other is asked often enough all the same.
func TestAStoreThatOthersKeepWaitingIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 250_000.0, 150_000
		var mu sync.Mutex
		var free time.Time // when the store is done with what it was asked for
		throttled := false
		takes := func(bytes float64) (time.Duration, bool) {
			mu.Lock()
			defer mu.Unlock()
			if now := time.Now(); free.Before(now) {
				free = now
			}
			if !throttled {
				return 0, true
			}
			if time.Until(free) > 8*time.Second {
				return 0, false
			}
			free = free.Add(time.Duration(bytes / rate * float64(time.Second)))
			return time.Until(free), true
		}
		behind := func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Until(free)
		}
		listen := make(pipes)
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			wait, ok := takes(size)
			if time.Sleep(wait); !ok {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_, _ = w.Write(make([]byte, size))
		})}
		go server.Serve(listen)
		h, err := NewHTTP(HTTPConfig{
			Fault: "store-1", For: 10 * time.Second, Targets: []URL{Fixed("http://store/1")}, Want: Want{Kind: Held, Share: 1, Rate: rate}, Now: time.Now,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				mine, theirs := net.Pipe()
				listen <- theirs
				return mine, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { h.Watch(ctx) })
		set := func(on bool) time.Time {
			mu.Lock()
			defer mu.Unlock()
			throttled, free = on, time.Now()
			return time.Now()
		}
		time.Sleep(5 * time.Second)
		var w evidence.Window
		w.Inject = set(true)
		w.Injected = w.Inject
		for range 100 { // a crowd that asks for three times as much as there is, until it has to wait for five seconds
			if behind() < 5*time.Second {
				takes(3 * rate / 10)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.Restore = set(false)
		w.Restored = w.Restore
		time.Sleep(5 * time.Second)
		cancel()
		wg.Wait()
		close(listen)
		if e := h.Judge(w); e.Status != evidence.Confirmed {
			t.Errorf("%+v", e)
		}
	})
}
