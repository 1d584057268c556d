package httprelay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/media"
)

type refKey struct{}

// rewrite sends a request to the server as the client wrote it.
func (r *Relay) rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host = "http", r.cfg.Upstream
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = v
		}
	}
}

// seen notes which segments exist, where the clock does not say.
func (r *Relay) seen(resp *http.Response) error {
	if ref, ok := resp.Request.Context().Value(refKey{}).(media.Ref); ok && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent) {
		r.edge.Served(ref)
	}
	return nil
}

// handle answers one request.
func (r *Relay) handle(w http.ResponseWriter, req *http.Request) {
	r.requests.Add(1)
	r.open.Add(1)
	defer r.open.Add(-1)
	path := rawPath(req)
	rules := *r.rules.Load()
	if len(rules) == 0 && r.cfg.Layout.Clocked {
		r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req}, req)
		return
	}
	ref, known := r.cfg.Layout.Find(path)
	if known && ref.Kind == media.Segment && !r.cfg.Layout.Clocked {
		req = req.WithContext(context.WithValue(req.Context(), refKey{}, ref))
	}
	for _, rule := range rules {
		if !rule.covers(req.Method, path, ref, known, func() uint64 { return r.newest(ref) }) {
			continue
		}
		n := rule.matched.Add(1) - 1
		if draw(rule.Seed, n) >= rule.Share {
			continue
		}
		r.apply(w, req, rule, n, ref)
		return
	}
	r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req}, req)
}

func (r *Relay) newest(ref media.Ref) uint64 {
	if n, ok := r.cfg.Layout.Newest(r.cfg.Now()); ok {
		return n
	}
	return r.edge.Newest(ref)
}

// apply breaks one request.
func (r *Relay) apply(w http.ResponseWriter, req *http.Request, rule *armed, n uint64, ref media.Ref) {
	a := rule.Action
	switch a.Kind {
	case Status:
		rule.applied.Add(1)
		refuse(w, req, a)
		return
	case Latency:
		rule.applied.Add(1)
		if !wait(req.Context(), rule.gone, a.delay(rule.Seed, n)) {
			return
		}
	case Reset:
		if a.After == 0 {
			rule.applied.Add(1)
			reset(req)
		}
		r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req, rule: rule, n: n}, req)
		return
	case Stall, Truncate, Throttle, Corrupt:
		r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req, rule: rule, n: n}, req)
		return
	case Segment:
		r.segment(w, req, rule, ref)
		return
	}
	r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req}, req)
}

// wait waits for d, and less when the rule is taken away; d below 0 is for ever. It is false when the client has left.
func wait(ctx context.Context, gone <-chan struct{}, d time.Duration) bool {
	var over <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-gone:
	case <-ctx.Done():
		return false
	}
	return true
}

// refuse answers in the server's place. Nobody may keep the answer: it must end with the rule.
func refuse(w http.ResponseWriter, req *http.Request, a Action) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if req.Header.Get("Origin") != "" { // else a browser shows its script a network error in place of the status
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if a.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((a.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		w.WriteHeader(a.Status)
		return
	}
	body := a.Body
	if body == "" {
		body = http.StatusText(a.Status) + "\n"
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.Status)
	if req.Method != http.MethodHead {
		_, _ = io.WriteString(w, body)
	}
}

// answer passes an answer on, and breaks its body where a rule says so.
type answer struct {
	http.ResponseWriter
	req  *http.Request
	rule *armed // nil: none
	n    uint64

	begun, faulty, done bool
	border, sent        int64
	start               time.Time
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	if status >= 200 && !a.begun {
		a.begun = true
		h := a.Header()
		// What the server left out is not made up here.
		for _, name := range []string{"Date", "Content-Type"} {
			if _, ok := h[name]; !ok {
				h[name] = nil
			}
		}
		if a.rule != nil && (status == http.StatusOK || status == http.StatusPartialContent) {
			length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
			if err != nil {
				length = -1
			}
			a.faulty = true
			a.border = a.rule.Action.border(length)
			if a.rule.Action.Kind == Corrupt {
				for _, name := range checks {
					h.Del(name)
				}
				h.Set("Cache-Control", "no-store")
			}
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// checks are fields that vouch for bytes.
var checks = []string{"Etag", "Last-Modified", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest"}

func (a *answer) Write(b []byte) (int, error) {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
	if a.faulty && !a.done {
		select {
		case <-a.rule.gone: // what is still to come of a long body is not the fault's any more
			a.done = true
		default:
		}
	}
	if !a.faulty || a.done || len(b) == 0 {
		return a.ResponseWriter.Write(b)
	}
	act := a.rule.Action
	switch act.Kind {
	case Corrupt:
		return a.corrupt(b)
	case Throttle:
		return a.throttle(b)
	}
	if a.sent+int64(len(b)) <= a.border {
		n, err := a.ResponseWriter.Write(b)
		a.sent += int64(n)
		return n, err
	}
	head := int(a.border - a.sent)
	n, err := a.ResponseWriter.Write(b[:head])
	a.sent += int64(n)
	if err != nil {
		return n, err
	}
	_ = http.NewResponseController(a.ResponseWriter).Flush()
	a.done = true
	a.rule.applied.Add(1)
	switch act.Kind {
	case Reset:
		reset(a.req)
	case Truncate:
		panic(http.ErrAbortHandler)
	}
	pause := act.For
	if pause == 0 {
		pause = -1
	}
	if !wait(a.req.Context(), a.rule.gone, pause) {
		return n, a.req.Context().Err()
	}
	m, err := a.ResponseWriter.Write(b[head:])
	a.sent += int64(m)
	return n + m, err
}

func (a *answer) corrupt(b []byte) (int, error) {
	each := int64(a.rule.Action.Each)
	if each == 0 {
		each = 1024
	}
	spoiled := bytes.Clone(b) // the caller's buffer is its own
	hit := false
	for i := range spoiled {
		if (a.sent+int64(i)+each/2)%each == 0 {
			spoiled[i] ^= 0xff
			hit = true
		}
	}
	if hit && a.start.IsZero() {
		a.start = time.Unix(1, 0)
		a.rule.applied.Add(1)
	}
	n, err := a.ResponseWriter.Write(spoiled)
	a.sent += int64(n)
	return n, err
}

// throttle sends a body in parts, each when its time has come: bytes sent over the rate since the first.
func (a *answer) throttle(b []byte) (int, error) {
	rate := a.rule.Action.Rate
	part := int(max(min(rate/50, 32<<10), 1))
	if a.start.IsZero() {
		a.start = time.Now()
		a.rule.applied.Add(1)
	}
	written := 0
	for written < len(b) {
		due := a.start.Add(time.Duration(float64(a.sent) / rate * float64(time.Second)))
		if !a.done && !wait(a.req.Context(), a.rule.gone, max(time.Until(due), 0)) {
			return written, a.req.Context().Err()
		}
		select {
		case <-a.rule.gone:
			a.done = true
			part = len(b)
		default:
		}
		n, err := a.ResponseWriter.Write(b[written:min(written+part, len(b))])
		written += n
		a.sent += int64(n)
		if err != nil {
			return written, err
		}
		_ = http.NewResponseController(a.ResponseWriter).Flush()
	}
	return written, nil
}

// segment answers a request for a segment that has a defect.
func (r *Relay) segment(w http.ResponseWriter, req *http.Request, rule *armed, ref media.Ref) {
	d := rule.Action.Defect
	switch d.Kind {
	case media.Missing:
		rule.applied.Add(1)
		status := d.Status
		if status == 0 {
			status = http.StatusNotFound
		}
		refuse(w, req, Action{Status: status})
		return
	case media.Late:
		now := r.cfg.Now()
		due, ok := r.cfg.Layout.Due(ref.Number)
		if !ok {
			due = r.edge.Asked(ref, now)
		}
		if until := due.Add(d.Delay).Sub(now); until > 0 {
			rule.applied.Add(1)
			if !wait(req.Context(), rule.gone, until) {
				return
			}
		}
		r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req}, req)
		return
	}
	if err := r.spoiled(w, req, rule, ref); err != nil {
		if !errors.Is(err, errNothing) {
			rule.failed.Add(1)
			why := err.Error()
			rule.failure.Store(&why)
			r.cfg.Log.Warn("segment not spoiled", "relay", r.addr, "rule", rule.Name, "path", rawPath(req), "err", err)
		}
		r.proxy.ServeHTTP(&answer{ResponseWriter: w, req: req}, req)
	}
}

// spoiled answers with a spoiled segment. An error comes before anything was written.
func (r *Relay) spoiled(w http.ResponseWriter, req *http.Request, rule *armed, ref media.Ref) error {
	d := rule.Action.Defect
	resp, err := r.ask(req, rawPath(req))
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	defer resp.Body.Close()
	size := resp.ContentLength
	if size < 0 {
		size = media.MaxSegment
	}
	held := 2 * size // as it was, and as it is to be
	if d.NeedsEarlier() {
		held += size
	}
	hold, err := r.hands.take(req.Context(), rule.gone, held)
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	defer hold.give(0)
	original, err := read(resp)
	if err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	r.edge.Served(ref)
	in := media.Input{Number: ref.Number, Segment: original}
	if d.NeedsHeader(original) {
		if in.Header, err = r.header(req, ref); err != nil {
			return err
		}
	}
	if d.NeedsEarlier() {
		source := rule.source(ref)
		if source >= ref.Number {
			return errNothing // older than what is shown in place of all
		}
		if in.Earlier, err = r.earlier(req, ref, source); err != nil {
			rule.forget(ref)
			return err
		}
	}
	out, err := media.Spoil(d, in)
	if err != nil {
		return err
	}
	rule.applied.Add(1)
	hold.give(int64(len(out)))
	h := w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	for _, name := range append([]string{"Content-Length", "Content-Encoding", "Content-Range", "Transfer-Encoding", "Connection", "Keep-Alive", "Expires", "Age"}, checks...) {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
	plain := req.Clone(req.Context())
	for _, name := range conditions {
		plain.Header.Del(name)
	}
	http.ServeContent(w, plain, "", time.Time{}, bytes.NewReader(out))
	return nil
}

// errNothing: there is nothing to spoil, and nothing wrong with that.
var errNothing = errors.New("nothing to spoil")

// conditions would turn a spoiled segment into "not modified".
var conditions = []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"}

// source is the segment whose pictures a frozen one shows; see media.Defect.
func (a *armed) source(ref media.Ref) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	stream := ref.Stream()
	first, ok := a.first[stream]
	if !ok {
		if len(a.first) >= maxStreams {
			clear(a.first)
		}
		first = ref.Number
		a.first[stream] = first
	}
	var s media.Selector
	if a.Media != nil {
		s = *a.Media
	}
	return a.Action.Defect.Source(s, ref.Number, first)
}

// forget takes another segment for the first one that is frozen: what should have been shown in place of it cannot be had.
func (a *armed) forget(ref media.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.first, ref.Stream())
}

const maxStreams = 256

// ask asks the server for a whole object on a client's behalf. The response is 200, and its body must be closed.
func (r *Relay) ask(req *http.Request, path string) (*http.Response, error) {
	target := "http://" + r.cfg.Upstream + path
	if req.URL.RawQuery != "" {
		target += "?" + req.URL.RawQuery
	}
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	out := (&http.Request{Method: http.MethodGet, URL: u, Host: req.Host, Header: req.Header.Clone()}).WithContext(req.Context())
	for _, name := range append([]string{"Range", "Accept-Encoding", "Connection", "Keep-Alive", "Upgrade", "Te", "Trailer", "Transfer-Encoding", "Content-Length", "Expect"}, conditions...) {
		out.Header.Del(name)
	}
	resp, err := r.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the server answers %s with %s", path, resp.Status)
	}
	return resp, nil
}

// read reads a body to its end.
func read(resp *http.Response) ([]byte, error) {
	var out bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= media.MaxSegment {
		out.Grow(int(n) + bytes.MinRead) // else a buffer that doubles holds up to twice as much
	}
	if _, err := out.ReadFrom(io.LimitReader(resp.Body, media.MaxSegment+1)); err != nil {
		return nil, err
	}
	if out.Len() > media.MaxSegment {
		return nil, fmt.Errorf("%s has more than %d bytes", resp.Request.URL.Path, media.MaxSegment)
	}
	return out.Bytes(), nil
}

func (r *Relay) fetch(req *http.Request, path string) ([]byte, error) {
	resp, err := r.ask(req, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return read(resp)
}

// shelf keeps what is needed again, whoever asks: headers, and the segments that frozen ones show.
type shelf struct {
	mu       sync.Mutex
	headers  map[string]media.Header // by stream
	earlier  map[shown][]byte
	earlierN int // bytes
}

// shown is a segment that a frozen one shows.
type shown struct {
	stream string
	number uint64
}

const (
	maxHeaders = 128
	maxEarlier = 64 << 20 // bytes
)

func (r *Relay) header(req *http.Request, ref media.Ref) (media.Header, error) {
	stream := ref.Stream()
	r.shelf.mu.Lock()
	h, ok := r.shelf.headers[stream]
	r.shelf.mu.Unlock()
	if ok {
		return h, nil
	}
	raw, err := r.fetch(req, r.cfg.Layout.InitPath(ref))
	if err != nil {
		return media.Header{}, fmt.Errorf("its initialisation segment: %w", err)
	}
	if h, err = media.ParseHeader(raw); err != nil {
		return media.Header{}, err
	}
	r.shelf.mu.Lock()
	defer r.shelf.mu.Unlock()
	if r.shelf.headers == nil || len(r.shelf.headers) >= maxHeaders {
		r.shelf.headers = map[string]media.Header{}
	}
	r.shelf.headers[stream] = h
	return h, nil
}

func (r *Relay) earlier(req *http.Request, ref media.Ref, number uint64) ([]byte, error) {
	key := shown{ref.Stream(), number}
	r.shelf.mu.Lock()
	b, ok := r.shelf.earlier[key]
	r.shelf.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := r.fetch(req, ref.Sibling(number))
	if err != nil {
		return nil, fmt.Errorf("the segment before it: %w", err)
	}
	if len(b) > maxEarlier {
		return nil, errors.New("the segment before it is too large to keep")
	}
	r.shelf.mu.Lock()
	defer r.shelf.mu.Unlock()
	if r.shelf.earlier == nil || r.shelf.earlierN+len(b) > maxEarlier {
		r.shelf.earlier, r.shelf.earlierN = map[shown][]byte{}, 0
	}
	r.shelf.earlier[key] = b
	r.shelf.earlierN += len(b)
	return b, nil
}
