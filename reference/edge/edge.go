package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Defaults of Config.
const (
	DefaultMaxBytes   = 256 << 20
	DefaultMaxFills   = 1024
	DefaultMaxWaiting = 100_000

	DefaultPatience = time.Second
	DefaultFailFor  = 2 * time.Second
	DefaultErrorTTL = 500 * time.Millisecond

	connectTimeout = 500 * time.Millisecond
	// healthyFor is how long a successful fill, or look at an origin, vouches for the edge.
	healthyFor = 3 * time.Second
)

// Config is what an edge needs. ID, Stream, Origins and Now are required.
type Config struct {
	ID      string // "us-east-1"
	Region  string
	Stream  manifest.Stream
	Policy  availability.Policy // the origins'; zero: availability.DefaultPolicy
	Origins []Origin            // in fill order, the own region's first

	// Version is part of every cache key: an edge with another version shares nothing with what was cached before.
	Version string

	MaxBytes   int64 // of the cache
	MaxFills   int   // fills at once
	MaxWaiting int   // viewers waiting for fills at once

	Patience time.Duration // how long an origin may take over an answer it should have before the next is asked too
	FailFor  time.Duration // how long a failing origin goes last, give or take half
	ErrorTTL time.Duration // how long "no origin answered" is believed, give or take half
	Seed     uint64        // of the jitter

	// Tokens, when not nil, checks the token that a path begins with: 403 when it is forged, broken or over. A path without one is refused
	// as well, but for /healthz and /time, unless Bare is set.
	Tokens *token.Gate
	Bare   bool

	LocalAddr netip.Addr        // fills are dialled from here; zero: any
	Transport http.RoundTripper // nil: an http.Transport that dials from LocalAddr

	Now func() time.Time
	// Wall is the time of day when Now shows now: tokens, /time and what the template refuses follow it; nil: Now is.
	Wall func(now time.Time) time.Time
	// Wiped, when set, says when the edge last had to forget what it has cached.
	Wiped func(now time.Time) time.Time

	Sink event.Sink   // nil: event.Discard
	Log  *slog.Logger // nil: silent
}

// Edge is one caching node. Handler serves it; Run keeps it honest about its health and within its bounds, and ends its
// fills.
type Edge struct {
	cfg       Config
	upstreams *upstreams

	mu      sync.Mutex // guards cache, wiped and flights
	cache   *cache
	wiped   time.Time
	flights map[string]*flight

	waiting  atomic.Int64
	filling  atomic.Int64
	lastFill atomic.Int64 // Unix nanoseconds of the last time that an origin answered well

	stopping context.Context // ends when the edge stops: fills belong to the edge, not to a viewer
	stop     context.CancelFunc
	fills    sync.WaitGroup
	attempts sync.WaitGroup
	stats    stats
}

// stats are counters since the last EdgeStats event.
type stats struct {
	requests, hits, fills, collapsed, refused, upstream, bytes, errors, shed, forbidden atomic.Int64
}

// flight is one fill in the air. obj is set before done is closed.
type flight struct {
	done chan struct{}
	obj  *object
}

// New checks cfg.
func New(cfg Config) (*Edge, error) {
	switch {
	case cfg.ID == "":
		return nil, errors.New("edge: no id given")
	case len(cfg.Origins) == 0:
		return nil, fmt.Errorf("edge %s: no origin to fill from", cfg.ID)
	case cfg.Now == nil:
		return nil, fmt.Errorf("edge %s: no clock given", cfg.ID)
	}
	if err := cfg.Stream.Validate(); err != nil {
		return nil, fmt.Errorf("edge %s: %w", cfg.ID, err)
	}
	if cfg.Policy == (availability.Policy{}) {
		cfg.Policy = availability.DefaultPolicy
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxFills <= 0 {
		cfg.MaxFills = DefaultMaxFills
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = DefaultMaxWaiting
	}
	if cfg.Patience <= 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.FailFor <= 0 {
		cfg.FailFor = DefaultFailFor
	}
	if cfg.ErrorTTL <= 0 {
		cfg.ErrorTTL = DefaultErrorTTL
	}
	if cfg.Wall == nil {
		cfg.Wall = func(now time.Time) time.Time { return now }
	}
	if cfg.Wiped == nil {
		cfg.Wiped = func(time.Time) time.Time { return time.Time{} }
	}
	if cfg.Transport == nil {
		cfg.Transport = transport(cfg.LocalAddr, cfg.MaxFills)
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Edge{
		cfg:     cfg,
		cache:   newCache(cfg.MaxBytes),
		flights: make(map[string]*flight),
		upstreams: &upstreams{origins: cfg.Origins, failFor: cfg.FailFor, trial: 2 * cfg.Patience, seed: cfg.Seed,
			state: make([]upstream, len(cfg.Origins))},
	}
	e.stopping, e.stop = context.WithCancel(context.Background())
	return e, nil
}

func transport(local netip.Addr, maxConns int) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 5 * time.Second}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableCompression:     true,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

// Run looks after the edge until ctx ends: it emits EdgeStats each second, drops what is stale, and asks an origin how it is
// when no viewer made the edge ask lately. It returns when every fill has ended.
func (e *Edge) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var looking sync.WaitGroup
	look := func() { looking.Go(func() { e.look(ctx) }) }
	look()
	for {
		select {
		case <-ctx.Done():
			e.mu.Lock() // no fill starts after this
			e.stop()
			e.mu.Unlock()
			looking.Wait()
			e.fills.Wait()
			e.attempts.Wait()
			if t, ok := e.cfg.Transport.(*http.Transport); ok {
				t.CloseIdleConnections()
			}
			return nil
		case <-tick.C:
			now := e.cfg.Now()
			e.mu.Lock()
			e.wipe(now)
			e.cache.expire(now, 256)
			e.mu.Unlock()
			e.cfg.Sink.Emit(e.statsEvent(now))
			if now.Sub(time.Unix(0, e.lastFill.Load())) > time.Second {
				look()
			}
		}
	}
}

// wipe forgets what is cached when that is due. The caller holds mu.
func (e *Edge) wipe(now time.Time) {
	if at := e.cfg.Wiped(now); at.After(e.wiped) {
		e.wiped, e.cache = at, newCache(e.cfg.MaxBytes)
	}
}

// look asks the origins, in order, whether they are there, until one is. It takes less than a tick.
func (e *Edge) look(ctx context.Context) {
	for _, i := range e.upstreams.order(e.cfg.Now()) {
		if e.alive(ctx, i) {
			e.upstreams.succeeded(i)
			e.lastFill.Store(e.cfg.Now().UnixNano())
			return
		}
		if ctx.Err() != nil {
			return
		}
		e.upstreams.failed(i, e.cfg.Now())
	}
}

func (e *Edge) alive(ctx context.Context, i int) bool {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.cfg.Origins[i].URL+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := e.cfg.Transport.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Healthy says whether an origin answered this edge lately.
func (e *Edge) Healthy() bool {
	return e.cfg.Now().Sub(time.Unix(0, e.lastFill.Load())) < healthyFor
}

func (e *Edge) statsEvent(now time.Time) event.Event {
	take := func(c *atomic.Int64) float64 { return float64(c.Swap(0)) }
	e.mu.Lock()
	cached, entries := e.cache.bytes, len(e.cache.entries)
	e.mu.Unlock()
	healthy := 0.0
	if e.Healthy() {
		healthy = 1
	}
	s := &e.stats
	return event.Event{
		At: now, Kind: event.EdgeStats, Region: e.cfg.Region, Component: "edge/" + e.cfg.ID, Edge: e.cfg.ID,
		Nums: map[string]float64{
			"requests": take(&s.requests), "hits": take(&s.hits), "fills": take(&s.fills), "collapsed": take(&s.collapsed),
			"refused": take(&s.refused), "upstream": take(&s.upstream), "bytes": take(&s.bytes), "errors": take(&s.errors), "shed": take(&s.shed), "forbidden": take(&s.forbidden),
			"waiting": float64(e.waiting.Load()), "filling": float64(e.filling.Load()),
			"cached_bytes": float64(cached), "cached_objects": float64(entries), "healthy": healthy,
		},
	}
}
