package edge

import (
	"sync"
	"time"

	"github.com/tminus-live/tminus/reference/spread"
)

// Origin is one place to fill from.
type Origin struct {
	Name string // "us-east"
	URL  string // base URL without trailing slash: "http://127.0.1.4:8080"
}

// upstreams remembers which origins fail. The list is in fill order, the edge's own region first.
type upstreams struct {
	origins []Origin
	failFor time.Duration // how long a failing origin is asked last, give or take half
	trial   time.Duration // how long one fill may try a failing origin again before others do
	seed    uint64

	mu    sync.Mutex
	state []upstream
}

type upstream struct {
	failing bool
	until   time.Time // asked last until then
	fails   uint64
}

// order returns indices of origins in the order to ask them at now: those that work in fill order, then the failing ones.
// When a failing one's while is over, one fill tries it in its own place; until that has told how it went, others do not.
func (u *upstreams) order(now time.Time) []int {
	u.mu.Lock()
	defer u.mu.Unlock()
	good, bad := make([]int, 0, len(u.state)), []int(nil)
	for i := range u.state {
		s := &u.state[i]
		switch {
		case !s.failing:
			good = append(good, i)
		case now.Before(s.until):
			bad = append(bad, i)
		default:
			s.until = now.Add(u.trial)
			good = append(good, i)
		}
	}
	return append(good, bad...)
}

func (u *upstreams) succeeded(i int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state[i].failing = false
}

// failed puts origin i last for a while. The while is spread so that edges do not come back all at once.
func (u *upstreams) failed(i int, now time.Time) (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.state[i]
	first = !s.failing
	s.fails++
	s.failing = true
	s.until = now.Add(spread.Jitter(u.failFor, u.seed^uint64(i)<<32^s.fails))
	return first
}
