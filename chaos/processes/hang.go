package processes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

const (
	// stopWait bounds the wait for processes to be stopped: only one that waits for a disk takes longer than a moment.
	stopWait = 5 * time.Second
	// maxRounds bounds how often a target is looked at again for children made meanwhile.
	maxRounds = 100
)

// Hang stops a target's processes, with all their threads and children: their sockets stay open and accept, and nothing
// answers. An Injector.
type Hang struct {
	target Target
	guard  watchdog.Guard

	mu    sync.Mutex
	holds []hold
}

// hold is a process that was stopped.
type hold struct {
	entry watchdog.Entry
	token watchdog.Token
}

// NewHang makes a Hang of a target.
func NewHang(t Target, g watchdog.Guard) *Hang { return &Hang{target: t, guard: g} }

// Inject stops the processes and returns when all of them are.
func (h *Hang) Inject(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.target.running(); err != nil {
		return err
	}
	// A process makes children until it is stopped itself.
	for range maxRounds {
		family, err := h.target.family()
		if err != nil {
			return err
		}
		added := false
		for _, p := range family {
			if h.holdsOf(p) {
				continue
			}
			added = true
			if p.State == procfs.Stopped {
				return fmt.Errorf("process %d (%s) of %s has been stopped already, by somebody else", p.PID, p.Command, h.target.Name)
			}
			if err := h.stop(p); err != nil {
				return denied(err, h.target)
			}
		}
		if !added {
			return nil
		}
		if !await(ctx, stopWait, h.allStopped) {
			return fmt.Errorf("the processes of %s were told to stop, and are not all stopped after %s", h.target.Name, stopWait)
		}
	}
	return fmt.Errorf("%s makes processes faster than they can be stopped", h.target.Name)
}

func (h *Hang) stop(p procfs.Process) error {
	e := watchdog.Entry{Kind: watchdog.Continue, PID: p.PID, Start: p.Start}
	token, err := h.guard.Protect(e)
	if err != nil {
		return err
	}
	h.holds = append(h.holds, hold{e, token})
	if err := procfs.Signal(p.PID, p.Start, unix.SIGSTOP); err != nil && !errors.Is(err, procfs.ErrGone) {
		return err
	}
	return nil
}

func (h *Hang) holdsOf(p procfs.Process) bool {
	return slices.ContainsFunc(h.holds, func(o hold) bool { return o.entry.PID == p.PID && o.entry.Start == p.Start })
}

func (h *Hang) allStopped() bool {
	for _, o := range h.holds {
		if p, err := procfs.Find(o.entry.PID, o.entry.Start); err == nil && p.State != procfs.Stopped {
			return false
		}
	}
	return true
}

// Restore lets the processes go on, the last stopped first.
func (h *Hang) Restore(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return release(ctx, h.guard, &h.holds)
}

// release undoes holds, the latest first, and keeps those that could not be undone.
func release(ctx context.Context, g watchdog.Guard, holds *[]hold) error {
	var errs []error
	var left []hold
	for _, o := range slices.Backward(*holds) {
		err := watchdog.Undo(ctx, o.entry)
		if err == nil {
			err = g.Release(o.token)
		}
		if err != nil {
			errs = append(errs, err)
			left = append(left, o)
		}
	}
	slices.Reverse(left)
	*holds = left
	return errors.Join(errs...)
}
