package watchdog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog/stock"
)

// role makes this test binary something else than a test.
const role = "WATCHDOG_TEST_ROLE"

// patience bounds waits for what happens at once on an idle machine.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(Serve())
	}
	switch os.Getenv(role) {
	case "":
		// The race detector otherwise has every watchdog wait for a second before it ends.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		os.Exit(m.Run())
	case "victim":
		select {}
	case "conductor":
		conduct()
	}
}

// as starts this test binary in a role.
func as(t *testing.T, r string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), role+"="+r), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// victim is a process that can be stopped and moved about; it outlives the conductor.
func victim(t *testing.T) procfs.Process {
	t.Helper()
	cmd := as(t, "victim")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p, err := procfs.Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func begin(t *testing.T) *Watchdog {
	t.Helper()
	w, err := Start(t.Context(), Config{Run: "r1", Dir: filepath.Join(t.TempDir(), "journals"), Args: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func state(p procfs.Process) byte {
	now, err := procfs.Find(p.PID, p.Start)
	if err != nil {
		return procfs.Dead
	}
	return now.State
}

func stop(t *testing.T, p procfs.Process) {
	t.Helper()
	if err := procfs.Signal(p.PID, p.Start, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is stopped", func() bool { return state(p) == procfs.Stopped })
}

func TestWhatIsReleasedIsLeftAlone(t *testing.T) {
	w := begin(t)
	kept, back := victim(t), victim(t)
	for _, p := range []procfs.Process{kept, back} {
		token, err := w.Protect(stopOne(p))
		if err != nil {
			t.Fatal(err)
		}
		stop(t, p)
		if p == kept {
			for range 2 {
				if err := w.Release(token); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if p := w.Protected(); len(p) != 1 || p[0].PID != back.PID {
		t.Errorf("protected %v", p)
	}
	dir := filepath.Dir(w.journal.path)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if state(kept) != procfs.Stopped || state(back) == procfs.Stopped {
		t.Errorf("kept %c, back %c", state(kept), state(back))
	}
	if exists(dir) {
		t.Error("the journal's folder is left")
	}
	select {
	case <-w.Lost():
		t.Error("an end that was asked for is no loss")
	default:
	}
}

func TestALostWatchdogIsNoticedAndProtectRefuses(t *testing.T) {
	w := begin(t)
	p := victim(t)
	if _, err := w.Protect(Entry{Kind: Continue, PID: p.PID, Start: p.Start}); err != nil {
		t.Fatal(err)
	}
	stop(t, p)
	if err := unix.Kill(w.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Lost():
	case <-time.After(patience):
		t.Fatal("not noticed")
	}
	if _, err := w.Protect(Entry{Kind: Continue, PID: p.PID, Start: p.Start}); !errors.Is(err, ErrLost) {
		t.Errorf("err %v", err)
	}
	// The conductor can still put everything back itself.
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if state(p) == procfs.Stopped {
		t.Error("it is stopped still")
	}
}

func TestAWatchdogIsNotEndedByWhatEndsItsConductor(t *testing.T) {
	w := begin(t)
	if sid, err := unix.Getsid(w.PID()); err != nil || sid != w.PID() {
		t.Errorf("session %d, %v: not its own", sid, err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGTSTP} {
		if err := unix.Kill(w.PID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Protect(Entry{Kind: Continue, PID: 1 << 30, Start: 1}); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"a folder that others can look into", Config{Dir: open, Args: []string{}}, "is open to others"},
		{"a folder that cannot be made", Config{Dir: "/proc/nowhere", Args: []string{}}, "no place for a journal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if w, err := Start(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v", w, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Dir: filepath.Join(t.TempDir(), "j"), Args: []string{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestUndoOfWhatIsNotThere(t *testing.T) {
	for _, e := range []Entry{
		{Kind: Continue, PID: 1 << 30, Start: 1},
		{Kind: Continue, PID: os.Getpid(), Start: 1}, // this pid had another process once
		{Kind: Namespace, Name: "tminus-test-nowhere"},
		{Kind: Interface, Name: "tminus-nowhere"},
		{Kind: Cgroup, Path: "/sys/fs/cgroup/cpu/tminus-nowhere", Home: "/sys/fs/cgroup/cpu"},
	} {
		if err := Undo(t.Context(), e); err != nil {
			t.Errorf("%s: %v", e, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		entry Entry
		want  string // "": nothing is wrong
	}{
		{Entry{Kind: Continue, PID: 42, Start: 7}, ""},
		{Entry{Kind: Continue, PID: 42}, "not named for good"},
		{Entry{Kind: Continue, PID: 1, Start: 7}, "not named for good"},
		{Entry{Kind: Namespace, Name: "tminus-a"}, ""},
		{Entry{Kind: Namespace, Name: "blue"}, "does not begin with tminus-"},
		{Entry{Kind: Namespace, Name: "tminus-/../../etc"}, "does not begin"},
		{Entry{Kind: Interface, Name: "eth0"}, "does not begin"},
		{Entry{Kind: Interface, Name: "tminus-0123456789"}, "at most 15 bytes"},
		{Entry{Kind: Cgroup, Path: "/sys/fs/cgroup/tminus-a", Home: "/sys/fs/cgroup"}, ""},
		{Entry{Kind: Cgroup, Path: "/sys/fs/cgroup/user.slice", Home: "/sys/fs/cgroup"}, "does not begin"},
		{Entry{Kind: Cgroup, Path: "/sys/fs/cgroup/tminus-a", Home: "/sys/fs/cgroup/tminus-a"}, "its own home"},
		{Entry{Kind: Cgroup, Path: "tminus-a", Home: "/sys/fs/cgroup"}, "not a clean absolute path"},
		{Entry{Kind: Cgroup, Path: "/sys/fs/../../etc/tminus-a", Home: "/sys/fs/cgroup"}, "not a clean absolute path"},
		{Entry{Kind: Setting, Path: "/proc/sys/net/ipv4/ip_forward", Value: "0"}, ""},
		{Entry{Kind: Setting, Path: "/etc/passwd", Value: "0"}, "neither below"},
		{Entry{Kind: Setting, Path: "/proc/sys/x", Value: strings.Repeat("x", maxField+1)}, "at most 4096"},
		{Entry{Kind: "prayer"}, "no kind"},
	} {
		err := c.entry.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.entry, err, c.want)
		}
	}
}

// The promise: a conductor is killed with SIGKILL at random moments while it breaks and mends things of every kind, and
// a script that knows nothing of all this finds the machine as it was.
func TestKillingTheConductorLeavesNothing(t *testing.T) {
	if os.Geteuid() == 0 && !stock.Inside() {
		stock.Isolated(t)
		return
	}
	times := 100
	if testing.Short() {
		times = 10
	}
	run := t.TempDir()
	prey := []procfs.Process{victim(t), victim(t)}
	cfg := stock.Config{Dirs: []string{run, NamespaceDir, systemDir}}
	if !stock.Inside() {
		// Others work on this machine meanwhile: only what is stopped, and this test's files, count.
		cfg.Ignore = "^(process|in group|socket|group|bpf|mount|namespace|interface|address|route6?|qdisc|setting|rule|nft|zombie)"
	}
	before, err := stock.Take(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(4, 2))
	var open, slowest time.Duration
	early := 0
	for i := range times {
		conductor := as(t, "conductor", "WATCHDOG_TEST_DIR="+run, "WATCHDOG_TEST_SEED="+strconv.Itoa(i),
			fmt.Sprintf("WATCHDOG_TEST_PREY=%d,%d,%d,%d", prey[0].PID, prey[0].Start, prey[1].PID, prey[1].Start))
		out, err := conductor.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := conductor.Start(); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 { // before, while, or soon after its watchdog starts
			early++
			time.Sleep(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
		} else {
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || line != "breaking\n" {
				t.Fatalf("the conductor said %q, %v", line, err)
			}
			time.Sleep(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
		}
		if err := conductor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		io.Copy(io.Discard, out)
		conductor.Wait()
		if err := before.Compare(Deadline); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		took := time.Since(began)
		open += took
		slowest = max(slowest, took)
	}
	t.Logf("%d kills, %d of them early: as before after %s on average, %s at most", times, early, open/time.Duration(times), slowest)
}

// conduct breaks and mends things of every kind until it is killed.
func conduct() {
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	dir := os.Getenv("WATCHDOG_TEST_DIR")
	seed, err := strconv.ParseUint(os.Getenv("WATCHDOG_TEST_SEED"), 10, 64)
	check(err)
	random := rand.New(rand.NewPCG(seed, 1))
	var prey [2]procfs.Process
	_, err = fmt.Sscanf(os.Getenv("WATCHDOG_TEST_PREY"), "%d,%d,%d,%d", &prey[0].PID, &prey[0].Start, &prey[1].PID, &prey[1].Start)
	check(err)
	w, err := Start(context.Background(), Config{Run: "test", Dir: filepath.Join(dir, "journals"), Args: []string{}})
	check(err)

	n := 0
	name := func() string { n++; return fmt.Sprintf("%s%d-%d", Prefix, os.Getpid()%10_000, n%1000) }
	cage := "/sys/fs/cgroup/freezer"
	kinds := []func() Entry{
		func() Entry { return stopOne(prey[random.IntN(2)]) },
	}
	if os.Geteuid() == 0 {
		kinds = append(kinds,
			func() Entry { return Entry{Kind: Namespace, Name: name()} },
			func() Entry { return Entry{Kind: Interface, Name: name()} })
		if unix.Access(cage, unix.W_OK) == nil {
			kinds = append(kinds,
				func() Entry { return Entry{Kind: Cgroup, Path: filepath.Join(cage, name()), Home: cage} },
				func() Entry { return Entry{Kind: Setting, Path: filepath.Join(cage, "notify_on_release"), Value: "0"} })
		}
	}
	fmt.Println("breaking")
	type broken struct {
		token Token
		entry Entry
	}
	var list []broken
	for {
		e := kinds[random.IntN(len(kinds))]()
		token, err := w.Protect(e)
		check(err)
		list = append(list, broken{token, e})
		switch e.Kind {
		case Continue:
			check(procfs.Signal(e.PID, e.Start, unix.SIGSTOP))
		case Namespace:
			check(makeNamespace(e.Name))
		case Interface:
			check(makeTun(e.Name))
		case Cgroup:
			check(os.Mkdir(e.Path, 0o755))
			check(procfs.Write(filepath.Join(e.Path, "cgroup.procs"), strconv.Itoa(prey[0].PID)))
		case Setting:
			check(procfs.Write(e.Path, "1"))
		}
		if len(list) >= 2+random.IntN(10) {
			for len(list) > 0 && random.IntN(5) > 0 {
				b := list[len(list)-1]
				list = list[:len(list)-1]
				check(Undo(context.Background(), b.entry))
				check(w.Release(b.token))
			}
		}
	}
}

func stopOne(p procfs.Process) Entry { return Entry{Kind: Continue, PID: p.PID, Start: p.Start} }

// makeNamespace makes a named network namespace as ip-netns(8) does, without another process.
func makeNamespace(name string) error {
	if err := os.MkdirAll(NamespaceDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(NamespaceDir, name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	// The thread goes back: were it the process's first, which never ends, this process would live in what it has made.
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	if e := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); e != nil {
		return errors.Join(err, e) // locked still
	}
	runtime.UnlockOSThread()
	return err
}

// makeTun makes a network interface that stays.
func makeTun(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}
