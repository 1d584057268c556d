package pipeline

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tminus-live/tminus/reference/defect"
	"github.com/tminus-live/tminus/reference/defect/orders"
	"github.com/tminus-live/tminus/reference/edge"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/origin"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/packager"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/playback/front"
	"github.com/tminus-live/tminus/reference/playback/steering"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Stream is the run's segment template, with the ladder's renditions and the edges of every region.
func (c Config) Stream() (manifest.Stream, error) {
	ladder, err := encoder.Load(c.Ladder)
	if err != nil {
		return manifest.Stream{}, err
	}
	return c.stream(ladder), nil
}

func (c Config) stream(ladder *encoder.Ladder) manifest.Stream {
	dvr := c.DVR
	if dvr == 0 {
		dvr = DefaultDVR
	}
	return manifest.Stream{
		Event: c.Event, Timeline: c.Timeline(), First: c.First, Last: c.Last, DVR: dvr,
		Renditions: ladder.Renditions(), Edges: c.Edges(),
	}
}

// Region is one region's pipeline, its listeners bound.
type Region struct {
	cfg      Config
	stream   manifest.Stream
	log      *slog.Logger
	parts    []part // in the order of their start: each needs those before it
	bound    []net.Listener
	packager *packager.Packager
	tokens   *token.Ring // nil: none are needed
	ready    chan struct{}
}

// part is one long-running piece of a region. run returns when ctx ends; nil before that means that its work is done.
type part struct {
	kind string // "edge server"; neighbours of one kind do not need each other, and stop together
	name string
	run  func(ctx context.Context) error
}

// Listen checks cfg and binds every listener of the region, so that a taken address is an error before anything runs:
// one sentence that names the component and the address. Run or Close releases them.
func Listen(cfg Config, sink event.Sink, log *slog.Logger) (_ *Region, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pipeline configuration: %w", err)
	}
	if sink == nil {
		sink = event.Discard
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ladder, err := encoder.Load(cfg.Ladder)
	if err != nil {
		return nil, fmt.Errorf("ladder %q: %w", cfg.Ladder, err)
	}
	here := cfg.Here()
	r := &Region{cfg: cfg, stream: cfg.stream(ladder), log: log.With("region", here.Name), ready: make(chan struct{})}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()

	if r.tokens, err = cfg.ring(); err != nil {
		return nil, err
	}
	policy := availability.DefaultPolicy
	policy.Pipelines = len(cfg.Regions)
	policy.Seed = cfg.Seed
	now := time.Now // the wall clock of the whole region
	defects := here.defects()

	at := defects.Part(here.Place(defect.Origin))
	org, err := origin.New(origin.Config{Stream: r.stream, Region: here.Name, Policy: policy, Now: now, Wall: at.Clock, Store: store(at), Sink: sink, Log: r.log})
	if err != nil {
		return nil, err
	}
	r.add("origin", here.Name, org.Run)
	if err := r.serve("origin", here.Name, here.listen("origin"), dated(at, timed(at, org.Handler())), originLimits); err != nil {
		return nil, err
	}

	at = defects.Part(here.Place(defect.Packager))
	if r.packager, err = packager.New(packager.Config{
		Event: cfg.Event, Pipeline: here.Name, Timeline: cfg.Timeline(), Ladder: ladder, Last: cfg.Last,
		Addr:    here.listen("packager").String(),
		Origins: packagerOrigins(cfg), Dial: dialFrom(here.PackagerAddr().Addr()), Keep: r.stream.DVR,
		Refuse: refuse(at), Now: clock(at), Sink: sink, Log: r.log,
	}); err != nil {
		return nil, bindError("packager "+here.Name, here.listen("packager").String(), err)
	}
	r.add("packager", here.Name, r.packager.Run)
	at = defects.Part(here.Place(defect.Encoder))
	encoding := encoder.Config{
		Ladder: ladder, Timeline: cfg.Timeline(), First: cfg.First, Last: cfg.Last, LeadIn: cfg.LeadIn, Now: clock(at), Publish: publish(at, cfg.Timeline(), ladder, r.packager.Publish), Log: r.log,
	}
	enc, err := encoder.New(encoding)
	if err != nil {
		return nil, err
	}
	encoding.LeadIn = 0
	again, err := encoder.New(encoding)
	if err != nil {
		return nil, err
	}
	r.add("encoder", here.Name, encode(at, enc, again))

	nodes := make([]http.Handler, 0, here.Edges)
	var gate *token.Gate // the edges of a region have one memory
	if r.tokens != nil {
		gate = token.NewGate(r.tokens)
	}
	for k := 1; k <= here.Edges; k++ {
		id, at := here.EdgeID(k), defects.Part(here.EdgePlace(k))
		node, err := edge.New(edge.Config{
			ID: id, Region: here.Name, Stream: r.stream, Policy: policy, Origins: fillOrder(cfg), Version: cfg.Run, Tokens: gate,
			Seed: cfg.Seed ^ steering.Hash(id), LocalAddr: here.EdgeAddr(k).Addr(), Now: now, Wall: at.Clock, Wiped: at.Wiped, Sink: sink, Log: r.log,
		})
		if err != nil {
			return nil, err
		}
		r.add("edge", id, node.Run)
		nodes = append(nodes, dated(at, hands(at, node.Handler())))
	}
	for i, h := range nodes {
		if err := r.serve("edge", here.EdgeID(i+1), here.listen("edge-"+strconv.Itoa(i+1)), h, edgeLimits); err != nil {
			return nil, err
		}
	}

	levers, err := cfg.Playback.levers()
	if err != nil {
		return nil, err
	}
	guided := cfg.Playback.GuidedBackoff
	at = defects.Part(here.Place(defect.Playback))
	service, err := playback.New(playback.Config{
		Stream: r.stream, Region: here.Name, URL: here.PlaybackURL(), Key: cfg.Key, Peers: peers(cfg),
		MaxConcurrent: cfg.Playback.MaxConcurrent, Capacity: cfg.Playback.Capacity,
		Levers: levers, Unguided: guided != nil && !*guided, Tokens: r.tokens, TokenLife: cfg.Playback.TokenLife,
		ProbeInterval: cfg.Playback.ProbeInterval, ProbeTimeout: cfg.Playback.ProbeTimeout, LocalAddr: here.PlaybackAddr().Addr(),
		Seed: cfg.Seed ^ steering.Hash("playback "+here.Name), Now: now, Wall: at.Clock, Sink: sink, Log: r.log,
	})
	if err != nil {
		return nil, err
	}
	r.add("playback", here.Name, service.Run)
	desk := orders.Handler(orders.Config{Set: defects, Key: cfg.Key, Now: now, Log: r.log})
	serving := front.Config{
		Play: play(at, service), Observe: service.Observe, Rest: service.Handler(), Before: before(at, desk), MaxBody: playback.MaxRequest,
		MaxConns: playbackLimits.conns, MaxHead: headerBytes, HeadTime: headerTime, ReadTime: playbackLimits.read, SendTime: playbackLimits.write, IdleTime: playbackLimits.idle,
		Now: now,
	}
	if err := r.front("playback "+here.Name, here.listen("playback"), serving, nil); err != nil {
		return nil, err
	}
	if len(cfg.Playback.Cert) > 0 {
		pair, err := tls.X509KeyPair(cfg.Playback.Cert, cfg.Playback.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("playback %s: its certificate: %w", here.Name, err)
		}
		if err := r.front("playback "+here.Name+" (TLS)", here.PlaybackTLSAddr(), serving, &tls.Config{Certificates: []tls.Certificate{pair}}); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// peers are the other regions' playback services.
func peers(cfg Config) []playback.Peer {
	var ps []playback.Peer
	for i, r := range cfg.Regions {
		if i != cfg.Region {
			ps = append(ps, playback.Peer{Region: r.Name, URL: r.PlaybackURL()})
		}
	}
	return ps
}

func (r *Region) add(kind, id string, run func(context.Context) error) {
	r.parts = append(r.parts, part{kind, kind + " " + id, run})
}

func (r *Region) serve(kind, id string, addr netip.AddrPort, h http.Handler, l limits) error {
	what := kind + " " + id
	s, err := bind(what, addr, h, l, r.log)
	if err != nil {
		return err
	}
	r.bound = append(r.bound, s.ln)
	r.parts = append(r.parts, part{kind + " server", what + " server", s.run})
	return nil
}

// front serves a playback service: play starts on an event loop, the rest by net/http. secure: nil is plain HTTP.
func (r *Region) front(what string, addr netip.AddrPort, serving front.Config, secure *tls.Config) error {
	serving.Log = r.log.With("component", what)
	f, err := front.New(serving)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return bindError(what, addr.String(), err)
	}
	r.bound = append(r.bound, ln)
	r.parts = append(r.parts, part{"playback server", what + " server", func(ctx context.Context) error {
		serve := f.Serve
		if secure != nil {
			serve = func(ctx context.Context, ln net.Listener) error { return f.ServeTLS(ctx, ln, secure) }
		}
		if err := serve(ctx, ln); err != nil {
			return fmt.Errorf("%s stopped serving: %w", what, err)
		}
		return nil
	}})
	return nil
}

// packagerOrigins is every region's origin, in the scenario's order: each packager publishes to all of them.
func packagerOrigins(cfg Config) []packager.Origin {
	var os []packager.Origin
	for _, r := range cfg.Regions {
		os = append(os, packager.Origin{Name: r.Name, URL: r.OriginURL()})
	}
	return os
}

// fillOrder is the region's own origin, then the others in a circle from it, so that the regions that lost theirs do not
// all turn to the same one.
func fillOrder(cfg Config) []edge.Origin {
	var os []edge.Origin
	for i := range cfg.Regions {
		r := cfg.Regions[(cfg.Region+i)%len(cfg.Regions)]
		os = append(os, edge.Origin{Name: r.Name, URL: r.OriginURL()})
	}
	return os
}

// dialFrom dials from a local address, so that what cuts that address off cuts these connections too.
func dialFrom(local netip.Addr) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: time.Second, KeepAlive: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	return d.DialContext
}

// ended is a part's end.
type ended struct {
	index int
	err   error
}

// Run runs the region until ctx ends or a part fails, and returns when everything it started has ended: nil after ctx's
// end, else the first failure. It may be called once, and not after Close.
func (r *Region) Run(ctx context.Context) error {
	// Parts outlive ctx until their turn comes: they stop kind by kind, the last started first.
	base := context.WithoutCancel(ctx)
	ends := make(chan ended, len(r.parts))
	done := make([]chan struct{}, len(r.parts))
	cancels := make([]context.CancelFunc, len(r.parts))
	for i, p := range r.parts {
		partCtx, cancel := context.WithCancel(base)
		cancels[i], done[i] = cancel, make(chan struct{})
		go func() {
			defer close(done[i])
			err := p.run(partCtx)
			ends <- ended{i, err}
		}()
		r.log.Debug("started", "component", p.name)
	}
	watch, stopWatching := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(watch) })

	var failure error
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case e := <-ends:
			// An encoder whose event is over is done; the rest of the region goes on serving.
			if e.err != nil {
				failure = fmt.Errorf("%s: %w", r.parts[e.index].name, e.err)
				running = false
			}
		}
	}
	stopWatching()
	watching.Wait()
	for end := len(r.parts); end > 0; {
		begin := end - 1
		for begin > 0 && r.parts[begin-1].kind == r.parts[begin].kind {
			begin--
		}
		for i := begin; i < end; i++ {
			cancels[i]()
		}
		for i := begin; i < end; i++ {
			<-done[i]
			r.log.Debug("stopped", "component", r.parts[i].name)
		}
		end = begin
	}
	// What failed only while it was being stopped is told as well.
	for range len(ends) {
		if e := <-ends; e.err != nil && !errors.Is(e.err, context.Canceled) && failure == nil {
			failure = fmt.Errorf("%s: %w", r.parts[e.index].name, e.err)
		}
	}
	return failure
}

// Ready is closed when the region's origin has a segment and each of its edges serves it.
func (r *Region) Ready() <-chan struct{} { return r.ready }

// Config is the configuration that the region was bound with.
func (r *Region) Config() Config { return r.cfg }

// watch closes ready as soon as a current segment comes from the origin and from every edge.
func (r *Region) watch(ctx context.Context) {
	here := r.cfg.Here()
	client := &http.Client{
		Transport: &http.Transport{DialContext: dialFrom(here.PlaybackAddr().Addr())},
		Timeout:   2 * r.stream.Timeline.Duration,
	}
	defer client.CloseIdleConnections()
	waiting := []string{here.OriginURL()}
	for _, e := range here.EdgeList() {
		waiting = append(waiting, e.URL)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, ok := r.stream.Timeline.LastComplete(time.Now())
		if r.stream.Last != 0 {
			n = min(n, r.stream.Last)
		}
		if ok && n >= r.stream.First {
			path := "/" + r.stream.Event + "/" + r.stream.Renditions[0].ID + "/" + strconv.FormatUint(n, 10) + ".m4s"
			waiting = slices.DeleteFunc(waiting, func(base string) bool {
				if base != here.OriginURL() {
					base += r.pass(time.Now())
				}
				return serves(ctx, client, base+path)
			})
			if len(waiting) == 0 {
				close(r.ready)
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass is the token with which the region looks at its own edges, as the beginning of a path; empty when none is needed.
func (r *Region) pass(now time.Time) string {
	if r.tokens == nil {
		return ""
	}
	return string(r.tokens.Append([]byte(token.Prefix), 0, now.Add(time.Minute)))
}

func serves(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Close releases the listeners of a region that was never run.
func (r *Region) Close() error {
	var errs []error
	for _, s := range r.bound {
		errs = append(errs, s.Close())
	}
	if r.packager != nil {
		errs = append(errs, r.packager.Close())
	}
	return errors.Join(errs...)
}
