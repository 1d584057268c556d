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
	Size        int    // source: bytes of each datagram
	Loss        *Loss  // sink: what is lost on the way; source: what it has the kernel lose; nil: nothing
}

// Roles.
const (
	bareServer    = "bare-server"
	serviceServer = "service"
	bareClient    = "bare-client"
	generator     = "generator"
	vegeta        = "vegeta"
	k6            = "k6"
	packetSink    = "sink"
	packetSource  = "source"
	packetRelay   = "relay"
)

// measured is a client's result, as it goes to the parent.
type measured struct {
	Done           uint64
	Seconds        float64 // by the clock
	Core           float64 // CPU seconds of a core, where it is those that count; 0: the clock's do
	Wrong, Dropped uint64
	Detail         string      // what was wrong
	Client, Server float64     // CPU seconds used
	Others         float64     // the same by everybody else on the machine
	Heard          *bare.Heard // source
	Yardstick      float64     // relay: the same a second without it
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
	if p.Role != packetRelay && !p.Addr.Addr().IsLoopback() {
		return fmt.Errorf("%s: %s is not a loopback address", p.Role, p.Addr)
	}
	switch p.Role {
	case bareServer:
		return serveBare(ctx, p)
	case serviceServer:
		return serveService(ctx, p, log)
	case packetSink:
		return servePackets(ctx, p)
	}
	measure, ok := map[string]func(context.Context, Part) (measured, error){
		bareClient: driveBare, generator: driveGenerator, vegeta: driveVegeta, k6: driveK6,
		packetSource: drivePackets, packetRelay: driveRelay,
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
	cpu := meter{server: p.Server}
	c := bare.ClientConfig{
		Addr: p.Addr, Request: p.Request, Answer: p.Answer, Connections: p.Connections, InFlight: p.InFlight,
		Fresh: p.Fresh, Warm: p.Warm, For: p.For, Begin: cpu.begin,
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
	cpu.end(&m)
	return m, nil
}

// meter measures the CPU time, in seconds, of this process, of the server's, and of the whole machine.
type meter struct {
	server int // its pid
	before usage
}

type usage struct{ client, server, machine float64 }

func (m *meter) begin() { m.before = m.read() }

// end writes what was used since begin into a result.
func (m *meter) end(r *measured) {
	now := m.read()
	r.Client, r.Server = now.client-m.before.client, now.server-m.before.server
	r.machine(now.machine - m.before.machine)
}

func (m *meter) read() usage {
	return usage{cpuSeconds(os.Getpid()), cpuSeconds(m.server), machineSeconds()}
}

// machine takes the CPU time that everybody has used meanwhile.
func (r *measured) machine(all float64) { r.Others = max(0, all-r.Client-r.Server) }

const ticks = 100 // a second, of the kernel's accounts: USER_HZ is that on every Linux that Go runs on

// machineSeconds is the CPU time that was used on this machine's cores, or taken from them by its host: proc(5), stat.
func machineSeconds() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	total := uint64(0)
	for i, f := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, waiting for a disk, and guests that are counted twice
			continue
		}
		n, _ := strconv.ParseUint(f, 10, 64)
		total += n
	}
	return float64(total) / ticks
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
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	return float64(user+system) / ticks
}
