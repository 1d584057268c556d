package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
)

// Config says where a UDP probe sends, and what it expects.
type Config struct {
	// Near and Far are bound sockets of the probe's own, one at either end of the path; Close closes them.
	Near, Far *net.UDPConn
	// To is where Near sends: the path's public address, which leads this sender to Far (a relay's route), or Far's own address
	// where the path is the network itself. Far answers to wherever Near's packets come from.
	To netip.AddrPort
	// Up (from Near to Far) and Down are what the fault promises each way; the zero value: nothing happens there.
	Up, Down link.Impairment
	// Shared: packets of other flows are drawn from the same sequence (one program in the kernel for many flows): bursts are not judged then.
	Shared bool
	// For is how long the fault lasts: the shorter, the closer the packets.
	For time.Duration
	Now func() time.Time // the run's clock
}

// UDP is the observer of everything that can happen to packets.
type UDP struct {
	cfg   Config
	id    uint32
	start time.Time
	end   time.Duration
	ways  [2]*flow
	from  atomic.Pointer[netip.AddrPort] // where Far sends
}

// flow is one direction.
type flow struct {
	name     string
	promise  link.Impairment
	pace     Pace
	src, dst *net.UDPConn

	mu      sync.Mutex
	records []Record
	skipped int // not sent in time, or no room to remember it
	unclear int // arrived, and could not be told which they were
	own     uint64
}

// NewUDP prepares a probe; Watch runs it.
func NewUDP(c Config) (*UDP, error) {
	var errs []error
	if c.Near == nil || c.Far == nil || c.Now == nil || !c.To.IsValid() || c.To.Port() == 0 {
		errs = append(errs, errors.New("it needs two sockets, where to send, and a clock"))
	}
	errs = append(errs, c.Up.Validate(), c.Down.Validate())
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("UDP probe: %w", err)
	}
	p := &UDP{cfg: c, id: rand.Uint32()}
	p.ways = [2]*flow{
		{name: "upwards", promise: c.Up, pace: PaceFor(c.Up, c.For), src: c.Near, dst: c.Far},
		{name: "downwards", promise: c.Down, pace: PaceFor(c.Down, c.For), src: c.Far, dst: c.Near},
	}
	for _, f := range p.ways {
		if err := errors.Join(tooLong(f.promise.Longest(), f.pace.after(f.promise)), f.prepare()); err != nil {
			return nil, fmt.Errorf("UDP probe: %w", err)
		}
	}
	return p, nil
}

// prepare asks the kernel to stamp what arrives, and for room to hold it.
func (f *flow) prepare() error {
	raw, err := f.dst.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20) //nolint:errcheck // what is lost for want of room is counted
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("have packets stamped on arrival: %w", err)
	}
	return nil
}

// After is how long to watch from the end of the fault, to see that it is over.
func (p *UDP) After() time.Duration {
	return max(p.ways[0].pace.after(p.cfg.Up), p.ways[1].pace.after(p.cfg.Down))
}

// Close closes both sockets.
func (p *UDP) Close() error { return errors.Join(p.cfg.Near.Close(), p.cfg.Far.Close()) }

// Watch sends and receives until ctx ends, and a moment longer for what is on its way. It may be called once.
func (p *UDP) Watch(ctx context.Context) {
	// Wall clock: the kernel stamps by it.
	p.start = p.cfg.Now()
	wall := time.Now().UnixNano()
	since := func() time.Duration { return time.Duration(time.Now().UnixNano() - wall) }
	var senders, receivers sync.WaitGroup
	for w, f := range p.ways {
		f.own = f.overrun()
		receivers.Go(func() { p.receive(byte(w), f, wall) })
		senders.Go(func() { p.send(ctx, byte(w), f, since) })
	}
	<-ctx.Done()
	senders.Wait()
	p.end = since()
	for _, f := range p.ways {
		f.dst.SetReadDeadline(time.Now().Add(inFlight)) //nolint:errcheck // a closed socket ends the reading too
	}
	receivers.Wait()
	for _, f := range p.ways {
		f.own = f.overrun() - f.own
	}
}

// send sends trains at the flow's pace until ctx ends.
func (p *UDP) send(ctx context.Context, way byte, f *flow, since func() time.Duration) {
	b := make([]byte, f.pace.Size)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := since(); ; due += f.pace.Every {
		now := since()
		if late := now - due; late > time.Second {
			f.skip(int(late/f.pace.Every) * f.pace.Train)
			due = now
		}
		if wait := due - now; wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		to := &p.cfg.To
		if way == 1 {
			if to = p.from.Load(); to == nil {
				continue // nobody has come yet
			}
		}
		for range f.pace.Train {
			seq, ok := f.next(since, due)
			if !ok {
				return
			}
			header{probe: p.id, way: way, seq: seq}.marshal(b)
			// What is refused here (a port that is closed) is lost like what is dropped on the way.
			f.src.WriteToUDPAddrPort(b, *to) //nolint:errcheck // as above
		}
	}
}

// next is a packet's number, noted as sent now; false: there is no room for more.
func (f *flow) next(since func() time.Duration, due time.Duration) (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.records) == mostKept {
		f.skipped++
		return 0, false
	}
	now := since()
	f.records = append(f.records, Record{Sent: now, Lag: now - due})
	return uint64(len(f.records) - 1), true
}

func (f *flow) skip(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skipped += n
}

// receive notes what arrives until the socket's deadline.
func (p *UDP) receive(way byte, f *flow, wall int64) {
	b, control := make([]byte, mostSize+1), make([]byte, 128)
	for {
		n, oob, _, from, err := f.dst.ReadMsgUDPAddrPort(b, control)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) {
				continue // the answer to a packet of the other direction
			}
			return
		}
		at, stamped := stamp(control[:oob])
		h, intact, ok := parse(b[:n], f.pace.Size)
		if !stamped || !ok || h.probe != p.id || h.way != way {
			f.mu.Lock()
			f.unclear++
			f.mu.Unlock()
			continue
		}
		if way == 0 {
			p.meet(from)
		}
		f.note(h.seq, time.Duration(at-wall), intact)
	}
}

// meet learns where Far's packets have to go.
func (p *UDP) meet(from netip.AddrPort) {
	if known := p.from.Load(); known == nil || *known != from {
		p.from.Store(&from)
	}
}

func (f *flow) note(seq uint64, at time.Duration, intact bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq >= uint64(len(f.records)) {
		f.unclear++
		return
	}
	r := &f.records[seq]
	if r.Copies == 0 || at < r.Arrived {
		r.Arrived = at
	}
	r.Copies++
	r.Corrupt = r.Corrupt || !intact
}

// stamp is when the kernel received a packet (socket(7), SO_TIMESTAMPNS), in ns of the wall clock.
func stamp(control []byte) (int64, bool) {
	const level, kind, body = 8, 12, 16 // of struct cmsghdr on 64-bit machines
	if len(control) < body+16 || int32(binary.NativeEndian.Uint32(control[level:])) != unix.SOL_SOCKET ||
		int32(binary.NativeEndian.Uint32(control[kind:])) != unix.SO_TIMESTAMPNS {
		return 0, false
	}
	return int64(binary.NativeEndian.Uint64(control[body:]))*int64(time.Second) + int64(binary.NativeEndian.Uint64(control[body+8:])), true
}

// overrun is what the kernel dropped because the observer did not read in time.
func (f *flow) overrun() uint64 {
	var info [unix.SK_MEMINFO_VARS]uint32
	raw, err := f.dst.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) { //nolint:errcheck // a closed socket drops nothing
		size := uint32(unsafe.Sizeof(info))
		unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0) //nolint:errcheck // as before
	})
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

// Directions is what was seen so far, each way.
func (p *UDP) Directions() []Direction {
	all := make([]Direction, len(p.ways))
	for i, f := range p.ways {
		f.mu.Lock()
		records := append([]Record(nil), f.records...)
		f.mu.Unlock()
		all[i] = Direction{
			Name: f.name, Promise: f.promise, Shared: p.cfg.Shared, Train: f.pace.Train, Size: f.pace.Size, Every: f.pace.Every, Records: records, Own: int(f.own),
		}
	}
	return all
}

// Judge says what the packets prove. Watch has returned.
func (p *UDP) Judge(w evidence.Window) evidence.Evidence {
	e := Judge(w, p.start, p.end, p.Directions()...)
	for _, f := range p.ways {
		if f.skipped > 0 {
			e.Detail += fmt.Sprintf("; %d packets %s were not sent in time", f.skipped, f.name)
		}
		if f.unclear > 0 {
			e.Detail += fmt.Sprintf("; %d arrived %s that are none of the probe's, or were", f.unclear, f.name)
		}
	}
	return e
}
