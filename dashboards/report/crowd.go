package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// InTime is the share of play starts, in per cent, that a generator must send within 10 ms of their moment: below it the
// crowd was not the one that was asked for.
const InTime = 99.9

// How many of a crowd's starts, in per cent, the sending machine was more than 10 ms late with: above LatePercent what was
// measured from the moment that they were due may be the machine's doing; above MostLatePercent it was another crowd than
// the one that was asked for.
const (
	LatePercent     = 0.1
	MostLatePercent = 5
)

// Behind says whether the machine that sent the crowd was late enough with it to be seen in its own figures.
func (l Load) Behind() bool { return l.LatePercent > LatePercent }

// Distorted says whether the machine was so late that the crowd was another one.
func (l Load) Distorted() bool { return l.LatePercent > MostLatePercent }

// onTime are the metrics that count from the moment a play start was due: a machine that is late with the crowd is in them.
var onTime = []string{"send_lag", "play_starts_on_time", "play_start_time", "play_starts_per_second"}

// LateMatters says whether the sending machine's own lateness is a reason to doubt the run: it made another crowd, or may have
// missed an objective.
func (r *Report) LateMatters() bool {
	return r.Load.Distorted() || r.Load.Behind() && slices.ContainsFunc(r.Objectives, func(o Objective) bool {
		return !o.Pass && o.Samples > 0 && slices.Contains(onTime, o.Metric)
	})
}

type (
	// crowdBlock is what the Load section says of an open-loop crowd beside its counts.
	crowdBlock struct {
		InTime, InTimeTone string
		Facts              []fact
		Failures           []loadRow
		MoreFailures       int
		Answers            bool // sent → done was measured
	}
	processRow struct {
		Name, Started    string
		At10, Peak, Last string
		Tone, Icon, Word string
		CPU              string
		From, To, High   float64 // per cent of the widest: at 10 s, at the end, the peak
		Bar              bool
	}
	processBlock struct {
		Line, Tone, Icon string
		Rows             []processRow
		Total            *processRow
		More             int
	}
)

// Bounds of what the page lists; the rest is in report.json.
const (
	maxFailureKinds = 8
	maxProcessRows  = 24
)

// crowd says how the crowd was sent, and what went wrong by kind.
func (p *page) crowd(r *Report) {
	l := r.Load
	n := l.PlayStarts
	if p.Load == nil || l.SentToDoneMS == nil && l.InTimePercent == 0 && l.Attempts == 0 && len(l.Failures) == 0 {
		return
	}
	b := &crowdBlock{Answers: l.SentToDoneMS != nil}
	if l.InTimePercent > 0 {
		b.InTime, b.InTimeTone = words.Percent(l.InTimePercent), "ok"
		if l.InTimePercent < InTime {
			b.InTimeTone = "warn"
		}
	}
	if own := l.OwnLagMS; own != nil || l.Late > 0 {
		text := "none"
		if l.Late > 0 {
			text = words.Count(l.Late) + " (" + words.Percent(l.LatePercent) + ")"
		}
		if own != nil {
			text += ", 99.9th percentile " + words.Millis(own.P999)
		}
		b.Facts = append(b.Facts, fact{"Late by the sending machine's own doing", text})
	}
	if l.Attempts > 0 && n.Sent > 0 {
		b.Facts = append(b.Facts, fact{"Requests for each play start", fmt.Sprintf("%s (%s in all)",
			words.Significant(float64(l.Attempts)/float64(n.Sent), 3), words.Compact(float64(l.Attempts)))})
	}
	if l.Left > 0 {
		b.Facts = append(b.Facts, fact{"Left, out of patience", fmt.Sprintf("%s (%s)", words.Count(l.Left), partOf(l.Left, n.Intended))})
	}
	if l.FirstFailure != "" {
		b.Facts = append(b.Facts, fact{"First wrong answer", l.FirstFailure})
	}
	if top := r.peakStarts(); top > 0 {
		b.Facts = append(b.Facts, fact{"Most started in a second", words.Count(uint64(math.Min(top, 1e18)))})
	}
	for i, f := range l.Failures {
		if i == maxFailureKinds {
			b.MoreFailures = len(l.Failures) - i
			break
		}
		b.Failures = append(b.Failures, loadRow{f.What, words.Count(f.Count), partOf(f.Count, max(n.Intended, f.Count))})
	}
	p.Crowd = b
}

func (r *Report) peakStarts() (top float64) {
	for _, s := range r.Timeline {
		top = max(top, s.PlayStarts)
	}
	return top
}

// loadPoll is the director's stations that only a crowd has.
func (r *Report) loadPoll() (out []pollRow) {
	l := r.Load
	if l.InTimePercent > 0 {
		row := pollRow{"ok", "Load", words.Percent(l.InTimePercent) + " of " + words.Compact(float64(l.PlayStarts.Intended)) + " sent in time"}
		if l.Behind() {
			row.Fact = words.Percent(l.LatePercent) + " sent late by this machine"
		}
		switch {
		case r.LateMatters() || l.PlayStarts.Dropped > 0:
			row.Icon = "warn"
		case l.Behind() || l.InTimePercent < InTime: // it is told, and no reason to doubt the run
			row.Icon = "none"
		}
		out = append(out, row)
	}
	g, u := r.worstStorms()
	switch {
	case g != nil && u != nil:
		out = append(out, pollRow{"ok", "Backoff", words.Times(g.Amplification) + " the load, " + words.Times(u.Amplification) + " without"})
	case g != nil:
		out = append(out, pollRow{"ok", "Backoff", g.PeakWords()})
	case u != nil:
		out = append(out, pollRow{"none", "Backoff", "off: " + u.PeakWords()})
	}
	if g != nil && !g.Held() {
		out[len(out)-1].Icon = "bad"
	}
	return out
}

// crowdColumns is which of a crowd's figures the timeline has: scheduled, requests, capacity.
type crowdColumns [3]bool

func (r *Report) crowdColumns() (has crowdColumns) {
	retries := r.hasRetries()
	for _, s := range r.Timeline {
		has[0] = has[0] || s.Scheduled > 0
		has[1] = has[1] || retries && s.Requests > 0
		has[2] = has[2] || s.Capacity > 0
	}
	return has
}

func (has crowdColumns) names() (names []string) {
	for i, name := range []string{"scheduled/s", "requests/s", "capacity/s"} {
		if has[i] {
			names = append(names, name)
		}
	}
	return names
}

func (has crowdColumns) words(b bin) (out []string) {
	for i, v := range []float64{b.due, b.requests, b.capacity} {
		switch {
		case has[i] && i == 2 && v <= 0:
			out = append(out, "–")
		case has[i]:
			out = append(out, words.Significant(v, 4))
		}
	}
	return out
}

// Growth of a process that nobody needs to look into: a tenth, or a few megabytes of a small one.
const (
	flatPercent = 10
	flatBytes   = 16_000_000
)

// Flat says whether the process took no more memory at the end than ten seconds into the event, give or take a tenth;
// known is false for one that was not there then.
func (p Process) Flat() (flat, known bool) {
	if p.RSSAt10S == 0 || p.RSSLast == 0 || p.Incarnated > 1 { // of two incarnations, the one is not what the other became
		return false, false
	}
	return p.GrowthPct <= flatPercent || p.RSSLast <= p.RSSAt10S+flatBytes, true
}

// Growth that somebody should look into: half as much again, and a quarter of a gigabyte. A crowd that comes later than the
// first ten seconds takes memory for its connections; what is beyond this is no longer that.
const (
	muchPercent = 50
	muchBytes   = 256_000_000
)

// much says whether the process grew by so much that somebody should look into it.
func (p Process) much() bool {
	flat, known := p.Flat()
	return known && !flat && p.GrowthPct > muchPercent && p.RSSLast > p.RSSAt10S+muchBytes
}

// GrowthWords says what became of the process's memory after the first ten seconds.
func (p Process) GrowthWords() string {
	flat, known := p.Flat()
	switch {
	case p.RSSAt10S == 0:
		return "began later"
	case p.Incarnated > 1:
		return "not compared: started again"
	case !known:
		return "had ended"
	case !flat:
		return "grew by " + words.Share(p.GrowthPct/100)
	case p.GrowthPct < -flatPercent:
		return "fell by " + words.Share(-p.GrowthPct/100)
	}
	return "flat"
}

// markedWords says from where on growth is marked.
const markedWords = " Marked is what grew by more than half and by more than 256" + words.NBSP + "MB."

// ProcessWords says in a sentence whether memory stayed flat; "" without processes.
func (r *Report) ProcessWords() string {
	var grew []Process
	known, fell := 0, false
	for _, p := range r.Processes {
		flat, ok := p.Flat()
		if !ok {
			continue
		}
		known++
		fell = fell || p.GrowthPct < -flatPercent
		if !flat {
			grew = append(grew, p)
		}
	}
	switch {
	case known == 0:
		return ""
	case len(grew) == 0 && fell:
		return "No process took more memory after the first 10" + words.NBSP + "s."
	case len(grew) == 0 && known == 1:
		return "Memory was flat after the first 10" + words.NBSP + "s."
	case len(grew) == 0:
		return fmt.Sprintf("The memory of all %d processes was flat after the first 10%ss.", known, words.NBSP)
	case len(grew) == 1 && known == 1:
		return fmt.Sprintf("%s %s after the first 10%ss."+markedWords, grew[0].Name, grew[0].GrowthWords(), words.NBSP)
	case len(grew) == 1:
		return fmt.Sprintf("%s %s after the first 10%ss; no other process did."+markedWords, grew[0].Name, grew[0].GrowthWords(), words.NBSP)
	}
	return fmt.Sprintf("%d of %d processes grew after the first 10%ss."+markedWords, len(grew), known, words.NBSP)
}

func (p *page) processes(r *Report) {
	if len(r.Processes) == 0 {
		return
	}
	b := &processBlock{Line: r.ProcessWords(), Tone: "ok", Icon: "ok"}
	var widest uint64
	var at10, last uint64
	var cpu float64
	for _, v := range r.Processes {
		widest = max(widest, v.RSSPeak, v.RSSAt10S, v.RSSLast)
		at10, last, cpu = at10+v.RSSAt10S, last+v.RSSLast, cpu+v.CPUS
	}
	span := 0.0
	if len(r.Timeline) > 0 {
		span = r.span()
	}
	memory := func(n uint64) string {
		if n == 0 {
			return "–"
		}
		return words.Bytes(n)
	}
	processor := func(s float64) string {
		if span <= 0 {
			return words.Lasting(s)
		}
		return words.Lasting(s) + ", " + words.Significant(s/span, 2) + " cores"
	}
	for i, v := range r.Processes {
		flat, known := v.Flat()
		if v.much() {
			b.Tone, b.Icon = "warn", "up"
		}
		if i >= maxProcessRows {
			b.More = len(r.Processes) - maxProcessRows
			continue
		}
		row := processRow{Name: v.Name, At10: memory(v.RSSAt10S), Peak: memory(v.RSSPeak), Last: memory(v.RSSLast),
			Tone: "ok", Icon: "ok", Word: v.GrowthWords(), CPU: processor(v.CPUS)}
		switch {
		case !known:
			row.Tone, row.Icon = "none", "none"
		case v.much():
			row.Tone, row.Icon = "warn", "up"
		case !flat:
			row.Tone, row.Icon = "none", "up"
		}
		if v.Incarnated > 1 {
			row.Started = fmt.Sprintf("started %d times", v.Incarnated)
		}
		if widest > 0 {
			of := func(n uint64) float64 { return round1(float64(n) / float64(widest) * 100) }
			row.Bar, row.From, row.To, row.High = true, of(v.RSSAt10S), of(v.RSSLast), of(v.RSSPeak)
		}
		b.Rows = append(b.Rows, row)
	}
	if len(r.Processes) > 1 {
		b.Total = &processRow{Name: "together", At10: memory(at10), Last: memory(last), CPU: processor(cpu)}
	}
	p.Processes = b
}
