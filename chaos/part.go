package chaos

import (
	"fmt"
	"net/netip"
	"strings"
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
// own. A run hands in every part that belongs to it; nothing else can be broken.
type Part struct {
	Name   string // as `where:` names it: "us-east", "us-east/edge-1", "clickhouse", "nginx"
	Kind   string
	Region string // that it is in; "": none

	Prefix netip.Prefix     // addresses that nobody else uses; not valid: it has none to itself
	Addrs  []netip.AddrPort // where others reach it over TCP
	UDP    []netip.AddrPort // where it takes datagrams
	URL    string           // base URL of what it serves, without a trailing slash; "": not HTTP
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
