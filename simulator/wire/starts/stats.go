package starts

import (
	"maps"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// How a start ended: the Status of its event.
const (
	OK      = "ok"
	Shed    = "shed"    // the service said it was over capacity, and still did after the retries it asked for
	Failed  = "failed"  // no service gave a good answer
	Dropped = "dropped" // could not be sent in time
)

// Snapshot is how far the crowd has come. Once Run has returned, Intended = Sent + Dropped and
// Sent = OK + Shed + Failed.
type Snapshot struct {
	Intended uint64 // due so far
	Sent     uint64 // first attempt begun
	OK       uint64
	Shed     uint64
	Failed   uint64
	Dropped  uint64
	InFlight uint64 // due, and neither ended nor dropped

	SentPerSecond   uint64 // in the last whole second of the event
	OKPerSecond     uint64
	FailedPerSecond uint64 // shed, failed or dropped

	Failures map[string]uint64 // why starts were shed, failed or dropped
}

// Quantiles of a latency, in milliseconds.
type Quantiles struct{ P50, P95, P99, P999, Max float64 }

// Latencies are over every start that was sent, however it ended: a time-out counts with the time it took.
type Latencies struct {
	FromIntended Quantiles // intended → done: what the viewer felt
	FromSent     Quantiles // first attempt → done: what a closed-loop tool would have seen
	SendLag      Quantiles // intended → first attempt: the generator's own part
}

type stats struct {
	mu                           sync.Mutex
	s                            Snapshot
	intended, sent, lag          *hdrhistogram.Histogram
	sentRate, okRate, failedRate rate
	failures                     map[string]uint64
}

// rate counts by second.
type rate struct {
	second     int64
	this, last uint64 // in the current second, and in the whole one before it
}

func (r *rate) move(now time.Duration) {
	second := int64(now / time.Second)
	switch {
	case second == r.second:
	case second == r.second+1:
		r.second, r.last, r.this = second, r.this, 0
	default:
		r.second, r.last, r.this = second, 0, 0
	}
}

func (st *stats) init() {
	// Microseconds up to ten minutes at three digits: constant memory, whatever the number of starts.
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3) }
	st.intended, st.sent, st.lag = histogram(), histogram(), histogram()
	st.failures = map[string]uint64{}
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	h.RecordValue(min(max(d.Microseconds(), 0), h.HighestTrackableValue())) //nolint:errcheck // it is in range
}

func (st *stats) intend() {
	st.mu.Lock()
	st.s.Intended++
	st.mu.Unlock()
}

func (st *stats) send(now, lag time.Duration) {
	st.mu.Lock()
	st.s.Sent++
	st.sentRate.move(now)
	st.sentRate.this++
	record(st.lag, lag)
	st.mu.Unlock()
}

func (st *stats) end(now time.Duration, s start, e end) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch e.status {
	case OK:
		st.s.OK++
		st.okRate.move(now)
		st.okRate.this++
	case Shed:
		st.s.Shed++
	case Failed:
		st.s.Failed++
	case Dropped:
		st.s.Dropped++
	}
	if e.status != OK {
		st.failedRate.move(now)
		st.failedRate.this++
		st.failures[e.detail]++ // a closed set of words and at most 400 HTTP statuses
	}
	if e.status != Dropped {
		record(st.intended, now-s.intended)
		record(st.sent, now-s.sent)
	}
}

// Snapshot returns the counters as they stand; safe at any time, also while Run runs.
func (g *Generator) Snapshot() Snapshot {
	st := &g.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	out := st.s
	if out.Intended > 0 { // before the first one there may be no clock yet
		now := g.now()
		st.sentRate.move(now)
		st.okRate.move(now)
		st.failedRate.move(now)
	}
	out.InFlight = out.Intended - out.OK - out.Shed - out.Failed - out.Dropped
	out.SentPerSecond, out.OKPerSecond, out.FailedPerSecond = st.sentRate.last, st.okRate.last, st.failedRate.last
	out.Failures = maps.Clone(st.failures)
	return out
}

// Latencies returns the quantiles as they stand; safe at any time. Three significant digits, 10 minutes at most.
func (g *Generator) Latencies() Latencies {
	st := &g.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	return Latencies{quantiles(st.intended), quantiles(st.sent), quantiles(st.lag)}
}

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return Quantiles{at(50), at(95), at(99), at(99.9), float64(h.Max()) / 1e3}
}
