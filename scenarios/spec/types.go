package spec

import (
	"net/netip"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

// Scenario is one rehearsal: the event, the pipeline, the crowd, the faults and the objectives.
type Scenario struct {
	APIVersion string
	Name       string
	Seed       uint64
	Event      Event
	Topology   Topology
	Playback   Playback
	Audience   Audience
	Limits     Limits
	Target     *Target // nil: the reference pipeline
	Faults     []Fault
	Experiment *Experiment // nil: the faults are no experiment
	Objectives []Objective
}

// Event is what is streamed.
type Event struct {
	Duration time.Duration
	Ladder   string        // a ladder of the reference encoder: "sports"
	DVR      time.Duration // how far back viewers can go; 0: the pipeline's default
}

// Topology is the reference pipeline's shape. Regions keep their order: it decides their loopback addresses.
type Topology struct {
	Regions []string
	Edges   map[string]int // edges per region
}

// Playback is how the reference playback services are set up.
type Playback struct {
	Capacity      float64 // play starts a second, all regions together; 0: what the machine carries
	GuidedBackoff bool    // answers say when to come back (default)
	Tokens        bool    // edges serve media to sessions alone (default)

	// Instead of a capacity that stays: what one instance carries, play starts a second, and how long a new one takes
	// to be of use. The nowcast asks for instances; Instance 0: there are none.
	Instance float64
	Lead     time.Duration
}

// Audience is the crowd.
type Audience struct {
	Mix           string
	Starts        []Start
	Players       int
	PlayersWithin time.Duration // they press Play within this time from T-0; 0: half the event
	Connections   Connections
	People        audience.People
	Interruptions []Interruption
	Forecast      *Forecast // nil: nothing was forecast
}

// Forecast is what is expected of the crowd before the event.
type Forecast struct {
	Event  forecast.Event
	From   time.Duration    // T-0, from the forecast event's start: -2m when the rehearsal begins two minutes before it
	Curve  []audience.Point // the middle estimate, from T-0 on
	Result *forecast.Prediction
}

// Connections is how play starts reach a playback service.
type Connections struct {
	Kind       string // "keep-alive" (default): a gateway fleet's; "fresh": one TCP connection each; "fresh-tls": with TLS 1.3
	PerService int    // kept per service; 0: the generator's default
	InFlight   int    // requests in flight on one connection; 1: the answer is waited for
}

// Interruption takes viewers who are watching off the air; they press Play again.
type Interruption struct {
	At      time.Duration
	For     time.Duration // nobody comes back earlier
	Region  string
	Viewers int
	Guided  bool // they hold to the policy that came with their session (default, where there is guided backoff); false: nobody does, and no answer has one
}

// Limits are the ceilings of a run's load. What asks for more is refused before it starts.
type Limits struct {
	Rate     float64       // play starts a second
	Duration time.Duration // of the event
}

// Start is one leg of the play-start schedule: at At the rate becomes, or ramps to, Rate play starts a second.
type Start struct {
	At    time.Duration
	Rate  float64
	For   time.Duration // 0: until the next leg or the end; otherwise the base rate holds again after it: see audience.Leg
	Curve string        // one of audience.Curves; "constant" by default

	Amplitude float64          // sinus: swing around Rate, play starts a second
	Period    time.Duration    // sinus
	Times     float64          // forecast: so many times as many come as expected; 0: 1
	File      string           // csv: the measured curve, beside the scenario file
	Points    []audience.Point // csv: what it holds; forecast: what is predicted
}

// Target points the crowd at somebody else's stream, or play API, or both.
type Target struct {
	Manifest string // DASH or HLS URL; "": players do not come
	Play     *Play  // nil: the open-loop crowd does not come
	Consent  string // token that the target serves, for one outside loopback
	Own      []Own  // what faults may break
}

// Own is something of the target's on this machine that the scenario's owner declares as theirs to break.
type Own struct {
	Name      string         // as `where:` names it
	Address   netip.AddrPort // where it listens
	Datagrams bool           // it takes UDP datagrams, and no connections
	Relay     netip.AddrPort // where a relay in front of it listens, for faults that need one; not valid: none
	Segments  string         // template of its segments' paths, for faults in segments: "/live/{rung}-{number}.m4s"
	Init      string         // path of their initialisation segment, relative to the segment's
}

// Play is an HTTP API that answers play starts.
type Play struct {
	Method   string // "POST" by default
	URL      string
	Headers  []Header
	Body     string // template: {{viewer}}, {{device}}, {{isp}}, {{region}}, {{title}}, {{number}}
	Session  string // where the answer has the session, as a path: "data.session.id"
	Manifest string // where it has the manifest's URL; "": it has none
}

// Header is one line of a request's head.
type Header struct{ Name, Value string }

// Fault is one thing to break. The reader sets its ID, the kind and its position in the file ("region-1"), names the model where it
// is left out, and completes the model's parameters.
type Fault = chaos.Fault

// Objective is one threshold on one metric, as written and as parsed.
type Objective struct {
	Metric     string            // "live_latency"
	Where      map[string]string // dimension filter: {"region": "us-west"}
	WhereText  string            // as written: "region=us-west"
	From, To   time.Duration     // the part of the event that is looked at, To excluded; To 0: to its end
	Expression string            // as written: "p(95)<12s"
	Aggregate  string            // "p", "avg", "min", "max", "med", "rate", "count"
	Quantile   float64           // with "p": 0 to 100
	Op         string            // "<", "<=", ">", ">=", "==", "!="
	Threshold  float64           // in the metric's unit: seconds, per cent, count, kb/s
}
