package starts

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// How a start ended: the Status of its event.
const (
	OK      = "ok"
	Shed    = "shed"    // the service said it was over capacity, and still did after the retries it asked for
	Failed  = "failed"  // no service gave a good answer
	Dropped = "dropped" // could not be sent in time
)

// Returned is the State of the event of a play start by a viewer who was on the air before: see Interruption.
const Returned = "return"

type status uint8

const (
	isOK status = iota
	isShed
	isFailed
	isDropped
)

var statusNames = [...]string{OK, Shed, Failed, Dropped}

// reason is why a start, or an attempt, did not end well. From answered on it is an HTTP status.
type reason uint16

const (
	noReason reason = iota
	cancelled
	queueFull
	late
	refused
	timeOut
	reset
	closed
	notHTTP
	tooLong
	notJSON
	noSession
	noManifest
	badPolicy
	shed
	unasked
	noSocket
	badTLS
	otherError
	reasons

	answered reason = 1000
)

// The words of the Detail of an event, and the keys of Snapshot.Failures and Snapshot.Attempts.
var reasonNames = [reasons]string{
	cancelled:  "cancelled",
	queueFull:  "queue full",
	late:       "not sent in time",
	refused:    "connection refused",
	timeOut:    "time-out",
	reset:      "connection reset",
	closed:     "closed before the answer ended",
	notHTTP:    "answer is not HTTP",
	tooLong:    "answer too long",
	notJSON:    "answer is not JSON",
	noSession:  "answer without a session",
	noManifest: "answer without manifests",
	badPolicy:  "answer with a bad retry policy",
	shed:       "shed",
	unasked:    "answer that nobody asked for",
	noSocket:   "no socket left on this machine",
	badTLS:     "TLS handshake failed",
	otherError: "other error",
}

var statusDetails = func() (t [600]string) {
	for i := 100; i < len(t); i++ {
		t[i] = "HTTP " + strconv.Itoa(i)
	}
	return t
}()

func (r reason) String() string {
	if r >= answered {
		return statusDetails[min(int(r-answered), len(statusDetails)-1)]
	}
	return reasonNames[r]
}

// tally counts by reason.
type tally struct {
	named    [reasons]uint64
	answered [600]uint64
}

func (t *tally) add(r reason) {
	if r >= answered {
		t.answered[min(int(r-answered), len(t.answered)-1)]++
	} else {
		t.named[r]++
	}
}

func (t *tally) into(m map[string]uint64) {
	for r, n := range t.named {
		if n > 0 {
			m[reason(r).String()] += n
		}
	}
	for code, n := range t.answered {
		if n > 0 {
			m[statusDetails[code]] += n
		}
	}
}

// Snapshot is how far the crowd has come. Once Run has returned, Intended = Sent + Dropped and
// Sent = OK + Shed + Failed.
type Snapshot struct {
	Intended uint64 `json:"intended"` // due so far
	Sent     uint64 `json:"sent"`     // first attempt begun
	OK       uint64 `json:"ok"`
	Shed     uint64 `json:"shed"`
	Failed   uint64 `json:"failed"`
	Dropped  uint64 `json:"dropped"`
	InFlight uint64 `json:"in_flight"` // due, and neither ended nor dropped

	// Of the last whole second of the event; before one is over, of it as far as it has come.
	SentPerSecond   uint64 `json:"sent_per_second"`
	OKPerSecond     uint64 `json:"ok_per_second"`
	FailedPerSecond uint64 `json:"failed_per_second"` // shed, failed or dropped

	Attempts          uint64 `json:"attempts"`            // requests begun: Attempts / Sent is what viewers who try again amplify the crowd by
	AttemptsPerSecond uint64 `json:"attempts_per_second"` // in the last whole second
	Resent            uint64 `json:"resent"`              // requests sent again because the server had closed a kept connection: no attempt of their own
	Parked            uint64 `json:"parked"`              // viewers who wait to come back
	Left              uint64 `json:"left"`                // viewers who would have tried again, but had no patience left

	// Late are starts that this machine sent more than LateAfter after their moment by its own doing: its loop ran late, or had
	// more to do than it could. What waited for a service to answer on a connection is not among them.
	Late          uint64 `json:"late"`
	LatePerSecond uint64 `json:"late_per_second"` // in the last whole second

	Interrupted uint64 `json:"interrupted"` // viewers who lost their session in an interruption
	// CutOff is Interrupted of each of the Config's Interruptions, in their order.
	CutOff   []uint64 `json:"cut_off,omitempty"`
	Returned uint64   `json:"returned"` // of those, the ones whose return was due so far: they are among Intended
	Gone     uint64   `json:"gone"`     // of those, the ones who do not come back

	// FirstFailure is the first answer that was not a good one, other than being shed: its status and how its body begins.
	FirstFailure string `json:"first_failure,omitempty"`

	Failures        map[string]uint64 `json:"failures"`         // starts that were shed, failed or dropped, by the Detail of their event
	AttemptFailures map[string]uint64 `json:"attempt_failures"` // attempts without a good answer, by why

	// Over all starts that were sent and have ended; what was dropped has no latency. Nothing is corrected.
	FromIntended Quantiles `json:"intended_to_done_ms"` // intended → done: what the viewer felt
	FromSent     Quantiles `json:"sent_to_done_ms"`     // first attempt → done
	SendLag      Quantiles `json:"send_lag_ms"`         // intended → first attempt: the generator's own part, and the wait for a connection
	OwnLag       Quantiles `json:"own_lag_ms"`          // the generator's own part of it alone
}

// Quantiles of a latency, in milliseconds; three significant digits.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// LateAfter is how late a start may be by the generator's own doing and still count as sent when it was due.
const LateAfter = 10 * time.Millisecond

// LateShare is the share of the starts sent that were late, 0 to 1.
func (s Snapshot) LateShare() float64 {
	if s.Sent == 0 {
		return 0
	}
	return float64(s.Late) / float64(s.Sent)
}

// Second is one second of the event: see Generator.Seconds.
type Second struct {
	Intended, Sent, Attempts  uint32
	OK, Shed, Failed, Dropped uint32
	Returned                  uint32 // of Intended
	Late                      uint32 // of Sent: see Snapshot.Late
}

// Nums is the second as an event.LoadStats tells it.
func (s Second) Nums() map[string]float64 {
	return map[string]float64{
		"scheduled": float64(s.Intended - s.Returned), "sent": float64(s.Sent), "late": float64(s.Late), "requests": float64(s.Attempts),
		"ok": float64(s.OK), "shed": float64(s.Shed), "failed": float64(s.Failed), "dropped": float64(s.Dropped),
	}
}

func (s *Second) add(o Second) {
	s.Intended += o.Intended
	s.Sent += o.Sent
	s.Attempts += o.Attempts
	s.OK += o.OK
	s.Shed += o.Shed
	s.Failed += o.Failed
	s.Dropped += o.Dropped
	s.Returned += o.Returned
	s.Late += o.Late
}

// maxSeconds bounds the seconds that are told apart: a day. What comes later is counted in the last one.
const maxSeconds = 86400

// stats are one shard's. Its loop alone writes them, under the shard's lock.
type stats struct {
	intended, sent, attempts, resent uint64
	firstFailure                     string
	left, late                       uint64    // out of patience; by the generator's own doing
	ended                            [4]uint64 // by status
	interrupted, returned, gone      uint64
	failures, attemptFailures        tally
	seconds                          []Second
	fromIntended, fromSent, sendLag  *hdrhistogram.Histogram // µs
	ownLag                           *hdrhistogram.Histogram // µs, but for those in ownShort
	ownShort                         [1024]uint32            // by µs
}

// The histograms' range and precision: 1 µs to an hour, three significant digits, 200 KB each.
const (
	mostLatency = int64(time.Hour / time.Microsecond)
	precision   = 3
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, mostLatency, precision) }

func newStats(length time.Duration) stats {
	n := int(min(length/time.Second+2, maxSeconds))
	return stats{seconds: make([]Second, n), fromIntended: newHistogram(), fromSent: newHistogram(), sendLag: newHistogram(), ownLag: newHistogram()}
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d/time.Microsecond), 0), mostLatency)) // within its range: no error
}

// sentLate takes how much later than due a start was sent by the generator's own doing.
func (st *stats) sentLate(own, now time.Duration) {
	if µs := uint64(own / time.Microsecond); µs < uint64(len(st.ownShort)) {
		st.ownShort[µs]++ // as good as all: a tenth of what the histogram costs
		return
	}
	record(st.ownLag, own)
	if own > LateAfter {
		st.late++
		st.second(now).Late++
	}
}

// maxShown is how much of an answer is kept to be shown, bytes.
const maxShown = 200

// wrong keeps the first answer that is not as it should be.
func (st *stats) wrong(r reply, problem reason, at string) {
	if st.firstFailure != "" {
		return
	}
	body, more := r.body, ""
	if len(body) > maxShown {
		body, more = body[:maxShown], "…"
	}
	text := strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == utf8.RuneError:
			return -1 // a byte that is no text, or the half of a character at the cut
		case unicode.IsSpace(c):
			return ' '
		case !unicode.IsPrint(c):
			return -1
		}
		return c
	}, string(body)))
	if text == "" {
		text = "no text"
	}
	st.firstFailure = fmt.Sprintf("HTTP %d: %s%s", r.status, text, more)
	if problem != noReason {
		st.firstFailure += " (" + problem.String() + at + ")"
	}
}

// second is where what happens at now is counted.
func (st *stats) second(now time.Duration) *Second {
	return &st.seconds[min(max(int(now/time.Second), 0), len(st.seconds)-1)]
}

// Snapshot returns the counters as they stand; safe at any time, also while Run runs.
func (g *Generator) Snapshot() Snapshot {
	out := Snapshot{Failures: map[string]uint64{}, AttemptFailures: map[string]uint64{}}
	var last Second
	second := 0 // also where Run begins between two lines of this
	if clock := g.clock.Load(); clock != nil {
		second = max(int(time.Since(*clock)/time.Second)-1, 0)
	}
	var from [4][]*hdrhistogram.Histogram
	for _, s := range g.shards {
		s.mu.Lock()
		st := &s.stats
		from[0] = append(from[0], st.fromIntended.Clone())
		from[1] = append(from[1], st.fromSent.Clone())
		from[2] = append(from[2], st.sendLag.Clone())
		own := st.ownLag.Clone()
		for µs, n := range st.ownShort {
			if n > 0 {
				_ = own.RecordValues(int64(µs), int64(n)) // within its range: no error
			}
		}
		from[3] = append(from[3], own)
		out.Intended += st.intended
		out.Sent += st.sent
		out.OK += st.ended[isOK]
		out.Shed += st.ended[isShed]
		out.Failed += st.ended[isFailed]
		out.Dropped += st.ended[isDropped]
		out.Attempts += st.attempts
		out.Resent += st.resent
		out.Left += st.left
		out.Late += st.late
		out.FirstFailure = or(out.FirstFailure, st.firstFailure)
		out.Parked += uint64(s.parked.n)
		out.Interrupted += st.interrupted
		out.Returned += st.returned
		out.Gone += st.gone
		for i, b := range s.breaks {
			if i == len(out.CutOff) {
				out.CutOff = append(out.CutOff, 0)
			}
			out.CutOff[i] += b.cut
		}
		st.failures.into(out.Failures)
		st.attemptFailures.into(out.AttemptFailures)
		if second < len(st.seconds) {
			last.add(st.seconds[second])
		}
		s.mu.Unlock()
	}
	out.InFlight = out.Intended - out.OK - out.Shed - out.Failed - out.Dropped
	out.SentPerSecond, out.OKPerSecond, out.AttemptsPerSecond = uint64(last.Sent), uint64(last.OK), uint64(last.Attempts)
	out.LatePerSecond = uint64(last.Late)
	out.FailedPerSecond = uint64(last.Shed) + uint64(last.Failed) + uint64(last.Dropped)
	for i, q := range []*Quantiles{&out.FromIntended, &out.FromSent, &out.SendLag, &out.OwnLag} {
		*q = quantiles(from[i])
	}
	return out
}

func quantiles(parts []*hdrhistogram.Histogram) Quantiles {
	var all *hdrhistogram.Histogram
	for _, h := range parts {
		if all == nil {
			all = h
		} else {
			all.Merge(h)
		}
	}
	if all == nil || all.TotalCount() == 0 {
		return Quantiles{}
	}
	v := all.ValueAtPercentiles([]float64{50, 95, 99, 99.9})
	ms := func(µs int64) float64 { return float64(µs) / 1e3 }
	return Quantiles{ms(v[50]), ms(v[95]), ms(v[99]), ms(v[99.9]), ms(all.Max())}
}

// Seconds returns what happened in each second of the event from the given one on, up to now: from it come the
// amplification (Attempts over Sent less the returns) and the chart of a retry storm. Safe at any time.
func (g *Generator) Seconds(from int) []Second {
	clock := g.clock.Load()
	if clock == nil {
		return nil
	}
	var out []Second
	for _, s := range g.shards {
		s.mu.Lock()
		n := min(int(time.Since(*clock)/time.Second)+1, len(s.stats.seconds))
		for i := max(from, 0); i < n; i++ {
			if j := i - max(from, 0); j < len(out) {
				out[j].add(s.stats.seconds[i])
			} else {
				out = append(out, s.stats.seconds[i])
			}
		}
		s.mu.Unlock()
	}
	return out
}
