package pipeline

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/defect"
	"github.com/tminus-live/tminus/reference/defect/orders"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/playback/front"
	"github.com/tminus-live/tminus/reference/timeline"
)

// Place names a component of the region, as orders for defects do: "us-east/origin".
func (r RegionConfig) Place(component string) string { return r.Name + "/" + component }

// EdgePlace is Place of edge k, counted from 1: "us-east/edge-1".
func (r RegionConfig) EdgePlace(k int) string { return r.Place("edge-" + strconv.Itoa(k)) }

// defects are what is wrong with the region's components, on order.
func (r RegionConfig) defects() *defect.Set {
	all := []defect.Component{
		{Name: r.Place(defect.Encoder), Kind: defect.Encoder}, {Name: r.Place(defect.Packager), Kind: defect.Packager},
		{Name: r.Place(defect.Origin), Kind: defect.Origin}, {Name: r.Place(defect.Playback), Kind: defect.Playback},
	}
	for k := 1; k <= r.Edges; k++ {
		all = append(all, defect.Component{Name: r.EdgePlace(k), Kind: defect.Edge})
	}
	return defect.NewSet(all...)
}

// clock is a component's clock where all of it may be wrong: what it does follows the time of day only.
func clock(p *defect.Part) func() time.Time { return func() time.Time { return p.Clock(time.Now()) } }

// stay waits for as long as a defect wants; false: ctx ended first.
func stay(ctx context.Context, h defect.Hold) bool {
	for {
		wait, over := h.Next(time.Now())
		if wait <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-over:
		case <-ctx.Done():
		}
		if timer.Stop(); ctx.Err() != nil {
			return false
		}
	}
}

// publish hands segments on as the encoder's defects leave them.
func publish(p *defect.Part, tl timeline.Timeline, l *encoder.Ladder, next func(encoder.Segment)) func(encoder.Segment) {
	return func(s encoder.Segment) {
		now := time.Now()
		switch {
		case p.Well():
		case p.Stopped(now):
			return
		default:
			for i, t := range s.Tracks {
				if since, frozen := p.Frozen(now, t.Rendition.ID); frozen && t.Rendition.Kind == manifest.Video {
					s.Tracks[i].Samples = pictures(t.Samples, l.Segment(tl.At(since) - 1).Tracks[i].Samples)
				}
			}
		}
		next(s)
	}
}

// pictures are those of old with the times of now.
func pictures(now, old []encoder.Sample) []encoder.Sample {
	out := make([]encoder.Sample, len(now))
	for i := range out {
		out[i] = old[i%len(old)]
		out[i].Duration = now[i].Duration
	}
	return out
}

// refuse says which of a packager's PUTs fail.
func refuse(p *defect.Part) func(origin string, segment uint64) bool {
	return func(origin string, segment uint64) bool { return !p.Well() && p.Refuses(time.Now(), origin, segment) }
}

// encode runs an encoder. One whose clock was ahead and is set right has handed over segments that nobody took: it is started
// again, as again, with the segment of the moment.
func encode(p *defect.Part, first, again *encoder.Encoder) func(context.Context) error {
	return func(ctx context.Context) error {
		for enc := first; ; enc = again {
			running, stop := context.WithCancel(ctx)
			back := make(chan bool, 1)
			go func() { back <- setBack(running, p); stop() }()
			err := enc.Run(running)
			stop()
			if !<-back || err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
}

// setBack waits until a component's clock is set back; false: ctx ended first.
func setBack(ctx context.Context, p *defect.Part) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var ahead time.Duration
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			now := time.Now()
			was := ahead
			if ahead = p.Clock(now).Sub(now); was-ahead > 100*time.Millisecond {
				return true
			}
		}
	}
}

// store is what an origin's store does before an operation.
func store(p *defect.Part) func(ctx context.Context, write bool, size int) error {
	return func(ctx context.Context, write bool, size int) error {
		if p.Well() {
			return nil
		}
		op := defect.Read
		if write {
			op = defect.Write
		}
		holds, err := p.Store(time.Now(), op, size)
		for _, h := range holds {
			if !stay(ctx, h) {
				return context.Cause(ctx)
			}
		}
		return err
	}
}

// timePath is where a component tells the time that it believes in.
const timePath = "/time"

// dated lets a component's answers carry the time that it believes in, to the second, in Date.
func dated(p *defect.Part, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.Well() {
			w.Header().Set("Date", p.Clock(time.Now()).UTC().Format(http.TimeFormat))
		}
		next.ServeHTTP(w, r)
	})
}

// timed lets a component tell the time that it believes in, to the millisecond, at /time. An edge does so by itself.
func timed(p *defect.Part, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == timePath {
			tellTime(w, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func tellTime(w http.ResponseWriter, p *defect.Part) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, p.Clock(time.Now()).UTC().Format("2006-01-02T15:04:05.000Z")) //nolint:errcheck // the client is gone
}

// hands lets an edge answer as far as it has hands.
func hands(p *defect.Part, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.Well() && r.URL.Path != "/healthz" && r.URL.Path != timePath {
			h, ok := p.Admit(time.Now())
			if !ok {
				w.Header().Set("Access-Control-Allow-Origin", "*")
				w.Header().Set("Cache-Control", "no-store")
				w.Header().Set("Retry-After", "1")
				http.Error(w, "the edge has no hand free", http.StatusServiceUnavailable)
				return
			}
			if !stay(r.Context(), h) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// play answers play starts on the loop of a front, which must not wait.
func play(p *defect.Part, s *playback.Service) func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
	return func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
		if p.Well() {
			return s.Answer(dst, now, body)
		}
		if p.Aside(now, defect.Play) {
			return dst, 0, 0
		}
		if a := p.Answer(now, defect.Play); a.Fails {
			return append(dst, failing...), a.Status, 0
		}
		return s.AnswerAt(dst, now, p.Clock(now), body)
	}
}

const failing = `{"error":"the service fails"}`

// rewound is a body of which the beginning has been read.
type rewound struct {
	io.Reader
	io.Closer
}

// maxHeld bounds the requests to a playback service that a defect makes wait; those beyond are refused.
const maxHeld = 8192

// before has the requests to a playback service that do not go to its loop: orders for the region's defects, and what the service's
// own defects make of the others.
func before(p *defect.Part, desk http.Handler) func(http.ResponseWriter, *http.Request) bool {
	var held atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) (answered bool) {
		path, h := r.URL.Path, w.Header()
		if path == orders.Path || strings.HasPrefix(path, orders.Path+"/") {
			desk.ServeHTTP(w, r)
			return true
		}
		if !p.Well() {
			h.Set("Date", p.Clock(time.Now()).UTC().Format(http.TimeFormat))
		}
		if path == timePath {
			tellTime(w, p)
			return true
		}
		endpoint := playback.Endpoint(path)
		if endpoint == "" || r.Method == http.MethodOptions {
			return false
		}
		a := p.Answer(time.Now(), endpoint)
		if held.Add(1) > maxHeld {
			a = defect.Answer{Fails: true, Status: http.StatusServiceUnavailable}
		}
		if a.Hold != (defect.Hold{}) {
			// Whoever waits may wait for longer than a request may take to come in.
			body, _ := io.ReadAll(io.LimitReader(r.Body, playback.MaxRequest+1)) // who reads on finds the error again
			r.Body = rewound{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
		}
		there := stay(r.Context(), a.Hold)
		held.Add(-1)
		if front.Aside(r.Context()) && !p.Aside(time.Now(), defect.Play) {
			h.Set("Connection", "close")
		}
		switch {
		case !there:
			return true
		case !a.Fails:
			return false
		case a.Status == 0:
			panic(http.ErrAbortHandler) // how net/http drops a connection
		}
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "application/json")
		w.WriteHeader(a.Status)
		io.WriteString(w, failing) //nolint:errcheck // the client is gone
		return true
	}
}
