package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos/watchdog"
)

// chaosCleanCommand finds and removes what experiments have left on this machine.
func chaosCleanCommand() *cobra.Command {
	var asJSON, dryRun bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Find and remove what an experiment has left over",
		Long: `Find and remove what is left of experiments whose conductor is gone: stopped processes, network namespaces, interfaces,
cgroups, kernel programs and settings. Normally there is nothing: a watchdog undoes all of it within 3 s, even after
kill -9. What belongs to an experiment that still runs is not touched.

Exit status: 0 when nothing is left, 1 when something is, 2 usage.`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := watchdog.Clean
			if dryRun {
				look = watchdog.Find
			}
			found, err := look(cmd.Context())
			err = tellFound(cmd, found, err, asJSON, dryRun)
			if asJSON {
				return err
			}
			n, failed := watchdog.UnderWay()
			sayUnderWay(cmd, n)
			if os.Geteuid() != 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "what other users' experiments left over is not looked for: root finds it")
			}
			return errors.Join(err, failed)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what there is; remove nothing")
	return cmd
}

// tellFound prints what was found, also where the look failed before it was over: what is removed by then is removed.
func tellFound(cmd *cobra.Command, found []watchdog.Found, failed error, asJSON, dryRun bool) error {
	if failed != nil && len(found) == 0 {
		return failed
	}
	left := 0
	for _, f := range found {
		if !f.Removed {
			left++
		}
	}
	if asJSON {
		if found == nil {
			found = []watchdog.Found{}
		}
		if err := printJSON(cmd, found); err != nil {
			return err
		}
	} else {
		sayFound(cmd, found, dryRun)
	}
	if left > 0 {
		failed = errors.Join(leftOver(left, dryRun), failed)
	}
	return failed
}

func sayFound(cmd *cobra.Command, found []watchdog.Found, dryRun bool) {
	out := cmd.OutOrStdout()
	if len(found) == 0 {
		fmt.Fprintln(out, "nothing is left over")
	}
	for _, f := range found {
		what := f.What
		if f.Run != "" {
			what += " (run " + f.Run + ")"
		}
		switch {
		case f.Removed:
			fmt.Fprintf(out, "removed: %s\n", what)
		case f.Error != "":
			fmt.Fprintf(out, "left: %s: %s\n", what, f.Error)
		case dryRun:
			fmt.Fprintf(out, "would remove: %s\n", what)
		default:
			fmt.Fprintf(out, "left: %s\n", what)
		}
	}
}

func sayUnderWay(cmd *cobra.Command, runs int) {
	switch {
	case runs == 1:
		fmt.Fprintln(cmd.OutOrStdout(), "1 run is under way: left alone")
	case runs > 1:
		fmt.Fprintf(cmd.OutOrStdout(), "%d runs are under way: left alone\n", runs)
	}
}

func leftOver(n int, dryRun bool) error {
	switch {
	case n == 1 && dryRun:
		return errors.New("1 thing is left over")
	case dryRun:
		return fmt.Errorf("%d things are left over", n)
	case n == 1:
		return errors.New("1 thing could not be removed")
	}
	return fmt.Errorf("%d things could not be removed", n)
}
