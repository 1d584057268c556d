package admission_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/playback/admission"
	"pgregory.net/rapid"
)

var begin = time.Unix(1_800_000_000, 0)

func control(t testing.TB, cfg admission.Config) *admission.Control {
	t.Helper()
	if cfg.Regions == nil {
		cfg.Regions = []string{"us-east"}
	}
	c, err := admission.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// crowd offers play starts to c in virtual time: rate a second, Poisson when lots is not nil. mix says what the i-th is for.
type crowd struct {
	c    *admission.Control
	lots *rand.Rand
	mix  func(u float64) admission.Kind
	now  time.Time
	n    uint64
}

type outcome struct {
	offered, admitted, handed float64
	kind                      [admission.Kinds]struct{ offered, admitted float64 }
}

func (w *crowd) offer(rate float64, d time.Duration, each func(admission.Decision)) outcome {
	var o outcome
	end := w.now.Add(d)
	for {
		gap := 1 / rate
		if w.lots != nil {
			gap *= w.lots.ExpFloat64()
		}
		next := w.now.Add(time.Duration(gap * 1e9))
		for at := w.now.Truncate(admission.Interval).Add(admission.Interval); at.Before(next) && at.Before(end); at = at.Add(admission.Interval) {
			w.c.Step(at)
		}
		if w.now = next; !next.Before(end) {
			w.now = end
			return o
		}
		w.n++
		k := admission.Live
		if w.mix != nil {
			k = w.mix(float64(w.n*617%1000) / 1000)
		}
		dec := w.c.Start(w.now, admission.Request{Kind: k, Home: -1, Viewer: w.n})
		o.offered++
		o.kind[k].offered++
		if dec.Admitted {
			o.admitted++
			o.kind[k].admitted++
		}
		if dec.Handed {
			o.handed++
		}
		if each != nil {
			each(dec)
		}
	}
}

// No congestive failure: however much is offered, 95 % of the capacity or more succeed, and never more than it.
func TestSuccessfulStartsDoNotFallUnderAnyLoad(t *testing.T) {
	mixed := func(u float64) admission.Kind {
		switch {
		case u < 0.4:
			return admission.Live
		case u < 0.5:
			return admission.CatchUp
		case u < 0.7:
			return admission.VOD
		}
		return admission.Prefetch
	}
	for _, poisson := range []bool{false, true} {
		for _, mix := range []func(float64) admission.Kind{nil, mixed} {
			for _, times := range []float64{1, 2, 6, 12} {
				const capacity = 1000
				w := &crowd{c: control(t, admission.Config{Capacity: capacity}), mix: mix, now: begin}
				if poisson {
					w.lots = rand.New(rand.NewPCG(7, uint64(times)))
				}
				const minute = 60
				o := w.offer(capacity*times, minute*time.Second, nil)
				got := o.admitted / capacity / minute
				t.Logf("poisson %-5v mixed %-5v %2.0fx: %.4f of capacity succeed, live %.3f of offered", poisson, mix != nil, times, got, o.kind[0].admitted/o.kind[0].offered)
				if got < 0.95 || got > 1.01 {
					t.Errorf("poisson %v, mixed %v, %vx: %.3f of the capacity succeed", poisson, mix != nil, times, got)
				}
				// 40 % of 2x is less than the capacity: live starts feel nothing.
				if mix != nil && times <= 2 && o.kind[admission.Live].admitted < 0.999*o.kind[admission.Live].offered {
					t.Errorf("poisson %v, %vx: %v of %v live starts succeed while others do", poisson, times, o.kind[admission.Live].admitted, o.kind[admission.Live].offered)
				}
				if mix != nil && times >= 6 && o.kind[admission.Prefetch].admitted > 0.02*o.kind[admission.Prefetch].offered {
					t.Errorf("poisson %v, %vx: %v prefetches succeed while live starts are shed", poisson, times, o.kind[admission.Prefetch].admitted)
				}
			}
		}
	}
}

// A twelvefold spike of prefetches takes what live play leaves, and nothing of it.
func TestAPrefetchSpikeDoesNotTouchLivePlay(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity}), lots: rand.New(rand.NewPCG(1, 2)), now: begin, mix: func(u float64) admission.Kind {
		if u < 0.5/12.5 {
			return admission.Live
		}
		return admission.Prefetch
	}}
	o := w.offer(12.5*capacity, 30*time.Second, nil)
	live := o.kind[admission.Live]
	if live.admitted/live.offered < 0.999 || o.admitted < 0.95*capacity*30 {
		t.Errorf("%.4f of live starts and %.3f of capacity", live.admitted/live.offered, o.admitted/capacity/30)
	}
}

// After a storm, everything is admitted again within five seconds, and every lever is released soon after.
func TestRecovery(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity}), lots: rand.New(rand.NewPCG(3, 2)), now: begin}
	w.offer(6*capacity, 60*time.Second, nil)
	w.offer(0.5*capacity, 1*time.Second, nil)
	if o := w.offer(0.5*capacity, time.Second, nil); o.admitted != o.offered {
		t.Errorf("a second after the load fell %v of %v are shed", o.offered-o.admitted, o.offered)
	}
	w.offer(0.5*capacity, 3*time.Second, nil)
	if w.c.Pulled() != 0 {
		t.Errorf("five seconds after the load fell levers are engaged: %+v", w.c.State(w.now).Levers)
	}
}

func TestThreshold(t *testing.T) {
	for x, want := range map[float64]float64{-1: 100, 0: 100, 0.35: 95.7, 0.8: 48.8, 0.95: 14.3, 1: 0, 2: 0} {
		if got := admission.Threshold(x); math.Abs(got-want) > 0.1 {
			t.Errorf("in overload %v the threshold is %v, want %v", x, got, want)
		}
	}
}

// What is measured of the service itself sheds the unimportant without any capacity given, and never live play.
func TestMeasuredOverloadShedsByPriority(t *testing.T) {
	c := control(t, admission.Config{MaxInFlight: 100, MaxQueue: 200 * time.Millisecond})
	now := begin
	run := func(l admission.Load) (admitted [admission.Kinds]bool) {
		for range 50 { // five seconds
			now = now.Add(admission.Interval)
			c.Observe(l)
			c.Step(now)
		}
		for k := range admission.Kind(admission.Kinds) {
			admitted[k] = c.Start(now, admission.Request{Kind: k, Home: -1}).Admitted
		}
		return
	}
	for _, s := range []struct {
		load admission.Load
		want [admission.Kinds]bool
	}{
		{admission.Load{}, [4]bool{true, true, true, true}},
		{admission.Load{InFlight: 35}, [4]bool{true, true, true, true}},
		{admission.Load{InFlight: 60}, [4]bool{true, true, true, false}},
		{admission.Load{Queue: 160 * time.Millisecond}, [4]bool{true, true, false, false}},
		{admission.Load{Queue: time.Minute}, [4]bool{true, false, false, false}},
		{admission.Load{}, [4]bool{true, true, true, true}},
	} {
		if got := run(s.load); got != s.want {
			t.Errorf("%+v: admitted %v, want %v", s.load, got, s.want)
		}
	}
}

func TestLeversInOrderWithHysteresis(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity}), now: begin}
	var order []string
	watch := func(rate float64, seconds int) {
		w.offer(rate, time.Duration(seconds)*time.Second, nil)
		changes, lost := w.c.Changes()
		for _, ch := range changes {
			if ch.What == admission.LeverMoved {
				s := "-"
				if ch.Engaged {
					s = "+"
				}
				order = append(order, s+ch.Lever.String())
				if ch.By != admission.ByLoad || ch.At.IsZero() {
					t.Errorf("%+v", ch)
				}
			}
		}
		if lost > 0 {
			t.Error("changes lost")
		}
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if len(order) != len(want) {
			t.Fatalf("%s: levers moved %v, want %v", what, order, want)
		}
		for i := range want {
			if order[i] != want[i] {
				t.Fatalf("%s: levers moved %v, want %v", what, order, want)
			}
		}
		order = nil
	}
	watch(700, 20)
	expect("at 70 %")
	watch(850, 20)
	expect("at 85 %", "+bookmarks")
	watch(700, 20)
	expect("back at 70 %: between its levels it stays")
	watch(3000, 20)
	expect("at 300 %", "+personalisation", "+top-rung", "+low-starts", "+live-only")
	watch(1080, 20)
	expect("at 108 %")
	watch(100, 20)
	expect("at 10 %", "-live-only", "-low-starts", "-top-rung", "-personalisation", "-bookmarks")
}

func TestALeverStaysForItsHold(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity, Bounds: [admission.Levers]admission.Bound{{Engage: 0.8, Release: 0.6, Hold: 10 * time.Second}}}), now: begin}
	w.offer(1500, 2*time.Second, nil)
	w.offer(100, 7*time.Second, nil)
	if !w.c.Pulled().Has(admission.Bookmarks) || w.c.Pulled().Has(admission.Personalisation) {
		t.Errorf("after 7 s of calm: %+v, want bookmarks alone", w.c.State(w.now).Levers)
	}
	w.offer(100, 4*time.Second, nil)
	if w.c.Pulled() != 0 {
		t.Error("after 11 s of calm the lever is still engaged")
	}
}

func TestAnOperatorsHand(t *testing.T) {
	const capacity = 1000
	w := &crowd{c: control(t, admission.Config{Capacity: capacity}), now: begin}
	w.c.Pull(w.now, admission.TopRung, admission.On)
	w.c.Pull(w.now, admission.Personalisation, admission.Off)
	w.offer(100, 10*time.Second, nil)
	if p := w.c.Pulled(); !p.Has(admission.TopRung) || p.Has(admission.Bookmarks) {
		t.Errorf("an operator's lever without load: %v", p)
	}
	w.offer(5000, 10*time.Second, nil)
	if p := w.c.Pulled(); p.Has(admission.Personalisation) || !p.Has(admission.Bookmarks) || !p.Has(admission.LiveOnly) {
		t.Errorf("load must move the others around the one that is kept off: %05b", p)
	}
	if l := w.c.State(w.now).Levers[admission.TopRung]; l.By != admission.ByOperator || l.Pull != "on" || !l.Engaged {
		t.Errorf("%+v", l)
	}
	w.c.Pull(w.now, admission.TopRung, admission.Auto)
	w.offer(100, 10*time.Second, nil)
	if p := w.c.Pulled(); p != 0 {
		t.Errorf("given back to load, without load: %05b", p)
	}
	w.c.Pull(w.now, admission.LowStarts, admission.On)
	if w.c.Start(w.now, admission.Request{Kind: admission.VOD}).Admitted || !w.c.Start(w.now, admission.Request{Kind: admission.CatchUp}).Admitted {
		t.Error("low-starts must shed on demand and catch nothing else")
	}
	w.c.Pull(w.now, admission.LiveOnly, admission.On)
	if w.c.Start(w.now, admission.Request{Kind: admission.CatchUp}).Admitted || !w.c.Start(w.now, admission.Request{}).Admitted {
		t.Error("live-only must shed catch-up and not live")
	}
}

func TestCapacityFollowsTheOperator(t *testing.T) {
	w := &crowd{c: control(t, admission.Config{}), now: begin}
	if o := w.offer(10_000, 2*time.Second, nil); o.admitted != o.offered {
		t.Error("without a capacity something was shed")
	}
	for _, capacity := range []float64{1000, 5000, 500} {
		if err := w.c.SetCapacity(w.now, capacity); err != nil {
			t.Fatal(err)
		}
		w.offer(10_000, time.Second, nil)
		if o := w.offer(10_000, 4*time.Second, nil); math.Abs(o.admitted-4*capacity) > 0.05*4*capacity {
			t.Errorf("%v of a capacity of %v", o.admitted/4, capacity)
		}
	}
	for _, wrong := range []float64{-1, math.NaN(), math.Inf(1)} {
		if w.c.SetCapacity(w.now, wrong) == nil {
			t.Errorf("a capacity of %v is taken", wrong)
		}
	}
}

func TestValidateReportsEverything(t *testing.T) {
	err := admission.Config{Self: 2, Regions: []string{"a"}, Capacity: -1, MaxInFlight: -1, Ramp: -1, Shortest: time.Minute,
		Bounds: [admission.Levers]admission.Bound{{Engage: 0.5, Release: 0.6}}}.Validate()
	for _, want := range []string{"region 2", "capacity", "bounds", "time of", "lever bookmarks", "spread viewers"} {
		if err == nil || !contains(err.Error(), want) {
			t.Errorf("%q is not reported: %v", want, err)
		}
	}
}

func contains(s, sub string) bool {
	for i := range len(s) - len(sub) + 1 {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

// Whatever is done in whatever order, what is admitted is within the capacity, counts add up and waits keep their bounds.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := admission.New(admission.Config{Regions: []string{"a", "b", "c"}, Self: 1, Capacity: 1000, Seed: rapid.Uint64().Draw(t, "seed")})
		if err != nil {
			t.Fatal(err)
		}
		now := begin
		var own, offered, shed int
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				c.Pull(now, admission.Lever(rapid.IntRange(0, admission.Levers-1).Draw(t, "lever")), admission.Mode(rapid.IntRange(0, 2).Draw(t, "mode")))
			case 1:
				c.Hear(now, rapid.IntRange(-1, 3).Draw(t, "peer"), admission.Report{Healthy: rapid.Bool().Draw(t, "up"), Evacuating: rapid.Bool().Draw(t, "leaves"),
					Capacity: 1000, Free: rapid.Float64Range(-10, 1e4).Draw(t, "free"), Handed: map[string]float64{"b": rapid.Float64Range(-10, 1e4).Draw(t, "handed")}})
			case 2:
				c.Evacuate(rapid.Bool().Draw(t, "evacuate"))
				c.SetHealth(rapid.Bool().Draw(t, "healthy"))
			case 3:
				c.Observe(admission.Load{InFlight: rapid.IntRange(0, 1e6).Draw(t, "in flight"), Queue: time.Duration(rapid.IntRange(0, 1e10).Draw(t, "queue"))})
			default:
				now = now.Add(time.Duration(rapid.IntRange(-1, 1e9).Draw(t, "pause")))
				for range rapid.IntRange(0, 50).Draw(t, "starts") {
					d := c.Start(now, admission.Request{Kind: admission.Kind(rapid.IntRange(0, 3).Draw(t, "kind")), Home: rapid.IntRange(-1, 3).Draw(t, "home"), Viewer: rapid.Uint64().Draw(t, "viewer")})
					offered++
					if !d.Admitted {
						shed++
					} else if !d.Handed {
						own++
					}
					if d.Retry.After < time.Second || d.Retry.After > time.Minute || d.Retry.Max != 3 {
						t.Fatalf("%+v", d.Retry)
					}
					if d.Handed && (d.Region == 1 || !d.Admitted) {
						t.Fatalf("%+v", d)
					}
				}
			}
		}
		if most := 1000*now.Sub(begin).Seconds() + 251; float64(own) > most {
			t.Fatalf("%d admitted, %v possible", own, most)
		}
		var sum admission.Totals
		for k := range admission.Kind(admission.Kinds) {
			n := c.Totals(k)
			sum.Offered, sum.Admitted, sum.Shed = sum.Offered+n.Offered, sum.Admitted+n.Admitted, sum.Shed+n.Shed
		}
		if int(sum.Offered) != offered || int(sum.Shed) != shed || sum.Admitted+sum.Shed != sum.Offered {
			t.Fatalf("%+v, want %d offered and %d shed", sum, offered, shed)
		}
		for r, w := range c.State(now).Weights {
			if !(w >= 0 && w <= 1) {
				t.Fatalf("weight of %s: %v", r, w)
			}
		}
	})
}

func BenchmarkStart(b *testing.B) {
	for name, capacity := range map[string]float64{"within": 0, "beyond": 1000} {
		b.Run(name, func(b *testing.B) {
			c := control(b, admission.Config{Capacity: capacity, Regions: []string{"us-east", "us-west"}})
			now := begin
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now = now.Add(10 * time.Microsecond)
				c.Start(now, admission.Request{Viewer: uint64(i)})
			}
		})
	}
}
