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

// Whatever the legs: intended times never decrease, lie in the event, and the number of starts due by t is the rate
// integrated up to t.
func TestScheduleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := time.Duration(rapid.IntRange(1000, 60_000).Draw(t, "end ms")) * ms
		var legs []audience.Leg
		at := time.Duration(0)
		for range rapid.IntRange(0, 5).Draw(t, "legs") {
			at += time.Duration(rapid.IntRange(1, 10_000).Draw(t, "gap ms")) * ms
			if at >= end {
				break
			}
			legs = append(legs, audience.Leg{At: at, Rate: rapid.Float64Range(0, 300).Draw(t, "rate"),
				Curve: audience.Curve(rapid.SampledFrom(audience.Curves()).Draw(t, "curve"))})
			if n := len(legs); n > 1 && rapid.Bool().Draw(t, "excursion") {
				legs[n-2].For = max(ms, (at-legs[n-2].At)/2)
			}
		}
		sch, err := audience.NewSchedule(legs, end)
		if err != nil {
			t.Fatal(err)
		}
		prev := time.Duration(-1)
		for k := range sch.Total() {
			got := sch.Intended(k)
			if got < prev || got < 0 || got >= end {
				t.Fatalf("start %d of %d due at %v after %v, event of %v", k, sch.Total(), got, prev, end)
			}
			prev = got
		}
		if got := sch.Intended(sch.Total()); got != end {
			t.Fatalf("start past the last is due at %v, want the end %v", got, end)
		}
		// Midpoint rule over 1 ms steps: exact but at the curves' corners.
		n := 0.0
		for x := time.Duration(0); x < end; x += ms {
			n += sch.Rate(x+ms/2) * ms.Seconds()
		}
		if math.Abs(n-float64(sch.Total())) > 4 {
			t.Fatalf("%d starts, the rate integrates to %v", sch.Total(), n)
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
