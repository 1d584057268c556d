package processes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
)

// Ref names one process for good: a pid is given out again, a pid and the moment it started are not.
type Ref struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5))
}

// Alive reports whether the process has not ended.
func (r Ref) Alive() bool {
	_, err := procfs.Find(r.PID, r.Start)
	return err == nil
}

// Target is what a fault is done to: processes of the run, with all that come from them.
type Target struct {
	Name      string       // "us-east/edge-1", in sentences
	Run       string       // the run's id, in the names of what is made
	Processes func() []Ref // those there are now; several goroutines may call it at once
}

// Refuse says which of refs no fault may be done to: processes that are gone, this very process, whatever it comes from, process 1 and
// threads of the kernel. The error wraps evidence.ErrRefused.
func Refuse(refs []Ref) error {
	all, err := procfs.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range refs {
		i := slices.IndexFunc(all, func(p procfs.Process) bool { return p.PID == r.PID && p.Start == r.Start && p.Lives() })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%w to touch process %d: there is none of that name any more", evidence.ErrRefused, r.PID))
			continue
		}
		errs = append(errs, refuse(all, all[i]))
	}
	return errors.Join(errs...)
}

// refuse keeps a fault away from what no run can own.
func refuse(all []procfs.Process, p procfs.Process) error {
	why := ""
	switch {
	case p.PID <= 1:
		why = "it is the machine's first"
	case p.Kernel:
		why = "it is a thread of the kernel"
	case p.PID == os.Getpid():
		why = "it is the one that would have to put it back"
	case slices.Contains(ancestors(all, os.Getpid()), p.PID):
		why = "this process comes from it"
	default:
		return nil
	}
	return fmt.Errorf("%w to touch process %d (%s): %s", evidence.ErrRefused, p.PID, p.Command, why)
}

func ancestors(all []procfs.Process, pid int) []int {
	parents := make(map[int]int, len(all))
	for _, p := range all {
		parents[p.PID] = p.Parent
	}
	var list []int
	for p := parents[pid]; p > 0 && !slices.Contains(list, p); p = parents[p] {
		list = append(list, p)
	}
	return list
}

// family finds a target's living processes and all that come from them, parents before their children.
func (t Target) family() ([]procfs.Process, error) {
	all, err := procfs.List()
	if err != nil {
		return nil, err
	}
	var found []procfs.Process
	var roots []int
	for _, r := range t.Processes() {
		i := slices.IndexFunc(all, func(p procfs.Process) bool { return p.PID == r.PID && p.Start == r.Start && p.Lives() })
		if i >= 0 && !slices.Contains(roots, r.PID) {
			roots = append(roots, r.PID)
			found = append(found, all[i])
		}
	}
	found = append(found, procfs.Descendants(all, roots...)...)
	for _, p := range found {
		if err := refuse(all, p); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// running is family, with an error where there is none.
func (t Target) running() ([]procfs.Process, error) {
	found, err := t.family()
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("nothing of %s is running", t.Name)
	}
	return found, err
}

// pollEvery is the time between two looks at something that happens at once.
const pollEvery = 2 * time.Millisecond

// await looks until ok, or until ctx or wait is over; it reports whether it was.
func await(ctx context.Context, wait time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ok()
		case <-ticker.C:
		}
	}
	return true
}

// denied turns a refusal by the kernel into what a person can do about it.
func denied(err error, t Target) error {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s %w: this user may not touch its processes (run as root, or as the user they belong to): %w", t.Name, evidence.ErrUnsupported, err)
	}
	return err
}
