package starts

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

// ErrNotLoopback is why New refuses a service: a rehearsal's load never leaves the machine.
var ErrNotLoopback = errors.New("play starts are sent to loopback addresses only")

// Service is one region's playback service.
type Service struct {
	Region string
	Addr   netip.AddrPort
}

// Config says what to send where. Zero limits take the defaults that their comments name.
type Config struct {
	Schedule *audience.Schedule
	Crowd    *audience.Crowd
	Services []Service // in the order of fail-over; a viewer starts at its home region's and goes round
	Title    string    // the event, as the playback services name it
	Token    string    // sent as it is
	Start    time.Time // T+0 on the wall clock
	Sink     event.Sink
	Log      *slog.Logger // nil: silent

	MaxInFlight    int           // starts being sent at once: 4096
	MaxSendLag     time.Duration // a start not sent so long after its moment is dropped: 2 s
	AttemptTimeout time.Duration // connecting and the whole answer: 1 s
	MaxRetries     int           // bound on the retries that a shedding server asks for: 3
	MaxIdle        int           // keep-alive connections kept per service: 512

	// Dial replaces net.Dialer.DialContext, for tests. The context carries the attempt's deadline.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Bounds that no configuration lifts.
const (
	maxQueue      = 1 << 15         // starts that wait for a worker
	maxWaiting    = 1 << 16         // starts that wait for the moment a server asked them to come back at
	maxRetryAfter = 5 * time.Second // the longest such wait
)

// Generator sends a schedule's play starts. Run it once.
type Generator struct {
	c     Config
	pools []*pool
	home  map[string]int                // region → index of its service
	body  struct{ title, token []byte } // the parts of the request that every start shares

	zero    time.Time // T+0 with a monotonic reading
	queue   chan start
	workers []*worker
	busy    atomic.Int64  // starts queued or in a worker's hands
	poke    chan struct{} // something changed that the pacer waits for

	mu      sync.Mutex
	waiting waitingHeap // guarded by mu

	stats stats
}

// start is one play start on its way.
type start struct {
	k        uint64
	intended time.Duration
	sent     time.Duration
	resume   time.Duration // when to come back, while waiting
	service  int           // index of the service to try next; -1: the home region's
	attempts uint32
	retries  int
}

// New checks the configuration; the error names everything wrong with it at once. Nothing is sent before Run.
func New(c Config) (*Generator, error) {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("play starts: %s", what))
		}
	}
	need(c.Schedule != nil, "no schedule")
	need(c.Crowd != nil, "no crowd")
	need(c.Sink != nil, "no sink for events")
	need(!c.Start.IsZero(), "no start time")
	need(len(c.Services) > 0, "no playback service")
	need(c.MaxInFlight >= 0 && c.MaxSendLag >= 0 && c.AttemptTimeout >= 0 && c.MaxRetries >= 0 && c.MaxIdle >= 0, "negative limit")
	g := &Generator{home: map[string]int{}, poke: make(chan struct{}, 1)}
	for i, s := range c.Services {
		if !s.Addr.Addr().Unmap().IsLoopback() {
			errs = append(errs, fmt.Errorf("%w, and the playback service of %s is at %s", ErrNotLoopback, s.Region, s.Addr))
		}
		if _, twice := g.home[s.Region]; twice {
			errs = append(errs, fmt.Errorf("play starts: two playback services for region %q", s.Region))
		}
		g.home[s.Region] = i
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.MaxInFlight = or(c.MaxInFlight, 4096)
	c.MaxSendLag = or(c.MaxSendLag, 2*time.Second)
	c.AttemptTimeout = or(c.AttemptTimeout, time.Second)
	c.MaxRetries = or(c.MaxRetries, 3)
	c.MaxIdle = or(c.MaxIdle, 512)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	g.c = c
	for _, s := range c.Services {
		addr := netip.AddrPortFrom(s.Addr.Addr().Unmap(), s.Addr.Port()).String()
		g.pools = append(g.pools, &pool{region: s.Region, addr: addr, max: c.MaxIdle, head: requestHead(addr)})
	}
	quoted := func(s string) []byte {
		b, _ := json.Marshal(s) // a string always marshals
		return b
	}
	g.body.title = append([]byte(`{"title":`), quoted(c.Title)...)
	g.body.token = append(append([]byte(`,"token":`), quoted(c.Token)...), '}')
	g.queue = make(chan start, maxQueue)
	return g, nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// now is the time since T+0.
func (g *Generator) now() time.Duration { return time.Since(g.zero) }

// Run sends the schedule's starts and returns nil when the last one has ended, or the context's error when it is
// cancelled: what was on its way has then failed, what waited is dropped, and both are counted. Starts that were not
// yet due are not counted as intended.
func (g *Generator) Run(ctx context.Context) error {
	// A start time from another process has no monotonic reading: take this clock's, so that a step of the wall clock
	// cannot bend the schedule.
	g.zero = time.Now().Add(time.Until(g.c.Start))
	stop := context.AfterFunc(ctx, g.interrupt)
	defer stop()
	g.c.Log.Debug("play starts begin", "total", g.c.Schedule.Total(), "services", len(g.pools))

	var wg sync.WaitGroup
	err := g.pace(ctx, &wg)
	close(g.queue)
	wg.Wait()
	for _, p := range g.pools {
		p.close()
	}
	g.c.Log.Debug("play starts end", "error", err)
	return err
}

func (g *Generator) pace(ctx context.Context, wg *sync.WaitGroup) error {
	p := newPacer(g.c.Schedule)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ctx.Err() != nil {
			for _, s := range g.takeWaiting(1<<63 - 1) {
				g.finish(s, end{status: Shed, detail: whyCancelled, service: s.service})
			}
			return ctx.Err()
		}
		now := g.now()
		for _, s := range g.takeWaiting(now) {
			if !g.submit(ctx, s, wg) {
				g.finish(s, end{status: Shed, detail: whyQueueFull, service: s.service})
			}
		}
		p.release(now, func(k uint64, intended time.Duration) {
			s := start{k: k, intended: intended, service: -1}
			g.stats.intend()
			if !g.submit(ctx, s, wg) {
				g.finish(s, end{status: Dropped, detail: whyQueueFull})
			}
		})
		wake, more := p.wake(now)
		if resume, ok := g.nextWaiting(); ok && (!more || resume < wake) {
			wake, more = max(resume, now+quantum), true
		}
		switch {
		case more:
			timer.Reset(wake - g.now())
		case g.busy.Load() == 0 && !g.anyWaiting():
			return nil
		default:
			timer.Stop() // the last workers poke when they are done
		}
		select {
		case <-timer.C:
		case <-g.poke:
		case <-ctx.Done():
		}
	}
}

// submit hands a start to a worker, and hires one when all are busy. It never blocks; false: the queue is full.
func (g *Generator) submit(ctx context.Context, s start, wg *sync.WaitGroup) bool {
	busy := g.busy.Add(1)
	select {
	case g.queue <- s:
	default:
		g.busy.Add(-1)
		return false
	}
	if n := len(g.workers); busy > int64(n) && n < g.c.MaxInFlight {
		w := newWorker(g)
		g.mu.Lock() // interrupt walks the workers
		g.workers = append(g.workers, w)
		g.mu.Unlock()
		wg.Go(func() { w.run(ctx) })
	}
	return true
}

// interrupt ends every read and write in progress.
func (g *Generator) interrupt() {
	g.mu.Lock()
	workers := g.workers
	g.mu.Unlock()
	for _, w := range workers {
		w.interrupt()
	}
}

func (g *Generator) wakePacer() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// comeBack parks a start until the moment that a server asked for; false: too many wait already.
func (g *Generator) comeBack(s start) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) >= maxWaiting {
		return false
	}
	heap.Push(&g.waiting, s)
	if g.waiting[0].k == s.k {
		g.wakePacer()
	}
	return true
}

func (g *Generator) takeWaiting(now time.Duration) []start {
	g.mu.Lock()
	defer g.mu.Unlock()
	var due []start
	for len(g.waiting) > 0 && g.waiting[0].resume <= now {
		due = append(due, heap.Pop(&g.waiting).(start))
	}
	return due
}

func (g *Generator) nextWaiting() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		return 0, false
	}
	return g.waiting[0].resume, true
}

func (g *Generator) anyWaiting() bool {
	_, any := g.nextWaiting()
	return any
}

// waitingHeap orders parked starts by the moment they come back at; ties by number, so that order is the same each run.
type waitingHeap []start

func (h waitingHeap) Len() int { return len(h) }
func (h waitingHeap) Less(i, j int) bool {
	return h[i].resume < h[j].resume || h[i].resume == h[j].resume && h[i].k < h[j].k
}
func (h waitingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *waitingHeap) Push(x any)   { *h = append(*h, x.(start)) }
func (h *waitingHeap) Pop() any {
	old := *h
	last := len(old) - 1
	s := old[last]
	*h = old[:last]
	return s
}

// end is how a start ended.
type end struct {
	status  string
	detail  string
	session string
	service int // index of the service that answered, or was tried last; meaningless for a drop
}

// finish counts a start and puts it on the timeline: exactly once for each intended start.
func (g *Generator) finish(s start, e end) {
	now := g.now()
	v := g.c.Crowd.Viewer(s.k)
	ev := event.Event{
		At:        g.zero.Add(now).UTC(),
		Kind:      event.PlayStart,
		Status:    e.status,
		Component: "starts",
		Region:    v.Home,
		Session:   e.session,
		Device:    v.Device,
		ISP:       v.ISP,
		Detail:    e.detail,
		Value:     millis(now - s.intended),
		Attempts:  s.attempts,
	}
	if e.status == Dropped {
		ev.LagMS = ev.Value
	} else {
		ev.LagMS = millis(s.sent - s.intended)
		p := g.pools[e.service]
		ev.Edge = p.addr
		if e.status != Failed {
			ev.Region = p.region
		}
	}
	g.stats.end(now, e.status)
	g.c.Sink.Emit(ev)
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }

// render writes the request for viewer v to service p into buf.
func (g *Generator) render(buf []byte, p *pool, v audience.Viewer) []byte {
	id := v.Name()
	const keys = len(`,"device":""`) + len(`,"viewer":""`) + len(`,"region":""`)
	length := len(g.body.title) + keys + len(v.Device) + len(id) + len(v.Home) + len(g.body.token)
	buf = append(buf[:0], p.head...)
	buf = strconv.AppendInt(buf, int64(length), 10)
	buf = append(buf, "\r\n\r\n"...)
	buf = append(buf, g.body.title...)
	// Devices and regions are words of ours without characters that JSON escapes: audience's tables, spec's name form.
	buf = append(append(append(buf, `,"device":"`...), v.Device...), '"')
	buf = append(append(append(buf, `,"viewer":"`...), id...), '"')
	buf = append(append(append(buf, `,"region":"`...), v.Home...), '"')
	return append(buf, g.body.token...)
}
