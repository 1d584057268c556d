package parts

import (
	"fmt"
	"net/netip"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// Own is a part that a scenario's owner declares as theirs: whoever listens at its address on this machine's loopback. The error
// wraps chaos.ErrRefused where the address is another, and is media.Template's where the segments' template is none.
func Own(o spec.Own) (chaos.Part, error) {
	if !o.Address.Addr().IsLoopback() || o.Address.Port() == 0 {
		return chaos.Part{}, fmt.Errorf("%w to touch %s: only what listens on this machine's loopback can be broken", chaos.ErrRefused, o.Address)
	}
	l, err := layout(o)
	if err != nil {
		return chaos.Part{}, err
	}
	return chaos.Part{
		Layout: l,
		Name:   o.Name, Kind: chaos.PartService,
		Addrs: []netip.AddrPort{reached(o)}, UDP: []netip.AddrPort{reached(o)},
		URL:       "http://" + reached(o).String(),
		Processes: func() ([]procfs.Process, error) { return procfs.At(procfs.Network(o.Datagrams), o.Address) },
	}, nil
}

// reached is where a part of one's own is reached: through its relay, where it has one.
func reached(o spec.Own) netip.AddrPort {
	if o.Relay.IsValid() {
		return o.Relay
	}
	return o.Address
}

// layout is what an own part's paths mean.
func layout(o spec.Own) (media.Layout, error) {
	if o.Segments == "" {
		return media.Layout{}, nil
	}
	l, err := media.Template(o.Segments)
	if err != nil {
		return media.Layout{}, fmt.Errorf("%s: segments: %w", o.Name, err)
	}
	if o.Init != "" {
		l.InitName = o.Init
	}
	return l, nil
}
