package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

// Defaults and limits of Config.
const (
	DefaultSessions = 1024
	DefaultIdle     = time.Minute
	DefaultHeld     = 64 << 20

	maxSessions = 65_536
	maxRoutes   = 4096
	leastHeld   = mostChunk
)

// Config says between what a relay stands.
type Config struct {
	Listen   netip.AddrPort                    // the public address; port 0: any
	Upstream netip.AddrPort                    // where what is behind the relay listens
	Routes   map[netip.AddrPort]netip.AddrPort // by client: goes there instead
	From     netip.Addr                        // source address towards Upstream; not valid: the kernel chooses
	Sessions int                               // clients (UDP), connections (TCP) at once; 0: DefaultSessions
	Idle     time.Duration                     // UDP: a client that is silent for so long is forgotten; 0: DefaultIdle
	Held     int                               // bytes on their way at once; what comes on top is dropped (UDP) or waits (TCP); 0: DefaultHeld
}

// complete fills in the defaults and reports everything that is wrong.
func (c *Config) complete() error {
	var errs []error
	same := func(what string, a netip.Addr) {
		if !a.IsValid() || a.Zone() != "" || a.Is4() != c.Listen.Addr().Is4() {
			errs = append(errs, fmt.Errorf("%s %s is no address of the same family as %s", what, a, c.Listen))
		}
	}
	if !c.Listen.Addr().IsValid() {
		errs = append(errs, errors.New("no address to listen on"))
	}
	if c.Upstream.Port() == 0 {
		errs = append(errs, errors.New("upstream has no port"))
	}
	same("upstream", c.Upstream.Addr())
	for client, to := range c.Routes {
		same("the client of a route", client.Addr())
		same("a route's end", to.Addr())
	}
	if c.From.IsValid() {
		same("the source address", c.From)
	}
	c.Sessions = or(c.Sessions, DefaultSessions)
	c.Idle = or(c.Idle, DefaultIdle)
	c.Held = or(c.Held, DefaultHeld)
	if c.Sessions < 1 || c.Sessions > maxSessions {
		errs = append(errs, fmt.Errorf("there are 1 to %d sessions, not %d", maxSessions, c.Sessions))
	}
	if len(c.Routes) > maxRoutes {
		errs = append(errs, fmt.Errorf("there are at most %d routes, not %d", maxRoutes, len(c.Routes)))
	}
	if c.Idle < 0 {
		errs = append(errs, fmt.Errorf("no client is forgotten after %s", c.Idle))
	}
	if c.Held < leastHeld {
		errs = append(errs, fmt.Errorf("%d bytes at least are on their way at once, not %d", leastHeld, c.Held))
	}
	return errors.Join(errs...)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// way is one of the two directions.
type way int

const (
	up   way = iota // from clients to what is behind the relay
	down            // back
)

// Traffic is what one direction has carried.
type Traffic struct {
	Received, Sent           uint64 // packets (UDP), chunks (TCP)
	ReceivedBytes, SentBytes uint64
	Lost                     uint64 // by the impairment's loss or cut
	TailDropped              uint64 // no room in the queue before the rate
	Duplicated, Corrupted    uint64
	Overflow                 uint64 // more on its way than Config.Held: the relay's own limit
	Failed                   uint64 // the kernel refused to send
}

// Counts is what a relay has done since it began.
type Counts struct {
	Up, Down Traffic
	Sessions int    // now
	Refused  uint64 // packets or connections of clients that there was no session for
	Overrun  uint64 // UDP: packets that the kernel dropped because the relay did not keep up
}

// flowSeed gives every flow of one setting its own seed; those of routes are counted by themselves.
func flowSeed(seed, flow uint64, routed bool) uint64 {
	if routed {
		flow += 1 << 32
	}
	return link.Flow(seed, flow)
}
