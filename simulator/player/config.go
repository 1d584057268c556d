package player

import (
	"fmt"
	"time"
)

// Formats of a manifest, as the play API names them.
const (
	DASH = "dash"
	HLS  = "hls"
)

// Service is one region's playback service.
type Service struct {
	Region string // "us-east"
	URL    string // base URL without trailing slash: "http://127.0.1.5:8080"
}

// Config says who watches what. Either Services or Manifest is set.
type Config struct {
	Viewer    string // unique in the run: the Session of this viewer's events
	Device    string
	ISP       string
	Region    string // home region: of its events' Home, and of their Region until an edge says otherwise
	Title     string
	Format    string // DASH or HLS: which manifest of the play answer to take; default DASH
	MaxHeight int    // pixels; 0: any

	Services []Service // in the order to try: home first
	Manifest string    // straight to this DASH or HLS URL, without a play request

	End  time.Time // the viewer leaves; zero: at the stream's end
	Seed uint64    // of this player's randomness: jitter of retries and penalties

	Tuning Tuning
}

// Tuning is how the player behaves; zero fields take the defaults.
type Tuning struct {
	StartBuffer  time.Duration // media in hand before the first frame; default 2 s
	ResumeBuffer time.Duration // media in hand before a stall ends; default 2 s
	LiveSegments int           // distance from the live edge when the manifest suggests none, segments; default 3
	MaxBehind    time.Duration // latency beyond the target at which the player jumps back to it; default 10 s

	PlayTimeout  time.Duration // one play request or manifest fetch; default 2 s
	StartTimeout time.Duration // from Play to giving up without a first frame; default 20 s
	// StartPatience is the wait without a first frame from which it counts as a failed start that the viewer, or the
	// event, leaves; default 4 s. Viewers begin to abandon a start after 2 s (Krishnan, Sitaraman: "Video Stream Quality
	// Impacts Viewer Behavior", IMC 2012); a healthy start takes less than that, so twice as long is no bad luck.
	StartPatience time.Duration
	GiveUpStall   time.Duration // one stall after which the viewer leaves; default 60 s

	MinFetchTimeout time.Duration // the least patience with a silent edge, however low the buffer; default 400 ms
	MaxFetchTimeout time.Duration // the most patience; default 4 s
	Penalty         time.Duration // how long a failed edge is left alone the first time, jittered ±50 %; default 5 s
	MaxPenalty      time.Duration // doubling at each failure in a row up to this; default 60 s

	Safety float64 // share of the estimated throughput to spend on video; default 0.8
}

func (t Tuning) withDefaults() Tuning {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.StartBuffer, 2*time.Second)
	def(&t.ResumeBuffer, 2*time.Second)
	def(&t.MaxBehind, 10*time.Second)
	def(&t.PlayTimeout, 2*time.Second)
	def(&t.StartTimeout, 20*time.Second)
	def(&t.StartPatience, 4*time.Second)
	def(&t.GiveUpStall, 60*time.Second)
	def(&t.MinFetchTimeout, 400*time.Millisecond)
	def(&t.MaxFetchTimeout, 4*time.Second)
	def(&t.Penalty, 5*time.Second)
	def(&t.MaxPenalty, time.Minute)
	if t.LiveSegments <= 0 {
		t.LiveSegments = 3
	}
	if t.Safety <= 0 || t.Safety > 1 {
		t.Safety = 0.8
	}
	return t
}

// Validate says what is wrong with the configuration, or nil.
func (c Config) Validate() error {
	switch {
	case c.Manifest == "" && len(c.Services) == 0:
		return fmt.Errorf("player: neither a manifest nor a playback service to go to")
	case c.Manifest != "" && len(c.Services) > 0:
		return fmt.Errorf("player: both a manifest and playback services: one of them")
	case c.Format != "" && c.Format != DASH && c.Format != HLS:
		return fmt.Errorf("player: format %q: want %q or %q", c.Format, DASH, HLS)
	}
	return nil
}
