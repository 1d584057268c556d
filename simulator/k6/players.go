package k6

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/grafana/sobek"
	"go.k6.io/k6/lib"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/sessions"
	"github.com/tminus-live/tminus/telemetry/event"
)

// tallest is the tallest rendition that a device asks for, in pixels; a device that is not named takes any. It is the
// rehearsal's.
var tallest = map[string]int{"phone": 540, "tablet": 720}

// players plays real media with full players and returns what they felt.
func (i *instance) players(v sobek.Value) sobek.Value {
	return i.run("players", func(ctx context.Context, state *lib.State) (map[string]any, error) {
		var o playersOptions
		if err := read(v, &o); err != nil {
			return nil, err
		}
		return i.play(ctx, state, o)
	})
}

func (i *instance) play(ctx context.Context, state *lib.State, o playersOptions) (map[string]any, error) {
	errs := []error{o.check()}
	if o.Players < 1 {
		errs = append(errs, fmt.Errorf("players: %d, want 1 or more", o.Players))
	}
	if (o.Manifest == "") == (len(o.Services) == 0) {
		errs = append(errs, errors.New("want services (playback services) or manifest (a DASH or HLS URL), one of them"))
	}
	length := time.Duration(o.For)
	spread := length / 2
	if o.Spread != nil {
		spread = time.Duration(*o.Spread)
	}
	if spread < 0 || spread > length {
		errs = append(errs, fmt.Errorf("spread: %v, want 0 to %v", spread, length))
	}
	zero, err := o.zero(time.Now())
	part, shardErr := shardOf(o.Shard, i.env, state.Options)
	if err := errors.Join(append(errs, err, shardErr)...); err != nil {
		return nil, err
	}
	share := part.part(o.Players)
	permits, err := i.permits(ctx, &o.crowdOptions, o.Manifest)
	if err != nil {
		return nil, err
	}
	who, err := audience.NewCrowd(o.Mix, o.regions(), audience.Seed(o.seed(), "players"))
	if err != nil {
		return nil, err
	}
	log := logger(state.Logger)
	next, err := i.module.events(ctx, o.Run, o.Kafka, i.env, log)
	if err != nil {
		return nil, err
	}
	r := i.module.record
	sink := newViewersSink(r, i.metrics, state.Tags.GetCurrentValues().Tags, next)
	cfg := sessions.Config{
		Players: share, Seed: audience.Seed(o.seed(), fmt.Sprintf("players %d of %d", part.i, part.of)),
		Title: o.Title, Manifest: o.Manifest, Start: zero, Spread: spread, End: zero.Add(length),
		UserAgent: consent.UserAgent("k6", i.runID(o.Run)), Sink: sink, Log: log,
		Viewer: func(j int) sessions.Viewer {
			n := part.i + j*part.of // among the players of all pods
			v := who.Viewer(uint64(n))
			format := player.DASH
			if n%2 == 1 {
				format = player.HLS
			}
			return sessions.Viewer{ID: fmt.Sprintf("player-%d", n+1), Device: v.Device, ISP: v.ISP, Home: v.Home, Format: format, MaxHeight: tallest[v.Device]}
		},
	}
	if !permits.own() {
		cfg.Permit = consent.Permits(permits)
	}
	for _, s := range o.Services {
		u, err := s.base()
		if err != nil {
			return nil, err
		}
		cfg.Play = append(cfg.Play, player.Service{Region: s.Region, URL: u.String()})
	}
	crowd, err := sessions.New(cfg)
	if err != nil {
		return nil, err
	}
	r.expect(uint64(share), uint64(share)*uint64(length/time.Second+1))
	next.Emit(event.Event{Kind: event.Phase, At: zero, Component: "k6", Detail: onAir})

	err = r.during(ctx, state, permits.during(crowd.Run))
	switch {
	case err != nil:
		i.module.interrupt(err.Error())
		return nil, err
	case ctx.Err() != nil:
		i.module.interrupt(fmt.Sprintf("its players were ended after %v of %v", time.Since(zero).Round(100*time.Millisecond), length))
	}
	s := crowd.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := viewing(&sink.call)
	got["players"] = share
	got["ended"], got["failed"] = s.Ended, s.Failed
	got["videoStartFailures"] = percent(float64(sink.call.notBegun), float64(sink.call.asked))
	got["edgeSwitches"] = s.EdgeSwitches
	got["complete"] = ctx.Err() == nil
	return got, nil
}
