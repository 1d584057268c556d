package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		{[]string{"rehearse", "--runs", runs, far}, exitUsage, "no proof that the target agrees"},
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
