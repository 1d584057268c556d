package starts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

// ErrNotLoopback is why New refuses a service: without a Permit, a rehearsal's load never leaves the machine.
var ErrNotLoopback = errors.New("play starts are sent to loopback addresses only")

// Service is one region's playback service.
type Service struct {
	Region string
	Addr   netip.AddrPort
}

// Connections says what requests are sent on.
type Connections string

const (
	// KeepAlive: connections are kept, as a gateway fleet keeps them. The default.
	KeepAlive Connections = "keep-alive"
	// Fresh: a connection for each attempt, as devices make them. It is ended with a reset once the answer is there, so
	// that no port of this machine stays occupied (TIME_WAIT) and a minute of it does not run out of them.
	Fresh Connections = "fresh"
)

// Interruption takes viewers off the air: at At, the Viewers of a region who got their session last lose it. Each of
// them waits from At+For on, when the stream is back, for as long as the retry policy that came with the session says,
// or, being human, as long as People says, and then makes a new play start, on top of the schedule: its event has
// the State "return".
type Interruption struct {
	Name    string
	At, For time.Duration // since T+0
	Region  string        // whose playback service gave them their session; "" is any
	Viewers int
	Guided  bool // false: nobody holds to the policy, everyone is human (People.Again says how many come back)
}

// Config says what to send where. Zero limits take the defaults that their comments name.
type Config struct {
	Schedule *audience.Schedule
	Crowd    *audience.Crowd
	Services []Service // in the order of fail-over; a viewer starts at its home region's and goes round
	Title    string    // the event, as the playback services name it
	Token    string    // sent as it is, in the request of a nil Target
	Start    time.Time // T+0 on the wall clock
	// Sink takes one event for each play start. The event's strings may lie in memory that is used again: Emit must copy
	// what it keeps before it returns, as an emitter that encodes does. It is called from the shards' loops: what
	// it costs, they cannot send in.
	Sink event.Sink
	Log  *slog.Logger // nil: silent

	Target    *Request // nil: POST /v1/play of the reference playback service
	UserAgent string   // "tminus"

	Connections Connections
	TLS         *tls.Config // nil: plain TCP. With it InFlight is 1
	PerService  int         // connections kept to each service: 64
	InFlight    int         // requests in flight on a kept connection: 1; above that they are pipelined
	Shards      int         // event loops, each with its thread: one for each processor, 2 at most
	// Nice is the scheduling priority that the loops' threads ask for, -20 to 19; 0: as it is. Where it is refused they wait
	// their turn. With TLS there are no such threads, and it has no effect.
	Nice int
	// Coalesce is how long an answer may lie unread while others come, so that one wake-up takes many: at 100,000 a
	// second it spares most of them. It is part of the latency that is measured. While starts are due it lasts half a
	// millisecond at most. 0: each answer is read at once.
	Coalesce time.Duration
	// Saturate sends as fast as the connections carry it, until the schedule's end: the schedule's rates do not
	// count, and a start is due when there is room for it.
	Saturate bool

	People        audience.People
	Seed          uint64 // of the people's draws
	Interruptions []Interruption

	MaxInFlight    int           // Fresh: starts being sent at once: 4096
	MaxSendLag     time.Duration // a start not sent so long after its moment is dropped: 2 s
	AttemptTimeout time.Duration // connecting and the whole answer: 1 s
	MaxRetries     int           // bound on the retries that a shedding server asks for: 3
	Drain          time.Duration // how long after the schedule's end viewers may still come back: 10 s

	// MaxRate bounds the requests of each second, those of viewers who try again included: these wait for a second in which the
	// schedule leaves room for them. The schedule's own starts do not wait: its peak is for the caller to check. 0: nobody waits.
	MaxRate float64
	// MaxLength is how long after T+0 viewers may still come back at the most. 0: Drain says it alone.
	MaxLength time.Duration

	// Permit says whether load may be sent to an address, nil meaning that it may; asked before the first start and every
	// minute, from a goroutine of its own. A nil Permit permits loopback addresses alone.
	Permit func(ctx context.Context, addr netip.AddrPort) error
}

// Bounds that no configuration lifts.
const (
	maxQueue      = 1 << 18          // starts that wait for a connection
	maxParked     = 1 << 20          // viewers who wait to come back
	maxRemembered = 1 << 20          // viewers of a region who can be interrupted
	maxRetryAfter = 10 * time.Minute // the longest wait that a server may ask for
	maxServices   = 64
	maxShards     = 16
	maxConns      = 1 << 16 // of one kind, to one service
	maxPipeline   = 256
	permitEvery   = time.Minute
)

// Generator sends a schedule's play starts. Run it once.
type Generator struct {
	c       Config
	reading reading
	shards  []*shard
	tls     *dialers
	horizon time.Duration // nobody comes back later

	clock atomic.Pointer[time.Time] // T+0 with a monotonic reading; nil before Run
}

// New checks the configuration; the error names everything wrong with it at once. Nothing is sent before Run.
func New(c Config) (*Generator, error) {
	var errs []error
	need := func(ok bool, what string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("play starts: "+what, a...))
		}
	}
	need(c.Schedule != nil, "no schedule")
	need(c.Crowd != nil, "no crowd")
	need(c.Sink != nil, "no sink for events")
	need(!c.Start.IsZero(), "no start time")
	need(len(c.Services) > 0, "no playback service")
	need(len(c.Services) <= maxServices, "%d playback services, at most %d", len(c.Services), maxServices)
	need(c.MaxRate >= 0 && c.MaxLength >= 0, "a ceiling of %v requests a second and one of %v, neither of which may be negative", c.MaxRate, c.MaxLength)
	need(c.MaxInFlight >= 0 && c.MaxSendLag >= 0 && c.AttemptTimeout >= 0 && c.MaxRetries >= 0 && c.Drain >= 0 && c.Coalesce >= 0 &&
		c.PerService >= 0 && c.InFlight >= 0 && c.Shards >= 0, "negative limit")
	need(c.Connections == "" || c.Connections == KeepAlive || c.Connections == Fresh, "unknown connections %q: want %s or %s", c.Connections, KeepAlive, Fresh)
	need(c.InFlight <= 1 || c.TLS == nil && c.Connections != Fresh, "%d requests in flight on a connection need kept ones without TLS", c.InFlight)
	need(c.InFlight <= maxPipeline, "%d requests in flight on a connection, at most %d", c.InFlight, maxPipeline)
	need(c.PerService <= maxConns && c.MaxInFlight <= maxConns, "more than %d connections to a service", maxConns)
	need(c.Shards <= maxShards, "%d shards, at most %d", c.Shards, maxShards)
	need(c.Nice >= -20 && c.Nice <= 19, "a scheduling priority of %d, want -20 to 19", c.Nice)
	need(!strings.ContainsFunc(c.UserAgent, isControl) && len(c.UserAgent) <= maxAgent, "the user agent is not one line of text of at most %d bytes", maxAgent)
	need(c.Coalesce <= 10*time.Millisecond, "answers may lie unread for 10ms at most, not %v", c.Coalesce)
	if err := c.People.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("play starts: %w", err))
	}
	homes := map[string]bool{}
	for _, s := range c.Services {
		if c.Permit == nil && !s.Addr.Addr().Unmap().IsLoopback() {
			errs = append(errs, fmt.Errorf("%w, and the playback service of %s is at %s", ErrNotLoopback, s.Region, s.Addr))
		}
		need(!homes[s.Region], "two playback services for region %q", s.Region)
		homes[s.Region] = true
	}
	for _, i := range c.Interruptions {
		need(i.Viewers >= 0 && i.Viewers <= maxRemembered, "interruption %q: %d viewers, at most %d", i.Name, i.Viewers, maxRemembered)
		need(i.At >= 0 && i.For >= 0, "interruption %q: a negative time", i.Name)
		need(c.Schedule == nil || i.At <= c.Schedule.End(), "interruption %q: at %v, after the schedule's end", i.Name, i.At)
		need(i.Region == "" || homes[i.Region], "interruption %q: no playback service in region %q", i.Name, i.Region)
	}

	c.MaxInFlight = or(c.MaxInFlight, 4096)
	c.MaxSendLag = or(c.MaxSendLag, 2*time.Second)
	c.AttemptTimeout = or(c.AttemptTimeout, time.Second)
	c.MaxRetries = or(c.MaxRetries, 3)
	c.Drain = or(c.Drain, 10*time.Second)
	c.Connections = or(c.Connections, KeepAlive)
	c.PerService = or(c.PerService, 64)
	c.InFlight = or(c.InFlight, 1)
	c.Shards = or(c.Shards, min(runtime.GOMAXPROCS(0), 2))
	c.UserAgent = or(c.UserAgent, "tminus")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	request := c.Target
	if request == nil {
		request = &builtIn
	}
	g := &Generator{c: c}
	if err := request.Validate(c.TLS != nil); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	if g.reading, err = request.reading(); err != nil {
		return nil, err
	}
	var templates []*template
	for _, s := range c.Services {
		t, err := request.compile(&c, unmapped(s.Addr).String())
		if err != nil {
			return nil, err
		}
		templates = append(templates, t)
	}
	g.horizon = c.Schedule.End() + c.Drain
	if c.MaxLength > 0 {
		g.horizon = min(g.horizon, c.MaxLength-1) // before then
	}
	if c.TLS != nil {
		g.tls = newDialers(g)
	}
	for id := range c.Shards {
		g.shards = append(g.shards, newShard(g, id, templates))
	}
	return g, nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// part is shard id's part of n things: the parts add up to n, and every shard has at least least.
func (g *Generator) part(n, id, least int) int {
	shards := g.c.Shards
	return max(n*(id+1)/shards-n*id/shards, least)
}

// Run sends the schedule's starts and returns nil when the last one has ended, or the error that ended it early: the
// context's, Permit's, or that a loop had no descriptors. Then what was on its way has failed, what waited is
// dropped, and both are counted. Starts that were not yet due are not counted as intended.
func (g *Generator) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := g.permitted(ctx); err != nil {
		return err
	}
	for i, s := range g.shards {
		if err := s.open(); err != nil {
			for _, s := range g.shards[:i] {
				s.close()
			}
			return fmt.Errorf("play starts: %w", err)
		}
	}
	// A start time from another process has no monotonic reading: take this clock's, so that a step of the wall clock
	// cannot bend the schedule.
	zero := time.Now().Add(time.Until(g.c.Start))
	g.clock.Store(&zero)
	g.c.Log.Debug("play starts begin", "total", g.c.Schedule.Total(), "services", len(g.c.Services), "shards", len(g.shards))

	stop := context.AfterFunc(ctx, func() {
		for _, s := range g.shards {
			s.interrupt()
		}
		g.tls.interrupt()
	})
	defer stop()
	var checks sync.WaitGroup
	checking, checked := context.WithCancel(ctx)
	if g.c.Permit != nil {
		checks.Go(func() { g.keepPermitted(checking, cancel) })
	}
	var loops sync.WaitGroup
	for _, s := range g.shards {
		loops.Go(func() {
			if err := s.run(zero); err != nil {
				cancel(fmt.Errorf("play starts: %w", err))
			}
		})
	}
	loops.Wait()
	checked()
	checks.Wait()
	g.tls.close()
	stop()
	for _, s := range g.shards {
		s.close()
	}
	err := context.Cause(ctx)
	g.c.Log.Debug("play starts end", "error", err)
	return err
}

func (g *Generator) permitted(ctx context.Context) error {
	if g.c.Permit == nil {
		return nil
	}
	for _, s := range g.c.Services {
		if err := g.c.Permit(ctx, s.Addr); err != nil {
			return fmt.Errorf("play starts to %s (%s): %w", s.Region, s.Addr, err)
		}
	}
	return nil
}

// keepPermitted asks again every minute and ends the run when the answer is no.
func (g *Generator) keepPermitted(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(permitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := g.permitted(ctx); err != nil && ctx.Err() == nil {
			end(err)
			return
		}
	}
}

func millis(d time.Duration) float64 { return float64(d) / 1e6 }
