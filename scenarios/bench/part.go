package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/scenarios/bench/bare"
	"github.com/tminus-live/tminus/scenarios/process"
)

// PartCommand is the hidden command that runs a benchmark's child process: it hands its configuration to RunPart.
const PartCommand = "bench-part"

// Part is what a child process does: one server, or one client's measurement.
type Part struct {
	Role        string
	Core        int            // the child is tied to it; -1: to none
	Addr        netip.AddrPort // servers: where to listen, or above it when it is taken; clients: the server
	Connections int
	InFlight    int
	Fresh       bool          // a connection for each exchange
	TLS         []byte        // PEM of certificate and key; nil: plain TCP
	Warm, For   time.Duration // clients
	Request     []byte
	Answer      []byte
	Server      int    // clients: the server's pid
	Tool        string // peers: the binary
	Procs, GC   int    // peers: GOMAXPROCS, GOGC
	Check       bool   // k6: another viewer each time, and read the answer
}

// Roles.
const (
	bareServer    = "bare-server"
	serviceServer = "service"
	bareClient    = "bare-client"
	generator     = "generator"
	vegeta        = "vegeta"
	k6            = "k6"
)

// measured is a client's result, as it goes to the parent.
type measured struct {
	Done           uint64
	Seconds        float64
	Wrong, Dropped uint64
	Detail         string  // what was wrong
	Client, Server float64 // CPU seconds used
}

// What a part says to its parent.
const (
	infoAddr   = "addr"
	infoResult = "result"
)

// RunPart is a child process's life. A server says where it listens and serves until ctx ends; a client measures, says what it
// found and ends.
func RunPart(ctx context.Context, p Part, log *slog.Logger) error {
	if p.Core >= 0 {
		if err := bare.Pin(p.Core); err != nil {
			return err
		}
	}
	if !p.Addr.Addr().IsLoopback() {
		return fmt.Errorf("%s: %s is not a loopback address", p.Role, p.Addr)
	}
	switch p.Role {
	case bareServer:
		return serveBare(ctx, p)
	case serviceServer:
		return serveService(ctx, p, log)
	}
	measure, ok := map[string]func(context.Context, Part) (measured, error){
		bareClient: driveBare, generator: driveGenerator, vegeta: driveVegeta, k6: driveK6,
	}[p.Role]
	if !ok {
		return fmt.Errorf("there is no role %q", p.Role)
	}
	m, err := measure(ctx, p)
	if err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return process.Ready(map[string]string{infoResult: string(b)})
}

// runServer tells the parent the address and serves.
func runServer(ctx context.Context, addr netip.AddrPort, run func(context.Context) error) error {
	if err := process.Ready(map[string]string{infoAddr: addr.String()}); err != nil {
		return err
	}
	return run(ctx)
}

// listenAbove binds the first free port from addr's on: below those that the kernel gives to clients.
func listenAbove[L any](addr netip.AddrPort, listen func(netip.AddrPort) (L, error)) (L, error) {
	for port := addr.Port(); ; port++ {
		l, err := listen(netip.AddrPortFrom(addr.Addr(), port))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || port >= addr.Port()+1000 {
			return l, err
		}
	}
}

func serveBare(ctx context.Context, p Part) error {
	if p.TLS != nil {
		t, err := serverTLS(p.TLS)
		if err != nil {
			return err
		}
		s, err := listenAbove(p.Addr, func(a netip.AddrPort) (*bare.TLSServer, error) {
			return bare.ListenTLS(bare.ServerConfig{Addr: a, Answer: p.Answer}, t)
		})
		if err != nil {
			return err
		}
		return runServer(ctx, s.Addr(), s.Run)
	}
	s, err := listenAbove(p.Addr, func(a netip.AddrPort) (*bare.Server, error) {
		return bare.Listen(bare.ServerConfig{Addr: a, Answer: p.Answer})
	})
	if err != nil {
		return err
	}
	return runServer(ctx, s.Addr(), s.Run)
}

func driveBare(ctx context.Context, p Part) (measured, error) {
	usage := meter{server: p.Server}
	c := bare.ClientConfig{
		Addr: p.Addr, Request: p.Request, Answer: p.Answer, Connections: p.Connections, InFlight: p.InFlight,
		Fresh: p.Fresh, Warm: p.Warm, For: p.For, Begin: usage.begin,
	}
	exchange := func() (bare.Result, error) { return bare.Exchange(ctx, c) }
	if p.TLS != nil {
		t, err := clientTLS(p.TLS)
		if err != nil {
			return measured{}, err
		}
		exchange = func() (bare.Result, error) { return bare.Handshake(ctx, c, t) }
	}
	r, err := exchange()
	if err != nil {
		return measured{}, err
	}
	m := measured{Done: r.Done, Seconds: r.For.Seconds()}
	m.Client, m.Server = usage.end()
	return m, nil
}

// meter measures the CPU time of this process (or of a child of it) and of the server's.
type meter struct {
	client, server   int // pids; client 0: this process
	client0, server0 float64
}

func (m *meter) begin() { m.client0, m.server0 = m.read() }

func (m *meter) end() (client, server float64) {
	c, s := m.read()
	return c - m.client0, s - m.server0
}

func (m *meter) read() (client, server float64) {
	pid := m.client
	if pid == 0 {
		pid = os.Getpid()
	}
	return cpuSeconds(pid), cpuSeconds(m.server)
}

// cpuSeconds is the CPU time a process has used, in user and kernel mode; 0 when there is none. Its grain is 10 ms: proc(5), stat.
func cpuSeconds(pid int) float64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	const ticks = 100 // a second: USER_HZ is that on every Linux that Go runs on
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	return float64(user+system) / ticks
}
