package packager

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Headers of a PUT.
const (
	HeaderPipeline = "Tminus-Pipeline" // which encoder and packager made the segment: "us-east"
	HeaderDefects  = "Tminus-Defects"  // comma list of defects, empty when the segment is good
)

// Origin is one place to publish to.
type Origin struct {
	Name string // "us-east"
	URL  string // base URL without trailing slash: "http://127.0.1.4:8080"
}

// Config is what a packager needs.
type Config struct {
	Event    string
	Pipeline string // region of this packager, "us-east"
	Timeline timeline.Timeline
	Ladder   *encoder.Ladder
	Last     uint64 // the event's last segment, marked with the lmsg brand; 0: open-ended
	Addr     string // own HTTP listener, "127.0.1.3:8080"
	Origins  []Origin
	// Dial opens connections to origins; give a net.Dialer with the region's local address. nil: the default dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Keep time.Duration // how much the listener and a returning origin can have; 0: 60 s
	Now  func() time.Time
	Sink event.Sink
	Log  *slog.Logger
}

// Packager publishes segments.
type Packager struct{ cfg Config }

// New checks the configuration, makes the init segments and binds the listener.
func New(cfg Config) (*Packager, error) { return nil, errors.New("not built yet") }

// Publish packages a segment and queues it for every origin. It never blocks on an origin.
func (p *Packager) Publish(seg encoder.Segment) {}

// Addr is the listener's address.
func (p *Packager) Addr() string { return "" }

// Run serves the listener and publishes until ctx ends.
func (p *Packager) Run(ctx context.Context) error { return nil }
