package audience

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// How a play start, or one attempt of it, ended: the words of the timeline.
const (
	StatusOK     = "ok"
	StatusShed   = "shed"
	StatusFailed = "failed"
)

// Bounds on People.
const (
	MaxPresses  = 1000
	MaxAfter    = 10 * time.Minute
	MaxPatience = time.Hour
)

// afterSigma is the spread of a human's delay: sigma of its logarithm. Nine of ten lie between 0.37 and 2.7 medians.
const afterSigma = 0.6

// People says who presses Play again, and when, after a press that came to nothing. The zero value is a crowd that
// follows the server's retry policy and never presses again by itself.
type People struct {
	Human   float64       // share of viewers (0 to 1) who ignore a retry policy and press Play again themselves
	Again   float64       // probability that a human presses again after a failure, each time
	After   time.Duration // median of a human's delay before pressing again (log-normal, sigma 0.6)
	Presses int           // most presses of one human, the first one included; 0 and 1: never again

	// Patience is the median of how long a viewer, human or not, keeps trying before they leave (Viewer.Patience);
	// 0: as long as it takes.
	Patience time.Duration
}

// Outcome is how one attempt ended.
type Outcome struct {
	Status     string        // StatusOK, StatusShed or StatusFailed
	Guided     bool          // the answer had a retry policy
	MaxRetries int           // the policy's: how many retries in all
	RetryAfter time.Duration // the policy's: how long to wait before the next one
}

// Validate says everything that is wrong with p, or nil.
func (p People) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("people: "+format, a...)) }
	if !(p.Human >= 0 && p.Human <= 1) { // also catches NaN
		bad("share of humans %v outside 0 to 1", p.Human)
	}
	if !(p.Again >= 0 && p.Again <= 1) {
		bad("probability of pressing again %v outside 0 to 1", p.Again)
	}
	if p.After < 0 || p.After > MaxAfter {
		bad("delay before pressing again %v outside 0 to %v", p.After, MaxAfter)
	}
	if p.Presses < 0 || p.Presses > MaxPresses {
		bad("%d presses: want 0 to %d", p.Presses, MaxPresses)
	}
	if p.Patience < 0 || p.Patience > MaxPatience {
		bad("patience %v outside 0 to %v", p.Patience, MaxPatience)
	}
	if p.After == 0 && p.Again > 0 && p.Presses > 1 {
		bad("humans press again, but no delay before that is set")
	}
	return errors.Join(errs...)
}

// Next says whether viewer v, whose attempt number attempt (from 1) ended with o, tries again, and after how long. It is
// pure: the same inputs give the same answer.
//
// A viewer who follows the policy waits exactly RetryAfter, and does so MaxRetries times at most. One who is human waits
// a time of their own, whatever the policy says. Where an answer had no policy there is nothing to follow: everybody is
// human.
func (p People) Next(seed uint64, v Viewer, attempt int, o Outcome) (after time.Duration, again bool) {
	if o.Status == StatusOK || attempt < 1 {
		return 0, false
	}
	g := splitmix{mix64(Seed(seed, "people") ^ mix64(v.ID))}
	human := unit(g.next()) < p.Human
	if o.Guided && !human {
		return max(0, o.RetryAfter), attempt <= o.MaxRetries
	}
	if attempt >= p.Presses {
		return 0, false
	}
	g = splitmix{mix64(g.next() ^ uint64(attempt))}
	if unit(g.next()) >= p.Again {
		return 0, false
	}
	return logNormal(p.After, afterSigma, g.next()), true
}

// Stays says whether viewer v still wants to watch after having waited so long since they first pressed Play.
func (p People) Stays(v Viewer, waited time.Duration) bool {
	return p.Patience == 0 || waited <= v.Patience(p.Patience)
}

// unit maps a draw to [0, 1).
func unit(draw uint64) float64 { return float64(draw>>11) / (1 << 53) }

// logNormal maps a draw to a log-normal duration with the given median; the longest and the shortest are four sigmas away.
func logNormal(median time.Duration, sigma float64, draw uint64) time.Duration {
	u := (float64(draw>>11) + 0.5) / (1 << 53)
	z := math.Sqrt2 * math.Erfinv(2*u-1)
	return time.Duration(float64(median) * math.Exp(sigma*min(max(z, -4), 4)))
}
