package kernel

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// frame is a packet for the kernel's test run: Ethernet, IPv4 with or without options, TCP, UDP or something else.
type frame struct {
	from, to string // address:port
	proto    uint8
	options  int    // bytes of IP options, and of TCP's
	fragment uint16 // offset field
	ether    uint16 // 0: IPv4
	payload  int    // bytes
}

func (f frame) bytes() []byte {
	from, to := netip.MustParseAddrPort(f.from), netip.MustParseAddrPort(f.to)
	var l4 []byte
	switch f.proto {
	case UDP:
		l4 = make([]byte, 8+f.payload)
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	case TCP:
		l4 = make([]byte, 20+f.options+f.payload)
		l4[12] = byte((20+f.options)/4) << 4
	default:
		l4 = make([]byte, 8+f.payload)
	}
	for i := len(l4) - f.payload; i < len(l4); i++ {
		l4[i] = byte(i)
	}
	binary.BigEndian.PutUint16(l4, from.Port())
	binary.BigEndian.PutUint16(l4[2:], to.Port())
	ip := make([]byte, 20+f.options)
	ip[0], ip[8], ip[9] = 0x40|byte(len(ip)/4), 64, f.proto
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(l4)))
	binary.BigEndian.PutUint16(ip[6:], f.fragment)
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	if at := f.checksumAt(); at > 0 {
		binary.BigEndian.PutUint16(l4[at:], ^sum(ip[12:20], []byte{0, f.proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))), l4))
	}
	ether := f.ether
	if ether == 0 {
		ether = 0x0800
	}
	return append(append(binary.BigEndian.AppendUint16(make([]byte, 12), ether), ip...), l4...)
}

func (f frame) checksumAt() int { return map[uint8]int{UDP: 6, TCP: 16}[f.proto] }

// sum is the Internet checksum's, before it is inverted (RFC 1071).
func sum(parts ...[]byte) uint16 {
	s := uint32(0)
	for _, p := range parts {
		for i, b := range p {
			s += uint32(b) << (8 * (1 - i%2))
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// run runs a program on a packet; it says what the program returned and the packet afterwards.
func run(t *testing.T, p *Program, packet []byte) (int32, []byte) {
	t.Helper()
	verdict, out, err := p.program.Test(packet)
	if err != nil {
		t.Fatal(err)
	}
	return int32(verdict), out
}

const (
	inA, inB, out, far = "192.0.2.10:5000", "192.0.2.20:6000", "198.51.100.1:7000", "203.0.113.1:8000"
)

func TestFlow(t *testing.T) {
	able(t)
	net := prefix("192.0.2.0/24")
	ab, ba := frame{from: inA, to: inB, proto: UDP}, frame{from: inB, to: inA, proto: UDP}
	enter, leave := frame{from: out, to: inA, proto: UDP}, frame{from: inA, to: out, proto: UDP}
	pass := frame{from: out, to: far, proto: UDP}
	tcp := func(f frame) frame { f.proto = TCP; return f }
	with := func(f frame, options int) frame { f.options = options; return f }
	for _, c := range []struct {
		name           string
		flow           Flow
		to, from, none []frame
	}{
		{"everything", Flow{}, []frame{ab, tcp(pass), {from: inA, to: inB, proto: 1}}, nil, []frame{{from: inA, to: inB, proto: UDP, ether: 0x86dd, payload: 40}}},
		{"everything, either way", Flow{Direction: Both}, []frame{ab, ba}, nil, nil},
		{"to", Flow{Prefix: net}, []frame{enter, ab, tcp(enter), with(enter, 40)}, nil, []frame{leave, pass}},
		{"from", Flow{Prefix: net, Direction: From}, nil, []frame{leave, ab}, []frame{enter, pass}},
		{"both", Flow{Prefix: net, Direction: Both}, []frame{enter, ab}, []frame{leave}, []frame{pass}},
		{"across", Flow{Prefix: net, Direction: Across}, []frame{enter}, []frame{leave, tcp(leave)}, []frame{ab, pass}},
		{"entering", Flow{Prefix: net, Direction: Entering}, []frame{enter, tcp(enter)}, nil, []frame{leave, ab, pass}},
		{"leaving", Flow{Prefix: net, Direction: Leaving}, nil, []frame{leave, tcp(leave)}, []frame{enter, ab, pass}},
		{"entering, a port at either end", Flow{Prefix: net, Ports: []uint16{7000}, Direction: Entering}, []frame{enter}, nil, []frame{leave, ab, {from: far, to: inA, proto: UDP}}},
		{"leaving, a port at either end", Flow{Prefix: net, Ports: []uint16{5000}, Direction: Leaving}, nil, []frame{leave}, []frame{enter, ab, {from: inB, to: out, proto: UDP}}},
		{"an address", Flow{Prefix: prefix("192.0.2.10/32")}, []frame{enter, ba}, nil, []frame{ab}},
		{"half a block", Flow{Prefix: prefix("192.0.2.16/28")}, []frame{ab}, nil, []frame{ba, enter}},
		{"a port", Flow{Prefix: net, Ports: []uint16{5000}}, []frame{enter, tcp(enter), with(enter, 8)}, nil, []frame{ab, leave}},
		{"ports alone", Flow{Ports: []uint16{1, 8000, 2}}, []frame{pass}, nil, []frame{ab, enter}},
		{"ports, either way", Flow{Ports: []uint16{7000}, Direction: Both}, []frame{leave}, []frame{enter, with(tcp(enter), 4)}, []frame{ab}},
		{"across, a port at either end", Flow{Prefix: net, Ports: []uint16{7000}, Direction: Across}, []frame{enter}, []frame{leave}, []frame{ab, {from: far, to: inA, proto: UDP}}},
		{"a protocol", Flow{Prefix: net, Proto: TCP}, []frame{tcp(enter)}, nil, []frame{enter}},
		{"a protocol and a port", Flow{Prefix: net, Proto: UDP, Ports: []uint16{5000}}, []frame{enter}, nil, []frame{tcp(enter), ab}},
		{"a peer", Flow{Prefix: net, Peer: prefix("198.51.100.0/24")}, []frame{enter}, nil, []frame{ab, {from: far, to: inA, proto: UDP}}},
		{"a peer, either way", Flow{Prefix: net, Peer: prefix("198.51.100.0/24"), Direction: Both}, []frame{enter}, []frame{leave}, []frame{ab, pass}},
		{"ports of what has none", Flow{Ports: []uint16{5000}}, nil, nil, []frame{{from: out, to: inA, proto: 1}}},
		// A fragment behind the first has no header, whatever its first bytes look like.
		{"ports of fragments", Flow{Ports: []uint16{5000}}, []frame{{from: out, to: inA, proto: UDP, fragment: 0x2000}}, nil, []frame{{from: out, to: inA, proto: UDP, fragment: 0x2001}, {from: out, to: inA, proto: UDP, fragment: 1}}},
		{"fragments", Flow{Prefix: net}, []frame{{from: out, to: inA, proto: UDP, fragment: 1}}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := impair(t, Config{Interface: loopback(t), Flow: c.flow, Hook: Egress})
			// What is lost on no account: this interface is everybody's. The flow's packets are known by their count.
			var want Counts
			for _, f := range c.to {
				run(t, p, f.bytes())
				want.To.Seen = want.To.Seen.plus(Traffic{1, uint64(len(f.bytes()))})
			}
			for _, f := range c.from {
				run(t, p, f.bytes())
				want.From.Seen = want.From.Seen.plus(Traffic{1, uint64(len(f.bytes()))})
			}
			for _, f := range c.none {
				run(t, p, f.bytes())
			}
			got := counts(t, p)
			if c.flow.Prefix.IsValid() && got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
			// Flows without addresses are met by others' packets too.
			if got.To.Seen.Packets < want.To.Seen.Packets || got.From.Seen.Packets < want.From.Seen.Packets {
				t.Errorf("counted %+v, want %+v at least", got, want)
			}
		})
	}
}

// Too short for its ports is nobody's packet.
func TestShortPacketsPass(t *testing.T) {
	able(t)
	p := impair(t, Config{Interface: loopback(t), Flow: Flow{Prefix: prefix("192.0.2.0/24"), Ports: []uint16{5000}}, Cut: true})
	whole := frame{from: out, to: inA, proto: UDP}.bytes()
	for _, n := range []int{34, 37} {
		if verdict, _ := run(t, p, whole[:n]); verdict != tcxNext {
			t.Errorf("%d bytes: verdict %d", n, verdict)
		}
	}
	if verdict, _ := run(t, p, whole); verdict != tcxDrop {
		t.Errorf("the whole packet: verdict %d", verdict)
	}
}

// A packet whose headers lie where a program cannot read them itself is found by the helper: here all but Ethernet's header is in
// another page.
func TestHeadersInAnotherPage(t *testing.T) {
	able(t)
	const vnetHeader = 10 // linux/virtio_net.h; the length of what is to lie together is its second 16 bits
	p := impair(t, Config{Interface: loopback(t), Hook: Egress, Flow: Flow{Prefix: prefix("192.0.2.0/24"), Ports: []uint16{5000}}, Cut: true})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		t.Fatal(err)
	}
	for _, f := range []frame{{from: out, to: inA, proto: UDP, payload: 2 * os.Getpagesize()}, {from: out, to: inB, proto: UDP, payload: 2 * os.Getpagesize()}} {
		header := make([]byte, vnetHeader)
		binary.NativeEndian.PutUint16(header[2:], ethernet)
		if err := unix.Sendto(fd, append(header, f.bytes()...), 0, &unix.SockaddrLinklayer{Ifindex: loopback(t), Protocol: uint16(network(0x0800))}); err != nil {
			t.Fatal(err)
		}
	}
	if c := counts(t, p).To; c.Lost.Packets != 1 {
		t.Errorf("%+v, want the first of two to be lost", c)
	}
}

// One bit of what TCP or UDP carries, and a checksum that agrees: headers and everything else stay as they are.
func TestCorrupt(t *testing.T) {
	able(t)
	p := impair(t, Config{Interface: loopback(t), Flow: Flow{Prefix: prefix("192.0.2.0/24")}, Corrupt: 1, Seed: 7})
	for _, c := range []struct {
		name  string
		frame frame
		flips bool
	}{
		{"UDP", frame{from: out, to: inA, proto: UDP, payload: 100}, true},
		{"an odd length", frame{from: out, to: inA, proto: UDP, payload: 3}, true},
		{"two bytes", frame{from: out, to: inA, proto: UDP, payload: 2}, true},
		{"one byte", frame{from: out, to: inA, proto: UDP, payload: 1}, false},
		{"nothing", frame{from: out, to: inA, proto: UDP}, false},
		{"TCP", frame{from: out, to: inA, proto: TCP, payload: 1448}, true},
		{"TCP and IP with options", frame{from: out, to: inA, proto: TCP, options: 12, payload: 9}, true},
		{"an acknowledgement", frame{from: out, to: inA, proto: TCP, options: 12}, false},
		{"a first fragment", frame{from: out, to: inA, proto: UDP, payload: 100, fragment: 0x2000}, true},
		{"a later fragment", frame{from: out, to: inA, proto: UDP, payload: 100, fragment: 0x2001}, false},
		{"another protocol", frame{from: out, to: inA, proto: 1, payload: 100}, false},
	} {
		for range 50 {
			before := counts(t, p).To.Corrupted
			in := c.frame.bytes()
			verdict, got := run(t, p, in)
			if verdict != tcxNext || len(got) != len(in) {
				t.Fatalf("%s: verdict %d, %d bytes of %d", c.name, verdict, len(got), len(in))
			}
			payload := len(in) - c.frame.payload
			flipped := 0
			for i := payload; i < len(in); i++ {
				flipped += bits.OnesCount8(in[i] ^ got[i])
			}
			if flipped != int(counts(t, p).To.Corrupted-before) || (flipped == 1) != c.flips || flipped > 1 {
				t.Fatalf("%s: %d bits flipped, %d counted", c.name, flipped, counts(t, p).To.Corrupted-before)
			}
			ip := 14 + 20 + c.frame.options
			if at := c.frame.checksumAt(); at > 0 {
				l4 := got[ip:]
				if s := sum(got[26:34], []byte{0, c.frame.proto}, binary.BigEndian.AppendUint16(nil, uint16(len(l4))), l4); s != 0xffff {
					t.Fatalf("%s: the checksum is wrong, %#x", c.name, s)
				}
				copy(got[ip+at:ip+at+2], in[ip+at:])
			}
			if !bytes.Equal(got[:payload], in[:payload]) {
				t.Fatalf("%s: headers were changed", c.name)
			}
		}
	}
}

// UDP without a checksum stays without one.
func TestCorruptWithoutAChecksum(t *testing.T) {
	able(t)
	p := impair(t, Config{Interface: loopback(t), Flow: Flow{Prefix: prefix("192.0.2.0/24")}, Corrupt: 1})
	in := frame{from: out, to: inA, proto: UDP, payload: 100}.bytes()
	copy(in[14+20+6:], []byte{0, 0})
	if _, got := run(t, p, in); got[40] != 0 || got[41] != 0 || bytes.Equal(got, in) {
		t.Errorf("checksum % x", got[40:42])
	}
}
