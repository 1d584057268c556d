package report

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// The samples are reports as a rehearsal would write them, made from formulas and a seed.

// sampleGo survives the crash of a region: load moves over, few viewers notice.
func sampleGo() *Report {
	r := &Report{
		Schema: Schema, Run: "20261122-091412-first-light-7", Scenario: "first-light", Seed: 7, Verdict: Go,
		Reasons: []string{"All 5 objectives were met while us-east was down for 20 s: its viewers moved to us-west within 3 s."},
		Started: "2026-11-22T09:14:12Z", DurationS: 98.4, Target: "reference",
		Topology: []Region{{"us-east", 2}, {"us-west", 2}},
		Objectives: []Objective{
			{Metric: "startup_time", Expression: "p(95)<2s", Measured: 1.284, Threshold: 2, Unit: "s", Samples: 40, Pass: true},
			{Metric: "video_start_failures", Expression: "rate<0.5%", Measured: 0.084, Threshold: 0.5, Unit: "%", Samples: 20412, Pass: true,
				Note: "17 of 20,412, all between T+30 s and T+32 s"},
			{Metric: "rebuffer_ratio", Expression: "avg<1%", Measured: 0.31, Threshold: 1, Unit: "%", Samples: 2903, Pass: true},
			{Metric: "live_latency", Where: "region=us-west", Expression: "p(95)<12s", Measured: 8.62, Threshold: 12, Unit: "s", Samples: 1480, Pass: true},
			{Metric: "live_latency", Expression: "p(95)<12s", Measured: 9.41, Threshold: 12, Unit: "s", Samples: 2903, Pass: true},
			{Metric: "telemetry_loss", Expression: "rate<=0%", Measured: 0, Threshold: 0, Unit: "%", Samples: 64210, Pass: true},
		},
		Faults: []Fault{{ID: "region-1", Fail: "region", Model: "crash", Where: "us-east", AtS: 30.1, ForS: 20.2, Restored: true,
			Evidence: Evidence{Status: Confirmed, Expected: 100, Measured: 100, Unit: "%", Detail: "80 of 80 probes from outside were refused; 3 processes gone"}}},
		Safety: []Check{
			{"every fault was undone", true, "us-east answered again at T+52 s"},
			{"no process was left running", true, ""},
			{"no port was left open", true, "127.0.1.0/24 and 127.0.2.0/24"},
			{"the load generator kept its schedule", true, "send lag p99 4.1 ms"},
		},
		Load: Load{PlayStarts: PlayStarts{20412, 20412, 20395, 6, 11, 0},
			LatencyMS: Quantiles{3.1, 14.2, 61, 1204, 3011}, SendLagMS: Quantiles{0.21, 1.4, 4.1, 22, 38}},
		Players: Players{Sessions: 40, StartupP50S: 0.612, StartupP95S: 1.284, PlayingS: 2894.1, RebufferS: 9.0, Rebuffers: 9,
			LongestStallS: 1.94, SkippedS: 0.042, EdgeSwitches: 41, LiveLatencyP95: 9.41},
		Telemetry: Telemetry{Emitted: 64210, Stored: 64210, Duplicated: 128, LagS: 0.84, Kafka: "embedded", ClickHouse: "embedded"},
		Moments: []Moment{
			{0, "phase", "The event starts: 250 play starts a second, 40 players joining over 10 s."},
			{30.1, "fault", "us-east crashes: its 3 processes are killed."},
			{30.4, "evidence", "Confirmed from outside: connections to 127.0.1.0/24 are refused."},
			{31, "viewers", "17 play starts fail or are shed while playback in us-west takes over."},
			{33, "viewers", "20 players have moved from us-east-1 and us-east-2 to us-west-1 and us-west-2; 9 of them stalled, the longest for 1.94 s."},
			{50.3, "fault", "us-east is started again."},
			{52, "evidence", "us-east answers; its packager publishes segment 891 and on, identical to us-west's."},
			{75, "phase", "The event ends; players drain."},
			{78.2, "telemetry", "64,210 events emitted, 64,210 stored, p95 readable after 0.84 s."},
		},
	}
	r.Timeline = sampleTimeline(75, 250, 40, 30, 50, 1.0)
	return r
}

// sampleNoGo cannot survive: one region only, and it dies.
func sampleNoGo() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.Verdict = "20261122-093001-first-light-unprepared-7", "first-light-unprepared", NoGo
	r.Reasons = []string{
		"Viewers rebuffered 24.7 % of the time against a limit of 1 %: the crash of us-east left nowhere to go.",
		"26.1 % of play starts failed between T+30 s and T+51 s.",
		"There is one region; a second one, or edges elsewhere, would have served them.",
	}
	r.Topology = []Region{{"us-east", 2}}
	r.Objectives = []Objective{
		{Metric: "startup_time", Expression: "p(95)<2s", Measured: 1.31, Threshold: 2, Unit: "s", Samples: 40, Pass: true},
		{Metric: "video_start_failures", Expression: "rate<0.5%", Measured: 26.12, Threshold: 0.5, Unit: "%", Samples: 20412, Suspect: "region-1",
			Note: "5,332 of 20,412, all between T+30 s and T+51 s."},
		{Metric: "rebuffer_ratio", Expression: "avg<1%", Measured: 24.7, Threshold: 1, Unit: "%", Samples: 2903, Suspect: "region-1",
			Note: "Worst from T+38 s to T+52 s, when all 40 players stood still."},
		{Metric: "live_latency", Expression: "p(95)<12s", Measured: 13.2, Threshold: 12, Unit: "s", Samples: 2200, Suspect: "region-1"},
		{Metric: "telemetry_loss", Expression: "rate<=0%", Measured: 0, Threshold: 0, Unit: "%", Samples: 58113, Pass: true},
	}
	r.Load.PlayStarts = PlayStarts{20412, 20380, 15048, 0, 5332, 32}
	r.Load.LatencyMS = Quantiles{3.4, 3002, 3010, 3022, 3115}
	r.Players = Players{Sessions: 40, StartFailures: 2, StartupP50S: 0.64, StartupP95S: 1.31, PlayingS: 2103, RebufferS: 690, Rebuffers: 41,
		LongestStallS: 21.4, SkippedS: 612.4, EdgeSwitches: 160, LiveLatencyP95: 13.2}
	r.Telemetry.Emitted, r.Telemetry.Stored = 58113, 58113
	r.Moments = []Moment{
		{0, "phase", "The event starts: 250 play starts a second, 40 players joining over 10 s."},
		{30.1, "fault", "us-east crashes: its 3 processes are killed."},
		{30.4, "evidence", "Confirmed from outside: connections to 127.0.1.0/24 are refused."},
		{30.5, "viewers", "Every play start fails from here on."},
		{38, "viewers", "The last buffer has run dry: 40 of 40 players stand still."},
		{50.3, "fault", "us-east is started again."},
		{53, "viewers", "Playback goes on for 38 of 40 players."},
		{75, "phase", "The event ends; players drain."},
	}
	r.Timeline = sampleTimeline(75, 250, 40, 30, 50, 0)
	return r
}

// sampleInconclusive cannot say: the fault was not seen, and events are missing.
func sampleInconclusive() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.Verdict = "20261122-101500-derby-night-11", "derby-night", Inconclusive
	r.Seed = 11
	r.Reasons = []string{
		"The cut of us-west was not seen from outside, so passing objectives prove nothing about it.",
		"212 telemetry events never reached the store.",
	}
	r.Faults = []Fault{
		r.Faults[0],
		{ID: "region-2", Fail: "region", Model: "cut", Where: "us-west", AtS: 41, ForS: 15, Restored: true,
			Evidence: Evidence{Status: Mismatch, Expected: 100, Measured: 12.5, Unit: "%", Detail: "10 of 80 probes timed out, the others were answered"}},
		{ID: "packet-loss-3", Fail: "packet-loss", Model: "gilbert-elliott", Where: "contribution/us-west/path-a", AtS: 10, ForS: 60, Restored: true,
			Evidence: Evidence{Status: Inconclusive, Expected: 5, Measured: 0, Unit: "%", Detail: "no packet crossed the path while it was measured"}},
	}
	r.Objectives[2].Samples, r.Objectives[2].Pass = 0, false
	r.Objectives[2].Note = "No heartbeat carried a playing time."
	r.Telemetry.Stored, r.Telemetry.Lost = 63998, 212
	r.Safety[1] = Check{"no process was left running", false, "tminus region us-west (pid 4411) was still there after 5 s and was killed"}
	return r
}

// sampleTarget plays somebody else's stream: no topology, no load, no faults.
func sampleTarget() *Report {
	r := &Report{
		Schema: Schema, Run: "20261122-120000-our-stream-1", Scenario: "our-stream", Seed: 1, Verdict: Go,
		Reasons: []string{"All 3 objectives were met over 60 s of playing."},
		Started: "2026-11-22T12:00:00Z", DurationS: 64, Target: "http://127.0.0.1:8081/live/stream.m3u8",
		Objectives: []Objective{
			{Metric: "startup_time", Expression: "p(95)<4s", Measured: 2.2, Threshold: 4, Unit: "s", Samples: 10, Pass: true},
			{Metric: "rebuffer_ratio", Expression: "avg<0.4%", Measured: 0, Threshold: 0.4, Unit: "%", Samples: 590, Pass: true},
			{Metric: "bitrate", Expression: "avg>=1500kb/s", Measured: 2140, Threshold: 1500, Unit: "kb/s", Samples: 590, Pass: true},
		},
		Players:   Players{Sessions: 10, StartupP50S: 1.1, StartupP95S: 2.2, PlayingS: 590, LiveLatencyP95: 7.2},
		Telemetry: Telemetry{Emitted: 1212, Stored: 1212, LagS: 0.4, Kafka: "embedded", ClickHouse: "127.0.0.1:9000"},
		Moments:   []Moment{{0, "phase", "10 players open the stream."}, {60, "phase", "The players leave."}},
	}
	for _, s := range sampleTimeline(60, 0, 10, 1e6, 1e6, 1) {
		s.RebufferRatio = 0
		r.Timeline = append(r.Timeline, s)
	}
	return r
}

// sampleLong is three hours with ten faults, a storm of starts and one bad second that must stay visible.
func sampleLong() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.DurationS = "20261121-180000-title-fight-3", "title-fight", 10950
	r.Reasons = []string{"All 6 objectives were met over three hours, through 10 faults."}
	r.Timeline = sampleTimeline(10800, 900, 4200, 5400, 5700, 0.97)
	r.Timeline[7777].PlayFailures, r.Timeline[7777].RebufferRatio = 212, 3.4
	fault := r.Faults[0]
	r.Faults, r.Moments = nil, nil
	for i := range 10 {
		f := fault
		f.ID, f.AtS, f.ForS = fmt.Sprintf("region-%d", i+1), float64(600+900*i), 120+float64(i%3)*240
		if i%3 == 1 {
			f.Model, f.Where = "cut", "us-west"
		}
		if i == 4 || i == 5 {
			f.AtS, f.ForS = 5400, 300+float64(i)*30
		}
		r.Faults = append(r.Faults, f)
		r.Moments = append(r.Moments, Moment{f.AtS, "fault", f.Words() + " begins."}, Moment{f.AtS + f.ForS, "fault", f.Words() + " ends."})
	}
	r.Load.PlayStarts = PlayStarts{4_120_400, 4_120_400, 4_119_990, 310, 100, 0}
	r.Players = Players{Sessions: 4200, StartupP50S: 0.6, StartupP95S: 1.3, PlayingS: 44_900_000, RebufferS: 40_100, Rebuffers: 9120, LongestStallS: 3.2,
		EdgeSwitches: 12_000, LiveLatencyP95: 9.1}
	r.Telemetry.Emitted, r.Telemetry.Stored = 51_204_881, 51_204_881
	return r
}

// sampleTimeline is an event of n seconds at rate play starts a second and players full players, with a fault from one
// second to another of which surviving (0 to 1) of the viewers notice nothing lasting.
func sampleTimeline(n int, rate, players float64, from, to int, surviving float64) []Second {
	rnd := rand.New(rand.NewPCG(7, 7))
	out := make([]Second, 0, n)
	latency := 6.2
	for t := range n {
		s := Second{T: t, Sessions: math.Round(players * math.Min(1, float64(t+1)/10)), BitrateKbps: 2600 + 200*rnd.Float64()}
		s.PlayStarts = math.Round(rate * (0.9 + 0.2*rnd.Float64()) * (1 + 1.2*math.Exp(-math.Pow(float64(t)-15, 2)/20)))
		s.LiveLatencyS = latency + 0.3*rnd.Float64()
		s.LiveLatencyP95S = s.LiveLatencyS + 1.2 + 0.4*rnd.Float64()
		switch {
		case t >= from && t < to && surviving < 0.5:
			s.PlayFailures, s.PlayStarts = s.PlayStarts, 0
			s.RebufferRatio = math.Min(100, math.Max(0, float64(t-from-4)*22))
			latency += 0.1
			if t > from+12 {
				s.LiveLatencyS, s.LiveLatencyP95S = -1, -1
			}
		case t >= from && t < from+3:
			s.PlayFailures = math.Round(s.PlayStarts * 0.03)
			s.PlayStarts -= s.PlayFailures
			s.RebufferRatio = 4 + 8*rnd.Float64()
			latency += 0.4
		case t >= to && t < to+3 && surviving < 0.5:
			s.RebufferRatio = 100 - float64(t-to)*40
			s.LiveLatencyP95S += 4
		}
		if t < 2 {
			s.LiveLatencyS, s.LiveLatencyP95S, s.BitrateKbps = -1, -1, -1
		}
		out = append(out, s)
	}
	return out
}

// sampleHostile is a report whose every word tries to be markup.
func sampleHostile() *Report {
	const x = `"><script>alert(1)</script><img src=x onerror=alert(2)>'` + "\x00\u2028</style>{{.}}"
	r := sampleNoGo()
	r.Run, r.Scenario, r.Target, r.Started = x, x, "javascript:alert(3)", x
	r.Reasons = []string{x, x}
	r.Topology = []Region{{x, 2}}
	for i := range r.Objectives {
		o := &r.Objectives[i]
		o.Metric, o.Where, o.Note, o.Unit = x, x, x, x
		o.Expression = x + "<1"
	}
	r.Objectives[3].Suspect = x
	for i := range r.Faults {
		f := &r.Faults[i]
		f.ID, f.Fail, f.Model, f.Where, f.Evidence.Detail, f.Evidence.Unit, f.Evidence.Status = x, x, x, x, x, x, x
	}
	for i := range r.Safety {
		r.Safety[i] = Check{x, false, x}
	}
	for i := range r.Moments {
		r.Moments[i].Kind, r.Moments[i].Text = x, x
	}
	r.Telemetry.Kafka, r.Telemetry.ClickHouse = x, x
	r.Load.Failures = []Count{{x, 3}}
	r.Processes = []Process{{Name: x, RSSAt10S: 1, RSSPeak: 1 << 40, RSSLast: 1 << 40, GrowthPct: 1e9, Incarnated: 3}}
	r.Storms = []Storm{{Name: x, Series: []float64{1, 2, 3}}, {Name: x, Region: x, AtS: 4, Guided: true, BasePerS: 1, Series: []float64{1}}}
	r.Experiment = &Experiment{Strategy: x, NotInjected: x, SteadyState: []SteadyState{{"before", 0, 1, Objective{Metric: x, Expression: x, Where: x, Samples: 1}}},
		Stop: []StopCondition{{Metric: x, Expression: x, Held: true}}, Watch: &Watch{Looks: 1}, Stopped: &Stopped{Metric: x, Expression: x, Blind: x}, Canary: x, Baseline: x,
		Comparison: []Comparison{{Metric: x, Unit: x, Level: 0.95, Low: -1, High: 1}}}
	r.Forecast = &Forecast{Kind: x, Bins: []Bin{{T: 0, P50: 1}}, Warnings: []string{x}, Scaling: []Scaling{{Region: x}}}
	return r
}

var samples = []struct {
	name string
	make func() *Report
}{
	{"go", sampleGo},
	{"no-go", sampleNoGo},
	{"inconclusive", sampleInconclusive},
	{"target", sampleTarget},
	{"title-fight", sampleTitleFight},
	{"retry-storm", sampleRetryStorm},
	{"forecast", sampleForecast},
	{"overload", sampleOverload},
	{"canary", sampleCanary},
	{"stopped", sampleStopped},
	{"long", sampleLong},
	{"hostile", sampleHostile},
}
