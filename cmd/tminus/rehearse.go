package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/progress"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/scenarios/library"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/kafka"
)

// defaultRuns is the folder of the runs' folders where --runs names none.
const defaultRuns = "runs"

// pipelineFlags are what rehearse and up have in common.
type pipelineFlags struct {
	runs, kafka, clickhouse string
	port                    int
	verbose                 bool
}

func (f *pipelineFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.runs, "runs", defaultRuns, "folder that holds the runs' folders")
	fl.IntVar(&f.port, "port", pipeline.DefaultPort, "port of every HTTP server of the reference pipeline, each on an address of its own")
	fl.StringVar(&f.kafka, "kafka", os.Getenv("TMINUS_KAFKA"), "address of a Kafka broker, host:port (TMINUS_KAFKA); none: an embedded one")
	fl.StringVar(&f.clickhouse, "clickhouse", os.Getenv("TMINUS_CLICKHOUSE"), "address of a ClickHouse server, clickhouse://host:port or http://host:port (TMINUS_CLICKHOUSE); none: an embedded one")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what happens inside on standard error")
}

// scenario reads the scenario that args name, or the library's default, and checks the flags.
func (f *pipelineFlags) scenario(args []string) (*spec.Scenario, error) {
	if f.port < 1 || f.port > 65535 {
		return nil, usage(fmt.Errorf("--port %d is no TCP port: 1 to 65535", f.port))
	}
	if err := checkStores(f.kafka, f.clickhouse); err != nil {
		return nil, err
	}
	name := library.Default
	if len(args) == 1 {
		name = args[0]
	}
	return readScenario(name)
}

// checkStores refuses what is no address of a broker or a store; "" is the embedded one.
func checkStores(broker, store string) error {
	var errs []error
	if broker != "" {
		errs = append(errs, kafka.CheckAddress(broker))
	}
	if store != "" {
		errs = append(errs, clickhouse.CheckAddress(store))
	}
	if err := errors.Join(errs...); err != nil {
		return usage(err)
	}
	return nil
}

func (f *pipelineFlags) logger(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// config is a run of a scenario by the flags; it logs to w.
func (f *pipelineFlags) config(sc *spec.Scenario, w io.Writer) rehearsal.Config {
	return rehearsal.Config{
		Scenario:   sc,
		Runs:       f.runs,
		Port:       f.port,
		Kafka:      f.kafka,
		ClickHouse: f.clickhouse,
		Log:        f.logger(w),
		Version:    version(),
	}
}

func (f *pipelineFlags) rehearsal(sc *spec.Scenario, w io.Writer) (*rehearsal.Rehearsal, error) {
	return rehearsal.New(f.config(sc, w), time.Now())
}

func rehearseCommand() *cobra.Command {
	var flags pipelineFlags
	var asJSON, dryRun bool
	cmd := &cobra.Command{
		Use:   "rehearse [SCENARIO]",
		Short: "Run a scenario from venue to verdict and write a report",
		Long: `Run a scenario from venue to verdict: start the pipeline (or take the scenario's target), send the crowd, break what the
scenario says, and judge what viewers lived through. SCENARIO is a name of the library (tminus scenario list) or a file;
first-light when none is given. The report goes to runs/<run-id>/.

Exit status: 0 GO, 99 NO-GO, 98 inconclusive, 104 invalid scenario, 2 usage, 1 any other error.`,
		Args: atMostOne("scenario"),
		RunE: func(cmd *cobra.Command, args []string) error {
			sc, err := flags.scenario(args)
			if err != nil {
				return err
			}
			if dryRun {
				return sayPlan(cmd, flags.config(sc, cmd.ErrOrStderr()), asJSON)
			}
			show := progress.New(cmd.ErrOrStderr(), false, nil)
			if f, ok := cmd.ErrOrStderr().(*os.File); ok {
				show = progress.ForFile(f, os.Getenv)
			}
			run, err := flags.rehearsal(sc, show.Log())
			if err != nil {
				return err
			}
			go keepTo(cmd.Context(), conductorMemory)
			rep, err := conduct(cmd.Context(), run, show)
			if err != nil {
				err = withLogs(err, run.Folder())
			}
			if rep == nil {
				return err
			}
			if asJSON {
				err = errors.Join(err, rep.WriteJSON(cmd.OutOrStdout()))
			} else {
				err = errors.Join(err, progress.New(cmd.OutOrStdout(), false, nil).Summary(rep, filepath.Join(run.Folder(), report.HTMLFile)))
			}
			if err != nil {
				return fmt.Errorf("the verdict stands, but the end was not in order: %w", err)
			}
			return verdictStatus(rep)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print report.json on standard output and nothing else there")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be broken here, when, how and how it would be proven, and do nothing")
	return cmd
}

// foreseen is what a fault would do, as --dry-run --json prints it.
type foreseen struct {
	ID     string            `json:"id"`
	AtS    float64           `json:"at_s"`
	ForS   float64           `json:"for_s"`
	Fail   string            `json:"fail"`
	Model  string            `json:"model"`
	Where  string            `json:"where"`
	Params map[string]string `json:"params,omitempty"`
	Does   string            `json:"does"`
	Means  string            `json:"means,omitempty"`
	Proof  string            `json:"proof"`
}

func foresee(s chaos.Step) foreseen {
	f := s.Fault
	return foreseen{f.ID, f.At.Seconds(), f.For.Seconds(), f.Fail, f.Model, f.Where, f.Params, s.Does, s.Means, s.Proof}
}

// sayParameters prints a fault's parameters, one a line.
func sayParameters(out io.Writer, params map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(out, "  %-10s %s\n", name, params[name])
	}
}

// sayPlan prints what a scenario would break on this machine. What cannot be done here is a usage error, as in a rehearsal.
func sayPlan(cmd *cobra.Command, cfg rehearsal.Config, asJSON bool) error {
	steps, err := rehearsal.Foresee(cfg)
	if err != nil {
		return usage(err)
	}
	all := []foreseen{}
	for _, s := range steps {
		all = append(all, foresee(s))
	}
	if asJSON {
		return printJSON(cmd, all)
	}
	out := cmd.OutOrStdout()
	faults := fmt.Sprintf("%d faults", len(all))
	if len(all) == 1 {
		faults = "1 fault"
	}
	fmt.Fprintf(out, "%s: %s, %s\n", cfg.Scenario.Name, cfg.Scenario.Event.Duration, faults)
	for _, f := range all {
		fmt.Fprintf(out, "\nT+%gs for %gs: %s of %s (%s)\n  does       %s\n", f.AtS, f.ForS, f.Fail, f.Where, f.Model, f.Does)
		sayParameters(out, f.Params)
		if f.Means != "" {
			fmt.Fprintf(out, "  by         %s\n", f.Means)
		}
		fmt.Fprintf(out, "  proven by  %s\n", f.Proof)
	}
	return nil
}

// withLogs says where more is to be read, if anything was written.
func withLogs(err error, folder string) error {
	if entries, _ := os.ReadDir(folder); len(entries) == 0 {
		return err
	}
	return fmt.Errorf("%w (logs are in %s)", err, folder)
}

// conduct runs the rehearsal while show draws it.
func conduct(ctx context.Context, run *rehearsal.Rehearsal, show *progress.Progress) (*report.Report, error) {
	drawing, stop := context.WithCancel(context.WithoutCancel(ctx))
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		ticker := time.NewTicker(250 * time.Millisecond)
		defer ticker.Stop()
		_ = show.Run(drawing, func() progress.State { return run.State(time.Now()) }, ticker.C) // a closed terminal must not end the rehearsal
	}()
	rep, err := run.Run(ctx)
	stop()
	<-drawn
	return rep, err
}
