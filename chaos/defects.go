package chaos

import (
	"fmt"
	"math"
	"time"

	"github.com/tminus-live/tminus/chaos/audit"
	"github.com/tminus-live/tminus/chaos/defects"
	"github.com/tminus-live/tminus/chaos/media"
)

const (
	ownDoing = "the component itself, on order and on lease"
	// crowdSize is how many requests at once see whether an edge has enough hands.
	crowdSize = 24

	viewerEvidence = "a viewer's requests, before, during and after; another region's are answered throughout"
)

// Parameters that several defects have. Servers give up on an answer after ten seconds.
var (
	heldUp       = Parameter{Name: "delay", Type: TypeDuration, Required: true, Least: .001, Most: 8, Summary: "how much longer"}
	heldUnevenly = Parameter{Name: "jitter", Type: TypeDuration, Default: "0s", Most: 8, Summary: "the delay varies by so much to either side"}
	ofEndpoint   = Parameter{Name: "endpoint", Type: TypeWord, Words: []string{"all", "play", "manifest", "steering", "licence"}, Default: "all", Summary: "what viewers ask it for; all is proven by play starts"}
)

// defectKinds are what a component of the reference pipeline gets wrong by itself.
var defectKinds = []Kind{
	{
		Fail: "encoder", Summary: "an encoder makes nothing, or the same pictures again", Where: "a region's encoder: us-east/encoder", On: []string{PartEncoder},
		Models: []Model{
			defectModel(Model{
				Name: "restart", Summary: "the encoder is away, and goes on with the segment of the moment",
				Evidence: "the age of the newest segment that the region's packager has grows by a second each second; another region's does not",
				Example:  "{at: 30s, for: 10s, fail: encoder, where: us-east/encoder}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				at, other := beside(p, PartPackager, cfg), elsewhere(p, PartPackager, f, cfg)
				return defect{"encoder-restart", nil, defects.Newest(p.Name, at.URL, other.URL, watched(p))}, nil
			}),
			defectModel(Model{
				Name: "frozen", Summary: "each segment has the pictures of the one before the fault began, with its own times",
				Evidence:   "the segments that the region's packager has are looked into: new times and old pictures; another region's are new",
				Parameters: []Parameter{ofRung}, Example: "{at: 30s, for: 10s, fail: encoder, where: us-east/encoder, model: frozen}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				o, rung, err := frozen(f, p, cfg)
				return defect{"encoder-frozen", map[string]any{"rendition": rung}, o}, err
			}),
		},
	},
	{
		Fail: "clock", Summary: "a component's clock is wrong", Where: "a component of a region", On: []string{PartPackager, PartOrigin, PartEdge, PartPlayback},
		Models: []Model{defectModel(Model{
			Name: "skewed", Summary: "what the component takes for the time of day is off, or drifts; how it measures durations is not",
			Evidence: "the time that the component tells whoever asks, against the clock of whoever asks; another region's is right",
			Parameters: []Parameter{
				{Name: "offset", Type: TypeOffset, Default: "-3s", Summary: "ahead of the time; negative: behind it"},
				{Name: "drift", Type: TypeNumber, Default: "0", Least: -500e3, Most: 500e3, Summary: "millionths that it gains from then on; negative: loses"},
			},
			Example: "{at: 30s, for: 20s, fail: clock, where: us-east/edge-1, model: {skewed: {offset: -4s}}}",
		}, func(f Fault, p Part, cfg *Config) (defect, error) {
			other := elsewhere(p, p.Kind, f, cfg)
			return defect{"clock", map[string]any{"offset_ms": milliseconds(f.Duration("offset")), "drift_ppm": f.Number("drift")},
				defects.Clock(p.Name, p.URL, other.URL, f.Duration("offset"), f.Number("drift")/1e6)}, nil
		})},
	},
	{
		Fail: "store", Summary: "an origin's store is slow, or fails", Where: "a region's origin: us-east/origin", On: []string{PartOrigin},
		Models: []Model{
			defectModel(Model{
				Name: "slow", Summary: "reads from the store take their time", Evidence: httpEvidence,
				Parameters: []Parameter{heldUp, heldUnevenly, ofRequests},
				Example:    "{at: 30s, for: 20s, fail: store, where: us-east/origin, model: {slow: {delay: 600ms}}}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				params := map[string]any{"delay_ms": milliseconds(f.Duration("delay")), "jitter_ms": milliseconds(f.Duration("jitter")), "share": f.Share("share"), "on": "read", "seed": seeded(f)}
				o, err := asked(f, p, cfg, audit.Want{Kind: audit.Latency, Delay: f.Duration("delay"), Jitter: f.Duration("jitter"), Share: f.Share("share")})
				return defect{"store-latency", params, o}, err
			}),
			defectModel(Model{
				Name: "throttled", Summary: "reads from the store share so much throughput and no more: who asks waits, and is refused when the store is 8 s behind",
				Evidence:   httpEvidence,
				Parameters: []Parameter{{Name: "rate", Type: TypeRate, Required: true, Least: 8000, Most: 1e11, Summary: "of all reads together"}},
				Example:    "{at: 30s, for: 20s, fail: store, where: us-east/origin, model: {throttled: {rate: 2Mbit}}}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				o, err := asked(f, p, cfg, audit.Want{Kind: audit.Held, Rate: f.Rate("rate") / 8, Share: 1})
				return defect{"store-throttle", map[string]any{"bits_per_s": f.Rate("rate"), "on": "read"}, o}, err
			}),
			defectModel(Model{
				Name: "failing", Summary: "reads from the store fail", Evidence: httpEvidence,
				Parameters: []Parameter{ofRequests}, Example: "{at: 30s, for: 20s, fail: store, where: us-east/origin, model: {failing: {share: 50%}}}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				o, err := asked(f, p, cfg, audit.Want{Kind: audit.Status, Status: 500, Share: f.Share("share")})
				return defect{"store-failure", map[string]any{"share": f.Share("share"), "on": "read", "seed": seeded(f)}, o}, err
			}),
		},
	},
	{
		Fail: "playback", Summary: "a playback service answers late, or fails", Where: "a region's playback service: us-east/playback", On: []string{PartPlayback},
		Models: []Model{
			defectModel(Model{
				Name: "slow", Summary: "answers take their time", Evidence: viewerEvidence,
				Parameters: []Parameter{heldUp, heldUnevenly, ofRequests, ofEndpoint},
				Example:    "{at: 30s, for: 20s, fail: playback, where: us-east/playback, model: {slow: {delay: 1500ms, share: 50%}}}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				params := map[string]any{"delay_ms": milliseconds(f.Duration("delay")), "jitter_ms": milliseconds(f.Duration("jitter")), "share": f.Share("share"), "endpoint": f.Text("endpoint"), "seed": seeded(f)}
				o, err := viewed(f, p, cfg, f.Text("endpoint"), audit.Want{Kind: audit.Latency, Delay: f.Duration("delay"), Jitter: f.Duration("jitter"), Share: f.Share("share")})
				return defect{"playback-slow", params, o}, err
			}),
			defectModel(Model{
				Name: "failing", Summary: "requests fail", Evidence: viewerEvidence,
				Parameters: []Parameter{ofStatus, ofRequests, ofEndpoint},
				Example:    "{at: 30s, for: 20s, fail: playback, where: us-east/playback, model: {failing: {share: 20%, endpoint: play}}}",
			}, func(f Fault, p Part, cfg *Config) (defect, error) {
				params := map[string]any{"status": f.Number("status"), "share": f.Share("share"), "endpoint": f.Text("endpoint"), "seed": seeded(f)}
				o, err := viewed(f, p, cfg, f.Text("endpoint"), audit.Want{Kind: audit.Status, Status: f.Whole("status"), Share: f.Share("share")})
				return defect{"playback-error", params, o}, err
			}),
		},
	},
	{
		Fail: "steering", Summary: "a content steering server answers nobody", Where: "a region's playback service: us-east/playback", On: []string{PartPlayback},
		Models: []Model{defectModel(Model{
			Name: "gone", Summary: "every steering manifest is refused; play starts go on", Evidence: viewerEvidence,
			Parameters: []Parameter{ofStatus},
			Example:    "{at: 30s, for: 20s, fail: steering, where: us-east/playback}",
		}, func(f Fault, p Part, cfg *Config) (defect, error) {
			o, err := viewed(f, p, cfg, "steering", audit.Want{Kind: audit.Status, Status: f.Whole("status"), Share: 1})
			return defect{"steering-gone", map[string]any{"status": f.Number("status")}, o}, err
		})},
	},
	{
		Fail: "publish", Summary: "an origin takes no segments from a packager", Where: "a region's packager: us-east/packager", On: []string{PartPackager},
		Models: []Model{defectModel(Model{
			Name: "failing", Summary: "what the packager publishes fails, at every region's origin",
			Evidence:   "whose segments the region's origin says it has",
			Parameters: []Parameter{{Name: "share", Type: TypeShare, Default: "100%", Least: defects.LeastShare, Most: 1, Summary: "of segments"}},
			Example:    "{at: 30s, for: 20s, fail: publish, where: us-east/packager}",
		}, func(f Fault, p Part, cfg *Config) (defect, error) {
			at := beside(p, PartOrigin, cfg)
			return defect{"publish-failure", map[string]any{"share": f.Share("share"), "seed": seeded(f)}, defects.Candidates(p.Name, at.URL, p.Region, watched(p), f.Share("share"))}, nil
		})},
	},
	{
		Fail: "cache", Summary: "an edge forgets what it has", Where: "an edge: us-east/edge-1", On: []string{PartEdge},
		Models: []Model{defectModel(Model{
			Name: "wipe", Summary: "the edge forgets everything that it has cached",
			Evidence:   "an object that the edge has is asked for again and again: it comes from its cache until it does not",
			Parameters: []Parameter{{Name: "every", Type: TypeDuration, Default: "1s", Least: .2, Most: 25, Summary: "again and again, so often"}},
			Example:    "{at: 30s, for: 20s, fail: cache, where: us-east/edge-1, model: {wipe: {every: 2s}}}",
		}, func(f Fault, p Part, cfg *Config) (defect, error) {
			path, err := header(p)
			other := elsewhere(p, PartEdge, f, cfg)
			return defect{"cache-wipe", map[string]any{"every_ms": milliseconds(f.Duration("every"))},
				defects.Forgets(p.Name, passing(p, cfg), passing(other, cfg), path, f.Duration("every"))}, err
		})},
	},
	{
		Fail: "overload", Summary: "an edge has too few hands", Where: "an edge: us-east/edge-1", On: []string{PartEdge},
		Models: []Model{defectModel(Model{
			Name: "slots", Summary: "so many requests at once and no more: the others are refused",
			Evidence: fmt.Sprintf("%d requests at once: how many of them are refused", crowdSize),
			Parameters: []Parameter{
				{Name: "slots", Type: TypeWhole, Default: "4", Least: 1, Most: 16, Summary: "requests in hand at once"},
				{Name: "service", Type: TypeDuration, Default: "100ms", Least: .01, Most: 2, Summary: "how long each takes"},
			},
			Example: "{at: 30s, for: 20s, fail: overload, where: us-east/edge-1, model: {slots: {slots: 2}}}",
		}, func(f Fault, p Part, cfg *Config) (defect, error) {
			path, err := header(p)
			if err != nil {
				return defect{}, err
			}
			other := elsewhere(p, PartEdge, f, cfg)
			refused := math.Max(0, float64(crowdSize-f.Whole("slots"))) / crowdSize
			o, err := defects.Crowd(p.Name, passing(p, cfg), passing(other, cfg), path, crowdSize, refused, 3*f.Duration("service"))
			return defect{"edge-overload", map[string]any{"slots": f.Number("slots"), "service_ms": milliseconds(f.Duration("service"))}, o}, err
		})},
	},
}

// defect is what a component is told to get wrong, and who watches it.
type defect struct {
	kind     string
	params   map[string]any
	observer Observer
}

// defectModel completes a model that is a component's own doing.
func defectModel(m Model, does func(Fault, Part, *Config) (defect, error)) Model {
	m.plan = func(f Fault, cfg *Config) (plan, error) {
		p, err := part(f, cfg)
		if err != nil {
			return plan{}, err
		}
		if p.Orders == nil {
			return plan{}, fmt.Errorf("fault %s (%s of %s): %w: it is no component of the reference pipeline, which takes orders", f.ID, f.Fail, f.Where, ErrUnsupported)
		}
		d, err := does(f, p, cfg)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		i, err := defects.NewInjector(defects.Order{URL: p.Orders.URL, Key: p.Orders.Key, ID: f.ID, Part: p.Name, Kind: d.kind, Params: d.params})
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		return plan{injector: i, observer: d.observer, note: i.Note, means: ownDoing}, nil
	}
	return m
}

func milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

// beside is the part of some kind in the same region; the zero Part: there is none.
func beside(p Part, kind string, cfg *Config) Part {
	for _, other := range cfg.Parts {
		if other.Region == p.Region && other.Kind == kind {
			return other
		}
	}
	return Part{}
}

// elsewhere is a part of some kind in a region without troubles of its own while f is watched; the zero Part: there is none.
func elsewhere(p Part, kind string, f Fault, cfg *Config) Part {
	for _, other := range cfg.Parts {
		if other.Region != p.Region && other.Region != "" && other.Kind == kind && !troubled(other.Region, f, cfg.Faults) {
			return other
		}
	}
	return Part{}
}

// passing is a part's base URL, with what an edge lets pass; "" for the zero Part.
func passing(p Part, cfg *Config) string {
	if p.Pass == nil {
		return p.URL
	}
	return p.URL + p.Pass(cfg.Now().Add(passFor))
}

// watched is the rung by which a component's segments are watched.
func watched(p Part) defects.Stream {
	s := defects.Stream{Event: p.Event, Duration: p.Layout.Duration}
	if len(p.Rungs) > 0 {
		s.Rendition = p.Rungs[0]
	}
	return s
}

// header is the path of an initialisation segment that few ask for: the last rung's.
func header(p Part) (string, error) {
	if len(p.Rungs) == 0 {
		return "", fmt.Errorf("%s serves no rung that it could be watched by", p.Name)
	}
	return "/" + p.Event + "/" + p.Rungs[len(p.Rungs)-1] + "/init.mp4", nil
}

// asked watches how a part answers, beside one elsewhere.
func asked(f Fault, p Part, cfg *Config, want audit.Want) (Observer, error) {
	return questioned(f, p, elsewhere(p, p.Kind, f, cfg), cfg, questions(p, "", want, cfg)[0], want)
}

// viewed watches how a playback service answers a viewer at an endpoint, beside one elsewhere.
func viewed(f Fault, p Part, cfg *Config, endpoint string, want audit.Want) (Observer, error) {
	if p.Asks == nil {
		return nil, fmt.Errorf("%w: %s is no playback service of the reference pipeline", ErrUnsupported, p.Name)
	}
	return questioned(f, p, elsewhere(p, p.Kind, f, cfg), cfg, viewers(p, endpoint, cfg), want)
}

// seeded is a fault's seed as an order takes it: a number that JSON holds exactly.
func seeded(f Fault) float64 { return float64(f.Seed & (1<<53 - 1)) }

// frozen watches the pictures that a region's packager has.
func frozen(f Fault, p Part, cfg *Config) (o Observer, rung string, err error) {
	at, other := beside(p, PartPackager, cfg), elsewhere(p, PartPackager, f, cfg)
	selector := media.Selector{Rung: f.Text("rung"), Track: media.Video}
	c := audit.SegmentsConfig{Fault: f.ID, Region: p.Region, Want: media.Defect{Kind: media.Frozen}, Select: selector, Now: cfg.Now, Sink: cfg.Sink}
	if c.Stream, err = streamOf(at, selector, "", cfg.Now()); err != nil {
		return nil, "", err
	}
	if selector.Rung != "" { // an encoder knows its rungs by their ids alone
		rung = c.Stream.Rung
	}
	if other.URL != "" {
		if control, err := streamOf(other, selector, "", cfg.Now()); err == nil {
			c.Control = &control
		}
	}
	o, err = audit.NewSegments(c)
	return o, rung, err
}
