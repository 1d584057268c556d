package processes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

// role makes this test binary something else than a test: what is broken.
const role = "PROCESSES_TEST_ROLE"

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if watchdog.IsChild() {
		os.Exit(watchdog.Serve())
	}
	switch os.Getenv(role) {
	case "":
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		os.Exit(m.Run())
	case "conductor":
		conduct()
	default:
		play(os.Getenv(role))
	}
}

// play is a server on a port of its own, which it prints; it has a child, burns processor time or takes ever more memory
// as its role says.
func play(part string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	switch part {
	case "parent":
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), role+"=child")
		child.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		runtime.LockOSThread()
		if err := child.Start(); err != nil {
			panic(err)
		}
	case "burner":
		go func() {
			//lint:ignore SA5002 burning is what it is for
			for {
			}
		}()
	case "eater":
		go func() {
			var list [][]byte
			for range 400 {
				b := make([]byte, 256<<10)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				list = append(list, b)
				time.Sleep(5 * time.Millisecond)
			}
			runtime.KeepAlive(list)
		}()
	}
	fmt.Println(l.Addr())
	select {}
}

// prey is a process to be broken.
type prey struct {
	Target
	cmd *exec.Cmd
	url string
}

func (p *prey) ref() Ref { return p.Processes()[0] }

// refOf names the process that has this pid now.
func refOf(pid int) (Ref, error) {
	p, err := procfs.Read(pid)
	return Ref{p.PID, p.Start}, err
}

func start(t *testing.T, part string) *prey {
	t.Helper()
	p := &prey{}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), role+"="+part)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	ended := make(chan struct{})
	go func() { p.cmd.Wait(); close(ended) }() // whoever kills it, it is not left a zombie
	t.Cleanup(func() { p.cmd.Process.Kill(); <-ended })
	if err != nil {
		t.Fatal(err)
	}
	ref, err := refOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + strings.TrimSpace(addr) + "/"
	p.Target = Target{Name: part, Run: "test", Processes: func() []Ref { return []Ref{ref} }}
	return p
}

func guard(t *testing.T) *watchdog.Watchdog {
	t.Helper()
	w, err := watchdog.Start(t.Context(), watchdog.Config{Run: "test", Dir: filepath.Join(t.TempDir(), "j"), Args: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p := w.Protected(); len(p) != 0 {
			t.Errorf("protected still: %v", p)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func states(t *testing.T, target Target) string {
	t.Helper()
	family, err := target.family()
	if err != nil {
		t.Fatal(err)
	}
	s := ""
	for _, p := range family {
		if p.State == procfs.Stopped {
			s += "T"
		} else {
			s += "R"
		}
	}
	return s
}

func answers(url string) bool {
	c := http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return true
}

func groupsOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := readText(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestHangStopsProcessesAndTheirChildren(t *testing.T) {
	p, w := start(t, "parent"), guard(t)
	h := NewHang(p.Target, w)
	if err := h.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := states(t, p.Target); s != "TT" {
		t.Errorf("states %s, want both stopped", s)
	}
	if answers(p.url) {
		t.Error("it answers")
	}
	for range 2 {
		if err := h.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := states(t, p.Target); s != "RR" {
		t.Errorf("states %s, want both going on", s)
	}
	eventually(t, "it answers again", func() bool { return answers(p.url) })
}

func TestHangOfWhatSomebodyElseStopped(t *testing.T) {
	p, w := start(t, "idle"), guard(t)
	unix.Kill(p.cmd.Process.Pid, unix.SIGSTOP)
	eventually(t, "it is stopped", func() bool { return states(t, p.Target) == "T" })
	h := NewHang(p.Target, w)
	if err := h.Inject(t.Context()); err == nil || !strings.Contains(err.Error(), "by somebody else") {
		t.Errorf("err %v", err)
	}
	if err := h.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	if s := states(t, p.Target); s != "T" {
		t.Error("it was continued by who had not stopped it")
	}
}

func TestNothingIsBrokenWithoutAWatchdog(t *testing.T) {
	p, w := start(t, "idle"), guard(t)
	unix.Kill(w.PID(), unix.SIGKILL)
	<-w.Lost()
	cpu, err := NewCPU(p.Target, 0.5, w)
	if err != nil {
		t.Fatal(err)
	}
	for name, inject := range map[string]func(context.Context) error{"hang": NewHang(p.Target, w).Inject, "cpu": cpu.Inject} {
		if err := inject(t.Context()); !errors.Is(err, watchdog.ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := states(t, p.Target); s != "R" {
		t.Errorf("states %s", s)
	}
}

func TestRefusals(t *testing.T) {
	p := start(t, "parent")
	family, err := p.family()
	if err != nil || len(family) != 2 {
		t.Fatalf("%v, %v", family, err)
	}
	child := Ref{family[1].PID, family[1].Start}
	of := func(pid int) Ref {
		r, err := refOf(pid)
		if err != nil {
			t.Skip(err)
		}
		return r
	}
	later := p.ref()
	later.Start++
	for _, c := range []struct {
		name string
		refs []Ref
		want string // "": may be broken
	}{
		{"its own", []Ref{p.ref()}, ""},
		{"a child of its own", []Ref{child}, ""},
		{"its own, and the first of all", []Ref{p.ref(), of(1)}, "refused to touch process 1"},
		{"another that had the pid once", []Ref{later}, "any more"},
		{"the first of all", []Ref{of(1)}, "refused to touch process 1"},
		{"this very process", []Ref{of(os.Getpid())}, "would have to put it back"},
		{"what started this process", []Ref{of(os.Getppid())}, "comes from it"},
	} {
		err := Refuse(c.refs)
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, evidence.ErrRefused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// Whoever says that it is his does not make it so.
	me := of(os.Getpid())
	h := NewHang(Target{Name: "me", Processes: func() []Ref { return []Ref{me} }}, guard(t))
	if err := h.Inject(t.Context()); !errors.Is(err, evidence.ErrRefused) {
		t.Errorf("err %v", err)
	}
}

// injector is what a fault does; see the package chaos.
type injector interface {
	Inject(context.Context) error
	Restore(context.Context) error
}

// nothing lies.
type nothing struct{}

func (nothing) Inject(context.Context) error  { return nil }
func (nothing) Restore(context.Context) error { return nil }

// proof runs a fault for a while and says what its observer makes of it.
func proof(t *testing.T, target Target, x Expect, i injector) evidence.Evidence {
	t.Helper()
	x.Now = time.Now
	o, err := NewObserver(target, x)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { o.Watch(ctx); close(done) }()
	enough := func(since time.Time, looks int) {
		t.Helper()
		eventually(t, "it has been looked at", func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			n, g := 0, 0
			for _, s := range o.samples {
				if s.at.After(since) {
					n++
				}
			}
			for _, a := range o.gets {
				if a.start.After(since) {
					g++
				}
			}
			return n >= looks && (x.URL == "" || g >= 2)
		})
	}
	enough(time.Time{}, 8)
	var w evidence.Window
	w.Inject = time.Now()
	if err := i.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Injected = time.Now()
	enough(w.Injected.Add(settle), 12)
	w.Restore = time.Now()
	if err := i.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Restored = time.Now()
	enough(w.Restored.Add(settle), 8)
	cancel()
	<-done
	e := o.Judge(w)
	t.Logf("%s: measured %g %s, expected %g: %s", e.Status, e.Measured, e.Unit, e.Expected, e.Detail)
	return e
}

func TestHangIsProven(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(*prey) injector
		want   string
	}{
		{"as it should be", func(p *prey) injector { return NewHang(p.Target, guard(t)) }, evidence.Confirmed},
		{"nothing instead", func(*prey) injector { return nothing{} }, evidence.Mismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "parent")
			if e := proof(t, p.Target, Expect{What: Hung, URL: p.url}, c.break_(p)); e.Status != c.want {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestCPUPressureIsProven(t *testing.T) {
	why := try(nil, "cpu", func(s site) []setting { return quota(s, 0.5) })
	for _, c := range []struct {
		name   string
		cores  float64
		stops  bool
		lie    bool
		want   string
		skipIf bool
	}{
		{"by a control group", 0.2, false, false, evidence.Confirmed, why != nil},
		{"by stops", 0.2, true, false, evidence.Confirmed, false},
		{"nothing instead", 0.2, false, true, evidence.Mismatch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.skipIf {
				t.Skipf("no control group: %v", why)
			}
			p := start(t, "burner")
			was := groupsOf(t, p.cmd.Process.Pid)
			i, err := NewCPU(p.Target, c.cores, guard(t))
			if err != nil {
				t.Fatal(err)
			}
			i.stops = c.stops
			var in injector = i
			if c.lie {
				in = nothing{}
			}
			if e := proof(t, p.Target, Expect{What: Starved, Cores: c.cores, URL: p.url}, in); e.Status != c.want {
				t.Errorf("%+v", e)
			}
			if !c.lie && (i.hang != nil) != c.stops {
				t.Errorf("by stops: %v", !c.stops)
			}
			if is := groupsOf(t, p.cmd.Process.Pid); is != was {
				t.Errorf("it was in %s and is in %s", was, is)
			}
		})
	}
}

func TestMemoryPressureIsProven(t *testing.T) {
	if err := MemoryAble(nil); err != nil {
		if !errors.Is(err, evidence.ErrUnsupported) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const room = 8 << 20
	for _, c := range []struct {
		name, part string
		lie        bool
		want       string
	}{
		{"those that want more wait", "eater", false, evidence.Confirmed},
		{"nothing instead", "eater", true, evidence.Mismatch},
		{"it does not want more", "idle", false, evidence.Inconclusive},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, c.part)
			was := groupsOf(t, p.cmd.Process.Pid)
			m, err := NewMemory(p.Target, room, guard(t))
			if err != nil {
				t.Fatal(err)
			}
			var in injector = m
			if c.lie {
				in = nothing{}
			}
			if e := proof(t, p.Target, Expect{What: Pressed, Room: room}, in); e.Status != c.want {
				t.Errorf("%+v", e)
			}
			if is := groupsOf(t, p.cmd.Process.Pid); is != was {
				t.Errorf("it was in %s and is in %s", was, is)
			}
		})
	}
}

func TestLimitsHaveBounds(t *testing.T) {
	target := Target{Name: "us-east"}
	for _, cores := range []float64{0, -1, 0.001} {
		if _, err := NewCPU(target, cores, nil); err == nil {
			t.Errorf("%g cores", cores)
		}
	}
	if _, err := NewMemory(target, 4096, nil); err == nil {
		t.Error("4096 bytes")
	}
	if _, err := NewObserver(target, Expect{What: "sadness", Now: time.Now}); !errors.Is(err, evidence.ErrUnknown) {
		t.Errorf("err %v", err)
	}
}

// A group of version 2 is made beside the process's own, and has to be passed the controller first at the root. This
// machine may have but one controller there: any will do.
func TestGroupOfVersion2(t *testing.T) {
	mounts, err := readText("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	controller := ""
	for _, h := range parseMounts(mounts) {
		if text, err := readText(filepath.Join(h.mount, "cgroup.controllers")); h.version == 2 && err == nil {
			for _, c := range strings.Fields(text) {
				controller = c
			}
		}
	}
	p, w := start(t, "parent"), guard(t)
	s, err := siteOf(controller, p.cmd.Process.Pid)
	if controller == "" || err != nil || s.version != 2 {
		t.Skipf("there is no group of version 2 with a controller (%q): %v", controller, err)
	}
	enabled := ""
	if s.enable != "" {
		enabled, _ = readText(s.enable)
	}
	var g group
	if err := g.make(w, s, controller, "test", nil); err != nil {
		t.Fatal(err)
	}
	if err := g.move(controller, p.Target); err != nil {
		t.Fatal(err)
	}
	procs, err := readText(filepath.Join(g.path, "cgroup.procs"))
	if err != nil || len(strings.Fields(procs)) != 2 || !strings.Contains(procs, strconv.Itoa(p.cmd.Process.Pid)) {
		t.Errorf("in it are %q, %v", procs, err)
	}
	if err := g.remove(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", g.path)
	}
	if s.enable != "" {
		if now, _ := readText(s.enable); now != enabled {
			t.Errorf("passed on are %q, before %q", now, enabled)
		}
	}
}
