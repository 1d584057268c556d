package rehearsal

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/procstat"
)

// sampleEvery is the time between two looks at what a process takes.
const sampleEvery = time.Second

// watchProcesses puts what each process of the run takes on the timeline, until ctx ends. pids lists those that run, by
// name.
func watchProcesses(ctx context.Context, pids func() map[string]int, sink event.Sink, log *slog.Logger) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for name, pid := range pids() {
				s, err := procstat.Read(pid)
				switch {
				case err == nil:
					sink.Emit(s.Event(name, now))
				case !errors.Is(err, fs.ErrNotExist): // it has just ended
					log.Warn("cannot tell what a process takes", "process", name, "error", err)
				}
			}
		}
	}
}

// pids are the processes of the run that are alive, by name.
func (r *Rehearsal) pids(c *crowd) map[string]int {
	all := map[string]int{"conductor": os.Getpid()}
	for _, region := range r.regions {
		if pid, ok := region.PID(); ok {
			all["region/"+region.Name()] = pid
		}
	}
	for _, id := range c.ids() {
		all[id.Name] = id.PID
	}
	if p := r.telemetry.process; p != nil && p.Alive() {
		all["store"] = p.PID()
	}
	return all
}
