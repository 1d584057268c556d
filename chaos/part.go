package chaos

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/dnsrelay"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/relay"
)

// The kinds of part.
const (
	PartRegion     = "region"
	PartEncoder    = "encoder"
	PartPackager   = "packager"
	PartOrigin     = "origin"
	PartEdge       = "edge"
	PartPlayback   = "playback"
	PartKafka      = "kafka"
	PartClickHouse = "clickhouse"
	PartService    = "service" // something of one's own that listens at an address
)

// Part is something that can be broken: a region, a component of one, the event path, or what a scenario declares as its
// own. A run hands in every part that belongs to it; nothing else can be broken. What a part does not offer is nil: a fault
// that needs it says so.
type Part struct {
	Name   string // as `where:` names it: "us-east", "us-east/edge-1", "clickhouse", "nginx"
	Kind   string
	Region string // that it is in; "": none

	Prefix netip.Prefix     // addresses that nobody else uses; not valid: it has none to itself
	Addrs  []netip.AddrPort // where others reach it over TCP
	UDP    []netip.AddrPort // where it takes datagrams
	URL    string           // base URL of what it serves, without a trailing slash; "": not HTTP
	Look   string           // path of URL that answers 200 when it is well, in a moment: "/healthz"

	Processes func() ([]procfs.Process, error)        // those of it that live now
	Network   *netns.Network                          // that its region lives in
	HTTP      *httprelay.Relay                        // in front of it
	TCP       *relay.TCP                              // in front of it
	DNS       *dnsrelay.Relay                         // in front of it, when it is a resolver
	Datagrams *relay.UDP                              // in front of it
	Orders    *Orders                                 // where its own misbehaviour is ordered
	Pass      func(until time.Time) string            // the beginning of paths that it lets pass; nil: none is needed
	Layout    media.Layout                            // of the segments that it serves
	Asks      func(endpoint string, at time.Time) Ask // what a viewer asks of it, when it is a playback service
	Event     string                                  // that it serves, the first element of its paths
	Rungs     []string                                // names of the renditions that it serves, the first one video
}

// Ask is a request to a part.
type Ask struct {
	Method, Path string
	Body         []byte
}

// Orders is where a component of the reference pipeline takes orders to misbehave.
type Orders struct {
	URL string // base URL of its region's playback service
	Key []byte // of the run
}

// Terms are on which a part can be broken: what it is, and what this user may have on this machine.
type Terms struct {
	Kind      string // of part
	Datagrams bool   // it takes datagrams, and no connections
	Kernel    bool   // there may be kernel programs
	Network   bool   // and a network of the run's own
}

// Here are this machine's terms.
func Here(kind string, datagrams bool) Terms {
	return Terms{Kind: kind, Datagrams: datagrams, Kernel: kernelAble() == nil, Network: netnsAble() == nil}
}

// Anywhere are the best terms there can be: what a fault lacks on these it lacks on every machine.
func Anywhere(kind string, datagrams bool) Terms {
	return Terms{Kind: kind, Datagrams: datagrams, Kernel: true, Network: true}
}

// Front says what must stand in front of a part before anything runs.
type Front string

// Fronts.
const (
	FrontNothing Front = ""
	FrontHTTP    Front = "http"    // an HTTP relay
	FrontTCP     Front = "tcp"     // a TCP relay
	FrontUDP     Front = "udp"     // a UDP relay
	FrontDNS     Front = "dns"     // a DNS relay
	FrontNetwork Front = "network" // a network of the run's own, with the part's region in it
)

// Front says what must stand in front of a part before anything runs, for this fault.
func (f Fault) Front(t Terms) Front {
	if _, m, err := lookup(f); err == nil && m.front != nil {
		return m.front(f, t)
	}
	return FrontNothing
}

// FrontsOf says what must stand in front of a part for all the faults that are about it, each thing once.
func FrontsOf(name string, t Terms, faults []Fault) (fronts []Front) {
	for _, f := range faults {
		if front := f.Front(t); f.Where == name && front != FrontNothing && !slices.Contains(fronts, front) {
			fronts = append(fronts, front)
		}
	}
	return fronts
}

// Inside reports whether one place is another, or a part of it: "us-east/edge-1" is inside "us-east".
func Inside(place, whole string) bool {
	return place == whole || strings.HasPrefix(place, whole+"/")
}

// part finds the part a fault is about, with an error that names those there are.
func part(f Fault, cfg *Config) (Part, error) {
	var names []string
	for _, p := range cfg.Parts {
		if p.Name == f.Where {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Part{}, fmt.Errorf("fault %s: %w place %q (there is %s)", f.ID, ErrUnknown, f.Where, strings.Join(names, ", "))
}
