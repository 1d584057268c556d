package consent

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Ceilings that no scenario lifts, for any target.
const (
	MaxRate     = 1e6 // play starts a second
	MaxDuration = 24 * time.Hour
)

// Limits are the ceilings that a scenario sets its own load. A zero one is not set.
type Limits struct {
	MaxRate     float64 // play starts a second
	MaxDuration time.Duration
}

// Validate says everything that is wrong with the limits, or nil.
func (l Limits) Validate() error {
	var errs []error
	if !(l.MaxRate >= 0 && l.MaxRate <= MaxRate) {
		errs = append(errs, fmt.Errorf("a ceiling of %v play starts a second, want 0 to %.0f", l.MaxRate, float64(MaxRate)))
	}
	if l.MaxDuration < 0 || l.MaxDuration > MaxDuration {
		errs = append(errs, fmt.Errorf("a ceiling of %v for the load's length, want 0 to %v", l.MaxDuration, MaxDuration))
	}
	return errors.Join(errs...)
}

// Allow says why a load with this peak (play starts a second) and length is above the ceilings, or nil.
func (l Limits) Allow(peak float64, length time.Duration) error {
	var errs []error
	if most := orMost(l.MaxRate, MaxRate); !(peak <= most) {
		errs = append(errs, fmt.Errorf("the load peaks at %.0f play starts a second, above the ceiling of %.0f", peak, most))
	}
	if most := orMost(l.MaxDuration, MaxDuration); length > most {
		errs = append(errs, fmt.Errorf("the load lasts %v, above the ceiling of %v", length, most))
	}
	return errors.Join(errs...)
}

func orMost[T float64 | time.Duration](v, most T) T {
	if v == 0 {
		return most
	}
	return v
}

// UserAgent is what every request of a load calls itself, so that whoever is loaded can tell which run it is: "tminus/v1.2.0
// (run 20261122-1946-title-fight)".
func UserAgent(version, run string) string {
	word := func(s, also string) string {
		s = strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-._"+also, r):
				return r
			}
			return '-'
		}, s)
		return s[:min(len(s), 100)]
	}
	version, _, _ = strings.Cut(version, " ")
	if version == "" {
		version = "unknown"
	}
	if run == "" {
		return "tminus/" + word(version, "+")
	}
	return "tminus/" + word(version, "+") + " (run " + word(run, ":") + ")"
}
