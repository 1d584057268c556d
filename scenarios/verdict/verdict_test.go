package verdict

import (
	"math"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/dashboards/report"
)

// survived is a run in which everything went well; tests spoil one thing each.
func survived() *report.Report {
	r := &report.Report{
		DurationS:  75,
		Objectives: []report.Objective{{Metric: "startup_time", Expression: "p(95)<2s", Measured: 0.7, Threshold: 2, Unit: "s", Samples: 40, Pass: true}},
		Faults: []report.Fault{{ID: "region-1", Fail: "region", Model: "crash", Where: "us-east", AtS: 30, ForS: 20,
			Evidence: report.Evidence{Status: "confirmed"}, Restored: true}},
		Telemetry: report.Telemetry{Emitted: 1000, Stored: 1000},
		Load:      report.Load{PlayStarts: report.PlayStarts{Intended: 20000, Sent: 20000, OK: 20000}},
		Safety:    []report.Check{{Name: "no process is left", Pass: true}},
	}
	for t := range 75 {
		r.Timeline = append(r.Timeline, report.Second{T: t, PlayStarts: 270, Sessions: 40, LiveLatencyP95S: 7})
	}
	return r
}

func TestDecide(t *testing.T) {
	miss := func(r *report.Report) {
		r.Objectives = append(r.Objectives, report.Objective{Metric: "rebuffer_ratio", Where: "region=us-west", Expression: "avg<0.4%", Measured: 12.5, Threshold: 0.4, Unit: "%", Samples: 40})
	}
	for _, c := range []struct {
		name   string
		spoil  func(*report.Report)
		want   string
		exit   int
		reason string
	}{
		{"all well", func(*report.Report) {}, report.Go, 0, "the objective was met, through the crash of us-east"},
		{"an objective missed", miss, report.NoGo, 99, "Rebuffering (region=us-west): 12.5\u00a0%, must be under 0.4\u00a0%"},
		{"a fault without effect", func(r *report.Report) { r.Faults[0].Evidence.Status = "mismatch" }, report.Inconclusive, 98, "did not do what it should"},
		{"a fault without evidence", func(r *report.Report) { r.Faults[0].Evidence.Status = "inconclusive" }, report.Inconclusive, 98, "nothing proves"},
		{"a fault left in place", func(r *report.Report) { r.Faults[0].Restored = false }, report.Inconclusive, 98, "was not undone"},
		{"events lost", func(r *report.Report) { r.Telemetry.Stored, r.Telemetry.Lost = 990, 10 }, report.Inconclusive, 98, "10 events are lost"},
		{"events from nowhere", func(r *report.Report) { r.Telemetry.Stored = 1001 }, report.Inconclusive, 98, "does not add up"},
		{"a crowd too small", func(r *report.Report) { r.Load.PlayStarts.Dropped = 21 }, report.Inconclusive, 98, "could not send 21 of 20000"},
		{"a crowd just large enough", func(r *report.Report) { r.Load.PlayStarts.Dropped = 20 }, report.Go, 0, ""},
		{"a crowd that came late", func(r *report.Report) { r.Load.Late, r.Load.LatePercent = 2500, 12.5 }, report.Inconclusive, 98, "this machine could not send the crowd on time: 2500 play starts (12.5\u00a0%)"},
		{"a crowd that came a little late", func(r *report.Report) { r.Load.Late, r.Load.LatePercent = 250, 1.25 }, report.Go, 0, ""},
		{"a crowd that came a little late, and is late", func(r *report.Report) {
			r.Load.Late, r.Load.LatePercent = 250, 1.25
			r.Objectives = append(r.Objectives, report.Objective{Metric: "send_lag", Expression: "p(99.9)<10ms", Measured: 0.03, Threshold: 0.01, Unit: "s", Samples: 9})
		}, report.Inconclusive, 98, "this machine could not send the crowd on time: 250 play starts (1.25\u00a0%)"},
		{"a service that makes the crowd wait", func(r *report.Report) {
			r.Load.Late, r.Load.LatePercent = 2, 0.01
			r.Objectives = append(r.Objectives, report.Objective{Metric: "send_lag", Expression: "p(99.9)<10ms", Measured: 0.03, Threshold: 0.01, Unit: "s", Samples: 9})
		}, report.NoGo, 99, ""},
		{"pods that came late", func(r *report.Report) { r.Pods, r.Load.Late, r.Load.LatePercent = 2, 2500, 12.5 }, report.Inconclusive, 98, "a pod's machine could not send the crowd on time"},
		{"a miss for want of a machine", func(r *report.Report) { miss(r); r.Load.Late, r.Load.LatePercent = 2000, 10 }, report.Inconclusive, 98, "rerun on a quieter or a bigger one"},
		{"a crowd that came as good as on time", func(r *report.Report) { r.Load.Late, r.Load.LatePercent = 20, 0.1 }, report.Go, 0, ""},
		{"nothing measured", func(r *report.Report) { r.Objectives[0].Samples = 0 }, report.Inconclusive, 98, "nothing was measured for startup_time"},
		{"nothing measured beside a miss", func(r *report.Report) { miss(r); r.Objectives[0].Samples = 0 }, report.NoGo, 99, "Rebuffering (region=us-west)"},
		{"a process left", func(r *report.Report) { r.Safety[0].Pass = false }, report.Inconclusive, 98, "it does not hold that no process is left"},
		{"no event", func(r *report.Report) { r.DurationS = 0 }, report.Inconclusive, 98, "nothing to judge"},
		{"doubt outranks a miss", func(r *report.Report) { miss(r); r.Telemetry.Lost = 1 }, report.Inconclusive, 98, "telemetry is incomplete"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := survived()
			c.spoil(r)
			got, reasons := Decide(r)
			if got != c.want || ExitCode(got) != c.exit {
				t.Errorf("verdict %s (exit %d), want %s (exit %d)", got, ExitCode(got), c.want, c.exit)
			}
			if len(reasons) == 0 || !strings.Contains(reasons[0], c.reason) {
				t.Errorf("reasons %q do not start with one that says %q", reasons, c.reason)
			}
		})
	}
}

func TestBlame(t *testing.T) {
	outage := func(from, to int) *report.Report {
		r := survived()
		r.Objectives = []report.Objective{
			{Metric: "video_start_failures", Expression: "rate<0.1%", Measured: 20, Unit: "%", Samples: 20000},
			{Metric: "live_latency", Expression: "p(95)<12s", Measured: 25, Threshold: 12, Unit: "s", Samples: 2000},
			{Metric: "bitrate", Expression: "avg>1000kb/s", Measured: 900, Unit: "kb/s", Samples: 2000},
		}
		for t := from; t < to; t++ {
			r.Timeline[t].PlayFailures, r.Timeline[t].LiveLatencyP95S = 270, 25
		}
		return r
	}
	r := outage(30, 52)
	Blame(r)
	for _, o := range r.Objectives[:2] {
		if o.Suspect != "region-1" || !strings.Contains(o.Note, "all of it fell between T+30 s and T+52 s, during the crash of us-east") {
			t.Errorf("%s: suspect %q, note %q", o.Metric, o.Suspect, o.Note)
		}
	}
	if o := r.Objectives[2]; o.Suspect != "" {
		t.Errorf("bitrate has no series, yet it blames %q", o.Suspect)
	}
	before := outage(0, 20)
	Blame(before)
	if o := before.Objectives[0]; o.Suspect != "" {
		t.Errorf("harm done before the fault is laid at its door: %q", o.Note)
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		m    float64
		op   string
		th   float64
		want bool
	}{
		{1, "<", 2, true}, {2, "<", 2, false}, {2, "<=", 2, true}, {3, ">", 2, true}, {2, ">=", 2, true}, {2, ">", 2, false},
		{0, "==", 0, true}, {1, "==", 0, false}, {1, "!=", 0, true}, {math.NaN(), "!=", 0, false}, {math.NaN(), "<", 2, false}, {1, "~", 1, false},
	} {
		if got := Compare(c.m, c.op, c.th); got != c.want {
			t.Errorf("%v %s %v = %v, want %v", c.m, c.op, c.th, got, c.want)
		}
	}
}
