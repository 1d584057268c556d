package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/dashboards/progress"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
)

func judgeCommand() *cobra.Command {
	d := rehearsal.Distributed{}
	var since time.Duration
	var asJSON, verbose bool
	cmd := &cobra.Command{
		Use:   "judge --run ID --kafka ADDRESS SCENARIO",
		Short: "Judge a run that pods of the k6 extension send",
		Long: `Judge a run that many processes of the k6 extension send under one id: store their events from Kafka as they come, wait until
every pod has said that it is done, compute the scenario's objectives over everybody's events, and write one report. It may
be started before, during or after the run, and again: the report of an earlier judgement is kept in the folder earlier-1 of
the run's. SCENARIO is a name of the library or a file; of it count the objectives and the faults that are expected.

Exit status: 0 GO, 99 NO-GO, 98 inconclusive (a pod is missing, or events are), 104 invalid scenario, 2 usage, 1 any other error.`,
		Example: "  tminus judge --run saturday-1 --kafka kafka:9092 --clickhouse clickhouse://clickhouse:9000 --pods 4 title-fight.yaml",
		Args:    exactArgs(1, "the scenario whose objectives the run is judged by"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if since < 0 {
				return usage(fmt.Errorf("--since %v: want a duration, such as 24h, or 0 for all that the topic holds", since))
			}
			if err := d.Validate(); err != nil {
				return usage(err)
			}
			if err := checkStores(d.Kafka, d.ClickHouse); err != nil {
				return err
			}
			sc, err := readScenario(args[0])
			if err != nil {
				return err
			}
			d.Scenario = sc
			if since > 0 {
				d.Since = time.Now().Add(-since)
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			d.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			d.Tell = func(s string) { fmt.Fprintf(cmd.ErrOrStderr(), "tminus: %s\n", s) }
			folder := filepath.Join(d.Runs, d.Run)
			rep, err := d.Judge(cmd.Context())
			if rep == nil {
				return withLogs(err, folder)
			}
			if asJSON {
				err = errors.Join(err, rep.WriteJSON(cmd.OutOrStdout()))
			} else {
				err = errors.Join(err, progress.New(cmd.OutOrStdout(), false, nil).Summary(rep, filepath.Join(folder, report.HTMLFile)))
			}
			if err != nil {
				return fmt.Errorf("the verdict stands, but the end was not in order: %w", err)
			}
			return verdictStatus(rep)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&d.Run, "run", os.Getenv("TMINUS_RUN"), "the run's id, as its pods have it (TMINUS_RUN)")
	fl.IntVar(&d.Pods, "pods", 1, "how many pods are to say that they are done: the TestRun's parallelism")
	fl.DurationVar(&d.Wait, "wait", 15*time.Minute, "how long to wait for them at the most; then the verdict is inconclusive")
	fl.DurationVar(&since, "since", 24*time.Hour, "how long ago the run began, at the most; 0: whatever the topic holds is looked through")
	fl.StringVar(&d.Runs, "runs", defaultRuns, "folder that holds the runs' folders")
	fl.StringVar(&d.Kafka, "kafka", os.Getenv("TMINUS_KAFKA"), "address of the pods' Kafka broker, host:port (TMINUS_KAFKA)")
	fl.StringVar(&d.ClickHouse, "clickhouse", os.Getenv("TMINUS_CLICKHOUSE"), "address of a ClickHouse server, clickhouse://host:port or http://host:port (TMINUS_CLICKHOUSE); none: an embedded one")
	fl.BoolVar(&asJSON, "json", false, "print report.json on standard output and nothing else there")
	fl.BoolVarP(&verbose, "verbose", "v", false, "log what happens inside on standard error")
	return cmd
}
