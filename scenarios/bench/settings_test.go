package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkSettings is how the settings in playstarts.go were found, on a machine that does nothing else:
//
//	go test -run '^$' -bench Settings -benchtime 1x -count 3 ./scenarios/bench
func BenchmarkSettings(b *testing.B) {
	o := Options{Seconds: 2}
	if err := o.Validate(); err != nil {
		b.Fatal(err)
	}
	serverCore, clientCore, _, err := twoCores()
	if err != nil {
		b.Fatal(err)
	}
	request, err := recordRequest(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	answer, err := recordAnswer(b.Context(), o, serverCore, request)
	if err != nil {
		b.Fatal(err)
	}
	folder, err := peerFolder()
	if err != nil {
		b.Fatal(err)
	}
	try := func(name, server string, client Part) {
		b.Run(name, func(b *testing.B) {
			client := client // this function runs once for each -count
			if client.Tool != "" {
				client.Tool = filepath.Join(folder, client.Tool)
				if _, err := os.Stat(client.Tool); err != nil {
					b.Skip("make setup-peers builds it")
				}
			}
			if client.Core == 0 {
				client.Core = clientCore
			}
			client.Warm, client.Request, client.Answer = warmUp, request, answer
			m := measurement{figure: &Figure{}, server: Part{Role: server, Core: serverCore, TLS: client.TLS, Answer: answer}, client: client}
			got, err := m.once(b.Context(), o, firstPort+9000)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(got.Done)/got.Seconds, "exchanges/s")
			b.ReportMetric(got.Client/got.Seconds, "client-cores")
			b.ReportMetric(got.Server/got.Seconds, "server-cores")
			if got.Wrong+got.Dropped > 0 {
				b.Errorf("%d wrong, %d dropped: %s", got.Wrong, got.Dropped, got.Detail)
			}
		})
	}
	for _, n := range []int{16, 32, 64, 128} {
		try(fmt.Sprintf("bare/%dx1", n), bareServer, Part{Role: bareClient, Connections: n})
		try(fmt.Sprintf("generator/%dx1", n), serviceServer, Part{Role: generator, Connections: n})
	}
	for _, n := range []int{8, 16, 32, 64} {
		try(fmt.Sprintf("bare/%dx8", n), bareServer, Part{Role: bareClient, Connections: n, InFlight: 8})
		try(fmt.Sprintf("generator/%dx8", n), serviceServer, Part{Role: generator, Connections: n, InFlight: 8})
	}
	pem, err := certificate(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{4, 16, 64, 256} {
		try(fmt.Sprintf("bare/fresh/%d", n), bareServer, Part{Role: bareClient, Connections: n, Fresh: true})
		try(fmt.Sprintf("generator/fresh/%d", n), serviceServer, Part{Role: generator, Connections: n, Fresh: true})
		try(fmt.Sprintf("bare/tls/%d", n), bareServer, Part{Role: bareClient, Connections: n, Fresh: true, TLS: pem})
		try(fmt.Sprintf("generator/tls/%d", n), serviceServer, Part{Role: generator, Connections: n, Fresh: true, TLS: pem})
	}
	const anyCore = -1
	for _, gc := range []int{100, 400, 1600} {
		for _, n := range []int{16, 64} {
			try(fmt.Sprintf("vegeta/%d/gogc=%d", n, gc), serviceServer, Part{Role: vegeta, Tool: vegeta, Connections: n, Procs: 1, GC: gc})
			try(fmt.Sprintf("k6/%d/gogc=%d", n, gc), serviceServer, Part{Role: k6, Tool: k6, Connections: n, Procs: 1, GC: gc})
		}
	}
	for _, n := range []int{16, 64} { // with the service's core too
		try(fmt.Sprintf("vegeta/%d/both-cores", n), serviceServer, Part{Role: vegeta, Tool: vegeta, Connections: n, Procs: 2, GC: peerGOGC, Core: anyCore})
		try(fmt.Sprintf("k6/%d/both-cores", n), serviceServer, Part{Role: k6, Tool: k6, Connections: n, Procs: 2, GC: peerGOGC, Core: anyCore})
	}
}
