package verdict

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tminus-live/tminus/dashboards/report"
)

// MaxDroppedShare is the share of intended play starts the generator may fail to send before the run no longer
// represents the crowd that was asked for.
const MaxDroppedShare = 0.001

// Aftermath is how long after a fault's end its effects are still laid at its door: a buffer's worth of media and the
// retries of those who failed.
const Aftermath = 10.0 // seconds

// Decide returns the verdict of a report whose figures are filled in, and the reasons for it, the most telling first.
func Decide(r *report.Report) (verdict string, reasons []string) {
	missed, unmeasured := misses(r), gaps(r)
	if unsure := doubts(r); len(unsure) > 0 {
		return report.Inconclusive, slices.Concat(unsure, missed, unmeasured)
	}
	if len(missed) > 0 { // what was not measured cannot make good what was missed
		return report.NoGo, append(missed, unmeasured...)
	}
	if len(unmeasured) > 0 {
		return report.Inconclusive, unmeasured
	}
	return report.Go, []string{praise(r)}
}

// ExitCode is the process exit code of a verdict: 0 GO, 99 NO-GO, 98 inconclusive.
func ExitCode(verdict string) int {
	switch verdict {
	case report.Go:
		return 0
	case report.NoGo:
		return 99
	}
	return 98
}

func doubts(r *report.Report) []string {
	var out []string
	if r.DurationS <= 0 {
		out = append(out, "the event did not run to its end, so there is nothing to judge")
	}
	out = append(out, unproven(r.Experiment)...)
	for _, c := range r.Safety {
		if !c.Pass {
			out = append(out, cmp.Or(c.Detail, "it does not hold that "+c.Name))
		}
	}
	for _, f := range r.Faults {
		switch {
		case spared(r.Experiment, f):
		case f.Evidence.Status == report.Mismatch:
			out = append(out, fmt.Sprintf("the %s did not do what it should: %s", f.Words(), f.Evidence.Detail))
		case f.Evidence.Status != report.Confirmed:
			out = append(out, fmt.Sprintf("nothing proves that the %s happened: %s", f.Words(), f.Evidence.Detail))
		case !f.Restored:
			out = append(out, fmt.Sprintf("the %s was not undone", f.Words()))
		}
	}
	if t := r.Telemetry; t.Lost > 0 {
		out = append(out, fmt.Sprintf("telemetry is incomplete: %d events are lost (%d were written, %d are stored)", t.Lost, t.Emitted, t.Stored))
	} else if t.Stored != t.Emitted {
		out = append(out, fmt.Sprintf("telemetry does not add up: %d events were emitted and %d are stored", t.Emitted, t.Stored))
	}
	if l := r.Load; r.LateMatters() {
		who, again := "this machine", "on a quieter or a bigger one"
		if r.Pods > 0 {
			who, again = "a pod's machine", "with more pods, or on quieter or bigger machines"
		}
		out = append(out, fmt.Sprintf("%s could not send the crowd on time: %d play starts (%.3g\u00a0%%) went out more than 10\u00a0ms late by its own doing, not the service's; rerun %s", who, l.Late, l.LatePercent, again))
	}
	if p := r.Load.PlayStarts; p.Intended > 0 && float64(p.Dropped) > MaxDroppedShare*float64(p.Intended) {
		out = append(out, fmt.Sprintf("the generator could not send %d of %d play starts in time: the crowd was smaller than asked for", p.Dropped, p.Intended))
	}
	return out
}

// gaps are the objectives that nothing was measured for.
func gaps(r *report.Report) []string {
	var out []string
	for _, o := range r.Objectives {
		if o.Samples == 0 {
			out = append(out, fmt.Sprintf("nothing was measured for %s %s", o.Name(), o.Expression))
		}
	}
	return append(out, unknown(r.Experiment)...)
}

func misses(r *report.Report) []string {
	out := lost(r.Experiment)
	for _, o := range r.Objectives {
		if o.Pass || o.Samples == 0 {
			continue
		}
		s := o.MissWords()
		if o.Note != "" {
			s += "; " + o.Note
		}
		out = append(out, s)
	}
	return out
}

func praise(r *report.Report) string {
	s := fmt.Sprintf("all %d objectives were met", len(r.Objectives))
	if len(r.Objectives) == 1 {
		s = "the objective was met"
	}
	var survived []string
	for _, f := range r.Faults {
		survived = append(survived, "the "+f.Words())
	}
	if len(survived) > 0 {
		s += ", through " + strings.Join(survived, " and ")
	}
	if e := r.Experiment; e != nil && len(e.SteadyState) > 0 {
		s += "; " + e.SteadyWords()
	}
	return s
}

// Compare reports whether measured stands to threshold as op asks; op is one of < <= > >= == !=. A measurement that is
// not a number meets nothing.
func Compare(measured float64, op string, threshold float64) bool {
	switch op {
	case "<":
		return measured < threshold
	case "<=":
		return measured <= threshold
	case ">":
		return measured > threshold
	case ">=":
		return measured >= threshold
	case "==":
		return measured == threshold
	case "!=":
		return measured != threshold && !math.IsNaN(measured)
	}
	return false
}

// Blame points each missed objective at the fault during which (or within Aftermath of which) most of the harm was done,
// and says so in the objective's note. An objective whose harm is spread over the run, or has no series in the
// timeline, is left without a suspect; so is one about some viewers only, since the timeline is about all of them.
func Blame(r *report.Report) {
	for i := range r.Objectives {
		o := &r.Objectives[i]
		if o.Pass || o.Samples == 0 || o.Where != "" {
			continue
		}
		harm := harmOf(o)
		if harm == nil {
			continue
		}
		var total float64
		for _, s := range r.Timeline {
			total += harm(s)
		}
		if total <= 0 {
			continue
		}
		var best *report.Fault
		var bestShare float64
		for j := range r.Faults {
			f := &r.Faults[j]
			var within float64
			for _, s := range r.Timeline {
				if t := float64(s.T); t+1 > f.AtS && t < f.AtS+f.ForS+Aftermath {
					within += harm(s)
				}
			}
			if share := within / total; share > bestShare {
				best, bestShare = f, share
			}
		}
		if best == nil || bestShare < 0.5 {
			continue
		}
		o.Suspect = best.ID
		from, to := span(r.Timeline, harm, best.AtS, best.AtS+best.ForS+Aftermath)
		share := fmt.Sprintf("%.0f %%", math.Floor(bestShare*100))
		if bestShare > 0.995 {
			share = "all"
		}
		o.Note = fmt.Sprintf("%s of it fell between T+%d s and T+%d s, during the %s and its aftermath", share, from, to, best.Words())
	}
}

// harmOf returns what a second of the timeline adds to an objective's miss, or nil when the timeline has no such series.
func harmOf(o *report.Objective) func(report.Second) float64 {
	switch o.Metric {
	case "video_start_failures":
		return func(s report.Second) float64 { return s.PlayFailures }
	case "rebuffer_ratio", "rebuffer_duration":
		return func(s report.Second) float64 { return s.RebufferRatio * s.Sessions }
	case "live_latency":
		limit := o.Threshold
		return func(s report.Second) float64 { return math.Max(0, s.LiveLatencyP95S-limit) }
	}
	return nil
}

func span(tl []report.Second, harm func(report.Second) float64, from, to float64) (first, last int) {
	first = -1
	for _, s := range tl {
		if t := float64(s.T); t+1 > from && t < to && harm(s) > 0 {
			if first < 0 {
				first = s.T
			}
			last = s.T + 1
		}
	}
	return max(first, 0), last
}
