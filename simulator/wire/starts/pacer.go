package starts

import (
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// quantum is the pacer's granularity: starts that fall due within it are released together, at its end.
const quantum = 500 * time.Microsecond

// pacer says which of a shard's starts are due: the k-th of the schedule for k = first, first+stride, first+2·stride …
// It reads no clock: now is the time since the start of the event.
type pacer struct {
	schedule *audience.Schedule
	total    uint64
	next     uint64        // the first start not yet released
	stride   uint64        //
	at       time.Duration // when it is due
}

func newPacer(s *audience.Schedule, first, stride uint64) pacer {
	return pacer{schedule: s, total: s.Total(), next: first, stride: stride, at: s.Intended(first)}
}

// release calls each for every start that is due at now, in order.
func (p *pacer) release(now time.Duration, each func(k uint64, intended time.Duration)) {
	for p.next < p.total && p.at <= now {
		each(p.next, p.at)
		p.next += p.stride
		p.at = p.schedule.Intended(p.next)
	}
}

// ownLag is how much later than it could a start was sent by its generator's own doing. A loop that had nothing left to do
// at idle was not what the start waited for until then: it was not due yet, or no connection had room. From then on the loop
// ran late, or did one thing after the other.
func ownLag(due, idle, sent time.Duration) time.Duration { return max(sent-max(due, idle), 0) }

// wake returns when release should be called next, never before the next start is due, and false after the last.
func (p *pacer) wake(now time.Duration) (time.Duration, bool) {
	if p.next >= p.total {
		return 0, false
	}
	return max(p.at, now+quantum), true
}
