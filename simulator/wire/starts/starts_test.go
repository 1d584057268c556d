package starts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
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
	p := newPacer(schedule(t, 4*s, audience.Leg{Rate: 100, For: s}, audience.Leg{At: 3 * s, Rate: 2, For: s}), 0, 1)
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

func TestOwnLag(t *testing.T) {
	for what, c := range map[string]struct{ due, idle, sent, want time.Duration }{
		"sent when it was due":                                   {s, 990 * ms, s, 0},
		"the loop slept past it":                                 {s, s, 1050 * ms, 50 * ms},
		"the loop had other work since before it was due":        {s, 900 * ms, 1050 * ms, 50 * ms},
		"no connection had room, and then one had":               {s, 1499 * ms, 1500 * ms, ms},
		"a connection had room, and the loop was late to use it": {s, 1400 * ms, 1500 * ms, 100 * ms},
		"idle until after it was sent: nobody is late":           {s, 2 * s, 1500 * ms, 0},
	} {
		if got := ownLag(c.due, c.idle, c.sent); got != c.want {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}

// stalling is a sink that takes very long once, and holds its loop up with it.
type stalling struct {
	recorder
	after int
	hold  time.Duration
}

func (st *stalling) Emit(e event.Event) {
	st.recorder.Emit(e)
	st.mu.Lock()
	n := len(st.events)
	st.mu.Unlock()
	if n == st.after {
		<-time.After(st.hold)
	}
}

// What the generator itself is late by is told from what the service makes the crowd wait for.
func TestOwnLatenessIsNotTheServices(t *testing.T) {
	t.Parallel()
	load := func(c Config) Snapshot {
		c.Start = time.Now()
		g, err := New(c)
		if err != nil {
			t.Error(err)
			return Snapshot{}
		}
		if err := g.Run(t.Context()); err != nil {
			t.Error(err)
		}
		return g.Snapshot()
	}
	each(t, map[string]func(*Config){
		"kept":      func(*Config) {},
		"coalesced": func(c *Config) { c.Coalesce = ms },
		"fresh":     func(c *Config) { c.Connections = Fresh },
	}, func(name string, change func(*Config)) {
		quick := listen(t, always(response(200, good)))
		c := config(t, &stalling{after: 100, hold: 300 * ms}, schedule(t, s, audience.Leg{Rate: 1000}), quick)
		c.Shards = 1
		change(&c)
		// 300 fell due while the loop was held up, all but the last ten of them more than 10 ms before it went on.
		if n := load(c); n.Late < 250 || n.OwnLag.Max < 280 || n.LateShare() < 0.25 {
			t.Errorf("%s: a generator that was held up for 300 ms says that %d were late, by %v ms", name, n.Late, n.OwnLag.Max)
		}

		// One connection, and a service that takes 5 ms for each answer: five times as many come as it can take.
		slow := listen(t, answers(func() string {
			<-time.After(5 * ms)
			return response(200, good)
		}))
		c = config(t, event.Discard, schedule(t, 500*ms, audience.Leg{Rate: 1000}), slow)
		c.Shards, c.PerService, c.MaxInFlight = 1, 1, 1
		change(&c)
		// On a busy machine some are late all the same.
		if n := load(c); n.SendLag.P50 < 300 || n.OwnLag.P50 > 10 || n.Late > 250 {
			t.Errorf("%s: of a service that is slow, the generator says that %d were late by its own doing, by %v ms; the send lag is %v ms", name, n.Late, n.OwnLag.P50, n.SendLag.P50)
		}
	})
}

// Together the shards release each start once, without a word between them.
func TestPacersOfShards(t *testing.T) {
	sch := schedule(t, s, audience.Leg{Rate: 1001})
	seen := map[uint64]int{}
	for id := range uint64(3) {
		p := newPacer(sch, id, 3)
		for now := time.Duration(0); now < s+7*ms; now += 7 * ms {
			p.release(now, func(k uint64, at time.Duration) {
				seen[k]++
				if at != sch.Intended(k) {
					t.Errorf("start %d at %v", k, at)
				}
			})
		}
	}
	for k := range sch.Total() {
		if seen[k] != 1 {
			t.Fatalf("start %d was released %d times", k, seen[k])
		}
	}
}

// recorder is a Sink that keeps everything, and copies what it keeps as the contract wants.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Emit(e event.Event) {
	e.Session = strings.Clone(e.Session)
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
}

const good = `{"session":"s-1","manifests":{"dash":"http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd","hls":"http://127.0.1.5:8080/v1/sessions/s-1/master.m3u8"},"steering":["us-east-1"],"retryPolicy":{"maxRetries":3,"retryAfterSeconds":1}}`

func response(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// listen runs serve on every connection to a new loopback address until the test ends.
func listen(t testing.TB, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.1.5:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// refusing is an address that nobody listens at.
func refusing(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.1.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// readRequest reads one request of the generator, and false at the end of the connection. Its body ends it.
func readRequest(c io.Reader) bool {
	var one [1]byte
	for {
		if n, err := c.Read(one[:]); n == 0 || err != nil {
			return false
		}
		if one[0] == '}' {
			return true
		}
	}
}

// answers serves each request on a connection with what answer says.
func answers(answer func() string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		in := bufio.NewReader(c)
		for {
			if _, err := in.ReadSlice('}'); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer()); err != nil {
				return
			}
		}
	}
}

func always(a string) func(*net.TCPConn) { return answers(func() string { return a }) }

// regions of a test's services, in the order of config's addresses.
var regions = []string{"us-east", "us-west"}

func config(t testing.TB, sink event.Sink, sch *audience.Schedule, services ...netip.AddrPort) Config {
	t.Helper()
	// However busy the machine is: who wants a time-out or a drop says so.
	c := Config{Schedule: sch, Title: "title-fight", Start: time.Now(), Sink: sink, AttemptTimeout: 20 * s, MaxSendLag: 20 * s}
	for i, addr := range services {
		c.Services = append(c.Services, Service{regions[i], addr})
	}
	crowd, err := audience.NewCrowd(audience.DefaultMix, regions[:len(services)], 7)
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
	c.Start = time.Now()
	g, err := New(c)
	if err != nil {
		t.Error(err)
		return ran{&Generator{}, nil}, err
	}
	runErr := g.Run(ctx)
	check(t, g, rec.events)
	return ran{g, rec.events}, runErr
}

// each runs one test's variants side by side: they wait more than they work.
func each[T any](t *testing.T, variants map[string]T, test func(name string, v T)) {
	t.Helper()
	var wg sync.WaitGroup
	for name, v := range variants {
		wg.Go(func() { test(name, v) })
	}
	wg.Wait()
}

func mustRun(t testing.TB, c Config) ran {
	t.Helper()
	g, err := run(t, t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return g
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

// latencies are over every start that was sent, however it ended, as the timeline tells them: from the intended moment,
// from the first attempt, and the generator's own part.
func (r ran) latencies() (fromIntended, fromSent, sendLag Quantiles) {
	var all [3][]float64
	for _, e := range r.events {
		if e.Status != Dropped {
			for i, v := range []float64{e.Value, e.Value - e.LagMS, e.LagMS} {
				all[i] = append(all[i], v)
			}
		}
	}
	of := func(v []float64) (q Quantiles) {
		if slices.Sort(v); len(v) > 0 { // the closest rank at or above
			at := func(q float64) float64 { return v[max(0, int(math.Ceil(q*float64(len(v))))-1)] }
			q = Quantiles{at(0.5), at(0.95), at(0.99), at(0.999), at(1)}
		}
		return q
	}
	return of(all[0]), of(all[1]), of(all[2])
}

func check(t testing.TB, g *Generator, events []event.Event) {
	t.Helper()
	n := g.Snapshot()
	if n.Intended != n.Sent+n.Dropped || n.Sent != n.OK+n.Shed+n.Failed || n.InFlight != 0 || n.Parked != 0 || n.Attempts < n.Sent {
		t.Errorf("sums do not hold: %+v", n)
	}
	got := map[string]uint64{}
	attempts := uint64(0)
	for _, e := range events {
		got[e.Status]++
		attempts += uint64(e.Attempts)
		if e.Kind != event.PlayStart || e.Device == "" || e.ISP == "" || e.At.IsZero() || e.Value < 0 || e.LagMS < 0 || e.LagMS > e.Value || e.State != "" && e.State != Returned {
			t.Errorf("bad event: %+v", e)
		}
		if (e.Status == OK) != (e.Session != "") || (e.Status == OK) != (e.Detail == "") {
			t.Errorf("session %q and detail %q of a start that is %s", e.Session, e.Detail, e.Status)
		}
	}
	if got[OK] != n.OK || got[Shed] != n.Shed || got[Failed] != n.Failed || got[Dropped] != n.Dropped || attempts != n.Attempts {
		t.Errorf("events %v and %d attempts for %+v", got, attempts, n)
	}
	if why := (ran{g, events}).failures(); !maps.Equal(why, n.Failures) {
		t.Errorf("failures %v, the events' are %v", n.Failures, why)
	}
	var all Second
	for _, sec := range g.Seconds(0) {
		all.add(sec)
	}
	if uint64(all.Intended) != n.Intended || uint64(all.Sent) != n.Sent || uint64(all.Attempts) != n.Attempts || uint64(all.OK) != n.OK ||
		uint64(all.Shed) != n.Shed || uint64(all.Failed) != n.Failed || uint64(all.Dropped) != n.Dropped || uint64(all.Returned) != n.Returned ||
		uint64(all.Late) != n.Late || n.Late > n.Sent {
		t.Errorf("the seconds add up to %+v, the snapshot is %+v", all, n)
	}
	for _, sh := range g.shards {
		if sh.slab.used != 0 || sh.queued != 0 || sh.flight.n != 0 || sh.jobs != 0 {
			t.Errorf("shard %d keeps %d starts, %d queued, %d in flight, %d with dialers", sh.id, sh.slab.used, sh.queued, sh.flight.n, sh.jobs)
		}
		for _, c := range sh.conns {
			if c.fd >= 0 || cap(c.unsent) > 8<<10 {
				t.Errorf("a connection is left, or a buffer of %d bytes", cap(c.unsent))
			}
		}
	}
}

func TestSteadyCrowd(t *testing.T) {
	t.Parallel()
	addr := listen(t, always(response(200, good)))
	for name, change := range map[string]func(*Config){
		"kept":      func(*Config) {},
		"pipelined": func(c *Config) { c.InFlight, c.PerService = 8, 2 },
		"fresh":     func(c *Config) { c.Connections = Fresh },
		"one shard": func(c *Config) { c.Shards = 1 },
		"coalesced": func(c *Config) { c.InFlight, c.Coalesce = 8, ms },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, nil, schedule(t, s, audience.Leg{Rate: 800}), addr)
			change(&c)
			began := time.Now()
			g := mustRun(t, c)
			n := g.Snapshot()
			if n.OK != 800 || n.Attempts != 800 || n.Resent != 0 {
				t.Errorf("%+v, want 800 ok", n)
			}
			if took := time.Since(began); took < 990*ms || took > 4*s {
				t.Errorf("took %v", took)
			}
			// The histograms say what the events say, to three digits.
			intended, sent, lag := g.latencies()
			for i, q := range [][2]Quantiles{{n.FromIntended, intended}, {n.FromSent, sent}, {n.SendLag, lag}} {
				for _, v := range [][2]float64{{q[0].P50, q[1].P50}, {q[0].P95, q[1].P95}, {q[0].Max, q[1].Max}} {
					if math.Abs(v[0]-v[1]) > 0.002+v[1]/400 {
						t.Errorf("histogram %d: %v, the events say %v", i, q[0], q[1])
						break
					}
				}
			}
		})
	}
}

// While it runs the counters can be read, and say what is going on.
func TestSnapshotWhileItRuns(t *testing.T) {
	t.Parallel()
	addr := listen(t, always(response(200, good)))
	c := config(t, event.Discard, schedule(t, 3*s, audience.Leg{Rate: 1000}), addr)
	c.Start = time.Now()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if n := g.Snapshot(); n.Intended != 0 || g.Seconds(0) != nil {
		t.Errorf("before Run: %+v", n)
	}
	ended := make(chan error)
	go func() { ended <- g.Run(t.Context()) }()
	var last, fastest uint64
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			if fastest < 900 || fastest > 1500 { // a busy machine sends some in the next second
				t.Errorf("%d a second at most, want about 1000", fastest)
			}
			if seconds := g.Seconds(1); len(seconds) < 2 || seconds[0].Intended != 1000 || seconds[1].Intended != 1000 {
				t.Errorf("%+v", seconds)
			}
			return
		default:
		}
		n := g.Snapshot()
		if n.Intended < last || n.Intended != n.InFlight+n.OK {
			t.Fatalf("%+v after %d", n, last)
		}
		last = n.Intended
		// In its first second, the crowd's rate is what has come so far, not nothing.
		if time.Since(c.Start) < s && n.OK > 0 && (n.SentPerSecond == 0 || n.OKPerSecond == 0) {
			t.Fatalf("%d ok, and none a second", n.OK)
		}
		fastest = max(fastest, n.SentPerSecond)
		runtime.Gosched()
	}
}

// A server that freezes for one of ten seconds: a tenth of the viewers waited half a second on average, so the slowest
// 5 % waited at least that. A closed loop would have seen a handful of slow answers. The crowd does not slow down.
func TestStallIsSeenFromTheIntendedMoment(t *testing.T) {
	t.Parallel()
	each(t, map[string]func(*Config){
		"kept":      func(c *Config) { c.PerService = 20 }, // fewer than the stall needs: the queue's wait must show as well
		"pipelined": func(c *Config) { c.PerService, c.InFlight = 64, 8 },
		"fresh":     func(c *Config) { c.Connections = Fresh },
	}, func(name string, change func(*Config)) {
		began := time.Now()
		addr := listen(t, answers(func() string {
			if at := time.Since(began); at >= 5*s && at < 6*s {
				<-time.After(6*s - at)
			}
			return response(200, good)
		}))
		c := config(t, nil, schedule(t, 10*s, audience.Leg{Rate: 200}), addr)
		c.AttemptTimeout = 3 * s
		change(&c)
		g, err := run(t, t.Context(), c)
		n := g.Snapshot()
		if err != nil || n.OK != 2000 {
			t.Errorf("%s: %v %+v", name, err, n)
			return
		}
		if p := n.FromIntended; p.P95 < 400 || p.P95 > 1500 || p.Max < 950 || p.P50 > 300 { // a busy machine adds to it
			t.Errorf("%s: from intended %+v, want p95 about 500 ms", name, p)
		}
		for i, sec := range g.Seconds(0) {
			if i < 10 && sec.Intended != 200 {
				t.Errorf("%s: second %d: %d starts were due, want 200: the loop is not open", name, i, sec.Intended)
			}
		}
		if name == "kept" {
			if n.SendLag.P95 < 300 {
				t.Errorf("%s: sent→done %+v, lag %+v: the wait for a connection must be in the lag", name, n.FromSent, n.SendLag)
			}
		} else if n.SendLag.P99 > 300 || n.FromSent.P95 < 300 {
			t.Errorf("%s: sent→done %+v, lag %+v: all were sent in time", name, n.FromSent, n.SendLag)
		}
	})
}

func TestWhatCannotBeSentInTimeIsDropped(t *testing.T) {
	t.Parallel()
	addr := listen(t, answers(func() string { <-time.After(300 * ms); return response(200, good) }))
	for _, connections := range []Connections{KeepAlive, Fresh} {
		c := config(t, nil, schedule(t, s, audience.Leg{Rate: 500}), addr)
		c.Connections, c.PerService, c.MaxInFlight, c.MaxSendLag = connections, 10, 10, 200*ms
		g := mustRun(t, c)
		n := g.Snapshot()
		if n.Intended != 500 || n.Dropped < 400 || n.OK != n.Sent || n.Failures[late.String()] != n.Dropped {
			t.Errorf("%s: %+v, want 500 intended and most dropped as late", connections, n)
		}
		if n.SendLag.Max > 205 {
			t.Errorf("%s: a start was sent %v ms late", connections, n.SendLag.Max)
		}
	}
}

// What waits is bounded, whatever is asked for.
func TestTheQueueIsBounded(t *testing.T) {
	t.Parallel()
	addr := listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	c := config(t, event.Discard, schedule(t, s/2, audience.Leg{Rate: 1e6}), addr)
	c.PerService, c.MaxSendLag, c.AttemptTimeout, c.Start = 1, s, s, time.Now()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := g.Snapshot()
	if n.Intended != 500_000 || n.Failures[queueFull.String()] < 200_000 || n.Dropped < 499_000 {
		t.Errorf("%+v", n)
	}
	for _, sh := range g.shards {
		if held := len(sh.slab.pieces) << pieceBits; held > maxQueue/len(g.shards)+2<<pieceBits {
			t.Errorf("room for %d starts", held)
		}
	}
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		east func(*net.TCPConn) // nil: refuses
		took time.Duration
	}{
		{"refused", nil, 0},
		{"silent", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, 400 * ms},
		{"server error", always(response(500, "")), 0},
		{"503 without a retry policy", always(response(503, "busy")), 0},
		{"dies in the middle of an answer", func(c *net.TCPConn) { readRequest(c); io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le") }, 0},
	} {
		for _, connections := range []Connections{KeepAlive, Fresh} {
			t.Run(tc.name+"/"+string(connections), func(t *testing.T) {
				t.Parallel()
				west := listen(t, always(response(200, good)))
				east := refusing(t)
				if tc.east != nil {
					east = listen(t, tc.east)
				}
				c := config(t, nil, schedule(t, s/4, audience.Leg{Rate: 400}), east, west)
				c.Connections = connections
				if tc.took > 0 {
					c.AttemptTimeout = tc.took
				}
				g := mustRun(t, c)
				if n := g.Snapshot(); n.OK != 100 || n.Attempts <= 100 {
					t.Fatalf("%+v", n)
				}
				moved := 0
				for _, e := range g.events {
					if e.Region != "us-west" || e.Edge != west.String() || (e.Home == "us-west") != (e.Attempts == 1) {
						t.Fatalf("answered by %s, %s after %d attempts, at home in %s", e.Region, e.Edge, e.Attempts, e.Home)
					}
					if e.Attempts == 2 {
						moved++
						if e.Value < millis(tc.took) || e.Value > millis(tc.took)+2000 {
							t.Errorf("took %v ms, want %v", e.Value, tc.took)
						}
					}
				}
				if moved < 40 || moved > 68 { // the part of the crowd that lives in us-east
					t.Errorf("%d of 100 starts failed over", moved)
				}
			})
		}
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	for _, connections := range []Connections{KeepAlive, Fresh} {
		c := config(t, nil, schedule(t, s, audience.Leg{Rate: 50}), refusing(t), refusing(t))
		c.Connections = connections
		g := mustRun(t, c)
		n := g.Snapshot()
		if n.Failed != 50 || n.Failures[refused.String()] != 50 || n.Attempts != 100 || n.AttemptFailures[refused.String()] != 100 {
			t.Errorf("%s: %+v, want all refused, twice", connections, n)
		}
		for _, e := range g.events { // a failed start is the home's, and names who was tried last
			want := c.Services[1].Addr
			if e.Region == regions[1] {
				want = c.Services[0].Addr
			}
			if e.Edge != want.String() {
				t.Errorf("%s says that %s failed it", e.Region, e.Edge)
			}
		}
	}
}

func TestShedding(t *testing.T) {
	t.Parallel()
	busy := response(503, `{"retryPolicy":{"maxRetries":2,"retryAfterSeconds":0.25}}`)
	after := func(k int64) func(*net.TCPConn) {
		var n atomic.Int64
		return answers(func() string {
			if n.Add(1) <= k {
				return busy
			}
			return response(200, good)
		})
	}
	g := mustRun(t, config(t, nil, schedule(t, s/2, audience.Leg{Rate: 2}), listen(t, after(3))))
	if e := g.events[0]; len(g.events) != 1 || e.Status != Shed || e.Attempts != 3 || e.Value < 500 || e.Value > 2000 || e.Region != "us-east" {
		t.Errorf("%+v, want shed after the two retries that the server allowed, 250 ms apart", e)
	}
	g = mustRun(t, config(t, nil, schedule(t, s/10, audience.Leg{Rate: 1000}), listen(t, after(100))))
	n := g.Snapshot()
	if n.OK != 100 || n.Attempts != 200 || n.AttemptFailures[shed.String()] != 100 || n.Shed != 0 {
		t.Errorf("%+v, want all served on their retry", n)
	}
	if l := n.FromIntended; l.P50 < 249 || l.P50 > 2000 {
		t.Errorf("%+v, want the wait in what the viewer felt", l)
	}
}

// Humans press Play again when they like, whatever the server asks for, and after any failure: the load that comes of it
// is counted.
func TestHumansPressAgain(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		Shed:   response(503, `{"retryPolicy":{"maxRetries":0,"retryAfterSeconds":100}}`),
		Failed: response(500, ""),
	} {
		c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 400}), listen(t, always(answer)))
		c.People = audience.People{Human: 1, Again: 1, After: 50 * ms, Presses: 4}
		n := mustRun(t, c).Snapshot()
		if n.Sent != 200 || n.Attempts != 800 || n.Shed+n.Failed != 200 {
			t.Errorf("%s: %+v, want 200 starts with four attempts each", name, n)
		}
		c.People = audience.People{} // nobody is human
		if n := mustRun(t, c).Snapshot(); n.Attempts != 200 {
			t.Errorf("%s: %+v, want one attempt each", name, n)
		}
	}
}

// People come back until their patience is at an end, and not at all when the next time would be after it.
func TestPatience(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		patience       time.Duration
		attempts, left uint64
	}{
		{0, 800, 0},
		{time.Hour, 800, 0},
		{ms, 200, 200}, // nobody has more than 7.4 ms: everybody leaves instead of waiting for 100
	} {
		c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 400}), listen(t, always(response(503, `{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":0.1}}`))))
		c.People.Patience = tc.patience
		if n := mustRun(t, c).Snapshot(); n.Shed != 200 || n.Attempts != tc.attempts || n.Left != tc.left {
			t.Errorf("patience %v: %d shed, %d attempts, %d left; want 200, %d, %d", tc.patience, n.Shed, n.Attempts, n.Left, tc.attempts, tc.left)
		}
	}
}

// Who would come back after the run's end does not.
func TestNobodyComesBackAfterTheEnd(t *testing.T) {
	t.Parallel()
	c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 100}), listen(t, always(response(503, `{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":60}}`))))
	c.Drain = 100 * ms
	began := time.Now()
	if n := mustRun(t, c).Snapshot(); n.Shed != 50 || n.Attempts != 50 {
		t.Errorf("%+v", n)
	}
	if took := time.Since(began); took > 3*s {
		t.Errorf("took %v", took)
	}
}

// Viewers with a session lose it, and come back on top of the schedule: with guidance as the policy that came with their
// session says, without it as humans do.
func TestInterruption(t *testing.T) {
	t.Parallel()
	session := func(after string) func(*net.TCPConn) {
		return always(response(200, strings.Replace(good, `"retryAfterSeconds":1`, `"retryAfterSeconds":`+after, 1)))
	}
	for _, guided := range []bool{true, false} {
		t.Run(fmt.Sprintf("guided=%v", guided), func(t *testing.T) {
			t.Parallel()
			c := config(t, nil, schedule(t, 2*s, audience.Leg{Rate: 400}), listen(t, session("0.8")), listen(t, session("0.8")))
			c.People = audience.People{Again: 1, After: 50 * ms, Presses: 2}
			c.Interruptions = []Interruption{{Name: "cut", At: s, For: 500 * ms, Region: "us-west", Viewers: 100, Guided: guided}}
			g := mustRun(t, c)
			n := g.Snapshot()
			if n.Intended != 900 || n.OK != 900 || n.Interrupted != 100 || len(n.CutOff) != 1 || n.CutOff[0] != 100 || n.Returned != 100 || n.Gone != 0 {
				t.Errorf("%+v, want 800 starts and 100 returns", n)
			}
			sessions := map[time.Duration]int{}
			for _, e := range g.events {
				if e.State != Returned {
					continue
				}
				if e.Region != "us-west" {
					t.Errorf("a return from %s", e.Region)
				}
				pressed := e.At.Add(-time.Duration(e.Value * 1e6)).Sub(g.shards[0].zero)
				sessions[pressed.Truncate(100*ms)]++
			}
			if herd := sessions[1500*ms]; guided && sessions[2300*ms] < 95 || !guided && herd < 80 {
				t.Errorf("came back at %v", sessions)
			}
		})
	}
}

// More viewers than there are cannot be interrupted, and who has no reason to come back is gone.
func TestInterruptionOfFewer(t *testing.T) {
	t.Parallel()
	c := config(t, nil, schedule(t, s, audience.Leg{Rate: 100}), listen(t, always(response(200, good))))
	c.Interruptions = []Interruption{{At: s / 2, Viewers: 1000, Guided: true}}
	c.Drain = 100 * ms // the policy says one second
	n := mustRun(t, c).Snapshot()
	if n.Intended != 100 || n.Interrupted < 40 || n.Interrupted > 51 || n.Gone != n.Interrupted || n.Returned != 0 {
		t.Errorf("%+v", n)
	}
}

// A connection that the server closed while it was idle is no failed attempt.
func TestKeptConnectionClosedByTheServer(t *testing.T) {
	t.Parallel()
	for _, inFlight := range []int{1, 8} {
		for _, header := range []string{"", "Connection: close\r\n"} {
			once := strings.Replace(response(200, good), "\r\n", "\r\n"+header, 1)
			addr := listen(t, func(c *net.TCPConn) {
				if readRequest(c) {
					io.WriteString(c, once)
				}
			})
			c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 400}), addr)
			c.InFlight, c.PerService = inFlight, 4
			g := mustRun(t, c)
			if n := g.Snapshot(); n.OK != 200 || n.Attempts != 200 {
				t.Errorf("%d in flight, %q: %+v", inFlight, header, n)
			}
		}
	}
}

// One who gave up waiting does not take the others on the connection along, and the late answer is nobody's.
func TestLateAnswerOnAPipelinedConnection(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	session := func(k int64) string { return response(200, strings.Replace(good, "s-1", fmt.Sprint("s-", k), 1)) }
	addr := listen(t, answers(func() string {
		k := n.Add(1)
		if k == 1 {
			<-time.After(450 * ms)
		}
		return session(k)
	}))
	// One connection; the first start waits 450 ms for its answer, those behind it less.
	c := config(t, nil, schedule(t, s, audience.Leg{Rate: 20}), addr)
	c.Shards, c.PerService, c.InFlight, c.AttemptTimeout = 1, 1, 64, 300*ms
	g := mustRun(t, c)
	if got := g.Snapshot(); got.Failed < 2 || got.Failed > 5 || got.OK+got.Failed != 20 || got.Failures[timeOut.String()] != got.Failed {
		t.Errorf("%+v, want the first few to time out and the others to be served", got)
	}
	seen := map[string]bool{}
	for _, e := range g.events {
		if e.Status == OK && (seen[e.Session] || e.Session == "s-1") {
			t.Errorf("session %s is another's", e.Session)
		}
		seen[e.Session] = true
	}
}

// Each start is told its own session, however answers are cut, escaped and pipelined.
func TestSessionsAreTold(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	addr := listen(t, func(c *net.TCPConn) {
		c.SetNoDelay(true)
		for readRequest(c) {
			k := n.Add(1)
			a := response(200, strings.Replace(good, "s-1", fmt.Sprintf(`s\u002d%d\/x`, k), 1))
			cut := int(k*31) % len(a)
			if _, err := io.WriteString(c, a[:cut]); err != nil {
				return
			}
			if _, err := io.WriteString(c, a[cut:]); err != nil {
				return
			}
		}
	})
	c := config(t, nil, schedule(t, s, audience.Leg{Rate: 2000}), addr)
	c.InFlight, c.PerService = 8, 4
	g := mustRun(t, c)
	seen := map[string]bool{}
	for _, e := range g.events {
		seen[e.Session] = true
	}
	for k := range 2000 {
		if name := fmt.Sprintf("s-%d/x", k+1); !seen[name] {
			t.Fatalf("nobody got session %s", name)
		}
	}
}

func TestHostileServers(t *testing.T) {
	pour := func(head, piece string, every time.Duration) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			readRequest(c)
			for _, err := io.WriteString(c, head); err == nil; _, err = io.WriteString(c, piece) {
				if every > 0 {
					<-time.After(every)
				}
			}
		}
	}
	say := func(text string, end func(*net.TCPConn)) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			readRequest(c)
			io.WriteString(c, text)
			end(c)
		}
	}
	hang := func(c *net.TCPConn) { io.Copy(io.Discard, c) }
	halfClose := func(c *net.TCPConn) { c.CloseWrite(); hang(c) }
	abort := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	bye := func(*net.TCPConn) {}
	long := strings.Repeat("x", 4096)
	for _, tc := range []struct {
		name  string
		serve func(*net.TCPConn)
		why   reason
	}{
		{"garbage", pour("", "\x00\xff\x17garbage\n", 0), notHTTP},
		{"an endless line", pour("", long, 0), tooLong},
		{"endless headers", pour("HTTP/1.1 200 OK\r\n", "A: b\r\n", 0), tooLong},
		{"an endless body", pour("HTTP/1.1 200 OK\r\n\r\n", long, 0), tooLong},
		{"an endless chunked body", pour("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1000\r\n"+long+"\r\n", 0), tooLong},
		{"an announced terabyte", always("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"), notHTTP},
		{"an announced 60 KB that never comes", always("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"), timeOut},
		{"one byte now and then", pour("", "H", 100*ms), timeOut},
		{"a body of one byte now and then", pour("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n", "{", 100*ms), timeOut},
		{"says nothing", hang, timeOut},
		{"closes at once", bye, closed},
		{"resets at once", abort, reset},
		{"closes after the request", say("", bye), closed},
		{"resets after the request", say("", abort), reset},
		{"half-closes after the request", say("", halfClose), closed},
		{"half-closes within the answer", say("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{", halfClose), closed},
		{"closes within the body", say("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{", bye), closed},
		{"resets within the body", say("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{", func(c *net.TCPConn) { <-time.After(10 * ms); abort(c) }), reset},
		{"two lengths", always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"), notHTTP},
		{"length and chunks", always("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n{}"), notHTTP},
		{"unasked interim answers", pour("", "HTTP/1.1 100 Continue\r\n\r\n", 0), notHTTP},
		{"not JSON", always(response(200, "<html>")), notJSON},
		{"deeply nested JSON", always(response(200, strings.Repeat("[", 60000))), notJSON},
		{"the wrong JSON", always(response(200, `{"session":7}`)), noSession},
		{"no session", always(response(200, `{"manifests":{"dash":"http://a","hls":"http://a"}}`)), noSession},
		{"a session without end", always(response(200, strings.Replace(good, "s-1", strings.Repeat("s", 2000), 1))), noSession},
		{"no manifests", always(response(200, `{"session":"s","manifests":{"dash":"http://a"}}`)), noManifest},
		{"a manifest of no web", always(response(200, strings.ReplaceAll(good, "http://", "file://"))), noManifest},
		{"a bad retry policy", always(response(200, strings.Replace(good, `"maxRetries":3`, `"maxRetries":-3`, 1))), badPolicy},
		{"shed with a bad retry policy", always(response(503, `{"retryPolicy":{"maxRetries":"3"}}`)), badPolicy},
		{"an empty answer", always("HTTP/1.1 204 No Content\r\n\r\n"), answered + 204},
		{"not found", always(response(404, "{}")), answered + 404},
		{"a retry policy without end", always(response(503, `{"retryPolicy":{"maxRetries":1000000,"retryAfterSeconds":1e300}}`)), shed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			each(t, map[string]func(*Config){
				"kept":      func(c *Config) { c.PerService = 4 },
				"pipelined": func(c *Config) { c.PerService, c.InFlight = 1, 4 },
				"fresh":     func(c *Config) { c.Connections = Fresh },
			}, func(how string, change func(*Config)) {
				c := config(t, nil, schedule(t, s/10, audience.Leg{Rate: 100}), listen(t, tc.serve))
				c.Drain = 100 * ms
				if tc.why == timeOut {
					c.AttemptTimeout = 250 * ms
				}
				change(&c)
				began := time.Now()
				g, err := run(t, t.Context(), c)
				n := g.Snapshot()
				count := n.Failures[tc.why.String()]
				// A reset may overtake the bytes before it, or find the request still on its way.
				if tc.why == reset || tc.why == closed {
					count = n.Failures[reset.String()] + n.Failures[closed.String()]
				}
				if err != nil || n.Failed+n.Shed != 10 || count != 10 {
					t.Errorf("%s: %v %+v, want 10 × %q", how, err, n, tc.why)
				}
				if took := time.Since(began); took > 10*s {
					t.Errorf("%s: took %v", how, took)
				}
			})
		})
	}
}

// Answers that nobody asked for end the connection and are counted; the starts that were answered in time are fine.
func TestAnswersNobodyAskedFor(t *testing.T) {
	t.Parallel()
	twice := listen(t, always(response(200, good)+response(200, good)))
	n := mustRun(t, config(t, nil, schedule(t, s/2, audience.Leg{Rate: 100}), twice)).Snapshot()
	if n.OK != 50 || n.AttemptFailures[unasked.String()] != 50 {
		t.Errorf("%+v", n)
	}
	greets := listen(t, func(c *net.TCPConn) { io.WriteString(c, response(200, good)); io.Copy(io.Discard, c) })
	c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 100}), greets)
	c.AttemptTimeout = 300 * ms
	if n := mustRun(t, c).Snapshot(); n.OK+n.Failed != 50 {
		t.Errorf("%+v", n)
	}
}

// A flood of hostile answers does not bloat the generator: what is kept does not grow with what is sent.
func TestHostileServersAndMemory(t *testing.T) {
	body := strings.Repeat("x", 60_000)
	addr := listen(t, func(c *net.TCPConn) {
		for readRequest(c) {
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 60001\r\n\r\n"+body); err != nil { // one byte never comes
				return
			}
		}
	})
	c := config(t, event.Discard, schedule(t, 2*s, audience.Leg{Rate: 500}), addr)
	c.PerService, c.AttemptTimeout, c.Start = 32, 100*ms, time.Now()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := g.Snapshot(); n.OK != 0 || n.Failed < 300 {
		t.Errorf("%+v", n)
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("%d bytes more than before", after-before)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	for _, connections := range []Connections{KeepAlive, Fresh} {
		silent := listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) })
		c := config(t, nil, schedule(t, 100*s, audience.Leg{Rate: 10}), silent)
		c.Connections, c.AttemptTimeout, c.PerService, c.MaxInFlight, c.MaxSendLag, c.Shards = connections, 50*s, 5, 5, 100*s, 1
		ctx, cancel := context.WithTimeout(t.Context(), s+50*ms)
		defer cancel()
		began := time.Now()
		g, err := run(t, ctx, c)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took > 2*s {
			t.Errorf("ended after %v", took)
		}
		n := g.Snapshot()
		if n.Intended < 10 || n.Intended > 15 || n.Failed != 5 || n.Dropped != n.Intended-5 || n.Failures[cancelled.String()] != n.Intended {
			t.Errorf("%s: %+v", connections, n)
		}
	}
}

// A start that waits to come back when the run is cancelled was last asked of the service that shed it, its home's.
func TestCancelledWhileParked(t *testing.T) {
	t.Parallel()
	busy := always(response(503, `{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":5}}`))
	east, west := listen(t, busy), listen(t, busy)
	c := config(t, nil, schedule(t, s/4, audience.Leg{Rate: 160}), east, west)
	ctx, cancel := context.WithTimeout(t.Context(), s)
	defer cancel()
	g, _ := run(t, ctx, c)
	if n := g.Snapshot(); n.Shed != 40 || g.failures()[cancelled.String()] != 40 {
		t.Fatalf("%+v %v", n, g.failures())
	}
	home := map[string]int{}
	for k := range uint64(40) {
		home[c.Crowd.Viewer(k).Home]++
	}
	got := map[string]int{}
	for _, e := range g.events {
		if e.Edge != map[string]string{"us-east": east.String(), "us-west": west.String()}[e.Region] {
			t.Errorf("%s answers for %s", e.Edge, e.Region)
		}
		got[e.Region]++
	}
	if !maps.Equal(got, home) || home["us-west"] == 0 {
		t.Errorf("shed by %v, want %v", got, home)
	}
}

// A service that dies in the middle and comes back: viewers go to the other region, and home again.
func TestServiceDiesAndComesBack(t *testing.T) {
	t.Parallel()
	serve := func(l net.Listener) func() {
		var mu sync.Mutex
		var conns []net.Conn
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				go func() {
					defer c.Close()
					always(response(200, good))(c.(*net.TCPConn))
				}()
			}
		}()
		return func() {
			l.Close()
			mu.Lock()
			defer mu.Unlock()
			for _, c := range conns {
				c.Close()
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.1.5:0")
	if err != nil {
		t.Fatal(err)
	}
	east := netip.MustParseAddrPort(l.Addr().String())
	stop := serve(l)
	c := config(t, nil, schedule(t, 3*s, audience.Leg{Rate: 1000}), east, listen(t, always(response(200, good))))
	c.InFlight = 2
	time.AfterFunc(s, stop)
	again := make(chan func(), 1)
	time.AfterFunc(2*s, func() {
		l, err := net.Listen("tcp", east.String())
		if err != nil {
			again <- func() {} // another has the port now: the other region goes on serving
			return
		}
		again <- serve(l)
	})
	g := mustRun(t, c)
	(<-again)()
	if n := g.Snapshot(); n.Intended != 3000 || n.OK < 2990 {
		t.Errorf("%+v, want about all ok", n)
	}
	served := map[string]int{}
	for _, e := range g.events {
		served[e.Region]++
	}
	if served["us-east"] < 500 || served["us-west"] < 1500 {
		t.Errorf("served by %v", served)
	}
}

func TestNewNamesEverythingWrong(t *testing.T) {
	_, err := New(Config{
		Services: []Service{{"a", netip.MustParseAddrPort("192.0.2.1:80")}, {"a", netip.MustParseAddrPort("127.0.0.1:80")}},
		InFlight: 8, Connections: Fresh, People: audience.People{Human: 2}, Nice: -21, UserAgent: "a\r\nb",
		Interruptions: []Interruption{{Name: "cut", Region: "nowhere", At: -1}},
		Target:        &Request{URL: "ftp://x", Body: "{{who}}", Session: "a..b"},
	})
	if !errors.Is(err, ErrNotLoopback) {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{
		"no schedule", "no crowd", "no sink", "no start time", "192.0.2.1:80", `two playback services for region "a"`, "8 requests in flight",
		"share of humans", `no playback service in region "nowhere"`, "a negative time",
		"a scheduling priority of -21", "the user agent is not one line", "want an http or https URL", "{{who}}", `path "a..b"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a loopback address is named: %v", err)
	}
}

// A permit is asked for before anything is sent, and its no is the error.
func TestPermit(t *testing.T) {
	var hits atomic.Int64
	addr := listen(t, func(c *net.TCPConn) { hits.Add(1) })
	no := errors.New("no consent")
	c := config(t, event.Discard, schedule(t, s, audience.Leg{Rate: 10}), addr)
	c.Permit = func(_ context.Context, a netip.AddrPort) error {
		if a != addr {
			t.Errorf("asked for %s", a)
		}
		return no
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); !errors.Is(err, no) || hits.Load() != 0 {
		t.Errorf("%v after %d connections", err, hits.Load())
	}
}

// On the way of a start nothing is allocated: what a run allocates does not grow with its starts.
func TestStartsDoNotAllocate(t *testing.T) {
	addr := startBare(t)
	allocs := func(d time.Duration) (starts, allocated uint64) {
		c := config(t, event.Discard, schedule(t, d, audience.Leg{Rate: 1}), addr)
		c.Saturate, c.Shards, c.PerService, c.InFlight, c.Start = true, 1, 8, 8, time.Now()
		g, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return g.Snapshot().OK, after.Mallocs - before.Mallocs
	}
	shorter, base := allocs(50 * ms)
	longer, more := allocs(500 * ms)
	if longer < shorter+1000 || more > base+(longer-shorter)/100+100 {
		t.Errorf("%d allocations for %d starts, %d for %d", base, shorter, more, longer)
	}
	t.Logf("%d allocations for %d starts, %d for %d", base, shorter, more, longer)
}

// The last of a crowd finds its home region's service gone. The other region's was looked at before, has room, and is asked
// at once: nobody after it will be due who would wake the loop.
func TestGoesOnAtOnceWhenNobodyElseIsDue(t *testing.T) {
	t.Parallel()
	for _, connections := range []Connections{KeepAlive, Fresh} {
		// It comes when the refused connections of the beginning have been heard of.
		c := config(t, nil, schedule(t, s/2, audience.Leg{At: s / 5, Rate: 10, For: s / 10}), listen(t, always(response(200, good))), refusing(t))
		c.Connections = connections
		for seed := uint64(1); c.Crowd.Viewer(0).Home != regions[1]; seed++ {
			var err error
			if c.Crowd, err = audience.NewCrowd(audience.DefaultMix, regions[:2], seed); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		n := mustRun(t, c).Snapshot()
		if n.Intended != 1 || n.OK != 1 {
			t.Errorf("%s: %+v", connections, n)
		}
		if took := time.Since(began); took > c.MaxSendLag/2 {
			t.Errorf("%s: took %v", connections, took)
		}
	}
}
