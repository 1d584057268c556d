package starts

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is an epoll instance with a descriptor to wake it. Its own calls, and those of a conn, go past the Go scheduler
// (RawSyscall) where they cannot block: at 100,000 exchanges a second that is a tenth of the work.
type poller struct {
	epoll  int
	events []unix.EpollEvent
	coarse bool // no epoll_pwait2 (before Linux 5.11): waits end up to 1 ms late

	mu    sync.Mutex
	waker int // guarded by mu; -1: closed
}

// maxEvents bounds the work between two looks at the clock.
const maxEvents = 64

// wakeData marks the waker's events: no connection has this index.
const wakeData = int32(-1)

func (p *poller) open() (err error) {
	p.events = make([]unix.EpollEvent, maxEvents)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waker = -1
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	waker, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, waker, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeData})
	}
	if err != nil {
		unix.Close(p.epoll)
		if waker >= 0 {
			unix.Close(waker)
		}
		return fmt.Errorf("eventfd: %w", err)
	}
	p.waker = waker
	return nil
}

func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waker >= 0 {
		unix.Close(p.waker)
		unix.Close(p.epoll)
		p.waker = -1
	}
}

// wake ends a wait; safe from any goroutine, and after close.
func (p *poller) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waker >= 0 {
		one := [8]byte{1}
		_, _ = unix.Write(p.waker, one[:]) // a full counter wakes as well
	}
}

// now returns how many events there are at once.
func (p *poller) now() (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	return p.result(n, errno)
}

// wait waits for events; d < 0 is without end.
func (p *poller) wait(d time.Duration) (int, error) {
	if p.coarse {
		ms := -1
		if d >= 0 {
			ms = int((d + time.Millisecond - 1) / time.Millisecond)
		}
		n, err := unix.EpollWait(p.epoll, p.events, ms)
		if errors.Is(err, unix.EINTR) {
			return 0, nil
		}
		return n, os.NewSyscallError("epoll_wait", err)
	}
	var until *unix.Timespec
	if d >= 0 {
		ts := unix.NsecToTimespec(int64(d))
		until = &ts
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(unsafe.Pointer(until)), 0, 0)
	if errno == unix.ENOSYS || errno == unix.EPERM { // too old a kernel, or a sandbox that does not know the call
		p.coarse = true
		return p.wait(d)
	}
	return p.result(n, errno)
}

func (p *poller) result(n uintptr, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("epoll_wait", errno)
}

// sleep passes time while answers gather.
func (p *poller) sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.Syscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0) // too short is fine
}
