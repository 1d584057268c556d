package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/simulator/wire/sessions"
	"github.com/tminus-live/tminus/simulator/wire/starts"
)

// crowd is everyone who presses Play: the open-loop starts, and the sessions that play to the end.
type crowd struct {
	starts   *startsProcess  // nil: the scenario has none
	sessions *sessions.Crowd // nil: the scenario has no players
}

// tallest is the tallest rendition that a device asks for, in pixels; a device that is not named takes any.
var tallest = map[string]int{"phone": 540, "tablet": 720}

func (r *Rehearsal) newCrowd() (*crowd, error) {
	sc := r.cfg.Scenario
	c := &crowd{}
	var services []starts.Service
	var playback []player.Service
	for _, region := range r.pipeline.Regions {
		addr := region.PlaybackAddr()
		if len(r.pipeline.Playback.Cert) > 0 {
			addr = region.PlaybackTLSAddr()
		}
		services = append(services, starts.Service{Region: region.Name, Addr: addr})
		playback = append(playback, player.Service{Region: region.Name, URL: region.PlaybackURL()})
	}
	tls := false
	if sc.Target != nil && sc.Target.Play != nil {
		addr, secure, err := playAddr(sc.Target, r.permits)
		if err != nil {
			return nil, err
		}
		services, tls = []starts.Service{{Addr: addr}}, secure
	}
	if len(sc.Audience.Starts) > 0 {
		events := r.telemetry.events
		events.Source = "starts#1"
		c.starts = &startsProcess{folder: r.folder, log: r.log, cfg: StartsConfig{
			Scenario: sc, Services: services, Zero: r.zero, Agent: r.agent(), Events: events, Permitted: addresses(r.permits), Own: r.system.own(), TLS: tls, CA: r.pipeline.Playback.Cert,
		}}
	}

	cfg := sessions.Config{
		Players: sc.Audience.Players,
		Seed:    audience.Seed(sc.Seed, "players"),
		Play:    playback,
		Title:   sc.Name,
		Start:   r.zero,
		Spread:  cmp.Or(sc.Audience.PlayersWithin, sc.Event.Duration/2), // so that some press Play in the middle of what is broken in the middle
		End:     r.zero.Add(sc.Event.Duration),
		Sink:    r.telemetry.sink,
		Log:     r.log,

		Permit: withinOwn{r.permits, r.system.own()}, UserAgent: r.agent(),
	}
	if sc.Target != nil {
		cfg.Play, cfg.Title, cfg.Manifest = nil, "", sc.Target.Manifest
	}
	// Players are drawn from a branch of their own: more of them does not change who makes the other starts.
	who, err := audience.NewCrowd(sc.Audience.Mix, sc.Topology.Regions, audience.Seed(sc.Seed, "players"))
	if err != nil {
		return nil, err
	}
	cfg.Viewer = func(i int) sessions.Viewer {
		v := who.Viewer(uint64(i))
		// Both formats are on the air and both are judged.
		format := player.DASH
		if i%2 == 1 {
			format = player.HLS
		}
		return sessions.Viewer{ID: fmt.Sprintf("player-%d", i+1), Device: v.Device, ISP: v.ISP, Home: v.Home, Format: format, MaxHeight: tallest[v.Device]}
	}
	if cfg.Players == 0 {
		return c, nil
	}
	c.sessions, err = sessions.New(cfg)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// run sends everyone and returns when the last has left; an error says why the crowd could not go on.
func (c *crowd) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	played := make(chan error, 1)
	go func() {
		if c.sessions == nil {
			played <- nil
			return
		}
		played <- c.sessions.Run(ctx)
	}()
	var errs []error
	if c.starts != nil {
		if err := c.starts.run(ctx); err != nil {
			cancel(err)
			errs = append(errs, err)
		}
	}
	errs = append(errs, <-played)
	return errors.Join(errs...)
}

// ids names the crowd's processes.
func (c *crowd) ids() []process.ID {
	if c.starts == nil {
		return nil
	}
	return c.starts.ids()
}

// sources are the crowd's processes that still have something to tell, as sources of telemetry.
func (c *crowd) sources() []string {
	if c.starts == nil || c.starts.finished() {
		return nil
	}
	return []string{c.starts.cfg.Events.Source}
}

// players is how the sessions that play to the end do; all zero without any.
func (c *crowd) players() sessions.Snapshot {
	if c.sessions == nil {
		return sessions.Snapshot{}
	}
	return c.sessions.Snapshot()
}

// snapshot is how the open-loop crowd did; all zero without one.
func (c *crowd) snapshot() starts.Snapshot {
	if c.starts == nil {
		return starts.Snapshot{}
	}
	return c.starts.snapshot()
}

// streamOver reports whether every player has left because the stream was over, and not one because it gave up.
func (c *crowd) streamOver() bool {
	s := c.players()
	return s.Ended > 0 && s.Failed == 0 && s.OnAir() == 0 && s.Waiting == 0
}

// startsNow is how the play starts go; all zero without an open-loop crowd.
func (c *crowd) startsNow() startsNow {
	s := c.snapshot()
	return startsNow{
		counts:   report.PlayStarts{Intended: s.Intended, Sent: s.Sent, OK: s.OK, Shed: s.Shed, Failed: s.Failed, Dropped: s.Dropped},
		okRate:   float64(s.OKPerSecond),
		failRate: float64(s.FailedPerSecond),
		requests: float64(s.AttemptsPerSecond),
	}
}
