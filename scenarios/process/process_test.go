package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays every part: role says which, as a real binary's subcommand would.
const role = "TMINUS_TEST_ROLE"

func TestMain(m *testing.M) {
	if r := os.Getenv(role); r != "" {
		play(r)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience bounds every wait of these tests for something that should take milliseconds.
const patience = 20 * time.Second

func play(r string) {
	hangs := WatchLifeline()
	if os.Getenv("TMINUS_TEST_ROPE") == "lifeline" {
		unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	}
	switch r {
	case "serve":
		config, err := Config()
		if err != nil {
			Fail(err)
			os.Exit(1)
		}
		fmt.Println("serving", string(config))
		Ready(map[string]string{"config": string(config), "child": strconv.FormatBool(hangs)})
		forever()
	case "deaf": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		Ready(nil)
		forever()
	case "polite":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		Ready(nil)
		<-c
		fmt.Println("bye")
	case "mute": // never gets ready
		fmt.Println("thinking")
		forever()
	case "busy": // says why it cannot
		Fail(errors.New("listen 127.0.1.5:8080: address already in use"))
		os.Exit(1)
	case "broken": // ends without a word
		fmt.Fprintln(os.Stderr, "cannot open the clips")
		os.Exit(3)
	case "babble":
		readyFD.Write([]byte("hello\n"))
		forever()
	case "tell": // three messages, then the end
		Ready(nil)
		for i := range 3 {
			if err := Tell(map[string]int{"n": i}); err != nil {
				panic(err)
			}
		}
		Tell(strings.Repeat("x", maxWord)) // too long: refused on this side
	case "crash-later": // ready, then ends on SIGUSR1
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		Ready(nil)
		<-c
		fmt.Fprintln(os.Stderr, "out of ideas")
		os.Exit(7)
	case "chatter":
		for i := range 20000 {
			fmt.Printf("line %d of a child that talks a lot\n", i)
		}
		Ready(nil)
		forever()
	case "parent": // starts a child of its own and says both pids
		child := "serve"
		if os.Getenv("TMINUS_TEST_DEPTH") == "3" {
			child = "parent"
		}
		p, err := Start(context.Background(), Spec{Name: child, Env: []string{role + "=" + child, "TMINUS_TEST_DEPTH=2"}})
		if err != nil {
			Fail(err)
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		pids := []ID{identify(os.Getpid()), p.ID()}
		if text := p.Info()["pids"]; text != "" {
			var below []ID
			if err := json.Unmarshal([]byte(text), &below); err != nil {
				panic(err)
			}
			pids = append(pids, below[1:]...)
		}
		text, _ := json.Marshal(pids)
		if hangs {
			Ready(map[string]string{"pids": string(text)})
		} else {
			fmt.Println(string(text)) // the outermost, started by the test by hand
			if os.Getenv("TMINUS_TEST_STOP") != "" {
				syscall.Kill(p.PID(), syscall.SIGSTOP)
			}
		}
		forever()
	case "loose": // leaves a process of its own behind, without a lifeline
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), role+"=orphan")
		if err := c.Start(); err != nil {
			Fail(err)
			os.Exit(1)
		}
		Ready(map[string]string{"pid": strconv.Itoa(c.Process.Pid)})
		forever()
	case "orphan":
		forever()
	}
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

func identify(pid int) ID {
	st, err := readStat(pid)
	if err != nil {
		return ID{PID: pid}
	}
	return ID{PID: pid, Started: st.started}
}

func start(t *testing.T, r string, change ...func(*Spec)) (*Process, error) {
	t.Helper()
	spec := Spec{Name: "region/" + r, Env: []string{role + "=" + r}, LogPath: filepath.Join(t.TempDir(), r+".log")}
	for _, c := range change {
		c(&spec)
	}
	p, err := Start(t.Context(), spec)
	if p != nil {
		t.Cleanup(func() { p.Kill() })
	}
	return p, err
}

func mustStart(t *testing.T, r string, change ...func(*Spec)) *Process {
	t.Helper()
	p, err := start(t, r, change...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// eventually waits for a condition, which the tests measure against a deadline of their own.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func left(t *testing.T, ids ...ID) []Leftover {
	t.Helper()
	l, err := Leftovers(ids...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestChildGetsItsConfigurationAndIsReady(t *testing.T) {
	p := mustStart(t, "serve", func(s *Spec) { s.Stdin = []byte("port 8080") })
	if got := p.Info(); got["config"] != "port 8080" || got["child"] != "true" {
		t.Fatalf("the child said %v", got)
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID())); err != nil || bytes.Contains(cmdline, []byte("8080")) {
		t.Fatalf("command line %q, %v: the configuration is no one else's business", cmdline, err)
	}
	if !p.Alive() || p.Err() != nil || p.Reason() != "" {
		t.Fatalf("alive %v, err %v, reason %q", p.Alive(), p.Err(), p.Reason())
	}
	if l := left(t, p.ID()); len(l) != 1 || l[0].PID != p.PID() || l[0].Of != "region/serve" {
		t.Fatalf("leftovers %v", l)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if p.Alive() || p.Err() != nil || p.Reason() != "killed by SIGKILL" {
		t.Fatalf("alive %v, err %v, reason %q", p.Alive(), p.Err(), p.Reason())
	}
	if l := left(t, p.ID()); len(l) != 0 {
		t.Fatalf("leftovers %v", l)
	}
	if err := p.Kill(); err != nil {
		t.Fatalf("a second kill: %v", err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatalf("stopping the dead: %v", err)
	}
}

func TestStopLetsAChildFinish(t *testing.T) {
	p := mustStart(t, "polite")
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Reason() != "exit status 0" || !slices.Contains(p.LastLines(), "bye") {
		t.Fatalf("reason %q, lines %q", p.Reason(), p.LastLines())
	}
}

func TestStopKillsAChildThatIgnoresSIGTERM(t *testing.T) {
	p := mustStart(t, "deaf", func(s *Spec) { s.StopGrace = 100 * time.Millisecond })
	err := p.Stop(t.Context())
	if !errors.Is(err, ErrForced) || !strings.Contains(err.Error(), "within 100ms of SIGTERM") {
		t.Fatalf("err %v", err)
	}
	if p.Alive() || p.Reason() != "killed by SIGKILL" {
		t.Fatalf("alive %v, reason %q", p.Alive(), p.Reason())
	}
}

func TestStopIsBoundedByItsContext(t *testing.T) {
	p := mustStart(t, "deaf", func(s *Spec) { s.StopGrace = time.Hour })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Stop(ctx); !errors.Is(err, ErrForced) {
		t.Fatalf("err %v", err)
	}
	if p.Alive() {
		t.Fatal("still alive")
	}
}

func TestStartFails(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		role   string
		change func(*Spec)
		is     error
		want   []string
	}{
		{role: "mute", change: func(s *Spec) { s.ReadyTimeout = 200 * time.Millisecond }, is: ErrNotReady,
			want: []string{"region/mute", "200ms"}},
		{role: "busy", want: []string{"region/busy: listen 127.0.1.5:8080: address already in use"}},
		{role: "broken", want: []string{"region/broken", "exit status 3", "broken.log:", "cannot open the clips"}},
		{role: "babble", want: []string{"region/babble", "not JSON"}},
		{role: "serve", change: func(s *Spec) { s.Path = "/nowhere/tminus" }, want: []string{"region/serve", "/nowhere/tminus"}},
		{role: "serve", change: func(s *Spec) { s.LogPath = "/nowhere/region.log" }, want: []string{"region/serve", "open its log", "/nowhere/region.log"}},
	} {
		t.Run(c.role, func(t *testing.T) {
			if c.change == nil {
				c.change = func(*Spec) {}
			}
			p, err := start(t, c.role, c.change)
			if err == nil || p != nil {
				t.Fatalf("process %v, err %v", p, err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("err %v is not %v", err, c.is)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		if _, err := Start(cancelled, Spec{Env: []string{role + "=serve"}}); !errors.Is(err, context.Canceled) {
			t.Fatalf("err %v", err)
		}
	})
}

func TestStartIsBrokenOffByItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "mute.log")
	done := make(chan error, 1)
	go func() {
		_, err := Start(ctx, Spec{Name: "mute", Env: []string{role + "=mute"}, LogPath: path})
		done <- err
	}()
	eventually(t, patience, "the child runs", func() bool { b, _ := os.ReadFile(path); return bytes.Contains(b, []byte("thinking")) })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("err %v", err)
	}
}

func TestUnexpectedEndIsNoticedWithItsLastLines(t *testing.T) {
	p := mustStart(t, "crash-later")
	if err := syscall.Kill(p.PID(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Exited():
	case <-time.After(patience):
		t.Fatal("not noticed")
	}
	var exit *ExitError
	if err := p.Err(); !errors.As(err, &exit) || exit.Status != 7 || exit.PID != p.PID() {
		t.Fatalf("err %v", err)
	}
	for _, want := range []string{"region/crash-later", "ended unexpectedly", "exit status 7", "crash-later.log", "out of ideas"} {
		if !strings.Contains(exit.Error(), want) {
			t.Errorf("error %q does not say %q", exit, want)
		}
	}
}

func TestAStrangersKillIsUnexpected(t *testing.T) {
	p := mustStart(t, "serve")
	syscall.Kill(p.PID(), syscall.SIGSEGV)
	<-p.Exited()
	var exit *ExitError
	if err := p.Err(); !errors.As(err, &exit) {
		t.Fatalf("err %v", err)
	}
}

func TestLogIsBoundedAndKeepsTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chatter.log")
	p := mustStart(t, "chatter", func(s *Spec) { s.LogPath, s.LogLimit = path, 4<<10 })
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 4<<10+tailBytes+200 {
		t.Fatalf("%d bytes", len(b))
	}
	for _, want := range []string{"line 0 of", "bytes left out", "line 19999 of"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("the log does not hold %q", want)
		}
	}
}

func TestNextIncarnationAppendsToTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region.log")
	for _, config := range []string{"first", "second"} {
		p := mustStart(t, "serve", func(s *Spec) { s.LogPath, s.Stdin = path, []byte(config) })
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := os.ReadFile(path)
	if string(b) != "serving first\nserving second\n" {
		t.Fatalf("log %q", b)
	}
}

func TestGroupGoesWithItsLeader(t *testing.T) {
	p := mustStart(t, "loose")
	pid, _ := strconv.Atoi(p.Info()["pid"])
	orphan := identify(pid)
	if len(left(t, p.ID())) != 2 {
		t.Fatalf("leader and its own child expected, got %v", left(t, p.ID()))
	}
	syscall.Kill(p.PID(), syscall.SIGKILL) // by a stranger: only the leader
	<-p.Exited()
	eventually(t, patience, "the leader's child is gone", func() bool { return len(left(t, orphan)) == 0 })
}

// The promise everything rests on, at three levels: this test starts a parent by hand, which starts a child, which
// starts a child. The parent is killed with SIGKILL; within a second nothing is left.
func TestKillingTheParentLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name, env string
		stopped   bool
	}{
		{name: "both ropes"},
		{name: "the lifeline alone", env: "TMINUS_TEST_ROPE=lifeline"},
		// A stopped child cannot watch its lifeline: the kernel's own signal must reach it.
		{name: "the kernel's signal alone", env: "TMINUS_TEST_STOP=yes", stopped: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := exec.Command(os.Args[0])
			parent.Env = append(os.Environ(), role+"=parent", "TMINUS_TEST_DEPTH=3", c.env)
			out, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			parent.Stderr = os.Stderr
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			defer parent.Wait()
			defer parent.Process.Kill()
			var ids []ID
			if err := json.NewDecoder(out).Decode(&ids); err != nil {
				t.Fatal(err)
			}
			if len(ids) != 3 || ids[0].PID != parent.Process.Pid {
				t.Fatalf("pids %v", ids)
			}
			if n := len(left(t, ids...)); n != 3 {
				t.Fatalf("%d of 3 live", n)
			}
			if c.stopped {
				eventually(t, patience, "the child is stopped", func() bool {
					st, err := readStat(ids[1].PID)
					return err == nil && st.state == 'T'
				})
			}
			began := time.Now()
			if err := parent.Process.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Second, "all three are gone", func() bool { return len(left(t, ids...)) == 0 })
			t.Logf("gone after %s", time.Since(began).Round(time.Millisecond))
		})
	}
}

// PR_SET_PDEATHSIG is tied to the thread that forked. A caller's thread may end; its child must not.
func TestChildOutlivesTheCallersThread(t *testing.T) {
	started := make(chan *Process)
	thread, placed := make(chan int, 1), make(chan struct{})
	var begin func()
	begin = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if unix.Gettid() == unix.Getpid() {
			go begin() // the first thread never ends: on another one, while this one is held
			<-placed
			runtime.UnlockOSThread()
			return
		}
		close(placed)
		thread <- unix.Gettid()
		p, err := start(t, "serve")
		if err != nil {
			t.Error(err)
		}
		started <- p
	}
	go begin()
	tid, p := <-thread, <-started
	if p == nil {
		return
	}
	eventually(t, patience, "the caller's thread has ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
		return errors.Is(err, os.ErrNotExist)
	})
	// A signal of the thread's end would have been sent before the thread left the list.
	if !p.Alive() || len(left(t, p.ID())) != 1 {
		t.Fatalf("the child went with the thread: %v", p.Err())
	}
}

func TestByHandThereIsNoLifeline(t *testing.T) {
	if WatchLifeline() {
		t.Fatal("this test has no parent that holds one")
	}
	if err := Ready(nil); err != nil {
		t.Fatal(err)
	}
	if err := Fail(errors.New("x")); err != nil {
		t.Fatal(err)
	}
}

func TestALifelineThatIsNoneEndsTheChild(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), role+"=mute", envLifeline+"=77")
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != LifelineStatus || !bytes.Contains(out, []byte("does not name a pipe")) {
		t.Fatalf("err %v, output %q", err, out)
	}
}

func TestLeftoversKnowStrangers(t *testing.T) {
	me := identify(os.Getpid())
	me.Name = "me"
	if l := left(t, me); len(l) == 0 {
		t.Fatal("this process lives")
	}
	stranger := me
	stranger.Started++ // the pid was given to a later process, or this is an earlier one's
	if l := left(t, stranger); len(l) != 0 {
		t.Fatalf("leftovers %v", l)
	}
	if l := left(t); l != nil {
		t.Fatalf("leftovers of nothing: %v", l)
	}
}

func TestTell(t *testing.T) {
	heard := make(chan string, 10)
	p, err := Start(t.Context(), Spec{Name: "tell", Env: []string{role + "=tell"}, Finite: true, Heard: func(m json.RawMessage) { heard <- string(m) }})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if err := p.Err(); err != nil {
		t.Errorf("a child that was done: %v", err)
	}
	for i := range 3 {
		select {
		case m := <-heard:
			if want := fmt.Sprintf(`{"n":%d}`, i); m != want {
				t.Errorf("heard %s, want %s", m, want)
			}
		default:
			t.Fatalf("the child has ended and %d of its messages were heard", i)
		}
	}
	select {
	case m := <-heard:
		t.Errorf("heard %.20s, which was too long to tell", m)
	default:
	}
}

func TestReadWord(t *testing.T) {
	for _, c := range []struct{ in, err string }{
		{in: `{"ready":true}` + "\n"},
		{in: `{"ready":true,"info":{"addr":"127.0.0.1:1"}}` + "\nrest"},
		{in: `{"error":"no"}`},
		{in: "", err: "said nothing"},
		{in: "\n", err: "not JSON"},
		{in: `{"message":{"n":1}}` + "\n"},
		{in: "{}\n", err: "none of"},
		{in: `{"ready":true,"error":"no"}` + "\n", err: "two of"},
		{in: strings.Repeat("x", maxWord+5000), err: "longer than"},
	} {
		_, err := readWord(bufio.NewReaderSize(strings.NewReader(c.in), maxWord))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("readWord(%.40q) = %v, want %q", c.in, err, c.err)
		}
	}
}

func FuzzReadWord(f *testing.F) {
	f.Add([]byte(`{"ready":true}` + "\n"))
	f.Add([]byte(`{"error":"no"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := readWord(bufio.NewReaderSize(bytes.NewReader(b), maxWord)); err == nil && w.Ready && (w.Error != "" || w.Message != nil) {
			t.Fatalf("readWord(%q) = %+v", b, w)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a (b) c) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0"))
	f.Add([]byte("1 () Z"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}
