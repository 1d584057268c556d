package netns

import "time"

// packet is one that is held up. Its buffer goes back to the queue's stock when it has gone on.
type packet struct {
	at  time.Duration // when it is to go on
	seq uint64        // the order it came in: ties go first come, first served
	buf *[bufferSize]byte
	len int
}

const (
	bufferSize = 2048    // bytes; a packet has at most mtu
	maxHeld    = 1 << 15 // packets held up at once on a wire: 64 MiB
	maxStock   = 1 << 10 // buffers kept for the next packets
)

// queue holds packets up until they are due: a binary heap by due time. It serves one goroutine.
type queue struct {
	heap  []packet
	next  uint64
	stock []*[bufferSize]byte
}

func (q *queue) buffer() *[bufferSize]byte {
	if n := len(q.stock); n > 0 {
		b := q.stock[n-1]
		q.stock = q.stock[:n-1]
		return b
	}
	return new([bufferSize]byte)
}

func (q *queue) release(b *[bufferSize]byte) {
	if len(q.stock) < maxStock {
		q.stock = append(q.stock, b)
	}
}

func (q *queue) full() bool { return len(q.heap) >= maxHeld }

func (p packet) before(o packet) bool { return p.at < o.at || p.at == o.at && p.seq < o.seq }

// push takes a packet of n bytes in buf, to go on at at.
func (q *queue) push(at time.Duration, buf *[bufferSize]byte, n int) {
	q.heap = append(q.heap, packet{at, q.next, buf, n})
	q.next++
	for i := len(q.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.heap[i].before(q.heap[parent]) {
			break
		}
		q.heap[i], q.heap[parent] = q.heap[parent], q.heap[i]
		i = parent
	}
}

// due says when the next packet is to go on.
func (q *queue) due() (time.Duration, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

// pop takes the next packet out.
func (q *queue) pop() packet {
	p, last := q.heap[0], len(q.heap)-1
	q.heap[0], q.heap[last] = q.heap[last], packet{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if q.heap[child].before(q.heap[least]) {
				least = child
			}
		}
		if least == i {
			return p
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}
