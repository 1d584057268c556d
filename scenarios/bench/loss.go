package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/scenarios/bench/bare"
)

// What is sent: seven packets of MPEG-TS a datagram, as contribution has it.
const (
	datagram  = 1316 // bytes
	lossShare = 0.05
	lossBurst = 8
	lossSeed  = 7
)

// Loss is what the kernel does to the datagrams.
type Loss struct {
	Share, Burst float64
	Seed         uint64
	Beside       bool // to those of another port: these only pass by the program
}

func (l *Loss) model() link.Loss {
	return link.Loss{Model: link.GilbertElliott, Share: l.Share, Burst: l.Burst}
}

var pairSettings = fmt.Sprintf("datagrams of %d bytes over loopback, sendmmsg and recvmmsg, never more on their way than the receiver has room for; by the CPU time of the sender's thread, which is a packet's whole way into the receiver's socket; GOMAXPROCS=1 each", datagram)

// loss measures what it costs to break packets.
func loss(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	sinkCore, sourceCore, cores, err := twoCores()
	if err != nil {
		return nil, err
	}
	r := &Report{Bench: "loss", Rounds: o.Rounds, Seconds: o.Seconds, Machine: thisMachine(cores), Facts: map[string]any{}}
	able := kernel.Able()
	if able != nil && !errors.Is(able, evidence.ErrUnsupported) {
		return nil, able
	}

	var ms []*measurement
	add := func(f *Figure, server, client Part) *measurement {
		f.Seconds, f.Connections, f.InFlight = o.Seconds, 1, 1
		m := &measurement{figure: f, server: server, client: client}
		r.Figures, ms = append(r.Figures, f), append(ms, m)
		return m
	}
	pair := func(key, what, settings string, l *Loss) *measurement {
		m := add(&Figure{
			Key: key, What: what, Settings: settings + pairSettings, Cores: fmt.Sprintf("receiver on core %d, sender on core %d", sinkCore, sourceCore),
		}, Part{Role: packetSink, Core: sinkCore, Loss: l}, Part{
			Role: packetSource, Core: sourceCore, Size: datagram, Loss: l, Warm: min(warmUp, o.duration()/2),
		})
		if m.figure.Missing = l != nil && able != nil; m.figure.Missing {
			r.problem(fmt.Sprintf("loss in the kernel %v", able))
		}
		return m
	}
	none := pair("no_fault_per_core_s", "in a second of the sender's core: no fault", "", nil)
	// What is lost is not delivered, which saves work: without that, this says what the program costs.
	ready := pair("kernel_per_core_s", "the same: the kernel decides on every packet, and loses none", "Gilbert-Elliott at 0 %, everything else as with loss; ", &Loss{Burst: lossBurst, Seed: lossSeed})
	losing := pair("kernel_losing_per_core_s", "the same: the kernel loses some", "", &Loss{Share: lossShare, Burst: lossBurst, Seed: lossSeed})
	losing.figure.Settings = fmt.Sprintf("Gilbert-Elliott, %g %% in bursts of %d, another seed in each round, each packet's fate compared with link.Dropper's; ", lossShare*100, lossBurst) + pairSettings
	beside := pair("kernel_beside_per_core_s", "the same: packets of others pass by such a program", "the program's flow is another port; ", &Loss{Share: lossShare, Burst: lossBurst, Seed: lossSeed, Beside: true})

	passing, relayRatio := relayed(r, o, "relay_ratio")
	ms = append(ms, passing)

	var all bare.Heard
	losing.done = func(m measured) {
		all.Next, all.Lost, all.Bursts = all.Next+m.Heard.Next, all.Lost+m.Heard.Lost, all.Bursts+m.Heard.Bursts
		losing.client.Loss = &Loss{Share: lossShare, Burst: lossBurst, Seed: losing.client.Loss.Seed + 1}
		losing.server.Loss = losing.client.Loss
	}
	r.Ratios = []*Ratio{
		ratio("ratio", ready.figure, none.figure, 0.9, "how much of the packet rate is left when the kernel decides on every packet"),
		ratio("losing_ratio", losing.figure, none.figure, 0.9, "the same when it loses some: packets sent a second, the lost ones among them"),
		ratio("beside_ratio", beside.figure, none.figure, 0, "the same for packets of no concern"),
		relayRatio,
	}
	err = measure(ctx, o, r, ms)
	if all.Next > 0 {
		share, burst := float64(all.Lost)/float64(all.Next), float64(all.Lost)/float64(max(all.Bursts, 1))
		r.Facts["loss"] = map[string]any{
			"packets": all.Next, "share": share, "share_expected": lossShare, "burst": burst, "burst_expected": lossBurst,
		}
		losing.figure.What += fmt.Sprintf(": %.2f %% of %s (%g %% asked) in bursts of %.2f (%d)", share*100, thousands(float64(all.Next)), lossShare*100, burst, lossBurst)
	}
	return r, err
}

func servePackets(ctx context.Context, p Part) error {
	var lost func() bool
	if p.Loss != nil && !p.Loss.Beside {
		lost = link.NewDropper(p.Loss.model(), p.Loss.Seed).Next
	}
	s, err := listenAbove(p.Addr, func(a netip.AddrPort) (*bare.Sink, error) { return bare.ListenPackets(a, lost) })
	if err != nil {
		return err
	}
	return runServer(ctx, s.Addr(), s.Run)
}

func drivePackets(ctx context.Context, p Part) (measured, error) {
	if p.Loss != nil {
		program, err := lose(p.Addr, p.Loss)
		if err != nil {
			return measured{}, err
		}
		defer program.Close() //nolint:errcheck // it ends with this process at the latest
	}
	cpu := meter{server: p.Server}
	sent, err := bare.SendPackets(ctx, bare.SourceConfig{To: p.Addr, Size: p.Size, Warm: p.Warm, For: p.For, Begin: cpu.begin})
	if err != nil {
		return measured{}, err
	}
	m := measured{Done: sent.Packets, Seconds: sent.For.Seconds(), Core: sent.CPU.Seconds(), Wrong: sent.Heard.Wrong, Heard: &sent.Heard}
	cpu.end(&m)
	if m.Wrong > 0 {
		m.Detail = "packets met another fate than their seed's"
	}
	return m, nil
}

// lose has the kernel lose some of what goes to an address, or to the port below it.
func lose(to netip.AddrPort, l *Loss) (*kernel.Program, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	port := to.Port()
	if l.Beside {
		port--
	}
	return kernel.Impair(kernel.Config{
		Interface: lo.Index, Loss: l.model(), Seed: l.Seed,
		Flow: kernel.Flow{Prefix: netip.PrefixFrom(to.Addr(), 32), Ports: []uint16{port}, Proto: kernel.UDP},
	})
}
