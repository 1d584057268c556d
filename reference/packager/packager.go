package packager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// maxConns is how many connections the listener has at once; later ones wait in the kernel's backlog. Nobody but a person
// who compares packagers connects to it.
const maxConns = 256

// DefaultKeep is how much media a packager keeps when the configuration does not say.
const DefaultKeep = 60 * time.Second

// Origin is one place to publish to.
type Origin struct {
	Name string // "us-east"
	URL  string // base URL without trailing slash: "http://127.0.1.4:8080"
}

// Config is what a packager needs.
type Config struct {
	Event    string // URL path element
	Pipeline string // region of this packager, "us-east"
	Timeline timeline.Timeline
	Ladder   *encoder.Ladder
	Last     uint64 // the event's last segment, marked with the lmsg brand; 0: open-ended
	Addr     string // own HTTP listener, "127.0.1.3:8080"
	Origins  []Origin
	// Dial opens connections to origins: give a net.Dialer with the region's local address. nil: the default dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Keep is how much media the listener serves, and an origin that comes back is given; 0: DefaultKeep.
	Keep time.Duration
	// Refuse, when set, says that a PUT of a media segment to an origin fails before it is sent.
	Refuse func(origin string, segment uint64) bool
	Now    func() time.Time // the wall clock, for measures and deadlines; no byte of a segment depends on it
	Sink   event.Sink       // nil: event.Discard
	Log    *slog.Logger     // nil: silent
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Event == "" || strings.Contains(c.Event, "/") {
		bad("event %q is no URL path element", c.Event)
	}
	if c.Pipeline == "" {
		bad("no pipeline name")
	}
	if c.Timeline.Duration <= 0 {
		bad("segment duration %v is not positive", c.Timeline.Duration)
	}
	if c.Ladder == nil {
		bad("no ladder")
	}
	if c.Now == nil {
		bad("no clock")
	}
	for _, o := range c.Origins {
		if o.Name == "" || o.URL == "" || strings.HasSuffix(o.URL, "/") {
			bad("origin %q has the base URL %q; want a name, and a URL without a trailing slash", o.Name, o.URL)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("packager %s: %w", c.Pipeline, err)
	}
	return nil
}

// Packager packages segments, publishes them to every origin, and serves the newest itself.
type Packager struct {
	cfg        Config
	store      *store
	publishers []*publisher
	listener   net.Listener
	transport  *http.Transport
}

// New checks the configuration, makes the init segments and binds the listener.
func New(cfg Config) (*Packager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("component", "packager/"+cfg.Pipeline)
	p := &Packager{cfg: cfg, store: newStore(uint64(cfg.Keep / cfg.Timeline.Duration))}
	for _, r := range cfg.Ladder.Renditions() {
		codec, _ := cfg.Ladder.Codec(r.ID)
		body, err := Init(r, codec)
		if err != nil {
			return nil, fmt.Errorf("packager %s: %w", cfg.Pipeline, err)
		}
		p.store.add(&object{path: p.path(r.ID, "init.mp4"), body: body, mime: mime(r), rendition: r.ID})
	}
	p.transport = &http.Transport{
		DialContext:         cfg.Dial,
		MaxIdleConnsPerHost: workers,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}
	client := &http.Client{
		Transport:     p.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for _, o := range cfg.Origins {
		p.publishers = append(p.publishers, newPublisher(o, cfg, p.store, client))
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("packager %s: listen on %s: %w", cfg.Pipeline, cfg.Addr, err)
	}
	p.listener = netutil.LimitListener(ln, maxConns)
	return p, nil
}

// Addr is the listener's address.
func (p *Packager) Addr() string { return p.listener.Addr().String() }

// Close releases the listener of a packager that is never run.
func (p *Packager) Close() error { return p.listener.Close() }

// Publish packages a segment, keeps it, and queues it for every origin. It never waits for an origin. A track that cannot be packaged is
// logged and left out: the other tracks, and the other region's copy, are still good.
func (p *Packager) Publish(seg encoder.Segment) {
	objects := make([]*object, 0, len(seg.Tracks))
	for _, t := range seg.Tracks {
		defects := Defects(p.cfg.Timeline, seg.Number, t)
		body, err := Media(t, seg.Number, p.cfg.Last != 0 && seg.Number == p.cfg.Last)
		if err != nil {
			p.cfg.Log.Error("segment not packaged", "segment", seg.Number, "rendition", t.Rendition.ID, "err", err)
			continue
		}
		o := &object{
			path: p.path(t.Rendition.ID, strconv.FormatUint(seg.Number, 10)+".m4s"),
			body: body, mime: mime(t.Rendition), rendition: t.Rendition.ID,
			number: seg.Number, media: true, defects: strings.Join(defects, ","),
		}
		p.store.add(o)
		objects = append(objects, o)
	}
	for _, pub := range p.publishers {
		pub.enqueue(objects)
	}
}

// Run serves the listener and publishes until ctx ends, or until the listener fails.
func (p *Packager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           http.HandlerFunc(p.serveHTTP),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	for _, pub := range p.publishers {
		wg.Go(func() { pub.run(ctx) })
	}
	failed := make(chan error, 1)
	wg.Go(func() { failed <- server.Serve(p.listener) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("packager %s: serve on %s: %w", p.cfg.Pipeline, p.Addr(), err)
	}
	cancel()
	server.Close()
	wg.Wait()
	p.transport.CloseIdleConnections()
	return err
}

// serveHTTP serves the kept segments at the paths an origin has them, so that the outputs of two packagers can be compared.
func (p *Packager) serveHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cache-Control", "no-store")
	now := p.cfg.Now().UTC()
	h.Set("Date", now.Format(http.TimeFormat))
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the packager only serves what it made", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/time" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, now.Format("2006-01-02T15:04:05.000Z"))
		return
	}
	o := p.store.get(r.URL.Path)
	if o == nil {
		http.Error(w, "no such segment, or no longer kept", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", o.mime)
	h.Set("Content-Length", strconv.Itoa(len(o.body)))
	h.Set(origin.HeaderPipeline, p.cfg.Pipeline)
	h.Set(origin.HeaderDefects, o.defects)
	if r.Method == http.MethodGet {
		_, _ = w.Write(o.body)
	}
}

func (p *Packager) path(rendition, file string) string {
	return "/" + p.cfg.Event + "/" + rendition + "/" + file
}

func mime(r manifest.Rendition) string { return r.Kind + "/mp4" }
