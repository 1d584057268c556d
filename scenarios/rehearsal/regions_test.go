package rehearsal

import (
	"log/slog"
	"testing"

	"github.com/tminus-live/tminus/reference/pipeline"
)

// What was killed is back when it answers: its first segment, which it has to make, is over only later.
func TestARegionThatWasThereBeforeKnowsIt(t *testing.T) {
	cfg := pipeline.Config{Regions: pipeline.Regions(0, []string{"here"}, map[string]int{"here": 1}), LeadIn: leadIn}
	r := newRegion(RegionConfig{Pipeline: cfg}, t.TempDir(), slog.New(slog.DiscardHandler))
	for _, want := range []string{"false", "true", "true"} {
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.proc.Info()["again"]; got != want {
			t.Errorf("again: %q, want %q", got, want)
		}
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}
