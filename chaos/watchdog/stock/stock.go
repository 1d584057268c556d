package stock

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
// processes, interfaces and mounts, with an empty /run (mode 0755, with netns in it). There a script may insist on everything.
// It takes root; it skips the test where there is none, or no unshare(1). The caller returns when Isolated has, and does
// its work when Inside.
func Isolated(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces take root")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("there is no unshare(1)")
	}
	// The shell reaps what is left to process 1, as any machine's first process does.
	args := []string{"--net", "--ipc", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "sh", "-c",
		`mount -t tmpfs -o mode=755 none /run && mkdir /run/netns && ip link set lo up && { "$0" "$@" & wait $!; }`, os.Args[0],
		"-test.run", "^" + t.Name() + "$", "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), envInside+"=yes", "TMPDIR=/run")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("on a machine of its own: %v", err)
	}
}
