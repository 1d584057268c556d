package bare

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// batch is how many exchanges one system call carries at most; more in flight take several.
const batch = 64

// ServerConfig says what a Server answers.
type ServerConfig struct {
	Addr   netip.AddrPort // IPv4 loopback; port 0: the kernel chooses
	Answer []byte         // sent for every request
	End    byte           // the last byte of a request, nowhere else in it; 0: '}'
}

// Server answers every request with the same bytes.
type Server struct {
	c        ServerConfig
	slab     []byte // batch answers
	listener int
	addr     netip.AddrPort
	poll     *poller
	served   atomic.Uint64
}

// Listen binds the server's address.
func Listen(c ServerConfig) (*Server, error) {
	if len(c.Answer) == 0 {
		return nil, fmt.Errorf("bare: a server needs an answer")
	}
	if c.End == 0 {
		c.End = '}'
	}
	sa, err := loopback(c.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{c: c, slab: bytes.Repeat(c.Answer, batch), listener: -1}
	if s.poll, err = newPoller(); err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	if err := s.bind(sa); err != nil {
		s.close()
		return nil, fmt.Errorf("bare: listen on %s: %w", c.Addr, err)
	}
	return s, nil
}

func (s *Server) bind(sa *unix.SockaddrInet4) (err error) {
	if s.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	noDelay(s.listener) // connections inherit it
	if err := unix.Bind(s.listener, sa); err != nil {
		return err
	}
	if err := unix.Listen(s.listener, 4096); err != nil {
		return err
	}
	name, err := unix.Getsockname(s.listener)
	if err != nil {
		return err
	}
	s.addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(name.(*unix.SockaddrInet4).Port))
	return s.poll.add(s.listener, unix.EPOLLIN)
}

func (s *Server) close() {
	if s.listener >= 0 {
		unix.Close(s.listener)
		s.listener = -1
	}
	s.poll.close()
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Served counts the answers given so far.
func (s *Server) Served() uint64 { return s.served.Load() }

// Run serves until ctx ends, then closes everything and returns nil. A connection that misbehaves is closed.
func (s *Server) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	conns := map[int]struct{}{}
	defer func() {
		for fd := range conns {
			closeFD(fd)
		}
		s.close()
	}()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(stopped); s.poll.interrupt() })
	defer func() {
		if !stop() {
			<-stopped // the poller is closed after this
		}
	}()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		events, err := s.poll.wait(-1)
		if err != nil {
			return fmt.Errorf("bare server: %w", err)
		}
		for i := range events {
			switch fd := int(events[i].Fd); fd {
			case s.poll.wake:
			case s.listener:
				if err := s.accept(conns, buf); err != nil {
					return fmt.Errorf("bare server: %w", err)
				}
			default:
				if !s.serve(fd, buf) {
					delete(conns, fd)
					closeFD(fd)
				}
			}
		}
	}
	return nil
}

func (s *Server) accept(conns map[int]struct{}, buf []byte) error {
	for range batch {
		r, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(s.listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return fmt.Errorf("accept: %w", errno)
		}
		fd := int(r)
		if !s.serve(fd, buf) { // the first request is often there already
			closeFD(fd)
			continue
		}
		if err := s.poll.add(fd, unix.EPOLLIN); err != nil {
			closeFD(fd)
			return err
		}
		conns[fd] = struct{}{}
	}
	return nil
}

// serve answers what has arrived; false: the connection is to be closed.
func (s *Server) serve(fd int, buf []byte) bool {
	n, errno := recv(fd, buf)
	switch {
	case errno == unix.EAGAIN:
		return true
	case errno != 0 || n == 0:
		return false
	}
	return s.answer(fd, buf[:n])
}

func (s *Server) answer(fd int, in []byte) bool {
	n := bytes.Count(in, []byte{s.c.End})
	s.served.Store(s.served.Load() + uint64(n)) // one writer
	for n > 0 {
		k := min(n, batch)
		if sendAll(fd, s.slab[:k*len(s.c.Answer)]) != nil {
			return false
		}
		n -= k
	}
	return true
}
