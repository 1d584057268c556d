package qoe_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// halves is a crowd of two homes: those of us-east are served by us-west from the fourth second on, and fare worse.
func halves() []event.Event {
	var events []event.Event
	add := func(t float64, e event.Event) {
		e.At = at(t)
		events = append(events, e)
	}
	for i := range 10 {
		e := event.Event{Kind: event.PlayStart, Status: "ok", Component: "starts", Home: "us-west", Region: "us-west", Value: 100}
		if i%2 == 0 {
			e.Home, e.Value = "us-east", 1100
			if i == 0 {
				e.Status = "failed"
			}
		}
		add(5, e)
	}
	for i := range 4 {
		home, stalled := "us-west", 0.0
		if i%2 == 0 {
			home, stalled = "us-east", 250*float64(i/2+1)
		}
		session := fmt.Sprint("p", i)
		add(1, event.Event{Kind: event.FirstFrame, Session: session, Home: home, Value: 500}) // before the part that is looked at
		for beat := range 4 {
			e := event.Event{Kind: event.Heartbeat, Session: session, Home: home, Region: "us-west", State: "playing", PlayingMS: 1000, LatencyMS: 5000, BitrateKbps: 3000}
			if beat == 0 {
				e.PlayingMS, e.RebufferMS = 1000-stalled, stalled
			}
			add(5+float64(beat), e)
		}
		if home == "us-east" {
			add(5, event.Event{Kind: event.EdgeSwitch, Session: session, Home: home, Region: "us-west"})
		}
	}
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq, events[i].Written = "r", "conductor#1", uint64(i+1), events[i].At
	}
	return events
}

func TestGroupsAreToldByTheirHome(t *testing.T) {
	db := open(t)
	store(t, db, halves())
	for _, c := range []struct {
		metric     string
		east, west qoe.Group
	}{
		{"video_start_failures", qoe.Group{N: 5, Bad: 1}, qoe.Group{N: 5}},
		{"player_start_failures", qoe.Group{}, qoe.Group{}}, // their first frames were earlier
		{"play_start_time", qoe.Group{N: 4, Mean: 1.1}, qoe.Group{N: 5, Mean: 0.1}},
		{"startup_time", qoe.Group{}, qoe.Group{}},
		{"rebuffer_ratio", qoe.Group{N: 2, Mean: 9.375, Variance: 2 * 3.125 * 3.125, Values: []float64{6.25, 12.5}}, qoe.Group{N: 2, Values: []float64{0, 0}}},
		{"live_latency", qoe.Group{N: 2, Mean: 5}, qoe.Group{N: 2, Mean: 5}},
		{"bitrate", qoe.Group{N: 2, Mean: 3000}, qoe.Group{N: 2, Mean: 3000}},
		{"edge_switches", qoe.Group{N: 2, Mean: 1, Values: []float64{1, 1}}, qoe.Group{N: 2, Values: []float64{0, 0}}},
	} {
		all := qoe.Comparables()
		i := slices.IndexFunc(all, func(m qoe.Comparable) bool { return m.Metric == c.metric })
		for home, want := range map[string]qoe.Group{"us-east": c.east, "us-west": c.west} {
			got, err := qoe.GroupOf(t.Context(), db, "r", all[i], home, at(4), at(60))
			if err != nil {
				t.Fatal(err)
			}
			if got.N != want.N || got.Bad != want.Bad || !near(got.Mean, want.Mean) || !near(got.Variance, want.Variance) || !slices.Equal(got.Values, want.Values) {
				t.Errorf("%s of %s: %+v, want %+v", c.metric, home, got, want)
			}
		}
	}
	for _, c := range qoe.Comparables() {
		if m, ok := qoe.Lookup(c.Metric); !ok || m.Unit != c.Unit || !slices.Contains(m.Dimensions, "home") {
			t.Errorf("%s is no metric in %s with a home", c.Metric, c.Unit)
		}
	}
	// Of a part of the event, in which a player gave up that had asked before it.
	got, err := qoe.Measure(t.Context(), db, "r", qoe.Query{Metric: "video_start_failures", Aggregate: "rate", Where: map[string]string{"home": "us-east"}, From: at(4), To: at(60)})
	if err != nil || got.Value != 20 || got.Samples != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNewest(t *testing.T) {
	db := open(t)
	store(t, db, halves())
	newest, err := qoe.Newest(t.Context(), db, "r", []string{"conductor#1"}, at(0))
	if err != nil || !newest.Equal(at(8)) {
		t.Errorf("%s, %v", newest, err)
	}
	for _, sources := range [][]string{{"conductor#1", "starts#1"}, nil} {
		if newest, err := qoe.Newest(t.Context(), db, "r", sources, at(0)); err != nil || newest.After(time.Time{}) {
			t.Errorf("%v: %s, %v", sources, newest, err)
		}
	}
	if newest, err := qoe.Newest(t.Context(), db, "r", []string{"conductor#1"}, at(9)); err != nil || !newest.IsZero() {
		t.Errorf("%s, %v", newest, err)
	}
}

// BenchmarkLook asks what a stop condition asks several times a second, of a crowd of 100,000 play starts a second.
func BenchmarkLook(b *testing.B) {
	db := open(b)
	const n = 2_000_000
	storeFight(b, db, "r", n)
	to := start.Add(n * 10 * time.Microsecond)
	for _, q := range []qoe.Query{
		{Metric: "rebuffer_ratio", Aggregate: "avg"},
		{Metric: "video_start_failures", Aggregate: "rate"},
		{Metric: "play_start_time", Aggregate: "p", Quantile: 95},
	} {
		q.Zero, q.From, q.To = start, to.Add(-5*time.Second), to
		b.Run(q.Metric, func(b *testing.B) {
			for b.Loop() {
				if m, err := qoe.Measure(b.Context(), db, "r", q); err != nil || m.Samples == 0 {
					b.Fatal(m, err)
				}
			}
		})
	}
	b.Run("newest", func(b *testing.B) {
		for b.Loop() {
			if _, err := qoe.Newest(b.Context(), db, "r", []string{"s0", "s4"}, to.Add(-10*time.Second)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
