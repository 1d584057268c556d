package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// Direction is which of a flow's packets are meant.
type Direction string

// Directions.
const (
	To       Direction = "to"       // those that go to the flow's end; "" is the same
	From     Direction = "from"     // those that come from it
	Both     Direction = "both"     // either
	Across   Direction = "across"   // those that cross the prefix's border, either way, with one of the ports at either end
	Entering Direction = "entering" // those of Across that come in
	Leaving  Direction = "leaving"  // those of Across that go out
)

// Protocols of a Flow; 0: any.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// maxPorts bounds the comparisons made for each packet.
const maxPorts = 128

// Flow selects IPv4 packets by their two ends. The zero Flow is every IPv4 packet.
type Flow struct {
	Prefix    netip.Prefix // the end's addresses; zero: any
	Ports     []uint16     // the end's ports; none: any. With ports only TCP and UDP, and of fragments only the first, which names them
	Peer      netip.Prefix // the other end's addresses; zero: any
	Proto     uint8        // TCP, UDP; 0: any
	Direction Direction
}

// Validate says everything that is wrong with a Flow.
func (f Flow) Validate() error {
	var errs []error
	for _, p := range []netip.Prefix{f.Prefix, f.Peer} {
		if p != (netip.Prefix{}) && !p.Addr().Is4() {
			errs = append(errs, fmt.Errorf("%s is not a range of IPv4 addresses, which are all that can be broken in the kernel", p))
		}
	}
	if len(f.Ports) > maxPorts {
		errs = append(errs, fmt.Errorf("%d ports are too many: %d at most", len(f.Ports), maxPorts))
	}
	if slices.Contains(f.Ports, 0) {
		errs = append(errs, errors.New("there is no port 0"))
	}
	if f.Proto != 0 && f.Proto != TCP && f.Proto != UDP {
		errs = append(errs, fmt.Errorf("protocol %d is neither TCP (%d) nor UDP (%d)", f.Proto, TCP, UDP))
	}
	switch f.Direction {
	case "", To, From, Both:
	case Across, Entering, Leaving:
		if !f.Prefix.IsValid() || f.Prefix.Bits() == 0 {
			errs = append(errs, errors.New("a border needs a range of addresses"))
		}
		if f.Peer.IsValid() {
			errs = append(errs, errors.New("what crosses a border has any peer"))
		}
	default:
		errs = append(errs, fmt.Errorf("unknown direction %q (there is %s, %s, %s, %s, %s, %s)", f.Direction, To, From, Both, Across, Entering, Leaving))
	}
	return errors.Join(errs...)
}

// Where match leaves a packet's headers on the program's stack.
const (
	ipHeader    = -24 // 20 bytes, of which only what is named here need be there
	fragment    = ipHeader + 6
	protocol    = ipHeader + 9
	source      = ipHeader + 12
	destination = ipHeader + 16
	sourcePort  = -32
	destPort    = sourcePort + 2
)

// side is one end of a packet, on the stack.
type side struct{ addr, port int16 }

var (
	src = side{source, sourcePort}
	dst = side{destination, destPort}
)

// match jumps to "next" with packets that are not the flow's; with the others it goes on, R8 pointing to the tally of their direction.
func (f Flow) match(c *code, state int) {
	c.add(
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm32(asm.R2, network(0x0800), "next"),
		asm.Mov.Imm(asm.R2, 0),
	)
	c.fetch(ipHeader, 20, part{0, asm.Byte}, part{fragment - ipHeader, asm.Half}, part{protocol - ipHeader, asm.Byte},
		part{source - ipHeader, asm.Word}, part{destination - ipHeader, asm.Word})
	c.add(
		asm.LoadMem(asm.R2, asm.RFP, ipHeader, asm.Byte),
		asm.RSh.Imm(asm.R2, 4),
		asm.JNE.Imm(asm.R2, 4, "next"),
	)
	if f.Proto != 0 || len(f.Ports) > 0 {
		c.add(asm.LoadMem(asm.R2, asm.RFP, protocol, asm.Byte))
		if f.Proto != 0 {
			c.add(asm.JNE.Imm(asm.R2, int32(f.Proto), "next"))
		} else {
			c.add(asm.JEq.Imm(asm.R2, int32(TCP), "ports"), asm.JNE.Imm(asm.R2, int32(UDP), "next"))
		}
	}
	if len(f.Ports) > 0 {
		c.here("ports")
		c.unlessFirst("next")
		c.headerLength(asm.R2)
		c.fetch(sourcePort, 4, part{0, asm.Half}, part{2, asm.Half})
	}

	hit := func(tally uint32) {
		c.add(asm.LoadMapValue(asm.R8, state, tally), asm.Ja.Label("matched"))
	}
	// oneWay goes to miss unless the packet has the flow's end at one side and its peer at the other.
	oneWay := func(end, peer side, tally uint32, miss string) {
		c.inside(f.Prefix, end, miss)
		c.among(f.Ports, miss, end)
		c.inside(f.Peer, peer, miss)
		hit(tally)
	}
	switch f.Direction {
	case From:
		oneWay(src, dst, tallyFrom, "next")
	case Both:
		oneWay(dst, src, tallyTo, "reverse")
		if f.anyEnd() {
			break // the other way round cannot be reached, and the kernel wants no such instructions
		}
		c.here("reverse")
		oneWay(src, dst, tallyFrom, "next")
	case Across:
		c.among(f.Ports, "next", src, dst)
		c.inside(f.Prefix, dst, "leaving")
		c.inside(f.Prefix, src, "entering")
		c.add(asm.Ja.Label("next"))
		c.here("entering")
		hit(tallyTo)
		c.here("leaving")
		c.inside(f.Prefix, src, "next")
		hit(tallyFrom)
	case Entering, Leaving:
		in, beyond, tally := dst, src, uint32(tallyTo)
		if f.Direction == Leaving {
			in, beyond, tally = src, dst, tallyFrom
		}
		c.among(f.Ports, "next", src, dst)
		c.inside(f.Prefix, in, "next")
		c.inside(f.Prefix, beyond, "crossing")
		c.add(asm.Ja.Label("next"))
		c.here("crossing")
		hit(tally)
	default:
		oneWay(dst, src, tallyTo, "next")
	}
	c.here("matched")
}

// anyEnd reports whether a packet matches whatever its ends are.
func (f Flow) anyEnd() bool {
	wide := func(p netip.Prefix) bool { return !p.IsValid() || p.Bits() == 0 }
	return wide(f.Prefix) && wide(f.Peer) && len(f.Ports) == 0
}

// inside jumps to miss unless a side's address is in a prefix.
func (c *code) inside(p netip.Prefix, s side, miss string) {
	if !p.IsValid() || p.Bits() == 0 {
		return
	}
	addr := p.Masked().Addr().As4()
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], ^uint32(0)<<(32-p.Bits()))
	c.add(
		asm.LoadMem(asm.R2, asm.RFP, s.addr, asm.Word),
		asm.And.Imm32(asm.R2, int32(binary.NativeEndian.Uint32(mask[:]))),
		asm.JNE.Imm32(asm.R2, int32(binary.NativeEndian.Uint32(addr[:])), miss),
	)
}

// among jumps to miss unless one of ports is at one of the sides.
func (c *code) among(ports []uint16, miss string, sides ...side) {
	if len(ports) == 0 {
		return
	}
	found := c.unique("found")
	for _, s := range sides {
		c.add(asm.LoadMem(asm.R2, asm.RFP, s.port, asm.Half))
		for _, p := range ports {
			c.add(asm.JEq.Imm(asm.R2, network(p), found))
		}
	}
	c.add(asm.Ja.Label(miss))
	c.here(found)
}
