package forecast

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// DefaultKind is the kind of an event that names none.
const DefaultKind = "title-fight"

// shape is when the viewers of a kind of event come, relative to its start. The shares sum to 1.
type shape struct {
	name string

	early float64       // share that comes before the start, in a rising line
	lead  time.Duration // from when on

	rush float64 // share of the crowd that comes around the start
	rise time.Duration
	fall time.Duration

	late float64 // share that comes in a tail after the start
	tail time.Duration
}

var shapes = []shape{
	{"title-fight", .25, time.Hour, .55, time.Minute, 2 * time.Minute, .20, 15 * time.Minute},
	{"league-match", .30, 45 * time.Minute, .45, 3 * time.Minute, 4 * time.Minute, .25, 20 * time.Minute},
	{"launch", .35, 30 * time.Minute, .50, 45 * time.Second, time.Minute, .15, 10 * time.Minute},
	{"concert", .20, 40 * time.Minute, .40, 5 * time.Minute, 10 * time.Minute, .40, 40 * time.Minute},
	{"premiere", .05, 10 * time.Minute, .60, 20 * time.Second, 3 * time.Minute, .35, time.Hour},
}

// Kinds lists the kinds of event, the default first.
func Kinds() []string {
	names := make([]string, len(shapes))
	for i, s := range shapes {
		names[i] = s.name
	}
	return names
}

func shapeOf(kind string) (shape, error) {
	i := slices.IndexFunc(shapes, func(s shape) bool { return s.name == kind })
	if i < 0 {
		return shape{}, fmt.Errorf("unknown kind of event %q; the kinds are %s", kind, strings.Join(Kinds(), ", "))
	}
	return shapes[i], nil
}

// density is the share of the crowd that comes per second at t seconds from the start.
func (s shape) density(t float64) float64 {
	rise, fall := s.rise.Seconds(), s.fall.Seconds()
	if t < 0 {
		lead := s.lead.Seconds()
		return s.early*2*max(0, t+lead)/(lead*lead) + s.rush*math.Exp(t/rise)/(rise+fall)
	}
	tail := s.tail.Seconds()
	return s.rush*math.Exp(-t/fall)/(rise+fall) + s.late*math.Exp(-t/tail)/tail
}

// peak is the highest density: the curve climbs up to the start and falls after it.
func (s shape) peak() float64 { return max(s.density(0), s.density(-1e-9)) }

// sharpened makes the rush steeper (or, below 1, flatter) so that the peak is times what it was, as far as that goes.
func (s shape) sharpened(times float64) shape {
	want := s.peak() * times
	with := func(f float64) shape {
		r := s
		r.rise = max(time.Second, time.Duration(float64(s.rise)/f))
		r.fall = max(time.Second, time.Duration(float64(s.fall)/f))
		return r
	}
	lo, hi := .1, 10. // bisection over the logarithm
	for range 50 {
		mid := math.Sqrt(lo * hi)
		if with(mid).peak() < want {
			lo = mid
		} else {
			hi = mid
		}
	}
	return with(math.Sqrt(lo * hi))
}

// The times a curve is told at: every second near the start, every 10 s elsewhere.
const (
	near       = 10 * time.Minute
	coarseStep = 10 * time.Second
	tails      = 3 // how many time constants of the tail the curve shows
)

func (s shape) times() []time.Duration {
	var at []time.Duration
	end := tails * s.tail
	for t := -s.lead; t <= end; {
		at = append(at, t)
		if t >= -near && t < near {
			t += time.Second
		} else {
			t += coarseStep
		}
	}
	return at
}

// hourly is how many watch at an hour of the day (local), relative to the evening: round figures of our own.
var hourly = [24]float64{.60, .45, .35, .30, .28, .28, .30, .35, .40, .45, .50, .55, .60, .60, .60, .62, .65, .72, .85, .95, 1, 1, .90, .75}

// atHour is hourly between the hours; 1 for a time that is not known.
func atHour(t time.Time) float64 {
	if t.IsZero() {
		return 1
	}
	h, part := t.Hour(), float64(t.Minute())/60
	return hourly[h]*(1-part) + hourly[(h+1)%24]*part
}
