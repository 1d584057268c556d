package progress

import (
	"strings"
	"testing"

	"github.com/tminus-live/tminus/dashboards/report"
)

func TestSummaryOfAnExperiment(t *testing.T) {
	steady := func(phase string, pass bool) report.SteadyState {
		return report.SteadyState{Phase: phase, Objective: report.Objective{Metric: "rebuffer_ratio", Expression: "avg<1%", Measured: 3, Threshold: 1, Unit: "%", Samples: 40, Pass: pass}}
	}
	stopped := &report.Stopped{AtS: 32, Metric: "rebuffer_ratio", Expression: "avg>20%", Measured: 24, Threshold: 20, Unit: "%", Samples: 40, UndoneAfterS: 0.9}
	for _, c := range []struct {
		name string
		e    *report.Experiment
		want []string
	}{
		{"none", nil, nil},
		{"held", &report.Experiment{SteadyState: []report.SteadyState{steady("before", true), steady("during", true), steady("after", true)}, Canary: "us-east", Baseline: "us-west",
			Comparison: []report.Comparison{{Metric: "edge_switches", Unit: "count", Difference: 1.1, Low: 0.9, High: 1.3, Level: 0.95, Significant: true}, {Metric: "bitrate", Unit: "kb/s", Low: -1, High: 1, Level: 0.95}}},
			[]string{"✓ experiment steady state held before, during and after the faults", "○            us-east against us-west: worse in 1 of 2 measures, most surely edge switches by 1.1 a viewer (+0.9 to +1.3)"}},
		{"stopped", &report.Experiment{SteadyState: []report.SteadyState{steady("before", true), steady("during", false)}, WindowS: 5, Stopped: stopped},
			[]string{"✗ experiment stopped: rebuffering 24 % over 5 s, and over 20 % ends the experiment; every fault was undone 0.9 s after it held", "✗            steady state lost during the faults"}},
		{"nothing broken", &report.Experiment{SteadyState: []report.SteadyState{steady("before", false)}, NotInjected: "the system was not well"},
			[]string{"? experiment nothing was broken: the system was not well"}},
		{"blind", &report.Experiment{Stopped: &report.Stopped{Blind: "nobody could watch", UndoneAfterS: 1}},
			[]string{"? experiment stopped: nobody could watch; every fault was undone 1 s after that"}},
	} {
		r := &report.Report{Scenario: "x", Verdict: report.Go, Experiment: c.e}
		var got []string
		for line := range strings.Lines(strings.ReplaceAll(Summary(r, "report.html", View{}), "\u00a0", " ")) {
			line = strings.TrimRight(line, "\n")
			if strings.Contains(line, "experiment") || len(got) > 0 && !strings.Contains(line, "telemetry") && line != "" && !strings.HasPrefix(line, "report") {
				got = append(got, line)
			}
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}
