package rehearsal

import (
	"slices"
	"testing"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// What many levers in many regions do at once is one thing to tell.
func TestStoryJoinsLevers(t *testing.T) {
	got := pulls([]pull{
		{15.3, "us-west", "bookmarks", "load", false}, {15.4, "us-east", "bookmarks", "load", false}, {15.5, "us-east", "top-rung", "load", false},
		{75.8, "us-west", "top-rung", "load", true}, {90, "us-west", "bookmarks", "operator", true},
	})
	want := []line{
		{15.3, "Regions us-east and us-west pull the levers bookmarks, top-rung, moved by load."},
		{75.8, "Region us-west lets go of the lever top-rung, moved by load."}, {90, "Region us-west lets go of the lever bookmarks, moved by operator."},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := pulls(nil); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestStoryTellsOfGrowth(t *testing.T) {
	got := growths([]report.Scaling{{T: 0, Region: "a", Capacity: 1500}, {T: 0, Region: "b", Capacity: 1500}, {T: 16, Region: "a", Capacity: 2000}, {T: 90, Region: "a", Capacity: 500}})
	if want := []line{{16, "a grow from 1,500 to 2,000 play starts a second"}, {90, "a shrink from 2,000 to 500 play starts a second"}}; !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 6000000: "6,000,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

func TestStorm(t *testing.T) {
	seconds := make([]qoe.LoadSecond, 60)
	for i := range seconds {
		seconds[i] = qoe.LoadSecond{Scheduled: 100, Requests: 100}
	}
	seconds[30].Requests, seconds[31].Requests, seconds[32].Requests = 1000, 250, 200
	seconds[50].Requests = 9999 // of the next one
	s := storm(spec.Interruption{At: 30 * time.Second, Region: "us-east", Viewers: 900, Guided: true}, 50*time.Second, seconds)
	if s.BasePerS != 100 || s.PeakPerS != 1000 || s.Amplification != 10 || s.AboveS != 2 || len(s.Series) != 30 || s.Series[10] != 1000 {
		t.Errorf("%+v", s)
	}
	// One at the very beginning has nothing to be compared with, and says so by 0.
	if s := storm(spec.Interruption{}, 5*time.Second, seconds); s.BasePerS != 0 || s.Amplification != 0 || s.PeakPerS != 100 {
		t.Errorf("%+v", s)
	}
	// An event that was cut short has no seconds there.
	if s := storm(spec.Interruption{At: 70 * time.Second}, 90*time.Second, seconds); s.Amplification != 0 || s.PeakPerS != 0 {
		t.Errorf("%+v", s)
	}
}
