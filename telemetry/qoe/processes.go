package qoe

import (
	"context"
	"fmt"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
)

// Process is what one process of a run took of its machine, as it was sampled during the event. An incarnation of a
// process that was started again goes on under the same name.
type Process struct {
	Name      string
	SettledMB float64 // resident memory 10 s after T-0, or in the first sample after that
	PeakMB    float64 // the most that was sampled, from T-0 on
	LastMB    float64 // in the last sample
	CPUS      float64 // CPU seconds of all its incarnations, since each began
	Samples   uint64  // from T-0 on
}

// settle is how long after T-0 memory may still grow: caches fill, pools reach their size.
const settle = 10 * time.Second

// Processes lists the processes of a run by name, from what event.ProcessStats says from T-0, zero, to end. MB are
// 10^6 bytes.
func Processes(ctx context.Context, db *clickhouse.DB, run string, zero, end time.Time) (list []Process, err error) {
	wrap := func(err error) error { return fmt.Errorf("the processes of run %s: %w", run, err) }
	micros := func(name string, t time.Time) any { return clickhouse.Named(name, fmt.Sprint(t.UnixMicro())) }
	// CPU time begins anew with each incarnation: where it falls, what it was is added up.
	rows, err := db.Query(ctx, `SELECT component, argMinIf(rss, at, at >= fromUnixTimestamp64Micro({settled:Int64})), max(rss), argMax(rss, at),
			sumIf(cpu, last OR cpu > next), count()
		FROM (SELECT component, at, nums['rss_bytes'] / 1000000 AS rss, nums['cpu_s'] AS cpu,
				leadInFrame(cpu, 1, 0) OVER w AS next, row_number() OVER w = count() OVER (PARTITION BY component) AS last
			FROM events WHERE run = {run:String} AND kind = 'process_stats'
				AND at >= fromUnixTimestamp64Micro({zero:Int64}) AND at < fromUnixTimestamp64Micro({end:Int64})
			WINDOW w AS (PARTITION BY component ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
		GROUP BY component ORDER BY component`,
		clickhouse.Named("run", run), micros("zero", zero), micros("settled", zero.Add(settle)), micros("end", end))
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		var p Process
		if err := rows.Scan(&p.Name, &p.SettledMB, &p.PeakMB, &p.LastMB, &p.CPUS, &p.Samples); err != nil {
			return nil, wrap(err)
		}
		list = append(list, p)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap(err)
	}
	return list, nil
}
