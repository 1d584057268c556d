package probe

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
)

const (
	// settle is left out after a fault was injected or undone.
	settle = 200 * time.Millisecond
	// border is left out before a fault is undone: a packet may lie in a queue while that happens.
	border = 50 * time.Millisecond
	// inFlight is left out before the probe's end: a packet may not have arrived yet.
	inFlight = 300 * time.Millisecond
	// fewest packets that say anything.
	fewest = 50
	// fewestAround is the same before and after a fault.
	fewestAround = 20
	// wellBelow is the share of packets that a sound path may lose, repeat, spoil or reorder.
	wellBelow = 0.01
	// silent is the share that a cut loses at least.
	silent = 0.999
	// ownLoss is the share that the observer may lose by itself.
	ownLoss = 0.002

	// Who is later than busyLag in one of ten packets, or misses one of five, is too busy to measure anything.
	busyLag   = 20 * time.Millisecond
	busyShare = 0.1
	busySent  = 0.8

	// What is allowed beside chance: of shares that should be nil, of every promise, of rates, and of times.
	shareSlack = 0.003
	slack      = 0.05
	rateSlack  = 0.1
	timeSlack  = 2 * time.Millisecond
	// busySlack is how much later packets may be than before where no delay was promised: what a machine with more to do takes.
	busySlack = 15 * time.Millisecond
	// backSlack is how much later than before they may be when the fault is over, beside their spread.
	backSlack = 2 * time.Millisecond
)

// Direction is what was sent one way, and what the fault promises there.
type Direction struct {
	Name    string // "upwards"
	Promise link.Impairment
	// Shared: other flows' packets are drawn from the same sequence, so that bursts cannot be seen by one flow's packets alone.
	Shared  bool
	Train   int
	Size    int
	Every   time.Duration // between trains; 0: not known
	Records []Record
	Own     int // packets that the observer itself lost
}

// phases are a direction's packets before, during and after the fault.
type phases struct{ before, during, after []Record }

// sortPhases keeps the trains that were sent wholly before, during or after; start is when the probe began, end when it stopped.
func sortPhases(w evidence.Window, start time.Time, end time.Duration, longest time.Duration, train int, records []Record) phases {
	var p phases
	since := func(t time.Time) time.Duration { return t.Sub(start) }
	for i, r := range records {
		at := records[i-i%max(1, train)].Sent
		switch {
		case at >= end-inFlight-longest:
		case w.Inject.IsZero() || at < since(w.Inject):
			if at >= settle && (w.Inject.IsZero() || at < since(w.Inject)-border) {
				p.before = append(p.before, r)
			}
		case w.Injected.IsZero():
		case w.Restore.IsZero() || at < since(w.Restore):
			if at >= since(w.Injected)+settle && (w.Restore.IsZero() || at < since(w.Restore)-border) {
				p.during = append(p.during, r)
			}
		case !w.Restored.IsZero() && at >= since(w.Restored)+settle+longest:
			p.after = append(p.after, r)
		}
	}
	return p
}

// busy says how the observer was kept from sending during a fault; "": it was not.
func busy(d Direction, during []Record) string {
	lags := make([]time.Duration, 0, len(during))
	for _, r := range during {
		lags = append(lags, r.Lag)
	}
	if s := lagging(lags); s != "" {
		return s
	}
	if d.Every > 0 && len(during) > 1 {
		due := float64(during[len(during)-1].Sent-during[0].Sent) / float64(d.Every) * float64(d.Train)
		if float64(len(during)) < busySent*due {
			return fmt.Sprintf("%d of %.0f packets were sent %s", len(during), due, d.Name)
		}
	}
	return ""
}

func lagging(lags []time.Duration) string {
	if len(lags) == 0 {
		return ""
	}
	slices.Sort(lags)
	if lag := lags[int((1-busyShare)*float64(len(lags)-1))]; lag > busyLag {
		return fmt.Sprintf("one of ten was sent %s late or more", quantity(millis(lag), unitTime))
	}
	return ""
}

// finding is one measure of one direction against its promise.
type finding struct {
	what               string // "packets lost upwards"
	expected, measured float64
	unit               string
	tolerance          float64
	promised           bool // by the fault; else it is to stay as it was
	bound              bound
}

// bound is what a finding says where others share a bottleneck: they take of its rate and fill its queue, so that one flow
// alone sees as much harm as was promised, or more.
type bound int

const (
	exactly bound = iota
	orMore
	orLess
)

func (f finding) holds() bool {
	over := f.measured - f.expected
	switch f.bound {
	case orMore:
		return over >= -f.tolerance
	case orLess:
		return over <= f.tolerance
	}
	return math.Abs(over) <= f.tolerance
}

// tells reports whether half of the promise, or nothing, would have been noticed.
func (f finding) tells() bool { return f.tolerance < telling*f.expected }

func (f finding) String() string {
	than := ""
	switch f.bound {
	case orMore:
		than = " or more"
	case orLess:
		than = " or less"
	}
	return fmt.Sprintf("%s %s (expected %s ± %s%s)", f.what, quantity(f.measured, f.unit), number(f.expected), number(f.tolerance), than)
}

func quantity(v float64, unit string) string { return number(v) + " " + unit }

func number(v float64) string {
	digits := 1
	switch {
	case math.Abs(v) >= 100:
		digits = 0
	case math.Abs(v) < 1:
		digits = 2
	}
	return fmt.Sprintf("%.*f", digits, v)
}

const tooBusy = "this machine is too busy to measure on: "

const (
	unitShare   = "% of packets"
	unitTime    = "ms"
	unitRate    = "Mbit/s"
	unitPackets = "packets"
)

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// compare holds what was measured during a fault against the promise.
func compare(d Direction, before, during Measures, records []Record) []finding {
	i := d.Promise
	if i.Cut {
		return []finding{{
			what: "lost " + d.Name, expected: 100, measured: 100 * during.Loss, unit: unitShare, tolerance: 100 * (1 - silent), promised: true,
		}}
	}
	expect := model(i, records, d.Train, d.Size)
	var all []finding
	share := func(what string, promised bool, of func(Measures) float64) {
		e := expect(of)
		tolerance := sigmas*e.deviation + 2*slack*e.mean + min(of(before), wellBelow)
		if !promised {
			tolerance += shareSlack
		}
		all = append(all, finding{
			what: what + " " + d.Name, expected: 100 * e.mean, measured: 100 * of(during), unit: unitShare, promised: promised, tolerance: 100 * tolerance,
		})
	}
	lossShare, _ := i.Loss.Expect()
	share("lost", lossShare > 0, func(m Measures) float64 { return m.Loss })
	if lossShare > 0 && lossShare < 1 && !d.Shared {
		e := expect(func(m Measures) float64 { return m.Burst })
		all = append(all, finding{
			what: "lost in a row " + d.Name, expected: e.mean, measured: during.Burst, unit: unitPackets, tolerance: sigmas*e.deviation + slack*e.mean,
			// A burst of one is what chance alone makes: there is no half of it.
			promised: i.Loss.Model == link.GilbertElliott && i.Loss.Burst >= 2,
		})
	}
	if i.Rate > 0 {
		e := expect(func(m Measures) float64 { return m.Rate })
		all = append(all, finding{
			what: "pace of trains " + d.Name, expected: e.mean / 1e6, measured: during.Rate / 1e6, unit: unitRate, promised: true,
			tolerance: (sigmas*e.deviation + rateSlack*e.mean) / 1e6,
		})
	}
	if during.Loss < 1 {
		noise := before.Spread
		e := expect(func(m Measures) float64 { return millis(m.Delay) })
		f := finding{
			what: "later by " + d.Name, expected: e.mean, measured: millis(during.Delay - before.Delay), unit: unitTime, promised: i.Delay > 0,
			tolerance: sigmas*e.deviation + slack*e.mean + millis(timeSlack+noise),
		}
		if i.Delay == 0 {
			f.tolerance += millis(busySlack)
		}
		all = append(all, f)
		if i.Jitter > 0 {
			e := expect(func(m Measures) float64 { return millis(m.Spread) })
			all = append(all, finding{
				what: "spread of delays " + d.Name, expected: e.mean, measured: millis(during.Spread), unit: unitTime, promised: true,
				tolerance: sigmas*e.deviation + 2*slack*e.mean + millis(timeSlack+noise),
			})
		} else if i.Delay > 0 && i.Rate == 0 {
			// A constant delay is constant: a jitter of half its size is something else.
			all = append(all, finding{
				what: "spread of delays " + d.Name, expected: 0, measured: millis(during.Spread), unit: unitTime,
				tolerance: millis(timeSlack+2*noise) + millis(i.Delay)/2,
			})
		}
	}
	if d.Shared && i.Rate > 0 {
		for k := range all {
			all[k].bound = orMore
			if all[k].unit == unitRate {
				all[k].bound = orLess
			}
		}
	}
	share("repeated", i.Duplicate > 0, func(m Measures) float64 { return m.Duplicates })
	share("overtaken", i.Reorder, func(m Measures) float64 { return m.Reordered })
	share("spoiled", i.Corrupt > 0, func(m Measures) float64 { return m.Corrupt })
	return all
}

// sound says what is wrong with a path that nothing should be wrong with, "" if nothing is: shares below wellBelow, and below
// half of what the fault promises, so that one that goes on is noticed.
func sound(name string, m Measures, i link.Impairment) string {
	loss, _ := i.Loss.Expect()
	for _, s := range []struct {
		share, promise float64
		what           string
	}{{m.Loss, loss, "lost"}, {m.Duplicates, i.Duplicate, "repeated"}, {m.Reordered, 0, "overtaken"}, {m.Corrupt, i.Corrupt, "spoiled"}} {
		limit := wellBelow
		if s.promise > 0 {
			limit = min(limit, s.promise/2)
		}
		if s.share > limit {
			return fmt.Sprintf("%s of %d were %s %s", quantity(100*s.share, "%"), m.Packets, s.what, name)
		}
	}
	return ""
}

// overdue says whether something is later than before by so much that a delay that was promised goes on, or another one does: before it
// took so long, give or take its spread. What a machine takes longer that has more to do, as when its users come back, is none.
func overdue(by, promised, before, spread time.Duration) bool {
	allowed := busySlack
	if promised > 0 {
		allowed = min(busySlack, promised/2)
	}
	return by > max(allowed, backSlack+spread+before/20)
}

// lingers says what of a fault is still there when it is over, "" if nothing is.
func lingers(d Direction, before, after Measures) string {
	i := d.Promise
	if s := sound(d.Name, after, i); s != "" {
		return s
	}
	switch by := after.Delay - before.Delay; {
	case overdue(by, i.Delay, before.Delay, before.Spread):
		return fmt.Sprintf("packets are later than before by %s %s", quantity(millis(by), unitTime), d.Name)
	case i.Jitter > 0 && after.Spread > before.Spread+max(timeSlack, i.Jitter/2):
		return fmt.Sprintf("delays are still spread over %s %s", quantity(millis(after.Spread), unitTime), d.Name)
	case i.Rate > 0 && after.Rate < min(before.Rate/2, i.Rate*1.5):
		return fmt.Sprintf("trains still arrive at %s %s", quantity(after.Rate/1e6, unitRate), d.Name)
	}
	return ""
}

// Judge says what packets in both directions prove. start is when the probe began, end how long it went on.
func Judge(w evidence.Window, start time.Time, end time.Duration, directions ...Direction) evidence.Evidence {
	e := evidence.Evidence{Status: evidence.Inconclusive, Unit: unitShare}
	var findings []finding
	var back []string
	var weak []finding
	after := 0
	extra, rushed := "", ""
	for _, d := range directions {
		longest := d.Promise.Longest()
		p := sortPhases(w, start, end, longest, d.Train, d.Records)
		before, during, then := Measure(p.before, d.Train, d.Size), Measure(p.during, d.Train, d.Size), Measure(p.after, d.Train, d.Size)
		found := []finding(nil)
		if len(p.during) > 0 {
			found = compare(d, before, during, p.during)
			findings = append(findings, found...)
		}
		lead(&e, findings)
		if d.Promise.Jitter > 0 {
			extra += fmt.Sprintf(", interarrival jitter %s %s (before %s)", d.Name, quantity(millis(during.Jitter), unitTime), number(millis(before.Jitter)))
		}
		switch {
		case len(p.during) < fewest:
			e.Detail = fmt.Sprintf("too little was measured: %d packets %s during the fault", len(p.during), d.Name)
			return e
		case busy(d, p.during) != "":
			e.Detail = tooBusy + busy(d, p.during)
			return e
		case len(p.before) < fewestAround:
			e.Detail = fmt.Sprintf("nothing to compare with: %d packets %s before the fault", len(p.before), d.Name)
			return e
		case sound(d.Name, before, link.Impairment{}) != "":
			e.Detail = "the path was not well before the fault: " + sound(d.Name, before, link.Impairment{})
			return e
		case float64(d.Own) > ownLoss*float64(len(d.Records)):
			e.Detail = fmt.Sprintf(tooBusy+"the observer itself lost %d of %d packets %s", d.Own, len(d.Records), d.Name)
			return e
		}
		if len(p.after) >= fewestAround {
			after++
			if s := lingers(d, before, then); s != "" {
				back, rushed = append(back, s), rushed+busy(d, p.after)
			}
		}
		for _, f := range found {
			if f.promised && !f.tells() {
				weak = append(weak, f)
			}
		}
	}
	promised := false
	for _, f := range findings {
		promised = promised || f.promised
	}
	var wrong []finding
	for _, f := range findings {
		if !f.holds() {
			wrong = append(wrong, f)
		}
	}
	switch {
	case !promised:
		e.Detail = "the fault promises nothing that packets would show"
	case len(wrong) > 0:
		e.Status = evidence.Mismatch
		lead(&e, wrong)
		e.Detail = "during the fault: " + list(wrong)
	case len(weak) > 0:
		lead(&e, weak)
		e.Detail = fmt.Sprintf("too little was measured to tell it from half of it: %s; a longer fault would say more", list(weak))
	case after < len(directions):
		e.Detail = during(findings) + "; nothing was measured after it"
	case rushed != "":
		e.Detail = during(findings) + "; after it " + strings.Join(back, ", ") + ", but " + tooBusy + rushed
	case len(back) > 0:
		e.Status = evidence.Mismatch
		e.Detail = "the fault outlived its end: after it " + strings.Join(back, ", ") + "; " + during(findings)
	default:
		e.Status = evidence.Confirmed
		e.Detail = during(findings) + extra + "; after it the path is as it was before"
	}
	return e
}

func during(findings []finding) string {
	var promised []finding
	for _, f := range findings {
		if f.promised {
			promised = append(promised, f)
		}
	}
	return "during the fault: " + list(promised)
}

// lead puts the first of some findings into the evidence: one that the fault promises, if there is any.
func lead(e *evidence.Evidence, findings []finding) {
	if len(findings) == 0 {
		return
	}
	f := findings[0]
	for _, g := range findings {
		if g.promised {
			f = g
			break
		}
	}
	e.Expected, e.Measured, e.Unit = round(f.expected), round(f.measured), f.unit
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

func list(findings []finding) string {
	parts := make([]string, len(findings))
	for i, f := range findings {
		parts[i] = f.String()
	}
	return strings.Join(parts, ", ")
}
