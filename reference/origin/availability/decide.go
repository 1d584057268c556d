package availability

import (
	"net/http"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/spread"
)

// Policy holds the numbers of the decision. Lifetimes are spread by up to a tenth so that they do not end together.
type Policy struct {
	RetryDeadline time.Duration // after a segment's end: until then a missing one may still come
	EarlyMargin   time.Duration // a "not due yet" expires this long before the segment is due
	CatchUp       time.Duration // a segment that ended longer ago than this is read by somebody catching up
	BusyTTL       time.Duration // of the 503 that a catch-up read gets under stress
	UnknownTTL    time.Duration // of a 404 for what the template does not have
	GoneTTL       time.Duration // of a 410 for what was never made
	DefectTTL     time.Duration // of a segment with defects: a good one may still replace it
	InitTTL       time.Duration
	ManifestTTL   time.Duration // of the MPD and the multivariant playlist, which hardly ever change
	Pipelines     int           // candidates that a segment can have; a good one is waited for until all are there
	Seed          uint64        // of the spread of lifetimes
}

// DefaultPolicy has the reference pipeline's numbers.
var DefaultPolicy = Policy{
	RetryDeadline: 2 * time.Second,
	EarlyMargin:   100 * time.Millisecond,
	CatchUp:       20 * time.Second,
	BusyTTL:       5 * time.Second,
	UnknownTTL:    10 * time.Second,
	GoneTTL:       5 * time.Second,
	DefectTTL:     time.Second,
	InitTTL:       time.Minute,
	ManifestTTL:   10 * time.Second,
	Pipelines:     1,
}

// Action is what to do with a request.
type Action uint8

// The actions. Only Serve has a body, only Hold is not final.
const (
	Serve    Action = iota + 1 // answer 200 with candidate Pick
	Hold                       // wait for the store to change, until Until at the latest, then decide again
	NotFound                   // 404
	Gone                       // 410
	Busy                       // 503
)

// Status is the HTTP status of a final action, 0 for Hold.
func (a Action) Status() int {
	switch a {
	case Serve:
		return http.StatusOK
	case NotFound:
		return http.StatusNotFound
	case Gone:
		return http.StatusGone
	case Busy:
		return http.StatusServiceUnavailable
	}
	return 0
}

// Decision is the answer to a request at an instant.
type Decision struct {
	Action Action
	Pick   int           // Serve of Init or Segment: index of the candidate
	Until  time.Time     // Hold
	TTL    time.Duration // how long the answer may be cached
	Why    string        // a sentence for a person, of refusals
	// Expected says that the template foresees the refusal: no other origin would answer otherwise.
	Expected bool
}

// Request is one read.
type Request struct {
	Resource
	Arrived time.Time // when it came in; now is later after a Hold
}

// Candidate is one pipeline's version of an init or media segment.
type Candidate struct {
	Pipeline string   // "us-east"
	Defects  []string // empty: good
}

// Held is what the store has and how it fares.
type Held struct {
	Candidates []Candidate
	Stress     bool // too many reads at once
}

// Refuse gives the refusals that the template and the clock decide alone, without a store read; ok is false when there is
// none. Edges use it too: what it refuses needs no fill.
func Refuse(now time.Time, s manifest.Stream, p Policy, r Resource) (d Decision, ok bool) {
	notFound := func(ttl time.Duration, why string) (Decision, bool) {
		return Decision{Action: NotFound, TTL: ttl, Why: why, Expected: true}, true
	}
	if r.Event != s.Event {
		return notFound(p.spread(p.UnknownTTL, r), "no such event here")
	}
	if r.Kind == MPD || r.Kind == Master {
		return Decision{}, false
	}
	if _, known := s.Rendition(r.Rendition); !known {
		return notFound(p.spread(p.UnknownTTL, r), "the event has no such rendition")
	}
	if r.Kind != Segment {
		return Decision{}, false
	}
	if r.Number < s.First || s.Last != 0 && r.Number > s.Last {
		return notFound(p.spread(p.UnknownTTL, r), "the event has no segment of that number")
	}
	due := s.Timeline.End(r.Number)
	if r.Number > s.Timeline.At(now) {
		// The spread only ever shortens it: at the end of the lifetime the segment must not be due yet.
		until := due.Sub(now) - p.EarlyMargin
		return notFound(until-min(until/10, time.Duration(p.dice(r)*float64(p.EarlyMargin))), "the segment is not due yet")
	}
	if s.DVR > 0 && now.Sub(due) > s.DVR {
		return Decision{Action: Gone, TTL: p.spread(p.UnknownTTL, r), Why: "the segment has left the time-shift buffer", Expected: true}, true
	}
	return Decision{}, false
}

// Decide says what request r deserves at now, given what the store holds of it.
func Decide(now time.Time, s manifest.Stream, p Policy, r Request, held Held) Decision {
	if d, ok := Refuse(now, s, p, r.Resource); ok {
		return d
	}
	switch r.Kind {
	case MPD, Master:
		return Decision{Action: Serve, TTL: p.spread(p.ManifestTTL, r.Resource)}
	case Media:
		ttl := p.ManifestTTL
		if next := manifest.MediaChanges(s, now); !next.IsZero() {
			ttl = next.Sub(now)
		}
		return Decision{Action: Serve, TTL: ttl}
	case Init:
		return decideInit(now, s, p, r, held)
	}

	due := s.Timeline.End(r.Number)
	deadline := due.Add(p.RetryDeadline)
	if held.Stress && now.Sub(due) > p.CatchUp {
		return Decision{Action: Busy, TTL: p.BusyTTL, Why: "too busy to serve what is far behind the live edge"}
	}
	pick, good := Choose(held.Candidates)
	switch {
	case good:
		// Nothing about a good segment ever changes; it is worth keeping for as long as anybody may ask, and no longer:
		// caches that forget what has left the time-shift buffer do not grow with the event.
		ttl := time.Minute
		if s.DVR > 0 {
			ttl = max(due.Add(s.DVR).Sub(now), time.Second)
		}
		return Decision{Action: Serve, Pick: pick, TTL: ttl}
	case now.Before(deadline) && len(held.Candidates) < max(p.Pipelines, 1):
		return Decision{Action: Hold, Until: deadline}
	case pick >= 0:
		return Decision{Action: Serve, Pick: pick, TTL: p.spread(p.DefectTTL, r.Resource)}
	}
	return Decision{Action: Gone, TTL: p.spread(p.GoneTTL, r.Resource), Why: "the segment was not made in time"}
}

func decideInit(now time.Time, s manifest.Stream, p Policy, r Request, held Held) Decision {
	if pick, _ := Choose(held.Candidates); pick >= 0 {
		return Decision{Action: Serve, Pick: pick, TTL: p.spread(p.InitTTL, r.Resource)}
	}
	if start := s.Timeline.Start(s.First); now.Before(start.Add(-p.EarlyMargin)) {
		return Decision{Action: NotFound, TTL: min(start.Sub(now)-p.EarlyMargin, p.UnknownTTL), Why: "the event has not started yet"}
	}
	if deadline := r.Arrived.Add(p.RetryDeadline); now.Before(deadline) {
		return Decision{Action: Hold, Until: deadline}
	}
	return Decision{Action: NotFound, TTL: p.spread(p.DefectTTL, r.Resource), Why: "no encoder has published the rendition yet"}
}

// Choose picks a candidate: the first without defects in the order of the pipelines' names, so that every origin picks
// the same one whatever arrived first; when all have defects, the least bad. pick is -1 when there is none.
func Choose(cs []Candidate) (pick int, good bool) {
	pick = -1
	best := 0
	for i, c := range cs {
		sev := severity(c.Defects)
		if pick < 0 || sev < best || sev == best && c.Pipeline < cs[pick].Pipeline {
			pick, best = i, sev
		}
	}
	return pick, pick >= 0 && best == 0
}

// weight orders defects by what a viewer makes of them: a cut of a few frames, a freeze, a decoder error.
var weight = map[string]int{"short": 1, "missing-frames": 3, "discontinuity": 10, "corrupt": 1000}

func severity(defects []string) int {
	sum := 0
	for _, d := range defects {
		if w, ok := weight[d]; ok {
			sum += w
		} else {
			sum += 100 // an unknown defect is worse than a known mild one, better than corrupt bytes
		}
	}
	return sum
}

// HoldUntil is the latest time at which an origin may still be holding a request for r open that came in at arrived:
// an edge that fills r must be willing to wait as long.
func HoldUntil(s manifest.Stream, p Policy, r Resource, arrived time.Time) time.Time {
	switch r.Kind {
	case Segment:
		return s.Timeline.End(r.Number).Add(p.RetryDeadline)
	case Init:
		return arrived.Add(p.RetryDeadline)
	}
	return arrived
}

// spread shortens d by up to a tenth, the same for the same resource and seed.
func (p Policy) spread(d time.Duration, r Resource) time.Duration {
	return d - time.Duration(p.dice(r)*float64(d)/10)
}

// dice is a number in [0, 1) that the policy's seed and the resource decide (FNV-1a, then the finaliser of splitmix64).
func (p Policy) dice(r Resource) float64 {
	h := p.Seed ^ 0xcbf29ce484222325
	add := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 0x100000001b3
		}
	}
	add(r.Event)
	add(r.Rendition)
	h ^= r.Number<<8 | uint64(r.Kind)
	return spread.Share(spread.Finish(h))
}
