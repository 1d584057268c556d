package steering

import "time"

// Probing says when a prober changes its mind about an edge.
type Probing struct {
	Down  int           // failures in a row that make an edge unhealthy
	Up    int           // successes in a row that make it healthy again
	Stale time.Duration // a verdict of unhealthy that no probe confirmed for this long is void; 0: never
	Grace time.Duration // an edge that has never answered may still be starting: for so long failures do not count
}

// DefaultProbing notices a dead edge within two probes and believes three good ones.
var DefaultProbing = Probing{Down: 2, Up: 3, Stale: 15 * time.Second, Grace: 5 * time.Second}

// Health is what is known of one edge. The zero value is healthy: an edge is innocent until probes say otherwise, so that
// a playback service that just started does not send everybody elsewhere.
type Health struct {
	Down  bool
	Run   int       // probes in a row that contradict Down
	First time.Time // of the first probe
	At    time.Time // of the last probe
	Known bool      // it answered once
}

// Step returns the health after a probe's result at now, and whether the verdict changed.
func (p Probing) Step(h Health, ok bool, now time.Time) (next Health, changed bool) {
	next = h
	next.At = now
	next.Known = h.Known || ok
	if h.At.IsZero() {
		next.First = now
	}
	if !next.Known && now.Sub(next.First) < p.Grace {
		return next, false
	}
	if ok != h.Down { // it confirms the verdict
		next.Run = 0
		return next, false
	}
	next.Run++
	need := p.Down
	if h.Down {
		need = p.Up
	}
	if next.Run >= need {
		next.Down, next.Run = !h.Down, 0
		return next, true
	}
	return next, false
}

// Healthy says whether to steer viewers to an edge at now.
func (p Probing) Healthy(h Health, now time.Time) bool {
	return !h.Down || p.Stale > 0 && now.Sub(h.At) > p.Stale
}

// RegionHealthy is the verdict on a region: it is there while any of its edges is.
func RegionHealthy(edges []bool) bool {
	for _, healthy := range edges {
		if healthy {
			return true
		}
	}
	return false
}
