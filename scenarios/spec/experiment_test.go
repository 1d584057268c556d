package spec_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/scenarios/spec"
)

const canary = `apiVersion: tminus/v1
name: canary
event: {duration: 60s}
topology: {regions: [us-east, us-west, eu]}
audience: {players: 40}
faults:
  - {at: 20s, for: 8s, fail: region, where: us-east}
experiment:
  steadyState:
    rebuffer_ratio:  ["avg<1%"]
    'startup_time{home=us-west}': ["p(95)<2s"]
  strategy: default
  settle: 12s
  stop:
    rebuffer_ratio: ["avg>20%", "max>90%"]
  window: 4s
  canary: us-east
  baseline: us-west
objectives: {startup_time: ["p(95)<2s"]}
`

func TestReadAnExperiment(t *testing.T) {
	sc, err := spec.Read("canary.yaml", []byte(canary), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &spec.Experiment{
		SteadyState: []spec.Objective{
			{Metric: "rebuffer_ratio", Expression: "avg<1%", Aggregate: "avg", Op: "<", Threshold: 1},
			{Metric: "startup_time", Expression: "p(95)<2s", Aggregate: "p", Quantile: 95, Op: "<", Threshold: 2, Where: map[string]string{"home": "us-west"}, WhereText: "home=us-west"},
		},
		Strategy: "default", Settle: 12 * s,
		Stop: []spec.Objective{
			{Metric: "rebuffer_ratio", Expression: "avg>20%", Aggregate: "avg", Op: ">", Threshold: 20},
			{Metric: "rebuffer_ratio", Expression: "max>90%", Aggregate: "max", Op: ">", Threshold: 90},
		},
		Window: 4 * s, Canary: "us-east", Baseline: "us-west",
	}
	if !reflect.DeepEqual(sc.Experiment, want) {
		t.Errorf("got\n%+v\nwant\n%+v", sc.Experiment, want)
	}
	least := strings.NewReplacer("  strategy: default\n", "", "  settle: 12s\n", "", "  window: 4s\n", "", "  canary: us-east\n", "", "  baseline: us-west\n", "").Replace(canary)
	if sc, err = spec.Read("f", []byte(least), nil); err != nil {
		t.Fatal(err)
	}
	if x := sc.Experiment; x.Strategy != "continuously" || x.Settle != 10*s || x.Window != 5*s || x.Canary != "" {
		t.Errorf("defaults: %+v", x)
	}
}

func TestMistakesInAnExperiment(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"steadyState:", "steadystate:", `f:9:3: experiment.steadystate: unknown key; did you mean "steadyState"?` +
			"\n" + `f:12:13: experiment.strategy: the strategy says when the steady state is checked: give one under experiment.steadyState`},
		{"strategy: default", "strategy: continously", `f:12:13: experiment.strategy: unknown strategy "continously"; did you mean "continuously"?`},
		{"rebuffer_ratio:  [", "rebufer_ratio:  [", `f:10:5: experiment.steadyState.rebufer_ratio: unknown metric "rebufer_ratio"; did you mean "rebuffer_ratio"?`},
		{`"avg>20%"`, `"avg>20"`, `f:15:22: experiment.stop.rebuffer_ratio[0]: "20" has no unit: rebuffer_ratio is a percentage, such as "avg<0.4%"`},
		{"home=us-west", "home=us-wets", `f:11:5: experiment.steadyState.startup_time{home=us-wets}: unknown home "us-wets"; did you mean "us-west"?`},
		{"home=us-west", "from=5s", `f:11:5: experiment.steadyState.startup_time{from=5s}: the experiment says which part of the event is looked at: leave out from and to`},
		{"    rebuffer_ratio: [", "    telemetry_loss: [\"rate>0%\"]\n    rebuffer_ratio: [", `f:15:5: experiment.stop.telemetry_loss: telemetry_loss is known of the whole event only, and an experiment looks at parts of it`},
		{"    rebuffer_ratio: [", "    'rebuffer_duration{home=us-east}': [\"max>10s\"]\n    rebuffer_ratio: [", `f:15:5: experiment.stop.rebuffer_duration{home=us-east}: rebuffer_duration is written when it is over: too late to stop what goes on; use rebuffer_ratio`},
		{"window: 4s", "window: 4", `f:16:11: experiment.window: want a duration such as 90s or 1m30s, got the number 4; is it 4s?`},
		{"window: 4s", "window: 1h", `f:16:11: experiment.window: want a duration from 1s to 5m, got 1h`},
		{"canary: us-east", "canary: us-eats", `f:17:11: experiment.canary: unknown region "us-eats"; did you mean "us-east"?`},
		{"baseline: us-west", "baseline: us-east", `f:18:13: experiment.baseline: "us-east" is the canary: the baseline is another region`},
		{"  baseline: us-west\n", "", `f:17:11: experiment.canary: a canary is compared with a baseline: name another region under experiment.baseline`},
		{"  canary: us-east\n", "", `f:17:13: experiment.baseline: a baseline is what a canary is compared with: name the faults' region under experiment.canary`},
		{"where: us-east}", "where: us-west}", `f:7:45: faults[0].where: "us-west" is not inside the canary "us-east": a fault there would hit the baseline too`},
		{"at: 20s", "at: 2s", `f:7:10: faults[0].at: the steady state is checked before the first fault: that may begin at 3s at the earliest, not at 2s`},
		{"settle: 12s", "settle: 30s", `f:9:3: experiment.settle: the steady state is checked after the faults, which have settled at 58s: too late in an event of 1m, of which 3s must be left`},
		{"faults:\n  - {at: 20s, for: 8s, fail: region, where: us-east}\n", "", `f:7:3: experiment: an experiment breaks something: give the scenario faults, or leave the experiment out`},
		{"topology: {regions: [us-east, us-west, eu]}\n", "target: {manifest: 'http://127.0.0.1:1/a.m3u8'}\n",
			`f:7:30: faults[0].fail: region needs`},
	} {
		_, err := spec.Read("f", []byte(strings.Replace(canary, c.old, c.new, 1)), nil)
		if got := fmt.Sprint(err); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s → %s: got\n%v\nwant\n%s", c.old, c.new, err, c.want)
		}
	}
	for _, c := range []struct{ experiment, want string }{
		{"{}", `f:8:13: experiment: an experiment needs a steadyState, stop conditions, or a canary and a baseline`},
		{"3", `f:8:13: experiment: want a mapping, got the number 3`},
		{"{steadyState: {}}", `f:8:27: experiment.steadyState: want at least one threshold, or no steady state`},
		{"{stop: {}}", `f:8:20: experiment.stop: want at least one condition, or no stop conditions`},
		{"{steadyState: {startup_time: ['p(95)<2s']}, window: 4s}", `f:8:65: experiment.window: stop conditions look back over it, and there are none`},
		{"{stop: {startup_time: ['p(95)>2s']}, settle: 4s}", `f:8:58: experiment.settle: nothing is looked at after the faults have settled: leave it out`},
	} {
		src := canary[:strings.Index(canary, "experiment:")] + "experiment: " + c.experiment + "\nobjectives: {startup_time: [\"p(95)<2s\"]}\n"
		if _, err := spec.Read("f", []byte(src), nil); fmt.Sprint(err) != c.want {
			t.Errorf("%s: got\n%v\nwant\n%s", c.experiment, err, c.want)
		}
	}
}
