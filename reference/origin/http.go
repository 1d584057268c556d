package origin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin/availability"
)

// Headers of the reference pipeline. The lifetime in milliseconds stands beside Cache-Control, whose max-age is the same
// lifetime rounded down to seconds.
const (
	HeaderPipeline   = "Tminus-Pipeline"   // of a PUT: which encoder and packager made the body
	HeaderDefects    = "Tminus-Defects"    // of a PUT: comma list, empty when the body is good
	HeaderMaxAge     = "Tminus-Max-Age-Ms" // of an answer: how long it may be cached, in milliseconds
	HeaderCandidates = "Tminus-Candidates" // of an origin's answer: comma list of the pipelines that have published the segment
)

// Handler speaks HTTP for the origin: GET and HEAD, and PUT of init and media segments.
func (o *Origin) Handler() http.Handler { return http.HandlerFunc(o.serve) }

func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		w.Header().Set("Cache-Control", "no-store")
		io.WriteString(w, "ok\n")
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		o.read(w, r)
	case http.MethodPut:
		o.write(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		http.Error(w, "the origin takes GET, HEAD and PUT", http.StatusMethodNotAllowed)
	}
}

func (o *Origin) read(w http.ResponseWriter, r *http.Request) {
	o.stats.requests.Add(1)
	res, err := availability.Parse(r.URL.EscapedPath())
	if err != nil {
		o.stats.bad.Add(1)
		setLifetime(w.Header(), o.cfg.Policy.UnknownTTL)
		http.Error(w, "the path names nothing that a stream has", http.StatusBadRequest)
		return
	}
	n := o.reads.Add(1)
	defer o.reads.Add(-1)
	if n > int64(o.cfg.MaxReads) {
		o.busy(w, time.Second)
		return
	}

	req := availability.Request{Resource: res, Arrived: o.wall()}
	for {
		now := o.wall()
		shelf := o.store.peek(keyOf(res))
		held := availability.Held{Candidates: shelf.candidates, Stress: o.reads.Load() > int64(o.cfg.StressReads)}
		d := availability.Decide(now, o.cfg.Stream, o.cfg.Policy, req, held)
		if d.Action != availability.Hold {
			o.answer(w, r, res, now, d, shelf)
			return
		}
		if !o.hold(r, keyOf(res), shelf, d.Until.Sub(now)) {
			o.busy(w, o.cfg.Policy.DefectTTL)
			return
		}
		if r.Context().Err() != nil {
			// The reader left, or the origin is stopping: the latter must not look like an empty segment.
			o.busy(w, 0)
			return
		}
	}
}

// hold waits until the store has something newer of k than seen, for the given time at most. It returns false when too
// many are waiting already.
func (o *Origin) hold(r *http.Request, k key, seen *shelf, wait time.Duration) bool {
	n := o.holds.Add(1)
	defer o.holds.Add(-1)
	if n > int64(o.cfg.MaxHolds) {
		return false
	}
	o.reads.Add(-1) // a parked read is no load
	defer o.reads.Add(1)
	o.stats.held.Add(1)
	current := o.store.watch(k)
	if seen.changed != nil && current != seen || seen.changed == nil && len(current.candidates) > 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-current.changed:
	case <-timer.C:
	case <-r.Context().Done():
	}
	return true
}

func (o *Origin) answer(w http.ResponseWriter, r *http.Request, res availability.Resource, now time.Time, d availability.Decision, sh *shelf) {
	setLifetime(w.Header(), d.TTL)
	switch d.Action {
	case availability.Serve:
		body, err := o.body(r, res, now, d, sh)
		if err != nil {
			o.stats.bad.Add(1)
			http.Error(w, "the manifest cannot be rendered", http.StatusInternalServerError)
			o.cfg.Log.Error("cannot render", "path", r.URL.Path, "error", err)
			return
		}
		h := w.Header()
		if len(sh.candidates) > 0 {
			if err := o.cfg.Store(r.Context(), false, len(body)); err != nil {
				o.stats.bad.Add(1)
				setLifetime(h, 0)
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		h.Set("Content-Type", res.ContentType(o.cfg.Stream))
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if len(sh.candidates) > 0 {
			h.Set(HeaderPipeline, sh.candidates[d.Pick].Pipeline)
			h.Set(HeaderCandidates, sh.pipelines())
			if defects := sh.candidates[d.Pick].Defects; len(defects) > 0 {
				h.Set(HeaderDefects, strings.Join(defects, ","))
			}
		}
		o.stats.ok.Add(1)
		if r.Method == http.MethodHead {
			return
		}
		n, _ := w.Write(body)
		o.stats.bytesOut.Add(int64(n))
		return
	case availability.NotFound:
		o.stats.notFound.Add(1)
	case availability.Gone:
		o.stats.gone.Add(1)
	case availability.Busy:
		o.stats.busy.Add(1)
	}
	http.Error(w, d.Why, d.Action.Status())
}

func (o *Origin) body(r *http.Request, res availability.Resource, now time.Time, d availability.Decision, sh *shelf) ([]byte, error) {
	switch res.Kind {
	case availability.Init, availability.Segment:
		return sh.bodies[d.Pick], nil
	}
	var opt manifest.Options
	// Through an edge, its own URL goes first, and relative: the same bytes work behind whatever name the edge has.
	if via := r.URL.Query().Get("via"); via != "" {
		opt.Via, opt.Relative = via, true
	}
	switch res.Kind {
	case availability.MPD:
		return manifest.DASH(o.cfg.Stream, opt)
	case availability.Master:
		return manifest.HLSMaster(o.cfg.Stream, opt)
	default:
		return manifest.HLSMedia(o.cfg.Stream, res.Rendition, now, opt)
	}
}

func (o *Origin) busy(w http.ResponseWriter, ttl time.Duration) {
	o.stats.busy.Add(1)
	setLifetime(w.Header(), ttl)
	http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
}

func setLifetime(h http.Header, ttl time.Duration) {
	ttl = max(ttl, 0)
	h.Set("Cache-Control", "max-age="+strconv.FormatInt(int64(ttl/time.Second), 10))
	h.Set(HeaderMaxAge, strconv.FormatInt(ttl.Milliseconds(), 10))
}

// write stores one candidate. Statuses follow DASH-IF live media ingest v1.2 where it has one: 400, 403, 404; and 413 for a
// body over the bound, 507 for a full store.
func (o *Origin) write(w http.ResponseWriter, r *http.Request) {
	began := o.cfg.Now()
	refuse := func(status int, why string) {
		o.stats.writesRefused.Add(1)
		http.Error(w, why, status)
	}
	n := o.puts.Add(1)
	defer o.puts.Add(-1)
	if n > maxWrites {
		refuse(http.StatusServiceUnavailable, "too many writes at once")
		return
	}
	res, err := availability.Parse(r.URL.EscapedPath())
	if err != nil || res.Kind != availability.Init && res.Kind != availability.Segment {
		refuse(http.StatusBadRequest, "only init and media segments can be stored")
		return
	}
	s := o.cfg.Stream
	if _, known := s.Rendition(res.Rendition); !known || res.Event != s.Event {
		refuse(http.StatusNotFound, "no such event or rendition here")
		return
	}
	if res.Kind == availability.Segment && !o.takes(o.cfg.Wall(began), res.Number) {
		refuse(http.StatusForbidden, "the segment is outside the event, its time-shift buffer or the present")
		return
	}
	cand, err := candidate(r.Header)
	if err != nil {
		refuse(http.StatusBadRequest, err.Error())
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
			refuse(http.StatusRequestEntityTooLarge, "a segment has at most 8 MiB")
			return
		}
		refuse(http.StatusBadRequest, "the body is empty or broke off")
		return
	}
	if err := o.cfg.Store(r.Context(), true, len(body)); err != nil {
		refuse(http.StatusInternalServerError, err.Error())
		return
	}
	if err := o.store.put(keyOf(res), cand, body); err != nil {
		refuse(http.StatusInsufficientStorage, err.Error())
		return
	}
	o.stats.writes.Add(1)
	o.stats.bytesIn.Add(int64(len(body)))
	if took := o.cfg.Now().Sub(began); took > slowWrite {
		o.stats.writesSlow.Add(1)
		o.cfg.Log.Warn("slow write", "path", r.URL.Path, "took_ms", took.Milliseconds(), "pipeline", cand.Pipeline)
	}
	w.WriteHeader(http.StatusCreated)
}

// takes says whether segment n may be written at now: in the event, not older than its readers may ask for, and not from
// the future (one segment of clock difference is allowed).
func (o *Origin) takes(now time.Time, n uint64) bool {
	s := o.cfg.Stream
	if n < s.First || s.Last != 0 && n > s.Last || n > s.Timeline.At(now)+1 {
		return false
	}
	return s.DVR <= 0 || now.Sub(s.Timeline.End(n)) <= s.DVR
}

const (
	maxName    = 64 // bytes of a pipeline's or defect's name
	maxDefects = 16
)

func candidate(h http.Header) (availability.Candidate, error) {
	c := availability.Candidate{Pipeline: h.Get(HeaderPipeline)}
	if c.Pipeline == "" || len(c.Pipeline) > maxName {
		return c, errors.New("header " + HeaderPipeline + " must name the pipeline that made the segment")
	}
	for _, d := range strings.Split(h.Get(HeaderDefects), ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		if len(d) > maxName || len(c.Defects) == maxDefects {
			return c, errors.New("header " + HeaderDefects + " is too long")
		}
		c.Defects = append(c.Defects, d)
	}
	return c, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, &http.MaxBytesError{Limit: maxBody}
	}
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		_, err := io.ReadFull(limited, body)
		return body, err
	}
	body, err := io.ReadAll(limited)
	if err == nil && len(body) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return body, err
}
