package rehearsal

import (
	"fmt"
	"sync"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

// ahead is how far before its time the nowcast's word on a rate is kept for the report.
const ahead = 30 * time.Second

// nowcast corrects the scenario's forecast from what the playback services see, and asks for the capacity it takes. It
// decides by the time and the rates it is given alone.
type nowcast struct {
	sc      *spec.Scenario
	regions []string
	cast    *forecast.Nowcast

	mu       sync.Mutex
	capacity []float64 // by region, as asked for last
	scaling  []report.Scaling
	warnings []warning
	kept     map[int]float64 // predicted ahead, by second of the event
}

func newNowcast(sc *spec.Scenario) (*nowcast, error) {
	f := sc.Audience.Forecast
	homes, err := audience.Homes(sc.Audience.Mix, sc.Topology.Regions)
	if err != nil {
		return nil, err
	}
	instance := sc.Playback.Instance
	if instance == 0 {
		instance = max(1, f.Result.Peak.P90/float64(len(homes))/10) // nothing is scaled: only the event's size is wanted
	}
	cast, err := forecast.NewNowcast(forecast.NowcastConfig{
		Points: f.Curve, Sigma: f.Result.Sigma, Regions: homes, InstanceRate: instance, Lead: sc.Playback.Lead,
	})
	if err != nil {
		return nil, fmt.Errorf("the forecast cannot be followed: %w", err)
	}
	return &nowcast{sc: sc, regions: sc.Topology.Regions, cast: cast, capacity: make([]float64, len(homes)), kept: map[int]float64{}}, nil
}

// start is the capacity of each region at T-0, play starts a second; 0: not bounded. Of nothing that was forecast it is nil.
func (n *nowcast) start() []float64 {
	if n == nil {
		return nil
	}
	return n.step(0, nil)
}

// step takes in what was offered since the last step, play starts by region, and returns the capacity that each region is to
// have, play starts a second; 0: as it is.
func (n *nowcast) step(since time.Duration, offered []float64) []float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if offered != nil {
		if err := n.cast.Observe(since, offered); err != nil {
			n.warn(since, err.Error())
			return n.capacity
		}
	}
	sum := 0.0
	for i := range n.regions {
		sum += n.cast.Predict(i, since+ahead).P50
	}
	n.kept[int((since+ahead)/time.Second)] = sum
	plan := n.cast.Plan(since)
	for _, w := range plan.Warnings {
		if n.sc.Playback.Instance > 0 || w.Region == "" { // of instances that there are not, nobody need be warned
			n.warn(since, w.Text)
		}
	}
	if n.sc.Playback.Instance == 0 {
		return n.capacity
	}
	for i, r := range plan.Regions {
		if c := float64(r.Ready) * n.sc.Playback.Instance; c != n.capacity[i] {
			n.capacity[i] = c
			n.scaling = append(n.scaling, report.Scaling{T: since.Seconds(), Region: r.Region, Capacity: c})
		}
	}
	return n.capacity
}

func (n *nowcast) warn(since time.Duration, text string) {
	n.warnings = append(n.warnings, warning{since, text})
}

// warning is a sentence for the control room.
type warning struct {
	at   time.Duration
	text string
}

func (w warning) String() string { return fmt.Sprintf("T+%d s: %s", int(w.at.Seconds()), w.text) }

// warned lists the warnings so far.
func (n *nowcast) warned() (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.warnings {
		out = append(out, w.String())
	}
	return out
}

// capacityAt is the capacity of all regions together at a time of the event.
func (n *nowcast) capacityAt(since time.Duration) float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	by := map[string]float64{}
	for _, s := range n.scaling {
		if s.T <= since.Seconds() {
			by[s.Region] = s.Capacity
		}
	}
	sum := 0.0
	for _, c := range by {
		sum += c
	}
	return sum
}

// report puts the forecast beside the play starts that came in each second.
func (n *nowcast) report(perSecond []float64) *report.Forecast {
	warned := n.warned()
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.sc.Audience.Forecast
	bins, far := forecast.Compare(f.Curve, perSecond)
	near, _ := n.cast.Score()
	out := &report.Forecast{
		Kind: f.Result.Kind, Viewers: f.Result.Total.P50, PeakPerS: f.Result.Peak.P50,
		ErrorPct: far.WAPE, NowcastPct: near.WAPE, Warnings: warned, Scaling: n.scaling,
	}
	for _, rate := range perSecond {
		out.ActualPerS = max(out.ActualPerS, rate)
	}
	width := forecast.CompareBin.Seconds()
	for _, b := range bins {
		middle := f.From + b.At + forecast.CompareBin/2
		bin := report.Bin{T: b.At.Seconds(), P50: b.Forecast / width, P90: f.Result.Rate(middle).P90, Actual: b.Actual / width, Nowcast: -1}
		seen, total := 0, 0.0
		for t := int(b.At / time.Second); t < int((b.At+forecast.CompareBin)/time.Second); t++ {
			if v, ok := n.kept[t]; ok {
				seen++
				total += v
			}
		}
		if seen > 0 {
			bin.Nowcast = total / float64(seen)
		}
		out.Bins = append(out.Bins, bin)
	}
	return out
}
