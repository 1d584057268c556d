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
	"strconv"
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
	timeout     time.Duration
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
Without --body, a POST is the reference playback service's request (tminus up prints its URL), and an answer is good when it
is that service's: status 200, a session and manifests. With --body, or another method, an answer is good when it has what
--session and --manifest name; with neither, every status from 200 to 299 counts as good. In the URL, the headers and the
body {{viewer}}, {{device}}, {{isp}}, {{title}} and {{number}} stand for what each viewer sends; the number is another one
in each request.

An answer of 503 or 429 with a retry policy or a Retry-After field counts as shed: its viewer tries again when it says, three
times at the most. Every other answer that is no good one has failed.

A URL outside this machine's loopback needs --consent (see tminus consent --help), --limit-rate and --limit-duration: a load
beyond its limits is refused before it starts, and viewers who try again stay within them.

Exit status: 0; 98 when the figures are not those of the crowd that was asked for: it was interrupted, or more than 0.1 % of the
play starts could not be sent, or went out more than 10 ms late by this machine's own doing; 2 usage, or no consent; 1 when
not one play start was answered well, or any other error.`,
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
	fl.IntVar(&f.connections, "connections", 64, "connections kept, 1 to 65536")
	fl.IntVar(&f.inFlight, "in-flight", 1, "requests in flight on a connection, 1 to 256; more than 1 are pipelined")
	fl.StringVar(&f.method, "method", "POST", "HTTP method")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, `a header of the request, such as "X-Title: {{title}}"; may be given again`)
	fl.StringVar(&f.body, "body", "", "template of the request's body")
	fl.StringVar(&f.session, "session", "", "with --body or another method: where the answer has the session, such as data.session.id or result.0.id")
	fl.StringVar(&f.manifest, "manifest", "", "with --body or another method: where the answer has the manifest's URL")
	fl.DurationVar(&f.timeout, "timeout", time.Second, "how long connecting and the whole answer may take, 5m at the most")
	fl.StringVar(&f.token, "consent", "", "the token that the target serves")
	fl.Float64Var(&f.limits.MaxRate, "limit-rate", 0, "refuse a load that peaks above so many play starts a second; who tries again waits for room below it")
	fl.DurationVar(&f.limits.MaxDuration, "limit-duration", 0, "refuse a load that lasts longer; nobody tries again later than that")
	fl.BoolVar(&f.asJSON, "json", false, "print the figures as JSON on standard output and nothing else there")
	return cmd
}

// loadResult is what a load came to.
type loadResult struct {
	URL       string  `json:"url"`
	Rate      float64 `json:"rate"`
	DurationS float64 `json:"duration_s"` // how long it was sent, when it was interrupted; else how long it was to be

	Interrupted bool   `json:"interrupted"`
	Note        string `json:"note,omitempty"` // what the figures do not say

	Result starts.Snapshot `json:"result"`
}

func (f *loadFlags) run(cmd *cobra.Command, raw string) error {
	target, err := url.Parse(raw)
	if err != nil || target.Scheme != "http" && target.Scheme != "https" || target.Host == "" || target.User != nil {
		return usage(fmt.Errorf("want the http or https URL of a play API, without a user, got %q", raw))
	}
	if err := f.check(); err != nil {
		return usage(err)
	}
	schedule, err := f.schedule()
	if err != nil {
		return usage(err)
	}
	permit, err := consent.Check(cmd.Context(), target, consent.Given{Tokens: f.token, As: "with --consent"})
	if err != nil {
		return err // it says itself whether it is a refusal
	}
	if l := f.limits; !permit.Addr().Addr().Unmap().IsLoopback() && (l.MaxRate == 0 || l.MaxDuration == 0) {
		return usage(errors.New("a target outside this machine is loaded within limits alone: give --limit-rate and --limit-duration"))
	}
	config, err := f.config(schedule, raw, target, permit)
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
	result := loadResult{URL: raw, Rate: f.rate, DurationS: f.length.Seconds()}
	if f.anything() {
		result.Note = "no --session: every status from 200 to 299 counts as ok"
		fmt.Fprintln(cmd.ErrOrStderr(), "tminus: "+result.Note)
	}
	err = f.watch(ctx, cmd.ErrOrStderr(), generator)
	result.Result = generator.Snapshot()
	if cause := context.Cause(ctx); cause != nil && cmd.Context().Err() == nil {
		return cause
	}
	switch {
	case errors.Is(err, context.Canceled):
		result.Interrupted, result.DurationS = true, min(max(time.Since(config.Start), 0), f.length).Seconds()
	case err != nil:
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
	return result.judge(f)
}

// judge says why the figures are not those of the load that was asked for, or nil.
func (r loadResult) judge(f *loadFlags) error {
	s := r.Result
	inconclusive := func(format string, a ...any) error {
		return exit{verdict.ExitCode(report.Inconclusive), fmt.Errorf(format, a...)}
	}
	switch {
	case r.Interrupted:
		return inconclusive("interrupted after %v of %v", time.Duration(r.DurationS*1e9).Round(100*time.Millisecond), f.length)
	case s.Sent > 0 && s.OK == 0 && r.Note == "":
		return errors.New("not one play start was answered with a session")
	case s.Sent > 0 && s.OK == 0:
		return errors.New("not one play start was answered with a status from 200 to 299")
	case float64(s.Dropped) > verdict.MaxDroppedShare*float64(s.Intended):
		return inconclusive("%d of %d play starts could not be sent in time: the crowd was smaller than asked for", s.Dropped, s.Intended)
	case 100*s.LateShare() > report.LatePercent:
		return inconclusive("this machine could not send the crowd on time: %d of %d play starts went out more than 10 ms late by its own doing, not the service's; rerun on a quieter or a bigger one", s.Late, s.Sent)
	}
	return nil
}

// anything reports whether any good status counts as a play start that went well.
func (f *loadFlags) anything() bool { return !f.reference() && f.session == "" && f.manifest == "" }

// reference reports whether the request is the reference playback service's.
func (f *loadFlags) reference() bool { return f.body == "" && f.method == "POST" }

// check says everything that is wrong with the numbers.
func (f *loadFlags) check() error {
	var errs []error
	need := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	need(f.rate > 0 && f.rate <= audience.MaxRate, "--rate %v: want more than 0 play starts a second, %.0f at the most", f.rate, float64(audience.MaxRate))
	need(f.length > 0 && f.length <= consent.MaxDuration, "--for %v: want more than 0, %v at the most", f.length, consent.MaxDuration)
	need(f.connections >= 1 && f.connections <= 65536, "--connections %d: want 1 to 65536", f.connections)
	need(f.inFlight >= 1 && f.inFlight <= 256, "--in-flight %d: want 1 to 256", f.inFlight)
	need(f.timeout > 0 && f.timeout <= maxTimeout, "--timeout %v: want more than 0, %v at the most", f.timeout, maxTimeout)
	if f.reference() && (f.session != "" || f.manifest != "") {
		errs = append(errs, errors.New("--session and --manifest say where the answer to a --body of your own, or to another --method, has them"))
	}
	return errors.Join(errs...)
}

// maxTimeout is the longest that an answer is waited for.
const maxTimeout = 5 * time.Minute

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

func (f *loadFlags) config(schedule *audience.Schedule, raw string, target *url.URL, permit *consent.Permit) (starts.Config, error) {
	crowd, err := audience.NewCrowd(f.mix, nil, f.seed)
	if err != nil {
		return starts.Config{}, err
	}
	now := time.Now()
	c := starts.Config{
		Schedule: schedule, Crowd: crowd, Services: []starts.Service{{Addr: permit.Addr()}}, Title: f.title, Start: now.Add(100 * time.Millisecond),
		Sink: event.Discard, UserAgent: consent.UserAgent(version(), now.UTC().Format("20060102-150405")+"-load"),
		PerService: f.connections, InFlight: f.inFlight, Seed: f.seed, AttemptTimeout: f.timeout, Permit: consent.Permits{permit}.Permit,
		MaxRate: f.limits.MaxRate, MaxLength: f.limits.MaxDuration,
	}
	if f.fresh {
		c.Connections = starts.Fresh
	}
	if target.Scheme == "https" {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: target.Hostname()}
	}
	var headers []starts.Header
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return c, fmt.Errorf("--header %q: want Name: value", h)
		}
		headers = append(headers, starts.Header{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	if c.Target = starts.Reference(raw, headers...); !f.reference() {
		c.Target = &starts.Request{Method: f.method, URL: raw, Headers: headers, Body: f.body, Session: f.session, Manifest: f.manifest}
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
			waiting := ""
			if s.Parked > 0 {
				waiting = fmt.Sprintf(", %d waiting to try again", s.Parked)
			}
			fmt.Fprintf(w, "%d play starts/s, %d ok, %d shed, %d failed, %d dropped%s, p95 %s from the intended moment\n",
				s.SentPerSecond, s.OK, s.Shed, s.Failed, s.Dropped, waiting, millis(s.FromIntended.P95))
		}
	}
}

func (r loadResult) print(w io.Writer) error {
	s := r.Result
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "play starts\tintended %d\tsent %d\tok %d\tshed %d\tfailed %d\tdropped %d\n", s.Intended, s.Sent, s.OK, s.Shed, s.Failed, s.Dropped)
	if s.Attempts > s.Sent {
		fmt.Fprintf(t, "requests\t%d, since viewers try again as a retry policy or Retry-After asks\n", s.Attempts)
	}
	for _, q := range []struct {
		name string
		starts.Quantiles
	}{{"intended → done", s.FromIntended}, {"sent → done", s.FromSent}, {"send lag", s.SendLag}, {"of it this machine's own", s.OwnLag}} {
		fmt.Fprintf(t, "%s\tp50 %s\tp95 %s\tp99 %s\tp99.9 %s\tmax %s\t\n", q.name, millis(q.P50), millis(q.P95), millis(q.P99), millis(q.P999), millis(q.Max))
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Failures)) {
		fmt.Fprintf(t, "%s\t%d\n", kind, s.Failures[kind])
	}
	err := t.Flush()
	if s.FirstFailure != "" {
		_, e := fmt.Fprintf(w, "first wrong answer: %s\n", s.FirstFailure)
		err = errors.Join(err, e)
	}
	return err
}

// millis writes milliseconds with three digits, as a person reads them: never with an exponent.
func millis(ms float64) string {
	unit := "ms"
	if ms >= 1000 {
		ms, unit = ms/1000, "s"
	}
	digits := 2
	if ms < 1 {
		digits = 3
	}
	for v := ms; v >= 10 && digits > 0; v /= 10 {
		digits--
	}
	return strconv.FormatFloat(ms, 'f', digits, 64) + " " + unit
}
