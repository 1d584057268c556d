package defect

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Kinds of component.
const (
	Encoder  = "encoder"
	Packager = "packager"
	Origin   = "origin"
	Edge     = "edge"
	Playback = "playback"
)

// Kinds of defect.
const (
	EncoderRestart = "encoder-restart"
	EncoderFrozen  = "encoder-frozen"
	Clock          = "clock"
	StoreLatency   = "store-latency"
	StoreThrottle  = "store-throttle"
	StoreFailure   = "store-failure"
	PublishFailure = "publish-failure"
	CacheWipe      = "cache-wipe"
	EdgeOverload   = "edge-overload"
	SteeringGone   = "steering-gone"
	PlaybackSlow   = "playback-slow"
	PlaybackError  = "playback-error"
)

// MaxDelay bounds every delay that a defect imposes, in milliseconds: servers give up on an answer after ten seconds.
const MaxDelay = 8000

// Kind documents a kind of defect.
type Kind struct {
	Name    string
	Summary string
	On      []string // kinds of component
	Params  []Param
}

// Param documents a parameter: a number within bounds, or a text.
type Param struct {
	Name        string
	Summary     string
	Default     any // float64 or string; nil: it must be given
	Least, Most float64
	Zero        bool // 0 is allowed though it is below Least
	Whole       bool
	Words       []string // of a text: what it may be; nil: any name
	Text        bool
}

// Params are a defect's parameters by name: float64 or string, complete and within bounds.
type Params map[string]any

func (p Params) number(name string) float64 { v, _ := p[name].(float64); return v }
func (p Params) text(name string) string    { v, _ := p[name].(string); return v }

// Operations of a store and endpoints of a playback service, as parameters name them.
const (
	Both  = "both"
	Read  = "read"
	Write = "write"

	All      = "all"
	Play     = "play"
	Manifest = "manifest"
	Steering = "steering"
	Licence  = "licence"
)

var (
	share    = Param{Name: "share", Summary: "of all requests", Default: 1.0, Most: 1}
	seed     = Param{Name: "seed", Summary: "of what is left to chance", Default: 0.0, Most: 1 << 53, Whole: true}
	delay    = Param{Name: "delay_ms", Summary: "added to each", Least: 1, Most: MaxDelay}
	jitter   = Param{Name: "jitter_ms", Summary: "the delay is spread evenly by so much either way", Default: 0.0, Most: MaxDelay}
	store    = Param{Name: "on", Summary: "read, write or both", Default: Both, Words: []string{Both, Read, Write}, Text: true}
	endpoint = Param{Name: "endpoint", Summary: "what of the service", Default: All, Words: []string{All, Play, Manifest, Steering, Licence}, Text: true}
	status   = Param{Name: "status", Summary: "of the answer; 0: the connection is dropped", Default: 503.0, Least: 400, Most: 599, Zero: true, Whole: true}
)

// Kinds lists every kind there is.
func Kinds() []Kind { return slices.Clone(kinds) }

var kinds = []Kind{
	{EncoderRestart, "the encoder makes no segment, then goes on with the segment of the moment", []string{Encoder}, []Param{
		{Name: "down_ms", Summary: "how long it is away; 0: as long as the defect lasts", Default: 0.0, Most: 3600e3},
	}},
	{EncoderFrozen, "each segment has the pictures of the one before the defect began, with its own times", []string{Encoder}, []Param{
		{Name: "rendition", Summary: "of this rendition only; empty: of every video rendition", Default: "", Text: true},
	}},
	{Clock, "what the component takes for the time of day is wrong; how it measures durations is not", []string{Encoder, Packager, Origin, Edge, Playback}, []Param{
		{Name: "offset_ms", Summary: "ahead of the time; negative: behind it", Default: 0.0, Least: -86400e3, Most: 86400e3},
		{Name: "drift_ppm", Summary: "millionths that it gains from the beginning of the defect on; negative: loses", Default: 0.0, Least: -500e3, Most: 500e3},
	}},
	{StoreLatency, "the origin's store takes its time", []string{Origin}, []Param{delay, jitter, share, store, seed}},
	{StoreThrottle, "the origin's store has so much throughput and no more", []string{Origin}, []Param{
		{Name: "bits_per_s", Summary: "of all reads and writes that it holds for", Least: 1e3, Most: 1e12}, store,
	}},
	{StoreFailure, "operations of the origin's store fail", []string{Origin}, []Param{share, store, seed}},
	{PublishFailure, "an origin takes no segment from the packager: the PUT fails", []string{Packager}, []Param{
		{Name: "origin", Summary: "of this region only; empty: of every region", Default: "", Text: true},
		{Name: "share", Summary: "of segments, each of which fails however often it is tried", Default: 1.0, Most: 1}, seed,
	}},
	{CacheWipe, "the edge forgets everything it has cached", []string{Edge}, []Param{
		{Name: "every_ms", Summary: "again and again; 0: once", Default: 0.0, Most: 3600e3},
	}},
	{EdgeOverload, "the edge has so many hands, each of which is busy with a request for a while", []string{Edge}, []Param{
		{Name: "slots", Summary: "requests in hand at once; 0: every request is refused", Default: 4.0, Most: 1024, Whole: true},
		{Name: "service_ms", Summary: "how long each takes", Default: 100.0, Most: MaxDelay},
		{Name: "wait_ms", Summary: "how long a request may wait for a hand; whoever would wait longer gets 503 at once", Default: 0.0, Most: MaxDelay},
	}},
	{SteeringGone, "the steering server answers nobody", []string{Playback}, []Param{status}},
	{PlaybackSlow, "answers of the playback service take their time", []string{Playback}, []Param{delay, jitter, share, endpoint, seed}},
	{PlaybackError, "requests to the playback service fail", []string{Playback}, []Param{
		{Name: "share", Summary: "of all requests", Default: 1.0, Most: 1}, status, endpoint, seed,
	}},
}

func kindOf(name string) (Kind, error) {
	var names []string
	for _, k := range kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return Kind{}, fmt.Errorf("%w kind %.40q (there is %s)", ErrOrder, name, strings.Join(names, ", "))
}

// complete checks parameters and fills in those left out.
func (k Kind) complete(given map[string]any) (Params, error) {
	out := make(Params, len(k.Params))
	for _, p := range k.Params {
		v, ok := given[p.Name]
		if !ok {
			if p.Default == nil {
				return nil, fmt.Errorf("%w %s without %s: %s", ErrOrder, k.Name, p.Name, p.Summary)
			}
			v = p.Default
		}
		if err := p.check(v); err != nil {
			return nil, fmt.Errorf("%w %s: %s: %w", ErrOrder, k.Name, p.Name, err)
		}
		out[p.Name] = v
	}
	for name := range given {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("%w %s with a parameter %.40q that it has not", ErrOrder, k.Name, name)
		}
	}
	return out, nil
}

func (p Param) check(v any) error {
	switch v := v.(type) {
	case float64:
		if p.Text {
			return fmt.Errorf("a number, want a text")
		}
		if math.IsNaN(v) || (v < p.Least || v > p.Most) && !(p.Zero && v == 0) {
			return fmt.Errorf("%g is outside %g to %g", v, p.Least, p.Most)
		}
		if p.Whole && v != math.Trunc(v) {
			return fmt.Errorf("%g is not a whole number", v)
		}
		return nil
	case string:
		if !p.Text {
			return fmt.Errorf("a text, want a number")
		}
		if p.Words != nil && !slices.Contains(p.Words, v) {
			return fmt.Errorf("%.40q is none of %s", v, strings.Join(p.Words, ", "))
		}
		if len(v) > maxName {
			return fmt.Errorf("a name of %d bytes, at most %d are allowed", len(v), maxName)
		}
		return nil
	}
	return fmt.Errorf("neither a number nor a text")
}
