package kernel

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

// BenchmarkProgram is what a packet costs in each program, without the packet's own way: go test -bench Program ./chaos/kernel
func BenchmarkProgram(b *testing.B) {
	able(b)
	net := prefix("192.0.2.0/24")
	burst := link.Loss{Model: link.GilbertElliott, Share: 0.01, Burst: 8}
	hit, other := frame{from: out, to: inA, proto: UDP, payload: 1316}, frame{from: out, to: far, proto: UDP, payload: 1316}
	for _, c := range []struct {
		name  string
		cfg   Config
		frame frame
	}{
		{"another's packet", Config{Flow: Flow{Prefix: net}, Loss: burst}, other},
		{"an address", Config{Flow: Flow{Prefix: net}, Loss: burst}, hit},
		{"an address and a port", Config{Flow: Flow{Prefix: net, Ports: []uint16{5000}}, Loss: burst}, hit},
		{"with corruption", Config{Flow: Flow{Prefix: net}, Loss: burst, Corrupt: 0.01}, hit},
		{"cut", Config{Flow: Flow{Prefix: net}, Cut: true}, hit},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.cfg.Interface = loopback(b)
			p := impair(b, c.cfg)
			least := time.Hour
			for range 10 { // the least disturbed
				_, took, err := p.program.Benchmark(c.frame.bytes(), 100_000, nil)
				if err != nil {
					b.Fatal(err)
				}
				least = min(least, took)
			}
			b.ReportMetric(float64(least.Nanoseconds()), "ns/packet")
		})
	}
}
