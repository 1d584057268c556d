package admission

import (
	"time"

	"github.com/tminus-live/tminus/reference/spread"
)

// Report is what a region tells the others. It may be Config.Stale old before it is void.
type Report struct {
	Region     string             `json:"region"`
	Capacity   float64            `json:"capacity"`   // play starts a second; 0: not bounded
	Offered    float64            `json:"offered"`    // starts a second that it was asked for and kept, smoothed
	Free       float64            `json:"free"`       // starts a second that it would take from all others together; no meaning without a capacity
	Healthy    bool               `json:"healthy"`    // it has an edge to serve viewers from
	Evacuating bool               `json:"evacuating"` // an operator is emptying it
	Handed     map[string]float64 `json:"handed"`     // starts a second that it hands to each other region
}

// Bounds of spill-over, as shares of the capacity: it begins above 1 and leaves spillTo here; a region takes what it has free
// below takeTo.
const (
	spillTo = 0.95
	takeTo  = 0.90
)

// geography is what a region knows of itself among the others.
type geography struct {
	weight  float64 // own: the share of its starts that it keeps but for spill-over
	moving  bool    // weight does
	spill   float64 // share of its starts that go elsewhere because it is full
	leaving float64 // share that goes elsewhere for either reason
	inbound float64 // starts a second that others hand over here
	room    float64 // sum of the peers'
	peers   []peer  // by region; own entry unused
}

type peer struct {
	report Report
	heard  int64 // when, Unix nanoseconds; 0: never
	weight float64
	moving bool
	room   float64 // starts a second that it takes from here
	debt   gcra    // of room
	sent   uint64  // starts handed to it
	past   uint64
	rate   float64 // the same a second, smoothed
}

func newGeography(regions int) geography {
	g := geography{weight: 1, peers: make([]peer, regions)}
	for i := range g.peers {
		g.peers[i].weight = 1 // who was never heard of may still be starting: its viewers stay its own
	}
	return g
}

// Hear takes another region's report.
func (c *Control) Hear(now time.Time, region int, r Report) {
	if region >= 0 && region < len(c.geo.peers) && region != c.cfg.Self {
		c.geo.peers[region].report, c.geo.peers[region].heard = r, now.UnixNano()
	}
}

// SetHealth tells whether the own region has an edge to serve viewers from. Without one it evacuates itself.
func (c *Control) SetHealth(healthy bool) { c.unhealthy = !healthy }

// Evacuate begins, or ends, to send the region's new starts elsewhere.
func (c *Control) Evacuate(on bool) { c.evacuate = on }

// Report is what the others have to know.
func (c *Control) Report(now time.Time) Report {
	c.Step(now)
	r := Report{Region: c.cfg.Regions[c.cfg.Self], Capacity: c.cfg.Capacity, Healthy: !c.unhealthy, Evacuating: c.evacuate, Handed: map[string]float64{}}
	for _, rate := range c.rate {
		r.Offered += rate
	}
	if r.Healthy && !r.Evacuating {
		r.Free = max(takeTo*c.cfg.Capacity-r.Offered, 0)
	}
	for i, p := range c.geo.peers {
		if i != c.cfg.Self {
			r.Handed[c.cfg.Regions[i]] = p.rate
		}
	}
	return r
}

// moveWeights moves every weight and share by what dt allows, and averages by blend; kept is the smoothed rate of starts that stay.
func (c *Control) moveWeights(t int64, dt, blend, kept float64) {
	g := &c.geo
	by := dt / c.cfg.Ramp.Seconds()
	g.inbound, g.room = 0, 0
	others := float64(len(g.peers) - 1)
	for i := range g.peers {
		p := &g.peers[i]
		if i == c.cfg.Self || p.heard == 0 {
			continue
		}
		there := t-p.heard <= int64(c.cfg.Stale)
		want := 0.0
		if there && p.report.Healthy && !p.report.Evacuating {
			want = 1
		}
		c.moveWeight(t, i, &p.weight, &p.moving, want, by)
		p.room = 0
		if want == 1 {
			// What a region has free is shared by all that could ask for it: nobody has to agree on anything.
			p.room = max(p.report.Free, 0) / others
			if p.report.Capacity <= 0 {
				p.room = MaxCapacity
			}
			p.room *= p.weight
		}
		p.debt.set(max(p.room, 1e-3), c.cfg.Burst)
		g.room += p.room
		if there {
			g.inbound += max(p.report.Handed[c.cfg.Regions[c.cfg.Self]], 0)
		}
		p.rate += blend * (float64(p.sent-p.past)/dt - p.rate)
		p.past = p.sent
	}

	want := 1.0
	if (c.evacuate || c.unhealthy) && g.room > 0 { // with nowhere to go to, they had better stay
		want = 0
	}
	c.moveWeight(t, c.cfg.Self, &g.weight, &g.moving, want, by)

	spill := 0.0
	if offered := kept + c.hand; g.room > 0 && c.cfg.Capacity > 0 && (g.spill > 0 || offered > c.capacity()) {
		spill = min(max(1-spillTo*c.capacity()/offered, 0), g.room/offered)
	}
	before := g.spill
	g.spill = toward(g.spill, spill, by)
	if (before > 0) != (g.spill > 0) {
		ch := Change{At: time.Unix(0, t), What: Spilled, Engaged: g.spill > 0, By: ByLoad, Region: c.cfg.Self, Value: spill}
		if ch.Engaged {
			ch.Region = g.roomiest()
		}
		c.tell(ch)
	}
	g.leaving = 1 - g.weight*(1-g.spill)
	if g.room == 0 {
		g.leaving = 0
	}
}

func (c *Control) moveWeight(t int64, region int, weight *float64, moving *bool, want, by float64) {
	if *weight == want && !*moving {
		return
	}
	*weight = toward(*weight, want, by)
	if now := *weight != want; now != *moving {
		*moving = now
		who := ByLoad
		if region == c.cfg.Self && c.evacuate || region != c.cfg.Self && c.geo.peers[region].report.Evacuating {
			who = ByOperator
		}
		c.tell(Change{At: time.Unix(0, t), What: WeightMoved, Engaged: now, By: who, Region: region, Value: want})
	}
}

func toward(from, to, by float64) float64 {
	if from < to {
		return min(from+by, to)
	}
	return max(from-by, to)
}

func (g *geography) roomiest() int {
	best := 0
	for i, p := range g.peers {
		if p.room > g.peers[best].room {
			best = i
		}
	}
	return best
}

// hand finds a region for a viewer that leaves this one: by lot, each region as often as it has room.
func (g *geography) hand(t int64, bearable float64, viewer uint64) (region int, ok bool) {
	lot := spread.Share(spread.Mix(viewer^0x77686572)) * g.room
	for i := range g.peers {
		p := &g.peers[i]
		if p.room <= 0 {
			continue
		}
		if lot -= p.room; lot < 0 {
			if p.debt.overload(t) > bearable {
				return 0, false
			}
			p.debt.add(t)
			p.sent++
			return i, true
		}
	}
	return 0, false
}
