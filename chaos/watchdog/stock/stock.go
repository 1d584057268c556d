package stock

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

//go:embed nothing-left.sh
var script string

// ErrLeft: the machine is not as it was; the error lists what is left (+) and what is missing (-).
var ErrLeft = errors.New("something is left over")

// Stock is what there was on the machine.
type Stock struct {
	before string
	env    []string
}

// Config says what counts.
type Config struct {
	Dirs   []string // whose files count; nil = the script's own choice
	Ignore string   // lines of the script that match this extended regular expression count for nothing
}

// Take takes stock. dir is for its own two files and must not be among those whose files count.
func Take(dir string, cfg Config) (*Stock, error) {
	path := filepath.Join(dir, "nothing-left.sh")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return nil, err
	}
	s := &Stock{before: filepath.Join(dir, "before"), env: append(os.Environ(), "NOTHING_LEFT_IGNORE="+cfg.Ignore)}
	if cfg.Dirs != nil {
		s.env = append(s.env, "NOTHING_LEFT_DIRS="+strings.Join(cfg.Dirs, " "))
	}
	cmd := exec.Command("sh", path, "take")
	cmd.Env = s.env
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("take stock: %w", err)
	}
	return s, os.WriteFile(s.before, out, 0o600)
}

// Compare takes stock again until it agrees, for so long at most, in whole seconds. The error wraps ErrLeft.
func (s *Stock) Compare(wait time.Duration) error {
	cmd := exec.Command("sh", filepath.Join(filepath.Dir(s.before), "nothing-left.sh"), "compare", s.before, strconv.Itoa(int(wait.Seconds())))
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %w\n%s", ErrLeft, err, out)
	}
	return nil
}

const envInside = "STOCK_INSIDE"

// Inside reports whether this process is on the machine of its own that Isolated makes.
func Inside() bool { return os.Getenv(envInside) != "" }

// Isolated runs the test that calls it once more, by itself, on a machine of its own as far as that goes: in namespaces of
// processes, interfaces and mounts, in control groups of its own, with an empty /run (mode 0755, with netns in it), which is
// for temporary files too. There a script may insist on everything. It takes root; it skips the test where there is none, or no
// unshare(1). The caller returns when Isolated has, and does its work when Inside, where env ("KEY=value") is added to the
// environment. Tests may be isolated at the same time.
func Isolated(t *testing.T, env ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces take root")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("there is no unshare(1)")
	}
	groups := ownGroups(t)
	var enter, bind strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&enter, "echo $$ > '%s/cgroup.procs' && ", g.dir)
		// In its place, not over it: who looks for a group takes the first mount of its tree.
		fmt.Fprintf(&bind, "mount --bind '%s' /run/group && umount '%s' && mount --move /run/group '%s' && ", g.dir, g.mount, g.mount)
	}
	// The shell reaps what is left to process 1, as any machine's first process does.
	// What somebody else mounts below /run, and takes away meanwhile, would be missing here too.
	inside := `for m in $(awk '$2 ~ "^/run/" { print $2 }' /proc/self/mounts | sort -r); do umount -l "$m"; done; mount -t tmpfs -o mode=755 none /run && mkdir /run/netns /run/group && ` + bind.String() + `rmdir /run/group && mount -t tmpfs none /dev/shm && ip link set lo up && { "$0" "$@" & wait $!; }`
	args := []string{"-c", enter.String() + `exec unshare --net --ipc --pid --fork --mount --mount-proc --kill-child sh -c "$0" "$@"`, inside, os.Args[0],
		"-test.run", chosen(t.Name(), flag.Lookup("test.run").Value.String()), "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), "sh", args...)
	cmd.Env = append(append(os.Environ(), envInside+"=yes", "TMPDIR=/run"), env...)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("on a machine of its own: %v", err)
	}
}

// chosen is the -run pattern of a test by its name and of those of its subtests that the pattern of this process asks for, where that
// is a plain path.
func chosen(name, pattern string) string {
	out := "^" + strings.ReplaceAll(regexp.QuoteMeta(name), "/", "$/^") + "$"
	if below := strings.SplitAfterN(pattern, "/", strings.Count(name, "/")+2); len(below) > strings.Count(name, "/")+1 && !strings.ContainsAny(pattern, "|[(") {
		out += "/" + below[len(below)-1]
	}
	return out
}

// group is a control group of one isolated test's, seen there as the root of its tree.
type group struct{ dir, mount string }

// groupsMade numbers the isolated tests of this process.
var groupsMade atomic.Uint64

// ownGroups makes a control group for the test below this process's own in each tree that lets it, and removes them when the
// test ends: that fails while anything is left in one.
func ownGroups(t *testing.T) (groups []group) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{} // this process's group by controller; "": version 2
	for l := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			at[c] = fields[2]
		}
	}
	name := fmt.Sprintf("stock-%d-%d", os.Getpid(), groupsMade.Add(1))
	for l := range strings.Lines(string(mounts)) {
		fields := strings.Fields(l)
		if len(fields) < 4 || fields[2] != "cgroup" && fields[2] != "cgroup2" {
			continue
		}
		own, ok := at[""], fields[2] == "cgroup2"
		for option := range strings.SplitSeq(fields[3], ",") {
			if path, is := at[option]; is && option != "" {
				own, ok = path, true
			}
		}
		// Processors have to be given to a group before it may have a process: what nobody limits is not asked for.
		if dir := filepath.Join(fields[1], own, name); ok && !strings.Contains(fields[3], "cpuset") && os.Mkdir(dir, 0o755) == nil {
			groups = append(groups, group{dir, fields[1]})
		}
	}
	t.Cleanup(func() {
		for _, g := range groups {
			err := os.Remove(g.dir)
			// The last of its processes may be on its way out.
			for end := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(end); err = os.Remove(g.dir) {
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Errorf("something is left in a control group: %v", err)
			}
		}
	})
	return groups
}
