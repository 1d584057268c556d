package rehearsal

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/progress"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
)

// onAir is the phase from T-0 on.
const onAir = "on air"

// state is what a terminal shows of a run while it goes on. It is fed from several goroutines.
type state struct {
	mu     sync.Mutex
	shown  progress.State
	zero   time.Time
	people *crowd
	ops    *control
	faults []faultClock

	telemetry func() (emitted, stored uint64)
}

// faultClock is where a fault stands and when its next change is due.
type faultClock struct {
	id, name, state string
	at, until       time.Duration // from T-0
}

// open reports whether nobody has said yet what became of the fault.
func (f faultClock) open() bool {
	return !slices.Contains([]string{chaos.Confirmed, chaos.Mismatch, chaos.Inconclusive}, f.state)
}

func (s *state) init(sc *spec.Scenario, run string) {
	s.shown = progress.State{Scenario: sc.Name, Run: run, EventDuration: sc.Event.Duration, Players: sc.Audience.Players}
	for _, f := range sc.Faults {
		s.faults = append(s.faults, faultClock{f.ID, fmt.Sprintf("%s of %s", f.Model, f.Where), "waiting", f.At, f.At + f.For})
	}
}

func (s *state) phase(name, doing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown.Phase, s.shown.Doing = name, doing
}

func (s *state) begins(zero time.Time, people *crowd, ops *control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zero, s.people, s.ops = zero, people, ops
}

func (s *state) watchTelemetry(counts func() (emitted, stored uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.telemetry = counts
}

// fault takes a change of a fault's state.
func (s *state) fault(id, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.faults {
		if s.faults[i].id == id {
			s.faults[i].state = status
		}
	}
}

// experiment takes a decision about an experiment.
func (s *state) experiment(status, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown.Experiment = "stopped: " + why; status == unsteady {
		s.shown.Experiment = "nothing is broken: " + why
	}
}

// at is the state at one moment.
func (s *state) at(now time.Time) progress.State {
	s.mu.Lock()
	telemetry := s.telemetry
	s.mu.Unlock()
	var emitted, stored uint64
	if telemetry != nil { // it reads files: not while a fault waits for the lock to say how it goes
		emitted, stored = telemetry()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.shown
	v.Emitted, v.Stored = emitted, stored
	if v.Phase == "drain" {
		v.Draining = progress.Draining{Emitted: emitted, Stored: stored}
	}
	var elapsed time.Duration
	if !s.zero.IsZero() {
		elapsed = now.Sub(s.zero)
		v.OnAir, v.EventElapsed = true, elapsed
	}
	if v.Phase == onAir && elapsed >= v.EventDuration {
		v.Phase, v.Doing = "event over", "waiting for the last answers"
		if slices.ContainsFunc(s.faults, faultClock.open) {
			v.Doing = "watching the last fault to its end"
		}
	}
	for _, f := range s.faults {
		p := progress.Fault{ID: f.id, Name: f.name, State: f.state}
		switch f.state {
		case "waiting":
			p.Left = f.at
			if v.OnAir {
				p.Left = max(0, f.at-elapsed)
			}
		case "injected":
			p.Left = max(0, f.until-elapsed)
		}
		v.Faults = append(v.Faults, p)
	}
	if s.people == nil {
		return v
	}
	starts := s.people.startsNow()
	v.PlayStartsPerSecond, v.FailuresPerSecond = starts.okRate, starts.failRate
	v.PlayStarts = starts.counts
	v.Requests = starts.requests
	ops := s.ops.now()
	v.Capacity, v.Levers, v.Warnings = ops.capacity, ops.levers, ops.warnings
	seen := s.people.players()
	v.Sessions, v.Rebuffering = seen.OnAir(), seen.Rebuffering
	v.QoE = progress.QoE{
		Known:         seen.PlayingTime > 0,
		StartupP95:    seen.StartupP95,
		RebufferRatio: 100 * seen.RebufferRatio,
		LatencyP50:    seen.LatencyP50,
		LatencyP95:    seen.LatencyP95,
	}
	return v
}

// startsNow is how the open-loop play starts go.
type startsNow struct {
	counts           report.PlayStarts
	okRate, failRate float64 // a second
	requests         float64 // a second, with every retry
}

// faultWatch passes events on and keeps the faults' states for the terminal.
type faultWatch struct {
	event.Sink
	state *state
}

func (w faultWatch) Emit(e event.Event) {
	switch e.Kind {
	case event.Fault:
		w.state.fault(e.Fault, e.Status)
	case event.Experiment:
		w.state.experiment(e.Status, e.Detail)
	}
	w.Sink.Emit(e)
}

// State is what a terminal shows of the run at now.
func (r *Rehearsal) State(now time.Time) progress.State { return r.state.at(now) }
