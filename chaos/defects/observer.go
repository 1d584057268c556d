package defects

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

const (
	// askTime bounds one request of an observer.
	askTime = 2 * time.Second
	// maxBody bounds what is read of an answer.
	maxBody = 8 << 20
	// maxCrowd bounds the requests that Crowd sends at once.
	maxCrowd = 256
)

// sampler takes one reading; false: there is none to take yet.
type sampler func(ctx context.Context) (reading, bool)

// Observer measures a level of one component, and of another that is to stay as it is.
type Observer struct {
	level           level
	every           time.Duration
	target, control sampler // control nil: there is none
	client          *http.Client

	mu             sync.Mutex
	read, readings series // of the target, of the control
}

// Stream says where segments are: at /{Event}/{Rendition}/{number}.m4s, number n from n times Duration after the Unix epoch on.
type Stream struct {
	Event, Rendition string
	Duration         time.Duration
}

func (s Stream) path(n int64) string {
	return "/" + s.Event + "/" + s.Rendition + "/" + strconv.FormatInt(n, 10) + ".m4s"
}

func (s Stream) at(t time.Time) int64      { return t.UnixNano() / int64(s.Duration) }
func (s Stream) end(n int64) time.Time     { return time.Unix(0, (n+1)*int64(s.Duration)) }
func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }
func constant(v float64) func(evidence.Window) float64 {
	return func(evidence.Window) float64 { return v }
}

func newObserver(l level, every time.Duration) *Observer {
	transport := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: time.Second}).DialContext,
		MaxConnsPerHost: maxCrowd, MaxIdleConnsPerHost: 8, MaxResponseHeaderBytes: maxAnswer, IdleConnTimeout: 10 * time.Second, DisableCompression: true,
	}
	return &Observer{level: l, every: every, client: &http.Client{Transport: transport, Timeout: askTime}}
}

// Watch measures until ctx ends.
func (o *Observer) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	follow := func(take sampler, into *series) {
		tick := time.NewTicker(o.every)
		defer tick.Stop()
		for {
			if r, ok := take(ctx); ok && ctx.Err() == nil { // one that was cut short says nothing
				o.mu.Lock()
				into.add(r)
				o.mu.Unlock()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
	wg.Go(func() { follow(o.target, &o.read) })
	if o.control != nil {
		wg.Go(func() { follow(o.control, &o.readings) })
	}
	wg.Wait()
	o.client.CloseIdleConnections()
}

// Judge says what the measurements prove.
func (o *Observer) Judge(w evidence.Window) evidence.Evidence {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.level.judge(w, o.read.list, o.readings.list)
}

// After is how long to watch from the end of the fault, to see that it is over.
func (o *Observer) After() time.Duration { return o.level.after }

// get asks for a URL. An answer of any status is one.
func (o *Observer) get(ctx context.Context, method, url string) (status int, h http.Header, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, resp.Header, body, err
}

// Clock expects a component's clock to be ahead by offset, and by drift (seconds a second) more from then on. url and control are
// base URLs of components that tell their time at /time; control may be empty.
func Clock(what, url, control string, offset time.Duration, drift float64) *Observer {
	o := newObserver(level{
		what: "the clock of " + what, unit: "ms", expect: constant(milliseconds(offset)), growth: drift * 1e3,
		within: 100 + math.Abs(milliseconds(offset))/50, calm: 100,
	}, 100*time.Millisecond)
	at := func(base string) sampler {
		if base == "" {
			return nil
		}
		return func(ctx context.Context) (reading, bool) {
			sent := time.Now()
			_, _, body, err := o.get(ctx, http.MethodGet, base+"/time")
			took := time.Since(sent)
			r := reading{at: sent.Add(took / 2)}
			told, perr := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(body[:min(len(body), 64)])))
			if err == nil && perr == nil && took < 200*time.Millisecond { // what took longer could be off by as much
				r.value, r.known = milliseconds(told.Sub(r.at)), true
			}
			return r, true
		}
	}
	o.target, o.control = at(url), at(control)
	return o
}

// Newest watches the age of the newest segment that a packager, at a base URL, has: of one whose encoder is away it grows by a second a
// second. control is another that is to have new ones throughout; it may be empty.
func Newest(what, url, control string, s Stream) *Observer {
	d := s.Duration.Seconds()
	o := newObserver(level{
		what: "the age of the newest segment of " + what, unit: "s", expect: constant(0), growth: 1,
		// At the beginning of an outage it is anything from nothing to a segment: half a segment from its mean either way.
		within: 0.65 * d, noise: d * d / 12 * 2, calm: d * 0.45,
		// An encoder that is back has a segment when that is over.
		settle: 250 * time.Millisecond, back: s.Duration + 250*time.Millisecond,
	}, 100*time.Millisecond)
	at := func(base string) sampler {
		if base == "" {
			return nil
		}
		var newest int64
		return func(ctx context.Context) (reading, bool) {
			now := time.Now()
			r := reading{at: now}
			// What is newer than what was seen last is found among those that may have come since: one a segment.
			n, back := s.at(now), int64(3)
			if newest == 0 {
				back = 30
			}
			for oldest := max(newest+1, n-back); n >= oldest; n-- {
				status, _, _, err := o.get(ctx, http.MethodHead, base+s.path(n))
				if err != nil {
					return r, true
				}
				if status == http.StatusOK {
					newest = n
					break
				}
			}
			if newest != 0 {
				r.value, r.known = now.Sub(s.end(newest)).Seconds(), true
			}
			return r, true
		}
	}
	o.target, o.control = at(url), at(control)
	return o
}

// LeastShare is the least share of segments that Candidates can tell from none within a minute after a fault.
const LeastShare = 0.25

// Candidates watches whether an origin, at a base URL, has each segment of a pipeline soon after it is due; a share of them,
// LeastShare at least, is to be missing. There is no control: the fault is about the pipeline's segments at every origin.
func Candidates(what, url, pipeline string, s Stream, share float64) *Observer {
	const grace = 1500 * time.Millisecond // after it is due a segment is on its way
	l := level{
		what: "the share of segments of " + what + " that the origin lacks", unit: "%", expect: constant(share * 100),
		within: min(10, 25*share), noise: share * (1 - share) * 1e4, calm: 25 * share, trail: grace, least: 1,
	}
	// As many segments as the chance of each to be missing takes.
	needs := math.Pow(surely*math.Sqrt(l.noise)/(100*share-l.calm), 2)
	l.after = time.Duration(1+math.Floor(needs))*s.Duration + grace + 500*time.Millisecond
	o := newObserver(l, 200*time.Millisecond)
	var last int64
	o.target = func(ctx context.Context) (reading, bool) {
		n := s.at(time.Now().Add(-grace)) - 1 // the newest that was due so long ago
		if n <= last {
			return reading{}, false
		}
		last = n
		r := reading{at: s.end(n)}
		status, h, _, err := o.get(ctx, http.MethodHead, url+s.path(n))
		switch {
		case err != nil || status >= 500:
		case slices.Contains(strings.Split(h.Get("Tminus-Candidates"), ","), pipeline):
			r.known = true
		default:
			r.known, r.value = true, 100
		}
		return r, true
	}
	return o
}

// Forgets watches whether an edge, at a base URL, still has an object that it has just served, which other viewers do not ask for; it
// is to forget it again and again, every so often. control is another edge, which is to keep it; it may be empty.
func Forgets(what, url, control, path string, every time.Duration) *Observer {
	o := newObserver(level{
		what: what + " forgot what it had", unit: "times", sum: true, rate: 1 / every.Seconds(),
		expect: func(w evidence.Window) float64 {
			return 1 + math.Floor(float64(w.Restore.Sub(w.Injected))/float64(every))
		},
		within: 1.5, // the first and the last may fall outside
		calm:   1,   // once a while an object's lifetime is over
		after:  2*every + 500*time.Millisecond,
	}, min(100*time.Millisecond, max(every/3, 10*time.Millisecond)))
	at := func(base string) sampler {
		if base == "" {
			return nil
		}
		age, had := 0, false
		return func(ctx context.Context) (reading, bool) {
			r := reading{at: time.Now()}
			status, h, _, err := o.get(ctx, http.MethodGet, base+path)
			now, aerr := strconv.Atoi(h.Get("Age"))
			if err != nil || status != http.StatusOK || aerr != nil {
				had = false
				return r, true
			}
			r.known = true
			if had && (h.Get("X-Cache") != "HIT" || now < age) {
				r.value = 1
			}
			age, had = now, true
			return r, true
		}
	}
	o.target, o.control = at(url), at(control)
	return o
}

// Crowd sends so many requests at once to an edge, at a base URL, again and again; a share of them, or more since there are other
// viewers, is to be refused. every must be long enough for the edge to have done with the ones before.
func Crowd(what, url, control, path string, size int, share float64, every time.Duration) (*Observer, error) {
	if size < 1 || size > maxCrowd {
		return nil, fmt.Errorf("a crowd of %d is outside 1 to %d", size, maxCrowd)
	}
	o := newObserver(level{
		what: "the share of requests at once that " + what + " refused", unit: "%", expect: constant(share * 100), orMore: true,
		within: 10, calm: 5,
	}, max(every, 200*time.Millisecond))
	at := func(base string) sampler {
		if base == "" {
			return nil
		}
		return func(ctx context.Context) (reading, bool) {
			r := reading{at: time.Now(), known: true}
			statuses := make([]int, size)
			var wg sync.WaitGroup
			for i := range statuses {
				wg.Go(func() { statuses[i], _, _, _ = o.get(ctx, http.MethodGet, base+path) })
			}
			wg.Wait()
			refused := 0
			for _, s := range statuses {
				switch s {
				case http.StatusServiceUnavailable:
					refused++
				case http.StatusOK:
				default:
					r.known = false
				}
			}
			r.value = 100 * float64(refused) / float64(size)
			return r, true
		}
	}
	o.target, o.control = at(url), at(control)
	return o, nil
}
