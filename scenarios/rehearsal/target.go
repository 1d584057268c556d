package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/sessions"
)

// ErrRefused is wrapped by what refuses to load somebody else's target.
var ErrRefused = errors.New("refused")

// Permissible says why a scenario's target would be refused without anybody being asked, or nil: one elsewhere must have agreed, and
// is loaded within limits alone.
func Permissible(sc *spec.Scenario) error {
	t := sc.Target
	if t == nil || t.Loopback() {
		return nil
	}
	var errs []error
	if t.Consent == "" {
		errs = append(errs, fmt.Errorf("a target outside this machine must agree to be loaded: have it serve the token that \"tminus consent %s\" prints at %s, and give the scenario that token as target.consent", t.URLs()[0], consent.Path))
	}
	if l := sc.Limits; l.Rate == 0 || l.Duration == 0 {
		errs = append(errs, errors.New("a target outside this machine is loaded within limits alone: give the scenario some, such as limits: {rate: 1000, duration: 10m}"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// admit asks the target whether it may be loaded, and looks at its stream, before anybody presses Play. A target on
// this machine's loopback passes without ceremony; any other must agree, and the scenario must set its load a ceiling.
func (r *Rehearsal) admit(ctx context.Context, t *spec.Target) (consent.Permits, error) {
	var permits consent.Permits
	for _, raw := range t.URLs() {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		p, err := consent.Check(ctx, u, consent.Given{Tokens: t.Consent, As: "in the scenario as target.consent"})
		if err != nil {
			return nil, err
		}
		permits = append(permits, p)
	}
	sc := r.cfg.Scenario
	if err := Permissible(sc); err != nil {
		return nil, err
	}
	peak := 0.0
	if len(sc.Audience.Starts) > 0 {
		schedule, err := sc.Audience.Schedule(sc.Event.Duration)
		if err != nil {
			return nil, err
		}
		peak = schedule.Peak()
	}
	if err := (consent.Limits{MaxRate: sc.Limits.Rate, MaxDuration: sc.Limits.Duration}).Allow(peak, sc.Event.Duration); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if t.Manifest == "" {
		return permits, nil
	}
	return permits, sessions.ProbeWith(ctx, t.Manifest, time.Now(), sessions.Config{Permit: permits, UserAgent: r.agent()})
}

// agent is what the run calls itself in each request.
func (r *Rehearsal) agent() string { return consent.UserAgent(r.cfg.Version, r.id) }

// addresses are the permits' addresses that are not on loopback.
func addresses(permits consent.Permits) (out []netip.AddrPort) {
	for _, p := range permits {
		if !p.Addr().Addr().Unmap().IsLoopback() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// playAddr is where the target's play API is connected to.
func playAddr(t *spec.Target, permits consent.Permits) (netip.AddrPort, bool, error) {
	u, err := url.Parse(t.Play.URL)
	if err != nil {
		return netip.AddrPort{}, false, err
	}
	// The play API is the last of the target's URLs.
	return permits[len(permits)-1].Addr(), u.Scheme == "https", nil
}
