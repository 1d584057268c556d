package event

import "time"

// Kind says what happened. The comment of each kind names the fields it fills beyond the common ones.
type Kind string

const (
	// PlayStart: one intended play start of the open-loop crowd or of a full player, after its last attempt.
	// Status ok|shed|failed|dropped; Value = intended→done ms; LagMS = intended→sent ms; Attempts; Edge = playback
	// service that answered; Region = that service's region; Session when ok; Detail = why it failed, or,
	// of a full player's that is ok, the playback service's name of the session. State "return": by a viewer who was on the
	// air before an interruption.
	PlayStart Kind = "play_start"
	// LoadStats: the open-loop crowd, for each second of the event; At = its middle. Nums: scheduled (play starts that the schedule had
	// due), sent, late (of those, by the sender's own doing), requests (sent, with every retry and return), ok, shed, failed, dropped.
	LoadStats Kind = "load_stats"
	// FirstFrame: a player's first frame. Value = startup time ms, from pressing Play; Rendition.
	FirstFrame Kind = "first_frame"
	// StartFailed: a player gave up before its first frame, or left without one after a wait that viewers do not take
	// (player.Tuning.StartPatience). Value = ms waited; Detail = why. Each full player has at most one of first_frame and
	// start_failed; one that left sooner than that has neither.
	StartFailed Kind = "start_failed"
	// Heartbeat: once a second for each session on the air. BufferMS, LatencyMS (behind the encoder's wall clock),
	// Rendition, BitrateKbps and Segment (on the screen, or the last that were while it stalls), PlayingMS and RebufferMS since the last heartbeat; State.
	Heartbeat Kind = "heartbeat"
	// Rebuffer: a stall after the first frame, written when it ends. Value = ms; At = when it began; Rendition = the last
	// shown before it.
	Rebuffer Kind = "rebuffer"
	// RenditionSwitch: adaptation changed rendition. Detail = "from→to".
	RenditionSwitch Kind = "rendition_switch"
	// EdgeSwitch: a player moved to another edge. Edge = the new one; Detail = why.
	EdgeSwitch Kind = "edge_switch"
	// FetchFailed: a manifest, playlist or segment request failed. Detail = why; Value = ms until it failed.
	FetchFailed Kind = "fetch_failed"
	// SessionEnd: a full player left. PlayingMS and RebufferMS are the session's totals; Status ok|failed; Detail = why; Rendition = the last shown;
	// Nums = its counters: fetches, fetched, failures, early, cancelled, wrong, gaps, skipped_ms, resyncs, stalls,
	// edge_switches, rendition_switches. The heartbeats of a session, the last of which may be short, add up to its totals.
	SessionEnd Kind = "session_end"

	// SegmentPublished: a packager stored one segment at one origin. Value = PUT ms; Bytes; Segment; Rendition;
	// Status ok|failed; Component = packager; Detail = origin.
	SegmentPublished Kind = "segment_published"
	// EdgeStats, OriginStats, PlaybackStats: once a second and component; Nums holds counters since the last one.
	EdgeStats     Kind = "edge_stats"
	OriginStats   Kind = "origin_stats"
	PlaybackStats Kind = "playback_stats"
	// RegionHealth: a playback service changed its mind about a region's or edge's health. Edge; Status up|down.
	RegionHealth Kind = "region_health"
	// Lever: a playback service began or ended to leave something out. Status engaged|released; State = who moved it, load|operator;
	// Detail = the lever's name; Value = the load that moves it, in shares of the capacity.
	Lever Kind = "lever"
	// RegionWeight: a playback service moves the share of its viewers' new starts that a region gets. Region; Status
	// moving|settled; State = who made it, load|operator; Value = the weight it moves to, or stands at, 0 to 1.
	RegionWeight Kind = "region_weight"
	// SpillOver: a region that is full began or ended to hand new starts to others. Status begun|ended; Detail = who gets most;
	// Value = the share that is to go.
	SpillOver Kind = "spill_over"
	// Operator: a playback service carried out an order. Status done; Detail = the order, JSON.
	Operator Kind = "operator"

	// SourceEnd: a source of a distributed run has ended and says nothing more: its number counts what it emitted. Status
	// ok|failed (its load ended early; Detail = why); Nums: dropped.
	SourceEnd Kind = "source_end"

	// Phase: the run entered a phase. Detail = its name.
	Phase Kind = "phase"
	// Fault: a fault changed state. Fault = its id; Region; Status injecting|injected|restoring|restored|confirmed|
	// mismatch|inconclusive|failed; Detail.
	Fault Kind = "fault"
	// Experiment: what was decided of an experiment while it ran. Status unsteady (before the first fault)|stopped|blind (stop
	// conditions could not be watched); Detail = why; Value = what was measured, in the metric's unit.
	Experiment Kind = "experiment"
	// Probe: the evidence prober's view of a fault's target. Fault; Component = address; Status
	// connected|refused|reset|timeout|error; Region = the address's; Value = ms; Detail = what GET /healthz said.
	Probe Kind = "probe"

	// ProcessStats: once a second for each process of the run. Component = its name ("conductor", "store", "region/us-east"
	// …); Nums = rss_bytes and peak_bytes (resident memory, now and the most it was), cpu_s (user and system since it
	// began), threads.
	ProcessStats Kind = "process_stats"

	// TelemetryDropped: an emitter could not take events (its queue or its spool was full). Value = how many since the
	// last one; Detail = why. Written by the emitter itself, in the first place that opens.
	TelemetryDropped Kind = "telemetry_dropped"
)

// Event is one fact on the timeline. Zero fields mean "does not apply".
type Event struct {
	Run    string    // run id; filled by the emitter
	Source string    // one process incarnation, e.g. "region/us-east#2"; filled by the emitter
	Seq    uint64    // 1, 2, 3 … without gaps within a Source; filled by the emitter
	At     time.Time // UTC, microseconds kept
	// Written is when the emitter took the event: At may be earlier (a stall is written when it ends). Filled by the
	// emitter; "written → readable in the store" is the lag of the event path.
	Written time.Time

	Kind      Kind
	Status    string
	Region    string // the region that served, or that the component lives in
	Component string // "edge/us-east/1", "player", "packager/us-west" …
	Session   string // of a full player: the viewer, the same in all its events; of the open-loop crowd: the service's name of it
	Device    string // audience mix: "tv", "phone", "browser" …
	ISP       string
	Home      string // of viewers: the region they belong to, whoever serves them
	Edge      string // edge or playback service concerned
	Rendition string
	Segment   uint64
	Fault     string
	State     string // player state: starting|playing|rebuffering
	Detail    string

	Value       float64 // the kind's main measure; milliseconds unless the kind says otherwise
	LagMS       float64
	BufferMS    float64
	LatencyMS   float64
	PlayingMS   float64
	RebufferMS  float64
	BitrateKbps float64
	Bytes       uint64
	Attempts    uint32

	Nums map[string]float64 // counters of the *_stats kinds
}

// Sink takes events. Emit never blocks and is safe for concurrent use; what a sink cannot take it counts as dropped,
// and the run reports it.
type Sink interface{ Emit(Event) }

// Discard is a Sink for tests and tools that keep no telemetry.
var Discard Sink = discard{}

type discard struct{}

func (discard) Emit(Event) {}
