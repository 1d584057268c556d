package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/tminus-live/tminus/chaos/relay"
)

const (
	relayPackets = 200_000 // a round
	relayTarget  = 150_000 // packets in a second of one core
)

var relaySettings = fmt.Sprintf("datagrams of %d bytes over loopback; the CPU time of the relay's one thread, against that of the sender's and the receiver's without it, which make the same two system calls a datagram", datagram)

// relayAlone measures what a core relays in user space.
func relayAlone(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	_, _, cores, err := twoCores()
	if err != nil {
		return nil, err
	}
	r := &Report{Bench: "relay", Rounds: o.Rounds, Seconds: o.Seconds, Machine: thisMachine(cores)}
	passing, q := relayed(r, o, "ratio")
	r.Ratios = []*Ratio{q}
	return r, measure(ctx, o, r, []*measurement{passing})
}

// relayed adds the figures of a relay in user space and of a hop without it, which both come of one measurement, and makes their
// ratio.
func relayed(r *Report, o Options, key string) (*measurement, *Ratio) {
	figure := func(key, what string) *Figure {
		f := &Figure{Key: key, What: what, Settings: relaySettings, Cores: "any", Seconds: o.Seconds, Connections: 1, InFlight: 1}
		r.Figures = append(r.Figures, f)
		return f
	}
	passing := figure("relay_per_core_s", "in a second of one core: a relay in user space")
	passing.Target = relayTarget
	hop := figure("hop_per_core_s", "the same: a sender and a receiver without it")
	m := &measurement{figure: passing, client: Part{Role: packetRelay, Core: -1}}
	m.done = func(got measured) {
		for len(hop.Rounds) < len(passing.Rounds) {
			hop.Rounds = append(hop.Rounds, 0) // rounds that were none
		}
		hop.Rounds = append(hop.Rounds, got.Yardstick)
	}
	return m, ratio(key, passing, hop, 0, "how much of a bare hop the user-space relay keeps")
}

// driveRelay measures the relay, and what its packets cost without it. Nothing here lasts as long as was asked: it is a
// number of packets.
func driveRelay(ctx context.Context, _ Part) (measured, error) {
	began := time.Now()
	runtime.GOMAXPROCS(runtime.NumCPU()) // a thread each for the sender, the relay and the receiver
	t, err := relay.Measure(ctx, relay.Load{Size: datagram, Packets: relayPackets})
	if err != nil {
		return measured{}, err
	}
	return measured{
		Done: relayPackets, Seconds: time.Since(began).Seconds(), Core: relayPackets / t.RelayPerCore, Yardstick: t.BarePerCore, Dropped: uint64(t.Lost),
	}, nil
}
