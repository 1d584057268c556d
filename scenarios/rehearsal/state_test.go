package rehearsal

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Past the end of the event nobody is told that it is on the air: what is waited for is said.
func TestStateSaysWhatIsWaitedFor(t *testing.T) {
	zero := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		at           time.Duration
		fault        string
		phase, doing string
	}{
		{59 * time.Second, "restored", "on air", ""},
		{60 * time.Second, "injected", "event over", "watching the last fault to its end"},
		{66 * time.Second, "restored", "event over", "watching the last fault to its end"},
		{66 * time.Second, chaos.Inconclusive, "event over", "waiting for the last answers"},
	} {
		var s state
		s.init(&spec.Scenario{Event: spec.Event{Duration: time.Minute}, Faults: []spec.Fault{{ID: "kafka-1"}}}, "r")
		s.begins(zero, nil, nil)
		s.phase(onAir, "")
		s.fault("kafka-1", c.fault)
		if v := s.at(zero.Add(c.at)); v.Phase != c.phase || v.Doing != c.doing {
			t.Errorf("%+v: %s: %s", c, v.Phase, v.Doing)
		}
	}
}

// A decision about an experiment is told on the way.
func TestStateSaysWhatEndedTheExperiment(t *testing.T) {
	for status, want := range map[string]string{unsteady: "nothing is broken: because", "stopped": "stopped: because", "blind": "stopped: because"} {
		var s state
		faultWatch{event.Discard, &s}.Emit(event.Event{Kind: event.Experiment, Status: status, Detail: "because"})
		if got := s.at(time.Now()).Experiment; got != want {
			t.Errorf("%s: %q, want %q", status, got, want)
		}
	}
}
