package main

import (
	"bytes"
	"context"
	"testing"
	"time"

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
		ctx  context.Context
		want string
	}{
		{t.Context(), "00:00:00.000  restored \n00:00:00.000  watching until it is over\n"},
		{ended, "00:00:00.000  restored \n"},
	} {
		var out bytes.Buffer
		(&said{ctx: c.ctx, out: &out}).Emit(event.Event{Kind: event.Fault, Status: "restored"})
		if out.String() != c.want {
			t.Errorf("got %q, want %q", out.String(), c.want)
		}
	}
}

func TestDurationsAsAPersonWritesThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		20 * time.Second: "20s", 90 * time.Minute: "1h30m", 24 * time.Hour: "24h", 10 * time.Minute: "10m", 61 * time.Second: "1m1s", 0: "0s",
	} {
		if got := plain(d); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
