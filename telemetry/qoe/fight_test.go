package qoe_test

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// storeFight stores n play starts, 100,000 a second, in the order in which four processes wrote them, and the heartbeats
// of 50 players beside them.
func storeFight(t testing.TB, db *clickhouse.DB, run string, n int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	sessions := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	var rows clickhouse.Rows
	var seq [5]uint64
	add := func(source int, e event.Event) {
		seq[source]++
		e.Run, e.Source, e.Seq, e.Written = run, fmt.Sprint("s", source), seq[source], e.At.Add(time.Duration(random.IntN(5000))*time.Microsecond)
		rows.Append(&e, clickhouse.Origin{Topic: "t", Offset: int64(seq[source])})
	}
	regions, devices := []string{"us-east", "us-west"}, []string{"tv", "phone", "browser"}
	flush := func(i int) {
		if err := db.Insert(t.Context(), &rows, fmt.Sprint(run, i), start.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		rows.Reset()
	}
	for i := range n {
		at := start.Add(time.Duration(i) * 10 * time.Microsecond)
		var raw [24]byte
		for j := 0; j < len(raw); j += 8 {
			binary.LittleEndian.PutUint64(raw[j:], random.Uint64())
		}
		region := regions[random.IntN(2)]
		micros := func(ms float64) float64 { return float64(int(ms*1000)) / 1000 }
		e := event.Event{Kind: event.PlayStart, At: at, Status: "ok", Component: "starts", Session: sessions.EncodeToString(raw[:]), Region: region, Edge: region,
			Device: devices[random.IntN(3)], ISP: "fibre-1", Value: micros(0.3 + 2*random.ExpFloat64()), LagMS: micros(0.1 * random.ExpFloat64()), Attempts: 1}
		if i%100_000 == 7 {
			e.Status, e.Session, e.Detail = "failed", "", "time-out"
		}
		add(i%4, e)
		if i%100_000 == 0 {
			for p := range 50 {
				add(4, event.Event{Kind: event.Heartbeat, At: at, Session: fmt.Sprint("player-", p), State: "playing", Region: region, PlayingMS: 1000, LatencyMS: 5000, BitrateKbps: 3200})
			}
			add(4, event.Event{Kind: event.PlaybackStats, At: at, Nums: map[string]float64{"ok": 1}})
		}
		if rows.Len() >= 100_000 {
			flush(i)
		}
	}
	flush(n)
}

// BenchmarkTitleFight asks everything that a report asks of a run of TMINUS_BENCH_EVENTS play starts (a million; six
// million is a minute of the title fight), and logs how long each question takes.
func BenchmarkTitleFight(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("TMINUS_BENCH_EVENTS"))
	if err != nil {
		n = 1_000_000
	}
	db := open(b)
	began := time.Now()
	storeFight(b, db, "r", n)
	fmt.Printf("%-50s %8.2f s\n", "store", time.Since(began).Seconds())
	for b.Loop() {
		ask := func(name string, f func(context.Context) error) {
			began := time.Now()
			if err := f(b.Context()); err != nil {
				b.Error(name, err)
			}
			fmt.Printf("%-50s %8.2f s\n", name, time.Since(began).Seconds())
		}
		ask("LoadOf", func(ctx context.Context) error { _, err := qoe.LoadOf(ctx, db, "r"); return err })
		ask("PlayersOf", func(ctx context.Context) error { _, err := qoe.PlayersOf(ctx, db, "r"); return err })
		ask("Timeline", func(ctx context.Context) error { _, err := qoe.Timeline(ctx, db, "r", start, 70); return err })
		ask("DeliveryOf", func(ctx context.Context) error { _, err := qoe.DeliveryOf(ctx, db, "r"); return err })
		ask("Stalls", func(ctx context.Context) error { _, err := qoe.Stalls(ctx, db, "r"); return err })
		for _, m := range qoe.Metrics() {
			for _, a := range m.Aggregates {
				if a != qoe.P && a != qoe.Avg && a != qoe.Rate && a != qoe.Count {
					continue
				}
				where := map[string]string{}
				if slices.Contains(m.Dimensions, "region") {
					where["region"] = "us-east"
				}
				ask(m.Name+" "+a, func(ctx context.Context) error {
					_, err := qoe.Measure(ctx, db, "r", qoe.Query{Metric: m.Name, Aggregate: a, Quantile: 99.9, Zero: start})
					return err
				})
				ask(m.Name+" "+a+" where", func(ctx context.Context) error {
					_, err := qoe.Measure(ctx, db, "r", qoe.Query{Metric: m.Name, Aggregate: a, Quantile: 99.9, Zero: start, Where: where})
					return err
				})
			}
		}
		ask("Processes", func(ctx context.Context) error {
			_, err := qoe.Processes(ctx, db, "r", start, start.Add(time.Minute))
			return err
		})
		ask("ExportSample", func(ctx context.Context) error {
			_, _, err := qoe.ExportSample(ctx, db, "r", qoe.DefaultSample, io.Discard)
			return err
		})
		rows, err := db.Query(b.Context(), `SELECT name, sum(column_data_compressed_bytes) / sum(rows) AS c, sum(column_data_uncompressed_bytes) / sum(rows)
			FROM (SELECT column AS name, column_data_compressed_bytes, column_data_uncompressed_bytes, rows FROM system.parts_columns WHERE table = 'events' AND active) GROUP BY name ORDER BY c DESC`)
		if err != nil {
			b.Fatal(err)
		}
		for rows.Next() {
			var name string
			var c, u float64
			if err := rows.Scan(&name, &c, &u); err != nil {
				b.Fatal(err)
			}
			fmt.Printf("%-20s %6.2f of %6.2f bytes a row\n", name, c, u)
		}
		rows.Close()
	}
}
