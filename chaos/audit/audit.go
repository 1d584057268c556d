package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

const (
	// enough is the share that must agree where all should: a machine under load loses one now and then.
	enough = 0.90
	// back is the share of the baseline that must be reached again.
	back = 0.95
	// settle is left out at the beginning of a fault: what was on its way arrives still.
	settle = 500 * time.Millisecond
	// fewest samples that say anything about a fault.
	fewest = 4
	// kept bounds the samples of one audit.
	kept = 40_000
	// inFlight bounds the requests of one audit that are open at a time.
	inFlight = 64
	// maxBody is how much of a body is read.
	maxBody = 32 << 20
)

// Failures of a request.
const (
	refused    = "refused"
	wasReset   = "reset"
	timeout    = "timeout"
	stalled    = "stalled"    // the body stopped coming
	truncated  = "truncated"  // the body ended before its length
	unanswered = "unanswered" // still on its way when the watch ended
	failed     = "error"
)

// phase is the part of a fault's window that a sample lies in; one that straddles a border belongs to none.
type phase int

const (
	none phase = iota
	before
	during
	after
)

func phaseOf(w evidence.Window, start, end time.Time) phase {
	switch {
	case w.Inject.IsZero() || end.Before(w.Inject):
		return before
	case !w.Injected.IsZero() && !start.Before(w.Injected.Add(settle)) && (w.Restore.IsZero() || end.Before(w.Restore)):
		return during
	case !w.Restored.IsZero() && start.After(w.Restored):
		return after
	}
	return none
}

// response is what one request came to.
type response struct {
	start, first, end time.Time // first: when its header was there
	status            int       // 0: none came
	fail              string    // "": complete
	length            int64     // of the body as announced; -1: not
	bytes             int64
	gap               time.Duration // longest pause within the body
	body              []byte        // when it was asked for
}

// outcome names it for the timeline.
func (r response) outcome() string {
	if r.fail != "" {
		return r.fail
	}
	return fmt.Sprint(r.status)
}

// asker makes requests, each on a connection of its own: a connection used twice hides resets behind a silent retry.
type asker struct {
	client *http.Client
	now    func() time.Time
	method string // "": GET
	body   []byte
}

func newAsker(dial func(ctx context.Context, network, addr string) (net.Conn, error), now func() time.Time) asker {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: -1}).DialContext
	}
	return asker{
		client: &http.Client{
			Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		now: now,
	}
}

// limits of one request.
type limits struct {
	patience time.Duration // for the header, and then for each part of the body
	reading  time.Duration // of the body altogether; 0: until it ends. What is not read by then is left, without blame
	keep     bool          // keep the body
}

func (a asker) ask(ctx context.Context, url string, l limits) response {
	r := response{start: a.now(), length: -1}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	quiet := time.AfterFunc(l.patience, cancel)
	defer quiet.Stop()
	req, err := http.NewRequestWithContext(ctx, cmp.Or(a.method, http.MethodGet), url, bytes.NewReader(a.body))
	if err != nil {
		r.end, r.fail = a.now(), failed
		return r
	}
	req.Header.Set("User-Agent", "tminus-audit")
	resp, err := a.client.Do(req)
	if err != nil {
		r.end, r.fail = a.now(), classify(err, timeout)
		return r
	}
	defer resp.Body.Close()
	r.first, r.status, r.length = a.now(), resp.StatusCode, resp.ContentLength
	buf := make([]byte, 16<<10)
	last := r.first
	for r.bytes < maxBody {
		quiet.Reset(l.patience)
		n, err := resp.Body.Read(buf)
		now := a.now()
		r.gap = max(r.gap, now.Sub(last))
		last = now
		r.bytes += int64(n)
		if l.keep {
			r.body = append(r.body, buf[:n]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.fail = classify(err, stalled)
			break
		}
		if l.reading > 0 && now.Sub(r.first) >= l.reading {
			break
		}
	}
	r.end = a.now()
	return r
}

// classify names an error; quiet is what a cancelled wait is called.
func classify(err error, quiet string) string {
	var timed net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return wasReset
	case errors.Is(err, io.ErrUnexpectedEOF):
		return truncated
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timed) && timed.Timeout():
		return quiet
	case errors.Is(err, io.EOF): // closed without an answer
		return truncated
	}
	return failed
}

// median of values; 0 of none.
func median[T cmp.Ordered](values []T) (zero T) {
	if len(values) == 0 {
		return zero
	}
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

// share of the values for which f holds, in [0, 1]; 0 of none.
func share[T any](values []T, f func(T) bool) float64 {
	if len(values) == 0 {
		return 0
	}
	n := 0
	for _, v := range values {
		if f(v) {
			n++
		}
	}
	return float64(n) / float64(len(values))
}

// mostly reports whether f holds for that share of the values at least. One of four or more may stray whatever its share: a
// machine under load has its moments.
func mostly[T any](values []T, f func(T) bool, least float64) bool {
	n, good := len(values), len(only(values, f))
	return n > 0 && (float64(good) >= least*float64(n) || n >= fewest && n-good <= 1)
}

// only returns the values for which f holds.
func only[T any](values []T, f func(T) bool) (out []T) {
	for _, v := range values {
		if f(v) {
			out = append(out, v)
		}
	}
	return out
}

// agreement says whether a share measured over n samples is the share wanted. Where all are wanted, enough of them
// must be; else it may be off by chance, and n is too small where chance would make most of the share.
func agreement(want, measured float64, n int) (agrees, telling bool) {
	if want >= 1 {
		return measured >= enough, n >= fewest
	}
	tolerance := chance(want, n)
	return math.Abs(measured-want) <= tolerance, n >= fewest && tolerance <= 0.6*want
}

// chance is by how much a share of n samples may be off: four standard deviations of a binomial draw, beyond which one in 16,000
// lies.
func chance(share float64, n int) float64 {
	return 4 * math.Sqrt(share*(1-share)/float64(max(n, 1)))
}

// traces says whether what a fault does to that share of samples is to be found in n of them, of which so many have it, where
// there should be none. It is there at half the share; it is gone where so few would hardly come of the whole of it. Neither:
// there are too few to tell.
func traces(share float64, hits, n int) (there, gone bool) {
	if float64(hits) > share/2*float64(n) {
		return hits >= 3, false // a machine under load has its moments
	}
	return false, atMost(hits, n, share) <= hardly
}

// hardly is the probability of what chance is not taken for.
const hardly = 0.01

// atMost is the probability of k hits or fewer in n draws, each a hit with probability p: the binomial distribution.
func atMost(k, n int, p float64) float64 {
	switch {
	case k >= n:
		return 1
	case k < 0 || p >= 1:
		return 0
	}
	term := float64(n) * math.Log1p(-p) // the logarithm of the probability of i hits, from 0 on
	sum := math.Exp(term)
	for i := 1; i <= k; i++ {
		term += math.Log(float64(n-i+1)/float64(i)) + math.Log(p/(1-p))
		sum += math.Exp(term)
	}
	return min(sum, 1)
}

// needed is how many samples make agreement telling.
func needed(want float64) int {
	if want >= 1 {
		return fewest
	}
	return int(math.Ceil(16*(1-want)/(0.6*0.6*want))) + fewest
}

func percent(v float64) float64 { return math.Round(v*1000) / 10 }

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// span gives a time in the unit in which it says something.
func span(d time.Duration) string {
	if d.Abs() < time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
