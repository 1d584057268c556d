package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/scenarios/parts"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/wire/consent"
)

// system is what of a run can be broken, and what stands around it for that: a network of its own, relays in front of its
// parts, and a watchdog that puts everything back when the conductor is gone. Without faults there is nothing in it, and a
// pipeline that nobody rehearses has none (nil).
type system struct {
	scenario *spec.Scenario
	faults   []chaos.Fault
	fronts   *parts.Fronts
	guard    *watchdog.Watchdog
	network  *netns.Network // nil: regions are on the loopback

	front map[string][]chaos.Front // what stands in front of a part, by name
	parts []chaos.Part
}

// openSystem prepares what the scenario's faults need before anything of the run listens.
func openSystem(ctx context.Context, cfg Config, run string) (_ *system, err error) {
	s := &system{scenario: cfg.Scenario, faults: cfg.Scenario.Faults, fronts: parts.NewFronts(cfg.Log)}
	if len(s.faults) == 0 {
		return s, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	var networked bool
	if s.front, networked, err = arrange(cfg.Scenario, chaos.Here); err != nil {
		return nil, err
	}
	if s.guard, err = watchdog.Start(ctx, watchdog.Config{Run: run}); err != nil {
		return nil, err
	}
	if !networked {
		return s, nil
	}
	s.network, err = netns.Build(netns.Config{Run: run, Regions: cfg.Scenario.Topology.Regions}, s.guard)
	return s, err
}

// arrange says what stands in front of which part of the pipeline and of the event path, and whether the regions live in a network
// of the run's own. The error wraps chaos.ErrUnsupported: the faults cannot be had together.
func arrange(sc *spec.Scenario, terms func(kind string, datagrams bool) chaos.Terms) (front map[string][]chaos.Front, networked bool, err error) {
	front = map[string][]chaos.Front{}
	var inNetwork, behindStreams string
	for _, p := range sc.Parts() {
		if p.Kind == chaos.PartService {
			continue // its owner says where its relay is
		}
		fronts := chaos.FrontsOf(p.Name, terms(p.Kind, false), sc.Faults)
		if i := slices.Index(fronts, chaos.FrontNetwork); i >= 0 {
			inNetwork = p.Name
			fronts = slices.Delete(fronts, i, i+1)
		}
		if len(fronts) > 0 {
			front[p.Name] = fronts
		}
		if p.Region != "" && slices.Contains(fronts, chaos.FrontTCP) {
			behindStreams = p.Name
		}
	}
	if inNetwork != "" && behindStreams != "" {
		return nil, false, fmt.Errorf("%w: %s needs a network of the run's own and %s a relay of streams in front of it: rehearse these faults one at a time", chaos.ErrUnsupported, inNetwork, behindStreams)
	}
	return front, inNetwork != "", nil
}

// close takes away what stands around the system; everything that listened there has ended.
func (s *system) close() error {
	errs := []error{s.fronts.Close()}
	if s.network != nil {
		errs = append(errs, s.network.Close())
	}
	if s.guard != nil {
		errs = append(errs, s.guard.Close())
	}
	return errors.Join(errs...)
}

// home is where the conductor listens for its regions.
func (s *system) home() netip.Addr {
	if s != nil && s.network != nil {
		return s.network.Host()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// own is the run's own block of addresses beside the loopback; not valid: it has none.
func (s *system) own() netip.Prefix {
	if s == nil || s.network == nil {
		return netip.Prefix{}
	}
	return s.network.Block()
}

// place gives the regions their addresses, and says which of their components have something in front of them.
func (s *system) place(regions []pipeline.RegionConfig) {
	if s == nil {
		return
	}
	for i := range regions {
		r := &regions[i]
		if s.network != nil {
			r.Block = s.network.Prefix(r.Name)
		}
		for _, p := range s.scenario.Parts() {
			if name, component := strings.CutPrefix(p.Name, r.Name+"/"); component && len(s.front[p.Name]) > 0 {
				r.Behind = append(r.Behind, name)
			}
		}
	}
}

// fork runs the start of a region's process where the region lives.
func (s *system) fork(region string) func(func() error) error {
	if s == nil || s.network == nil {
		return nil
	}
	return func(start func() error) error { return s.network.Start(region, start) }
}

// assemble makes the parts of the system, and puts in front of each what its faults need. Regions need not run yet.
func (s *system) assemble(cfg pipeline.Config, regions []*region) error {
	if s == nil {
		return nil
	}
	reference := parts.Reference{Pipeline: cfg, Network: s.network, Processes: func(name string) func() ([]procfs.Process, error) {
		i := slices.IndexFunc(regions, func(r *region) bool { return r.Name() == name })
		if i < 0 {
			return nil
		}
		return regions[i].processes
	}}
	for _, p := range s.scenario.Parts() {
		if p.Region == "" {
			continue
		}
		out, err := reference.Part(p)
		if err != nil {
			return err
		}
		if front := s.front[p.Name]; len(front) > 0 {
			public := out.Addrs[0]
			i := slices.IndexFunc(cfg.Regions, func(r pipeline.RegionConfig) bool { return r.Name == p.Region })
			err := s.fronts.Put(&out, front, parts.Place{Public: public, Behind: cfg.Regions[i].Shadow(public), From: public.Addr(), Layout: reference.Layout(), In: s.fork(p.Region)})
			if err != nil {
				return err
			}
		}
		s.parts = append(s.parts, out)
	}
	return nil
}

// assembleOwn makes parts of what the scenario declares as its owner's.
func (s *system) assembleOwn() error {
	for _, o := range s.scenario.Target.Own {
		p, err := parts.Own(o)
		if err != nil {
			return err
		}
		if err := s.fronts.PutOwn(&p, o, s.faults); err != nil {
			return err
		}
		s.parts = append(s.parts, p)
	}
	return nil
}

// refuse says which of the faults in the parts that there are already cannot be, or are not this run's to have, before anybody
// is asked for anything.
func (s *system) refuse() error {
	cfg := s.chaos(chaos.Config{Now: time.Now})
	cfg.Faults = slices.DeleteFunc(slices.Clone(cfg.Faults), func(f chaos.Fault) bool {
		return !slices.ContainsFunc(s.parts, func(p chaos.Part) bool { return p.Name == f.Where })
	})
	return plan(cfg)
}

// plan says what Plan does not allow: each is a refusal.
func plan(cfg chaos.Config) error {
	if _, err := chaos.Plan(cfg); err != nil {
		return refusal{err}
	}
	return nil
}

// kafka stands in front of the embedded broker, which listens at an address of its own; nil: nothing does.
func (s *system) kafka() func(listening string) (string, error) {
	if s == nil || len(s.front["kafka"]) == 0 {
		return nil
	}
	front := s.front["kafka"]
	return func(listening string) (string, error) {
		behind, err := netip.ParseAddrPort(listening)
		if err != nil {
			return "", err
		}
		p := chaos.Part{Name: "kafka", Kind: chaos.PartKafka}
		if err := s.fronts.Put(&p, front, parts.Place{Public: netip.AddrPortFrom(behind.Addr(), 0), Behind: behind}); err != nil {
			return "", err
		}
		p.Addrs = []netip.AddrPort{p.TCP.Addr()}
		s.parts = append(s.parts, p)
		return p.TCP.Addr().String(), nil
	}
}

// clickhouse stands in front of the embedded store at base, where its faults need that, and returns where it is reached.
func (s *system) clickhouse(base string, processes func() ([]procfs.Process, error)) (string, error) {
	if s == nil || !slices.ContainsFunc(s.faults, func(f chaos.Fault) bool { return f.Where == "clickhouse" }) {
		return base, nil
	}
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	behind, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return "", err
	}
	public := behind
	p := chaos.Part{Name: "clickhouse", Kind: chaos.PartClickHouse, Look: "/ping", Processes: processes}
	if front := s.front["clickhouse"]; len(front) > 0 {
		if public, err = freePort(behind.Addr()); err != nil {
			return "", err
		}
		if err := s.fronts.Put(&p, front, parts.Place{Public: public, Behind: behind}); err != nil {
			return "", err
		}
	}
	p.Addrs, p.URL = []netip.AddrPort{public}, "http://"+public.String()
	s.parts = append(s.parts, p)
	u.Host = public.String()
	return u.String(), nil
}

// freePort finds a port that nobody has.
func freePort(at netip.Addr) (netip.AddrPort, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort(), nil
}

// chaos is what breaks the system, but for when and where it is told.
func (s *system) chaos(cfg chaos.Config) chaos.Config {
	cfg.Faults, cfg.Parts = s.faults, s.parts
	if s.guard != nil {
		cfg.Guard = s.guard
	}
	return cfg
}

// withinOwn lets players go where a run's own network is, and to what has agreed.
type withinOwn struct {
	consent.Permits
	own netip.Prefix // not valid: there is none
}

// Pinned is where an address may be reached.
func (w withinOwn) Pinned(address string) (netip.AddrPort, bool) {
	if at, err := netip.ParseAddrPort(address); err == nil && w.own.IsValid() && w.own.Contains(at.Addr().Unmap()) {
		return at, true
	}
	return w.Permits.Pinned(address)
}
