package encoder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tminus-live/tminus/reference/timeline"
)

// DefaultCatchUp is how many segments before the newest a late encoder still hands over: what a player at the suggested
// delay of three segments can still use.
const DefaultCatchUp = 3

// Config is what an encoder needs.
type Config struct {
	Ladder   *Ladder
	Timeline timeline.Timeline
	First    uint64           // first segment of the event; started later, the encoder begins with the segment of the moment
	Last     uint64           // last segment; 0: until the context ends
	Now      func() time.Time // the wall clock
	// LeadIn is how many segments before the moment an event that just begins starts with, none before First: a player that
	// comes at once finds the few segments behind the live edge that it wants to begin with. They are handed over at once.
	LeadIn uint64
	// Publish takes each segment at its end time. It must not block for long: the next segment waits for it.
	Publish func(Segment)
	// CatchUp is how many segments before the newest complete one a late encoder (a hung process, a suspended machine) still hands over; 0: DefaultCatchUp.
	CatchUp uint64
	// Skipped, when set, is told which segments, both ends included, were given up because the encoder was too late.
	Skipped func(from, to uint64)
	Log     *slog.Logger // nil: silent
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Ladder == nil {
		errs = append(errs, errors.New("no ladder"))
	} else if c.Timeline != c.Ladder.tl {
		errs = append(errs, fmt.Errorf("timeline of %v; the ladder's clips are cut for %v", c.Timeline.Duration, c.Ladder.tl.Duration))
	}
	if c.Now == nil {
		errs = append(errs, errors.New("no clock"))
	}
	if c.Publish == nil {
		errs = append(errs, errors.New("nobody to publish to"))
	}
	if c.Last != 0 && c.Last < c.First {
		errs = append(errs, fmt.Errorf("last segment %d is before the first, %d", c.Last, c.First))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("encoder: %w", err)
	}
	return nil
}

// Encoder hands over the segments of an event, each when its last frame has been captured.
type Encoder struct {
	cfg Config
	log *slog.Logger
}

// New checks the configuration.
func New(cfg Config) (*Encoder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.CatchUp == 0 {
		cfg.CatchUp = DefaultCatchUp
	}
	cfg.CatchUp = max(cfg.CatchUp, cfg.LeadIn)
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Encoder{cfg: cfg, log: log}, nil
}

// Run hands over each segment at its end time, until the event's last segment or the end of ctx; both return nil. Every wait
// is for a time computed from the segment number, so lateness never adds up.
func (e *Encoder) Run(ctx context.Context) error {
	tl := e.cfg.Timeline
	at := tl.At(e.cfg.Now())
	for n := max(e.cfg.First, at-min(at, e.cfg.LeadIn)); e.cfg.Last == 0 || n <= e.cfg.Last; n++ {
		if !e.sleepUntil(ctx, tl.End(n)) {
			return nil
		}
		if from, to, late := e.skip(n); late {
			e.log.Warn("encoder was late, segments skipped", "from", from, "to", to)
			if e.cfg.Skipped != nil {
				e.cfg.Skipped(from, to)
			}
			n = to + 1
		}
		e.cfg.Publish(e.cfg.Ladder.Segment(n))
	}
	return nil
}

// skip says which segments from n on to give up at this moment so that at most CatchUp are behind the newest.
func (e *Encoder) skip(n uint64) (from, to uint64, late bool) {
	newest, ok := e.cfg.Timeline.LastComplete(e.cfg.Now())
	if e.cfg.Last != 0 {
		newest = min(newest, e.cfg.Last)
	}
	if !ok || newest <= n+e.cfg.CatchUp {
		return 0, 0, false
	}
	return n, newest - e.cfg.CatchUp - 1, true
}

// lookAgain bounds how late an encoder notices that the wall clock was set forward.
const lookAgain = 250 * time.Millisecond

// sleepUntil waits until the wall clock shows t; it returns false when ctx ends first. It looks again after each wait, and from time to
// time, because a wall clock can be set while a timer runs.
func (e *Encoder) sleepUntil(ctx context.Context, t time.Time) bool {
	for {
		d := t.Sub(e.cfg.Now())
		if d <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(d, lookAgain))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
