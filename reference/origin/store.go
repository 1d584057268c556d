package origin

import (
	"bytes"
	"errors"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/origin/availability"
)

// errFull says that the store's bound in bytes is reached.
var errFull = errors.New("the store is full")

// maxCandidates bounds the pipelines that may publish one segment.
const maxCandidates = 16

// key names an init segment or a media segment. The store's keys come from resources that the template allows only.
type key struct {
	rendition string
	number    uint64
	init      bool
}

func keyOf(r availability.Resource) key {
	return key{r.Rendition, r.Number, r.Kind == availability.Init}
}

// shelf is what the store has of one key at an instant: it never changes, a write puts a new one in its place. bodies and
// candidates run in parallel, in the order of the pipelines' names.
type shelf struct {
	candidates []availability.Candidate
	bodies     [][]byte
	changed    chan struct{} // closed when a newer shelf is in place
}

// store keeps candidates in memory. Reads are an atomic load each; writes exclude one another per store and never wait
// for a read.
type store struct {
	maxBytes int64
	slots    sync.Map // key → *atomic.Pointer[shelf]
	mu       sync.Mutex
	bytes    atomic.Int64 // of bodies; equal bodies of one segment count once
	segments atomic.Int64 // keys that have a body
}

func (s *store) slot(k key) *atomic.Pointer[shelf] {
	if v, ok := s.slots.Load(k); ok {
		return v.(*atomic.Pointer[shelf])
	}
	p := new(atomic.Pointer[shelf])
	p.Store(&shelf{changed: make(chan struct{})})
	v, _ := s.slots.LoadOrStore(k, p)
	return v.(*atomic.Pointer[shelf])
}

// peek returns what the store has of k now; it makes no entry.
func (s *store) peek(k key) *shelf {
	if v, ok := s.slots.Load(k); ok {
		return v.(*atomic.Pointer[shelf]).Load()
	}
	return &shelf{}
}

// watch is peek for somebody who waits for a change: it makes an entry.
func (s *store) watch(k key) *shelf { return s.slot(k).Load() }

// put stores one candidate, in place of an earlier one of the same pipeline, and wakes who waits. It is visible to
// readers when put returns.
func (s *store) put(k key, c availability.Candidate, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slot(k)
	old := slot.Load()
	i := sort.Search(len(old.candidates), func(i int) bool { return old.candidates[i].Pipeline >= c.Pipeline })
	replaces := i < len(old.candidates) && old.candidates[i].Pipeline == c.Pipeline
	if !replaces && len(old.candidates) >= maxCandidates {
		return errFull
	}
	// Two pipelines' segments are equal to the byte as a rule: keep one copy.
	for _, b := range old.bodies {
		if bytes.Equal(b, body) {
			body = b
			break
		}
	}
	next := &shelf{changed: make(chan struct{})}
	next.candidates = append(append(next.candidates, old.candidates[:i]...), c)
	next.bodies = append(append(next.bodies, old.bodies[:i]...), body)
	if replaces {
		i++
	}
	next.candidates = append(next.candidates, old.candidates[i:]...)
	next.bodies = append(next.bodies, old.bodies[i:]...)

	grows := next.size() - old.size()
	if s.bytes.Load()+grows > s.maxBytes {
		return errFull
	}
	s.bytes.Add(grows)
	if len(old.candidates) == 0 {
		s.segments.Add(1)
	}
	slot.Store(next)
	close(old.changed)
	return nil
}

// pipelines lists the candidates' in order.
func (sh *shelf) pipelines() string {
	var b strings.Builder
	for i, c := range sh.candidates {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(c.Pipeline)
	}
	return b.String()
}

// size counts bytes kept, equal bodies once.
func (sh *shelf) size() int64 {
	var sum int64
	for i, b := range sh.bodies {
		shared := false
		for _, c := range sh.bodies[:i] {
			shared = shared || len(b) > 0 && len(c) == len(b) && &c[0] == &b[0]
		}
		if !shared {
			sum += int64(len(b))
		}
	}
	return sum
}

// evict drops media segments for which gone says so. Waiters keep the shelf that they have and decide again in time.
func (s *store) evict(gone func(number uint64) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots.Range(func(k, v any) bool {
		kk := k.(key)
		if kk.init || !gone(kk.number) {
			return true
		}
		sh := v.(*atomic.Pointer[shelf]).Load()
		s.bytes.Add(-sh.size())
		if len(sh.candidates) > 0 {
			s.segments.Add(-1)
		}
		s.slots.Delete(kk)
		return true
	})
}

// evictAfter is how long past the time-shift buffer's end a segment is kept: a reader that was just allowed may still be
// on its way to it.
const evictAfter = 4 * time.Second
