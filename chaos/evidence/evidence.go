package evidence

import (
	"errors"
	"time"
)

var (
	// ErrUnknown: no such kind, model, parameter or target; the sentence names what there is.
	ErrUnknown = errors.New("unknown")
	// ErrRefused: the fault would reach beyond what belongs to the run.
	ErrRefused = errors.New("refused")
	// ErrUnsupported: this machine or this user cannot inject the fault; the sentence says what is lacking.
	ErrUnsupported = errors.New("cannot be injected here")
)

// Window is when one fault's calls began and returned. Zero: did not happen.
type Window struct {
	Inject, Injected  time.Time
	Restore, Restored time.Time
}

// Statuses.
const (
	Confirmed    = "confirmed"    // measured as the fault promises
	Mismatch     = "mismatch"     // measured, and something else happened
	Inconclusive = "inconclusive" // could not be measured
)

// Evidence is an independent measurement of a fault's effect. Its fields are those of a report's evidence.
type Evidence struct {
	Status   string // Confirmed, Mismatch or Inconclusive
	Expected float64
	Measured float64
	Unit     string // "% of probes"
	Detail   string // one sentence
}
