package safety

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/scenarios/process"
)

// What the program starts is the program: this binary is never to be one of its children, and starts nothing if it is.
func TestMain(m *testing.M) {
	if process.IsChild() || watchdog.IsChild() || netns.IsChild() {
		os.Exit(2)
	}
	if os.Getenv(envService) != "" {
		os.Exit(serve())
	}
	status := m.Run()
	if built != "" {
		os.RemoveAll(filepath.Dir(built))
	}
	os.Exit(status)
}

const envProgram = "SAFETY_PROGRAM" // the built program, for a test on a machine of its own

var built string

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(envProgram); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "tminus-safety-")
	if err != nil {
		return "", err
	}
	built = filepath.Join(dir, "tminus")
	if out, err := exec.Command("go", "build", "-o", built, "../../../cmd/tminus").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	// Other users run it too.
	return built, os.Chmod(dir, 0o755)
})

// program is the path of the built program.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: this takes minutes; run without -short")
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// user is whom a command runs as.
type user struct{ uid, gid uint32 }

var (
	self   = user{uint32(os.Geteuid()), uint32(os.Getegid())}
	nobody = user{65534, 65534}
)

// outcome is a finished command.
type outcome struct {
	status         int
	stdout, stderr string
}

// run runs the program to its end.
func run(t *testing.T, as user, dir string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	cmd.Dir = dir
	cmd.SysProcAttr = as.attributes()
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "TMPDIR="+dir, "XDG_RUNTIME_DIR=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// folder is one that a user may write to.
func folder(t *testing.T, of user) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tminus-safety-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if of != self {
		err = os.Chown(dir, int(of.uid), int(of.gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// copied is this test's binary where a user may run it.
func copied(t *testing.T, of user) string {
	t.Helper()
	if of == self {
		return os.Args[0]
	}
	path := filepath.Join(folder(t, of), "service")
	// A process that is forked while the file is open for writing holds it open until it runs something else, and what is
	// open for writing cannot be run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	text, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(path, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
