package playback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/reference/playback/steering"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/reference/spread"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Defaults of Config.
const (
	DefaultMaxConcurrent = 4096
	DefaultSteeringTTL   = 10 * time.Second
	DefaultProbeInterval = 500 * time.Millisecond
	DefaultProbeTimeout  = 400 * time.Millisecond
)

// Peer is another region's playback service.
type Peer struct {
	Region string
	URL    string // base URL, without a trailing slash
}

// Config is what a playback service needs. Stream, Region, URL, Key and Now are required.
type Config struct {
	Stream manifest.Stream // with the edges of every region
	Region string
	URL    string // the service's own base URL, without a trailing slash: "http://127.0.1.5:8080"
	Key    []byte // of session ids, the same in every region

	MaxConcurrent int     // requests of Handler at once; play starts beyond are shed; also what full concurrency is to admission
	Capacity      float64 // play starts a second; what is beyond is shed by priority; 0: no such bound
	Unguided      bool    // answers carry no retry policy
	Levers        [admission.Levers]admission.Bound
	SteeringTTL   time.Duration

	Peers []Peer // the other regions' services: they tell each other their load, and one that is full sends starts to the others
	// Tokens, when not nil, signs the media URLs in sessions' manifests. They are good for TokenLife (SessionLife) from the
	// play start: as long as a player that reads its manifest once may play.
	Tokens    *token.Ring
	TokenLife time.Duration

	Probing       steering.Probing
	ProbeInterval time.Duration
	ProbeTimeout  time.Duration
	LocalAddr     netip.Addr // probes are dialled from here; zero: any
	// Probe looks at one edge; nil: GET /healthz over a new connection.
	Probe func(ctx context.Context, edge manifest.Edge) error
	// Ask gets a peer's report; nil: GET /v1/load.
	Ask func(ctx context.Context, peer Peer) (admission.Report, error)

	Seed uint64 // of jitter
	Now  func() time.Time
	// Wall is the time of day when the clock shows now: sessions follow it; nil: now is.
	Wall func(now time.Time) time.Time
	Sink event.Sink   // nil: event.Discard
	Log  *slog.Logger // nil: silent
}

// Service is the logic of one region's playback service. Its methods are safe for concurrent use.
type Service struct {
	cfg      Config
	sessions *Sessions
	steer    *steering.Map
	region   int      // own, in steer
	quoted   []string // edge IDs as JSON strings
	urls     []string // of the services, by region of steer; empty where there is none
	lower    manifest.Stream
	health   atomic.Pointer[[]steering.Health]
	nonce    atomic.Uint32
	inFlight atomic.Int64
	peak     atomic.Int64 // of inFlight and of batches since the last PlaybackStats
	queue    atomic.Int64 // longest since then, nanoseconds
	stats    stats

	mu      sync.Mutex // guards control and told
	control *admission.Control
	told    [admission.Kinds]admission.Totals // as of the last PlaybackStats
}

// stats are counters since the last PlaybackStats event.
type stats struct {
	requests, started, shed, bad, unknown, manifests, steering, licences, badSession atomic.Int64
}

// New checks cfg.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Now == nil:
		return nil, errors.New("playback: no clock given")
	case len(cfg.Key) < 16:
		return nil, fmt.Errorf("playback %s: a key of %d bytes is too short to sign sessions with", cfg.Region, len(cfg.Key))
	case len(cfg.Stream.Edges) == 0:
		return nil, fmt.Errorf("playback %s: there is no edge to steer to", cfg.Region)
	}
	if err := cfg.Stream.Validate(); err != nil {
		return nil, fmt.Errorf("playback %s: %w", cfg.Region, err)
	}
	if cfg.MaxConcurrent <= 0 {
		cfg.MaxConcurrent = DefaultMaxConcurrent
	}
	if cfg.Wall == nil {
		cfg.Wall = func(now time.Time) time.Time { return now }
	}
	if cfg.TokenLife <= 0 {
		cfg.TokenLife = SessionLife
	}
	if cfg.SteeringTTL <= 0 {
		cfg.SteeringTTL = DefaultSteeringTTL
	}
	if cfg.Probing == (steering.Probing{}) {
		cfg.Probing = steering.DefaultProbing
	}
	if cfg.ProbeInterval <= 0 {
		cfg.ProbeInterval = DefaultProbeInterval
	}
	if cfg.ProbeTimeout <= 0 {
		cfg.ProbeTimeout = DefaultProbeTimeout
	}
	if cfg.Probe == nil {
		cfg.Probe = httpProbe(cfg.LocalAddr)
	}
	if cfg.Ask == nil {
		cfg.Ask = httpAsk(cfg.LocalAddr)
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, sessions: NewSessions(cfg.Key, cfg.Stream.Event)}
	edges := make([]steering.Edge, len(cfg.Stream.Edges))
	for i, e := range cfg.Stream.Edges {
		edges[i] = steering.Edge{ID: e.ID, Region: e.Region}
		s.quoted = append(s.quoted, strconv.Quote(e.ID))
	}
	s.steer = steering.NewMap(edges)
	s.region = s.steer.Region(cfg.Region)
	if s.region < 0 || len(s.steer.Regions()) >= NoRegion {
		return nil, fmt.Errorf("playback %s: %d regions have edges, and this one must be among them", cfg.Region, len(s.steer.Regions()))
	}
	health := make([]steering.Health, len(edges))
	s.health.Store(&health)
	// Sessions of a service that was restarted within a second must not repeat.
	s.nonce.Store(uint32(spread.Mix(cfg.Seed ^ uint64(cfg.Now().UnixNano()))))
	s.lower = withoutTopRung(cfg.Stream)
	s.urls = make([]string, len(s.steer.Regions()))
	s.urls[s.region] = cfg.URL
	for _, p := range cfg.Peers {
		i := s.steer.Region(p.Region)
		if i < 0 || i == s.region {
			return nil, fmt.Errorf("playback %s: a peer in region %q, which has no edges or is this one", cfg.Region, p.Region)
		}
		s.urls[i] = p.URL
	}
	var err error
	if s.control, err = admission.New(admission.Config{
		Regions: s.steer.Regions(), Self: s.region, Capacity: cfg.Capacity, MaxInFlight: cfg.MaxConcurrent, Bounds: cfg.Levers, Unguided: cfg.Unguided, Seed: cfg.Seed,
	}); err != nil {
		return nil, fmt.Errorf("playback %s: %w", cfg.Region, err)
	}
	return s, nil
}

// withoutTopRung is the stream without its tallest rung, or as it is when it has one rung only.
func withoutTopRung(s manifest.Stream) manifest.Stream {
	top, rungs := -1, 0
	for i, r := range s.Renditions {
		if r.Kind != manifest.Video {
			continue
		}
		if rungs++; top < 0 || r.Bandwidth > s.Renditions[top].Bandwidth {
			top = i
		}
	}
	if rungs > 1 {
		s.Renditions = slices.Delete(slices.Clone(s.Renditions), top, top+1)
	}
	return s
}

// order appends the indices of edges in steering order for a viewer at now.
func (s *Service) order(dst []int, viewer uint32, home int, now time.Time) []int {
	health := *s.health.Load()
	return s.steer.Order(dst, uint64(viewer), home, func(i int) bool { return s.cfg.Probing.Healthy(health[i], now) })
}

// edgeIDs is order in names.
func (s *Service) edgeIDs(v Session, now time.Time) []string {
	order := s.order(nil, v.Viewer, v.Home, now)
	ids := make([]string, len(order))
	for i, e := range order {
		ids[i] = s.cfg.Stream.Edges[e].ID
	}
	return ids
}

// Play is Answer without what goes into Retry-After.
func (s *Service) Play(dst []byte, now time.Time, body []byte) ([]byte, int) {
	dst, status, _ := s.Answer(dst, now, body)
	return dst, status
}

// Answer answers one play request: it appends a JSON answer to dst and returns it with the HTTP status, and with the seconds
// of Retry-After, 0 for none. 200 has a session; 400 and 404 a sentence; 503 a retry policy. It does not allocate but for requests that
// are refused or have escapes.
func (s *Service) Answer(dst []byte, now time.Time, body []byte) (answer []byte, status, retryAfter int) {
	return s.AnswerAt(dst, now, now, body)
}

// AnswerAt is Answer where wall, when the session begins, is not what the clock shows.
func (s *Service) AnswerAt(dst []byte, now, wall time.Time, body []byte) (answer []byte, status, retryAfter int) {
	s.stats.requests.Add(1)
	r, err := parseRequest(body)
	if err != nil {
		s.stats.bad.Add(1)
		return appendError(dst, err.Error()), 400, 0
	}
	kind, ok := admission.ParseKind(r.kind)
	if !ok {
		s.stats.bad.Add(1)
		return appendError(dst, fmt.Sprintf("a play start's kind is live, catchup, vod or prefetch, not %.40q", r.kind)), 400, 0
	}
	if string(r.title) != s.cfg.Stream.Event {
		s.stats.unknown.Add(1)
		return appendError(dst, fmt.Sprintf("there is no title %.128q here", r.title)), 404, 0
	}
	v := Session{Device: device(r.device), Home: s.region, Issuer: s.region, Issued: wall, Nonce: s.nonce.Add(1)}
	if len(r.region) > 0 {
		// A viewer of a region that is not in the topology lives nowhere in particular.
		if v.Home = s.steer.Region(string(r.region)); v.Home < 0 {
			v.Home = NoRegion
		}
	}
	if len(r.viewer) > 0 {
		v.Viewer = uint32(spread.Mix(steering.Hash(r.viewer)))
	} else {
		v.Viewer = uint32(spread.Mix(uint64(v.Nonce)))
	}

	s.mu.Lock()
	d := s.control.Start(now, admission.Request{Kind: kind, Home: v.Home, Viewer: uint64(v.Viewer)})
	s.mu.Unlock()
	if !d.Admitted {
		return s.appendShed(dst, d)
	}
	url := s.cfg.URL
	if d.Handed {
		url = s.urls[d.Region]
	}
	if d.Handed || v.Home != NoRegion {
		v.Home = d.Region
	}

	var id [sessionChars]byte
	session := s.sessions.Append(id[:0], v)
	dst = append(append(dst, `{"session":"`...), session...)
	dst = append(append(append(append(append(dst, `","manifests":{"dash":"`...), url...), sessionsPath...), session...), "/"+dashName...)
	dst = append(append(append(append(append(dst, `","hls":"`...), url...), sessionsPath...), session...), "/"+hlsName...)
	dst = append(dst, `"},"steering":[`...)
	var few [16]int
	for i, e := range s.order(few[:0], v.Viewer, v.Home, now) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, s.quoted[e]...)
	}
	dst = append(append(append(append(append(dst, `],"licence":"`...), url...), licencesPath...), session...), '"')
	if !d.Pulled.Has(admission.Bookmarks) {
		dst = append(dst, `,"bookmark":{"positionSeconds":`...)
		dst = append(strconv.AppendUint(dst, bookmark(v.Viewer), 10), '}')
	}
	dst = appendRetry(dst, d.Retry)
	s.stats.started.Add(1)
	return append(dst, '}'), 200, 0
}

// bookmark is where a viewer left off, in seconds of the event. There is no store: it follows from who the viewer is.
func bookmark(viewer uint32) uint64 { return spread.Mix(uint64(viewer)^0x626f6f6b) % 7200 }

// Shed appends the answer to a play start that is beyond a bound of the transport's.
func (s *Service) Shed(dst []byte, now time.Time) (answer []byte, status, retryAfter int) {
	s.stats.requests.Add(1)
	s.mu.Lock()
	d := s.control.Turn(now, admission.Live)
	s.mu.Unlock()
	return s.appendShed(dst, d)
}

func (s *Service) appendShed(dst []byte, d admission.Decision) (answer []byte, status, retryAfter int) {
	s.stats.shed.Add(1)
	dst = appendRetry(append(dst, `{"error":"too many play starts at once"`...), d.Retry)
	// For clients that do not read the body: whole seconds (RFC 9110, 10.2.3).
	return append(dst, '}'), 503, int((d.Retry.After + time.Second - 1) / time.Second)
}

// appendRetry appends a retry policy, its while in seconds with three decimals, or nothing when backoff is not guided.
func appendRetry(dst []byte, r admission.Retry) []byte {
	if r == (admission.Retry{}) {
		return dst
	}
	dst = append(dst, `,"retryPolicy":{"maxRetries":`...)
	dst = strconv.AppendInt(dst, int64(r.Max), 10)
	dst = append(dst, `,"retryAfterSeconds":`...)
	ms := r.After.Milliseconds()
	dst = strconv.AppendInt(dst, ms/1000, 10)
	return append(dst, '.', byte('0'+ms/100%10), byte('0'+ms/10%10), byte('0'+ms%10), '}')
}

// Observe takes a transport's measurement: how many play starts it has in hand, and how long the longest of them has
// waited.
func (s *Service) Observe(_ time.Time, inFlight int, queue time.Duration) {
	raise(&s.peak, int64(inFlight))
	raise(&s.queue, int64(queue))
	s.mu.Lock()
	s.control.Observe(admission.Load{InFlight: inFlight, Queue: queue})
	s.mu.Unlock()
}

// raise makes v at least n.
func raise(v *atomic.Int64, n int64) {
	for {
		if old := v.Load(); n <= old || v.CompareAndSwap(old, n) {
			return
		}
	}
}

func (s *Service) pulled() admission.Pulled {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.Pulled()
}

// DASH renders the session's MPD.
func (s *Service) DASH(now time.Time, session string) ([]byte, error) {
	stream, opt, err := s.personal(now, session)
	if err != nil {
		return nil, err
	}
	return manifest.DASH(stream, opt)
}

// HLS renders the session's multivariant playlist.
func (s *Service) HLS(now time.Time, session string) ([]byte, error) {
	stream, opt, err := s.personal(now, session)
	if err != nil {
		return nil, err
	}
	return manifest.HLSMaster(stream, opt)
}

// personal is what a session's manifest is rendered from, as the levers stand.
func (s *Service) personal(now time.Time, session string) (manifest.Stream, manifest.Options, error) {
	v, err := s.sessions.Parse(session, s.cfg.Wall(now))
	if err != nil {
		return manifest.Stream{}, manifest.Options{}, err
	}
	stream, opt := s.cfg.Stream, manifest.Options{Order: s.edgeIDs(v, now), SteeringURL: s.cfg.URL + steeringPath + session}
	levers := s.pulled()
	if !levers.Has(admission.Personalisation) {
		opt.MaxHeight = v.Device.MaxHeight()
	}
	if levers.Has(admission.TopRung) {
		stream = s.lower
	}
	if s.cfg.Tokens != nil {
		prefix := string(s.cfg.Tokens.Append([]byte(token.Prefix), uint64(v.Viewer)<<32|uint64(v.Nonce), v.Issued.Add(s.cfg.TokenLife)))
		stream.Edges = slices.Clone(stream.Edges)
		for i := range stream.Edges {
			stream.Edges[i].URL += prefix
		}
	}
	return stream, opt, nil
}

// Steering renders the session's steering manifest (HLS and DASH content steering).
func (s *Service) Steering(now time.Time, session string) ([]byte, error) {
	v, err := s.sessions.Parse(session, s.cfg.Wall(now))
	if err != nil {
		return nil, err
	}
	// The lifetime is spread over the sessions so that they do not ask all at once.
	ttl := s.cfg.SteeringTTL - s.cfg.SteeringTTL/5 + time.Duration(spread.Mix(uint64(v.Nonce))%uint64(2*s.cfg.SteeringTTL/5+1))
	return steering.Render(s.edgeIDs(v, now), ttl, s.cfg.URL+steeringPath+session), nil
}

func appendError(dst []byte, sentence string) []byte {
	dst = append(dst, `{"error":`...)
	dst = appendQuoted(dst, sentence)
	return append(dst, '}')
}
