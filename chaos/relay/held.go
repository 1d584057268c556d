package relay

import "time"

// parcel is a packet on its way.
type parcel struct {
	at    time.Duration
	order uint64 // among those with the same time
	to    *session
	way   way
	bytes []byte
}

func (p *parcel) before(q *parcel) bool {
	return p.at < q.at || p.at == q.at && p.order < q.order
}

// held is what waits for its time: a binary heap, the first to leave on top.
type held struct {
	heap  []parcel
	order uint64
	size  int // bytes of memory
	pool  [][]byte
}

const (
	usual    = 2048 // bytes: what most packets fit
	pooled   = 4096 // buffers kept for reuse
	forever  = 1<<63 - 1
	overhead = 64 // bytes: of a parcel beside its packet
)

// buffer makes room for n bytes.
func (h *held) buffer(n int) []byte {
	if n > usual {
		return make([]byte, n)
	}
	if k := len(h.pool); k > 0 {
		b := h.pool[k-1]
		h.pool = h.pool[:k-1]
		return b[:n]
	}
	return make([]byte, n, usual)
}

// free takes a buffer back.
func (h *held) free(b []byte) {
	if cap(b) == usual && len(h.pool) < pooled {
		h.pool = append(h.pool, b)
	}
}

func (h *held) push(p parcel) {
	p.order = h.order
	h.order++
	h.size += cap(p.bytes) + overhead
	p.to.held++
	h.heap = append(h.heap, p)
	for i := len(h.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.heap[i].before(&h.heap[parent]) {
			break
		}
		h.heap[i], h.heap[parent] = h.heap[parent], h.heap[i]
		i = parent
	}
}

// next is when the first is due.
func (h *held) next() time.Duration {
	if len(h.heap) == 0 {
		return forever
	}
	return h.heap[0].at
}

func (h *held) pop() parcel {
	p := h.heap[0]
	last := len(h.heap) - 1
	h.heap[0] = h.heap[last]
	h.heap[last] = parcel{}
	h.heap = h.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h.heap[child+1].before(&h.heap[child]) {
			child++
		}
		if !h.heap[child].before(&h.heap[i]) {
			break
		}
		h.heap[i], h.heap[child] = h.heap[child], h.heap[i]
		i = child
	}
	h.size -= cap(p.bytes) + overhead
	p.to.held--
	return p
}
