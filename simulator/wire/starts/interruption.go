package starts

import (
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// held is a viewer with a session, and the policy that came with it.
type held struct {
	k       uint64
	afterMS uint32
	retries uint8
	guided  bool
}

// ring remembers the latest viewers with a session.
type ring struct {
	entries []held
	n       uint64        // how many were remembered so far; the latest is entry n-1
	until   time.Duration // nobody is interrupted later
}

func (r *ring) remember(k uint64, p policy, now time.Duration) {
	if now > r.until || len(r.entries) == 0 {
		return
	}
	r.entries[r.n%uint64(len(r.entries))] = held{k, uint32(p.after / time.Millisecond), uint8(min(p.max, 255)), p.guided}
	r.n++
}

// interruption is one shard's part of an Interruption.
type interruption struct {
	Interruption
	ring         *ring
	viewers      int
	began        bool
	cut          uint64 // viewers who lost their session
	cursor, last uint64 // entries of the ring that are still to be sent home
}

// interruptStep is how many viewers are taken off the air in one turn of the loop, which sends in between.
const interruptStep = 2048

// newInterruptions gives each service the rings that its viewers are remembered in.
func newInterruptions(s *shard) []*interruption {
	rings := map[string]*ring{}
	var all []*interruption
	for _, i := range s.g.c.Interruptions {
		r := rings[i.Region]
		if r == nil {
			r = &ring{}
			rings[i.Region] = r
			for j := range s.services {
				if i.Region == "" || i.Region == s.services[j].region {
					s.services[j].rings = append(s.services[j].rings, r)
				}
			}
		}
		r.until = max(r.until, i.At)
		b := &interruption{Interruption: i, ring: r, viewers: s.g.part(i.Viewers, s.id, 0)}
		// Room for who gets a session while the others are sent home.
		if room := b.viewers + 2*interruptStep; room > len(r.entries) {
			r.entries = make([]held, room)
		}
		all = append(all, b)
	}
	return all
}

func (b *interruption) over() bool { return b.began && b.cursor == b.last }

func (s *shard) interrupting() bool {
	for _, b := range s.breaks {
		if !b.over() {
			return true
		}
	}
	return false
}

func (s *shard) nextInterruption(now time.Duration) (at time.Duration, any bool) {
	for _, b := range s.breaks {
		t := max(b.At, now)
		if !b.over() && (!any || t < at) {
			at, any = t, true
		}
	}
	return at, any
}

// interruptions takes viewers off the air whose moment has come.
func (s *shard) interruptions(now time.Duration) {
	for _, b := range s.breaks {
		if now < b.At || b.over() {
			continue
		}
		if !b.began {
			b.began = true
			b.last = b.ring.n
			b.cursor = b.last - min(b.last, uint64(b.viewers))
			b.cut = b.last - b.cursor
			s.stats.interrupted += b.cut
			if got := int(b.last - b.cursor); got < b.viewers {
				s.g.c.Log.Warn("fewer viewers to interrupt than asked for", "interruption", b.Name, "region", b.Region, "asked", b.viewers, "watching", got, "shard", s.id)
			}
		}
		for range interruptStep {
			if b.cursor == b.last {
				break
			}
			s.sendHome(b, b.ring.entries[b.cursor%uint64(len(b.ring.entries))])
			b.cursor++
		}
	}
}

// sendHome decides when an interrupted viewer makes a new play start.
func (s *shard) sendHome(b *interruption, h held) {
	c := &s.g.c
	v := c.Crowd.Viewer(h.k)
	after, again := c.People.Next(c.Seed, v, 1, audience.Outcome{
		Status: Failed, Guided: h.guided && b.Guided, MaxRetries: min(int(h.retries), c.MaxRetries), RetryAfter: time.Duration(h.afterMS) * time.Millisecond,
	})
	at := b.At + b.For + after
	if !again || at > s.g.horizon || s.parked.n >= maxParked/c.Shards {
		s.stats.gone++
		return
	}
	i := s.slab.get()
	st := s.slab.at(i)
	st.k, st.returns, st.ready = h.k, true, at
	st.number = c.Schedule.Total() + uint64(s.id) + s.returns*uint64(c.Shards)
	s.returns++
	s.parked.add(&s.slab, i)
}
