package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// The JUnit XML that Jenkins and GitLab read. A case's name holds no measured value, so that a CI server follows it
// from run to run; the values are its properties and its system-out.
type (
	junitSuites struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Time     string   `xml:"time,attr"`
		Suites   []junitSuite
	}
	junitSuite struct {
		XMLName    xml.Name         `xml:"testsuite"`
		Name       string           `xml:"name,attr"`
		Tests      int              `xml:"tests,attr"`
		Failures   int              `xml:"failures,attr"`
		Errors     int              `xml:"errors,attr"`
		Skipped    int              `xml:"skipped,attr"`
		Time       string           `xml:"time,attr"`
		Timestamp  string           `xml:"timestamp,attr,omitempty"`
		Properties *junitProperties `xml:"properties"`
		Cases      []junitCase
	}
	junitProperties struct {
		Property []junitProperty `xml:"property"`
	}
	junitCase struct {
		XMLName    xml.Name         `xml:"testcase"`
		Class      string           `xml:"classname,attr"`
		Name       string           `xml:"name,attr"`
		Time       string           `xml:"time,attr"`
		Properties *junitProperties `xml:"properties"`
		Failure    *junitProblem    `xml:"failure"`
		Error      *junitProblem    `xml:"error"`
		Out        string           `xml:"system-out,omitempty"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
)

// WriteJUnit writes the report as JUnit XML: a suite for objectives, faults, an experiment and safety each. What was measured of the
// crowd, and no objective asked for, is properties of the first. A missed objective, a
// fault that was not undone and a failed check are failures; an objective without data and a fault whose evidence is
// not "confirmed" are errors.
func (r *Report) WriteJUnit(w io.Writer) error {
	objectives := r.junitSuite("objectives", r.DurationS, r.junitObjectives())
	objectives.Properties.Property = append(objectives.Properties.Property, r.junitCrowd()...)
	top := junitSuites{Name: "tminus " + r.Scenario, Time: junitTime(r.DurationS)}
	suites := []junitSuite{objectives, r.junitSuite("faults", faultSeconds(r.Faults), r.junitFaults())}
	if r.Experiment != nil {
		suites = append(suites, r.junitSuite("experiment", 0, r.Experiment.junit()))
	}
	for _, s := range append(suites, r.junitSuite("safety", 0, r.junitSafety())) {
		top.Tests += s.Tests
		top.Failures += s.Failures
		top.Errors += s.Errors
		top.Suites = append(top.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(top); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r *Report) junitSuite(name string, seconds float64, cases []junitCase) junitSuite {
	s := junitSuite{
		Name:  "tminus." + r.Scenario + "." + name,
		Tests: len(cases),
		Time:  junitTime(seconds),
		Properties: &junitProperties{[]junitProperty{
			{"run", r.Run},
			{"seed", strconv.FormatUint(r.Seed, 10)},
			{"verdict", r.Verdict},
			{"target", r.Target},
		}},
		Cases: cases,
	}
	// Jenkins wants ISO 8601 without a zone.
	if t, err := time.Parse(time.RFC3339, r.Started); err == nil {
		s.Timestamp = t.UTC().Format("2006-01-02T15:04:05")
	}
	for i := range cases {
		cases[i].Class = s.Name
		if cases[i].Time == "" {
			cases[i].Time = junitTime(0)
		}
		switch {
		case cases[i].Failure != nil:
			s.Failures++
		case cases[i].Error != nil:
			s.Errors++
		}
	}
	return s
}

// junitCrowd is what a CI server may want to draw from run to run: the load, the storms, the forecast and the memory.
func (r *Report) junitCrowd() (out []junitProperty) {
	add := func(name, value string) { out = append(out, junitProperty{name, value}) }
	if l := r.Load; l.InTimePercent > 0 {
		add("play_starts.intended", strconv.FormatUint(l.PlayStarts.Intended, 10))
		add("play_starts.in_time_percent", figure(l.InTimePercent))
		if l.OwnLagMS != nil || l.Late > 0 {
			add("play_starts.late_percent", figure(l.LatePercent))
		}
	}
	for i, s := range r.Storms {
		if i == maxStormCards {
			break
		}
		name := fmt.Sprintf("storms.%d.", i+1)
		add(name+"guided", strconv.FormatBool(s.Guided))
		add(name+"amplification", figure(s.Amplification))
		add(name+"back_s", figure(s.BackS))
	}
	if f := r.Forecast; f != nil {
		add("forecast.error_pct", figure(f.ErrorPct))
		add("forecast.nowcast_error_pct", figure(f.NowcastPct))
	}
	for i, p := range r.Processes {
		if i == maxProcessRows {
			break
		}
		add("processes."+p.Name+".rss_peak", strconv.FormatUint(p.RSSPeak, 10))
	}
	return out
}

func (r *Report) junitObjectives() []junitCase {
	var cases []junitCase
	for _, o := range r.Objectives {
		c := junitCase{
			Name: o.Name() + " " + o.Expression,
			Properties: properties(
				"measured", figure(o.Measured),
				"threshold", figure(o.Threshold),
				"unit", o.Unit,
				"samples", strconv.FormatUint(o.Samples, 10),
				"suspect", o.Suspect,
			),
			Out: lines(
				fmt.Sprintf("measured %s; must be %s; %s", o.MeasuredWords(), o.LimitWords(), words.Plural(o.Samples, "sample")),
				o.Note,
			),
		}
		switch o.State() {
		case Missed:
			c.Failure = &junitProblem{
				Message: fmt.Sprintf("%s %s: measured %s, must be %s", o.Name(), o.Expression, o.MeasuredWords(), o.LimitWords()),
				Type:    "objective-missed",
				Text:    lines(o.Note, r.suspectWords(o)),
			}
		case NoData:
			c.Error = &junitProblem{
				Message: fmt.Sprintf("%s %s: nothing was measured", o.Name(), o.Expression),
				Type:    "objective-inconclusive",
				Text:    o.Note,
			}
		}
		cases = append(cases, c)
	}
	return cases
}

func (r *Report) junitFaults() []junitCase {
	var cases []junitCase
	for _, f := range r.Faults {
		detail := f.Evidence.Detail
		if detail == f.EvidenceWords() {
			detail = "" // it is said already
		}
		c := junitCase{
			Name: f.ID + " " + f.Words(),
			Time: junitTime(f.ForS),
			Properties: properties(
				"status", f.Evidence.Status,
				"expected", figure(f.Evidence.Expected),
				"measured", figure(f.Evidence.Measured),
				"unit", f.Evidence.Unit,
				"at_s", figure(f.AtS),
				"for_s", figure(f.ForS),
				"restored", strconv.FormatBool(f.Restored),
			),
			Out: lines(fmt.Sprintf("%s: %s", f.Evidence.Status, f.EvidenceWords()), detail),
		}
		switch {
		case !f.Restored:
			c.Failure = &junitProblem{
				Message: f.ID + ": the fault was not undone",
				Type:    "fault-not-restored",
				Text:    f.Evidence.Detail,
			}
		case f.Evidence.Status != Confirmed:
			c.Error = &junitProblem{
				Message: fmt.Sprintf("%s: evidence %s: %s", f.ID, f.Evidence.Status, f.EvidenceWords()),
				Type:    "fault-" + f.Evidence.Status,
				Text:    f.Evidence.Detail,
			}
		}
		cases = append(cases, c)
	}
	return cases
}

// junit is a case for each threshold in each phase, for each stop condition and for each measure compared. A steady state
// that was lost before anything was broken is an error, as is one that nothing was measured of; a comparison is neither.
func (e *Experiment) junit() []junitCase {
	var cases []junitCase
	for _, s := range e.SteadyState {
		c := junitCase{
			Name: fmt.Sprintf("steady state %s: %s %s", s.Phase, s.Name(), s.Expression),
			Properties: properties("measured", figure(s.Measured), "threshold", figure(s.Threshold), "unit", s.Unit, "samples", strconv.FormatUint(s.Samples, 10),
				"from_s", figure(s.FromS), "to_s", figure(s.ToS)),
			Out: fmt.Sprintf("measured %s; must be %s; %s", s.MeasuredWords(), s.LimitWords(), words.Plural(s.Samples, "sample")),
		}
		problem := &junitProblem{Message: fmt.Sprintf("%s: measured %s, must be %s", c.Name, s.MeasuredWords(), s.LimitWords()), Type: "steady-state-lost"}
		switch state := s.State(); {
		case state == NoData:
			problem.Message, problem.Type = c.Name+": nothing was measured", "steady-state-unknown"
			c.Error = problem
		case state == Missed && s.Phase == "before":
			c.Error = problem
		case state == Missed:
			c.Failure = problem
		}
		cases = append(cases, c)
	}
	for _, s := range e.Stop {
		c := junitCase{Name: fmt.Sprintf("stop condition: %s %s", s.Name(), s.Expression), Properties: properties("held", strconv.FormatBool(s.Held))}
		if t := e.Stopped; s.Held && t != nil {
			c.Properties = properties("held", "true", "measured", figure(t.Measured), "unit", t.Unit, "at_s", figure(t.AtS), "held_at_s", figure(t.HeldAtS),
				"noticed_after_s", figure(t.NoticedS), "undone_after_s", figure(t.UndoneAfterS))
			c.Failure = &junitProblem{Message: t.Words(e.WindowS), Type: "stopped", Text: t.UndoneWords()}
		} else if e.Unmeasured(s) {
			c.Error = &junitProblem{Message: c.Name + ": nothing was measured", Type: "stop-condition-unknown"}
		}
		cases = append(cases, c)
	}
	if t := e.Stopped; t != nil && t.Blind != "" {
		cases = append(cases, junitCase{Name: "stop conditions were watched", Error: &junitProblem{Message: t.Blind, Type: "blind", Text: t.UndoneWords()}})
	}
	for _, d := range e.Comparison {
		cases = append(cases, junitCase{
			Name: fmt.Sprintf("canary %s against baseline %s: %s", e.Canary, e.Baseline, d.Metric),
			Properties: properties("difference", figure(d.Difference), "low", figure(d.Low), "high", figure(d.High), "level", figure(d.Level), "unit", d.Unit,
				"significant", strconv.FormatBool(d.Significant), "canary", figure(d.Canary.Value), "canary_n", strconv.FormatUint(d.Canary.N, 10),
				"baseline", figure(d.Baseline.Value), "baseline_n", strconv.FormatUint(d.Baseline.N, 10)),
			Out: fmt.Sprintf("%s (%s)", d.amount(d.Difference, true), d.IntervalWords()),
		})
	}
	return cases
}

func (r *Report) junitSafety() []junitCase {
	var cases []junitCase
	for _, k := range r.Safety {
		c := junitCase{Name: k.Name, Properties: properties("pass", strconv.FormatBool(k.Pass)), Out: k.Detail}
		if !k.Pass {
			c.Failure = &junitProblem{Message: lines(k.Name+": failed", k.Detail), Type: "safety", Text: k.Detail}
		}
		cases = append(cases, c)
	}
	return cases
}

// suspectWords says which fault best explains a missed objective, or nothing.
func (r *Report) suspectWords(o Objective) string {
	if f, ok := r.fault(o.Suspect); ok {
		return "suspect: " + f.ID + ", " + f.Words()
	}
	return ""
}

func (r *Report) fault(id string) (Fault, bool) {
	for _, f := range r.Faults {
		if id != "" && f.ID == id {
			return f, true
		}
	}
	return Fault{}, false
}

func faultSeconds(faults []Fault) (s float64) {
	for _, f := range faults {
		s += max(f.ForS, 0)
	}
	return s
}

// properties takes names and values in turn and leaves out what has no value.
func properties(pairs ...string) *junitProperties {
	p := new(junitProperties)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			p.Property = append(p.Property, junitProperty{pairs[i], pairs[i+1]})
		}
	}
	return p
}

func lines(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "\n")
}

// figure writes a float for a machine.
func figure(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func junitTime(s float64) string {
	if !finite(s) {
		s = 0
	}
	return strconv.FormatFloat(max(s, 0), 'f', 3, 64)
}
