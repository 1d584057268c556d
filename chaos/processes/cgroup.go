package processes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

// hierarchy is a mounted tree of control groups.
type hierarchy struct {
	version     int // 1 or 2
	mount       string
	root        string   // what of the tree is mounted there
	controllers []string // of version 1
}

// parseMounts reads /proc/<pid>/mountinfo (proc(5)).
func parseMounts(text string) []hierarchy {
	var list []hierarchy
	for l := range strings.Lines(text) {
		// 36 35 98:0 /root /mount rw,noatime shared:1 - type source options
		left, right, ok := strings.Cut(l, " - ")
		before, after := strings.Fields(left), strings.Fields(right)
		if !ok || len(before) < 5 || len(after) < 3 {
			continue
		}
		h := hierarchy{mount: unescape(before[4]), root: unescape(before[3])}
		switch after[0] {
		case "cgroup2":
			h.version = 2
		case "cgroup":
			h.version, h.controllers = 1, strings.Split(after[2], ",")
		default:
			continue
		}
		list = append(list, h)
	}
	return list
}

// unescape undoes the octal escapes of mountinfo: a space is \040.
func unescape(s string) string {
	for _, c := range []string{" ", "\t", "\n", `\`} {
		s = strings.ReplaceAll(s, fmt.Sprintf(`\%03o`, c[0]), c)
	}
	return s
}

// parseGroups reads /proc/<pid>/cgroup (cgroups(7)): controller → path; "" is version 2.
func parseGroups(text string) map[string]string {
	groups := make(map[string]string)
	for l := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(l, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			groups[c] = fields[2]
		}
	}
	return groups
}

// dir finds a group's folder; "" when it is not below what is mounted.
func (h hierarchy) dir(group string) string {
	if !strings.HasPrefix(group, "/") || slices.Contains(strings.Split(group, "/"), "..") {
		return ""
	}
	if h.root == "/" {
		return filepath.Join(h.mount, group)
	}
	rest, ok := strings.CutPrefix(group, h.root)
	if !ok || rest != "" && rest[0] != '/' {
		return ""
	}
	return filepath.Join(h.mount, rest)
}

// site is where a group with a controller can be made for a process.
type site struct {
	version int
	home    string // the process's own group
	parent  string // where the new one is made
	enable  string // file that has to be told to pass the controller on; "": it does
}

// reader reads a file of the kernel's.
type reader func(path string) (string, error)

// locate finds where a group with this controller can be made. The error says what is lacking.
func locate(controller string, mounts []hierarchy, groups map[string]string, read reader) (site, error) {
	has := func(path string) bool {
		text, err := read(path)
		return err == nil && slices.Contains(strings.Fields(text), controller)
	}
	lacking := "no control groups are mounted"
	for _, h := range mounts {
		group, ok := groups[""]
		if h.version != 2 || !ok {
			continue
		}
		home := h.dir(group)
		switch {
		case home == "":
			lacking = "its control group is not mounted here"
		case !has(filepath.Join(home, "cgroup.controllers")):
			lacking = fmt.Sprintf("control groups of version 2 have no controller %q here", controller)
		case home == filepath.Clean(h.mount):
			// Only the root of all is without a type, and may hold processes beside other groups.
			if _, err := read(filepath.Join(home, "cgroup.type")); err == nil {
				lacking = "its control group is the root of its namespace: there is no place beside it"
				continue
			}
			s := site{version: 2, home: home, parent: home}
			if !has(filepath.Join(home, "cgroup.subtree_control")) {
				s.enable = filepath.Join(home, "cgroup.subtree_control")
			}
			return s, nil
		default:
			return site{version: 2, home: home, parent: filepath.Dir(home)}, nil
		}
	}
	for _, h := range mounts {
		group, ok := groups[controller]
		if h.version != 1 || !ok || !slices.Contains(h.controllers, controller) {
			continue
		}
		if home := h.dir(group); home != "" {
			return site{version: 1, home: home, parent: home}, nil
		}
		lacking = "its control group is not mounted here"
	}
	return site{}, errors.New(lacking)
}

// siteOf finds where a group with this controller can be made for a process.
func siteOf(controller string, pid int) (site, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return site{}, err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return site{}, err
	}
	s, err := locate(controller, parseMounts(string(mounts)), parseGroups(string(groups)), readText)
	if err != nil {
		return site{}, err
	}
	for _, p := range []string{s.parent, filepath.Join(s.home, "cgroup.procs")} {
		if err := unix.Access(p, unix.W_OK); err != nil {
			return site{}, fmt.Errorf("this user may not write to %s", p)
		}
	}
	return s, nil
}

func readText(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

// setting is a file of a group and what is written to it.
type setting struct{ file, value string }

// group is a control group made for one fault.
type group struct {
	site  site
	path  string
	holds []hold
}

// made numbers the groups that this process has made.
var made atomic.Uint64

// make makes a group and sets its limits. After an error it may be there in part; remove takes it away.
func (g *group) make(guard watchdog.Guard, s site, controller, run string, limits []setting) error {
	g.site = s
	g.path = filepath.Join(s.parent, fmt.Sprintf("%s%s-%d-%d", watchdog.Prefix, word(run), os.Getpid(), made.Add(1)))
	if s.enable != "" {
		if err := g.protect(guard, watchdog.Entry{Kind: watchdog.Setting, Path: s.enable, Value: "-" + controller}); err != nil {
			return err
		}
		if err := procfs.Write(s.enable, "+"+controller); err != nil {
			return fmt.Errorf("have %s pass on the controller %s: %w", s.parent, controller, err)
		}
	}
	if err := g.protect(guard, watchdog.Entry{Kind: watchdog.Cgroup, Path: g.path, Home: s.home}); err != nil {
		return err
	}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return fmt.Errorf("make a control group: %w", err)
	}
	for _, l := range limits {
		if err := procfs.Write(filepath.Join(g.path, l.file), l.value); err != nil {
			return fmt.Errorf("set %s of control group %s to %s: %w", l.file, g.path, l.value, err)
		}
	}
	return nil
}

func (g *group) protect(guard watchdog.Guard, e watchdog.Entry) error {
	token, err := guard.Protect(e)
	if err != nil {
		return err
	}
	g.holds = append(g.holds, hold{e, token})
	return nil
}

// move moves a target's processes into the group; what they make is born there.
func (g *group) move(controller string, t Target) error {
	moved := make(map[Ref]bool)
	for range maxRounds {
		family, err := t.family()
		if err != nil {
			return err
		}
		added := false
		for _, p := range family {
			ref := Ref{p.PID, p.Start}
			if moved[ref] {
				continue
			}
			moved[ref], added = true, true
			s, err := siteOf(controller, p.PID)
			switch {
			case errors.Is(err, fs.ErrNotExist) || !ref.Alive():
				continue
			case err != nil:
				return err
			case s.home == g.path:
				continue
			case s.home != g.site.home:
				// The watchdog would have to know the way back of each.
				return fmt.Errorf("%w: processes of %s are in different control groups (%s and %s)", evidence.ErrUnsupported, t.Name, g.site.home, s.home)
			}
			err = procfs.Write(filepath.Join(g.path, "cgroup.procs"), strconv.Itoa(p.PID))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("move process %d into control group %s: %w", p.PID, g.path, err)
			}
		}
		if !added {
			return nil
		}
	}
	return fmt.Errorf("%s makes processes faster than they can be moved", t.Name)
}

// remove moves the processes back and removes the group.
func (g *group) remove(ctx context.Context, guard watchdog.Guard) error {
	return release(ctx, guard, &g.holds)
}

// word keeps of a run's id what may stand in a file's name.
func word(run string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, run)
	if s == "" {
		return "run"
	}
	return s[:min(len(s), 64)]
}

// try makes an empty group with these limits and removes it: the smallest harmless version of a fault that needs one.
func try(guard watchdog.Guard, controller string, limits func(site) []setting) error {
	s, err := siteOf(controller, os.Getpid())
	if err != nil {
		return err
	}
	if guard == nil {
		guard = unguarded{}
	}
	var g group
	err = g.make(guard, s, controller, "able", limits(s))
	return errors.Join(err, g.remove(context.Background(), guard))
}

// unguarded is for a group that is empty and there for a moment only: Clean would find it by its name.
type unguarded struct{}

func (unguarded) Protect(e watchdog.Entry) (watchdog.Token, error) { return 0, e.Validate() }
func (unguarded) Release(watchdog.Token) error                     { return nil }
