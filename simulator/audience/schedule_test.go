package audience_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tminus-live/tminus/simulator/audience"
)

const (
	s  = time.Second
	ms = time.Millisecond
)

func TestIntended(t *testing.T) {
	for _, tc := range []struct {
		name  string
		legs  []audience.Leg
		end   time.Duration
		total uint64
		want  map[uint64]time.Duration
	}{
		{"no legs", nil, 10 * s, 0, map[uint64]time.Duration{0: 10 * s}},
		{"constant", []audience.Leg{{Rate: 500}}, 10 * s, 5000,
			map[uint64]time.Duration{0: 0, 1: 2 * ms, 500: s, 4999: 9998 * ms, 5000: 10 * s}},
		{"a rate that is no binary fraction", []audience.Leg{{Rate: 100.1}}, 10 * s, 1001, nil},
		{"starts late", []audience.Leg{{At: 5 * s, Rate: 100}}, 10 * s, 500, map[uint64]time.Duration{0: 5 * s, 100: 6 * s}},
		{"excursion falls back to the base at once", []audience.Leg{{Rate: 10}, {At: 2 * s, Rate: 100, For: s}}, 5 * s, 10*2 + 100 + 10*2,
			map[uint64]time.Duration{19: 1900 * ms, 20: 2 * s, 21: 2010 * ms, 120: 3 * s, 121: 3100 * ms}},
		{"nobody presses Play in a pause", []audience.Leg{{Rate: 10, For: s}, {At: 4 * s, Rate: 10, For: s}}, 10 * s, 20,
			map[uint64]time.Duration{9: 900 * ms, 10: 4 * s, 19: 4900 * ms, 20: 10 * s}},
		{"ramp from nothing: half the rectangle", []audience.Leg{{Rate: 100, Curve: audience.Ramp}}, 10 * s, 500,
			map[uint64]time.Duration{0: 0, 125: 5 * s}},
		{"ramp from the base", []audience.Leg{{Rate: 100}, {At: s, Rate: 300, For: 2 * s, Curve: audience.Ramp}}, 4 * s, 100 + 400 + 100,
			map[uint64]time.Duration{100: s, 500: 3 * s, 501: 3010 * ms}},
		{"ramp down from an excursion", []audience.Leg{{Rate: 300, For: s}, {At: s, Rate: 100, For: 2 * s, Curve: audience.Ramp}}, 4 * s, 300 + 400,
			map[uint64]time.Duration{300: s, 700: 4 * s}},
		{"ramp to nothing", []audience.Leg{{Rate: 100, For: s}, {At: s, Rate: 0, Curve: audience.Ramp}}, 3 * s, 100 + 100,
			map[uint64]time.Duration{100: s, 175: 2 * s}},
		{"an open ramp's rate is the next base", []audience.Leg{{Rate: 10, Curve: audience.Ramp}, {At: 2 * s, Rate: 50, For: s}}, 4 * s, 10 + 50 + 10, nil},
		{"spike: a triangle", []audience.Leg{{Rate: 1000, For: 10 * s, Curve: audience.Spike}}, 20 * s, 5000,
			map[uint64]time.Duration{0: 0, 250: s, 1000: 2 * s}},
		{"spike on a base", []audience.Leg{{Rate: 100}, {At: s, Rate: 1100, For: 5 * s, Curve: audience.Spike}}, 7 * s, 100 + 3000 + 100,
			map[uint64]time.Duration{100: s, 700: 2 * s, 3100: 6 * s}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sch, err := audience.NewSchedule(tc.legs, tc.end)
			if err != nil {
				t.Fatal(err)
			}
			if sch.Total() != tc.total {
				t.Errorf("total %d, want %d", sch.Total(), tc.total)
			}
			for k, want := range tc.want {
				if got := sch.Intended(k); got < want-time.Microsecond || got > want+time.Microsecond {
					t.Errorf("start %d due at %v, want %v", k, got, want)
				}
			}
		})
	}
}

func TestRate(t *testing.T) {
	sch, err := audience.NewSchedule([]audience.Leg{{Rate: 100}, {At: s, Rate: 300, For: 2 * s, Curve: audience.Ramp}}, 4*s)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]float64{-s: 0, 0: 100, 999 * ms: 100, s: 100, 2 * s: 200, 2999 * ms: 299.9, 3 * s: 100, 4 * s: 0} {
		if got := sch.Rate(at); math.Abs(got-want) > 1e-9 {
			t.Errorf("rate at %v: %v, want %v", at, got, want)
		}
	}
	if sch.Peak() != 300 {
		t.Errorf("peak %v, want 300", sch.Peak())
	}
}

func TestBadLegsAreAllNamed(t *testing.T) {
	_, err := audience.NewSchedule([]audience.Leg{
		{At: 2 * s, Rate: -1},
		{At: s, Rate: 5, For: 20 * s},
		{At: 3 * s, Rate: math.NaN(), Curve: "sine"},
	}, 10*s)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"leg 0: rate -1", "leg 1: starts at 1s, not after", "leg 1: lasts until 21s", "past the event's end", "leg 2: rate NaN", `leg 2: unknown curve "sine"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestSinus(t *testing.T) {
	sch, err := audience.NewSchedule([]audience.Leg{{Rate: 100}, {At: 2 * s, Rate: 1000, Amplitude: 500, Period: 4 * s, For: 8 * s, Curve: audience.Sinus}}, 12*s)
	if err != nil {
		t.Fatal(err)
	}
	// Over whole periods a swing adds nothing.
	if want := uint64(200 + 8000 + 200); sch.Total() != want {
		t.Errorf("total %d, want %d", sch.Total(), want)
	}
	for at, want := range map[time.Duration]float64{s: 100, 2 * s: 1000, 3 * s: 1500, 4 * s: 1000, 5 * s: 500, 6 * s: 1000, 11 * s: 100} {
		if got := sch.Rate(at); math.Abs(got-want) > 1e-6 {
			t.Errorf("rate at %v: %v, want %v", at, got, want)
		}
	}
	if got := sch.Peak(); got != 1500 {
		t.Errorf("peak %v, want 1500", got)
	}
	// The half period above the line holds 2·amplitude/omega more: 2·500/(2π/4) = 636.6.
	if got := sch.Count(4*s) - sch.Count(2*s); got != 2637 {
		t.Errorf("%d starts in the first half period, want 2637", got)
	}
	// Half a rise is no crest.
	if sch, _ = audience.NewSchedule([]audience.Leg{{Rate: 10, Amplitude: 10, Period: 8 * s, Curve: audience.Sinus}}, s); math.Abs(sch.Peak()-10*(1+math.Sqrt2/2)) > 1e-6 {
		t.Errorf("peak %v of an eighth of a period", sch.Peak())
	}
}

func TestCurveOfPoints(t *testing.T) {
	points := []audience.Point{{At: s, Rate: 0}, {At: 3 * s, Rate: 200}, {At: 3 * s, Rate: 50}, {At: 5 * s, Rate: 50}}
	for _, tc := range []struct {
		name  string
		leg   audience.Leg
		total uint64
		rates map[time.Duration]float64
	}{
		{"as measured", audience.Leg{}, 20 + 200 + 100 + 10*2, map[time.Duration]float64{s: 10, 2 * s: 0, 3 * s: 100, 4 * s: 50, 5999 * ms: 50, 6 * s: 10}},
		{"scaled to a peak", audience.Leg{Rate: 400}, 20 + 400 + 200 + 10*2, map[time.Duration]float64{3 * s: 200, 5 * s: 100, 7 * s: 10}},
		{"cut off on the way to a point", audience.Leg{For: 2 * s}, 20 + 50 + 50, map[time.Duration]float64{2500 * ms: 50, 3 * s: 10}},
		{"cut off after a point", audience.Leg{For: 4 * s}, 20 + 200 + 50 + 30, map[time.Duration]float64{4500 * ms: 50, 5 * s: 10}},
		{"cut off before the first point", audience.Leg{For: 500 * ms}, 80, map[time.Duration]float64{3 * s: 10}},
		{"longer than the points", audience.Leg{For: 7 * s}, 20 + 200 + 100 + 10*2, map[time.Duration]float64{7 * s: 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := tc.leg
			l.At, l.Curve, l.Points = s, audience.CSV, points
			sch, err := audience.NewSchedule([]audience.Leg{{Rate: 10}, l}, 8*s)
			if err != nil {
				t.Fatal(err)
			}
			if sch.Total() != tc.total {
				t.Errorf("total %d, want %d", sch.Total(), tc.total)
			}
			for at, want := range tc.rates {
				if got := sch.Rate(at); math.Abs(got-want) > 1e-6 {
					t.Errorf("rate at %v: %v, want %v", at, got, want)
				}
			}
		})
	}
}

func TestBadCurves(t *testing.T) {
	up := []audience.Point{{Rate: 1}, {At: s, Rate: 2}}
	for want, l := range map[string]audience.Leg{
		"amplitude 20 outside":  {Rate: 10, Amplitude: 20, Period: s, Curve: audience.Sinus},
		"amplitude NaN":         {Rate: 10, Amplitude: math.NaN(), Period: s, Curve: audience.Sinus},
		"swings up to":          {Rate: audience.MaxRate, Amplitude: 1, Period: s, Curve: audience.Sinus},
		"period 1ms":            {Rate: 10, Amplitude: 1, Period: ms, Curve: audience.Sinus},
		"only a sinus":          {Rate: 10, Amplitude: 1},
		"only a csv":            {Rate: 10, Points: up},
		"a curve of 1 points":   {Curve: audience.CSV, Points: up[:1]},
		"a curve of 0 points":   {Curve: audience.Forecast},
		"point 1 at -1s":        {Curve: audience.CSV, Points: []audience.Point{{}, {At: -s}}},
		"point 1: rate -1":      {Curve: audience.CSV, Points: []audience.Point{{}, {At: s, Rate: -1}}},
		"a curve that lasts no": {Curve: audience.CSV, Points: []audience.Point{{At: s}, {At: s, Rate: 5}}},
	} {
		if _, err := audience.NewSchedule([]audience.Leg{l}, 10*s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// anyLegs draws legs that are in order.
func anyLegs(t *rapid.T, end time.Duration) []audience.Leg {
	var legs []audience.Leg
	at := time.Duration(0)
	for range rapid.IntRange(0, 5).Draw(t, "legs") {
		at += time.Duration(rapid.IntRange(1, 10_000).Draw(t, "gap ms")) * ms
		if at >= end {
			break
		}
		l := audience.Leg{At: at, Rate: rapid.Float64Range(0, 300).Draw(t, "rate"), Curve: audience.Curve(rapid.SampledFrom(audience.Curves()).Draw(t, "curve"))}
		switch l.Curve {
		case audience.Sinus:
			l.Amplitude = rapid.Float64Range(0, l.Rate).Draw(t, "amplitude")
			l.Period = time.Duration(rapid.IntRange(100, 20_000).Draw(t, "period ms")) * ms
		case audience.CSV, audience.Forecast:
			when := time.Duration(rapid.IntRange(0, 1000).Draw(t, "first ms")) * ms
			for range rapid.IntRange(2, 6).Draw(t, "points") {
				l.Points = append(l.Points, audience.Point{At: when, Rate: rapid.Float64Range(0, 300).Draw(t, "point rate")})
				when += time.Duration(rapid.IntRange(1, 5000).Draw(t, "point gap ms")) * ms
				if rapid.Bool().Draw(t, "step") {
					l.Points = append(l.Points, audience.Point{At: when, Rate: rapid.Float64Range(0, 300).Draw(t, "step to")})
				}
			}
			if l.Points[len(l.Points)-1].At == l.Points[0].At {
				l.Points[len(l.Points)-1].At++
			}
			if rapid.Bool().Draw(t, "as measured") {
				l.Rate = 0
			}
		}
		legs = append(legs, l)
		if n := len(legs); n > 1 && rapid.Bool().Draw(t, "excursion") {
			legs[n-2].For = max(ms, (at-legs[n-2].At)/2)
		}
	}
	return legs
}

// Whatever the legs: intended times never decrease, lie in the event, are the same to one who walks, and the number of
// starts due by t is the rate integrated up to t.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := time.Duration(rapid.IntRange(1000, 60_000).Draw(t, "end ms")) * ms
		sch, err := audience.NewSchedule(anyLegs(t, end), end)
		if err != nil {
			t.Fatal(err)
		}
		prev := time.Duration(-1)
		walk := sch.Walk()
		for k := range sch.Total() {
			got := sch.Intended(k)
			if got < prev || got < 0 || got >= end {
				t.Fatalf("start %d of %d due at %v after %v, event of %v", k, sch.Total(), got, prev, end)
			}
			if walked := walk.Intended(k); walked != got {
				t.Fatalf("start %d is due at %v, or at %v when walked to", k, got, walked)
			}
			prev = got
		}
		if got := sch.Intended(sch.Total()); got != end {
			t.Fatalf("start past the last is due at %v, want the end %v", got, end)
		}
		if k := rapid.Uint64Range(0, sch.Total()).Draw(t, "jump back to"); walk.Intended(k) != sch.Intended(k) {
			t.Fatalf("start %d after a jump: %v, want %v", k, walk.Intended(k), sch.Intended(k))
		}
		at := time.Duration(rapid.Int64Range(0, int64(end)).Draw(t, "count at"))
		if n := sch.Count(at); n > 0 && sch.Intended(n-1) >= at || n < sch.Total() && sch.Intended(n) < at {
			t.Fatalf("%d starts before %v, but start %d is due at %v", n, at, n, sch.Intended(n))
		}
		// Midpoint rule over 1 ms steps: exact but at the curves' corners.
		n, worst := 0.0, 0.0
		for x := time.Duration(0); x < end; x += ms {
			n += sch.Rate(x+ms/2) * ms.Seconds()
			worst = max(worst, math.Abs(n-float64(sch.Count(x+ms))))
		}
		if worst > 5 {
			t.Fatalf("the count of starts and the integrated rate are up to %v apart", worst)
		}
	})
}

// The time of a start in a swing is the exact inverse of the integral, to a nanosecond, also where the rate touches 0.
func TestSinusIsInvertedExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(1, 100_000).Draw(t, "rate")
		amp := rate * rapid.SampledFrom([]float64{.1, .5, .99, 1}).Draw(t, "amplitude")
		period := time.Duration(rapid.IntRange(100, 60_000).Draw(t, "period ms")) * ms
		sch, err := audience.NewSchedule([]audience.Leg{{Rate: rate, Amplitude: amp, Period: period, Curve: audience.Sinus}}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		omega := 2 * math.Pi / period.Seconds()
		upTo := func(d time.Duration) float64 { return rate*d.Seconds() + amp/omega*(1-math.Cos(omega*d.Seconds())) }
		k := rapid.Uint64Range(1, sch.Total()-1).Draw(t, "k")
		at := sch.Intended(k)
		if lo, hi := upTo(at-2), upTo(at+2); lo > float64(k)+1e-6 || hi < float64(k)-1e-6 {
			t.Fatalf("start %d at %v: the integral is %v 2 ns before and %v 2 ns after", k, at, lo, hi)
		}
	})
}

func BenchmarkIntended(b *testing.B) {
	sch, err := audience.NewSchedule([]audience.Leg{{Rate: 500}, {At: 15 * s, Rate: 100_000, For: 5 * s, Curve: audience.Ramp}}, 90*s)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		_ = sch.Intended(uint64(i) % sch.Total())
	}
}

// A pacer's way: one start after the other, over every sort of curve.
func BenchmarkWalk(b *testing.B) {
	var points []audience.Point
	for i := range 10_000 {
		points = append(points, audience.Point{At: time.Duration(i) * s, Rate: float64(50_000 + i%100*500)})
	}
	for name, leg := range map[string]audience.Leg{
		"ramp":         {Rate: 100_000, Curve: audience.Ramp},
		"sinus":        {Rate: 60_000, Amplitude: 40_000, Period: 30 * s, Curve: audience.Sinus},
		"10000 points": {Curve: audience.CSV, Points: points},
	} {
		b.Run(name, func(b *testing.B) {
			sch, err := audience.NewSchedule([]audience.Leg{leg}, time.Hour)
			if err != nil {
				b.Fatal(err)
			}
			w := sch.Walk()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_ = w.Intended(uint64(i) % sch.Total())
			}
		})
	}
}
