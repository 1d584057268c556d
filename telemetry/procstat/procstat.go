package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// Sample is what one process takes.
type Sample struct {
	RSS     uint64        // resident memory, bytes
	Peak    uint64        // the most it was, bytes
	CPU     time.Duration // user and system, of all threads, since it began
	Threads int
}

// Read looks at a process: one's own, or a child that was not waited for (another's pid may be reused). The error wraps
// os.ErrNotExist when there is none, and where there is no Linux /proc.
func Read(pid int) (s Sample, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	if s, err = parse(stat, status); err != nil {
		return s, fmt.Errorf("process %d: %w", pid, err)
	}
	return s, nil
}

// tick is USER_HZ, which is 100 on every architecture that Go runs on.
const tick = time.Second / 100

var errFormat = errors.New("/proc says it in a way that is not known")

func parse(stat, status []byte) (s Sample, err error) {
	// The name, in parentheses, may hold anything: the last one ends it.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return s, errFormat
	}
	fields := strings.Fields(string(stat[i+1:]))
	const utime, stime, threads = 14 - 3, 15 - 3, 20 - 3 // numbered from 1 in proc(5), of which the first two are gone
	if len(fields) <= threads {
		return s, errFormat
	}
	user, err1 := strconv.ParseUint(fields[utime], 10, 36)
	system, err2 := strconv.ParseUint(fields[stime], 10, 36)
	n, err3 := strconv.Atoi(fields[threads])
	if err := errors.Join(err1, err2, err3); err != nil {
		return s, fmt.Errorf("%w: %w", errFormat, err)
	}
	s.CPU, s.Threads = time.Duration(user+system)*tick, n
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		var to *uint64
		switch name {
		case "VmRSS":
			to = &s.RSS
		case "VmHWM":
			to = &s.Peak
		default:
			continue
		}
		value = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB"))
		kb, err := strconv.ParseUint(value, 10, 54)
		if err != nil {
			return s, fmt.Errorf("%w: %w", errFormat, err)
		}
		*to = kb << 10
	}
	return s, nil
}

// Event is the sample as an event of the process that is called name.
func (s Sample) Event(name string, at time.Time) event.Event {
	return event.Event{Kind: event.ProcessStats, At: at, Component: name, Nums: map[string]float64{
		"rss_bytes": float64(s.RSS), "peak_bytes": float64(s.Peak), "cpu_s": s.CPU.Seconds(), "threads": float64(s.Threads),
	}}
}
