package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/scenarios/process"
)

// firstPort is where servers look for a free port: below the ports that the kernel gives to clients.
const firstPort = 17100

var loopbackAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// measurement fills a figure: a server and a client, started anew in each round.
type measurement struct {
	figure         *Figure
	server, client Part
	done           func(measured) // has the result of each round that was one; may be nil
}

// fault is a sentence on why a figure is worth nothing.
func (m *measurement) fault(sentence string) string {
	return fmt.Sprintf("%s (%s): %s", m.figure.Key, m.figure.What, sentence)
}

// measure takes the measurements in turns, round by round, and settles the report.
func measure(ctx context.Context, o Options, r *Report, ms []*measurement) error {
	port := uint16(firstPort)
	for round := range o.Rounds {
		for i := range ms {
			m := ms[i]
			if round%2 == 1 { // backwards, so that what comes first is not always the same
				m = ms[len(ms)-1-i]
			}
			if m.figure.Missing {
				continue
			}
			got, err := m.once(ctx, o, port)
			if err := ctx.Err(); err != nil {
				return err
			}
			rate := 0.0
			switch {
			case err != nil:
				r.problem(m.fault(err.Error()))
			case got.Done == 0 || got.Seconds <= 0:
				r.problem(m.fault("nothing was done"))
			default:
				rate = float64(got.Done) / cmp.Or(got.Core, got.Seconds)
				m.figure.client = append(m.figure.client, got.Client/got.Seconds)
				m.figure.server = append(m.figure.server, got.Server/got.Seconds)
				m.figure.others = append(m.figure.others, got.Others/got.Seconds)
				if m.done != nil {
					m.done(got)
				}
			}
			m.figure.Rounds = append(m.figure.Rounds, rate)
			m.figure.Wrong += got.Wrong
			m.figure.Dropped += got.Dropped
			if got.Wrong > 0 {
				r.problem(m.fault(fmt.Sprintf("%d wrong answers: %s", got.Wrong, got.Detail)))
			}
			if got.Dropped > 0 {
				r.problem(m.fault(fmt.Sprintf("%d requests dropped", got.Dropped)))
			}
			o.Tell(fmt.Sprintf("round %d/%d  %10s/s  %s", round+1, o.Rounds, thousands(rate), m.figure.What))
			if port += 16; port > firstPort+8000 {
				port = firstPort
			}
		}
	}
	r.settle()
	if !r.Valid() {
		return ErrInvalid
	}
	return nil
}

// problem notes a sentence once.
func (r *Report) problem(sentence string) {
	for _, p := range r.Problems {
		if p == sentence {
			return
		}
	}
	r.Problems = append(r.Problems, sentence)
}

// once measures one round.
func (m *measurement) once(ctx context.Context, o Options, port uint16) (got measured, err error) {
	if m.server.Role == "" {
		return m.drive(ctx, o, m.client)
	}
	server := m.server
	server.Addr = netip.AddrPortFrom(loopbackAddr, port)
	child, addr, err := startServer(ctx, o, server)
	if err != nil {
		return measured{}, err
	}
	defer func() {
		stopped, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if e := child.Err(); e != nil && err == nil {
			err = e // the server died under the measurement
		}
		if e := child.Stop(stopped); e != nil && err == nil {
			err = e
		}
	}()
	client := m.client
	client.Addr, client.Server = addr, child.PID()
	return m.drive(ctx, o, client)
}

// drive runs the client.
func (m *measurement) drive(ctx context.Context, o Options, client Part) (got measured, err error) {
	client.For = o.duration()
	driver, err := startPart(ctx, o, client, client.Warm+client.For+time.Minute)
	if err != nil {
		return measured{}, err
	}
	<-driver.Exited() // it has said its word
	if err := json.Unmarshal([]byte(driver.Info()[infoResult]), &got); err != nil {
		return measured{}, fmt.Errorf("the client's result: %w", err)
	}
	return got, nil
}

func startServer(ctx context.Context, o Options, p Part) (*process.Process, netip.AddrPort, error) {
	child, err := startPart(ctx, o, p, 10*time.Second)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddrPort(child.Info()[infoAddr])
	if err != nil {
		return nil, netip.AddrPort{}, errors.Join(fmt.Errorf("the server's address: %w", err), child.Kill())
	}
	return child, addr, nil
}

// startPart starts a child and waits for its word.
func startPart(ctx context.Context, o Options, p Part, wait time.Duration) (*process.Process, error) {
	config, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return process.Start(ctx, process.Spec{
		Name: p.Role, Args: []string{PartCommand}, Env: []string{"GOMAXPROCS=1"}, Stdin: config, ReadyTimeout: wait,
		StopGrace: 3 * time.Second, Logger: o.Log,
	})
}

// twoCores are the first two cores that this process may use: the servers' and the clients'.
func twoCores() (server, client, all int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, 0, 0, fmt.Errorf("cores: %w", err)
	}
	all = set.Count()
	if all < 2 {
		return 0, 0, 0, fmt.Errorf("a server and a client need a core each, and this process may use %d", all)
	}
	server, client = -1, -1
	for core := 0; client < 0; core++ {
		switch {
		case !set.IsSet(core):
		case server < 0:
			server = core
		default:
			client = core
		}
	}
	return server, client, all, nil
}

// thisMachine says what is measured on.
func thisMachine(cores int) Machine {
	m := Machine{CPU: runtime.GOARCH, Cores: cores, Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}
