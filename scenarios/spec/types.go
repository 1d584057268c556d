package spec

import "time"

// Scenario is one rehearsal: the event, the pipeline, the crowd, the faults and the objectives.
type Scenario struct {
	APIVersion string
	Name       string
	Seed       uint64
	Event      Event
	Topology   Topology
	Audience   Audience
	Target     *Target // nil: the reference pipeline
	Faults     []Fault
	Objectives []Objective
}

// Event is what is streamed.
type Event struct {
	Duration time.Duration
	Ladder   string // a ladder of the reference encoder: "sports"
}

// Topology is the reference pipeline's shape. Regions keep their order: it decides their loopback addresses.
type Topology struct {
	Regions []string
	Edges   map[string]int // edges per region
}

// Audience is the crowd.
type Audience struct {
	Mix     string
	Starts  []Start
	Players int
}

// Start is one leg of the play-start schedule: at At the rate becomes, or ramps to, Rate play starts a second.
type Start struct {
	At    time.Duration
	Rate  float64
	For   time.Duration // 0: until the next leg or the end; otherwise the base rate holds again after it: see audience.Leg
	Curve string        // "constant" (default), "ramp", "spike"
}

// Target points the crowd at somebody else's stream.
type Target struct {
	Manifest string // DASH or HLS URL on a loopback address
}

// Fault is one thing to break.
type Fault struct {
	ID    string // "region-1": the kind and its position in the file; set by the reader
	At    time.Duration
	For   time.Duration
	Fail  string // "region"
	Where string // "us-east"
	Model string // "crash" (default) or "cut"
}

// Objective is one threshold on one metric, as written and as parsed.
type Objective struct {
	Metric     string            // "live_latency"
	Where      map[string]string // dimension filter: {"region": "us-west"}
	WhereText  string            // as written: "region=us-west"
	Expression string            // as written: "p(95)<12s"
	Aggregate  string            // "p", "avg", "min", "max", "med", "rate", "count"
	Quantile   float64           // with "p": 0 to 100
	Op         string            // "<", "<=", ">", ">=", "==", "!="
	Threshold  float64           // in the metric's unit: seconds, per cent, count, kb/s
}
