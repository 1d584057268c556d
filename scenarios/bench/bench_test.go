package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/tminus-live/tminus/scenarios/process"
)

// TestMain lets this binary be a benchmark's child process.
func TestMain(m *testing.M) {
	if process.WatchLifeline() && len(os.Args) > 1 && os.Args[1] == PartCommand {
		os.Exit(part())
	}
	os.Exit(m.Run())
}

func part() int {
	var p Part
	raw, err := process.Config()
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil {
		err = RunPart(context.Background(), p, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		_ = process.Fail(err)
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
