package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch = 64    // packets per system call
	slot  = 65536 // any datagram fits

	wantBuffer = 4 << 20 // of a socket's receive queue; without privileges the kernel gives less
)

// sockaddr is a socket address as the kernel writes it, and a map's key.
type sockaddr struct {
	raw [unix.SizeofSockaddrInet6]byte
	len uint32
}

func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.raw[2:])
	if s.len == unix.SizeofSockaddrInet4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.raw[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.raw[8:24])), port)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func toUnix(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// udpSocket makes a socket that is bound to from, and connected to a peer where there is one.
func udpSocket(from, to netip.AddrPort) (fd int, err error) {
	of := from.Addr()
	if !of.IsValid() {
		of = to.Addr()
	}
	fd, err = unix.Socket(family(of), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wantBuffer) != nil {
		// Without privileges: what the system allows. Overrun counts what that costs.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wantBuffer) //nolint:errcheck // as before
	}
	if from.Addr().IsValid() {
		if err := unix.Bind(fd, toUnix(from)); err != nil {
			return fd, fmt.Errorf("bind %s: %w", from, err)
		}
	}
	if to.Addr().IsValid() {
		if err := unix.Connect(fd, toUnix(to)); err != nil {
			return fd, fmt.Errorf("connect to %s: %w", to, err)
		}
	}
	return fd, nil
}

// overrun is what the kernel has dropped because fd's receive queue was full.
func overrun(fd int) uint64 {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

// The system calls below never block (the sockets do not, and wait polls first), so they need not tell Go's scheduler.

// arena receives up to batch packets in one call.
type arena struct {
	headers [batch]unix.Mmsghdr
	vectors [batch]unix.Iovec
	names   [batch]sockaddr
	memory  []byte
}

func newArena() *arena {
	a := &arena{memory: make([]byte, batch*slot)} // touched only as far as packets reach
	for i := range a.headers {
		a.vectors[i].Base = &a.memory[i*slot]
		a.vectors[i].SetLen(slot)
		a.headers[i].Hdr.Iov = &a.vectors[i]
		a.headers[i].Hdr.SetIovlen(1)
	}
	return a
}

// receive fills the arena; named: with the senders' addresses.
func (a *arena) receive(fd int, named bool) (int, unix.Errno) {
	for i := range a.headers {
		h := &a.headers[i].Hdr
		if named {
			a.names[i] = sockaddr{}
			h.Name, h.Namelen = &a.names[i].raw[0], uint32(len(a.names[i].raw))
		} else {
			h.Name, h.Namelen = nil, 0
		}
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&a.headers[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case 0:
			if named {
				for i := range int(n) {
					a.names[i].len = a.headers[i].Hdr.Namelen
				}
			}
			return int(n), 0
		}
		return 0, errno
	}
}

// packet is the i-th that was received last.
func (a *arena) packet(i int) []byte {
	n := int(a.headers[i].Len)
	return a.memory[i*slot : i*slot+n : i*slot+n]
}

// outbox gathers packets that leave by one socket.
type outbox struct {
	fd      int
	n       int
	headers [batch]unix.Mmsghdr
	vectors [batch]unix.Iovec
	owned   [batch][]byte // goes back to the pool when it is sent
}

var nothing byte

// put adds a packet for to (nil: whom the socket is connected to). There must be room.
func (o *outbox) put(b []byte, to *sockaddr) {
	v, h := &o.vectors[o.n], &o.headers[o.n].Hdr
	v.Base = &nothing
	if len(b) > 0 {
		v.Base = &b[0]
	}
	v.SetLen(len(b))
	h.Iov = v
	h.SetIovlen(1)
	h.Name, h.Namelen = nil, 0
	if to != nil {
		h.Name, h.Namelen = &to.raw[0], to.len
	}
	o.n++
}

// send sends what was gathered and says how many packets and bytes went, and how many the kernel refused.
func (o *outbox) send() (sent, bytes, failed uint64) {
	again := false
	for i := 0; i < o.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(o.fd), uintptr(unsafe.Pointer(&o.headers[i])), uintptr(o.n-i), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.ECONNREFUSED && !again:
			again = true // the answer to an earlier packet; this one was not tried
		case errno != 0:
			failed++
			i++
			again = false
		default:
			for k := i; k < i+int(n); k++ {
				bytes += uint64(o.headers[k].Len)
			}
			sent += uint64(n)
			i += int(n)
			again = false
		}
	}
	return sent, bytes, failed
}

// poller waits for sockets, for a moment, and for others who call.
type poller struct {
	epoll, wake, timer int
	armed              time.Duration // what the timer is set to; 0: nothing
	events             [128]unix.EpollEvent
}

func newPoller() (*poller, error) {
	p := &poller{epoll: -1, wake: -1, timer: -1}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), p.close())
	}
	// A timer of its own: epoll's time-out is coarse, and late by the thread's timer slack.
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("timerfd: %w", err), p.close())
	}
	if err := p.add(p.wake, 0); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := p.add(p.timer, unix.EPOLLET); err != nil { // told of once each time: nobody reads it
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *poller) close() error {
	for _, fd := range []int{p.timer, p.wake, p.epoll} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	p.epoll, p.wake, p.timer = -1, -1, -1
	return nil
}

func (p *poller) add(fd int, flags uint32) error {
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | flags, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// interrupt ends the current or the next wait, while the poller is open.
func (p *poller) interrupt() {
	one := [8]byte{1}
	unix.Write(p.wake, one[:]) //nolint:errcheck // it fails only when the counter is full: then the wait ends anyway
}

// calm takes notice of an interruption.
func (p *poller) calm() {
	var b [8]byte
	unix.Read(p.wake, b[:]) //nolint:errcheck // nothing there: nothing to do
}

// waitUntil returns what is ready, at due (on the clock that says now) at the latest.
func (p *poller) waitUntil(now, due time.Duration) ([]unix.EpollEvent, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno == 0 && n == 0 && due > now {
		if err := p.arm(now, due); err != nil {
			return nil, err
		}
		forever := -1
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(forever), 0, 0)
	}
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("epoll: %w", errno)
}

func (p *poller) arm(now, due time.Duration) error {
	if due == p.armed {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(1, due-now)))}
	if err := unix.TimerfdSettime(p.timer, 0, &spec, nil); err != nil {
		return fmt.Errorf("timerfd: %w", err)
	}
	p.armed = due
	return nil
}

// threadTime is the CPU time of one thread of this process: clock_gettime(2) on its clock, whose number is made of the
// thread's (linux/posix-timers.h, CPUCLOCK_PERTHREAD_MASK and CPUCLOCK_SCHED).
func threadTime(tid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^tid<<3|4|2), &t); err != nil {
		return 0, fmt.Errorf("CPU time of thread %d: %w", tid, err)
	}
	return time.Duration(t.Nano()), nil
}
