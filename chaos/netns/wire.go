package netns

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
)

const (
	wireRing   = 8192 // packets the kernel keeps for a wire that is not being read, while its thread waits for a core
	wireBatch  = 64   // packets read before those that are due go on
	timerSlack = 1000 // ns; 50,000 by default
	wireNice   = -15  // before everything of the run's that only computes
)

// stretch is what the wire does to one flow.
type stretch struct {
	id   uint64
	flow kernel.Flow
	link *link.Link // the wire's thread's alone

	held, noRoom atomic.Uint64 // packets
}

// send says until when a packet is held up by every stretch that it is part of; false: one had no room for it.
func send(stretches []*stretch, now time.Duration, packet []byte) (time.Duration, bool) {
	at := now
	for _, s := range stretches {
		if !matches(s.flow, packet) {
			continue
		}
		out, n := s.link.Send(now, len(packet))
		if n == 0 {
			s.noRoom.Add(1)
			return 0, false
		}
		s.held.Add(1)
		// One after the other, but each told the same time: a link's never goes back, and a jitter's sum may.
		at += out[0].At - now
	}
	return at, true
}

// wire is a piece of cable in user space: a TUN interface (linux/if_tun.h) whose packets come back to it later. The kernel
// sends it packets by redirection, and routes what comes back.
type wire struct {
	tun, wake int // file descriptors
	index     int // of the interface, in its namespace
	name      string

	stretches atomic.Pointer[[]*stretch] // replaced as a whole
	stop      atomic.Bool
	lost      atomic.Uint64 // packets for which there was no buffer, or which the kernel did not take back
	done      chan struct{}
	err       error // why it ended by itself; read after done
}

// newWire makes a wire in the calling thread's namespace, with which kernel speaks.
func newWire(kernel *rtnetlink, name string) (*wire, error) {
	w := &wire{name: name, tun: -1, wake: -1, done: make(chan struct{})}
	w.stretches.Store(new([]*stretch))
	err := w.open()
	if err == nil {
		var state interfaceState
		if state, err = kernel.find(name); err == nil {
			w.index = state.index
			err = kernel.up(state.index, number(unix.IFLA_MTU, mtu), number(unix.IFLA_TXQLEN, wireRing))
		}
	}
	if err != nil {
		w.release()
		return nil, fmt.Errorf("lay a wire: %w", err)
	}
	onOwnThread(w.run)
	return w, nil
}

// open makes the TUN interface in the calling thread's namespace. It is not persistent: it goes with the descriptor.
func (w *wire) open() (err error) {
	if w.tun, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return explain("open /dev/net/tun", err)
	}
	request, err := unix.NewIfreq(w.name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(w.tun, unix.TUNSETIFF, request); err != nil {
		return explain("make TUN interface "+w.name, err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	return nil
}

func (w *wire) release() error {
	var errs []error
	for _, fd := range []*int{&w.tun, &w.wake} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// set says what the wire does from now on. With nothing left to do, what it holds goes on at once.
func (w *wire) set(stretches []*stretch) error {
	w.stretches.Store(&stretches)
	return w.nudge()
}

func (w *wire) nudge() error {
	one := [8]byte{1, 1, 1, 1, 1, 1, 1} // any number; neither 0 nor the greatest, which an eventfd refuses
	if _, err := unix.Write(w.wake, one[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return os.NewSyscallError("wake a wire", err)
	}
	return nil
}

// close ends the wire; what it holds is lost.
func (w *wire) close() error {
	w.stop.Store(true)
	err := w.nudge()
	<-w.done
	return errors.Join(err, w.err, w.release())
}

// run carries packets until close.
func (w *wire) run() {
	defer close(w.done)
	// Best effort: a packet is late by the timer's slack, and by what else the machine has to do.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, wireNice) // of this thread
	var (
		q     queue
		begin = time.Now()
		fds   = []unix.PollFd{{Fd: int32(w.tun), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}
		count [8]byte
	)
	for !w.stop.Load() {
		now := time.Since(begin)
		if len(*w.stretches.Load()) == 0 {
			now = 1<<63 - 1
		}
		w.deliver(&q, now)
		var timeout *unix.Timespec
		if at, ok := q.due(); ok {
			t := unix.NsecToTimespec(max(0, int64(at-time.Since(begin))))
			timeout = &t
		}
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			w.err = os.NewSyscallError("wait for packets on a wire", err)
			return
		}
		if fds[1].Revents != 0 {
			_, _ = unix.Read(w.wake, count[:])
		}
		if fds[0].Revents&^unix.POLLIN != 0 {
			w.err = fmt.Errorf("wire %s was taken away", w.name)
			return
		}
		if fds[0].Revents != 0 {
			w.take(&q, begin)
		}
	}
}

// take reads what the kernel has for the wire, some of it. Each packet has its own time: one that came while those before it were
// read would go on too early by theirs.
func (w *wire) take(q *queue, begin time.Time) {
	stretches := *w.stretches.Load()
	for range wireBatch {
		buf := q.buffer()
		n, err := unix.Read(w.tun, buf[:])
		if err != nil {
			q.release(buf)
			return // nothing there, or interrupted: the next wait tells
		}
		at, ok := send(stretches, time.Since(begin), buf[:n])
		if ok && q.full() {
			w.lost.Add(1)
			ok = false
		}
		if !ok {
			q.release(buf)
			continue
		}
		q.push(at, buf, n)
	}
}

// deliver hands back what is due.
func (w *wire) deliver(q *queue, now time.Duration) {
	for at, ok := q.due(); ok && at <= now; at, ok = q.due() {
		p := q.pop()
		if _, err := unix.Write(w.tun, p.buf[:p.len]); err != nil {
			w.lost.Add(1)
		}
		q.release(p.buf)
	}
}
