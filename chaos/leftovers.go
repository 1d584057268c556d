package chaos

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tminus-live/tminus/chaos/kernel"
)

// Leftover is a program of this tool that is still attached in the kernel.
type Leftover struct {
	Link    uint32 `json:"link"` // bpf link id
	Program string `json:"program"`
}

// Leftovers lists the bpf links in the kernel that hold a program of this tool: those with the given ids, or, with
// none given, all of them, whichever run they belong to. It needs CAP_SYS_ADMIN; without it the error wraps
// os.ErrPermission.
func Leftovers(links ...uint32) ([]Leftover, error) {
	all, err := kernel.Links()
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("listing bpf links needs CAP_SYS_ADMIN (run as root): %w", os.ErrPermission)
	}
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if len(links) == 0 || slices.Contains(links, id) {
			left = append(left, Leftover{Link: id, Program: all[id]})
		}
	}
	return left, nil
}

// Check is a yes-or-no fact about the rehearsal itself. Its fields are those of a report's check.
type Check struct {
	Name   string
	Pass   bool
	Detail string // one sentence
}

// Safety says whether everything that was broken has been put back: what the injectors say, and what the kernel says.
func Safety(results []Result) []Check {
	injected := 0
	for _, r := range results {
		if r.ForS > 0 || !r.Restored {
			injected++
		}
	}
	undone := Check{Name: "faults undone", Pass: true, Detail: fmt.Sprintf("%d of %d", injected, injected)}
	if injected == 0 {
		undone.Detail = "nothing to undo: no fault was injected"
	}
	var links []uint32
	var bad []string
	for _, r := range results {
		links = append(links, r.Links...)
		if !r.Restored {
			bad = append(bad, fmt.Sprintf("%s (%s of %s): %v", r.Fault.ID, r.Fault.Model, r.Fault.Where, r.Err))
		}
	}
	if len(bad) > 0 {
		undone.Pass, undone.Detail = false, "still in effect: "+strings.Join(bad, "; ")
	}
	kernel := Check{Name: "no kernel program left", Pass: true, Detail: "no fault put one there"}
	if len(links) > 0 {
		left, err := Leftovers(links...)
		switch {
		case err != nil:
			kernel.Pass, kernel.Detail = false, err.Error()
		case len(left) > 0:
			kernel.Pass, kernel.Detail = false, fmt.Sprintf("bpf link %d (%s) is still attached", left[0].Link, left[0].Program)
		default:
			kernel.Detail = fmt.Sprintf("attached during the run: %d; left: none", len(links))
		}
	}
	return []Check{undone, kernel}
}
