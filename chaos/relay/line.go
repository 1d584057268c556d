package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

const (
	chunkTime  = 5 * time.Millisecond // of a rate that goes at once
	leastChunk = 536
	mostChunk  = 64 << 10
	chunksHeld = 512     // a connection, each way
	spliced    = 1 << 20 // bytes between two looks at what was ordered
	heldRest   = time.Millisecond
	wideOpen   = 1 << 30 // a window that clamps nothing
)

// chunk is bytes on their way.
type chunk struct {
	at    time.Duration
	bytes []byte
	end   bool // of the stream
}

// line carries one direction of a connection.
type line struct {
	c        *conn
	way      way
	src, dst *net.TCPConn
	chunks   chan chunk
	pending  atomic.Int32 // chunks that are not written yet
	passed   chan struct{}
	under    atomic.Pointer[tcpOrder] // the order that read follows
	done     atomic.Bool              // read has ended

	order *tcpOrder // that link and clamp are of
	link  *link.Link
	last  time.Duration
	tight bool // the window is clamped
}

var chunkPool = sync.Pool{New: func() any { return new([mostChunk]byte) }}

func newLine(c *conn, w way, src, dst *net.TCPConn) *line {
	return &line{c: c, way: w, src: src, dst: dst, chunks: make(chan chunk, chunksHeld), passed: make(chan struct{}, 1)}
}

// read takes bytes from the one side until there are no more. With nothing to do to them they go to the other inside the
// kernel; else write sends them when they are due.
func (l *line) read() {
	defer close(l.chunks)
	defer l.done.Store(true)
	for {
		// In this order: an order that comes after this look at it wakes the reading below.
		l.src.SetReadDeadline(time.Time{}) //nolint:errcheck // it fails when the connection is closed: reading says so
		o := l.c.t.order.Load()
		l.under.Store(o)
		if l.c.lost() {
			return
		}
		w := &o.ways[l.way]
		switch {
		case w.does.Cut:
			if !l.c.await(o.over) {
				return
			}
			continue
		case w.none && l.pending.Load() > 0:
			// What was held goes first.
			select {
			case <-l.passed:
			case <-l.c.gone:
				return
			}
			continue
		}
		l.meet(o)
		var more bool
		if w.none {
			more = l.pass()
		} else {
			more = l.hold(w)
		}
		if !more {
			return
		}
	}
}

// pass moves bytes by splice(2); false: that was the last of them.
func (l *line) pass() bool {
	n, err := l.dst.ReadFrom(&io.LimitedReader{R: l.src, N: spliced})
	l.c.t.bytes[l.way].Add(uint64(n))
	switch {
	case isTimeout(err), err == nil && n == spliced:
		return true
	case err == nil:
		l.dst.CloseWrite() //nolint:errcheck // if it is gone, the other direction learns of it
		return false
	}
	l.c.fail()
	return false
}

// hold reads one chunk and puts it on its way; false: that was the last.
func (l *line) hold(w *tcpWay) bool {
	buffer := chunkPool.Get().(*[mostChunk]byte)
	n, err := l.src.Read(buffer[:chunkSize(w.does.Rate)])
	if n > 0 && !l.send(w, chunk{bytes: buffer[:n]}) {
		return false
	}
	if n == 0 {
		chunkPool.Put(buffer)
	}
	switch {
	case err == nil, isTimeout(err):
		return true
	case errors.Is(err, io.EOF):
		l.send(w, chunk{end: true})
		return false
	}
	l.c.fail()
	return false
}

func chunkSize(rate float64) int {
	if rate == 0 {
		return mostChunk
	}
	return int(min(max(rate/8*chunkTime.Seconds(), leastChunk), mostChunk))
}

// send puts a chunk on its way once there is room; false: the connection has ended. A stream's bytes are never dropped: without room
// they stay with their sender, whom the window then slows down.
func (l *line) send(w *tcpWay, c chunk) bool {
	t := l.c.t
	size := int64(len(c.bytes))
	for t.held.Add(size) > int64(t.cfg.Held) && size > 0 {
		t.held.Add(-size)
		if !l.rest(heldRest) {
			return false
		}
	}
	for {
		w.mu.Lock()
		out, n := l.link.Send(t.now(), len(c.bytes))
		w.mu.Unlock()
		if n > 0 {
			c.at = max(out[0].At, l.last)
			l.last = c.at
			break
		}
		if !l.rest(chunkTime) {
			t.held.Add(-size)
			return false
		}
	}
	l.pending.Add(1)
	select {
	case l.chunks <- c:
		return true
	case <-l.c.gone:
		t.held.Add(-size)
		return false
	}
}

// rest waits a moment; false: the connection has ended.
func (l *line) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.c.gone:
		return false
	}
}

// meet prepares for an order. A rate's queue is in the path, so the kernel's own, which would come on top, is kept as short.
func (l *line) meet(o *tcpOrder) {
	if l.order == o {
		return
	}
	l.order = o
	w := &o.ways[l.way]
	i, b := w.does, w.shared
	kind := 0
	if l.c.routed {
		kind, b = 1, link.NewBottleneck(i.Rate, i.Queue)
	}
	t := l.c.t
	t.mu.Lock()
	i.Seed = flowSeed(i.Seed, t.flows[kind], l.c.routed)
	t.flows[kind]++
	t.mu.Unlock()
	l.link = link.NewOn(i, b)
	if tight := i.Rate > 0; tight || l.tight {
		window := wideOpen
		if tight {
			window = max(int((i.Longest()-i.Delay-i.Jitter).Seconds()*i.Rate/8), leastChunk)
		}
		l.tight = tight
		if raw, err := l.src.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { //nolint:errcheck // a longer queue at worst
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, window) //nolint:errcheck // as before
			})
		}
	}
}

// write sends chunks when they are due, and frees those that nobody waits for any more.
func (l *line) write() {
	t := l.c.t
	open := true
	for c := range l.chunks {
		if open {
			open = l.deliver(c)
		}
		t.held.Add(-int64(len(c.bytes)))
		if c.bytes != nil {
			chunkPool.Put((*[mostChunk]byte)(c.bytes[:mostChunk]))
		}
		if l.pending.Add(-1) == 0 {
			select {
			case l.passed <- struct{}{}:
			default:
			}
		}
	}
}

// deliver sends one chunk; false: nothing more can be sent.
func (l *line) deliver(c chunk) bool {
	if wait := c.at - l.c.t.now(); wait > 0 && !l.rest(wait) {
		return false
	}
	for o := l.c.t.order.Load(); o.ways[l.way].does.Cut; o = l.c.t.order.Load() {
		if !l.c.await(o.over) {
			return false
		}
	}
	if c.end {
		l.dst.CloseWrite() //nolint:errcheck // as in pass
		return true
	}
	n, err := l.dst.Write(c.bytes)
	l.c.t.bytes[l.way].Add(uint64(n))
	if err != nil {
		l.c.fail()
		return false
	}
	return true
}
