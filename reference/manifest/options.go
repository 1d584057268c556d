package manifest

import (
	"fmt"
	"slices"
	"time"
)

// SuggestedDelay is how far behind the encoder's wall clock a player is asked to play (MPD
// @suggestedPresentationDelay, HLS EXT-X-START). Three segments: one being fetched, two in hand when an edge dies.
const SuggestedDelay = 6 * time.Second

// PublishAllowance is how long after its last frame a segment appears in an HLS media playlist: encoding and
// publishing take some of it, and a player that asks earlier would only be held open at the origin.
const PublishAllowance = 200 * time.Millisecond

// Options says for whom a manifest is rendered. The zero value is the generic manifest: every edge in the stream's
// order, absolute URLs, every rung.
type Options struct {
	// Order lists edge IDs in steering order. Empty: Stream.Edges in their order. Edges it does not name are left out,
	// names the stream does not know are skipped; when nothing is left, every edge is taken.
	Order []string
	// Via is the ID of the edge the manifest is served through: it moves to the front.
	Via string
	// Relative makes the URLs of the first edge relative to the playlist, for an HLS master that this edge serves. An MPD is
	// always absolute, see DASH.
	Relative bool
	// MaxHeight drops rungs taller than the device can show, in pixels; 0: no cap. The lowest rung always stays.
	MaxHeight int
	// Query is appended to every playlist and segment URL, without "?": "session=…". Empty: none.
	Query string
	// SteeringURL, when not empty, adds content steering (ETSI TS 103 998, RFC 8216bis EXT-X-CONTENT-STEERING).
	SteeringURL string
	// Delay replaces SuggestedDelay when positive.
	Delay time.Duration
}

func (o Options) delay() time.Duration {
	if o.Delay > 0 {
		return o.Delay
	}
	return SuggestedDelay
}

// edges returns the stream's edges in the order the options ask for, but for one thing: the second lies in another region
// than the first where there is one. Some players try two places and no more (shaka-player 5.2, in one request), and the
// second must not die with the first.
func (o Options) edges(s Stream) []Edge {
	out := make([]Edge, 0, len(s.Edges))
	seen := make(map[string]bool, len(s.Edges))
	add := func(id string) {
		i := slices.IndexFunc(s.Edges, func(e Edge) bool { return e.ID == id })
		if i >= 0 && !seen[id] {
			seen[id] = true
			out = append(out, s.Edges[i])
		}
	}
	if o.Via != "" {
		add(o.Via)
	}
	named := false
	for _, id := range o.Order {
		before := len(out)
		add(id)
		named = named || len(out) > before
	}
	if !named {
		for _, e := range s.Edges {
			add(e.ID)
		}
	}
	for i := 1; i < len(out); i++ {
		if elsewhere := out[i]; elsewhere.Region != out[0].Region {
			copy(out[2:i+1], out[1:i])
			out[1] = elsewhere
			break
		}
	}
	return out
}

// video returns the rungs within the height cap, lowest bandwidth first.
func (o Options) video(s Stream) []Rendition {
	rungs := s.kind(Video)
	slices.SortStableFunc(rungs, func(a, b Rendition) int { return a.Bandwidth - b.Bandwidth })
	if o.MaxHeight <= 0 {
		return rungs
	}
	within := slices.DeleteFunc(slices.Clone(rungs), func(r Rendition) bool { return r.Height > o.MaxHeight })
	if len(within) == 0 && len(rungs) > 0 {
		return rungs[:1]
	}
	return within
}

func (s Stream) kind(k string) []Rendition {
	var out []Rendition
	for _, r := range s.Renditions {
		if r.Kind == k {
			out = append(out, r)
		}
	}
	return out
}

// Rendition returns the rendition with this ID.
func (s Stream) Rendition(id string) (Rendition, bool) {
	for _, r := range s.Renditions {
		if r.ID == id {
			return r, true
		}
	}
	return Rendition{}, false
}

// Validate reports the first thing that makes the stream impossible to render: no event name, no segment duration, no video
// rung, a duplicate or incomplete rendition, or a last segment before the first.
func (s Stream) Validate() error {
	switch {
	case s.Event == "":
		return fmt.Errorf("stream has no event name")
	case s.Timeline.Duration <= 0:
		return fmt.Errorf("stream %s: segment duration %v is not positive", s.Event, s.Timeline.Duration)
	case s.Last != 0 && s.Last < s.First:
		return fmt.Errorf("stream %s: last segment %d is before the first, %d", s.Event, s.Last, s.First)
	case len(s.kind(Video)) == 0:
		return fmt.Errorf("stream %s has no video rendition", s.Event)
	}
	seen := make(map[string]bool)
	for _, r := range s.Renditions {
		switch {
		case r.ID == "" || seen[r.ID]:
			return fmt.Errorf("stream %s: rendition id %q is empty or used twice", s.Event, r.ID)
		case r.Timescale == 0 || r.Bandwidth <= 0 || r.Codecs == "":
			return fmt.Errorf("stream %s: rendition %s lacks a timescale, bandwidth or codecs", s.Event, r.ID)
		}
		seen[r.ID] = true
	}
	return nil
}
