package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/chaos/watchdog"
)

func TestChaosClean(t *testing.T) {
	var stdout, stderr bytes.Buffer
	// A dry run: what others have on this machine is not this test's to remove.
	status := run([]string{"chaos", "clean", "--dry-run", "--json"}, strings.NewReader(""), &stdout, &stderr)
	var found []watchdog.Found
	if err := json.Unmarshal(stdout.Bytes(), &found); err != nil || found == nil {
		t.Fatalf("%v: %q", err, stdout.String())
	}
	if want := min(len(found), exitError); status != want {
		t.Errorf("exit status %d with %d things left over; %s", status, len(found), stderr.String())
	}
	for _, f := range found {
		if f.Removed {
			t.Errorf("a dry run removed %+v", f)
		}
	}
	if status := run([]string{"chaos", "clean", "everything"}, strings.NewReader(""), &stdout, &stderr); status != exitUsage {
		t.Errorf("exit status %d, want %d", status, exitUsage)
	}
}

func TestByHandThereIsNoWatchdog(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run([]string{"watchdog"}, strings.NewReader(""), &stdout, &stderr); status != exitUsage || !strings.Contains(stderr.String(), `no command "watchdog"`) {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
}

// A look that fails late has removed something by then: that is told, and so is why it failed.
func TestChaosCleanTellsWhatItRemovedBeforeItFailed(t *testing.T) {
	var stdout bytes.Buffer
	cmd := chaosCleanCommand()
	cmd.SetOut(&stdout)
	failed := errors.New("look for kernel programs: no")
	err := tellFound(cmd, []watchdog.Found{{What: "stopped process 4711", Removed: true}}, failed, false, false)
	if !errors.Is(err, failed) || stdout.String() != "removed: stopped process 4711\n" {
		t.Errorf("%v, %q", err, stdout.String())
	}
}

// What is under way is left alone, and said to be there.
func TestChaosCleanSaysWhatItLeavesAlone(t *testing.T) {
	guard, err := watchdog.Start(t.Context(), watchdog.Config{Run: "under-way"})
	if err != nil {
		t.Fatal(err)
	}
	defer guard.Close()
	var stdout, stderr bytes.Buffer
	run([]string{"chaos", "clean", "--dry-run"}, strings.NewReader(""), &stdout, &stderr)
	if !strings.HasSuffix(stdout.String(), " under way: left alone\n") { // others' may be too
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}
