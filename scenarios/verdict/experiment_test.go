package verdict

import (
	"strings"
	"testing"

	"github.com/tminus-live/tminus/dashboards/report"
)

// tried is a run whose experiment went well; tests spoil one thing each.
func tried() *report.Report {
	r := survived()
	r.Experiment = &report.Experiment{Strategy: "continuously", WindowS: 5, Stop: []report.StopCondition{{Metric: "rebuffer_ratio", Expression: "avg>20%"}}}
	for _, phase := range []string{"before", "during", "after"} {
		r.Experiment.SteadyState = append(r.Experiment.SteadyState, report.SteadyState{Phase: phase, Objective: report.Objective{
			Metric: "rebuffer_ratio", Where: "home=us-west", Expression: "avg<1%", Measured: 0.2, Threshold: 1, Unit: "%", Samples: 40, Pass: true}})
	}
	return r
}

func TestDecideAnExperiment(t *testing.T) {
	miss := func(i int) func(*report.Report) {
		return func(r *report.Report) { s := &r.Experiment.SteadyState[i]; s.Measured, s.Pass = 3, false }
	}
	stop := func(r *report.Report) {
		r.Experiment.Stopped = &report.Stopped{AtS: 32.4, Condition: "rebuffer_ratio avg>20%", Metric: "rebuffer_ratio", Expression: "avg>20%", Measured: 24, Threshold: 20, Unit: "%", Samples: 40, UndoneAfterS: 0.9}
	}
	for _, c := range []struct {
		name  string
		spoil func(*report.Report)
		want  string
		exit  int
		why   string
	}{
		{"all well", func(*report.Report) {}, report.Go, 0, "the objective was met, through the crash of us-east; steady state held before, during and after the faults"},
		{"not well before", miss(0), report.Inconclusive, 98, "the system was not in its steady state before anything was broken: Rebuffering (home=us-west): 3 %, must be under 1 %"},
		{"not well during", miss(1), report.NoGo, 99, "the steady state did not hold during the faults: Rebuffering (home=us-west): 3 %, must be under 1 %"},
		{"not well after", miss(2), report.NoGo, 99, "the steady state did not hold after the faults: Rebuffering (home=us-west): 3 %, must be under 1 %"},
		{"unknown before", func(r *report.Report) { r.Experiment.SteadyState[0].Samples = 0 }, report.Inconclusive, 98, "nothing tells whether the system was in its steady state"},
		{"unknown after", func(r *report.Report) { r.Experiment.SteadyState[2].Samples = 0 }, report.Inconclusive, 98, "nothing was measured for rebuffer_ratio{home=us-west} avg<1% after the faults"},
		{"a stop condition that nothing was measured for", func(r *report.Report) { r.Experiment.Stop[0].NeverMeasured = true }, report.Inconclusive, 98,
			"nothing was measured for the stop condition rebuffer_ratio avg>20%: nobody could tell whether to stop"},
		{"stopped, and nothing was measured for another condition", func(r *report.Report) {
			stop(r)
			r.Experiment.Stop = append(r.Experiment.Stop, report.StopCondition{Metric: "send_lag", NeverMeasured: true})
		}, report.NoGo, 99, "the experiment was stopped"},
		{"nothing was broken", func(r *report.Report) {
			r.Experiment.NotInjected = NotSteady + ": x"
			r.Faults[0].ForS, r.Faults[0].Evidence.Status = 0, "inconclusive"
		}, report.Inconclusive, 98, "the system was not in its steady state before anything was broken: x"},
		{"stopped", stop, report.NoGo, 99, "the experiment was stopped at T+32 s: rebuffering 24 % over 5 s, and over 20 % ends the experiment; every fault was undone 0.9 s after it held"},
		{"stopped before a fault was due", func(r *report.Report) {
			stop(r)
			later := r.Faults[0]
			later.ForS, later.Evidence.Status = 0, "inconclusive"
			r.Faults = append(r.Faults, later)
		}, report.NoGo, 99, "the experiment was stopped"},
		{"stopped, by a fault that nothing proves", func(r *report.Report) { stop(r); r.Faults[0].Evidence.Status = "mismatch" }, report.Inconclusive, 98, "the crash of us-east did not do what it should"},
		{"stopped before the fault could be measured", func(r *report.Report) {
			stop(r)
			r.Faults[0].ForS, r.Faults[0].Evidence.Status = 1.2, "inconclusive"
		}, report.NoGo, 99, "the experiment was stopped"},
		{"stopped, and the fault was there for long enough to be measured", func(r *report.Report) {
			stop(r)
			r.Faults[0].ForS, r.Faults[0].Evidence.Status = 2.2, "inconclusive"
		}, report.Inconclusive, 98, "nothing proves that the crash of us-east happened"},
		{"blind", func(r *report.Report) {
			r.Experiment.Stopped = &report.Stopped{AtS: 30, Blind: "the stop conditions could not be watched"}
		}, report.Inconclusive, 98, "the experiment was stopped at T+30 s: the stop conditions could not be watched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := tried()
			c.spoil(r)
			got, reasons := Decide(r)
			if got != c.want || ExitCode(got) != c.exit {
				t.Errorf("verdict %s (exit %d), want %s (exit %d): %q", got, ExitCode(got), c.want, c.exit, reasons)
			}
			if why := strings.ReplaceAll(reasons[0], "\u00a0", " "); !strings.HasPrefix(why, c.why) {
				t.Errorf("reason %q, want %q", why, c.why)
			}
		})
	}
}
