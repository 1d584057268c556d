package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
)

// Found is something that a conductor left over.
type Found struct {
	What    string `json:"what"`            // in words: "network namespace tminus-x"
	Run     string `json:"run,omitempty"`   // of the journal that lists it; "": found by its name
	Removed bool   `json:"removed"`         // it is gone, or back as it was
	Error   string `json:"error,omitempty"` // why it is not
}

// Clean finds and removes what is left of conductors that live no more: what their journals list, and whatever bears
// Prefix, or is a kernel program of ours that nobody holds, and is in no living conductor's journal. What this user may not
// remove is in the list with the reason.
func Clean(ctx context.Context) ([]Found, error) {
	return machine(true).sweep(ctx)
}

// Find is Clean that removes nothing.
func Find(ctx context.Context) ([]Found, error) {
	return machine(false).sweep(ctx)
}

// UnderWay is how many conductors with a journal of their own live on this machine, as far as this user can see: what belongs to them
// is left alone.
func UnderWay() (int, error) { return machine(false).underWay() }

func (s sweep) underWay() (int, error) {
	journals, err := s.list()
	n := 0
	for _, j := range journals {
		if j.lives {
			n++
		}
	}
	return n, err
}

// machine is the whole machine.
func machine(remove bool) sweep {
	return sweep{journals: append(dirs(), others()...), prefix: Prefix, links: true, remove: remove}
}

// sweep is one look for what is left.
type sweep struct {
	journals []string // folders in which journals may lie
	prefix   string   // of names
	links    bool     // look at kernel programs too
	remove   bool
}

// maxJournals bounds how many journals of a folder are looked at.
const maxJournals = 10_000

func (s sweep) sweep(ctx context.Context) ([]Found, error) {
	// Names first: whatever is seen here by name was in its journal before it was made.
	named, err := s.named()
	if err != nil {
		return nil, err
	}
	journals, err := s.list()
	if err != nil {
		return nil, err
	}
	var found []Found
	var owned []Entry
	for _, j := range journals {
		if j.foreign != "" {
			found = append(found, Found{What: "journal " + j.path, Run: j.run, Error: j.foreign})
		}
		if j.lives || j.foreign != "" {
			for _, o := range j.entries {
				owned = append(owned, o.entry)
			}
		}
	}
	for _, j := range journals {
		if !j.lives && j.foreign == "" {
			found = append(found, s.settle(ctx, j)...)
		}
	}
	for _, e := range named {
		if slices.ContainsFunc(owned, func(o Entry) bool { return same(o, e) }) || !there(e) {
			continue
		}
		f := Found{What: e.String()}
		switch user := inUse(e); {
		case user != 0:
			f.Error = fmt.Sprintf("process %d lives in it", user)
		case s.remove:
			if err := Undo(ctx, e); err != nil {
				f.Error = err.Error()
			}
		}
		f.Removed = s.remove && f.Error == ""
		found = append(found, f)
	}
	if s.links {
		links, err := s.programs()
		if err != nil {
			return found, err
		}
		found = append(found, links...)
	}
	return found, nil
}

// same reports whether two entries are about the same thing.
func same(a, b Entry) bool {
	return a.Kind == b.Kind && a.PID == b.PID && a.Start == b.Start && a.Name == b.Name && a.Path == b.Path
}

// candidate is a journal that lies in one of the folders.
type candidate struct {
	path    string
	run     string
	lives   bool   // its conductor does
	foreign string // why it is not for this user, here, to decide about
	entries []open
	torn    error
	boot    bool // of an earlier boot
}

// list reads the journals there are.
func (s sweep) list() ([]candidate, error) {
	var list []candidate
	seen := make(map[string]bool)
	for _, dir := range s.journals {
		names, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
			continue // of another user: what is listed there is his to clean
		}
		if err != nil {
			return nil, fmt.Errorf("look for journals: %w", err)
		}
		for i, n := range names {
			path := filepath.Join(dir, n.Name())
			if _, _, ok := owner(path); !ok || seen[path] || i >= maxJournals {
				continue
			}
			seen[path] = true
			if j, ok := look(path); ok {
				list = append(list, j)
			}
		}
	}
	return list, nil
}

// look reads one journal; false when it has just gone.
func look(path string) (candidate, bool) {
	j := candidate{path: path}
	file, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, false
	}
	if err != nil {
		j.foreign = err.Error()
		return j, true
	}
	defer file.Close()
	var h header
	h, j.entries, j.torn = parse(file)
	if h.PID == 0 {
		// Its first line was not written any more: the name says whose it was.
		h.PID, h.Start, _ = owner(path)
		h.Boot, h.Space = bootID(), pidNamespace()
	}
	j.run = h.Run
	j.boot = h.Boot != bootID()
	switch {
	case !j.boot && h.Space != pidNamespace():
		j.foreign = "it is of another pid namespace: clean up there"
	case !j.boot && lives(h.PID, h.Start):
		j.lives = true
	default:
		if err := private(filepath.Dir(path)); err != nil {
			j.foreign = err.Error()
		} else if err := ownFile(file); err != nil {
			j.foreign = err.Error()
		}
	}
	return j, true
}

func lives(pid int, start uint64) bool {
	_, err := procfs.Find(pid, start)
	return !errors.Is(err, procfs.ErrGone) // what cannot be read is taken to live
}

// openRegular opens a file that is no link, pipe or device: in a folder of another user's it may be anything.
func openRegular(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func ownFile(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, not to this one (%d)", st.Uid, os.Geteuid())
	}
	return nil
}

// settle undoes what a dead conductor's journal lists and removes it.
func (s sweep) settle(ctx context.Context, j candidate) []Found {
	if !s.remove {
		return report(j, nil, false)
	}
	file, err := openRegular(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its watchdog has just been done with it
	}
	if err != nil {
		return []Found{{What: "journal " + j.path, Run: j.run, Error: err.Error()}}
	}
	defer file.Close()
	// Its watchdog may be at work on it: it has Deadline.
	if err := lock(ctx, file, Deadline); err != nil {
		return []Found{{What: "journal " + j.path, Run: j.run, Error: err.Error()}}
	}
	if _, err := os.Lstat(j.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if j.boot { // nothing outlives it, and pids and names are other people's
		j.entries = nil
	}
	list := report(j, nil, true)
	if failed := undoAll(ctx, j.entries); failed != nil {
		return report(j, failed, true)
	}
	if err := removeJournal(j.path); err != nil {
		list = append(list, Found{What: "journal " + j.path, Run: j.run, Error: err.Error()})
	}
	return list
}

// report says what of a journal's entries is, or was, really there.
func report(j candidate, failed map[Token]error, removed bool) []Found {
	what := "journal " + j.path
	if j.torn != nil {
		what += " (" + j.torn.Error() + ")"
	}
	var list []Found
	for _, o := range j.entries {
		f := Found{What: o.entry.String(), Run: j.run, Removed: removed}
		if err := failed[o.token]; err != nil {
			f.Removed, f.Error = false, err.Error()
		} else if failed == nil && !there(o.entry) {
			continue
		}
		list = append(list, f)
	}
	return append(list, Found{What: what, Run: j.run, Removed: removed && failed == nil})
}

// lock waits for the lock of a journal.
func lock(ctx context.Context, f *os.File, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock it: %w", err)
		}
		select {
		case <-ctx.Done():
			return errors.New("its watchdog is at work on it still")
		case <-ticker.C:
		}
	}
}

// there reports whether an entry's change is still in effect.
func there(e Entry) bool {
	switch e.Kind {
	case Continue:
		p, err := procfs.Find(e.PID, e.Start)
		return err == nil && p.State == procfs.Stopped
	case Namespace:
		return exists(filepath.Join(NamespaceDir, e.Name))
	case Interface:
		list, err := net.Interfaces()
		return err == nil && slices.ContainsFunc(list, func(i net.Interface) bool { return i.Name == e.Name })
	case Setting:
		b, err := os.ReadFile(e.Path)
		return err == nil && strings.TrimSpace(string(b)) != strings.TrimSpace(e.Value)
	}
	return exists(e.Path)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// named lists the namespaces, interfaces and cgroups that bear the prefix.
func (s sweep) named() ([]Entry, error) {
	var list []Entry
	add := func(e Entry) {
		if e.Validate() == nil {
			list = append(list, e)
		}
	}
	names, err := os.ReadDir(NamespaceDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for namespaces: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), s.prefix) {
			add(Entry{Kind: Namespace, Name: n.Name()})
		}
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("look for interfaces: %w", err)
	}
	for _, i := range ifaces {
		if strings.HasPrefix(i.Name, s.prefix) {
			add(Entry{Kind: Interface, Name: i.Name})
		}
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		for _, dir := range cgroupsBelow(m, s.prefix) {
			add(Entry{Kind: Cgroup, Path: dir, Home: filepath.Dir(dir)})
		}
	}
	return list, nil
}

// cgroupMounts lists where control groups of either version are mounted.
func cgroupMounts() ([]string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	var list []string
	for l := range strings.Lines(string(b)) {
		if fields := strings.Fields(l); len(fields) >= 3 && (fields[2] == "cgroup" || fields[2] == "cgroup2") {
			list = append(list, fields[1])
		}
	}
	return list, nil
}

// maxCgroups bounds how many cgroups of one mount are looked at.
const maxCgroups = 100_000

func cgroupsBelow(root, prefix string) []string {
	var list []string
	n := 0
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || n >= maxCgroups:
			return fs.SkipDir // it may have gone, or be closed to this user
		case !d.IsDir():
			return nil
		}
		n++
		if p != root && strings.HasPrefix(d.Name(), prefix) {
			list = append(list, p)
			return fs.SkipDir
		}
		return nil
	})
	return list
}

// inUse finds a living process in a network namespace; 0: none, or something else.
func inUse(e Entry) int {
	if e.Kind != Namespace {
		return 0
	}
	var ns unix.Stat_t
	if unix.Stat(filepath.Join(NamespaceDir, e.Name), &ns) != nil {
		return 0
	}
	all, err := procfs.List()
	if err != nil {
		return 0
	}
	for _, p := range all {
		var own unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", p.PID), &own) == nil && own.Dev == ns.Dev && own.Ino == ns.Ino {
			return p.PID
		}
	}
	return 0
}
