package report

// Schema names the version of report.json. Additive changes keep it; anything else raises it.
const Schema = "tminus.report/v1"

// Verdicts.
const (
	Go           = "go"
	NoGo         = "no-go"
	Inconclusive = "inconclusive"
)

// Report is the content of report.json, and all that report.html and junit.xml are drawn from.
type Report struct {
	Schema     string      `json:"schema"`
	Run        string      `json:"run"`
	Scenario   string      `json:"scenario"`
	Seed       uint64      `json:"seed"`
	Verdict    string      `json:"verdict"` // go | no-go | inconclusive
	Reasons    []string    `json:"reasons"` // one sentence each: why this verdict, the most telling first
	Started    string      `json:"started"` // RFC 3339, UTC
	DurationS  float64     `json:"duration_s"`
	Target     string      `json:"target"`         // "reference", or the manifest URL of somebody else's stream
	Pods       int         `json:"pods,omitempty"` // how many processes of the k6 extension sent the run; 0: nobody's but this machine's own
	Topology   []Region    `json:"topology,omitempty"`
	Objectives []Objective `json:"objectives"`
	Faults     []Fault     `json:"faults"`
	Safety     []Check     `json:"safety"` // checks on the rehearsal itself: nothing left running, faults undone …
	Load       Load        `json:"load"`
	Players    Players     `json:"players"`
	Telemetry  Telemetry   `json:"telemetry"`
	Processes  []Process   `json:"processes,omitempty"`
	Storms     []Storm     `json:"storms,omitempty"`
	Forecast   *Forecast   `json:"forecast,omitempty"`
	Experiment *Experiment `json:"experiment,omitempty"`
	Timeline   []Second    `json:"timeline"`
	Moments    []Moment    `json:"moments"` // what happened, in order, in words
}

// Region is one region of the reference topology.
type Region struct {
	Name  string `json:"name"`
	Edges int    `json:"edges"`
}

// Objective is one threshold and what was measured.
type Objective struct {
	Metric     string  `json:"metric"`
	Where      string  `json:"where"`      // dimension filter as written, "region=us-west"; "" for all
	Expression string  `json:"expression"` // as written: "p(95)<2s"
	Measured   float64 `json:"measured"`   // in Unit
	Threshold  float64 `json:"threshold"`  // in Unit
	Unit       string  `json:"unit"`       // "s", "%", "count", "kb/s"
	Samples    uint64  `json:"samples"`    // what the figure was computed from; 0 makes the objective inconclusive
	Pass       bool    `json:"pass"`
	Suspect    string  `json:"suspect,omitempty"` // id of the fault that best explains a miss
	Note       string  `json:"note,omitempty"`    // a sentence: "worst from T+34 s to T+52 s, during crash of us-east"
}

// Fault is one fault and the evidence that it happened.
type Fault struct {
	ID       string            `json:"id"`              // "region-1": kind and position in the scenario
	Fail     string            `json:"fail"`            // "region"
	Model    string            `json:"model,omitempty"` // "crash", "cut"
	Where    string            `json:"where"`
	Params   map[string]string `json:"params,omitempty"` // of the model, as written: {"loss": "5%"}
	Means    string            `json:"means,omitempty"`  // how it was done, where there are several ways
	AtS      float64           `json:"at_s"`             // as measured, from the start of the event
	ForS     float64           `json:"for_s"`            // as measured
	Evidence Evidence          `json:"evidence"`
	Restored bool              `json:"restored"`
}

// Evidence is an independent measurement of a fault's effect.
type Evidence struct {
	Status   string  `json:"status"` // confirmed | mismatch | inconclusive
	Expected float64 `json:"expected"`
	Measured float64 `json:"measured"`
	Unit     string  `json:"unit"`
	Detail   string  `json:"detail,omitempty"`
}

// Check is a yes-or-no fact about the rehearsal itself.
type Check struct {
	Name   string `json:"name"`
	Pass   bool   `json:"pass"`
	Detail string `json:"detail,omitempty"`
}

// Load is what all play starts came to: the open-loop crowd's and the players'.
type Load struct {
	PlayStarts PlayStarts `json:"play_starts"`
	LatencyMS  Quantiles  `json:"latency_ms"`  // intended → done
	SendLagMS  Quantiles  `json:"send_lag_ms"` // intended → sent

	SentToDoneMS  *Quantiles `json:"sent_to_done_ms,omitempty"` // sent → done, of the open-loop crowd
	InTimePercent float64    `json:"in_time_percent,omitempty"` // sent within 10 ms of the intended time, % of those intended
	Late          uint64     `json:"late,omitempty"`            // sent more than 10 ms after their moment because the machine that sent them was late, not the service
	LatePercent   float64    `json:"late_percent,omitempty"`    // of those that the open-loop crowd sent
	OwnLagMS      *Quantiles `json:"own_lag_ms,omitempty"`      // of send_lag_ms, the sending machine's own part
	Attempts      uint64     `json:"attempts,omitempty"`        // requests sent for all play starts
	Left          uint64     `json:"left,omitempty"`            // viewers who would have tried again, but had no patience left
	FirstFailure  string     `json:"first_failure,omitempty"`   // the first answer that was not a good one, other than being shed: its status and how it begins
	Failures      []Count    `json:"failures,omitempty"`        // what went wrong, by kind, the most frequent first
}

// Count is how often something was seen.
type Count struct {
	What  string `json:"what"`
	Count uint64 `json:"count"`
}

// PlayStarts counts play starts: Intended = Sent + Dropped, Sent = OK + Shed + Failed.
type PlayStarts struct {
	Intended uint64 `json:"intended"`
	Sent     uint64 `json:"sent"`
	OK       uint64 `json:"ok"`
	Shed     uint64 `json:"shed"`
	Failed   uint64 `json:"failed"`
	Dropped  uint64 `json:"dropped"`
}

// Quantiles of a latency, in milliseconds.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Players is what the full players lived through.
type Players struct {
	Sessions       uint64  `json:"sessions"`
	StartFailures  uint64  `json:"start_failures"`
	StartupP50S    float64 `json:"startup_p50_s"`
	StartupP95S    float64 `json:"startup_p95_s"`
	PlayingS       float64 `json:"playing_s"`
	RebufferS      float64 `json:"rebuffer_s"`
	Rebuffers      uint64  `json:"rebuffers"`
	LongestStallS  float64 `json:"longest_stall_s"`
	SkippedS       float64 `json:"skipped_s"` // media jumped over to catch up with the live edge after a stall, all sessions, seconds
	EdgeSwitches   uint64  `json:"edge_switches"`
	LiveLatencyP95 float64 `json:"live_latency_p95_s"`
}

// Telemetry is the ledger of the event path.
type Telemetry struct {
	Emitted    uint64  `json:"emitted"`
	Stored     uint64  `json:"stored"`
	Lost       uint64  `json:"lost"`
	Duplicated uint64  `json:"duplicated"`         // arrived more than once and were stored once
	LagS       float64 `json:"lag_s"`              // p95 of written → handed to the store
	LeftOut    uint64  `json:"left_out,omitempty"` // ok play starts that timeline.ndjson does not repeat; all are in the store
	Kafka      string  `json:"kafka"`              // "embedded" or the address
	ClickHouse string  `json:"clickhouse"`         // "embedded" or the address
}

// Process is what one process of the run took.
type Process struct {
	Name       string  `json:"name"`       // "conductor", "starts", "region/us-east", "store"
	RSSAt10S   uint64  `json:"rss_at_10s"` // resident memory ten seconds into the event, bytes; 0: it was not there
	RSSPeak    uint64  `json:"rss_peak"`   // highest from then to the end of the event, bytes
	RSSLast    uint64  `json:"rss_last"`   // at the end of the event, bytes
	CPUS       float64 `json:"cpu_s"`      // processor time over the event, seconds
	GrowthPct  float64 `json:"growth_pct"` // RSSLast over RSSAt10S, %
	Incarnated int     `json:"incarnated"` // how often it was started
}

// Storm is one interruption of many viewers and how they came back.
type Storm struct {
	Name          string    `json:"name"` // "interruption of us-east at T+60 s"
	Region        string    `json:"region"`
	AtS           float64   `json:"at_s"`
	ForS          float64   `json:"for_s,omitempty"` // how long there was no picture to come back to, seconds; 0: not known
	Viewers       uint64    `json:"viewers"`         // who lost their picture
	Guided        bool      `json:"guided"`          // they held to the service's retry policy
	BasePerS      float64   `json:"base_per_s"`      // play requests a second before it
	PeakPerS      float64   `json:"peak_per_s"`      // highest in a second after it
	Amplification float64   `json:"amplification"`   // peak over base
	AboveS        float64   `json:"above_s"`         // seconds with more than twice the base
	Attempts      float64   `json:"attempts"`        // requests for each viewer who pressed Play again
	BackS         float64   `json:"back_s"`          // until 95 % of Viewers were watching again, seconds; -1: never
	Back          uint64    `json:"back,omitempty"`  // of Viewers, who were watching again before the next interruption or the end
	Series        []float64 `json:"series"`          // play requests a second, from 10 s before it on
}

// Forecast is what was expected of the crowd before the event, and what came.
type Forecast struct {
	Kind       string    `json:"kind"`
	Viewers    float64   `json:"viewers"`           // expected
	PeakPerS   float64   `json:"peak_per_s"`        // predicted
	ActualPerS float64   `json:"actual_per_s"`      // highest that came
	ErrorPct   float64   `json:"error_pct"`         // weighted absolute error of the forecast over the event, %
	NowcastPct float64   `json:"nowcast_error_pct"` // the same of what was predicted 30 s ahead during the event
	Bins       []Bin     `json:"bins"`
	Warnings   []string  `json:"warnings,omitempty"`
	Scaling    []Scaling `json:"scaling,omitempty"`
}

// Bin is a stretch of the event, forecast against actual, in play starts a second.
type Bin struct {
	T       float64 `json:"t"` // its beginning, seconds from T-0
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	Nowcast float64 `json:"nowcast"` // as predicted 30 s before; -1: nothing was
	Actual  float64 `json:"actual"`
}

// Scaling is a change of a region's capacity that the nowcast asked for.
type Scaling struct {
	T        float64 `json:"t"`
	Region   string  `json:"region"`
	Capacity float64 `json:"capacity"` // play starts a second from then on
}

// Second is one second of the timeline, T+0 being the start of the event.
type Second struct {
	T               int     `json:"t"`
	PlayStarts      float64 `json:"play_starts"`         // completed ok
	PlayFailures    float64 `json:"play_failures"`       // failed, shed or dropped
	Sessions        float64 `json:"sessions"`            // players on the air
	RebufferRatio   float64 `json:"rebuffer_ratio"`      // % of session time in this second
	LiveLatencyS    float64 `json:"live_latency_s"`      // p50; -1 when nobody reported
	LiveLatencyP95S float64 `json:"live_latency_p95_s"`  // -1 when nobody reported
	BitrateKbps     float64 `json:"bitrate_kbps"`        // mean; -1 when nobody reported
	Scheduled       float64 `json:"scheduled,omitempty"` // play starts that the schedule had due
	Requests        float64 `json:"requests,omitempty"`  // play requests sent, with every retry and return
	Capacity        float64 `json:"capacity,omitempty"`  // of all regions together, play starts; 0: no bound
	Shed            float64 `json:"shed,omitempty"`      // of play_failures, those that the service shed
}

// Moment is one line of the story.
type Moment struct {
	AtS  float64 `json:"at_s"`
	Kind string  `json:"kind"` // phase | fault | evidence | viewers | telemetry | lever | forecast
	Text string  `json:"text"`
}
