package bare

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ClientConfig says what Exchange sends.
type ClientConfig struct {
	Addr        netip.AddrPort // of a Server
	Request     []byte
	Answer      []byte // what the server sends for each request: its length ends an answer
	Connections int
	InFlight    int  // requests in flight on each connection; 0: 1
	Fresh       bool // a connection for each exchange, which the client ends with a reset; InFlight is 1
	Warm, For   time.Duration
	Begin       func() // called once when the warm-up has ended; may be nil
}

// Result is what Exchange did, warm-up excluded.
type Result struct {
	Done uint64 // whole exchanges
	For  time.Duration
}

// PerSecond is the rate of exchanges.
func (r Result) PerSecond() float64 { return float64(r.Done) / r.For.Seconds() }

// ErrAnswer is why a measurement is worth nothing: what came back is not the answer.
var ErrAnswer = errors.New("bare: the answer differs from what was asked for")

// silence is how long the server may say nothing to anyone.
const silence = 5 * time.Second

// Exchange keeps the connections busy for Warm and then For, and counts what was done in For. It runs on the calling
// goroutine's thread.
func Exchange(ctx context.Context, c ClientConfig) (Result, error) {
	c.InFlight = max(c.InFlight, 1)
	sa, err := loopback(c.Addr)
	switch {
	case err != nil:
		return Result{}, err
	case len(c.Request) == 0 || len(c.Answer) == 0 || c.Connections <= 0 || c.For <= 0 || c.Warm < 0:
		return Result{}, errors.New("bare: a client needs a request, an answer, connections and a time")
	case c.InFlight > batch:
		return Result{}, fmt.Errorf("bare: at most %d in flight on a connection", batch)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := newPoller()
	if err != nil {
		return Result{}, fmt.Errorf("bare: %w", err)
	}
	defer p.close()
	cl := &client{c: c, poll: p, buf: make([]byte, 256<<10)}
	cl.raw = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: sa.Addr}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&cl.raw.Port))[:], uint16(sa.Port))
	defer cl.close()
	cl.slab = bytes.Repeat(c.Request, c.InFlight)
	for range c.Connections {
		if err := cl.open(); err != nil {
			return Result{}, fmt.Errorf("bare client: %w", err)
		}
	}
	r, err := cl.run(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("bare client: %w", err)
	}
	return r, nil
}

type conn struct {
	open    bool
	checked bool // the first answer was compared
	got     int  // bytes of the answer that is arriving
}

type client struct {
	c     ClientConfig
	poll  *poller
	raw   unix.RawSockaddrInet4 // where to connect to
	slab  []byte                // InFlight requests
	buf   []byte
	conns []conn // by descriptor
	done  uint64
}

func (cl *client) close() {
	for fd := range cl.conns {
		if cl.conns[fd].open {
			closeFD(fd)
		}
	}
}

// open connects and sends the first requests. On loopback a connection is there when connect returns, although it says
// EINPROGRESS, unless the server's queue is full.
func (cl *client) open() error {
	r, _, errno := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return fmt.Errorf("socket: %w", errno)
	}
	fd := int(r)
	_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&cl.raw)), unsafe.Sizeof(cl.raw))
	if errno != 0 && errno != unix.EINPROGRESS {
		closeFD(fd)
		return fmt.Errorf("connect: %w", errno)
	}
	for fd >= len(cl.conns) {
		cl.conns = append(cl.conns, make([]conn, 64)...)
	}
	cl.conns[fd] = conn{open: true}
	n, errno := send(fd, cl.slab)
	switch {
	case errno == 0 && n == len(cl.slab):
		if !cl.c.Fresh {
			noDelay(fd)
		}
		return cl.poll.add(fd, unix.EPOLLIN)
	case errno == unix.EAGAIN || errno == unix.ENOTCONN:
		return cl.poll.add(fd, unix.EPOLLOUT|unix.EPOLLONESHOT)
	}
	return fmt.Errorf("send: %w", errno)
}

// run counts what is done between the end of the warm-up and the end of the measurement.
func (cl *client) run(ctx context.Context) (Result, error) {
	begin := time.Now()
	counted, since, heard := uint64(0), begin, begin
	for warm := false; ; {
		events, err := cl.poll.wait(100)
		if err != nil {
			return Result{}, err
		}
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return Result{}, ctx.Err()
		case !warm && now.Sub(begin) >= cl.c.Warm:
			warm, counted, since = true, cl.done, now
			if cl.c.Begin != nil {
				cl.c.Begin()
			}
		case warm && now.Sub(since) >= cl.c.For:
			return Result{Done: cl.done - counted, For: now.Sub(since)}, nil
		}
		if len(events) > 0 {
			heard = now
		} else if now.Sub(heard) > silence {
			return Result{}, fmt.Errorf("the server has been silent for %s", silence)
		}
		for i := range events {
			fd := int(events[i].Fd)
			if events[i].Events&unix.EPOLLOUT != 0 {
				err = cl.connected(fd)
			} else {
				err = cl.readable(fd)
			}
			if err != nil {
				return Result{}, err
			}
		}
	}
}

// connected sends the first requests on a connection that took its time.
func (cl *client) connected(fd int) error {
	if err := sendAll(fd, cl.slab); err != nil {
		return err
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return unix.EpollCtl(cl.poll.epoll, unix.EPOLL_CTL_MOD, fd, &ev)
}

func (cl *client) readable(fd int) error {
	n, errno := recv(fd, cl.buf)
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0:
		return fmt.Errorf("receive: %w", errno)
	case n == 0:
		return errors.New("the server closed a connection")
	}
	c := &cl.conns[fd]
	if !c.checked {
		want := cl.c.Answer[c.got:]
		if m := min(n, len(want)); !bytes.Equal(cl.buf[:m], want[:m]) {
			return ErrAnswer
		}
		c.checked = n >= len(want)
	}
	c.got += n
	k := c.got / len(cl.c.Answer)
	c.got -= k * len(cl.c.Answer)
	if k > cl.c.InFlight {
		return ErrAnswer
	}
	cl.done += uint64(k)
	switch {
	case k == 0:
		return nil
	case cl.c.Fresh:
		c.open = false
		// A reset, so that no port stays occupied (TIME_WAIT): a minute of this would run out of them.
		l := unix.Linger{Onoff: 1}
		unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(&l)), unsafe.Sizeof(l), 0)
		closeFD(fd)
		return cl.open()
	}
	return sendAll(fd, cl.slab[:k*len(cl.c.Request)])
}
