package bare

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls below never block (the sockets do not, and wait polls first), so they need not tell Go's scheduler:
// that alone is worth several per cent.

// poller is an epoll instance and an eventfd that ends the wait on it.
type poller struct {
	epoll, wake int
	events      [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	p := &poller{epoll: -1, wake: -1}
	var err error
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := p.add(p.wake, unix.EPOLLIN); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) close() {
	for _, fd := range []int{p.wake, p.epoll} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	p.epoll, p.wake = -1, -1
}

// interrupt ends the current or the next wait; safe from any goroutine while the poller is open.
func (p *poller) interrupt() {
	one := [8]byte{1}
	unix.Write(p.wake, one[:]) //nolint:errcheck // it fails only when the counter is full: then the wait ends anyway
}

func (p *poller) add(fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll: %w", errno)
	}
	return nil
}

// wait returns what is ready, and waits up to millis (-1: for ever) when nothing is.
func (p *poller) wait(millis int) ([]unix.EpollEvent, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno == 0 && n == 0 && millis != 0 {
		n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(millis), 0, 0)
	}
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("epoll: %w", errno)
}

func recv(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

func send(fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// sendAll sends b whole or fails: what is in flight here always fits a socket's buffer.
func sendAll(fd int, b []byte) error {
	n, errno := send(fd, b)
	switch {
	case errno != 0:
		return fmt.Errorf("send: %w", errno)
	case n < len(b):
		return errors.New("send: the socket's buffer is full")
	}
	return nil
}

func closeFD(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func noDelay(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) } //nolint:errcheck // a slower yardstick at worst

// loopback is addr as a socket address; the yardstick never leaves the machine.
func loopback(addr netip.AddrPort) (*unix.SockaddrInet4, error) {
	ip := addr.Addr().Unmap()
	if !ip.Is4() || !ip.IsLoopback() {
		return nil, fmt.Errorf("bare: %s is not an IPv4 loopback address", addr)
	}
	return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(addr.Port())}, nil
}

// Pin ties every thread of this process, and those it makes later, to one core (from 0).
func Pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	// A thread that another one makes meanwhile may inherit what its maker had: look again until there is no new one.
	for seen := map[int]bool{}; ; {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("pin to core %d: %w", core, err)
		}
		fresh := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || seen[tid] {
				continue
			}
			seen[tid], fresh = true, true
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pin to core %d: %w", core, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}
