package k6

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/grafana/sobek"
	"go.k6.io/k6/lib"
	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/telemetry/event"
)

const (
	faultLead = 5 * time.Second // a fault is watched so long before it comes
	killWait  = 5 * time.Second
	dialEvery = 50 * time.Millisecond
)

// faultOptions are those of fault.
type faultOptions struct {
	Fail  string    `json:"fail"`
	Model string    `json:"model"`
	Where string    `json:"where"`
	At    *duration `json:"at"` // from the call on
	For   duration  `json:"for"`

	Addresses []string `json:"addresses"` // what viewers connect to; they answer GET /healthz
	Prefix    string   `json:"prefix"`    // what is cut off; "": the smallest block that holds the addresses
	Elsewhere []string `json:"elsewhere"` // what is to stay well, for comparison

	PID     int      `json:"pid"`     // the process to crash
	Restart []string `json:"restart"` // what starts it again

	Run   string `json:"run"`
	Kafka string `json:"kafka"`
}

// fault breaks one thing, proves that it broke, puts it back, and returns the evidence.
func (i *instance) fault(v sobek.Value) sobek.Value {
	return i.run("fault", func(ctx context.Context, state *lib.State) (map[string]any, error) {
		var o faultOptions
		if err := read(v, &o); err != nil {
			return nil, err
		}
		return i.breakIt(ctx, state, o)
	})
}

func (i *instance) breakIt(ctx context.Context, state *lib.State, o faultOptions) (map[string]any, error) {
	if o.Where == "" {
		o.Where = "target"
	}
	lead := faultLead
	if o.At != nil {
		lead = time.Duration(*o.At)
	}
	f := chaos.Fault{ID: fmt.Sprintf("%s/%s/%s@%s", o.Fail, o.Model, o.Where, time.Now().UTC().Format("150405.000")), At: lead, For: time.Duration(o.For), Fail: o.Fail, Where: o.Where, Model: o.Model}
	target, err := newRegion(o)
	if err := errors.Join(chaos.Preflight([]chaos.Fault{f}), err); err != nil {
		return nil, err
	}
	if target.process != nil {
		defer target.process.Close()
	}
	regions := []chaos.Region{target}
	if len(o.Elsewhere) > 0 {
		other, err := addressesOf(o.Elsewhere)
		if err != nil {
			return nil, fmt.Errorf("elsewhere: %w", err)
		}
		regions = append(regions, &region{name: "elsewhere", addresses: other})
	}
	log := logger(state.Logger)
	next, err := i.module.events(ctx, o.Run, o.Kafka, i.env, log)
	if err != nil {
		return nil, err
	}
	var results []chaos.Result
	err = i.module.record.during(ctx, state, func(ctx context.Context) (err error) {
		results, err = chaos.Run(ctx, chaos.Config{Faults: []chaos.Fault{f}, Regions: regions, Start: time.Now(), Now: time.Now, Sink: next, Logger: log})
		return err
	})
	if err != nil || len(results) == 0 {
		return nil, err
	}
	if ctx.Err() != nil {
		i.module.interrupt("its fault was ended early")
	}
	got := results[0]
	// The figures too, for whoever judges by events alone.
	next.Emit(event.Event{Kind: event.Fault, Fault: f.ID, Region: f.Where, Status: got.Evidence.Status, Detail: got.Evidence.Detail,
		Nums: map[string]float64{"expected": got.Evidence.Expected, "measured": got.Evidence.Measured}})
	r := i.module.record
	r.mu.Lock()
	confirmed := 0.0
	if got.Evidence.Status == chaos.Confirmed {
		confirmed = 1
	}
	r.sample(i.metrics.faultsConfirmed, state.Tags.GetCurrentValues().Tags.With("fault", o.Fail), time.Now(), confirmed)
	r.mu.Unlock()
	if err := r.during(ctx, state, func(context.Context) error { return nil }); err != nil {
		return nil, err
	}
	out := map[string]any{
		"fail": got.Fault.Fail, "model": got.Fault.Model, "where": got.Fault.Where, "at": got.AtS, "for": got.ForS, "restored": got.Restored,
		"evidence": map[string]any{"status": got.Evidence.Status, "expected": got.Evidence.Expected, "measured": got.Evidence.Measured,
			"unit": got.Evidence.Unit, "detail": got.Evidence.Detail},
	}
	if got.Err != nil {
		out["error"] = got.Err.Error()
	}
	return out, nil
}

// region is what a script names by hand: some addresses, and for a crash the process behind them.
type region struct {
	name      string
	prefix    netip.Prefix
	addresses []netip.AddrPort
	restart   []string
	process   *process // nil: none is crashed

	mu sync.Mutex
}

var _ chaos.Region = (*region)(nil)

func newRegion(o faultOptions) (*region, error) {
	r := &region{name: o.Where, restart: o.Restart}
	var err error
	if r.addresses, err = addressesOf(o.Addresses); err != nil {
		return r, fmt.Errorf("addresses: %w", err)
	}
	if o.Prefix != "" {
		if r.prefix, err = netip.ParsePrefix(o.Prefix); err != nil {
			return r, fmt.Errorf("prefix: %w", err)
		}
		for _, a := range r.addresses {
			if !r.prefix.Contains(a.Addr()) {
				return r, fmt.Errorf("prefix: %s does not hold %s", r.prefix, a)
			}
		}
	} else {
		r.prefix = around(r.addresses)
	}
	if o.Model == "cut" {
		if o.PID != 0 || len(o.Restart) > 0 {
			return r, errors.New("model cut needs no pid and no restart: it ends no process")
		}
		return r, nil
	}
	switch {
	case o.PID <= 1:
		return r, errors.New("pid: want the id of the process to crash, one of your own on this machine")
	case len(o.Restart) == 0:
		return r, errors.New("restart: want the program and its arguments that start the process again, since a crash is undone that way")
	}
	r.process, err = find(o.PID, r.addresses)
	return r, err
}

// addressesOf reads loopback addresses: nothing else may be broken.
func addressesOf(texts []string) ([]netip.AddrPort, error) {
	if len(texts) == 0 {
		return nil, errors.New("want one or more of address:port that viewers connect to and that answer GET /healthz")
	}
	var out []netip.AddrPort
	for _, t := range texts {
		a, err := netip.ParseAddrPort(t)
		if err != nil {
			return nil, fmt.Errorf("%q is no address:port", clip(t))
		}
		if !a.Addr().Unmap().IsLoopback() {
			return nil, fmt.Errorf("%w to touch %s: only loopback addresses can be broken", chaos.ErrRefused, a)
		}
		out = append(out, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return out, nil
}

// around is the smallest block that holds all addresses.
func around(addrs []netip.AddrPort) netip.Prefix {
	first := addrs[0].Addr()
	for bits := first.BitLen(); bits > 0; bits-- {
		p := netip.PrefixFrom(first, bits).Masked()
		if !slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return !p.Contains(a.Addr()) }) {
			return p
		}
	}
	return netip.PrefixFrom(first, 0)
}

func (r *region) Name() string                { return r.name }
func (r *region) Prefix() netip.Prefix        { return r.prefix }
func (r *region) Endpoints() []netip.AddrPort { return r.addresses }

// Kill ends the process with SIGKILL and returns when it is gone.
func (r *region) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return errors.New("no process of this target is known")
	}
	return r.process.kill()
}

// Start starts the process again and returns when its addresses take connections.
func (r *region) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.process == nil {
		return errors.New("no process of this target is known")
	}
	if r.process.alive() {
		return nil
	}
	cmd := exec.Command(r.restart[0], r.restart[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives the test, as the one before it would have
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	next, err := open(cmd.Process.Pid)
	go cmd.Wait() //nolint:errcheck // reaps it; how it ends is nobody's business here
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	r.process.Close()
	r.process = next
	for _, a := range r.addresses {
		for {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", a.String())
			if err == nil {
				conn.Close()
				break
			}
			if !next.alive() {
				return fmt.Errorf("restart: %s ended before it served %s", r.restart[0], a)
			}
			select {
			case <-time.After(dialEvery):
			case <-ctx.Done():
				return fmt.Errorf("restart: %s does not answer: %w", a, err)
			}
		}
	}
	return nil
}

// Alive reports whether the process runs.
func (r *region) Alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process == nil || r.process.alive()
}

// process is one process, held by a descriptor, so that its number cannot come to mean another.
type process struct{ pid, fd int }

func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("no process %d of yours: %w", pid, err)
	}
	return &process{pid, fd}, nil
}

// find opens a process that listens at one of the addresses: nothing else is what the fault is about.
func find(pid int, addrs []netip.AddrPort) (*process, error) {
	p, err := open(pid)
	if err != nil {
		return nil, fmt.Errorf("pid: %w", err)
	}
	at, err := procfs.Listening(pid)
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("pid: cannot tell what process %d listens at: %w", pid, err)
	}
	for _, a := range addrs {
		if slices.ContainsFunc(at, func(l netip.AddrPort) bool { return procfs.Covers(l, a) }) {
			return p, nil
		}
	}
	p.Close()
	return nil, fmt.Errorf("pid: %w to crash process %d: it listens at none of the addresses", chaos.ErrRefused, pid)
}

// gone waits until the process has ended.
func (p *process) gone(wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	until := time.Now().Add(wait)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(until).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1
	}
}

func (p *process) alive() bool { return !p.gone(0) }

func (p *process) kill() error {
	if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	if !p.gone(killWait) {
		return fmt.Errorf("process %d is still there after %v", p.pid, killWait)
	}
	return nil
}

// Close lets the process go.
func (p *process) Close() { unix.Close(p.fd) }
