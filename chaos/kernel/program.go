package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tminus-live/tminus/chaos/evidence"
)

// Needs is what a machine must offer, for a person.
const Needs = "Linux 6.6 or later, CAP_BPF and CAP_NET_ADMIN (root has both)"

// Prefix begins the names of this package's programs and maps.
const Prefix = "tminus_"

// Able tries the smallest program on an address that nobody uses, and says what is lacking.
func Able() error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	p, err := Impair(Config{Interface: lo.Index, Flow: Flow{Prefix: netip.MustParsePrefix("127.255.255.254/32")}})
	if err != nil {
		return err
	}
	return p.Close()
}

// Hook is where at an interface a program meets packets.
type Hook string

// Hooks.
const (
	Ingress Hook = "ingress" // as they come in; "" is the same
	Egress  Hook = "egress"  // as they leave
)

func (h Hook) validate() error {
	switch h {
	case "", Ingress, Egress:
		return nil
	}
	return fmt.Errorf("unknown hook %q (there is %s, %s)", h, Ingress, Egress)
}

// Traffic is a number of packets. Bytes are with the headers that the interface has, Ethernet's on most.
type Traffic struct{ Packets, Bytes uint64 }

func (t Traffic) plus(u Traffic) Traffic { return Traffic{t.Packets + u.Packets, t.Bytes + u.Bytes} }

// Tally is what a program has done to the packets of one direction.
type Tally struct {
	Seen       Traffic // of the flow, duplicates made by the program itself not counted
	Lost       Traffic
	Duplicated uint64 // packets
	Corrupted  uint64 // packets
	Undecided  uint64 // packets that passed because too many processors decided at once; none, in all likelihood
}

// Counts are a program's tallies by direction.
type Counts struct{ To, From Tally }

// Total is both directions.
func (c Counts) Total() Tally {
	return Tally{
		Seen: c.To.Seen.plus(c.From.Seen), Lost: c.To.Lost.plus(c.From.Lost),
		Duplicated: c.To.Duplicated + c.From.Duplicated, Corrupted: c.To.Corrupted + c.From.Corrupted,
		Undecided: c.To.Undecided + c.From.Undecided,
	}
}

// The value that a program and this process share: 64-bit numbers that change atomically.
const (
	stateChain     = 0 // packets decided, doubled, and 1 if the last was lost; by a trace: packets decided
	stateDuplicate = 8 // states of splitmix64
	stateCorrupt   = 16
	tallyTo        = 24
	tallyFrom      = tallyTo + tallySize
	stateSize      = tallyFrom + tallySize

	// Within a tally.
	seen       = 0
	lost       = 16
	duplicated = 32
	corrupted  = 40
	undecided  = 48
	tallySize  = 56
)

// Program is a program in the kernel. Its methods may be called from anywhere, Close more than once.
type Program struct {
	id uint32

	mu      sync.Mutex
	link    link.Link // nil: closed
	program *ebpf.Program
	maps    []*ebpf.Map // the first is the state
	last    Counts      // when it was closed
}

// spec is a program to be made.
type spec struct {
	name    string
	ifindex int
	hook    Hook
	first   bool // before all others of the interface
	state   [stateSize]byte
	maps    []*ebpf.MapSpec
	// write makes the instructions, given the maps' file descriptors: the state's first.
	write func(c *code, fds []int)
}

func (s spec) load() (*Program, error) {
	p := &Program{}
	if err := p.load(s); err != nil {
		return nil, errors.Join(explain(err), p.release())
	}
	return p, nil
}

func (p *Program) load(s spec) (err error) {
	specs := append([]*ebpf.MapSpec{{
		Name: s.name, Type: ebpf.Array, KeySize: 4, ValueSize: stateSize, MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: s.state[:]}},
	}}, s.maps...)
	header, err := linkHeader(s.ifindex)
	if err != nil {
		return err
	}
	c := begin(header)
	var fds []int
	for _, spec := range specs {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("make a map: %w", err)
		}
		p.maps = append(p.maps, m)
		fds = append(fds, m.FD())
	}
	s.write(c, fds)
	c.next()
	p.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: s.name, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: c.Instructions,
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	at := link.TCXOptions{Interface: s.ifindex, Program: p.program, Attach: ebpf.AttachTCXIngress}
	if s.hook == Egress {
		at.Attach = ebpf.AttachTCXEgress
	}
	if s.first {
		at.Anchor = link.Head()
	}
	if p.link, err = link.AttachTCX(at); err != nil {
		return fmt.Errorf("attach it to interface %d: %w", s.ifindex, err)
	}
	info, err := p.link.Info()
	if err != nil {
		return fmt.Errorf("ask for its id: %w", err)
	}
	p.id = uint32(info.ID)
	return nil
}

// ethernet is the length of Ethernet's header, which loopback's packets have too.
const ethernet = 14

// linkHeader is how many bytes an interface's packets have before their IP header.
func linkHeader(index int) (int, error) {
	i, err := net.InterfaceByIndex(index)
	switch {
	case err != nil:
		return 0, fmt.Errorf("interface %d: %w", index, err)
	case i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) == 6:
		return ethernet, nil
	case len(i.HardwareAddr) == 0:
		return 0, nil // a TUN
	}
	return 0, fmt.Errorf("%w: %s is neither Ethernet nor a TUN", evidence.ErrUnsupported, i.Name)
}

// explain turns the kernel's refusal into what a person can do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		// The kernel's own words add nothing here, and its library's advice would mislead.
		return fmt.Errorf("%w: it needs CAP_BPF and CAP_NET_ADMIN (run as root), which this user lacks", evidence.ErrUnsupported)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: it needs Linux 6.6 or later with eBPF at traffic control (TCX), which this kernel lacks (%w)", evidence.ErrUnsupported, err)
	}
	return fmt.Errorf("put a program into the kernel: %w", err)
}

// LinkID is the id of the bpf link that holds the program in the kernel.
func (p *Program) LinkID() uint32 { return p.id }

// Counts is what the program has done so far, or had done when it was closed.
func (p *Program) Counts() (Counts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts()
}

func (p *Program) counts() (Counts, error) {
	if p.link == nil {
		return p.last, nil
	}
	var v [stateSize]byte
	if err := p.maps[0].Lookup(uint32(0), &v); err != nil {
		return Counts{}, fmt.Errorf("read the counters: %w", err)
	}
	tally := func(at int) Tally {
		n := func(i int) uint64 { return binary.NativeEndian.Uint64(v[at+i:]) }
		return Tally{
			Seen: Traffic{n(seen), n(seen + 8)}, Lost: Traffic{n(lost), n(lost + 8)},
			Duplicated: n(duplicated), Corrupted: n(corrupted), Undecided: n(undecided),
		}
	}
	return Counts{To: tally(tallyTo), From: tally(tallyFrom)}, nil
}

// Close takes the program out of the kernel, and makes sure that the kernel has it no more.
func (p *Program) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link == nil {
		return nil
	}
	last, err := p.counts()
	if err != nil {
		last = p.last // what was done to packets matters less than that it ends
	}
	if err := p.release(); err != nil {
		return fmt.Errorf("take the program out of the kernel: %w", err)
	}
	p.last = last
	if l, err := link.NewFromID(link.ID(p.id)); err == nil {
		l.Close()
		return fmt.Errorf("bpf link %d is still in the kernel: another process holds it", p.id)
	}
	return nil
}

func (p *Program) release() error {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close())
	}
	if p.program != nil {
		errs = append(errs, p.program.Close())
	}
	for _, m := range p.maps {
		errs = append(errs, m.Close())
	}
	p.link, p.program, p.maps = nil, nil, nil
	return errors.Join(errs...)
}
