package bare

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var (
	anyPort = netip.MustParseAddrPort("127.0.0.1:0")
	request = []byte("POST /v1/play HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: tminus\r\nAccept: application/json\r\nContent-Type: application/json\r\n" +
		"Content-Length: 99\r\n\r\n" + `{"title":"title-fight","device":"tv","viewer":"0123456789abcdef","region":"us-east","token":"abc"}`)
	response = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n" + `{"session":"` + strings.Repeat("s", 386) + `"}`)
)

// serve runs a server for the length of a test.
func serve(t testing.TB, c ServerConfig) *Server {
	t.Helper()
	c.Addr = anyPort
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestExchange(t *testing.T) {
	for _, c := range []ClientConfig{
		{Connections: 1},
		{Connections: 8},
		{Connections: 4, InFlight: 8},
		{Connections: 8, Fresh: true},
	} {
		s := serve(t, ServerConfig{Answer: response})
		c.Addr, c.Request, c.Answer = s.Addr(), request, response
		c.Warm, c.For = 10*time.Millisecond, 100*time.Millisecond
		r, err := Exchange(t.Context(), c)
		if err != nil {
			t.Errorf("%d connections, %d in flight, fresh %t: %v", c.Connections, c.InFlight, c.Fresh, err)
			continue
		}
		if r.Done < 10 || r.Done > s.Served() || r.For < c.For || r.PerSecond() <= 0 {
			t.Errorf("%d connections, %d in flight, fresh %t: %+v, while the server gave %d answers", c.Connections, c.InFlight, c.Fresh, r, s.Served())
		}
	}
}

func TestExchangeRefusesAnotherAnswer(t *testing.T) {
	s := serve(t, ServerConfig{Answer: response})
	other := append([]byte(nil), response...)
	other[len(other)-3] = 'x'
	_, err := Exchange(t.Context(), ClientConfig{Addr: s.Addr(), Request: request, Answer: other, Connections: 2, For: time.Second})
	if !errors.Is(err, ErrAnswer) {
		t.Errorf("%v, want %v", err, ErrAnswer)
	}
}

func TestNothingLeavesTheMachine(t *testing.T) {
	elsewhere := netip.MustParseAddrPort("192.0.2.1:80")
	if _, err := Listen(ServerConfig{Addr: elsewhere, Answer: response}); err == nil {
		t.Error("a server off loopback")
	}
	if _, err := Exchange(t.Context(), ClientConfig{Addr: elsewhere, Request: request, Answer: response, Connections: 1, For: 1}); err == nil {
		t.Error("a client off loopback")
	}
}

func TestExchangeEndsWithItsContext(t *testing.T) {
	s := serve(t, ServerConfig{Answer: response})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Exchange(ctx, ClientConfig{Addr: s.Addr(), Request: request, Answer: response, Connections: 1, For: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
}

// BenchmarkExchange is the yardstick in one process: go test -bench Exchange ./scenarios/bench/bare
func BenchmarkExchange(b *testing.B) {
	for _, v := range []struct {
		name string
		c    ClientConfig
	}{
		{"16x1", ClientConfig{Connections: 16}},
		{"64x1", ClientConfig{Connections: 64}},
		{"64x8", ClientConfig{Connections: 64, InFlight: 8}},
		{"fresh", ClientConfig{Connections: 64, Fresh: true}},
	} {
		b.Run(v.name, func(b *testing.B) {
			s := serve(b, ServerConfig{Answer: response})
			c := v.c
			c.Addr, c.Request, c.Answer, c.Warm, c.For = s.Addr(), request, response, 200*time.Millisecond, 2*time.Second
			r, err := Exchange(b.Context(), c)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.PerSecond(), "exchanges/s")
		})
	}
}
