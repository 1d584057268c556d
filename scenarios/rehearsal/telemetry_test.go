package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/spool"
)

func TestMain(m *testing.M) {
	if process.WatchLifeline() {
		play(os.Args[1])
	}
	chtest.Main(m)
}

// play is a child of the run: a crowd that has nothing to send, or a region that tells whether it was there before.
func play(command string) {
	config, err := process.Config()
	var region RegionConfig
	if command == RegionCommand {
		err = errors.Join(err, json.Unmarshal(config, &region))
	}
	if err := errors.Join(err, process.Ready(map[string]string{"again": strconv.FormatBool(region.Again)})); err != nil {
		os.Exit(1)
	}
	if command == RegionCommand {
		select {} // until its parent ends it
	}
	os.Exit(0)
}

// path opens the event path of a run on a store of the test's.
func path(t *testing.T) (*telemetryPath, *chtest.Process) {
	t.Helper()
	p := chtest.Start(t, t.TempDir())
	cfg := Config{ClickHouse: p.URL, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	tp, err := openTelemetry(t.Context(), cfg, "r", t.TempDir(), new(state), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tp.close(); err != nil {
			t.Error(err)
		}
	})
	return tp, p
}

// leave writes events into the spool of a process that ends without having shipped any.
func leave(t *testing.T, dir, source string, n int) {
	t.Helper()
	e, err := spool.Open(spool.Config{Dir: dir, Run: "r", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for i := range n {
		e.Emit(event.Event{Kind: event.PlayStart, Status: "ok", Session: fmt.Sprint(source, i), Value: float64(i)})
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What the processes of a run left behind, however much, is stored once, and nothing is complained about.
func TestDrainStoresWhatWasLeftBehind(t *testing.T) {
	tp, _ := path(t)
	const sources, each = 3, 40_000
	for i := range sources {
		leave(t, tp.events.Spool, fmt.Sprintf("starts#%d", i), each)
	}
	tp.sink.Emit(event.Event{Kind: event.Phase})
	l, err := tp.drain(t.Context(), time.Minute)
	if err != nil || l.emitted != sources*each+1 || l.stored != l.emitted || l.dropped+l.duplicated > 0 || len(l.notes) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
	left, _ := filepath.Glob(filepath.Join(tp.events.Spool, "*.ndjson"))
	if len(left) > 0 {
		t.Errorf("segments left: %v", left)
	}
}

// A store that takes nothing any more is not waited for to the end of the limit, and it is said why.
func TestDrainEndsWhenNothingMoves(t *testing.T) {
	was := drainStall
	drainStall = 500 * time.Millisecond
	defer func() { drainStall = was }()
	tp, p := path(t)
	leave(t, tp.events.Spool, "starts#1", 1000)
	p.Process.Kill()
	p.Wait()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := tp.drain(ctx, time.Minute)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot tell what was stored: ") || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}
