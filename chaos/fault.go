package chaos

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

var (
	ErrUnknown     = evidence.ErrUnknown
	ErrRefused     = evidence.ErrRefused
	ErrUnsupported = evidence.ErrUnsupported
	// ErrNotRestored: a fault could not be undone.
	ErrNotRestored = errors.New("not restored")
)

// Fault is one thing to break, as data.
type Fault struct {
	ID     string            // "region-1"; unique within a run
	At     time.Duration     // when, from the start of the event
	For    time.Duration     // how long
	Fail   string            // kind: "region"
	Where  string            // what of that kind: the name of a part
	Model  string            // form of the kind: "crash", "cut"; "" = the kind's first
	Params map[string]string // the model's parameters as written; Complete fills in those left out
	Files  map[string]string // by parameter of TypeFile: what the file that it names holds
	Seed   uint64            // of what is left to chance
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

// What is said about a fault; see the package evidence.
type (
	Window   = evidence.Window
	Evidence = evidence.Evidence
)

// Evidence statuses.
const (
	Confirmed    = evidence.Confirmed
	Mismatch     = evidence.Mismatch
	Inconclusive = evidence.Inconclusive
)

// Result is what became of one fault.
type Result struct {
	Fault    Fault
	Means    string  // how it was done, where there are several ways: "a relay for streams in user space"
	AtS      float64 // when it was in effect, in seconds from the start of the event; as scheduled if it never was
	ForS     float64 // from then until it was undone, in seconds; 0 if it never was in effect as a whole
	Begun    bool    // something was done, if only a part of it
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
	// Start starts them again and returns when they answer.
	Start(ctx context.Context) error
	// Alive reports whether all of them run.
	Alive() bool
	// Endpoints are the addresses viewers connect to (edges, playback), which answer GET /healthz.
	Endpoints() []netip.AddrPort
}
