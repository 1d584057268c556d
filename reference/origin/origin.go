package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Defaults of Config, and the bounds of a write.
const (
	DefaultMaxBytes = 2 << 30 // bytes of segments in memory
	DefaultMaxReads = 2048    // reads being answered at once; held ones have a bound of their own
	DefaultMaxHolds = 8192    // reads held open at once
	maxWrites       = 256     // writes at once
	maxBody         = 8 << 20 // bytes of one segment

	// slowWrite is the time from a write's header to its visibility beyond which the write counts as a fault.
	slowWrite = 500 * time.Millisecond
)

// Config is what an origin needs. Stream, Region and Now are required.
type Config struct {
	Stream manifest.Stream
	Region string
	Policy availability.Policy // zero: availability.DefaultPolicy

	MaxBytes int64
	MaxReads int
	MaxHolds int
	// StressReads is the number of reads at once from which catch-up reads are refused; 0: half of MaxReads.
	StressReads int

	Now func() time.Time
	// Wall is the time of day when Now shows now: what readers and writers are told of the stream follows it; nil: Now is.
	Wall func(now time.Time) time.Time
	// Store, when set, is called before each operation of the store on so many bytes: it may take its time, and fail.
	Store func(ctx context.Context, write bool, size int) error

	Sink event.Sink   // nil: event.Discard
	Log  *slog.Logger // nil: silent
}

// Origin is one region's origin. Handler serves it; Run keeps it within its bounds.
type Origin struct {
	cfg   Config
	store store
	reads atomic.Int64 // being answered, without held ones
	holds atomic.Int64 // held open
	puts  atomic.Int64 // being written
	stats stats
}

// stats are counters since the last OriginStats event.
type stats struct {
	requests, ok, held, notFound, gone, busy, bad, bytesOut atomic.Int64
	writes, writesRefused, writesSlow, bytesIn              atomic.Int64
}

// New checks cfg.
func New(cfg Config) (*Origin, error) {
	if err := cfg.Stream.Validate(); err != nil {
		return nil, fmt.Errorf("origin %s: %w", cfg.Region, err)
	}
	if cfg.Now == nil {
		return nil, errors.New("origin: no clock given")
	}
	if cfg.Wall == nil {
		cfg.Wall = func(now time.Time) time.Time { return now }
	}
	if cfg.Store == nil {
		cfg.Store = func(context.Context, bool, int) error { return nil }
	}
	if cfg.Policy == (availability.Policy{}) {
		cfg.Policy = availability.DefaultPolicy
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxReads <= 0 {
		cfg.MaxReads = DefaultMaxReads
	}
	if cfg.MaxHolds <= 0 {
		cfg.MaxHolds = DefaultMaxHolds
	}
	if cfg.StressReads <= 0 {
		cfg.StressReads = max(1, cfg.MaxReads/2)
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Origin{cfg: cfg, store: store{maxBytes: cfg.MaxBytes}}, nil
}

// Run drops what has left the time-shift buffer and emits OriginStats, each second, until ctx ends.
func (o *Origin) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			o.sweep(o.cfg.Now())
			o.cfg.Sink.Emit(o.statsEvent())
		}
	}
}

// wall is the time of day.
func (o *Origin) wall() time.Time { return o.cfg.Wall(o.cfg.Now()) }

// sweep drops segments that no reader may have any more, and the empty entries of those that were waited for in vain.
func (o *Origin) sweep(now time.Time) {
	s := o.cfg.Stream
	keep := s.DVR
	if keep <= 0 {
		keep = time.Minute
	}
	o.store.evict(func(n uint64) bool { return now.Sub(s.Timeline.End(n)) > keep+evictAfter })
}

func (o *Origin) statsEvent() event.Event {
	take := func(c *atomic.Int64) float64 { return float64(c.Swap(0)) }
	s := &o.stats
	return event.Event{
		At: o.cfg.Now(), Kind: event.OriginStats, Region: o.cfg.Region, Component: "origin/" + o.cfg.Region,
		Nums: map[string]float64{
			"requests": take(&s.requests), "ok": take(&s.ok), "held": take(&s.held), "not_found": take(&s.notFound),
			"gone": take(&s.gone), "busy": take(&s.busy), "bad": take(&s.bad), "bytes": take(&s.bytesOut),
			"writes": take(&s.writes), "writes_refused": take(&s.writesRefused), "writes_slow": take(&s.writesSlow), "bytes_in": take(&s.bytesIn),
			"reading": float64(o.reads.Load()), "waiting": float64(o.holds.Load()), "writing": float64(o.puts.Load()),
			"segments": float64(o.store.segments.Load()), "stored_bytes": float64(o.store.bytes.Load()),
		},
	}
}
