package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const haveLoops = true

const (
	// sweepEvery is how often a loop looks for connections that are over their time; how late they may be cut off.
	sweepEvery = 250 * time.Millisecond
	// giveEvery is how long a loop under load keeps its processor from other goroutines.
	giveEvery = time.Millisecond
	maxEvents = 256
	// maxAccepts is how many connections are taken from the backlog before the others are looked at again.
	maxAccepts = 256
	// acceptPause is how long a loop takes no connections after it could not have one.
	acceptPause = 100 * time.Millisecond
	// mostBacklog is how many connections a backlog holds (Linux: net.core.somaxconn); where it holds more, their wait is told too short.
	mostBacklog = 4096
)

// serveLoops runs the loops of one listener. The first accepts and gives connections to all in turn.
func (f *Front) serveLoops(ctx context.Context, ln *net.TCPListener, r *rest) error {
	lfd, err := listenerFD(ln)
	if err != nil {
		ln.Close()
		return fmt.Errorf("front: %w", err)
	}
	defer unix.Close(lfd)
	loops := make([]*loop, f.cfg.Loops)
	defer func() {
		for _, l := range loops {
			if l != nil {
				unix.Close(l.epoll)
				unix.Close(l.bell)
			}
		}
	}()
	for i := range loops {
		l, err := newLoop(f, r)
		if err != nil {
			return fmt.Errorf("front: %w", err)
		}
		loops[i] = l
	}
	loops[0].lfd, loops[0].all = lfd, loops
	if err := loops[0].watch(unix.EPOLL_CTL_ADD, lfd, 0, unix.EPOLLIN); err != nil {
		return fmt.Errorf("front: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		for _, l := range loops {
			l.mu.Lock()
			l.stopping = true
			l.mu.Unlock()
			l.ring()
		}
	})
	defer stop()
	errs := make([]error, len(loops))
	var wg sync.WaitGroup
	for i, l := range loops {
		wg.Go(func() { errs[i] = l.run() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// listenerFD takes a listener away from Go's poller, which would wake for every connection, and returns its socket.
func listenerFD(ln *net.TCPListener) (int, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, err
	}
	ln.Close()
	// Connections inherit it.
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) //nolint:errcheck // slower without
	return fd, unix.SetNonblock(fd, true)
}

// conn is a connection of a loop.
type conn struct {
	fd     int
	gen    int32
	index  int    // in loop.conns
	in     []byte // the beginning of a play start, or what was read and not looked at because out is full
	out    []byte // answers that the client has not taken; while there are any nothing is read
	sent   int    // of out
	ending next   // hangUp or linger: after out
	parted bool   // only what the client still sends is read, and dropped
	since  int64  // when what it is waited for began: a request, taking out, parting; Unix nanoseconds
	active int64  // when it last had an answer, or came
	read   mark   // what it has sent since came later
}

// mark is a moment of a loop.
type mark struct {
	at     int64 // Unix nanoseconds
	starts int64 // play starts answered before
}

// or is the later of two.
func (m mark) or(o mark) mark { return mark{max(m.at, o.at), max(m.starts, o.starts)} }

// loop is one epoll instance and its goroutine.
type loop struct {
	worker
	r     *rest
	epoll int
	bell  int // an eventfd: there is news under mu
	lfd   int // the first loop's: the listener; -1: another accepts
	all   []*loop
	turn  int
	fresh []int     // connections just accepted
	deaf  time.Time // no connections are taken until then
	full  bool      // the listener is not watched

	// How long work waits is worked out from when it cannot have been there yet, so that it costs no system calls.
	starts  int64 // play starts answered before this batch
	floor   mark  // whatever is ready and has not been looked at became so later
	behind  bool  // connections were left in the backlog
	backlog mark  // if so, the first of them came later
	taken   int   // if so, how many were taken since later
	later   mark  // if so, what backlog is to be
	ahead   int64 // play starts, of this batch: the most that were answered while one waited
	waited  int64 // nanoseconds, of this batch: the longest wait

	conns []*conn
	byFD  []*conn
	gen   int32
	in    []byte
	outs  []byte
	swept time.Time
	gave  time.Time // when the processor was last offered to others

	mu       sync.Mutex
	incoming []int // sockets that the first loop accepted for this one
	stopping bool
}

func newLoop(f *Front, r *rest) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	l := &loop{worker: worker{f: f}, r: r, epoll: epoll, bell: bell, lfd: -1, in: make([]byte, readSize), outs: make([]byte, 0, highWater+16<<10)}
	if err := l.watch(unix.EPOLL_CTL_ADD, bell, 0, unix.EPOLLIN); err != nil {
		unix.Close(epoll)
		unix.Close(bell)
		return nil, err
	}
	return l, nil
}

func (l *loop) watch(op, fd int, gen int32, events uint32) error {
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: gen})
}

// ring wakes the loop.
func (l *loop) ring() {
	one := [8]byte{1}
	unix.Write(l.bell, one[:]) //nolint:errcheck // it is awake or gone
}

// run returns when the front stops.
func (l *loop) run() error {
	defer l.leave()
	l.now = l.f.cfg.Now()
	l.swept, l.floor = l.now, l.mark()
	var events [maxEvents]unix.EpollEvent
	for {
		n, slept, err := l.wait(events[:])
		if err != nil {
			return fmt.Errorf("front: epoll: %w", err)
		}
		began := l.f.cfg.Now()
		l.starts += int64(l.answered)
		l.now, l.answered, l.waited, l.ahead = began, 0, 0, 0
		here := l.mark()
		if slept {
			l.floor = here
		}
		for i := range n {
			e := &events[i]
			switch fd := int(e.Fd); fd {
			case l.lfd:
				l.accept()
			case l.bell:
				if l.news() {
					return nil
				}
			default:
				if fd >= len(l.byFD) || l.byFD[fd] == nil || l.byFD[fd].gen != e.Pad {
					continue // it was closed a moment ago
				}
				// Whoever is ready is told in order, so that who waits now became ready after the last look at this one.
				c := l.byFD[fd]
				l.floor = l.floor.or(c.read)
				l.ready(c, e.Events, l.floor)
			}
		}
		if l.answered > 0 {
			if l.f.cfg.Observe != nil {
				l.now = l.f.cfg.Now()
				took := int64(l.now.Sub(began)) // the last waited for the others
				took -= took / int64(l.answered)
				l.f.cfg.Observe(l.now, int(max(l.ahead, int64(l.answered))), time.Duration(max(l.waited, took)))
			}
		}
		if n < maxEvents { // that was everything
			l.floor = here
		}
		if l.now.Sub(l.swept) >= sweepEvery {
			l.sweep()
		}
		if l.now.Sub(l.gave) >= giveEvery {
			l.gave = l.now
			runtime.Gosched()
		}
	}
}

// mark is now.
func (l *loop) mark() mark { return mark{l.now.UnixNano(), l.starts + int64(l.answered)} }

// wait returns events, and whether it slept until they came. Under load it costs one cheap system call: the scheduler is told only
// when the loop is about to sleep.
func (l *loop) wait(events []unix.EpollEvent) (n int, slept bool, err error) {
	for range 2 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno == 0 && n > 0 {
			return int(n), false, nil
		}
		if errno != 0 && errno != unix.EINTR {
			return 0, false, errno
		}
		if errno == 0 {
			l.floor = l.mark() // what comes while others have the processor waits
		}
		runtime.Gosched() // somebody else may have something to do, and meanwhile something may come
	}
	n, err = unix.EpollWait(l.epoll, events, int(sweepEvery/time.Millisecond))
	if err == unix.EINTR {
		return 0, false, nil
	}
	return n, true, err
}

// accept takes what waits in the backlog, then looks at each: while the last are taken the first have sent their requests.
func (l *loop) accept() {
	if !l.behind {
		l.backlog, l.later, l.taken = l.floor, l.mark(), 0
	} else if l.taken >= mostBacklog { // all that waited then have been taken
		l.backlog, l.later, l.taken = l.later, l.mark(), 0
	}
	l.behind = true
	defer func() {
		for _, fd := range l.fresh {
			l.add(fd, l.backlog)
		}
		l.fresh = l.fresh[:0]
	}()
	for range maxAccepts {
		if l.f.conns.Load() >= int64(l.f.cfg.MaxConns) {
			l.pause()
			return
		}
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.lfd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			l.behind = false
			return
		default: // out of file descriptors or memory
			l.f.cfg.Log.Warn("cannot accept", "error", errno)
			l.pause()
			return
		}
		l.taken++
		l.f.conns.Add(1)
		to := l.all[l.turn%len(l.all)]
		l.turn++
		if to != l {
			if to.offer(int(fd)) {
				to.ring()
				continue
			}
			unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
			l.f.conns.Add(-1)
			continue
		}
		l.fresh = append(l.fresh, int(fd))
	}
}

// offer leaves a connection for another loop. It returns false when that one stops: nobody would look at it.
func (l *loop) offer(fd int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.incoming = append(l.incoming, fd)
	return true
}

// pause leaves the backlog alone for a moment. Whoever waits there does not wait for this loop.
func (l *loop) pause() {
	l.behind = false
	if l.full = l.watch(unix.EPOLL_CTL_DEL, l.lfd, 0, 0) == nil; l.full {
		l.deaf = l.now.Add(acceptPause)
	}
}

// news takes in what others left under mu, and says whether to stop.
func (l *loop) news() bool {
	var b [8]byte
	unix.Read(l.bell, b[:]) //nolint:errcheck // it is only to be silenced
	l.mu.Lock()
	incoming, stop := l.incoming, l.stopping
	l.incoming = nil
	l.mu.Unlock()
	for _, fd := range incoming {
		l.add(fd, l.floor)
	}
	return stop
}

// add takes a connection in that came after since. Its first request is often there already: it is answered before anybody watches.
func (l *loop) add(fd int, since mark) {
	l.gen++
	c := &conn{fd: fd, gen: l.gen, active: l.now.UnixNano(), index: len(l.conns)}
	l.conns = append(l.conns, c)
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, nil)
	}
	l.byFD[fd] = c
	if l.ready(c, unix.EPOLLIN, since); l.byFD[fd] != c {
		return
	}
	events := uint32(unix.EPOLLIN)
	if len(c.out) > 0 {
		events = unix.EPOLLOUT
	}
	if l.watch(unix.EPOLL_CTL_ADD, fd, c.gen, events) != nil {
		l.close(c)
	}
}

// forget takes a connection out; its socket is somebody else's now.
func (l *loop) forget(c *conn) {
	last := l.conns[len(l.conns)-1]
	l.conns[c.index], last.index = last, c.index
	l.conns[len(l.conns)-1] = nil
	l.conns = l.conns[:len(l.conns)-1]
	l.byFD[c.fd] = nil
}

func (l *loop) close(c *conn) {
	l.forget(c)
	unix.RawSyscall(unix.SYS_CLOSE, uintptr(c.fd), 0, 0)
	l.f.conns.Add(-1)
}

// ready looks after a connection that has something to read, or room for more. What there is to read came after since.
func (l *loop) ready(c *conn, events uint32, since mark) {
	if len(c.out) > 0 {
		if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == 0 || !l.flush(c) || len(c.out) > 0 {
			return
		}
		c.read = l.mark() // what it sent meanwhile waited for itself
		if l.watch(unix.EPOLL_CTL_MOD, c.fd, c.gen, unix.EPOLLIN) != nil {
			l.close(c)
			return
		}
		if c.ending != readOn {
			l.end(c)
			return
		}
		if len(c.in) > 0 {
			l.answer(c, c.in)
		}
		return
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&l.in[0])), readSize)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0 || n == 0:
		l.close(c)
		return
	case c.parted:
		return
	}
	data := l.in[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	here, answered := l.mark(), l.answered
	if n < readSize {
		c.read = here
	}
	if l.answer(c, data); l.answered > answered {
		l.waited = max(l.waited, here.at-since.at)
		l.ahead = max(l.ahead, here.starts-since.starts)
	}
}

// answer works through what was read. data may be c.in.
func (l *loop) answer(c *conn, data []byte) {
	for {
		out, used, what := l.work(data, l.outs[:0])
		l.outs = out[:0]
		data = data[used:]
		if used > 0 {
			c.active, c.since = l.now.UnixNano(), 0
		}
		if len(out) > 0 {
			sent, ok := l.send(c, out)
			if !ok {
				return
			}
			if sent < len(out) {
				c.out, c.sent, c.since = append(c.out[:0], out[sent:]...), 0, l.now.UnixNano()
				if what == hangUp || what == linger {
					c.ending = what
				}
				c.keep(data)                                            // also what is for net/http: it is found again
				l.watch(unix.EPOLL_CTL_MOD, c.fd, c.gen, unix.EPOLLOUT) //nolint:errcheck // add may be about to do it
				return
			}
		}
		switch what {
		case send:
			continue
		case readOn:
			if c.keep(data); len(data) > 0 && c.since == 0 {
				c.since = l.now.UnixNano()
			}
		case hand, aside:
			l.handOver(c, data, what == aside)
		case hangUp, linger:
			c.ending = what
			l.end(c)
		}
		return
	}
}

// keep stores what is left of what was read; data may be the end of c.in.
func (c *conn) keep(data []byte) {
	if len(data) == 0 {
		c.in = nil
		return
	}
	c.in = append(c.in[:0], data...)
}

// send writes to the socket. It returns false when the connection is gone.
func (l *loop) send(c *conn, out []byte) (int, bool) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&out[0])), uintptr(len(out)), unix.MSG_NOSIGNAL, 0, 0)
	switch errno {
	case 0:
		return int(n), true
	case unix.EAGAIN, unix.EINTR:
		return 0, true
	}
	l.close(c)
	return 0, false
}

// flush goes on sending c.out. It returns false when the connection is gone.
func (l *loop) flush(c *conn) bool {
	n, ok := l.send(c, c.out[c.sent:])
	if !ok {
		return false
	}
	if c.sent += n; n > 0 {
		c.since = l.now.UnixNano()
	}
	if c.sent == len(c.out) {
		c.out, c.sent, c.since = nil, 0, 0
	}
	return true
}

// end closes a connection whose last answer is on its way. A client that is still sending would lose that answer to a reset, so
// what it sends is read for a while.
func (l *loop) end(c *conn) {
	if c.ending == hangUp {
		l.close(c)
		return
	}
	unix.Shutdown(c.fd, unix.SHUT_WR) //nolint:errcheck // it is being closed
	c.parted, c.since, c.in = true, l.now.UnixNano(), nil
}

// handOver gives a connection to net/http with what was read of it.
func (l *loop) handOver(c *conn, read []byte, aside bool) {
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, c.fd, nil) //nolint:errcheck // it may not be watched yet
	l.forget(c)
	own := append([]byte(nil), read...)
	go func() { // what the net package does with a socket takes several system calls
		file := os.NewFile(uintptr(c.fd), "tcp")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			l.f.conns.Add(-1)
			return
		}
		l.r.take(conn, own, aside, func() { l.f.conns.Add(-1) })
	}()
}

// sweep cuts off who is over its time, and listens again.
func (l *loop) sweep() {
	l.swept = l.now
	cfg := &l.f.cfg
	now := l.now.UnixNano()
	over := func(since int64, d time.Duration) bool { return now-since > int64(d) }
	for i := len(l.conns) - 1; i >= 0; i-- { // closing one moves the last into its place
		c := l.conns[i]
		switch {
		case c.parted && over(c.since, goodbye),
			!c.parted && len(c.out) > 0 && over(c.since, cfg.SendTime),
			!c.parted && len(c.out) == 0 && len(c.in) > 0 && over(c.since, cfg.HeadTime),
			!c.parted && len(c.out) == 0 && len(c.in) == 0 && over(c.active, cfg.IdleTime):
			l.close(c)
		}
	}
	if l.full && l.now.After(l.deaf) && cfg.MaxConns > int(l.f.conns.Load()) {
		l.full = l.watch(unix.EPOLL_CTL_ADD, l.lfd, 0, unix.EPOLLIN) != nil
	}
}

// leave ends what the loop has. Answers are out but for those that clients do not take.
func (l *loop) leave() {
	l.mu.Lock()
	l.stopping = true
	incoming := l.incoming
	l.incoming = nil
	l.mu.Unlock()
	for _, fd := range incoming {
		unix.Close(fd)
		l.f.conns.Add(-1)
	}
	for len(l.conns) > 0 {
		l.close(l.conns[len(l.conns)-1])
	}
}
