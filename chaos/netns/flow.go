package netns

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tminus-live/tminus/chaos/kernel"
)

// matches says of an IPv4 packet what kernel.Flow says of it in the kernel: what the kernel sends round by the wire, the wire
// tells apart again.
func matches(f kernel.Flow, packet []byte) bool {
	const least = 20 // bytes of an IPv4 header (RFC 791)
	if len(packet) < least || packet[0]>>4 != 4 {
		return false
	}
	proto := packet[9]
	if f.Proto != 0 && proto != f.Proto {
		return false
	}
	src := side{addr: netip.AddrFrom4([4]byte(packet[12:16]))}
	dst := side{addr: netip.AddrFrom4([4]byte(packet[16:20]))}
	if len(f.Ports) > 0 {
		header := int(packet[0]&0x0f) * 4
		behindFirst := binary.BigEndian.Uint16(packet[6:])&0x1fff != 0
		if proto != kernel.TCP && proto != kernel.UDP || behindFirst || len(packet) < header+4 {
			return false
		}
		src.port, dst.port = binary.BigEndian.Uint16(packet[header:]), binary.BigEndian.Uint16(packet[header+2:])
	}
	to, from := dst.is(f) && within(f.Peer, src.addr), src.is(f) && within(f.Peer, dst.addr)
	switch f.Direction {
	case kernel.From:
		return from
	case kernel.Both:
		return to || from
	case kernel.Across, kernel.Entering, kernel.Leaving:
		in, out := within(f.Prefix, dst.addr), within(f.Prefix, src.addr)
		meant := f.Direction == kernel.Across || in == (f.Direction == kernel.Entering)
		return in != out && meant && (src.among(f.Ports) || dst.among(f.Ports))
	default:
		return to
	}
}

// side is one end of a packet.
type side struct {
	addr netip.Addr
	port uint16
}

func (s side) is(f kernel.Flow) bool           { return within(f.Prefix, s.addr) && s.among(f.Ports) }
func (s side) among(ports []uint16) bool       { return len(ports) == 0 || slices.Contains(ports, s.port) }
func within(p netip.Prefix, a netip.Addr) bool { return !p.IsValid() || p.Contains(a) }
