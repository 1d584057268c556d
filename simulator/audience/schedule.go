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
	// Sinus: the rate swings around Rate by Amplitude once every Period, beginning at Rate and upwards.
	Sinus Curve = "sinus"
	// CSV: the rate follows Points, as measured (see ReadCurve), in straight lines; before the first and after the last
	// point it is the base rate. Rate 0 leaves the points as they are, another scales them so that their peak is Rate.
	CSV Curve = "csv"
	// Forecast: as CSV, with points that were predicted (see package forecast).
	Forecast Curve = "forecast"
)

// Curves lists the curves by name.
func Curves() []string {
	return []string{string(Constant), string(Ramp), string(Spike), string(Sinus), string(CSV), string(Forecast)}
}

// spikeRise is the part of a spike that climbs.
const spikeRise = 0.2

// Bounds on a leg.
const (
	MaxRate   = 1e6                    // play starts a second
	MinPeriod = 100 * time.Millisecond // of a sinus
	MaxPoints = 100_000                // of a measured or predicted curve
)

// Point is a rate at a time.
type Point struct {
	At   time.Duration // from the start of the leg
	Rate float64       // play starts a second
}

// Leg is one part of a schedule. A leg without For lasts until the next leg or the end, and its rate (but for a spike
// and a curve of points, which end by themselves) becomes the base rate. A leg with For is an excursion: when it ends,
// the rate is the base rate again, at once.
type Leg struct {
	At    time.Duration // from the start of the event
	Rate  float64       // play starts a second, 0 to MaxRate
	For   time.Duration // 0: until the next leg or the end
	Curve Curve         // "" is Constant

	Amplitude float64       // of a Sinus, play starts a second: 0 to Rate
	Period    time.Duration // of a Sinus, MinPeriod or more
	// Points of a CSV or Forecast, in order; two at one time are a step. What lies past the leg's end is cut off.
	Points []Point
}

// piece is a stretch over which the rate is a straight line, or a line with a swing around it.
type piece struct {
	from, to float64 // seconds
	r0, r1   float64 // rate at both ends, but for the swing
	n0       float64 // starts before it: the rate integrated up to from

	swing, omega float64 // the rate has swing·sin(omega·x) on top; omega 0: none
}

func (p *piece) slope() float64 { return (p.r1 - p.r0) / (p.to - p.from) }

// rate is the rate x seconds into the piece.
func (p *piece) rate(x float64) float64 {
	r := p.r0 + (p.r1-p.r0)*x/(p.to-p.from)
	if p.omega > 0 {
		r += p.swing * math.Sin(p.omega*x)
	}
	return r
}

// upTo is the rate integrated over the piece's first x seconds.
func (p *piece) upTo(x float64) float64 {
	n := (p.r0 + p.slope()*x/2) * x
	if p.omega > 0 {
		n += p.swing / p.omega * (1 - math.Cos(p.omega*x))
	}
	return n
}

func (p *piece) count() float64 {
	if p.omega > 0 {
		return p.upTo(p.to - p.from)
	}
	return (p.r0 + p.r1) / 2 * (p.to - p.from)
}

func (p *piece) peak() float64 {
	peak := max(p.r0, p.r1)
	if p.omega > 0 {
		peak = p.r0 + p.swing*math.Sin(min(p.omega*(p.to-p.from), math.Pi/2))
	}
	return peak
}

// reach is the inverse of upTo: how many seconds into the piece d starts have come.
func (p *piece) reach(d float64) float64 {
	if d <= 0 {
		return 0
	}
	if p.omega > 0 {
		return p.reachSwing(d)
	}
	// d = r0·x + slope/2·x². This root of it stays exact when the slope or r0 is 0.
	if p.r0 == p.r1 {
		return d / p.r0
	}
	return 2 * d / (p.r0 + math.Sqrt(max(0, p.r0*p.r0+2*p.slope()*d)))
}

// reachSwing solves upTo(x) = d for a level line with a swing: Newton's method, kept inside a bracket, to a tenth of a
// nanosecond. The swing is never ahead of the line by more than 2·swing/omega, which gives the bracket.
func (p *piece) reachSwing(d float64) float64 {
	hi := d / p.r0
	lo := max(0, hi-2*p.swing/p.omega/p.r0)
	x := hi - p.swing/p.omega/p.r0*(1-math.Cos(p.omega*hi))
	for range 100 { // bisection alone would need some 70
		if x < lo || x > hi {
			x = lo + (hi-lo)/2
		}
		sin, cos := math.Sincos(p.omega * x)
		over, rate := p.r0*x+p.swing/p.omega*(1-cos)-d, p.r0+p.swing*sin
		if over > 0 {
			hi = x
		} else {
			lo = x
		}
		step := over / rate // ±Inf or NaN where the rate is 0: outside the bracket
		next := x - step
		if !(next >= lo && next <= hi) {
			next = lo + (hi-lo)/2
			step = hi - lo
		}
		x = next
		// A step of Newton's leaves an error of about step²·|rate'|/(2·rate).
		if err := step * step * p.swing * p.omega / rate; err < 1e-10 || hi-lo < 1e-10 {
			break
		}
	}
	return x
}

// Schedule is an arrival schedule: for each k, when the k-th play start is due. It is immutable.
type Schedule struct {
	pieces []piece
	end    time.Duration
	total  uint64
	part   portion // of the starts, for one of several generators
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
	add := func(to, r0, r1 float64) *piece {
		if to <= at {
			return nil
		}
		n0 := 0.0
		if len(s.pieces) > 0 {
			p := s.pieces[len(s.pieces)-1]
			n0 = p.n0 + p.count()
		}
		s.pieces = append(s.pieces, piece{from: at, to: to, r0: r0, r1: r1, n0: n0})
		at = to
		return &s.pieces[len(s.pieces)-1]
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
		case Sinus:
			p := add(to, l.Rate, l.Rate)
			last = l.Rate
			if l.Amplitude > 0 {
				p.swing, p.omega = l.Amplitude, 2*math.Pi/l.Period.Seconds()
				last = p.rate(p.to - p.from)
			}
		case CSV, Forecast:
			last = base
			scale := l.scale()
			for j, q := range l.Points {
				t := (l.At + q.At).Seconds()
				switch {
				case j == 0:
					add(min(t, to), base, base)
				case at < to && t > at:
					before := l.Points[j-1]
					from, r0, r1 := (l.At + before.At).Seconds(), before.Rate*scale, q.Rate*scale
					if t > to { // the leg ends on the way to this point
						r1 = r0 + (r1-r0)*(to-from)/(t-from)
						t = to
					}
					add(t, r0, r1)
					last = r1
				}
			}
			if at < to {
				add(to, base, base)
				last = base
			}
		default:
			add(to, l.Rate, l.Rate)
			last = l.Rate
		}
		switch l.Curve {
		case Spike, CSV, Forecast:
		default:
			if l.For == 0 {
				base = l.Rate
			}
		}
	}
	add(end.Seconds(), base, base)
	if len(s.pieces) > 0 {
		p := s.pieces[len(s.pieces)-1]
		s.total = uint64(math.Max(0, math.Ceil(p.n0+p.count()-countEpsilon)))
	}
	return s, nil
}

// scale is what the points' rates are multiplied by.
func (l Leg) scale() float64 {
	if l.Rate == 0 {
		return 1
	}
	peak := 0.0
	for _, p := range l.Points {
		peak = max(peak, p.Rate)
	}
	if peak == 0 {
		return 1
	}
	return l.Rate / peak
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
		case Sinus:
			if !(l.Amplitude >= 0 && l.Amplitude <= l.Rate) {
				bad(i, "amplitude %v outside 0 to the rate %v", l.Amplitude, l.Rate)
			} else if l.Rate+l.Amplitude > MaxRate {
				bad(i, "the rate swings up to %v a second, above %v", l.Rate+l.Amplitude, float64(MaxRate))
			}
			if l.Period < MinPeriod {
				bad(i, "period %v, want %v or more", l.Period, MinPeriod)
			}
		case CSV, Forecast:
			if err := CheckPoints(l.Points); err != nil {
				bad(i, "%w", err)
			}
		default:
			bad(i, "unknown curve %q", l.Curve)
		}
		if l.Curve != Sinus && (l.Amplitude != 0 || l.Period != 0) {
			bad(i, "only a %s has an amplitude and a period", Sinus)
		}
		if l.Curve != CSV && l.Curve != Forecast && len(l.Points) > 0 {
			bad(i, "only a %s or a %s has points", CSV, Forecast)
		}
	}
	return errors.Join(errs...)
}

// CheckPoints says the first thing that is wrong with a curve of points, or nil: two points or more, in order of their
// times, with rates from 0 to MaxRate.
func CheckPoints(points []Point) error {
	if len(points) < 2 || len(points) > MaxPoints {
		return fmt.Errorf("a curve of %d points, want 2 to %d", len(points), MaxPoints)
	}
	last := time.Duration(0)
	for i, p := range points {
		if p.At < last {
			return fmt.Errorf("point %d at %v, before %v", i, p.At, last)
		}
		if !(p.Rate >= 0 && p.Rate <= MaxRate) {
			return fmt.Errorf("point %d: rate %v outside 0 to %v a second", i, p.Rate, float64(MaxRate))
		}
		last = p.At
	}
	if points[0].At == last {
		return errors.New("a curve that lasts no time")
	}
	return nil
}

// Total returns how many play starts the schedule holds.
func (s *Schedule) Total() uint64 { return s.part.count(s.total) }

// End returns the length of the event.
func (s *Schedule) End() time.Duration { return s.end }

// Rate returns the rate at t, in play starts a second; 0 outside the event.
func (s *Schedule) Rate(t time.Duration) float64 {
	x := t.Seconds()
	i := sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].to > x })
	if i == len(s.pieces) || x < s.pieces[i].from {
		return 0
	}
	return s.part.rate(s.pieces[i].rate(x - s.pieces[i].from))
}

// Peak returns the highest rate of the schedule, in play starts a second.
func (s *Schedule) Peak() float64 {
	peak := 0.0
	for i := range s.pieces {
		peak = max(peak, s.pieces[i].peak())
	}
	return s.part.rate(peak)
}

// Intended returns when the k-th play start (from 0) is due, from the start of the event: the moment at which the
// integrated rate reaches k and the rate is above 0. It never decreases with k. For k ≥ Total it returns End.
func (s *Schedule) Intended(k uint64) time.Duration { return s.intended(s.part.index(k)) }

// intended is Intended by the number among all starts.
func (s *Schedule) intended(k uint64) time.Duration {
	if k >= s.total {
		return s.end
	}
	return s.due(s.holds(k), k)
}

// holds is the piece that the k-th start falls into: the last one that begins at or before it, since a start never falls
// into a pause, it waits for the pause's end.
func (s *Schedule) holds(k uint64) int {
	n := float64(k) + countEpsilon
	return sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].n0 > n }) - 1
}

func (s *Schedule) due(i int, k uint64) time.Duration {
	p := &s.pieces[i]
	x := min(p.from+p.reach(float64(k)-p.n0), p.to)
	return min(time.Duration(math.Round(x*1e9)), s.end-1)
}

// Count returns how many starts are due before t: those k with Intended(k) < t.
func (s *Schedule) Count(t time.Duration) uint64 { return s.part.count(s.count(t)) }

func (s *Schedule) count(t time.Duration) uint64 {
	if t >= s.end {
		return s.total
	}
	x := t.Seconds()
	i := sort.Search(len(s.pieces), func(i int) bool { return s.pieces[i].to > x })
	if t <= 0 || i == len(s.pieces) {
		return 0
	}
	p := &s.pieces[i]
	k := min(uint64(max(0, p.n0+p.upTo(x-p.from))), s.total)
	// The integral is exact but for rounding: the neighbours decide.
	for k > 0 && s.intended(k-1) >= t {
		k--
	}
	for k < s.total && s.intended(k) < t {
		k++
	}
	return k
}

// Walk is a reader of a schedule's starts in order: Intended costs the same however many legs there are. Each goroutine
// takes its own.
type Walk struct {
	s *Schedule
	i int
}

// Walk returns a reader that stands at the first start.
func (s *Schedule) Walk() Walk { return Walk{s: s} }

// Intended is Schedule.Intended: constant time for a k not below the one asked for last, right for any.
func (w *Walk) Intended(k uint64) time.Duration {
	k = w.s.part.index(k)
	if k >= w.s.total {
		return w.s.end
	}
	pieces, n := w.s.pieces, float64(k)+countEpsilon
	if pieces[w.i].n0 > n {
		w.i = w.s.holds(k)
	}
	for w.i+1 < len(pieces) && pieces[w.i+1].n0 <= n {
		w.i++
	}
	return w.s.due(w.i, k)
}
