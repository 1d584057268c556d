package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

func (r *Report) hasForecast() bool { return r.Forecast != nil && len(r.Forecast.Bins) > 0 }

func (f *Forecast) highest() (p50, p90 float64) {
	for _, b := range f.Bins {
		p50, p90 = max(p50, b.P50), max(p90, b.P90)
	}
	return p50, p90
}

// ends gives bin i's end: the next one's beginning, the last as long as the one before it.
func (f *Forecast) ends(i int) float64 {
	switch {
	case i+1 < len(f.Bins):
		return f.Bins[i+1].T
	case i > 0:
		return f.Bins[i].T + math.Min(math.Max(f.Bins[i].T-f.Bins[i-1].T, 1), maxSeconds)
	}
	return f.Bins[i].T + 1
}

// span is the time that the bins cover.
func (f *Forecast) span() (t0, t1 float64) {
	return f.Bins[0].T, f.ends(len(f.Bins) - 1)
}

// through is one figure of the bins as points in their middle, thinned so that a long event stays a small drawing;
// figures below zero are left out.
func (f *Forecast) through(in frame, of func(Bin) float64) (out []point) {
	each := (len(f.Bins) + 399) / 400
	for i := 0; i < len(f.Bins); i += each {
		last := min(i+each, len(f.Bins)) - 1
		from, to := f.Bins[i].T, f.ends(last)
		if !(to > in.t0) || !(from < in.t1) {
			continue
		}
		p := point{(from + to) / 2, -1}
		for _, b := range f.Bins[i : last+1] {
			p.v = max(p.v, of(b))
		}
		if p.v >= 0 {
			out = append(out, p)
		}
	}
	return out
}

// band is the forecast beneath other figures: the ribbon from P50 to P90 and the line of P50.
func (f *Forecast) band(in frame) (out []shape) {
	p50 := f.through(in, func(b Bin) float64 { return math.Max(b.P50, 0) })
	p90 := f.through(in, func(b Bin) float64 { return math.Max(b.P90, 0) })
	if d := in.ribbon(p90, p50); d != "" {
		out = append(out, shape{"ribbon s-fc", d}, shape{"line s-fc", in.joined(p50)})
	}
	return out
}

// actual is what came, as one step a bin.
func (f *Forecast) actual() (out []value) {
	for i, b := range f.Bins {
		out = append(out, value{b.T, f.ends(i), b.Actual})
	}
	return merged(out, 400)
}

// Words is how right the forecast was, in a sentence or two.
func (f *Forecast) Words() string {
	s := fmt.Sprintf("Over the event the forecast was off by %s%% of those who came", words.Significant(f.ErrorPct, 2)+words.NBSP)
	if f.NowcastPct > 0 {
		s += fmt.Sprintf(", the nowcast 30%ss ahead by %s%%", words.NBSP, words.Significant(f.NowcastPct, 2)+words.NBSP)
	}
	s += "."
	if f.PeakPerS > 0 && f.ActualPerS > 0 {
		s += fmt.Sprintf(" A peak of %s was predicted and %s came", words.PerSecond(f.PeakPerS), words.PerSecond(f.ActualPerS))
		switch more := f.ActualPerS/f.PeakPerS - 1; {
		case more >= 0.005:
			s += ", " + words.Share(more+0.005) + " more than predicted."
		case more <= -0.005:
			s += ", " + words.Share(-more+0.005) + " less than predicted."
		default:
			s += "."
		}
	}
	return s
}

// aboveWords says how often more came than the high estimate.
func (f *Forecast) aboveWords() string {
	n := 0
	for _, b := range f.Bins {
		if b.Actual > b.P90 {
			n++
		}
	}
	if n == 0 {
		return "At no time did more come than the high estimate (P90)."
	}
	return fmt.Sprintf("In %s of %s stretches more came than the high estimate (P90).", words.Count(uint64(n)), words.Count(uint64(len(f.Bins))))
}

type (
	scalingRow struct{ At, Sign, Word, To string }

	// forecastBlock is the section as the page prints it.
	forecastBlock struct {
		Line, Words, Above        string
		Plots                     []*plot
		Warnings                  []string
		Scaling                   []scalingRow
		MoreWarnings, MoreScaling int
	}
)

// maxForecastLines bounds each list of the section; the rest is in report.json.
const maxForecastLines = 12

const forecastHeight = 230

var (
	forecastWide   = layout{class: "wide", w: 1080, left: 52, right: 12, charW: 6.5, ticksAbout: 12}
	forecastNarrow = layout{class: "narrow", w: 358, left: 38, right: 8, charW: 6.5, ticksAbout: 5, keysBelow: true}
)

// scalingSign says whether step i asked for more or less than the region had been given last.
func (f *Forecast) scalingSign(i int) (sign, word string) {
	for k := i - 1; k >= 0; k-- {
		if f.Scaling[k].Region == f.Scaling[i].Region {
			if f.Scaling[i].Capacity < f.Scaling[k].Capacity {
				return "▼", "down"
			}
			break
		}
	}
	return "▲", "up"
}

func (r *Report) drawForecast(l layout) *plot {
	f := r.Forecast
	t0, t1 := f.span()
	p50, p90 := f.highest()
	most, nowcasts := 1.0, 0
	for _, b := range f.Bins {
		most = max(most, b.Actual)
		if b.Nowcast >= 0 {
			nowcasts++
		}
	}
	top := max(most, p50)
	for _, b := range f.Bins {
		top = max(top, min(b.Nowcast, 2*most))
	}
	top = nice(max(top, min(p90, 2*top)))

	keys := []key{{Class: "s-ok", Label: "actual"}, {Class: "s-fc", Label: "forecast, P50 to P90", Box: true}}
	if nowcasts > 0 {
		keys = append(keys, key{Class: "s-now", Label: "nowcast, 30 s ahead"})
	}
	if len(f.Scaling) > 0 {
		keys = append(keys, key{Class: "s-scale", Label: "capacity scaled"})
	}
	const title = "Play starts a second"
	rows := placeKeys(keys, l, keyRoom{l.left, l.w - l.right, 16, title, ""})
	p, in := newPlot(l, forecastHeight, t0, t1, top, 36+18*float64(rows))
	p.Keys = keys
	p.Captions = append(p.Captions, caption{Class: "t", Text: title, X: p.X0, Y: 16, Anchor: "start"})

	vs := f.actual()
	p.Areas = append(p.Areas, shape{"tint s-ok", in.stepped(vs, true)})
	p.Areas = append(p.Areas, f.band(in)...)
	p.Areas = append(p.Areas, shape{"line s-ok", in.stepped(vs, false)})
	if nowcasts > 0 {
		p.Areas = append(p.Areas, shape{"line s-now", in.joined(f.through(in, func(b Bin) float64 { return b.Nowcast }))})
	}
	for i, s := range f.Scaling {
		if !(s.T >= t0 && s.T <= t1) {
			continue
		}
		tri := "M%g %gl-5 8h10z"
		y := p.Top - 12
		if sign, _ := f.scalingSign(i); sign == "▼" {
			tri, y = "M%g %gl-5 -8h10z", y+8
		}
		p.Areas = append(p.Areas, shape{"scale", fmt.Sprintf(tri, in.x(s.T), y)}, shape{"scale-line", fmt.Sprintf("M%g %gV%g", in.x(s.T), p.Top-2, p.Bottom)})
	}

	clk := words.Clock{Span: math.Max(r.span(), t1-t0)}
	step := timeStep((t1 - t0) / float64(l.ticksAbout))
	p.Ticks = timeTicks(t0, t1, step, l.w, in.x, clk.At)
	p.Title = "Forecast and actual play starts a second"
	p.Descr = f.Words() + " " + f.aboveWords()
	return p
}

func (p *page) forecast(r *Report) {
	f := r.Forecast
	if f == nil {
		return
	}
	b := &forecastBlock{Words: f.Words()}
	var line []string
	if f.Kind != "" {
		line = append(line, f.Kind)
	}
	if f.Viewers > 0 {
		line = append(line, words.Count(uint64(math.Min(math.Round(f.Viewers), 1e18)))+" viewers expected")
	}
	b.Line = strings.Join(line, ", ")
	clk := words.Clock{Span: r.span()}
	if r.hasForecast() {
		b.Above = f.aboveWords()
		for _, l := range []layout{forecastWide, forecastNarrow} {
			d := r.drawForecast(l)
			d.ID = "forecast-" + l.class
			b.Plots = append(b.Plots, d)
			p.Data = append(p.Data, figures{d.ID + "-figures", f.figures(d, clk)})
		}
	}
	b.Warnings = f.Warnings[:min(len(f.Warnings), maxForecastLines)]
	b.MoreWarnings = len(f.Warnings) - len(b.Warnings)
	for i, s := range f.Scaling {
		sign, word := f.scalingSign(i)
		row := scalingRow{clk.At(s.T), sign, word, s.Region + " to " + words.PerSecond(s.Capacity)}
		if last := len(b.Scaling) - 1; last >= 0 && b.Scaling[last].At == row.At && b.Scaling[last].Sign == sign && len(b.Scaling[last].To) < 200 {
			b.Scaling[last].To += ", " + row.To
			continue
		}
		if len(b.Scaling) == maxForecastLines {
			b.MoreScaling = len(f.Scaling) - i
			break
		}
		b.Scaling = append(b.Scaling, row)
	}
	p.Forecast = b
}

func (f *Forecast) figures(d *plot, clk words.Clock) crosshair {
	t0, t1 := f.span()
	x := crosshair{W: d.W, X0: d.X0, X1: d.X1, T0: t0, T1: t1, Names: []string{"actual/s", "P50", "P90", "nowcast"}, Bins: []crosshairBin{}, Faults: []crosshairFault{}}
	each := (len(f.Bins) + 399) / 400
	for i := 0; i < len(f.Bins); i += each {
		b := f.Bins[i]
		now := "–"
		if b.Nowcast >= 0 {
			now = words.Compact(math.Round(b.Nowcast))
		}
		x.Bins = append(x.Bins, crosshairBin{b.T, f.ends(min(i+each, len(f.Bins)) - 1), clk.At(b.T),
			[]string{words.Compact(math.Round(b.Actual)), words.Compact(math.Round(b.P50)), words.Compact(math.Round(b.P90)), now}})
	}
	return x
}
