package bench_test

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/tminus-live/tminus/telemetry/bench"
	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
)

func TestMain(m *testing.M) { chtest.Main(m) }

func measure(t testing.TB, events int) bench.Result {
	p := chtest.Start(t, t.TempDir())
	res, err := bench.Run(t.Context(), bench.Config{Dir: t.TempDir(), ClickHouse: p.URL, StorePID: p.Process.Pid, Kafka: os.Getenv("TMINUS_KAFKA"), Events: events})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.MarshalIndent(res, "", "  ")
	t.Logf("%s", out)
	return res
}

// Not how fast, which a busy machine decides, but that the measurement measures.
func TestMeasures(t *testing.T) {
	res := measure(t, 20_000)
	if res.Dropped > 0 || res.PathPerS <= 0 || res.YardstickPerS <= 0 || res.SpoolBytes < 250 || res.SpoolBytes > 450 || res.RowBytes <= 0 {
		t.Errorf("%+v", res)
	}
}

// BenchmarkPath takes its number of events from TMINUS_BENCH_EVENTS (a million).
func BenchmarkPath(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("TMINUS_BENCH_EVENTS"))
	for b.Loop() {
		res := measure(b, n)
		b.ReportMetric(res.PathPerS, "path-events/s")
		b.ReportMetric(res.YardstickPerS, "yardstick-rows/s")
		b.ReportMetric(res.Ratio, "ratio")
		b.ReportMetric(res.PathCPUUS, "path-cpu-us/event")
		b.ReportMetric(res.StoreCPUUS, "store-cpu-us/event")
		b.ReportMetric(res.RowBytes, "bytes/row")
	}
}
