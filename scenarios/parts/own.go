package parts

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/processes"
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

// Present says what stands against breaking an own part as it is now, and begins nothing: nobody listens at its address; or, where
// its processes are what is hit, they are another user's, or such as no fault may be done to. The error wraps chaos.ErrRefused; another
// is of /proc, which could not be read.
func Present(o spec.Own, hit bool) error {
	at := fmt.Sprintf("%s (%s)", o.Address, o.Name)
	here, otherwise, err := Heard(o)
	switch {
	case err != nil:
		return fmt.Errorf("who listens at %s: %w", at, err)
	case !here && !otherwise:
		return fmt.Errorf("%w: nobody listens at %s", chaos.ErrRefused, at)
	case !here && o.Datagrams:
		return fmt.Errorf("%w: only a TCP socket listens at %s: leave out protocol: udp", chaos.ErrRefused, at)
	case !here:
		return fmt.Errorf("%w: only a UDP socket listens at %s: say so of it (protocol: udp)", chaos.ErrRefused, at)
	case !hit:
		return nil
	}
	all, err := procfs.At(procfs.Network(o.Datagrams), o.Address)
	switch {
	case err != nil:
		return fmt.Errorf("who listens at %s: %w", at, err)
	case len(all) == 0 && os.Geteuid() == 0: // a container's, with the host's network
		return fmt.Errorf("%w: what listens at %s is no process that can be seen from here", chaos.ErrRefused, at)
	case len(all) == 0:
		return fmt.Errorf("%w: what listens at %s belongs to another user", chaos.ErrRefused, at)
	}
	if err := processes.Refuse(refs(all)); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

// Heard reports whether anybody listens at an own part's address and, where nobody does, whether somebody does over the protocol that
// it was not said to have. The error is of /proc, which could not be read.
func Heard(o spec.Own) (here, otherwise bool, err error) {
	if here, err = procfs.Taken(procfs.Network(o.Datagrams), o.Address); here || err != nil {
		return here, false, err
	}
	otherwise, err = procfs.Taken(procfs.Network(!o.Datagrams), o.Address)
	return false, otherwise, err
}

func refs(all []procfs.Process) (out []processes.Ref) {
	for _, p := range all {
		out = append(out, processes.Ref{PID: p.PID, Start: p.Start})
	}
	return out
}

// RelayFree says why the relay in front of an own part could not listen at the address that it was given, or nil. It listens there for
// a moment. The error wraps chaos.ErrRefused.
func RelayFree(o spec.Own) error {
	if !o.Relay.IsValid() {
		return nil
	}
	var socket io.Closer
	var err error
	if o.Datagrams {
		socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(o.Relay))
	} else {
		socket, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(o.Relay))
	}
	if err == nil {
		err = socket.Close()
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: %s, the address of the relay in front of %s, is in use: give the relay one that is free", chaos.ErrRefused, o.Relay, o.Name)
	case err != nil:
		return fmt.Errorf("%w: the relay in front of %s: %w", chaos.ErrRefused, o.Name, err)
	}
	return nil
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
