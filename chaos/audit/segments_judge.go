package audit

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/media"
)

// normal is what a healthy segment of the rung looks like.
type normal struct {
	lasts  time.Duration
	frames int
	late   time.Duration
	audio  bool
	number uint64        // a segment before the fault, and
	at     time.Duration // when it starts: those of others follow
}

func learnSegments(samples []piece) (n normal) {
	samples = only(samples, piece.whole)
	var lasts, late []time.Duration
	var frames []int
	for _, p := range samples {
		lasts, frames = append(lasts, p.lasts), append(frames, p.frames)
		if p.timed {
			late = append(late, p.late)
		}
		n.audio = n.audio || p.audio
	}
	n.lasts, n.frames, n.late = median(lasts), median(frames), median(late)
	if len(samples) > 0 {
		last := samples[len(samples)-1]
		n.number, n.at = last.number, last.at
	}
	return n
}

// offset is by how much a segment's media time differs from what its number says.
func (n normal) offset(p piece) time.Duration {
	d := p.at - n.at - time.Duration(int64(p.number)-int64(n.number))*n.lasts
	if p.wraps > 0 {
		if d %= p.wraps; d > p.wraps/2 {
			d -= p.wraps
		} else if d < -p.wraps/2 {
			d += p.wraps
		}
	}
	return d
}

// drift is how far a segment's media time may stray without fault: frames do not end where segments do, and other
// people's encoders do not cut to the millisecond, which adds up.
func (n normal) drift(p piece) time.Duration {
	apart := time.Duration(int64(p.number) - int64(n.number)).Abs()
	return max(n.lasts/4, 100*time.Millisecond) + apart*n.lasts/50
}

// sound reports whether a segment is as it should be.
func (n normal) sound(d media.Defect, p piece) bool {
	if !p.whole() || p.faults > 0 || p.differs || p.same && p.compared {
		return false
	}
	if n.lasts > 0 && (float64(p.lasts) < 0.85*float64(n.lasts) || n.offset(p).Abs() > n.drift(p)) {
		return false
	}
	if float64(p.frames) < 0.95*float64(n.frames)-1 || n.audio && !p.audio {
		return false
	}
	return !n.has(d, p)
}

// has reports whether a segment has the defect.
func (n normal) has(d media.Defect, p piece) bool {
	switch d.Kind {
	case media.Missing:
		status := d.Status
		if status == 0 {
			status = 404
		}
		return p.fail == "" && p.status == status
	case media.Late:
		return p.there() && p.timed && p.late-n.late > max(d.Delay/2, slack)
	case media.Short:
		return p.whole() && float64(p.lasts) <= float64(n.lasts)*(1-(1-d.Keep)/2)
	case media.MissingFrames:
		return p.whole() && float64(p.frames) <= float64(n.frames)*(1-d.Share/2) && float64(p.lasts) > 0.85*float64(n.lasts)
	case media.Corrupt:
		return p.there() && (p.parsed != nil || p.faults > 0 || p.differs)
	case media.Frozen:
		return p.whole() && p.compared && p.same
	case media.WrongTime:
		// On the right side of it, and by half at least.
		return p.whole() && float64(n.offset(p))/float64(d.Shift) > 0.5
	}
	return false
}

// defect is it in words.
func defectWords(d media.Defect) string {
	switch d.Kind {
	case media.Missing:
		return "missing"
	case media.Late:
		return "late by " + span(d.Delay)
	case media.Short:
		return fmt.Sprintf("cut to %.0f %%", 100*d.Keep)
	case media.MissingFrames:
		return fmt.Sprintf("without %.0f %% of their frames", 100*d.Share)
	case media.WrongTime:
		return "shifted by " + span(d.Shift)
	}
	return d.Kind
}

// chance is the probability that a chosen segment shows the defect: of few frames spoiled some segments have none.
func (n normal) chance(d media.Defect) float64 {
	const sure = 0.999
	chance := 1.0
	switch d.Kind {
	case media.Corrupt:
		chance -= atMost(0, n.frames, d.Share)
	case media.MissingFrames: // the first frame always stays; so many others must be gone for has
		least := max(int(math.Ceil(float64(n.frames)*d.Share/2)), 1)
		chance -= atMost(least-1, n.frames-1, d.Share)
	}
	if chance > sure {
		return 1
	}
	return chance
}

// each counts segments, each one once however often it was asked for: it is a draw once. It has what most of its samples have.
func each(samples []piece, has func(piece) bool) (n, hits int) {
	votes := map[uint64]int{}
	for _, p := range samples {
		if has(p) {
			votes[p.number]++
		} else {
			votes[p.number]--
		}
	}
	for _, v := range votes {
		if v > 0 {
			hits++
		}
	}
	return len(votes), hits
}

// telling is how many segments it takes: of fewer, all might be spoiled by chance where only half of them are.
const telling = 5

// judgeSegments says what segments prove about a fault that should have spoiled exactly those that were selected.
func judgeSegments(d media.Defect, w evidence.Window, elsewhere string, samples []piece) evidence.Evidence {
	samples = slices.SortedFunc(slices.Values(samples), func(a, b piece) int { return a.start.Compare(b.start) })
	in := func(ph phase, control, selected bool) []piece {
		return only(samples, func(p piece) bool {
			return !p.start.IsZero() && p.control == control && (control || p.selected == selected) && phaseOf(w, p.start, p.end) == ph
		})
	}
	was := slices.Concat(in(before, false, true), in(before, false, false))
	slices.SortFunc(was, func(a, b piece) int { return a.start.Compare(b.start) })
	then := slices.Concat(in(after, false, true), in(after, false, false))
	slices.SortFunc(then, func(a, b piece) int { return a.start.Compare(b.start) })
	is, others := in(during, false, true), in(during, false, false)
	base, controls := learnSegments(was), in(during, true, false)
	aside := learnSegments(in(before, true, false))
	has := func(p piece) bool { return base.has(d, p) }
	well := func(p piece) bool { return base.sound(d, p) }

	wellBefore := share(was, well)
	measured, chance := share(is, has), base.chance(d)
	what := fmt.Sprintf("during the fault %s of %d segments chosen were %s", count(is, has), len(is), defectWords(d))
	few, much := measured < enough, len(is) >= telling
	if chance < 1 {
		n, hits := each(is, has)
		measured = float64(hits) / float64(max(n, 1))
		what = fmt.Sprintf("during the fault %d of %d segments chosen were %s, as chance has it of %.0f %%", hits, n, defectWords(d), 100*chance)
		few = n > 0 && atMost(hits, n, chance) <= hardly/10
		if chance < enough {
			much = 1-atMost(hits-1, n, chance/2) <= 5*hardly
		}
	}
	e := evidence.Evidence{Status: evidence.Inconclusive, Expected: percent(chance), Measured: percent(measured), Unit: "% of the segments chosen"}
	switch {
	case len(is) < 2:
		e.Detail = fmt.Sprintf("too little was measured: %d of the segments chosen were asked for during the fault", len(is))
		return e
	case len(was) < 2:
		e.Detail = "too little was measured before the fault; " + what
		return e
	case !mostly(was, well, enough):
		e.Detail = fmt.Sprintf("the rung was not well before the fault: %s of %d segments were; %s", count(was, well), len(was), what)
		return e
	case few:
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%.4g %% of the segments chosen were expected to be %s, but %s", percent(chance), defectWords(d), what)
		return e
	case !much:
		e.Detail = fmt.Sprintf("too little was measured: %s, and half as many might have been", what)
		return e
	case len(others) >= 2 && !mostly(others, well, enough):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("segments that were not chosen suffered too: %s of %d were whole; %s", count(others, well), len(others), what)
		return e
	case len(controls) >= 2 && !mostly(controls, func(p piece) bool { return aside.sound(d, p) }, enough):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the fault reached %s too: %s of %d segments there were whole; %s", elsewhere, count(controls, func(p piece) bool { return aside.sound(d, p) }), len(controls), what)
		return e
	}
	sized := only(is, has)
	if d.Kind == media.MissingFrames { // those that lost few by chance are part of it
		sized = only(is, piece.whole)
	}
	if bad := size(d, base, sized, &e); bad != "" {
		e.Status = evidence.Mismatch
		e.Detail = bad + "; " + what
		return e
	}
	since := time.Duration(0)
	if i := slices.IndexFunc(then, well); i >= 0 {
		since = then[i].end.Sub(w.Restored)
		then = then[i:]
	}
	// Those that were not chosen are whole whether it is over or not.
	chosen := only(then, func(p piece) bool { return p.selected })
	calm := mostly(chosen, well, back*wellBefore)
	n, hits := each(chosen, has)
	switch {
	case len(then) == 0:
		e.Detail = what + "; nothing was measured after it"
	case !mostly(then, well, back*wellBefore), !calm && hits > 0:
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the fault outlived its end: after it %s of %d segments were whole, of those chosen %s of %d; %s",
			count(then, well), len(then), count(chosen, well), len(chosen), what)
	case !calm, atMost(hits, n, chance) > hardly:
		e.Detail = fmt.Sprintf("%s; too little was measured after it: %d of the segments chosen", what, n)
	default:
		e.Status = evidence.Confirmed
		e.Detail = fmt.Sprintf("%s; after it %s of %d were whole, the first within %s", what, count(then, well), len(then), span(since))
		if len(others) > 0 {
			e.Detail += fmt.Sprintf("; of those not chosen %s of %d were whole", count(others, well), len(others))
		}
		if len(controls) > 0 {
			e.Detail += fmt.Sprintf("; %s was whole throughout (%d segments)", elsewhere, len(controls))
		}
	}
	return e
}

// size measures how much, where a defect has a size: it fills in the evidence and returns what is wrong.
func size(d media.Defect, base normal, hits []piece, e *evidence.Evidence) string {
	pick := func(f func(piece) time.Duration) time.Duration {
		var out []time.Duration
		for _, p := range hits {
			out = append(out, f(p))
		}
		return median(out)
	}
	switch d.Kind {
	case media.Late:
		late := pick(func(p piece) time.Duration { return p.late })
		e.Expected, e.Measured, e.Unit = millis(d.Delay), millis(late), "ms"
		// What is late is still fetched after that, and a playlist is looked at now and then only.
		if late < d.Delay-base.lasts/4-slack || late > d.Delay+d.Delay*15/100+base.late+2*slack+base.lasts/4 {
			return fmt.Sprintf("segments came %s after they were due, %s was expected", span(late), span(d.Delay))
		}
	case media.Short:
		left := float64(pick(func(p piece) time.Duration { return p.lasts })) / float64(max(base.lasts, 1))
		e.Expected, e.Measured, e.Unit = percent(d.Keep), percent(left), "% of a segment's time"
		if math.Abs(left-d.Keep) > 0.1 {
			return fmt.Sprintf("segments had %.0f %% of their time, %.0f %% was expected", 100*left, 100*d.Keep)
		}
	case media.WrongTime:
		by := pick(base.offset)
		e.Expected, e.Measured, e.Unit = millis(d.Shift), millis(by), "ms"
		if (by - d.Shift).Abs() > d.Shift.Abs()/10+base.drift(hits[0]) {
			return fmt.Sprintf("segments were shifted by %s, %s was expected", span(by), span(d.Shift))
		}
	case media.MissingFrames:
		frames, lost := 0, 0
		for _, p := range hits {
			frames += base.frames - 1 // the first frame always stays
			lost += base.frames - p.frames
		}
		gone := float64(lost) / float64(max(frames, 1))
		e.Expected, e.Measured, e.Unit = percent(d.Share), percent(gone), "% of frames missing"
		// The same segment asked for twice is the same draw, so that n counts for less than it is.
		tolerance := 3*math.Sqrt(d.Share*(1-d.Share)/float64(max(base.frames, 1))) + 0.02
		if math.Abs(gone-d.Share) > tolerance {
			return fmt.Sprintf("%.0f %% of frames were missing, %.0f %% was expected", 100*gone, 100*d.Share)
		}
	}
	return ""
}
