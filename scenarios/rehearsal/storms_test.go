package rehearsal

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

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
