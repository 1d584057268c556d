package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/scenarios/spec"
)

// What a command is asked wrongly is said before anything is begun, with the status that says so.
func TestUsageIsRefusedBeforeAnythingBegins(t *testing.T) {
	dir := t.TempDir()
	far := filepath.Join(dir, "far.yaml")
	if err := os.WriteFile(far, []byte(`apiVersion: tminus/v1
name: far
event: {duration: 10s}
audience: {players: 1}
target: {manifest: "http://10.0.0.9/live.m3u8"}
objectives: {player_start_failures: ["rate==0%"]}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	huge := write("huge.yaml", strings.Repeat("#\n", spec.MaxBytes))
	api := write("api.yaml", `apiVersion: tminus/v1
name: api
event: {duration: 10s}
audience: {starts: [{at: 0s, rate: 1}]}
target: {play: {url: "http://127.0.0.1:9/play", session: id}}
objectives: {video_start_failures: ["rate<1%"]}
`)
	events := write("events.yaml", `apiVersion: tminus/v1
name: events
event: {duration: 10s}
topology: {regions: [here]}
audience: {players: 1}
faults: [{at: 2s, for: 2s, fail: kafka, where: kafka}]
objectives: {rebuffer_ratio: ["avg<1%"]}
`)
	runs := filepath.Join(dir, "runs")
	for _, c := range []struct {
		args   []string
		status int
		stderr string
	}{
		{[]string{"rehearse", "--runs", runs, "--kafka", "nonsense"}, exitUsage, `must be host:port, or several with commas, not "nonsense"`},
		{[]string{"rehearse", "--runs", runs, "--clickhouse", "foo"}, exitUsage, "clickhouse://foo has none"},
		{[]string{"up", "--runs", runs, "--clickhouse", "ftp://foo:1"}, exitUsage, "not spoken to over ftp"},
		{[]string{"judge", "--runs", runs, "--run", "r", "--kafka", "nonsense", "first-light"}, exitUsage, "must be host:port"},
		{[]string{"judge", "--runs", runs, "--run", "r", "--kafka", "127.0.0.1:1"}, exitUsage, "takes the scenario whose objectives the run is judged by"},
		{[]string{"rehearse", "--runs", runs, far}, exitUsage, "a target outside this machine must agree to be loaded"},
		{[]string{"rehearse", "--runs", runs, "--dry-run", far}, exitUsage, "a target outside this machine must agree to be loaded"},
		{[]string{"rehearse", "--runs", runs, "--kafka", "127.0.0.1:9", events}, exitUsage, "it is not of this run"},
		{[]string{"rehearse", "--runs", runs, "--kafka", "127.0.0.1:9", "--dry-run", events}, exitUsage, "it is not of this run"},
		{[]string{"up", "--runs", runs, api}, exitUsage, "api points at http://127.0.0.1:9/play: there is no pipeline of ours to run"},
		{[]string{"scenario", "check", huge}, exitInvalid, "the file is too large: at most 1024 KiB are read"},
		{[]string{"scenario", "check", far}, exitUsage, "is written well, and tminus rehearse would refuse it: refused: a target outside this machine must agree to be loaded"},
		{[]string{"scenario", "check", far}, exitUsage, "; a target outside this machine is loaded within limits alone"},
		{[]string{"report", "--runs", runs, "nosuch"}, exitError, "there is no finished run nosuch: want its id in " + runs},
		{[]string{"consent", "http://u:p@foo/path"}, exitUsage, "leave out what stands before the @"},
		{[]string{"consent", "http://foo/path"}, 0, "a token is for all that foo serves, not for /path alone"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(c.args, strings.NewReader(""), &stdout, &stderr)
		if status != c.status || !strings.Contains(stderr.String(), c.stderr) || status != 0 && stdout.Len() > 0 {
			t.Errorf("%v: exit status %d, stdout %q, stderr %q", c.args, status, stdout.String(), stderr.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(runs, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Whoever asks for a token is told every place that it can be given at, and that a load elsewhere needs limits.
func TestConsentSaysWhereItIsGiven(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run([]string{"consent", "https://play.example.com"}, strings.NewReader(""), &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d, %s", status, stderr.String())
	}
	token, _, _ := strings.Cut(stdout.String(), "\n")
	for _, want := range []string{"target: {consent: " + token + "}", "limits: {rate: 1000, duration: 10m}", "--consent " + token + " --limit-rate 1000 --limit-duration 10m", "consent: '" + token + "', limits: {"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, stdout.String())
		}
	}
}

// What lies beside a scenario is read whole, or not at all: a trace without its end is another trace.
func TestFilesBesideAScenarioAreReadWhole(t *testing.T) {
	dir := t.TempDir()
	trace := strings.Repeat("0\n", 1<<20-1) + "1\n" // as long as a trace may be, with line ends
	for name, text := range map[string]string{"trace.txt": trace, "long.txt": strings.Repeat("#", spec.MaxBeside+1), "trace.yaml": `apiVersion: tminus/v1
name: trace
event: {duration: 60s}
topology: {regions: [here]}
audience: {players: 1}
faults: [{at: 10s, for: 20s, fail: packet-loss, where: here, model: {trace: {file: trace.txt}}}]
objectives: {rebuffer_ratio: ["avg<1%"]}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sc, err := readScenario(filepath.Join(dir, "trace.yaml"))
	if err != nil || sc.Faults[0].Files["file"] != trace {
		t.Errorf("%d bytes of %d, %v", len(sc.Faults[0].Files["file"]), len(trace), err)
	}
	if _, err := readBounded(filepath.Join(dir, "long.txt"), spec.MaxBeside); !errors.Is(err, errTooLarge) {
		t.Errorf("%v", err)
	}
}
