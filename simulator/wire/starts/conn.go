package starts

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/answer"
)

// conn is one TCP connection, or a place for one.
type conn struct {
	fd    int
	index uint32 // in shard.conns
	life  uint32 // counts the connections that this place had: events of an earlier one are not this one's
	svc   *service

	watched  bool   // epoll knows it
	demanded bool   // made for the requests that are on it: if it fails, they fail
	answered bool   // it has brought an answer
	listed   bool   // in svc.avail
	broken   reason // why it takes no more requests

	parser answer.Parser
	ring   []uint32          // starts whose answers are due, in order; none: one that was given up
	who    []audience.Viewer // who made them
	head   int
	n      int    // entries of the ring
	live   int    // of these, not given up
	unsent []byte // of requests, when the socket would take no more
}

// room is how many more requests it can take. One that has answers to come that nobody waits for is out of step with
// its server and takes none.
func (c *conn) room() int {
	if c.live < c.n || c.broken != noReason {
		return 0
	}
	return len(c.ring) - c.n
}

func (c *conn) push(i uint32, v audience.Viewer) {
	at := c.head + c.n
	if at >= len(c.ring) {
		at -= len(c.ring)
	}
	c.ring[at], c.who[at] = i, v
	c.n++
	c.live++
}

// pop takes the first; who made it is good until the next push.
func (c *conn) pop() (i uint32, who *audience.Viewer) {
	i, who = c.ring[c.head], &c.who[c.head]
	if c.head++; c.head == len(c.ring) {
		c.head = 0
	}
	c.n--
	if i != none {
		c.live--
	}
	return i, who
}

// unmapped is an address as sockets want it.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// remote is where connections go, as the kernel wants it.
type remote struct {
	family int
	v4     unix.RawSockaddrInet4
	v6     unix.RawSockaddrInet6
	spread bool // loopback: when one source address has no ports left, there are others
	source byte // 0: the kernel's choice; n: 127.0.0.n+1
}

// maxRead is what is read from a connection at once.
const maxRead = 16 << 10

// maxSources bounds the source addresses that fresh connections to loopback spread over.
const maxSources = 16

func newRemote(a netip.AddrPort) remote {
	var r remote
	// The port is in network order.
	if a.Addr().Is4() {
		r.family = unix.AF_INET
		r.v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&r.v4.Port))[:], a.Port())
		return r
	}
	r.family = unix.AF_INET6
	r.v6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&r.v6.Port))[:], a.Port())
	return r
}

// dial opens a socket on its way to the remote.
func (r *remote) dial() (fd int, errno unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(r.family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if errno != 0 {
			return -1, errno
		}
		fd := int(n)
		if r.source > 0 {
			// The port is chosen at connect, when the destination is known: then a port can serve many destinations.
			setOption(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			from := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte{127, 0, 0, r.source + 1}}
			_, _, errno = unix.RawSyscall(unix.SYS_BIND, n, uintptr(unsafe.Pointer(&from)), unsafe.Sizeof(from))
		}
		if errno == 0 {
			if r.family == unix.AF_INET {
				_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, n, uintptr(unsafe.Pointer(&r.v4)), unsafe.Sizeof(r.v4))
			} else {
				_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, n, uintptr(unsafe.Pointer(&r.v6)), unsafe.Sizeof(r.v6))
			}
		}
		switch {
		case errno == 0, errno == unix.EINPROGRESS, errno == unix.EINTR:
			return fd, 0
		case errno == unix.EADDRNOTAVAIL && r.spread && r.source < maxSources:
			closeFD(fd)
			r.source++
		default:
			closeFD(fd)
			return -1, errno
		}
	}
}

func setOption(fd, level, option int, value int32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

func closeFD(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func send(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func receive(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	return int(n), errno
}

func whyErrno(e unix.Errno) reason {
	switch e {
	case unix.ECONNREFUSED:
		return refused
	case unix.ECONNRESET, unix.EPIPE:
		return reset
	case unix.ETIMEDOUT:
		return timeOut
	case unix.EMFILE, unix.ENFILE, unix.EADDRNOTAVAIL, unix.ENOBUFS, unix.ENOMEM:
		return noSocket
	}
	return otherError
}

// dialAll opens the connections that are kept, so that the first viewers find them.
func (s *shard) dialAll() {
	if s.g.tls != nil {
		return
	}
	for i := range s.services {
		svc := &s.services[i]
		for svc.kept && svc.conns < svc.max {
			c, why := s.dial(svc, false)
			if why != noReason {
				break // who needs one will see
			}
			s.watch(c)
			s.list(c)
		}
	}
}

// dial opens a connection.
func (s *shard) dial(svc *service, demanded bool) (*conn, reason) {
	fd, errno := svc.remote.dial()
	if errno != 0 {
		return nil, whyErrno(errno)
	}
	var c *conn
	if n := len(s.free); n > 0 {
		c = s.conns[s.free[n-1]]
		s.free = s.free[:n-1]
	} else {
		c = &conn{index: uint32(len(s.conns)), ring: make([]uint32, s.g.c.InFlight), who: make([]audience.Viewer, s.g.c.InFlight)}
		c.parser.Heads = &s.heads
		s.conns = append(s.conns, c)
	}
	c.fd, c.svc, c.demanded = fd, svc, demanded
	c.watched, c.answered, c.listed, c.broken = false, false, false, noReason
	c.head, c.n, c.live = 0, 0, 0
	svc.conns++
	if svc.kept {
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return c, noReason
}

// watch tells epoll about a connection, once: edge-triggered, so that what was read is not asked for again. A fresh
// connection whose request has gone out need not say that more could.
func (s *shard) watch(c *conn) {
	c.watched = true
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(c.index), Pad: int32(c.life)}
	if c.svc.kept || len(c.unsent) > 0 {
		ev.Events |= unix.EPOLLOUT
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(s.poll.epoll), unix.EPOLL_CTL_ADD, uintptr(c.fd), uintptr(unsafe.Pointer(&ev)), 0, 0) // where it fails, the attempt times out
}

// list puts a kept connection with room on top of the others.
func (s *shard) list(c *conn) {
	if c.svc.kept && !c.listed && c.room() > 0 {
		c.listed = true
		c.svc.avail = append(c.svc.avail, c)
	}
}

// pick returns a kept connection with room; nil: there is none.
func (svc *service) pick() *conn {
	for len(svc.avail) > 0 {
		top := len(svc.avail) - 1
		c := svc.avail[top]
		if c.room() > 0 {
			return c
		}
		svc.avail[top] = nil
		svc.avail = svc.avail[:top]
		c.listed = false
	}
	return nil
}

// hangUpOn closes a connection that nobody waits for any more; abort: with a reset, because its state is unknown, or so
// that it does not occupy a port of this machine for another minute (TIME_WAIT).
func (s *shard) hangUpOn(c *conn, abort bool) {
	if abort {
		linger := unix.Linger{Onoff: 1}
		_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	}
	closeFD(c.fd)
	if c.listed {
		for j, other := range c.svc.avail {
			if other == c {
				c.svc.avail = append(c.svc.avail[:j], c.svc.avail[j+1:]...)
				break
			}
		}
		c.listed = false
	}
	c.svc.conns--
	c.fd = -1
	c.life++
	c.n, c.live, c.head = 0, 0, 0
	c.parser.Reset()
	if c.unsent = c.unsent[:0]; cap(c.unsent) > 4<<10 {
		c.unsent = nil
	}
	s.free = append(s.free, c.index)
}

// hangUp closes everything at the end.
func (s *shard) hangUp() {
	for _, c := range s.conns {
		if c.fd >= 0 {
			s.hangUpOn(c, !c.svc.kept || c.n > 0)
		}
	}
}

// pump sends what waits for a service, as far as its connections have room.
func (s *shard) pump(svc *service, now time.Duration) {
	if s.g.tls != nil {
		s.pumpTLS(svc, now)
		return
	}
	for svc.queue.n > 0 || s.saturating(now) {
		var c *conn
		if svc.kept {
			c = svc.pick()
		}
		i := none
		if c == nil {
			if svc.conns >= svc.max {
				break
			}
			if i = s.next(svc, now); i == none {
				break
			}
			var why reason
			if c, why = s.dial(svc, true); why != noReason {
				s.again = s.begin(i, svc, s.viewer(s.slab.at(i).k), now, s.again[:0])
				if st := s.slab.at(i); st.attempts == 1 {
					s.sent(st, s.now())
				}
				s.attemptFailed(i, why, now)
				continue
			}
		}
		if !s.stage(c, i, now) {
			break
		}
		if len(s.out) > highWater {
			s.flush()
		}
	}
	s.flush()
}

// highWater is how many bytes of requests are rendered before they are sent.
const highWater = 32 << 10

// staged is requests that were rendered for a connection.
type staged struct {
	c        *conn
	from, to int // in shard.out
	n        int // requests
}

// stage renders requests for a connection, as many as it has room for: start i first, then what waits. It reports whether
// there was one. All of a turn's are rendered first and sent then, in one write to each connection: a tenth of the work is
// saved by not going back and forth between this program's code and the kernel's.
func (s *shard) stage(c *conn, i uint32, now time.Duration) bool {
	svc := c.svc
	w := staged{c: c, from: len(s.out)}
	for c.room() > 0 {
		if i == none {
			if i = s.next(svc, now); i == none {
				break
			}
		}
		v := s.viewer(s.slab.at(i).k)
		s.out = s.begin(i, svc, v, now, s.out)
		s.slab.at(i).conn = c.index
		s.flight.push(&s.slab, i)
		c.push(i, *v)
		w.n++
		i = none
	}
	if w.n == 0 {
		return false
	}
	w.to = len(s.out)
	s.staged = append(s.staged, w)
	return true
}

// flush sends what was staged. This is the moment that the starts were sent at.
func (s *shard) flush() {
	for _, w := range s.staged {
		c, now := w.c, s.now()
		for k := c.n - w.n; k < c.n; k++ {
			st := s.slab.at(c.ring[(c.head+k)%len(c.ring)])
			st.began = now
			if st.attempts == 1 {
				s.sent(st, now)
			}
		}
		if s.write(c, s.out[w.from:w.to], now) {
			if !c.watched {
				s.watch(c)
			}
			s.list(c)
		}
	}
	clear(s.staged)
	s.staged, s.out = s.staged[:0], s.out[:0]
	if cap(s.out) > 4*highWater {
		s.out = make([]byte, 0, 2*highWater)
	}
}

// write sends, or keeps what the socket does not take yet; false: the connection is lost, and that is dealt with.
func (s *shard) write(c *conn, b []byte, now time.Duration) bool {
	if len(c.unsent) > 0 {
		c.unsent = append(c.unsent, b...)
		return true
	}
	n, errno := send(c.fd, b)
	switch errno {
	case 0:
		if n < len(b) {
			c.unsent = append(c.unsent, b[n:]...)
		}
	case unix.EAGAIN, unix.EINTR, unix.ENOTCONN:
		c.unsent = append(c.unsent, b...)
	default:
		s.giveUp(c, whyErrno(errno), now)
		return false
	}
	return true
}

// giveUp deals with a connection that takes no more requests. What it has brought counts all the same: a server that
// closes with requests unread resets the connection behind its answers.
func (s *shard) giveUp(c *conn, why reason, now time.Duration) {
	life := c.life
	c.broken = why
	s.receive(c, 0, false)
	if c.life == life {
		s.lost(c, why, now)
	}
}

// ready deals with what epoll says of a connection.
func (s *shard) ready(ev unix.EpollEvent) {
	if ev.Fd == wakeData {
		return // edge-triggered: it need not be read
	}
	c := s.conns[ev.Fd]
	if c.fd < 0 || c.life != uint32(ev.Pad) {
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 && len(c.unsent) > 0 {
		unsent := c.unsent
		c.unsent = nil // write may keep the rest in the same place
		n, errno := send(c.fd, unsent)
		switch errno {
		case 0:
			c.unsent = unsent[:copy(unsent, unsent[n:])]
		case unix.EAGAIN, unix.EINTR, unix.ENOTCONN:
			c.unsent = unsent
		default:
			s.giveUp(c, whyErrno(errno), s.now())
			return
		}
	}
	if ev.Events&^unix.EPOLLOUT != 0 {
		s.gather(c, ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// arrived is what was read from a connection and not looked at yet.
type arrived struct {
	c        *conn
	life     uint32
	from, to int // in shard.in
	at       time.Duration
	more     bool // there may be more to read
}

// gather reads what has come on a connection. It is looked at when all connections have been read.
func (s *shard) gather(c *conn, ended bool) {
	if len(s.in)-s.got < maxRead {
		s.digest()
	}
	room := s.in[s.got : s.got+maxRead]
	n, errno := receive(c.fd, room)
	if errno != 0 || n == 0 {
		s.receive(c, errno, true)
		return
	}
	// A short read has emptied the socket (epoll(7)).
	s.arrived = append(s.arrived, arrived{c, c.life, s.got, s.got + n, s.now(), n == len(room) || ended})
	s.got += n
}

// digest looks at what was gathered.
func (s *shard) digest() {
	for _, a := range s.arrived {
		if a.c.life != a.life || !s.consume(a.c, s.in[a.from:a.to], a.at) {
			continue
		}
		if a.more {
			s.receive(a.c, 0, false)
		} else {
			s.list(a.c) // pump fills it, after all that has come was read
		}
	}
	clear(s.arrived)
	s.arrived, s.got = s.arrived[:0], 0
}

// receive reads a connection to its end, or until there is nothing left; an attempt at it may have been made, with errno.
func (s *shard) receive(c *conn, errno unix.Errno, tried bool) {
	life, n := c.life, 0
	for ; ; tried = false {
		if !tried {
			n, errno = receive(c.fd, s.rest)
		}
		now := s.now()
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			s.list(c)
			return
		case errno != 0:
			s.lost(c, whyErrno(errno), now)
			return
		case n == 0:
			if done, _ := c.parser.End(); done && c.n > 0 {
				s.answer(c, now)
			}
			if c.life == life {
				s.lost(c, closed, now)
			}
			return
		case !s.consume(c, s.rest[:n], now):
			return
		}
	}
}

// consume takes bytes of a connection; false: it is closed now.
func (s *shard) consume(c *conn, b []byte, now time.Duration) bool {
	for len(b) > 0 {
		if c.n == 0 { // nobody asked: what it means is unknown
			s.stats.attemptFailures.add(unasked)
			s.hangUpOn(c, true)
			return false
		}
		used, done, err := c.parser.Feed(b)
		switch {
		case err == answer.ErrTooLong:
			s.lost(c, tooLong, now)
			return false
		case err != nil:
			s.lost(c, notHTTP, now)
			return false
		case done && !s.answer(c, now):
			return false
		}
		b = b[used:]
	}
	return true
}

// answer takes the whole answer that is in a connection's parser; false: the connection is closed now.
func (s *shard) answer(c *conn, now time.Duration) bool {
	i, v := c.pop()
	c.answered = true
	if i != none {
		s.flight.remove(&s.slab, i)
		s.take(i, v, reply{c.parser.Status, c.parser.RetryAfter, c.parser.Body}, now)
	}
	if !c.svc.kept {
		s.hangUpOn(c, true)
		return false
	}
	end := c.parser.Close
	c.parser.Reset()
	if end {
		s.lost(c, closed, now)
		return false
	}
	return true
}

// lost ends a connection that is of no more use. Who got part of an answer has failed. A server may close a kept
// connection at any moment (RFC 9112, 9.3.1 and 9.6): when it did so before a byte of an answer, that is no failed attempt,
// and the request goes out once more on a new connection. On one that was made for it, it is.
func (s *shard) lost(c *conn, why reason, now time.Duration) {
	again := c.answered || !c.demanded
	why = or(c.broken, why)
	if c.parser.Begun() && c.n > 0 {
		if i, _ := c.pop(); i != none {
			s.flight.remove(&s.slab, i)
			s.attemptFailed(i, why, now)
		}
		again, why = true, closed
	}
	svc := c.svc
	var fresh *conn
	failed := why
	if c.live > 0 && again && svc.kept && !s.ended {
		fresh, failed = s.dial(svc, true)
	}
	out := s.again[:0]
	for c.n > 0 {
		i, v := c.pop()
		switch {
		case i == none:
		case fresh != nil: // its time-out goes on from when it was first sent
			st := s.slab.at(i)
			out = svc.template.render(out, v, st.number)
			st.conn = fresh.index
			fresh.push(i, *v)
			s.stats.resent++
		default:
			s.flight.remove(&s.slab, i)
			s.attemptFailed(i, failed, now)
		}
	}
	s.hangUpOn(c, true)
	if fresh != nil {
		s.again = out
		if s.write(fresh, out, now) {
			s.watch(fresh)
			s.list(fresh)
		}
	}
}

// abandon gives up a start's attempt: its answer, if it comes yet, is nobody's.
func (s *shard) abandon(c *conn, i uint32) {
	for k := range c.n {
		at := (c.head + k) % len(c.ring)
		if c.ring[at] == i {
			c.ring[at] = none
			c.live--
			break
		}
	}
	s.flight.remove(&s.slab, i)
}
