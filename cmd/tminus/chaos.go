package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
)

// kindOf says what a parameter may be.
func kindOf(p chaos.Parameter) []string {
	out := []string{p.Type}
	if len(p.Words) > 0 {
		out = []string{strings.Join(p.Words, " | ")}
	}
	if bounds := p.Bounds(); bounds != "" {
		out = append(out, bounds)
	}
	switch {
	case p.Required:
		out = append(out, "required")
	case p.Default != "":
		out = append(out, "default "+p.Default)
	}
	return out
}

func chaosCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Break things, prove it, and put them back",
		Args:  exactArgs(0, "a subcommand: list, run or clean"),
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
			for _, p := range chaos.When {
				fmt.Fprintf(out, "every fault has %s (%s): %s\n", p.Name, p.Type, p.Summary)
			}
			for _, kind := range catalogue {
				fmt.Fprintf(out, "\nfail: %s\n  %s\n  where: %s\n", kind.Fail, kind.Summary, kind.Where)
				for _, m := range kind.Models {
					fmt.Fprintf(out, "\n  model: %s\n    %s\n", m.Name, m.Summary)
					for _, p := range m.Parameters {
						fmt.Fprintf(out, "    - %s (%s): %s\n", p.Name, strings.Join(kindOf(p), ", "), p.Summary)
					}
					fmt.Fprintf(out, "    evidence: %s\n", m.Evidence)
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
	cmd.AddCommand(list, chaosRunCommand(), chaosCleanCommand())
	return cmd
}
