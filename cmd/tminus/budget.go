package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// What processes set aside, bytes: at a hundred thousand play starts a second about half of it is alive.
const (
	conductorMemory = 88 << 20
	regionMemory    = 96 << 20
)

// keepTo lets this process take a budget of memory (bytes, of the Go runtime) from the beginning, and collects garbage when that
// is full: what it takes is what was set aside, rather than what happens to be alive. When more is alive than fits, the
// budget follows, a quarter above it. It returns when ctx ends; from then on it is as it was.
func keepTo(ctx context.Context, budget int64) {
	limit := budget
	wasLimit, wasPercent := debug.SetMemoryLimit(limit), debug.SetGCPercent(-1)
	defer func() { debug.SetGCPercent(wasPercent); debug.SetMemoryLimit(wasLimit) }()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		if next := room(budget, int64(live[0].Value.Uint64())); next != limit {
			limit = next
			debug.SetMemoryLimit(limit)
		}
	}
}

// room is how much to take, at least the budget, when so much is alive.
func room(budget, live int64) int64 { return max(budget, live*5/4+runtimeOwn) }

// runtimeOwn is what the Go runtime takes beside the heap, about.
const runtimeOwn = 12 << 20
