package kernel

import (
	"math"
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

// The judged figure, on real sockets: over 1,000,000 packets loss and mean burst are within 5 % of the model, as the far side sees
// them, and they are the very packets that link.Dropper loses.
func TestAMillionPackets(t *testing.T) {
	able(t)
	const packets = 1_000_000
	l := link.Loss{Model: link.GilbertElliott, Share: 0.05, Burst: 8}
	x := cross(t, address(1))
	p := impair(t, Config{Interface: loopback(t), Flow: x.flow(), Loss: l, Seed: 7})
	arrived := make([]bool, packets)
	x.send(packets, 64, left(t, p), func(packet []byte) { arrived[number(packet)] = true })

	lost, bursts := 0, 0
	want := link.NewDropper(l, 7)
	for i, is := range arrived {
		if !is {
			if lost++; i == 0 || arrived[i-1] {
				bursts++
			}
		}
		if is == want.Next() {
			t.Fatalf("packet %d: arrived %t, unlike in user space", i, is)
		}
	}
	share, burst := float64(lost)/packets, float64(lost)/float64(bursts)
	t.Logf("lost %.3f %% (5 %% asked) in bursts of %.2f (8 asked)", share*100, burst)
	if math.Abs(share/l.Share-1) > 0.05 || math.Abs(burst/l.Burst-1) > 0.05 {
		t.Errorf("lost a share of %g in bursts of %g, want %g and %g within 5 %%", share, burst, l.Share, l.Burst)
	}
	if c := counts(t, p).To; int(c.Lost.Packets) != lost || c.Seen.Packets != packets {
		t.Errorf("%+v, while %d did not arrive", c, lost)
	}
}

// Each model, at both hooks: the same seed loses the same packets, in the kernel and in user space.
func TestTheKernelLosesWhatUserSpaceLoses(t *testing.T) {
	able(t)
	trace := make([]bool, 1000)
	for i := range trace {
		trace[i] = i*i%7 == 1
	}
	for _, l := range []link.Loss{
		{}, {Share: 0.01}, {Share: 0.5}, {Share: 1},
		{Model: link.GilbertElliott, Share: 0.1, Burst: 1}, {Model: link.GilbertElliott, Share: 0.75, Burst: 3},
		{Model: link.Trace, Trace: trace}, {Model: link.Trace, Trace: trace[:1]}, {Model: link.Trace, Trace: trace[:64]}, {Model: link.Trace, Trace: trace[:65]},
	} {
		for _, hook := range []Hook{Ingress, Egress} {
			for _, seed := range []uint64{0, math.MaxUint64} {
				const packets = 3000
				x := cross(t, address(2))
				p := impair(t, Config{Interface: loopback(t), Hook: hook, Flow: x.flow(), Loss: l, Seed: seed})
				var got, want []int
				x.send(packets, 64, left(t, p), func(packet []byte) { got = append(got, number(packet)) })
				d := link.NewDropper(l, seed)
				for i := range packets {
					if !d.Next() {
						want = append(want, i)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s %g/%g/%d at %s, seed %d: %d arrived, %d want", l.Model, l.Share, l.Burst, len(l.Trace), hook, seed, len(got), len(want))
				}
				closed(t, p)
			}
		}
	}
}

// The kernel reads a program before it takes it: every form of one, and the largest.
func TestTheKernelAcceptsEveryProgram(t *testing.T) {
	able(t)
	most := make([]uint16, maxPorts)
	for i := range most {
		most[i] = uint16(60000 + i)
	}
	net := prefix("192.0.2.0/24")
	burst := link.Loss{Model: link.GilbertElliott, Share: 0.1, Burst: 3}
	for _, c := range []Config{
		{Cut: true}, {Loss: burst}, {Loss: link.Loss{Model: link.Trace, Trace: make([]bool, link.MaxTrace)}},
		{Duplicate: 0.1}, {Corrupt: 0.1}, {Loss: burst, Duplicate: 1, Corrupt: 1},
	} {
		for _, f := range []Flow{
			{Direction: To}, {Direction: From, Proto: UDP}, {Direction: Both}, {Direction: Across}, {Direction: Entering}, {Direction: Leaving},
			{Direction: Both, Ports: most, Peer: net}, {Direction: Across, Ports: most}, {Direction: Entering, Ports: most}, {Direction: Leaving, Ports: most},
		} {
			for _, c.Hook = range []Hook{Ingress, Egress} {
				f.Prefix = net
				c.Interface, c.Flow = loopback(t), f
				p, err := Impair(c)
				if err != nil {
					t.Errorf("%+v: %v", c.Flow, err)
					continue
				}
				closed(t, p)
			}
		}
	}
}

// Senders on several processors share one chain: whoever is first, as many are lost as the first n draws lose.
func TestProcessorsShareOneChain(t *testing.T) {
	able(t)
	const senders, packets = 4, 20_000
	l := link.Loss{Model: link.GilbertElliott, Share: 0.1, Burst: 4}
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address(3))})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	to := sink.LocalAddr().(*net.UDPAddr)
	p := impair(t, Config{
		Interface: loopback(t), Loss: l, Seed: 7,
		Flow: Flow{Prefix: prefix(address(3) + "/32"), Ports: []uint16{uint16(to.Port)}},
	})
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			c, err := net.DialUDP("udp4", nil, to)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range packets {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	await(t, func() bool { return counts(t, p).To.Seen.Packets == senders*packets })
	lost := uint64(0)
	for d, i := link.NewDropper(l, 7), 0; i < senders*packets; i++ {
		if d.Next() {
			lost++
		}
	}
	if c := counts(t, p).To; c.Lost.Packets != lost {
		t.Errorf("lost %d of %d, want %d", c.Lost.Packets, c.Seen.Packets, lost)
	}
}

// Duplicates arrive, are met by no program twice, and are those that the seed says; an observer in front sees what was
// sent, one behind what is left.
func TestDuplicates(t *testing.T) {
	able(t)
	for _, hook := range []Hook{Ingress, Egress} {
		const packets, seed = 5000, 3
		x := cross(t, address(4))
		cfg := Config{Interface: loopback(t), Hook: hook, Flow: x.flow(), Loss: link.Loss{Share: 0.1}, Duplicate: 0.2, Seed: seed}
		// Another one of the kind in front, and one behind that loses some of the copies too.
		other := cfg
		other.Loss, other.Duplicate, other.Seed = link.Loss{Share: 0.01}, 0.01, 9
		before := impair(t, Config{Interface: loopback(t), Hook: hook, Flow: x.flow()})
		front := impair(t, other)
		p := impair(t, cfg)
		after := impair(t, Config{Interface: loopback(t), Hook: hook, Flow: x.flow()})
		back := impair(t, other)
		got := make(map[int]int)
		x.send(packets, 64, left(t, back), func(packet []byte) { got[number(packet)]++ })

		f, c, b := counts(t, front).To, counts(t, p).To, counts(t, back).To
		if n := counts(t, before).To.Seen.Packets; n != packets || f.Seen.Packets != n {
			t.Errorf("%s: %d came, and in front %+v", hook, n, f)
		}
		if want := f.Seen.Packets - f.Lost.Packets + f.Duplicated; c.Seen.Packets != want {
			t.Errorf("%s: %d in the middle, want %d", hook, c.Seen.Packets, want)
		}
		want := c.Seen.Packets - c.Lost.Packets + c.Duplicated
		if n := counts(t, after).To.Seen.Packets; n != want || b.Seen.Packets != want {
			t.Errorf("%s: %d left the middle, and behind %+v, want %d", hook, n, b, want)
		}
		d, dup := link.NewDropper(cfg.Loss, seed), uint64(0)
		r := stream(seed, duplicates, cfg.Duplicate)
		for range c.Seen.Packets {
			if !d.Next() && r.Next() {
				dup++
			}
		}
		if c.Duplicated != dup || dup < packets/10 {
			t.Errorf("%s: %d duplicates, want %d", hook, c.Duplicated, dup)
		}
		if len(got) < packets/2 {
			t.Errorf("%s: %d packets arrived", hook, len(got))
		}
		for _, p := range []*Program{before, front, p, after, back} {
			closed(t, p)
		}
	}
}

// A duplicate's mark is taken off again, and a packet's own stays.
func TestDuplicatesKeepTheirMark(t *testing.T) {
	able(t)
	x := cross(t, address(5))
	p := impair(t, Config{Interface: loopback(t), Flow: x.flow(), Duplicate: 1})
	for _, err := range []error{
		unix.SetsockoptInt(x.tx, unix.SOL_SOCKET, unix.SO_MARK, 0x1234),
		unix.SetsockoptInt(x.rx, unix.SOL_SOCKET, unix.SO_RCVMARK, 1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := unix.Write(x.tx, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := x.mark(); got != 0x1234 {
			t.Errorf("mark %#x", got)
		}
	}
	if c := counts(t, p).To; c.Duplicated != 1 {
		t.Errorf("%+v", c)
	}
}

// mark is the mark of the next packet that arrives.
func (x *crossing) mark() uint32 {
	x.t.Helper()
	var oobn int
	oob := make([]byte, 128)
	await(x.t, func() bool {
		var err error
		x.n, oobn, _, _, err = unix.Recvmsg(x.rx, x.buf, oob, 0)
		return err == nil
	})
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 || x.n == 0 {
		x.t.Fatalf("%d bytes, %v, %v", x.n, messages, err)
	}
	return nativeUint32(messages[0].Data)
}

// Corrupt packets arrive, with one bit of what they carry flipped.
func TestCorruptPacketsArrive(t *testing.T) {
	able(t)
	for _, hook := range []Hook{Ingress, Egress} {
		const packets, size = 5000, 300
		x := cross(t, address(6))
		p := impair(t, Config{Interface: loopback(t), Hook: hook, Flow: x.flow(), Corrupt: 0.2, Seed: 7})
		corrupt, arrived, places := 0, 0, make(map[int]bool)
		x.send(packets, size, left(t, p), func(packet []byte) {
			flipped := 0
			for i, b := range packet {
				want := byte(0)
				if i < 4 {
					want = byte(arrived >> (8 * (3 - i)))
				}
				for bit := range 8 {
					if (b^want)>>bit&1 == 1 {
						flipped++
						places[i*8+bit] = true
					}
				}
			}
			arrived++
			if flipped > 1 || len(packet) != size {
				t.Fatalf("%d bits flipped in %d bytes", flipped, len(packet))
			}
			corrupt += flipped
		})
		if c := counts(t, p).To; int(c.Corrupted) != corrupt || corrupt < packets/6 || corrupt > packets/4 || arrived != packets {
			t.Errorf("%s: %d of %d were corrupt; %+v", hook, corrupt, arrived, c)
		}
		// Anywhere: 1,000 flips fall on more than a third of 2,400 bits.
		if len(places) < 700 {
			t.Errorf("%s: only %d bits are ever flipped", hook, len(places))
		}
		closed(t, p)
	}
}

// What is lost at egress is lost in silence, as on a wire: a sender that asks for errors hears none.
func TestASenderIsNotTold(t *testing.T) {
	able(t)
	for _, hook := range []Hook{Ingress, Egress} {
		for _, c := range []Config{{Cut: true}, {Loss: link.Loss{Share: 1}}} {
			x := cross(t, address(7))
			if err := unix.SetsockoptInt(x.tx, unix.IPPROTO_IP, unix.IP_RECVERR, 1); err != nil {
				t.Fatal(err)
			}
			c.Interface, c.Hook, c.Flow = loopback(t), hook, x.flow()
			p := impair(t, c)
			x.send(10, 64, left(t, p), func([]byte) { t.Error("a packet passed") }) // send fails the test on an error
			if c := counts(t, p).To; c.Lost.Packets != 10 {
				t.Errorf("%+v", c)
			}
			closed(t, p)
		}
	}
}
