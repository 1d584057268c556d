package k6

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/grafana/sobek"
	"go.k6.io/k6/lib"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

// latePercent is how many starts a machine may be late with by its own doing, in per cent: the verdict's own bound.
const latePercent = 0.1

// onAir is the Phase at a call's T+0: the earliest of a run's is the run's.
const onAir = "on air"

// playStarts sends an open-loop schedule of play starts and returns what they came to.
func (i *instance) playStarts(v sobek.Value) sobek.Value {
	return i.run("playStarts", func(ctx context.Context, state *lib.State) (map[string]any, error) {
		var o startsOptions
		if err := read(v, &o); err != nil {
			return nil, err
		}
		return i.sendStarts(ctx, state, o)
	})
}

func (i *instance) sendStarts(ctx context.Context, state *lib.State, o startsOptions) (map[string]any, error) {
	whole, err := o.schedule()
	errs := []error{o.check(), err}
	if len(o.Services) == 0 {
		errs = append(errs, errors.New("services: want one or more of {region, url}"))
	}
	zero, err := o.zero(time.Now())
	part, shardErr := shardOf(o.Shard, i.env, state.Options)
	if err := errors.Join(append(errs, err, shardErr)...); err != nil {
		return nil, err
	}
	if err := o.limited(whole, false); err != nil {
		return nil, err // before anybody is asked for consent
	}
	schedule, err := whole.Shard(part.i, part.of)
	if err != nil {
		return nil, err
	}
	crowd, err := audience.NewCrowd(o.Mix, o.regions(), audience.Seed(o.seed(), "crowd"))
	if err != nil {
		return nil, err
	}
	if crowd, err = crowd.Shard(part.i, part.of); err != nil {
		return nil, err
	}
	log := logger(state.Logger)
	run := i.runID(o.Run)
	cfg := starts.Config{
		Schedule: schedule, Crowd: crowd, Title: o.Title, Token: o.Token, Start: zero, Log: log, UserAgent: consent.UserAgent("k6", run),
		Connections: starts.Connections(o.Connections.Kind), PerService: o.Connections.PerService, InFlight: o.Connections.InFlight,
		People: o.people(), Seed: audience.Seed(o.seed(), "people"), Target: o.target(),
	}
	if l := o.Limits; l != nil {
		cfg.MaxRate, cfg.MaxLength = l.Rate/float64(part.of), time.Duration(l.Duration)
	}
	permits, err := i.permits(ctx, &o.crowdOptions, "")
	if err != nil {
		return nil, err
	}
	if err := o.limited(whole, !permits.own()); err != nil {
		return nil, err
	}
	for j, s := range o.Services {
		cfg.Services = append(cfg.Services, starts.Service{Region: s.Region, Addr: permits[j].Addr()})
	}
	if !permits.own() {
		cfg.Permit = consent.Permits(permits).Permit
	}
	if cfg.TLS, err = tlsOf(o.Services, state.TLSConfig); err != nil {
		return nil, err
	}
	next, err := i.module.events(ctx, o.Run, o.Kafka, i.env, log)
	if err != nil {
		return nil, err
	}
	r := i.module.record
	sink := newStartsSink(r, i.metrics, state.Tags.GetCurrentValues().Tags, next)
	cfg.Sink = sink
	generator, err := starts.New(cfg)
	if err != nil {
		return nil, err
	}
	r.expect(schedule.Total(), 0)
	next.Emit(event.Event{Kind: event.Phase, At: zero, Component: "k6", Detail: onAir})

	err = r.during(ctx, state, permits.during(generator.Run))
	n := generator.Snapshot()
	r.add(n)
	for sec, s := range generator.Seconds(0) { // for the verdict: what was due, and whether this machine kept up
		next.Emit(event.Event{Kind: event.LoadStats, At: zero.Add(time.Duration(sec)*time.Second + time.Second/2), Component: "k6", Nums: s.Nums()})
	}
	if n.FirstFailure != "" {
		log.Warn("the first wrong answer: " + n.FirstFailure)
	}
	if share := 100 * n.LateShare(); share > latePercent {
		log.Warn(fmt.Sprintf("this machine could not send the crowd on time: %d play starts (%.2f %%) went out more than 10 ms late by its own doing", n.Late, share))
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		i.module.interrupt(fmt.Sprintf("its play starts were ended after %d of %d", n.Intended, schedule.Total()))
	default:
		i.module.interrupt(err.Error())
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	got := countsOf(n)
	got["scheduled"] = schedule.Total()
	got["complete"] = err == nil
	got["latency"] = quantiles(&sink.sent)
	got["playStartTime"] = quantiles(&sink.ok)
	got["sendLag"] = quantiles(&sink.lag)
	got["late"] = n.Late
	got["ownLag"] = map[string]any{"p50": n.OwnLag.P50, "p95": n.OwnLag.P95, "p99": n.OwnLag.P99, "p999": n.OwnLag.P999, "max": n.OwnLag.Max}
	got["firstFailure"] = n.FirstFailure
	return got, nil
}

// runID is the run's id as requests name it; "" without one.
func (i *instance) runID(o string) string {
	if o != "" {
		return o
	}
	return i.env("TMINUS_RUN")
}

// permits are what may be loaded: loopback as it is, anything else by its consent.
type permits []*consent.Permit

// permits asks every target of a call for its permit, in the order of the services; a manifest's comes last.
func (i *instance) permits(ctx context.Context, o *crowdOptions, manifest string) (permits, error) {
	tokens := o.Consent
	if tokens == "" {
		tokens = i.env("TMINUS_CONSENT")
	}
	var targets []*url.URL
	for _, s := range o.Services {
		u, err := s.base()
		if err != nil {
			return nil, err
		}
		targets = append(targets, u)
	}
	if manifest != "" {
		u, err := url.Parse(manifest)
		if err != nil {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		targets = append(targets, u)
	}
	var ps permits
	for _, t := range targets {
		p, err := consent.Check(ctx, t, consent.Given{Tokens: tokens, As: "in the call as consent: or in the environment as TMINUS_CONSENT"})
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// own reports whether all targets are loopback's.
func (ps permits) own() bool {
	for _, p := range ps {
		if !p.Addr().Addr().Unmap().IsLoopback() {
			return false
		}
	}
	return true
}

// during is a load that ends when a target withdraws its consent.
func (ps permits) during(load func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			if err := consent.Permits(ps).Run(ctx); err != nil {
				stop(err)
			}
		}()
		err := load(ctx)
		if cause := context.Cause(ctx); errors.Is(cause, consent.ErrNoConsent) {
			err = cause
		}
		stop(nil)
		<-watched
		return err
	}
}

// tlsOf is how https services are talked to: as k6 itself is told to (tlsAuth, insecureSkipTLSVerify); nil for http.
func tlsOf(services []serviceOption, base *tls.Config) (*tls.Config, error) {
	var schemes, hosts []string
	for _, s := range services {
		u, err := s.base()
		if err != nil {
			return nil, err
		}
		if len(schemes) > 0 && (u.Scheme != schemes[0] || u.Scheme == "https" && u.Hostname() != hosts[0]) {
			return nil, fmt.Errorf("services: %s and %s: one call talks plain HTTP to all of them, or TLS to one name", services[0].URL, s.URL)
		}
		schemes, hosts = append(schemes, u.Scheme), append(hosts, u.Hostname())
	}
	if schemes[0] == "http" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		c = base.Clone()
	}
	c.ServerName = hosts[0]
	c.NextProtos = []string{"http/1.1"}
	return c, nil
}
