package forecast

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// The nowcast's constants; the package comment says what they do.
const (
	overdispersion  = 0.04             // variance of a second's relative error beyond Poisson's
	halfLife        = 20 * time.Second // of what was observed
	surprise        = 2.0              // standard deviations, smoothed, from which on a second forgets more
	surpriseForgets = 0.3
	surpriseSmooth  = 0.5  // weight of the newest second
	leanOnTheWhole  = 30.0 // a region's prior: so many observations that say what all regions say

	residualSmooth = 0.15             // weight of the newest second
	residualLasts  = 20 * time.Second // time constant with which what is not explained dies away
	driftPerMinute = 0.10             // sigma by which the multiplier may drift in a minute ahead

	planSlack   = 30 * time.Second // a plan looks so far beyond the lead time
	warnAhead   = 5 * time.Minute
	warnAbove   = 1.10 // need over what there is
	warnAgain   = 1.20 // need over what was announced
	scaleTold   = 1.25 // the event's size is told when it is so far off what was told, for certain
	ahead       = 30 * time.Second
	maxLead     = 10 * time.Minute
	maxInstance = 1_000_000
)

// NowcastConfig says what was forecast and what instances can do. Zero values take the defaults named.
type NowcastConfig struct {
	Points  []audience.Point  // the forecast: play starts a second by the time from T+0, all regions together
	Sigma   float64           // uncertainty of the logarithm of its scale (Prediction.Sigma); 0: 0.35
	Regions []audience.Region // none: one, ""

	InstanceRate float64       // play starts a second that an instance carries; needed
	Lead         time.Duration // from asking for an instance until it answers
	Headroom     float64       // capacity above what is predicted; 0: 0.25
	Hold         time.Duration // how long what is no longer needed is kept; 0: 2 min
	Instances    []int         // how many there are at T+0, by region; nil: what the forecast asks for
	Fewest       int           // instances a region never goes below; 0: 1
}

// Validate says everything that is wrong with the configuration, or nil.
func (c NowcastConfig) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("nowcast: "+format, a...)) }
	if err := audience.CheckPoints(c.Points); err != nil {
		bad("%w", err)
	}
	if !(c.Sigma >= 0 && c.Sigma <= 10) {
		bad("sigma %v, want 0 to 10", c.Sigma)
	}
	regions, err := shares(c.Regions)
	if err != nil {
		bad("%w", err)
	}
	if !(c.InstanceRate > 0 && c.InstanceRate <= maxAudience) {
		bad("an instance that carries %v play starts a second", c.InstanceRate)
	}
	if c.Lead < 0 || c.Lead > maxLead {
		bad("lead time %v, want 0 to %v", c.Lead, maxLead)
	}
	if !(c.Headroom >= 0 && c.Headroom <= 10) {
		bad("headroom %v, want 0 to 10", c.Headroom)
	}
	if c.Hold < 0 {
		bad("hold time %v is negative", c.Hold)
	}
	if c.Instances != nil && err == nil && len(c.Instances) != len(regions) {
		bad("%d numbers of instances for %d regions", len(c.Instances), len(regions))
	}
	for _, n := range c.Instances {
		if n < 0 || n > maxInstance {
			bad("%d instances, want 0 to %d", n, maxInstance)
		}
	}
	if c.Fewest < 0 || c.Fewest > maxInstance {
		bad("at least %d instances, want 0 to %d", c.Fewest, maxInstance)
	}
	return errors.Join(errs...)
}

// Nowcast corrects a forecast from what is seen. It is used by one goroutine: Observe every second, then Plan.
type Nowcast struct {
	cfg     NowcastConfig
	regions []audience.Region
	curve   *curve
	late    time.Duration // by how much the event has been put off
	prior   float64       // weight of the forecast itself, in observations
	whole   posterior
	part    []posterior
	plans   []planning
	last    time.Duration // up to when starts have been observed
	told    float64       // the event's size as last told

	guesses []guess // for the score: made ahead, oldest first
	score   tally
	asWas   tally
}

type guess struct {
	from, to      time.Duration
	now, forecast float64 // starts in between
}

// NewNowcast returns a nowcast that believes the forecast.
func NewNowcast(c NowcastConfig) (*Nowcast, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Sigma == 0 {
		c.Sigma = priorSigma
	}
	if c.Headroom == 0 {
		c.Headroom = defaultHeadroom
	}
	if c.Hold == 0 {
		c.Hold = 2 * time.Minute
	}
	c.Fewest = max(1, c.Fewest)
	n := &Nowcast{cfg: c, curve: newCurve(c.Points), told: 1}
	n.regions, _ = shares(c.Regions)
	n.prior = 1 / (c.Sigma * c.Sigma)
	n.part = make([]posterior, len(n.regions))
	n.plans = make([]planning, len(n.regions))
	for i := range n.plans {
		have, _ := n.wanted(i, 0)
		if c.Instances != nil {
			have = c.Instances[i]
		}
		n.plans[i].ready = have
	}
	return n, nil
}

// PutOff says that the event begins so much later than forecast in all (negative: earlier), as who runs it knows. A nowcast
// does not find that out by itself.
func (n *Nowcast) PutOff(late time.Duration) { n.late = late }

// count is how many starts are forecast from a time to another.
func (n *Nowcast) count(from, to time.Duration) float64 {
	return n.curve.count(from-n.late, to-n.late)
}

// posterior is a belief about a multiplier: Gamma(prior's a + a, prior's b + b). What was observed is forgotten, the prior
// is not.
type posterior struct {
	a, b     float64
	surprise float64 // smoothed, in standard deviations
	residual float64 // smoothed, starts a second that the scaled forecast does not explain
}

// observe takes in n starts where e were forecast, over so many seconds.
func (p *posterior) observe(n, e, seconds, priorA, priorB float64) {
	keep := math.Exp2(-seconds / halfLife.Seconds())
	mean := (p.a + priorA) / (p.b + priorB)
	if e > 0 {
		expected := mean * e
		// Of logarithms, so that half as many surprise as much as twice as many.
		z := math.Log((n+1)/(expected+1)) / math.Sqrt(overdispersion+1/(expected+1))
		p.surprise += surpriseSmooth * (z - p.surprise)
		if math.Abs(p.surprise) > surprise {
			keep *= 1 - surpriseForgets
		}
	}
	p.a *= keep
	p.b *= keep
	if e > 0 {
		w := e / (1 + overdispersion*e)
		p.a += w * n / e
		p.b += w
	}
	mean = (p.a + priorA) / (p.b + priorB)
	p.residual += residualSmooth * ((n-mean*e)/seconds - p.residual)
}

// Observe takes in the starts of each region, in the order of the configuration, that were due between the end of the last
// observation (T+0 at first) and to. Call it about once a second; it ignores a time that has been observed.
func (n *Nowcast) Observe(to time.Duration, starts []float64) error {
	if len(starts) != len(n.regions) {
		return fmt.Errorf("nowcast: starts of %d regions, want %d", len(starts), len(n.regions))
	}
	if to <= n.last {
		return nil
	}
	from, seconds := n.last, (to - n.last).Seconds()
	e := n.count(from, to)
	sum := 0.0
	for _, s := range starts {
		sum += max(0, s)
	}
	n.grade(from, to, sum, e)
	n.whole.observe(sum, e, seconds, n.prior, n.prior)
	m := n.multiplier()
	for i := range n.part {
		n.part[i].observe(max(0, starts[i]), e*n.regions[i].Share, seconds, leanOnTheWhole*m, leanOnTheWhole)
	}
	n.last = to
	n.guess()
	return nil
}

// multiplier is the middle estimate of actual over forecast, all regions together.
func (n *Nowcast) multiplier() float64 { return (n.whole.a + n.prior) / (n.whole.b + n.prior) }

// spread is its relative variance: a Gamma's is 1/a.
func (n *Nowcast) spread() float64 { return 1 / (n.whole.a + n.prior) }

// Scale is how large the event is against its forecast, as far as is known: the middle estimate and the bounds between
// which it lies in eight of ten cases.
type Scale struct{ P10, P50, P90 float64 }

// Scale returns the multiplier of all regions together.
func (n *Nowcast) Scale() Scale {
	m, s := n.multiplier(), math.Sqrt(n.spread())
	return Scale{m * math.Exp(-z90*s), m, m * math.Exp(z90*s)}
}

// Predict is the rate of a region (an index of the configuration's) at t, in play starts a second, from what has been seen.
func (n *Nowcast) Predict(region int, t time.Duration) Band {
	p := &n.part[region]
	lean := leanOnTheWhole * n.multiplier()
	m := (p.a + lean) / (p.b + leanOnTheWhole)
	h := max(0, t-n.last)
	rate := m * n.curve.rate(t-n.late) * n.regions[region].Share
	rest := p.residual * math.Exp(-h.Seconds()/residualLasts.Seconds())
	// As far as the region leans on the whole it is as uncertain as that.
	leans := leanOnTheWhole / (p.b + leanOnTheWhole)
	variance := 1/(p.a+lean) + leans*leans*n.spread() + driftPerMinute*driftPerMinute*h.Minutes()
	return Band{max(0, rate+rest), max(0, rate*math.Exp(z90*math.Sqrt(variance))+max(0, rest))}
}

// guess notes what will have come by some time ahead; grade compares it with what came.
func (n *Nowcast) guess() {
	from := n.last + ahead - time.Second
	g := guess{from: from, to: from + time.Second, forecast: n.count(from, from+time.Second)}
	for i := range n.regions {
		g.now += n.Predict(i, from+time.Second/2).P50
	}
	n.guesses = append(n.guesses, g)
}

func (n *Nowcast) grade(from, to time.Duration, starts, forecast float64) {
	for len(n.guesses) > 0 && n.guesses[0].to <= to {
		g := n.guesses[0]
		n.guesses = n.guesses[1:]
		if g.from == from && g.to == to { // of seconds that were observed one by one
			n.score.add(g.now, starts)
			n.asWas.add(g.forecast, starts)
		}
	}
}

// Score says how far the nowcast was off 30 s ahead, second by second, and how far the forecast itself was in the same
// seconds. Only seconds that were observed on the whole second count.
func (n *Nowcast) Score() (nowcast, forecast Accuracy) {
	return n.score.accuracy(), n.asWas.accuracy()
}

// planning is a region's instances.
type planning struct {
	ready     int     // answer by now
	ordered   []order // on their way, the first to come first
	lowSince  time.Duration
	lowMost   int // the most wanted since then
	low       bool
	announced float64 // the need that was last warned of, play starts a second
	short     bool    // a shortage has been told
}

type order struct {
	at time.Duration // ready from
	n  int
}

// by is how many answer at t when nothing more is ordered.
func (p *planning) by(t time.Duration) int {
	n := p.ready
	for _, o := range p.ordered {
		if o.at <= t {
			n += o.n
		}
	}
	return n
}

func (p *planning) have() int { return p.by(math.MaxInt64) }

// Plan is what is wanted now.
type Plan struct {
	At       time.Duration
	Scale    Scale
	Regions  []RegionPlan
	Warnings []Warning
}

// RegionPlan is what a region is to have.
type RegionPlan struct {
	Region    string
	Predicted Band    // rate in the lead time ahead, play starts a second
	Need      float64 // the most until the lead time is over: P90 with headroom, play starts a second
	Instances int     // wanted, those on their way included
	Change    int     // against the plan before: more (they answer a lead time from now) or fewer
	Ready     int     // of Instances, those that answer now
}

// Warning is a sentence for the people in the control room.
type Warning struct {
	Region string // "": all
	By     time.Duration
	Share  float64 // how much more is needed than there is, as a share of it
	Text   string
}

// wanted is how many instances region i needs from now until a lead time ahead and a little more, and for what rate.
func (n *Nowcast) wanted(i int, now time.Duration) (instances int, need float64) {
	for t := now; t <= now+n.cfg.Lead+planSlack; t += time.Second {
		need = max(need, n.Predict(i, t).P90)
	}
	need *= 1 + n.cfg.Headroom
	return int(min(max(math.Ceil(need/n.cfg.InstanceRate), float64(n.cfg.Fewest)), maxInstance)), need
}

// Plan says what every region wants at now, and what to warn of. What it asks for it takes as ordered: call it once a
// second, with a now that does not decrease.
func (n *Nowcast) Plan(now time.Duration) Plan {
	plan := Plan{At: now, Scale: n.Scale()}
	for i, r := range n.regions {
		p := &n.plans[i]
		for len(p.ordered) > 0 && p.ordered[0].at <= now {
			p.ready += p.ordered[0].n
			p.ordered = p.ordered[1:]
		}
		have := p.have()
		if w, ok := n.warn(i, now, have); ok {
			plan.Warnings = append(plan.Warnings, w)
		}
		wanted, need := n.wanted(i, now)
		change := 0
		switch {
		case wanted > have:
			change = wanted - have
			p.low = false
			p.ordered = append(p.ordered, order{now + n.cfg.Lead, change})
		case wanted == have:
			p.low = false
		case !p.low:
			p.low, p.lowSince, p.lowMost = true, now, wanted
		default:
			if p.lowMost = max(p.lowMost, wanted); now-p.lowSince >= n.cfg.Hold {
				change = p.lowMost - have
				p.low = false
				p.drop(-change)
			}
		}
		plan.Regions = append(plan.Regions, RegionPlan{Region: r.Name, Predicted: n.Predict(i, now+n.cfg.Lead), Need: need,
			Instances: p.have(), Change: change, Ready: p.ready})
	}
	if s := plan.Scale; s.P10 > n.told*scaleTold || s.P90 < n.told/scaleTold {
		n.told = s.P50
		plan.Warnings = append(plan.Warnings, Warning{By: now, Share: s.P50 - 1, Text: fmt.Sprintf("the event is %.1f times as large as forecast", s.P50)})
	}
	return plan
}

// drop gives k instances back: first those that are still on their way, the last to come first.
func (p *planning) drop(k int) {
	for k > 0 && len(p.ordered) > 0 {
		o := &p.ordered[len(p.ordered)-1]
		d := min(k, o.n)
		o.n -= d
		k -= d
		if o.n == 0 {
			p.ordered = p.ordered[:len(p.ordered)-1]
		}
	}
	p.ready -= k
}

// warn says, once, that a region will need more than it has and has ordered.
func (n *Nowcast) warn(i int, now time.Duration, have int) (Warning, bool) {
	p := &n.plans[i]
	carries := float64(have) * n.cfg.InstanceRate
	// Short before anything that is ordered now can come?
	var by time.Duration
	most := 0.0
	for t := now; t <= now+warnAhead; t += time.Second {
		need := n.Predict(i, t).P50
		if there := float64(p.by(t)) * n.cfg.InstanceRate; need > there && t < now+n.cfg.Lead && !p.short {
			p.short, p.announced = true, need*(1+n.cfg.Headroom)
			return Warning{n.regions[i].Name, t, need/max(there, 1) - 1, fmt.Sprintf(
				"%s will be short of capacity at %s: what is ordered now answers at %s", regionWord(n.regions[i].Name), moment(t), moment(now+n.cfg.Lead))}, true
		}
		if need*(1+n.cfg.Headroom) > most {
			most, by = need*(1+n.cfg.Headroom), t
		}
	}
	switch {
	case most <= carries:
		p.announced = 0
		p.short = p.short && len(p.ordered) > 0
		return Warning{}, false
	case most <= carries*warnAbove || most <= p.announced*warnAgain:
		return Warning{}, false
	}
	p.announced = most
	more := most/max(carries, 1) - 1
	text := fmt.Sprintf("%s will need %.0f %% more at %s", regionWord(n.regions[i].Name), 100*more, moment(by))
	if more >= 3 {
		text = fmt.Sprintf("%s will need %.0f times what it has at %s", regionWord(n.regions[i].Name), more+1, moment(by))
	}
	return Warning{n.regions[i].Name, by, more, text}, true
}

func regionWord(name string) string {
	if name == "" {
		return "the service"
	}
	return "region " + name
}

// moment is a time as the control room says it: "T+45 s", "T+3 min".
func moment(t time.Duration) string { return "T+" + short(t) }

func short(t time.Duration) string {
	s := int(math.Round(t.Seconds()))
	switch {
	case s < 120 && s%60 != 0 || s == 0:
		return fmt.Sprintf("%d s", s)
	case s%60 == 0:
		return fmt.Sprintf("%d min", s/60)
	}
	return fmt.Sprintf("%d min %d s", s/60, s%60)
}

// curve is a line through points and its integral.
type curve struct {
	points []audience.Point
	before []float64 // starts before each point
}

func newCurve(points []audience.Point) *curve {
	c := &curve{points: points, before: make([]float64, len(points))}
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		c.before[i] = c.before[i-1] + (a.Rate+b.Rate)/2*(b.At-a.At).Seconds()
	}
	return c
}

// at is the point that t follows, -1 before the first.
func (c *curve) at(t time.Duration) int {
	return sort.Search(len(c.points), func(i int) bool { return c.points[i].At > t }) - 1
}

func (c *curve) rate(t time.Duration) float64 {
	i := c.at(t)
	if i < 0 || i+1 >= len(c.points) {
		return 0
	}
	a, b := c.points[i], c.points[i+1]
	return a.Rate + (b.Rate-a.Rate)*float64(t-a.At)/float64(b.At-a.At)
}

func (c *curve) upTo(t time.Duration) float64 {
	i := c.at(t)
	switch {
	case i < 0:
		return 0
	case i+1 >= len(c.points):
		return c.before[i]
	}
	a := c.points[i]
	return c.before[i] + (a.Rate+c.rate(t))/2*(t-a.At).Seconds()
}

// count is how many starts the curve has from a time to another.
func (c *curve) count(from, to time.Duration) float64 { return c.upTo(to) - c.upTo(from) }
