package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
)

func chaosCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "What can be broken, and how it is proven",
		Args:  exactArgs(0, "a subcommand: list"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "Document every fault, its parameters and an example",
		Args:  exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			catalogue := chaos.Catalogue()
			if asJSON {
				return printJSON(cmd, catalogue)
			}
			out := cmd.OutOrStdout()
			for _, kind := range catalogue {
				fmt.Fprintf(out, "fail: %s\n  %s\n  where: %s\n", kind.Fail, kind.Summary, kind.Where)
				for _, p := range kind.Parameters {
					fmt.Fprintf(out, "  %s (%s", p.Name, p.Type)
					if p.Default != "" {
						fmt.Fprintf(out, ", default %s", p.Default)
					}
					fmt.Fprintf(out, "): %s\n", p.Summary)
				}
				for _, m := range kind.Models {
					fmt.Fprintf(out, "\n  model: %s\n    %s\n    evidence: %s\n", m.Name, m.Summary, m.Evidence)
					if m.Needs != "" {
						fmt.Fprintf(out, "    needs: %s\n", m.Needs)
					}
					fmt.Fprintf(out, "    %s\n", m.Example)
				}
			}
			return nil
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(list)
	return cmd
}
