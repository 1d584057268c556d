package relay

import (
	"encoding/binary"
	"math"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

// Over a million packets of 1316 bytes on real sockets, the share lost and the mean burst are within 5 % of the model's, and
// the packets lost are those that the seed says, each of them.
func TestAMillionPackets(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	const packets, size = 1_000_000, 1316
	loss := link.Loss{Model: link.GilbertElliott, Share: 0.05, Burst: 8}
	sink, err := udpSocket(local, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sink)
	to, err := boundTo(sink)
	if err != nil {
		t.Fatal(err)
	}
	u := runUDP(t, Config{Upstream: to})
	set(t, u, link.Impairment{Loss: loss, Seed: 2027}, link.Impairment{})
	source, err := udpSocket(local, u.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(source)

	window := windowOf(sink, size)
	in, out := newArena(), &outbox{fd: source}
	arrived := make([]bool, packets)
	got := 0
	drain := func() {
		for {
			n, errno := in.receive(sink, false)
			if errno != 0 {
				return
			}
			for i := range n {
				arrived[binary.BigEndian.Uint32(in.packet(i))] = true
			}
			got += n
		}
	}
	payloads := make([]byte, burst*size)
	end := time.Now().Add(time.Minute)
	wait := func(is func() bool) {
		for !is() {
			drain()
			if time.Now().After(end) {
				t.Fatalf("%d arrived, and the relay says %+v", got, u.Counts())
			}
			runtime.Gosched()
		}
	}
	for sent := 0; sent < packets; {
		for i := range min(burst, packets-sent) {
			b := payloads[i*size : (i+1)*size]
			binary.BigEndian.PutUint32(b, uint32(sent+i))
			out.put(b, nil)
		}
		n := out.n
		if _, _, failed := out.send(); failed > 0 {
			t.Fatalf("the kernel refused %d packets", failed)
		}
		out.n = 0
		sent += n
		drain()
		// On the way to either socket there is never more than fits one.
		wait(func() bool { return sent-got-int(u.Counts().Up.Lost) <= window-burst })
	}
	wait(func() bool { c := u.Counts().Up; return c.Received == packets && got == int(c.Sent) })

	lost, bursts, differ := 0, 0, 0
	d := link.NewDropper(loss, 2027)
	for i, is := range arrived {
		if !is {
			lost++
			if i == 0 || arrived[i-1] {
				bursts++
			}
		}
		if d.Next() == is {
			differ++
		}
	}
	share, mean := float64(lost)/packets, float64(lost)/float64(bursts)
	t.Logf("%d lost: %.3f %% in bursts of %.2f", lost, 100*share, mean)
	if math.Abs(share-0.05) > 0.05*0.05 || math.Abs(mean-8) > 0.05*8 {
		t.Errorf("%.3f %% lost in bursts of %.2f, want 5 %% in bursts of 8", 100*share, mean)
	}
	if differ > 0 {
		t.Errorf("%d packets fared otherwise than the seed says", differ)
	}
	if c := u.Counts(); c.Overrun > 0 || c.Up.Failed > 0 {
		t.Errorf("counted %+v", c)
	}
}
