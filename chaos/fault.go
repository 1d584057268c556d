package chaos

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

var (
	// ErrUnknown: no such kind, model or target; the sentence names what there is.
	ErrUnknown = errors.New("unknown")
	// ErrRefused: the fault would reach beyond the rehearsal's own addresses.
	ErrRefused = errors.New("refused")
	// ErrUnsupported: this machine or this user cannot inject the fault; the sentence says what is lacking.
	ErrUnsupported = errors.New("cannot be injected here")
	// ErrNotRestored: a fault could not be undone.
	ErrNotRestored = errors.New("not restored")
)

// Fault is one thing to break, as data.
type Fault struct {
	ID    string        // "region-1"; unique within a run
	At    time.Duration // when, from the start of the event
	For   time.Duration // how long
	Fail  string        // kind: "region"
	Where string        // what of that kind: a region's name
	Model string        // form of the kind: "crash", "cut"; "" = the kind's first
}

// Injector applies one fault and takes it back.
type Injector interface {
	// Inject returns when the fault is in effect. After an error it may be so in part; Restore is called all the same.
	Inject(ctx context.Context) error
	// Restore returns when the fault is undone. It may be called again after an error, and when there is nothing to undo.
	Restore(ctx context.Context) error
}

// Observer measures one fault's effect without help from its injector.
type Observer interface {
	// Watch measures until ctx ends; its goroutines have ended when it returns.
	Watch(ctx context.Context)
	// Judge says what the measurements, all of them taken, prove about the fault.
	Judge(Window) Evidence
}

// Window is when one fault's calls began and returned. Zero: did not happen.
type Window struct {
	Inject, Injected  time.Time
	Restore, Restored time.Time
}

// Evidence statuses.
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

// Result is what became of one fault.
type Result struct {
	Fault    Fault
	AtS      float64 // when it was in effect, in seconds from the start of the event; as scheduled if it never was
	ForS     float64 // from then until it was undone, in seconds; 0 if it never was in effect
	Evidence Evidence
	Restored bool // undone, or never injected
	Err      error
	Links    []uint32 // ids of the bpf links it made in the kernel, for Leftovers
}

// Region is a region as faults see it: a set of processes and a block of addresses. The run supplies it; its methods
// are called by one goroutine at a time, except Name, Prefix, Endpoints and Alive.
type Region interface {
	Name() string
	// Prefix is the block of addresses that the region, and nobody else, uses.
	Prefix() netip.Prefix
	// Kill ends the region's processes with SIGKILL and returns when they are gone.
	Kill() error
	// Start starts them again and returns when they serve.
	Start(ctx context.Context) error
	// Alive reports whether all of them run.
	Alive() bool
	// Endpoints are the addresses viewers connect to (edges, playback), which answer GET /healthz.
	Endpoints() []netip.AddrPort
}
