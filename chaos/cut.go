package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

const cutNeeds = "Linux 6.6 or later, CAP_BPF and CAP_NET_ADMIN (root has both)"

// cutProgram is the kernel's name for the program; Leftovers knows ours by its beginning.
const (
	programPrefix = "tminus_"
	cutProgram    = programPrefix + "cut"
)

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	// home holds 127.0.0.1: telemetry, the conductor and whatever else runs on this machine.
	home = netip.MustParsePrefix("127.0.0.0/24")
)

// checkPrefix keeps a network fault within the rehearsal's own addresses.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4() || p.Bits() < loopback.Bits() || !loopback.Contains(p.Addr()):
		return fmt.Errorf("%w to touch %s: only addresses of %s belong to a rehearsal", ErrRefused, p, loopback)
	case p.Overlaps(home):
		return fmt.Errorf("%w to touch %s: it holds addresses of %s, where this machine's own services live", ErrRefused, p, home)
	}
	return nil
}

// cut drops what crosses the border of a prefix and has one of ports at either end: two rehearsals on one machine may share
// addresses, never ports.
type cut struct {
	prefix netip.Prefix
	ports  []uint16

	mu      sync.Mutex
	barrier *barrier // nil: not in effect
	links   []uint32
	last    traffic // counted by barriers that are gone
}

func planCut(f Fault, cfg *Config) (plan, error) {
	r, err := region(f, cfg.Regions)
	if err != nil {
		return plan{}, err
	}
	if err := checkPrefix(r.Prefix()); err != nil {
		return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
	}
	o, err := newProber(f, r, cfg, Timeout)
	if err != nil {
		return plan{}, err
	}
	c := &cut{prefix: r.Prefix().Masked()}
	for _, e := range r.Endpoints() {
		if !slices.Contains(c.ports, e.Port()) {
			c.ports = append(c.ports, e.Port())
		}
	}
	return plan{injector: c, observer: o, links: c.linkIDs, note: c.note}, nil
}

// cutAble tries the real thing on an address that nobody uses.
func cutAble() error {
	b, err := raiseBarrier(netip.MustParsePrefix("127.255.255.254/32"))
	if err != nil {
		return err
	}
	return b.close()
}

func (c *cut) Inject(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barrier != nil {
		return nil
	}
	b, err := raiseBarrier(c.prefix, c.ports...)
	if err != nil {
		return err
	}
	c.barrier = b
	c.links = append(c.links, b.id)
	return nil
}

func (c *cut) Restore(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barrier == nil {
		return nil
	}
	if t, err := c.barrier.count(); err == nil {
		c.last = c.last.plus(t)
	}
	if err := c.barrier.close(); err != nil {
		return err
	}
	c.barrier = nil
	return nil
}

func (c *cut) linkIDs() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]uint32(nil), c.links...)
}

// note says what the kernel counted. It is not the evidence, which comes from outside: it helps to explain it.
func (c *cut) note() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("the kernel dropped %d packets into %s and %d out of it", c.last.into.packets, c.prefix, c.last.outOf.packets)
}

// counter is what was dropped in one direction. TCP on loopback travels in packets of up to 64 KiB: each counts once.
type counter struct{ packets, bytes uint64 }

// traffic is what was dropped at a border.
type traffic struct{ into, outOf counter }

func (t traffic) plus(u traffic) traffic {
	return traffic{
		into:  counter{t.into.packets + u.into.packets, t.into.bytes + u.into.bytes},
		outOf: counter{t.outOf.packets + u.outOf.packets, t.outOf.bytes + u.outOf.bytes},
	}
}

// barrier is a program in the kernel that drops what crosses the border of a prefix on lo. It is held by file
// descriptors alone, so the kernel takes it away when this process ends, however it ends.
type barrier struct {
	id       uint32 // of the bpf link
	link     link.Link
	program  *ebpf.Program
	counters *ebpf.Map
}

// raiseBarrier cuts a prefix off: TCP and UDP with one of ports at either end; without ports, all IPv4. The program sits at lo's ingress: there a sender has already been told that its
// packet is on its way, so that a drop is silence to it; at egress the kernel tells the sender's TCP of the drop.
func raiseBarrier(prefix netip.Prefix, ports ...uint16) (*barrier, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	b := &barrier{}
	if err := b.raise(prefix, ports, lo.Index); err != nil {
		b.release()
		return nil, explain(err)
	}
	return b, nil
}

func (b *barrier) raise(prefix netip.Prefix, ports []uint16, ifindex int) (err error) {
	b.counters, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: cutProgram, Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 2,
	})
	if err != nil {
		return fmt.Errorf("make the counters: %w", err)
	}
	b.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: cutProgram, Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: barrierProgram(prefix, ports, b.counters.FD()),
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	b.link, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: b.program, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("attach it to lo: %w", err)
	}
	info, err := b.link.Info()
	if err != nil {
		return fmt.Errorf("ask for its id: %w", err)
	}
	b.id = uint32(info.ID)
	return nil
}

// explain turns the kernel's refusal into what a person can do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		// The kernel's own words add nothing here, and its library's advice would mislead.
		return fmt.Errorf("%w: it needs CAP_BPF and CAP_NET_ADMIN (run as root), which this user lacks; model: crash works without", ErrUnsupported)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: it needs Linux 6.6 or later with eBPF at traffic control (TCX), which this kernel lacks; model: crash works without (%w)", ErrUnsupported, err)
	}
	return fmt.Errorf("put a program into the kernel: %w", err)
}

func (b *barrier) release() error {
	var errs []error
	if b.link != nil {
		errs = append(errs, b.link.Close())
	}
	if b.program != nil {
		errs = append(errs, b.program.Close())
	}
	if b.counters != nil {
		errs = append(errs, b.counters.Close())
	}
	return errors.Join(errs...)
}

// close takes the barrier down and makes sure that the kernel has it no more.
func (b *barrier) close() error {
	if err := b.release(); err != nil {
		return fmt.Errorf("take the program out of the kernel: %w", err)
	}
	if l, err := link.NewFromID(link.ID(b.id)); err == nil {
		l.Close()
		return fmt.Errorf("bpf link %d is still in the kernel: another process holds it", b.id)
	}
	return nil
}

func (b *barrier) count() (traffic, error) {
	var t traffic
	for key, c := range map[uint32]*counter{dropInto: &t.into, dropOutOf: &t.outOf} {
		var v [16]byte
		if err := b.counters.Lookup(key, &v); err != nil {
			return t, fmt.Errorf("read the counters: %w", err)
		}
		c.packets, c.bytes = binary.NativeEndian.Uint64(v[:8]), binary.NativeEndian.Uint64(v[8:])
	}
	return t, nil
}

// Keys of the counters.
const (
	dropInto  uint32 = 0
	dropOutOf uint32 = 1
)

// barrierProgram drops an IPv4 packet of which exactly one end is inside prefix and, where ports are given, which is TCP
// or UDP with one of them at either end; and counts it.
func barrierProgram(prefix netip.Prefix, ports []uint16, counters int) asm.Instructions {
	const (
		next = -1 // TCX_NEXT: let others decide, and pass in the end (linux/bpf.h, enum tcx_action_base)
		drop = 2  // TCX_DROP

		skbLen      = 0  // offsets in struct __sk_buff (linux/bpf.h)
		skbProtocol = 16 // network byte order

		ethernet  = 14 // lo has an Ethernet header too
		protocol  = ethernet + 9
		source    = ethernet + 12
		tcp, udp  = 6, 17
		wordBytes = 4
	)
	native := func(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }
	addr4 := prefix.Masked().Addr().As4()
	var mask4 [4]byte
	binary.BigEndian.PutUint32(mask4[:], ^uint32(0)<<(32-prefix.Bits()))
	addr, mask := native(addr4[:]), native(mask4[:])
	ipv4 := int32(binary.NativeEndian.Uint16([]byte{0x08, 0x00}))

	// inside sets flag to 1 when the address at offset of the stack is in the prefix.
	inside := func(flag asm.Register, offset int16, label string) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Imm(flag, 0),
			asm.LoadMem(asm.R2, asm.RFP, offset, asm.Word),
			asm.And.Imm32(asm.R2, mask),
			asm.JNE.Imm32(asm.R2, addr, label),
			asm.Mov.Imm(flag, 1),
		}
	}
	// load reads size bytes of the packet at the offset in R2 onto the stack; the helper reads them wherever in the packet's
	// memory they are.
	load := func(stack int32, size int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, stack),
			asm.Mov.Imm(asm.R4, size),
			asm.FnSkbLoadBytes.Call(),
			asm.JNE.Imm(asm.R0, 0, "next"),
		}
	}
	var prog asm.Instructions
	prog = append(prog,
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm32(asm.R2, ipv4, "next"),
		asm.Mov.Imm(asm.R2, source), // source and destination lie side by side
	)
	prog = append(prog, load(-8, 8)...)
	prog = append(prog, inside(asm.R7, -8, "destination")...)
	destination := inside(asm.R8, -4, "border")
	destination[0] = destination[0].WithSymbol("destination")
	prog = append(prog, destination...)
	prog = append(prog, asm.JEq.Reg(asm.R7, asm.R8, "next").WithSymbol("border"))
	if len(ports) > 0 {
		prog = append(prog, asm.Mov.Imm(asm.R2, protocol))
		prog = append(prog, load(-16, 1)...)
		prog = append(prog,
			asm.LoadMem(asm.R2, asm.RFP, -16, asm.Byte),
			asm.JEq.Imm(asm.R2, tcp, "ports"),
			asm.JNE.Imm(asm.R2, udp, "next"),
			// The ports begin where the IP header ends; its length stands in its first byte, in words.
			asm.Mov.Imm(asm.R2, ethernet).WithSymbol("ports"),
		)
		prog = append(prog, load(-16, 1)...)
		prog = append(prog,
			asm.LoadMem(asm.R2, asm.RFP, -16, asm.Byte),
			asm.And.Imm(asm.R2, 0x0f),
			asm.Mul.Imm(asm.R2, wordBytes),
			asm.Add.Imm(asm.R2, ethernet),
		)
		prog = append(prog, load(-16, 4)...) // source port, destination port
		prog = append(prog,
			asm.LoadMem(asm.R2, asm.RFP, -16, asm.Half),
			asm.LoadMem(asm.R3, asm.RFP, -14, asm.Half),
		)
		for _, p := range ports {
			port := int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, p)))
			prog = append(prog, asm.JEq.Imm(asm.R2, port, "count"), asm.JEq.Imm(asm.R3, port, "count"))
		}
		prog = append(prog, asm.Ja.Label("next"))
	}
	return append(prog,
		// The source is inside exactly when the packet leaves, and 0 and 1 are the keys of in and out.
		asm.StoreMem(asm.RFP, -12, asm.R7, asm.Word).WithSymbol("count"),
		asm.LoadMapPtr(asm.R1, counters),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -12),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 8),
		asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"),
		asm.Return(),
	)
}
