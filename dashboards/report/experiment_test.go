package report

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// sampleCanary is an experiment in which the steady state held and the canary fared worse in some measures.
func sampleCanary() *Report {
	r := sampleGo()
	r.Run, r.Scenario = "20261122-141500-canary-7", "canary"
	r.Reasons = []string{"All 6 objectives were met, through the crash of us-east."}
	held := func(phase string, from, to float64) []SteadyState {
		return []SteadyState{
			{phase, from, to, Objective{Metric: "video_start_failures", Expression: "rate<1%", Measured: 0.02, Threshold: 1, Unit: "%", Samples: 4800, Pass: true}},
			{phase, from, to, Objective{Metric: "rebuffer_ratio", Where: "home=us-west", Expression: "avg<1%", Measured: 0.1, Threshold: 1, Unit: "%", Samples: 19, Pass: true}},
		}
	}
	r.Experiment = &Experiment{
		Strategy: "continuously", SettleS: 5, WindowS: 5, Canary: "us-east", Baseline: "us-west", ComparedFromS: 30.1, ComparedToS: 55.3,
		Stop:  []StopCondition{{Metric: "rebuffer_ratio", Expression: "avg>20%"}, {Metric: "video_start_failures", Expression: "rate>5%"}},
		Watch: &Watch{Looks: 71, EveryS: 0.3, BehindS: 0.84},
		Comparison: []Comparison{
			{Metric: "video_start_failures", Unit: "%", Baseline: Arm{2211, 0}, Canary: Arm{2589, 0.077}, Difference: 0.077, Low: -0.1, High: 0.226, Level: 0.95},
			{Metric: "play_start_time", Unit: "s", Baseline: Arm{2211, 0.0031}, Canary: Arm{2587, 0.0412}, Difference: 0.0381, Low: 0.0311, High: 0.0451, Level: 0.95, Significant: true},
			{Metric: "startup_time", Unit: "s", Baseline: Arm{1, 0.61}, Canary: Arm{0, 0}},
			{Metric: "rebuffer_ratio", Unit: "%", Baseline: Arm{19, 0}, Canary: Arm{21, 3.25}, Difference: 3.25, Low: 0.62, High: 5.88, Level: 0.95, Significant: true},
			{Metric: "live_latency", Unit: "s", Baseline: Arm{19, 6.31}, Canary: Arm{21, 6.52}, Difference: 0.21, Low: -0.13, High: 0.55, Level: 0.95},
			{Metric: "bitrate", Unit: "kb/s", Baseline: Arm{19, 3120}, Canary: Arm{21, 3480}, Difference: 360, Low: 90, High: 630, Level: 0.95, Significant: true, MoreIsGood: true},
			{Metric: "edge_switches", Unit: "count", Baseline: Arm{19, 0}, Canary: Arm{21, 1.1}, Difference: 1.1, Low: 0.92, High: 1.28, Level: 0.95, Significant: true},
		},
	}
	for _, p := range []struct {
		name     string
		from, to float64
	}{{"before", 0, 30.1}, {"during", 30.1, 50.3}, {"after", 55.3, 75}} {
		r.Experiment.SteadyState = append(r.Experiment.SteadyState, held(p.name, p.from, p.to)...)
	}
	return r
}

// sampleStopped is an experiment that a stop condition ended.
func sampleStopped() *Report {
	r := sampleNoGo()
	r.Run, r.Scenario = "20261122-142200-stop-condition-7", "stop-condition"
	r.Experiment = &Experiment{
		Strategy: "continuously", SettleS: 5, WindowS: 5,
		SteadyState: []SteadyState{
			{"before", 0, 30.1, Objective{Metric: "video_start_failures", Expression: "rate<1%", Measured: 0, Threshold: 1, Unit: "%", Samples: 4800, Pass: true}},
			{"during", 30.1, 33.4, Objective{Metric: "video_start_failures", Expression: "rate<1%", Measured: 41, Threshold: 1, Unit: "%", Samples: 800}},
			{"after", 38.4, 75, Objective{Metric: "video_start_failures", Expression: "rate<1%", Threshold: 1, Unit: "%"}},
		},
		Stop:  []StopCondition{{Metric: "video_start_failures", Expression: "rate>20%", Held: true}},
		Watch: &Watch{Looks: 14, EveryS: 0.3, BehindS: 0.61},
		Stopped: &Stopped{AtS: 32.1, Condition: "video_start_failures rate>20%", Metric: "video_start_failures", Expression: "rate>20%", Measured: 22.4, Threshold: 20,
			Unit: "%", Samples: 610, HeldAtS: 31.5, NoticedS: 0.6, UndoneAfterS: 1.72},
	}
	return r
}

func TestExperimentInWords(t *testing.T) {
	canary, stopped := *sampleCanary().Experiment, *sampleStopped().Experiment
	lost := *sampleStopped().Experiment
	lost.SteadyState = lost.SteadyState[:2]
	none := Experiment{Canary: "a", Baseline: "b", Comparison: []Comparison{{Metric: "bitrate", Level: 0.95}, {Metric: "startup_time"}}}
	few := Experiment{Canary: "a", Baseline: "b", Comparison: []Comparison{{Metric: "startup_time"}}}
	better := Experiment{Canary: "a", Baseline: "b", Comparison: []Comparison{{Metric: "startup_time", Difference: -1, Low: -2, High: -0.5, Level: 0.95, Significant: true}}}
	for _, c := range []struct{ got, want string }{
		{canary.SteadyWords(), "steady state held before, during and after the faults"},
		{stopped.SteadyWords(), "steady state lost during the faults"},
		{lost.SteadyWords(), "steady state lost during the faults"},
		{Experiment{SteadyState: stopped.SteadyState[2:]}.SteadyWords(), "steady state not known throughout"},
		{Experiment{}.SteadyWords(), ""},
		{canary.CompareWords(), "us-east against us-west: worse in 3 of 6 measures, most surely edge switches by 1.1 a viewer (+0.92 to +1.28)"},
		{none.CompareWords(), "a against b: no difference in 1 measure"},
		{few.CompareWords(), "a against b: no measure tells a difference"},
		{better.CompareWords(), "a against b: better in 1 of 1 measure"},
		{Experiment{}.CompareWords(), ""},
		{stopped.Stopped.Words(5), "video start failures 22.4 % over 5 s, and over 20 % ends the experiment"},
		{stopped.Stopped.UndoneWords(), "every fault was undone 1.72 s after it held"},
		{Stopped{Metric: "live_latency", Where: "home=a", Expression: "p(95)>30s", Measured: 41, Threshold: 30, Unit: "s"}.Words(10), "live latency (home=a), 95th percentile, 41 s over 10 s, and over 30 s ends the experiment"},
		{Stopped{Blind: "the store did not answer"}.Words(5), "the store did not answer"},
	} {
		if got := strings.ReplaceAll(c.got, "\u00a0", " "); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// The picture: zero is in the middle, the interval lies where it lies, and what crosses zero is told from what does not.
func TestDifferencesAreDrawnAroundZero(t *testing.T) {
	for _, c := range sampleCanary().Experiment.Comparison {
		row := c.row()
		if c.Level == 0 {
			if row.HasInterval || !strings.Contains(row.Interval, "no interval: too few, or all alike") {
				t.Errorf("%s: %+v", c.Metric, row)
			}
			continue
		}
		crosses := row.From < 50 && row.From+row.Width > 50
		if crosses == c.Significant || row.From < 0 || row.From+row.Width > 100 || row.At < row.From || row.At > row.From+row.Width {
			t.Errorf("%s: %+v", c.Metric, row)
		}
		if (c.Difference > 0) != (row.At > 50) {
			t.Errorf("%s: a difference of %v is drawn at %v", c.Metric, c.Difference, row.At)
		}
	}
	same := Comparison{Metric: "edge_switches", Unit: "count", Baseline: Arm{5, 0}, Canary: Arm{5, 0}, Level: 0.95}.row()
	if same.From != 50 || same.Width != 0 || same.At != 50 || same.Tone != "none" {
		t.Errorf("no difference at all: %+v", same)
	}
}

func TestPageShowsTheExperiment(t *testing.T) {
	said := func(r *Report) string { return strings.ReplaceAll(text(parsePage(t, r)), "\u00a0", " ") }
	page := said(sampleCanary())
	for _, want := range []string{"Steady state held before, during and after the faults", "no difference shown", "worse, +0.62", "no interval: too few, or all alike", "rebuffer_ratio avg>20%"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	page = said(sampleStopped())
	for _, want := range []string{"Stopped at T+32 s: video start failures 22.4 % over 5 s", "Every fault was undone 1.72 s after it held, 0.6 s of it until it was seen."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	unseen := sampleCanary()
	unseen.Experiment.Stop[1].NeverMeasured = true
	page = said(unseen)
	for _, want := range []string{"Nothing was measured for the stop condition video_start_failures rate>5%.", "never measured", "stop condition not measured"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if cases := unseen.Experiment.junit(); !slices.ContainsFunc(cases, func(c junitCase) bool {
		return c.Name == "stop condition: video_start_failures rate>5%" && c.Error != nil && c.Error.Type == "stop-condition-unknown"
	}) {
		t.Errorf("junit.xml has no error for it: %+v", cases)
	}
	if strings.Contains(said(sampleGo()), "Experiment") {
		t.Error("a rehearsal without an experiment shows one")
	}
}

func TestExperimentWithoutNumbers(t *testing.T) {
	r := sampleCanary()
	r.Experiment.SteadyState[0].Measured = math.NaN()
	r.Experiment.Comparison[1].High = math.Inf(1)
	c, bad := r.Finite()
	if s := c.Experiment.SteadyState[0]; s.Pass || s.Samples != 0 || s.State() != NoData {
		t.Errorf("%+v", s)
	}
	if d := c.Experiment.Comparison[1]; d.Significant || d.Level != 0 {
		t.Errorf("%+v", d)
	}
	if len(bad) != 2 || bad[0] != "experiment.steady_state[0].measured" || bad[1] != "experiment.comparison[1].high" {
		t.Errorf("%q", bad)
	}
	if !r.Experiment.Comparison[1].Significant {
		t.Error("the report itself was changed")
	}
}
