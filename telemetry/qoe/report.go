package qoe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Load is what the play starts of a run came to: Intended = Sent + Dropped, Sent = OK + Shed + Failed.
type Load struct {
	Intended, Sent, OK, Shed, Failed, Dropped uint64
	LatencyMS                                 Quantiles // intended → done, of those sent
	SendLagMS                                 Quantiles // intended → sent, of those sent
}

// Quantiles of a time, in milliseconds.
type Quantiles struct{ P50, P95, P99, P999, Max float64 }

func (q *Quantiles) scan(levels []float64, most float64) {
	if len(levels) == 4 {
		*q = Quantiles{finite(levels[0]), finite(levels[1]), finite(levels[2]), finite(levels[3]), finite(most)}
	}
}

// finite turns the "not a number" of no samples into 0.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// LoadOf computes the load of a run.
func LoadOf(ctx context.Context, db *clickhouse.DB, run string) (l Load, err error) {
	var latency, lag []float64
	var latencyMax, lagMax float64
	err = db.QueryRow(ctx, `SELECT count(), countIf(status != 'dropped') AS sent, countIf(status = 'ok'), countIf(status = 'shed'),
			countIf(status NOT IN ('ok', 'shed', 'dropped')), countIf(status = 'dropped'),
			quantilesExactInclusiveIf(0.5, 0.95, 0.99, 0.999)(value, status != 'dropped'), maxIf(value, status != 'dropped'),
			quantilesExactInclusiveIf(0.5, 0.95, 0.99, 0.999)(lag_ms, status != 'dropped'), maxIf(lag_ms, status != 'dropped')
		FROM events WHERE run = {run:String} AND kind = 'play_start'`, clickhouse.Named("run", run)).
		Scan(&l.Intended, &l.Sent, &l.OK, &l.Shed, &l.Failed, &l.Dropped, &latency, &latencyMax, &lag, &lagMax)
	if err != nil {
		return l, fmt.Errorf("the load of run %s: %w", run, err)
	}
	l.LatencyMS.scan(latency, latencyMax)
	l.SendLagMS.scan(lag, lagMax)
	return l, nil
}

// Players is what the full players of a run lived through.
type Players struct {
	Sessions       uint64 // that pressed Play: got a first frame, or gave up before it
	StartFailures  uint64
	StartupP50S    float64
	StartupP95S    float64
	PlayingS       float64
	RebufferS      float64
	Rebuffers      uint64
	LongestStallS  float64
	EdgeSwitches   uint64
	SkippedS       float64 // media jumped over to catch up with the live edge, all sessions
	LiveLatencyP50 float64 // seconds
	LiveLatencyP95 float64 // seconds
	BitrateKbps    float64 // mean
}

// PlayersOf computes the totals of a run's full players.
func PlayersOf(ctx context.Context, db *clickhouse.DB, run string) (p Players, err error) {
	var startup, latency []float64
	err = db.QueryRow(ctx, `SELECT uniqExactIf(session, kind IN ('first_frame', 'start_failed', 'heartbeat')), countIf(kind = 'start_failed'),
			quantilesExactInclusiveIf(0.5, 0.95)(value / 1000, kind = 'first_frame'),
			sumIf(playing_ms, kind = 'heartbeat') / 1000, sumIf(rebuffer_ms, kind = 'heartbeat') / 1000,
			countIf(kind = 'rebuffer'), maxIf(value, kind = 'rebuffer') / 1000, countIf(kind = 'edge_switch'),
			sumIf(nums['skipped_ms'], kind = 'session_end') / 1000,
			quantilesExactInclusiveIf(0.5, 0.95)(latency_ms / 1000, kind = 'heartbeat' AND state IN ('playing', 'rebuffering') AND latency_ms > 0),
			avgIf(bitrate_kbps, kind = 'heartbeat' AND state = 'playing' AND bitrate_kbps > 0)
		FROM events WHERE run = {run:String} AND kind IN ('first_frame', 'start_failed', 'heartbeat', 'rebuffer', 'edge_switch', 'session_end')`,
		clickhouse.Named("run", run)).
		Scan(&p.Sessions, &p.StartFailures, &startup, &p.PlayingS, &p.RebufferS, &p.Rebuffers, &p.LongestStallS, &p.EdgeSwitches, &p.SkippedS, &latency, &p.BitrateKbps)
	if err != nil {
		return p, fmt.Errorf("the players of run %s: %w", run, err)
	}
	if len(startup) == 2 {
		p.StartupP50S, p.StartupP95S = finite(startup[0]), finite(startup[1])
	}
	if len(latency) == 2 {
		p.LiveLatencyP50, p.LiveLatencyP95 = finite(latency[0]), finite(latency[1])
	}
	p.BitrateKbps = finite(p.BitrateKbps)
	return p, nil
}

// Second is one second of a run.
type Second struct {
	T               int     // seconds from the start of the event; the second is [T, T+1)
	PlayStarts      float64 // completed ok
	PlayFailures    float64 // failed, shed or dropped
	Sessions        float64 // players on the air: playing or stalled
	RebufferRatio   float64 // % of the time that sessions reported in this second
	LiveLatencyS    float64 // p50; -1 when nobody reported
	LiveLatencyP95S float64 // -1 when nobody reported
	BitrateKbps     float64 // mean; -1 when nobody reported
}

// MaxSeconds bounds a timeline.
const MaxSeconds = 24 * 3600

// Timeline computes the seconds [0, n) from start, each of them present. Where filters by dimension, as in a Query.
func Timeline(ctx context.Context, db *clickhouse.DB, run string, start time.Time, n int) ([]Second, error) {
	if n < 0 || n > MaxSeconds {
		return nil, fmt.Errorf("a timeline of %d seconds: at most %d", n, MaxSeconds)
	}
	seconds := make([]Second, n)
	for i := range seconds {
		seconds[i] = Second{T: i, LiveLatencyS: -1, LiveLatencyP95S: -1, BitrateKbps: -1}
	}
	rows, err := db.Query(ctx, `SELECT toInt64(floor((toUnixTimestamp64Micro(at) - {start:Int64}) / 1000000)) AS t,
			toFloat64(countIf(kind = 'play_start' AND status = 'ok')), toFloat64(countIf(kind = 'play_start' AND status != 'ok')),
			toFloat64(uniqExactIf(session, kind = 'heartbeat' AND state IN ('playing', 'rebuffering'))),
			sumIf(rebuffer_ms, kind = 'heartbeat'), sumIf(playing_ms + rebuffer_ms, kind = 'heartbeat'),
			quantilesExactInclusiveIf(0.5, 0.95)(latency_ms / 1000, kind = 'heartbeat' AND state IN ('playing', 'rebuffering') AND latency_ms > 0),
			countIf(kind = 'heartbeat' AND state IN ('playing', 'rebuffering') AND latency_ms > 0),
			avgIf(bitrate_kbps, kind = 'heartbeat' AND state = 'playing' AND bitrate_kbps > 0) AS bitrate
		FROM events WHERE run = {run:String} AND kind IN ('play_start', 'heartbeat') GROUP BY t HAVING t >= 0 AND t < {n:Int64} ORDER BY t`,
		clickhouse.Named("run", run), clickhouse.Named("start", fmt.Sprint(start.UnixMicro())), clickhouse.Named("n", fmt.Sprint(n)))
	if err != nil {
		return nil, fmt.Errorf("the timeline of run %s: %w", run, err)
	}
	defer rows.Close()
	for rows.Next() {
		var t int64
		var s Second
		var stalled, all, bitrate float64
		var latency []float64
		var reported uint64
		if err := rows.Scan(&t, &s.PlayStarts, &s.PlayFailures, &s.Sessions, &stalled, &all, &latency, &reported, &bitrate); err != nil {
			return nil, fmt.Errorf("the timeline of run %s: %w", run, err)
		}
		s.T, s.LiveLatencyS, s.LiveLatencyP95S, s.BitrateKbps = int(t), -1, -1, -1
		if all > 0 {
			s.RebufferRatio = 100 * stalled / all
		}
		if reported > 0 && len(latency) == 2 {
			s.LiveLatencyS, s.LiveLatencyP95S = latency[0], latency[1]
		}
		if !math.IsNaN(bitrate) {
			s.BitrateKbps = bitrate
		}
		seconds[t] = s
	}
	return seconds, rows.Err()
}

// Delivery is how the events of a run got into the store.
type Delivery struct {
	Stored  uint64
	Twice   uint64            // stored more than once: must be 0
	Sources map[string]uint64 // stored, by source
	// Written → handed to the store, seconds.
	LagP50S, LagP95S, LagMaxS float64
}

// DeliveryOf computes the delivery of a run's events.
func DeliveryOf(ctx context.Context, db *clickhouse.DB, run string) (d Delivery, err error) {
	wrap := func(err error) error { return fmt.Errorf("the delivery of run %s: %w", run, err) }
	// A source numbers without gaps, so that a bitmap of what is stored takes a bit an event and not sixteen bytes.
	rows, err := db.Query(ctx, "SELECT source, count() AS n, n - groupBitmap(seq) FROM events WHERE run = {run:String} GROUP BY source", clickhouse.Named("run", run))
	if err != nil {
		return d, wrap(err)
	}
	defer rows.Close()
	d.Sources = make(map[string]uint64)
	for rows.Next() {
		var source string
		var n uint64
		var twice int64
		if err := rows.Scan(&source, &n, &twice); err != nil {
			return d, wrap(err)
		}
		d.Sources[source] = n
		d.Stored += n
		d.Twice += uint64(max(0, twice))
	}
	if err := rows.Err(); err != nil {
		return d, wrap(err)
	}
	var lag []float64
	err = db.QueryRow(ctx, `SELECT quantilesExactInclusiveIf(0.5, 0.95, 1)((toUnixTimestamp64Micro(stored_at) - toUnixTimestamp64Micro(written)) / 1000000, written > toDateTime64(0, 6, 'UTC'))
		FROM events WHERE run = {run:String}`, clickhouse.Named("run", run)).Scan(&lag)
	if err != nil {
		return d, wrap(err)
	}
	if len(lag) == 3 {
		d.LagP50S, d.LagP95S, d.LagMaxS = finite(lag[0]), finite(lag[1]), finite(lag[2])
	}
	return d, nil
}

// eventColumns in the order that scanEvent reads them.
const eventColumns = `run, source, seq, at, written, kind, status, region, component, session, device, isp, home, edge, rendition, segment, fault,
	state, detail, value, lag_ms, buffer_ms, latency_ms, playing_ms, rebuffer_ms, bitrate_kbps, bytes, attempts, nums`

func scanEvent(scan func(...any) error, e *event.Event) error {
	var kind string
	err := scan(&e.Run, &e.Source, &e.Seq, &e.At, &e.Written, &kind, &e.Status, &e.Region, &e.Component, &e.Session, &e.Device, &e.ISP, &e.Home, &e.Edge,
		&e.Rendition, &e.Segment, &e.Fault, &e.State, &e.Detail, &e.Value, &e.LagMS, &e.BufferMS, &e.LatencyMS, &e.PlayingMS, &e.RebufferMS,
		&e.BitrateKbps, &e.Bytes, &e.Attempts, &e.Nums)
	e.Kind = event.Kind(kind)
	for _, t := range []*time.Time{&e.At, &e.Written} {
		*t = t.UTC()
		if t.Unix() == 0 && t.Nanosecond() == 0 { // the store's "no time"
			*t = time.Time{}
		}
	}
	if len(e.Nums) == 0 {
		e.Nums = nil
	}
	return err
}

// Events calls f with a run's events in order of time, of the given kinds (all where none is given), up to limit of
// them (0: no limit). Rows are streamed: a run of millions is fine. An error of f ends it.
func Events(ctx context.Context, db *clickhouse.DB, run string, kinds []event.Kind, limit int, f func(event.Event) error) error {
	where := ""
	args := []any{clickhouse.Named("run", run)}
	if len(kinds) > 0 {
		var in []string
		for i, k := range kinds {
			name := fmt.Sprintf("kind%d", i)
			in = append(in, "{"+name+":String}")
			args = append(args, clickhouse.Named(name, string(k)))
		}
		where += " AND kind IN (" + strings.Join(in, ", ") + ")"
	}
	return events(ctx, db, run, where, args, limit, f)
}

// events is Events of the rows that where, which begins with " AND", holds for.
func events(ctx context.Context, db *clickhouse.DB, run, where string, args []any, limit int, f func(event.Event) error) error {
	sql := "SELECT " + eventColumns + " FROM events WHERE run = {run:String}" + where + " ORDER BY at, source, seq"
	if limit > 0 {
		sql += fmt.Sprintf(" LIMIT %d", limit)
	}
	sql += " SETTINGS max_bytes_before_external_sort = 500000000"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an early end lets the connection go
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("the events of run %s: %w", run, err)
	}
	defer rows.Close()
	for rows.Next() {
		var e event.Event
		if err := scanEvent(rows.Scan, &e); err != nil {
			return fmt.Errorf("the events of run %s: %w", run, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("the events of run %s: %w", run, err)
	}
	return nil
}

// Story kinds: what the report tells in words.
var Story = []event.Kind{event.Phase, event.Fault, event.RegionHealth, event.TelemetryDropped}

// Export writes all events of a run to w as NDJSON in order of time, and returns how many.
func Export(ctx context.Context, db *clickhouse.DB, run string, w io.Writer) (n uint64, err error) {
	return export(ctx, db, run, "", []any{clickhouse.Named("run", run)}, w)
}

func export(ctx context.Context, db *clickhouse.DB, run, where string, args []any, w io.Writer) (n uint64, err error) {
	out := bufio.NewWriterSize(w, 256<<10)
	var line []byte
	err = events(ctx, db, run, where, args, 0, func(e event.Event) error {
		line = append(event.Append(line[:0], &e), '\n')
		n++
		_, err := out.Write(line)
		return err
	})
	if err != nil {
		return n, err
	}
	return n, out.Flush()
}

// DefaultSample is a good most for ExportSample: with it a run's timeline stays a file that an editor opens.
const DefaultSample = 50_000

// crowdStart are the rows that ExportSample may leave out.
const crowdStart = "kind = 'play_start' AND component != 'player'"

// ExportSample is Export, but of the play starts of the open-loop crowd at most so many of each status are written: an
// even sample, which is the same every time. Where a million are ok and a hundred failed, all hundred are there;
// everything else is written whole. It returns how many events were written, and how many play starts were left out.
func ExportSample(ctx context.Context, db *clickhouse.DB, run string, most int, w io.Writer) (written, leftOut uint64, err error) {
	most = max(0, most)
	wrap := func(err error) error { return fmt.Errorf("the events of run %s: %w", run, err) }
	args := []any{clickhouse.Named("run", run), clickhouse.Named("most", strconv.Itoa(most))}
	rows, err := db.Query(ctx, "SELECT status, count() FROM events WHERE run = {run:String} AND "+crowdStart+" GROUP BY status ORDER BY status", args...)
	if err != nil {
		return 0, 0, wrap(err)
	}
	defer rows.Close()
	// The sample is those with the lowest hashes: where a source is in its numbers has nothing to do with it. Twice as many
	// as asked and some are below a bound; only they need be sorted.
	var many, below []string
	for i := 0; rows.Next(); i++ {
		var status string
		var n uint64
		if err := rows.Scan(&status, &n); err != nil {
			return 0, 0, wrap(err)
		}
		if n <= uint64(most) {
			continue
		}
		leftOut += n - uint64(most)
		bound := uint64(math.MaxUint64)
		if enough := 2*uint64(most) + 1000; enough < n {
			bound = math.MaxUint64 / n * enough
		}
		args = append(args, clickhouse.Named(fmt.Sprint("status", i), status))
		many = append(many, fmt.Sprintf("{status%d:String}", i))
		below = append(below, fmt.Sprintf("(status = {status%d:String} AND hash <= %d)", i, bound))
	}
	if err := rows.Err(); err != nil {
		return 0, 0, wrap(err)
	}
	if leftOut == 0 {
		written, err = Export(ctx, db, run, w)
		return written, 0, err
	}
	where := " AND (NOT (" + crowdStart + ") OR status NOT IN (" + strings.Join(many, ", ") + ")"
	if most > 0 {
		where += ` OR (source, seq) IN (SELECT source, seq FROM events WHERE run = {run:String} AND ` + crowdStart +
			` AND (` + strings.ReplaceAll(strings.Join(below, " OR "), "hash", "sipHash64(source, seq)") + `)
			ORDER BY sipHash64(source, seq), source, seq LIMIT {most:UInt64} BY status)`
	}
	written, err = export(ctx, db, run, where+")", args, w)
	return written, leftOut, err
}

// Stall is a second in which viewers stalled: for the story.
type Stall struct {
	At       time.Time // when the first of them began
	Sessions uint64
	LongestS float64
	Region   string
}

// Stalls lists the stalls of a run by the second they began in and the region that served, in order of time.
func Stalls(ctx context.Context, db *clickhouse.DB, run string) (stalls []Stall, err error) {
	rows, err := db.Query(ctx, `SELECT min(at), uniqExact(session), max(value) / 1000, region FROM events
		WHERE run = {run:String} AND kind = 'rebuffer' GROUP BY toStartOfSecond(at), region ORDER BY 1, 4 LIMIT 10000`, clickhouse.Named("run", run))
	if err != nil {
		return nil, fmt.Errorf("the stalls of run %s: %w", run, err)
	}
	defer rows.Close()
	for rows.Next() {
		var s Stall
		if err := rows.Scan(&s.At, &s.Sessions, &s.LongestS, &s.Region); err != nil {
			return nil, fmt.Errorf("the stalls of run %s: %w", run, err)
		}
		s.At = s.At.UTC()
		stalls = append(stalls, s)
	}
	return stalls, rows.Err()
}
