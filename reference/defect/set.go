package defect

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Component is one thing that can misbehave.
type Component struct {
	Name string // "us-east/edge-1"
	Kind string // Edge
}

// Defect is one misbehaviour that is in force.
type Defect struct {
	ID     string    `json:"id"`
	Part   string    `json:"part"`
	Kind   string    `json:"kind"`
	Params Params    `json:"params"`
	Since  time.Time `json:"since"`
	Ends   time.Time `json:"ends"` // when nobody renews it
}

// entry is a defect in a Set. It never changes: who renews it puts another in its place, with the same state.
type entry struct {
	Defect
	on    []*Part
	state *state
}

// state is what a defect keeps from one decision to the next.
type state struct {
	over  chan struct{} // closed when it has ended
	drawn atomic.Uint64
	mu    sync.Mutex
	hands map[*Part][]time.Time // of a queue: when each is free again
}

// Set holds the defects of some components. It is safe for concurrent use. The times that it is given must come from one clock
// that never goes back.
type Set struct {
	mu    sync.Mutex
	parts []*Part
	all   map[string]*entry
}

// NewSet makes a set for the components there are.
func NewSet(components ...Component) *Set {
	s := &Set{all: make(map[string]*entry)}
	for _, c := range components {
		s.parts = append(s.parts, &Part{Component: c, set: s})
	}
	return s
}

// Part is the component of that name; nil, which never misbehaves, when there is none.
func (s *Set) Part(name string) *Part {
	for _, p := range s.parts {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Put puts a defect into force, or renews its lease when the same is in force under that id: renewed says so. Another under
// that id is replaced.
func (s *Set) Put(now time.Time, id string, o Order) (d Defect, renewed bool, err error) {
	if !validID(id) {
		return d, false, fmt.Errorf("%.80q is no id of letters, digits, dots, dashes and underscores, 1 to %d of them", id, maxName)
	}
	kind, err := kindOf(o.Kind)
	if err != nil {
		return d, false, err
	}
	params, err := kind.complete(o.Params)
	if err != nil {
		return d, false, err
	}
	lease := time.Duration(o.Lease) * time.Millisecond
	if lease <= 0 || lease > MaxLease {
		return d, false, fmt.Errorf("a lease of %s is outside 1ms to %s", lease, MaxLease)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	on, err := s.find(o.Part, kind)
	if err != nil {
		return d, false, err
	}
	s.expire(now)
	old := s.all[id]
	e := &entry{Defect: Defect{id, o.Part, kind.Name, params, now, now.Add(lease)}, on: on}
	if renewed = old != nil && old.Part == e.Part && old.Kind == e.Kind && maps.Equal(old.Params, params); renewed {
		e.Since, e.state = old.Since, old.state
	} else {
		for _, other := range s.all {
			if other.ID != id && other.Kind == e.Kind && slices.ContainsFunc(on, func(p *Part) bool { return slices.Contains(other.on, p) }) {
				return d, false, fmt.Errorf("%w: %s of %s has it under the id %s", ErrTaken, other.Kind, other.Part, other.ID)
			}
		}
		if old == nil && len(s.all) >= maxDefects {
			return d, false, ErrFull
		}
		if old != nil {
			close(old.state.over)
		}
		e.state = &state{over: make(chan struct{}), hands: make(map[*Part][]time.Time)}
	}
	s.all[id] = e
	s.publish()
	return e.Defect, renewed, nil
}

// find is the components that an order is about.
func (s *Set) find(place string, kind Kind) (on []*Part, err error) {
	var can []string
	for _, p := range s.parts {
		if !slices.Contains(kind.On, p.Kind) {
			continue
		}
		if can = append(can, p.Name); p.Name == place || strings.HasPrefix(p.Name, place+"/") {
			on = append(on, p)
		}
	}
	if len(on) == 0 {
		return nil, fmt.Errorf("%w place %.80q for %s (there is %s)", ErrOrder, place, kind.Name, strings.Join(can, ", "))
	}
	return on, nil
}

// Delete ends a defect. It returns false when there is none of that id.
func (s *Set) Delete(now time.Time, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	e := s.all[id]
	if e == nil {
		return false
	}
	s.end(e)
	s.publish()
	return true
}

// At lists what is in force at now, by id.
func (s *Set) At(now time.Time) []Defect {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	out := make([]Defect, 0, len(s.all))
	for _, e := range s.all {
		d := e.Defect
		d.Params = maps.Clone(d.Params)
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Defect) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (s *Set) end(e *entry) {
	delete(s.all, e.ID)
	close(e.state.over)
}

// expire ends defects whose lease is over. The caller holds mu.
func (s *Set) expire(now time.Time) {
	over := 0
	for _, e := range s.all {
		if !now.Before(e.Ends) {
			s.end(e)
			over++
		}
	}
	if over > 0 {
		s.publish()
	}
}

// publish tells every component what it has. The caller holds mu.
func (s *Set) publish() {
	lists := make(map[*Part][]*entry)
	for _, e := range s.all {
		for _, p := range e.on {
			lists[p] = append(lists[p], e)
		}
	}
	for _, p := range s.parts {
		list := lists[p]
		if len(list) == 0 {
			p.list.Store(nil)
			continue
		}
		slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
		p.list.Store(&list)
	}
}
