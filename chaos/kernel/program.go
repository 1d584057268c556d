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
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
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
}

// Counts are a program's tallies by direction.
type Counts struct{ To, From Tally }

// Total is both directions.
func (c Counts) Total() Tally {
	return Tally{
		Seen: c.To.Seen.plus(c.From.Seen), Lost: c.To.Lost.plus(c.From.Lost),
		Duplicated: c.To.Duplicated + c.From.Duplicated, Corrupted: c.To.Corrupted + c.From.Corrupted,
	}
}

// The value that a program and this process share. bpf_spin_lock wants to be found by its type's name.
const (
	stateLock      = 0 // uint32
	stateLost      = 4 // uint32: Rule.Lost
	stateDraw      = 8 // uint64: Rule.State
	stateDuplicate = 16
	stateCorrupt   = 24
	tallyTo        = 32
	tallyFrom      = tallyTo + tallySize
	stateSize      = tallyFrom + tallySize

	// Within a tally.
	seen       = 0
	lost       = 16
	duplicated = 32
	corrupted  = 40
	tallySize  = 48
)

func stateType() *btf.Struct {
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	u64 := &btf.Int{Name: "unsigned long long", Size: 8}
	lock := &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: u32}}}
	return &btf.Struct{Name: Prefix + "state", Size: stateSize, Members: []btf.Member{
		{Name: "lock", Type: lock, Offset: stateLock * 8},
		{Name: "lost", Type: u32, Offset: stateLost * 8},
		{Name: "numbers", Type: &btf.Array{Index: u32, Type: u64, Nelems: (stateSize - stateDraw) / 8}, Offset: stateDraw * 8},
	}}
}

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
	write func(fds []int) asm.Instructions
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
		Key: &btf.Int{Name: "unsigned int", Size: 4}, Value: stateType(),
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: s.state[:]}},
	}}, s.maps...)
	var fds []int
	for _, spec := range specs {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("make a map: %w", err)
		}
		p.maps = append(p.maps, m)
		fds = append(fds, m.FD())
	}
	p.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: s.name, Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: s.write(fds),
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
	if err := p.maps[0].LookupWithFlags(uint32(0), &v, ebpf.LookupLock); err != nil {
		return Counts{}, fmt.Errorf("read the counters: %w", err)
	}
	tally := func(at int) Tally {
		n := func(i int) uint64 { return binary.NativeEndian.Uint64(v[at+i:]) }
		return Tally{
			Seen: Traffic{n(seen), n(seen + 8)}, Lost: Traffic{n(lost), n(lost + 8)},
			Duplicated: n(duplicated), Corrupted: n(corrupted),
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
