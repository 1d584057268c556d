package report

import (
	"cmp"
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
	Box          bool    // the swatch is an area and not a line
	X            float64 // of the swatch; the label stands 18 units right of it
	Y, Mid       float64 // baseline of the words, middle of the swatch
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
	fails, shed, other    float64 // failures, and of these the shed and the others, each at its own worst
	done                  float64 // started, failed, shed and dropped together
	due, requests         float64
	capacity              float64 // the lowest; 0: no bound
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
			out = append(out, bin{t: t, end: t + width, n: 1, starts: s.PlayStarts, startsMin: s.PlayStarts,
				fails: s.PlayFailures, shed: s.shed(), other: s.PlayFailures - s.shed(), done: s.PlayStarts + s.PlayFailures,
				due: s.Scheduled, requests: s.Requests, capacity: s.Capacity,
				sessions: s.Sessions, sessionsMin: s.Sessions, rebuffer: s.RebufferRatio, p50: s.LiveLatencyS, p95: s.LiveLatencyP95S, bitrate: s.BitrateKbps})
			continue
		}
		b := &out[len(out)-1]
		b.n++
		b.starts, b.startsMin = max(b.starts, s.PlayStarts), min(b.startsMin, s.PlayStarts)
		b.fails, b.shed, b.other = max(b.fails, s.PlayFailures), max(b.shed, s.shed()), max(b.other, s.PlayFailures-s.shed())
		b.done = max(b.done, s.PlayStarts+s.PlayFailures)
		b.due, b.requests = max(b.due, s.Scheduled), max(b.requests, s.Requests)
		if s.Capacity > 0 && (b.capacity <= 0 || s.Capacity < b.capacity) {
			b.capacity = s.Capacity
		}
		b.sessions, b.sessionsMin = max(b.sessions, s.Sessions), min(b.sessionsMin, s.Sessions)
		b.rebuffer = max(b.rebuffer, s.RebufferRatio)
		if s.BitrateKbps >= 0 && (b.bitrate < 0 || s.BitrateKbps < b.bitrate) {
			b.bitrate = s.BitrateKbps
		}
		b.p50, b.p95 = max(b.p50, s.LiveLatencyS), max(b.p95, s.LiveLatencyP95S)
	}
	return out, width
}

// shed is what was shed of the second's failures.
func (s Second) shed() float64 { return math.Max(0, math.Min(s.Shed, s.PlayFailures)) }

// layout is the sizes of one drawing of the chart.
type layout struct {
	class       string
	w           float64
	left, right float64
	heights     [4]float64
	tall        float64 // of the panel of play starts when it says more than what came of them
	maxBins     int
	charW       float64 // mean width of a character of the labels
	keysBelow   bool    // legend and peak on a line of their own
	lane        float64
	ticksAbout  int
	titleGap    float64 // from one panel's foot to the next one's plot
}

var (
	wide = layout{class: "wide", w: 1080, left: 52, right: 12, heights: [4]float64{120, 64, 76, 110}, tall: 190, maxBins: 500,
		charW: 6.5, lane: 26, ticksAbout: 12, titleGap: 40}
	narrow = layout{class: "narrow", w: 358, left: 38, right: 8, heights: [4]float64{96, 56, 66, 96}, tall: 150, maxBins: 160,
		charW: 6.5, lane: 26, ticksAbout: 5, titleGap: 56, keysBelow: true}
)

// toneMark is the icon of each tone, in a 16-unit square.
var toneMark = map[string]string{
	"ok":   "M2.5 8.5l3.8 4L13.5 3.5",
	"bad":  "M3 3l10 10M13 3L3 13",
	"warn": "M5 5.4C5 1.2 11.4 1.4 11.2 5.4c0 2.6-3.2 2.6-3.2 5.2M8 14v.1",
}

// returnMark is the icon of an interruption: viewers who come back.
const returnMark = "M13.2 9.2a5.4 5.4 0 1 1-1.7-5.3M12.8 1.2v3.4H9.4"

// maxLanes bounds the rows of fault labels above the panels.
const maxLanes = 6

// keyRoom is where a legend goes: beside its title, or in rows below it.
type keyRoom struct {
	x0, x1, titleY float64
	title, peak    string
}

// placeKeys sets a legend out and returns how many rows it takes below the title.
func placeKeys(keys []key, l layout, in keyRoom) (rows int) {
	if len(keys) == 0 {
		return 0
	}
	advance := func(k key) float64 { return 18 + textWidth(k.Label, 12) + 16 }
	x, y := in.x0+textWidth(in.title, 13)*1.08+18, in.titleY // the title is bold
	whole := x
	for _, k := range keys {
		whole += advance(k)
	}
	if l.keysBelow || whole > in.x1-textWidth(in.peak, 12) {
		x, y, rows = in.x0, in.titleY+18, 1
	}
	for i := range keys {
		if rows > 0 && i > 0 && x+advance(keys[i])-16 > in.x1 {
			x, y, rows = in.x0, y+18, rows+1
		}
		keys[i].X, keys[i].Y, keys[i].Mid = round1(x), y, y-4
		x += advance(keys[i])
	}
	return rows
}

// stretch is a part of the event that is shaded across all panels: a fault, or an interruption of many viewers.
type stretch struct {
	at, lasts           float64
	kind, words, status string
	full, tone, mark    string
}

// stretches is what was done to the event, in order of time.
func (r *Report) stretches() (out []stretch) {
	clk := words.Clock{Span: r.span()}
	for _, f := range r.Faults {
		if !f.Injected() || !finite(f.AtS) || !finite(f.ForS) {
			continue
		}
		s := stretch{at: f.AtS, lasts: f.ForS, kind: "fault", words: f.Words(), status: f.Evidence.Status, tone: evidenceTone(f.Evidence.Status)}
		s.mark = toneMark[s.tone]
		s.full = fmt.Sprintf("%s, %s to %s, evidence %s", s.words, clk.At(s.at), clk.At(s.at+s.lasts), s.status)
		out = append(out, s)
	}
	for _, m := range r.Storms {
		if !finite(m.AtS) || !finite(m.ForS) {
			continue
		}
		s := stretch{at: m.AtS, lasts: math.Max(m.ForS, 0), kind: "cut off", words: m.Words(), status: m.Guidance(), tone: m.tone(), mark: returnMark}
		s.full = fmt.Sprintf("%s at %s, %s", s.words, clk.At(s.at), s.status)
		if s.lasts > 0 {
			s.full = fmt.Sprintf("%s, %s to %s, %s", s.words, clk.At(s.at), clk.At(s.at+s.lasts), s.status)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b stretch) int { return cmp.Compare(a.at, b.at) })
	return out
}

func (r *Report) drawChart(l layout) *chart {
	bs, width := bins(r.Timeline, l.maxBins)
	if len(bs) == 0 {
		return nil
	}
	c := &chart{Class: l.class, W: l.w, X0: l.left, X1: l.w - l.right}
	c.T0 = math.Min(0, float64(bs[0].t))
	c.T1 = float64(bs[len(bs)-1].end)
	for _, s := range r.stretches() {
		c.T0 = math.Min(c.T0, math.Max(s.at, c.T0-60))
		c.T1 = math.Max(c.T1, math.Min(s.at+s.lasts, c.T1+60))
	}
	x := func(t float64) float64 {
		return round1(c.X0 + (math.Min(math.Max(t, c.T0), c.T1)-c.T0)/(c.T1-c.T0)*(c.X1-c.X0))
	}
	clk := words.Clock{Span: r.span()}

	lanes := c.placeBands(r, l, x)
	y := 4 + float64(lanes)*l.lane
	c.Top = y
	for _, p := range r.panels(bs, width, l, clk) {
		if p.H == 0 {
			p.H = l.heights[panelIndex(p.Kind)]
		}
		p.TitleY = y + 22
		p.Y = y + l.titleGap - 6
		if l.keysBelow {
			p.Y -= 18
			p.Title = strings.TrimSuffix(p.Title, " of viewing time")
		}
		p.LabelX, p.PeakX, p.PeakY = c.X0-6, c.X1, p.TitleY
		p.Y += 18 * float64(placeKeys(p.Keys, l, keyRoom{c.X0, c.X1, p.TitleY, p.Title, p.Peak}))
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
	c.Ticks = timeTicks(c.T0, c.T1, step, l.w, x, clk.At)
	c.Title = "Timeline of " + r.Scenario
	c.Descr = r.chartWords(c.Panels)
	return c
}

// timeTicks labels every step from t0 to t1; a last label that would run into the one before it is left out.
func timeTicks(t0, t1, step, width float64, x func(float64) float64, label func(float64) string) (out []tick) {
	right := math.Inf(-1)
	for t := math.Ceil(t0/step) * step; t <= t1 && len(out) < 100; t += step {
		tk := tick{Pos: x(t), Label: label(t), Anchor: "middle"}
		w := textWidth(tk.Label, 12)
		left := tk.Pos - w/2
		if left+w > width {
			tk.Anchor, left = "end", tk.Pos-w
		}
		if left < right+3 {
			tk.Label = "" // the mark alone
		} else {
			right = left + w
		}
		out = append(out, tk)
	}
	return out
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

// placeBands puts faults and interruptions on the chart and their labels into lanes where they do not overlap; it returns the lanes.
func (c *chart) placeBands(r *Report, l layout, x func(float64) float64) (lanes int) {
	var ends []float64 // right edge of the last label of each lane
	for _, f := range r.stretches() {
		b := band{X: x(f.at), Status: f.status, Tone: f.tone, Mark: f.mark, Full: f.full}
		b.W = round1(math.Max(x(f.at+f.lasts)-b.X, 2))
		text := f.words + " · " + f.status
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
	ticks []float64 // where the grid has its lines; nil: at the foot, the middle and the top
	draws []func(p *series, bs []bin, x func(float64) float64)
}

func panelIndex(kind string) int { return slices.Index(panelKinds, kind) }

var panelKinds = []string{"starts", "sessions", "rebuffer", "latency"}

// panels says what the timeline has to show. Play starts are left out where there was no load.
func (r *Report) panels(bs []bin, width int, l layout, clk words.Clock) []*series {
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

	if s := r.startsPanel(bs, l, peak); s != nil {
		out = append(out, s)
	}

	sessions := highest(func(b bin) float64 { return b.sessions })
	if sessions <= 0 && r.Players.Sessions == 0 && len(out) > 0 {
		return out // nobody watched: what play starts came to is all there is
	}
	s := &series{top: nice(max(sessions, 1))}
	s.Kind, s.Title = "sessions", "Players on the air"
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
		if sessions <= 0 {
			s.Empty = "not measured: nobody watched"
		}
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
	if s.ticks == nil {
		s.ticks = gridValues(s.top)
	}
	for _, v := range s.ticks {
		s.Grid = append(s.Grid, tick{Pos: s.y(v), Label: axisLabel(v, s.top)})
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

// steps draws one flat step a bin, below zero a gap; closed, the area under it, in which anything above zero is at least 2 units high so
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
			if closed && v <= 0 || v < 0 {
				if open && closed {
					fmt.Fprintf(&d, "V%gZ", base)
				}
				open = false
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
	for _, s := range r.stretches() {
		if s.kind != "fault" {
			parts = append(parts, "Interruption: "+s.full)
		}
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

// axisLabel writes a value of an axis that ends at top, all of one axis in one unit: 5k below 20k.
func axisLabel(v, top float64) string {
	if top >= 1e4 && top < 1e6 && v >= 100 {
		return words.Significant(v/1e3, 3) + "k"
	}
	return words.Compact(v)
}

// textWidth is about how wide a sans serif font of that size sets s, rather too wide than too narrow.
func textWidth(s string, size float64) (w float64) {
	for _, r := range s {
		switch {
		case strings.ContainsRune("ijltfr.,:;|!'() /\u00a0", r):
			w += 0.34
		case strings.ContainsRune("mwMW%→", r):
			w += 0.9
		case r >= 'A' && r <= 'Z', r > 0x2e80:
			w += 0.72
		default:
			w += 0.6
		}
	}
	return w * size
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
