package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/scenarios/library"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
	"github.com/tminus-live/tminus/scenarios/spec"
)

func scenarioCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scenario",
		Short: "List, show and check scenarios",
		Args:  exactArgs(0, "a subcommand: list, show, check or schema"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "list",
			Short: "List the library's scenarios",
			Args:  exactArgs(0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error {
				for _, name := range library.Names() {
					src, err := library.Read(name)
					if err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%-26s %s\n", name, headline(src))
				}
				return nil
			},
		},
		&cobra.Command{
			Use:   "show SCENARIO",
			Short: "Print a scenario's YAML: the start of one of your own",
			Args:  exactArgs(1, "one scenario: a name of the library or a file"),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, src, _, err := scenarioSource(args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(src)
				return err
			},
		},
		&cobra.Command{
			Use:   "check SCENARIO…",
			Short: "Report every mistake in scenario files; exit 104 when there is one, 2 when a target elsewhere has not agreed or has no limits",
			Args: func(cmd *cobra.Command, args []string) error {
				if len(args) == 0 {
					return usage(errors.New("tminus scenario check takes one scenario or more: names of the library or files"))
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				var bad error
				for _, arg := range args {
					sc, err := readScenario(arg)
					if err != nil {
						fmt.Fprintln(cmd.ErrOrStderr(), err)
						bad = exit{status: statusOf(err)}
						continue
					}
					if err := rehearsal.Permissible(sc); err != nil {
						fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s is written well, and tminus rehearse would refuse it: %s\n", arg, sc.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
						bad = cmp.Or(bad, error(exit{status: exitUsage}))
						continue
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s is valid\n", arg, sc.Name)
				}
				return bad
			},
		},
		&cobra.Command{
			Use:   "schema",
			Short: "Print the JSON Schema of scenario files, for editors",
			Args:  exactArgs(0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := cmd.OutOrStdout().Write(spec.Schema())
				return err
			},
		},
	)
	return cmd
}

// headline is the first sentence of the comment that a scenario file begins with.
func headline(src []byte) string {
	var words []string
	for line := range strings.Lines(string(src)) {
		text, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		words = append(words, strings.TrimSpace(text))
	}
	first, _, _ := strings.Cut(strings.Join(words, " "), ". ")
	return strings.TrimSuffix(first, ".")
}

// scenarioSource finds a scenario: a file where arg looks like one or is one, otherwise a name of the library. beside reads
// the files that go with it.
func scenarioSource(arg string) (file string, src []byte, beside func(string) ([]byte, error), err error) {
	looksLikeFile := strings.ContainsRune(arg, filepath.Separator) || strings.HasSuffix(arg, ".yaml") || strings.HasSuffix(arg, ".yml")
	if !looksLikeFile {
		if src, err := library.Read(arg); err == nil {
			return arg + ".yaml", src, library.Beside, nil
		}
	}
	src, err = readBounded(arg, spec.MaxBytes)
	switch {
	case err == nil:
		return arg, src, func(name string) ([]byte, error) {
			return readBounded(filepath.Join(filepath.Dir(arg), name), spec.MaxBeside)
		}, nil
	case errors.Is(err, errTooLarge):
		err = exit{exitInvalid, err}
	case errors.Is(err, fs.ErrNotExist) && !looksLikeFile:
		err = usage(fmt.Errorf("there is no scenario %q: the library has %s, anything else is a file's path", arg, strings.Join(library.Names(), ", ")))
	case errors.Is(err, fs.ErrNotExist):
		err = usage(fmt.Errorf("there is no file %s", arg))
	}
	return "", nil, nil, err
}

var errTooLarge = errors.New("the file is too large")

// readBounded reads a file of limit bytes at the most; a larger one is an errTooLarge.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: at most %d KiB are read", path, errTooLarge, limit>>10)
	}
	return b, err
}

// readScenario reads and checks a scenario; mistakes in it come back as exit status 104.
func readScenario(arg string) (*spec.Scenario, error) {
	file, src, beside, err := scenarioSource(arg)
	if err != nil {
		return nil, err
	}
	sc, err := spec.Read(file, src, beside)
	if err != nil {
		return nil, exit{exitInvalid, err}
	}
	return sc, nil
}

func statusOf(err error) int {
	var e exit
	if errors.As(err, &e) {
		return e.status
	}
	return exitError
}

func printJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
