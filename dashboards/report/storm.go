package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// StormLimit is how many times the usual requests a second make the return of interrupted viewers a storm.
const StormLimit = 2

// Words names the interruption without its moment: "interruption of us-east".
func (s Storm) Words() string {
	if s.Region != "" {
		return "interruption of " + s.Region
	}
	if name, _, ok := strings.Cut(s.Name, " at T"); ok {
		return name
	}
	if s.Name == "" {
		return "interruption"
	}
	return s.Name
}

// Held says whether the return stayed below StormLimit times the usual requests.
func (s Storm) Held() bool { return s.Amplification < StormLimit }

// PeakWords is the peak in words: "1.4× the usual requests", or as a rate where nothing was usual.
func (s Storm) PeakWords() string {
	if s.Amplification <= 0 {
		return words.PerSecond(s.PeakPerS)
	}
	return words.Times(s.Amplification) + " the usual requests"
}

// BackWords says how long it took until 95 % of the viewers who were cut off were back: "after 38 s", or that they never were.
func (s Storm) BackWords() string {
	switch {
	case s.BackS >= 0:
		return "after " + words.Lasting(s.BackS)
	case s.Back > 0:
		return "never" + s.within() + ": " + partOf(s.Back, s.Viewers) + " came back"
	}
	return "not before the end"
}

// within is how long the return was followed: to the next interruption, or to the end of the event.
func (s Storm) within() string {
	if n := len(s.Series) - before; n > 0 {
		return " within " + words.Lasting(float64(n))
	}
	return ""
}

// ReturnWords says the same in a clause of its own: "95 % back after 38 s".
func (s Storm) ReturnWords() string {
	if s.BackS < 0 && s.Back > 0 {
		return partOf(s.Back, s.Viewers) + " of those cut off came back" + s.within()
	}
	return "95" + words.NBSP + "% back " + s.BackWords()
}

// Guidance says what the viewers came back by: "guided backoff" or "no backoff".
func (s Storm) Guidance() string {
	if s.Guided {
		return "guided backoff"
	}
	return "no backoff"
}

func (s Storm) tone() string {
	switch {
	case !s.Held():
		return "bad"
	case s.Guided:
		return "ok"
	}
	return "warn"
}

// worstStorms is the worst return with and the worst without guidance.
func (r *Report) worstStorms() (guided, unguided *Storm) {
	for i := range r.Storms {
		s := &r.Storms[i]
		w := &unguided
		if s.Guided {
			w = &guided
		}
		if *w == nil || s.Amplification > (*w).Amplification {
			*w = s
		}
	}
	return guided, unguided
}

// StormWords is what the retry storms come to in one sentence; "" without any.
func (r *Report) StormWords() string {
	g, u := r.worstStorms()
	switch {
	case g == nil && u == nil:
		return ""
	case u == nil && g.Held():
		return fmt.Sprintf("Guided backoff held: the return of %s peaked at %s.", words.Plural(g.Viewers, "viewer"), g.PeakWords())
	case u == nil:
		return fmt.Sprintf("Guided backoff did not hold: the return of %s peaked at %s.", words.Plural(g.Viewers, "viewer"), g.PeakWords())
	case g == nil:
		return fmt.Sprintf("Without backoff the return of %s peaked at %s.", words.Plural(u.Viewers, "viewer"), u.PeakWords())
	case g.Held() && u.Held():
		return fmt.Sprintf("Neither return became a storm: it peaked at %s with guided backoff, at %s without.", g.PeakWords(), words.Times(u.Amplification))
	case g.Held():
		return fmt.Sprintf("Backoff made the difference: the return peaked at %s with it, at %s without.", g.PeakWords(), words.Times(u.Amplification))
	case g.Amplification < 0.9*u.Amplification:
		return fmt.Sprintf("Backoff helped and did not hold: the return peaked at %s with it, at %s without.", g.PeakWords(), words.Times(u.Amplification))
	}
	return fmt.Sprintf("Backoff made no difference: the return peaked at %s with it, at %s without.", g.PeakWords(), words.Times(u.Amplification))
}

// stormCard is one return as the page shows it.
type stormCard struct {
	Tone, Mark, Chip, Name string
	Big, Small             string
	Plots                  []*plot
	Facts                  []fact
}

// maxStormCards bounds what the page shows; the rest is in report.json.
const maxStormCards = 8

var (
	stormWide   = layout{class: "wide", w: 500, left: 44, right: 8, charW: 6.5, ticksAbout: 7, maxBins: 240}
	stormNarrow = layout{class: "narrow", w: 334, left: 38, right: 8, charW: 6.5, ticksAbout: 5, maxBins: 120}
)

const stormHeight = 170

// stormScale is what all storms are drawn to, so that the eye can compare them.
type stormScale struct{ t1, top float64 }

// before is how many seconds of a storm's series lie before it.
const before = 10

// seen is the storm's series as values, from −10 s on, without what a later storm of the same run adds to it.
func (r *Report) seen(s Storm) []value {
	end := math.Inf(1)
	for _, o := range r.Storms {
		if d := o.AtS - s.AtS; d >= 1 {
			end = math.Min(end, math.Floor(d))
		}
	}
	var out []value
	for i, v := range s.Series {
		t := float64(i - before)
		if t >= end {
			break
		}
		out = append(out, value{t, t + 1, v})
	}
	return out
}

func (r *Report) stormScale() stormScale {
	sc := stormScale{t1: 30, top: 1}
	longest := 0.0
	for _, s := range r.Storms {
		calm := 1.25 * s.BasePerS
		for _, v := range r.seen(s) {
			longest = math.Max(longest, v.to)
			sc.top = math.Max(sc.top, v.v)
			if v.v > calm {
				sc.t1 = math.Max(sc.t1, v.to+8)
			}
		}
		sc.top = math.Max(sc.top, 2.4*s.BasePerS)
		sc.t1 = math.Max(sc.t1, math.Max(s.BackS, s.ForS)+8)
	}
	sc.t1 = math.Max(1, math.Min(sc.t1, longest))
	sc.top = nice(sc.top)
	return sc
}

// merged puts values together until at most n are left, the highest of each.
func merged(vs []value, n int) []value {
	each := (len(vs) + n - 1) / max(n, 1)
	if each <= 1 {
		return vs
	}
	var out []value
	for i, v := range vs {
		if i%each == 0 {
			out = append(out, v)
			continue
		}
		m := &out[len(out)-1]
		m.to, m.v = v.to, math.Max(m.v, v.v)
	}
	return out
}

func (r *Report) drawStorm(s Storm, sc stormScale, l layout) *plot {
	p, in := newPlot(l, stormHeight, -before, sc.t1, sc.top, 12)
	vs := merged(r.seen(s), l.maxBins)
	if s.ForS > 0 {
		p.Shades = append(p.Shades, shade{in.x(0), round1(math.Max(in.x(s.ForS)-in.x(0), 2))})
	} else {
		p.Shades = append(p.Shades, shade{in.x(0), 1.5})
	}
	class := "s-calm"
	if !s.Guided {
		class = "s-storm"
	}
	p.Areas = append(p.Areas, shape{"tint " + class, in.stepped(vs, true)})

	// What exceeds twice the usual is what threatens the service.
	limit := StormLimit * s.BasePerS
	if s.BasePerS > 0 && limit < sc.top {
		var over []value
		for _, v := range vs {
			if v.v > limit {
				over = append(over, v)
			}
		}
		for i, v := range over {
			d := fmt.Sprintf("M%g %gV%gH%gV%gZ", in.x(v.from), in.y(limit), in.y(v.v), in.x(v.to), in.y(limit))
			if i == 0 {
				p.Areas = append(p.Areas, shape{"over " + class, d})
				continue
			}
			p.Areas[len(p.Areas)-1].D += d
		}
	}
	p.Areas = append(p.Areas, shape{"line " + class, in.stepped(vs, false)})
	if s.BasePerS > 0 {
		if limit < sc.top {
			p.Areas = append(p.Areas, shape{"limit", fmt.Sprintf("M%g %gH%g", p.X0, in.y(limit), p.X1)})
		}
		p.Areas = append(p.Areas, shape{"usual", fmt.Sprintf("M%g %gH%g", p.X0, in.y(s.BasePerS), p.X1)})
	}

	// Words, the most telling first: later ones give way.
	peak := value{v: -1}
	for _, v := range vs {
		if v.from >= 0 && v.v > peak.v {
			peak = v
		}
	}
	if peak.v > 0 {
		x, y := in.x((peak.from+peak.to)/2), in.y(peak.v)
		p.Areas = append(p.Areas, shape{"dot " + class, fmt.Sprintf("M%g %gm-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0", x, y)})
		if y > (p.Top+p.Bottom)/2 { // above a low line, which goes on to the right
			y -= 13
		}
		p.say("strong", "peak "+words.PerSecond(s.PeakPerS), x+2, y+1)
	}
	if limit > 0 && limit < sc.top {
		// At the right end, above its line.
		text := "twice the usual"
		w := textWidth(text, 12)
		y := in.y(limit) - 4
		n := caption{Text: text, X: p.X1 - 2, Y: y, Anchor: "end", Left: p.X1 - 2 - w, Right: p.X1 - 2, Above: y - 11, Below: y + 3}
		if free(p.Captions, n) {
			p.Captions = append(p.Captions, n)
		}
	}
	if s.BackS > 0 && s.BackS < sc.t1 {
		x := in.x(s.BackS)
		p.Areas = append(p.Areas, shape{"back", fmt.Sprintf("M%g %gV%g", x, p.Top, p.Bottom)})
		p.say("", "95 % back", x, p.Top+10)
	}

	if room := in.x(s.ForS) - in.x(0) - 8; s.ForS > 0 && room > textWidth("no picture", 12) {
		y := p.Top + 10
		n := caption{Text: "no picture", X: round1(in.x(0) + 5), Y: y, Anchor: "start", Left: in.x(0), Right: in.x(s.ForS), Above: y - 11, Below: y + 3}
		if free(p.Captions, n) {
			p.Captions = append(p.Captions, n)
		}
	}

	step := timeStep((sc.t1 + before) / float64(l.ticksAbout))
	p.Ticks = timeTicks(0, sc.t1, step, l.w, in.x, func(t float64) string {
		if t == 0 {
			return "cut off"
		}
		return "+" + words.Lasting(t)
	})
	p.Title = strings.ToUpper(s.Words()[:1]) + s.Words()[1:] + ", " + s.Guidance()
	p.Descr = fmt.Sprintf("Play requests a second from 10 s before it: usually %s, peak %s, %s; above twice the usual for %s; 95 %% of %s watching again %s.",
		words.PerSecond(s.BasePerS), words.PerSecond(s.PeakPerS), s.PeakWords(), words.Lasting(s.AboveS), words.Plural(s.Viewers, "viewer"), s.BackWords())
	return p
}

func (p *page) storms(r *Report) {
	p.StormWords = r.StormWords()
	sc := r.stormScale()
	clk := words.Clock{Span: r.span()}
	asked := map[string]bool{} // requests for each viewer
	for _, s := range r.Storms {
		asked[words.Significant(s.Attempts, 3)] = true
	}
	for i, s := range r.Storms {
		if i == maxStormCards {
			p.MoreStorms = len(r.Storms) - i
			break
		}
		c := stormCard{Tone: s.tone(), Mark: "return", Chip: "guided backoff", Name: s.Words() + " at " + clk.At(s.AtS), Big: "–", Small: "the usual requests"}
		if !s.Guided {
			c.Chip = "no backoff: people press Play again"
		}
		if s.Amplification > 0 {
			c.Big = words.Times(s.Amplification)
		}
		for _, l := range []layout{stormWide, stormNarrow} {
			d := r.drawStorm(s, sc, l)
			d.ID = fmt.Sprintf("storm-%d-%s", i+1, l.class)
			c.Plots = append(c.Plots, d)
			p.Data = append(p.Data, figures{d.ID + "-figures", r.stormFigures(s, sc, d, l)})
		}
		who := words.Plural(s.Viewers, "viewer")
		if s.ForS > 0 {
			who += " for " + words.Lasting(s.ForS)
		}
		above := "never"
		if s.AboveS > 0 {
			above = "for " + words.Lasting(s.AboveS)
		}
		c.Facts = []fact{
			{"Peak", words.PerSecond(s.PeakPerS) + ", usually " + words.PerSecond(s.BasePerS)},
			{"Above twice the usual", above},
			{"95" + words.NBSP + "% watching again", s.BackWords()},
		}
		if len(asked) > 1 || len(r.Storms) == 1 {
			c.Facts = append(c.Facts, fact{"Requests for each viewer", words.Significant(s.Attempts, 3)})
		}
		c.Facts = append(c.Facts, fact{"Cut off", who})
		if s.Back > 0 && s.Viewers >= s.Back {
			c.Facts = append(c.Facts, fact{"Not back" + s.within(), words.Count(s.Viewers-s.Back) + " (" + partOf(s.Viewers-s.Back, s.Viewers) + ")"})
		}
		p.Storms = append(p.Storms, c)
	}
}

// stormFigures is what the crosshair says of a storm's drawing.
func (r *Report) stormFigures(s Storm, sc stormScale, d *plot, l layout) crosshair {
	x := crosshair{W: d.W, X0: d.X0, X1: d.X1, T0: -before, T1: sc.t1, Names: []string{"requests/s", "of the usual"}, Bins: []crosshairBin{}, Faults: []crosshairFault{}}
	for _, v := range merged(r.seen(s), l.maxBins) {
		if v.from >= sc.t1 {
			break
		}
		times := "–"
		if s.BasePerS > 0 {
			times = words.Times(v.v / s.BasePerS)
		}
		at := "+" + words.Lasting(v.from)
		if v.from < 0 {
			at = "−" + words.Lasting(-v.from)
		}
		x.Bins = append(x.Bins, crosshairBin{v.from, math.Min(v.to, sc.t1), at, []string{words.Significant(v.v, 4), times}})
	}
	return x
}
