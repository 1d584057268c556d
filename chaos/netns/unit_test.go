package netns

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
)

func TestBlocksShareThePoolWithoutOverlapping(t *testing.T) {
	var all []netip.Prefix
	for i := range blocks {
		b := block(i)
		if b != b.Masked() || !pool.Contains(b.Addr()) || slices.ContainsFunc(all, b.Overlaps) {
			t.Errorf("block %d is %s", i, b)
		}
		all = append(all, b)
		for k := range MaxRegions + 1 {
			if s := subnet(b, k); s != s.Masked() || !b.Contains(s.Addr()) {
				t.Errorf("/24 %d of %s is %s", k, b, s)
			}
		}
	}
	if got := block(blocks - 1); got != netip.MustParsePrefix("198.19.240.0/20") {
		t.Errorf("the last block is %s", got)
	}
}

func TestValidateReportsEverythingAtOnce(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{Run: "title-fight-7", Regions: []string{"us-east", "us-west"}}, nil},
		{Config{Run: "x", Regions: make([]string, MaxRegions+1)}, []string{"16 regions; 1 to 15"}},
		{Config{Run: "../x", Regions: []string{"hub", "a/b", "eu", "eu"}}, []string{`run "../x"`, "cannot be called hub", `region "a/b"`, "eu is there twice"}},
		{Config{Run: "x"}, []string{"0 regions"}},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.cfg, err, want)
			}
		}
	}
}

// The kernel takes 15 bytes for an interface's name, and the watchdog only names that are ours.
func TestNamesOfInterfaces(t *testing.T) {
	name := Config{Run: strings.Repeat("long", 15)}.interfaceName()
	if len(name) > unix.IFNAMSIZ-1 || !strings.HasPrefix(name, "tminus-") {
		t.Errorf("%q", name)
	}
	if other := (Config{Run: "other"}).interfaceName(); other == name {
		t.Errorf("two runs have %q", other)
	}
}

// datagram is an IPv4 packet with the beginning of its TCP or UDP header.
func datagram(proto uint8, from, to string) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	p := make([]byte, 28)
	p[0], p[9] = 0x45, proto
	copy(p[12:], a.Addr().AsSlice())
	copy(p[16:], b.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], a.Port())
	binary.BigEndian.PutUint16(p[22:], b.Port())
	return p
}

func TestMatchesAsTheKernelDoes(t *testing.T) {
	origin := netip.MustParsePrefix("198.18.1.4/32")
	block := netip.MustParsePrefix("198.18.1.0/24")
	request := datagram(kernel.TCP, "198.18.2.9:40000", "198.18.1.4:8080")
	answer := datagram(kernel.TCP, "198.18.1.4:8080", "198.18.2.9:40000")
	inside := datagram(kernel.UDP, "198.18.1.4:8080", "198.18.1.5:8080")
	fragment := slices.Clone(request)
	fragment[7] = 1
	options := slices.Concat(request[:20], make([]byte, 4), request[20:])
	options[0] = 0x46
	ipv6 := slices.Clone(request)
	ipv6[0] = 0x60
	for _, c := range []struct {
		name   string
		flow   kernel.Flow
		packet []byte
		want   bool
	}{
		{"everything", kernel.Flow{}, request, true},
		{"not IPv4", kernel.Flow{}, ipv6, false},
		{"too short", kernel.Flow{}, request[:19], false},
		{"to", kernel.Flow{Prefix: origin}, request, true},
		{"to, but from", kernel.Flow{Prefix: origin}, answer, false},
		{"from", kernel.Flow{Prefix: origin, Direction: kernel.From}, answer, true},
		{"from, but to", kernel.Flow{Prefix: origin, Direction: kernel.From}, request, false},
		{"both", kernel.Flow{Prefix: origin, Direction: kernel.Both}, answer, true},
		{"port", kernel.Flow{Ports: []uint16{1, 8080}}, request, true},
		{"another port", kernel.Flow{Ports: []uint16{1, 8081}}, request, false},
		{"the other end's port", kernel.Flow{Prefix: origin, Ports: []uint16{40000}, Direction: kernel.Both}, request, false},
		{"port behind options", kernel.Flow{Ports: []uint16{8080}}, options, true},
		{"port cut off", kernel.Flow{Ports: []uint16{8080}}, request[:23], false},
		{"fragments have no port", kernel.Flow{Ports: []uint16{8080}}, fragment, false},
		{"fragments have addresses", kernel.Flow{Prefix: origin}, fragment, true},
		{"protocol", kernel.Flow{Proto: kernel.TCP}, request, true},
		{"another protocol", kernel.Flow{Proto: kernel.UDP}, request, false},
		{"peer", kernel.Flow{Prefix: origin, Peer: netip.MustParsePrefix("198.18.2.0/24")}, request, true},
		{"another peer", kernel.Flow{Prefix: origin, Peer: netip.MustParsePrefix("198.18.3.0/24")}, request, false},
		{"across, in", kernel.Flow{Prefix: block, Ports: []uint16{8080}, Direction: kernel.Across}, request, true},
		{"across, out", kernel.Flow{Prefix: block, Ports: []uint16{8080}, Direction: kernel.Across}, answer, true},
		{"inside", kernel.Flow{Prefix: block, Direction: kernel.Across}, inside, false},
		{"entering", kernel.Flow{Prefix: block, Direction: kernel.Entering}, request, true},
		{"entering, out", kernel.Flow{Prefix: block, Direction: kernel.Entering}, answer, false},
		{"leaving", kernel.Flow{Prefix: block, Direction: kernel.Leaving}, answer, true},
		{"leaving, in", kernel.Flow{Prefix: block, Direction: kernel.Leaving}, request, false},
	} {
		if got := matches(c.flow, c.packet); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func FuzzMatches(f *testing.F) {
	f.Add(datagram(kernel.TCP, "198.18.2.9:40000", "198.18.1.4:8080"))
	f.Add([]byte{0x4f, 0, 0, 0})
	flows := []kernel.Flow{
		{}, {Ports: []uint16{8080}, Direction: kernel.Both},
		{Prefix: netip.MustParsePrefix("198.18.1.0/24"), Ports: []uint16{8080}, Direction: kernel.Across},
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		everything := matches(flows[0], packet)
		for _, flow := range flows[1:] {
			if matches(flow, packet) && !everything {
				t.Errorf("%+v matches what everything does not", flow)
			}
		}
	})
}

func FuzzReplies(f *testing.F) {
	ack := request(unix.NLMSG_ERROR, 0, 7, make([]byte, 4))
	f.Add(ack, uint32(7))
	f.Add(slices.Concat(request(unix.RTM_NEWLINK, 0, 7, pack(unix.IfInfomsg{Index: 1}), text(unix.IFLA_IFNAME, "lo")), ack), uint32(7))
	f.Fuzz(func(t *testing.T, b []byte, seq uint32) {
		bodies, _, _ := replies(b, seq)
		for _, body := range bodies {
			readInterface(body)
			readRoute(body)
		}
	})
}

func TestRepliesOfTheKernel(t *testing.T) {
	b := slices.Concat(
		request(unix.RTM_NEWROUTE, 0, 6, make([]byte, 12)), // an answer to somebody before
		request(unix.RTM_NEWROUTE, 0, 7, pack(unix.RtMsg{Family: unix.AF_INET, Dst_len: 24}), address(unix.RTA_DST, netip.MustParseAddr("192.0.2.0"))),
		request(unix.NLMSG_ERROR, 0, 7, pack(int32(0))),
	)
	bodies, done, err := replies(b, 7)
	if len(bodies) != 1 || !done || err != nil {
		t.Fatalf("%d bodies, %t, %v", len(bodies), done, err)
	}
	if p, ok := readRoute(bodies[0]); !ok || p != netip.MustParsePrefix("192.0.2.0/24") {
		t.Errorf("a route to %s, %t", p, ok)
	}
	if _, done, err := replies(request(unix.NLMSG_ERROR, 0, 7, pack(-int32(unix.EEXIST))), 7); !done || !errors.Is(err, unix.EEXIST) {
		t.Errorf("%t, %v", done, err)
	}
	if _, _, err := replies(b[:len(b)-1], 7); err == nil {
		t.Error("a message that is cut off is taken")
	}
}

// Whatever is put in comes out in the order of its due time, and first come, first served.
func TestQueueKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		ats := rapid.SliceOfN(rapid.IntRange(0, 20), 0, 200).Draw(t, "due")
		for _, at := range ats {
			q.push(time.Duration(at), q.buffer(), at)
		}
		var last packet
		for i := range ats {
			at, ok := q.due()
			p := q.pop()
			if !ok || p.at != at || i > 0 && p.before(last) || p.len != int(p.at) {
				t.Fatalf("%v, %t: %v after %v", at, ok, p, last)
			}
			last = p
			q.release(p.buf)
		}
		if _, ok := q.due(); ok {
			t.Fatal("something is left")
		}
	})
}

// A packet is held up by every stretch that it is part of, and by no other.
func TestStretchesAddUp(t *testing.T) {
	late := func(d time.Duration, f kernel.Flow) *stretch {
		return &stretch{flow: f, link: link.New(link.Impairment{Delay: d})}
	}
	origin := kernel.Flow{Ports: []uint16{8080}, Direction: kernel.Both}
	all, some := late(20*time.Millisecond, kernel.Flow{}), late(3*time.Millisecond, origin)
	stretches := []*stretch{all, some}
	for _, c := range []struct {
		packet []byte
		want   time.Duration
	}{
		{datagram(kernel.TCP, "198.18.2.9:40000", "198.18.1.4:8080"), 23 * time.Millisecond},
		{datagram(kernel.TCP, "198.18.2.9:40000", "198.18.1.4:80"), 20 * time.Millisecond},
	} {
		if at, ok := send(stretches, time.Second, c.packet); !ok || at != time.Second+c.want {
			t.Errorf("goes on at %s, %t", at, ok)
		}
	}
	if all.held.Load() != 2 || some.held.Load() != 1 {
		t.Errorf("held %d and %d", all.held.Load(), some.held.Load())
	}
	narrow := &stretch{link: link.New(link.Impairment{Rate: 8, Queue: 40})}
	first := datagram(kernel.TCP, "198.18.2.9:40000", "198.18.1.4:80")
	if _, ok := send([]*stretch{narrow}, 0, first); !ok {
		t.Error("the first has no room")
	}
	if _, ok := send([]*stretch{narrow}, 0, first); ok || narrow.noRoom.Load() != 1 {
		t.Error("the second has room")
	}
}

// What the wires' process is told holds what it may be told, and goes out as it came in.
func FuzzReadOrder(f *testing.F) {
	line, err := json.Marshal(order{Wire: "up1", Set: true, Stretches: []stretchOrder{{
		ID: 1, Flow: kernel.Flow{Prefix: netip.MustParsePrefix("198.18.1.4/32"), Ports: []uint16{8080}, Direction: kernel.Both},
		Impairment: link.Impairment{Delay: time.Second, Jitter: time.Millisecond, Rate: 1e6, Seed: 7},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"wire":"a-name-that-is-too-long"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		o, err := readOrder(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := readOrder(again); err != nil || len(back.Stretches) != len(o.Stretches) || back.Wire != o.Wire {
			t.Errorf("%s became %s: %v", line, again, err)
		}
	})
}

func TestOrdersThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		order order
		want  string
	}{
		{order{}, `a wire called ""`},
		{order{Wire: strings.Repeat("x", unix.IFNAMSIZ)}, "a wire called"},
		{order{Wire: "up1", Stretches: make([]stretchOrder, maxStretches+1)}, "65 flows"},
		{order{Wire: "up1", Stretches: []stretchOrder{{Impairment: link.Impairment{Delay: -1}}}}, "delay"},
		{order{Wire: "up1", Stretches: []stretchOrder{{Flow: kernel.Flow{Direction: "sideways"}}}}, "sideways"},
	} {
		line, err := json.Marshal(c.order)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readOrder(line); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", line, err, c.want)
		}
	}
}
