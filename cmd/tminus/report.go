package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/dashboards/progress"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/verdict"
)

func reportCommand() *cobra.Command {
	var asJSON bool
	var runs string
	cmd := &cobra.Command{
		Use:   "report [RUN]",
		Short: "Print a finished run's verdict; exits as the run did",
		Long: `Print the verdict of a finished run: its folder, or its report.json; without an argument, the newest run in runs/.
Exits as the run did: 0 GO, 99 NO-GO, 98 inconclusive.`,
		Args: atMostOne("run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = runFolder(runs, args[0])
			} else {
				newest, err := newestRun(cmd, runs)
				if err != nil {
					return err
				}
				path = newest
			}
			rep, err := report.Read(path)
			if errors.Is(err, fs.ErrNotExist) || err != nil && len(args) == 1 && !exists(path) {
				return fmt.Errorf("there is no finished run %s: want its id in %s, its folder or its report.json (without one: the newest)", args[0], runs)
			}
			if err != nil {
				return err
			}
			if asJSON {
				if err := rep.WriteJSON(cmd.OutOrStdout()); err != nil {
					return err
				}
			} else {
				folder := path
				if info, err := os.Stat(path); err == nil && !info.IsDir() {
					folder = filepath.Dir(path)
				}
				p := progress.New(cmd.OutOrStdout(), false, nil)
				if err := p.Summary(rep, filepath.Join(folder, report.HTMLFile)); err != nil {
					return err
				}
			}
			return verdictStatus(rep)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print report.json on standard output and nothing else there")
	cmd.Flags().StringVar(&runs, "runs", defaultRuns, "folder that holds the runs' folders")
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// verdictStatus is the exit status of a verdict as an error that has been reported already; nil for GO.
func verdictStatus(rep *report.Report) error {
	if status := verdict.ExitCode(rep.Verdict); status != 0 {
		return exit{status: status}
	}
	return nil
}

// runFolder is a run's folder by its path, or by its id in runs.
func runFolder(runs, run string) string {
	if _, err := os.Stat(run); err != nil && filepath.Base(run) == run {
		return filepath.Join(runs, run)
	}
	return run
}

// newestRun is the folder in runs whose name, which begins with the time, sorts last and that holds a report. Where a
// newer one holds none, it says so.
func newestRun(cmd *cobra.Command, runs string) (string, error) {
	entries, err := os.ReadDir(runs)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	unfinished := ""
	for i := len(entries) - 1; i >= 0; i-- {
		folder := filepath.Join(runs, entries[i].Name())
		if _, err := os.Stat(filepath.Join(folder, report.JSONFile)); err == nil {
			if unfinished != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "tminus: %s has no report: it runs still, or never ended; this is %s\n", unfinished, folder)
			}
			return folder, nil
		}
		if entries[i].IsDir() && unfinished == "" {
			unfinished = folder
		}
	}
	return "", fmt.Errorf("there is no finished run in %s: make rehearse makes one", runs)
}
