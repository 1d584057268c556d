package packager

import (
	"sort"
	"sync"
)

// object is one init or media segment. It never changes once made.
type object struct {
	path      string // "/first-light/v720/882000000.m4s"
	body      []byte
	mime      string
	rendition string
	number    uint64 // media segments
	media     bool
	defects   string
}

// store keeps the init segments and the newest media segments.
type store struct {
	mu    sync.RWMutex
	keep  uint64 // segments a rendition
	inits []*object
	paths map[string]*object
}

func newStore(keep uint64) *store {
	return &store{keep: max(1, keep), paths: make(map[string]*object)}
}

// add keeps an object and forgets media segments that are keep numbers older.
func (s *store) add(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[o.path] = o
	if !o.media {
		s.inits = append(s.inits, o)
		return
	}
	for path, old := range s.paths {
		if old.media && old.rendition == o.rendition && old.number+s.keep <= o.number {
			delete(s.paths, path)
		}
	}
}

func (s *store) get(path string) *object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.paths[path]
}

// media returns the media segments, newest first: a player at the live edge needs those first.
func (s *store) media() []*object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*object, 0, len(s.paths))
	for _, o := range s.paths {
		if o.media {
			out = append(out, o)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].number != out[j].number {
			return out[i].number > out[j].number
		}
		return out[i].path < out[j].path
	})
	return out
}
