package starts

import "time"

// start is one play start on its way. It has no pointers: a million of them cost the garbage collector nothing.
type start struct {
	k        uint64        // who: Crowd.Viewer(k)
	number   uint64        // its own among all play starts of the run
	intended time.Duration // since T+0, as all times here
	sent     time.Duration // its first attempt
	began    time.Duration // its present attempt
	ready    time.Duration // since when it wants to be sent, or, while parked, from when on

	next, prev uint32 // in the list that holds it
	conn       uint32 // that its present attempt is on
	attempts   uint32
	press      uint16 // presses of Play that came to nothing
	service    uint16 // index of the service to try next
	tried      uint16 // services tried in this press
	last       status // how the press before ended, while parked
	why        reason // and why
	returns    bool   // one who was on the air before
	late       uint32 // how long after its moment the loop came to it, µs
}

// lateness is how long after its moment the loop came to it.
func (st *start) lateness() time.Duration { return time.Duration(st.late) * time.Microsecond }

// micros is a duration as a start holds it: an hour and more are the same to it.
func micros(d time.Duration) uint32 { return uint32(min(max(d/time.Microsecond, 0), 1<<32-1)) }

// none is no index.
const none = ^uint32(0)

// slab holds starts by index. It grows in pieces that stay where they are, so that growing never copies.
type slab struct {
	pieces [][]start
	free   uint32 // list by next
	used   int
}

const pieceBits = 12

func newSlab() slab { return slab{free: none} }

func (s *slab) at(i uint32) *start { return &s.pieces[i>>pieceBits][i&(1<<pieceBits-1)] }

// get returns the index of a zeroed start.
func (s *slab) get() uint32 {
	if s.free == none {
		first := uint32(len(s.pieces)) << pieceBits
		piece := make([]start, 1<<pieceBits)
		for j := range piece {
			piece[j].next = first + uint32(j) + 1
		}
		piece[len(piece)-1].next = none
		s.pieces, s.free = append(s.pieces, piece), first
	}
	i := s.free
	st := s.at(i)
	s.free = st.next
	*st = start{next: none, prev: none, conn: none}
	s.used++
	return i
}

func (s *slab) put(i uint32) {
	s.at(i).next = s.free
	s.free = i
	s.used--
}

// list is a queue of starts, linked through them: a start is in one list at a time.
type list struct {
	head, tail uint32
	n          int
}

func newList() list { return list{none, none, 0} }

func (l *list) push(s *slab, i uint32) {
	st := s.at(i)
	st.prev, st.next = l.tail, none
	if l.tail == none {
		l.head = i
	} else {
		s.at(l.tail).next = i
	}
	l.tail = i
	l.n++
}

func (l *list) remove(s *slab, i uint32) {
	st := s.at(i)
	if st.prev == none {
		l.head = st.next
	} else {
		s.at(st.prev).next = st.next
	}
	if st.next == none {
		l.tail = st.prev
	} else {
		s.at(st.next).prev = st.prev
	}
	st.prev, st.next = none, none
	l.n--
}

// wheel holds starts until they are ready, to the millisecond and never early: a hashed timing wheel (Varghese and
// Lauck, 1987) whose slots are lists through the starts. Adding is O(1) however many wait.
type wheel struct {
	slots [wheelSlots]uint32
	busy  [wheelSlots / 64]uint64 // a bit for each slot that has a start
	tick  int64                   // the next one to be looked at
	n     int
}

const (
	wheelSlots = 1 << 14 // 16 s; who waits longer goes round
	wheelTick  = time.Millisecond
)

func newWheel() *wheel {
	w := &wheel{}
	for i := range w.slots {
		w.slots[i] = none
	}
	return w
}

func (w *wheel) add(s *slab, i uint32) {
	st := s.at(i)
	tick := max(w.tick, int64((st.ready+wheelTick-1)/wheelTick))
	slot := tick & (wheelSlots - 1)
	st.prev, st.next = none, w.slots[slot]
	w.slots[slot] = i
	w.busy[slot/64] |= 1 << (slot % 64)
	w.n++
}

// due calls each for every start that is ready at now; each may put it into another list, or add it again.
func (w *wheel) due(s *slab, now time.Duration, each func(i uint32)) {
	last := int64(now / wheelTick)
	if last-w.tick >= wheelSlots { // once round is enough
		w.tick = last - wheelSlots + 1
	}
	for w.tick <= last {
		slot := w.tick & (wheelSlots - 1)
		w.tick++ // now, so that what each adds for this moment comes into a slot that is still to be looked at
		if w.busy[slot/64]&(1<<(slot%64)) == 0 {
			continue
		}
		i := w.slots[slot]
		w.slots[slot] = none
		w.busy[slot/64] &^= 1 << (slot % 64)
		for i != none {
			st := s.at(i)
			next := st.next
			w.n--
			if st.ready <= now {
				each(i)
			} else { // another round
				st.next = w.slots[slot]
				w.slots[slot] = i
				w.busy[slot/64] |= 1 << (slot % 64)
				w.n++
			}
			i = next
		}
	}
}

// wake returns when due should be called next; false: nobody waits.
func (w *wheel) wake() (time.Duration, bool) {
	if w.n == 0 {
		return 0, false
	}
	for k := int64(0); k < wheelSlots; {
		slot := (w.tick + k) & (wheelSlots - 1)
		if slot%64 == 0 && w.busy[slot/64] == 0 {
			k += 64
			continue
		}
		if w.busy[slot/64]&(1<<(slot%64)) != 0 {
			return time.Duration(w.tick+k) * wheelTick, true
		}
		k++
	}
	return 0, false // cannot be: n counts them
}

// all empties the wheel.
func (w *wheel) all(s *slab, each func(i uint32)) {
	for slot := range w.slots {
		i := w.slots[slot]
		w.slots[slot] = none
		for i != none {
			next := s.at(i).next
			w.n--
			each(i)
			i = next
		}
	}
	clear(w.busy[:])
}
