package defects

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

// reading is one measurement.
type reading struct {
	at    time.Time
	value float64
	known bool // it could be measured
}

// level is what a fault promises to do to a level.
type level struct {
	what string // "the clock of us-east/origin"
	unit string
	sum  bool // the readings count something; otherwise their mean is the level
	// expect is by how much the level differs while the fault is in effect from what it was before.
	expect func(w evidence.Window) float64
	// growth is how much it changes a second meanwhile, on top of that.
	growth float64
	rate   float64       // where it is counted: how often a second it happens while the fault is in effect
	within float64       // of the expected: how far off the measured may be
	noise  float64       // variance of one reading, which is chance: the mean may be three standard errors further off
	orMore bool          // others may make it more
	calm   float64       // how far the level may be off when nothing is wrong: after the fault, and the control's throughout
	settle time.Duration // from its beginning until the fault shows in full
	back   time.Duration // from its end until all is as before
	least  int           // readings that a phase needs; 0: enough
	trail  time.Duration // before the end of the fault: readings that its end may have touched
	after  time.Duration // from its end until there are the readings that would show it if it went on
}

const (
	// enough is how many readings a phase needs that are known.
	enough = 3
	// surely is how many standard errors what goes on must be away from what is none: it is seen in 97 of 100 cases.
	surely = 2.0
)

// phase is the readings of a while.
type phase struct {
	n, unknown int
	sum        float64 // of their values
	seconds    float64 // from the beginning of the fault until each, all together
	last       time.Time
}

func (p phase) of(v float64) float64 {
	if p.n == 0 {
		return 0
	}
	return v / float64(p.n)
}

func (p phase) mean() float64 { return p.of(p.sum) }

// age is how long after the beginning of the fault the readings were taken, in seconds and on average.
func (p phase) age() float64 { return p.of(p.seconds) }

func phaseOf(readings []reading, from, to, injected time.Time) phase {
	var p phase
	for _, r := range readings {
		if r.at.Before(from) || !to.IsZero() && !r.at.Before(to) {
			continue
		}
		if !r.known {
			p.unknown++
			continue
		}
		p.n++
		p.sum += r.value
		p.seconds += r.at.Sub(injected).Seconds()
		p.last = r.at
	}
	return p
}

// sure says whether a phase says anything.
func (l level) sure(p phase) bool { return p.n >= cmp.Or(l.least, enough) && p.n > p.unknown }

// moved is by how much the level differs from what it was before.
func (l level) moved(before, p phase) float64 {
	if l.sum {
		return p.sum
	}
	return p.mean() - before.mean()
}

func (l level) chance(p phase) float64 { return math.Sqrt(l.noise / float64(p.n)) }

// shows says whether readings from after the fault are enough to see it there, had it gone on.
func (l level) shows(w evidence.Window, after phase) bool {
	would := l.expect(w) + l.growth*after.age()
	if l.sum {
		would = math.Floor(l.rate * after.last.Sub(w.Restored).Seconds())
	}
	return math.Abs(would)-surely*l.chance(after) > l.calm
}

// judge says what readings of the target and of the control, which may be none, prove about a fault. It is pure.
func (l level) judge(w evidence.Window, target, control []reading) evidence.Evidence {
	e := evidence.Evidence{Status: evidence.Inconclusive, Unit: l.unit}
	if w.Inject.IsZero() || w.Injected.IsZero() || w.Restore.IsZero() {
		e.Detail = "the fault was not in effect"
		return e
	}
	begin, end := w.Injected.Add(l.settle), w.Restore.Add(-l.trail)
	if l.sum {
		begin = w.Inject // what is counted may happen at once
	}
	before := phaseOf(target, time.Time{}, w.Inject.Add(-l.trail), w.Injected)
	during := phaseOf(target, begin, end, w.Injected)
	grown := l.growth * during.age()
	e.Expected = l.expect(w) + grown
	if !l.sure(before) || !l.sure(during) {
		e.Detail = fmt.Sprintf("too little was measured of %s: %d readings before the fault and %d during it, %d and %d failed", l.what, before.n, during.n, before.unknown, during.unknown)
		return e
	}
	e.Measured = l.moved(before, during)
	said := fmt.Sprintf("%s differed by %s %s during the fault from what it was before", l.what, show(e.Measured), l.unit)
	if l.sum {
		said = fmt.Sprintf("%s: %s %s during the fault", l.what, show(e.Measured), l.unit)
		if before.sum > l.calm {
			e.Detail = fmt.Sprintf("%s, and %s before it already: the target was not well", said, show(before.sum))
			return e
		}
	}
	near := l.within + 3*l.chance(during)
	off := func(measured float64) bool {
		by := measured - e.Expected
		return by < -near || by > near && !l.orMore
	}
	switch {
	case off(e.Measured):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%s; %s was expected", said, show(e.Expected))
		return e
	case !off(0):
		e.Detail = said + ": that is too little to tell it from nothing; a longer fault, or a stronger one, would say more"
		return e
	}
	compared := false
	if len(control) > 0 {
		was, is := phaseOf(control, time.Time{}, w.Inject.Add(-l.trail), w.Injected), phaseOf(control, begin, end, w.Injected)
		compared = l.sure(was) && l.sure(is)
		switch moved := l.moved(was, is); {
		case compared && math.Abs(moved) > l.calm:
			e.Status = evidence.Mismatch
			e.Detail = fmt.Sprintf("%s, but the control's did by %s too: the fault reached further than it should", said, show(moved))
			return e
		case l.sure(was) && !compared: // whether the fault has reached it, nobody saw
			e.Detail = fmt.Sprintf("%s, but the control, which answered before it, could not be read: %d readings, %d failed", said, is.n, is.unknown)
			return e
		}
	}
	if w.Restored.IsZero() {
		e.Status = evidence.Mismatch
		e.Detail = said + "; it was not undone"
		return e
	}
	after := phaseOf(target, w.Restored.Add(l.back), time.Time{}, w.Injected)
	switch rest := l.moved(before, after); {
	case !l.sure(after):
		e.Detail = fmt.Sprintf("%s; too little was measured after it: %d readings, %d failed", said, after.n, after.unknown)
	case math.Abs(rest) > l.calm:
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%s, and still by %s after it: the fault outlived its end", said, show(rest))
	case !l.shows(w, after):
		e.Detail = fmt.Sprintf("%s; too little was measured after it to see whether it is over: %d readings", said, after.n)
	default:
		e.Status = evidence.Confirmed
		e.Detail = said + ", and was as before after it"
		if compared {
			e.Detail += "; the control's did not"
		}
	}
	return e
}

func show(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// series keeps readings in order of their time, the newest of them.
type series struct{ list []reading }

const maxReadings = 40_000

func (s *series) add(r reading) {
	if len(s.list) >= maxReadings {
		s.list = slices.Delete(s.list, 0, maxReadings/2)
	}
	s.list = append(s.list, r)
}
