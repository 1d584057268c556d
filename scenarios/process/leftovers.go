package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// ID names one incarnation of a process for good: pids are given out again, a pid and the moment it started are not.
type ID struct {
	Name    string `json:"name"`
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // clock ticks since boot: field 22 of /proc/<pid>/stat (proc(5)); 0 = not known
}

// Leftover is a process of the run that still lives.
type Leftover struct {
	Of      string `json:"of"` // the Name of the ID it belongs to
	PID     int    `json:"pid"`
	Command string `json:"command"` // as the kernel shortens it, 15 bytes
}

// Leftovers reports which of the processes named by ids, or of the groups they led, still live. A zombie does not
// count: it has ended.
func Leftovers(ids ...ID) ([]Leftover, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []stat
	leaders := make(map[int]stat)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone) {
			continue // ended while the list was read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, st)
		leaders[pid] = st
	}
	var left []Leftover
	for _, id := range ids {
		if leader, ok := leaders[id.PID]; ok && id.Started != 0 && leader.started != id.Started {
			continue // the pid is a stranger's by now, so the group is too
		}
		for _, st := range all {
			if (st.pid == id.PID || st.pgrp == id.PID) && st.state != 'Z' && st.state != 'X' && st.started >= id.Started {
				left = append(left, Leftover{Of: id.Name, PID: st.pid, Command: st.comm})
			}
		}
	}
	return left, nil
}

// stat is what matters here of /proc/<pid>/stat, proc(5).
type stat struct {
	pid     int
	comm    string
	state   byte
	pgrp    int
	started uint64
}

var errGone = errors.New("process is gone")

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		if len(b) == 0 && !errors.Is(err, fs.ErrNotExist) {
			return stat{}, errGone // ESRCH: it ended between open and read
		}
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat reads one line of /proc/<pid>/stat. The command may hold spaces and brackets, so fields are counted from
// its last bracket.
func parseStat(b []byte) (stat, error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return stat{}, fmt.Errorf("process status %q has no command in brackets", b)
	}
	fields := bytes.Fields(b[shut+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("process status %q has too few fields", b)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	if err != nil {
		return stat{}, fmt.Errorf("process status %q: pid: %w", b, err)
	}
	pgrp, err := strconv.Atoi(string(fields[2]))
	if err != nil {
		return stat{}, fmt.Errorf("process status %q: group: %w", b, err)
	}
	started, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process status %q: start: %w", b, err)
	}
	return stat{pid: pid, comm: string(b[open+1 : shut]), state: fields[0][0], pgrp: pgrp, started: started}, nil
}
