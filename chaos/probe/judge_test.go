package probe

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
)

const ms = time.Millisecond

var t0 = time.Date(2027, 5, 1, 20, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// window: in effect from the 6th to the 26th second of the probe.
var window = evidence.Window{Inject: second(5.9), Injected: second(6), Restore: second(26), Restored: second(26.1)}

const (
	length = 20 * time.Second
	stop   = 32 * time.Second
)

// path is what really happens before, during and after a fault.
type path struct{ before, during, after link.Impairment }

// watched is what a probe that expects promise sees on a path.
func watched(promise link.Impairment, p path, seed uint64) Direction {
	return watchedIn(window, promise, p, seed)
}

func watchedIn(window evidence.Window, promise link.Impairment, p path, seed uint64) Direction {
	return watchedUntil(stop, window, promise, p, seed)
}

func watchedUntil(stop time.Duration, window evidence.Window, promise link.Impairment, p path, seed uint64) Direction {
	pace := PaceFor(promise, length)
	d := Direction{Name: "upwards", Promise: promise, Train: pace.Train, Size: pace.Size}
	random := rand.New(rand.NewPCG(seed, 1))
	p.before.Seed, p.during.Seed, p.after.Seed = seed, seed^0xabc, seed^0xdef
	links := []*link.Link{link.New(p.before), link.New(p.during), link.New(p.after)}
	free := time.Duration(0)
	for at := time.Duration(0); at < stop; at += pace.Every {
		for k := range pace.Train {
			sent := at + time.Duration(k)*3*time.Microsecond
			l := links[0]
			switch {
			case sent >= window.Injected.Sub(t0) && sent < window.Restore.Sub(t0):
				l = links[1]
			case sent >= window.Restore.Sub(t0):
				l = links[2]
			}
			out, n := l.Send(sent, pace.Size+ipHeaders)
			r := Record{Sent: sent, Copies: n}
			if n > 0 {
				r.Arrived, r.Corrupt = out[0].At, out[0].CorruptBit >= 0
				// Sockets and threads take their time, and keep the order of what comes at once.
				free = max(r.Arrived+time.Duration(random.ExpFloat64()*float64(60*time.Microsecond)), min(free, r.Arrived+500*time.Microsecond))
				if p.during.Reorder {
					free = r.Arrived
				}
				r.Arrived = free
			}
			d.Records = append(d.Records, r)
		}
	}
	return d
}

var promises = map[string]link.Impairment{
	"1 %":             {Loss: link.Loss{Share: 0.01}},
	"30 %":            {Loss: link.Loss{Model: link.Bernoulli, Share: 0.3}},
	"bursts":          {Loss: link.Loss{Model: link.GilbertElliott, Share: 0.05, Burst: 8}},
	"delay":           {Delay: 20 * ms},
	"long delay":      {Delay: 400 * ms},
	"drift":           {Delay: 50 * ms, Jitter: 20 * ms},
	"reorder":         {Delay: 50 * ms, Jitter: 20 * ms, Reorder: true},
	"duplicates":      {Duplicate: 0.02},
	"corruption":      {Corrupt: 0.05},
	"slow":            {Rate: 1e6},
	"rate":            {Rate: 20e6, Queue: 60_000},
	"rate and delay":  {Rate: 5e6, Delay: 30 * ms},
	"high rate":       {Rate: 200e6},
	"cut":             {Cut: true},
	"bursts and more": {Loss: link.Loss{Model: link.GilbertElliott, Share: 0.1, Burst: 3}, Delay: 30 * ms, Jitter: 10 * ms},
	"trace":           {Loss: link.Loss{Model: link.Trace, Trace: []bool{true, false, false, false, true, true, false, false, false, false}}},
}

func TestWhatIsPromisedAndHappensIsConfirmed(t *testing.T) {
	const seeds = 8
	for name, i := range promises {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := 0
			for seed := range uint64(seeds) {
				e := Judge(window, t0, stop, watched(i, path{during: i}, seed))
				if e.Status != evidence.Confirmed {
					failed++
					t.Logf("seed %d: %s: %s", seed, e.Status, e.Detail)
				}
			}
			// Chance is allowed one of them: the tolerance is 3.5 standard deviations of several measures.
			if failed > 1 {
				t.Errorf("%d of %d seeds are not confirmed", failed, seeds)
			}
		})
	}
}

// Each promise with injectors that do something else.
func TestSabotageIsAMismatch(t *testing.T) {
	bursts := promises["bursts"]
	for _, c := range []struct {
		name   string
		does   link.Impairment
		detail string
	}{
		{"1 %", link.Impairment{Loss: link.Loss{Share: 0.004}}, "lost upwards"},
		{"1 %", link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 0.01, Burst: 4}}, "lost"},
		{"1 %", link.Impairment{Corrupt: 0.01}, "lost upwards"},
		{"30 %", link.Impairment{Cut: true}, "lost upwards 100"},
		{"bursts", link.Impairment{Loss: link.Loss{Share: 0.05}}, "lost in a row"},
		{"bursts", link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 0.05, Burst: 3}}, "lost in a row"},
		{"bursts", link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 0.02, Burst: 8}}, "lost upwards"},
		{"bursts", link.Impairment{Loss: bursts.Loss, Delay: 100 * ms}, "later"},
		{"delay", link.Impairment{Delay: 10 * ms}, "later by upwards 10"},
		{"delay", link.Impairment{Delay: 40 * ms}, "later by"},
		{"delay", link.Impairment{Delay: 20 * ms, Jitter: 20 * ms}, "spread"},
		{"delay", link.Impairment{Loss: link.Loss{Share: 0.05}}, "later by"},
		{"drift", link.Impairment{Delay: 50 * ms}, "spread"},
		{"drift", link.Impairment{Delay: 50 * ms, Jitter: 9 * ms}, "spread"},
		{"drift", link.Impairment{Delay: 50 * ms, Jitter: 20 * ms, Reorder: true}, "overtaken"},
		{"reorder", link.Impairment{Delay: 50 * ms, Jitter: 20 * ms}, "overtaken"},
		{"duplicates", link.Impairment{Duplicate: 0.005}, "repeated"},
		{"corruption", link.Impairment{Corrupt: 0.02}, "spoiled"},
		{"corruption", link.Impairment{Loss: link.Loss{Share: 0.05}}, "spoiled"},
		{"slow", link.Impairment{Rate: 2e6}, "pace"},
		{"rate", link.Impairment{Rate: 10e6, Queue: 60_000}, "pace"},
		{"rate", link.Impairment{Delay: 20 * ms}, "pace"},
		{"cut", link.Impairment{Loss: link.Loss{Share: 0.9}}, "lost upwards 9"},
		{"cut", link.Impairment{Delay: time.Second}, "lost upwards 0"},
	} {
		e := Judge(window, t0, stop, watched(promises[c.name], path{during: c.does}, 5))
		if e.Status != evidence.Mismatch || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s, and %+v happens: %s: %s, want a mismatch that says %q", c.name, c.does, e.Status, e.Detail, c.detail)
		}
	}
	for name, i := range promises {
		if e := Judge(window, t0, stop, watched(i, path{}, 6)); e.Status != evidence.Mismatch {
			t.Errorf("%s, and nothing happens: %s: %s", name, e.Status, e.Detail)
		}
		if e := Judge(window, t0, stop, watched(i, path{during: i, after: i}, 7)); e.Status != evidence.Mismatch {
			t.Errorf("%s, and it never ends: %s: %s", name, e.Status, e.Detail)
		}
		if e := Judge(window, t0, stop, watched(i, path{before: link.Impairment{Loss: link.Loss{Share: 0.1}}, during: i}, 8)); e.Status != evidence.Inconclusive {
			t.Errorf("%s, on a path that loses a tenth before: %s: %s", name, e.Status, e.Detail)
		}
	}
}

// A machine that has more to do when the fault is over takes a little longer: that is no delay that goes on.
func TestWhatIsLateAfterADelay(t *testing.T) {
	for _, c := range []struct {
		promise, after time.Duration
		status         string
	}{
		{300 * ms, 5 * ms, evidence.Confirmed},
		{300 * ms, 40 * ms, evidence.Mismatch},
		{20 * ms, 8 * ms, evidence.Confirmed},
		{20 * ms, 14 * ms, evidence.Mismatch},
	} {
		i := link.Impairment{Delay: c.promise}
		d := watched(i, path{during: i, after: link.Impairment{Delay: c.after}}, 3)
		if e := Judge(window, t0, stop, d); e.Status != c.status {
			t.Errorf("%s after a delay of %s: %s: %s", c.after, c.promise, e.Status, e.Detail)
		}
		for k := range d.Records {
			if d.Records[k].Sent > window.Restored.Sub(t0) {
				d.Records[k].Lag = 30 * ms
			}
		}
		if e := Judge(window, t0, stop, d); c.status == evidence.Mismatch && (e.Status != evidence.Inconclusive || !strings.Contains(e.Detail, tooBusy)) {
			t.Errorf("%s after a delay of %s, on a machine that is too busy by then: %s: %s", c.after, c.promise, e.Status, e.Detail)
		}
	}
}

// What is held up for long is watched for as long as it takes to see the end of it; what would take longer than anybody looks is no
// promise that can be kept.
func TestWhatIsHeldUpForLongIsSeenToEnd(t *testing.T) {
	for name, i := range map[string]link.Impairment{
		"delay": {Delay: 10 * time.Second}, "delay and jitter": {Delay: 8 * time.Second, Jitter: 8 * time.Second, Reorder: true},
		"rate": {Rate: 16e3}, "rate and delay": {Rate: 64e3, Delay: 2 * time.Second},
	} {
		after := PaceFor(i, length).after(i)
		if err := tooLong(i.Longest(), after); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for status, c := range map[string]struct {
			after time.Duration
			path  path
		}{
			evidence.Confirmed:    {after, path{during: i}},
			evidence.Mismatch:     {after, path{during: i, after: i}},
			evidence.Inconclusive: {5 * time.Second, path{during: i}},
		} {
			end := window.Restored.Sub(t0) + c.after
			if e := Judge(window, t0, end, watchedUntil(end, window, i, c.path, 2)); e.Status != status {
				t.Errorf("%s, watched for %s after it: %s: %s, want %s", name, c.after, e.Status, e.Detail, status)
			}
		}
	}
	for _, i := range []link.Impairment{{Delay: 40 * time.Second}, {Rate: 1e6, Queue: 8 << 20}} {
		if err := tooLong(i.Longest(), PaceFor(i, length).after(i)); err == nil {
			t.Errorf("%+v is seen to end", i)
		}
	}
}

// A train that a phase begins in the midst of is of neither phase: two halves would look like a slow one, whatever the rate.
func TestTrainsStayWhole(t *testing.T) {
	i := promises["rate"]
	honest, idle := watched(i, path{during: i}, 5), watched(i, path{}, 5)
	// midst is a moment so long before which a phase begins that it begins with the tenth packet of a train.
	midst := func(from time.Time, before time.Duration) time.Time {
		for _, r := range honest.Records {
			if r.Sent > from.Sub(t0)+before {
				return t0.Add(r.Sent + 9*3*time.Microsecond - before)
			}
		}
		return from
	}
	during, after := window, window
	during.Injected = midst(window.Injected, settle)
	after.Restored = midst(window.Restored, settle+i.Longest())
	if e := Judge(during, t0, stop, idle); e.Status != evidence.Mismatch {
		t.Errorf("nothing was done: %s: %s", e.Status, e.Detail)
	}
	if e := Judge(after, t0, stop, honest); e.Status != evidence.Confirmed {
		t.Errorf("all was done: %s: %s", e.Status, e.Detail)
	}
}

// The other direction is to stay as it was.
func TestTheWrongWayIsAMismatch(t *testing.T) {
	for name, i := range promises {
		ups, downs := watched(i, path{}, 1), watched(link.Impairment{}, path{during: i}, 2)
		downs.Name = "downwards"
		if e := Judge(window, t0, stop, ups, downs); e.Status != evidence.Mismatch {
			t.Errorf("%s the wrong way: %s: %s", name, e.Status, e.Detail)
		}
		ups = watched(i, path{during: i}, 1)
		if i.Delay > busySlack+10*ms || i.Delay == 0 && i.Rate == 0 {
			if e := Judge(window, t0, stop, ups, downs); e.Status != evidence.Mismatch {
				t.Errorf("%s both ways: %s: %s", name, e.Status, e.Detail)
			}
		}
	}
}

func TestTooLittleIsInconclusive(t *testing.T) {
	rare := link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 0.001, Burst: 20}}
	good := promises["30 %"]
	whole := watched(good, path{during: good}, 1)
	endless := evidence.Window{Inject: second(5.9), Injected: second(6), Restore: second(32), Restored: second(32)}
	for name, c := range map[string]struct {
		window     evidence.Window
		directions []Direction
	}{
		"bursts so rare that half of them look the same": {window, []Direction{watched(rare, path{during: rare}, 1)}},
		"no packet during it":                            {window, []Direction{{Name: "upwards", Promise: good, Records: whole.Records[:100]}}},
		"none before it":                                 {evidence.Window{Inject: second(0), Injected: second(0), Restore: second(26), Restored: second(26)}, []Direction{whole}},
		"none after it":                                  {endless, []Direction{watchedIn(endless, good, path{during: good}, 1)}},
		"an observer that lost packets itself":           {window, []Direction{{Name: "upwards", Promise: good, Train: 1, Size: 100, Records: whole.Records, Own: len(whole.Records) / 50}}},
		"an observer that sends late":                    {window, []Direction{late(whole)}},
		"an observer that sends little":                  {window, []Direction{thin(whole)}},
		"a fault that promises nothing":                  {window, []Direction{watched(link.Impairment{}, path{}, 1)}},
		"nothing at all":                                 {window, nil},
	} {
		if e := Judge(c.window, t0, stop, c.directions...); e.Status != evidence.Inconclusive {
			t.Errorf("%s: %s: %s", name, e.Status, e.Detail)
		}
	}
}

// late is the same, sent 30 ms late.
func late(d Direction) Direction {
	d.Records = append([]Record(nil), d.Records...)
	for i := range d.Records {
		d.Records[i].Lag = 30 * ms
	}
	return d
}

// thin is the same with two of three packets not sent at all.
func thin(d Direction) Direction {
	d.Every = PaceFor(d.Promise, length).Every
	var few []Record
	for i := 0; i < len(d.Records); i += 3 {
		few = append(few, d.Records[i])
	}
	d.Records = few
	return d
}

func TestMeasures(t *testing.T) {
	at := func(sent, took int) Record {
		return Record{Sent: time.Duration(sent) * ms, Arrived: time.Duration(sent+took) * ms, Copies: 1}
	}
	lost := func(sent int) Record { return Record{Sent: time.Duration(sent) * ms} }
	records := []Record{at(0, 10), at(1, 12), lost(2), lost(3), at(4, 20), at(5, 10), lost(6), at(7, 10), at(8, 10), at(9, 10)}
	records[1].Copies, records[0].Corrupt = 2, true
	m := Measure(records, 1, 100)
	if m.Packets != 10 || m.Loss != 0.3 || m.Bursts != 2 || m.Burst != 1.5 || m.Duplicates != 0.1 || m.Delay != 10*ms {
		t.Errorf("%+v", m)
	}
	if m.Corrupt != 1.0/7 || m.Reordered != 1.0/7 { // the one that took 20 ms
		t.Errorf("spoiled %g, overtaken %g, want a seventh each", m.Corrupt, m.Reordered)
	}
	// In the order of arrival the transit times are 10, 12, 10, 10, 10, 10, 20.
	if want := 14 * ms / 6; m.Jitter != want {
		t.Errorf("jitter %s, want %s", m.Jitter, want)
	}
	train := []Record{at(0, 1), at(0, 2), at(0, 3), at(0, 4)}
	if m := Measure(train, 4, 1000-ipHeaders); m.Rate != 8e6 { // 1000 bytes a millisecond
		t.Errorf("rate %g", m.Rate)
	}
	if m := Measure(nil, 1, 100); m.Packets != 0 || m.Loss != 0 {
		t.Errorf("of nothing: %+v", m)
	}
	if m := Measure([]Record{lost(0), lost(1)}, 1, 100); m.Loss != 1 || m.Burst != 2 {
		t.Errorf("of a cut: %+v", m)
	}
}

func TestPaceIsBounded(t *testing.T) {
	for name, i := range promises {
		for _, d := range []time.Duration{0, 2 * time.Second, time.Minute, 24 * time.Hour} {
			p := PaceFor(i, d)
			perSecond := float64(p.Train) / p.Every.Seconds()
			if p.Size < leastSize || p.Size > mostSize || p.Train < 1 || p.Every <= 0 || perSecond > mostPerSecond*1.01 {
				t.Errorf("%s for %s: %+v", name, d, p)
			}
			if kept := perSecond * (d + 90*time.Second).Seconds(); kept > mostKept {
				t.Errorf("%s for %s: there is no room for %.0f packets", name, d, kept)
			}
			if i.Rate > 0 && perSecond*float64(p.Size+ipHeaders)*8 > i.Rate/2 {
				t.Errorf("%s: the probe alone would fill the path: %+v", name, p)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	b := make([]byte, 100)
	header{probe: 7, way: 1, seq: 9}.marshal(b)
	f.Add(b, 100)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		h, intact, ok := parse(b, size)
		if intact && !ok {
			t.Error("intact, and nobody knows which")
		}
		if intact {
			again := make([]byte, len(b))
			h.marshal(again)
			if string(again) != string(b) {
				t.Error("intact, and other bytes than were sent")
			}
		}
	})
}

func TestAFlippedBitIsSeenAndThePacketKnown(t *testing.T) {
	b := make([]byte, 100)
	want := header{probe: 7, way: 1, seq: 1 << 40}
	want.marshal(b)
	if h, intact, ok := parse(b, 100); h != want || !intact || !ok {
		t.Fatalf("%+v %v %v", h, intact, ok)
	}
	for bit := range 800 {
		b[bit/8] ^= 1 << (bit % 8)
		if h, intact, ok := parse(b, 100); h != want || intact || !ok {
			t.Fatalf("bit %d: %+v, intact %v, known %v", bit, h, intact, ok)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	if _, _, ok := parse(b[:99], 100); ok {
		t.Error("a short packet is taken")
	}
}

// Where others share a bottleneck, a flow of its own sees as much harm as was promised, or more; never less.
func TestWhoSharesABottleneck(t *testing.T) {
	for _, c := range []struct {
		f     finding
		holds bool
	}{
		{finding{expected: 60, measured: 150, tolerance: 10, bound: orMore}, true},
		{finding{expected: 60, measured: 55, tolerance: 10, bound: orMore}, true},
		{finding{expected: 60, measured: 20, tolerance: 10, bound: orMore}, false},
		{finding{expected: 20, measured: 6, tolerance: 2, bound: orLess}, true},
		{finding{expected: 20, measured: 40, tolerance: 2, bound: orLess}, false},
		{finding{expected: 20, measured: 6, tolerance: 2}, false},
	} {
		if c.f.holds() != c.holds {
			t.Errorf("%+v", c.f)
		}
	}
	shared := Direction{Name: "upwards", Promise: link.Impairment{Rate: 20e6, Delay: 60 * time.Millisecond}, Shared: true, Train: 10, Size: 1000}
	var bounds []bound
	for _, f := range compare(shared, Measures{}, Measures{}, []Record{{Copies: 1}}) {
		bounds = append(bounds, f.bound)
	}
	if !slices.Contains(bounds, orLess) || !slices.Contains(bounds, orMore) {
		t.Errorf("bounds %v", bounds)
	}
}
