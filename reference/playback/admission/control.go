package admission

import (
	"fmt"
	"math"
	"time"

	"github.com/tminus-live/tminus/reference/spread"
)

// Request is what admission has to know of a play start.
type Request struct {
	Kind   Kind
	Home   int    // the viewer's home region, an index in Config.Regions; outside it: the region that was asked
	Viewer uint64 // a hash: the same viewer is sent to the same region while weights stand still
}

// Decision is what becomes of a play start.
type Decision struct {
	Admitted bool
	Region   int    // where the viewer is to live; of an admitted start
	Handed   bool   // Region is another one that takes starts from this: its service and its edges go into the answer
	Pulled   Pulled // what to leave out of the answer
	Retry    Retry  // when to press Play again: now, if the start was shed; if the session is cut off, otherwise
}

// Retry is a retry policy. The zero value is none: guided backoff is off.
type Retry struct {
	Max   int
	After time.Duration // whole milliseconds
}

// Pulled is a set of levers.
type Pulled uint8

// Has says whether a lever is engaged.
func (p Pulled) Has(l Lever) bool { return p>>l&1 == 1 }

// Change is something that Control did which belongs on the timeline.
type Change struct {
	At      time.Time
	Lever   Lever // of WeightMoved and Spilled: nothing
	What    What
	Engaged bool    // a lever engaged; a weight or a spill-over begins to move; false: released, settled, ended
	By      string  // ByLoad or ByOperator
	Region  int     // whose weight; who is spilled to, this region when the spill-over ended
	Value   float64 // of LeverMoved the pressure, of WeightMoved the weight it moves to or stands at, of Spilled the share of starts
}

// What a Change is about.
type What uint8

// Changes that are reported.
const (
	LeverMoved What = iota
	WeightMoved
	Spilled
)

// Who moved a lever.
const (
	ByLoad     = "load"
	ByOperator = "operator"
)

// Control is one region's admission, levers, guidance and weights. It is not safe for concurrent use.
type Control struct {
	cfg       Config
	unguided  bool
	evacuate  bool
	unhealthy bool

	debt  gcra             // of the region's capacity, less what other regions hand over
	x     [Kinds]float64   // overload beyond which a kind is shed
	count [Kinds]tally     // since the beginning
	past  [Kinds]tally     // the same at the last step
	rate  [Kinds]float64   // offered and not handed over, a second, smoothed
	press [Levers]float64  // what each lever spares of the same over capacity, each step's at most 2, smoothed
	hand  float64          // handed over, a second, smoothed
	load  Load             // the worst since the last step
	meas  float64          // measured, smoothed
	shown float64          // x, smoothed, for people
	last  int64            // the last step, Unix nanoseconds
	lever [Levers]position // where each stands
	set   Pulled           // those engaged
	guide guidance
	geo   geography

	changes []Change
	lost    int // changes nobody took
}

// tally counts play starts.
type tally struct{ offered, admitted, handed, shed uint64 }

type position struct {
	mode    Mode
	engaged bool
	by      string
	since   int64
}

// Mode is who decides about a lever.
type Mode uint8

// Modes of a lever.
const (
	Auto Mode = iota // load does
	On               // an operator pulled it
	Off              // an operator keeps it from engaging
)

// maxChanges bounds what waits for Changes.
const maxChanges = 256

// New checks cfg.
func New(cfg Config) (*Control, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Control{cfg: cfg.withDefaults(), unguided: cfg.Unguided}
	for k := range c.x {
		c.x[k] = bearable(Kind(k).Priority())
	}
	for l := range c.lever {
		c.lever[l].by = ByLoad
	}
	c.geo = newGeography(len(cfg.Regions))
	c.setRates()
	return c, nil
}

// Start decides one play start.
func (c *Control) Start(now time.Time, r Request) Decision {
	t := now.UnixNano()
	if t-c.last >= int64(Interval) {
		c.step(t)
	}
	k := r.Kind
	n := &c.count[k]
	n.offered++
	if c.set != 0 && (c.set.Has(LiveOnly) && k != Live || c.set.Has(LowStarts) && k.Priority() > LowPriority) {
		return c.shed(n, t)
	}
	d := Decision{Admitted: true, Region: c.cfg.Self, Pulled: c.set}
	if r.Home >= 0 && r.Home < len(c.cfg.Regions) && r.Home != c.cfg.Self {
		// Somebody else's viewer who asked here: at home, while that region keeps its own.
		if spread.Share(spread.Mix(r.Viewer^0x686f6d65)) < c.geo.peers[r.Home].weight {
			d.Region = r.Home
		}
	} else if c.geo.leaving > 0 && spread.Share(spread.Mix(r.Viewer^0x6c65617665)) < c.geo.leaving {
		if to, ok := c.geo.hand(t, c.x[k], r.Viewer); ok {
			n.admitted++
			n.handed++
			d.Region, d.Handed = to, true
			d.Retry = c.keep()
			return d
		}
		if c.geo.weight == 0 {
			return c.shed(n, t)
		}
	}
	// The debt is looked at first: the overload that this start finds decides, not the one that it makes.
	if max(c.debt.overload(t), min(c.meas, mostMeasured)) > c.x[k] {
		return c.shed(n, t)
	}
	c.debt.add(t)
	n.admitted++
	d.Retry = c.keep()
	return d
}

// mostMeasured bounds what the measured part of overload sheds: priorities above 14, so not live play.
const mostMeasured = 0.95

func (c *Control) shed(n *tally, t int64) Decision {
	n.shed++
	d := Decision{Region: c.cfg.Self, Pulled: c.set}
	if !c.unguided {
		d.Retry = Retry{c.cfg.MaxRetries, c.guide.comeBack(t, &c.cfg)}
	}
	return d
}

// keep is the policy that a viewer keeps for the day that its session is cut off.
func (c *Control) keep() Retry {
	if c.unguided {
		return Retry{}
	}
	return Retry{c.cfg.MaxRetries, c.guide.drawWithin(c.guide.window, &c.cfg)}
}

// Turn counts a play start that the caller turned away itself, at a bound of its own, and says when to come back.
func (c *Control) Turn(now time.Time, k Kind) Decision {
	c.Step(now)
	c.count[k].offered++
	return c.shed(&c.count[k], now.UnixNano())
}

// Load is what a service measures of itself.
type Load struct {
	InFlight int           // starts in hand: sent, as far as the service can tell, and not answered yet
	Queue    time.Duration // how long the one that waited longest did before it was looked at
}

// Observe takes a measurement; the worst between two steps counts.
func (c *Control) Observe(l Load) {
	c.load.InFlight = max(c.load.InFlight, l.InFlight)
	c.load.Queue = max(c.load.Queue, l.Queue)
}

// Step works out the slow measures, levers and weights; call it every Interval at least. It does nothing when the last
// step, which Start may have made, is less than that ago.
func (c *Control) Step(now time.Time) {
	if t := now.UnixNano(); t-c.last >= int64(Interval) {
		c.step(t)
	}
}

func (c *Control) step(t int64) {
	if c.last == 0 { // nothing is known of the time before
		c.last = t
		c.guide.begin(t)
		return
	}
	dt := float64(t-c.last) / 1e9
	c.last = t
	blend := 1 - math.Exp(-dt/c.cfg.Smooth.Seconds())
	smooth := func(v *float64, to float64) { *v += blend * (to - *v) }

	capacity := c.capacity()
	var kept, asked, admitted, handed float64
	var press [Levers]float64
	for k := range c.count {
		now, was := c.count[k], c.past[k]
		mine := float64(now.offered-was.offered-(now.handed-was.handed)) / dt
		smooth(&c.rate[k], mine)
		for l := range spares {
			if capacity > 0 && Kind(k).Priority() <= spares[l] {
				press[l] += mine / capacity
			}
		}
		kept += c.rate[k]
		asked += mine
		handed += float64(now.handed - was.handed)
		admitted += float64(now.admitted - was.admitted - (now.handed - was.handed))
	}
	c.past = c.count
	for l := range press { // clamped before it is smoothed: what a storm was does not outlast it
		smooth(&c.press[l], min(press[l], 2))
	}
	smooth(&c.hand, handed/dt)
	worst := max(float64(c.load.InFlight)/float64(c.cfg.MaxInFlight), c.load.Queue.Seconds()/c.cfg.MaxQueue.Seconds())
	smooth(&c.meas, min(2, worst))
	c.load = Load{}
	smooth(&c.shown, max(c.debt.overload(t), min(c.meas, 1)))

	c.moveWeights(t, dt, blend, kept)
	c.setRates()
	c.moveLevers(t)
	c.guide.step(t, dt, c.capacity(), asked, admitted+c.geo.inbound*dt, &c.cfg)
}

// capacity is what is left of the region's for those who ask here: viewers that other regions hand over have their part, half
// at most.
func (c *Control) capacity() float64 {
	return max(c.cfg.Capacity-c.geo.inbound, c.cfg.Capacity/2)
}

func (c *Control) setRates() { c.debt.set(c.capacity(), c.cfg.Burst) }

// pressure moves lever l.
func (c *Control) pressure(l Lever) float64 { return max(c.press[l], c.meas) }

func (c *Control) moveLevers(t int64) {
	before := true // those in front are engaged, or an operator keeps them off
	for l := range Lever(Levers) {
		p := &c.lever[l]
		if p.mode == Auto && !p.engaged && before && c.pressure(l) >= c.cfg.Bounds[l].Engage {
			c.put(t, l, true, ByLoad)
			return
		}
		before = before && (p.engaged || p.mode == Off)
	}
	for l := Lever(Levers); l > 0; {
		l--
		p := &c.lever[l]
		if p.mode != Auto || !p.engaged {
			continue
		}
		if c.pressure(l) <= c.cfg.Bounds[l].Release && t-p.since >= int64(c.cfg.Bounds[l].Hold) {
			c.put(t, l, false, ByLoad)
		}
		return // those in front wait for this one
	}
}

func (c *Control) put(t int64, l Lever, engaged bool, by string) {
	p := &c.lever[l]
	if p.engaged != engaged {
		p.engaged, p.since = engaged, t
		c.set ^= 1 << l
		c.tell(Change{At: time.Unix(0, t), What: LeverMoved, Lever: l, Engaged: engaged, By: by, Region: c.cfg.Self, Value: c.pressure(l)})
	}
	p.by = by
}

func (c *Control) tell(ch Change) {
	if len(c.changes) == maxChanges {
		c.lost++
		return
	}
	c.changes = append(c.changes, ch)
}

// Changes returns what changed since the last call, and how much more there was than is kept for a caller who does not come.
func (c *Control) Changes() (changes []Change, lost int) {
	changes, lost = c.changes, c.lost
	c.changes, c.lost = nil, 0
	return changes, lost
}

// Pull is an operator's hand on a lever. Auto leaves it where it is until load moves it.
func (c *Control) Pull(now time.Time, l Lever, m Mode) {
	c.Step(now)
	c.lever[l].mode = m
	switch m {
	case On:
		c.put(now.UnixNano(), l, true, ByOperator)
	case Off:
		c.put(now.UnixNano(), l, false, ByOperator)
	default:
		c.lever[l].by = ByLoad
	}
}

// SetCapacity changes the region's capacity, in play starts a second; 0: not bounded.
func (c *Control) SetCapacity(now time.Time, perSecond float64) error {
	if !(perSecond >= 0 && perSecond <= MaxCapacity) {
		return fmt.Errorf("a capacity of %v is outside 0 to %d starts a second", perSecond, MaxCapacity)
	}
	c.Step(now)
	c.cfg.Capacity = perSecond
	c.setRates()
	return nil
}

// Guide switches guided backoff.
func (c *Control) Guide(on bool) { c.unguided = !on }

// Pulled is the set of levers that are engaged.
func (c *Control) Pulled() Pulled { return c.set }

// gcra is the generic cell rate algorithm's state. The zero value has no bound.
type gcra struct {
	every, burst int64 // nanoseconds
	arrival      int64 // theoretical arrival time of the next start, Unix nanoseconds
}

func (g *gcra) set(perSecond float64, burst time.Duration) {
	if perSecond <= 0 {
		g.every = 0
		return
	}
	g.every = max(int64(float64(time.Second)/perSecond), 1)
	g.burst = max(int64(burst), leastBurst*g.every)
}

// overload is the debt over its bound.
func (g *gcra) overload(t int64) float64 {
	if g.every == 0 || g.arrival <= t {
		return 0
	}
	return float64(g.arrival-t) / float64(g.burst)
}

func (g *gcra) add(t int64) {
	if g.every != 0 {
		g.arrival = max(g.arrival, t) + g.every
	}
}
