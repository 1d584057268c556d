package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

func testStream(first uint64) manifest.Stream {
	return manifest.Stream{
		Event: "final", Timeline: timeline.Default, First: first, DVR: 60 * time.Second,
		Renditions: []manifest.Rendition{
			{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 3_000_000, Timescale: 90000, Width: 1280, Height: 720, FrameRate: "30"},
		},
		Edges: []manifest.Edge{{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"}},
	}
}

// network plays the origins: what each answers, and how often it was asked.
type network struct {
	mu      sync.Mutex
	answers map[string]func(*http.Request) (*http.Response, error) // by host
	asked   map[string]int                                         // by host
	paths   []string
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	answer := n.answers[r.URL.Host]
	n.asked[r.URL.Host]++
	n.paths = append(n.paths, r.URL.RequestURI())
	n.mu.Unlock()
	return answer(r)
}

// counts tells how often each origin was asked since the last time.
func (n *network) counts() (east, west int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	east, west = n.asked["east"], n.asked["west"]
	n.asked = map[string]int{}
	return
}

func (n *network) set(host string, answer func(*http.Request) (*http.Response, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[host] = answer
}

// answer answers after a while, unless the request ends before.
func answer(after time.Duration, status int, body string, headers ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		timer := time.NewTimer(after)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		h := http.Header{}
		for i := 0; i < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func unreachable(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

const minute = "max-age=60"

// newEdge is an edge of us-east whose event started 20 s ago.
func newEdge(t *testing.T, change func(*Config)) (*Edge, *network) {
	t.Helper()
	n := &network{asked: map[string]int{}, answers: map[string]func(*http.Request) (*http.Response, error){
		"east": answer(10*time.Millisecond, 200, "from east", "Cache-Control", minute),
		"west": answer(10*time.Millisecond, 200, "from west", "Cache-Control", minute),
	}}
	cfg := Config{
		ID: "us-east-1", Region: "us-east", Stream: testStream(timeline.Default.At(time.Now())), Now: time.Now, Transport: n,
		Origins: []Origin{{"us-east", "http://east"}, {"us-west", "http://west"}},
	}
	time.Sleep(20 * time.Second)
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e, n
}

// path is a segment that ended that many segments ago; 0 is the newest complete one, -1 the next.
func (e *Edge) path(ago int) string {
	n, _ := e.cfg.Stream.Timeline.LastComplete(e.cfg.Now())
	return fmt.Sprintf("/final/v720/%d.m4s", int(n)-ago)
}

func get(e *Edge, path string) *httptest.ResponseRecorder {
	return do(e, httptest.NewRequest(http.MethodGet, path, nil))
}

func do(e *Edge, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, r)
	return w
}

func TestOneFillHoweverManyViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		var mu sync.Mutex
		how := map[string]int{}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				w := get(e, e.path(1)+fmt.Sprintf("?CMCD=sid%%3D%d", i)) // a viewer's query must not split the cache
				mu.Lock()
				defer mu.Unlock()
				how[w.Header().Get("X-Cache")]++
				if w.Code != 200 || w.Body.String() != "from east" {
					t.Errorf("%d %q", w.Code, w.Body)
				}
			})
		}
		wg.Wait()
		if want := map[string]int{"MISS": 1, "COLLAPSED": 49}; !maps.Equal(how, want) {
			t.Errorf("X-Cache: %v, want %v", how, want)
		}
		if east, west := n.counts(); east != 1 || west != 0 {
			t.Errorf("the origins were asked %d and %d times, want 1 and 0", east, west)
		}
		time.Sleep(3 * time.Second)
		w := get(e, e.path(2))
		if w.Header().Get("X-Cache") != "HIT" || w.Header().Get("Age") != "3" {
			t.Errorf("later: %v", w.Header())
		}
		for _, p := range n.paths {
			if strings.Contains(p, "CMCD") {
				t.Errorf("the viewer's query reached the origin: %s", p)
			}
		}
	})
}

func TestAViewerWhoLeavesDoesNotCancelTheFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", answer(800*time.Millisecond, 200, "from east", "Cache-Control", minute))
		path := e.path(1)
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { do(e, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)) }) // starts the fill
		synctest.Wait()
		wg.Go(func() {
			if w := get(e, path); w.Code != 200 || w.Header().Get("X-Cache") != "COLLAPSED" {
				t.Errorf("who stayed got %d %v", w.Code, w.Header())
			}
		})
		synctest.Wait()
		leave()
		wg.Wait()
		if east, west := n.counts(); east != 1 || west != 0 {
			t.Errorf("asked %d and %d times", east, west)
		}
		if e.waiting.Load() != 0 || e.filling.Load() != 0 {
			t.Errorf("%d waiting, %d filling", e.waiting.Load(), e.filling.Load())
		}
	})
}

// handlerTransport carries requests to a handler in this process.
type handlerTransport struct{ handler http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); h.handler.ServeHTTP(w, r) }()
	select {
	case <-done:
		return w.Result(), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

func TestTheNextSegmentIsHeldOpenAndCollapses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		o, err := origin.New(origin.Config{Stream: e.cfg.Stream, Region: "us-east", Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		n.set("east", handlerTransport{o.Handler()}.RoundTrip)
		path := e.path(-1)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				w := get(e, path)
				if w.Code != 200 || w.Body.String() != "frames" || time.Since(begin) != 2300*time.Millisecond {
					t.Errorf("%d %q after %v", w.Code, w.Body, time.Since(begin))
				}
			})
		}
		time.Sleep(2300 * time.Millisecond) // it was due after 2 s
		if e.waiting.Load() != 50 {
			t.Errorf("%d waiting, want 50", e.waiting.Load())
		}
		r := httptest.NewRequest(http.MethodPut, path, strings.NewReader("frames"))
		r.Header.Set(origin.HeaderPipeline, "us-east")
		o.Handler().ServeHTTP(httptest.NewRecorder(), r)
		wg.Wait()
		if east, west := n.counts(); east != 1 || west != 0 {
			t.Errorf("asked %d and %d times, want 1 and 0", east, west)
		}
	})
}

func TestASilentOriginCostsPatienceOnceAndIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", silent)
		begin := time.Now()
		if w := get(e, e.path(1)); w.Body.String() != "from west" || time.Since(begin) != 1010*time.Millisecond {
			t.Errorf("%q after %v, want it from west after 1.01 s", w.Body, time.Since(begin))
		}
		n.counts()
		begin = time.Now()
		if w := get(e, e.path(2)); w.Body.String() != "from west" || time.Since(begin) != 10*time.Millisecond {
			t.Errorf("the second %q after %v, want it at once", w.Body, time.Since(begin))
		}
		if east, west := n.counts(); east != 0 || west != 1 {
			t.Errorf("asked %d and %d times", east, west)
		}
		// After a while one fill tries it again, and the others do not wait for how that goes.
		time.Sleep(4 * time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var slow int
		begin = time.Now()
		for ago := range 4 {
			wg.Go(func() {
				get(e, e.path(3+ago))
				mu.Lock()
				defer mu.Unlock()
				if time.Since(begin) > 500*time.Millisecond {
					slow++
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if slow != 1 {
			t.Errorf("%d of 4 fills waited for the silent origin, want 1", slow)
		}
		// Once it answers again it is first again.
		n.set("east", answer(10*time.Millisecond, 200, "from east", "Cache-Control", minute))
		time.Sleep(4 * time.Second)
		get(e, e.path(0))
		if w := get(e, e.path(1)); w.Body.String() != "from east" {
			t.Errorf("a recovered origin is not used: %q", w.Body)
		}
	})
}

func TestTheNextSegmentComesFromTheOtherOriginWhenTheOwnIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", silent)
		begin := time.Now()
		w := get(e, e.path(-1)) // due in 2 s: asking the other before it is overdue would double every fill
		if w.Body.String() != "from west" || time.Since(begin) != 3010*time.Millisecond {
			t.Errorf("%q after %v, want it from west after 3.01 s", w.Body, time.Since(begin))
		}
	})
}

func TestTheOtherOriginIsAskedWhenTheOwn(t *testing.T) {
	for _, c := range []struct {
		what string
		east func(*http.Request) (*http.Response, error)
	}{
		{"cannot be reached", unreachable},
		{"answers 500", answer(0, 500, "oops")},
		{"answers 503 without a date", answer(0, 503, "oops")},
		{"is busy", answer(0, 503, "busy", "Cache-Control", "max-age=5")},
		{"does not have it", answer(0, 404, "no", "Cache-Control", minute)},
		{"never got it", answer(0, 410, "gone", "Cache-Control", minute)},
		{"answers without a body", answer(0, 200, "", "Cache-Control", minute)},
		{"answers too much", answer(0, 200, strings.Repeat("x", maxBody+1), "Cache-Control", minute)},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, n := newEdge(t, nil)
				n.set("east", c.east)
				begin := time.Now()
				if w := get(e, e.path(1)); w.Code != 200 || w.Body.String() != "from west" || time.Since(begin) > 20*time.Millisecond {
					t.Errorf("%d %q after %v", w.Code, w.Body, time.Since(begin))
				}
			})
		})
	}
}

func TestRefusalsAreCachedForAsLongAsTheySay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		gone := answer(0, 410, "gone\n", "Cache-Control", "max-age=0", origin.HeaderMaxAge, "700", "Content-Type", "text/plain")
		n.set("east", gone)
		n.set("west", gone)
		path := e.path(3)
		for i := range 3 {
			if w := get(e, path); w.Code != 410 || w.Body.String() != "gone\n" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
			}
			if east, west := n.counts(); i == 0 && (east != 1 || west != 1) || i > 0 && east+west != 0 {
				t.Errorf("request %d: asked %d and %d times", i, east, west)
			}
			time.Sleep(300 * time.Millisecond)
		}
		n.set("west", answer(0, 200, "late", "Cache-Control", minute))
		if w := get(e, path); w.Code != 200 || w.Body.String() != "late" {
			t.Errorf("after 900 ms: %d %q", w.Code, w.Body)
		}
	})
}

func TestARefusalIsShortWhenAnOriginCouldNotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", unreachable)
		n.set("west", answer(0, 410, "gone", "Cache-Control", minute))
		w := get(e, e.path(3))
		if w.Code != 410 || w.Header().Get("Cache-Control") != "max-age=0" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		time.Sleep(time.Second)
		n.set("east", answer(0, 200, "had it", "Cache-Control", minute))
		if w := get(e, e.path(3)); w.Code != 200 {
			t.Errorf("a second later: %d", w.Code)
		}
	})
}

func TestWithoutOriginsViewersGetAnAnswerSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", unreachable)
		n.set("west", unreachable)
		if w := get(e, e.path(1)); w.Code != http.StatusBadGateway || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		n.counts()
		get(e, e.path(1))
		if east, west := n.counts(); east+west != 0 {
			t.Error("an error is not kept for even a moment: every viewer would ask the origins")
		}
		n.set("east", silent)
		n.set("west", silent)
		begin := time.Now()
		if w := get(e, e.path(2)); w.Code != http.StatusGatewayTimeout || time.Since(begin) > 4*time.Second {
			t.Errorf("%d after %v", w.Code, time.Since(begin))
		}
	})
}

func TestWhatTheTemplateRefusesNeedsNoFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		for path, status := range map[string]int{
			"/other/manifest.mpd": 404, "/final/v4320/init.mp4": 404, "/final/v720/1.m4s": 404, e.path(-2): 404, "/final/../etc/passwd": 404, "/favicon.ico": 404,
		} {
			w := get(e, path)
			if w.Code != status {
				t.Errorf("%s: %d, want %d", path, w.Code, status)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: refused without CORS", path)
			}
		}
		// Not due for 4 s: the refusal ends just before.
		if ms := get(e, e.path(-2)).Header().Get(origin.HeaderMaxAge); ms < "3800" || ms > "3900" {
			t.Errorf("not due yet is cacheable for %s ms", ms)
		}
		if east, west := n.counts(); east+west != 0 {
			t.Errorf("the origins were asked %d and %d times", east, west)
		}
	})
}

func TestManifestsAreAskedForByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		get(e, "/final/manifest.mpd?session=1")
		get(e, "/final/v720/init.mp4?session=1")
		if want := []string{"/final/manifest.mpd?via=us-east-1", "/final/v720/init.mp4"}; !slices.Equal(n.paths, want) {
			t.Errorf("asked for %v, want %v", n.paths, want)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, func(c *Config) { c.MaxFills, c.MaxWaiting = 2, 3 })
		n.set("east", answer(500*time.Millisecond, 200, "x", "Cache-Control", minute))
		var wg sync.WaitGroup
		for _, ago := range []int{1, 1, 2} {
			wg.Go(func() {
				if w := get(e, e.path(ago)); w.Code != 200 {
					t.Errorf("%d", w.Code)
				}
			})
		}
		synctest.Wait()
		for what, ago := range map[string]int{"a third fill": 3, "a fourth waiter": 1} {
			if w := get(e, e.path(ago)); w.Code != 503 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: %d", what, w.Code)
			}
		}
		wg.Wait()
	})
}

func TestHealthFollowsTheOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		if w := get(e, "/healthz"); w.Code != 503 {
			t.Errorf("an edge that never reached an origin: %d", w.Code)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		if w := get(e, "/healthz"); w.Code != 200 {
			t.Errorf("no viewer yet, but an origin is there: %d", w.Code)
		}
		n.set("east", unreachable)
		time.Sleep(10 * time.Second)
		if w := get(e, "/healthz"); w.Code != 200 {
			t.Errorf("the other origin is there: %d", w.Code)
		}
		n.set("west", silent)
		time.Sleep(5 * time.Second)
		if w := get(e, "/healthz"); w.Code != 503 {
			t.Errorf("no origin for 5 s: %d", w.Code)
		}
		n.set("west", answer(0, 200, "ok"))
		time.Sleep(2 * time.Second)
		if w := get(e, "/healthz"); w.Code != 200 {
			t.Errorf("an origin is back: %d", w.Code)
		}
		stop()
		<-ended
	})
}

func TestRunEndsItsFills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, n := newEdge(t, nil)
		n.set("east", silent)
		n.set("west", silent)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		go get(e, e.path(-1))
		synctest.Wait()
		begin := time.Now()
		stop()
		<-ended
		if time.Since(begin) != 0 {
			t.Errorf("it took %v to stop", time.Since(begin))
		}
		if w := get(e, e.path(1)); w.Code != 503 {
			t.Errorf("a stopped edge answers %d", w.Code)
		}
	})
}

func TestWhatEveryWebPageNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := newEdge(t, nil)
		w := do(e, httptest.NewRequest(http.MethodOptions, e.path(1), nil))
		if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(w.Header().Get("Access-Control-Allow-Methods"), "GET") {
			t.Errorf("OPTIONS: %d %v", w.Code, w.Header())
		}
		if w := do(e, httptest.NewRequest(http.MethodPost, e.path(1), nil)); w.Code != 405 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("POST: %d", w.Code)
		}
		w = get(e, "/time")
		if at, err := time.Parse("2006-01-02T15:04:05.000Z", w.Body.String()); err != nil || !at.Equal(time.Now()) || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("/time: %q %v", w.Body, err)
		}
		r := httptest.NewRequest(http.MethodGet, e.path(1), nil)
		r.Header.Set("Range", "bytes=5-8")
		if w := do(e, r); w.Code != 206 || w.Body.String() != "east" {
			t.Errorf("a range: %d %q", w.Code, w.Body)
		}
		if w := do(e, httptest.NewRequest(http.MethodHead, e.path(1), nil)); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "9" {
			t.Errorf("HEAD: %d %v", w.Code, w.Header())
		}
	})
}

func TestStatsEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan event.Event, 10)
		e, n := newEdge(t, func(c *Config) { c.Sink = sink(events) })
		n.set("east", answer(200*time.Millisecond, 200, "from east", "Cache-Control", minute))
		ctx, stop := context.WithCancel(t.Context())
		go e.Run(ctx)
		defer func() { stop(); synctest.Wait() }()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { get(e, e.path(1)) })
		}
		wg.Wait()
		get(e, e.path(1))
		ev := <-events
		want := map[string]float64{"requests": 4, "fills": 1, "collapsed": 2, "hits": 1, "bytes": 36, "errors": 0, "waiting": 0, "healthy": 1}
		for k, v := range want {
			if got, ok := ev.Nums[k]; !ok || got != v {
				t.Errorf("%s is %v, want %v", k, got, v)
			}
		}
		if ev.Kind != event.EdgeStats || ev.Edge != "us-east-1" || ev.Region != "us-east" {
			t.Errorf("%+v", ev)
		}
	})
}

type sink chan event.Event

func (s sink) Emit(e event.Event) {
	select {
	case s <- e:
	default:
	}
}

func TestCacheIsBoundedByBytes(t *testing.T) {
	c := newCache(10 * (overhead + 1000))
	now := time.Unix(1000, 0)
	body := bytes.Repeat([]byte("x"), 1000)
	put := func(key string, ttl time.Duration) { c.put(key, &object{body: body, stored: now, ttl: ttl}) }
	for i := range 10 {
		put(fmt.Sprint(i), time.Minute)
	}
	c.get("0", now) // used again: "1" is the oldest now
	put("10", time.Minute)
	if c.get("0", now) == nil || c.get("1", now) != nil || c.bytes > c.maxBytes || len(c.entries) != 10 {
		t.Errorf("%d bytes in %d entries; the least recently used one must go", c.bytes, len(c.entries))
	}
	put("0", 0)
	if c.get("0", now) != nil {
		t.Error("what may not be kept is kept, or its stale copy is")
	}
	put("short", time.Second)
	if c.get("short", now.Add(999*time.Millisecond)) == nil || c.get("short", now.Add(time.Second)) != nil {
		t.Error("a lifetime of 1 s must end after 1 s")
	}
	c.put("huge", &object{body: make([]byte, c.maxBytes/2), stored: now, ttl: time.Minute})
	if c.get("huge", now) != nil {
		t.Error("one object takes half of the cache")
	}
	c.expire(now.Add(time.Hour), 1000)
	if c.bytes != 0 || len(c.entries) != 0 || c.order.Len() != 0 {
		t.Errorf("%d bytes in %d entries are left", c.bytes, len(c.entries))
	}
}

func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		headers []string
		want    time.Duration
	}{
		{nil, 0},
		{[]string{"Cache-Control", "max-age=5"}, 5 * time.Second},
		{[]string{"Cache-Control", "public, Max-Age=\"5\""}, 5 * time.Second},
		{[]string{"Cache-Control", "max-age=5, s-maxage=7"}, 7 * time.Second},
		{[]string{"Cache-Control", "max-age=5", origin.HeaderMaxAge, "5400"}, 5400 * time.Millisecond},
		{[]string{"Cache-Control", "no-store", origin.HeaderMaxAge, "5400"}, 0},
		{[]string{"Cache-Control", "private, max-age=5"}, 0},
		{[]string{"Cache-Control", "max-age=soon"}, 0},
		{[]string{"Cache-Control", "max-age=-5"}, 0},
		{[]string{origin.HeaderMaxAge, "-1"}, 0},
		{[]string{origin.HeaderMaxAge, "9223372036854775807"}, maxLifetime},
		{[]string{"Cache-Control", "max-age=9223372036854775807"}, maxLifetime},
	} {
		h := http.Header{}
		for i := 0; i < len(c.headers); i += 2 {
			h.Set(c.headers[i], c.headers[i+1])
		}
		if got := lifetime(h); got != c.want {
			t.Errorf("%v: %v, want %v", c.headers, got, c.want)
		}
	}
}

func FuzzLifetime(f *testing.F) {
	f.Add("max-age=5, s-maxage=7", "5400")
	f.Add("no-store", "")
	f.Fuzz(func(t *testing.T, control, ms string) {
		h := http.Header{}
		h.Set("Cache-Control", control)
		h.Set(origin.HeaderMaxAge, ms)
		if d := lifetime(h); d < 0 || d > maxLifetime {
			t.Fatalf("%v", d)
		}
	})
}
