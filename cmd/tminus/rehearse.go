package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/dashboards/progress"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/scenarios/library"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
)

// pipelineFlags are what rehearse and up have in common.
type pipelineFlags struct {
	runs, kafka, clickhouse string
	port                    int
	verbose                 bool
}

func (f *pipelineFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.runs, "runs", "runs", "folder that holds the runs' folders")
	fl.IntVar(&f.port, "port", pipeline.DefaultPort, "port of every HTTP server of the reference pipeline, each on an address of its own")
	fl.StringVar(&f.kafka, "kafka", os.Getenv("TMINUS_KAFKA"), "address of a Kafka broker, host:port (TMINUS_KAFKA); none: an embedded one")
	fl.StringVar(&f.clickhouse, "clickhouse", os.Getenv("TMINUS_CLICKHOUSE"), "address of a ClickHouse server, clickhouse://host:port or http://host:port (TMINUS_CLICKHOUSE); none: an embedded one")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what happens inside on standard error")
}

func (f *pipelineFlags) check() error {
	if f.port < 1 || f.port > 65535 {
		return usage(fmt.Errorf("--port %d is no TCP port: 1 to 65535", f.port))
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

func rehearseCommand() *cobra.Command {
	var flags pipelineFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rehearse [SCENARIO]",
		Short: "Run a scenario from venue to verdict and write a report",
		Long: `Run a scenario from venue to verdict: start the pipeline (or take the scenario's target), send the crowd, break what the
scenario says, and judge what viewers lived through. SCENARIO is a name of the library (tminus scenario list) or a file;
first-light when none is given. The report goes to runs/<run-id>/.

Exit status: 0 GO, 99 NO-GO, 98 inconclusive, 104 invalid scenario, 2 usage, 1 any other error.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			name := library.Default
			if len(args) == 1 {
				name = args[0]
			}
			sc, err := readScenario(name)
			if err != nil {
				return err
			}
			show := progress.New(cmd.ErrOrStderr(), false, nil)
			if f, ok := cmd.ErrOrStderr().(*os.File); ok {
				show = progress.ForFile(f, os.Getenv)
			}
			run, err := rehearsal.New(rehearsal.Config{
				Scenario:   sc,
				Runs:       flags.runs,
				Port:       flags.port,
				Kafka:      flags.kafka,
				ClickHouse: flags.clickhouse,
				Log:        flags.logger(show.Log()),
			}, time.Now())
			if err != nil {
				return err
			}
			rep, err := conduct(cmd.Context(), run, show)
			if err != nil {
				return fmt.Errorf("%w (logs are in %s)", err, run.Folder())
			}
			if asJSON {
				if err := rep.WriteJSON(cmd.OutOrStdout()); err != nil {
					return err
				}
			} else if err := progress.New(cmd.OutOrStdout(), false, nil).Summary(rep, filepath.Join(run.Folder(), report.HTMLFile)); err != nil {
				return err
			}
			return verdictStatus(rep)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print report.json on standard output and nothing else there")
	return cmd
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
