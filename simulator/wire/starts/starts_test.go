package starts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

const (
	s  = time.Second
	ms = time.Millisecond
)

func schedule(t testing.TB, end time.Duration, legs ...audience.Leg) *audience.Schedule {
	t.Helper()
	sch, err := audience.NewSchedule(legs, end)
	if err != nil {
		t.Fatal(err)
	}
	return sch
}

func TestPacer(t *testing.T) {
	p := newPacer(schedule(t, 4*s, audience.Leg{Rate: 100, For: s}, audience.Leg{At: 3 * s, Rate: 2, For: s}))
	for _, step := range []struct {
		now       time.Duration
		released  int
		wake      time.Duration
		exhausted bool
	}{
		{-s, 0, 0, false},            // before T+0: wake for the first
		{0, 1, 10 * ms, false},       // due exactly now
		{0, 0, 10 * ms, false},       // each is released once
		{5 * ms, 0, 10 * ms, false},  // never early
		{10 * ms, 1, 20 * ms, false}, //
		{35 * ms, 2, 40 * ms, false}, // what fell due since is released together
		{39900 * time.Microsecond, 0, 40400 * time.Microsecond, false}, // no finer than the quantum
		{2 * s, 96, 3 * s, false},                                      // after a pause of ours: everything due, nothing lost; sleeps through the lull
		{3 * s, 1, 3500 * ms, false},
		{9 * s, 1, 0, true},
		{10 * s, 0, 0, true},
	} {
		n := 0
		p.release(step.now, func(_ uint64, at time.Duration) {
			n++
			if at > step.now {
				t.Errorf("at %v: released a start that is due at %v", step.now, at)
			}
		})
		wake, more := p.wake(step.now)
		if n != step.released || wake != step.wake || more == step.exhausted {
			t.Errorf("at %v: released %d, wakes at %v (more: %v); want %d, %v (%v)", step.now, n, wake, more, step.released, step.wake, !step.exhausted)
		}
	}
}

// recorder is a Sink that keeps everything.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Emit(e event.Event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
}

// network is a set of in-memory services by address, so that a test runs in a synctest bubble.
type network map[string]func(net.Conn) // nil: refuses

func (n network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	serve, ok := n[address]
	if !ok {
		<-ctx.Done() // nobody there: packets vanish
		return nil, ctx.Err()
	}
	if serve == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		serve(far)
	}()
	return near, nil
}

const good = `{"session":"s-1","manifests":{"dash":"http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd","hls":"http://127.0.1.5:8080/v1/sessions/s-1/master.m3u8"},"steering":["us-east-1"],"retryPolicy":{"maxRetries":3,"retryAfterSeconds":1}}`

func response(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// readRequest reads one request of the generator, and false at the end of the connection.
func readRequest(c net.Conn) bool {
	buf := make([]byte, 4096)
	n, err := c.Read(buf) // the generator sends a request in one write
	return err == nil && n > 0
}

// answers serves each request on a connection with what answer says.
func answers(answer func() string) func(net.Conn) {
	return func(c net.Conn) {
		for readRequest(c) {
			if _, err := io.WriteString(c, answer()); err != nil {
				return
			}
		}
	}
}

func always(a string) func(net.Conn) { return answers(func() string { return a }) }

const (
	east = "127.0.1.5:8080"
	west = "127.0.2.5:8080"
)

func config(t testing.TB, sink event.Sink, n network, sch *audience.Schedule, regions ...string) Config {
	t.Helper()
	addrs := map[string]string{"us-east": east, "us-west": west}
	c := Config{Schedule: sch, Title: "title-fight", Start: time.Now(), Sink: sink, Dial: n.dial}
	for _, r := range regions {
		c.Services = append(c.Services, Service{r, netip.MustParseAddrPort(addrs[r])})
	}
	crowd, err := audience.NewCrowd(audience.DefaultMix, regions, 7)
	if err != nil {
		t.Fatal(err)
	}
	c.Crowd = crowd
	return c
}

// ran is a generator that has run, and what it emitted.
type ran struct {
	*Generator
	events []event.Event
}

// run runs a generator to its end and checks what must hold of every run: the sums, and one event for each start.
func run(t testing.TB, ctx context.Context, c Config) (ran, error) {
	t.Helper()
	rec := &recorder{}
	c.Sink = rec
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	runErr := g.Run(ctx)
	check(t, g, rec.events)
	return ran{g, rec.events}, runErr
}

// failures counts why starts were shed, failed or dropped.
func (r ran) failures() map[string]uint64 {
	n := map[string]uint64{}
	for _, e := range r.events {
		if e.Status != OK {
			n[e.Detail]++
		}
	}
	return n
}

// quantiles of a latency, in milliseconds.
type quantiles struct{ p50, p95, p99, most float64 }

// latencies are over every start that was sent, however it ended, as the timeline tells them: from the intended moment,
// from the first attempt, and the generator's own part.
func (r ran) latencies() (fromIntended, fromSent, sendLag quantiles) {
	var all [3][]float64
	for _, e := range r.events {
		if e.Status != Dropped {
			for i, v := range []float64{e.Value, e.Value - e.LagMS, e.LagMS} {
				all[i] = append(all[i], v)
			}
		}
	}
	of := func(v []float64) (q quantiles) {
		if slices.Sort(v); len(v) > 0 { // the closest rank at or above
			at := func(q float64) float64 { return v[max(0, int(math.Ceil(q*float64(len(v))))-1)] }
			q = quantiles{at(0.5), at(0.95), at(0.99), at(1)}
		}
		return q
	}
	return of(all[0]), of(all[1]), of(all[2])
}

func check(t testing.TB, g *Generator, events []event.Event) {
	t.Helper()
	n := g.Snapshot()
	if n.Intended != n.Sent+n.Dropped || n.Sent != n.OK+n.Shed+n.Failed || n.InFlight != 0 {
		t.Errorf("sums do not hold: %+v", n)
	}
	got := map[string]uint64{}
	for _, e := range events {
		got[e.Status]++
		if e.Kind != event.PlayStart || e.Device == "" || e.ISP == "" || e.At.IsZero() || e.Value < 0 || e.LagMS < 0 || e.LagMS > e.Value {
			t.Errorf("bad event: %+v", e)
		}
		if (e.Status == OK) != (e.Session != "") || (e.Status == OK) != (e.Detail == "") {
			t.Errorf("session %q and detail %q of a start that is %s", e.Session, e.Detail, e.Status)
		}
	}
	if got[OK] != n.OK || got[Shed] != n.Shed || got[Failed] != n.Failed || got[Dropped] != n.Dropped {
		t.Errorf("events %v for %+v", got, n)
	}
}

func TestSteadyCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := network{east: always(response(200, good)), west: always(response(200, good))}
		c := config(t, nil, n, schedule(t, 5*s, audience.Leg{Rate: 400}), "us-east", "us-west")
		began := time.Now()
		g, err := run(t, t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Snapshot(); got.OK != 2000 || got.SentPerSecond != 400 {
			t.Errorf("%+v, want 2000 ok at 400/s", got)
		}
		if _, _, lag := g.latencies(); lag.most > 1 {
			t.Errorf("sent up to %v ms late with nothing in the way", lag.most)
		}
		if took := time.Since(began); took < 4990*ms || took > 5*s {
			t.Errorf("took %v", took)
		}
	})
}

// A server that freezes for one of five seconds: a fifth of the viewers waited half a second on average, and the slowest
// 5 % at least 0.75 s. A closed loop would have seen a handful of slow answers.
func TestStallIsSeenFromTheIntendedMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		stalling := answers(func() string {
			if at := time.Since(began); at >= 2*s && at < 3*s {
				time.Sleep(3*s - at)
			}
			return response(200, good)
		})
		c := config(t, nil, network{east: stalling}, schedule(t, 5*s, audience.Leg{Rate: 200}), "us-east")
		c.AttemptTimeout = 2 * s
		c.MaxInFlight = 50 // less than the stall needs: the queue's wait must show as well
		g, err := run(t, t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		intended, sent, lag := g.latencies()
		if n := g.Snapshot(); n.OK != 1000 {
			t.Fatalf("%+v", n)
		}
		if intended.p95 < 740 || intended.p95 > 760 || intended.most < 990 {
			t.Errorf("from intended %+v, want p95 about 750 ms", intended)
		}
		if sent.p95 > 760 || lag.p95 < 500 {
			t.Errorf("sent→done %+v, lag %+v: the wait for a slot is the generator's and must be in the lag", sent, lag)
		}
	})
}

func TestWhatCannotBeSentInTimeIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := answers(func() string { time.Sleep(900 * ms); return response(200, good) })
		c := config(t, nil, network{east: slow}, schedule(t, 5*s, audience.Leg{Rate: 100}), "us-east")
		c.MaxInFlight, c.MaxSendLag = 10, 500*ms
		g, err := run(t, t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		n := g.Snapshot()
		if n.Intended != 500 || n.Dropped < 400 || n.OK != n.Sent || g.failures()[whyLate] != n.Dropped {
			t.Errorf("%+v, want 500 intended and most dropped as late", n)
		}
		if _, _, lag := g.latencies(); lag.most > 501 {
			t.Errorf("a start was sent %v ms late", lag.most)
		}
	})
}

func TestFailOver(t *testing.T) {
	for _, tc := range []struct {
		name     string
		east     func(net.Conn)
		missing  bool
		attempts uint32
		took     time.Duration
	}{
		{"refused", nil, false, 2, 0},
		{"silent", nil, true, 2, s},
		{"server error", always(response(500, "")), false, 2, 0},
		{"503 without a retry policy", always(response(503, "busy")), false, 2, 0},
		{"dies in the middle of an answer", func(c net.Conn) { readRequest(c); io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le") }, false, 2, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := network{east: tc.east, west: always(response(200, good))}
				if tc.missing {
					delete(n, east)
				}
				rec := &recorder{}
				c := config(t, rec, n, schedule(t, s, audience.Leg{Rate: 100}), "us-east", "us-west")
				g, err := New(c)
				if err != nil {
					t.Fatal(err)
				}
				if err := g.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				check(t, g, rec.events)
				if got := g.Snapshot(); got.OK != 100 {
					t.Fatalf("%+v", got)
				}
				moved := 0
				for _, e := range rec.events {
					if e.Region != "us-west" || e.Edge != west {
						t.Fatalf("answered by %s, %s", e.Region, e.Edge)
					}
					if e.Attempts == tc.attempts {
						moved++
						if e.Value < millis(tc.took) || e.Value > millis(tc.took)+1 {
							t.Errorf("took %v ms, want %v", e.Value, tc.took)
						}
					}
				}
				if moved < 40 || moved > 68 { // the part of the crowd that lives in us-east
					t.Errorf("%d of 100 starts failed over", moved)
				}
			})
		})
	}
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := run(t, t.Context(), config(t, nil, network{east: nil, west: nil}, schedule(t, 2*s, audience.Leg{Rate: 50}), "us-east", "us-west"))
		if err != nil {
			t.Fatal(err)
		}
		if n := g.Snapshot(); n.Failed != 100 || g.failures()[whyRefused] != 100 || n.FailedPerSecond != 50 {
			t.Errorf("%+v, want all refused", n)
		}
	})
}

func TestShedding(t *testing.T) {
	shed := response(503, `{"retryPolicy":{"maxRetries":2,"retryAfterSeconds":1.5}}`)
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		recovers := answers(func() string {
			if n.Add(1) <= 3 {
				return shed
			}
			return response(200, good)
		})
		rec := &recorder{}
		g, err := New(config(t, rec, network{east: recovers}, schedule(t, s, audience.Leg{Rate: 1}), "us-east"))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, g, rec.events)
		if e := rec.events[0]; len(rec.events) != 1 || e.Status != Shed || e.Attempts != 3 || e.Value < 3000 || e.Value > 3002 || e.Region != "us-east" {
			t.Errorf("%+v, want shed after the two retries that the server allowed, 1.5 s apart", e)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		recovers := answers(func() string {
			if n.Add(1) <= 100 {
				return shed
			}
			return response(200, good)
		})
		g, err := run(t, t.Context(), config(t, nil, network{east: recovers}, schedule(t, s, audience.Leg{Rate: 100}), "us-east"))
		if err != nil {
			t.Fatal(err)
		}
		if n := g.Snapshot(); n.OK != 100 {
			t.Errorf("%+v, want all served on their retry", n)
		}
		if l, _, _ := g.latencies(); l.p50 < 1499 || l.p50 > 1502 {
			t.Errorf("%+v, want the wait in what the viewer felt", l)
		}
	})
}

// A connection that the server closed while it was idle is no failed attempt.
func TestKeptConnectionClosedByTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oncePerConnection := func(c net.Conn) {
			if readRequest(c) {
				io.WriteString(c, response(200, good))
			}
		}
		rec := &recorder{}
		g, err := New(config(t, rec, network{east: oncePerConnection}, schedule(t, s, audience.Leg{Rate: 20}), "us-east"))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, g, rec.events)
		if slices.ContainsFunc(rec.events, func(e event.Event) bool { return e.Status != OK || e.Attempts != 1 }) {
			t.Errorf("%+v", g.Snapshot())
		}
	})
}

func TestHostileServers(t *testing.T) {
	pour := func(c net.Conn, head, piece string, every time.Duration) {
		readRequest(c)
		for _, err := io.WriteString(c, head); err == nil; _, err = io.WriteString(c, piece) {
			time.Sleep(every)
		}
	}
	forever := func(head, piece string, every time.Duration) func(net.Conn) {
		return func(c net.Conn) { pour(c, head, piece, every) }
	}
	long := strings.Repeat("x", 4096)
	for _, tc := range []struct {
		name  string
		serve func(net.Conn)
		why   string
	}{
		{"garbage", forever("", "\x00\xff\x17garbage\n", 0), whyNotHTTP},
		{"an endless line", forever("", long, 0), whyTooLong},
		{"endless headers", forever("HTTP/1.1 200 OK\r\n", "A: b\r\n", 0), whyTooLong},
		{"an endless body", forever("HTTP/1.1 200 OK\r\n\r\n", long, 0), whyTooLong},
		{"an endless chunked body", forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n"+long+"\r\n", 0), whyTooLong},
		{"an announced terabyte", always("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"), whyNotHTTP},
		{"one byte a second", forever("", "H", s), whyTimeout},
		{"a body of one byte a second", forever("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", "{", s), whyTimeout},
		{"says nothing", func(c net.Conn) { readRequest(c); io.Copy(io.Discard, c) }, whyTimeout},
		{"never reads", func(c net.Conn) { time.Sleep(time.Minute) }, whyTimeout},
		{"closes at once", func(c net.Conn) {}, whyClosed},
		{"closes after the request", func(c net.Conn) { readRequest(c) }, whyClosed},
		{"closes within the body", func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{")
		}, whyClosed},
		{"two lengths", always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), whyNotHTTP},
		{"length and chunks", always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n{}"), whyNotHTTP},
		{"unasked interim answers", forever("", "HTTP/1.1 100 Continue\r\n\r\n", 0), whyNotHTTP},
		{"not JSON", always(response(200, "<html>")), whyNotJSON},
		{"the wrong JSON", always(response(200, `{"session":7}`)), whyNotJSON},
		{"no session", always(response(200, `{"manifests":{"dash":"http://a","hls":"http://a"}}`)), whyNoSession},
		{"no manifests", always(response(200, `{"session":"s","manifests":{"dash":"http://a"}}`)), whyNoManifest},
		{"an empty answer", always("HTTP/1.1 204 No Content\r\n\r\n"), "HTTP 204"},
		{"not found", always(response(404, "{}")), "HTTP 404"},
		{"a retry policy without end", always(response(503, `{"retryPolicy":{"maxRetries":1000000,"retryAfterSeconds":1e300}}`)), whyShed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				g, err := run(t, t.Context(), config(t, nil, network{east: tc.serve}, schedule(t, s, audience.Leg{Rate: 5}), "us-east"))
				if err != nil {
					t.Fatal(err)
				}
				n := g.Snapshot()
				if n.Failed+n.Shed != 5 || g.failures()[tc.why] != 5 {
					t.Errorf("%+v %v, want 5 × %q", n, g.failures(), tc.why)
				}
				if took := time.Since(began); took > 20*s {
					t.Errorf("took %v", took)
				}
				for _, w := range g.workers {
					if cap(w.ans.body) > 2*maxBody {
						t.Errorf("keeps a body of %d bytes", cap(w.ans.body))
					}
				}
				synctest.Wait()
				time.Sleep(time.Minute) // the servers' own sleeps end
			})
		})
	}
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(c net.Conn) { io.Copy(io.Discard, c) }
		c := config(t, nil, network{east: silent}, schedule(t, 100*s, audience.Leg{Rate: 10}), "us-east")
		c.AttemptTimeout, c.MaxInFlight, c.MaxSendLag = 50*s, 5, 100*s
		ctx, cancel := context.WithTimeout(t.Context(), 2*s+50*ms)
		defer cancel()
		began := time.Now()
		g, err := run(t, ctx, c)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took > 2100*ms {
			t.Errorf("ended after %v", took)
		}
		if n := g.Snapshot(); n.Intended != 21 || n.Failed != 5 || n.Dropped != 16 || g.failures()[whyCancelled] != 21 {
			t.Errorf("%+v", n)
		}
	})
}

// A start that waits to come back when the run is cancelled was last asked of the service that shed it, its home's.
func TestCancelledWhileParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shed := always(response(503, `{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":5}}`))
		c := config(t, nil, network{east: shed, west: shed}, schedule(t, s, audience.Leg{Rate: 40}), "us-east", "us-west")
		ctx, cancel := context.WithTimeout(t.Context(), 2*s)
		defer cancel()
		g, _ := run(t, ctx, c)
		if n := g.Snapshot(); n.Shed != 40 || g.failures()[whyCancelled] != 40 {
			t.Fatalf("%+v %v", n, g.failures())
		}
		home := map[string]int{}
		for k := range uint64(40) {
			home[c.Crowd.Viewer(k).Home]++
		}
		got := map[string]int{}
		for _, e := range g.events {
			if e.Edge != map[string]string{"us-east": east, "us-west": west}[e.Region] {
				t.Errorf("%s answers for %s", e.Edge, e.Region)
			}
			got[e.Region]++
		}
		if !maps.Equal(got, home) || home["us-west"] == 0 {
			t.Errorf("shed by %v, want %v", got, home)
		}
	})
}

func TestNewNamesEverythingWrong(t *testing.T) {
	_, err := New(Config{Services: []Service{{"a", netip.MustParseAddrPort("192.0.2.1:80")}, {"a", netip.MustParseAddrPort("127.0.0.1:80")}}})
	if !errors.Is(err, ErrNotLoopback) {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"no schedule", "no crowd", "no sink", "no start time", "192.0.2.1:80", `two playback services for region "a"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a loopback address is named: %v", err)
	}
}

// The whole thing over real sockets, with one region's service dying and coming back.
func TestRealSockets(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.URL.Path != "/v1/play" || !strings.Contains(string(body), `"title":"title-fight","device":"`) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		io.WriteString(w, good)
	})
	serve := func(l net.Listener) *http.Server {
		srv := &http.Server{Handler: handler}
		go srv.Serve(l)
		return srv
	}
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	le, lw := listen("127.0.1.5:0"), listen("127.0.2.5:0")
	dies, stays := serve(le), serve(lw)
	defer func() { dies.Close(); stays.Close() }()

	rec := &recorder{}
	c := config(t, rec, nil, schedule(t, 3*s, audience.Leg{Rate: 1000}), "us-east", "us-west")
	c.Dial = nil
	c.Services[0].Addr = netip.MustParseAddrPort(le.Addr().String())
	c.Services[1].Addr = netip.MustParseAddrPort(lw.Addr().String())
	c.Start = time.Now()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(s, func() { dies.Close() })
	time.AfterFunc(2*s, func() {
		l, err := net.Listen("tcp", le.Addr().String())
		if err != nil {
			return // then the other region goes on serving
		}
		dies = serve(l)
	})
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, g, rec.events)
	n := g.Snapshot()
	intended, sent, lag := ran{g, rec.events}.latencies()
	t.Logf("%+v; from intended %+v, from sent %+v, lag %+v", n, intended, sent, lag)
	if n.Intended != 3000 || n.OK < 2990 {
		t.Errorf("%+v, want about all ok", n)
	}
	served := map[string]int{}
	for _, e := range rec.events {
		served[e.Region]++
	}
	if served["us-east"] < 500 || served["us-west"] < 1500 {
		t.Errorf("served by %v", served)
	}
}

// BenchmarkPlayStarts sends b.N play starts at 20,000 a second to a bare server in the same process; µs/start is the
// processor time of both ends.
func BenchmarkPlayStarts(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.1.5:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				always(response(200, good))(c)
			}()
		}
	}()
	const perSecond = 20_000
	rec := &recorder{events: make([]event.Event, 0, b.N)}
	c := config(b, rec, nil, schedule(b, time.Duration(b.N)*s/perSecond, audience.Leg{Rate: perSecond}), "us-east")
	c.Dial = nil
	c.Services[0].Addr = netip.MustParseAddrPort(l.Addr().String())
	c.Start = time.Now()
	g, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	before := processorTime(b)
	if err := g.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	n := g.Snapshot()
	b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(n.Sent), "cpu-µs/start")
	_, _, lag := ran{g, rec.events}.latencies()
	b.ReportMetric(lag.p99, "lag-p99-ms")
	b.ReportMetric(float64(n.Dropped), "dropped")
}

func processorTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
