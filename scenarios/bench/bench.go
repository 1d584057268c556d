package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Limits and defaults of Options.
const (
	// Many short rounds, both sides in each: a ratio says something only where both its sides met the same conditions.
	DefaultSeconds = 2.0
	DefaultRounds  = 5
	minSeconds     = 0.2
	maxSeconds     = 60.0
	minRounds      = 3 // a median of fewer is none
	maxRounds      = 99
)

// ErrInvalid: a measurement was worth nothing, or a peer is missing; Report.Problems says which and why.
var ErrInvalid = errors.New("the benchmark is not valid")

// Options of a benchmark.
type Options struct {
	Seconds float64               // of each measurement in each round; 0: DefaultSeconds
	Rounds  int                   // 0: DefaultRounds
	Peers   string                // folder that holds the peers' binaries; "": where install.sh puts them
	Tell    func(sentence string) // progress, for a person; nil: silent
	Log     *slog.Logger          // nil: silent
}

// Validate fills in the defaults, and reports everything that is wrong at once.
func (o *Options) Validate() error {
	if o.Seconds == 0 {
		o.Seconds = DefaultSeconds
	}
	if o.Rounds == 0 {
		o.Rounds = DefaultRounds
	}
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if !(o.Seconds >= minSeconds && o.Seconds <= maxSeconds) {
		errs = append(errs, fmt.Errorf("a measurement takes %g to %g seconds, not %g", minSeconds, maxSeconds, o.Seconds))
	}
	if o.Rounds < minRounds || o.Rounds > maxRounds {
		errs = append(errs, fmt.Errorf("there are %d to %d rounds, not %d", minRounds, maxRounds, o.Rounds))
	}
	return errors.Join(errs...)
}

func (o Options) duration() time.Duration { return time.Duration(o.Seconds * float64(time.Second)) }

// Benchmark is one thing to measure.
type Benchmark struct {
	Name  string
	About string // one line
	// Run measures. The report is whole also when the error is ErrInvalid.
	Run func(context.Context, Options) (*Report, error)
}

// All lists the benchmarks.
func All() []Benchmark {
	return []Benchmark{
		{"play-starts", "play starts a second over real sockets, against bare system calls, vegeta and k6", playStarts},
		{"loss", "packets a second that the kernel loses some of, against the same with no fault; and what a user-space relay passes", loss},
		{"relay", "packets a second that one core relays in user space, against a bare hop: the same two system calls a packet", relayAlone},
	}
}

// Find returns a benchmark by name; the error is one sentence that names those there are.
func Find(name string) (Benchmark, error) {
	all := All()
	if i := slices.IndexFunc(all, func(b Benchmark) bool { return b.Name == name }); i >= 0 {
		return all[i], nil
	}
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = b.Name
	}
	return Benchmark{}, fmt.Errorf("there is no benchmark %q; there is %s", name, strings.Join(names, ", "))
}
