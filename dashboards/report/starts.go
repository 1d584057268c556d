package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// crowded says whether the timeline knows more of play starts than what came of them: what was due, what the service
// could take, what was forecast.
func (r *Report) crowded() bool {
	if r.hasForecast() {
		return true
	}
	for _, s := range r.Timeline {
		if s.Scheduled > 0 || s.Capacity > 0 || s.Requests > 0 {
			return true
		}
	}
	return false
}

// hasRetries says whether requests were seen to be more than the play starts they were for.
func (r *Report) hasRetries() bool {
	var requests, due float64
	for _, s := range r.Timeline {
		d := s.due()
		requests, due = requests+s.Requests, due+d
		if s.Requests > 1.1*d+10 {
			return true
		}
	}
	return requests > 1.01*due
}

// due is how many play starts were to be sent in the second, as far as is known.
func (s Second) due() float64 {
	if s.Scheduled > 0 {
		return s.Scheduled
	}
	return s.PlayStarts + s.PlayFailures
}

// startsPanel is the panel of play starts, nil where there was no load: what was started, what was not on top of it, and,
// where they are known, what was due, what was asked with every retry, what could be taken and what had been forecast.
func (r *Report) startsPanel(bs []bin, l layout, peak func(func(Second) float64, func(float64) string) string) *series {
	if !r.hasLoad() {
		return nil
	}
	highest := func(f func(bin) float64) (v float64) {
		for _, b := range bs {
			v = max(v, f(b))
		}
		return v
	}
	var (
		starts   = func(b bin) float64 { return b.starts }
		done     = func(b bin) float64 { return b.done }
		due      = func(b bin) float64 { return b.due }
		requests = func(b bin) float64 { return b.requests }
		capacity = func(b bin) float64 {
			if b.capacity <= 0 {
				return -1
			}
			return b.capacity
		}
	)
	s := new(series)
	s.Kind, s.Title = "starts", "Play starts a second"
	if r.crowded() {
		s.H = l.tall
	}
	exactly := func(v float64) string { return words.Significant(v, 3) + "/s" }
	s.Peak = peak(func(s Second) float64 { return s.PlayStarts }, exactly)
	s.Keys = []key{{Class: "s-ok", Label: "started"}}
	reach := max(highest(done), highest(due), 1)

	// Below everything: what had been forecast.
	if r.hasForecast() {
		p50, p90 := r.Forecast.highest()
		reach = max(reach, min(max(p50, p90), 2*reach))
		s.Keys = append(s.Keys, key{Class: "s-fc", Label: "forecast, P50 to P90", Box: true})
		s.draws = append(s.draws, func(s *series, bs []bin, x func(float64) float64) {
			in := frame{x: x, y: s.y, t0: float64(bs[0].t), t1: float64(bs[len(bs)-1].end)}
			s.Areas = append(s.Areas, r.Forecast.band(in)...)
		})
	}

	s.draws = append(s.draws, steps("tint s-ok", starts, true), steps("line s-ok", starts, false))

	// On top of what was started: what was not.
	other := func(b bin) (lo, hi float64) { return b.done - b.other, b.done }
	shed := func(b bin) (lo, hi float64) { return b.done - b.other - b.shed, b.done - b.other }
	if highest(func(b bin) float64 { return b.shed }) > 0 {
		s.Keys = append(s.Keys, key{Class: "s-shed", Label: "shed", Box: true})
		s.draws = append(s.draws, between("solid s-shed", shed))
		if highest(func(b bin) float64 { return b.other }) > 0 {
			s.Keys = append(s.Keys, key{Class: "s-fail", Label: "failed or dropped", Box: true})
		}
	} else {
		s.Keys = append(s.Keys, key{Class: "s-fail", Label: "failed, shed or dropped", Box: true})
	}
	s.draws = append(s.draws, between("solid s-fail", other))

	if r.hasRetries() {
		reach = max(reach, highest(requests))
		s.Keys = append(s.Keys, key{Class: "s-req", Label: "requests, with every retry"})
		s.draws = append(s.draws, steps("line s-req", requests, false))
		s.Peak = peak(func(s Second) float64 { return s.Requests }, func(v float64) string { return words.Compact(math.Round(v)) + " requests/s" })
	}
	if highest(due) > 0 {
		s.Keys = append(s.Keys, key{Class: "s-due", Label: "scheduled"})
		s.draws = append(s.draws, steps("line s-due", due, false))
	}
	if most := highest(capacity); most > 0 {
		least := most
		for _, v := range r.Timeline {
			if v.Capacity > 0 {
				least = min(least, v.Capacity)
			}
		}
		label := "capacity " + words.PerSecond(most)
		if words.PerSecond(least) != words.PerSecond(most) {
			label = "capacity " + words.Compact(math.Round(least)) + " to " + words.PerSecond(most)
		}
		if least > 1.6*reach { // a chart that makes room for it would have none for what happened
			label += ", above the chart"
			s.Keys = append(s.Keys, key{Label: label, Class: "s-cap"})
		} else {
			reach = max(reach, min(most, 1.6*reach)*1.02)
			s.Keys = append(s.Keys, key{Label: label, Class: "s-cap"})
			top := reach
			s.draws = append(s.draws, steps("line s-cap", func(b bin) float64 {
				if v := capacity(b); v <= top {
					return v
				}
				return -1
			}, false))
		}
	}
	s.top = nice(reach)
	steps := 4.0
	if s.H > 0 {
		steps = 5
	}
	s.ticks = tidy(s.top, steps)
	return s
}

// between draws one flat step a bin from one value to another, at least 2 units high where there is anything.
func between(class string, f func(bin) (lo, hi float64)) func(*series, []bin, func(float64) float64) {
	return func(s *series, bs []bin, x func(float64) float64) {
		var d strings.Builder
		for i := 0; i < len(bs); {
			if lo, hi := f(bs[i]); !(hi > lo) || hi <= 0 {
				i++
				continue
			}
			// One closed shape for each unbroken stretch: along the top, and back along the foot.
			var back []string
			for first := true; i < len(bs); i++ {
				lo, hi := f(bs[i])
				if !(hi > lo) || hi <= 0 || !first && bs[i-1].end != bs[i].t {
					break
				}
				yLo, yHi := s.y(lo), s.y(hi)
				if yLo-yHi < 2 {
					yHi = math.Max(s.Y, yLo-2)
					yLo = yHi + 2
				}
				x0, x1 := x(float64(bs[i].t)), x(float64(bs[i].end))
				if first {
					fmt.Fprintf(&d, "M%g %gH%g", x0, round1(yHi), x1)
				} else {
					fmt.Fprintf(&d, "V%gH%g", round1(yHi), x1)
				}
				back = append(back, fmt.Sprintf("V%gH%g", round1(yLo), x0))
				first = false
			}
			for k := len(back) - 1; k >= 0; k-- {
				d.WriteString(back[k])
			}
			d.WriteByte('Z')
		}
		if d.Len() > 0 {
			s.Areas = append(s.Areas, shape{class, d.String()})
		}
	}
}

// tidy is round values from 0 up to top, at most so many steps of them: 0, 50k, 100k.
func tidy(top, most float64) []float64 {
	if !(top > 0) || !finite(top) {
		return []float64{0}
	}
	p := math.Pow(10, math.Floor(math.Log10(top/4)))
	step := 10 * p
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if top/(m*p) <= most+0.001 {
			step = m * p
			break
		}
	}
	out := []float64{0}
	for k := 1.0; k*step <= top*1.001 && len(out) < 8; k++ {
		out = append(out, k*step)
	}
	return out
}
