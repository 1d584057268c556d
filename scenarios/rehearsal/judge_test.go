package rehearsal

import (
	"os/exec"
	"testing"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
)

// The report of a run that pods sent names what they loaded, which its scenario does not know.
func TestLoadedNamesWhatPodsSentTo(t *testing.T) {
	tp, _ := path(t)
	if got, err := loaded(t.Context(), tp.db, "r"); err != nil || got != "unknown: no play start was answered" {
		t.Errorf("%q, %v", got, err)
	}
	for _, edge := range []string{"127.0.2.5:8080", "127.0.1.5:8080", "127.0.1.5:8080", ""} {
		tp.sink.Emit(event.Event{Kind: event.PlayStart, Status: "ok", Edge: edge})
	}
	if _, err := tp.drain(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got, err := loaded(t.Context(), tp.db, "r"); err != nil || got != "127.0.1.5:8080, 127.0.2.5:8080" {
		t.Errorf("%q, %v", got, err)
	}
}

// The store is one of the run's processes, and it has not ended while it is asked for the report.
func TestSafetyCountsTheStore(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	r := &Rehearsal{cfg: Config{Scenario: &spec.Scenario{}}, telemetry: &telemetryPath{}}
	out := outcome{ids: []process.ID{{Name: "starts", PID: gone.Process.Pid, Started: 1}}}
	detail := func() string {
		for _, c := range r.safety(out, ledger{}) {
			if c.Name == "no process of the run is left" && c.Pass {
				return c.Detail
			}
		}
		return ""
	}
	if got := detail(); got != "1 started, all ended" {
		t.Errorf("with somebody else's store: %q", got)
	}
	r.telemetry.process = &process.Process{}
	if got := detail(); got != "2 started, all ended but the store, which ends last" {
		t.Errorf("with a store of its own: %q", got)
	}
}
