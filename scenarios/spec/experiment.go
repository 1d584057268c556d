package spec

import (
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/experiment"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// Limits on an experiment, and what holds where it says nothing.
const (
	MaxSettle = 10 * time.Minute
	MinWindow = time.Second
	MaxWindow = 5 * time.Minute
	MaxStops  = 10 // stop conditions: each is a question to the store, several times a second

	defaultSettle = 10 * time.Second
	defaultWindow = 5 * time.Second
)

// Experiment is what a rehearsal is to prove of the system while it is broken.
type Experiment struct {
	SteadyState []Objective   // the hypothesis
	Strategy    string        // when it is checked: one of experiment.Strategies
	Settle      time.Duration // from the end of the last fault to the beginning of "after"
	Stop        []Objective   // stop conditions: when one holds, every fault is undone
	Window      time.Duration // that stop conditions look back over

	// Canary is the home region of the half of the crowd that the faults hit, Baseline that of the half it is compared with;
	// "": nothing is compared.
	Canary, Baseline string
}

// asked says what thresholds are for.
type asked struct {
	empty string // what is wrong with none at all
	part  bool   // somebody else decides which part of the event they look at
	live  bool   // they look at what goes on now
}

// never reports whether thresholds of this kind can never be about a metric.
func (a asked) never(m qoe.Metric) bool { return a.part && m.Whole || a.live && m.Instead != "" }

var (
	asObjectives = asked{empty: "want at least one objective: without any, every run would be a GO"}
	asHypothesis = asked{empty: "want at least one threshold, or no steady state", part: true}
	asStops      = asked{empty: "want at least one condition, or no stop conditions", part: true, live: true}
)

// experiment reads an experiment; faults is where the scenario's faults are.
func (r *reader) experiment(n ast.Node, path string, s *Scenario, faults noted[struct{}]) *Experiment {
	x := &Experiment{Strategy: experiment.Continuously, Settle: defaultSettle, Window: defaultWindow}
	var steady, strategy, settle, stop, window noted[struct{}]
	var canary, baseline noted[string]
	region := func(to *noted[string], field *string) func(ast.Node, string) {
		return func(n ast.Node, path string) {
			*to = noted[string]{node: n, path: path, ok: true}
			if s.Target != nil {
				r.bad(n, path, "a target has no regions to split its crowd by")
				return
			}
			if to.value = r.word(n, path, "region", s.Topology.Regions); to.value != "" {
				*field = to.value
			}
		}
	}
	if !r.mapping(n, path, []field{
		{"steadyState", "", func(n ast.Node, path string) {
			steady = keep(n, path)
			x.SteadyState = r.thresholds(n, path, s, asHypothesis)
		}},
		{"strategy", "", func(n ast.Node, path string) {
			strategy = keep(n, path)
			if v := r.word(n, path, "strategy", experiment.Strategies()); v != "" {
				x.Strategy = v
			}
		}},
		{"settle", "", func(n ast.Node, path string) {
			settle = keep(n, path)
			if v, ok := r.duration(n, path, 0, MaxSettle); ok {
				x.Settle = v
			}
		}},
		{"stop", "", func(n ast.Node, path string) {
			stop = keep(n, path)
			x.Stop = r.thresholds(n, path, s, asStops)
			if len(x.Stop) > MaxStops {
				r.bad(n, path, "%d conditions, at most %d are allowed: each is asked several times a second", len(x.Stop), MaxStops)
			}
		}},
		{"window", "", func(n ast.Node, path string) {
			window = keep(n, path)
			if v, ok := r.duration(n, path, MinWindow, MaxWindow); ok {
				x.Window = v
			}
		}},
		{"canary", "", region(&canary, &x.Canary)},
		{"baseline", "", region(&baseline, &x.Baseline)},
	}) {
		return x
	}
	switch {
	case !faults.ok || len(s.Faults) == 0:
		r.bad(n, path, "an experiment breaks something: give the scenario faults, or leave the experiment out")
	case !steady.ok && !stop.ok && !canary.ok && !baseline.ok:
		r.bad(n, path, "an experiment needs a steadyState, stop conditions, or a canary and a baseline")
	}
	if strategy.ok && !steady.ok {
		r.bad(strategy.node, strategy.path, "the strategy says when the steady state is checked: give one under experiment.steadyState")
	}
	if settle.ok && !canary.ok && (!steady.ok || !experiment.Checks(x.Strategy, experiment.After)) {
		r.bad(settle.node, settle.path, "nothing is looked at after the faults have settled: leave it out")
	}
	if window.ok && !stop.ok {
		r.bad(window.node, window.path, "stop conditions look back over it, and there are none")
	}
	switch {
	case canary.ok && !baseline.ok:
		r.bad(canary.node, canary.path, "a canary is compared with a baseline: name another region under experiment.baseline")
	case baseline.ok && !canary.ok:
		r.bad(baseline.node, baseline.path, "a baseline is what a canary is compared with: name the faults' region under experiment.canary")
	case canary.value != "" && canary.value == baseline.value:
		r.bad(baseline.node, baseline.path, "%q is the canary: the baseline is another region", clip(baseline.value))
	}
	if x.Canary != "" {
		r.contained(faults, x.Canary, s)
	}
	r.phases(n, path, faults, x, s)
	return x
}

// contained checks that every fault is inside the canary.
func (r *reader) contained(faults noted[struct{}], canary string, s *Scenario) {
	for i, f := range s.Faults {
		if f.Where == "" || chaos.Inside(f.Where, canary) {
			continue
		}
		if k := slices.IndexFunc(s.Parts(), func(p Part) bool { return p.Name == f.Where }); k < 0 || s.Parts()[k].Region == canary {
			continue
		}
		n, path := ofFault(faults, i, "where")
		r.bad(n, path, "%q is not inside the canary %q: a fault there would hit the baseline too", clip(f.Where), canary)
	}
}

// phases checks that there is time before the faults and after them for what the strategy checks.
func (r *reader) phases(n ast.Node, path string, faults noted[struct{}], x *Experiment, s *Scenario) {
	if len(x.SteadyState) == 0 || len(s.Faults) == 0 || s.Event.Duration == 0 {
		return
	}
	first, last := 0, 0
	for i, f := range s.Faults {
		if f.At < s.Faults[first].At {
			first = i
		}
		if f.At+f.For > s.Faults[last].At+s.Faults[last].For {
			last = i
		}
	}
	if at := s.Faults[first].At; experiment.Checks(x.Strategy, experiment.Before) && at < experiment.Least {
		n, path := ofFault(faults, first, "at")
		r.bad(n, path, "the steady state is checked before the first fault: that may begin at %s at the earliest, not at %s", Short(experiment.Least), Short(at))
	}
	over := s.Faults[last].At + s.Faults[last].For + x.Settle
	if experiment.Checks(x.Strategy, experiment.After) && over+experiment.Least > s.Event.Duration && over-x.Settle <= s.Event.Duration {
		r.bad(n, join(path, "settle"), "the steady state is checked after the faults, which have settled at %s: too late in an event of %s, of which %s must be left",
			Short(over), Short(s.Event.Duration), Short(experiment.Least))
	}
}

// ofFault finds the value of a fault's key, or else the fault.
func ofFault(faults noted[struct{}], i int, key string) (ast.Node, string) {
	l, ok := faults.node.(*ast.SequenceNode)
	if !ok || i >= len(l.Values) {
		return faults.node, faults.path
	}
	n, path := bare(l.Values[i]), faults.path+"["+strconv.Itoa(i)+"]"
	if m, ok := n.(*ast.MappingNode); ok {
		for _, v := range m.Values {
			if k, ok := keyText(v.Key); ok && k == key {
				return bare(v.Value), join(path, key)
			}
		}
	}
	return n, path
}
