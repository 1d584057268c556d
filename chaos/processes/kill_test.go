package processes

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/chaos/watchdog/stock"
)

// A conductor is killed with SIGKILL at random moments while it breaks processes that outlive it, and a script that knows
// nothing of this program finds them, and the machine, as they were.
func TestKillingTheConductorLeavesNothing(t *testing.T) {
	if os.Geteuid() == 0 && !stock.Inside() {
		stock.Isolated(t)
		return
	}
	times := 100
	if testing.Short() {
		times = 10
	}
	parent, burner := start(t, "parent"), start(t, "burner")
	run := t.TempDir()
	cfg := stock.Config{Dirs: []string{run}}
	if !stock.Inside() {
		cfg.Ignore = "^(process|in group|socket|group|bpf|mount|namespace|interface|address|route6?|qdisc|setting|rule|nft|zombie)"
	}
	before, err := stock.Take(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(4, 2))
	var all, slowest time.Duration
	hit := make(map[string]int)
	var done []time.Duration
	for i := range times {
		conductor := exec.Command(os.Args[0])
		conductor.Env = append(os.Environ(), role+"=conductor", "PROCESSES_TEST_DIR="+run, "PROCESSES_TEST_SEED="+strconv.Itoa(i),
			fmt.Sprintf("PROCESSES_TEST_PREY=%d,%d,%d,%d", parent.ref().PID, parent.ref().Start, burner.ref().PID, burner.ref().Start))
		conductor.Stderr = os.Stderr
		out, err := conductor.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := conductor.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewScanner(out)
		pid := 0
		if said.Scan(); true {
			if _, err := fmt.Sscanf(said.Text(), "breaking %d", &pid); err != nil {
				t.Fatalf("the conductor said %q: %v", said.Text(), err)
			}
		}
		dog, err := refOf(pid)
		if err != nil {
			t.Fatal(err)
		}
		wait := time.Duration(random.Int64N(int64(150 * time.Millisecond)))
		if i%3 == 0 {
			wait /= 50 // while something is being broken, or mended
		}
		time.Sleep(wait)
		if err := conductor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		last := ""
		for said.Scan() {
			last = said.Text()
		}
		io.Copy(io.Discard, out)
		conductor.Wait()
		hit[last]++
		eventually(t, "the watchdog is done", func() bool { return !dog.Alive() })
		done = append(done, time.Since(began))
		if time.Since(began) > watchdog.Deadline {
			t.Errorf("kill %d, last %s: the watchdog took %s", i, last, time.Since(began))
		}
		if err := before.Compare(watchdog.Deadline); err != nil {
			t.Fatalf("kill %d, last %s: %v", i, last, err)
		}
		took := time.Since(began)
		all += took
		slowest = max(slowest, took)
	}
	slices.Sort(done)
	t.Logf("the watchdog was done after %s (median), %s (most)", done[len(done)/2], done[len(done)-1])
	t.Logf("%d kills, last heard %v: as before after %s on average, %s at most", times, hit, all/time.Duration(times), slowest)
	if !answers(parent.url) || !answers(burner.url) {
		t.Error("they do not answer")
	}
}

// conduct breaks processes and mends them until it is killed.
func conduct() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	seed, err := strconv.ParseUint(os.Getenv("PROCESSES_TEST_SEED"), 10, 64)
	check(err)
	random := rand.New(rand.NewPCG(seed, 7))
	var parent, burner Ref
	_, err = fmt.Sscanf(os.Getenv("PROCESSES_TEST_PREY"), "%d,%d,%d,%d", &parent.PID, &parent.Start, &burner.PID, &burner.Start)
	check(err)
	w, err := watchdog.Start(context.Background(), watchdog.Config{Run: "kill", Dir: filepath.Join(os.Getenv("PROCESSES_TEST_DIR"), "j"), Args: []string{}})
	check(err)
	one := Target{Name: "parent", Run: "kill", Processes: func() []Ref { return []Ref{parent} }}
	two := Target{Name: "burner", Run: "kill", Processes: func() []Ref { return []Ref{burner} }}
	type fault struct {
		name string
		make func(Target) (injector, error)
	}
	faults := []fault{
		{"hang", func(t Target) (injector, error) { return NewHang(t, w), nil }},
		{"cpu", func(t Target) (injector, error) { return NewCPU(t, 0.3, w) }},
		{"cpu by stops", func(t Target) (injector, error) {
			c, err := NewCPU(t, 0.3, w)
			if c != nil {
				c.stops = true
			}
			return c, err
		}},
	}
	if MemoryAble(w) == nil {
		faults = append(faults, fault{"memory", func(t Target) (injector, error) { return NewMemory(t, 16<<20, w) }})
	}
	fmt.Println("breaking", w.PID())
	for {
		f := faults[random.IntN(len(faults))]
		target := []Target{one, two}[random.IntN(2)]
		fmt.Println(f.name)
		i, err := f.make(target)
		check(err)
		check(i.Inject(context.Background()))
		time.Sleep(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
		check(i.Restore(context.Background()))
	}
}
