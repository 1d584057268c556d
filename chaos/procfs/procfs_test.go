package procfs

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("PROCFS_TEST_SLEEP") != "" {
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sleeper(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PROCFS_TEST_SLEEP=yes")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestReadsItself(t *testing.T) {
	p, err := Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != os.Getpid() || p.Parent != os.Getppid() || !p.Lives() || p.Start == 0 || p.Kernel {
		t.Errorf("%+v", p)
	}
	if _, err := Find(p.PID, p.Start); err != nil {
		t.Error(err)
	}
	if _, err := Find(p.PID, p.Start+1); !errors.Is(err, ErrGone) {
		t.Errorf("another incarnation: %v", err)
	}
}

func TestSignalsReachTheirProcessAndNobodyElse(t *testing.T) {
	cmd, p := sleeper(t)
	if err := Signal(p.PID, p.Start+1, unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Fatalf("a stranger with this pid was signalled: %v", err)
	}
	if err := Signal(p.PID, p.Start, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := Signal(p.PID, p.Start, unix.SIGKILL); !errors.Is(err, ErrGone) {
		t.Fatalf("the dead were signalled: %v", err)
	}
	if _, err := CPU(p.PID); !errors.Is(err, ErrGone) {
		t.Fatalf("the clock of the dead: %v", err)
	}
}

func TestDescendants(t *testing.T) {
	all := []Process{
		{PID: 30, Parent: 20, State: 'S'}, {PID: 20, Parent: 10, State: 'S'}, {PID: 10, Parent: 1, State: 'S'},
		{PID: 21, Parent: 10, State: Zombie}, {PID: 40, Parent: 1, State: 'S'}, {PID: 31, Parent: 20, State: 'T'},
	}
	var pids []int
	for _, p := range Descendants(all, 10) {
		pids = append(pids, p.PID)
	}
	if !slices.Equal(pids, []int{20, 30, 31}) {
		t.Errorf("%v", pids)
	}
	_, child := sleeper(t)
	now, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(Descendants(now, os.Getpid()), func(p Process) bool { return p.PID == child.PID }) {
		t.Error("this process's child is not among its descendants")
	}
}

func TestCPU(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		after, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before+time.Millisecond {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of processor time before, %s after", before, after)
		}
	}
}

func TestParse(t *testing.T) {
	p, err := Parse([]byte("42 (a (b) c) T 7 41 42 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1234 0 0"))
	want := Process{PID: 42, Parent: 7, Group: 41, Command: "a (b) c", State: Stopped, Start: 1234, CPU: 2 * time.Second}
	if err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "42", "42 (x", "42 (x) S 1 2", "x (x) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0"} {
		if p, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("42 (a (b) c) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0"))
	f.Add([]byte("1 () Z"))
	f.Fuzz(func(t *testing.T, b []byte) { Parse(b) })
}
