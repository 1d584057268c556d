package verdict

import (
	"fmt"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/experiment"
)

// unproven is why an experiment says nothing of the system: it was not well to begin with, or nobody could watch.
func unproven(e *report.Experiment) (out []string) {
	if e == nil {
		return nil
	}
	if e.NotInjected != "" {
		return []string{e.NotInjected}
	}
	for _, s := range e.SteadyState {
		switch {
		case s.Phase != experiment.Before:
		case s.Samples == 0:
			out = append(out, fmt.Sprintf("nothing tells whether the system was in its steady state before anything was broken: nothing was measured for %s", s.Name()))
		case !s.Pass:
			out = append(out, NotSteady+": "+s.MissWords())
		}
	}
	if s := e.Stopped; s != nil && s.Blind != "" {
		out = append(out, fmt.Sprintf("the experiment was stopped at T+%.0f s: %s", s.AtS, s.Blind))
	}
	return out
}

// NotSteady is why nothing is broken in a system that is not well.
const NotSteady = "the system was not in its steady state before anything was broken"

// spared reports whether the experiment was ended before a fault was injected, or before it could be measured: that leaves
// nothing to prove. What ended it was measured, by the viewers.
func spared(e *report.Experiment, f report.Fault) bool {
	switch {
	case e == nil || e.NotInjected == "" && e.Stopped == nil:
		return false
	case !f.Injected():
		return true
	}
	return f.Restored && f.Evidence.Status == report.Inconclusive && f.ForS < chaos.MinFor.Seconds()
}

// lost is what an experiment found wrong with the system: a stop condition held, or the steady state did not.
func lost(e *report.Experiment) (out []string) {
	if e == nil {
		return nil
	}
	if s := e.Stopped; s != nil && s.Blind == "" {
		out = append(out, fmt.Sprintf("the experiment was stopped at T+%.0f s: %s; %s", s.AtS, s.Words(e.WindowS), s.UndoneWords()))
	}
	for _, s := range e.SteadyState {
		if s.Phase != experiment.Before && s.Samples > 0 && !s.Pass {
			out = append(out, fmt.Sprintf("the steady state did not hold %s the faults: %s", s.Phase, s.MissWords()))
		}
	}
	return out
}

// unknown are the phases and the stop conditions that nothing was measured of.
func unknown(e *report.Experiment) (out []string) {
	if e == nil {
		return nil
	}
	for _, s := range e.SteadyState {
		if s.Phase != experiment.Before && s.Samples == 0 {
			out = append(out, fmt.Sprintf("nothing was measured for %s %s %s the faults", s.Name(), s.Expression, s.Phase))
		}
	}
	for _, c := range e.Stop {
		if e.Unmeasured(c) {
			out = append(out, fmt.Sprintf("nothing was measured for the stop condition %s %s: nobody could tell whether to stop", c.Name(), c.Expression))
		}
	}
	return out
}
