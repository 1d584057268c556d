package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/parts"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
)

// chaosRunFlags are what a fault by hand is made of.
type chaosRunFlags struct {
	fault     chaos.Fault
	where     string
	set       []string
	relay     string
	datagrams bool
	segments  string
	initName  string
	dryRun    bool
	asJSON    bool
}

func chaosRunCommand() *cobra.Command {
	var f chaosRunFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Break something that listens on this machine, prove it, and put it back",
		Long: `Inject one fault by hand against whatever listens at a loopback address of this machine: the processes that listen there,
the packets to and from it, or what it answers. It is watched for five seconds before, and for five seconds, or as long as it takes
to see that it is over, after it has been undone. What is broken is put back when this command ends, however it ends: kill -9 included.

Some faults need a relay in front of it: --relay says where it is to listen, and clients have to go there. It goes away with this
command. They are those in what is answered (http, segments, dns), in connections, and in packets that are held up (packet-delay,
rate-limit, brown-out), as root too, and without root partition. Loss, duplication and corruption of packets take root, or a relay
where what listens takes UDP datagrams. tminus chaos list KIND says of each whether it can be done by hand, and how.

Exit status: 0 the fault is confirmed and undone; 98 it could not be confirmed; 2 usage, or it would touch what is not yours
to break; 1 any other error, or it could not be undone.`,
		Example: `  tminus chaos run --fail packet-loss --model gilbert-elliott --set loss=5% --set burst=8 --where 127.0.0.1:8080 --for 20s
  tminus chaos run --fail process --model hang --where 127.0.0.1:8080 --for 10s --dry-run
  tminus chaos run --fail http --model status --set status=503 --set share=20% --where 127.0.0.1:8080 --relay 127.0.0.1:9080
  tminus chaos run --fail segments --model missing --set every=3 --set playlist=/live/720p.m3u8 \
    --segments /live/{rung}-{number}.m4s --where 127.0.0.1:8080 --relay 127.0.0.1:9080
  tminus chaos run --fail dns --model slow --set name=play.example.test --set delay=800ms --where 127.0.0.1:5300 --relay 127.0.0.1:5301`,
		Args: exactArgs(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.fault.Fail, "fail", "", "kind of fault (tminus chaos list)")
	fl.StringVar(&f.fault.Model, "model", "", "its form; the kind's first where left out")
	fl.StringVar(&f.where, "where", "", "what to break: the address that it listens at, such as 127.0.0.1:8080")
	fl.StringArrayVar(&f.set, "set", nil, "a parameter of the model, such as loss=5%; may be given again")
	fl.DurationVar(&f.fault.For, "for", 20*time.Second, "how long, 24h at most")
	fl.Uint64Var(&f.fault.Seed, "seed", 1, "of what is left to chance")
	fl.StringVar(&f.relay, "relay", "", "address for a relay in front of it, such as 127.0.0.1:9080")
	fl.BoolVar(&f.datagrams, "udp", false, "it takes UDP datagrams, and no connections; --fail dns implies it")
	fl.StringVar(&f.segments, "segments", "", "for faults in segments: template of their paths, such as /live/{rung}/{number}.m4s")
	fl.StringVar(&f.initName, "init", "", "for faults in segments: path of the initialisation segment, relative to theirs")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and break nothing: the relay and the watchdog that it takes are there for a moment")
	fl.BoolVar(&f.asJSON, "json", false, "print JSON on standard output and nothing else there")
	return cmd
}

// chaosOutcome is what became of a fault by hand, as --json prints it: what it would do, and, without --dry-run, what it did.
type chaosOutcome struct {
	foreseen
	Evidence *report.Evidence `json:"evidence,omitempty"`
	Restored bool             `json:"restored"`

	begun bool // something was broken
}

func (f *chaosRunFlags) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	fault, own, err := f.read()
	if err != nil {
		return usage(err)
	}
	log := slog.New(slog.DiscardHandler)
	if err := heard(own, fault); err != nil {
		return err
	}
	part, err := parts.Own(own)
	if err != nil {
		return usage(err)
	}
	fronts := parts.NewFronts(log)
	defer func() { err = errors.Join(err, fronts.Close()) }()
	switch err := fronts.PutOwn(&part, own, []chaos.Fault{fault}); {
	case errors.Is(err, syscall.EADDRINUSE):
		return usage(fmt.Errorf("--relay: %s is in use: give the relay an address that is free", own.Relay))
	case errors.Is(err, syscall.EACCES):
		return usage(fmt.Errorf("--relay: this user may not listen at %s: give the relay a port above 1023", own.Relay))
	case err != nil:
		return usage(err)
	}
	cfg := chaos.Config{
		Faults: []chaos.Fault{fault}, Parts: []chaos.Part{part}, Now: time.Now, Logger: log, Sink: &said{ctx: ctx, out: cmd.ErrOrStderr()},
	}
	if err := chaos.Preflight(cfg.Faults); err != nil {
		return usage(err)
	}
	guard, err := watchdog.Start(ctx, watchdog.Config{Run: fmt.Sprintf("chaos-%d", os.Getpid())})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	cfg.Guard = guard
	cfg.Start = time.Now()
	steps, err := chaos.Plan(cfg)
	if err != nil {
		return usage(err)
	}
	out := chaosOutcome{foreseen: foresee(steps[0])}
	if f.dryRun {
		return f.print(cmd, out)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s  watching for %.0f s before\n", time.Now().Format(stamp), chaos.Lead.Truncate(time.Second).Seconds())
	results, err := chaos.Run(ctx, cfg)
	if len(results) == 0 {
		return err
	}
	r := results[0]
	out.AtS, out.ForS, out.Restored, out.begun = r.AtS, r.ForS, r.Restored, r.Begun
	out.Evidence = evidenceOf(r, ctx.Err() != nil)
	if e := f.print(cmd, out); e != nil {
		return e
	}
	switch {
	case err != nil:
		return err
	case r.Evidence.Status != chaos.Confirmed:
		return exit{98, nil}
	}
	return nil
}

// evidenceOf is what proves a fault or, of a command that was interrupted before anything was proven, says so.
func evidenceOf(r chaos.Result, interrupted bool) *report.Evidence {
	e := report.Evidence(r.Evidence)
	if interrupted && e.Status == chaos.Inconclusive {
		e.Detail = "interrupted: " + e.Detail
	}
	return &e
}

// read makes a fault, and what it is about, of the flags.
func (f *chaosRunFlags) read() (chaos.Fault, spec.Own, error) {
	fault := f.fault
	if fault.Fail == "" {
		return fault, spec.Own{}, errors.New("--fail is missing: what is to fail (tminus chaos list)")
	}
	kind, err := kindNamed(fault.Fail)
	if err != nil {
		return fault, spec.Own{}, fmt.Errorf("--fail: %w", err)
	}
	model, err := modelNamed(kind, fault.Model)
	if err != nil {
		return fault, spec.Own{}, fmt.Errorf("--model: %w", err)
	}
	if !slices.Contains(kind.On, chaos.PartService) {
		return fault, spec.Own{}, fmt.Errorf("--fail %s works only in a rehearsal, on %s", fault.Fail, kind.Where)
	}
	if fault.For > spec.MaxDuration {
		return fault, spec.Own{}, fmt.Errorf("--for: at most %s, got %s", spec.Short(spec.MaxDuration), spec.Short(fault.For))
	}
	fault.ID, fault.At = fault.Fail, chaos.Lead
	fault.Params = map[string]string{}
	for _, s := range f.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return fault, spec.Own{}, fmt.Errorf("--set %s: want name=value, such as loss=5%%", s)
		}
		if _, twice := fault.Params[name]; twice {
			return fault, spec.Own{}, fmt.Errorf("--set %s: %s is set twice", s, name)
		}
		fault.Params[name] = value
	}
	own := spec.Own{Segments: f.segments, Init: f.initName, Datagrams: f.datagrams || fault.Fail == "dns"}
	for _, a := range []struct {
		flag, text string
		to         *netip.AddrPort
	}{{"--where", f.where, &own.Address}, {"--relay", f.relay, &own.Relay}} {
		if a.text == "" && a.flag == "--relay" {
			continue
		}
		if a.text == "" {
			return fault, own, errors.New("--where is missing: what is to be broken, such as 127.0.0.1:8080")
		}
		addr, err := local(a.text)
		if err != nil {
			return fault, own, fmt.Errorf("%s: %w", a.flag, err)
		}
		*a.to = addr
	}
	if own.Relay == own.Address {
		return fault, own, fmt.Errorf("--relay: the relay needs an address of its own: %s is what it is to stand in front of", own.Relay)
	}
	own.Name = own.Address.String()
	fault.Where = own.Name
	if err := readFiles(&fault, model); err != nil {
		return fault, own, err
	}
	if _, err := fault.Complete(); err != nil {
		return fault, own, err
	}
	return fault, own, nil
}

// local reads an address on this machine's loopback.
func local(text string) (netip.AddrPort, error) {
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		return netip.AddrPort{}, fmt.Errorf("want an address, not a URL: %s", spec.HostPort(u))
	}
	numbers := text
	if strings.HasPrefix(text, ":") {
		numbers = "127.0.0.1" + text
	}
	if port, ok := strings.CutPrefix(text, "localhost:"); ok {
		numbers = "127.0.0.1:" + port
	}
	addr, err := netip.ParseAddrPort(numbers)
	if err != nil || addr.Port() == 0 {
		return addr, fmt.Errorf("want an address such as 127.0.0.1:8080, got %q", text)
	}
	if !addr.Addr().IsLoopback() {
		return addr, fmt.Errorf("%w to touch %s: only what listens on this machine's loopback can be broken", chaos.ErrRefused, addr)
	}
	return addr, nil
}

// heard says what is wrong with an address at which nobody listens; nil: somebody does.
func heard(own spec.Own, fault chaos.Fault) error {
	here, otherwise, err := parts.Heard(own)
	if err != nil {
		return fmt.Errorf("who listens at %s: %w", own.Address, err)
	}
	hint := "a UDP socket listens there: add --udp"
	switch {
	case here:
		return nil
	case !otherwise:
		hint = "nobody listens there, in this network namespace"
	case fault.Fail == "dns":
		hint = "only a TCP socket listens there, and a resolver is asked over UDP"
	case own.Datagrams:
		hint = "only a TCP socket listens there: leave out --udp"
	case slices.Contains([]chaos.Front{chaos.FrontHTTP, chaos.FrontTCP}, fault.Front(chaos.Here(chaos.PartService, true))):
		hint = "only a UDP socket listens there, and this fault is of connections"
	}
	return usage(fmt.Errorf("--where: %w to touch %s: %s", chaos.ErrRefused, own.Address, hint))
}

// readFiles reads the files that a fault's parameters name.
func readFiles(f *chaos.Fault, m chaos.Model) error {
	for _, p := range m.Parameters {
		if p.Type != chaos.TypeFile || f.Params[p.Name] == "" {
			continue
		}
		text, err := readBounded(f.Params[p.Name], spec.MaxBeside)
		if err != nil {
			return fmt.Errorf("--set %s: %w", p.Name, err)
		}
		f.Files = map[string]string{p.Name: string(text)}
	}
	return nil
}

func (f *chaosRunFlags) print(cmd *cobra.Command, o chaosOutcome) error {
	if f.asJSON {
		return printJSON(cmd, o)
	}
	out := cmd.OutOrStdout()
	if o.Evidence == nil {
		fmt.Fprintf(out, "would break %s for %s: %s\n", o.Where, spec.Short(time.Duration(o.ForS*float64(time.Second))), o.Does)
		sayParameters(out, o.Params)
		if o.Means != "" {
			fmt.Fprintf(out, "by          %s\n", o.Means)
		}
		fmt.Fprintf(out, "proven by   %s\n", o.Proof)
		return nil
	}
	fmt.Fprintf(out, "%s: %s\n", o.Evidence.Status, o.Evidence.Detail)
	switch {
	case !o.begun:
		fmt.Fprintln(out, "nothing was broken")
		return nil
	case o.ForS == 0 && o.Restored:
		fmt.Fprintln(out, "what was broken of it is undone")
		return nil
	}
	if o.Evidence.Status != chaos.Inconclusive { // figures of too little would look like a proof
		fmt.Fprintf(out, "expected %.4g, measured %.4g %s; ", o.Evidence.Expected, o.Evidence.Measured, o.Evidence.Unit)
	}
	fmt.Fprintf(out, "in effect for %.1f s", o.ForS)
	if o.Means != "" {
		fmt.Fprintf(out, ", by %s", o.Means)
	}
	if o.Restored {
		fmt.Fprintln(out, "; undone")
	} else {
		fmt.Fprintln(out, "; NOT undone")
	}
	return nil
}

// stamp is the time of day before each thing said on the way.
const stamp = "15:04:05.000"

// said says on the way what happens to a fault.
type said struct {
	ctx context.Context // of the command: nothing is watched any more once it has ended
	mu  sync.Mutex
	out io.Writer

	broken bool // it was in effect: there is something to watch
}

func (s *said) Emit(e event.Event) {
	if e.Kind != event.Fault {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Status {
	case "injecting", "injected", "restoring", "restored", "failed":
		fmt.Fprintln(s.out, strings.TrimSpace(fmt.Sprintf("%s  %s %s", e.At.Format(stamp), e.Status, e.Detail)))
	}
	s.broken = s.broken || e.Status == "injected"
	if e.Status == "restored" && s.broken && s.ctx.Err() == nil {
		fmt.Fprintf(s.out, "%s  watching until it is over\n", e.At.Format(stamp))
	}
}
