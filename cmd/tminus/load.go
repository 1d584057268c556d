package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/verdict"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

// loadFlags are what a load by hand is made of.
type loadFlags struct {
	rate        float64
	length      time.Duration
	curve       string
	mix         string
	title       string
	seed        uint64
	fresh       bool
	connections int
	inFlight    int
	method      string
	headers     []string
	body        string
	session     string
	manifest    string
	token       string
	limits      consent.Limits
	asJSON      bool
}

func loadCommand() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Send play starts to any HTTP play API, open loop, and say how it answers",
		Long: `Send play starts to an HTTP play API, open loop: each is due when the schedule says so, however slowly the API answers.
Without --body the request is that of the reference playback service (tminus up prints its URL). In the URL, the headers
and the body {{viewer}}, {{device}}, {{isp}}, {{title}} and {{number}} stand for what each viewer sends; the number is
another one in each request.

A URL outside this machine's loopback needs --consent (see tminus consent --help), --limit-rate and --limit-duration: a load
beyond its limits is refused before it starts.

Exit status: 0, or 98 when so many play starts could not be sent in time that the figures are those of a smaller crowd.`,
		Example: `  tminus load http://127.0.1.5:8080/v1/play --title first-light --rate 5000 --for 30s
  tminus load http://127.0.0.1:9000/session --rate 200 --body '{"who":"{{viewer}}"}' --session data.id`,
		Args: exactArgs(1, "the URL of a play API"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fl := cmd.Flags()
	fl.Float64Var(&f.rate, "rate", 100, "play starts a second")
	fl.DurationVar(&f.length, "for", 30*time.Second, "how long to send")
	fl.StringVar(&f.curve, "curve", string(audience.Constant), "how the rate moves: constant, ramp or spike")
	fl.StringVar(&f.mix, "mix", audience.DefaultMix, "audience mix: "+strings.Join(audience.Mixes(), ", "))
	fl.StringVar(&f.title, "title", "", "the event, as the API names it")
	fl.Uint64Var(&f.seed, "seed", 1, "the same seed gives the same viewers")
	fl.BoolVar(&f.fresh, "fresh", false, "a new connection for each play start")
	fl.IntVar(&f.connections, "connections", 64, "connections kept")
	fl.IntVar(&f.inFlight, "in-flight", 1, "requests in flight on a connection; more than 1 are pipelined")
	fl.StringVar(&f.method, "method", "POST", "HTTP method")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, `a header of the request, such as "X-Title: {{title}}"; may be given again`)
	fl.StringVar(&f.body, "body", "", "template of the request's body")
	fl.StringVar(&f.session, "session", "", "with --body: where the answer has the session, such as data.session.id")
	fl.StringVar(&f.manifest, "manifest", "", "with --body: where the answer has the manifest's URL")
	fl.StringVar(&f.token, "consent", "", "the token that the target serves")
	fl.Float64Var(&f.limits.MaxRate, "limit-rate", 0, "refuse a load that peaks above so many play starts a second")
	fl.DurationVar(&f.limits.MaxDuration, "limit-duration", 0, "refuse a load that lasts longer")
	fl.BoolVar(&f.asJSON, "json", false, "print the figures as JSON on standard output and nothing else there")
	return cmd
}

// loadResult is what a load came to.
type loadResult struct {
	URL       string          `json:"url"`
	Rate      float64         `json:"rate"`
	DurationS float64         `json:"duration_s"`
	Result    starts.Snapshot `json:"result"`
}

func (f *loadFlags) run(cmd *cobra.Command, raw string) error {
	target, err := url.Parse(raw)
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Host == "" || target.User != nil {
		return usage(fmt.Errorf("want the http or https URL of a play API, without a user, got %q", raw))
	}
	schedule, err := f.schedule()
	if err != nil {
		return usage(err)
	}
	permit, err := consent.Check(cmd.Context(), target, f.token)
	if err != nil {
		return err // it says itself whether it is a refusal
	}
	if l := f.limits; !permit.Addr().Addr().Unmap().IsLoopback() && (l.MaxRate == 0 || l.MaxDuration == 0) {
		return usage(errors.New("a target outside this machine is loaded within limits alone: give --limit-rate and --limit-duration"))
	}
	config, err := f.config(schedule, target, permit)
	if err != nil {
		return usage(err)
	}
	generator, err := starts.New(config)
	if err != nil {
		return usage(err)
	}
	ctx, stop := context.WithCancelCause(cmd.Context())
	defer stop(nil)
	go func() {
		if err := permit.Run(ctx); err != nil {
			stop(err)
		}
	}()
	err = f.watch(ctx, cmd.ErrOrStderr(), generator)
	result := loadResult{URL: raw, Rate: f.rate, DurationS: f.length.Seconds(), Result: generator.Snapshot()}
	if cause := context.Cause(ctx); cause != nil && cmd.Context().Err() == nil {
		return cause
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if f.asJSON {
		err = printJSON(cmd, result)
	} else {
		err = result.print(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	s := result.Result
	if s.Sent > 0 && s.OK == 0 {
		return errors.New("not one play start was answered with a session")
	}
	if float64(s.Dropped) > verdict.MaxDroppedShare*float64(s.Intended) {
		return exit{verdict.ExitCode(report.Inconclusive), fmt.Errorf("%d of %d play starts could not be sent in time: the crowd was smaller than asked for", s.Dropped, s.Intended)}
	}
	return nil
}

// schedule is who comes when, within the limits.
func (f *loadFlags) schedule() (*audience.Schedule, error) {
	if !slices.Contains([]string{string(audience.Constant), string(audience.Ramp), string(audience.Spike)}, f.curve) {
		return nil, fmt.Errorf("--curve %q: want constant, ramp or spike", f.curve)
	}
	if err := f.limits.Validate(); err != nil {
		return nil, err
	}
	schedule, err := audience.NewSchedule([]audience.Leg{{Rate: f.rate, For: f.length, Curve: audience.Curve(f.curve)}}, f.length)
	if err != nil {
		return nil, err
	}
	return schedule, f.limits.Allow(schedule.Peak(), f.length)
}

func (f *loadFlags) config(schedule *audience.Schedule, target *url.URL, permit *consent.Permit) (starts.Config, error) {
	if f.body == "" && (f.session != "" || f.manifest != "") {
		return starts.Config{}, errors.New("--session and --manifest say where the answer to a --body of your own has them")
	}
	crowd, err := audience.NewCrowd(f.mix, nil, f.seed)
	if err != nil {
		return starts.Config{}, err
	}
	now := time.Now()
	c := starts.Config{
		Schedule: schedule, Crowd: crowd, Services: []starts.Service{{Addr: permit.Addr()}}, Title: f.title, Start: now.Add(100 * time.Millisecond),
		Sink: event.Discard, UserAgent: consent.UserAgent(version(), now.UTC().Format("20060102-150405")+"-load"),
		PerService: f.connections, InFlight: f.inFlight, Seed: f.seed, Permit: consent.Permits{permit}.Permit,
	}
	if f.fresh {
		c.Connections = starts.Fresh
	}
	if target.Scheme == "https" {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: target.Hostname()}
	}
	if f.body == "" && len(f.headers) == 0 && f.method == "POST" && target.Path == "/v1/play" && target.RawQuery == "" {
		return c, nil // the reference playback service's own
	}
	c.Target = &starts.Request{Method: f.method, URL: target.String(), Body: f.body, Session: f.session, Manifest: f.manifest}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return c, fmt.Errorf("--header %q: want Name: value", h)
		}
		c.Target.Headers = append(c.Target.Headers, starts.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	return c, nil
}

// watch runs the generator and says once a second how it goes.
func (f *loadFlags) watch(ctx context.Context, w io.Writer, g *starts.Generator) error {
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			s := g.Snapshot()
			fmt.Fprintf(w, "%d play starts/s, %d ok, %d shed, %d failed, %d dropped, p95 %.3g ms from the intended moment\n",
				s.SentPerSecond, s.OK, s.Shed, s.Failed, s.Dropped, s.FromIntended.P95)
		}
	}
}

func (r loadResult) print(w io.Writer) error {
	s := r.Result
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "play starts\tintended %d\tsent %d\tok %d\tshed %d\tfailed %d\tdropped %d\n", s.Intended, s.Sent, s.OK, s.Shed, s.Failed, s.Dropped)
	for _, q := range []struct {
		name string
		starts.Quantiles
	}{{"intended → done", s.FromIntended}, {"sent → done", s.FromSent}, {"send lag", s.SendLag}} {
		fmt.Fprintf(t, "%s\tp50 %.3g ms\tp95 %.3g ms\tp99 %.3g ms\tp99.9 %.3g ms\tmax %.3g ms\t\n", q.name, q.P50, q.P95, q.P99, q.P999, q.Max)
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Failures)) {
		fmt.Fprintf(t, "%s\t%d\n", kind, s.Failures[kind])
	}
	return t.Flush()
}
