package processes

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

const (
	// enough is the share of looks, in per cent, that must agree: a machine under load misses one now and then.
	enough = 90
	// fewest looks that say anything.
	fewest = 3
	// settle is left out at the beginning of a fault, and of what comes after it.
	settle = 200 * time.Millisecond
	// spare is how much more processor time than its limit a target may be seen to use: both clocks have steps.
	spare = 1.15
	// felt is how much of its limit, in per cent, a target must have taken for the limit to be felt.
	felt = 90
)

// phase is what was seen in one part of a fault's window.
type phase struct {
	samples []sample
	gets    []get
}

// phases sorts looks by when they were taken. One that straddles a border belongs to neither side.
func phases(w evidence.Window, samples []sample, gets []get) (before, during, after phase) {
	in := func(start, end time.Time) *phase {
		switch {
		case w.Inject.IsZero() || end.Before(w.Inject):
			return &before
		case !w.Injected.IsZero() && !start.Before(w.Injected.Add(settle)) && (w.Restore.IsZero() || end.Before(w.Restore)):
			return &during
		case !w.Restored.IsZero() && start.After(w.Restored.Add(settle)):
			return &after
		}
		return nil
	}
	for _, s := range samples {
		if p := in(s.at.Add(-s.since), s.at.Add(s.took)); p != nil {
			p.samples = append(p.samples, s)
		}
	}
	for _, g := range gets {
		if p := in(g.start, g.end); p != nil {
			p.gets = append(p.gets, g)
		}
	}
	return
}

// share is the per cent of a phase's samples of which something is true.
func (p phase) share(is func(sample) bool) float64 {
	n := 0
	for _, s := range p.samples {
		if is(s) {
			n++
		}
	}
	return percent(n, len(p.samples))
}

// answered is the per cent of a phase's requests that were answered.
func (p phase) answered() float64 {
	n := 0
	for _, g := range p.gets {
		if g.status != 0 && g.status < 500 {
			n++
		}
	}
	return percent(n, len(p.gets))
}

func percent(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(n) / float64(of)
}

// latency is the median time of a phase's answers.
func (p phase) latency() (time.Duration, bool) {
	var list []time.Duration
	for _, g := range p.gets {
		if g.status != 0 {
			list = append(list, g.end.Sub(g.start))
		}
	}
	if len(list) == 0 {
		return 0, false
	}
	slices.Sort(list)
	return list[len(list)/2], true
}

// cores is the processor time used over the time that passed.
func (p phase) cores() float64 {
	var used, passed time.Duration
	for _, s := range p.samples {
		used += s.used
		passed += s.since
	}
	if passed == 0 {
		return 0
	}
	return used.Seconds() / passed.Seconds()
}

func runs(s sample) bool    { return s.alive > 0 && s.stopped == 0 }
func stopped(s sample) bool { return s.alive > 0 && s.stopped == s.alive }
func gone(s sample) bool    { return s.alive == 0 }

// judge says what the looks prove.
func judge(x Expect, w evidence.Window, samples []sample, gets []get) evidence.Evidence {
	before, during, after := phases(w, samples, gets)
	// That a stopped process's connections are accepted is the kernel's doing: without HTTP there is nothing to ask for.
	if x.Mute && len(before.gets) > 0 && !slices.ContainsFunc(before.gets, func(g get) bool { return g.status != 0 }) {
		x.URL = ""
	}
	e := evidence.Evidence{Status: evidence.Inconclusive, Expected: 100, Unit: "% of looks"}
	switch {
	case len(during.samples) < fewest:
		e.Detail = fmt.Sprintf("too little was measured: %d looks during the fault", len(during.samples))
		return e
	case len(before.samples) < fewest:
		e.Detail = "too little was measured before the fault"
		return e
	case x.URL != "" && (len(before.gets) == 0 || len(during.gets) == 0 && x.What != Starved):
		e.Detail = "too little was asked from outside"
		return e
	case before.share(runs) < enough:
		e.Detail = fmt.Sprintf("the target did not run before the fault: it did at %.0f%% of looks", before.share(runs))
		return e
	case x.URL != "" && before.answered() < enough:
		e.Detail = fmt.Sprintf("the target was not well before the fault: it answered %.0f%% of requests", before.answered())
		return e
	}
	switch x.What {
	case Hung:
		e = judgeHung(x, e, during)
	case Starved:
		e = judgeStarved(x, e, before, during)
	case Pressed:
		e = judgePressed(x, e, during)
	}
	if e.Status != evidence.Confirmed {
		return e
	}
	return judgeAfter(x, e, before, after)
}

func judgeHung(x Expect, e evidence.Evidence, during phase) evidence.Evidence {
	e.Unit = "% of looks at which it was stopped"
	e.Measured = during.share(stopped)
	e.Detail = fmt.Sprintf("during the fault every process was stopped at %.0f%% of %d looks", e.Measured, len(during.samples))
	if x.URL != "" {
		e.Detail += fmt.Sprintf(", and %.0f%% of %d requests were answered", during.answered(), len(during.gets))
	}
	e.Status = evidence.Confirmed
	if e.Measured < enough || x.URL != "" && during.answered() > 100-enough {
		e.Status = evidence.Mismatch
	}
	return e
}

func judgeStarved(x Expect, e evidence.Evidence, before, during phase) evidence.Evidence {
	e.Unit = "cores"
	e.Expected, e.Measured = x.Cores, math.Round(1000*during.cores())/1000
	used := before.cores()
	e.Detail = fmt.Sprintf("it used %.3f cores before the fault and %.3f during it, of %.3f that it was left with", used, during.cores(), x.Cores)
	if a, ok := before.latency(); ok {
		if b, ok := during.latency(); ok {
			e.Detail += fmt.Sprintf("; the median answer took %s before and %s during it", round(a), round(b))
		} else {
			e.Detail += fmt.Sprintf("; the median answer took %s before it, and none came during it", round(a))
		}
	}
	throttled := counted(during.samples, func(s sample) uint64 { return s.throttled })
	stops := during.share(func(s sample) bool { return s.stopped > 0 })
	heldBack := throttled > 0 || stops > 0 && stops < 100 // by the kernel, or by turns
	switch {
	case during.share(gone) > 100-enough:
		e.Status = evidence.Mismatch
		e.Detail = "its processes ended during the fault; " + e.Detail
	case during.cores() > x.Cores*spare+0.005:
		e.Status = evidence.Mismatch
	case during.cores() < x.Cores/2 && (stops == 100 || throttled == 0 && stops > 50):
		e.Status = evidence.Mismatch
		e.Detail += fmt.Sprintf("; it was stopped at %.0f%% of looks, which is more than a limit", stops)
	case used <= x.Cores && !heldBack:
		e.Status = evidence.Inconclusive
		e.Detail += ": that is not less than it needs, so the limit was not felt"
	case !heldBack && stops == 0:
		// It used less, and nobody held it back: whatever it was, it was not this.
		e.Status = evidence.Mismatch
		e.Detail += "; and yet the kernel never held it back"
	case throttled == 0 && used > x.Cores && during.cores() < x.Cores/2:
		e.Status = evidence.Inconclusive
		e.Detail += ": that is less than half of it, so the limit was hardly felt"
	default:
		e.Status = evidence.Confirmed
		if throttled > 0 {
			e.Detail += fmt.Sprintf("; the kernel held it back in %d periods", throttled)
		}
	}
	return e
}

// counted is by how much a counter of the kernel's grew.
func counted(samples []sample, value func(sample) uint64) uint64 {
	if len(samples) == 0 {
		return 0
	}
	first, last := value(samples[0]), value(samples[len(samples)-1])
	if last < first {
		return 0
	}
	return last - first
}

func judgePressed(x Expect, e evidence.Evidence, during phase) evidence.Evidence {
	e.Unit = "% of the room that was left"
	var peak int64
	var held uint64
	limited := 0
	for _, s := range during.samples {
		// Pages are whole, and a limit may be one less.
		if s.limit < 0 || s.limit > x.Room+1<<16 {
			continue
		}
		limited++
		peak = max(peak, s.usage)
		held = max(held, s.held)
	}
	e.Measured = math.Round(1000*float64(peak)/float64(x.Room)) / 10
	e.Detail = fmt.Sprintf("it took %.1f MB at most of the %.1f MB that were left, and was held back %d times", float64(peak)/1e6, float64(x.Room)/1e6, held)
	if limited == 0 {
		e.Detail = "no limit of memory was in force"
	}
	e.Status = evidence.Mismatch
	switch {
	case limited == 0:
	case percent(limited, len(during.samples)) < enough:
		e.Detail = fmt.Sprintf("the limit was in force at %.0f%% of looks; %s", percent(limited, len(during.samples)), e.Detail)
	case during.share(gone) > 100-enough || gone(during.samples[len(during.samples)-1]):
		e.Detail += "; and it ended, which it should not have"
	case e.Measured < felt || held == 0:
		e.Status = evidence.Inconclusive
		e.Detail += ": it never needed what it could not have, so the limit was not felt"
	default:
		e.Status = evidence.Confirmed
	}
	return e
}

// judgeAfter says whether the fault ended when it should have.
func judgeAfter(x Expect, e evidence.Evidence, before, after phase) evidence.Evidence {
	if len(after.samples) < fewest || x.URL != "" && len(after.gets) == 0 {
		e.Status = evidence.Inconclusive
		e.Detail += "; too little was measured after it"
		return e
	}
	// What comes back takes its time; from then on it has to stay.
	back := slices.IndexFunc(after.samples, runs)
	rest := phase{}
	if back >= 0 {
		rest.samples = after.samples[back:]
	}
	first := slices.IndexFunc(after.gets, func(g get) bool { return g.status != 0 && g.status < 500 })
	if first >= 0 {
		rest.gets = after.gets[first:]
	}
	var wrong []string
	if rest.share(runs) < enough {
		wrong = append(wrong, fmt.Sprintf("after it, it ran at %.0f%% of looks", after.share(runs)))
	}
	if x.URL != "" && rest.answered() < enough {
		wrong = append(wrong, fmt.Sprintf("after it, it answered %.0f%% of requests", after.answered()))
	}
	was, is := before.samples[0], after.samples[len(after.samples)-1]
	if was.cpuGroup != is.cpuGroup || was.memGroup != is.memGroup {
		wrong = append(wrong, "after it, it is in another control group than before")
	}
	if len(wrong) > 0 {
		e.Status = evidence.Mismatch
		e.Detail = "the fault outlived its end: " + strings.Join(wrong, ", ") + "; " + e.Detail
		return e
	}
	e.Detail += "; after it all was as before"
	return e
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
