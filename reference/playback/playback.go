package playback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback/steering"
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

// Retry is the advice that goes with an answer: come back at most so often, after a while drawn from After to AfterMax, so
// that a crowd that was sent away does not return as one.
type Retry struct {
	Max             int
	After, AfterMax time.Duration // milliseconds are kept
}

// The reference retry policies.
var (
	DefaultRetry     = Retry{Max: 3, After: time.Second, AfterMax: 2 * time.Second}
	DefaultShedRetry = Retry{Max: 3, After: time.Second, AfterMax: 4 * time.Second}
)

// Config is what a playback service needs. Stream, Region, URL, Key and Now are required.
type Config struct {
	Stream manifest.Stream // with the edges of every region
	Region string
	URL    string // the service's own base URL, without a trailing slash: "http://127.0.1.5:8080"
	Key    []byte // of session ids, the same in every region

	MaxConcurrent int     // requests handled at once; those beyond are shed
	MaxStarts     float64 // play starts a second, with a quarter of a second's burst; those beyond are shed; 0: no such bound
	Retry         Retry
	ShedRetry     Retry
	SteeringTTL   time.Duration

	Probing       steering.Probing
	ProbeInterval time.Duration
	ProbeTimeout  time.Duration
	LocalAddr     netip.Addr // probes are dialled from here; zero: any
	// Probe looks at one edge; nil: GET /healthz over a new connection.
	Probe func(ctx context.Context, edge manifest.Edge) error

	Seed uint64 // of jitter
	Now  func() time.Time
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
	health   atomic.Pointer[[]steering.Health]
	nonce    atomic.Uint32
	bucket   bucket
	inFlight atomic.Int64
	peak     atomic.Int64 // of inFlight since the last PlaybackStats
	stats    stats
}

// stats are counters since the last PlaybackStats event.
type stats struct {
	requests, started, shed, bad, unknown, manifests, steering, badSession atomic.Int64
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
	if cfg.Retry == (Retry{}) {
		cfg.Retry = DefaultRetry
	}
	if cfg.ShedRetry == (Retry{}) {
		cfg.ShedRetry = DefaultShedRetry
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
	s.bucket = newBucket(cfg.MaxStarts)
	return s, nil
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

// Play answers one play request: it appends a JSON answer to dst and returns it with the HTTP status. 200 has a session; 400
// and 404 a sentence; 503 a retry policy.
func (s *Service) Play(dst []byte, now time.Time, body []byte) ([]byte, int) {
	if !s.bucket.take(now) {
		return s.Shed(dst)
	}
	r, err := parseRequest(body)
	if err != nil {
		s.stats.bad.Add(1)
		return appendError(dst, err.Error()), 400
	}
	if string(r.title) != s.cfg.Stream.Event {
		s.stats.unknown.Add(1)
		return appendError(dst, fmt.Sprintf("there is no title %.128q here", r.title)), 404
	}
	v := Session{Device: device(r.device), Home: s.region, Issuer: s.region, Issued: now, Nonce: s.nonce.Add(1)}
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

	var id [sessionChars]byte
	session := s.sessions.Append(id[:0], v)
	dst = append(dst, `{"session":"`...)
	dst = append(dst, session...)
	dst = append(dst, `","manifests":{"dash":"`...)
	dst = append(append(append(append(dst, s.cfg.URL...), sessionsPath...), session...), "/"+dashName...)
	dst = append(dst, `","hls":"`...)
	dst = append(append(append(append(dst, s.cfg.URL...), sessionsPath...), session...), "/"+hlsName...)
	dst = append(dst, `"},"steering":[`...)
	var few [16]int
	for i, e := range s.order(few[:0], v.Viewer, v.Home, now) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, s.quoted[e]...)
	}
	dst = append(dst, `],`...)
	dst = s.appendRetry(dst, s.cfg.Retry, v.Nonce)
	s.stats.started.Add(1)
	return append(dst, '}'), 200
}

// Shed appends the answer to a request that is beyond the service's bounds.
func (s *Service) Shed(dst []byte) ([]byte, int) {
	s.stats.shed.Add(1)
	dst = append(dst, `{"error":"too many play starts at once",`...)
	dst = s.appendRetry(dst, s.cfg.ShedRetry, s.nonce.Add(1))
	return append(dst, '}'), 503
}

// appendRetry appends a retry policy, its while in seconds with three decimals.
func (s *Service) appendRetry(dst []byte, r Retry, nonce uint32) []byte {
	after := r.After.Milliseconds()
	if window := r.AfterMax.Milliseconds() - after; window > 0 {
		after += int64(spread.Mix(s.cfg.Seed^uint64(nonce)<<17) % uint64(window+1))
	}
	dst = append(dst, `"retryPolicy":{"maxRetries":`...)
	dst = strconv.AppendInt(dst, int64(r.Max), 10)
	dst = append(dst, `,"retryAfterSeconds":`...)
	dst = strconv.AppendFloat(dst, float64(after)/1000, 'f', -1, 64)
	return append(dst, '}')
}

// DASH renders the session's MPD.
func (s *Service) DASH(now time.Time, session string) ([]byte, error) {
	opt, err := s.options(now, session)
	if err != nil {
		return nil, err
	}
	return manifest.DASH(s.cfg.Stream, opt)
}

// HLS renders the session's multivariant playlist.
func (s *Service) HLS(now time.Time, session string) ([]byte, error) {
	opt, err := s.options(now, session)
	if err != nil {
		return nil, err
	}
	return manifest.HLSMaster(s.cfg.Stream, opt)
}

func (s *Service) options(now time.Time, session string) (manifest.Options, error) {
	v, err := s.sessions.Parse(session, now)
	if err != nil {
		return manifest.Options{}, err
	}
	return manifest.Options{
		Order:       s.edgeIDs(v, now),
		MaxHeight:   v.Device.MaxHeight(),
		SteeringURL: s.cfg.URL + steeringPath + session,
	}, nil
}

// Steering renders the session's steering manifest (HLS and DASH content steering).
func (s *Service) Steering(now time.Time, session string) ([]byte, error) {
	v, err := s.sessions.Parse(session, now)
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

// bucket admits a rate of requests with a burst (the generic cell rate algorithm, ITU-T I.371, annex A). The zero value
// admits all.
type bucket struct {
	every, burst int64         // nanoseconds
	full         *atomic.Int64 // theoretical arrival time of the next request, Unix nanoseconds
}

func newBucket(perSecond float64) bucket {
	if perSecond <= 0 {
		return bucket{}
	}
	every := int64(max(1, float64(time.Second)/perSecond))
	return bucket{every, max(every, int64(time.Second/4)), new(atomic.Int64)}
}

func (b bucket) take(now time.Time) bool {
	if b.full == nil {
		return true
	}
	t := now.UnixNano()
	for {
		old := b.full.Load()
		next := max(old, t) + b.every
		if next-t > b.burst {
			return false
		}
		if b.full.CompareAndSwap(old, next) {
			return true
		}
	}
}
