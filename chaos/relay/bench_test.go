package relay

import (
	"context"
	"testing"

	"github.com/tminus-live/tminus/chaos/link"
)

// What one core relays of packets of 1316 bytes, by the CPU time of the relay's thread, and over what it would at most.
func BenchmarkUDP(b *testing.B) {
	for _, c := range []struct {
		name string
		does link.Impairment
	}{
		{"idle", link.Impairment{}},
		{"chain", link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 1e-9, Burst: 1}}}, // every packet is decided, none lost
		{"delay", link.Impairment{Delay: ms}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, err := Measure(context.Background(), Load{Packets: max(2, b.N), Impairment: c.does})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.RelayPerCore, "packets/core-s")
			b.ReportMetric(r.BarePerCore, "bare/core-s")
			b.ReportMetric(r.Ratio, "ratio")
			b.ReportMetric(r.RelayPerSecond, "packets/s")
			b.ReportMetric(float64(r.Lost), "lost")
		})
	}
}

func TestMeasureLosesNothing(t *testing.T) {
	r, err := Measure(context.Background(), Load{Packets: 4000})
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost != 0 || r.RelayPerCore <= 0 || r.BarePerCore <= 0 || r.Ratio <= 0 {
		t.Errorf("measured %+v", r)
	}
	if _, err := Measure(context.Background(), Load{Size: -1}); err == nil {
		t.Error("packets of less than nothing")
	}
}
