package packager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Limits of publishing to one origin.
const (
	// Deadline is how long after its end a segment is worth publishing as live: past it an origin answers 410. What
	// misses it is made good in the background once the origin is back.
	Deadline = 2 * time.Second
	// attemptTimeout bounds one PUT; a store that takes over 500 ms is already a fault.
	attemptTimeout = time.Second
	// refreshEvery re-publishes the init segments, in case an origin was replaced by an empty one between two PUTs.
	refreshEvery = 10 * time.Second
	backoffMin   = 100 * time.Millisecond
	backoffMax   = time.Second
	// workers is how many PUTs to one origin run at a time: a segment of every rendition.
	workers = 5
	// maxLive bounds the live queue, and the background queue too. Live segments leave after Deadline, so it fills only when
	// time stands still; the background queue is made anew from the store when an origin returns.
	maxLive = 256
)

// errLost says that an origin has lost what it had: its process is gone, or it says that it misses an init segment.
var errLost = errors.New("origin lost its segments")

// errRejected says that an origin will never take this object.
var errRejected = errors.New("rejected")

// errOrdered says that a PUT fails because it is to fail.
var errOrdered = errors.New("refused on order")

// task is one object on its way to one origin.
type task struct {
	*object
	due      time.Time // end of the segment
	late     bool      // missed its deadline: background work
	attempts uint32
}

// publisher publishes to one origin. It is in one of two states: announcing, when it does nothing but put the init
// segments until that works, and serving, when it publishes what is queued and falls back to announcing at the first failure.
// A dead origin therefore costs one connection attempt a backoff, and nothing piles up.
type publisher struct {
	origin   Origin
	pipeline string
	tl       timeline.Timeline
	store    *store
	client   *http.Client
	refuse   func(origin string, segment uint64) bool
	now      func() time.Time
	sink     event.Sink
	log      *slog.Logger

	mu     sync.Mutex
	live   []*task         // oldest first
	late   []*task         // newest first
	stored map[string]bool // media paths this origin has, as far as is known
	wake   chan struct{}   // one token: there may be work
}

func newPublisher(o Origin, cfg Config, s *store, client *http.Client) *publisher {
	return &publisher{
		origin: o, pipeline: cfg.Pipeline, tl: cfg.Timeline, store: s, client: client, refuse: cfg.Refuse,
		now: cfg.Now, sink: cfg.Sink, log: cfg.Log.With("origin", o.Name),
		stored: make(map[string]bool),
		wake:   make(chan struct{}, 1),
	}
}

// enqueue queues media segments; it never blocks. A segment that comes when its deadline has passed already (lead-in, or
// from an encoder that was held up) is background work from the start: it is the encoder's lateness, not a failure to publish.
func (p *publisher) enqueue(objects []*object) {
	now := p.now()
	p.mu.Lock()
	for _, o := range objects {
		t := &task{object: o, due: p.tl.End(o.number)}
		if now.After(t.due.Add(Deadline)) {
			t.late = true
			p.late = append([]*task{t}, p.late...)
		} else {
			p.live = append(p.live, t)
		}
	}
	p.late = p.late[:min(len(p.late), maxLive)]
	var lost []*task
	if over := len(p.live) - maxLive; over > 0 {
		lost = p.live[:over]
		p.live = p.live[over:]
	}
	p.mu.Unlock()
	for _, t := range lost {
		p.emit(t, "failed", 0)
	}
	p.expire()
	p.signal()
}

func (p *publisher) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// expire turns live segments whose deadline has passed into background work.
func (p *publisher) expire() {
	now := p.now()
	var missed []*task
	p.mu.Lock()
	kept := p.live[:0]
	for _, t := range p.live {
		if t.media && now.After(t.due.Add(Deadline)) {
			missed = append(missed, t)
		} else {
			kept = append(kept, t)
		}
	}
	clear(p.live[len(kept):])
	p.live = kept
	for _, t := range missed {
		p.late = append([]*task{{object: t.object, due: t.due, late: true, attempts: t.attempts}}, p.late...)
	}
	p.late = p.late[:min(len(p.late), maxLive)]
	p.mu.Unlock()
	for _, t := range missed {
		p.emit(t, "failed", 0)
	}
}

// take returns the next task: live before late. It returns nil when ctx ends.
func (p *publisher) take(ctx context.Context) *task {
	for {
		if ctx.Err() != nil {
			return nil
		}
		p.expire()
		p.mu.Lock()
		var t *task
		if len(p.live) > 0 {
			t, p.live = p.live[0], p.live[1:]
		} else if len(p.late) > 0 {
			t, p.late = p.late[0], p.late[1:]
		}
		more := len(p.live)+len(p.late) > 0
		p.mu.Unlock()
		if more {
			p.signal()
		}
		if t != nil {
			return t
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		}
	}
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) {
	backoff, down := backoffMin, false
	for ctx.Err() == nil {
		err := p.announce(ctx)
		if err == nil {
			if down {
				p.log.Info("origin takes segments again")
			}
			down = false
			p.makeGood()
			if p.serve(ctx) {
				backoff = backoffMin
				continue
			}
			// It takes init segments and nothing else: as good as down, and no reason to hurry.
			err = errors.New("no media segment was stored")
		}
		p.expire()
		// Not at once: while a pipeline starts, an origin is a few tenths of a second late.
		if !down && backoff > 2*backoffMin && ctx.Err() == nil {
			p.log.Warn("origin does not take segments", "err", err)
			down = true
		}
		sleep(ctx, backoff)
		backoff = min(2*backoff, backoffMax)
	}
}

// announce puts every init segment, one after the other.
func (p *publisher) announce(ctx context.Context) error {
	for _, o := range p.store.inits {
		if err := p.put(ctx, o); err != nil && !errors.Is(err, errRejected) {
			if errors.Is(err, errLost) {
				p.forget()
			}
			return err
		}
	}
	return nil
}

// forget empties what the origin is known to have.
func (p *publisher) forget() {
	p.mu.Lock()
	clear(p.stored)
	p.mu.Unlock()
}

// makeGood queues, behind all live work, the kept segments that the origin does not have.
func (p *publisher) makeGood() {
	p.expire()
	kept := p.store.media()
	known := make(map[string]bool, len(kept))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.live {
		known[t.path] = true
	}
	p.late = p.late[:0]
	have := make(map[string]bool, len(kept))
	for _, o := range kept {
		if p.stored[o.path] {
			have[o.path] = true
		} else if !known[o.path] {
			p.late = append(p.late, &task{object: o, due: p.tl.End(o.number), late: true})
		}
	}
	p.stored = have // forgets what the store no longer keeps
}

// serve publishes with several workers until the first failure or the end of ctx. It says whether any media was stored.
func (p *publisher) serve(ctx context.Context) bool {
	var stored atomic.Bool
	taking, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				t := p.take(taking)
				if t == nil {
					return
				}
				if !p.publish(ctx, t) {
					stop()
					return
				}
				if t.media {
					stored.Store(true)
				}
			}
		})
	}
	refresh := time.NewTicker(refreshEvery)
	defer refresh.Stop()
	for {
		select {
		case <-taking.Done():
			wg.Wait()
			return stored.Load()
		case <-refresh.C:
			p.mu.Lock()
			for _, o := range p.store.inits {
				if len(p.live) < maxLive {
					p.live = append(p.live, &task{object: o, due: p.now()})
				}
			}
			p.mu.Unlock()
			p.signal()
		}
	}
}

// publish puts one object and reports it; false means that the origin is in trouble.
func (p *publisher) publish(ctx context.Context, t *task) bool {
	t.attempts++
	start := p.now()
	err := p.put(ctx, t.object)
	took := p.now().Sub(start)
	switch {
	case err == nil:
		if t.media {
			p.mu.Lock()
			p.stored[t.path] = true
			p.mu.Unlock()
			p.emit(t, "ok", took)
		}
		return true
	case errors.Is(err, errRejected):
		if !t.late { // a late one was reported when it missed its deadline
			p.log.Warn("origin rejected a segment", "path", t.path, "err", err)
			p.emit(t, "failed", took)
		}
		return true
	case ctx.Err() != nil:
		return false
	}
	if errors.Is(err, errLost) {
		p.forget()
	}
	p.log.Debug("publishing failed", "path", t.path, "attempt", t.attempts, "err", err)
	if t.media && !t.late {
		// Back to the front: it is tried again as soon as the origin answers, within its deadline.
		p.mu.Lock()
		p.live = append([]*task{t}, p.live...)
		p.mu.Unlock()
	}
	return false
}

// put sends one object.
func (p *publisher) put(ctx context.Context, o *object) error {
	if o.media && p.refuse != nil && p.refuse(p.origin.Name, o.number) {
		return fmt.Errorf("put %s: %w", o.path, errOrdered)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.origin.URL+o.path, bytes.NewReader(o.body))
	if err != nil {
		return fmt.Errorf("put %s: %w: %w", o.path, errRejected, err)
	}
	req.Header.Set("Content-Type", o.mime)
	req.Header.Set(origin.HeaderPipeline, p.pipeline)
	req.Header.Set(origin.HeaderDefects, o.defects)
	resp, err := p.client.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("put %s: %w: %w", o.path, errLost, err)
		}
		return fmt.Errorf("put %s: %w", o.path, err)
	}
	defer resp.Body.Close()
	// Read to the end so that the connection can be used again, but not for ever.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusConflict || code == http.StatusPreconditionFailed:
		if !o.media {
			return fmt.Errorf("put %s: status %d", o.path, code)
		}
		return fmt.Errorf("put %s: status %d: %w", o.path, code, errLost)
	case code/100 == 4 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests:
		return fmt.Errorf("put %s: status %d: %w", o.path, code, errRejected)
	default:
		return fmt.Errorf("put %s: status %d", o.path, code)
	}
}

func (p *publisher) emit(t *task, status string, took time.Duration) {
	if !t.media {
		return
	}
	p.sink.Emit(event.Event{
		At: p.now(), Kind: event.SegmentPublished, Status: status,
		Region: p.pipeline, Component: "packager/" + p.pipeline, Detail: p.origin.Name,
		Rendition: t.rendition, Segment: t.number, Bytes: uint64(len(t.body)), Attempts: t.attempts,
		Value: float64(took) / 1e6,
		LagMS: float64(p.now().Sub(t.due)) / 1e6,
	})
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
