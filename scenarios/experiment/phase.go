package experiment

import (
	"slices"
	"time"
)

// The phases of an experiment.
const (
	Before = "before"
	During = "during"
	After  = "after"
)

// The strategies: when the steady state is checked. The words are Chaos Toolkit's.
const (
	Default          = "default" // before and after
	BeforeMethodOnly = "before-method-only"
	DuringMethodOnly = "during-method-only"
	AfterMethodOnly  = "after-method-only"
	Continuously     = "continuously" // before, during and after
)

var checked = map[string][]string{
	Default:          {Before, After},
	BeforeMethodOnly: {Before},
	DuringMethodOnly: {During},
	AfterMethodOnly:  {After},
	Continuously:     {Before, During, After},
}

// Strategies lists the strategies.
func Strategies() []string {
	return []string{Continuously, Default, BeforeMethodOnly, DuringMethodOnly, AfterMethodOnly}
}

// Checks says whether a strategy checks the steady state in a phase.
func Checks(strategy, phase string) bool { return slices.Contains(checked[strategy], phase) }

// Span is a part of the event, To excluded.
type Span struct{ From, To time.Duration } // since T-0

// Length is how long it is; a span that would end before it begins has none.
func (s Span) Length() time.Duration { return max(0, s.To-s.From) }

// Phase is a phase and its part of the event.
type Phase struct {
	Name string
	Span
}

// Least is the shortest phase that says anything: a heartbeat of every viewer, and one to spare.
const Least = 3 * time.Second

// Course is how an experiment went.
type Course struct {
	Faults []Span        // as measured, those that were injected
	Due    time.Duration // when the first was due
	Settle time.Duration // from the last fault's end to the beginning of After
	Ran    time.Duration // how long the event ran
}

// method is from the first injection to the last restoration.
func (c Course) method() (Span, bool) {
	if len(c.Faults) == 0 {
		return Span{}, false
	}
	m := c.Faults[0]
	for _, f := range c.Faults[1:] {
		m.From, m.To = min(m.From, f.From), max(m.To, f.To)
	}
	m.From, m.To = min(m.From, c.Ran), min(m.To, c.Ran)
	return m, true
}

// Phases are the phases that a strategy checks, in order. Without an injected fault there is a Before alone, up to when the
// first was due. A phase for which the event was too short has no length.
func (c Course) Phases(strategy string) []Phase {
	m, injected := c.method()
	if !injected {
		m = Span{min(c.Due, c.Ran), min(c.Due, c.Ran)}
	}
	all := []Phase{{Before, Span{0, m.From}}}
	if injected {
		all = append(all, Phase{During, m}, Phase{After, Span{min(m.To+c.Settle, c.Ran), c.Ran}})
	}
	return slices.DeleteFunc(all, func(p Phase) bool { return !Checks(strategy, p.Name) })
}

// Compared is the part of the event that canary and baseline are compared over: the faults, and the time in which their
// effects settle. It is false where nothing was injected.
func (c Course) Compared() (Span, bool) {
	m, injected := c.method()
	return Span{m.From, min(m.To+c.Settle, c.Ran)}, injected
}
