package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// A chart is the timeline as geometry, in SVG user units: panels stacked over one time axis, faults across them all.
// It is drawn once wide and once narrow, so that text keeps its size on a phone.
type chart struct {
	Class        string // CSS class: "wide" or "narrow"
	W, H         float64
	X0, X1       float64 // the plots' left and right edge
	Top, Bottom  float64 // of all panels
	T0, T1       float64 // seconds at X0 and X1
	Panels       []panel
	Ticks        []tick
	Bands        []band
	Title, Descr string
	Note         string // what a step stands for, when it is more than a second
}

type panel struct {
	Kind         string // starts, sessions, rebuffer, latency
	Title        string
	Peak         string // the highest value and when
	Y, H         float64
	TitleY       float64
	KeyY, KeyTop float64 // baseline of the legend's words, middle of its swatches
	Keys         []key
	Grid         []tick // Y positions
	Areas        []shape
	Limit        *tick  // an objective's threshold, at Y
	Empty        string // said in place of what is not there to draw
	EmptyY       float64
	LabelX       float64
	PeakX, PeakY float64
}

type key struct {
	Class, Label string
	X            float64 // of the swatch; the label stands 18 units right of it
}

type shape struct{ Class, D string }

type tick struct {
	Pos    float64
	Label  string
	Anchor string
}

type band struct {
	X, W    float64
	Label   string // shortened to fit
	Full    string
	Status  string
	LaneY   float64
	Lane    bool // false: too many at once, the band is drawn without its label
	LabelX  float64
	LabelW  float64
	TextX   float64
	IconX   float64
	ToLabel float64 // the height from the lane to the foot of the panels
	Tone    string
	Mark    string // the icon's path
}

// bin is what is drawn at one place: one second, or several of a long run.
type bin struct {
	t, end                int // seconds [t, end)
	n                     int // seconds of the timeline within
	starts, startsMin     float64
	fails                 float64
	sessions, sessionsMin float64
	rebuffer              float64
	p50, p95, bitrate     float64 // −1: nobody reported
}

// bins groups seconds so that at most maxBins remain, the worst of each kept: the highest rate of starts, failures,
// rebuffering and latency, and the lowest beside the highest where a dip is bad news. A mean would hide a bad second.
func bins(seconds []Second, maxBins int) (out []bin, width int) {
	if len(seconds) == 0 {
		return nil, 1
	}
	first, last := seconds[0].T, seconds[len(seconds)-1].T
	span := last - first + 1
	width = 1
	for _, w := range []int{1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400} {
		width = w
		if (span+w-1)/w <= maxBins {
			break
		}
	}
	start := func(t int) int { return int(math.Floor(float64(t)/float64(width))) * width }
	for _, s := range seconds {
		t := start(s.T)
		if len(out) == 0 || out[len(out)-1].t != t {
			out = append(out, bin{t: t, end: t + width, n: 1, starts: s.PlayStarts, startsMin: s.PlayStarts, fails: s.PlayFailures,
				sessions: s.Sessions, sessionsMin: s.Sessions, rebuffer: s.RebufferRatio, p50: s.LiveLatencyS, p95: s.LiveLatencyP95S, bitrate: s.BitrateKbps})
			continue
		}
		b := &out[len(out)-1]
		b.n++
		b.starts, b.startsMin = max(b.starts, s.PlayStarts), min(b.startsMin, s.PlayStarts)
		b.fails = max(b.fails, s.PlayFailures)
		b.sessions, b.sessionsMin = max(b.sessions, s.Sessions), min(b.sessionsMin, s.Sessions)
		b.rebuffer = max(b.rebuffer, s.RebufferRatio)
		if s.BitrateKbps >= 0 && (b.bitrate < 0 || s.BitrateKbps < b.bitrate) {
			b.bitrate = s.BitrateKbps
		}
		b.p50, b.p95 = max(b.p50, s.LiveLatencyS), max(b.p95, s.LiveLatencyP95S)
	}
	return out, width
}

// layout is the sizes of one drawing of the chart.
type layout struct {
	class       string
	w           float64
	left, right float64
	heights     [4]float64
	maxBins     int
	charW       float64 // mean width of a character of the labels
	keysBelow   bool    // legend and peak on a line of their own
	lane        float64
	ticksAbout  int
	titleGap    float64 // from one panel's foot to the next one's plot
}

var (
	wide = layout{class: "wide", w: 1080, left: 52, right: 12, heights: [4]float64{120, 64, 76, 110}, maxBins: 500,
		charW: 6.5, lane: 26, ticksAbout: 12, titleGap: 40}
	narrow = layout{class: "narrow", w: 358, left: 38, right: 8, heights: [4]float64{96, 56, 66, 96}, maxBins: 160,
		charW: 6.5, lane: 26, ticksAbout: 5, titleGap: 56, keysBelow: true}
)

// toneMark is the icon of each tone, in a 16-unit square.
var toneMark = map[string]string{
	"ok":   "M2.5 8.5l3.8 4L13.5 3.5",
	"bad":  "M3 3l10 10M13 3L3 13",
	"warn": "M5 5.4C5 1.2 11.4 1.4 11.2 5.4c0 2.6-3.2 2.6-3.2 5.2M8 14v.1",
}

// maxLanes bounds the rows of fault labels above the panels.
const maxLanes = 6

func (r *Report) drawChart(l layout) *chart {
	bs, width := bins(r.Timeline, l.maxBins)
	if len(bs) == 0 {
		return nil
	}
	c := &chart{Class: l.class, W: l.w, X0: l.left, X1: l.w - l.right}
	c.T0 = math.Min(0, float64(bs[0].t))
	c.T1 = float64(bs[len(bs)-1].end)
	for _, f := range r.Faults {
		if f.Injected() && finite(f.AtS) && finite(f.ForS) {
			c.T0 = math.Min(c.T0, math.Max(f.AtS, c.T0-60))
			c.T1 = math.Max(c.T1, math.Min(f.AtS+f.ForS, c.T1+60))
		}
	}
	x := func(t float64) float64 {
		return round1(c.X0 + (math.Min(math.Max(t, c.T0), c.T1)-c.T0)/(c.T1-c.T0)*(c.X1-c.X0))
	}
	clk := words.Clock{Span: r.span()}

	lanes := c.placeBands(r, l, x)
	y := 4 + float64(lanes)*l.lane
	c.Top = y
	for _, p := range r.panels(bs, width, clk) {
		p.H = l.heights[panelIndex(p.Kind)]
		p.TitleY = y + 22
		p.Y = y + l.titleGap - 6
		if l.keysBelow && len(p.Keys) == 0 {
			p.Y -= 18
		}
		if l.keysBelow {
			p.Title = strings.TrimSuffix(p.Title, " of viewing time")
		}
		p.LabelX, p.PeakX, p.PeakY, p.KeyY = c.X0-6, c.X1, p.TitleY, p.TitleY
		kx := c.X0 + float64(utf8.RuneCountInString(p.Title))*7.2 + 18
		if l.keysBelow {
			kx, p.KeyY = c.X0, p.TitleY+18
			p.PeakY = p.TitleY
		}
		p.KeyTop = p.KeyY - 4
		for k := range p.Keys {
			p.Keys[k].X = round1(kx)
			kx += 18 + float64(utf8.RuneCountInString(p.Keys[k].Label))*l.charW + 14
		}
		p.EmptyY = round1(p.Y + p.H/4 + 4) // between two lines of the grid
		p.draw(bs, x)
		c.Panels = append(c.Panels, p.panel)
		y = p.Y + p.H + 6
	}
	c.Bottom = y - 6
	c.H = c.Bottom + 26
	for b := range c.Bands {
		c.Bands[b].ToLabel = round1(c.Bottom - c.Bands[b].LaneY)
	}

	step := timeStep((c.T1 - c.T0) / float64(l.ticksAbout))
	for t := math.Ceil(c.T0/step) * step; t <= c.T1 && len(c.Ticks) < 100; t += step {
		tk := tick{Pos: x(t), Label: clk.At(t), Anchor: "middle"}
		if half := float64(utf8.RuneCountInString(tk.Label)) * l.charW / 2; tk.Pos+half > l.w {
			tk.Anchor = "end"
		}
		c.Ticks = append(c.Ticks, tk)
	}
	c.Title = "Timeline of " + r.Scenario
	c.Descr = r.chartWords(c.Panels)
	return c
}

// span is the length of what happened, in seconds, for the clock.
func (r *Report) span() float64 {
	s := r.DurationS
	if n := len(r.Timeline); n > 0 {
		// The timeline, when there is one, is what the eye compares with: the run's duration includes its preparation.
		s = float64(r.Timeline[n-1].T + 1)
	}
	return s
}

// placeBands puts the faults on the chart and their labels into lanes where they do not overlap; it returns the lanes.
func (c *chart) placeBands(r *Report, l layout, x func(float64) float64) (lanes int) {
	var ends []float64 // right edge of the last label of each lane
	faults := slices.Clone(r.Faults)
	slices.SortStableFunc(faults, func(a, b Fault) int {
		switch {
		case a.AtS < b.AtS:
			return -1
		case a.AtS > b.AtS:
			return 1
		}
		return 0
	})
	clk := words.Clock{Span: r.span()}
	for _, f := range faults {
		if !f.Injected() || !finite(f.AtS) || !finite(f.ForS) {
			continue
		}
		b := band{X: x(f.AtS), Status: f.Evidence.Status, Tone: evidenceTone(f.Evidence.Status)}
		b.Mark = toneMark[b.Tone]
		b.W = round1(math.Max(x(f.AtS+f.ForS)-b.X, 2))
		b.Full = fmt.Sprintf("%s, %s to %s, evidence %s", f.Words(), clk.At(f.AtS), clk.At(f.AtS+f.ForS), f.Evidence.Status)
		text := f.Words() + " · " + f.Evidence.Status
		room := c.X1 - 30
		b.Label = shorten(text, int(room/l.charW))
		b.LabelW = round1(float64(utf8.RuneCountInString(b.Label))*l.charW + 28)
		b.LabelX = b.X
		if b.LabelX+b.LabelW > c.W-1 {
			b.LabelX = round1(math.Max(c.W-1-b.LabelW, 0))
		}
		b.TextX, b.IconX = b.LabelX+22, b.LabelX+5
		lane := 0
		for lane < len(ends) && ends[lane] > b.LabelX-4 {
			lane++
		}
		if lane < maxLanes {
			b.Lane = true
			if lane == len(ends) {
				ends = append(ends, 0)
			}
			ends[lane] = math.Max(b.LabelX+b.LabelW, b.X+b.W)
		}
		b.LaneY = 4 + float64(min(lane, maxLanes-1))*l.lane
		c.Bands = append(c.Bands, b)
	}
	return len(ends)
}

// series is a panel before it is placed: what to draw of a bin.
type series struct {
	panel
	top   float64
	draws []func(p *series, bs []bin, x func(float64) float64)
}

func panelIndex(kind string) int { return slices.Index(panelKinds, kind) }

var panelKinds = []string{"starts", "sessions", "rebuffer", "latency"}

// panels says what the timeline has to show. Play starts are left out where there was no load.
func (r *Report) panels(bs []bin, width int, clk words.Clock) []*series {
	highest := func(f func(bin) float64) float64 {
		v := math.Inf(-1)
		for _, b := range bs {
			v = max(v, f(b))
		}
		return v
	}
	// A peak names its second, however coarse the drawing.
	percent := func(v float64) string { return words.WithUnit(words.Significant(v, 3), "%") }
	figure := func(v float64) string { return words.Significant(v, 3) }
	peak := func(f func(Second) float64, say func(float64) string) string {
		v, at := 0.0, 0
		for _, s := range r.Timeline {
			if f(s) > v {
				v, at = f(s), s.T
			}
		}
		if v == 0 {
			return ""
		}
		return "peak " + say(v) + " at " + clk.At(float64(at))
	}
	var out []*series

	starts := highest(func(b bin) float64 { return b.starts })
	fails := highest(func(b bin) float64 { return b.fails })
	if starts > 0 || fails > 0 || r.Load.PlayStarts.Intended > 0 {
		s := &series{top: nice(max(starts, fails, 1))}
		s.Kind, s.Title = "starts", "Play starts a second"
		s.Keys = []key{{Class: "s-ok", Label: "started"}, {Class: "s-fail", Label: "failed, shed or dropped"}}
		s.Peak = peak(func(s Second) float64 { return s.PlayStarts }, func(v float64) string { return figure(v) + "/s" })
		s.draws = append(s.draws,
			steps("tint s-ok", func(b bin) float64 { return b.starts }, true),
			steps("line s-ok", func(b bin) float64 { return b.starts }, false),
			steps("solid s-fail", func(b bin) float64 { return b.fails }, true))
		out = append(out, s)
	}

	sessions := highest(func(b bin) float64 { return b.sessions })
	s := &series{top: nice(max(sessions, 1))}
	s.Kind, s.Title = "sessions", "Sessions on the air"
	s.Peak = peak(func(s Second) float64 { return s.Sessions }, figure)
	if width > 1 {
		s.Keys = []key{{Class: "s-sess", Label: "highest"}, {Class: "s-sess thin", Label: "lowest"}}
		s.draws = append(s.draws, steps("line s-sess thin", func(b bin) float64 { return b.sessionsMin }, false))
	}
	s.draws = append(s.draws,
		steps("tint s-sess", func(b bin) float64 { return b.sessionsMin }, true),
		steps("line s-sess", func(b bin) float64 { return b.sessions }, false))
	out = append(out, s)

	rebuffer := highest(func(b bin) float64 { return b.rebuffer })
	s = &series{top: nice(max(rebuffer, 1))}
	s.Kind, s.Title = "rebuffer", "Rebuffering, % of viewing time"
	s.Peak = peak(func(s Second) float64 { return s.RebufferRatio }, percent)
	if s.Peak == "" {
		s.Empty, s.top = "none", 100
	}
	s.draws = append(s.draws, steps("solid s-rebuf", func(b bin) float64 { return b.rebuffer }, true))
	out = append(out, s)

	p95 := highest(func(b bin) float64 { return max(b.p95, b.p50) })
	s = &series{top: nice(max(p95, 1))}
	s.Kind, s.Title = "latency", "Behind live, s"
	s.Keys = []key{{Class: "s-p50", Label: "median"}, {Class: "s-p95", Label: "95th percentile"}}
	s.Peak = peak(func(s Second) float64 { return s.LiveLatencyP95S }, words.Seconds)
	if p95 < 0 {
		s.Empty, s.Keys = "no viewer reported a latency", nil
	}
	for _, o := range r.Objectives {
		if o.Metric == "live_latency" && o.Where == "" && strings.HasPrefix(o.op(), "<") && o.Threshold > 0 && o.Threshold <= 3*max(p95, 1) {
			s.top = nice(max(p95, o.Threshold*1.05, 1))
			s.Limit = &tick{Pos: o.Threshold, Label: "objective: " + o.Expression}
			break
		}
	}
	s.draws = append(s.draws,
		curve("line s-p95", func(b bin) float64 { return b.p95 }),
		curve("line s-p50", func(b bin) float64 { return b.p50 }))
	return append(out, s)
}

// draw turns the panel's series into paths, once its place is known.
func (s *series) draw(bs []bin, x func(float64) float64) {
	for _, v := range gridValues(s.top) {
		s.Grid = append(s.Grid, tick{Pos: s.y(v), Label: compact(v)})
	}
	if s.Limit != nil {
		s.Limit.Pos = s.y(s.Limit.Pos)
	}
	for _, d := range s.draws {
		d(s, bs, x)
	}
}

func (s *series) y(v float64) float64 {
	v = math.Min(math.Max(v, 0), s.top)
	return round1(s.Y + s.H - v/s.top*s.H)
}

// steps draws one flat step a bin; closed, the area under it, in which anything above zero is at least 2 units high so
// that a single failure in a long run is seen.
func steps(class string, f func(bin) float64, closed bool) func(*series, []bin, func(float64) float64) {
	return func(s *series, bs []bin, x func(float64) float64) {
		var d strings.Builder
		base := s.y(0)
		open := false
		for i, b := range bs {
			v := f(b)
			y := s.y(v)
			if closed && v > 0 {
				y = math.Min(y, base-2)
			}
			x0, x1 := x(float64(b.t)), x(float64(b.end))
			if closed && v <= 0 {
				if open {
					fmt.Fprintf(&d, "V%gZ", base)
					open = false
				}
				continue
			}
			if open && bs[i-1].end != b.t { // a gap in the timeline stays a gap
				if closed {
					fmt.Fprintf(&d, "V%gZ", base)
				}
				open = false
			}
			switch {
			case !open && closed:
				fmt.Fprintf(&d, "M%g %gV%gH%g", x0, base, y, x1)
			case !open:
				fmt.Fprintf(&d, "M%g %gH%g", x0, y, x1)
			default:
				fmt.Fprintf(&d, "V%gH%g", y, x1)
			}
			open = true
		}
		if open && closed {
			fmt.Fprintf(&d, "V%gZ", base)
		}
		if d.Len() > 0 {
			s.Areas = append(s.Areas, shape{class, d.String()})
		}
	}
}

// curve joins the middles of the bins where somebody reported; a lone one is a short dash.
func curve(class string, f func(bin) float64) func(*series, []bin, func(float64) float64) {
	return func(s *series, bs []bin, x func(float64) float64) {
		var d strings.Builder
		open := false
		for i, b := range bs {
			v := f(b)
			if v < 0 {
				open = false
				continue
			}
			mid := x(float64(b.t+b.end) / 2)
			next := i+1 < len(bs) && bs[i+1].t == b.end && f(bs[i+1]) >= 0
			if i > 0 && bs[i-1].end != b.t {
				open = false
			}
			switch {
			case open:
				fmt.Fprintf(&d, "L%g %g", mid, s.y(v))
			case next:
				fmt.Fprintf(&d, "M%g %g", mid, s.y(v))
			default:
				fmt.Fprintf(&d, "M%g %gh2", mid-1, s.y(v))
			}
			open = true
		}
		if d.Len() > 0 {
			s.Areas = append(s.Areas, shape{class, d.String()})
		}
	}
}

// chartWords says in words what the chart shows, for who does not see it.
func (r *Report) chartWords(ps []panel) string {
	var parts []string
	for _, p := range ps {
		s := p.Title
		switch {
		case p.Empty != "":
			s += ": " + p.Empty
		case p.Peak != "":
			s += ": " + p.Peak
		}
		parts = append(parts, s)
	}
	clk := words.Clock{Span: r.span()}
	for _, f := range r.Faults {
		if !f.Injected() {
			parts = append(parts, fmt.Sprintf("Fault: %s, %s", f.Words(), f.EvidenceWords()))
			continue
		}
		parts = append(parts, fmt.Sprintf("Fault: %s from %s to %s, evidence %s", f.Words(), clk.At(f.AtS), clk.At(f.AtS+f.ForS), f.Evidence.Status))
	}
	return strings.Join(parts, ". ") + "."
}

// nice is the next round number at or above v: 1, 2, 2.5, 4, 5, 8 times a power of ten.
func nice(v float64) float64 {
	if v <= 0 || !finite(v) {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10} {
		if m*p >= v*(1-1e-9) {
			return m * p
		}
	}
	return 10 * p
}

func gridValues(top float64) []float64 { return []float64{0, top / 2, top} }

// timeStep is a round number of seconds at or above want.
func timeStep(want float64) float64 {
	for _, s := range []float64{1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200} {
		if s >= want {
			return s
		}
	}
	return 86400
}

// compact writes an axis label: 1.2k, 100k, 3M.
func compact(v float64) string {
	switch {
	case v >= 1e6:
		return words.Significant(v/1e6, 3) + "M"
	case v >= 1e4:
		return words.Significant(v/1e3, 3) + "k"
	}
	return words.Significant(v, 3)
}

func round1(v float64) float64 { return math.Round(v*10) / 10 }

// shorten cuts s to n characters, the last an ellipsis.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string([]rune(s)[:n-1]) + "…"
}
