package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone: there is no such process any more.
var ErrGone = errors.New("process is gone")

// tick is the unit of times in /proc/<pid>/stat: USER_HZ, which is 100 on every architecture that Go supports.
const tick = 10 * time.Millisecond

// States of a process that matter here (proc(5)).
const (
	Stopped = 'T'
	Zombie  = 'Z'
	Dead    = 'X'
)

// Process is what /proc/<pid>/stat says.
type Process struct {
	PID     int
	Parent  int
	Group   int
	Command string // as the kernel shortens it, 15 bytes
	State   byte
	Start   uint64        // clock ticks since boot
	CPU     time.Duration // used by all its threads, in steps of 10 ms
	Kernel  bool          // a thread of the kernel
}

// Lives reports whether the process has not ended. A zombie has.
func (p Process) Lives() bool { return p.State != Zombie && p.State != Dead }

// Read reads one process; ErrGone when there is none.
func Read(pid int) (Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // ESRCH: it ended between open and read
		return Process{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return Process{}, err
	}
	return Parse(b)
}

// Find reads the process that had this pid and started at this moment; ErrGone when it has ended, whoever has the pid now.
func Find(pid int, start uint64) (Process, error) {
	p, err := Read(pid)
	if err != nil {
		return Process{}, err
	}
	if p.Start != start || !p.Lives() {
		return Process{}, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return p, nil
}

// List reads every process there is.
func List() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, err := Read(pid)
		if errors.Is(err, ErrGone) {
			continue // ended while the list was read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Descendants are the living processes of all that come from one of roots, without the roots themselves: parents before
// their children.
func Descendants(all []Process, roots ...int) []Process {
	children := make(map[int][]Process)
	for _, p := range all {
		children[p.Parent] = append(children[p.Parent], p)
	}
	seen := make(map[int]bool)
	for _, r := range roots {
		seen[r] = true
	}
	var found []Process
	queue := append([]int(nil), roots...)
	for len(queue) > 0 {
		for _, p := range children[queue[0]] {
			if !seen[p.PID] && p.Lives() {
				seen[p.PID] = true
				found = append(found, p)
				queue = append(queue, p.PID)
			}
		}
		queue = queue[1:]
	}
	return found
}

// Signal sends a signal to the process that had this pid and started at this moment; ErrGone when it has ended.
func Signal(pid int, start uint64, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// The descriptor is of one process for good; the comparison says whether it is the right one.
	if _, err := Find(pid, start); err != nil {
		return err
	}
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), pid, err)
	}
	return nil
}

// CPU is the processor time that all threads of a process have used, to the nanosecond; unlike Process.CPU it does not
// move in steps. ErrGone when the process has ended.
func CPU(pid int) (time.Duration, error) {
	// A process's clock is named by its pid: (^pid)<<3 with CPUCLOCK_SCHED in the low bits (clock_getcpuclockid(3)).
	const sched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &ts); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("process %d: %w", pid, ErrGone)
		}
		return 0, fmt.Errorf("read the clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Parse reads one line of /proc/<pid>/stat. A command may hold spaces and brackets, so fields are counted from its last
// bracket.
func Parse(b []byte) (Process, error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return Process{}, fmt.Errorf("process status %.80q has no command in brackets", b)
	}
	const ( // positions after the command; proc(5) counts from 1, the command being 2
		state, parent, group, flags, user, system, start = 0, 1, 2, 6, 11, 12, 19

		kernelThread = 0x00200000 // PF_KTHREAD, linux/sched.h
	)
	fields := bytes.Fields(b[shut+1:])
	if len(fields) <= start || len(fields[state]) != 1 {
		return Process{}, fmt.Errorf("process status %.80q has too few fields", b)
	}
	p := Process{Command: string(b[open+1 : shut]), State: fields[state][0]}
	var err error
	number := func(text []byte) (v uint64) {
		if err == nil {
			v, err = strconv.ParseUint(string(text), 10, 63)
		}
		return v
	}
	p.PID = int(number(bytes.TrimSpace(b[:open])))
	p.Parent = int(number(fields[parent]))
	p.Group = int(number(fields[group]))
	p.Kernel = number(fields[flags])&kernelThread != 0
	p.CPU = time.Duration(number(fields[user])+number(fields[system])) * tick
	p.Start = number(fields[start])
	if err != nil {
		return Process{}, fmt.Errorf("process status %.80q: %w", b, err)
	}
	return p, nil
}

// Write writes a value to a file of the kernel's, which must be there.
func Write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
