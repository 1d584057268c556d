package rehearsal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
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
	Agent    string           `json:"agent"`
	Events   EventsConfig     `json:"events"`

	// Permitted are addresses outside loopback that may be loaded: those of a target that has agreed.
	Permitted []netip.AddrPort `json:"permitted,omitempty"`
	Own       netip.Prefix     `json:"own,omitzero"`  // the run's own network; not valid: it is on the loopback
	TLS       bool             `json:"tls,omitempty"` // the play API speaks HTTPS
	CA        []byte           `json:"ca,omitempty"`  // PEM: who signed the certificates of the run's playback services
}

// eager is the rate from which answers are read in batches: below it each is read as it comes.
const eager = 20_000

// generator is the load engine as the scenario sets it up.
func (cfg StartsConfig) generator(sink event.Sink, log *slog.Logger) (*starts.Generator, error) {
	sc := cfg.Scenario
	schedule, err := sc.Audience.Schedule(sc.Event.Duration)
	if err != nil {
		return nil, err
	}
	people, err := audience.NewCrowd(sc.Audience.Mix, sc.Topology.Regions, audience.Seed(sc.Seed, "crowd"))
	if err != nil {
		return nil, err
	}
	c := starts.Config{
		Schedule: schedule, Crowd: people, Services: cfg.Services, Title: sc.Name, Start: cfg.Zero, Sink: sink, Log: log,
		UserAgent: cfg.Agent, PerService: sc.Audience.Connections.PerService, InFlight: sc.Audience.Connections.InFlight,
		People: sc.Audience.People, Seed: audience.Seed(sc.Seed, "people"),
		MaxRate: sc.Limits.Rate, MaxLength: sc.Limits.Duration,
		Nice: -10, // a start is due whatever else of the rehearsal wants the processor
	}
	if schedule.Peak() >= eager {
		c.Coalesce = time.Millisecond
	}
	switch sc.Audience.Connections.Kind {
	case spec.Fresh:
		c.Connections = starts.Fresh
	case spec.FreshTLS:
		c.Connections = starts.Fresh
		cfg.TLS = true
	}
	for _, i := range sc.Audience.Interruptions {
		c.Interruptions = append(c.Interruptions, starts.Interruption{
			Name: "interruption of " + i.Region, At: i.At, For: i.For, Region: i.Region, Viewers: i.Viewers, Guided: i.Guided,
		})
	}
	if t := sc.Target; t != nil && t.Play != nil {
		c.Target = t.Play.Request()
	}
	if cfg.TLS {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
		if t := sc.Target; t != nil {
			u, err := url.Parse(t.Play.URL)
			if err != nil {
				return nil, err
			}
			c.TLS.ServerName = u.Hostname()
		} else {
			c.TLS.RootCAs = x509.NewCertPool()
			if !c.TLS.RootCAs.AppendCertsFromPEM(cfg.CA) {
				return nil, errors.New("the run has no certificate that its playback services could be known by")
			}
		}
	}
	if len(cfg.Permitted) > 0 || cfg.Own.IsValid() {
		c.Permit = func(_ context.Context, addr netip.AddrPort) error {
			if to := addr.Addr().Unmap(); to.IsLoopback() || slices.Contains(cfg.Permitted, addr) || cfg.Own.IsValid() && cfg.Own.Contains(to) {
				return nil
			}
			return fmt.Errorf("%s is no address that agreed to be loaded", addr)
		}
	}
	return starts.New(c)
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
	generator, err := cfg.generator(events, log)
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
	told := 0 // seconds of the event that are on the timeline
	tell := func(seconds int) {
		if err := process.Tell(generator.Snapshot()); err != nil {
			log.Error("cannot tell the parent", "error", err)
		}
		for _, s := range generator.Seconds(told) {
			if told >= seconds {
				break
			}
			// In the second's middle, so that a part of the event that begins or ends on a second holds whole ones.
			at := cfg.Zero.Add(time.Duration(told)*time.Second + time.Second/2)
			told++
			events.Emit(event.Event{Kind: event.LoadStats, At: at, Component: "starts", Nums: s.Nums()})
		}
	}
	for {
		select {
		case now := <-tick.C:
			// A start is counted where it was due, which a loop that is behind comes to later: a second is told when nothing
			// can be added to it any more.
			tell(int((now.Sub(cfg.Zero) - settled) / time.Second))
		case err := <-done:
			tell(math.MaxInt)
			if errors.Is(err, context.Canceled) {
				return nil // the conductor ended the event
			}
			return err
		}
	}
}

// settled is how long after its end a second of the crowd is complete: what is later than the generator's bound on send
// lag has been dropped by then.
const settled = 3 * time.Second

// startsProcess is the open-loop crowd as its conductor holds it.
type startsProcess struct {
	cfg    StartsConfig
	folder string // for logs
	log    *slog.Logger

	mu   sync.Mutex
	last starts.Snapshot
	id   process.ID
	done bool // the last play start has ended
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
		s.mu.Lock()
		s.done = true
		s.mu.Unlock()
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

// finished reports whether the process has told all that it had to tell.
func (s *startsProcess) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
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
