package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Set gives this process a scheduling priority (nice, -20 to 19, the lower the sooner). Below what it has it needs
// CAP_SYS_NICE: without, the error wraps os.ErrPermission.
func Set(nice int) error { return each(nice, func(was int) bool { return was != nice }) }

// GiveWay lowers the scheduling priority of this process to nice, but for threads that have given way further. There is
// no way back without privileges.
func GiveWay(nice int) error { return each(nice, func(was int) bool { return was < nice }) }

// each sets the priority of every thread whose own is to change.
func each(nice int, change func(was int) bool) error {
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
			if was, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || !change(20-was) {
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
