package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Metric is a measure that objectives may judge.
type Metric struct {
	Name       string
	Unit       string   // "s", "%", "count", "kb/s"
	Aggregates []string // of "p", "avg", "min", "max", "med", "rate", "count"
	Dimensions []string // of "region", "device", "isp"
	Source     Source
	Help       string
}

// Source is what a metric is measured on.
type Source int

// Sources.
const (
	FromAnything Source = iota
	FromPlayers         // full players
	FromStarts          // play starts, the full players' own included
)

var (
	spread     = []string{"p", "avg", "med", "min", "max"}
	everywhere = []string{"region", "device", "isp"}

	metrics = []Metric{
		{"startup_time", "s", spread, everywhere, FromPlayers, "from pressing Play to the first frame, of full players"},
		{"play_start_time", "s", spread, everywhere, FromStarts, "from the intended moment of a play start to its answer"},
		{"video_start_failures", "%", []string{"rate"}, everywhere, FromAnything, "play starts that were shed, failed or dropped, or never showed a frame"},
		{"rebuffer_ratio", "%", spread, everywhere, FromPlayers, "part of a session's time on the air spent stalled"},
		{"rebuffer_duration", "s", spread, everywhere, FromPlayers, "length of one stall"},
		{"live_latency", "s", spread, everywhere, FromPlayers, "behind the encoder's wall clock"},
		{"bitrate", "kb/s", spread, everywhere, FromPlayers, "video rendition on the screen"},
		{"edge_switches", "count", []string{"count"}, everywhere, FromPlayers, "moves of a player to another edge"},
		{"failed_sessions", "count", []string{"count"}, everywhere, FromPlayers, "players that never showed a frame or gave up"},
		{"telemetry_loss", "%", []string{"rate"}, nil, FromAnything, "events emitted that the store does not have"},
	}
)

// Metrics lists the measures that objectives may judge.
func Metrics() []Metric { return slices.Clone(metrics) }

func metricNames() []string {
	names := make([]string, len(metrics))
	for i, m := range metrics {
		names[i] = m.Name
	}
	return names
}

func metricNamed(name string) (Metric, bool) {
	i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return metrics[i], true
}

// example is a valid expression on the metric.
func (m Metric) example() string {
	agg := m.Aggregates[0]
	if agg == "p" {
		agg = "p(95)"
	}
	switch m.Unit {
	case "s":
		return agg + "<2s"
	case "%":
		return agg + "<0.4%"
	case "kb/s":
		return agg + ">1500kb/s"
	default:
		return agg + "==0"
	}
}

func (m Metric) unitInWords() string {
	switch m.Unit {
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
// and fills an Objective's Expression, Aggregate, Quantile, Op and Threshold. The error says what is wrong and gives an
// expression that would be right.
func ParseExpression(m Metric, text string) (Objective, error) {
	o := Objective{Metric: m.Name, Expression: text}
	fail := func(format string, args ...any) (Objective, error) {
		return Objective{}, fmt.Errorf(format+", such as %q", append(args, m.example())...)
	}
	if len(text) > 100 {
		return fail("too long: an expression has at most 100 characters")
	}
	left, right := "", ""
	at := strings.IndexAny(text, "<>=!")
	if at >= 0 {
		for _, op := range operators {
			if strings.HasPrefix(text[at:], op) {
				o.Op, left, right = op, strings.TrimSpace(text[:at]), strings.TrimSpace(text[at+len(op):])
				break
			}
		}
	}
	if o.Op == "" || left == "" || right == "" {
		return fail("bad expression %q: want an aggregate, an operator (<, <=, >, >=, ==, !=) and %s", clip(text), m.unitInWords())
	}
	o.Aggregate = left
	if name, arg, ok := strings.Cut(left, "("); ok {
		arg, closed := strings.CutSuffix(arg, ")")
		q, err := strconv.ParseFloat(strings.TrimSpace(arg), 64)
		if strings.TrimSpace(name) != "p" || !closed || err != nil || !(q > 0 && q < 100) {
			return fail("bad aggregate %q: a percentile is p(N) with N between 0 and 100", clip(left))
		}
		o.Aggregate, o.Quantile = "p", q
	} else if left == "p" {
		return fail("a percentile needs its number: want p(N) with N between 0 and 100")
	}
	if !slices.Contains(m.Aggregates, o.Aggregate) {
		return fail("unknown aggregate %q: %s takes %s", clip(left), m.Name, strings.Join(m.aggregates(), ", "))
	}
	v, unit := splitUnit(right)
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f >= 0 && f <= 1e12) {
		return fail("bad threshold %q: want %s", clip(right), m.unitInWords())
	}
	scale, ok := units[m.Unit][unit]
	if !ok {
		if unit == "" {
			return fail("%q has no unit: %s is %s", clip(right), m.Name, m.unitInWords())
		}
		return fail("wrong unit in %q: %s is %s", clip(right), m.Name, m.unitInWords())
	}
	if m.Unit == "%" && f > 100 {
		return fail("threshold %q is more than 100%%: want %s", clip(right), m.unitInWords())
	}
	o.Threshold = f * scale
	if m.Unit == "s" { // through integers: 250ms is 0.25 s, not 0.25000000000000006
		if d, err := time.ParseDuration(v + unit); err == nil {
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

func (m Metric) aggregates() []string {
	out := slices.Clone(m.Aggregates)
	for i, a := range out {
		if a == "p" {
			out[i] = "p(N)"
		}
	}
	return out
}

// splitUnit parts "12.5kb/s" into "12.5" and "kb/s".
func splitUnit(s string) (number, unit string) {
	i := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}
