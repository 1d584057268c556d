package engine

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// giveWay lowers the scheduling priority of this process to nice: of every thread it has, since Linux keeps it for each
// of them; threads to come take it from the one that starts them. There is no way back without privileges.
func giveWay(nice int) error {
	for range 10 { // a thread that is not lowered yet may start another meanwhile
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
			if was, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || 20-was >= nice {
				continue
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && err != unix.ESRCH {
				return fmt.Errorf("cannot lower the priority of this process: %w", err)
			}
			changed = true
		}
		if !changed {
			return nil
		}
	}
	return nil
}
