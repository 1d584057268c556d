package qoe

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// Comparable is a measure by which two groups of viewers are compared.
type Comparable struct {
	Metric     string
	Unit       string
	Proportion bool // a sample is a case that went well or badly; otherwise it is a figure, of which the mean counts
	Skewed     bool // most samples lie close together and a few far above them
	MoreIsGood bool

	sql string // SELECT bad, n; or SELECT … AS v, a row a viewer
}

// comparables are figures of viewers or of play starts: samples of one viewer that depend on each other, such as a
// heartbeat a second, would make a difference look surer than it is.
var comparables = []Comparable{
	{Metric: "video_start_failures", Unit: "%", Proportion: true, sql: startFailures},
	{Metric: "player_start_failures", Unit: "%", Proportion: true, sql: playerStartFailures},
	{Metric: "play_start_time", Unit: "s",
		sql: "SELECT value / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'play_start' AND status = 'ok' {where}"},
	{Metric: "startup_time", Unit: "s", Skewed: true,
		sql: "SELECT value / 1000 AS v FROM events WHERE run = {run:String} AND kind = 'first_frame' {where}"},
	{Metric: "rebuffer_ratio", Unit: "%", Skewed: true,
		sql: `SELECT 100 * sum(rebuffer_ms) / sum(playing_ms + rebuffer_ms) AS v FROM events
			WHERE run = {run:String} AND kind = 'heartbeat' {where} GROUP BY session HAVING sum(playing_ms + rebuffer_ms) > 0`},
	{Metric: "live_latency", Unit: "s",
		sql: `SELECT avg(latency_ms) / 1000 AS v FROM events
			WHERE run = {run:String} AND kind = 'heartbeat' AND state IN ('playing', 'rebuffering') AND latency_ms > 0 {where} GROUP BY session`},
	{Metric: "bitrate", Unit: "kb/s", MoreIsGood: true,
		sql: `SELECT avg(bitrate_kbps) AS v FROM events
			WHERE run = {run:String} AND kind = 'heartbeat' AND state = 'playing' AND bitrate_kbps > 0 {where} GROUP BY session`},
	{Metric: "edge_switches", Unit: "count", Skewed: true,
		sql: `SELECT toFloat64(countIf(kind = 'edge_switch')) AS v FROM events
			WHERE run = {run:String} AND kind IN ('heartbeat', 'edge_switch') {where} GROUP BY session`},
}

// Comparables lists the measures by which groups of viewers are compared, in the order in which they are shown.
func Comparables() []Comparable { return append([]Comparable(nil), comparables...) }

// MaxValues bounds the samples of a group that come one by one.
const MaxValues = 20_000

// Group is what one group of viewers brought to a measure.
type Group struct {
	N   uint64
	Bad uint64 // of a proportion: the cases that went badly

	Mean, Variance float64   // of figures; the variance has N-1 below the line, and is 0 of fewer than two
	Values         []float64 // the figures in ascending order, of a Skewed measure; at most MaxValues
}

// GroupOf takes the samples of a measure of the viewers who live in a home region, of the part of the event from from
// to to, which is excluded.
func GroupOf(ctx context.Context, db *clickhouse.DB, run string, c Comparable, home string, from, to time.Time) (g Group, err error) {
	wrap := func(err error) error { return fmt.Errorf("comparing %s of the viewers of %s: %w", c.Metric, home, err) }
	parts, args := Query{Where: map[string]string{"home": home}, From: from, To: to}.parts(run)
	sql := parts.Replace(c.sql)
	if c.Proportion {
		if err := db.QueryRow(ctx, "SELECT toUInt64(bad), toUInt64(n) FROM ("+sql+")", args...).Scan(&g.Bad, &g.N); err != nil {
			return g, wrap(err)
		}
		g.Bad = min(g.Bad, g.N) // of players that gave up in this part, some asked before it
		return g, nil
	}
	if err := db.QueryRow(ctx, "SELECT count(), avg(v), if(count() < 2, 0, varSamp(v)) FROM ("+sql+")", args...).Scan(&g.N, &g.Mean, &g.Variance); err != nil {
		return g, wrap(err)
	}
	g.Mean, g.Variance = finite(g.Mean), finite(g.Variance)
	if !c.Skewed || g.N > MaxValues {
		return g, nil
	}
	rows, err := db.Query(ctx, "SELECT v FROM ("+sql+") ORDER BY v LIMIT "+strconv.Itoa(MaxValues), args...)
	if err != nil {
		return g, wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		var v float64
		if err := rows.Scan(&v); err != nil {
			return g, wrap(err)
		}
		g.Values = append(g.Values, v)
	}
	if err := rows.Err(); err != nil {
		return g, wrap(err)
	}
	return g, nil
}

// Newest is when the newest event that can be read was written, of the source that is furthest behind among those of the crowd
// and of whoever conducts it; the zero time where one of the given sources said nothing since since.
func Newest(ctx context.Context, db *clickhouse.DB, run string, sources []string, since time.Time) (newest time.Time, err error) {
	for i, source := range sources {
		var n uint64
		var at time.Time
		err := db.QueryRow(ctx, `SELECT count(), max(written) FROM events
			WHERE run = {run:String} AND kind IN ('heartbeat', 'play_start', 'load_stats', 'process_stats')
				AND at >= fromUnixTimestamp64Micro({since:Int64}) AND source = {source:String}`,
			clickhouse.Named("run", run), clickhouse.Named("since", strconv.FormatInt(since.UnixMicro(), 10)), clickhouse.Named("source", source)).Scan(&n, &at)
		if err != nil {
			return time.Time{}, fmt.Errorf("how far the store of run %s is: %w", run, err)
		}
		if n == 0 {
			return time.Time{}, nil
		}
		if i == 0 || at.Before(newest) {
			newest = at
		}
	}
	return newest, nil
}
