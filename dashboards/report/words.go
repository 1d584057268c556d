package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
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
	want := o.Measured != o.Threshold
	for digits := 3; ; digits++ {
		s := significant(o.Measured, digits)
		if !want || digits >= 9 || s != significant(o.Threshold, digits) {
			return withUnit(s, o.Unit)
		}
	}
}

// LimitWords is the threshold in words: "under 2 s".
func (o Objective) LimitWords() string {
	t := withUnit(significant(o.Threshold, 6), o.Unit)
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
		return ordinal(strings.TrimSuffix(q, ")")) + " percentile"
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
			return significant(m/t, 2) + "× the limit"
		case !o.Pass:
			return share(m/t-1) + " over"
		case m == t:
			return "nothing to spare"
		}
		return share(1-m/t) + " to spare"
	case ">", ">=":
		if o.Pass != (m >= t) && m != t {
			return ""
		}
		switch {
		case !o.Pass:
			return share(1-m/t) + " short"
		case m >= 2*t:
			return significant(m/t, 2) + "× the need"
		}
		return share(m/t-1) + " to spare"
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
	s := strings.ReplaceAll(f.Fail, "-", " ")
	if f.Where != "" {
		s += " on " + f.Where
	}
	if f.Model != "" {
		s += " (" + f.Model + ")"
	}
	return s
}

// Words says what was expected and what was measured: "expected 100 %, measured 98.7 %".
func (e Evidence) Words() string {
	return "expected " + withUnit(significant(e.Expected, 4), e.Unit) + ", measured " + withUnit(significant(e.Measured, 4), e.Unit)
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

func ordinal(n string) string {
	switch {
	case strings.Contains(n, "."), strings.HasSuffix(n, "11"), strings.HasSuffix(n, "12"), strings.HasSuffix(n, "13"):
		return n + "th"
	case strings.HasSuffix(n, "1"):
		return n + "st"
	case strings.HasSuffix(n, "2"):
		return n + "nd"
	case strings.HasSuffix(n, "3"):
		return n + "rd"
	}
	return n + "th"
}

// nbsp keeps a number and its unit on one line.
const nbsp = "\u00a0"

func withUnit(s, unit string) string {
	switch unit {
	case "", "count":
		return s
	}
	return s + nbsp + unit
}

// share writes a fraction as whole per cent, or finer below 1 %.
func share(f float64) string {
	p := f * 100
	if p < 0 {
		p = 0
	}
	if p >= 1 || p == 0 {
		return strconv.Itoa(int(math.Floor(p+1e-9))) + nbsp + "%"
	}
	return significant(p, 1) + nbsp + "%"
}

// significant writes f with at most that many significant digits, no exponent, and thousands separated.
func significant(f float64, digits int) string {
	if !finite(f) {
		return "–"
	}
	if f == 0 {
		return "0"
	}
	decimals := digits - 1 - int(math.Floor(math.Log10(math.Abs(f))))
	decimals = min(max(decimals, 0), 9)
	s := strconv.FormatFloat(f, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		s = "0"
	}
	return thousands(s)
}

// thousands puts a comma between each three digits of the whole part.
func thousands(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	whole, frac, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if frac != "" {
		whole += "." + frac
	}
	return sign + whole
}

func count(n uint64) string { return thousands(strconv.FormatUint(n, 10)) }

// plural is "1 region", "2 regions".
func plural[N int | uint64](n N, one string) string {
	s := count(uint64(n)) + " " + one
	if n != 1 {
		s += "s"
	}
	return s
}

// millis writes a latency given in milliseconds, in the unit that reads best.
func millis(ms float64) string {
	switch {
	case !finite(ms):
		return "–"
	case ms >= 1000:
		return significant(ms/1000, 3) + nbsp + "s"
	case ms > 0 && ms < 1:
		return significant(ms*1000, 2) + nbsp + "µs"
	}
	return significant(ms, 3) + nbsp + "ms"
}

// lasting writes a duration in seconds: "20 s", "1 min 30 s", "3 h 0 min".
func lasting(s float64) string {
	if !finite(s) {
		return "–"
	}
	if s < 120 {
		return significant(math.Round(s*10)/10, 3) + nbsp + "s"
	}
	n := int(math.Round(s))
	if n < 3600 {
		if n%60 == 0 {
			return fmt.Sprintf("%d%smin", n/60, nbsp)
		}
		return fmt.Sprintf("%d%smin %d%ss", n/60, nbsp, n%60, nbsp)
	}
	return fmt.Sprintf("%d%sh %d%smin", n/3600, nbsp, n%3600/60, nbsp)
}

// clock writes moments of one run alike: seconds in a short run, minutes and hours in a long one.
type clock struct{ span float64 }

// at writes s seconds after the start of the event: "T+31 s", "T+12:05", "T+1:02:05".
func (c clock) at(s float64) string {
	if !finite(s) {
		return "T+?"
	}
	n := int(math.Round(s))
	sign := "+"
	if n < 0 {
		sign, n = "−", -n
	}
	switch {
	case c.span <= 180:
		return fmt.Sprintf("T%s%d%ss", sign, n, nbsp)
	case c.span <= 3600:
		return fmt.Sprintf("T%s%d:%02d", sign, n/60, n%60)
	}
	return fmt.Sprintf("T%s%d:%02d:%02d", sign, n/3600, n%3600/60, n%60)
}

// started writes an RFC 3339 time for people, or as it stands when it is none.
func started(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	return t.UTC().Format("2 Jan 2006, 15:04:05 UTC")
}
