package rehearsal

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// maxMoments bounds the story; a run that has more to tell tells it in timeline.ndjson.
const maxMoments = 200

// story is what happened, in order, in words, from what was stored.
func (r *Rehearsal) story(ctx context.Context, rep *report.Report, out outcome) ([]report.Moment, error) {
	var ms []report.Moment
	say := func(at float64, kind, format string, args ...any) {
		ms = append(ms, report.Moment{AtS: at, Kind: kind, Text: fmt.Sprintf(format, args...)})
	}
	since := func(t time.Time) float64 { return t.Sub(r.zero).Seconds() }

	p := rep.Load.PlayStarts
	if r.pods > 0 {
		say(0, "phase", "The event begins: %s play starts are due, %d of them by full players; %d pods send them.", thousands(p.Intended), rep.Players.Sessions, r.pods)
	} else {
		say(0, "phase", "The event begins: %s play starts are due, %d players watch to the end.", thousands(p.Intended), r.cfg.Scenario.Audience.Players)
	}
	if at, rate := peak(rep.Timeline); rate > 0 {
		say(float64(at), "viewers", "Play starts peak at %s a second.", thousands(uint64(rate)))
	}
	for _, f := range rep.Faults {
		if f.ForS > 0 {
			say(f.AtS, "fault", "%s begins.", capital(f.Words()))
			say(f.AtS+f.ForS, "fault", "%s is undone.", capital(f.Words()))
		}
		say(f.AtS+f.ForS, "evidence", "%s: %s: %s.", capital(f.Words()), f.Evidence.Status, f.Evidence.Detail)
	}
	if len(rep.Faults) > 0 {
		ms = append(ms, experimentMoments(rep.Experiment, rep.Faults[0].AtS)...)
	}
	for _, i := range r.cfg.Scenario.Audience.Interruptions {
		if i.At < out.ran {
			how := "will come back as the playback service asks them to"
			if !i.Guided {
				how = "will press Play again as they please"
			}
			say(i.At.Seconds(), "viewers", "%s viewers of %s lose their picture; they %s.", thousands(uint64(i.Viewers)), i.Region, how)
		}
	}
	if r.nowcast != nil {
		for _, w := range r.nowcast.warnings {
			say(w.at.Seconds(), "forecast", "The nowcast warns: %s.", strings.TrimSuffix(w.text, "."))
		}
	}
	if rep.Forecast != nil {
		for _, g := range growths(rep.Forecast.Scaling) {
			say(g.at, "forecast", "The nowcast has %s.", g.text)
		}
	}
	var levers []pull
	err := qoe.Events(ctx, r.telemetry.db, r.id, []event.Kind{event.RegionHealth, event.TelemetryDropped, event.Lever}, maxMoments, func(e event.Event) error {
		switch e.Kind {
		case event.RegionHealth:
			if e.Edge != "" {
				break // the region's own line says it for all its edges; a single edge is in timeline.ndjson
			}
			text := "%s sends its viewers elsewhere: it finds region %s down."
			if e.Status == "up" {
				text = "%s sends viewers to region %s again."
			}
			say(since(e.At), "fault", text, capital(e.Component), e.Region)
		case event.Lever:
			_, region, _ := strings.Cut(e.Component, "/")
			levers = append(levers, pull{since(e.At), cmp.Or(region, e.Component), e.Detail, e.State, e.Status == "released"})
		case event.TelemetryDropped:
			say(since(e.At), "telemetry", "%s dropped %.0f events: %s.", e.Source, e.Value, e.Detail)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, p := range pulls(levers) {
		say(p.at, "lever", "%s", p.text)
	}
	stalls, err := qoe.Stalls(ctx, r.telemetry.db, r.id)
	if err != nil {
		return nil, err
	}
	for _, w := range waves(stalls) {
		at := since(w.from)
		if w.stalls == 1 {
			say(at, "viewers", "A picture stands still for %.1f s.", w.longestS)
		} else {
			say(at, "viewers", "Pictures stand still: %d stalls begin within %.0f s, the longest lasts %.1f s.", w.stalls, math.Ceil(w.to.Sub(w.from).Seconds()+1), w.longestS)
		}
	}
	if s := rep.Players.StartFailures; s > 0 {
		say(out.ran.Seconds(), "viewers", "%d of %d players never saw a picture.", s, rep.Players.Sessions)
	}
	if s := rep.Players.SkippedS; s >= 1 {
		say(out.ran.Seconds(), "viewers", "To catch up with the live edge, players jumped over %.0f s of the event, all of them together.", s)
	}
	if len(stalls) == 0 && rep.Players.PlayingS > 0 {
		say(out.ran.Seconds(), "viewers", "Of the %d full players nobody's picture stood still: %.0f s were watched, %d times a player changed edge.", rep.Players.Sessions, rep.Players.PlayingS, rep.Players.EdgeSwitches)
	}
	if out.interrupted != "" {
		say(out.ran.Seconds(), "phase", "The event ends early: %s.", out.interrupted)
	} else {
		say(out.ran.Seconds(), "phase", "The event ends.")
	}
	say(out.ran.Seconds(), "telemetry", "%s events were emitted, %s are stored.", thousands(rep.Telemetry.Emitted), thousands(rep.Telemetry.Stored))
	sort.SliceStable(ms, func(i, j int) bool { return ms[i].AtS < ms[j].AtS })
	return ms, nil
}

// line is one thing to tell.
type line struct {
	at   float64
	text string
}

// pull is one lever that one region's playback service pulled or let go of.
type pull struct {
	at                float64
	region, lever, by string
	released          bool
}

// pulls joins levers that are moved the same way within two seconds of each other, in whatever regions.
func pulls(all []pull) (out []line) {
	const gap = 2.0
	for i := 0; i < len(all); {
		var regions, levers []string
		first, last := all[i], all[i].at
		for ; i < len(all) && all[i].released == first.released && all[i].by == first.by && all[i].at-last <= gap; i++ {
			if !slices.Contains(regions, all[i].region) {
				regions = append(regions, all[i].region)
			}
			if !slices.Contains(levers, all[i].lever) {
				levers = append(levers, all[i].lever)
			}
			last = all[i].at
		}
		slices.Sort(regions)
		verb := "pull"
		if first.released {
			verb = "let go of"
		}
		who := "Regions "
		if len(regions) == 1 {
			who = "Region "
			verb = strings.Replace(strings.Replace(verb, "pull", "pulls", 1), "let", "lets", 1)
		}
		what := "the lever "
		if len(levers) > 1 {
			what = "the levers "
		}
		out = append(out, line{first.at, fmt.Sprintf("%s%s %s %s%s, moved by %s.", who, strings.Join(regions, " and "), verb, what, strings.Join(levers, ", "), first.by)})
	}
	return out
}

// growths are the changes of capacity that a nowcast asked for, but for what each region began with.
func growths(all []report.Scaling) (out []line) {
	stood := map[string]float64{}
	for _, s := range all {
		if was, known := stood[s.Region]; known && was != s.Capacity {
			verb := "grow"
			if s.Capacity < was {
				verb = "shrink"
			}
			out = append(out, line{s.T, fmt.Sprintf("%s %s from %s to %s play starts a second", s.Region, verb, thousands(uint64(was)), thousands(uint64(s.Capacity)))})
		}
		stood[s.Region] = s.Capacity
	}
	return out
}

// thousands writes a whole number as it is read: 6,000,000.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// wave is stalls that follow one another closely: one thing to tell.
type wave struct {
	from, to time.Time
	stalls   uint64
	longestS float64
}

// waves joins stalls that begin within waveGap of each other. What is shorter than anybody sees is not told.
func waves(stalls []qoe.Stall) []wave {
	const (
		waveGap = 10 * time.Second
		visible = 0.1 // seconds
	)
	var ws []wave
	for _, s := range stalls {
		if s.LongestS < visible {
			continue
		}
		if n := len(ws); n > 0 && s.At.Sub(ws[n-1].to) <= waveGap {
			w := &ws[n-1]
			w.to, w.stalls, w.longestS = s.At, w.stalls+s.Sessions, max(w.longestS, s.LongestS)
			continue
		}
		ws = append(ws, wave{s.At, s.At, s.Sessions, s.LongestS})
	}
	return ws[:min(len(ws), maxMoments)]
}

// peak is the second with the most play starts.
func peak(tl []report.Second) (at int, rate float64) {
	for _, s := range tl {
		if s.PlayStarts > rate {
			at, rate = s.T, s.PlayStarts
		}
	}
	return at, rate
}

func capital(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
