package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/probe"
	"github.com/tminus-live/tminus/chaos/relay"
)

// The directions that a fault in packets may have.
const (
	bothWays = "both"
	toPart   = "to"
	fromPart = "from"
)

var onPackets = []string{PartRegion, PartPackager, PartOrigin, PartEdge, PartPlayback, PartService}

// direction is the parameter that every fault in packets has.
var direction = Parameter{Name: "direction", Type: TypeWord, Words: []string{bothWays, toPart, fromPart}, Default: bothWays, Summary: "which packets: to the part, from it, or both"}

// A path that holds packets up for longer is not seen to be whole again within WatchMost: connections wait for the way there and for the
// way back, and for what the queue of a low rate holds.
const (
	longestDelay = 10   // s
	lowestRate   = 16e3 // bit/s
)

const packetEvidence = "numbered probes of its own, sent along the same path before, during and after"

// demands are what a fault in packets takes, and how it is done by hand.
type demands struct{ needs, byHand string }

var (
	holding = demands{ // no kernel program does
		"root, for a network of the run's own, which regions of the reference pipeline live in; without it, and for something of one's own as root too, a relay in front of the part, which a whole region has none of",
		"", // through a relay
	}
	packetByPacket = demands{
		"root, for a network of the run's own or a kernel program; without it a relay in front of something of one's own that takes datagrams: streams that pass a relay have no packets to lose, duplicate or corrupt",
		"yes, as root; without root through a relay, and only what takes datagrams (--udp)",
	}
	silencing = demands{
		"root, for a network of the run's own or a kernel program; without it a relay in front of the part, which a whole region has none of",
		"yes, as root; without root through a relay",
	}
)

var packetKinds = []Kind{
	{
		Fail: "packet-loss", Summary: "packets are lost, by a model and a seed", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{
			packetModel(packetByPacket, Model{
				Name: link.Bernoulli, Summary: "each packet by itself is lost with the same probability",
				Parameters: []Parameter{{Name: "loss", Type: TypeShare, Required: true, Summary: "share of packets lost"}},
				Example:    "{at: 30s, for: 20s, fail: packet-loss, where: us-east, model: {bernoulli: {loss: 1%}}}",
			}, func(f Fault) (link.Impairment, error) {
				return link.Impairment{Loss: link.Loss{Model: link.Bernoulli, Share: f.Share("loss")}}, nil
			}),
			packetModel(packetByPacket, Model{
				Name: link.GilbertElliott, Summary: "losses come in bursts: a path that is good or bad, and stays so for a while (Gilbert, 1960; Elliott, 1963)",
				Parameters: []Parameter{
					{Name: "loss", Type: TypeShare, Required: true, Summary: "share of packets lost"},
					{Name: "burst", Type: TypeNumber, Default: "4", Least: 1, Most: 10_000, Summary: "mean length of a burst, in packets"},
				},
				Example: "{at: 30s, for: 20s, fail: packet-loss, where: us-east/edge-1, model: {gilbert-elliott: {loss: 5%, burst: 8}}}",
			}, func(f Fault) (link.Impairment, error) {
				return link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: f.Share("loss"), Burst: f.Number("burst")}}, nil
			}),
			packetModel(packetByPacket, Model{
				Name: link.Trace, Summary: "losses as they were recorded, over and over",
				Parameters: []Parameter{{Name: "file", Type: TypeFile, Required: true, Summary: "the trace beside the scenario: a 1 for each packet lost and a 0 for each that arrived"}},
				Example:    "{at: 30s, for: 20s, fail: packet-loss, where: us-east, model: {trace: {file: friday.txt}}}",
			}, traceLoss),
		},
	},
	{
		Fail: "packet-delay", Summary: "packets take longer", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(holding, Model{
			Name: "delay", Summary: "each packet takes longer, give or take the jitter",
			Parameters: []Parameter{
				{Name: "delay", Type: TypeDuration, Required: true, Least: .001, Most: longestDelay, Summary: "how much longer each way: a round trip takes twice that, unless direction says one"},
				{Name: "jitter", Type: TypeDuration, Default: "0s", Most: longestDelay, Summary: "the delay varies by so much to either side"},
				{Name: "reorder", Type: TypeSwitch, Default: "false", Summary: "packets may overtake each other"},
			},
			Example: "{at: 30s, for: 20s, fail: packet-delay, where: us-east, model: {delay: {delay: 80ms, jitter: 20ms}}}",
		}, func(f Fault) (link.Impairment, error) {
			return link.Impairment{Delay: f.Duration("delay"), Jitter: f.Duration("jitter"), Reorder: f.Switch("reorder")}, nil
		})},
	},
	{
		Fail: "packet-duplication", Summary: "packets arrive twice", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(packetByPacket, Model{
			Name: "duplicate", Summary: "a share of packets arrives twice",
			Parameters: []Parameter{{Name: "share", Type: TypeShare, Required: true, Summary: "share of packets that arrive twice"}},
			Example:    "{at: 30s, for: 20s, fail: packet-duplication, where: us-east, model: {duplicate: {share: 5%}}}",
		}, func(f Fault) (link.Impairment, error) {
			return link.Impairment{Duplicate: f.Share("share")}, nil
		})},
	},
	{
		Fail: "packet-corruption", Summary: "packets arrive with a bit flipped that their checksum does not tell", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(packetByPacket, Model{
			Name: "flip", Summary: "a share of packets arrives with one bit flipped, their checksum agreeing with it",
			Parameters: []Parameter{{Name: "share", Type: TypeShare, Required: true, Summary: "share of packets that are corrupted"}},
			Example:    "{at: 30s, for: 20s, fail: packet-corruption, where: us-east, model: {flip: {share: 1%}}}",
		}, func(f Fault) (link.Impairment, error) {
			return link.Impairment{Corrupt: f.Share("share")}, nil
		})},
	},
	{
		Fail: "rate-limit", Summary: "the path carries less", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(holding, Model{
			Name: "rate", Summary: "a bottleneck with a queue before it, whose tail is dropped",
			Parameters: []Parameter{
				{Name: "rate", Type: TypeRate, Required: true, Least: lowestRate, Most: link.MaxRate, Summary: "what passes, headers included"},
				{Name: "queue", Type: TypeSize, Default: "0B", Most: link.MaxQueue, Summary: "bytes that wait before the last to come is dropped; 0B: what the rate carries in 200 ms"},
			},
			Example: "{at: 30s, for: 20s, fail: rate-limit, where: us-east, model: {rate: {rate: 20Mbit}}}",
		}, func(f Fault) (link.Impairment, error) {
			return link.Impairment{Rate: f.Rate("rate"), Queue: f.Size("queue")}, nil
		})},
	},
	{
		Fail: "partition", Summary: "nothing arrives", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(silencing, Model{
			Name: "silence", Summary: "every packet is lost, one way or both",
			Example: "{at: 30s, for: 20s, fail: partition, where: us-east/origin, model: {silence: {direction: from}}}",
		}, func(Fault) (link.Impairment, error) { return link.Impairment{Cut: true}, nil })},
	},
	{
		Fail: "brown-out", Summary: "a region is there, and bad to reach", Where: "a region, a component of one, or something of one's own", On: onPackets,
		Models: []Model{packetModel(holding, Model{
			Name: "slow", Summary: "packets take longer and fewer of them pass",
			Parameters: []Parameter{
				{Name: "delay", Type: TypeDuration, Default: "150ms", Least: .001, Most: longestDelay, Summary: "how much longer each way"},
				{Name: "jitter", Type: TypeDuration, Default: "30ms", Most: longestDelay, Summary: "the delay varies by so much to either side"},
				{Name: "rate", Type: TypeRate, Required: true, Least: lowestRate, Most: link.MaxRate, Summary: "what passes, headers included"},
			},
			Example: "{at: 30s, for: 20s, fail: brown-out, where: us-east, model: {slow: {rate: 30Mbit}}}",
		}, func(f Fault) (link.Impairment, error) {
			return link.Impairment{Delay: f.Duration("delay"), Jitter: f.Duration("jitter"), Rate: f.Rate("rate")}, nil
		})},
	},
}

// packetModel completes a model whose fault is an impairment of a path.
func packetModel(by demands, m Model, does func(Fault) (link.Impairment, error)) Model {
	m.Parameters = append(m.Parameters, direction)
	m.Evidence, m.Needs, m.ByHand = packetEvidence, by.needs, by.byHand
	m.check = func(f Fault) error {
		imp, err := does(f)
		return errors.Join(err, imp.Validate())
	}
	m.front = func(f Fault, t Terms) Front {
		imp, err := does(f)
		switch {
		case err != nil: // check says so
			return FrontNothing
		case t.Kind != PartService && t.Network:
			return FrontNetwork
		case !held(imp) && t.Kernel:
			return FrontNothing
		case t.Datagrams:
			return FrontUDP
		case packetwise(imp), t.Kind == PartRegion: // no relay for streams does it, and none stands in front of a whole region
			return FrontNothing
		}
		return FrontTCP
	}
	m.lack = func(f Fault, t Terms) error {
		imp, err := does(f)
		if err != nil || m.front(f, t) != FrontNothing || !held(imp) && t.Kernel {
			return err
		}
		return packetLack(f.Where, t.Kind, imp)
	}
	m.plan = func(f Fault, cfg *Config) (plan, error) {
		imp, err := does(f)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		p, err := part(f, cfg)
		if err != nil {
			return plan{}, err
		}
		imp.Seed = f.Seed
		return planPackets(f, cfg, imp, p)
	}
	return m
}

var (
	netnsAble  = sync.OnceValue(netns.Able)
	kernelAble = sync.OnceValue(kernel.Able)
)

// held reports whether an impairment holds packets up, which no kernel program does.
func held(i link.Impairment) bool { return i.Delay > 0 || i.Rate > 0 }

// packetwise reports whether an impairment befalls packets one by one, of which streams that pass a relay have none.
func packetwise(i link.Impairment) bool {
	return i.Loss.Share > 0 || len(i.Loss.Trace) > 0 || i.Duplicate > 0 || i.Corrupt > 0
}

// traceLoss loses what a trace says was lost.
func traceLoss(f Fault) (link.Impairment, error) {
	bits, err := link.ParseTrace(strings.NewReader(f.Files["file"]))
	if err != nil {
		return link.Impairment{}, fmt.Errorf("trace %s: %w", f.Text("file"), err)
	}
	return link.Impairment{Loss: link.Loss{Model: link.Trace, Trace: bits}}, nil
}

// impairer breaks packets on a path, and makes it whole.
type impairer interface {
	// impair sets what is done to packets to a part and from it.
	impair(to, from link.Impairment) error
	clear() error
	links() []uint32 // of bpf
	means() string   // how, for the report
}

// packets is the injector of every fault in packets.
type packets struct {
	paths    []impairer
	to, from link.Impairment
}

func (p packets) Inject(context.Context) error {
	for _, path := range p.paths {
		if err := path.impair(p.to, p.from); err != nil {
			return err
		}
	}
	return nil
}

func (p packets) Restore(context.Context) error {
	var errs []error
	for _, path := range p.paths {
		errs = append(errs, path.clear())
	}
	return errors.Join(errs...)
}

// planPackets finds the best means there is to impair a part's packets: its region's network, the kernel, or a relay.
func planPackets(f Fault, cfg *Config, imp link.Impairment, p Part) (_ plan, err error) {
	inject := packets{to: imp, from: imp}
	// With the same draws both ways, what goes there and comes back would meet the same fate twice: a bit that is flipped there is
	// flipped back here.
	inject.from.Seed = link.Flow(imp.Seed, 1)
	switch f.Text("direction") {
	case toPart:
		inject.from = link.Impairment{}
	case fromPart:
		inject.to = link.Impairment{}
	}
	switch {
	case p.Network != nil:
		inject.paths, err = networkPaths(p)
	case p.Datagrams != nil || p.TCP != nil && !(packetwise(imp) && kernelAble() == nil):
		inject.paths, err = relayPaths(p, imp)
	case kernelAble() == nil && !held(imp):
		inject.paths, err = kernelPaths(p)
	default:
		err = packetLack(p.Name, p.Kind, imp)
	}
	if err != nil {
		return plan{}, fmt.Errorf("fault %s (%s of %s): %w", f.ID, f.Fail, f.Where, err)
	}
	o, done, err := observePackets(f, cfg, p, inject)
	if err != nil {
		return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
	}
	return inject.plan(o, done), nil
}

// plan is the injector with who watches it; done gives back what that holds.
func (p packets) plan(o Observer, done func()) plan {
	return plan{injector: p, observer: o, done: done, means: p.paths[0].means(), links: func() (ids []uint32) {
		for _, path := range p.paths {
			ids = append(ids, path.links()...)
		}
		return ids
	}}
}

// packetLack says why there is no way to do it.
func packetLack(name, kind string, imp link.Impairment) error {
	if held(imp) && kind == PartService {
		return fmt.Errorf("%w: delay and rate need a relay in front of %s: give it one (relay: 127.0.0.1:…, --relay)", ErrUnsupported, name)
	}
	lack := kernelAble()
	if kind == PartRegion && held(imp) {
		lack = netnsAble() // a kernel program would not do
	}
	if lack == nil {
		lack = fmt.Errorf("%w: a kernel program cannot hold packets up", ErrUnsupported)
	}
	switch {
	case packetwise(imp):
		return fmt.Errorf("%w, and streams that pass a relay have no packets to lose, duplicate or corrupt", lack)
	case kind == PartRegion:
		return fmt.Errorf("%w, and no relay stands in front of a whole region: one does in front of each component (%s/edge-1)", lack, name)
	}
	return fmt.Errorf("%w, and there is no relay in front of %s", lack, name)
}

// flows are a part's packets: those across the border of a region, and of others what goes to and from where they listen. On the
// loopback a region's have one of its ports at either end: another rehearsal may have the same addresses.
func flows(p Part) []kernel.Flow {
	if p.Kind == PartRegion && p.Network != nil {
		return []kernel.Flow{{Prefix: p.Prefix}}
	}
	if p.Kind == PartRegion {
		return []kernel.Flow{{Prefix: p.Prefix, Ports: ports(p.Addrs), Direction: kernel.Across}}
	}
	var out []kernel.Flow
	for _, a := range p.Addrs {
		out = append(out, kernel.Flow{Prefix: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Ports: []uint16{a.Port()}})
	}
	return out
}

// ports are those of addresses, each once.
func ports(addrs []netip.AddrPort) (out []uint16) {
	for _, a := range addrs {
		if !slices.Contains(out, a.Port()) {
			out = append(out, a.Port())
		}
	}
	return out
}

// networkPath is a flow over the cable of a region's network.
type networkPath struct{ link *netns.Link }

func networkPaths(p Part) (paths []impairer, err error) {
	for _, flow := range flows(p) {
		l, err := p.Network.Link(p.Region, flow)
		if err != nil {
			return nil, err
		}
		paths = append(paths, networkPath{l})
	}
	return paths, nil
}

func (n networkPath) impair(to, from link.Impairment) error { return n.link.Impair(from, to) }
func (n networkPath) clear() error                          { return n.link.Clear() }
func (n networkPath) links() []uint32                       { return n.link.LinkIDs() }
func (n networkPath) means() string {
	return "the run's own network: kernel programs and a wire, packets of 1,500 bytes"
}

// kernelPath is a flow over the loopback interface.
type kernelPath struct {
	flow kernel.Flow

	mu       sync.Mutex
	programs []*kernel.Program
	ids      []uint32
}

func kernelPaths(p Part) (paths []impairer, err error) {
	for _, flow := range flows(p) {
		if err := checkFlow(flow); err != nil {
			return nil, err
		}
		paths = append(paths, &kernelPath{flow: flow})
	}
	return paths, nil
}

// checkFlow keeps a kernel program to what belongs to the run: whole ranges never hold an address where other services of
// this machine live, a single port of a declared address is fine.
func checkFlow(f kernel.Flow) error {
	if len(f.Ports) == 0 || !f.Prefix.IsSingleIP() {
		return checkPrefix(f.Prefix)
	}
	if !f.Prefix.Addr().Is4() || !f.Prefix.Addr().IsLoopback() {
		return fmt.Errorf("%w to touch %s: only addresses of %s can be broken", ErrRefused, f.Prefix.Addr(), loopback)
	}
	return nil
}

func (k *kernelPath) impair(to, from link.Impairment) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	there, back := kernel.To, kernel.From
	if k.flow.Direction == kernel.Across {
		there, back = kernel.Entering, kernel.Leaving
	}
	for _, d := range []struct {
		way kernel.Direction
		imp link.Impairment
	}{{there, to}, {back, from}} {
		if d.imp.None() {
			continue
		}
		flow := k.flow
		flow.Direction = d.way
		p, err := kernel.Impair(kernel.Config{
			Interface: lo.Index, Flow: flow, Loss: d.imp.Loss, Duplicate: d.imp.Duplicate, Corrupt: d.imp.Corrupt, Cut: d.imp.Cut, Seed: d.imp.Seed,
		})
		if err != nil {
			return err
		}
		k.programs, k.ids = append(k.programs, p), append(k.ids, p.LinkID())
	}
	return nil
}

func (k *kernelPath) clear() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.programs) > 0 {
		last := len(k.programs) - 1
		if err := k.programs[last].Close(); err != nil {
			return err
		}
		k.programs = k.programs[:last]
	}
	return nil
}

func (k *kernelPath) links() []uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]uint32(nil), k.ids...)
}

func (k *kernelPath) means() string {
	return "a kernel program on the loopback interface, where packets hold up to 64 kB"
}

// relayPath is what passes a relay.
type relayPath struct {
	set   func(to, from link.Impairment) error
	whole func()
	how   string
}

func relayPaths(p Part, imp link.Impairment) (paths []impairer, err error) {
	if p.Datagrams != nil {
		paths = append(paths, relayPath{p.Datagrams.Set, p.Datagrams.Clear, "a relay for datagrams in user space"})
	}
	if p.TCP != nil {
		if packetwise(imp) {
			return nil, packetLack(p.Name, p.Kind, imp)
		}
		paths = append(paths, relayPath{p.TCP.Set, p.TCP.Clear, "a relay for streams in user space"})
	}
	return paths, nil
}

func (r relayPath) impair(to, from link.Impairment) error { return r.set(to, from) }
func (r relayPath) clear() error                          { r.whole(); return nil }
func (r relayPath) links() []uint32                       { return nil }
func (r relayPath) means() string                         { return r.how }

// streamed is what is promised of connections.
type streamed struct {
	to, from link.Impairment
	conduct  probe.Conduct
}

// observePackets watches a part's path by packets of its own, which go where the part's go.
func observePackets(f Fault, cfg *Config, p Part, inject packets) (Observer, func(), error) {
	if _, streams := inject.paths[0].(relayPath); streams && p.Datagrams == nil {
		return observeStream(p.TCP, streamed{to: inject.to, from: inject.from, conduct: probe.Sound}, cfg.Now)
	}
	c := probe.Config{Up: inject.to, Down: inject.from, For: f.For, Now: cfg.Now, Shared: p.Datagrams == nil || p.Network != nil}
	var err error
	unroute := func() {}
	switch {
	case p.Network != nil:
		if c.Near, err = datagrams(netip.AddrPortFrom(p.Network.Host(), 0)); err != nil {
			return nil, nil, err
		}
		if e := p.Network.Start(p.Region, func() error { c.Far, err = datagrams(far(p)); return err }); e != nil {
			err = e
		}
	case p.Datagrams != nil:
		if c.Near, err = datagrams(homeAny); err != nil {
			return nil, nil, err
		}
		if c.Far, err = datagrams(homeAny); err == nil {
			c.To = p.Datagrams.Addr()
			client := c.Near.LocalAddr().(*net.UDPAddr).AddrPort()
			unroute = func() { p.Datagrams.Unroute(client) } // who has that port next is no probe
			err = p.Datagrams.Route(client, c.Far.LocalAddr().(*net.UDPAddr).AddrPort())
		}
	default:
		if c.Near, err = datagrams(homeAny); err != nil {
			return nil, nil, err
		}
		c.Far, err = farBeside(p, inject)
	}
	if err == nil && !c.To.IsValid() {
		c.To = c.Far.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	var o *probe.UDP
	if err == nil {
		o, err = probe.NewUDP(c)
	}
	if err != nil {
		unroute()
		c.Near.Close()
		if c.Far != nil {
			c.Far.Close()
		}
		return nil, nil, fmt.Errorf("a probe of the path to %s: %w", p.Name, err)
	}
	return o, func() { unroute(); o.Close() }, nil
}

// observeStream watches a relay for streams by connections of its own, which the relay leads to a listener of the probe's.
func observeStream(r *relay.TCP, does streamed, now func() time.Time) (Observer, func(), error) {
	ln, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(homeAny))
	if err != nil {
		return nil, nil, fmt.Errorf("a probe of a relay: %w", err)
	}
	to := ln.Addr().(*net.TCPAddr).AddrPort()
	o, err := probe.NewTCP(probe.TCPConfig{
		Far: ln, To: r.Addr(), From: homeAny.Addr(), Up: does.to, Down: does.from, Conduct: does.conduct, Now: now,
		Bound:   func(client netip.AddrPort) error { return r.Route(client, to) },
		Unbound: r.Unroute,
	})
	if err != nil {
		ln.Close()
		return nil, nil, err
	}
	return o, func() { o.Close() }, nil
}

// homeAny is any port of this machine's own.
var homeAny = netip.MustParseAddrPort("127.0.0.1:0")

// lastHost is a host of a region's block that no component has.
const lastHost = 250

// far is where a probe's far end is: where the part listens, so that what is done to the part's packets is done to the
// probe's, or, for all of a region, at an address of it that nobody has.
func far(p Part) netip.AddrPort {
	if p.Kind != PartRegion {
		return p.Addrs[0]
	}
	a := p.Prefix.Masked().Addr().As4()
	a[3] = lastHost
	return netip.AddrPortFrom(netip.AddrFrom4(a), 0)
}

// farBeside is a probe's far end at a part whose packets the kernel impairs: where the part listens, or, where somebody takes
// datagrams there already (HTTP/3 does) and in a region, at a port of its own, to which the same is done.
func farBeside(p Part, inject packets) (*net.UDPConn, error) {
	c, err := datagrams(far(p))
	if errors.Is(err, unix.EADDRINUSE) {
		c, err = datagrams(netip.AddrPortFrom(far(p).Addr(), 0))
	}
	if err != nil {
		return nil, err
	}
	port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	for _, path := range inject.paths {
		if k, ok := path.(*kernelPath); ok && !slices.Contains(k.flow.Ports, port) {
			k.flow.Ports = append(k.flow.Ports, port)
		}
	}
	return c, nil
}

func datagrams(at netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
}
