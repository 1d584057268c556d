package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/scenarios/rehearsal"
)

func upCommand() *cobra.Command {
	var flags pipelineFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "up [SCENARIO]",
		Short: "Run the reference pipeline until Ctrl-C and print its URLs",
		Long: `Run the reference pipeline of a scenario (first-light when none is given) until Ctrl-C, without a crowd or faults, and
print the URLs to play.`,
		Args: atMostOne("scenario"),
		RunE: func(cmd *cobra.Command, args []string) error {
			sc, err := flags.scenario(args)
			if err != nil {
				return err
			}
			if sc.Target != nil {
				return usage(fmt.Errorf("%s points at %s: there is no pipeline of ours to run", sc.Name, sc.Target.URLs()[0]))
			}
			run, err := flags.rehearsal(sc, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			err = run.Up(cmd.Context(), func(urls rehearsal.URLs) error {
				if asJSON {
					return printJSON(cmd, urls)
				}
				_, err := fmt.Fprint(cmd.OutOrStdout(), urls)
				return err
			})
			if err != nil {
				return withLogs(err, run.Folder())
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the URLs as JSON on standard output and nothing else there")
	return cmd
}
