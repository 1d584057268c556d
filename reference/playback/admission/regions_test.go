package admission_test

import (
	"container/heap"
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/playback/admission"
)

type returns []time.Time

func (r returns) Len() int           { return len(r) }
func (r returns) Less(i, j int) bool { return r[i].Before(r[j]) }
func (r returns) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *returns) Push(x any)        { *r = append(*r, x.(time.Time)) }
func (r *returns) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// storm plays a region with a Poisson load, in shares of its capacity, until so many viewers (in seconds of capacity) have
// come. Then all lose their session and, after an interruption that the rest of the load does not feel, press Play again: as the policy that they hold
// says, or, being human, after two seconds give or take; who is shed does so again. It returns the most attempts in any
// second after the cut, in shares of the capacity.
func storm(t *testing.T, load, viewers float64, guided bool) (peak float64) {
	const capacity = 2000
	lots := rand.New(rand.NewPCG(11, 12))
	c := control(t, admission.Config{Capacity: capacity})
	c.Guide(guided)
	var back returns
	again := func(now time.Time, told time.Duration) {
		if !guided {
			told = time.Duration(2e9 * math.Exp(0.6*lots.NormFloat64()))
		}
		heap.Push(&back, now.Add(told))
	}
	var held []time.Duration
	attempts := map[int64]int{}
	fresh := begin
	for cut := (time.Time{}); cut.IsZero() || fresh.Sub(cut) < 100*time.Second; {
		now := fresh
		if len(back) > 0 && back[0].Before(now) {
			now = heap.Pop(&back).(time.Time)
		} else {
			fresh = fresh.Add(time.Duration(lots.ExpFloat64() / load / capacity * 1e9))
		}
		d := c.Start(now, admission.Request{Home: -1, Viewer: lots.Uint64()})
		if d.Admitted {
			held = append(held, d.Retry.After)
		} else {
			again(now, d.Retry.After)
		}
		if !cut.IsZero() {
			attempts[int64(now.Sub(cut)/time.Second)]++
		} else if float64(len(held)) >= viewers*capacity {
			cut = now
			for _, told := range held {
				again(now, told)
			}
		}
	}
	for _, n := range attempts {
		peak = max(peak, float64(n)/capacity)
	}
	return peak
}

// With guidance, load after an interruption stays below twice the capacity, and below twice what it was before unless there
// are more viewers than the longest wait has room for; without, they all come at once.
func TestRetryStorm(t *testing.T) {
	for _, s := range []struct{ load, viewers float64 }{{0.1, 2}, {0.3, 5}, {0.5, 2}, {0.5, 10}, {0.5, 25}, {0.7, 10}, {0.7, 30}, {0.9, 10}} {
		with, without := storm(t, s.load, s.viewers, true), storm(t, s.load, s.viewers, false)
		t.Logf("load %.1f of capacity, %2.0f s of capacity come back: peak %.2f of capacity, %.2f of the load before; unguided %.2f and %.2f",
			s.load, s.viewers, with, with/s.load, without, without/s.load)
		if with >= 2 || s.viewers <= 20*s.load && with >= 2*s.load {
			t.Errorf("load %v, %v viewers: a peak of %.2f of capacity", s.load, s.viewers, with)
		}
		if s.viewers >= 10 && without < 3 {
			t.Errorf("load %v, %v viewers: without guidance the peak is %.2f only: this proves nothing", s.load, s.viewers, without)
		}
	}
}

// Those who are shed are told to come back later the more of them there are, and in the end all get in.
func TestWaitsGrowWithTheBacklog(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity}), now: begin}
	w.offer(capacity/2, 5*time.Second, nil)
	mean := func(of time.Duration) float64 {
		sum, n := 0.0, 0.0
		w.offer(6*capacity, of, func(d admission.Decision) {
			if !d.Admitted {
				sum += d.Retry.After.Seconds()
				n++
			}
		})
		return sum / n
	}
	early := mean(100 * time.Millisecond)
	mean(5 * time.Second)
	late := mean(time.Second)
	if early > 10 || late < 2*early || late > 60 {
		t.Errorf("the mean wait is %.1f s at first and %.1f s after five seconds of storm", early, late)
	}
	w.c.Guide(false)
	if d := w.c.Start(w.now, admission.Request{Home: -1}); d.Retry != (admission.Retry{}) {
		t.Errorf("guidance is off, but %+v", d.Retry)
	}
}

// world is regions that tell each other of themselves twice a second.
func world(t *testing.T, names []string, capacity float64) []*admission.Control {
	cs := make([]*admission.Control, len(names))
	for i := range cs {
		cs[i] = control(t, admission.Config{Regions: names, Self: i, Capacity: capacity, Seed: uint64(i)})
	}
	return cs
}

func gossip(t *testing.T, now time.Time, cs []*admission.Control, silent ...int) {
	for i, c := range cs {
		raw, err := json.Marshal(c.Report(now))
		if err != nil {
			t.Fatal(err)
		}
		var r admission.Report
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		for j, other := range cs {
			if len(silent) == 0 || silent[0] != i {
				other.Hear(now, i, r)
			}
			_ = j
		}
	}
}

// advance offers rates (by region) for d, and returns each region's outcome.
func advance(t *testing.T, now *time.Time, cs []*admission.Control, d time.Duration, rates []float64, silent ...int) []outcome {
	out := make([]outcome, len(cs))
	for end := now.Add(d); now.Before(end); *now = now.Add(500 * time.Millisecond) {
		gossip(t, *now, cs, silent...)
		for i, c := range cs {
			w := &crowd{c: c, now: *now, n: uint64(now.UnixNano())}
			if rates[i] == 0 {
				for k := range time.Duration(5) {
					c.Step(now.Add(k * admission.Interval))
				}
				continue
			}
			o := w.offer(rates[i], 500*time.Millisecond, nil)
			out[i].offered += o.offered
			out[i].admitted += o.admitted
			out[i].handed += o.handed
		}
	}
	return out
}

func TestAFullRegionSpillsToOneWithRoom(t *testing.T) {
	const capacity = 1000
	cs := world(t, []string{"us-east", "us-west"}, capacity)
	now := begin
	if o := advance(t, &now, cs, 5*time.Second, []float64{900, 300}); o[0].handed != 0 {
		t.Errorf("within its capacity a region handed over %v starts", o[0].handed)
	}
	first := advance(t, &now, cs, time.Second, []float64{1500, 300})
	advance(t, &now, cs, 5*time.Second, []float64{1500, 300})
	o := advance(t, &now, cs, 5*time.Second, []float64{1500, 300})
	if first[0].handed > 200 {
		t.Errorf("%v of 1500 starts were handed over in the first second: weights must move over seconds", first[0].handed)
	}
	if o[0].admitted < 0.99*o[0].offered || o[0].handed < 0.30*o[0].offered || o[0].handed > 0.45*o[0].offered || o[1].handed != 0 {
		t.Errorf("east at 150 %% with west at 30 %%: %+v", o)
	}
	// The other region keeps room for its own.
	o = advance(t, &now, cs, 10*time.Second, []float64{3000, 300})
	if o[1].admitted < 0.999*o[1].offered || o[0].admitted-o[0].handed < 0.95*capacity*10 || o[0].handed < 0.5*capacity*10 {
		t.Errorf("east at 300 %% with west at 30 %%: %+v", o)
	}
	// When the other fills up as well, nothing is pushed around.
	advance(t, &now, cs, 5*time.Second, []float64{3000, 3000})
	if o = advance(t, &now, cs, 5*time.Second, []float64{3000, 3000}); o[0].handed+o[1].handed > 0 || o[0].admitted < 0.95*5*capacity || o[1].admitted < 0.95*5*capacity {
		t.Errorf("both full: %+v", o)
	}
	advance(t, &now, cs, 10*time.Second, []float64{500, 300})
	if o = advance(t, &now, cs, time.Second, []float64{500, 300}); o[0].handed > 0 {
		t.Errorf("calm again: %+v", o)
	}
	var told []bool
	changes, _ := cs[0].Changes()
	for _, ch := range changes {
		if ch.What == admission.Spilled {
			if told = append(told, ch.Engaged); ch.Engaged && ch.Region != 1 {
				t.Errorf("%+v", ch)
			}
		}
	}
	if len(told) == 0 || !told[0] || told[len(told)-1] {
		t.Errorf("spill-over was told as %v", told)
	}
}

func TestEvacuationMovesOverSecondsAndBack(t *testing.T) {
	cs := world(t, []string{"us-east", "us-west", "eu"}, 1000)
	now := begin
	rates := []float64{300, 300, 300}
	share := func() float64 {
		o := advance(t, &now, cs, time.Second, rates)
		if o[0].admitted != o[0].offered {
			t.Errorf("%v of %v are shed during an evacuation", o[0].offered-o[0].admitted, o[0].offered)
		}
		return o[0].handed / o[0].offered
	}
	rising := func(what string, last float64, until float64, down bool) {
		t.Helper()
		for i := range 6 {
			s := share()
			t.Logf("%s, second %d: %.2f leave", what, i+1, s)
			if d := s - last; down && d > 0.05 || !down && d < -0.05 || math.Abs(d) > 0.35 {
				t.Errorf("%s: the share that leaves goes from %.2f to %.2f within a second", what, last, s)
			}
			last = s
		}
		if math.Abs(last-until) > 0.01 {
			t.Errorf("%s: in the end %.2f leave, want %.2f", what, last, until)
		}
	}
	share()
	cs[0].Evacuate(true)
	rising("evacuated", 0, 1, false)
	if d := cs[1].Start(now, admission.Request{Home: 0, Viewer: 1}); d.Region != 1 || d.Handed {
		t.Errorf("west still settles viewers in the evacuated region: %+v", d)
	}
	cs[0].Evacuate(false)
	rising("back", 1, 0, true)
	cs[0].SetHealth(false)
	rising("unhealthy", 0, 1, false)
	cs[0].SetHealth(true)
	rising("healthy", 1, 0, true)
	changes, _ := cs[0].Changes()
	var moves int
	for _, ch := range changes {
		if ch.What == admission.WeightMoved && ch.Region == 0 {
			moves++
		}
	}
	if moves != 8 {
		t.Errorf("%d changes of weight are told, want each of four moves' begin and end: %+v", moves, changes)
	}
}

// Viewers of a region that is not heard of any more settle with who answers them, bit by bit; one that was never heard of
// keeps its own.
func TestASilentRegion(t *testing.T) {
	cs := world(t, []string{"us-east", "us-west"}, 1000)
	now := begin
	at := func() (stay float64) {
		for v := range uint64(1000) {
			if d := cs[0].Start(now, admission.Request{Home: 1, Viewer: v * v}); d.Region == 1 {
				stay++
			}
		}
		return stay / 1000
	}
	_ = cs[0].SetCapacity(now, 0)
	if s := at(); s != 1 {
		t.Errorf("never heard of: %v stay", s)
	}
	rates := []float64{10, 10}
	advance(t, &now, cs, 2*time.Second, rates)
	advance(t, &now, cs, 5500*time.Millisecond, rates, 1)
	if s := at(); s < 0.3 || s > 0.7 {
		t.Errorf("silent for 5.5 s, stale for 2.5: %v stay, want about half", s)
	}
	advance(t, &now, cs, 5*time.Second, rates, 1)
	if s := at(); s != 0 {
		t.Errorf("silent for 10 s: %v stay", s)
	}
	// There is nowhere to evacuate to: everybody stays.
	cs[0].Evacuate(true)
	if o := advance(t, &now, cs, 6*time.Second, []float64{100, 0}, 1); o[0].handed > 0 || o[0].admitted != o[0].offered {
		t.Errorf("%+v", o)
	}
}
