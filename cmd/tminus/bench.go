package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/scenarios/bench"
)

func benchCommand() *cobra.Command {
	var o bench.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench [NAME]",
		Short: "Measure a part against a yardstick in the same run",
		Long: `Measure a part of tminus, and in the same run on the same two cores what it is measured against: the bare system calls, or a
named peer. Without a name, list the benchmarks.

Exit status: 0, also when a ratio is below what is aimed at; 1 when a figure is worth nothing (wrong answers, drops, a peer that
is not installed: make setup-peers installs them); 2 usage.`,
		Example: "  tminus bench play-starts --json",
		Args:    atMostOne("benchmark"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				for _, b := range bench.All() {
					fmt.Fprintf(t, "%s\t%s\n", b.Name, b.About)
				}
				return t.Flush()
			}
			b, err := bench.Find(args[0])
			if err == nil && (o.Seconds == 0 || o.Rounds == 0) { // to Options, 0 is the default
				err = fmt.Errorf("--seconds wants %g to %g, and --rounds %d to %d", bench.MinSeconds, bench.MaxSeconds, bench.MinRounds, bench.MaxRounds)
			}
			if err == nil {
				err = o.Validate()
			}
			if err != nil {
				return usage(err)
			}
			o.Tell = func(s string) { fmt.Fprintln(cmd.ErrOrStderr(), s) }
			rep, err := b.Run(cmd.Context(), o)
			if err != nil && !errors.Is(err, bench.ErrInvalid) {
				return err
			}
			write := rep.WriteTable
			if asJSON {
				write = rep.WriteJSON
			}
			if e := write(cmd.OutOrStdout()); e != nil {
				return e
			}
			if err != nil {
				sentence := rep.Problems[0]
				if more := len(rep.Problems) - 1; more > 0 {
					sentence += fmt.Sprintf(" (and %d more)", more)
				}
				return fmt.Errorf("%w: %s", err, sentence)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the figures as one JSON object on standard output and nothing else there")
	cmd.Flags().Float64Var(&o.Seconds, "seconds", bench.DefaultSeconds, fmt.Sprintf("length of each measurement in each round, %g to %g", bench.MinSeconds, bench.MaxSeconds))
	cmd.Flags().IntVar(&o.Rounds, "rounds", bench.DefaultRounds, fmt.Sprintf("times that each measurement is taken, %d to %d", bench.MinRounds, bench.MaxRounds))
	return cmd
}

// benchPartCommand is a server or a client of a benchmark, as a child process.
func benchPartCommand() *cobra.Command {
	return child(bench.PartCommand, func(ctx context.Context, p bench.Part, log *slog.Logger) error {
		return bench.RunPart(ctx, p, log)
	})
}
