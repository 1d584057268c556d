package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/spread"
)

// maxBody bounds an object, in bytes.
const maxBody = 8 << 20

// attempt is how one origin fared in one fill.
type attempt struct {
	origin int
	obj    *object // nil when err is not
	err    error
}

// fill asks the origins for a resource and returns what viewers get: the first good answer; else the best refusal; else an
// answer of the edge's own. It returns within the fill's deadline whatever the origins do.
//
// An origin has until the segment is due and Patience on top to answer before the next one is asked beside it. So in
// good times each object is fetched once, and a silent origin costs Patience and no more.
func (e *Edge) fill(ctx context.Context, res availability.Resource) *object {
	began := e.cfg.Now()
	patience := e.cfg.Patience
	if res.Kind == availability.Segment {
		if wait := e.cfg.Stream.Timeline.End(res.Number).Sub(began); wait > 0 {
			patience += wait
		}
	}
	order := e.upstreams.order(began)
	deadline := availability.HoldUntil(e.cfg.Stream, e.cfg.Policy, res, began).Sub(began)
	deadline = max(deadline, patience+time.Duration(len(order))*e.cfg.Patience) + e.cfg.Patience
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()

	results := make(chan attempt, len(order)) // buffered: a late answer must not keep its goroutine
	asked := make([]int, 0, len(order))
	ask := func() {
		i := order[len(asked)]
		asked = append(asked, i)
		e.attempts.Go(func() {
			obj, err := e.get(ctx, i, res)
			results <- attempt{i, obj, err}
		})
	}
	ask()
	timer := time.NewTimer(patience)
	defer timer.Stop()

	var refusal *object
	var lastErr error
	answered := make(map[int]bool, len(order))
	for {
		select {
		case a := <-results:
			now := e.cfg.Now()
			answered[a.origin] = true
			switch {
			case a.err != nil:
				e.originFailed(a.origin, now, a.err)
				lastErr = a.err
			case a.obj.status == http.StatusOK:
				e.upstreams.succeeded(a.origin)
				e.lastFill.Store(now.UnixNano())
				for _, i := range asked {
					if !answered[i] { // it had its time, and another was faster
						e.originFailed(i, now, errors.New("no answer in time"))
					}
				}
				return a.obj
			default:
				e.upstreams.succeeded(a.origin)
				if refusal == nil || rank(a.obj.status) < rank(refusal.status) {
					refusal = a.obj
				}
			}
			if len(asked) < len(order) {
				ask()
				timer.Reset(e.cfg.Patience)
				continue
			}
			if len(answered) < len(asked) {
				continue
			}
		case <-timer.C:
			if len(asked) < len(order) {
				ask()
				timer.Reset(e.cfg.Patience)
			}
			continue
		case <-ctx.Done():
			if lastErr == nil {
				lastErr = context.Cause(ctx)
			}
			for _, i := range asked {
				if !answered[i] {
					e.originFailed(i, e.cfg.Now(), lastErr)
				}
			}
		}
		return e.refused(refusal, lastErr)
	}
}

// rank orders refusals by how much they say: not there is more than too busy.
func rank(status int) int {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return 0
	case http.StatusServiceUnavailable:
		return 1
	}
	return 2
}

// refused is the answer when no origin gave the object. When some origin could not be asked its lifetime is short: that
// origin may have had it.
func (e *Edge) refused(refusal *object, err error) *object {
	brief := spread.Jitter(e.cfg.ErrorTTL, e.cfg.Seed^uint64(e.stats.errors.Load())^uint64(e.lastFill.Load()))
	if refusal != nil {
		if err != nil {
			short := *refusal
			short.ttl = min(short.ttl, brief)
			short.maxAge = "max-age=" + strconv.Itoa(int(short.ttl/time.Second))
			return &short
		}
		return refusal
	}
	status, why := http.StatusBadGateway, "no origin could be reached\n"
	if errors.Is(err, context.DeadlineExceeded) {
		status, why = http.StatusGatewayTimeout, "no origin answered in time\n"
	}
	return &object{status: status, contentType: "text/plain; charset=utf-8", body: []byte(why), stored: e.cfg.Now(), ttl: brief, maxAge: "max-age=0"}
}

func (e *Edge) originFailed(i int, now time.Time, err error) {
	if e.stopping.Err() != nil {
		return // the edge gave up, not the origin
	}
	if e.upstreams.failed(i, now) {
		e.cfg.Log.Warn("origin fails", "edge", e.cfg.ID, "origin", e.cfg.Origins[i].Name, "error", err)
	}
}

// get fetches a resource from one origin. An error means that the origin has a problem; refusals are objects.
func (e *Edge) get(ctx context.Context, i int, res availability.Resource) (*object, error) {
	e.stats.upstream.Add(1)
	url := e.cfg.Origins[i].URL + res.Path()
	if res.Kind == availability.MPD || res.Kind == availability.Master || res.Kind == availability.Media {
		url += "?via=" + e.cfg.ID
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.cfg.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	switch {
	case len(body) > maxBody:
		return nil, fmt.Errorf("%s has more than %d bytes", url, maxBody)
	case resp.StatusCode == http.StatusOK && len(body) == 0:
		return nil, fmt.Errorf("%s is empty", url)
	}
	obj := &object{
		status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"), pipeline: resp.Header.Get(origin.HeaderPipeline),
		body: body, stored: e.cfg.Now(), maxAge: resp.Header.Get("Cache-Control"), ttl: lifetime(resp.Header),
	}
	if s, err := strconv.ParseUint(resp.Header.Get("Age"), 10, 31); err == nil {
		obj.age = time.Duration(s) * time.Second
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusGone, http.StatusBadRequest:
		return obj, nil
	case http.StatusServiceUnavailable:
		if obj.ttl > 0 { // it says when to come back: it is busy, not broken
			return obj, nil
		}
	}
	return nil, fmt.Errorf("%s answered %s", url, resp.Status)
}

// maxLifetime bounds how long anything is believed.
const maxLifetime = 24 * time.Hour

// lifetime is how long an answer may be kept: the pipeline's own header in milliseconds, else Cache-Control's s-maxage or
// max-age; none and what must not be shared or stored are 0 (RFC 9111, 5.2.2).
func lifetime(h http.Header) time.Duration {
	var seconds, shared int64 = -1, -1
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64)
		switch name {
		case "no-store", "private", "no-cache":
			return 0
		case "max-age":
			if err == nil {
				seconds = n
			}
		case "s-maxage":
			if err == nil {
				shared = n
			}
		}
	}
	if ms, err := strconv.ParseInt(h.Get(origin.HeaderMaxAge), 10, 64); err == nil {
		return min(max(time.Duration(min(ms, maxLifetime.Milliseconds()))*time.Millisecond, 0), maxLifetime)
	}
	if shared >= 0 {
		seconds = shared
	}
	return min(max(time.Duration(min(seconds, int64(maxLifetime/time.Second)))*time.Second, 0), maxLifetime)
}
