package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// SetPriority gives this process a scheduling priority (nice, -20 to 19, the lower the sooner): each thread that it has,
// since Linux keeps it for each of them; threads to come take it from the one that starts them. Below 0 it needs
// CAP_SYS_NICE: without, the error wraps os.ErrPermission.
func SetPriority(nice int) error {
	for range 10 { // a thread that is not reached yet may start another meanwhile
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("cannot list this process's threads: %w", err)
		}
		changed := false
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			// The system call answers 20 - nice.
			if was, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || 20-was == nice {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cannot set the priority of this process to %d: %w", nice, err)
			}
			changed = true
		}
		if !changed {
			return nil
		}
	}
	return nil
}
