package progress

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// View is the terminal that a panel is drawn for.
type View struct {
	Width  int  // columns; below 20 counts as 20
	Height int  // lines the panel may take; 0 means as many as it has, at most 18
	Color  bool // ANSI colours
	ASCII  bool // nothing but ASCII
}

// Bounds of what the panel lists; the report has the rest.
const (
	minWidth    = 20
	maxPanel    = 18
	maxFaults   = 4
	maxWarnings = 2
	labelCols   = 13
	sparkCol    = 42 // where every sparkline starts, so that a second stands under the same second
	maxSpark    = 60
	minSpark    = 8
)

// History keeps the last seconds of what the panel draws as sparklines, and what a later State no longer says. The zero
// value is ready.
type History struct {
	seconds  []second
	injected map[string]bool // the faults seen in effect, by id
}

type second struct {
	t       int
	starts  float64
	latency float64 // seconds, p95; −1 unknown
}

// maxHistory is more seconds than any sparkline is wide.
const maxHistory = 2 * maxSpark

// Add takes what s says of its second of the event; of several States in a second the last one counts.
func (h *History) Add(s State) {
	for _, f := range s.Faults {
		if f.State == "injected" && !h.injected[f.ID] {
			if h.injected == nil {
				h.injected = map[string]bool{}
			}
			h.injected[f.ID] = true
		}
	}
	if !s.OnAir || s.EventElapsed < 0 {
		return
	}
	v := second{t: int(s.EventElapsed / time.Second), starts: s.PlayStartsPerSecond, latency: -1}
	if s.QoE.Known {
		v.latency = s.QoE.LatencyP95.Seconds()
	}
	n := len(h.seconds)
	switch {
	case n > 0 && h.seconds[n-1].t >= v.t:
		h.seconds[n-1] = v
		return
	case n >= maxHistory:
		h.seconds = append(h.seconds[:0], h.seconds[n-maxHistory+1:]...)
	}
	h.seconds = append(h.seconds, v)
}

func (h *History) starts(n int) string {
	return sparkline(h.last(n, func(s second) float64 { return s.starts }), 1)
}

func (h *History) latency(n int) string {
	// Latency hardly moves from second to second: room above it shows that it could.
	return sparkline(h.last(n, func(s second) float64 { return s.latency }), 1.25)
}

func (h *History) last(n int, f func(second) float64) (out []float64) {
	for _, s := range h.seconds[max(0, len(h.seconds)-n):] {
		out = append(out, f(s))
	}
	return out
}

var blocks = []rune("▁▂▃▄▅▆▇█")

// sparkline draws values from zero to headroom times their highest; below zero is unknown and drawn as a space.
func sparkline(values []float64, headroom float64) string {
	top := 0.0
	for _, v := range values {
		top = math.Max(top, v*headroom)
	}
	var b strings.Builder
	for _, v := range values {
		switch {
		case v < 0:
			b.WriteByte(' ')
		case !(top > 0) || math.IsInf(top, 1) || math.IsNaN(v):
			b.WriteRune(blocks[0])
		default:
			b.WriteRune(blocks[min(int(v/top*float64(len(blocks)-1)+0.5), len(blocks)-1)])
		}
	}
	return b.String()
}

// Render draws the panel: lines without a final line break, none wider than the view. It decides nothing and asks no
// clock: the same arguments give the same text.
func Render(s State, h *History, v View) string {
	return strings.Join(renderLines(s, h, v), "\n")
}

func renderLines(s State, h *History, v View) []string {
	width := max(v.Width, minWidth)
	height := maxPanel
	if v.Height > 0 {
		height = min(height, v.Height)
	}
	ls := panelLines(s, h, width)
	for len(ls) > height { // a low window loses what it can best do without, the lowest of it first
		worst := 0
		for i := range ls {
			if ls[i].rank >= ls[worst].rank {
				worst = i
			}
		}
		ls = slices.Delete(ls, worst, worst+1)
	}
	out := make([]string, len(ls))
	for i, l := range ls {
		text := l.cut(width).render(v.Color)
		if v.ASCII {
			text = ascii(text)
		}
		out[i] = text
	}
	return out
}

// ranked is a line and how soon a low window does without it: 0 last.
type ranked struct {
	line
	rank int
}

func panelLines(s State, h *History, width int) []ranked {
	var out []ranked
	add := func(rank int, ls ...line) {
		for _, l := range ls {
			out = append(out, ranked{l, rank})
		}
	}
	add(6, headLine(s, width))
	add(0, clockLine(s, width))
	if d := safe(s.Doing); d != "" {
		add(1, line{{dim, d}})
	}
	add(9, nil)
	for i, l := range startsLines(s, h, width) {
		add(2+5*i, l)
	}
	if s.Players > 0 || s.Sessions > 0 {
		add(3, sessionsLine(s))
	}
	if s.QoE.Known || s.OnAir && s.EventElapsed >= 0 {
		add(4, qoeLine(s))
		add(5, latencyLine(s, h, width))
	}
	add(1, faultLines(s, h)...)
	if s.Experiment != "" {
		l := label("experiment")
		l.add(yellow, safe(s.Experiment))
		add(1, l)
	}
	if l := leversLine(s, width); l != nil {
		add(3, l)
	}
	for i, l := range warningLines(s) {
		add(4+i, l)
	}
	switch {
	case s.Draining.Emitted > 0:
		add(1, drainLine(s, width))
	case s.Emitted > 0:
		add(8, telemetryLine(s))
	}
	if out[len(out)-1].line == nil {
		out = out[:len(out)-1]
	}
	return out
}

func headLine(s State, width int) line {
	l := line{{bold, orDash(safe(s.Scenario))}}
	if run := safe(s.Run); run != "" {
		gap := width - l.cols() - cols(run)
		if gap >= 2 {
			l.add(plain, strings.Repeat(" ", gap))
			l.add(dim, run)
		}
	}
	return l
}

// clockLine is the time and the phase: "T+31 s of 75 s ━━━━━━─────── on air".
func clockLine(s State, width int) line {
	phase := orDash(safe(s.Phase))
	if !s.OnAir {
		return line{{cyan, phase}}
	}
	if s.EventElapsed < 0 {
		return line{{bold, clockWords(s)}, {plain, "  to the start   "}, {cyan, phase}}
	}
	l := line{{bold, clockWords(s)}}
	if s.EventDuration > 0 {
		l.add(plain, " of "+spanWords(s.EventDuration))
		if room := width - l.cols() - cols(phase) - 4; room >= 8 {
			done := int(math.Round(float64(room) * math.Min(1, s.EventElapsed.Seconds()/s.EventDuration.Seconds())))
			l.add(plain, "  ")
			l.add(cyan, strings.Repeat("━", done))
			l.add(dim, strings.Repeat("─", room-done))
		}
	}
	l.add(plain, "  ")
	l.add(cyan, phase)
	return l
}

// clockWords is the event's clock: the countdown rounds up, so that T−1 s is followed by T+0 s and never by T−0 s.
func clockWords(s State) string {
	sec := math.Floor(s.EventElapsed.Seconds())
	return safe(words.Clock{Span: s.EventDuration.Seconds()}.At(sec))
}

func spanWords(d time.Duration) string { return safe(words.Lasting(d.Seconds())) }

func label(text string) line {
	return line{{dim, text + strings.Repeat(" ", max(1, labelCols-cols(text)))}}
}

func startsLines(s State, h *History, width int) []line {
	n := s.PlayStarts
	if n.Intended == 0 && s.PlayStartsPerSecond == 0 && s.FailuresPerSecond == 0 {
		return nil
	}
	rate := label("play starts")
	rate.add(bold, words.PerSecond(s.PlayStartsPerSecond))
	if s.FailuresPerSecond > 0 {
		rate.add(red, "  "+words.PerSecond(math.Ceil(s.FailuresPerSecond))+" fail")
	}
	sum := label("")
	sum.add(plain, words.Count(n.OK)+" ok of "+words.Count(n.Intended))
	for _, bad := range []struct {
		n     uint64
		word  string
		style style
	}{{n.Failed, "failed", red}, {n.Shed, "shed", yellow}, {n.Dropped, "dropped", yellow}} {
		if bad.n > 0 {
			sum.add(bad.style, "  "+words.Count(bad.n)+" "+bad.word)
		}
	}
	out := []line{spark(rate, width, h.starts), sum}
	if l := demandLine(s); l != nil {
		out = append(out, l)
	}
	return out
}

// manyRequests says whether requests are more than the play starts they are for: viewers are coming back, or trying again.
func (s State) manyRequests() bool {
	done := s.PlayStartsPerSecond + s.FailuresPerSecond
	return s.Requests > 1.02*done+1
}

// demandLine is what is asked of the service against what it can take; nil where neither is known.
func demandLine(s State) line {
	l := label("")
	if s.manyRequests() {
		l.add(bold, words.PerSecond(s.Requests))
		l.add(plain, " requests")
	}
	if s.Capacity > 0 {
		if s.manyRequests() {
			l.add(plain, "  ")
		}
		l.add(plain, "capacity "+words.PerSecond(s.Capacity))
		asked := math.Max(s.Requests, s.PlayStartsPerSecond+s.FailuresPerSecond)
		used := asked / s.Capacity
		st := dim
		if used > 1 {
			st = yellow
		}
		switch {
		case used >= 1.05:
			l.add(st, ", asked for "+words.Times(used))
		case asked > 0:
			l.add(st, ", "+words.Share(used)+" used")
		}
	}
	if len(l) == 1 {
		return nil
	}
	return l
}

// leversLine names the engaged levers, as many as fit.
func leversLine(s State, width int) line {
	if len(s.Levers) == 0 {
		return nil
	}
	l := label("levers")
	l.add(yellow, "● ")
	for i, name := range s.Levers {
		text, more := orDash(safe(name)), ""
		if i > 0 {
			text = ", " + text
		}
		if left := len(s.Levers) - i - 1; left > 0 {
			more = fmt.Sprintf(" and %d more", left)
		}
		if i > 0 && l.cols()+cols(text)+cols(more) > width {
			l.add(dim, fmt.Sprintf(" and %d more", len(s.Levers)-i))
			return l
		}
		l.add(plain, text)
	}
	return l
}

// warningLines are the newest warnings, the newest first, since a low window keeps the upper one.
func warningLines(s State) (out []line) {
	for i := len(s.Warnings) - 1; i >= 0 && len(out) < maxWarnings; i-- {
		l := label("")
		if len(out) == 0 {
			l = label("warning")
		}
		l.add(yellow, orDash(safe(s.Warnings[i])))
		out = append(out, l)
	}
	return out
}

// drainLine says how far the store is: "storing  6,020,000 of 6,533,004  ━━━━━━━─".
func drainLine(s State, width int) line {
	d := s.Draining
	done := math.Min(1, float64(d.Stored)/float64(d.Emitted))
	room := min(width-sparkCol, maxSpark)
	if room < minSpark {
		l := label("storing")
		l.add(bold, words.Share(done))
		l.add(plain, " of "+words.Compact(float64(d.Emitted)))
		return l
	}
	l := label("storing")
	l.add(bold, words.Count(d.Stored))
	l.add(plain, " of "+words.Count(d.Emitted))
	if gap := sparkCol - l.cols(); gap >= 1 {
		n := int(float64(room) * done)
		l.add(plain, strings.Repeat(" ", gap))
		l.add(cyan, strings.Repeat("━", n))
		l.add(dim, strings.Repeat("─", room-n))
	}
	return l
}

// spark puts a sparkline on what is left of the line, if that is worth it.
func spark(l line, width int, draw func(n int) string) line {
	gap := sparkCol - l.cols()
	if room := min(width-sparkCol, maxSpark); room >= minSpark && gap >= 1 {
		l.add(plain, strings.Repeat(" ", gap))
		l.add(cyan, draw(room))
	}
	return l
}

func sessionsLine(s State) line {
	l := label("players")
	l.add(bold, words.Count(uint64(max(s.Sessions, 0))))
	if s.Players > 0 {
		l.add(plain, " of "+words.Count(uint64(s.Players)))
	}
	l.add(plain, " on the air")
	if s.Rebuffering > 0 {
		l.add(red, "  "+words.Count(uint64(s.Rebuffering))+" rebuffering")
	} else if s.Sessions > 0 {
		l.add(green, "  none rebuffering")
	}
	return l
}

func qoeLine(s State) line {
	l := label("viewers")
	if !s.QoE.Known {
		l.add(dim, "nobody has reported yet")
		return l
	}
	l.add(plain, "startup p95 ")
	l.add(bold, seconds(s.QoE.StartupP95))
	l.add(plain, "  rebuffering ")
	l.add(bold, safe(words.Significant(s.QoE.RebufferRatio, 2)+" %"))
	return l
}

func latencyLine(s State, h *History, width int) line {
	l := label("behind live")
	if !s.QoE.Known {
		l.add(dim, "–")
		return l
	}
	l.add(plain, "p50 ")
	l.add(bold, seconds(s.QoE.LatencyP50))
	l.add(plain, "  p95 ")
	l.add(bold, seconds(s.QoE.LatencyP95))
	return spark(l, width, h.latency)
}

func seconds(d time.Duration) string {
	if d <= 0 {
		return "–"
	}
	return words.Seconds(d.Seconds())
}

// live says whether a fault is doing something now: those are shown before those to come and those gone by.
func (f Fault) live() bool {
	switch f.State {
	case "injecting", "injected", "confirmed", "mismatch", "inconclusive", "restoring", "failed":
		return f.State != "confirmed" || f.Left > 0
	}
	return false
}

func faultLines(s State, h *History) (out []line) {
	var order []Fault
	for _, want := range []func(Fault) bool{
		Fault.live,
		func(f Fault) bool { return !f.live() && (f.State == "waiting" || f.State == "") },
		func(f Fault) bool { return !f.live() && f.State != "waiting" && f.State != "" },
	} {
		for _, f := range s.Faults {
			if want(f) {
				order = append(order, f)
			}
		}
	}
	for i, f := range order {
		l := label("")
		if i == 0 {
			l = label("faults")
		}
		if i == maxFaults-1 && len(order) > maxFaults {
			l.add(dim, fmt.Sprintf("and %d more", len(order)-i))
			return append(out, l)
		}
		mark, st := "○ ", dim
		switch {
		case f.State == "restored" || f.State == "confirmed" && f.Left <= 0:
			mark, st = "✓ ", green
		case f.State == "mismatch" || f.State == "failed":
			mark, st = "✗ ", red
		case f.State == "inconclusive" && !h.injected[f.ID]: // nothing was ever broken
		case f.live():
			mark, st = "● ", yellow
		}
		l.add(st, mark)
		l.add(plain, f.name())
		l.add(st, "  "+f.stateWords())
		out = append(out, l)
	}
	return out
}

func (f Fault) name() string {
	if n := safe(f.Name); n != "" {
		return n
	}
	return orDash(safe(f.ID))
}

func (f Fault) stateWords() string {
	state := safe(f.State)
	if state == "" {
		state = "waiting"
	}
	if f.Left <= 0 {
		return state
	}
	left := spanWords(time.Duration(math.Ceil(f.Left.Seconds())) * time.Second)
	if state == "waiting" {
		return "in " + left
	}
	return state + ", " + left + " left"
}

func telemetryLine(s State) line {
	l := label("telemetry")
	l.add(bold, words.Count(s.Emitted))
	l.add(plain, " emitted  ")
	l.add(bold, words.Count(s.Stored))
	l.add(plain, " stored")
	if s.Emitted > s.Stored {
		l.add(dim, "  "+words.Count(s.Emitted-s.Stored)+" on the way")
	}
	return l
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// Line says a State in one line without colour, for logs.
func Line(s State) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if s.OnAir {
		clock := clockWords(s)
		if s.EventElapsed >= 0 && s.EventDuration > 0 {
			clock += " of " + spanWords(s.EventDuration)
		}
		add("%s", clock)
	}
	phase := orDash(safe(s.Phase))
	if d := safe(s.Doing); d != "" {
		phase += ": " + d
	}
	add("%s", phase)
	if n := s.PlayStarts; n.Intended > 0 {
		add("%s starts/s, %s ok of %s, %s failed, %s shed, %s dropped", words.Compact(math.Round(s.PlayStartsPerSecond)),
			words.Count(n.OK), words.Count(n.Intended), words.Count(n.Failed), words.Count(n.Shed), words.Count(n.Dropped))
	}
	if s.manyRequests() {
		add("%s requests/s", words.Compact(math.Round(s.Requests)))
	}
	if s.Capacity > 0 {
		add("capacity %s", words.PerSecond(s.Capacity))
	}
	if len(s.Levers) > 0 {
		add("levers %s", safe(strings.Join(s.Levers, ", ")))
	}
	if s.Players > 0 || s.Sessions > 0 {
		add("%s, %d rebuffering", words.Plural(s.Sessions, "player"), s.Rebuffering)
	}
	if s.QoE.Known {
		add("startup p95 %s, rebuffering %s %%, behind live p50 %s p95 %s", seconds(s.QoE.StartupP95),
			words.Significant(s.QoE.RebufferRatio, 2), seconds(s.QoE.LatencyP50), seconds(s.QoE.LatencyP95))
	}
	for _, f := range s.Faults {
		if f.live() {
			add("fault %s %s", f.name(), f.stateWords())
		}
	}
	if d := s.Draining; d.Emitted > 0 {
		add("storing %s of %s", words.Count(d.Stored), words.Count(d.Emitted))
	} else if s.Emitted > 0 {
		add("telemetry %s emitted, %s stored", words.Count(s.Emitted), words.Count(s.Stored))
	}
	return strings.ReplaceAll(strings.Join(parts, " | "), words.NBSP, " ")
}
