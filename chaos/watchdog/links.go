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

	"github.com/tminus-live/tminus/chaos/kernel"
)

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
	links, err := kernel.Links()
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, ebpf.ErrNotSupported):
		return nil, nil // it takes as much to make one
	case err != nil || len(links) == 0:
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

// heldLinks are the bpf links that a process has a file descriptor of (proc(5), fdinfo).
func heldLinks() (map[uint32]bool, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	if err != nil {
		return nil, err
	}
	held := make(map[uint32]bool)
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
				held[id] = true
			}
		}
	}
	return held, nil
}

func detach(id uint32) error {
	l, err := link.NewFromID(link.ID(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	defer l.Close()
	return l.Detach()
}
