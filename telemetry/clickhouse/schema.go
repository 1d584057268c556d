package clickhouse

import (
	"context"
	"fmt"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// column is one column of the events table.
type column struct{ name, typ, codec string }

// The places of the columns in columns and in Rows.
const (
	colRun = iota
	colSource
	colSeq
	colAt
	colWritten
	colStoredAt
	colKind
	colStatus
	colRegion
	colComponent
	colSession
	colDevice
	colISP
	colEdge
	colRendition
	colSegment
	colFault
	colState
	colDetail
	colValue
	colLag
	colBuffer
	colLatency
	colPlaying
	colRebuffer
	colBitrate
	colBytes
	colAttempts
	colNums
	colTopic
	colPartition
	colOffset
	colHome
	columnCount
)

// Columns with few values are LowCardinality: a byte or two a row, and filters compare numbers. Times and counters go
// up slowly: Delta leaves small differences for ZSTD.
var columns = [columnCount]column{
	{"run", "LowCardinality(String)", ""},
	{"source", "LowCardinality(String)", ""},
	{"seq", "UInt64", "Delta, ZSTD(1)"},
	{"at", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)"},
	{"written", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)"},
	{"stored_at", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)"},
	{"kind", "LowCardinality(String)", ""},
	{"status", "LowCardinality(String)", ""},
	{"region", "LowCardinality(String)", ""},
	{"component", "LowCardinality(String)", ""},
	{"session", "String", "ZSTD(1)"},
	{"device", "LowCardinality(String)", ""},
	{"isp", "LowCardinality(String)", ""},
	{"edge", "LowCardinality(String)", ""},
	{"rendition", "LowCardinality(String)", ""},
	{"segment", "UInt64", "Delta, ZSTD(1)"},
	{"fault", "LowCardinality(String)", ""},
	{"state", "LowCardinality(String)", ""},
	{"detail", "String", "ZSTD(1)"},
	{"value", "Float64", "ZSTD(1)"},
	{"lag_ms", "Float64", "ZSTD(1)"},
	{"buffer_ms", "Float64", "ZSTD(1)"},
	{"latency_ms", "Float64", "ZSTD(1)"},
	{"playing_ms", "Float64", "ZSTD(1)"},
	{"rebuffer_ms", "Float64", "ZSTD(1)"},
	{"bitrate_kbps", "Float64", "ZSTD(1)"},
	{"bytes", "UInt64", "ZSTD(1)"},
	{"attempts", "UInt32", "ZSTD(1)"},
	{"nums", "Map(String, Float64)", "ZSTD(1)"},
	{"topic", "LowCardinality(String)", ""},
	{"partition", "UInt32", "Delta, ZSTD(1)"},
	{"offset", "UInt64", "Delta, ZSTD(1)"},
	{"home", "LowCardinality(String)", ""},
}

// firstColumns are those of the table as it was first made; the others were added.
const firstColumns = colHome

func (c column) definition() string {
	s := "`" + c.name + "` " + c.typ
	if c.codec != "" {
		s += " CODEC(" + c.codec + ")"
	}
	return s
}

// migrations are run in order at every start: each must be idempotent, and none is ever edited once released; what
// changes is added at the end.
//
// No PARTITION BY: an insert of one block into one partition is atomic, which the ingester's "rows and offsets move
// together" rests on. Rows are looked for by run, then kind, then time. The deduplication window lets a server drop a
// batch that is sent again because its first answer was lost.
func migrations(settings string) []string {
	var defs []string
	for _, c := range columns[:firstColumns] {
		defs = append(defs, c.definition())
	}
	return []string{
		"CREATE TABLE IF NOT EXISTS events (" + strings.Join(defs, ", ") + ") ENGINE = MergeTree" +
			" ORDER BY (run, kind, at, source, seq) SETTINGS non_replicated_deduplication_window = 10000" + settings,
		"ALTER TABLE events ADD COLUMN IF NOT EXISTS " + columns[colHome].definition(),
	}
}

// embeddedName is what package engine calls itself.
const embeddedName = "tminus embedded"

// embeddedSettings are for the engine that a run has to itself: it looks for parts that were merged into others every
// second instead of every minute, so that the run's folder holds its events once and not three times.
const embeddedSettings = ", cleanup_delay_period = 1, max_cleanup_delay_period = 2, cleanup_delay_period_random_add = 0, cleanup_thread_preferred_points_per_iteration = 0"

// migrate makes the database and its table. A user who may not create them can have them made beforehand: what exists
// is left as it is.
func (db *DB) migrate(ctx context.Context, opt *ch.Options) error {
	var tables uint64
	err := db.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = {db:String} AND name = 'events'", Named("db", db.name)).Scan(&tables)
	if err == nil && tables == 1 {
		if err := db.checkColumns(ctx, columns[:firstColumns]); err != nil {
			return err
		}
		if db.checkColumns(ctx, columns[firstColumns:]) == nil {
			return nil
		}
		for i, sql := range migrations("")[1:] { // a table of an earlier version
			if err := db.Exec(ctx, sql); err != nil {
				return fmt.Errorf("ClickHouse at %s does not take migration %d: %w", db.address, i+2, err)
			}
		}
		return db.checkColumns(ctx, columns[:])
	}
	if err := db.createDatabase(ctx, opt); err != nil {
		return err
	}
	settings := ""
	if v, err := db.conn.ServerVersion(); err == nil && v.DisplayName == embeddedName {
		settings = embeddedSettings
	}
	for i, sql := range migrations(settings) {
		if err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("ClickHouse at %s does not take migration %d: %w", db.address, i+1, err)
		}
	}
	return db.checkColumns(ctx, columns[:])
}

// createDatabase goes through a connection of its own: the others name the database and are refused until it exists.
func (db *DB) createDatabase(ctx context.Context, opt *ch.Options) error {
	first := *opt
	first.Auth.Database = "default"
	first.MaxOpenConns, first.MaxIdleConns = 1, 1
	conn, err := ch.Open(&first)
	if err != nil {
		return fmt.Errorf("ClickHouse at %s: %w", db.address, err)
	}
	defer conn.Close()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+db.name+"`"); err != nil {
		return fmt.Errorf("ClickHouse at %s does not let us make the database %s: %w", db.address, db.name, err)
	}
	return nil
}

func (db *DB) checkColumns(ctx context.Context, columns []column) error {
	rows, err := db.Query(ctx, "SELECT name, type FROM system.columns WHERE database = {db:String} AND table = 'events'", Named("db", db.name))
	if err != nil {
		return fmt.Errorf("ClickHouse at %s does not list its columns: %w", db.address, err)
	}
	defer rows.Close()
	have := make(map[string]string)
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			return err
		}
		have[name] = typ
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var wrong []string
	for _, c := range columns {
		if have[c.name] != c.typ {
			wrong = append(wrong, fmt.Sprintf("%s is %q, not %q", c.name, have[c.name], c.typ))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the table %s.events in ClickHouse at %s is not ours: %s", db.name, db.address, strings.Join(wrong, "; "))
	}
	return nil
}
