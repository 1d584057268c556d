package player

import (
	"math"
	"time"
)

// ewma is an exponentially weighted moving average whose half-life is download time, corrected for its start from zero.
type ewma struct {
	halfLife time.Duration
	sum      float64
	weight   float64 // total, for the correction
}

func (e *ewma) add(w time.Duration, v float64) {
	a := math.Pow(0.5, float64(w)/float64(e.halfLife))
	e.sum = v*(1-a) + a*e.sum
	e.weight += w.Seconds()
}

func (e *ewma) value() float64 {
	if e.weight == 0 {
		return 0
	}
	return e.sum / (1 - math.Pow(0.5, e.weight/e.halfLife.Seconds()))
}

// Bounds of a throughput sample: short transfers say more of the latency than of the path, and a transfer from a local
// cache takes no time at all.
const (
	minSampleBytes = 16 << 10
	minSampleTime  = 50 * time.Millisecond
	maxThroughput  = 1e9 // bits/s
)

// throughput estimates the path's bits/s as the lower of a fast and a slow average.
type throughput struct{ fast, slow ewma }

func newThroughput() throughput {
	return throughput{fast: ewma{halfLife: 2 * time.Second}, slow: ewma{halfLife: 5 * time.Second}}
}

func (t *throughput) sample(bytes int64, took time.Duration) {
	if bytes < minSampleBytes || took <= 0 {
		return
	}
	v := min(float64(bytes)*8/took.Seconds(), maxThroughput)
	w := max(took, minSampleTime)
	t.fast.add(w, v)
	t.slow.add(w, v)
}

// estimate is in bits/s; 0: nothing was measured yet.
func (t *throughput) estimate() float64 { return min(t.fast.value(), t.slow.value()) }

// rung is one step of the ladder.
type rung struct {
	rendition int
	bits      float64 // bits/s announced
}

// situation is what adaptation looks at.
type situation struct {
	ladder   []rung // lowest first; not empty
	current  int    // index in ladder; -1: nothing was fetched yet
	estimate float64
	spare    float64       // bits/s that audio takes
	level    time.Duration // media in hand
	target   time.Duration // media in hand when all is well: the live latency
	since    time.Duration // since the last switch
	safety   float64
}

// The buffer guard, as shares of the target level.
const (
	panicLevel = 0.2 // below: what is left must be fetched at twice the speed it plays
	calmLevel  = 0.4 // above: there is room to try more
	minHold    = 4 * time.Second
)

// choose returns the index of the rung to fetch next.
func choose(s situation) int {
	budget := s.estimate*s.safety - s.spare
	if s.estimate == 0 {
		budget = startBits
	}
	panicking := s.current >= 0 && float64(s.level) < panicLevel*float64(s.target)
	if panicking {
		budget /= 2
	}
	best := 0
	for i, r := range s.ladder {
		if r.bits <= budget {
			best = i
		}
	}
	switch {
	case s.current < 0 || s.current >= len(s.ladder) || best == s.current:
		return best
	case best > s.current && (panicking || s.since < minHold || float64(s.level) < calmLevel*float64(s.target)):
		return s.current
	}
	return best
}

// startBits is the throughput assumed before anything was measured.
const startBits = 1.5e6
