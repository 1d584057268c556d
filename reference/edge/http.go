package edge

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/reference/spread"
)

// Handler speaks HTTP to viewers: GET, HEAD and OPTIONS, with CORS for any web page, refusals included.
func (e *Edge) Handler() http.Handler { return http.HandlerFunc(e.serve) }

func (e *Edge) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Age, Date, X-Cache, "+origin.HeaderMaxAge)
	h.Set("Timing-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "*")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, "an edge takes GET, HEAD and OPTIONS", http.StatusMethodNotAllowed)
		return
	}
	path := r.URL.EscapedPath()
	if path != "/healthz" && path != "/time" {
		rest, err := e.admit(path)
		if err != nil {
			e.stats.forbidden.Add(1)
			h.Set("Cache-Control", "no-store")
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		path = rest
	}
	switch path {
	case "/healthz":
		h.Set("Cache-Control", "no-store")
		if !e.Healthy() {
			http.Error(w, "no origin answered lately", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
		return
	case "/time":
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, e.wall().UTC().Format("2006-01-02T15:04:05.000Z"))
		return
	}
	e.stats.requests.Add(1)
	// The query is the viewer's own (session, CMCD): it neither splits the cache nor reaches the origin.
	res, err := availability.Parse(path)
	if err != nil {
		e.stats.refused.Add(1)
		http.Error(w, "the path names nothing that a stream has", http.StatusNotFound)
		return
	}
	now := e.cfg.Now()
	if d, refuse := availability.Refuse(e.cfg.Wall(now), e.cfg.Stream, e.cfg.Policy, res); refuse {
		e.stats.refused.Add(1)
		h.Set("X-Cache", "HIT") // answered without a fill
		setLifetime(h, d.TTL)
		http.Error(w, d.Why, d.Action.Status())
		return
	}
	obj, how := e.lookup(r, res, now)
	if obj == nil { // too many wait already, or the viewer left
		e.stats.shed.Add(1)
		h.Set("X-Cache", how)
		// When to come back, different for each viewer.
		setLifetime(h, spread.Jitter(e.cfg.ErrorTTL, e.cfg.Seed^uint64(e.stats.requests.Load())^uint64(now.UnixNano())))
		http.Error(w, "the edge has too much to do", http.StatusServiceUnavailable)
		return
	}
	e.answer(w, r, obj, how)
}

// admit checks the token in front of a path and takes it off: what follows does not know of it.
func (e *Edge) admit(path string) (string, error) {
	if e.cfg.Tokens == nil {
		return path, nil
	}
	text, rest, ok := token.Cut(path)
	if !ok {
		if e.cfg.Bare {
			return path, nil
		}
		return "", errNoToken
	}
	if err := e.cfg.Tokens.Check(text, e.wall()); err != nil {
		return "", err
	}
	return rest, nil
}

// wall is the time of day.
func (e *Edge) wall() time.Time { return e.cfg.Wall(e.cfg.Now()) }

var errNoToken = errors.New("the path needs a token: play from a session's manifest")

// Values of X-Cache.
const (
	hit       = "HIT"
	miss      = "MISS"
	collapsed = "COLLAPSED"
)

// lookup returns the object from the cache, or waits for the one fill that fetches it. It returns nil when a bound is
// reached or the viewer leaves; the fill goes on for the others.
func (e *Edge) lookup(r *http.Request, res availability.Resource, now time.Time) (*object, string) {
	key := e.cfg.Version + res.Path()
	how := collapsed
	e.mu.Lock()
	e.wipe(now)
	if obj := e.cache.get(key, now); obj != nil {
		e.mu.Unlock()
		e.stats.hits.Add(1)
		return obj, hit
	}
	f := e.flights[key]
	if f == nil {
		how = miss
		if e.filling.Load() >= int64(e.cfg.MaxFills) || e.stopping.Err() != nil {
			e.mu.Unlock()
			return nil, how
		}
		f = &flight{done: make(chan struct{})}
		e.flights[key] = f
		e.filling.Add(1)
		e.fills.Go(func() { e.fly(key, res, f) })
	}
	e.mu.Unlock()

	if how == miss {
		e.stats.fills.Add(1)
	} else {
		e.stats.collapsed.Add(1)
	}
	defer e.waiting.Add(-1)
	if e.waiting.Add(1) > int64(e.cfg.MaxWaiting) {
		return nil, how
	}
	select {
	case <-f.done:
		return f.obj, how
	case <-r.Context().Done():
		return nil, how
	}
}

// fly runs one fill, stores its object and lets everybody have it.
func (e *Edge) fly(key string, res availability.Resource, f *flight) {
	obj := e.fill(e.stopping, res)
	if obj.status >= 500 {
		e.stats.errors.Add(1)
	}
	f.obj = obj
	e.mu.Lock()
	e.cache.put(key, obj)
	delete(e.flights, key)
	e.mu.Unlock()
	e.filling.Add(-1)
	close(f.done)
}

func (e *Edge) answer(w http.ResponseWriter, r *http.Request, obj *object, how string) {
	now := e.cfg.Now()
	age := max(now.Sub(obj.stored), 0)
	h := w.Header()
	h.Set("X-Cache", how)
	h.Set("Age", strconv.Itoa(int((obj.age+age)/time.Second)))
	if obj.contentType != "" {
		h.Set("Content-Type", obj.contentType)
	}
	if obj.pipeline != "" {
		h.Set(origin.HeaderPipeline, obj.pipeline)
	}
	if obj.maxAge != "" {
		h.Set("Cache-Control", obj.maxAge)
	}
	h.Set(origin.HeaderMaxAge, strconv.FormatInt(max(obj.ttl-age, 0).Milliseconds(), 10))
	if obj.status == http.StatusOK && r.Header.Get("Range") != "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(obj.body))
		e.stats.bytes.Add(int64(len(obj.body)))
		return
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.Itoa(len(obj.body)))
	w.WriteHeader(obj.status)
	if r.Method == http.MethodHead {
		return
	}
	n, _ := w.Write(obj.body)
	e.stats.bytes.Add(int64(n))
}

func setLifetime(h http.Header, ttl time.Duration) {
	ttl = max(ttl, 0)
	h.Set("Cache-Control", "max-age="+strconv.Itoa(int(ttl/time.Second)))
	h.Set(origin.HeaderMaxAge, strconv.FormatInt(ttl.Milliseconds(), 10))
}
