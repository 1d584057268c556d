package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/telemetry/event"
)

// What became of a fault by hand: figures stand beside what proves something alone.
func TestWhatBecameOfAFaultIsSaid(t *testing.T) {
	evidence := func(status, detail string) *report.Evidence {
		return &report.Evidence{Status: status, Expected: 100, Measured: 90, Unit: "% of requests", Detail: detail}
	}
	for _, c := range []struct {
		lasted   float64
		restored bool
		begun    bool
		evidence *report.Evidence
		want     string
	}{
		{5, true, true, evidence(chaos.Mismatch, "so it was"), "mismatch: so it was\nexpected 100, measured 90 % of requests; in effect for 5.0 s; undone\n"},
		{5, false, true, evidence(chaos.Inconclusive, "too little was measured"), "inconclusive: too little was measured\nin effect for 5.0 s; NOT undone\n"},
		{0, true, false, evidence(chaos.Inconclusive, "the run ended before the fault was due"), "inconclusive: the run ended before the fault was due\nnothing was broken\n"},
		{0, true, true, evidence(chaos.Inconclusive, "it could not be injected"), "inconclusive: it could not be injected\nwhat was broken of it is undone\n"},
		{0, false, true, evidence(chaos.Inconclusive, "it could not be injected"), "inconclusive: it could not be injected\nin effect for 0.0 s; NOT undone\n"},
	} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		if err := (&chaosRunFlags{}).print(cmd, chaosOutcome{foreseen{ForS: c.lasted}, c.evidence, c.restored, c.begun}); err != nil || out.String() != c.want {
			t.Errorf("got %q, want %q, %v", out.String(), c.want, err)
		}
	}
}

// Whoever presses Ctrl-C is told that it was that, and not that too little was measured.
func TestAnInterruptedFaultSaysSo(t *testing.T) {
	for _, c := range []struct {
		status      string
		interrupted bool
		want        string
	}{
		{chaos.Inconclusive, true, "interrupted: too little was measured after it"},
		{chaos.Inconclusive, false, "too little was measured after it"},
		{chaos.Confirmed, true, "too little was measured after it"},
	} {
		r := chaos.Result{Evidence: chaos.Evidence{Status: c.status, Detail: "too little was measured after it"}}
		if got := evidenceOf(r, c.interrupted).Detail; got != c.want {
			t.Errorf("%s, interrupted %v: %q, want %q", c.status, c.interrupted, got, c.want)
		}
	}
}

// What takes seconds is said before it begins.
func TestWatchingIsSaid(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for _, c := range []struct {
		ctx      context.Context
		statuses []string
		want     string
	}{
		{t.Context(), []string{"injected", "restored"}, "00:00:00.000  injected\n00:00:00.000  restored\n00:00:00.000  watching until it is over\n"},
		{t.Context(), []string{"failed", "restored"}, "00:00:00.000  failed\n00:00:00.000  restored\n"},
		{ended, []string{"injected", "restored"}, "00:00:00.000  injected\n00:00:00.000  restored\n"},
	} {
		var out bytes.Buffer
		say := &said{ctx: c.ctx, out: &out}
		for _, status := range c.statuses {
			say.Emit(event.Event{Kind: event.Fault, Status: status})
		}
		if out.String() != c.want {
			t.Errorf("got %q, want %q", out.String(), c.want)
		}
	}
}
