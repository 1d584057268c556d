package pipeline

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/reference/timeline"
)

// Limits of a topology that the loopback addressing gives.
const (
	MaxRegions        = 99
	MaxEdgesPerRegion = 200

	DefaultPort = 8080
	DefaultDVR  = 2 * time.Minute
)

// Config is the shape of one run's pipeline. Every region's process has the same Config but for Region.
type Config struct {
	Run  string `json:"run"`
	Seed uint64 `json:"seed"`

	Event  string        `json:"event"`   // the stream's name, a URL path element: "first-light"
	Ladder string        `json:"ladder"`  // a ladder of reference/encoder: "sports"
	First  uint64        `json:"first"`   // number of the event's first segment
	Last   uint64        `json:"last"`    // number of the event's last segment; 0: open-ended
	LeadIn uint64        `json:"lead_in"` // segments before the moment that the encoder begins with, none before First
	DVR    time.Duration `json:"dvr"`     // time-shift buffer; 0: DefaultDVR

	Region  int            `json:"region"` // index in Regions of the region that this process runs
	Regions []RegionConfig `json:"regions"`

	// Key signs session ids: every region's playback service must have the same one. At least 16 bytes.
	Key []byte `json:"key"`

	Playback PlaybackConfig `json:"playback"`
}

// PlaybackConfig bounds and paces a region's playback service. Zero fields take the defaults of reference/playback.
type PlaybackConfig struct {
	Capacity      float64       `json:"capacity"`       // of each region, play starts a second; what is beyond is shed by priority; 0: no such bound
	MaxConcurrent int           `json:"max_concurrent"` // play starts in hand at once that are full overload
	ProbeInterval time.Duration `json:"probe_interval"` // health probes of every edge, and looks at the other regions' load
	ProbeTimeout  time.Duration `json:"probe_timeout"`

	// GuidedBackoff false leaves retry policies out of answers; nil is true.
	GuidedBackoff *bool `json:"guided_backoff,omitempty"`
	// Levers says when load moves which lever of reference/playback/admission, by name; the others keep their defaults.
	Levers map[string]LeverConfig `json:"levers,omitempty"`
	// Tokens signs the media URLs of sessions' manifests, and makes edges refuse whatever comes without a good token, but for
	// /healthz and /time. Without it the edges' own manifests can be played by anybody.
	Tokens    bool          `json:"tokens"`
	TokenLife time.Duration `json:"token_life"` // from the play start; 0: as long as a session lives

	// Cert and PrivateKey, both PEM, make each service answer with TLS 1.3 as well, on an address of its own; without them
	// it does not.
	Cert       []byte `json:"cert,omitempty"`
	PrivateKey []byte `json:"private_key,omitempty"`
}

// LeverConfig is when load moves a lever: in shares of the capacity.
type LeverConfig struct {
	Engage  float64       `json:"engage"`
	Release float64       `json:"release"`
	Hold    time.Duration `json:"hold"` // how long it stays engaged at least; 0: the default
}

// levers are p's bounds as admission wants them.
func (p PlaybackConfig) levers() (bounds [admission.Levers]admission.Bound, err error) {
	for name, l := range p.Levers {
		lever, err := admission.ParseLever(name)
		if err != nil {
			return bounds, err
		}
		bounds[lever] = admission.Bound{Engage: l.Engage, Release: l.Release, Hold: l.Hold}
	}
	return bounds, nil
}

// ring is what media tokens are signed and checked with; nil when they are off.
func (c Config) ring() (*token.Ring, error) {
	if !c.Playback.Tokens {
		return nil, nil
	}
	return token.NewRing(c.Event, token.Key{ID: 1, Secret: c.Key})
}

// RegionConfig is one region: its name, its number and what runs in it. The number decides its addresses.
type RegionConfig struct {
	Name   string `json:"name"`   // "us-east"
	Number int    `json:"number"` // 1, 2, 3 … in the scenario's order
	Edges  int    `json:"edges"`
	Port   int    `json:"port"` // of every HTTP server in the region

	// Block is the region's /24 where it is not on the loopback: in a network namespace of its own. Zero: 127.0.Number.0/24.
	Block netip.Prefix `json:"block,omitzero"`
	// Behind names the components that something else stands in front of, and listens where they are reached: "origin",
	// "packager", "playback", "edge-1". They listen at their Shadow.
	Behind []string `json:"behind,omitempty"`
}

// Regions numbers regions from 1 in the order given; edges says how many edges each has.
func Regions(port int, names []string, edges map[string]int) []RegionConfig {
	rs := make([]RegionConfig, len(names))
	for i, name := range names {
		rs[i] = RegionConfig{Name: name, Number: i + 1, Edges: edges[name], Port: port}
	}
	return rs
}

// The last octets of a region's components.
const (
	packagerHost = 3
	originHost   = 4
	playbackHost = 5
	playTLSHost  = 6
	edgeHost     = 10 // edge k, counted from 1, is edgeHost+k
)

// Prefix holds every address that the region is reached at, and nothing else.
func (r RegionConfig) Prefix() netip.Prefix {
	if r.Block.IsValid() {
		return r.Block.Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, byte(r.Number), 0}), 24)
}

func (r RegionConfig) host(n int) netip.Addr {
	a := r.Prefix().Addr().As4()
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

// Shadow is where a component listens whose own address, addr, something else has taken to stand in front of it: on the
// loopback the same host of 127.1.Number.0/24, in a namespace the next port.
func (r RegionConfig) Shadow(addr netip.AddrPort) netip.AddrPort {
	if r.Block.IsValid() {
		return netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
	}
	a := addr.Addr().As4()
	a[1] = 1
	return netip.AddrPortFrom(netip.AddrFrom4(a), addr.Port())
}

// Component is where a component of the region is reached: "origin", "packager", "playback", "edge-1"; false: there is none.
func (r RegionConfig) Component(name string) (netip.AddrPort, bool) {
	switch name {
	case "origin":
		return r.OriginAddr(), true
	case "packager":
		return r.PackagerAddr(), true
	case "playback":
		return r.PlaybackAddr(), true
	}
	k, err := strconv.Atoi(strings.TrimPrefix(name, "edge-"))
	if err != nil || k < 1 || k > r.Edges || name != "edge-"+strconv.Itoa(k) {
		return netip.AddrPort{}, false
	}
	return r.EdgeAddr(k), true
}

// listen is where a component listens.
func (r RegionConfig) listen(name string) netip.AddrPort {
	addr, _ := r.Component(name)
	if slices.Contains(r.Behind, name) {
		return r.Shadow(addr)
	}
	return addr
}

func (r RegionConfig) url(n int) string {
	return "http://" + net.JoinHostPort(r.host(n).String(), strconv.Itoa(r.Port))
}

// PackagerAddr is where the packager listens, with the region's port.
func (r RegionConfig) PackagerAddr() netip.AddrPort {
	return netip.AddrPortFrom(r.host(packagerHost), uint16(r.Port))
}

// PackagerURL is the packager's base URL, without a trailing slash. It serves what it made lately.
func (r RegionConfig) PackagerURL() string { return r.url(packagerHost) }

// OriginAddr is where the origin listens.
func (r RegionConfig) OriginAddr() netip.AddrPort {
	return netip.AddrPortFrom(r.host(originHost), uint16(r.Port))
}

// OriginURL is the origin's base URL, without a trailing slash.
func (r RegionConfig) OriginURL() string { return r.url(originHost) }

// PlaybackAddr is where the playback service listens.
func (r RegionConfig) PlaybackAddr() netip.AddrPort {
	return netip.AddrPortFrom(r.host(playbackHost), uint16(r.Port))
}

// PlaybackTLSAddr is where the playback service listens for TLS, if it does.
func (r RegionConfig) PlaybackTLSAddr() netip.AddrPort {
	return netip.AddrPortFrom(r.host(playTLSHost), uint16(r.Port))
}

// PlaybackURL is the playback service's base URL, without a trailing slash.
func (r RegionConfig) PlaybackURL() string { return r.url(playbackHost) }

// EdgeAddr is where edge k, counted from 1, listens.
func (r RegionConfig) EdgeAddr(k int) netip.AddrPort {
	return netip.AddrPortFrom(r.host(edgeHost+k), uint16(r.Port))
}

// EdgeURL is the base URL of edge k, counted from 1, without a trailing slash.
func (r RegionConfig) EdgeURL(k int) string { return r.url(edgeHost + k) }

// EdgeID names edge k, counted from 1: "us-east-1". It is the HLS PATHWAY-ID and the DASH serviceLocation.
func (r RegionConfig) EdgeID(k int) string { return r.Name + "-" + strconv.Itoa(k) }

// EdgeList is the region's edges in order.
func (r RegionConfig) EdgeList() []manifest.Edge {
	es := make([]manifest.Edge, r.Edges)
	for i := range es {
		es[i] = manifest.Edge{ID: r.EdgeID(i + 1), Region: r.Name, URL: r.EdgeURL(i + 1)}
	}
	return es
}

// Here is the region that this process runs.
func (c Config) Here() RegionConfig { return c.Regions[c.Region] }

// Edges is every edge of every region, in the scenario's order.
func (c Config) Edges() []manifest.Edge {
	var es []manifest.Edge
	for _, r := range c.Regions {
		es = append(es, r.EdgeList()...)
	}
	return es
}

// Timeline is the run's segment timeline.
func (c Config) Timeline() timeline.Timeline { return timeline.Default }

// pathElement is what names an event, a region or a rendition: it goes into URL paths, host-like ids and HLS attributes.
var pathElement = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// Validate reports everything that is wrong with c at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Run == "" {
		bad("run: empty")
	}
	if !pathElement.MatchString(c.Event) {
		bad("event: %q is not a URL path element of a-z, 0-9, dot, dash and underscore", c.Event)
	}
	if c.Last != 0 && c.Last < c.First {
		bad("last: segment %d is before the first, %d", c.Last, c.First)
	}
	if c.DVR < 0 || c.DVR > 24*time.Hour {
		bad("dvr: %v is outside 0 to 24h", c.DVR)
	}
	if len(c.Key) < 16 {
		bad("key: %d bytes are too few, at least 16 are needed", len(c.Key))
	}
	if len(c.Regions) == 0 || len(c.Regions) > MaxRegions {
		bad("regions: %d of them; 1 to %d are possible", len(c.Regions), MaxRegions)
	}
	if c.Region < 0 || c.Region >= len(c.Regions) {
		bad("region: index %d is outside the %d regions", c.Region, len(c.Regions))
	}
	names, numbers := map[string]bool{}, map[int]bool{}
	for i, r := range c.Regions {
		if !pathElement.MatchString(r.Name) {
			bad("regions[%d].name: %q is not a name of a-z, 0-9, dot, dash and underscore", i, r.Name)
		}
		if names[r.Name] {
			bad("regions[%d].name: %q is there twice", i, r.Name)
		}
		if r.Number < 1 || r.Number > MaxRegions || numbers[r.Number] {
			bad("regions[%d].number: %d is not a number of its own from 1 to %d", i, r.Number, MaxRegions)
		}
		if r.Edges < 1 || r.Edges > MaxEdgesPerRegion {
			bad("regions[%d].edges: %d of them; 1 to %d are possible", i, r.Edges, MaxEdgesPerRegion)
		}
		if r.Block.IsValid() && (!r.Block.Addr().Is4() || r.Block.Bits() != 24) {
			bad("regions[%d].block: %s is no IPv4 /24", i, r.Block)
		}
		for _, name := range r.Behind {
			if _, ok := r.Component(name); !ok {
				bad("regions[%d].behind: %q is no component of it", i, name)
			}
		}
		if r.Port < 1 || r.Port > 65535 {
			bad("regions[%d].port: %d is no TCP port", i, r.Port)
		}
		names[r.Name], numbers[r.Number] = true, true
	}
	p := c.Playback
	if p.MaxConcurrent < 0 || p.ProbeInterval < 0 || p.ProbeTimeout < 0 || p.TokenLife < 0 {
		bad("playback: bounds and intervals must not be negative")
	}
	bounds, err := p.levers()
	if err != nil {
		bad("playback.levers: %w", err)
	}
	if err := (admission.Config{Regions: []string{"here"}, Capacity: p.Capacity, Bounds: bounds}).Validate(); err != nil {
		bad("playback: %w", err)
	}
	return errors.Join(errs...)
}
