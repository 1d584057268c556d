package rehearsal

import (
	"log/slog"
	"slices"
	"testing"
)

// An experiment goes on without those who have said all that they had to say: nobody waits to hear from them.
func TestACrowdThatHasComeIsNoSourceAnyMore(t *testing.T) {
	c := crowd{starts: &startsProcess{folder: t.TempDir(), log: slog.New(slog.DiscardHandler), cfg: StartsConfig{Events: EventsConfig{Source: "starts#1"}}}}
	if got := c.sources(); !slices.Equal(got, []string{"starts#1"}) {
		t.Errorf("before: %q", got)
	}
	if err := c.starts.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.sources(); len(got) != 0 {
		t.Errorf("after the last play start: %q", got)
	}
	if got := (&crowd{}).sources(); len(got) != 0 {
		t.Errorf("without play starts: %q", got)
	}
}
