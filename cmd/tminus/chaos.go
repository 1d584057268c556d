package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/spec"
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
	cmd.AddCommand(chaosListCommand(), chaosRunCommand(), chaosCleanCommand())
	return cmd
}

func chaosListCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "list [KIND [MODEL]]",
		Short: "Document the faults, their parameters and examples",
		Example: `  tminus chaos list                # every kind, with its models
  tminus chaos list dns slow       # all about one of them
  tminus chaos list --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 2:
				return usage(errors.New("tminus chaos list takes a kind of fault and one of its models at most (tminus chaos list --help)"))
			case len(args) > 0 && all:
				return usage(errors.New("tminus chaos list takes --all or a kind of fault, and not both"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds, err := narrowed(args)
			switch {
			case err != nil:
				return usage(err)
			case asJSON:
				return printJSON(cmd, kinds)
			case len(args) == 0 && !all:
				sayIndex(cmd, kinds)
			default:
				sayKinds(cmd, kinds)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: everything, or all about the kind or the model given")
	cmd.Flags().BoolVar(&all, "all", false, "all about every fault")
	return cmd
}

// narrowed is the catalogue, or what is in it of a kind, or of a kind and a model.
func narrowed(names []string) ([]chaos.Kind, error) {
	if len(names) == 0 {
		return chaos.Catalogue(), nil
	}
	kind, err := kindNamed(names[0])
	if err != nil {
		return nil, err
	}
	if len(names) > 1 {
		m, err := modelNamed(kind, names[1])
		if err != nil {
			return nil, err
		}
		kind.Models = []chaos.Model{m}
	}
	return []chaos.Kind{kind}, nil
}

// kindNamed finds a kind of fault; the error says which one may have been meant.
func kindNamed(name string) (chaos.Kind, error) {
	var names, of []string
	for _, k := range chaos.Catalogue() {
		if k.Fail == name {
			return k, nil
		}
		names = append(names, k.Fail)
		if slices.ContainsFunc(k.Models, func(m chaos.Model) bool { return m.Name == name }) {
			of = append(of, k.Fail)
		}
	}
	if len(of) > 0 {
		return chaos.Kind{}, fmt.Errorf("%w kind of fault %q: %s is a model of %s", chaos.ErrUnknown, name, name, strings.Join(of, ", "))
	}
	return chaos.Kind{}, unknown("kind of fault", name, names)
}

// modelNamed finds a kind's model, its first for ""; the error says which one may have been meant.
func modelNamed(k chaos.Kind, name string) (chaos.Model, error) {
	var names []string
	for _, m := range k.Models {
		if m.Name == name || name == "" {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return chaos.Model{}, unknown("model of "+k.Fail, name, names)
}

func unknown(what, got string, words []string) error {
	if near := spec.Nearest(got, words); near != "" {
		return fmt.Errorf("%w %s %q; did you mean %q?", chaos.ErrUnknown, what, got, near)
	}
	return fmt.Errorf("%w %s %q (there is %s)", chaos.ErrUnknown, what, got, strings.Join(words, ", "))
}

// sayIndex prints a line for each kind.
func sayIndex(cmd *cobra.Command, kinds []chaos.Kind) {
	out := cmd.OutOrStdout()
	for _, k := range kinds {
		var models []string
		for _, m := range k.Models {
			models = append(models, m.Name)
		}
		fmt.Fprintf(out, "%-18s  %s\n", k.Fail, strings.Join(models, ", "))
	}
	fmt.Fprintln(out, "\ntminus chaos list KIND [MODEL] tells all about it: what happens, parameters, what proves it, an example; --all of every one")
}

// sayKinds prints all about some kinds.
func sayKinds(cmd *cobra.Command, kinds []chaos.Kind) {
	out := cmd.OutOrStdout()
	for _, p := range chaos.When {
		fmt.Fprintf(out, "every fault has %s (%s): %s\n", p.Name, p.Type, p.Summary)
	}
	for _, kind := range kinds {
		fmt.Fprintf(out, "\nfail: %s\n  %s\n  where: %s\n", kind.Fail, kind.Summary, kind.Where)
		for _, m := range kind.Models {
			fmt.Fprintf(out, "\n  model: %s\n    %s\n", m.Name, m.Summary)
			for _, p := range m.Parameters {
				fmt.Fprintf(out, "    - %s (%s): %s\n", p.Name, strings.Join(kindOf(p), ", "), p.Summary)
			}
			fmt.Fprintf(out, "    evidence: %s\n", m.Evidence)
			fmt.Fprintf(out, "    by hand: %s\n", m.ByHand)
			if m.Needs != "" {
				fmt.Fprintf(out, "    needs: %s\n", m.Needs)
			}
			fmt.Fprintf(out, "    %s\n", m.Example)
		}
	}
}
