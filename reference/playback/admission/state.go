package admission

import "time"

// State is what an operator sees. Rates are a second.
type State struct {
	Region        string             `json:"region"`
	Capacity      float64            `json:"capacity"` // 0: not bounded
	Overload      float64            `json:"overload"` // x, 0 to 1, smoothed
	Measured      float64            `json:"measured"` // what in-flight starts and queueing delay have to do with it
	Pressure      float64            `json:"pressure"` // on the levers that do not shed
	Offered       float64            `json:"offered"`  // starts that were asked for here, smoothed
	Handed        float64            `json:"handed"`   // those of them that other regions took, smoothed
	Levers        []LeverState       `json:"levers"`
	Weights       map[string]float64 `json:"weights"` // share of its own viewers' starts that each region gets
	Spill         float64            `json:"spill"`   // share of starts that goes elsewhere because the region is full
	GuidedBackoff bool               `json:"guidedBackoff"`
	Evacuating    bool               `json:"evacuating"`
	Viewers       float64            `json:"viewers"` // who is thought to be watching
	Waiting       float64            `json:"waiting"` // viewers who were asked to come back and are not due yet
	Window        float64            `json:"windowSeconds"`
	Back          float64            `json:"returnsPerSecond"` // rate at which those who are shed now are asked to return
	Totals        map[string]Totals  `json:"totals"`           // by kind, since the service began
}

// LeverState is where a lever stands.
type LeverState struct {
	Name    string `json:"name"`
	Engaged bool   `json:"engaged"`
	By      string `json:"by"`   // who moved it last: "load" or "operator"
	Pull    string `json:"pull"` // "auto", "on" or "off"
}

// Totals count play starts of a kind. Admitted ones include those handed over.
type Totals struct {
	Offered  uint64 `json:"offered"`
	Admitted uint64 `json:"admitted"`
	Handed   uint64 `json:"handed"`
	Shed     uint64 `json:"shed"`
}

// String is how operators write a mode.
func (m Mode) String() string { return [...]string{"auto", "on", "off"}[m] }

// Totals are a kind's counts since the beginning.
func (c *Control) Totals(k Kind) Totals {
	n := c.count[k]
	return Totals{n.offered, n.admitted, n.handed, n.shed}
}

// State is where everything stands at now.
func (c *Control) State(now time.Time) State {
	c.Step(now)
	s := State{
		Region: c.cfg.Regions[c.cfg.Self], Capacity: c.cfg.Capacity, Overload: c.shown, Measured: c.meas, Pressure: c.pressure(Bookmarks),
		Handed: c.hand, Weights: map[string]float64{}, Spill: c.geo.spill, GuidedBackoff: !c.unguided, Evacuating: c.evacuate,
		Viewers: c.guide.viewers, Waiting: c.guide.waiting, Window: c.guide.window.Seconds(), Back: c.guide.back, Totals: map[string]Totals{},
	}
	s.Offered = s.Handed
	for _, r := range c.rate {
		s.Offered += r
	}
	for l, p := range c.lever {
		s.Levers = append(s.Levers, LeverState{Lever(l).String(), p.engaged, p.by, p.mode.String()})
	}
	for i, p := range c.geo.peers {
		w := p.weight
		if i == c.cfg.Self {
			w = c.geo.weight
		}
		s.Weights[c.cfg.Regions[i]] = w
	}
	for k := range Kind(Kinds) {
		s.Totals[k.String()] = c.Totals(k)
	}
	return s
}
