package audience

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"time"
)

// Curve is how a leg's rate moves.
type Curve string

// Curves.
const (
	// Constant: the rate is Rate from the leg's first moment to its last.
	Constant Curve = "constant"
	// Ramp: the rate moves in a straight line from what it was just before the leg to Rate at the leg's end.
	Ramp Curve = "ramp"
	// Spike: the rate climbs in a straight line to Rate over the leg's first fifth and falls back to the base rate over
	// the rest: the shape of a crowd that arrives just before the first bell.
	Spike Curve = "spike"
)

// Curves lists the curves by name.
func Curves() []string { return []string{string(Constant), string(Ramp), string(Spike)} }

// spikeRise is the part of a spike that climbs.
const spikeRise = 0.2

// MaxRate bounds a leg's rate, in play starts a second.
const MaxRate = 1e6

// Leg is one part of a schedule. A leg without For lasts until the next leg or the end, and its rate (but for a spike)
// becomes the base rate. A leg with For is an excursion: when it ends, the rate is the base rate again, at once.
type Leg struct {
	At    time.Duration // from the start of the event
	Rate  float64       // play starts a second, 0 to MaxRate
	For   time.Duration // 0: until the next leg or the end
	Curve Curve         // "" is Constant
}

// piece is a stretch over which the rate is a straight line.
type piece struct {
	from, to float64 // seconds
	r0, r1   float64 // rate at both ends
	n0       float64 // starts before it: the rate integrated up to from
}

func (p piece) count() float64 { return (p.r0 + p.r1) / 2 * (p.to - p.from) }

// Schedule is an arrival schedule: for each k, when the k-th play start is due. It is immutable.
type Schedule struct {
	pieces []piece
	end    time.Duration
	total  uint64
}

// countEpsilon absorbs rounding of the integrated rate: a schedule of 10 s at 100.1/s has 1001 starts, not 1002.
const countEpsilon = 1e-6

// NewSchedule integrates the legs over an event of length end. Legs must be in order of At, lie within the event, and a
// leg's For must not reach past the next leg. The error names every leg that is wrong.
func NewSchedule(legs []Leg, end time.Duration) (*Schedule, error) {
	if err := checkLegs(legs, end); err != nil {
		return nil, err
	}
	s := &Schedule{end: end}
	var base, last float64 // the base rate; the rate just before the current leg
	at := 0.0
	add := func(to, r0, r1 float64) {
		if to <= at {
			return
		}
		n0 := 0.0
		if len(s.pieces) > 0 {
			p := s.pieces[len(s.pieces)-1]
			n0 = p.n0 + p.count()
		}
		s.pieces = append(s.pieces, piece{from: at, to: to, r0: r0, r1: r1, n0: n0})
		at = to
	}
	for i, l := range legs {
		if to := l.At.Seconds(); at < to {
			add(to, base, base)
			last = base
		}
		limit := end
		if i+1 < len(legs) {
			limit = legs[i+1].At
		}
		stop := limit
		if l.For > 0 {
			stop = l.At + l.For
		}
		switch to := stop.Seconds(); l.Curve {
		case Ramp:
			add(to, last, l.Rate)
			last = l.Rate
		case Spike:
			add(at+(to-at)*spikeRise, last, l.Rate)
			add(to, l.Rate, base)
			last = base
		default:
			add(to, l.Rate, l.Rate)
			last = l.Rate
		}
		if l.For == 0 && l.Curve != Spike {
			base = l.Rate
		}
	}
	add(end.Seconds(), base, base)
	if len(s.pieces) > 0 {
		p := s.pieces[len(s.pieces)-1]
		s.total = uint64(math.Max(0, math.Ceil(p.n0+p.count()-countEpsilon)))
	}
	return s, nil
}

func checkLegs(legs []Leg, end time.Duration) error {
	var errs []error
	bad := func(i int, format string, args ...any) {
		errs = append(errs, fmt.Errorf("leg %d: "+format, append([]any{i}, args...)...))
	}
	if end <= 0 {
		errs = append(errs, fmt.Errorf("schedule of length %v: want more than 0", end))
	}
	for i, l := range legs {
		switch {
		case l.At < 0 || l.At >= end:
			bad(i, "starts at %v, outside the event's %v", l.At, end)
		case i > 0 && l.At <= legs[i-1].At:
			bad(i, "starts at %v, not after the leg before it (%v)", l.At, legs[i-1].At)
		case i > 0 && legs[i-1].At+legs[i-1].For > l.At:
			bad(i-1, "lasts until %v, past the next leg's start at %v", legs[i-1].At+legs[i-1].For, l.At)
		}
		if l.For < 0 || l.At+l.For > end {
			bad(i, "lasts %v from %v, past the event's end at %v", l.For, l.At, end)
		}
		if !(l.Rate >= 0 && l.Rate <= MaxRate) { // also catches NaN
			bad(i, "rate %v outside 0 to %v a second", l.Rate, float64(MaxRate))
		}
		switch l.Curve {
		case "", Constant, Ramp, Spike:
		default:
			bad(i, "unknown curve %q", l.Curve)
		}
	}
	return errors.Join(errs...)
}

// Total returns how many play starts the schedule holds.
func (s *Schedule) Total() uint64 { return s.total }

// End returns the length of the event.
func (s *Schedule) End() time.Duration { return s.end }

// Rate returns the rate at t, in play starts a second; 0 outside the event.
func (s *Schedule) Rate(t time.Duration) float64 {
	x := t.Seconds()
	for _, p := range s.pieces {
		if x >= p.from && x < p.to {
			return p.r0 + (p.r1-p.r0)*(x-p.from)/(p.to-p.from)
		}
	}
	return 0
}

// Peak returns the highest rate of the schedule, in play starts a second.
func (s *Schedule) Peak() float64 {
	peak := 0.0
	for _, p := range s.pieces {
		peak = max(peak, p.r0, p.r1)
	}
	return peak
}

// Intended returns when the k-th play start (from 0) is due, from the start of the event: the moment at which the
// integrated rate reaches k and the rate is above 0. It never decreases with k. For k ≥ Total it returns End.
func (s *Schedule) Intended(k uint64) time.Duration {
	if k >= s.total {
		return s.end
	}
	n := float64(k)
	// The last piece that begins at or before n: a start never falls into a pause, it waits for the pause's end.
	i := sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].n0 > n+countEpsilon }) - 1
	p := s.pieces[i]
	d := max(0, n-p.n0)
	// n - n0 = r0·x + slope/2·x². This root of it stays exact when the slope or r0 is 0.
	slope := (p.r1 - p.r0) / (p.to - p.from)
	x := 0.0
	if d > 0 {
		x = 2 * d / (p.r0 + math.Sqrt(max(0, p.r0*p.r0+2*slope*d)))
	}
	x = min(p.from+x, p.to)
	return min(time.Duration(math.Round(x*1e9)), s.end-1)
}
