package qoe

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// Measured is one figure.
type Measured struct {
	Value   float64 // in Unit
	Samples uint64  // what it was computed from; 0: unknown
	Unit    string
}

// Measure computes one figure of a run from the store.
func Measure(ctx context.Context, db *clickhouse.DB, run string, q Query) (Measured, error) {
	if err := q.Validate(); err != nil {
		return Measured{}, err
	}
	m, _ := Lookup(q.Metric)
	got := Measured{Unit: m.UnitOf(q.Aggregate)}
	if m.Name == "telemetry_loss" {
		stored, err := db.Stored(ctx, run)
		if err != nil {
			return got, err
		}
		return got.loss(q, stored), nil
	}
	parts, args := q.parts(run)
	row := func(sql string, to ...any) error {
		err := db.QueryRow(ctx, parts.Replace(sql), args...).Scan(to...)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", m.Name, err)
		}
		return nil
	}
	if err := row(m.sql(q), &got.Value, &got.Samples); err != nil {
		return got, err
	}
	none := got.Samples == 0
	if math.IsNaN(got.Value) || math.IsInf(got.Value, 0) { // of no samples, or of one that is no number: unknown
		got.Value, got.Samples = 0, 0
	}
	if none && m.population != "" {
		if err := row(m.population, &got.Samples); err != nil {
			return got, err
		}
	}
	return got, nil
}

// parts fills in what a metric's SQL leaves open: the filters, and the part of the event.
func (q Query) parts(run string) (*strings.Replacer, []any) {
	args := []any{clickhouse.Named("run", run)}
	var where strings.Builder
	for _, d := range slices.Sorted(maps.Keys(q.Where)) {
		fmt.Fprintf(&where, " AND %s = {where_%s:String}", d, d)
		args = append(args, clickhouse.Named("where_"+d, q.Where[d]))
	}
	zero, fill, recent := q.Zero, "", ""
	if q.Zero.IsZero() {
		zero = time.Unix(0, 0)
	}
	if !q.From.IsZero() {
		where.WriteString(" AND at >= fromUnixTimestamp64Micro({from:Int64})")
		args = append(args, clickhouse.Named("from", strconv.FormatInt(q.From.UnixMicro(), 10)))
		fill += fmt.Sprintf(" FROM %d", q.From.Sub(zero)/time.Second)
		recent = fmt.Sprintf(" AND at >= fromUnixTimestamp64Micro({from:Int64} - %d)", startWithin.Microseconds())
	}
	if !q.To.IsZero() {
		where.WriteString(" AND at < fromUnixTimestamp64Micro({to:Int64})")
		args = append(args, clickhouse.Named("to", strconv.FormatInt(q.To.UnixMicro(), 10)))
		fill += fmt.Sprintf(" TO %d", q.To.Sub(zero)/time.Second)
	}
	// Whole seconds of the event, also those in which nothing happened.
	return strings.NewReplacer("{where}", where.String(), "{fill}", fill, "{recent}", recent,
		"{second}", fmt.Sprintf("toInt64(floor((toUnixTimestamp64Micro(at) - %d) / 1000000))", zero.UnixMicro())), args
}

// sql is the SELECT of the figure and its number of samples.
func (m Metric) sql(q Query) string {
	switch {
	case q.Aggregate == Rate:
		return m.rate
	case q.Aggregate == Count && m.count != "":
		return m.count
	}
	var f string
	switch q.Aggregate {
	case P:
		f = quantile(q.Quantile / 100)
	case Med:
		f = quantile(0.5)
	case Count:
		f = "toFloat64(count())"
	default: // avg, min, max
		f = q.Aggregate + "(v)"
	}
	return "SELECT toFloat64(" + f + "), count() FROM (" + m.samples + ")"
}

func quantile(level float64) string {
	return "quantileExactInclusive(" + strconv.FormatFloat(level, 'f', -1, 64) + ")(v)"
}

func (got Measured) loss(q Query, stored uint64) Measured {
	sent := q.Ledger.Emitted + q.Ledger.Dropped
	got.Samples = sent
	lost := float64(sent) - float64(min(stored, sent))
	switch {
	case q.Aggregate == Count:
		got.Value = lost
	case sent > 0:
		got.Value = 100 * lost / float64(sent)
	}
	return got
}
