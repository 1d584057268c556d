package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/procfs"
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

X

Exit status: 0 the fault is confirmed and undone; 98 it could not be confirmed; 2 usage, or it would touch what is not yours
to break; 1 any other error, or it could not be undone.`,
		Example: `  tminus chaos run --fail packet-loss --model gilbert-elliott --set loss=5% --set burst=8 --where 127.0.0.1:8080 --for 20s
  tminus chaos run --fail process --model hang --where 127.0.0.1:8080 --for 10s --dry-run
  tminus chaos run --fail http --model status --set status=503 --set share=20% --where 127.0.0.1:8080 --relay 127.0.0.1:9080`,
		Args: exactArgs(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.fault.Fail, "fail", "", "kind of fault (tminus chaos list)")
	fl.StringVar(&f.fault.Model, "model", "", "its form; the kind's first where left out")
	fl.StringVar(&f.where, "where", "", "what to break: the address that it listens at, such as 127.0.0.1:8080")
	fl.StringArrayVar(&f.set, "set", nil, "a parameter of the model, such as loss=5%; may be given again")
	fl.DurationVar(&f.fault.For, "for", 20*time.Second, "how long")
	fl.Uint64Var(&f.fault.Seed, "seed", 1, "of what is left to chance")
	fl.StringVar(&f.relay, "relay", "", "address for a relay in front of it, such as 127.0.0.1:9080")
	fl.BoolVar(&f.datagrams, "udp", false, "it takes UDP datagrams, and no connections")
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
}

func (f *chaosRunFlags) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	fault, own, err := f.read()
	if err != nil {
		return usage(err)
	}
	log := slog.New(slog.DiscardHandler)
	network := procfs.TCP
	if own.Datagrams {
		network = procfs.UDP
	}
	switch taken, err := procfs.Taken(network, own.Address); {
	case err != nil:
		return fmt.Errorf("who listens at %s: %w", own.Address, err)
	case !taken:
		return usage(fmt.Errorf("--where: %w to touch %s: nobody listens there, in this network namespace", chaos.ErrRefused, own.Address))
	}
	part, err := parts.Own(own)
	if err != nil {
		return usage(err)
	}
	fronts := parts.NewFronts(log)
	defer func() { err = errors.Join(err, fronts.Close()) }()
	if err := fronts.PutOwn(&part, own, []chaos.Fault{fault}); err != nil {
		return usage(err)
	}
	cfg := chaos.Config{
		Faults: []chaos.Fault{fault}, Parts: []chaos.Part{part}, Now: time.Now, Logger: log, Sink: &said{out: cmd.ErrOrStderr()},
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
	results, err := chaos.Run(ctx, cfg)
	if len(results) == 0 {
		return err
	}
	r := results[0]
	out.AtS, out.ForS, out.Restored = r.AtS, r.ForS, r.Restored
	e := report.Evidence(r.Evidence)
	out.Evidence = &e
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
	own := spec.Own{Segments: f.segments, Init: f.initName, Datagrams: f.datagrams}
	for _, a := range []struct {
		flag, text string
		to         *netip.AddrPort
	}{{"--where", f.where, &own.Address}, {"--relay", f.relay, &own.Relay}} {
		if a.text == "" && a.flag == "--relay" {
			continue
		}
		addr, err := netip.ParseAddrPort(a.text)
		if err != nil || addr.Port() == 0 {
			return fault, own, fmt.Errorf("%s: want an address such as 127.0.0.1:8080, got %q", a.flag, a.text)
		}
		if !addr.Addr().IsLoopback() {
			return fault, own, fmt.Errorf("%s: %w to touch %s: only what listens on this machine's loopback can be broken", a.flag, chaos.ErrRefused, addr)
		}
		*a.to = addr
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
		fmt.Fprintf(out, "would break %s for %gs: %s\n", o.Where, o.ForS, o.Does)
		if o.Means != "" {
			fmt.Fprintf(out, "by          %s\n", o.Means)
		}
		fmt.Fprintf(out, "proven by   %s\n", o.Proof)
		return nil
	}
	fmt.Fprintf(out, "%s: %s\n", o.Evidence.Status, o.Evidence.Detail)
	if o.ForS == 0 && o.Restored {
		fmt.Fprintln(out, "nothing was broken")
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

// said says on the way what happens to a fault.
type said struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *said) Emit(e event.Event) {
	if e.Kind != event.Fault {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Status {
	case "injecting", "injected", "restoring", "restored", "failed":
		fmt.Fprintf(s.out, "%s  %s %s\n", e.At.Format("15:04:05.000"), e.Status, e.Detail)
	}
}
