package k6

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/kafka"
)

// k6's exit statuses.
const (
	passed           = 0
	thresholdsMissed = 99
	externalAbort    = 105
	scriptAborted    = 108
)

// binaries are what make k6-test has built.
func binaries(t *testing.T) (k6, tminus string) {
	t.Helper()
	k6, tminus = os.Getenv("TMINUS_K6"), os.Getenv("TMINUS_BIN")
	if k6 == "" || tminus == "" {
		t.Skip("make k6-test runs this with bin/k6 and bin/tminus")
	}
	return k6, tminus
}

// end is how a command ended.
type end struct {
	status int
	output string
	took   time.Duration
}

func run(t *testing.T, env []string, signal time.Duration, name string, args ...string) end {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if signal > 0 {
		time.AfterFunc(signal, func() { began = time.Now(); cmd.Process.Signal(os.Interrupt) })
	}
	err := cmd.Wait()
	e := end{output: out.String(), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		e.status = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return e
}

// urls is what tminus up prints.
type urls struct {
	Regions []struct {
		Region   string `json:"region"`
		Playback string `json:"playback"`
	} `json:"regions"`
}

// pipeline runs tminus up until the test ends; it returns the file of its URLs, and them as a script's services.
func pipeline(t *testing.T, tminus string) (file, services string) {
	t.Helper()
	port := 0
	for range 100 {
		p := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.1.5:%d", p))
		if err == nil {
			l.Close()
			port = p
			break
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(tminus, "up", "--json", "--port", fmt.Sprint(port), "--runs", filepath.Join(dir, "runs"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("tminus up: %v: %s", err, log.String())
		}
	})
	var u urls
	var text bytes.Buffer
	for s := bufio.NewScanner(out); s.Scan(); {
		text.WriteString(s.Text() + "\n")
		if s.Text() == "}" {
			break
		}
	}
	if err := json.Unmarshal(text.Bytes(), &u); err != nil || len(u.Regions) == 0 {
		t.Fatalf("tminus up said %q, %v: %s", text.String(), err, log.String())
	}
	file = filepath.Join(dir, "up.json")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var list []map[string]string
	for _, r := range u.Regions {
		list = append(list, map[string]string{"region": r.Region, "url": r.Playback})
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return file, string(b)
}

func TestEndToEnd(t *testing.T) {
	k6, tminus := binaries(t)
	up, services := pipeline(t, tminus)

	t.Run("a crowd that is served", func(t *testing.T) {
		e := run(t, nil, 0, k6, "run", "--quiet", "-e", "UP="+up, "examples/storm.js")
		if e.status != passed {
			t.Fatalf("exit %d, want %d:\n%s", e.status, passed, e.output)
		}
		// 1 s at 200 and 4 s at 2000.
		if !strings.Contains(e.output, "8200 of 8200 play starts ok") {
			t.Errorf("not every play start was ok:\n%s", e.output)
		}
	})

	t.Run("a threshold that must fail", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "strict.js")
		text := fmt.Sprintf(`import tminus from 'k6/x/tminus';
export const options = { vus: 1, iterations: 1, thresholds: { tminus_play_start_time: ['p(95)<0.001'] } };
export default function () { tminus.playStarts({ services: %s, title: 'first-light', rate: 200, for: '1s' }); }
`, services)
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e := run(t, nil, 0, k6, "run", "--quiet", script); e.status != thresholdsMissed {
			t.Errorf("exit %d, want %d:\n%s", e.status, thresholdsMissed, e.output)
		}
	})

	t.Run("a title that nobody has", func(t *testing.T) {
		if e := run(t, nil, 0, k6, "run", "--quiet", "-e", "UP="+up, "-e", "TITLE=another", "-e", "WATCH=3s", "-e", "FOR=2s", "examples/storm.js"); e.status != thresholdsMissed {
			t.Errorf("exit %d, want %d:\n%s", e.status, thresholdsMissed, e.output)
		}
	})

	t.Run("a far target", func(t *testing.T) {
		far := `[{"region":"a","url":"http://192.0.2.1"}]`
		if e := run(t, nil, 0, k6, "run", "--quiet", "-e", "SERVICES="+far, "examples/distributed.js"); e.status != scriptAborted || !strings.Contains(e.output, "agrees to be loaded") {
			t.Errorf("exit %d, want %d:\n%s", e.status, scriptAborted, e.output)
		}
	})

	t.Run("Ctrl-C", func(t *testing.T) {
		e := run(t, nil, 3*time.Second, k6, "run", "--quiet", "-e", "UP="+up, "-e", "FOR=60s", "-e", "WATCH=60s", "examples/storm.js")
		if e.status != externalAbort && e.status != thresholdsMissed {
			t.Errorf("exit %d, want %d or %d:\n%s", e.status, externalAbort, thresholdsMissed, e.output)
		}
		if e.took > 2*time.Second { // a second for the crowd, and what k6 needs for its summary
			t.Errorf("ended %v after Ctrl-C", e.took)
		}
	})

	t.Run("the manifests' scenario", func(t *testing.T) {
		b, err := os.ReadFile("deploy/script.yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "  scenario.yaml: |\n")
		text, _, found := strings.Cut(rest, "  distributed.js: |\n")
		if !found {
			t.Fatal("deploy/script.yaml holds no scenario")
		}
		file := filepath.Join(t.TempDir(), "scenario.yaml")
		text = strings.ReplaceAll("\n"+text, "\n    ", "\n")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if e := run(t, nil, 0, tminus, "scenario", "check", file); e.status != 0 {
			t.Errorf("exit %d: %s", e.status, e.output)
		}
	})

	t.Run("many pods, one verdict", func(t *testing.T) { distributed(t, k6, tminus, services) })
}

const scenario = `apiVersion: tminus/v1
name: first-light
event: {duration: 10s}
topology: {regions: [us-east, us-west]}
audience: {starts: [{at: 0s, rate: 2000}], players: 6}
objectives:
  startup_time: ["p(95)<%s"]
  video_start_failures: ["rate<0.1%%"]
  rebuffer_ratio:       ["avg<5%%"]
`

// report is what is asked of report.json.
type report struct {
	Verdict string   `json:"verdict"`
	Reasons []string `json:"reasons"`
	Load    struct {
		PlayStarts struct{ Intended, OK uint64 } `json:"play_starts"`
	} `json:"load"`
	Players   struct{ Sessions uint64 }
	Telemetry struct{ Emitted, Stored, Lost uint64 }
}

func distributed(t *testing.T, k6, tminus, services string) {
	dir := t.TempDir()
	broker, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join(dir, "kafka"), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- broker.Run(ctx) }()
	defer func() { stop(); <-ran }()

	send := func(id string, pods int, interrupt time.Duration, args ...string) {
		var wg sync.WaitGroup
		var sequence []string
		for i := range pods + 1 {
			sequence = append(sequence, fmt.Sprintf("%d/%d", i, pods))
		}
		sequence[0], sequence[pods] = "0", "1"
		for i := range pods {
			wg.Go(func() {
				var signal time.Duration
				if i == 0 {
					signal = interrupt
				}
				all := []string{"run", "--quiet", "--address", "", "-e", fmt.Sprintf("PODS=%d", pods), "-e", "SERVICES=" + services,
					"--execution-segment", sequence[i] + ":" + sequence[i+1], "--execution-segment-sequence", strings.Join(sequence, ",")}
				e := run(t, []string{"TMINUS_RUN=" + id, "TMINUS_KAFKA=" + broker.Addr()}, signal, k6, append(append(all, args...), "examples/distributed.js")...)
				if want := map[bool]int{false: passed, true: externalAbort}[signal > 0]; e.status != want {
					t.Errorf("pod %d of %s: exit %d, want %d:\n%s", i, id, e.status, want, e.output)
				}
			})
		}
		wg.Wait()
	}
	judge := func(id, limit string, args ...string) (int, report) {
		file := filepath.Join(dir, "scenario.yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, scenario, limit), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), tminus, append([]string{"judge", "--json", "--run", id, "--kafka", broker.Addr(), "--runs", filepath.Join(dir, "runs"), file}, args...)...)
		var log bytes.Buffer
		cmd.Stderr = &log
		out, err := cmd.Output()
		var exit *exec.ExitError
		status := 0
		if errors.As(err, &exit) {
			status = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		var r report
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("tminus judge %s: exit %d, %v: %s%s", id, status, err, out, log.String())
		}
		return status, r
	}

	send("saturday-1", 3, 0)
	status, r := judge("saturday-1", "2s", "--pods", "3", "--wait", "30s")
	if status != 0 || r.Verdict != "go" {
		t.Errorf("exit %d, %s: %v", status, r.Verdict, r.Reasons)
	}
	// 2000 a second for 5 s, and 6 players: of all pods together, none twice.
	if r.Load.PlayStarts.Intended != 10006 || r.Load.PlayStarts.OK != 10006 || r.Players.Sessions != 6 {
		t.Errorf("%+v, %+v", r.Load, r.Players)
	}
	if r.Telemetry.Emitted != r.Telemetry.Stored || r.Telemetry.Lost != 0 || r.Telemetry.Stored < 10006 {
		t.Errorf("%+v", r.Telemetry)
	}
	if status, r := judge("saturday-1", "0.001ms", "--pods", "3", "--wait", "30s"); status != 99 || r.Verdict != "no-go" {
		t.Errorf("an objective that cannot be met: exit %d, %s: %v", status, r.Verdict, r.Reasons)
	}
	if status, r := judge("saturday-1", "2s", "--pods", "4", "--wait", "3s"); status != 98 || !strings.Contains(strings.Join(r.Reasons, "; "), "3 of 4 pods") {
		t.Errorf("a pod too few: exit %d, %s: %v", status, r.Verdict, r.Reasons)
	}

	send("saturday-2", 2, 3*time.Second, "-e", "FOR=6s")
	if status, r := judge("saturday-2", "2s", "--pods", "2", "--wait", "30s"); status != 98 || !strings.Contains(strings.Join(r.Reasons, "; "), "were ended after") {
		t.Errorf("a pod that was interrupted: exit %d, %s: %v", status, r.Verdict, r.Reasons)
	}
}
