package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// Experiment is what a chaos experiment came to.
type Experiment struct {
	Strategy    string          `json:"strategy"` // when the steady state was checked
	SettleS     float64         `json:"settle_s"` // from the end of the last fault to the beginning of "after"
	NotInjected string          `json:"not_injected,omitempty"`
	SteadyState []SteadyState   `json:"steady_state"`
	Stop        []StopCondition `json:"stop,omitempty"`
	WindowS     float64         `json:"window_s,omitempty"` // that stop conditions looked back over
	Watch       *Watch          `json:"watch,omitempty"`
	Stopped     *Stopped        `json:"stopped,omitempty"`

	// Canary is the home region of the half of the crowd that the faults hit, Baseline of the half that it is compared with.
	Canary        string       `json:"canary,omitempty"`
	Baseline      string       `json:"baseline,omitempty"`
	ComparedFromS float64      `json:"compared_from_s,omitempty"`
	ComparedToS   float64      `json:"compared_to_s,omitempty"`
	Comparison    []Comparison `json:"comparison"`
}

// SteadyState is one threshold of the hypothesis in one phase. Samples 0: nothing was measured.
type SteadyState struct {
	Phase string  `json:"phase"` // before | during | after
	FromS float64 `json:"from_s"`
	ToS   float64 `json:"to_s"`
	Objective
}

// StopCondition is one threshold that would have ended, or did end, the faults.
type StopCondition struct {
	Metric     string `json:"metric"`
	Where      string `json:"where"`
	Expression string `json:"expression"`
	Held       bool   `json:"held"`

	NeverMeasured bool `json:"never_measured,omitempty"` // it had no sample in any look: nothing tells whether it held
}

// Watch is how stop conditions were watched.
type Watch struct {
	Looks   uint64  `json:"looks"`    // that were answered
	EveryS  float64 `json:"every_s"`  // the longest from one of them to the next
	BehindS float64 `json:"behind_s"` // the most that the newest event that could be read was old
}

// Stopped is why and when the faults were ended early.
type Stopped struct {
	AtS       float64 `json:"at_s"`      // when the faults were told to end
	Condition string  `json:"condition"` // "rebuffer_ratio avg>20%"; "": they could not be watched
	Blind     string  `json:"blind,omitempty"`

	Metric     string  `json:"metric,omitempty"`
	Where      string  `json:"where,omitempty"`
	Expression string  `json:"expression,omitempty"`
	Measured   float64 `json:"measured"`
	Threshold  float64 `json:"threshold"`
	Unit       string  `json:"unit,omitempty"`
	Samples    uint64  `json:"samples,omitempty"`

	HeldAtS      float64 `json:"held_at_s"`       // since when the condition held, by the times of the crowd's own events
	NoticedS     float64 `json:"noticed_after_s"` // from then until it was seen
	UndoneAfterS float64 `json:"undone_after_s"`  // from then until every fault was undone
}

// Comparison is how one QoE measure of the canary differs from the baseline's.
type Comparison struct {
	Metric      string  `json:"metric"`
	Unit        string  `json:"unit"`
	Baseline    Arm     `json:"baseline"`
	Canary      Arm     `json:"canary"`
	Difference  float64 `json:"difference"` // canary − baseline
	Low         float64 `json:"low"`        // of the interval of the difference
	High        float64 `json:"high"`
	Level       float64 `json:"level"`       // of its confidence: 0.95; 0: no interval, of too few samples or of samples without any spread
	Significant bool    `json:"significant"` // the interval holds no zero
	MoreIsGood  bool    `json:"more_is_good,omitempty"`
}

// Arm is one side of a comparison.
type Arm struct {
	N     uint64  `json:"n"`
	Value float64 `json:"value"`
}

// UndoneWithin is how soon after a stop condition holds every fault should be undone, seconds.
const UndoneWithin = 2

// MissWords says what was measured and what should have been: "Rebuffering (home=us-west): 3.1 %, must be under 1 %".
func (o Objective) MissWords() string {
	s := o.Title()
	if o.Where != "" {
		s += " (" + o.Where + ")"
	}
	return s + fmt.Sprintf(": %s, must be %s", o.MeasuredWords(), o.LimitWords())
}

// objective is the condition as a threshold, for its words.
func (s Stopped) objective() Objective {
	return Objective{Metric: s.Metric, Where: s.Where, Expression: s.Expression, Measured: s.Measured, Threshold: s.Threshold, Unit: s.Unit, Samples: max(1, s.Samples)}
}

// Name is the condition's metric with its filter.
func (c StopCondition) Name() string { return Objective{Metric: c.Metric, Where: c.Where}.Name() }

// Unmeasured reports whether nothing told if one of the stop conditions held while there was something to stop.
func (e Experiment) Unmeasured(c StopCondition) bool {
	return c.NeverMeasured && e.NotInjected == "" && e.Stopped == nil
}

// Words says which condition held and what was measured: "rebuffering 24 % over 5 s, and over 20 % stops it".
func (s Stopped) Words(windowS float64) string {
	if s.Blind != "" {
		return s.Blind
	}
	o := s.objective()
	title := strings.ToLower(o.Title())
	if o.Where != "" {
		title += " (" + o.Where + ")"
	}
	if w := o.AggregateWords(); w != "rate" && w != "count" && w != "average" {
		title += ", " + w + ","
	}
	return fmt.Sprintf("%s %s over %s, and %s ends the experiment", title, o.MeasuredWords(), words.Lasting(windowS), o.LimitWords())
}

// UndoneWords says how soon the faults were undone: "every fault was undone 0.9 s after it held".
func (s Stopped) UndoneWords() string {
	since := "it held"
	if s.Blind != "" {
		since = "that"
	}
	return "every fault was undone " + words.Seconds(max(0, s.UndoneAfterS)) + " after " + since
}

// Title is the measure in words.
func (c Comparison) Title() string { return title(c.Metric) }

// Tone says what a difference is: worse, better, none, or unknown.
func (c Comparison) Tone() string {
	switch {
	case c.Level == 0:
		return "unknown"
	case !c.Significant:
		return "none"
	case c.Difference > 0 == c.MoreIsGood:
		return "better"
	}
	return "worse"
}

// amount writes a figure of the measure, signed where it is a difference.
func (c Comparison) amount(v float64, signed bool) string {
	var s string
	switch {
	case c.Unit == "s" && v != 0 && math.Abs(v) < 0.1:
		s = words.WithUnit(words.Significant(v*1000, 3), "ms")
	default:
		s = words.WithUnit(words.Significant(v, 3), c.Unit)
	}
	if signed && v > 0 {
		return "+" + s
	}
	return s
}

// IntervalWords is the interval in words: "+0.2 s to +1.4 s".
func (c Comparison) IntervalWords() string {
	if c.Level == 0 {
		return "no interval: too few, or all alike"
	}
	return c.amount(c.Low, true) + " to " + c.amount(c.High, true)
}

// Differences counts the measures by whether the canary fared worse, better or alike.
func (e Experiment) Differences() (worse, better, alike int) {
	for _, c := range e.Comparison {
		switch c.Tone() {
		case "worse":
			worse++
		case "better":
			better++
		case "none":
			alike++
		}
	}
	return
}

// Worst is the measure in which the canary fared worse most surely: whose interval is furthest from zero for its width.
func (e Experiment) Worst() (worst Comparison, ok bool) {
	best := -1.0
	for _, c := range e.Comparison {
		if c.Tone() != "worse" {
			continue
		}
		sure := math.Min(math.Abs(c.Low), math.Abs(c.High)) / math.Max(c.High-c.Low, 1e-12)
		if sure > best {
			best, worst, ok = sure, c, true
		}
	}
	return worst, ok
}

// SteadyWords says how the steady state fared: "steady state held before, during and after the faults".
func (e Experiment) SteadyWords() string {
	var held, broken []string
	unknown := false
	for _, phase := range []string{"before", "during", "after"} {
		state := e.phase(phase)
		switch state {
		case Met:
			held = append(held, phase)
		case Missed:
			broken = append(broken, phase)
		case NoData:
			unknown = true
		}
	}
	switch {
	case len(e.SteadyState) == 0:
		return ""
	case len(broken) > 0:
		return "steady state lost " + list(broken) + " the faults"
	case unknown:
		return "steady state not known throughout"
	}
	return "steady state held " + list(held) + " the faults"
}

// phase is the worst state of a phase's thresholds; "": the phase was not checked.
func (e Experiment) phase(name string) string {
	state := ""
	for _, s := range e.SteadyState {
		if s.Phase != name {
			continue
		}
		switch s.State() {
		case Missed:
			return Missed
		case NoData:
			state = NoData
		case Met:
			if state == "" {
				state = Met
			}
		}
	}
	return state
}

// CompareWords says how canary and baseline differ in a sentence; "" without a comparison.
func (e Experiment) CompareWords() string {
	if len(e.Comparison) == 0 {
		return ""
	}
	worse, better, alike := e.Differences()
	s := fmt.Sprintf("%s against %s: ", e.Canary, e.Baseline)
	switch {
	case worse == 0 && better == 0 && alike == 0:
		return s + "no measure tells a difference"
	case worse == 0 && better == 0:
		return s + fmt.Sprintf("no difference in %s", words.Plural(alike, "measure"))
	case worse == 0:
		return s + fmt.Sprintf("better in %d of %s", better, words.Plural(worse+better+alike, "measure"))
	}
	w, _ := e.Worst()
	by := strings.TrimPrefix(w.amount(w.Difference, false), "−")
	if w.Unit == "count" {
		by += " a viewer"
	}
	return s + fmt.Sprintf("worse in %d of %s, most surely %s by %s (%s)", worse, words.Plural(worse+better+alike, "measure"),
		strings.ToLower(w.Title()), by, w.IntervalWords())
}

// list joins words as people do: "before, during and after".
func list(all []string) string {
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
	return strings.Join(all, "")
}

type (
	experimentBlock struct {
		Line, Say, Tone, Icon, Also string
		Phases                      []string
		Steady                      []steadyRow
		Stops                       []stopRow
		Watched                     string
		Compared                    string
		Canary, Baseline            string
		Diffs                       []diffRow
	}
	steadyRow struct {
		Title, Code, Limit string
		Cells              []steadyCell
	}
	steadyCell struct{ Phase, Value, Tone, Word string }
	stopRow    struct{ Code, Tone, Word string }
	diffRow    struct {
		Title, Canary, Baseline, CanaryN, BaselineN string
		Difference, Interval, Tone, Word            string
		HasInterval                                 bool
		From, Width, At                             float64 // per cent of the picture's width; zero is at 50
	}
)

// experiment fills in the page's section on the experiment.
func (p *page) experiment(r *Report) {
	e := r.Experiment
	if e == nil {
		return
	}
	clk := words.Clock{Span: r.span()}
	b := &experimentBlock{Tone: "ok", Icon: "ok", Canary: e.Canary, Baseline: e.Baseline}
	if len(e.SteadyState) > 0 {
		b.Line = "steady state checked " + strings.ReplaceAll(e.Strategy, "-", " ")
	}
	switch {
	case e.NotInjected != "":
		b.Tone, b.Icon, b.Say = "warn", "warn", "Nothing was broken: "+e.NotInjected+"."
	case e.Stopped != nil && e.Stopped.Blind != "":
		b.Tone, b.Icon, b.Say = "warn", "warn", "Stopped at "+clk.At(e.Stopped.AtS)+": "+e.Stopped.Blind+"."
	case e.Stopped != nil:
		b.Tone, b.Icon, b.Say = "bad", "bad", "Stopped at "+clk.At(e.Stopped.AtS)+": "+e.Stopped.Words(e.WindowS)+"."
	case len(e.SteadyState) > 0:
		b.Say = capital(e.SteadyWords()) + "."
		for _, phase := range []string{"before", "during", "after"} {
			switch e.phase(phase) {
			case Missed:
				b.Tone, b.Icon = "bad", "bad"
				if phase == "before" {
					b.Tone, b.Icon = "warn", "warn"
				}
			case NoData:
				if b.Tone == "ok" {
					b.Tone, b.Icon = "warn", "warn"
				}
			}
		}
	case len(e.Stop) > 0:
		b.Say = "No stop condition held."
	default:
		b.Tone, b.Icon, b.Say = "none", "", capital(e.CompareWords())+"."
	}
	if i := slices.IndexFunc(e.Stop, e.Unmeasured); i >= 0 && b.Tone == "ok" {
		b.Tone, b.Icon = "warn", "warn"
		b.Say += fmt.Sprintf(" Nothing was measured for the stop condition %s %s.", e.Stop[i].Name(), e.Stop[i].Expression)
	}
	if s := e.Stopped; s != nil && e.NotInjected == "" {
		b.Also = capital(s.UndoneWords())
		if s.Blind == "" {
			b.Also += ", " + words.Seconds(max(0, s.NoticedS)) + " of it until it was seen"
		}
		if s.UndoneAfterS > UndoneWithin {
			b.Also += fmt.Sprintf(": later than the %d s it should take", UndoneWithin)
		}
		b.Also += "."
	}
	b.steady(e)
	for _, c := range e.Stop {
		row := stopRow{c.Name() + " " + c.Expression, "ok", "did not hold"}
		switch {
		case c.Held:
			row.Tone, row.Word = "bad", "held"
		case c.NeverMeasured:
			row.Tone, row.Word = "warn", "never measured"
		}
		b.Stops = append(b.Stops, row)
	}
	if w := e.Watch; w != nil {
		b.Watched = fmt.Sprintf("Looked at %s, at most %s apart, over the last %s each; the store was at most %s behind.",
			words.Plural(w.Looks, "time"), words.Seconds(w.EveryS), words.Lasting(e.WindowS), words.Seconds(w.BehindS))
	}
	if len(e.Comparison) > 0 {
		b.Compared = fmt.Sprintf("%s to %s. Each line is drawn to its own scale, with no difference in the middle; bars are 95%s%% confidence intervals.",
			clk.At(e.ComparedFromS), clk.At(e.ComparedToS), words.NBSP)
	}
	for _, c := range e.Comparison {
		b.Diffs = append(b.Diffs, c.row())
	}
	p.Experiment = b
}

// poll is the experiment's station of the director's round.
func (e *Experiment) poll(clk words.Clock) pollRow {
	row := pollRow{"ok", "Experiment", "no stop condition held"}
	switch s := e.Stopped; {
	case e.NotInjected != "":
		return pollRow{"warn", row.Name, "nothing was broken"}
	case s != nil && s.Blind != "":
		return pollRow{"warn", row.Name, "could not be watched"}
	case s != nil:
		return pollRow{"bad", row.Name, "stopped at " + clk.At(s.AtS)}
	case len(e.SteadyState) == 0 && len(e.Stop) == 0:
		return pollRow{"none", row.Name, "canary and baseline"}
	case len(e.SteadyState) > 0:
		row.Fact = "steady state held"
	}
	if slices.ContainsFunc(e.Stop, e.Unmeasured) {
		row.Icon, row.Fact = "warn", "stop condition not measured"
	}
	for _, s := range e.SteadyState {
		switch {
		case s.State() == Missed:
			row.Icon, row.Fact = "bad", "steady state lost"
		case s.State() == NoData && row.Icon == "ok":
			row.Icon, row.Fact = "warn", "steady state not known"
		}
	}
	return row
}

func (b *experimentBlock) steady(e *Experiment) {
	type key struct{ name, expression string }
	at := map[key]int{}
	for _, phase := range []string{"before", "during", "after"} {
		if e.phase(phase) == "" {
			continue
		}
		b.Phases = append(b.Phases, capital(phase))
		for _, s := range e.SteadyState {
			if s.Phase != phase {
				continue
			}
			k := key{s.Name(), s.Expression}
			i, ok := at[k]
			if !ok {
				i = len(b.Steady)
				at[k] = i
				b.Steady = append(b.Steady, steadyRow{Title: s.Title(), Code: k.name + " " + k.expression, Limit: s.LimitWords()})
			}
			for len(b.Steady[i].Cells) < len(b.Phases)-1 { // a phase that did not check it
				b.Steady[i].Cells = append(b.Steady[i].Cells, steadyCell{Phase: b.Phases[len(b.Steady[i].Cells)], Value: "–", Tone: "none"})
			}
			cell := steadyCell{Phase: b.Phases[len(b.Phases)-1], Value: s.MeasuredWords(), Tone: "ok", Word: "held"}
			switch s.State() {
			case Missed:
				cell.Tone, cell.Word = "bad", "lost"
			case NoData:
				cell.Tone, cell.Word = "warn", "not known"
			}
			b.Steady[i].Cells = append(b.Steady[i].Cells, cell)
		}
	}
}

// row places one difference in its picture.
func (c Comparison) row() diffRow {
	row := diffRow{
		Title: c.Title(), Canary: c.amount(c.Canary.Value, false), Baseline: c.amount(c.Baseline.Value, false),
		CanaryN: words.Count(c.Canary.N), BaselineN: words.Count(c.Baseline.N),
		Difference: c.amount(c.Difference, true), Interval: c.IntervalWords(), Tone: "none", Word: "no difference shown",
	}
	switch c.Tone() {
	case "worse":
		row.Tone, row.Word = "bad", "worse"
	case "better":
		row.Tone, row.Word = "ok", "better"
	case "unknown":
		row.Word = "not known"
		if c.Canary.N == 0 {
			row.Canary = "–"
		}
		if c.Baseline.N == 0 {
			row.Baseline = "–"
		}
		if c.Canary.N == 0 || c.Baseline.N == 0 {
			row.Difference = "–"
		}
		return row
	}
	row.HasInterval = true
	reach := 1.12 * math.Max(math.Abs(c.Low), math.Abs(c.High))
	if !(reach > 0) {
		reach = 1
	}
	place := func(v float64) float64 { return round1(50 + 50*v/reach) }
	row.From, row.At = place(c.Low), place(c.Difference)
	row.Width = round1(place(c.High) - row.From)
	return row
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
