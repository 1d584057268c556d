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

// Close takes every relay away, all at once: whoever is behind one, or in front, has ended by then, or finds nothing there. The
// error joins those of relays that ended before, in the order in which they did; it wraps no sentinel. It may be called again.
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
// packets is done to whatever the other one answers too. The error is that of the relay that cannot be had: an address is taken,
// mostly. Relays that were there by then go with Close.
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

// PutOwn puts in front of an own part what faults about it need, at the relay's address that its owner gave it. Its errors are
// those of spec.Own.Fronts and of Put.
func (f *Fronts) PutOwn(p *chaos.Part, o spec.Own, faults []chaos.Fault) error {
	fronts, err := o.Fronts(chaos.Here(p.Kind, o.Datagrams), faults)
	if err != nil || len(fronts) == 0 {
		return err
	}
	return f.Put(p, fronts, Place{Public: o.Relay, Behind: o.Address, Layout: p.Layout})
}

// FrontsOf says what must stand in front of a part of the reference pipeline, or of the event path, for all of its faults on
// this machine, each thing once.
func FrontsOf(name, kind string, faults []chaos.Fault) []chaos.Front {
	return chaos.FrontsOf(name, chaos.Here(kind, false), faults)
}
