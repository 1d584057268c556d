package chaos

import (
	"fmt"
	"slices"
	"strings"
)

// Kind documents one kind of fault: what a scenario's `fail:` may say.
type Kind struct {
	Fail    string   `json:"fail"` // "region"
	Summary string   `json:"summary"`
	Where   string   `json:"where"` // what `where:` names, for people
	On      []string `json:"on"`    // the kinds of part that it may be done to
	Models  []Model  `json:"models"`
}

// Model documents one form of a kind: what `model:` may say. A kind's first model is its default.
type Model struct {
	Name       string      `json:"name"`     // "crash"
	Summary    string      `json:"summary"`  // what happens
	Evidence   string      `json:"evidence"` // what is measured to prove it
	Needs      string      `json:"needs,omitempty"`
	ByHand     string      `json:"by_hand"` // whether it can be injected by hand, into something of one's own, and how
	Example    string      `json:"example"` // one line of a scenario's `faults:`
	Parameters []Parameter `json:"parameters,omitempty"`

	able  func() error                 // nil = always; says what is lacking
	lack  func(Fault, Terms) error     // nil = nothing; says why a part cannot be broken so on some terms
	check func(Fault) error            // nil = nothing; what is wrong with parameters each of which is right by itself
	front func(f Fault, t Terms) Front // what must stand in front of a part; nil = nothing
	plan  func(Fault, *Config) (plan, error)
}

// byHand is what is plain from what a model's kind is about, and what must stand in front.
func (k Kind) byHand(m Model) string {
	switch {
	case !slices.Contains(k.On, PartService):
		return "no: only in a rehearsal"
	case m.ByHand != "":
		return m.ByHand
	case m.front != nil:
		return "yes, through a relay"
	}
	return "yes"
}

// Check says what is wrong with a fault of this model, whose parameters are complete and each right by itself.
func (m Model) Check(f Fault) error {
	if m.check == nil {
		return nil
	}
	return m.check(f)
}

// plan is a fault ready to be run.
type plan struct {
	injector Injector
	observer Observer
	means    string          // how it is done; "": in the one way there is
	links    func() []uint32 // nil: makes none
	done     func()          // gives back what the observer holds; nil: nothing
	note     func() string   // nil: nothing to add to the fault's last event
}

// When are the parameters that every fault has.
var When = []Parameter{
	{Name: "at", Type: TypeDuration, Summary: "when, from the start of the event: 2s at the earliest", Required: true},
	{Name: "for", Type: TypeDuration, Summary: "how long, 2s at least: shorter cannot be measured", Required: true},
	{Name: "seed", Type: TypeWhole, Summary: "of what is left to chance; the scenario's where left out"},
}

// Catalogue lists every fault there is. Nobody may write to it.
func Catalogue() []Kind { return catalogue }

var catalogue = complete()

// complete is all kinds, each of whose models says what is plain of it.
func complete() []Kind {
	kinds := slices.Concat(regionKinds, packetKinds, processKinds, httpKinds, segmentKinds, defectKinds, streamKinds, dnsKinds)
	for i, k := range kinds {
		kinds[i].Models = slices.Clone(k.Models)
		for j, m := range k.Models {
			kinds[i].Models[j].ByHand = k.byHand(m)
		}
	}
	return kinds
}

var regionKinds = []Kind{{
	Fail:    "region",
	Summary: "one whole region goes away, and comes back",
	Where:   "a region's name",
	On:      []string{PartRegion},
	Models: []Model{
		{
			Name:     "crash",
			Summary:  "the region's processes are killed with SIGKILL and started again at the end: clients see refused connections",
			Evidence: "connections from outside to the region's edges and playback are refused during the fault and accepted before and after it, and another region's are accepted throughout",
			Example:  "{at: 30s, for: 20s, fail: region, where: us-east}",
			plan:     planCrash,
		},
		{
			Name:     "cut",
			Summary:  "packets across the border of the region's addresses are dropped in the kernel, both ways: clients see silence and time-outs; traffic inside the region goes on",
			Evidence: "connections from outside to the region's edges and playback time out during the fault and are accepted before and after it, and another region's are accepted throughout",
			Needs:    cutNeeds,
			Example:  "{at: 30s, for: 20s, fail: region, where: us-east, model: cut}",
			able:     cutAble,
			plan:     planCut,
		},
	},
}}

// Foresee says what a fault would do to a part on some terms, without the part: the means are those that would be there. The
// error wraps ErrUnsupported where there would be none; others are Complete's.
func (f Fault) Foresee(t Terms) (Step, error) {
	f, err := f.Complete()
	if err != nil {
		return Step{}, err
	}
	_, m, err := lookup(f)
	if err != nil {
		return Step{}, err
	}
	if m.lack != nil {
		if err := m.lack(f, t); err != nil {
			return Step{}, fmt.Errorf("fault %s (%s of %s): %w", f.ID, f.Fail, f.Where, err)
		}
	}
	s := Step{Fault: f, Does: m.Summary, Proof: m.Evidence}
	switch f.Front(t) {
	case FrontNetwork:
		s.Means = "a network of the run's own, with its regions in namespaces"
	case FrontHTTP:
		s.Means = "an HTTP relay in front of it"
	case FrontTCP:
		s.Means = "a TCP relay in front of it"
	case FrontUDP:
		s.Means = "a UDP relay in front of it"
	case FrontDNS:
		s.Means = "a DNS relay in front of it"
	}
	return s, nil
}

// lookup finds a fault's kind and model.
func lookup(f Fault) (Kind, Model, error) {
	var kinds []string
	for _, k := range Catalogue() {
		if k.Fail != f.Fail {
			kinds = append(kinds, k.Fail)
			continue
		}
		var models []string
		for _, m := range k.Models {
			if f.Model == m.Name || f.Model == "" {
				return k, m, nil
			}
			models = append(models, m.Name)
		}
		return Kind{}, Model{}, fmt.Errorf("fault %s: %w model %q of fail: %s (there is %s)",
			f.ID, ErrUnknown, f.Model, f.Fail, strings.Join(models, ", "))
	}
	return Kind{}, Model{}, fmt.Errorf("fault %s: %w fail: %q (there is %s)", f.ID, ErrUnknown, f.Fail, strings.Join(kinds, ", "))
}

// region finds the region a fault is about, with an error that names those there are.
func region(f Fault, regions []Region) (Region, error) {
	var names []string
	for _, r := range regions {
		if r.Name() == f.Where {
			return r, nil
		}
		names = append(names, r.Name())
	}
	return nil, fmt.Errorf("fault %s: %w region %q (there is %s)", f.ID, ErrUnknown, f.Where, strings.Join(names, ", "))
}
