package safety

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/chaos/watchdog/stock"
)

const (
	envSeed   = "SAFETY_SEED"
	envFolder = "SAFETY_FOLDER" // for a test on a machine of its own: nobody looks for what is left there

	// Conductors by hand mostly wait; rehearsals do not.
	handsAtOnce      = 8
	rehearsalsAtOnce = 2

	// patience bounds one kill, from the conductor's start.
	patience = time.Minute
)

// struck is what became of one kill.
type struck struct {
	Last string        `json:"last"` // what the conductor said last
	Took time.Duration `json:"took"` // until the machine was as before
}

// A conductor is killed with SIGKILL at a hundred random moments spread over the whole catalogue, and a script that knows
// nothing of this program finds the machine as it was within three seconds.
func TestKillingTheConductorLeavesNothing(t *testing.T) {
	tminus := program(t)
	seed := rand.Uint64()
	if text := os.Getenv(envSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	kills := plan(seed)
	if stock.Inside() {
		for _, k := range kills {
			t.Run(k.name, k.strike)
		}
		return
	}
	t.Logf("%s=%d", envSeed, seed)
	var mu sync.Mutex
	all := make(map[string]struck)
	queue := func(rehearsal bool, atOnce int) {
		next := make(chan kill)
		var workers sync.WaitGroup
		for range atOnce {
			workers.Go(func() {
				for k := range next {
					t.Run(k.name, func(t *testing.T) {
						dir := t.TempDir()
						stock.Isolated(t, envProgram+"="+tminus, fmt.Sprintf("%s=%d", envSeed, seed), envFolder+"="+dir)
						text, err := os.ReadFile(filepath.Join(dir, resultFile))
						var s struck
						if err := errors.Join(err, json.Unmarshal(text, &s)); err != nil {
							t.Fatal(err)
						}
						mu.Lock()
						defer mu.Unlock()
						all[k.name] = s
					})
				}
			})
		}
		for _, k := range kills {
			if (k.rehearsal != nil) == rehearsal {
				next <- k
			}
		}
		close(next)
		workers.Wait()
	}
	queue(false, handsAtOnce)
	queue(true, rehearsalsAtOnce)

	for _, rehearsal := range []bool{false, true} {
		var took []time.Duration
		slowest := ""
		said := make(map[string]int)
		for _, k := range kills {
			s, ok := all[k.name]
			if !ok || (k.rehearsal != nil) != rehearsal {
				continue
			}
			if len(took) == 0 || s.Took > slices.Max(took) {
				slowest = k.name
			}
			took = append(took, s.Took)
			said[s.Last]++
		}
		if slices.Sort(took); len(took) > 0 {
			t.Logf("rehearsals %v: %d kills, last heard %v: as before after %s (median), %s (most: %s)", rehearsal, len(took), said, took[len(took)/2], took[len(took)-1], slowest)
		}
	}
}

const resultFile = "struck.json"

// conductor is a program that breaks something.
type conductor struct {
	*exec.Cmd
	mu    sync.Mutex
	last  string                   // the state of a fault that it said last
	said  map[string]chan struct{} // closed when a fault is in a state
	lines []string
	ended chan struct{} // it says nothing more
}

// states are those of a fault, in order.
var states = []string{"injecting", "injected", "restoring", "restored", "failed"}

// conduct starts the program and listens to it.
func conduct(t *testing.T, dir string, args ...string) *conductor {
	t.Helper()
	c := &conductor{Cmd: exec.Command(program(t), args...), last: "nothing", said: make(map[string]chan struct{}), ended: make(chan struct{})}
	for _, s := range states {
		c.said[s] = make(chan struct{})
	}
	c.Dir = dir
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			c.heard(lines.Text())
		}
		io.Copy(io.Discard, out)
	}()
	return c
}

// heard notes a line such as "10:00:00.000  injected" or "… msg=fault … status=injected …".
func (c *conductor) heard(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lines) < 1000 {
		c.lines = append(c.lines, line)
	}
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return
	}
	state := fields[1]
	if strings.Contains(line, "msg=fault") {
		_, rest, _ := strings.Cut(line, "status=")
		state, _, _ = strings.Cut(rest, " ")
	}
	if i := slices.Index(states, state); i >= 0 {
		c.last = state
		select {
		case <-c.said[state]:
		default:
			close(c.said[state])
		}
	}
}

func (c *conductor) words() (last, all string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, strings.Join(c.lines, "\n")
}

// await returns at a moment of the conductor's life.
func (c *conductor) await(ctx context.Context, m moment, wait time.Duration) error {
	if m.after != "" {
		select {
		case <-c.said[m.after]:
		case <-c.ended:
			return errors.New("it has ended by itself")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	select {
	case <-c.ended:
		return errors.New("it has ended by itself")
	default:
		return ctx.Err()
	}
}

// strike kills a conductor, on a machine of its own.
func (k kill) strike(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := os.Getenv(envFolder)
	var s service
	var args []string
	clients := "" // where it is used
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if k.rehearsal == nil {
		s = started(t, self)
		relay := free(t)
		args = k.hand.args(s.at, relay)
		write(traceFile, "0001000011\n")
		clients = relay
		if !k.hand.relay {
			clients = s.at
		}
	} else {
		write("kill.yaml", k.rehearsal.scenario())
		args = []string{"rehearse", "kill.yaml", "-v"}
	}
	before := take(t)
	using, stop := context.WithCancel(ctx)
	unused := func() {}
	if clients != "" {
		unused = used(using, clients)
	}
	c := conduct(t, dir, args...)
	err := c.await(ctx, k.moment, k.wait)
	killed := time.Now()
	if e := c.Process.Kill(); e != nil {
		t.Error(e)
	}
	c.Wait()
	stop()
	unused()
	last, said := c.words()
	if err != nil {
		<-c.ended
		_, said = c.words()
		t.Fatalf("%s %s: %v; it said\n%s", strings.Join(args, " "), k.moment.name, err, said)
	}
	err = before.compare(watchdog.Deadline)
	took := time.Since(killed)
	if err != nil {
		t.Fatalf("killed %s after it %s, last heard %s: %v\nit said\n%s", k.wait, k.moment.name, last, err, said)
	}
	if k.rehearsal == nil {
		if err := s.answers(); err != nil {
			t.Errorf("what was broken is not as before: %v", err)
		}
	}
	text, err := json.Marshal(struck{last, took})
	if err != nil {
		t.Fatal(err)
	}
	write(resultFile, string(text))
}

// inventory is the machine as the script sees it, and what the kernel says of programs on its interfaces, which ip and tc do
// not list.
type inventory struct {
	stock    *stock.Stock
	programs []string
}

func take(t *testing.T) inventory {
	t.Helper()
	s, err := stock.Take(os.Getenv(envFolder), stock.Config{Dirs: []string{"/run", "/dev/shm", "/sys/fs/bpf"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := attached()
	if err != nil {
		t.Fatal(err)
	}
	return inventory{s, p}
}

func (i inventory) compare(wait time.Duration) error {
	if err := i.stock.Compare(wait); err != nil {
		return err
	}
	now, err := attached()
	if err != nil {
		return err
	}
	if !slices.Equal(now, i.programs) {
		return fmt.Errorf("%w: kernel programs %v, before %v", stock.ErrLeft, now, i.programs)
	}
	return nil
}

// attached lists the kernel programs on every interface; none where the kernel knows nothing of such.
func attached() (list []string, err error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range ifaces {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
			if errors.Is(err, ebpf.ErrNotSupported) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			for _, p := range r.Programs {
				list = append(list, fmt.Sprintf("%s: %d", i.Name, p.ID))
			}
		}
	}
	return list, nil
}

// Where the watchdog is killed too, the script sees what is left, and chaos clean puts it back.
func TestTheScriptSeesWhatNobodyUndoes(t *testing.T) {
	if !stock.Inside() {
		stock.Isolated(t, envProgram+"="+program(t), envFolder+"="+t.TempDir())
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := started(t, self)
	before := take(t)
	c := conduct(t, os.Getenv(envFolder), "chaos", "run", "--fail", "process", "--where", s.at, "--for", "50s")
	if err := c.await(ctx, inEffect, 0); err != nil {
		t.Fatal(err)
	}
	all, err := procfs.List()
	if err != nil {
		t.Fatal(err)
	}
	// Stopped, it cannot undo the fault when its watchdog is gone.
	if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Parent == c.Process.Pid {
			if err := procfs.Signal(p.PID, p.Start, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if err := before.compare(time.Second); !errors.Is(err, stock.ErrLeft) || !strings.Contains(err.Error(), fmt.Sprintf("+stopped: %d ", s.pid)) {
		t.Fatalf("the service is stopped, and the script says %v", err)
	}
	if out := run(t, self, os.Getenv(envFolder), "chaos", "clean"); !strings.Contains(out.stdout, fmt.Sprintf("removed: stopped process %d", s.pid)) {
		t.Errorf("%+v", out)
	}
	if err := before.compare(time.Second); err != nil {
		t.Error(err)
	}
	if err := s.answers(); err != nil {
		t.Error(err)
	}
}
