package qoe

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Aggregates of the samples of a metric.
const (
	P     = "p" // with a quantile, 0 to 100
	Avg   = "avg"
	Min   = "min"
	Max   = "max"
	Med   = "med"
	Rate  = "rate"  // % of the whole; of a metric that is a ratio: of all sessions together
	Count = "count" // how many; its unit is "count"
)

// Metric is one measure.
type Metric struct {
	Name       string
	Unit       string   // "s", "%", "count", "kb/s"; of Count always "count"
	Meaning    string   // one sentence, for people
	Source     string   // the standard's name for it, or whose definition it is
	Aggregates []string // those that make sense
	Dimensions []string // those it can be filtered by
	Whole      bool     // it is known of the whole event only, not of a part of it
	Seconds    bool     // a sample is a whole second of the event: of a part of one it says too little
	Players    bool     // only full players bring samples; of the others, play starts do too
	Instead    string   // a sample is written when it is over, with the time at which it began: what goes on now is seen by this metric; "": by itself

	samples    string // SELECT … AS v, a row a sample; {where} stands for the filters, {second} for a row's second of the event, {fill} for the seconds asked for
	rate       string // SELECT % AS v, number of samples AS n
	count      string // SELECT count AS v, number of samples AS n
	population string // SELECT n: where nothing happened to n who were watched, the figure is 0 and not unknown
}

// Dimensions that a metric can be filtered by.
var dimensions = []string{"device", "edge", "home", "isp", "region", "rendition"}

var statistics = []string{P, Avg, Min, Max, Med, Count}

// watched are the sessions that were seen to play or to stall.
const watched = "SELECT uniqExact(session) FROM events WHERE run = {run:String} AND kind = 'heartbeat' AND playing_ms + rebuffer_ms > 0 {where}"

// startWithin is longer than any player waits for its first frame before it gives up (20 s): a question about a part of the
// event looks no further back for the play starts of those who gave up in it.
const startWithin = time.Minute

// started are the sessions that a playback service (or, for somebody else's stream, a manifest) gave to players that gave
// up later: of the millions of the open-loop crowd none is remembered.
const started = `SELECT session FROM events WHERE run = {run:String} AND kind = 'play_start' AND status = 'ok' {recent}
	AND session IN (SELECT session FROM events WHERE run = {run:String} AND kind = 'start_failed')`

var metrics = []Metric{
	{
		Name: "startup_time", Unit: "s", Source: "CTA-2066 video start time",
		Meaning:    "From pressing Play to the first frame, of the players that got one; those that did not are in player_start_failures.",
		Players:    true,
		Aggregates: statistics, Dimensions: dimensions,
		samples: "SELECT value / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'first_frame' {where}",
	},
	{
		Name: "play_start_time", Unit: "s", Source: "tminus: intended start to answer, open loop",
		Meaning:    "From the intended time of a play start to the answer that gave a session; shed, failed and dropped ones are in video_start_failures.",
		Aggregates: statistics, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		samples: "SELECT value / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'play_start' AND status = 'ok' {where}",
	},
	{
		Name: "video_start_failures", Unit: "%", Source: "CTA-2066 video start failure",
		Meaning:    "Intended play starts that ended without video: shed, failed or dropped, or a session whose player gave up before its first frame.",
		Aggregates: []string{Rate, Count}, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		rate:  `SELECT if(n = 0, 0, 100 * bad / n) AS v, n FROM (` + startFailures + `)`,
		count: `SELECT toFloat64(bad) AS v, n FROM (` + startFailures + `)`,
	},
	{
		Name: "player_start_failures", Unit: "%", Source: "CTA-2066 video start failure",
		Meaning:    "Full players that gave up before their first frame, of those that got one or gave up: the open-loop crowd, which fetches no media, is not in it.",
		Players:    true,
		Aggregates: []string{Rate, Count}, Dimensions: []string{"device", "edge", "home", "isp", "region"}, // without a picture there is no rendition
		rate:  `SELECT if(n = 0, 0, 100 * bad / n) AS v, n FROM (` + playerStartFailures + `)`,
		count: `SELECT toFloat64(bad) AS v, n FROM (` + playerStartFailures + `)`,
	},
	{
		Name: "send_lag", Unit: "s", Source: "tminus: intended start to sent, open loop",
		Meaning:    "How much later than intended a play start was sent: what the generator itself is late by. Dropped ones were never sent.",
		Aggregates: statistics, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		samples: "SELECT lag_ms / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'play_start' AND status != 'dropped' {where}",
	},
	{
		Name: "play_starts_on_time", Unit: "%", Source: "tminus: open loop",
		Meaning:    "Intended play starts that were sent within 10 ms of their time; dropped ones were not.",
		Aggregates: []string{Rate, Count}, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		rate:  `SELECT if(n = 0, 0, 100 * good / n) AS v, n FROM (` + onTime + `)`,
		count: `SELECT toFloat64(good) AS v, n FROM (` + onTime + `)`,
	},
	{
		Name: "retry_amplification", Unit: "count", Source: "tminus: attempts over play starts",
		Meaning:    "Attempts of a play start, from pressing Play to its end: 1 where nobody had to try again.",
		Aggregates: []string{P, Avg, Min, Max, Med}, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		samples: "SELECT toFloat64(attempts) AS v FROM events WHERE run = {run:String} AND kind = 'play_start' AND attempts > 0 {where}",
	},
	{
		Name: "play_starts_per_second", Unit: "count", Source: "tminus: goodput",
		Meaning:    "Play starts that ended well, of one second: one sample a second, also where there were none.",
		Seconds:    true,
		Aggregates: []string{P, Avg, Min, Max, Med}, Dimensions: []string{"device", "edge", "home", "isp", "region"},
		samples: `SELECT toFloat64(n) AS v FROM (SELECT {second} AS t, count() AS n FROM events
			WHERE run = {run:String} AND kind = 'play_start' AND status = 'ok' {where} GROUP BY t ORDER BY t WITH FILL{fill})`,
	},
	{
		Name: "load_amplification", Unit: "count", Source: "tminus: requests over intended starts",
		Meaning:    "Play requests that were sent in a second, with every retry and return, over the play starts that the schedule had due in it.",
		Seconds:    true,
		Aggregates: []string{P, Avg, Min, Max, Med},
		samples: `SELECT sum(nums['requests']) / sum(nums['scheduled']) AS v FROM events
			WHERE run = {run:String} AND kind = 'load_stats' {where} GROUP BY {second} HAVING sum(nums['scheduled']) > 0`,
	},
	{
		Name: "rebuffer_ratio", Unit: "%", Source: "CTA-2066 rebuffering ratio",
		Meaning:    "Stalled time of a session over its playing and stalled time; rate: of all sessions' time together.",
		Players:    true,
		Aggregates: []string{P, Avg, Min, Max, Med, Rate}, Dimensions: dimensions,
		samples: `SELECT 100 * sum(rebuffer_ms) / sum(playing_ms + rebuffer_ms) AS v FROM events
			WHERE run = {run:String} AND kind = 'heartbeat' {where} GROUP BY session HAVING sum(playing_ms + rebuffer_ms) > 0`,
		rate: `SELECT if(sum(all_ms) = 0, 0, 100 * sum(stalled_ms) / sum(all_ms)) AS v, count() AS n
			FROM (SELECT sum(rebuffer_ms) AS stalled_ms, sum(playing_ms + rebuffer_ms) AS all_ms FROM events
				WHERE run = {run:String} AND kind = 'heartbeat' {where} GROUP BY session HAVING all_ms > 0)`,
	},
	{
		Name: "rebuffer_duration", Unit: "s", Source: "CTA-2066 rebuffering event duration",
		Meaning:    "One stall, from running dry to playing again. Without any stall every figure is 0.",
		Instead:    "rebuffer_ratio",
		Players:    true,
		Aggregates: statistics, Dimensions: dimensions,
		samples:    "SELECT value / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'rebuffer' {where}",
		population: watched,
	},
	{
		Name: "live_latency", Unit: "s", Source: "DASH-IF low-latency modes: presentation latency",
		Meaning:    "How far behind the encoder's wall clock the picture is: one sample a session and second, stalls included.",
		Players:    true,
		Aggregates: []string{P, Avg, Min, Max, Med}, Dimensions: dimensions,
		samples: "SELECT latency_ms / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'heartbeat' AND state IN ('playing', 'rebuffering') AND latency_ms > 0 {where}",
	},
	{
		Name: "bitrate", Unit: "kb/s", Source: "CTA-2066 average media bitrate",
		Meaning:    "Bitrate of the video rendition on the screen: one sample a session and second while it plays.",
		Players:    true,
		Aggregates: []string{P, Avg, Min, Max, Med}, Dimensions: dimensions,
		samples: "SELECT bitrate_kbps AS v FROM events WHERE run = {run:String} AND kind = 'heartbeat' AND state = 'playing' AND bitrate_kbps > 0 {where}",
	},
	{
		Name: "edge_switches", Unit: "count", Source: "tminus",
		Meaning:    "How often a session moved to another edge; count: all moves together.",
		Players:    true,
		Aggregates: statistics, Dimensions: []string{"device", "home", "isp", "region"},
		samples: `SELECT toFloat64(countIf(kind = 'edge_switch')) AS v FROM events
			WHERE run = {run:String} AND kind IN ('heartbeat', 'edge_switch') {where} GROUP BY session`,
		count: `SELECT toFloat64(countIf(kind = 'edge_switch')) AS v, uniqExact(session) AS n FROM events
			WHERE run = {run:String} AND kind IN ('heartbeat', 'edge_switch') {where}`,
	},
	{
		Name: "playback_failures", Unit: "%", Source: "CTA-2066 video playback failure",
		Meaning:    "Sessions that had a first frame and then ended in an error, of all that had one. Filters look at where a session was last.",
		Players:    true,
		Aggregates: []string{Rate, Count}, Dimensions: dimensions,
		Whole: true,
		rate:  `SELECT if(n = 0, 0, 100 * bad / n) AS v, n FROM (` + playbackFailures + `)`,
		count: `SELECT toFloat64(bad) AS v, n FROM (` + playbackFailures + `)`,
	},
	{
		Name: "telemetry_loss", Unit: "%", Source: "tminus",
		Meaning:    "Events that were emitted, or dropped before they could be, and are not in the store.",
		Aggregates: []string{Rate, Count},
		Whole:      true,
	},
}

// A player that gave up after a play start that was ok is a failed start too; one whose play start was not ok has been
// counted there. A session that never asked for a play start (there is none in the run) counts by itself.
const startFailures = `
	SELECT refused + if(asked > 0, gave_up_later, gave_up) AS bad, if(asked > 0, asked, ended) AS n
	FROM (SELECT countIf(kind = 'play_start') AS asked, countIf(kind = 'play_start' AND status != 'ok') AS refused, count() AS ended,
			countIf(kind = 'start_failed') AS gave_up, countIf(kind = 'start_failed' AND session IN (` + started + `)) AS gave_up_later
		FROM events WHERE run = {run:String} AND kind IN ('play_start', 'first_frame', 'start_failed') {where})`

const onTime = `
	SELECT countIf(status != 'dropped' AND lag_ms <= 10) AS good, count() AS n FROM events WHERE run = {run:String} AND kind = 'play_start' {where}`

const playerStartFailures = `
	SELECT uniqExactIf(session, kind = 'start_failed') AS bad, uniqExact(session) AS n
	FROM events WHERE run = {run:String} AND kind IN ('first_frame', 'start_failed') {where}`

// A session's first frame and its end may be of different regions, edges and renditions: it is put together before it is
// filtered, and counts where it was last.
const playbackFailures = `
	SELECT countIf(failed AND shown) AS bad, countIf(shown) AS n
	FROM (SELECT shown, failed, last.1 AS device, last.2 AS edge, last.3 AS isp, last.4 AS region, last.5 AS rendition, last.6 AS home
		FROM (SELECT max(kind = 'first_frame') AS shown, max(kind = 'session_end' AND status = 'failed') AS failed,
				argMax((device, edge, isp, region, rendition, home), (at, kind = 'session_end')) AS last
			FROM events WHERE run = {run:String} AND kind IN ('first_frame', 'session_end') GROUP BY session))
	WHERE true {where}`

// Metrics lists all metrics by name. The slices are the caller's.
func Metrics() []Metric {
	list := slices.Clone(metrics)
	for i := range list {
		list[i].Aggregates = slices.Clone(list[i].Aggregates)
		list[i].Dimensions = slices.Clone(list[i].Dimensions)
	}
	slices.SortFunc(list, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Lookup finds a metric by name.
func Lookup(name string) (Metric, bool) {
	i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return metrics[i], true
}

// UnitOf is the unit of one aggregate of the metric.
func (m Metric) UnitOf(aggregate string) string {
	if aggregate == Count {
		return "count"
	}
	return m.Unit
}

// Query asks for one figure.
type Query struct {
	Metric    string
	Aggregate string
	Quantile  float64           // with P, 0 to 100
	Where     map[string]string // dimension → value; all must hold
	Zero      time.Time         // T-0, from which seconds are counted
	From, To  time.Time         // the part of the event to look at, To excluded; zero: not bounded there
	Ledger    Ledger            // with telemetry_loss
}

// Ledger is what was emitted, as the spools tell.
type Ledger struct {
	Emitted uint64
	Dropped uint64
}

// Validate says what is wrong with a query, or nil.
func (q Query) Validate() error {
	m, ok := Lookup(q.Metric)
	if !ok {
		return fmt.Errorf("no metric %q", q.Metric)
	}
	if !slices.Contains(m.Aggregates, q.Aggregate) {
		return fmt.Errorf("%s has no %q: it has %s", m.Name, q.Aggregate, strings.Join(m.Aggregates, ", "))
	}
	if q.Aggregate == P && !(q.Quantile >= 0 && q.Quantile <= 100) {
		return fmt.Errorf("p(%v) is not between p(0) and p(100)", q.Quantile)
	}
	if m.Whole && !(q.From.IsZero() && q.To.IsZero()) {
		return fmt.Errorf("%s is known of the whole event only", m.Name)
	}
	for d := range q.Where {
		if !slices.Contains(m.Dimensions, d) {
			return fmt.Errorf("%s cannot be filtered by %q", m.Name, d)
		}
	}
	return nil
}
