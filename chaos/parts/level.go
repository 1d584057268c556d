package parts

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
	within float64       // of the expected: how far off the measured may be
	noise  float64       // variance of one reading, which is chance: the mean may be three standard errors further off
	orMore bool          // others may make it more
	calm   float64       // how far the level may be off when nothing is wrong: after the fault, and the control's throughout
	settle time.Duration // from its beginning until the fault shows in full
	back   time.Duration // from its end until all is as before
	least  int           // readings that a phase needs; 0: enough
	trail  time.Duration // before the end of the fault: readings that its end may have touched
}

// enough is how many readings a phase needs that are known.
const enough = 3

// phase is the readings of a while.
type phase struct {
	n, unknown int
	mean, sum  float64
}

func (l level) phase(readings []reading, from, to, origin time.Time) phase {
	var p phase
	for _, r := range readings {
		if r.at.Before(from) || !to.IsZero() && !r.at.Before(to) {
			continue
		}
		if !r.known {
			p.unknown++
			continue
		}
		v := r.value
		if !origin.IsZero() {
			v -= l.growth * r.at.Sub(origin).Seconds()
		}
		p.n++
		p.sum += v
	}
	if p.n > 0 {
		p.mean = p.sum / float64(p.n)
	}
	return p
}

// sure says whether a phase says anything.
func (l level) sure(p phase) bool { return p.n >= cmp.Or(l.least, enough) && p.n > p.unknown }

func (l level) of(p phase) float64 {
	if l.sum {
		return p.sum
	}
	return p.mean
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
	middle := l.growth * end.Sub(w.Injected).Seconds() / 2
	before := l.phase(target, time.Time{}, w.Inject.Add(-l.trail), time.Time{})
	during := l.phase(target, begin, end, w.Injected)
	expect := l.expect(w)
	e.Expected = expect + middle
	if !l.sure(before) || !l.sure(during) {
		e.Detail = fmt.Sprintf("too little was measured of %s: %d readings before the fault and %d during it, %d and %d failed", l.what, before.n, during.n, before.unknown, during.unknown)
		return e
	}
	shift := l.of(during)
	if !l.sum {
		shift -= before.mean
	}
	e.Measured = shift + middle
	near := l.within + 3*math.Sqrt(l.noise/float64(during.n))
	said := fmt.Sprintf("%s differed by %s %s during the fault from what it was before", l.what, show(e.Measured), l.unit)
	if l.sum {
		said = fmt.Sprintf("%s: %s %s during the fault", l.what, show(e.Measured), l.unit)
		if before.sum > l.calm {
			e.Detail = fmt.Sprintf("%s, and %s before it already: the target was not well", said, show(before.sum))
			return e
		}
	}
	if off := shift - expect; off < -near || off > near && !l.orMore {
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%s; %s was expected", said, show(e.Expected))
		return e
	}
	if len(control) > 0 {
		was, is := l.phase(control, time.Time{}, w.Inject.Add(-l.trail), time.Time{}), l.phase(control, begin, end, time.Time{})
		moved := l.of(is)
		if !l.sum {
			moved -= was.mean
		}
		if l.sure(was) && l.sure(is) && math.Abs(moved) > l.calm {
			e.Status = evidence.Mismatch
			e.Detail = fmt.Sprintf("%s, but the control's did by %s too: the fault reached further than it should", said, show(moved))
			return e
		}
	}
	if w.Restored.IsZero() {
		e.Status = evidence.Mismatch
		e.Detail = said + "; it was not undone"
		return e
	}
	after := l.phase(target, w.Restored.Add(l.back), time.Time{}, time.Time{})
	rest := l.of(after)
	if !l.sum {
		rest -= before.mean
	}
	switch {
	case !l.sure(after):
		e.Detail = fmt.Sprintf("%s; too little was measured after it: %d readings, %d failed", said, after.n, after.unknown)
	case math.Abs(rest) > l.calm:
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%s, and still by %s after it: the fault outlived its end", said, show(rest))
	default:
		e.Status = evidence.Confirmed
		e.Detail = said + ", and was as before after it"
		if len(control) > 0 {
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
