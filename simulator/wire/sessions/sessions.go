package sessions

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/telemetry/event"
)

// ErrNotLoopback says that something led to an address that is not on this machine. Its text is one sentence for a
// person; a caller reports it as a scenario that cannot be run.
var ErrNotLoopback = errors.New("only a stream on a loopback address (127.0.0.0/8, ::1) can be rehearsed")

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
	Manifest string           // a DASH or HLS URL on a loopback address

	// Viewer says who the i-th viewer is; nil: all alike.
	Viewer func(i int) Viewer

	Start  time.Time     // the first may press Play
	Spread time.Duration // presses are spread evenly over it, with a seeded jitter; 0: all at Start
	End    time.Time     // everybody leaves; zero: when the stream ends or ctx does

	Tuning player.Tuning // zero: the defaults of package player

	Sink event.Sink
	Log  *slog.Logger // nil: silent

	ConnectTimeout time.Duration    // 0: 1 s
	Now            func() time.Time // nil: the wall clock
}

// Crowd is the viewers of one run.
type Crowd struct{ cfg Config }

// New checks cfg, resolving the hosts it names: ErrNotLoopback for any that is not on this machine.
func New(cfg Config) (*Crowd, error) { return &Crowd{cfg: cfg}, nil }

// Run plays until every viewer has left: at End, at the stream's end, or when ctx ends, in which case everybody leaves at
// once (with a session_end) and Run returns nil. It returns ErrNotLoopback when a manifest or a redirect led off this
// machine. Call it once.
func (c *Crowd) Run(ctx context.Context) error { return errors.New("not built yet") }

// Snapshot is how the crowd is doing now.
type Snapshot struct {
	Waiting     int // have not pressed Play yet
	Starting    int // pressed Play, no first frame yet
	Playing     int
	Rebuffering int
	Ended       int
	Failed      int // never got a first frame, or gave up

	StartupP50, StartupP95 time.Duration // of those who got a first frame
	LatencyMean            time.Duration // behind the live edge, of those playing or rebuffering
	BitrateKbps            float64       // mean, of those playing or rebuffering
	PlayingTime            time.Duration // so far, all sessions
	RebufferTime           time.Duration
	RebufferRatio          float64 // rebuffering / (playing + rebuffering); 0 while nobody plays
	EdgeSwitches           int
	FetchesFailed          int
}

// OnAir is how many sessions are on the air: pressed Play and neither ended nor failed.
func (s Snapshot) OnAir() int { return s.Starting + s.Playing + s.Rebuffering }

// Snapshot may be called at any time, also before Run and after it.
func (c *Crowd) Snapshot() Snapshot { return Snapshot{Waiting: c.cfg.Players} }
