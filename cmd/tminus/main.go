package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/rehearsal"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/wire/consent"
)

// Exit statuses beside the verdict's (0, 98, 99).
const (
	exitError   = 1
	exitUsage   = 2
	exitInvalid = 104
)

// exit is an error that names its exit status. A nil err has been reported already.
type exit struct {
	status int
	err    error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

func usage(err error) error { return exit{exitUsage, err} }

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if netns.IsChild() {
		return netns.Serve()
	}
	child := process.WatchLifeline()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second Ctrl-C ends the program at once; what it started hangs on its lifeline and goes with it.
	context.AfterFunc(ctx, stop)

	root := newRoot(child)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e exit
	if !errors.As(err, &e) {
		e = exit{exitError, err}
		if errors.Is(err, consent.ErrNoConsent) || errors.Is(err, rehearsal.ErrRefused) || errors.Is(err, chaos.ErrRefused) || errors.Is(err, chaos.ErrUnsupported) {
			e.status = exitUsage
		}
	}
	if e.status == exitError && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		e.err = errors.New("interrupted")
	}
	var mistakes *spec.Errors
	switch {
	case errors.As(err, &mistakes):
		fmt.Fprintln(stderr, mistakes) // file:line:col first, for editors and CI to pick up
	case e.err != nil:
		fmt.Fprintf(stderr, "tminus: %s\n", strings.ReplaceAll(e.err.Error(), "\n", "; "))
	}
	return e.status
}

func newRoot(child bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "tminus",
		Short: "Rehearse a live stream before the audience arrives",
		Long: `tminus runs a whole live-streaming pipeline, sends a crowd at it, breaks it on purpose, measures what viewers would
have felt, and says GO or NO-GO.

Exit status: 0 GO, 99 NO-GO, 98 inconclusive, 104 invalid scenario, 2 usage, 1 any other error.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				sentence := fmt.Sprintf("there is no command %q", args[0])
				if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
					sentence += fmt.Sprintf("; did you mean %q?", near[0])
				}
				return usage(errors.New(sentence + " (tminus --help lists them)"))
			}
			return cmd.Help()
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w (%s --help lists the flags)", err, cmd.CommandPath()))
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(rehearseCommand(), judgeCommand(), upCommand(), loadCommand(), scenarioCommand(), reportCommand(), queryCommand(),
		chaosCommand(), benchCommand(), consentCommand(), forecastCommand())
	if child {
		// What only the conductor starts; by hand they would have no lifeline.
		root.AddCommand(regionCommand(), startsCommand(), storeCommand(), benchPartCommand())
	}
	if watchdog.IsChild() {
		root.AddCommand(watchdogCommand())
	}
	return root
}

// version is the module's version and commit, as the build recorded them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return info.Main.Version + " " + s.Value
		}
	}
	return info.Main.Version
}

// exactArgs is cobra.ExactArgs with a sentence and the usage status.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Errorf("%s takes %s (%s --help)", cmd.CommandPath(), what, cmd.CommandPath()))
		}
		return nil
	}
}

// atMostOne is cobra.MaximumNArgs(1) with a sentence and the usage status.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(fmt.Errorf("%s takes one %s at most (%s --help)", cmd.CommandPath(), what, cmd.CommandPath()))
		}
		return nil
	}
}
