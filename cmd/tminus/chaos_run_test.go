package main

import (
	"bytes"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
)

// What became of a fault by hand: figures stand beside what proves something alone.
func TestWhatBecameOfAFaultIsSaid(t *testing.T) {
	evidence := func(status, detail string) *report.Evidence {
		return &report.Evidence{Status: status, Expected: 100, Measured: 90, Unit: "% of requests", Detail: detail}
	}
	for _, c := range []struct {
		lasted   float64
		restored bool
		evidence *report.Evidence
		want     string
	}{
		{5, true, evidence(chaos.Mismatch, "so it was"), "mismatch: so it was\nexpected 100, measured 90 % of requests; in effect for 5.0 s; undone\n"},
		{5, false, evidence(chaos.Inconclusive, "too little was measured"), "inconclusive: too little was measured\nin effect for 5.0 s; NOT undone\n"},
		{0, true, evidence(chaos.Inconclusive, "the run ended before the fault was due"), "inconclusive: the run ended before the fault was due\nnothing was broken\n"},
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		if err := (&chaosRunFlags{}).print(cmd, chaosOutcome{foreseen{ForS: c.lasted}, c.evidence, c.restored}); err != nil || out.String() != c.want {
			t.Errorf("got %q, want %q, %v", out.String(), c.want, err)
		}
	}
}
