package watchdog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
)

// again is the time between two tries at what cannot be undone at once: a cgroup is busy while a process in it ends.
const again = 10 * time.Millisecond

// Undo puts one change back and returns when it is, or when ctx ends, after Deadline at the latest. What is already
// undone, or was never done, is no error.
func Undo(ctx context.Context, e Entry) error {
	if err := e.Validate(); err != nil {
		return err
	}
	for _, err := range undoAll(ctx, []open{{1, e}}) {
		return err
	}
	return nil
}

// undoAll undoes entries, newest first, and tries again those that could not be undone until ctx ends or Deadline is
// over. The errors are those of what is left, by token; a nil map says that everything is undone.
func undoAll(ctx context.Context, entries []open) map[Token]error {
	ctx, cancel := context.WithTimeout(ctx, Deadline-500*time.Millisecond) // the rest is for the process's start and end
	defer cancel()
	for {
		var failed map[Token]error
		for i := len(entries) - 1; i >= 0; i-- {
			if err := undo(entries[i].entry); err != nil {
				if failed == nil {
					failed = make(map[Token]error)
				}
				failed[entries[i].token] = fmt.Errorf("undo %s: %w", entries[i].entry, err)
			}
		}
		if failed == nil {
			return nil
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return failed
		case <-timer.C:
		}
		var left []open
		for _, o := range entries {
			if failed[o.token] != nil {
				left = append(left, o)
			}
		}
		entries = left
	}
}

// undo tries once, without waiting.
func undo(e Entry) error {
	switch e.Kind {
	case Continue:
		return undoStop(e)
	case Namespace:
		return removeNamespace(filepath.Join(NamespaceDir, e.Name))
	case Interface:
		return removeInterface(e.Name)
	case Cgroup:
		return removeCgroup(e.Path, e.Home)
	case Setting:
		return procfs.Write(e.Path, e.Value)
	}
	return fmt.Errorf("there is no kind %q of entry", e.Kind)
}

func undoStop(e Entry) error {
	err := procfs.Signal(e.PID, e.Start, unix.SIGCONT)
	if errors.Is(err, procfs.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	if p, err := procfs.Find(e.PID, e.Start); err == nil && p.State == procfs.Stopped {
		return errors.New("it is stopped still")
	}
	return nil
}

func removeNamespace(path string) error {
	// EINVAL: nothing is mounted there.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount it: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeInterface deletes a network interface by RTM_DELLINK (rtnetlink(7)).
func removeInterface(name string) error {
	ifaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	i := slices.IndexFunc(ifaces, func(i net.Interface) bool { return i.Name == name })
	if i < 0 {
		return nil
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(s)
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	order := binary.NativeEndian
	order.PutUint32(request[0:], uint32(len(request)))
	order.PutUint16(request[4:], unix.RTM_DELLINK)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	order.PutUint32(request[unix.SizeofNlMsghdr+4:], uint32(ifaces[i].Index)) // ifi_index
	if err := unix.Sendto(s, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask for it: %w", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return fmt.Errorf("hear the answer: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || order.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer makes no sense")
	}
	if code := -int32(order.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 && unix.Errno(code) != unix.ENODEV {
		return unix.Errno(code)
	}
	return nil
}

// lifted are a cgroup's files that hold its processes back, and what each says when it does not: a process that waits for
// memory, or is frozen, cannot be moved or does not wake up.
var lifted = []struct{ file, value string }{
	{"cgroup.freeze", "0"}, {"cpu.max", "max"}, {"memory.max", "max"}, {"memory.high", "max"}, // version 2
	{"freezer.state", "THAWED"}, {"cpu.cfs_quota_us", "-1"}, {"memory.limit_in_bytes", "-1"}, // version 1
}

// removeCgroup moves the processes of a cgroup, and of those in it, to another and removes it. Where home is gone, its
// parent takes them.
func removeCgroup(dir, home string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return fmt.Errorf("%s is no cgroup: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(home, "cgroup.procs")); err != nil {
		home = filepath.Dir(dir)
	}
	for _, l := range lifted {
		if err := procfs.Write(filepath.Join(dir, l.file), l.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name()), home); err != nil {
				return err
			}
		}
	}
	if err := moveAll(dir, home); err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}

func moveAll(from, to string) error {
	b, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(pid); err != nil || n == 0 {
			return fmt.Errorf("process %s of it is not in this pid namespace", pid)
		}
		if err := procfs.Write(filepath.Join(to, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %s to %s: %w", pid, to, err)
		}
	}
	return nil
}
