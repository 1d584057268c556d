package watchdog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// programPrefix begins the name of every kernel program that is loaded for an experiment.
const programPrefix = "tminus_"

// firstPIDNamespace is the inode of the machine's own pid namespace (linux/proc_ns.h, PROC_PID_INIT_INO): from there
// every process can be seen.
const firstPIDNamespace = 0xEFFFFFFC

// programs finds, and detaches, the kernel programs of ours that no process holds. Ours are held by file descriptors, so
// that one is left over only if somebody pinned it.
func (s sweep) programs() ([]Found, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &ns); err != nil || ns.Ino != firstPIDNamespace {
		return nil, nil // a holder may be where it cannot be seen
	}
	links, err := ours()
	if err != nil || len(links) == 0 {
		return nil, err
	}
	held, err := heldLinks()
	if err != nil {
		return nil, err
	}
	var list []Found
	for id, name := range links {
		if held[id] {
			continue
		}
		f := Found{What: fmt.Sprintf("kernel program %s (bpf link %d)", name, id)}
		if s.remove {
			if err := detach(id); err != nil {
				f.Error = err.Error()
			}
			f.Removed = f.Error == ""
		}
		list = append(list, f)
	}
	return list, nil
}

// ours lists the bpf links that hold a program of ours. A user who may not look has none: it takes as much to make one.
func ours() (map[link.ID]string, error) {
	found := make(map[link.ID]string)
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue // it went while the list was read
		}
		program, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			continue
		}
		about, err := program.Info()
		program.Close()
		if err == nil && strings.HasPrefix(about.Name, programPrefix) {
			found[it.ID] = about.Name
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, os.ErrPermission) && !errors.Is(err, ebpf.ErrNotSupported) {
		return nil, fmt.Errorf("look for kernel programs: %w", err)
	}
	return found, nil
}

// heldLinks are the bpf links that a process has a file descriptor of (proc(5), fdinfo).
func heldLinks() (map[link.ID]bool, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return nil, err
	}
	held := make(map[link.ID]bool)
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			continue // closed meanwhile
		}
		b, _ := io.ReadAll(io.LimitReader(f, 64<<10))
		f.Close()
		for l := range strings.Lines(string(b)) {
			var id uint32
			if n, _ := fmt.Sscanf(l, "link_id: %d", &id); n == 1 {
				held[link.ID(id)] = true
			}
		}
	}
	return held, nil
}

func detach(id link.ID) error {
	l, err := link.NewFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	defer l.Close()
	return l.Detach()
}
