package progress

import (
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
)

// State is what is known of a run at one moment. Zero fields mean "not yet known"; the panel leaves them out.
type State struct {
	Scenario string
	Run      string // run id
	Phase    string // a word or two, as written in the timeline: "prepare", "countdown", "on air", "event over", "drain", "verdict"
	Doing    string // one clause of detail: "starting region us-west (2 of 2)"

	OnAir         bool          // the event's clock is known: EventElapsed means something
	EventElapsed  time.Duration // from the start of the event; negative before it (countdown)
	EventDuration time.Duration

	PlayStartsPerSecond float64 // completed ok, over the last second
	FailuresPerSecond   float64 // failed, shed or dropped, over the last second
	PlayStarts          report.PlayStarts
	Requests            float64  // play requests sent over the last second, with every retry and return; shown where it is more than the play starts
	Capacity            float64  // play starts a second that all regions together can take; 0: no bound, or not known
	Levers              []string // engaged now, in the order in which they are pulled: "bookmarks"
	Warnings            []string // of the nowcast, the newest last

	Sessions    int // players on the air now
	Players     int // players the scenario asks for
	Rebuffering int // of Sessions, now

	QoE QoE

	Experiment string // what ended it early: "stopped: rebuffer_ratio avg>20% over 5s"; "": nothing did

	Faults []Fault // in scenario order; all of them, whatever their state

	Emitted uint64 // telemetry events written so far
	Stored  uint64 // telemetry events readable in the store so far

	Draining Draining // how far the store is with what has been emitted, once the event is over; zero: not draining
}

// Draining is what is waited for when a crowd has gone: its events on their way to the store.
type Draining struct{ Emitted, Stored uint64 }

// QoE is what viewers feel now. Known is false until somebody has reported.
type QoE struct {
	Known         bool
	StartupP95    time.Duration
	RebufferRatio float64 // per cent of session time
	LatencyP50    time.Duration
	LatencyP95    time.Duration
}

// Fault is one fault of the scenario as it stands now.
type Fault struct {
	ID    string        // "region-1"
	Name  string        // "crash of us-east"
	State string        // waiting | injecting | injected | restoring | restored | confirmed | mismatch | inconclusive | failed
	Left  time.Duration // until the next change: to its start while waiting, to its end while injected; 0: unknown
}
