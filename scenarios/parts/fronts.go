package parts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/dnsrelay"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/relay"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// Fronts are the relays that stand in front of a run's parts. They live in this process: when it ends, so do they.
type Fronts struct {
	log *slog.Logger

	stop  context.CancelFunc
	run   context.Context
	ended sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

// NewFronts has none yet. Close must be called.
func NewFronts(log *slog.Logger) *Fronts {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Fronts{log: log}
	f.run, f.stop = context.WithCancel(context.Background())
	return f
}

// Close takes every relay away; the error says which of them ended before.
func (f *Fronts) Close() error {
	f.stop()
	f.ended.Wait()
	return errors.Join(f.errs...)
}

// stand runs a relay until Close.
func (f *Fronts) stand(what string, run func(context.Context) error) {
	f.ended.Go(func() {
		if err := run(f.run); err != nil {
			f.mu.Lock()
			f.errs = append(f.errs, fmt.Errorf("%s: %w", what, err))
			f.mu.Unlock()
			f.log.Error("a relay ended", "relay", what, "error", err)
		}
	})
}

// Place is where a relay stands.
type Place struct {
	Public, Behind netip.AddrPort
	From           netip.Addr   // that it connects from to what is behind it; not valid: the kernel's choice
	Layout         media.Layout // of the segments that are behind it; zero: none

	// In runs what opens a socket where the part lives, a network namespace; nil: it lives in this process's. Relays of
	// HTTP alone can stand elsewhere.
	In func(open func() error) error
}

// Put puts relays in front of a part and notes them there. Of two the one for streams is met first, so that what it does to
// packets is done to whatever the other one answers too.
func (f *Fronts) Put(p *chaos.Part, fronts []chaos.Front, at Place) error {
	if slices.Contains(fronts, chaos.FrontHTTP) {
		public := at.Public
		if slices.Contains(fronts, chaos.FrontTCP) {
			public = netip.AddrPortFrom(at.Public.Addr(), 0)
		}
		r, err := httprelay.Listen(httprelay.Config{Listen: public.String(), Upstream: at.Behind.String(), In: at.In, Layout: at.Layout, Now: time.Now, Log: f.log})
		if err != nil {
			return err
		}
		p.HTTP = r
		f.stand("the HTTP relay in front of "+p.Name, r.Run)
		if at.Behind, err = netip.ParseAddrPort(r.Addr()); err != nil {
			return err
		}
	}
	cfg := relay.Config{Listen: at.Public, Upstream: at.Behind, From: at.From}
	switch {
	case slices.Contains(fronts, chaos.FrontTCP):
		r, err := relay.ListenTCP(cfg)
		if err != nil {
			return err
		}
		p.TCP = r
		f.stand("the TCP relay in front of "+p.Name, r.Run)
	case slices.Contains(fronts, chaos.FrontDNS):
		r, err := dnsrelay.Listen(at.Public, at.Behind)
		if err != nil {
			return err
		}
		p.DNS = r
		f.stand("the DNS relay in front of "+p.Name, r.Run)
	case slices.Contains(fronts, chaos.FrontUDP):
		r, err := relay.ListenUDP(cfg)
		if err != nil {
			return err
		}
		p.Datagrams = r
		f.stand("the UDP relay in front of "+p.Name, r.Run)
	}
	return nil
}

// PutOwn puts in front of an own part what faults about it need, at the relay's address that its owner gave it.
func (f *Fronts) PutOwn(p *chaos.Part, o spec.Own, faults []chaos.Fault) error {
	fronts := FrontsOf(p.Name, p.Kind, faults)
	switch {
	case o.Datagrams:
		if slices.Contains(fronts, chaos.FrontHTTP) {
			return fmt.Errorf("%s takes datagrams: there is nothing of HTTP to break", o.Name)
		}
		if slices.Contains(fronts, chaos.FrontDNS) && len(fronts) > 1 {
			return fmt.Errorf("faults in what %s answers and in its packets cannot be in one rehearsal", o.Name)
		}
		if !slices.Contains(fronts, chaos.FrontDNS) {
			fronts = []chaos.Front{chaos.FrontUDP}
		}
	case slices.Contains(fronts, chaos.FrontDNS):
		return fmt.Errorf("a resolver takes datagrams: say so of %s (protocol: udp, --udp)", o.Name)
	case len(fronts) == 0 && o.Relay.IsValid():
		fronts = []chaos.Front{chaos.FrontTCP} // whoever goes through it is to find something there
	case len(fronts) == 0:
		return nil
	}
	if !o.Relay.IsValid() {
		return fmt.Errorf("%s needs a relay in front of it for its faults: give it an address of its own, and send its users there (relay: 127.0.0.1:…)", o.Name)
	}
	return f.Put(p, fronts, Place{Public: o.Relay, Behind: o.Address, Layout: p.Layout})
}

// FrontsOf says what must stand in front of a part for all of its faults, each thing once.
func FrontsOf(name, kind string, faults []chaos.Fault) (fronts []chaos.Front) {
	for _, fault := range faults {
		front := fault.FrontFor(kind)
		if fault.Where == name && front != chaos.FrontNothing && !slices.Contains(fronts, front) {
			fronts = append(fronts, front)
		}
	}
	return fronts
}
