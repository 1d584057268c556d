package bare

import (
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

// A source sends numbered datagrams as fast as it can, so many at once as a sink's memory holds, and the sink says now and
// then what it has heard: so none is lost but by what is between them on purpose.

const (
	packetBatch  = 32      // datagrams in one system call
	packetAck    = 256     // datagrams between two of the sink's words, at most
	leastWindow  = 128     // on their way at once: more than are ever lost in a row, or the source would wait for ever
	packetWindow = 2048    // the same, at most
	packetMemory = 4 << 10 // bytes that the kernel may count for one
	maxPacket    = 2 << 10 // bytes
	sinkMemory   = 16 << 20
	sinkSpins    = 2000 // looks for datagrams before it sleeps: waking it would be the source's work
	sinkSleep    = 1    // ms
	sourceSleep  = 100  // ms
	sourceStall  = 2 * time.Second
)

// Heard is what a sink has heard, by the datagrams' numbers.
type Heard struct {
	Next    uint64 // the number after the highest
	Arrived uint64
	Lost    uint64 // numbers left out
	Bursts  uint64 // runs of them
	Wrong   uint64 // those that were lost and should have arrived, or arrived and should have been lost, or came late or twice
	Window  uint64 // how many may be on their way
}

// heardSize is what a sink's word is long.
const heardSize = 6 * 8

func (h *Heard) fields() [6]*uint64 {
	return [6]*uint64{&h.Next, &h.Arrived, &h.Lost, &h.Bursts, &h.Wrong, &h.Window}
}

func (h *Heard) append(b []byte) []byte {
	for _, f := range h.fields() {
		b = binary.BigEndian.AppendUint64(b, *f)
	}
	return b
}

func (h *Heard) parse(b []byte) {
	for i, f := range h.fields() {
		*f = binary.BigEndian.Uint64(b[i*8:])
	}
}

// arrives counts a datagram; lost says of one after another whether it should be lost.
func (h *Heard) arrives(number uint64, lost func() bool) {
	h.Arrived++
	if number < h.Next {
		h.Wrong++
		return
	}
	if number > h.Next {
		h.Bursts++
		h.Lost += number - h.Next
	}
	for n := h.Next; n <= number; n++ {
		if lost() != (n < number) {
			h.Wrong++
		}
	}
	h.Next = number + 1
}

// Sink receives one source's datagrams.
type Sink struct {
	fd    int
	addr  netip.AddrPort
	lost  func() bool
	heard Heard
}

// ListenPackets opens a sink. lost, which may be nil, says of one datagram after another whether it is to be lost.
func ListenPackets(addr netip.AddrPort, lost func() bool) (*Sink, error) {
	if !addr.Addr().Is4() || !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("%s is not an IPv4 loopback address", addr)
	}
	if lost == nil {
		lost = func() bool { return false }
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s := &Sink{fd: fd, lost: lost}
	if err := s.open(addr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *Sink) open(addr netip.AddrPort) error {
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return fmt.Errorf("bind %s: %w", addr, err)
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	s.addr = netip.AddrPortFrom(addr.Addr(), uint16(name.(*unix.SockaddrInet4).Port))
	// Beyond the limit where this user may; what it got is asked for below.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sinkMemory) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sinkMemory) //nolint:errcheck // the kernel gives what it may
	}
	memory, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	s.heard.Window = uint64(min(packetWindow, max(leastWindow, memory/packetMemory)))
	return nil
}

// Addr is where the sink listens.
func (s *Sink) Addr() netip.AddrPort { return s.addr }

// Run receives until ctx ends, and closes the sink.
func (s *Sink) Run(ctx context.Context) error {
	defer unix.Close(s.fd)
	in := newPackets(s.fd, maxPacket)
	said, idle, connected := uint64(0), 0, false
	for {
		n, err := in.receive()
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) { // the source has gone: that is its affair
			return fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			if idle++; idle < sinkSpins {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil
			}
			if connected && s.heard.Arrived > said {
				said = s.tell()
			}
			unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, sinkSleep) //nolint:errcheck // it only waits
			continue
		}
		idle = 0
		if !connected {
			if err := unix.Connect(s.fd, in.from()); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			connected = true
		}
		for i := range n {
			b := in.packet(i)
			if len(b) < 8 {
				return fmt.Errorf("a datagram of %d bytes is not the source's", len(b))
			}
			s.heard.arrives(binary.BigEndian.Uint64(b), s.lost)
		}
		if s.heard.Arrived-said >= min(packetAck, s.heard.Window/2) {
			said = s.tell()
		}
	}
}

// tell sends the source what was heard, and says how much that is.
func (s *Sink) tell() uint64 {
	unix.Write(s.fd, s.heard.append(make([]byte, 0, heardSize))) //nolint:errcheck // what a later word makes good
	return s.heard.Arrived
}

// SourceConfig is what to send.
type SourceConfig struct {
	To        netip.AddrPort
	Size      int // bytes of each datagram
	Warm, For time.Duration
	Begin     func() // called when the warm-up is over; may be nil
}

// Sent is what a source has sent while it was measured, as far as its sink has heard of it, and what the sink has heard in all.
type Sent struct {
	Packets uint64
	For     time.Duration // by the clock
	CPU     time.Duration // of the source's thread. On loopback that is a packet's whole way into the sink's socket
	Heard   Heard
}

// SendPackets sends as fast as it can.
func SendPackets(ctx context.Context, c SourceConfig) (Sent, error) {
	if c.Size < 8 || c.Size > maxPacket || !c.To.Addr().Is4() || !c.To.Addr().IsLoopback() {
		return Sent{}, fmt.Errorf("datagrams of %d bytes to %s are not what this sends", c.Size, c.To)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return Sent{}, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: c.To.Addr().As4(), Port: int(c.To.Port())}); err != nil {
		return Sent{}, fmt.Errorf("connect %s: %w", c.To, err)
	}
	out, in := newPackets(fd, c.Size), newPackets(fd, heardSize)
	heard := Heard{Window: leastWindow}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	next, began, counted := uint64(0), time.Now(), false
	var sent Sent
	var since time.Time
	listen := func() (bool, error) {
		n, err := in.receive()
		for i := range n {
			if b := in.packet(i); len(b) == heardSize {
				heard.parse(b)
			}
		}
		return n > 0, err
	}
	for ctx.Err() == nil {
		now := time.Now()
		switch {
		case !counted && now.Sub(began) >= c.Warm:
			counted, since, sent.Packets = true, now, heard.Next
			if sent.CPU, err = threadTime(); err != nil {
				return Sent{}, err
			}
			if c.Begin != nil {
				c.Begin()
			}
		case counted && now.Sub(since) >= c.For:
			cpu, err := threadTime()
			sent.Packets, sent.For, sent.CPU, sent.Heard = heard.Next-sent.Packets, now.Sub(since), cpu-sent.CPU, heard
			return sent, err
		}
		for stalled := now; next+packetBatch > heard.Next+heard.Window; {
			news, err := listen()
			if err != nil {
				return Sent{}, fmt.Errorf("the sink: %w", err)
			}
			if !news { // sleeping: its time is the packets' alone
				unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, sourceSleep) //nolint:errcheck // it only waits
			}
			if !news && time.Since(stalled) > sourceStall {
				return Sent{}, fmt.Errorf("the sink has heard nothing for %s: %d of %d datagrams", sourceStall, heard.Next, next)
			}
		}
		for i := range packetBatch {
			binary.BigEndian.PutUint64(out.packet(i), next+uint64(i))
		}
		if err := out.send(); err != nil {
			return Sent{}, fmt.Errorf("send: %w", err)
		}
		next += packetBatch
	}
	return Sent{}, ctx.Err()
}

// threadTime is the CPU time that this thread has used.
func threadTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("the thread's time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// packets are the buffers of one system call.
type packets struct {
	fd      int
	size    int
	headers [packetBatch]unix.Mmsghdr
	vectors [packetBatch]unix.Iovec
	names   [packetBatch]unix.RawSockaddrInet4
	memory  []byte
}

func newPackets(fd, size int) *packets {
	p := &packets{fd: fd, size: size, memory: make([]byte, packetBatch*size)}
	for i := range p.headers {
		p.vectors[i].Base = &p.memory[i*size]
		p.vectors[i].SetLen(size)
		p.headers[i].Hdr.Iov = &p.vectors[i]
		p.headers[i].Hdr.SetIovlen(1)
		p.headers[i].Len = uint32(size)
	}
	return p
}

func (p *packets) packet(i int) []byte {
	return p.memory[i*p.size:][:p.headers[i].Len]
}

// from is the sender of the first.
func (p *packets) from() *unix.SockaddrInet4 {
	port := (*[2]byte)(unsafe.Pointer(&p.names[0].Port))
	return &unix.SockaddrInet4{Addr: p.names[0].Addr, Port: int(binary.BigEndian.Uint16(port[:]))}
}

// receive reads what is there.
func (p *packets) receive() (int, error) {
	p.headers[0].Hdr.Name = (*byte)(unsafe.Pointer(&p.names[0]))
	p.headers[0].Hdr.Namelen = unix.SizeofSockaddrInet4
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.headers)), packetBatch, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// send sends all of them.
func (p *packets) send() error {
	for done := 0; done < packetBatch; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(p.fd), uintptr(unsafe.Pointer(&p.headers[done])), uintptr(packetBatch-done), 0, 0, 0)
		switch errno {
		case 0:
			done += int(n)
		case unix.EAGAIN: // its own memory is full for a moment
		case unix.EINTR:
		default:
			return errno
		}
	}
	return nil
}
