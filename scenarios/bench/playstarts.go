package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What was found best on two cores, for the yardstick first; BenchmarkSettings looks again.
const (
	connections      = 64 // of the bare pair and the generator, one in flight on each
	pipelined        = 8  // in flight on a connection, pipelined
	pipedConnections = 16
	freshTCP         = 64 // connections at once when each carries one exchange
	freshTLS         = 16
	vegetaWorkers    = 64
	k6VUs            = 16
	k6Posts          = 100 // in one iteration
	peerGOGC         = 400
	warmUp           = 300 * time.Millisecond // everybody's: connecting, and what a first request costs, is measured for nobody
)

// The same in words, for who wants to repeat a figure.
var (
	bareSettings   = "raw sockets and epoll in both, nothing parsed; GOMAXPROCS=1 each"
	tlsSettings    = "crypto/tls in both, TLS 1.3, ECDSA P-256, no resumption; the client resets; GOMAXPROCS=1 each"
	oursSettings   = "one shard, saturated; reference/playback behind its event loop; GOMAXPROCS=1 each"
	freshSettings  = "a connection for each play start, which the client resets; otherwise as on kept ones"
	warmSettings   = fmt.Sprintf("the first %v after the first request (of short measurements, half their length) is warm-up and not counted, as with the others", warmUp)
	vegetaSettings = "attack " + strings.Join(vegetaFlags(vegetaWorkers), " ") + "; " + warmSettings
	k6Settings     = fmt.Sprintf("%d VUs for the whole time, %d http.post in an iteration, discardResponseBodies, systemTags status alone, no thresholds; %s", k6VUs, k6Posts, warmSettings)
)

// playStarts measures the generator and the reference playback service.
func playStarts(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	serverCore, clientCore, cores, err := twoCores()
	if err != nil {
		return nil, err
	}
	pem, err := certificate(time.Now())
	if err != nil {
		return nil, err
	}
	var request, answer []byte
	if request, err = recordRequest(ctx); err != nil {
		return nil, fmt.Errorf("record a request: %w", err)
	}
	if answer, err = recordAnswer(ctx, o, serverCore, request); err != nil {
		return nil, fmt.Errorf("record an answer: %w", err)
	}
	r := &Report{
		Bench: "play-starts", Rounds: o.Rounds, Seconds: o.Seconds, Machine: thisMachine(cores),
		Facts: map[string]any{"request_bytes": len(request), "answer_bytes": len(answer)},
	}

	where := fmt.Sprintf("server on core %d, client on core %d", serverCore, clientCore)
	var ms []*measurement
	add := func(key, what string, server, client Part, settings string) *Figure {
		place := where
		if server.Core, client.Core = serverCore, clientCore; client.Procs > 1 {
			client.Core, place = -1, fmt.Sprintf("server on core %d, client on any", serverCore)
		}
		client.Warm = min(warmUp, o.duration()/2)
		client.InFlight = max(1, client.InFlight)
		server.Request, server.Answer, client.Request, client.Answer = request, answer, request, answer
		server.TLS = client.TLS
		f := &Figure{
			Key: key, What: what, Seconds: o.Seconds, Connections: client.Connections, InFlight: client.InFlight,
			Cores: place, Settings: settings,
		}
		r.Figures = append(r.Figures, f)
		ms = append(ms, &measurement{figure: f, server: server, client: client})
		return f
	}
	bareS, service := Part{Role: bareServer}, Part{Role: serviceServer}

	one := Part{Connections: connections}
	as := func(p Part, role string) Part { p.Role = role; return p }
	bare := add("bare_per_s", "bare epoll client and server", bareS, as(one, bareClient), bareSettings)
	gen := add("generator_per_s", "generator, bare server", bareS, as(one, generator), oursSettings)
	svc := add("service_per_s", "generator, playback service", service, as(one, generator), oursSettings)
	tools, err := tools(o)
	if err != nil {
		return nil, err
	}
	peer := func(role, key, what string, client Part, settings string) *Figure {
		client.Role, client.Tool, client.GC = role, filepath.Join(tools, role), peerGOGC
		client.Procs = max(1, client.Procs)
		settings = fmt.Sprintf("%s; GOMAXPROCS=%d GOGC=%d", settings, client.Procs, client.GC)
		f := add(key, what, service, client, settings)
		if _, err := os.Stat(client.Tool); err != nil {
			f.Missing = true
			r.problem(fmt.Sprintf("%s is missing, so nothing was compared with it: make setup-peers builds it", role))
		}
		return f
	}
	vegetas := Part{Connections: vegetaWorkers}
	veg := peer(vegeta, "vegeta_per_s", "vegeta "+vegetaVersion+", playback service", vegetas, vegetaSettings)
	vegetas.Procs = 2
	veg2 := peer(vegeta, "vegeta_two_cores_per_s", "the same on both cores", vegetas, vegetaSettings)
	k6s := Part{Connections: k6VUs}
	k := peer(k6, "k6_per_s", "k6 "+k6Version+", playback service", k6s, k6Settings)
	k6s.Check = true
	kWork := peer(k6, "k6_same_work_per_s", "the same, another viewer each time, answers read", k6s, strings.Replace(k6Settings, "discardResponseBodies", "answers parsed, another viewer each time", 1))
	k6s.Check, k6s.Procs = false, 2
	k2 := peer(k6, "k6_two_cores_per_s", "k6 on both cores, answers unread", k6s, k6Settings)

	piped := Part{Connections: pipedConnections, InFlight: pipelined}
	bareP := add("bare_pipelined_per_s", "bare pair, pipelined", bareS, as(piped, bareClient), bareSettings)
	svcP := add("service_pipelined_per_s", "generator pipelined, playback service", service, as(piped, generator), oursSettings)
	svcP.Target = 250_000

	tcp := Part{Connections: freshTCP, Fresh: true}
	accept := add("bare_accept_per_s", "bare connect, exchange, close", bareS, as(tcp, bareClient), bareSettings+"; the client resets")
	fresh := add("fresh_tcp_per_s", "generator, a TCP connection each, playback service", service, as(tcp, generator), freshSettings)
	secure := Part{Connections: freshTLS, Fresh: true, TLS: pem}
	bareTLS := add("bare_tls_per_s", "bare crypto/tls handshake, exchange, close", bareS, as(secure, bareClient), tlsSettings)
	freshT := add("fresh_tls_per_s", "generator, a TLS 1.3 connection each, playback service", service, as(secure, generator), freshSettings)

	r.Ratios = []*Ratio{
		ratio("ratio", gen, bare, 0.9, "how much of the bare exchange the generator keeps"),
		ratio("service_ratio", svc, bare, 0.6, "the same with the real playback service answering"),
		ratio("service_pipelined_ratio", svcP, bareP, 0, "the same, 8 in flight on each connection"),
		ratio("vs_vegeta", svc, veg, 3, "times what vegeta gets from the same service, on the same core"),
		ratio("vs_vegeta_two_cores", svc, veg2, 0, "the same when vegeta may use the service's core too"),
		// The generator tells a wrong answer from a right one, for another viewer each time: what k6 does without that is no
		// load test of play starts, and is told beside it.
		ratio("vs_k6", svc, kWork, 8, "times what k6 gets from the same service, on the same core, doing the same: another viewer each time, answers read"),
		ratio("vs_k6_unread", svc, k, 0, "the same when k6 sends one viewer over and over and reads no answer"),
		ratio("vs_k6_two_cores", svc, k2, 0, "the same when k6 reads nothing and may use the service's core too"),
		ratio("fresh_ratio", fresh, accept, 0.7, "a TCP connection for each play start, of a bare accept loop"),
		ratio("fresh_tls_ratio", freshT, bareTLS, 0.7, "a TLS 1.3 connection for each, of a bare handshake loop"),
	}
	return r, measure(ctx, o, r, ms)
}

func tools(o Options) (string, error) {
	if o.Peers != "" {
		return o.Peers, nil
	}
	return peerFolder()
}

// recordAnswer asks the real service once: the bare server answers with these bytes.
func recordAnswer(ctx context.Context, o Options, core int, request []byte) ([]byte, error) {
	child, addr, err := startServer(ctx, o, Part{Role: serviceServer, Core: core, Addr: netip.AddrPortFrom(loopbackAddr, firstPort)})
	if err != nil {
		return nil, err
	}
	answer, err := askService(addr, request)
	if e := child.Stop(ctx); err == nil {
		err = e
	}
	return answer, err
}
