package experiment

import "time"

// BlindAfter is how long stop conditions may go unseen, because the store is behind or does not answer, before the faults
// are undone: nothing is broken that nobody watches.
const BlindAfter = 5 * time.Second

// Look is one look at live QoE.
type Look struct {
	At     time.Duration // since T-0
	Newest time.Duration // since T-0: when the newest event was written that is known to be readable
	Asked  bool          // Newest was asked for at this look, and not at one before it
	Held   int           // the first stop condition that holds; -1: none
	Found  []uint64      // samples of each stop condition, as far as they were asked for
	Err    error         // why there was no answer; nil: there was
}

// Decision is what follows from a look.
type Decision int

const (
	GoOn    Decision = iota
	Stop             // a stop condition holds
	GoBlind          // stop conditions were not seen for BlindAfter
)

// Guard decides, look by look, whether an experiment may go on.
type Guard struct {
	since   time.Duration // up to when something was seen
	last    time.Duration // the last look that was answered
	started bool

	// Of the looks that were answered, those included that found no sample of any condition:
	Looks  uint64        // how many
	Gap    time.Duration // the longest from one to the next
	Behind time.Duration // the most that the newest event in the store was old, when it was asked for
	Found  []uint64      // how many found samples of each stop condition; shorter than the conditions where none asked for more
}

// Take takes one look; looks come in the order of time.
func (g *Guard) Take(l Look) Decision {
	if !g.started {
		g.started, g.since = true, l.At
		if l.Err == nil {
			g.since = l.Newest
		}
	}
	if l.Err == nil {
		if g.Looks++; g.Looks > 1 {
			g.Gap = max(g.Gap, l.At-g.last)
		}
		g.last = l.At
		if l.Asked {
			g.Behind = max(g.Behind, l.At-l.Newest)
		}
		g.since = max(g.since, l.Newest)
		for i, n := range l.Found {
			if i == len(g.Found) {
				g.Found = append(g.Found, 0)
			}
			if n > 0 {
				g.Found[i]++
			}
		}
		if l.Held >= 0 {
			return Stop
		}
	}
	if l.At-g.since > BlindAfter {
		return GoBlind
	}
	return GoOn
}

// HeldSince finds the moment from which on a condition held, without a break, up to stop: it asks held for earlier and
// earlier moments, step by step, back to earliest at most, until one says no. An error of held ends it.
func HeldSince(stop, earliest, step time.Duration, held func(at time.Duration) (bool, error)) (time.Duration, error) {
	since := stop
	for at := stop - step; at >= earliest; at -= step {
		yes, err := held(at)
		if err != nil {
			return since, err
		}
		if !yes {
			break
		}
		since = at
	}
	return since, nil
}
