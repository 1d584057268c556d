package defect

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/spread"
)

// Part is a component as it asks about itself. The nil Part is always well.
type Part struct {
	Component
	set  *Set
	list atomic.Pointer[[]*entry] // by id; nil: it is well
}

// Well says that nothing is wrong with the component.
func (p *Part) Well() bool { return p == nil || p.list.Load() == nil }

// in returns the defect of a kind that is in force at now; there is one at most.
func (p *Part) in(now time.Time, kind string) *entry {
	if p.Well() {
		return nil
	}
	list := p.list.Load()
	if list == nil {
		return nil
	}
	for _, e := range *list {
		if e.Kind != kind {
			continue
		}
		if !now.Before(e.Ends) {
			p.set.At(now) // its lease is over
			return nil
		}
		return e
	}
	return nil
}

func (e *entry) ms(name string) time.Duration {
	return time.Duration(e.Params.number(name) * float64(time.Millisecond))
}

// about says whether there is a defect, and its parameter of that name is all or one.
func (e *entry) about(name, all, one string) bool {
	return e != nil && (e.Params.text(name) == all || e.Params.text(name) == one)
}

// hit draws whether the next request is among the share of those that a defect is about.
func (e *entry) hit() bool {
	share := e.Params.number("share")
	return share >= 1 || e.draw() < share
}

// draw is the next number, from 0 to 1, of the sequence that the defect's seed decides.
func (e *entry) draw() float64 {
	return spread.Share(spread.Mix(spread.Mix(uint64(e.Params.number("seed"))) + e.state.drawn.Add(1)))
}

// delay is the next delay, with its jitter.
func (e *entry) delay() time.Duration {
	d, j := e.ms("delay_ms"), e.ms("jitter_ms")
	if j > 0 {
		d += time.Duration((2*e.draw() - 1) * float64(j))
	}
	return min(max(d, 0), MaxDelay*time.Millisecond)
}

// Hold is a while that a defect makes somebody wait. The zero Hold is none.
type Hold struct {
	Until time.Time
	part  *Part
	kind  string
	state *state
}

func (p *Part) hold(now time.Time, d time.Duration, e *entry) Hold {
	return Hold{now.Add(d), p, e.Kind, e.state}
}

// Next says at now how long to wait before asking again, 0: no more. Over ends the wait early: the defect has ended.
func (h Hold) Next(now time.Time) (wait time.Duration, over <-chan struct{}) {
	if h.state == nil {
		return 0, nil
	}
	e := h.part.in(now, h.kind)
	if e == nil || e.state != h.state {
		return 0, nil
	}
	return max(min(h.Until.Sub(now), e.Ends.Sub(now)), 0), h.state.over
}

// Clock is what the component takes for the time of day at now.
func (p *Part) Clock(now time.Time) time.Time {
	if p.Well() {
		return now
	}
	e := p.in(now, Clock)
	if e == nil {
		return now
	}
	drift := time.Duration(float64(now.Sub(e.Since)) * e.Params.number("drift_ppm") / 1e6)
	return now.Add(e.ms("offset_ms") + drift)
}

// Stopped says whether an encoder makes nothing.
func (p *Part) Stopped(now time.Time) bool {
	e := p.in(now, EncoderRestart)
	return e != nil && (e.ms("down_ms") == 0 || now.Sub(e.Since) < e.ms("down_ms"))
}

// Frozen says whether a video rendition of an encoder shows the same again and again, and since when.
func (p *Part) Frozen(now time.Time, rendition string) (since time.Time, frozen bool) {
	e := p.in(now, EncoderFrozen)
	if e == nil || e.Params.text("rendition") != "" && e.Params.text("rendition") != rendition {
		return time.Time{}, false
	}
	return e.Since, true
}

// ErrStore is what a store says that fails.
var ErrStore = errors.New("the store fails")

// maxBehind is how far a throttled store may be behind before it takes no more.
const maxBehind = MaxDelay * time.Millisecond

// Store says how an operation of an origin's store on so many bytes fares: who has to wait does so first, and then it fails or
// not.
func (p *Part) Store(now time.Time, op string, size int) (holds [2]Hold, err error) {
	if p.Well() {
		return holds, nil
	}
	if e := p.in(now, StoreLatency); e.about("on", Both, op) && e.hit() {
		holds[0] = p.hold(now, e.delay(), e)
	}
	if e := p.in(now, StoreThrottle); e.about("on", Both, op) {
		took := time.Duration(float64(size) * 8 / e.Params.number("bits_per_s") * float64(time.Second))
		wait, ok := e.queue(p, now, 1, min(took, maxBehind), maxBehind)
		if !ok {
			return holds, fmt.Errorf("%w: it is more than %s behind", ErrStore, maxBehind)
		}
		holds[1] = p.hold(now, wait, e)
	}
	if e := p.in(now, StoreFailure); e.about("on", Both, op) && e.hit() {
		err = ErrStore
	}
	return holds, err
}

// Refuses says whether a packager's PUT of a media segment to an origin fails. It fails for the same segments each time.
func (p *Part) Refuses(now time.Time, origin string, segment uint64) bool {
	e := p.in(now, PublishFailure)
	if e == nil || e.Params.text("origin") != "" && e.Params.text("origin") != origin {
		return false
	}
	share := e.Params.number("share")
	return share >= 1 || spread.Share(spread.Mix(spread.Mix(uint64(e.Params.number("seed")))+segment)) < share
}

// Wiped is when an edge last forgot what it has cached; the zero time: not lately.
func (p *Part) Wiped(now time.Time) time.Time {
	e := p.in(now, CacheWipe)
	if e == nil {
		return time.Time{}
	}
	every := e.ms("every_ms")
	if every <= 0 {
		return e.Since
	}
	return e.Since.Add(now.Sub(e.Since) / every * every)
}

// Admit says whether an edge has a hand for a request, and how long it takes over it.
func (p *Part) Admit(now time.Time) (h Hold, ok bool) {
	e := p.in(now, EdgeOverload)
	if e == nil {
		return h, true
	}
	wait, ok := e.queue(p, now, int(e.Params.number("slots")), e.ms("service_ms"), e.ms("wait_ms"))
	if !ok {
		return h, false
	}
	return p.hold(now, wait, e), true
}

// queue takes a place in a queue before so many hands, each of which needs the same time for everybody: who comes first is
// served first. ok is false for who would wait longer than patience.
func (e *entry) queue(p *Part, now time.Time, slots int, service, patience time.Duration) (wait time.Duration, ok bool) {
	if slots <= 0 {
		return 0, false
	}
	e.state.mu.Lock()
	defer e.state.mu.Unlock()
	free := e.state.hands[p]
	if free == nil {
		free = make([]time.Time, slots)
		e.state.hands[p] = free
	}
	first := 0
	for i := range free {
		if free[i].Before(free[first]) {
			first = i
		}
	}
	start := now
	if free[first].After(start) {
		start = free[first]
	}
	if start.Sub(now) > patience {
		return 0, false
	}
	free[first] = start.Add(service)
	return free[first].Sub(now), true
}

// Answer is how a playback service answers a request that something is wrong with. The zero Answer is for one that it handles as
// always.
type Answer struct {
	Hold   Hold // first
	Fails  bool // then
	Status int  // of the failure; 0: the connection is dropped
}

// Answer says how a playback service answers at an endpoint.
func (p *Part) Answer(now time.Time, endpoint string) (a Answer) {
	if p.Well() {
		return a
	}
	if e := p.in(now, PlaybackSlow); e.about("endpoint", All, endpoint) && e.hit() {
		a.Hold = p.hold(now, e.delay(), e)
	}
	if e := p.in(now, SteeringGone); e != nil && endpoint == Steering {
		a.Fails, a.Status = true, int(e.Params.number("status"))
	}
	if e := p.in(now, PlaybackError); e.about("endpoint", All, endpoint) && e.hit() {
		a.Fails, a.Status = true, int(e.Params.number("status"))
	}
	return a
}

// Aside says whether Answer may make a request at an endpoint wait, or drop its connection: who can do neither must not ask
// it.
func (p *Part) Aside(now time.Time, endpoint string) bool {
	if p.Well() {
		return false
	}
	e, f := p.in(now, PlaybackSlow), p.in(now, PlaybackError)
	return e.about("endpoint", All, endpoint) || f.about("endpoint", All, endpoint) && f.Params.number("status") == 0
}
