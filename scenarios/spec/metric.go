package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/telemetry/qoe"
)

func metricNames() []string {
	var names []string
	for _, m := range qoe.Metrics() {
		names = append(names, m.Name)
	}
	return names
}

// example is a valid expression on the metric with the given aggregate, or with its first.
func example(m qoe.Metric, aggregate string) string {
	if !slices.Contains(m.Aggregates, aggregate) {
		aggregate = m.Aggregates[0]
	}
	written := aggregate
	if aggregate == qoe.P {
		written = "p(95)"
	}
	switch m.UnitOf(aggregate) {
	case "s":
		return written + "<2s"
	case "%":
		return written + "<0.4%"
	case "kb/s":
		return written + ">1500kb/s"
	default:
		return written + "<10"
	}
}

func unitInWords(unit string) string {
	switch unit {
	case "s":
		return "a duration"
	case "%":
		return "a percentage"
	case "kb/s":
		return "a bitrate"
	default:
		return "a number without a unit"
	}
}

// operators, the longer first so that "<=" is not read as "<".
var operators = []string{"<=", ">=", "==", "!=", "<", ">"}

// ParseExpression reads a threshold such as "p(95)<2s", "rate<0.1%", "count==0" or "min>1500kb/s" against a metric,
// and fills an Objective's Metric, Expression, Aggregate, Quantile, Op and Threshold. The error says what is wrong and
// gives an expression that would be right.
func ParseExpression(m qoe.Metric, text string) (Objective, error) {
	o := Objective{Metric: m.Name, Expression: text}
	fail := func(format string, args ...any) (Objective, error) {
		return Objective{}, fmt.Errorf(format+", such as %q", append(args, example(m, o.Aggregate))...)
	}
	if len(text) > 100 {
		return fail("too long: an expression has at most 100 characters")
	}
	left, right := "", ""
	if at := strings.IndexAny(text, "<>=!"); at >= 0 {
		for _, op := range operators {
			if strings.HasPrefix(text[at:], op) {
				o.Op, left, right = op, strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+len(op):])
				break
			}
		}
	}
	if left == "" || right == "" {
		return fail("bad expression %q: want an aggregate, an operator (<, <=, >, >=, ==, !=) and a threshold", clip(text))
	}
	o.Aggregate = left
	if name, arg, ok := strings.Cut(left, "("); ok {
		arg, closed := strings.CutSuffix(arg, ")")
		q, err := strconv.ParseFloat(strings.TrimSpace(arg), 64)
		if strings.TrimSpace(name) != qoe.P || !closed || err != nil || !(q >= 0 && q <= 100) {
			return fail("bad aggregate %q: a percentile is p(N) with N from 0 to 100", clip(left))
		}
		o.Aggregate, o.Quantile = qoe.P, q
	} else if left == qoe.P {
		return fail("a percentile needs its number: want p(N) with N from 0 to 100")
	}
	if !slices.Contains(m.Aggregates, o.Aggregate) {
		return fail("unknown aggregate %q: %s takes %s", clip(left), m.Name, aggregates(m))
	}
	unit := m.UnitOf(o.Aggregate)
	is := m.Name + " is " + unitInWords(unit)
	if o.Aggregate == qoe.Count {
		is = "a count is " + unitInWords(unit)
	}
	v, suffix := splitUnit(right)
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f >= 0 && f <= 1e12) {
		return fail("bad threshold %q: %s", clip(right), is)
	}
	scale, ok := units[unit][suffix]
	switch {
	case !ok && suffix == "":
		return fail("%q has no unit: %s", clip(right), is)
	case !ok:
		return fail("wrong unit in %q: %s", clip(right), is)
	case unit == "%" && f > 100:
		return fail("%q is more than the whole: want at most 100%%", clip(right))
	}
	o.Threshold = f * scale
	if unit == "s" { // through integers: 250ms is 0.25 s, not 0.25000000000000006
		if d, err := time.ParseDuration(v + suffix); err == nil {
			o.Threshold = d.Seconds()
		}
	}
	return o, nil
}

// units gives, for a metric's unit, the suffixes that may be written and what each is worth.
var units = map[string]map[string]float64{
	"s":     {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60},
	"%":     {"%": 1},
	"count": {"": 1},
	"kb/s":  {"kb/s": 1, "Mb/s": 1e3},
}

func aggregates(m qoe.Metric) string {
	out := slices.Clone(m.Aggregates)
	for i, a := range out {
		if a == qoe.P {
			out[i] = "p(N)"
		}
	}
	return strings.Join(out, ", ")
}

// splitUnit parts "12.5kb/s" into "12.5" and "kb/s".
func splitUnit(s string) (number, unit string) {
	i := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}
