package processes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

// killWait bounds the wait for processes that were sent SIGKILL: only one stuck in the kernel takes longer.
const killWait = 5 * time.Second

// Crash kills a target's processes with SIGKILL, and has them started again. An Injector.
type Crash struct {
	target  Target
	restart func(context.Context) error
	hang    *Hang
	hit     bool
}

// NewCrash makes a Crash of a target that restart starts again. Without one it is refused: nobody would put it back.
func NewCrash(t Target, restart func(context.Context) error, g watchdog.Guard) (*Crash, error) {
	if restart == nil {
		return nil, fmt.Errorf("a crash of %s %w: nobody says how to start it again", t.Name, evidence.ErrUnsupported)
	}
	return &Crash{target: t, restart: restart, hang: NewHang(t, g)}, nil
}

// Inject kills the processes and returns when they are gone.
func (c *Crash) Inject(ctx context.Context) error {
	// Stopped first, they make no children that would be left over.
	if err := c.hang.Inject(ctx); err != nil {
		return err
	}
	victims, err := c.target.running()
	if err != nil {
		return err
	}
	c.hit = true
	for _, p := range victims {
		if err := procfs.Signal(p.PID, p.Start, unix.SIGKILL); err != nil && !errors.Is(err, procfs.ErrGone) {
			return denied(err, c.target)
		}
	}
	gone := await(ctx, killWait, func() bool {
		return !slices.ContainsFunc(victims, func(p procfs.Process) bool { return Ref{p.PID, p.Start}.Alive() })
	})
	if !gone {
		return fmt.Errorf("the processes of %s were killed, and are not all gone after %s", c.target.Name, killWait)
	}
	return c.hang.Restore(ctx)
}

// Restore starts the target again unless it runs.
func (c *Crash) Restore(ctx context.Context) error {
	if err := c.hang.Restore(ctx); err != nil || !c.hit {
		return err
	}
	if found, err := c.target.family(); err != nil || len(found) > 0 {
		c.hit = err != nil
		return err
	}
	if err := c.restart(ctx); err != nil {
		return fmt.Errorf("start %s again: %w", c.target.Name, err)
	}
	if found, err := c.target.family(); err != nil {
		return err
	} else if len(found) == 0 {
		return fmt.Errorf("%s was started again and is gone already", c.target.Name)
	}
	c.hit = false
	return nil
}
