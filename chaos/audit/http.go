package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Kinds of what an HTTP fault does.
const (
	Status   = "status"
	Latency  = "latency"
	Stall    = "stall"
	Reset    = "reset"
	Truncate = "truncate"
	Throttle = "throttle"
	Corrupt  = "corrupt"
	Held     = "held" // answers wait until their bytes would have come at a rate, shared by everybody who asks; too many are refused
)

// Want is the effect that a fault promises.
type Want struct {
	Kind   string
	Share  float64       // of requests, in (0, 1]
	Status int           // of Status
	Delay  time.Duration // of Latency
	Jitter time.Duration // of Latency
	For    time.Duration // of Stall; 0: for as long as the fault lasts
	Rate   float64       // of Throttle and Held, bytes a second
}

// URL says what to ask for at a moment.
type URL func(now time.Time) string

// Fixed is always the same URL.
func Fixed(u string) URL { return func(time.Time) string { return u } }

// Newest is the newest segment of a rung, or one back segments before it, by the clock.
func Newest(base string, l media.Layout, rung string, backwards uint64) (URL, error) {
	if _, ok := l.Path(rung, 1); !ok || !l.Clocked || l.Duration <= 0 {
		return nil, errors.New("the layout does not say by the clock which segment is newest, or how its path is written")
	}
	return func(now time.Time) string {
		n, _ := l.Newest(now)
		path, _ := l.Path(rung, max(n, backwards)-backwards)
		return base + path
	}, nil
}

// HTTPConfig is what an HTTP audit needs.
type HTTPConfig struct {
	Fault, Region string        // for the timeline
	For           time.Duration // how long the fault lasts
	Targets       []URL         // what the fault reaches, asked in turn
	Control       []URL         // what it must not reach; none: nothing is compared
	Elsewhere     string        // what the control is called in the evidence
	Hint          string        // what helps where the target is not well to begin with; "": nothing is known to
	Method        string        // of the requests; "": GET
	Body          []byte        // of each of them
	Want          Want
	Dial          func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a plain dialer
	Now           func() time.Time
	Sink          event.Sink // nil: event.Discard
}

// HTTP watches how requests fare.
type HTTP struct {
	cfg   HTTPConfig
	asker asker
	every time.Duration
	limit limits

	mu      sync.Mutex
	samples []sample
	skipped int
	largest int64 // body so far
}

// sample is one request.
type sample struct {
	response
	path    string
	control bool
	sum     uint64
}

const (
	slowest = 10.0  // requests a second, at least
	fastest = 400.0 // and at most
	reading = 1500 * time.Millisecond
	patient = 12 * time.Second
	// awaited is how many requests that have the effect would be seen where it is to be gone, if it were not.
	awaited = 8.0
	// abreast is how many requests wait for others at a time where a rate is shared: enough to say something.
	abreast = fewest + 2
	// stuck is how long a request has been open at least that counts when it is broken off by the end of the watch.
	stuck = time.Second
)

// NewHTTP checks the configuration.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	var errs []error
	if len(cfg.Targets) == 0 {
		errs = append(errs, errors.New("there is no URL to watch it by"))
	}
	if cfg.Now == nil {
		errs = append(errs, errors.New("it needs a clock"))
	}
	w := cfg.Want
	if !(w.Share > 0 && w.Share <= 1) {
		errs = append(errs, fmt.Errorf("a share of %g is not above 0 and at most 1", w.Share))
	}
	switch w.Kind {
	case Status, Reset, Truncate, Corrupt, Stall:
	case Latency:
		if w.Delay <= 0 {
			errs = append(errs, errors.New("no delay is expected"))
		}
	case Throttle, Held:
		if w.Rate <= 0 {
			errs = append(errs, errors.New("no rate is expected"))
		}
	default:
		errs = append(errs, fmt.Errorf("%q is nothing that is measured over HTTP", w.Kind))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("http audit of %s: %w", cfg.Fault, err)
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	cfg.Method = cmp.Or(cfg.Method, http.MethodGet)
	h := &HTTP{cfg: cfg, asker: newAsker(cfg.Dial, cfg.Now), limit: limits{patience: w.patience(), keep: w.Kind == Corrupt}}
	h.asker.method, h.asker.body = cfg.Method, cfg.Body
	switch w.Kind {
	case Throttle:
		h.limit.reading = reading
	case Held:
		h.limit.patience = patient
	}
	h.every = pace(w, cfg.For)
	return h, nil
}

// patience is how long a part of an answer is waited for.
func (w Want) patience() time.Duration { return 2*time.Second + w.Delay + w.Jitter + w.For }

// held is for how long a broken request stays open, beyond its time.
func (w Want) held() time.Duration {
	switch {
	case w.Kind == Latency:
		return w.Delay + w.Jitter
	case w.Kind == Stall && w.For == 0:
		return w.patience()
	case w.Kind == Stall:
		return w.For
	case w.Kind == Throttle:
		return reading
	}
	return 0
}

// pace is the time between two requests: enough of them during the fault to tell its share, and after it to tell that it is
// gone, no more open than allowed, and no more altogether than are kept.
func pace(w Want, length time.Duration) time.Duration {
	lasts := max((length - settle).Seconds(), 1)
	rate := min(max(2*float64(needed(w.Share))/lasts, 2.5/w.Share, slowest), fastest)
	if held := w.held().Seconds(); held > 0 {
		rate = min(rate, max(inFlight/2/held/w.Share, 1))
	}
	rate = min(rate, kept/2/(lasts+30))
	return time.Duration(float64(time.Second) / rate)
}

// After is how long it takes once the fault is undone to tell that it is gone.
func (h *HTTP) After() time.Duration {
	n := awaited / h.cfg.Want.Share
	if len(h.cfg.Control) > 0 { // which every fourth request goes to
		n *= 4.0 / 3
	}
	return time.Duration(n*float64(h.every)) + time.Second
}

// Watch asks until ctx ends.
func (h *HTTP) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := make(chan struct{}, inFlight)
	var last time.Time // when something was asked
	ticker := time.NewTicker(h.every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		urls, control := h.cfg.Targets, false
		if len(h.cfg.Control) > 0 && n%4 == 3 {
			urls, control = h.cfg.Control, true
		}
		which := n / 4
		if !control {
			which = n
		}
		u := urls[which%len(urls)]
		now := h.cfg.Now()
		if h.may(len(open), now.Sub(last)) {
			select {
			case open <- struct{}{}:
				last = now
				wg.Go(func() {
					defer func() { <-open }()
					h.once(ctx, u, control)
				})
			default:
				h.mu.Lock()
				h.skipped++
				h.mu.Unlock()
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// may reports whether something may be asked with so many requests open, the last of them for so long. What shares a rate with
// others is asked one after the other, so that the audit by itself makes no queue; where others make one, a few of its requests wait
// side by side, and take no more of the rate than they would alone: else a fault would be over before there were enough of them.
func (h *HTTP) may(open int, since time.Duration) bool {
	if h.cfg.Want.Kind != Held || open == 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return open < abreast && h.largest > 0 && since.Seconds() >= float64(h.largest)/h.cfg.Want.Rate
}

func (h *HTTP) once(ctx context.Context, u URL, control bool) {
	target := u(h.cfg.Now())
	s := sample{response: h.asker.ask(ctx, target, h.limit), control: control}
	if ctx.Err() != nil && s.fail != "" { // broken off by the end of the watch
		if s.end.Sub(s.start) < stuck {
			return
		}
		s.fail = unanswered
	}
	component := target
	if parsed, err := url.Parse(target); err == nil {
		s.path, component = parsed.Path, parsed.Host
	}
	if s.body != nil {
		sum := fnv.New64a()
		sum.Write(s.body)
		s.sum, s.body = sum.Sum64(), nil
	}
	h.mu.Lock()
	h.largest = max(h.largest, s.bytes)
	if len(h.samples) < kept {
		h.samples = append(h.samples, s)
	} else {
		h.skipped++
	}
	h.mu.Unlock()
	e := event.Event{
		At: s.start, Kind: event.Probe, Fault: h.cfg.Fault, Region: h.cfg.Region, Component: component, Status: s.outcome(),
		Value: millis(s.end.Sub(s.start)), Bytes: uint64(s.bytes), Detail: h.cfg.Method + " " + s.path,
	}
	if control {
		e.Detail = "control; " + e.Detail
	}
	h.cfg.Sink.Emit(e)
}

// Judge says what the requests prove.
func (h *HTTP) Judge(w evidence.Window) evidence.Evidence {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := judgeHTTP(h.cfg, w, h.samples)
	if h.skipped > 0 {
		e.Detail += fmt.Sprintf("; %d requests were skipped", h.skipped)
	}
	return e
}

// baseline is what is healthy.
type baseline struct {
	status  int
	latency time.Duration // to the header
	length  time.Duration // of a whole request
	bytes   int64
	// Bodies by path: the target's own before the fault, and the control's. What the target has after the fault vouches for nothing.
	own, control map[string]vote
}

// vote finds what most say (Boyer and Moore): of a few that differ none is taken for the truth.
type vote struct {
	sum uint64
	n   int
}

func (v *vote) cast(sum uint64) {
	switch {
	case v.n == 0:
		v.sum, v.n = sum, 1
	case v.sum == sum:
		v.n++
	default:
		v.n--
	}
}

// body is what a path's bytes should be, where that is known.
func (b baseline) body(s sample) (sum uint64, known bool) {
	v, known := b.own[s.path]
	if s.control || !known {
		v, known = b.control[s.path]
	}
	return v.sum, known
}

func (s sample) latency() time.Duration { return s.first.Sub(s.start) }

// rate is the body's, in bytes a second; 0: too little to say.
func (s sample) rate() float64 {
	if d := s.end.Sub(s.first).Seconds(); d > 0.02 && s.bytes > 0 {
		return float64(s.bytes) / d
	}
	return 0
}

// whole is the rate from the request on, in bytes a second.
func (s sample) whole() float64 { return float64(s.bytes) / s.end.Sub(s.start).Seconds() }

func learn(w evidence.Window, samples []sample) baseline {
	b := baseline{own: map[string]vote{}, control: map[string]vote{}}
	later := map[string]vote{} // of the control, from the fault on
	var statuses []int
	var latencies, lengths []time.Duration
	var sizes []int64
	for _, s := range samples {
		p := phaseOf(w, s.start, s.end)
		if s.fail == "" && s.status == 200 && s.sum != 0 && (s.control || p == before) {
			votes := later
			switch {
			case !s.control:
				votes = b.own
			case p == before:
				votes = b.control
			}
			v := votes[s.path]
			v.cast(s.sum)
			votes[s.path] = v
		}
		if p == before && !s.control && s.fail == "" {
			statuses = append(statuses, s.status)
			latencies, lengths = append(latencies, s.latency()), append(lengths, s.end.Sub(s.start))
			sizes = append(sizes, s.bytes)
		}
	}
	for path, v := range later {
		if _, known := b.control[path]; !known {
			b.control[path] = v
		}
	}
	b.status, b.latency, b.length, b.bytes = median(statuses), median(latencies), median(lengths), median(sizes)
	return b
}

// healthy reports whether a request fared as before the fault.
func (b baseline) healthy(w Want, s sample) bool {
	return s.fail == "" && s.status == b.status && !b.affected(w, s)
}

// slack is by how much a healthy answer may be later than the median: a machine with much else to do has its moments.
const slack = 40 * time.Millisecond

// affected reports whether a request fared as the fault promises.
func (b baseline) affected(w Want, s sample) bool {
	switch w.Kind {
	case Status:
		return s.fail == "" && s.status == w.Status
	case Latency:
		least := max(w.Delay-w.Jitter, w.Delay/5)
		return s.status != 0 && s.latency()-b.latency > max(least*3/10, min(slack, least/2))
	case Stall:
		if w.For > 0 {
			return s.status != 0 && s.gap >= w.For*8/10
		}
		return s.status != 0 && s.fail == stalled
	case Reset:
		return s.fail == wasReset
	case Truncate:
		return s.fail == truncated
	case Throttle:
		return s.fail == "" && s.status == b.status && s.rate() > 0 && s.rate() <= 1.3*w.Rate
	case Held:
		return s.fail == "" && (s.status >= 500 || s.status == b.status && s.whole() <= 1.2*w.Rate)
	case Corrupt:
		sum, known := b.body(s)
		return s.fail == "" && s.status == b.status && known && s.sum != sum
	}
	return false
}

// promise is the effect in words.
func (w Want) promise() string {
	switch w.Kind {
	case Status:
		return fmt.Sprintf("status %d", w.Status)
	case Latency:
		return span(w.Delay) + " of delay"
	case Stall:
		if w.For > 0 {
			return "a stall of " + span(w.For)
		}
		return "a stall without end"
	case Reset:
		return "a reset connection"
	case Truncate:
		return "a body cut short"
	case Throttle:
		return fmt.Sprintf("%.0f kbit/s", w.Rate*8/1000)
	case Held:
		return fmt.Sprintf("no more than %.0f kbit/s", w.Rate*8/1000)
	case Corrupt:
		return "a corrupted body"
	}
	return w.Kind
}

// judgeHTTP says what requests prove about a fault that should have had that effect on that share of them.
func judgeHTTP(cfg HTTPConfig, w evidence.Window, samples []sample) evidence.Evidence {
	want, elsewhere := cfg.Want, cfg.Elsewhere
	samples = slices.SortedFunc(slices.Values(samples), func(a, b sample) int { return a.start.Compare(b.start) })
	base := learn(w, samples)
	in := func(p phase, control bool) []sample {
		return only(samples, func(s sample) bool { return s.control == control && phaseOf(w, s.start, s.end) == p })
	}
	well := func(s sample) bool { return base.healthy(want, s) }
	hit := func(s sample) bool { return base.affected(want, s) }
	was, is, then, control := in(before, false), in(during, false), in(after, false), in(during, true)
	// What was broken off says something only where it was long overdue, and should not have been.
	told := func(s sample) bool { return s.fail != unanswered }
	is, control = only(is, told), only(control, told)
	if want.Share < 1 { // begun so late that it ends after the fault where it has the effect, and else does not: it would tilt the share
		is = only(is, func(s sample) bool {
			return w.Restore.IsZero() || s.start.Add(want.held()+2*base.length).Before(w.Restore)
		})
	}
	then = only(then, func(s sample) bool { return told(s) || s.end.Sub(s.start) > 3*base.length })
	if want.Kind == Corrupt { // only what can be compared says anything
		comparable := func(s sample) bool {
			_, known := base.body(s)
			return known || s.fail != "" || s.status != base.status
		}
		is, then = only(is, comparable), only(then, comparable)
	}
	trace := func(s sample) bool { return hit(s) || !told(s) }
	left := func(samples []sample) (there, gone bool) {
		return traces(want.Share, len(only(samples, trace)), len(samples))
	}
	measured := share(is, hit)
	e := evidence.Evidence{Status: evidence.Inconclusive, Expected: percent(want.Share), Measured: percent(measured), Unit: "% of requests"}
	what := fmt.Sprintf("during the fault %s of %d requests had %s", count(is, hit), len(is), want.promise())
	agrees, telling := agreement(want.Share, measured, len(is))
	giveOrTake := ""
	if want.Share < 1 {
		giveOrTake = fmt.Sprintf(", give or take %.2g", percent(chance(want.Share, len(is))))
	}
	wellBefore := share(was, well)
	others := only(is, func(s sample) bool { return !hit(s) })
	already, _ := left(was)
	switch {
	case len(is) < fewest:
		e.Detail = fmt.Sprintf("too little was measured: %d requests during the fault; hold it longer", len(is))
		if want.Rate > 0 {
			e.Detail += ", or raise the rate"
		}
		return e
	case len(was) < fewest:
		e.Detail = fmt.Sprintf("too little was measured before the fault: %d requests; %s", len(was), what)
		return e
	case want.Kind == Held && float64(base.bytes)/want.Rate < max(100*time.Millisecond, 2*base.latency).Seconds():
		e.Detail = fmt.Sprintf("bodies of %d bytes are too small to feel a rate of %.0f kbit/s", base.bytes, want.Rate*8/1000)
		return e
	case !mostly(was, well, enough) || base.status >= 400 || already:
		e.Detail = fmt.Sprintf("the target was not well before the fault: %s for %s; %s", tally(was), was[0].path, what)
		if cfg.Hint != "" {
			e.Detail += "; " + cfg.Hint
		}
		return e
	case want.Kind == Throttle && float64(base.bytes) < 0.3*want.Rate:
		e.Detail = fmt.Sprintf("bodies of %d bytes are too small to measure a rate of %.0f kbit/s", base.bytes, want.Rate*8/1000)
		return e
	case !agrees && (telling || measured == 0 && len(is) >= 10*fewest):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("%s was expected of %.4g %% of requests%s; %s (%s)", want.promise(), percent(want.Share), giveOrTake, what, tally(is))
		return e
	case !telling:
		e.Detail = fmt.Sprintf("%d requests are too few to tell a share of %.4g %%: %d would do; %s", len(is), percent(want.Share), needed(want.Share), what)
		return e
	case len(others) >= fewest && !mostly(others, func(s sample) bool { return s.fail == "" && s.status == base.status }, enough):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("something else happened as well: %s; %s", tally(others), what)
		return e
	}
	if bad := magnitude(want, base, only(is, hit), &e); bad != "" {
		e.Status = evidence.Mismatch
		e.Detail = bad + "; " + what
		return e
	}
	// Coming back counts from the first healthy answer on; until then it was still coming, and the evidence says how long.
	since := time.Duration(0)
	if i := slices.IndexFunc(then, well); i >= 0 {
		since = then[i].end.Sub(w.Restored)
		from := then[i].start
		then = only(then, func(s sample) bool { return !s.start.Before(from) })
	}
	// A machine that has become slower meanwhile is slower for what the fault does not reach too.
	latencyAfter := median(latencies(only(then, well)))
	slower := latencyAfter - base.latency - max(median(latencies(in(after, true)))-median(latencies(in(before, true))), 0)
	reached, spared := left(control)
	stays, over := left(then)
	switch {
	case len(control) > 0 && (reached || !mostly(control, func(s sample) bool { return s.fail == "" && s.status < 400 && !hit(s) }, enough)):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the fault reached %s too: %s; %s", elsewhere, tally(control), what)
	case len(then) == 0:
		e.Detail = what + "; nothing was measured after it"
	case stays || !mostly(then, well, back*wellBefore):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the fault outlived its end: after it %s; %s", tally(then), what)
		if len(only(then, trace)) == 0 {
			e.Detail = fmt.Sprintf("the target was not well after the fault, which does not do that: %s; %s", tally(then), what)
		}
	case want.Kind == Latency && slower > max(base.latency/20, want.Delay/20, slack):
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the delay outlived the fault: %s before it, %s after; %s", span(base.latency), span(latencyAfter), what)
	case !over:
		e.Detail = fmt.Sprintf("%s; %d requests after it are too few to tell that a share of %.4g %% is gone", what, len(then), percent(want.Share))
	case len(control) > 0 && !spared:
		e.Detail = fmt.Sprintf("%s; %d requests to %s are too few to tell that a share of %.4g %% did not reach it", what, len(control), elsewhere, percent(want.Share))
	default:
		e.Status = evidence.Confirmed
		e.Detail = fmt.Sprintf("%s; after it %s of %d were healthy, the first within %s", what, count(then, well), len(then), span(since))
		if len(control) > 0 {
			e.Detail += fmt.Sprintf("; %s was well throughout (%d requests)", elsewhere, len(control))
		}
	}
	return e
}

// magnitude measures how much, where a fault has a size: it fills in the evidence and returns what is wrong.
func magnitude(want Want, base baseline, hits []sample, e *evidence.Evidence) string {
	switch want.Kind {
	case Latency:
		extra := median(latencies(hits)) - base.latency
		// The median of an even draw strays by its width's half over the root of n.
		spread := 3 * float64(want.Jitter) / math.Sqrt(float64(len(hits)))
		e.Expected, e.Measured, e.Unit = millis(want.Delay), millis(extra), "ms"
		if (extra - want.Delay).Abs() > max(want.Delay*15/100, slack/2)+time.Duration(spread) {
			return fmt.Sprintf("requests were delayed by %s, %s was expected", span(extra), span(want.Delay))
		}
	case Stall:
		if want.For == 0 {
			return ""
		}
		var gaps []time.Duration
		for _, s := range hits {
			gaps = append(gaps, s.gap)
		}
		gap := median(gaps)
		e.Expected, e.Measured, e.Unit = millis(want.For), millis(gap), "ms"
		if (gap - want.For).Abs() > max(want.For*20/100, 2*slack) {
			return fmt.Sprintf("bodies paused for %s, %s was expected", span(gap), span(want.For))
		}
	case Throttle:
		var rates []float64
		for _, s := range hits {
			rates = append(rates, s.rate())
		}
		rate := median(rates)
		e.Expected, e.Measured, e.Unit = want.Rate*8/1000, math.Round(rate*8/1000), "kbit/s"
		if math.Abs(rate-want.Rate) > 0.2*want.Rate {
			return fmt.Sprintf("bodies came at %.0f kbit/s, %.0f was expected", rate*8/1000, want.Rate*8/1000)
		}
	case Held: // others ask as well: it may be less
		var rates []float64
		for _, s := range hits {
			if s.status == base.status {
				rates = append(rates, s.whole())
			}
		}
		e.Expected, e.Measured, e.Unit = want.Rate*8/1000, math.Round(median(rates)*8/1000), "kbit/s at most"
		if len(rates) == 0 {
			return "every request was refused"
		}
	}
	return ""
}

func latencies(samples []sample) (out []time.Duration) {
	for _, s := range samples {
		out = append(out, s.latency())
	}
	return out
}

func count[T any](values []T, f func(T) bool) string { return fmt.Sprint(len(only(values, f))) }

// tally lists what requests came to: "118 × 200, 2 × reset".
func tally(samples []sample) string {
	n := map[string]int{}
	for _, s := range samples {
		n[s.outcome()]++
	}
	var names []string
	for name := range n {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return n[b] - n[a] })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d × %s", n[name], name))
	}
	return strings.Join(parts, ", ")
}
