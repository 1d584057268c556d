package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
)

const cutNeeds = kernel.Needs

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	// home holds 127.0.0.1: telemetry, the conductor and whatever else runs on this machine.
	home = netip.MustParsePrefix("127.0.0.0/24")
)

// checkPrefix keeps a network fault within the rehearsal's own addresses.
func checkPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid() || !p.Addr().Is4() || p.Bits() < loopback.Bits() || !loopback.Contains(p.Addr()):
		return fmt.Errorf("%w to touch %s: only addresses of %s belong to a rehearsal", ErrRefused, p, loopback)
	case p.Overlaps(home):
		return fmt.Errorf("%w to touch %s: it holds addresses of %s, where this machine's own services live", ErrRefused, p, home)
	}
	return nil
}

// cut drops what crosses the border of a prefix and has one of ports at either end: two rehearsals on one machine may share
// addresses, never ports.
type cut struct {
	prefix netip.Prefix
	ports  []uint16

	mu      sync.Mutex
	barrier *kernel.Program // nil: not in effect
	links   []uint32
	// Packets dropped by barriers that are gone.
	into, outOf uint64
}

func planCut(f Fault, cfg *Config) (plan, error) {
	r, err := region(f, cfg.Regions)
	if err != nil {
		return plan{}, err
	}
	o, err := newProber(f, r, cfg, Timeout)
	if err != nil {
		return plan{}, err
	}
	if p, err := part(f, cfg); err == nil && p.Network != nil { // which nothing outside it can be reached from
		paths, err := networkPaths(p)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		silence := link.Impairment{Cut: true}
		return packets{paths: paths, to: silence, from: silence}.plan(o, nil), nil
	}
	if err := checkPrefix(r.Prefix()); err != nil {
		return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
	}
	c := &cut{prefix: r.Prefix().Masked(), ports: ports(r.Endpoints())}
	return plan{injector: c, observer: o, links: c.linkIDs, note: c.note}, nil
}

// cutAble tries the real thing on an address that nobody uses.
func cutAble() error {
	b, err := raiseBarrier(netip.MustParsePrefix("127.255.255.254/32"))
	if err != nil {
		return err
	}
	return b.Close()
}

func (c *cut) Inject(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barrier != nil {
		return nil
	}
	b, err := raiseBarrier(c.prefix, c.ports...)
	if err != nil {
		return err
	}
	c.barrier = b
	c.links = append(c.links, b.LinkID())
	return nil
}

func (c *cut) Restore(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barrier == nil {
		return nil
	}
	if err := c.barrier.Close(); err != nil {
		return err
	}
	if n, err := c.barrier.Counts(); err == nil {
		c.into, c.outOf = c.into+n.To.Lost.Packets, c.outOf+n.From.Lost.Packets
	}
	c.barrier = nil
	return nil
}

func (c *cut) linkIDs() []uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]uint32(nil), c.links...)
}

// note says what the kernel counted. It is not the evidence, which comes from outside: it helps to explain it.
func (c *cut) note() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("the kernel dropped %d packets into %s and %d out of it", c.into, c.prefix, c.outOf)
}

// raiseBarrier cuts a prefix off: TCP and UDP with one of ports at either end; without ports, all IPv4. The program is held by
// file descriptor alone, so the kernel takes it away when this process ends, however it ends. It sits at lo's ingress, where a sender has already
// been told that its packet is on its way.
func raiseBarrier(prefix netip.Prefix, ports ...uint16) (*kernel.Program, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	b, err := kernel.Impair(kernel.Config{
		Interface: lo.Index, Cut: true, Flow: kernel.Flow{Prefix: prefix, Ports: ports, Direction: kernel.Across},
	})
	if errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w; model: crash works without", err)
	}
	return b, err
}
