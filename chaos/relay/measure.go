package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

// Load is what Measure sends.
type Load struct {
	Addr       netip.Addr      // local; not valid: 127.0.0.1
	Size       int             // bytes of each packet; 0: 1316, seven packets of MPEG-TS
	Packets    int             // through the relay, and as many without it; 0: 300,000
	Impairment link.Impairment // what the relay does meanwhile; losing or duplicating would spoil the count
}

// Throughput is what one core relays, and what it would at most: the yardstick is the same packets between the same sockets
// without the relay, a hop of one sending and one receiving system call, and that is what a relay makes of each packet too.
type Throughput struct {
	Size           int     `json:"size"`
	Packets        int     `json:"packets"`
	RelayPerCore   float64 `json:"relay_per_core"`   // packets in each second of CPU time of the relay's thread
	BarePerCore    float64 `json:"bare_per_core"`    // packets in each second of CPU time of the sender's and the receiver's threads, no relay
	Ratio          float64 `json:"ratio"`            // the one over the other
	RelayPerSecond float64 `json:"relay_per_second"` // by the clock, with sender, relay and receiver on this machine's cores
	BarePerSecond  float64 `json:"bare_per_second"`
	Lost           int     `json:"lost"` // must be 0
}

const (
	defaultSize    = 1316
	defaultPackets = 300_000
	skbTruesize    = 1024 // what the kernel counts for a packet beside its bytes, at most, before they are rounded up to a power of two
	measureStall   = 2 * time.Second
	burst          = 16 // packets that are sent in one call at least; as many as the relay takes where the receiver has room
)

// Measure sends packets through a relay and, in turns, past it: half of each before the other, so that a machine that drifts takes both
// along.
func Measure(ctx context.Context, l Load) (Throughput, error) {
	l.Size, l.Packets = or(l.Size, defaultSize), or(l.Packets, defaultPackets)
	if !l.Addr.IsValid() {
		l.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if l.Size < 1 || l.Size > 65_000 || l.Packets < 2 || !l.Addr.IsLoopback() {
		return Throughput{}, errors.New("relay measurement: 2 packets at least, of 1 to 65,000 bytes, on a loopback address")
	}
	r := Throughput{Size: l.Size, Packets: l.Packets}
	var relayed, bare run
	for range 2 {
		for _, part := range []struct {
			through bool
			sum     *run
		}{{false, &bare}, {true, &relayed}} {
			got, err := measureOnce(ctx, l, part.through)
			if err != nil {
				return r, fmt.Errorf("relay measurement: %w", err)
			}
			part.sum.add(got)
		}
	}
	r.Lost = relayed.lost + bare.lost
	r.RelayPerCore, r.RelayPerSecond = relayed.per(relayed.relay), relayed.per(relayed.took)
	r.BarePerCore, r.BarePerSecond = bare.per(bare.ends), bare.per(bare.took)
	if r.BarePerCore > 0 {
		r.Ratio = r.RelayPerCore / r.BarePerCore
	}
	return r, nil
}

// run is one side's packets and times.
type run struct {
	packets, lost     int
	took, relay, ends time.Duration
}

func (r *run) add(o run) {
	r.packets += o.packets
	r.lost += o.lost
	r.took += o.took
	r.relay += o.relay
	r.ends += o.ends
}

func (r *run) per(d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(r.packets) / d.Seconds()
}

// measureOnce sends half of the packets.
func measureOnce(ctx context.Context, l Load, through bool) (got run, err error) {
	from := netip.AddrPortFrom(l.Addr, 0)
	sink, err := udpSocket(from, netip.AddrPort{})
	if err != nil {
		return got, err
	}
	defer unix.Close(sink)
	to, err := boundTo(sink)
	if err != nil {
		return got, err
	}
	var u *UDP
	if through {
		u, err = ListenUDP(Config{Listen: from, Upstream: to})
		if err != nil {
			return got, err
		}
		if err := u.Set(l.Impairment, link.Impairment{}); err != nil {
			return got, errors.Join(err, u.Close())
		}
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- u.Run(ctx) }()
		defer func() {
			cancel()
			err = errors.Join(err, <-ended)
		}()
		to = u.Addr()
	}
	source, err := udpSocket(from, to)
	if err != nil {
		return got, err
	}
	defer unix.Close(source)

	got.packets = l.Packets / 2
	window := windowOf(sink, l.Size)
	var received atomic.Int64
	var stopped atomic.Bool
	type end struct {
		cpu time.Duration
		err error
	}
	ends := make(chan end, 2)
	began := time.Now()
	go func() {
		cpu, err := onThread(func() error { return takeAll(ctx, sink, got.packets, &received, &stopped) })
		ends <- end{cpu, err}
	}()
	go func() {
		cpu, err := onThread(func() error { return sendAll(ctx, source, l.Size, got.packets, window, &received, &stopped) })
		ends <- end{cpu, err}
	}()
	for range 2 {
		e := <-ends
		got.ends += e.cpu
		err = errors.Join(err, e.err)
		if e.err != nil {
			stopped.Store(true)
		}
	}
	got.took = time.Since(began)
	got.lost = got.packets - int(received.Load())
	if u != nil && err == nil {
		got.relay, err = u.CPU()
	}
	return got, err
}

// windowOf is how many packets fit a socket's receive queue, with room to spare: what is on its way at once, so that nothing is lost.
func windowOf(fd, size int) int {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return burst
	}
	of := skbTruesize
	for of < size+skbTruesize {
		of *= 2
	}
	return max(burst, min(256, n/of/2))
}

// onThread runs f on a thread of its own and says what CPU time that took.
func onThread(f func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	before, err := threadTime(tid)
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := threadTime(tid)
	return after - before, err
}

// ready waits until fd can be read, a moment at most.
func ready(fd int) error {
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}

func takeAll(ctx context.Context, fd, packets int, received *atomic.Int64, stopped *atomic.Bool) error {
	in := newArena()
	for received.Load() < int64(packets) && ctx.Err() == nil && !stopped.Load() {
		n, errno := in.receive(fd, false)
		switch {
		case errno == 0:
			received.Add(int64(n))
		case errno != unix.EAGAIN:
			return fmt.Errorf("receive: %w", errno)
		default:
			if err := ready(fd); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func sendAll(ctx context.Context, fd, size, packets, window int, received *atomic.Int64, stopped *atomic.Bool) error {
	out := &outbox{fd: fd}
	burst := max(burst, min(batch, window/4))
	payload := make([]byte, size)
	for done := 0; done < packets && ctx.Err() == nil && !stopped.Load(); {
		var stall time.Time
		for done-int(received.Load()) > window-burst {
			// The others have the core meanwhile; a stall is a packet that was lost.
			runtime.Gosched()
			unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil) //nolint:errcheck // shorter is as well
			switch {
			case stall.IsZero():
				stall = time.Now()
			case time.Since(stall) > measureStall:
				stopped.Store(true)
				return fmt.Errorf("%d of %d packets have not arrived", done-int(received.Load()), done)
			}
		}
		for range min(burst, packets-done) {
			out.put(payload, nil)
		}
		n := out.n
		if _, _, failed := out.send(); failed > 0 {
			stopped.Store(true)
			return fmt.Errorf("the kernel refused %d packets", failed)
		}
		out.n = 0
		done += n
	}
	return ctx.Err()
}
