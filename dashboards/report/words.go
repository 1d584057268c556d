package report

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// The states of an objective.
const (
	Met    = "met"
	Missed = "missed"
	NoData = "no data" // nothing was measured: inconclusive, never a pass
)

// The states of a fault's evidence.
const (
	Confirmed = "confirmed"
	Mismatch  = "mismatch"
	// Inconclusive is the third.
)

// State says met, missed or no data.
func (o Objective) State() string {
	switch {
	case o.Samples == 0:
		return NoData
	case o.Pass:
		return Met
	}
	return Missed
}

// WorstFirst is the objectives in the order in which they are shown: missed, then without data, then met, each as
// written in the scenario.
func (r *Report) WorstFirst() []Objective {
	rank := map[string]int{Missed: 0, NoData: 1, Met: 2}
	sorted := slices.Clone(r.Objectives)
	slices.SortStableFunc(sorted, func(a, b Objective) int { return rank[a.State()] - rank[b.State()] })
	return sorted
}

// Name is the objective's metric with its filter, as a scenario writes it: "live_latency{region=us-west}".
func (o Objective) Name() string {
	if o.Where == "" {
		return o.Metric
	}
	return o.Metric + "{" + o.Where + "}"
}

// Title is the metric in words: "Live latency".
func (o Objective) Title() string { return title(o.Metric) }

// MeasuredWords is the measured value with its unit, "1.42 s", with enough digits to differ from a threshold that it
// does not equal; "no data" without samples.
func (o Objective) MeasuredWords() string {
	if o.Samples == 0 {
		return NoData
	}
	m, limit, unit := o.Measured, o.Threshold, o.Unit
	if unit == "s" && m > 0 && m < 0.1 {
		if m < 0.001 {
			return words.Millis(m * 1000)
		}
		m, limit, unit = m*1000, limit*1000, "ms"
	}
	want := o.Measured != o.Threshold
	for digits := 3; ; digits++ {
		s := words.Significant(m, digits)
		if !want || digits >= 9 || s != words.Significant(limit, digits) {
			return words.WithUnit(s, unit)
		}
	}
}

// LimitWords is the threshold in words: "under 2 s".
func (o Objective) LimitWords() string {
	t := words.WithUnit(words.Significant(o.Threshold, 6), o.Unit)
	if o.Unit == "s" && o.Threshold > 0 && o.Threshold < 0.1 {
		t = words.WithUnit(words.Significant(o.Threshold*1000, 6), "ms")
	}
	switch o.op() {
	case "<":
		return "under " + t
	case "<=":
		return "at most " + t
	case ">":
		return "over " + t
	case ">=":
		return "at least " + t
	case "==":
		return "exactly " + t
	case "!=":
		return "anything but " + t
	}
	return t
}

// AggregateWords is the aggregate in words: "95th percentile", "average".
func (o Objective) AggregateWords() string {
	agg := strings.TrimSpace(o.Expression)
	if i := strings.IndexAny(agg, "<>=!"); i >= 0 {
		agg = strings.TrimSpace(agg[:i])
	}
	if q, ok := strings.CutPrefix(agg, "p("); ok {
		return words.Ordinal(strings.TrimSuffix(q, ")")) + " percentile"
	}
	switch agg {
	case "avg":
		return "average"
	case "med":
		return "median"
	case "min":
		return "lowest"
	case "max":
		return "highest"
	}
	return agg
}

// MarginWords says how far the measured value is from the threshold: "34 % to spare", "4.2× the limit".
func (o Objective) MarginWords() string {
	m, t := o.Measured, o.Threshold
	if t == 0 && m == 0 && o.Pass && o.Samples > 0 {
		return "none seen"
	}
	if o.Samples == 0 || t <= 0 || m < 0 {
		return ""
	}
	switch o.op() {
	case "<", "<=":
		if o.Pass != (m <= t) && m != t {
			return "" // the figure and the judgement are at odds: say nothing of a margin
		}
		switch {
		case m == 0:
			return ""
		case !o.Pass && m >= 2*t:
			return words.Significant(m/t, 2) + "× the limit"
		case !o.Pass:
			return words.Share(m/t-1) + " over"
		case m == t:
			return "nothing to spare"
		}
		return words.Share(1-m/t) + " to spare"
	case ">", ">=":
		if o.Pass != (m >= t) && m != t {
			return ""
		}
		switch {
		case !o.Pass:
			return words.Share(1-m/t) + " short"
		case m >= 2*t:
			return words.Significant(m/t, 2) + "× the need"
		}
		return words.Share(m/t-1) + " to spare"
	}
	return ""
}

// op is the comparison that the expression was written with.
func (o Objective) op() string {
	i := strings.IndexAny(o.Expression, "<>=!")
	if i < 0 {
		return ""
	}
	op := o.Expression[i : i+1]
	if i+1 < len(o.Expression) && o.Expression[i+1] == '=' {
		op += "="
	}
	return op
}

// Words names the fault: "crash of us-east".
func (f Fault) Words() string {
	if f.Fail == "region" {
		model := f.Model
		if model == "" {
			model = "failure"
		}
		return model + " of " + f.Where
	}
	if f.Fail == "process" {
		return f.Model + " of the processes of " + f.Where
	}
	switch f.Fail {
	case "http":
		return "HTTP " + f.Model + " at " + f.Where
	case "segments":
		return f.Model + " segments at " + f.Where
	}
	s := strings.ReplaceAll(f.Fail, "-", " ")
	if f.Where != "" && f.Where != f.Fail {
		s += " on " + f.Where
	}
	if f.Model != "" {
		s += " (" + f.Model + ")"
	}
	return s
}

// Words says what was expected and what was measured: "expected 100 %, measured 98.7 %".
func (e Evidence) Words() string {
	return "expected " + words.WithUnit(words.Significant(e.Expected, 4), e.Unit) + ", measured " + words.WithUnit(words.Significant(e.Measured, 4), e.Unit)
}

// Settings says how the fault was set up, and by what means: "burst 8, loss 5%; by a relay in user space".
func (f Fault) Settings() string {
	var set []string
	for _, name := range slices.Sorted(maps.Keys(f.Params)) {
		if f.Params[name] != "" {
			set = append(set, name+" "+f.Params[name])
		}
	}
	s := strings.Join(set, ", ")
	if f.Means != "" {
		s += "; by " + f.Means
	}
	return strings.TrimPrefix(s, "; ")
}

// Injected says whether the fault was in effect at all. A run that ends early, or an injection that fails, leaves a
// fault without a moment of its own and its evidence without a figure.
func (f Fault) Injected() bool {
	return f.ForS > 0 || f.Evidence.Status == Confirmed || f.Evidence.Status == Mismatch
}

// EvidenceWords is what was expected and measured of the fault or, where that proves nothing or it was never injected, why:
// figures of too little would look like a proof.
func (f Fault) EvidenceWords() string {
	switch {
	case f.Injected() && (f.Evidence.Status != Inconclusive || f.Evidence.Detail == ""):
		return f.Evidence.Words()
	case f.Evidence.Detail != "":
		return f.Evidence.Detail
	}
	return "not reached"
}

func title(metric string) string {
	s := strings.ReplaceAll(strings.ReplaceAll(metric, "_", " "), "-", " ")
	switch metric {
	case "rebuffer_ratio":
		s = "rebuffering"
	}
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// started writes an RFC 3339 time for people, or as it stands when it is none.
func started(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	return t.UTC().Format("2 Jan 2006, 15:04:05 UTC")
}
