package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/dashboards/report"
)

// Whoever asks for the newest run's verdict is told when that run has none, and whose this is.
func TestNewestRunSaysWhatItLeavesOut(t *testing.T) {
	runs := t.TempDir()
	lay := func(name string, finished bool) {
		if err := os.MkdirAll(filepath.Join(runs, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if finished {
			if err := os.WriteFile(filepath.Join(runs, name, report.JSONFile), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	newest := func() (folder, said string) {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetErr(&out)
		folder, err := newestRun(cmd, runs)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Base(folder), out.String()
	}
	lay("20260101-a", true)
	if folder, said := newest(); folder != "20260101-a" || said != "" {
		t.Errorf("%s, %q", folder, said)
	}
	lay("20260102-b", false)
	lay("20260103-c", false)
	if folder, said := newest(); folder != "20260101-a" || !strings.Contains(said, "20260103-c has no report: it runs still, or never ended; this is ") {
		t.Errorf("%s, %q", folder, said)
	}
}
