package processes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

const (
	// MinCores is the least processor time that a target can be left with: a control group's quota is 1 ms at least.
	MinCores = 0.01
	// period is the time over which processor time is shared out: what a control group has by default.
	period = 100 * time.Millisecond
	// lookEvery is the time between two looks at what was used, when it is kept by stops.
	lookEvery = 5 * time.Millisecond
	// relistEvery is the time between two looks for new children, when it is kept by stops.
	relistEvery = 200 * time.Millisecond
)

// CPU leaves a target's processes, all together, with a share of the machine's processor time. An Injector.
type CPU struct {
	target Target
	cores  float64
	guard  watchdog.Guard
	stops  bool // do without control groups

	mu    sync.Mutex
	group group
	hang  *Hang
	end   func() error // of the goroutine that stops and continues
}

// NewCPU makes a CPU that leaves a target with so many cores' time: 0.25 is 25 ms in every 100.
func NewCPU(t Target, cores float64, g watchdog.Guard) (*CPU, error) {
	if !(cores >= MinCores) || math.IsInf(cores, 0) {
		return nil, fmt.Errorf("%g cores are less than the %g that can be left to %s", cores, MinCores, t.Name)
	}
	return &CPU{target: t, cores: cores, guard: g}, nil
}

// quota are the settings of a group that may use so many cores.
func quota(s site, cores float64) []setting {
	every, most := strconv.FormatInt(period.Microseconds(), 10), strconv.FormatInt(int64(math.Round(cores*float64(period.Microseconds()))), 10)
	if s.version == 2 {
		return []setting{{"cpu.max", most + " " + every}}
	}
	return []setting{{"cpu.cfs_period_us", every}, {"cpu.cfs_quota_us", most}}
}

// Inject returns when the limit is in force.
func (c *CPU) Inject(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	family, err := c.target.running()
	if err != nil {
		return err
	}
	if !c.stops {
		s, err := siteOf("cpu", family[0].PID)
		if err == nil {
			if err = c.group.make(c.guard, s, "cpu", c.target.Run, quota(s, c.cores)); err == nil {
				err = c.group.move("cpu", c.target)
			}
		}
		if err == nil {
			return nil
		}
		if errors.Is(err, watchdog.ErrLost) || errors.Is(err, evidence.ErrRefused) {
			return err
		}
		if err := c.group.remove(ctx, c.guard); err != nil {
			return err
		}
	}
	return c.startStops()
}

// Restore lifts the limit.
func (c *CPU) Restore(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if c.end != nil {
		errs = append(errs, c.end())
		c.end = nil
	}
	if c.hang != nil {
		errs = append(errs, c.hang.Restore(ctx))
	}
	return errors.Join(append(errs, c.group.remove(ctx, c.guard))...)
}

// startStops keeps the limit by stopping and continuing, as a group's quota would.
func (c *CPU) startStops() error {
	s := &stopper{target: c.target, hang: NewHang(c.target, c.guard), allowance: allowance{cores: c.cores}}
	c.hang = s.hang
	now := time.Now()
	if err := s.relist(now); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	c.end = func() error {
		cancel()
		return <-done
	}
	return nil
}

// stopper is one target whose processes are stopped when they have used what they may.
type stopper struct {
	target    Target
	hang      *Hang // keeps their entries
	allowance allowance
	last      map[int]time.Duration // processor time used, by pid
	seen      time.Time
	listed    time.Time
	stopped   bool
}

// relist takes new children in. Each is protected before it is ever stopped.
func (s *stopper) relist(now time.Time) error {
	family, err := s.target.family()
	if err != nil {
		return err
	}
	s.listed = now
	s.hang.holds = slices.DeleteFunc(s.hang.holds, func(o hold) bool {
		return !Ref{o.entry.PID, o.entry.Start}.Alive() && s.hang.guard.Release(o.token) == nil
	})
	if s.last == nil {
		s.last, s.seen = make(map[int]time.Duration), now
	}
	for _, p := range family {
		if s.hang.holdsOf(p) {
			continue
		}
		if p.State == procfs.Stopped && !s.stopped {
			return fmt.Errorf("process %d (%s) of %s has been stopped already, by somebody else", p.PID, p.Command, s.target.Name)
		}
		e := watchdog.Entry{Kind: watchdog.Continue, PID: p.PID, Start: p.Start}
		token, err := s.hang.guard.Protect(e)
		if err != nil {
			return err
		}
		s.hang.holds = append(s.hang.holds, hold{e, token})
		if used, err := procfs.CPU(p.PID); err == nil {
			s.last[p.PID] = used
		}
		// Whether this user may is known before it matters.
		if err := procfs.Signal(p.PID, p.Start, 0); err != nil && !errors.Is(err, procfs.ErrGone) {
			return denied(err, s.target)
		}
		if s.stopped {
			_ = procfs.Signal(p.PID, p.Start, unix.SIGSTOP)
		}
	}
	return nil
}

func (s *stopper) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			_ = s.signal(unix.SIGCONT) // nobody else would before Restore
		}
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now()
		if now.Sub(s.listed) >= relistEvery {
			if err := s.relist(now); err != nil {
				return err
			}
		}
		var used time.Duration
		for pid, before := range s.last {
			v, err := procfs.CPU(pid)
			if err != nil {
				delete(s.last, pid)
				continue
			}
			used += max(0, v-before)
			s.last[pid] = v
		}
		may := s.allowance.after(now.Sub(s.seen), used, !s.stopped)
		s.seen = now
		if may == !s.stopped {
			continue
		}
		sig := unix.SIGSTOP
		if may {
			sig = unix.SIGCONT
		}
		if err := s.signal(sig); err != nil {
			return err
		}
		s.stopped = !may
	}
}

func (s *stopper) signal(sig unix.Signal) error {
	for _, o := range s.hang.holds {
		if err := procfs.Signal(o.entry.PID, o.entry.Start, sig); err != nil && !errors.Is(err, procfs.ErrGone) {
			return err
		}
	}
	return nil
}

// allowance decides when something may run that is to use so many cores' time: what it may use comes in evenly, what it
// uses goes out, a period's worth is kept at most.
type allowance struct {
	cores float64
	left  time.Duration
}

// after says whether it may run, when so much time has passed in which it used so much. What was stopped goes on when
// half a period's worth has come in.
func (a *allowance) after(passed, used time.Duration, running bool) bool {
	most := time.Duration(a.cores * float64(period))
	a.left = min(most, a.left+time.Duration(a.cores*float64(passed))) - used
	if running {
		return a.left > 0
	}
	return a.left >= most/2
}
