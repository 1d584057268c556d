package chaos

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// town is a set of regions without sockets: its probe asks their state.
type town struct {
	mu      sync.Mutex
	regions map[string]*quarter
	calls   []string // what was done to them, in order
}

// quarter is a Region of a town.
type quarter struct {
	town      *town
	name      string
	prefix    netip.Prefix
	endpoints []netip.AddrPort

	alive, cut bool
	startErrs  []error // returned by the next Starts
	startTakes time.Duration
	killPanics bool
}

func newTown(names ...string) *town {
	t := &town{regions: make(map[string]*quarter)}
	for i, name := range names {
		base := [4]byte{127, 0, byte(i + 1), 0}
		q := &quarter{town: t, name: name, prefix: netip.PrefixFrom(netip.AddrFrom4(base), 24), alive: true}
		for _, host := range []byte{11, 12, 5} {
			base[3] = host
			q.endpoints = append(q.endpoints, netip.AddrPortFrom(netip.AddrFrom4(base), 8080))
		}
		t.regions[name] = q
	}
	return t
}

func (t *town) list() []Region {
	var names []string
	for name := range t.regions {
		names = append(names, name)
	}
	slices.Sort(names)
	var rs []Region
	for _, name := range names {
		rs = append(rs, t.regions[name])
	}
	return rs
}

func (t *town) did(what string) { t.calls = append(t.calls, what) }

func (t *town) history() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

// probe is what a connection attempt would find.
func (t *town) probe(ctx context.Context, addr netip.AddrPort, connected func()) (Outcome, int) {
	t.mu.Lock()
	alive, cut := true, false
	for _, q := range t.regions {
		if q.prefix.Contains(addr.Addr()) {
			alive, cut = q.alive, q.cut
		}
	}
	t.mu.Unlock()
	switch {
	case cut:
		timer := time.NewTimer(probeTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			return Timeout, 0
		case <-ctx.Done():
			return Failed, 0
		}
	case !alive:
		return Refused, 0
	}
	connected()
	return Connected, 200
}

func (q *quarter) Name() string                { return q.name }
func (q *quarter) Prefix() netip.Prefix        { return q.prefix }
func (q *quarter) Endpoints() []netip.AddrPort { return q.endpoints }

func (q *quarter) Alive() bool {
	q.town.mu.Lock()
	defer q.town.mu.Unlock()
	return q.alive
}

func (q *quarter) Kill() error {
	q.town.mu.Lock()
	defer q.town.mu.Unlock()
	q.town.did("kill " + q.name)
	if q.killPanics {
		panic("kill " + q.name)
	}
	q.alive = false
	return nil
}

func (q *quarter) Start(ctx context.Context) error {
	if q.startTakes > 0 {
		time.Sleep(q.startTakes) // virtual: under synctest
	}
	q.town.mu.Lock()
	defer q.town.mu.Unlock()
	q.town.did("start " + q.name)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(q.startErrs) > 0 {
		err := q.startErrs[0]
		q.startErrs = q.startErrs[1:]
		return err
	}
	q.alive = true
	return nil
}

// silence is an injector for a quarter that cuts it without a kernel.
type silence struct{ q *quarter }

func (s silence) set(cut bool) error {
	s.q.town.mu.Lock()
	defer s.q.town.mu.Unlock()
	s.q.cut = cut
	return nil
}

func (s silence) Inject(context.Context) error  { return s.set(true) }
func (s silence) Restore(context.Context) error { return s.set(false) }

// idle is an injector that claims to have done its work.
type idle struct{}

func (idle) Inject(context.Context) error  { return nil }
func (idle) Restore(context.Context) error { return nil }

// reluctant is an injector that fails to inject, or panics.
type reluctant struct {
	panics   bool
	restored *int
}

func (r reluctant) Inject(context.Context) error {
	if r.panics {
		panic("no")
	}
	return errors.New("no")
}

func (r reluctant) Restore(context.Context) error { *r.restored++; return nil }

// tape keeps events.
type tape struct {
	mu     sync.Mutex
	events []event.Event
}

func (t *tape) Emit(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
}

func (t *tape) statuses(kind event.Kind, fault string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var s []string
	for _, e := range t.events {
		if e.Kind == kind && e.Fault == fault {
			s = append(s, e.Status)
		}
	}
	return s
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
