package rehearsal

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/scenarios/spec"
)

const launch = `apiVersion: tminus/v1
name: launch
event: {duration: 120s}
topology: {regions: [us-east, us-west]}
playback: {instance: 500, lead: 10s}
audience:
  forecast: {kind: launch, viewers: 400000, from: -60s}
  starts: [{at: 0s, curve: forecast, times: 2}]
objectives: {video_start_failures: ["rate<0.1%"]}
`

// An event twice as large as forecast: capacity is ahead of what comes, and the report shows the forecast's error.
func TestNowcastScalesAhead(t *testing.T) {
	sc, err := spec.Read("launch.yaml", []byte(launch), nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNowcast(sc)
	if err != nil {
		t.Fatal(err)
	}
	schedule, err := sc.Audience.Schedule(sc.Event.Duration)
	if err != nil {
		t.Fatal(err)
	}
	capacity := n.start()
	first := capacity[0] + capacity[1]
	if peak := sc.Audience.Forecast.Result.Peak.P50; first < peak/2 || first > 3*peak {
		t.Errorf("%.0f a second at T-0 where %.0f are expected at the peak", first, peak)
	}
	var came []float64
	short := 0
	for s := 1; s <= 120; s++ {
		rate := schedule.Rate(time.Duration(s)*time.Second - time.Second/2)
		came = append(came, rate)
		if rate > capacity[0]+capacity[1] {
			short++
		}
		capacity = n.step(time.Duration(s)*time.Second, []float64{rate * 54 / 100, rate * 46 / 100})
	}
	if short > 20 {
		t.Errorf("short of capacity for %d of 120 s", short)
	}
	if len(n.warned()) == 0 {
		t.Error("nobody was warned")
	}
	f := n.report(came)
	if f.ErrorPct < 40 || f.ErrorPct > 60 { // half of what came was not forecast
		t.Errorf("forecast error %.0f %%", f.ErrorPct)
	}
	if f.NowcastPct >= f.ErrorPct/2 {
		t.Errorf("the nowcast's error of %.0f %% is not much better than the forecast's %.0f %%", f.NowcastPct, f.ErrorPct)
	}
	if len(f.Scaling) < 3 || len(f.Bins) != 24 || f.Bins[1].Nowcast != -1 || f.Bins[10].Nowcast <= 0 {
		t.Errorf("%d steps of capacity, %d bins: %+v", len(f.Scaling), len(f.Bins), f.Bins)
	}
}
