package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// testStream starts with the segment that covers now.
func testStream(now time.Time) manifest.Stream {
	return manifest.Stream{
		Event: "final", Timeline: timeline.Default, First: timeline.Default.At(now), DVR: 60 * time.Second,
		Renditions: []manifest.Rendition{
			{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 3_000_000, Timescale: 90000, Width: 1280, Height: 720, FrameRate: "30"},
			{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 128_000, Timescale: 48000, Language: "en", SampleHz: 48000, Channels: 2},
		},
		Edges: []manifest.Edge{{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"}, {ID: "us-west-1", Region: "us-west", URL: "http://127.0.2.11:8080"}},
	}
}

func newOrigin(t *testing.T, change func(*Config)) *Origin {
	t.Helper()
	policy := availability.DefaultPolicy
	policy.Pipelines = 2
	cfg := Config{Stream: testStream(time.Now()), Region: "us-east", Policy: policy, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *Origin) path(rendition string, n uint64) string {
	return availability.Resource{Event: "final", Rendition: rendition, Kind: availability.Segment, Number: n}.Path()
}

func do(o *Origin, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	o.Handler().ServeHTTP(w, r)
	return w
}

func get(o *Origin, path string) *httptest.ResponseRecorder {
	return do(o, httptest.NewRequest(http.MethodGet, path, nil))
}

func put(o *Origin, path, pipeline, defects, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPut, path, strings.NewReader(body))
	r.Header.Set(HeaderPipeline, pipeline)
	r.Header.Set(HeaderDefects, defects)
	return do(o, r)
}

func lifetimeOf(t *testing.T, w *httptest.ResponseRecorder) time.Duration {
	t.Helper()
	ms, err := strconv.Atoi(w.Header().Get(HeaderMaxAge))
	if err != nil {
		t.Fatalf("no lifetime in milliseconds: %v", w.Header())
	}
	if want := fmt.Sprintf("max-age=%d", ms/1000); w.Header().Get("Cache-Control") != want {
		t.Errorf("Cache-Control %q beside %d ms, want %q", w.Header().Get("Cache-Control"), ms, want)
	}
	return time.Duration(ms) * time.Millisecond
}

func TestPutAndGetShareOneURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		first := o.cfg.Stream.First
		time.Sleep(2 * time.Second)
		if w := put(o, o.path("v720", first), "us-east", "", "east"); w.Code != http.StatusCreated {
			t.Fatalf("PUT: %d %s", w.Code, w.Body)
		}
		w := get(o, o.path("v720", first))
		if w.Code != 200 || w.Body.String() != "east" || w.Header().Get("Content-Type") != "video/mp4" || w.Header().Get(HeaderPipeline) != "us-east" {
			t.Errorf("GET: %d %q %v", w.Code, w.Body, w.Header())
		}
		if got := lifetimeOf(t, w); got != time.Minute {
			t.Errorf("lifetime %v, want as long as the time-shift buffer", got)
		}
		put(o, o.path("a-en", first), "us-east", "", "audio")
		if w := get(o, o.path("a-en", first)); w.Header().Get("Content-Type") != "audio/mp4" {
			t.Errorf("audio is served as %s", w.Header().Get("Content-Type"))
		}
		head := do(o, httptest.NewRequest(http.MethodHead, o.path("v720", first), nil))
		if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != "4" {
			t.Errorf("HEAD: %d %q %v", head.Code, head.Body, head.Header())
		}
	})
}

func TestCandidatesAreServedInAFixedOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		n := o.cfg.Stream.First
		time.Sleep(2 * time.Second)
		path := o.path("v720", n)
		for _, step := range []struct{ pipeline, defects, body, want string }{
			{"us-west", "", "west", "west"},                                    // the only one
			{"us-east", "short", "broken", "west"},                             // an earlier name, but with a defect
			{"us-east", "", "east", "east"},                                    // sent again, good: the first good one by name
			{"us-east", "corrupt , missing-frames", "bad", "west"},             // replaced again
			{"us-west", "short", "west again, shorter", "west again, shorter"}, // the least bad
		} {
			if w := put(o, path, step.pipeline, step.defects, step.body); w.Code != http.StatusCreated {
				t.Fatalf("PUT %+v: %d", step, w.Code)
			}
			if w := get(o, path); w.Body.String() != step.want {
				t.Errorf("after %+v: %q is served, want %q", step, w.Body, step.want)
			}
		}
		if w := get(o, path); w.Header().Get(HeaderDefects) != "short" || lifetimeOf(t, w) > time.Second {
			t.Errorf("a defective segment is not marked, or kept for long: %v", w.Header())
		}
	})
}

func TestTheNextSegmentIsHeldOpenUntilItIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		n := o.cfg.Stream.First
		path := o.path("v720", n)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				w := get(o, path)
				if w.Code != 200 || w.Body.String() != "frames" {
					t.Errorf("held request got %d %q", w.Code, w.Body)
				}
				if waited := time.Since(begin); waited != 2100*time.Millisecond {
					t.Errorf("answered after %v, published after 2.1 s", waited)
				}
			})
		}
		synctest.Wait()
		if o.holds.Load() != 20 || o.reads.Load() != 0 {
			t.Errorf("%d held and %d being read, want 20 and 0", o.holds.Load(), o.reads.Load())
		}
		time.Sleep(2100 * time.Millisecond)
		put(o, path, "us-east", "", "frames")
		wg.Wait()
		if o.holds.Load() != 0 || o.reads.Load() != 0 {
			t.Errorf("%d still held, %d still being read", o.holds.Load(), o.reads.Load())
		}
	})
}

func TestAHeldRequestGetsGoneAtTheRetryDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		begin := time.Now()
		w := get(o, o.path("v720", o.cfg.Stream.First))
		if w.Code != http.StatusGone || time.Since(begin) != 4*time.Second {
			t.Errorf("%d after %v, want 410 after 4 s: 2 s to its end and 2 s of grace", w.Code, time.Since(begin))
		}
		if ttl := lifetimeOf(t, w); ttl < 4*time.Second || ttl > 5*time.Second {
			t.Errorf("410 may be cached for %v", ttl)
		}
	})
}

func TestADefectiveSegmentWaitsForTheOtherPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		n := o.cfg.Stream.First
		time.Sleep(2 * time.Second)
		put(o, o.path("v720", n), "us-east", "missing-frames", "bad")
		begin := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if w := get(o, o.path("v720", n)); w.Body.String() != "good" || time.Since(begin) != 300*time.Millisecond {
				t.Errorf("%q after %v, want the good one when it came, after 300 ms", w.Body, time.Since(begin))
			}
		})
		time.Sleep(300 * time.Millisecond)
		put(o, o.path("v720", n), "us-west", "", "good")
		wg.Wait()
	})
}

func TestAReaderThatLeavesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan *httptest.ResponseRecorder)
		go func() {
			done <- do(o, httptest.NewRequestWithContext(ctx, http.MethodGet, o.path("v720", o.cfg.Stream.First), nil))
		}()
		synctest.Wait()
		leave()
		// An origin that stops ends its requests' contexts too: that must never look like a segment.
		if w := <-done; w.Code != http.StatusServiceUnavailable {
			t.Errorf("a request whose context ended got %d", w.Code)
		}
		if o.holds.Load() != 0 {
			t.Error("still held")
		}
	})
}

func TestHeldRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, func(c *Config) { c.MaxHolds = 3 })
		path := o.path("v720", o.cfg.Stream.First)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { get(o, path) })
		}
		synctest.Wait()
		if w := get(o, path); w.Code != http.StatusServiceUnavailable || lifetimeOf(t, w) == 0 {
			t.Errorf("the fourth gets %d %v", w.Code, w.Header())
		}
		wg.Wait()
	})
}

// blocked is a client that does not read.
type blocked struct {
	*httptest.ResponseRecorder
	gate chan struct{}
}

func (b blocked) Write(p []byte) (int, error) { <-b.gate; return b.ResponseRecorder.Write(p) }

func TestUnderStressWritesAndTheLiveEdgeGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, func(c *Config) { c.MaxReads, c.StressReads = 8, 4 })
		first := o.cfg.Stream.First
		time.Sleep(2 * time.Second)
		put(o, o.path("v720", first), "us-east", "", "old")
		time.Sleep(30 * time.Second)
		newest := first + 15
		put(o, o.path("v720", newest), "us-east", "", "live")

		gate := make(chan struct{})
		var wg sync.WaitGroup
		slow := func(n int) {
			for range n {
				wg.Go(func() {
					o.Handler().ServeHTTP(blocked{httptest.NewRecorder(), gate}, httptest.NewRequest(http.MethodGet, o.path("v720", newest), nil))
				})
			}
			synctest.Wait()
		}
		if w := get(o, o.path("v720", first)); w.Code != 200 {
			t.Errorf("without stress an old segment gives %d", w.Code)
		}
		slow(4)
		w := get(o, o.path("v720", first))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Cache-Control") != "max-age=5" {
			t.Errorf("under stress an old segment gives %d %q, want 503 max-age=5", w.Code, w.Header().Get("Cache-Control"))
		}
		if w := get(o, o.path("v720", newest)); w.Code != 200 {
			t.Errorf("under stress the live edge gives %d", w.Code)
		}
		slow(4) // now no read at all is taken any more
		if w := get(o, o.path("v720", newest)); w.Code != http.StatusServiceUnavailable {
			t.Errorf("beyond the bound a read gives %d", w.Code)
		}
		begin := time.Now()
		if w := put(o, o.path("v720", newest+1), "us-east", "", "next"); w.Code != http.StatusCreated || time.Since(begin) != 0 {
			t.Errorf("with every read stuck a write gives %d after %v", w.Code, time.Since(begin))
		}
		close(gate)
		wg.Wait()
	})
}

func TestWritesAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, func(c *Config) { c.MaxBytes = 10 << 20 })
		n := o.cfg.Stream.First
		time.Sleep(2 * time.Second)
		big := strings.Repeat("x", maxBody+1)
		for _, c := range []struct {
			what, path, pipeline, body string
			status                     int
		}{
			{"an init segment", "/final/v720/init.mp4", "us-east", "init", 201},
			{"a manifest", "/final/manifest.mpd", "us-east", "<MPD/>", 400},
			{"no stream's path", "/etc/passwd", "us-east", "x", 400},
			{"another event", "/other/v720/1.m4s", "us-east", "x", 404},
			{"another rendition", "/final/v4320/1.m4s", "us-east", "x", 404},
			{"before the event", o.path("v720", n-1), "us-east", "x", 403},
			{"from the future", o.path("v720", n+3), "us-east", "x", 403},
			{"from a clock that is a little fast", o.path("v720", n+2), "us-east", "x", 201},
			{"without a pipeline", o.path("v720", n), "", "x", 400},
			{"without a body", o.path("v720", n), "us-east", "", 400},
			{"too big", o.path("v720", n), "us-east", big, 413},
			{"as big as may be", o.path("v720", n), "us-east", big[1:], 201},
			{"the same from the other pipeline takes no more room", o.path("v720", n), "us-west", big[1:], 201},
			{"more than the store holds", o.path("a-en", n), "us-east", big[1:], 507},
		} {
			if w := put(o, c.path, c.pipeline, "", c.body); w.Code != c.status {
				t.Errorf("%s: %d %s, want %d", c.what, w.Code, w.Body, c.status)
			}
		}
		unsized := httptest.NewRequest(http.MethodPut, o.path("v720", n), io.MultiReader(strings.NewReader(big)))
		unsized.ContentLength = -1
		unsized.Header.Set(HeaderPipeline, "us-east")
		if w := do(o, unsized); w.Code != 413 {
			t.Errorf("too big without a length: %d", w.Code)
		}
		broken := httptest.NewRequest(http.MethodPut, o.path("v720", n+1), io.MultiReader(strings.NewReader("half"), brokenReader{}))
		broken.ContentLength = 8
		broken.Header.Set(HeaderPipeline, "us-east")
		if w := do(o, broken); w.Code != 400 {
			t.Errorf("a body that broke off: %d", w.Code)
		}
		if sh := o.store.peek(key{rendition: "v720", number: n + 1}); len(sh.bodies) != 0 {
			t.Error("half a segment was stored")
		}
		if w := do(o, httptest.NewRequest(http.MethodDelete, o.path("v720", n), nil)); w.Code != 405 {
			t.Errorf("DELETE: %d", w.Code)
		}
	})
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestMemoryIsBoundedByTheTimeShiftBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- o.Run(ctx) }()
		put(o, "/final/v720/init.mp4", "us-east", "", "init")
		body := strings.Repeat("s", 1000)
		n := o.cfg.Stream.First
		for range 200 {
			time.Sleep(2 * time.Second)
			for _, p := range []string{"us-east", "us-west"} {
				put(o, o.path("v720", n), p, "", body)
			}
			n++
		}
		if got := o.store.segments.Load(); got > 36 {
			t.Errorf("%d segments are kept for a buffer of 30", got)
		}
		if got := o.store.bytes.Load(); got > 36_000 {
			t.Errorf("%d bytes are kept", got)
		}
		// Waiting in vain leaves nothing behind either.
		get(o, o.path("a-en", n))
		time.Sleep(80 * time.Second)
		entries := 0
		o.store.slots.Range(func(any, any) bool { entries++; return true })
		if entries != 1 || o.store.bytes.Load() != 4 {
			t.Errorf("%d entries of %d bytes are left, want the init segment alone", entries, o.store.bytes.Load())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestManifestsThroughAnEdge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, nil)
		time.Sleep(10 * time.Second)
		for path, kind := range map[string]string{
			"/final/manifest.mpd": "application/dash+xml", "/final/master.m3u8": "application/vnd.apple.mpegurl", "/final/v720/media.m3u8": "application/vnd.apple.mpegurl",
		} {
			w := get(o, path+"?via=us-west-1")
			if w.Code != 200 || w.Header().Get("Content-Type") != kind || lifetimeOf(t, w) <= 0 {
				t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
			}
		}
		mpd := get(o, "/final/manifest.mpd?via=us-west-1").Body.Bytes()
		own, other := bytes.Index(mpd, []byte("us-west-1")), bytes.Index(mpd, []byte("us-east-1"))
		if own < 0 || other < 0 || own > other {
			t.Errorf("the asking edge does not go first:\n%s", mpd)
		}
	})
}

func TestStatsEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := new(sink)
		o := newOrigin(t, func(c *Config) { c.Sink = sink })
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go o.Run(ctx)
		time.Sleep(2100 * time.Millisecond)
		put(o, o.path("v720", o.cfg.Stream.First), "us-east", "", "x")
		get(o, o.path("v720", o.cfg.Stream.First))
		get(o, o.path("v720", 1))
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		synctest.Wait()
		events := sink.take()
		if len(events) != 3 {
			t.Fatalf("%d events in 3.1 s", len(events))
		}
		last := events[2]
		if last.Kind != event.OriginStats || last.Component != "origin/us-east" || last.Nums["requests"] != 2 || last.Nums["ok"] != 1 ||
			last.Nums["not_found"] != 1 || last.Nums["writes"] != 1 || last.Nums["segments"] != 1 {
			t.Errorf("%+v", last)
		}
	})
}

type sink struct {
	mu     sync.Mutex
	events []event.Event
}

func (s *sink) Emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) take() []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}
