package relay

import (
	"context"
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

const (
	ms       = time.Millisecond
	deadline = 10 * time.Second
)

var local = netip.MustParseAddrPort("127.0.0.1:0")

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !is(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s still not: %s", deadline, what)
		}
	}
}

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// arrival is one packet that came in.
type arrival struct {
	at    time.Time
	from  netip.AddrPort
	bytes []byte
}

// inbox keeps what a socket receives.
type inbox struct {
	mu  sync.Mutex
	got []arrival
}

func receive(t *testing.T, c *net.UDPConn, echo bool) *inbox {
	in := &inbox{}
	c.SetReadBuffer(wantBuffer) //nolint:errcheck // less will do
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, slot)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			in.mu.Lock()
			in.got = append(in.got, arrival{time.Now(), from, slices.Clone(b[:n])})
			in.mu.Unlock()
			if echo {
				c.WriteToUDPAddrPort(b[:n], from) //nolint:errcheck // a test that misses it fails
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return in
}

func (in *inbox) all() []arrival {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

func (in *inbox) len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.got)
}

// runUDP starts a relay before upstream and stops it at the test's end.
func runUDP(t *testing.T, c Config) *UDP {
	t.Helper()
	c.Listen = local
	u, err := ListenUDP(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return u
}

func set(t *testing.T, u *UDP, ups, downs link.Impairment) {
	t.Helper()
	if err := u.Set(ups, downs); err != nil {
		t.Fatal(err)
	}
}

// send sends numbered packets, no faster than the relay reads them.
func send(t *testing.T, c *net.UDPConn, u *UDP, n int) {
	t.Helper()
	b := make([]byte, 100)
	before := u.Counts().Up.Received
	for i := range n {
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := c.WriteToUDPAddrPort(b, u.Addr()); err != nil {
			t.Fatal(err)
		}
		if i%32 == 31 || i == n-1 {
			eventually(t, "the relay has read everything", func() bool { return u.Counts().Up.Received >= before+uint64(i)+1 })
		}
	}
}

func numbers(got []arrival) []uint32 {
	var all []uint32
	for _, a := range got {
		all = append(all, binary.BigEndian.Uint32(a.bytes))
	}
	return all
}

func TestDatagramsPassBothWaysToTheirOwnClients(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, true)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	for range 5 {
		client := socket(t)
		back := receive(t, client, false)
		send(t, client, u, 100)
		eventually(t, "every packet comes back", func() bool { return back.len() == 100 })
		for i, a := range back.all() {
			if a.from != u.Addr() || len(a.bytes) != 100 || binary.BigEndian.Uint32(a.bytes) != uint32(i) {
				t.Fatalf("packet %d comes back as %v", i, a)
			}
		}
	}
	from := map[netip.AddrPort]int{}
	for _, a := range sink.all() {
		from[a.from]++
	}
	c := u.Counts()
	if len(from) != 5 || c.Sessions != 5 || c.Up.Sent != 500 || c.Down.Sent != 500 || c.Up.SentBytes != 50_000 || c.Overrun != 0 {
		t.Errorf("5 clients, 500 packets: seen as %v, counted as %+v", from, c)
	}
}

func TestEmptyAndLargestDatagramsPass(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	for _, size := range []int{0, 1, 65507} {
		if _, err := client.WriteToUDPAddrPort(make([]byte, size), u.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all three arrive", func() bool { return sink.len() == 3 })
	for i, want := range []int{0, 1, 65507} {
		if got := len(sink.all()[i].bytes); got != want {
			t.Errorf("a datagram of %d bytes arrives with %d", want, got)
		}
	}
}

// The sequence of losses is the model's for the seed, packet by packet, each time anew.
func TestSameSeedSameDrops(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	loss := link.Loss{Model: link.GilbertElliott, Share: 0.1, Burst: 4}
	const packets = 5000
	var want []uint32
	d := link.NewDropper(loss, 42)
	for i := range packets {
		if !d.Next() {
			want = append(want, uint32(i))
		}
	}
	for round := range 2 {
		before := sink.len()
		set(t, u, link.Impairment{Loss: loss, Seed: 42}, link.Impairment{})
		send(t, client, u, packets)
		eventually(t, "what was not lost arrives", func() bool { return sink.len() >= before+len(want) })
		if got := numbers(sink.all()[before:]); !slices.Equal(got, want) {
			t.Fatalf("round %d: %d packets arrived, want %d: those that the seed lets pass", round, len(got), len(want))
		}
	}
	if c := u.Counts().Up; c.Received != 2*packets || c.Lost != uint64(2*(packets-len(want))) || c.Sent != uint64(2*len(want)) {
		t.Errorf("counted %+v", c)
	}
}

// A probe beside a flow does not change what the flow loses.
func TestFlowsLoseByThemselves(t *testing.T) {
	upstream, own := socket(t), socket(t)
	sink, probe := receive(t, upstream, false), receive(t, own, false)
	client, prober := socket(t), socket(t)
	u := runUDP(t, Config{Upstream: addrOf(upstream), Routes: map[netip.AddrPort]netip.AddrPort{addrOf(prober): addrOf(own)}})
	set(t, u, link.Impairment{Loss: link.Loss{Share: 0.3}, Seed: 9}, link.Impairment{})
	send(t, prober, u, 1) // first, so that it would have taken the flow's place
	var want []uint32
	d := link.NewDropper(link.Loss{Share: 0.3}, 9)
	for i := range 1000 {
		if !d.Next() {
			want = append(want, uint32(i))
		}
		send(t, prober, u, 1)
		b := binary.BigEndian.AppendUint32(nil, uint32(i))
		if _, err := client.WriteToUDPAddrPort(b, u.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the flow arrives", func() bool { return sink.len() == len(want) })
	if got := numbers(sink.all()); !slices.Equal(got, want) {
		t.Error("the flow lost other packets than its seed says")
	}
	if n := probe.len(); n < 600 || n > 800 {
		t.Errorf("%d of 1001 of the probe's packets reached its own sink", n)
	}
}

func TestADelayHoldsEveryPacket(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	set(t, u, link.Impairment{Delay: 50 * ms}, link.Impairment{})
	client := socket(t)
	began := time.Now()
	send(t, client, u, 100)
	eventually(t, "all arrive", func() bool { return sink.len() == 100 })
	if took := sink.all()[0].at.Sub(began); took < 50*ms {
		t.Errorf("the first packet took %s", took)
	}
	if got := numbers(sink.all()); !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
}

func TestJitterReordersOnlyWhenAskedTo(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		upstream := socket(t)
		sink := receive(t, upstream, false)
		u := runUDP(t, Config{Upstream: addrOf(upstream)})
		set(t, u, link.Impairment{Delay: 30 * ms, Jitter: 30 * ms, Reorder: reorder, Seed: 1}, link.Impairment{})
		send(t, socket(t), u, 500)
		eventually(t, "all arrive", func() bool { return sink.len() == 500 })
		if sorted := slices.IsSorted(numbers(sink.all())); sorted == reorder {
			t.Errorf("reorder %v: in order: %v", reorder, sorted)
		}
	}
}

func TestACutIsSilentAndEnds(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, true)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	back := receive(t, client, false)
	send(t, client, u, 10)
	eventually(t, "all come back", func() bool { return back.len() == 10 })

	set(t, u, link.Impairment{}, link.Impairment{Cut: true}) // one way
	send(t, client, u, 10)
	eventually(t, "all arrive", func() bool { return sink.len() == 20 })
	eventually(t, "no answer passes", func() bool { return u.Counts().Down.Lost == 10 })

	set(t, u, link.Impairment{Cut: true}, link.Impairment{Cut: true})
	send(t, client, u, 10)
	u.Clear()
	send(t, client, u, 10)
	eventually(t, "what comes after it arrives", func() bool { return sink.len() == 30 && back.len() == 20 })
	if c := u.Counts(); c.Up.Lost != 10 || c.Down.Lost != 10 {
		t.Errorf("counted %+v", c)
	}
}

func TestDuplicatesAndFlippedBits(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	set(t, u, link.Impairment{Duplicate: 1}, link.Impairment{})
	send(t, client, u, 100)
	eventually(t, "each arrives twice", func() bool { return sink.len() == 200 })
	for i, n := range numbers(sink.all()) {
		if n != uint32(i/2) {
			t.Fatalf("arrival %d is packet %d", i, n)
		}
	}
	set(t, u, link.Impairment{Corrupt: 1, Seed: 3}, link.Impairment{})
	for range 100 {
		if _, err := client.WriteToUDPAddrPort(make([]byte, 100), u.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all arrive", func() bool { return sink.len() == 300 })
	for _, a := range sink.all()[200:] {
		flipped := 0
		for _, b := range a.bytes {
			flipped += bits.OnesCount8(b)
		}
		if flipped != 1 {
			t.Fatalf("%d bits are flipped, want 1", flipped)
		}
	}
	if c := u.Counts().Up; c.Duplicated != 100 || c.Corrupted != 100 {
		t.Errorf("counted %+v", c)
	}
}

func TestARateDropsAtTheQueuesTail(t *testing.T) {
	upstream := socket(t)
	sink := receive(t, upstream, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	set(t, u, link.Impairment{Rate: 100e3, Queue: 1280}, link.Impairment{}) // ten packets of 100 bytes and their headers, in 102 ms
	began := time.Now()
	send(t, socket(t), u, 100)
	eventually(t, "every packet has arrived or been dropped", func() bool {
		c := u.Counts().Up
		return c.Sent+c.TailDropped == 100 && sink.len() == int(c.Sent)
	})
	c := u.Counts().Up
	if least := time.Duration(float64(c.Sent) * 128 * 8 / 100e3 * float64(time.Second)); c.TailDropped == 0 || time.Since(began) < least {
		t.Errorf("%d packets passed in %s: that is above 100 kbit/s", c.Sent, time.Since(began))
	}
}

func TestNothingIsHeldWithoutBound(t *testing.T) {
	upstream := socket(t)
	u := runUDP(t, Config{Upstream: addrOf(upstream), Held: leastHeld, Sessions: 2})
	set(t, u, link.Impairment{Delay: time.Minute}, link.Impairment{})
	send(t, socket(t), u, 100)
	if c := u.Counts().Up; c.Overflow < 50 || c.Overflow > 80 {
		t.Errorf("%d of 100 packets were too many for %d bytes", c.Overflow, leastHeld)
	}
	send(t, socket(t), u, 1)
	send(t, socket(t), u, 1)
	if c := u.Counts(); c.Sessions != 2 || c.Refused != 1 {
		t.Errorf("3 clients and room for 2: %+v", c)
	}
}

func TestSilentClientsAreForgotten(t *testing.T) {
	upstream := socket(t)
	u := runUDP(t, Config{Upstream: addrOf(upstream), Idle: ms})
	send(t, socket(t), u, 1)
	eventually(t, "the client is forgotten", func() bool { return u.Counts().Sessions == 0 })
}

func TestNobodyBehindIsNoEnd(t *testing.T) {
	upstream := socket(t)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	again := addrOf(upstream)
	upstream.Close()
	send(t, client, u, 100) // answered with refusals
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(again))
	if err != nil {
		t.Fatal(err)
	}
	sink := receive(t, c, false)
	send(t, client, u, 100)
	eventually(t, "what is sent after it is back arrives", func() bool { return sink.len() >= 100 })
}

func TestRoutesOfLater(t *testing.T) {
	upstream, own := socket(t), socket(t)
	probe := receive(t, own, false)
	u := runUDP(t, Config{Upstream: addrOf(upstream)})
	client := socket(t)
	if err := u.Route(addrOf(client), addrOf(own)); err != nil {
		t.Fatal(err)
	}
	send(t, client, u, 10)
	eventually(t, "it goes where it is led", func() bool { return probe.len() == 10 })
	if err := u.Route(addrOf(client), netip.AddrPort{}); err == nil {
		t.Error("a route to nowhere")
	}
	u.Unroute(addrOf(client))
}

func TestIPv6(t *testing.T) {
	upstream, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	receive(t, upstream, true)
	client, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Fatal(err)
	}
	back := receive(t, client, false)
	u, err := ListenUDP(Config{Listen: netip.MustParseAddrPort("[::1]:0"), Upstream: addrOf(upstream)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	send(t, client, u, 10)
	eventually(t, "all come back", func() bool { return back.len() == 10 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheAddressIsGivenBack(t *testing.T) {
	upstream := socket(t)
	u, err := ListenUDP(Config{Listen: local, Upstream: addrOf(upstream)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.CPU(); err == nil {
		t.Error("it uses a thread before it runs")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	send(t, socket(t), u, 1)
	if cpu, err := u.CPU(); err != nil || cpu <= 0 {
		t.Errorf("CPU time %s, %v", cpu, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if u.Run(context.Background()) == nil {
		t.Error("it ran twice")
	}
	again, err := ListenUDP(Config{Listen: u.Addr(), Upstream: addrOf(upstream)})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if u.Counts().Up.Received != 1 {
		t.Error("what was counted is lost")
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	for _, c := range []Config{
		{},
		{Listen: local},
		{Listen: local, Upstream: netip.MustParseAddrPort("[::1]:9")},
		{Listen: local, Upstream: netip.MustParseAddrPort("127.0.0.1:9"), Sessions: -1},
		{Listen: local, Upstream: netip.MustParseAddrPort("127.0.0.1:9"), Held: 10},
		{Listen: local, Upstream: netip.MustParseAddrPort("127.0.0.1:9"), From: netip.MustParseAddr("::1")},
	} {
		if _, err := ListenUDP(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
		if _, err := ListenTCP(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	u := runUDP(t, Config{Upstream: netip.MustParseAddrPort("127.0.0.1:9")})
	if u.Set(link.Impairment{Delay: -1}, link.Impairment{}) == nil {
		t.Error("an impairment that is none is taken")
	}
}
