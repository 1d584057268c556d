package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/telemetry/event"
)

// MaxPlayers bounds one process: each player keeps up to a handful of sockets.
const MaxPlayers = 5000

// Viewer is who presses Play.
type Viewer struct {
	ID     string // unique in the run: "viewer-17"; empty: made from its index
	Device string // "tv", "phone" …
	ISP    string
	Home   string // region of its nearest playback service; empty: the services are taken in turn
	Format string // player.DASH or player.HLS; empty: DASH
	// MaxHeight is the tallest rendition the device shows, in pixels; 0: any.
	MaxHeight int
}

// Config says who watches what, and when. Either Play or Manifest is set.
type Config struct {
	Players int
	Seed    uint64

	Play     []player.Service // playback services of every region, in the scenario's order
	Title    string           // what to play, with Play
	Manifest string           // a DASH or HLS URL on a loopback address, or one that Permit has

	// Viewer says who the i-th viewer is; nil: all alike.
	Viewer func(i int) Viewer

	Start  time.Time     // the first may press Play; zero: when Run is called
	Spread time.Duration // presses are spread evenly over it, with a seeded jitter; 0: all at Start
	End    time.Time     // everybody leaves; zero: when the stream ends or ctx does

	Tuning player.Tuning // zero: the defaults of package player

	Permit    Permit // what may be reached beyond loopback; nil: nothing
	UserAgent string // what every request calls itself; empty: Go's name

	Sink event.Sink
	Log  *slog.Logger // nil: silent

	ConnectTimeout time.Duration    // 0: 1 s
	Now            func() time.Time // nil: the wall clock
}

// Validate says everything that is wrong with the configuration, or nil. It resolves no names.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("sessions: "+format, a...)) }
	if c.Players < 0 || c.Players > MaxPlayers {
		bad("%d players: want 0 to %d", c.Players, MaxPlayers)
	}
	if (c.Manifest == "") == (len(c.Play) == 0) {
		bad("want playback services or a manifest, one of them")
	}
	for _, s := range c.Play {
		if s.Region == "" || s.URL == "" {
			bad("playback service %q at %q: want a region and a URL", s.Region, s.URL)
		}
	}
	if c.Sink == nil {
		bad("no sink for what the players live through")
	}
	if c.Spread < 0 {
		bad("spread %s is negative", c.Spread)
	}
	return errors.Join(errs...)
}

// Crowd is the viewers of one run.
type Crowd struct {
	cfg     Config
	client  *http.Client
	close   func() // idle connections
	viewers []*viewer

	mu      sync.Mutex
	refused error // the first address met that is not on this machine
	stop    context.CancelCauseFunc
}

// New checks cfg and resolves the hosts it names: ErrNotLoopback for any that is not on this machine and has no permit.
func New(cfg Config) (*Crowd, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, time.Second)
	targets := []string{cfg.Manifest}
	if cfg.Manifest == "" {
		targets = targets[:0]
		for _, s := range cfg.Play {
			targets = append(targets, s.URL)
		}
	}
	for _, t := range targets {
		if err := checkTarget(context.Background(), t, cfg.Permit); err != nil {
			return nil, err
		}
	}
	c := &Crowd{cfg: cfg}
	c.client, c.close = newClient(cfg, c.refuse)
	for i := range cfg.Players {
		c.viewers = append(c.viewers, newViewer(c, i))
	}
	return c, nil
}

// refuse notes an address that is not on this machine, and ends the run.
func (c *Crowd) refuse(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = err
		c.cfg.Log.Error("the stream leads off this machine", "error", err)
	}
	if c.stop != nil {
		c.stop(err)
	}
}

// Run plays until every viewer has left: at End, at the stream's end, or when ctx ends, in which case everybody leaves at
// once (with a session_end) and Run returns nil. It returns ErrNotLoopback when a manifest or a redirect led off this
// machine. Call it once.
func (c *Crowd) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c.mu.Lock()
	c.stop = stop
	c.mu.Unlock()
	defer c.close()

	start := c.cfg.Start
	if start.IsZero() {
		start = c.cfg.Now()
	}
	var wg sync.WaitGroup
	for i, at := range arrivals(c.cfg.Seed, len(c.viewers), start, c.cfg.Spread) {
		v := c.viewers[i]
		wg.Go(func() { v.run(ctx, at) })
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// arrivals spreads n presses evenly over d, each somewhere in its own slot.
func arrivals(seed uint64, n int, start time.Time, d time.Duration) []time.Time {
	rng := rand.New(rand.NewPCG(seed, 0x6172726976616c73)) // a stream of its own: "arrivals"
	at := make([]time.Time, n)
	for i := range at {
		at[i] = start.Add(time.Duration((float64(i) + rng.Float64()) / float64(n) * float64(d)))
	}
	return at
}

// config makes viewer i's player.
func (c *Crowd) player(i int) player.Config {
	var who Viewer
	if c.cfg.Viewer != nil {
		who = c.cfg.Viewer(i)
	}
	pc := player.Config{Viewer: cmp.Or(who.ID, "viewer-"+strconv.Itoa(i+1)), Device: who.Device, ISP: who.ISP, Region: who.Home, Title: c.cfg.Title,
		Format: who.Format, MaxHeight: who.MaxHeight, Manifest: c.cfg.Manifest, End: c.cfg.End, Tuning: c.cfg.Tuning,
		// A step of the golden ratio apart, as splitmix64 does: neighbours share no stream.
		Seed: c.cfg.Seed + uint64(i+1)*0x9e3779b97f4a7c15}
	if n := len(c.cfg.Play); n > 0 {
		home := slices.IndexFunc(c.cfg.Play, func(s player.Service) bool { return s.Region == who.Home })
		if home < 0 {
			home = i % n
		}
		pc.Region = c.cfg.Play[home].Region
		pc.Services = append(slices.Clone(c.cfg.Play[home:]), c.cfg.Play[:home]...)
	}
	return pc
}

// Snapshot is how the crowd is doing now.
type Snapshot struct {
	Waiting     int // have not pressed Play yet
	Starting    int // pressed Play, no first frame yet
	Playing     int
	Rebuffering int
	Ended       int
	Failed      int // never got a first frame, or gave up

	StartupP50, StartupP95 time.Duration // of those who got a first frame
	LatencyP50, LatencyP95 time.Duration // behind the live edge, of those playing or rebuffering, as of their last heartbeats
	BitrateKbps            float64       // mean, of those playing or rebuffering
	PlayingTime            time.Duration // so far, all sessions, as of their last heartbeats
	RebufferTime           time.Duration
	RebufferRatio          float64 // rebuffering / (playing + rebuffering); 0 while nobody plays
	Stalls                 int     // that have ended
	EdgeSwitches           int
	FetchesFailed          int
}

// OnAir is how many sessions are on the air: pressed Play and neither ended nor failed.
func (s Snapshot) OnAir() int { return s.Starting + s.Playing + s.Rebuffering }

// Snapshot may be called at any time, also before Run and after it.
func (c *Crowd) Snapshot() Snapshot {
	var s Snapshot
	var startups, latencies []time.Duration
	var kbps float64
	for _, v := range c.viewers {
		f := v.facts()
		switch f.state {
		case player.Idle:
			s.Waiting++
		case player.Playing:
			s.Playing++
		case player.Rebuffering:
			s.Rebuffering++
		case player.Ended:
			s.Ended++
		case player.Failed:
			s.Failed++
		default:
			s.Starting++
		}
		if f.state == player.Playing || f.state == player.Rebuffering {
			if f.latency > 0 { // 0: no heartbeat has told yet
				latencies = append(latencies, f.latency)
			}
			kbps += f.kbps
		}
		if f.startup > 0 {
			startups = append(startups, f.startup)
		}
		s.PlayingTime += f.playing
		s.RebufferTime += f.rebuffering
		s.Stalls += f.stalls
		s.EdgeSwitches += f.switches
		s.FetchesFailed += f.failed
	}
	if n := s.Playing + s.Rebuffering; n > 0 {
		s.BitrateKbps = kbps / float64(n)
	}
	s.StartupP50, s.StartupP95 = quantiles(startups)
	s.LatencyP50, s.LatencyP95 = quantiles(latencies)
	if t := s.PlayingTime + s.RebufferTime; t > 0 {
		s.RebufferRatio = float64(s.RebufferTime) / float64(t)
	}
	return s
}

// quantiles sorts ds and returns its lower median and 95th percentile; zeros when it is empty.
func quantiles(ds []time.Duration) (p50, p95 time.Duration) {
	if len(ds) == 0 {
		return 0, 0
	}
	slices.Sort(ds)
	return ds[(len(ds)-1)*50/100], ds[(len(ds)-1)*95/100]
}
