package forecast_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

func predict(t testing.TB, e forecast.Event) *forecast.Prediction {
	t.Helper()
	p, err := forecast.Predict(e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// area is how many viewers a curve holds.
func area(p *forecast.Prediction) float64 {
	n := 0.0
	for i := 1; i < len(p.Curve); i++ {
		a, b := p.Curve[i-1], p.Curve[i]
		n += (a.Rate.P50 + b.Rate.P50) / 2 * (b.At - a.At).Seconds()
	}
	return n
}

func TestEveryKindHoldsItsAudience(t *testing.T) {
	for _, kind := range forecast.Kinds() {
		p := predict(t, forecast.Event{Kind: kind, Audience: 1e6, Regions: twoRegions, InstanceRate: 500, Headroom: .25})
		if got := area(p); math.Abs(got-1e6) > 1 {
			t.Errorf("%s: the curve holds %.0f of a million", kind, got)
		}
		if p.Total.P50 != 1e6 || p.Total.P90 < 1.3e6 || p.Total.P90 > 2e6 {
			t.Errorf("%s: total %v", kind, p.Total)
		}
		if p.PeakAt < -5*time.Second || p.PeakAt > 5*time.Second {
			t.Errorf("%s: peak at %v", kind, p.PeakAt)
		}
		r := p.Regions[0]
		if r.Region != "us-east" || math.Abs(r.Share-.54) > 1e-9 || math.Abs(r.Capacity-p.Peak.P90*.54*1.25) > 1e-6 || r.Instances != int(math.Ceil(r.Capacity/500)) {
			t.Errorf("%s: %+v of a peak %v", kind, r, p.Peak)
		}
	}
}

// What past events of the kind had in common is expected of the next one, the more of them there are.
func TestPastEventsTeachScaleAndShape(t *testing.T) {
	plain := predict(t, forecast.Event{Kind: "concert", Audience: 1e6})
	var past []forecast.Past
	lastScale, lastPeak := 1.0, plain.Peak.P50/1e6
	for n := 1; n <= 16; n *= 2 {
		for len(past) < n {
			past = append(past, forecast.Past{Kind: "concert", Expected: 1e5, Total: 2e5, Peak: 2e5 * 3 * plain.Peak.P50 / 1e6})
		}
		p := predict(t, forecast.Event{Kind: "concert", Audience: 1e6, Past: past})
		if p.Scale.P50 <= lastScale || p.Scale.P50 >= 2 {
			t.Errorf("%d events twice as large as expected: scale %.2f after %.2f", n, p.Scale.P50, lastScale)
		}
		if steep := p.Peak.P50 / p.Total.P50; steep <= lastPeak || steep > 3.1*plain.Peak.P50/1e6 {
			t.Errorf("%d events three times as steep: peak %.5f of the total after %.5f", n, steep, lastPeak)
		}
		lastScale, lastPeak = p.Scale.P50, p.Peak.P50/p.Total.P50
		if p.Learnt != n {
			t.Errorf("learnt of %d events, want %d", p.Learnt, n)
		}
	}
	if lastScale < 1.8 {
		t.Errorf("after 16 events the scale is %.2f, want nearly 2", lastScale)
	}
	others := slices.Clone(past)
	for i := range others {
		others[i].Kind = "launch"
	}
	if p := predict(t, forecast.Event{Kind: "concert", Audience: 1e6, Past: others}); p.Scale.P50 >= lastScale || p.Scale.P50 <= 1 {
		t.Errorf("events of another kind: scale %.2f, those of the same kind %.2f", p.Scale.P50, lastScale)
	}
	if p := predict(t, forecast.Event{Kind: "concert", Audience: 1e6, Past: past}); p.Sigma >= plain.Sigma {
		t.Errorf("sixteen events that agree leave sigma at %.2f, none at %.2f", p.Sigma, plain.Sigma)
	}
}

// Without an expected audience it is learnt, and brought to the hour of the day.
func TestTheAudienceIsLearnt(t *testing.T) {
	evening := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	past := []forecast.Past{{Kind: "launch", Total: 1e6, Start: evening}, {Kind: "launch", Total: 4e6, Start: evening}}
	if p := predict(t, forecast.Event{Kind: "launch", Past: past, Start: evening}); math.Abs(p.Total.P50-2e6) > 1 {
		t.Errorf("a launch like one of a million and one of four: %.0f, want the geometric mean, two million", p.Total.P50)
	}
	night := predict(t, forecast.Event{Kind: "launch", Past: past, Start: evening.Add(8 * time.Hour)})
	if night.Total.P50 > 1e6 || night.Total.P50 < 3e5 {
		t.Errorf("at four in the morning: %.0f", night.Total.P50)
	}
}

func TestMarketingMovesTheScale(t *testing.T) {
	typical := func(h float64) float64 { return math.Exp2(-h / 24) }
	none := predict(t, forecast.Event{Audience: 1e6})
	same := predict(t, forecast.Event{Audience: 1e6, Marketing: []forecast.Interest{{48, typical(48)}, {24, typical(24)}, {2, typical(2)}}})
	twice := predict(t, forecast.Event{Audience: 1e6, Marketing: []forecast.Interest{{48, 2 * typical(48)}, {24, 2 * typical(24)}, {2, 2 * typical(2)}}})
	early := predict(t, forecast.Event{Audience: 1e6, Marketing: []forecast.Interest{{96, 2 * typical(96)}}})
	if math.Abs(same.Scale.P50-1) > 1e-9 || same.Sigma >= none.Sigma {
		t.Errorf("typical interest: scale %v, sigma %.2f, without any %.2f", same.Scale.P50, same.Sigma, none.Sigma)
	}
	if twice.Scale.P50 < 1.5 || twice.Scale.P50 > 2 {
		t.Errorf("twice the typical interest two hours before: scale %.2f", twice.Scale.P50)
	}
	if early.Scale.P50 > 1.2 || early.Scale.P50 <= 1 {
		t.Errorf("twice the typical interest four days before: scale %.2f", early.Scale.P50)
	}
	if zero := predict(t, forecast.Event{Audience: 1e6, Marketing: []forecast.Interest{{24, 0}}}); zero.Scale.P50 != 1 {
		t.Errorf("no count of interest: scale %v", zero.Scale.P50)
	}
}

// The points of a window are a leg: the crowd arrives as predicted.
func TestPointsAreALeg(t *testing.T) {
	p := predict(t, forecast.Event{Audience: 2e6})
	points := p.Points(-time.Minute, 30*s)
	sch, err := audience.NewSchedule([]audience.Leg{{Curve: audience.Forecast, Points: points}}, 90*s)
	if err != nil {
		t.Fatal(err)
	}
	if got := sch.Rate(30 * s); math.Abs(got-p.Rate(-30*s).P50) > 1e-6 {
		t.Errorf("rate %v half a minute before the start, want %v", got, p.Rate(-30*s).P50)
	}
	if math.Abs(sch.Peak()-p.Peak.P50) > 1 {
		t.Errorf("peak %v, want %v", sch.Peak(), p.Peak.P50)
	}
	if p.Points(s, s) != nil || p.Rate(-24*time.Hour) != (forecast.Band{}) || p.Rate(24*time.Hour) != (forecast.Band{}) {
		t.Error("something outside the curve")
	}
}

func TestPredictProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := forecast.Event{Kind: rapid.SampledFrom(forecast.Kinds()).Draw(t, "kind"), Audience: rapid.Float64Range(1, 1e8).Draw(t, "audience")}
		for range rapid.IntRange(0, 6).Draw(t, "past") {
			total := rapid.Float64Range(1, 1e8).Draw(t, "total")
			e.Past = append(e.Past, forecast.Past{Kind: rapid.SampledFrom(forecast.Kinds()).Draw(t, "past kind"), Total: total,
				Peak: rapid.Float64Range(0, 1).Draw(t, "peak") * total, Expected: rapid.SampledFrom([]float64{0, 1, 1e4, 1e8}).Draw(t, "expected")})
		}
		p, err := forecast.Predict(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Curve {
			if !(m.Rate.P50 >= 0 && m.Rate.P90 >= m.Rate.P50) || math.IsInf(m.Rate.P90, 0) {
				t.Fatalf("%+v", m)
			}
		}
		if got := area(p); math.Abs(got/p.Total.P50-1) > 1e-6 {
			t.Fatalf("the curve holds %v, the total is %v", got, p.Total.P50)
		}
	})
}

func TestBadEvents(t *testing.T) {
	_, err := forecast.Predict(forecast.Event{Kind: "fight", Audience: -1, Headroom: -1, InstanceRate: -1,
		Marketing: []forecast.Interest{{1, -1}, {2, 1}}, Past: []forecast.Past{{Name: "ufc", Kind: "x", Total: 0}},
		Regions: []audience.Region{{Name: "a", Share: 1}, {Name: "a", Share: 1}}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`kind of event "fight"`, "audience of -1", "interest -1", "2 hours before the start after 1", "past event ufc: unknown kind", "total 0", "headroom -1", "carries -1", "region a is there twice"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if _, err := forecast.Predict(forecast.Event{}); err == nil || !strings.Contains(err.Error(), "neither an expected audience") {
		t.Errorf("error %v", err)
	}
}
