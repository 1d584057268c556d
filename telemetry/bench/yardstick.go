package bench

import (
	"context"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

const yardstickRows = 50_000 // of one insert, as many as the ingester's

// yardstick inserts the rows of a crowd through clickhouse-go's columns, from memory, and returns rows a second. Making
// the rows is not counted.
func yardstick(ctx context.Context, cfg Config, run string) (perSecond float64, err error) {
	opt, err := ch.ParseDSN(cfg.ClickHouse)
	if err != nil {
		return 0, err
	}
	if opt.Auth.Database == "" {
		opt.Auth.Database = clickhouse.DefaultDatabase
	}
	conn, err := ch.Open(opt)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	c := newCrowd(time.Now())
	var took time.Duration
	for from := 0; from < cfg.Events; from += yardstickRows {
		n := min(yardstickRows, cfg.Events-from)
		var runs, sources, kinds, statuses, regions, components, sessions, devices, isps, homes, edges, details, topics []string
		var seqs, offsets []uint64
		var at []time.Time
		var values, lags []float64
		var attempts, partitions []uint32
		for i := range n {
			e := c.next()
			runs, sources, kinds = append(runs, run), append(sources, "conductor#1"), append(kinds, string(e.Kind))
			statuses, regions, components = append(statuses, e.Status), append(regions, e.Region), append(components, e.Component)
			sessions, devices, isps, homes = append(sessions, e.Session), append(devices, e.Device), append(isps, e.ISP), append(homes, e.Home)
			edges, details, topics = append(edges, e.Edge), append(details, e.Detail), append(topics, "tminus.events")
			seqs, offsets = append(seqs, uint64(from+i+1)), append(offsets, uint64((from+i)/200))
			at, values, lags = append(at, e.At), append(values, e.Value), append(lags, e.LagMS)
			attempts, partitions = append(attempts, e.Attempts), append(partitions, 1)
		}
		began := time.Now()
		batch, err := conn.PrepareBatch(ctx, `INSERT INTO events (run, source, kind, status, region, component, session, device, isp, home, edge, detail, topic,
			seq, offset, at, written, stored_at, value, lag_ms, attempts, partition)`)
		if err != nil {
			return 0, err
		}
		for i, values := range []any{runs, sources, kinds, statuses, regions, components, sessions, devices, isps, homes, edges, details, topics,
			seqs, offsets, at, at, at, values, lags, attempts, partitions} {
			if err := batch.Column(i).Append(values); err != nil {
				return 0, err
			}
		}
		if err := batch.Send(); err != nil {
			return 0, err
		}
		took += time.Since(began)
	}
	return float64(cfg.Events) / took.Seconds(), nil
}
