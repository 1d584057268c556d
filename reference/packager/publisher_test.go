package packager

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// fakeOrigins answers PUTs by host name; how is decided by the function of that host, which may wait.
type fakeOrigins struct {
	answer map[string]func(*http.Request) (int, error)

	mu     sync.Mutex
	stored map[string][]string // host -> paths, in order
	at     map[string]time.Time
}

func (f *fakeOrigins) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	code, err := f.answer[r.URL.Host](r)
	if err != nil {
		return nil, err
	}
	if code/100 == 2 {
		f.mu.Lock()
		f.stored[r.URL.Host] = append(f.stored[r.URL.Host], r.URL.Path)
		f.at[r.URL.Host+r.URL.Path] = time.Now()
		f.mu.Unlock()
	}
	return &http.Response{StatusCode: code, Body: http.NoBody, Request: r}, nil
}

func (f *fakeOrigins) has(host, path string) bool { return f.count(host, path) > 0 }

func (f *fakeOrigins) count(host, path string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.stored[host] {
		if p == path {
			n++
		}
	}
	return n
}

func alive(*http.Request) (int, error) { return http.StatusCreated, nil }
func dead(*http.Request) (int, error)  { return 0, syscall.ECONNREFUSED }
func silent(r *http.Request) (int, error) {
	<-r.Context().Done()
	return 0, r.Context().Err()
}

type sink struct {
	mu     sync.Mutex
	events []event.Event
}

func (s *sink) Emit(e event.Event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
}

func (s *sink) count(origin, status string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Detail == origin && e.Status == status {
			n++
		}
	}
	return n
}

// rig is a packager without a listener: an encoder that publishes to fake origins "east" and "west" under a fake clock.
type rig struct {
	*fakeOrigins
	sink *sink
	// elapsed is the time since the rig started, on a segment boundary.
	start time.Time
	stop  func()
}

func newRig(t *testing.T, east, west func(*http.Request) (int, error)) *rig {
	t.Helper()
	r := &rig{
		fakeOrigins: &fakeOrigins{
			answer: map[string]func(*http.Request) (int, error){"east": east, "west": west},
			stored: make(map[string][]string), at: make(map[string]time.Time),
		},
		sink: &sink{},
	}
	l := sports(t)
	cfg := Config{
		Event: "ev", Pipeline: "us-east", Timeline: timeline.Default, Ladder: l, Now: time.Now,
		Sink: r.sink, Log: slog.New(slog.DiscardHandler), Keep: 20 * time.Second,
	}
	p := &Packager{cfg: cfg, store: newStore(uint64(cfg.Keep / cfg.Timeline.Duration))}
	for _, rendition := range l.Renditions() {
		p.store.add(&object{path: p.path(rendition.ID, "init.mp4"), rendition: rendition.ID})
	}
	client := &http.Client{Transport: r.fakeOrigins}
	for _, host := range []string{"east", "west"} {
		p.publishers = append(p.publishers, newPublisher(Origin{Name: host, URL: "http://" + host}, cfg, p.store, client))
	}
	r.start = time.Now() // synctest starts at midnight UTC 2000-01-01, a segment boundary
	enc, err := encoder.New(encoder.Config{Ladder: l, Timeline: cfg.Timeline, Now: time.Now, Publish: p.Publish})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = enc.Run(ctx) })
	for _, pub := range p.publishers {
		wg.Go(func() { pub.run(ctx) })
	}
	r.stop = func() { cancel(); wg.Wait() }
	return r
}

// number is the i-th segment that the rig publishes.
func (r *rig) number(i int) uint64 { return timeline.Default.At(r.start) + uint64(i) }

func (r *rig) path(rendition string, i int) string {
	return "/ev/" + rendition + "/" + uitoa(r.number(i)) + ".m4s"
}

func uitoa(n uint64) string { return strconv.FormatUint(n, 10) }

func TestBothOriginsGetEverySegmentAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, alive, alive)
		time.Sleep(6*time.Second + time.Millisecond)
		r.stop()
		for _, host := range []string{"east", "west"} {
			for _, id := range []string{"v360", "v540", "v720", "a-en", "a-es"} {
				if !r.has(host, "/ev/"+id+"/init.mp4") {
					t.Errorf("%s lacks the init segment of %s", host, id)
				}
				for i := range 3 {
					if got, want := r.at[host+r.path(id, i)], timeline.Default.End(r.number(i)); !got.Equal(want) {
						t.Errorf("%s has %s of segment %d at %v, want %v", host, id, i, got, want)
					}
				}
			}
			if ok := r.sink.count(host, "ok"); ok != 15 {
				t.Errorf("%d segments reported stored at %s, want 15", ok, host)
			}
		}
	})
}

// The point of two origins: one that is dead, silent or broken costs the other nothing, not a millisecond.
func TestOneBadOriginNeverDelaysTheOther(t *testing.T) {
	for name, bad := range map[string]func(*http.Request) (int, error){
		"dead": dead, "silent": silent,
		"failing":      func(*http.Request) (int, error) { return http.StatusInternalServerError, nil },
		"inits only":   initsOnly,
		"unauthorised": func(*http.Request) (int, error) { return http.StatusForbidden, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				puts := 0
				var mu sync.Mutex
				r := newRig(t, func(req *http.Request) (int, error) {
					mu.Lock()
					puts++
					mu.Unlock()
					return bad(req)
				}, alive)
				time.Sleep(20*time.Second + time.Millisecond)
				r.stop()
				for i := range 10 {
					if got, want := r.at["west"+r.path("v720", i)], timeline.Default.End(r.number(i)); !got.Equal(want) {
						t.Errorf("segment %d reached the good origin at %v, want %v", i, got, want)
					}
				}
				if n := r.sink.count("east", "ok"); n != 0 {
					t.Errorf("%d segments reported stored at the bad origin", n)
				}
				// The last segment's deadline has not passed yet; the others were reported.
				if n := r.sink.count("east", "failed"); n < 40 {
					t.Errorf("%d segments reported failed, want 40 or more", n)
				}
				if puts > 20*12 {
					t.Errorf("%d requests in 20 s to an origin in trouble", puts)
				}
			})
		})
	}
}

func initsOnly(r *http.Request) (int, error) {
	if strings.HasSuffix(r.URL.Path, "/init.mp4") {
		return http.StatusCreated, nil
	}
	return http.StatusInternalServerError, nil
}

func TestAReturningOriginGetsInitsAndWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		answer := alive
		set := func(f func(*http.Request) (int, error)) { mu.Lock(); answer = f; mu.Unlock() }
		r := newRig(t, func(req *http.Request) (int, error) {
			mu.Lock()
			f := answer
			mu.Unlock()
			return f(req)
		}, alive)
		time.Sleep(4*time.Second + time.Millisecond)
		set(dead)
		time.Sleep(8 * time.Second)
		before := r.count("east", "/ev/v360/init.mp4")
		set(alive)
		back := time.Now()
		time.Sleep(backoffMax)
		r.stop()
		if r.count("east", "/ev/v360/init.mp4") <= before {
			t.Error("the origin came back without init segments")
		}
		// It was another process: even what was stored before is published again.
		for i := range 6 {
			at, ok := r.at["east"+r.path("v360", i)]
			if !ok || at.Before(back) || at.After(back.Add(backoffMax)) {
				t.Errorf("segment %d reached the returned origin at %v, want within %v of %v", i, at, backoffMax, back)
			}
		}
		// What was already there when the origin died went first.
		order := slices.Clone(r.stored["east"])
		inits := slices.IndexFunc(order[15:], func(p string) bool { return strings.HasSuffix(p, "init.mp4") })
		if inits != 0 {
			t.Errorf("after its return the origin got %v first, want an init segment", order[15])
		}
	})
}

// A time-out is no reason to send again what the origin already has.
func TestATimeOutRepublishesOnlyWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		quiet := false
		r := newRig(t, func(req *http.Request) (int, error) {
			mu.Lock()
			q := quiet
			mu.Unlock()
			if q {
				return silent(req)
			}
			return alive(req)
		}, alive)
		time.Sleep(4*time.Second + time.Millisecond)
		mu.Lock()
		quiet = true
		mu.Unlock()
		time.Sleep(6 * time.Second)
		mu.Lock()
		quiet = false
		mu.Unlock()
		time.Sleep(3 * time.Second)
		r.stop()
		for i := range 6 {
			if n := r.count("east", r.path("v540", i)); n != 1 {
				t.Errorf("segment %d was stored %d times, want once", i, n)
			}
		}
	})
}

// An origin that lost its memory between two PUTs says 412: it gets the init segments before anything else.
func TestPreconditionFailedBringsInits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		known := map[string]bool{}
		r := newRig(t, func(req *http.Request) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			rendition := strings.Split(req.URL.Path, "/")[2]
			if strings.HasSuffix(req.URL.Path, "init.mp4") {
				known[rendition] = true
			} else if !known[rendition] {
				return http.StatusPreconditionFailed, nil
			}
			return http.StatusCreated, nil
		}, alive)
		time.Sleep(4*time.Second + time.Millisecond)
		mu.Lock()
		clear(known)
		mu.Unlock()
		time.Sleep(4 * time.Second)
		r.stop()
		for i := range 4 {
			if !r.has("east", r.path("v720", i)) {
				t.Errorf("segment %d never reached the origin", i)
			}
		}
		if n := r.sink.count("east", "failed"); n != 0 {
			t.Errorf("%d segments reported failed", n)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	clock := time.Unix(1_764_000_000, 0)
	s := &sink{}
	p := newPublisher(Origin{Name: "east", URL: "http://east"}, Config{
		Timeline: timeline.Default, Now: func() time.Time { return clock }, Sink: s, Log: slog.New(slog.DiscardHandler),
	}, newStore(10), nil)
	n := timeline.Default.At(clock)
	for range maxLive + 7 {
		p.enqueue([]*object{{path: "/x", media: true, number: n}})
	}
	if len(p.live) != maxLive || s.count("east", "failed") != 7 {
		t.Errorf("%d queued and %d reported lost, want %d and 7", len(p.live), s.count("east", "failed"), maxLive)
	}
	clock = clock.Add(time.Hour)
	p.expire()
	if len(p.live) != 0 || s.count("east", "failed") != maxLive+7 {
		t.Errorf("%d queued and %d reported lost after an hour", len(p.live), s.count("east", "failed"))
	}
}

func TestPutClassifiesAnswers(t *testing.T) {
	for code, want := range map[int]error{
		200: nil, 201: nil, 204: nil, 400: errRejected, 403: errRejected, 413: errRejected,
		409: errLost, 412: errLost, 408: io.EOF, 429: io.EOF, 500: io.EOF, 503: io.EOF, 302: io.EOF,
	} {
		f := &fakeOrigins{stored: map[string][]string{}, at: map[string]time.Time{}, answer: map[string]func(*http.Request) (int, error){
			"east": func(r *http.Request) (int, error) {
				if r.Method != http.MethodPut || r.Header.Get(origin.HeaderPipeline) != "us-east" || r.Header.Get(origin.HeaderDefects) != DefectShort {
					t.Errorf("request %s %v", r.Method, r.Header)
				}
				return code, nil
			}}}
		p := &publisher{origin: Origin{URL: "http://east"}, pipeline: "us-east", client: &http.Client{Transport: f}}
		err := p.put(t.Context(), &object{path: "/ev/v360/1.m4s", media: true, defects: DefectShort, body: []byte("x")})
		switch {
		case want == nil && err != nil, want != nil && err == nil,
			want == errRejected && !errors.Is(err, errRejected), want == errLost && !errors.Is(err, errLost),
			want == io.EOF && (errors.Is(err, errRejected) || errors.Is(err, errLost)):
			t.Errorf("status %d: %v", code, err)
		}
	}
}

// Two packagers with nothing in common but the ladder, started at different times, serve the same bytes.
func TestRegionsAreByteIdentical(t *testing.T) {
	l := sports(t)
	serve := func(pipeline string, clock time.Time, from, to uint64) *Packager {
		p, err := New(Config{
			Event: "ev", Pipeline: pipeline, Timeline: timeline.Default, Ladder: l, Addr: "127.0.0.1:0",
			Now: func() time.Time { return clock },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		for n := from; n <= to; n++ {
			p.Publish(l.Segment(n))
		}
		return p
	}
	east := serve("us-east", time.Unix(1_764_000_100, 0), present, present+9)
	west := serve("us-west", time.Unix(1_999_999_999, 77), present-5, present+12)
	get := func(p *Packager, path string) ([]byte, string) {
		resp, err := http.Get("http://" + p.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v", path, resp.StatusCode, err)
		}
		return body, resp.Header.Get("Content-Type")
	}
	for _, r := range l.Renditions() {
		files := []string{"init.mp4"}
		for n := uint64(present); n < present+10; n++ {
			files = append(files, uitoa(n)+".m4s")
		}
		for _, f := range files {
			path := "/ev/" + r.ID + "/" + f
			a, mime := get(east, path)
			b, _ := get(west, path)
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs between regions", path)
			}
			if mime != r.Kind+"/mp4" {
				t.Errorf("%s has the media type %s", path, mime)
			}
		}
	}
}

func TestListenerBounds(t *testing.T) {
	l := sports(t)
	cfg := Config{Event: "ev", Pipeline: "us-east", Timeline: timeline.Default, Ladder: l, Addr: "127.0.0.1:0", Now: time.Now, Keep: 6 * time.Second}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cfg.Addr = p.Addr()
	if _, err := New(cfg); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), p.Addr()) {
		t.Errorf("a taken address gives %v", err)
	}
	for n := uint64(present); n < present+10; n++ {
		p.Publish(l.Segment(n))
	}
	if got := len(p.store.media()); got != 3*len(l.Renditions()) {
		t.Errorf("%d segments kept, want three a rendition", got)
	}
}

func TestListenerHasALimit(t *testing.T) {
	p, err := New(Config{Event: "ev", Pipeline: "us-east", Timeline: timeline.Default, Ladder: sports(t), Addr: "127.0.0.1:0", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	get := func(c net.Conn, wait time.Duration) error {
		c.SetReadDeadline(time.Now().Add(wait))
		_, err := c.Read(make([]byte, 1))
		return err
	}
	var held []net.Conn
	for range maxConns + 1 {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if len(held) < maxConns {
			if err := get(c, 5*time.Second); err != nil {
				t.Fatalf("connection %d: %v", len(held), err)
			}
		}
		held = append(held, c)
	}
	late := held[maxConns]
	if err := get(late, 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("connection %d of %d is answered: %v", len(held), maxConns, err)
	}
	held[0].Close()
	if err := get(late, 5*time.Second); err != nil {
		t.Errorf("after one closed: %v", err)
	}
}

func TestConfigReportsEverything(t *testing.T) {
	err := Config{Origins: []Origin{{Name: "x", URL: "http://x/"}}}.Validate()
	for _, want := range []string{"event", "pipeline", "duration", "ladder", "clock", "trailing slash"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in %v", want, err)
		}
	}
}

// Over real sockets: what an origin receives is what the listener serves, and it comes from the region's address.
func TestPublishesOverSocketsFromTheRegionsAddress(t *testing.T) {
	type put struct {
		path, from, mime, pipeline string
		body                       []byte
	}
	got := make(chan put, 64)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(body)) {
			t.Errorf("%s: %d bytes of %d, %v", r.URL.Path, len(body), r.ContentLength, err)
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		got <- put{r.URL.Path, host, r.Header.Get("Content-Type"), r.Header.Get(origin.HeaderPipeline), body}
		w.WriteHeader(http.StatusCreated)
	}))
	defer origin.Close()
	l := sports(t)
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, 3)}}
	p, err := New(Config{
		Event: "ev", Pipeline: "us-east", Timeline: timeline.Default, Ladder: l, Addr: "127.0.0.1:0",
		Origins: []Origin{{Name: "us-west", URL: origin.URL}}, Dial: dialer.DialContext,
		Now: func() time.Time { return timeline.Default.End(present) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.Publish(l.Segment(present))
	deadline := time.After(10 * time.Second)
	seen := map[string]bool{}
	for len(seen) < 2*len(l.Renditions()) {
		select {
		case put := <-got:
			seen[put.path] = true
			if o := p.store.get(put.path); o == nil || !bytes.Equal(o.body, put.body) || o.mime != put.mime {
				t.Errorf("%s: the origin has something else than the packager", put.path)
			}
			if put.from != "127.0.9.3" || put.pipeline != "us-east" {
				t.Errorf("%s came from %s, pipeline %s", put.path, put.from, put.pipeline)
			}
		case <-deadline:
			t.Fatalf("only %d objects arrived", len(seen))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
