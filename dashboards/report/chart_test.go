package report

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// However coarse the drawing, the worst second of every measure is on it.
func TestBinsKeepTheWorst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5000).Draw(t, "seconds")
		first := rapid.IntRange(-30, 30).Draw(t, "first")
		maxBins := rapid.IntRange(1, 600).Draw(t, "bins")
		var in []Second
		value := rapid.Float64Range(-1, 1000)
		for i := range n {
			in = append(in, Second{T: first + i, PlayFailures: math.Abs(float64(i*7919%n) - 3), RebufferRatio: float64(i * 31 % n), Sessions: float64(i * 17 % n), LiveLatencyP95S: -1})
		}
		in[n-1].LiveLatencyP95S = value.Draw(t, "latency")
		out, width := bins(in, maxBins)
		if len(out) > maxBins+1 { // one more where the first bin begins before the first second
			t.Fatalf("%d bins of %d s for %d s, at most %d asked", len(out), width, n, maxBins)
		}
		worst := bin{sessionsMin: math.Inf(1), p95: -1}
		seconds := 0
		for _, b := range out {
			worst.fails, worst.rebuffer, worst.p95 = max(worst.fails, b.fails), max(worst.rebuffer, b.rebuffer), max(worst.p95, b.p95)
			worst.sessions, worst.sessionsMin = max(worst.sessions, b.sessions), min(worst.sessionsMin, b.sessionsMin)
			seconds += b.n
		}
		want := bin{sessionsMin: math.Inf(1), p95: -1}
		for _, s := range in {
			want.fails, want.rebuffer, want.p95 = max(want.fails, s.PlayFailures), max(want.rebuffer, s.RebufferRatio), max(want.p95, s.LiveLatencyP95S)
			want.sessions, want.sessionsMin = max(want.sessions, s.Sessions), min(want.sessionsMin, s.Sessions)
		}
		if worst != want || seconds != n {
			t.Fatalf("drawn %+v of %d s, recorded %+v of %d s", worst, seconds, want, n)
		}
	})
}

func TestOneBadSecondOfThreeHoursIsDrawn(t *testing.T) {
	r := sampleLong()
	for _, l := range []layout{wide, narrow} {
		c := r.drawChart(l)
		at := c.X0 + (7777-c.T0)/(c.T1-c.T0)*(c.X1-c.X0)
		for _, p := range c.Panels {
			if p.Kind != "starts" && p.Kind != "rebuffer" {
				continue
			}
			if !drawnNear(p, "solid", at) {
				t.Errorf("%s: nothing drawn in panel %s near x=%.1f", l.class, p.Kind, at)
			}
		}
	}
}

// drawnNear says whether a path of the class begins or moves within 3 units of x.
func drawnNear(p panel, class string, x float64) bool {
	for _, a := range p.Areas {
		if !strings.HasPrefix(a.Class, class) {
			continue
		}
		for _, sub := range strings.Split(a.D, "M")[1:] {
			if v := leadingFloat(sub); math.Abs(v-x) < 3 {
				return true
			}
		}
	}
	return false
}

func leadingFloat(s string) (v float64) {
	scale := 0.0
	for _, r := range s {
		switch {
		case r == '.':
			scale = 1
		case r >= '0' && r <= '9':
			v = v*10 + float64(r-'0')
			scale *= 10
		default:
			if scale > 0 {
				v /= scale
			}
			return v
		}
	}
	return v
}

func TestNobodyReportingIsAGap(t *testing.T) {
	r := &Report{Verdict: Go, Timeline: []Second{{T: 0, LiveLatencyS: 5}, {T: 1, LiveLatencyS: 5}, {T: 2, LiveLatencyS: -1}, {T: 3, LiveLatencyS: 5}, {T: 5, LiveLatencyS: 5}, {T: 6, LiveLatencyS: 5}}}
	c := r.drawChart(wide)
	for _, p := range c.Panels {
		for _, a := range p.Areas {
			if a.Class == "line s-p50" && strings.Count(a.D, "M") != 3 {
				t.Errorf("drawn as %s, want three pieces", a.D)
			}
		}
	}
}

// Labels of overlapping faults never cover each other, and never leave the drawing.
func TestFaultLabelsStandApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Report{Timeline: sampleTimeline(120, 10, 10, 1e6, 1e6, 1)}
		for range rapid.IntRange(0, 20).Draw(t, "faults") {
			r.Faults = append(r.Faults, Fault{Fail: "region", Model: "crash", Where: rapid.StringN(0, 60, -1).Draw(t, "where"),
				AtS: rapid.Float64Range(-200, 400).Draw(t, "at"), ForS: rapid.Float64Range(0, 400).Draw(t, "for"), Evidence: Evidence{Status: Confirmed}})
		}
		for _, l := range []layout{wide, narrow} {
			c := r.drawChart(l)
			for i, a := range c.Bands {
				if a.X < c.X0-0.1 || a.X+a.W > c.X1+2.1 {
					t.Fatalf("band %+v outside %v to %v", a, c.X0, c.X1)
				}
				if a.Lane && (a.LabelX < 0 || a.LabelX+a.LabelW > c.W) {
					t.Fatalf("label %+v outside the drawing of %v", a, c.W)
				}
				for _, b := range c.Bands[:i] {
					if a.Lane && b.Lane && a.LaneY == b.LaneY && a.LabelX < b.LabelX+b.LabelW && b.LabelX < a.LabelX+a.LabelW {
						t.Fatalf("labels %+v and %+v overlap", a, b)
					}
				}
			}
		}
	})
}

func TestNoRebufferingIsSaid(t *testing.T) {
	r := sampleTarget()
	for _, l := range []layout{wide, narrow} {
		for _, p := range r.drawChart(l).Panels {
			if p.Kind != "rebuffer" {
				continue
			}
			if top := p.Grid[len(p.Grid)-1].Label; p.Empty != "none" || p.Peak != "" || top != "100" {
				t.Errorf("%s: says %q and %q, the axis ends at %s", l.class, p.Empty, p.Peak, top)
			}
			if p.EmptyY <= p.Y || p.EmptyY >= p.Y+p.H/2 {
				t.Errorf("%s: the word at %v is not within the upper half of %v to %v", l.class, p.EmptyY, p.Y, p.Y+p.H)
			}
		}
	}
}
