package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/starts"
)

// StartsCommand is the subcommand that sends the open-loop play starts from a process of its own: the players and the
// event path beside it must not take the processor from it at the moment a start is due. It reads a StartsConfig from
// standard input and tells a starts.Snapshot some times a second.
const StartsCommand = "starts"

// tellEvery is the time between two snapshots.
const tellEvery = 250 * time.Millisecond

// StartsConfig is what the process of the open-loop crowd is told.
type StartsConfig struct {
	Scenario *spec.Scenario   `json:"scenario"`
	Services []starts.Service `json:"services"`
	Zero     time.Time        `json:"zero"` // T-0
	Run      string           `json:"run"`
	Events   EventsConfig     `json:"events"`
}

// SendStarts sends the scenario's play starts and returns when the last has ended, or ctx.
func SendStarts(ctx context.Context, cfg StartsConfig, log *slog.Logger) (err error) {
	events, err := cfg.Events.Open(log)
	if err != nil {
		return err
	}
	defer func() {
		if e := events.Close(); err == nil {
			err = e
		}
	}()
	sc := cfg.Scenario
	schedule, err := sc.Audience.Schedule(sc.Event.Duration)
	if err != nil {
		return err
	}
	people, err := audience.NewCrowd(sc.Audience.Mix, sc.Topology.Regions, audience.Seed(sc.Seed, "crowd"))
	if err != nil {
		return err
	}
	generator, err := starts.New(starts.Config{
		Schedule: schedule,
		Crowd:    people,
		Services: cfg.Services,
		Title:    sc.Name,
		Start:    cfg.Zero,
		Sink:     events,
		Log:      log,
	})
	if err != nil {
		return err
	}
	if err := process.Ready(nil); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- generator.Run(ctx) }()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := process.Tell(generator.Snapshot()); err != nil {
				log.Error("cannot tell the parent", "error", err)
			}
		case err := <-done:
			if e := process.Tell(generator.Snapshot()); e != nil {
				log.Error("cannot tell the parent", "error", e)
			}
			if errors.Is(err, context.Canceled) {
				return nil // the conductor ended the event
			}
			return err
		}
	}
}

// startsProcess is the open-loop crowd as its conductor holds it.
type startsProcess struct {
	cfg    StartsConfig
	folder string // for logs
	log    *slog.Logger

	mu   sync.Mutex
	last starts.Snapshot
	id   process.ID
}

// run starts the process and returns when the last play start has ended; when ctx ends it ends the process, in order.
func (s *startsProcess) run(ctx context.Context) error {
	stdin, err := json.Marshal(s.cfg)
	if err != nil {
		return err
	}
	p, err := process.Start(ctx, process.Spec{
		Name:      "starts",
		Args:      []string{StartsCommand},
		Stdin:     stdin,
		LogPath:   filepath.Join(s.folder, "starts.log"),
		StopGrace: stopGrace,
		Logger:    s.log,
		Finite:    true,
		Heard: func(message json.RawMessage) {
			var now starts.Snapshot
			if err := json.Unmarshal(message, &now); err != nil {
				s.log.Error("cannot make out how the play starts go", "error", err)
				return
			}
			s.mu.Lock()
			s.last = now
			s.mu.Unlock()
		},
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.id = p.ID()
	s.mu.Unlock()
	select {
	case <-p.Exited():
		if err := p.Err(); err != nil {
			return fmt.Errorf("the crowd cannot go on: %w", err)
		}
		return nil
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
		defer cancel()
		return p.Stop(grace)
	}
}

// snapshot is how far the crowd had come a moment ago.
func (s *startsProcess) snapshot() starts.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// ids names the process, once it was started.
func (s *startsProcess) ids() []process.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id.PID == 0 {
		return nil
	}
	return []process.ID{s.id}
}
