package k6

import (
	"testing"
	"time"

	"go.k6.io/k6/metrics"

	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

// What one play start costs on its way into metrics: it is paid in the generator's loops.
func BenchmarkStartsSink(b *testing.B) {
	registry := metrics.NewRegistry()
	set, err := registerMetrics(registry)
	if err != nil {
		b.Fatal(err)
	}
	r := newRecord()
	r.expect(6_000_000, 0)
	s := newStartsSink(r, set, registry.RootTagSet().With("scenario", "test"), event.Discard)
	e := event.Event{Kind: event.PlayStart, Status: starts.OK, Region: "us-east", At: time.Unix(0, 0)}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		e.Value = 1 + float64(i%977)/100
		e.LagMS = float64(i%131) / 100
		s.Emit(e)
		if i%10_000 == 0 {
			r.drain(e.At, false)
		}
	}
}
