package starts

import (
	"sync"
	"time"
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
}

type stats struct {
	mu                           sync.Mutex
	s                            Snapshot
	sentRate, okRate, failedRate rate
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

func (st *stats) intend() {
	st.mu.Lock()
	st.s.Intended++
	st.mu.Unlock()
}

func (st *stats) send(now time.Duration) {
	st.mu.Lock()
	st.s.Sent++
	st.sentRate.move(now)
	st.sentRate.this++
	st.mu.Unlock()
}

func (st *stats) end(now time.Duration, status string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch status {
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
	if status != OK {
		st.failedRate.move(now)
		st.failedRate.this++
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
	return out
}
