package playback

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/reference/playback/steering"
	"github.com/tminus-live/tminus/telemetry/event"
)

// probesAtOnce bounds how many edges are looked at at the same time.
const probesAtOnce = 64

// Run probes every edge and asks every peer at the configured interval, moves levers and weights, and emits PlaybackStats each
// second, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.probe(ctx) })
	wg.Go(func() { s.decide(ctx) })
	for _, p := range s.cfg.Peers {
		wg.Go(func() { s.listen(ctx, p) })
	}
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.cfg.Sink.Emit(s.statsEvent())
			}
		}
	})
	wg.Wait()
	return nil
}

func (s *Service) probe(ctx context.Context) {
	tick := time.NewTicker(s.cfg.ProbeInterval)
	defer tick.Stop()
	for {
		if s.probeAll(ctx); ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probeAll looks at every edge once, then publishes what is known and tells what changed.
func (s *Service) probeAll(ctx context.Context) {
	edges := s.cfg.Stream.Edges
	errs := make([]error, len(edges))
	slots := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	for i, e := range edges {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, s.cfg.ProbeTimeout)
			defer cancel()
			errs[i] = s.cfg.Probe(ctx, e)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return // the service is stopping: these results mean nothing
	}
	now := s.cfg.Now()
	old := *s.health.Load()
	next := make([]steering.Health, len(old))
	changed := make([]bool, len(old))
	for i := range old {
		next[i], changed[i] = s.cfg.Probing.Step(old[i], errs[i] == nil, now)
	}
	s.health.Store(&next)
	for i, e := range edges {
		if changed[i] {
			s.tell(now, e.Region, e.ID, !next[i].Down, errs[i])
		}
	}
	s.mu.Lock()
	s.control.SetHealth(s.regionUp(s.cfg.Region, next))
	s.mu.Unlock()
	for _, region := range s.steer.Regions() {
		if before, after := s.regionUp(region, old), s.regionUp(region, next); before != after {
			s.tell(now, region, "", after, nil)
		}
	}
}

func (s *Service) regionUp(region string, health []steering.Health) bool {
	var up []bool
	for i, e := range s.cfg.Stream.Edges {
		if e.Region == region {
			up = append(up, !health[i].Down)
		}
	}
	return steering.RegionHealthy(up)
}

// tell puts a change of mind on the timeline; edge is empty when it is about a whole region.
func (s *Service) tell(now time.Time, region, edge string, up bool, err error) {
	ev := event.Event{At: now, Kind: event.RegionHealth, Status: "up", Region: region, Component: "playback/" + s.cfg.Region, Edge: edge}
	if !up {
		ev.Status = "down"
		if err != nil {
			ev.Detail = err.Error()
		}
	}
	s.cfg.Sink.Emit(ev)
	s.cfg.Log.Info("health changed", "target", region, "edge", edge, "status", ev.Status, "detail", ev.Detail)
}

// httpProbe asks an edge's /healthz over a connection of its own: an old one could outlive what it led to.
func httpProbe(local netip.Addr) func(context.Context, manifest.Edge) error {
	dialer := &net.Dialer{}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	return func(ctx context.Context, edge manifest.Edge) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, edge.URL+"/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", req.URL, resp.Status)
		}
		return nil
	}
}

func (s *Service) statsEvent() event.Event {
	take := func(c *atomic.Int64) float64 { return float64(c.Swap(0)) }
	now := s.cfg.Now()
	up := 0
	health := *s.health.Load()
	for _, h := range health {
		if s.cfg.Probing.Healthy(h, now) {
			up++
		}
	}
	s.mu.Lock()
	state := s.control.State(now)
	var sum admission.Totals
	shed := [admission.Kinds]float64{}
	for k := range admission.Kind(admission.Kinds) {
		total, was := s.control.Totals(k), s.told[k]
		s.told[k] = total
		sum.Offered += total.Offered - was.Offered
		sum.Admitted += total.Admitted - was.Admitted
		sum.Handed += total.Handed - was.Handed
		shed[k] = float64(total.Shed - was.Shed)
	}
	s.mu.Unlock()
	c := &s.stats
	return event.Event{
		At: now, Kind: event.PlaybackStats, Region: s.cfg.Region, Component: "playback/" + s.cfg.Region,
		Nums: map[string]float64{
			"requests": take(&c.requests), "started": take(&c.started), "shed": take(&c.shed), "bad": take(&c.bad), "unknown": take(&c.unknown),
			"manifests": take(&c.manifests), "steering": take(&c.steering), "licences": take(&c.licences), "bad_session": take(&c.badSession),
			"in_flight": float64(s.inFlight.Load()), "in_flight_max": take(&s.peak), "queue_ms": take(&s.queue) / 1e6,
			"edges_up": float64(up), "edges": float64(len(health)),
			"offered": float64(sum.Offered), "admitted": float64(sum.Admitted), "handed": float64(sum.Handed),
			"shed_live": shed[admission.Live], "shed_catchup": shed[admission.CatchUp], "shed_vod": shed[admission.VOD], "shed_prefetch": shed[admission.Prefetch],
			"capacity": state.Capacity, "overload": state.Overload, "pressure": state.Pressure, "weight": state.Weights[s.cfg.Region], "spill": state.Spill,
			"viewers": state.Viewers, "waiting": state.Waiting, "window_s": state.Window,
		},
	}
}
