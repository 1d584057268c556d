package chaos

import (
	"errors"
	"fmt"

	"github.com/tminus-live/tminus/chaos/processes"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

var onProcesses = []string{PartRegion, PartClickHouse, PartService}

const (
	processEvidence = "the processes' state and what they use, read from /proc, and requests from outside of who answers such, before, during and after"
	groupNeeds      = "a control group, version 2 or 1, that this user may write to (root may); without one processor time is limited by stopping and continuing"
)

var processKinds = []Kind{{
	Fail: "process", Summary: "processes hang, or have too little to run on", Where: "a region, clickhouse, or something of one's own that listens at an address", On: onProcesses,
	Models: []Model{
		processModel(Model{
			Name: "hang", Summary: "the processes are stopped with SIGSTOP, and continued at the end: connections are accepted and nothing answers",
			Example: "{at: 30s, for: 10s, fail: process, where: us-east}",
		}, func(f Fault, t processes.Target, g watchdog.Guard) (Injector, processes.Expect, error) {
			return processes.NewHang(t, g), processes.Expect{What: processes.Hung}, nil
		}),
		processModel(Model{
			Name: "cpu", Summary: "the processes get so much processor time and no more", Needs: groupNeeds,
			Parameters: []Parameter{{Name: "cores", Type: TypeNumber, Default: "0.25", Least: processes.MinCores, Most: 1024, Summary: "processors' time that is left to all of them together"}},
			Example:    "{at: 30s, for: 20s, fail: process, where: us-east, model: {cpu: {cores: 0.2}}}",
		}, func(f Fault, t processes.Target, g watchdog.Guard) (Injector, processes.Expect, error) {
			i, err := processes.NewCPU(t, f.Number("cores"), g)
			return i, processes.Expect{What: processes.Starved, Cores: f.Number("cores")}, err
		}),
		processModel(Model{
			Name: "memory", Summary: "the processes can have so much more memory and no more: whoever wants it waits", Needs: "a control group for memory, version 2 or 1, that this user may write to (root may)",
			Parameters: []Parameter{{Name: "room", Type: TypeSize, Default: "16MB", Least: processes.MinRoom, Most: 1e12, Summary: "memory beyond what they have when the fault begins"}},
			Example:    "{at: 30s, for: 20s, fail: process, where: us-east, model: {memory: {room: 8MB}}}",
		}, func(f Fault, t processes.Target, g watchdog.Guard) (Injector, processes.Expect, error) {
			if err := processes.MemoryAble(g); err != nil {
				return nil, processes.Expect{}, err
			}
			i, err := processes.NewMemory(t, int64(f.Size("room")), g)
			return i, processes.Expect{What: processes.Pressed, Room: int64(f.Size("room"))}, err
		}),
	},
}}

// errNoGuard: what would outlive a dead conductor is not broken without a watchdog.
var errNoGuard = errors.New("nobody would undo it if this process died: it needs a watchdog")

// processModel completes a model that is about processes.
func processModel(m Model, does func(Fault, processes.Target, watchdog.Guard) (Injector, processes.Expect, error)) Model {
	m.Evidence = processEvidence
	m.plan = func(f Fault, cfg *Config) (plan, error) {
		p, err := part(f, cfg)
		if err != nil {
			return plan{}, err
		}
		if p.Processes == nil {
			return plan{}, fmt.Errorf("fault %s (%s of %s): %w: its processes are not known", f.ID, f.Fail, f.Where, ErrUnsupported)
		}
		if cfg.Guard == nil {
			return plan{}, fmt.Errorf("fault %s (%s of %s): %w: %w", f.ID, f.Fail, f.Where, ErrUnsupported, errNoGuard)
		}
		target := processes.Target{Name: p.Name, Run: f.ID, Processes: refs(p.Processes)}
		first := target.Processes()
		if len(first) == 0 {
			return plan{}, fmt.Errorf("fault %s (%s of %s): %w: no process of this user's listens at %s", f.ID, f.Fail, f.Where, ErrRefused, p.Name)
		}
		if err := processes.Refuse(first); err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		i, expect, err := does(f, target, cfg.Guard)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		expect.For, expect.Now = f.For, cfg.Now
		if p.URL != "" {
			expect.URL, expect.Mute = p.URL+p.Look, p.Kind == PartService
		}
		if p.Kind == PartRegion {
			expect.URL = "http://" + p.Addrs[0].String() + "/healthz"
		}
		o, err := processes.NewObserver(target, expect)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		return plan{injector: i, observer: o}, nil
	}
	return m
}

// refs names processes for good; those that cannot be listed are none.
func refs(list func() ([]procfs.Process, error)) func() []processes.Ref {
	return func() []processes.Ref {
		all, err := list()
		if err != nil {
			return nil
		}
		var out []processes.Ref
		for _, p := range all {
			out = append(out, processes.Ref{PID: p.PID, Start: p.Start})
		}
		return out
	}
}
