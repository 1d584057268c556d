package forecast

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// The model's constants; the package comment says what they do.
const (
	priorEvents = 2.0  // the weight of "as expected", in past events
	priorSigma  = 0.35 // of log(actual/expected)
	otherKind   = 0.25 // the weight of a past event of another kind

	interestHalving = 24.0 // hours in which a typical event's interest doubles
	interestSigma   = 0.3

	mostTold = 5.0 // what a past event may say of a logarithm: a factor of 148, either way

	z90 = 1.2816 // the 90th percentile of a standard normal

	defaultHeadroom = 0.25
)

// Bounds on an event.
const (
	maxAudience = 1e9
	maxHours    = 24 * 365.0
	maxInterest = 100.0
)

// Event is what is to be predicted.
type Event struct {
	Kind      string            // one of Kinds; "": DefaultKind
	Audience  float64           // expected play starts in all; 0: learnt from past events
	Start     time.Time         // in the audience's time zone; zero: not known
	Marketing []Interest        // the earliest first; none: not known
	Past      []Past            //
	Regions   []audience.Region // with their shares of the audience; none: one region, ""

	Headroom     float64 // capacity above the P90 of the peak, as a share of it: 0.25 is usual
	InstanceRate float64 // play starts a second that one instance carries; 0: instances are not counted
}

// Band is a middle and a high estimate: it is as likely to be above P50 as below, and above P90 in one event of ten.
type Band struct{ P50, P90 float64 }

// Moment is the predicted rate at a time.
type Moment struct {
	At   time.Duration // from the event's start; negative before it
	Rate Band          // play starts a second
}

// Need is what a region needs at the peak.
type Need struct {
	Region    string
	Share     float64 // of the audience, 0 to 1
	Peak      Band    // play starts a second
	Capacity  float64 // play starts a second: the peak's P90 with headroom
	Instances int     // 0 when Event.InstanceRate is
}

// Prediction is an event's arrival curve and what it asks for.
type Prediction struct {
	Kind    string
	Total   Band
	Peak    Band // play starts a second
	PeakAt  time.Duration
	Curve   []Moment // straight lines between
	Regions []Need
	Scale   Band    // actual/expected audience; 1, and its uncertainty, when nothing was learnt
	Sigma   float64 // of the logarithm of the scale: a Nowcast begins with it
	Learnt  int     // past events that told about scale or shape
}

// Validate says everything that is wrong with the event, or nil.
func (e Event) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if _, err := shapeOf(e.kind()); err != nil {
		errs = append(errs, err)
	}
	if !(e.Audience >= 0 && e.Audience <= maxAudience) {
		bad("an audience of %v, want 0 to %.0f", e.Audience, float64(maxAudience))
	} else if e.Audience == 0 && len(e.Past) == 0 {
		bad("neither an expected audience nor past events to learn it from")
	}
	for i, m := range e.Marketing {
		if !(m.Hours >= 0 && m.Hours <= maxHours && m.Share >= 0 && m.Share <= maxInterest) {
			bad("marketing: interest %v at %v hours before the start", m.Share, m.Hours)
		} else if i > 0 && m.Hours >= e.Marketing[i-1].Hours {
			bad("marketing: %v hours before the start after %v hours", m.Hours, e.Marketing[i-1].Hours)
		}
	}
	for _, p := range e.Past {
		if _, err := shapeOf(p.Kind); err != nil {
			bad("past event %s: %w", p.Name, err)
		}
		if !(p.Total >= 1 && p.Total <= maxAudience) || !(p.Peak >= 0 && p.Peak <= p.Total) || !(p.Expected == 0 || p.Expected >= 1 && p.Expected <= maxAudience) {
			bad("past event %s: total %v, peak %v, expected %v", p.Name, p.Total, p.Peak, p.Expected)
		}
	}
	if _, err := shares(e.Regions); err != nil {
		errs = append(errs, err)
	}
	if !(e.Headroom >= 0 && e.Headroom <= 10) {
		bad("headroom %v, want 0 to 10", e.Headroom)
	}
	if !(e.InstanceRate >= 0 && e.InstanceRate <= maxAudience) {
		bad("an instance that carries %v play starts a second", e.InstanceRate)
	}
	return errors.Join(errs...)
}

func (e Event) kind() string {
	if e.Kind == "" {
		return DefaultKind
	}
	return e.Kind
}

// shares normalises the regions' shares to a sum of 1.
func shares(regions []audience.Region) ([]audience.Region, error) {
	if len(regions) == 0 {
		return []audience.Region{{Share: 1}}, nil
	}
	if len(regions) > audience.MaxRegions {
		return nil, fmt.Errorf("%d regions, at most %d", len(regions), audience.MaxRegions)
	}
	total := 0.0
	seen := map[string]bool{}
	for _, r := range regions {
		if !(r.Share >= 0 && r.Share <= maxAudience) {
			return nil, fmt.Errorf("region %s: share %v, want 0 or more", r.Name, r.Share)
		}
		if seen[r.Name] {
			return nil, fmt.Errorf("region %s is there twice", r.Name)
		}
		seen[r.Name] = true
		total += r.Share
	}
	if total == 0 {
		return nil, errors.New("no region has a share of the audience")
	}
	out := slices.Clone(regions)
	for i := range out {
		out[i].Share /= total
	}
	return out, nil
}

// belief is what is thought of a logarithm: normal.
type belief struct{ mean, sigma float64 }

// learn averages observations of a logarithm with weights, shrunk towards 0 with the weight of prior events.
func learn(values, weights []float64, prior float64) belief {
	values = slices.Clone(values)
	for i, v := range values {
		values[i] = min(max(v, -mostTold), mostTold)
	}
	w, sum := 0.0, 0.0
	for i, v := range values {
		w += weights[i]
		sum += weights[i] * v
	}
	if w+prior == 0 {
		return belief{0, priorSigma}
	}
	mean := sum / (w + prior)
	spread := priorEvents * priorSigma * priorSigma
	for i, v := range values {
		spread += weights[i] * (v - mean) * (v - mean)
	}
	// The variance of one more event: its own, and that of the mean.
	return belief{mean, math.Sqrt(spread / (priorEvents + w) * (1 + 1/(w+prior)))}
}

// observe updates the belief with a normal observation.
func (b belief) observe(value, sigma float64) belief {
	p, q := 1/(b.sigma*b.sigma), 1/(sigma*sigma)
	return belief{(b.mean*p + value*q) / (p + q), math.Sqrt(1 / (p + q))}
}

func (b belief) band(unit float64) Band {
	return Band{unit * math.Exp(b.mean), unit * math.Exp(b.mean+z90*b.sigma)}
}

// Predict predicts the event.
func Predict(e Event) (*Prediction, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("forecast: %w", err)
	}
	form, _ := shapeOf(e.kind())
	weight := func(p Past) float64 {
		if p.Kind == form.name {
			return 1
		}
		return otherKind
	}

	var values, weights []float64
	unit := e.Audience
	var scale belief
	learnt := map[int]bool{}
	if e.Audience > 0 {
		for i, p := range e.Past {
			if p.Expected > 0 {
				values, weights = append(values, math.Log(p.Total/p.Expected)), append(weights, weight(p))
				learnt[i] = true
			}
		}
		scale = learn(values, weights, priorEvents)
	} else {
		// Everything in terms of the middle event's total, so that the logarithms are small.
		var totals []float64
		for _, p := range e.Past {
			totals = append(totals, p.Total)
		}
		slices.Sort(totals)
		unit = totals[len(totals)/2]
		for i, p := range e.Past {
			values = append(values, math.Log(p.Total/unit)+math.Log(atHour(e.Start)/atHour(p.Start)))
			weights = append(weights, weight(p))
			learnt[i] = true
		}
		if e.Start.IsZero() { // the hours of the past are then the best guess
			for i, p := range e.Past {
				values[i] = math.Log(p.Total / unit)
			}
		}
		scale = learn(values, weights, 0)
		unit *= math.Exp(scale.mean)
		scale.mean = 0
	}
	if known, value := interest(e.Marketing); known > 0 {
		scale = scale.observe(value, interestSigma/math.Sqrt(known))
	}

	values, weights = nil, nil
	for i, p := range e.Past {
		if p.Peak > 0 {
			of, _ := shapeOf(p.Kind)
			values, weights = append(values, math.Log(p.Peak/p.Total/of.peak())), append(weights, weight(p))
			learnt[i] = true
		}
	}
	steep := learn(values, weights, priorEvents)
	form = form.sharpened(math.Exp(steep.mean))
	// The peak is uncertain in scale and in shape; of the shape's own uncertainty, half is a crowd that comes at other
	// times rather than more at once.
	high := belief{scale.mean, math.Hypot(scale.sigma, steep.sigma/2)}

	out := &Prediction{Kind: form.name, Total: scale.band(unit), Scale: scale.band(1), Sigma: scale.sigma, Learnt: len(learnt)}
	times := form.times()
	area := 0.0
	for i, t := range times {
		out.Curve = append(out.Curve, Moment{At: t, Rate: Band{P50: form.density(t.Seconds())}})
		if i > 0 {
			area += (out.Curve[i-1].Rate.P50 + out.Curve[i].Rate.P50) / 2 * (t - times[i-1]).Seconds()
		}
	}
	for i := range out.Curve {
		m := &out.Curve[i]
		m.Rate = high.band(unit * m.Rate.P50 / area)
		if m.Rate.P50 > out.Peak.P50 {
			out.Peak, out.PeakAt = m.Rate, m.At
		}
	}
	regions, _ := shares(e.Regions)
	for _, r := range regions {
		n := Need{Region: r.Name, Share: r.Share, Peak: Band{out.Peak.P50 * r.Share, out.Peak.P90 * r.Share}}
		n.Capacity = n.Peak.P90 * (1 + e.Headroom)
		if e.InstanceRate > 0 {
			n.Instances = max(1, int(math.Ceil(n.Capacity/e.InstanceRate)))
		}
		out.Regions = append(out.Regions, n)
	}
	return out, nil
}

// interest is what a marketing curve says of the scale's logarithm, and how much typical interest it knows of (0: nothing).
func interest(points []Interest) (known, value float64) {
	for _, p := range points {
		if p.Share == 0 {
			continue // nobody asked, or nobody counted
		}
		typical := math.Exp2(-p.Hours / interestHalving)
		known += typical
		value += typical * math.Log(p.Share/typical)
	}
	if known == 0 {
		return 0, 0
	}
	return known, value / known
}

// Rate is the predicted rate at t from the event's start; 0 outside the curve.
func (p *Prediction) Rate(t time.Duration) Band {
	c := p.Curve
	if len(c) == 0 || t < c[0].At || t > c[len(c)-1].At {
		return Band{}
	}
	i := sort.Search(len(c), func(i int) bool { return c[i].At >= t })
	if c[i].At == t {
		return c[i].Rate
	}
	a, b := c[i-1], c[i]
	x := float64(t-a.At) / float64(b.At-a.At)
	return Band{a.Rate.P50 + x*(b.Rate.P50-a.Rate.P50), a.Rate.P90 + x*(b.Rate.P90-a.Rate.P90)}
}

// Points is the middle estimate from a time to another, both relative to the event's start, as points of a leg whose curve
// is audience.Forecast: their times begin at 0. Rates above audience.MaxRate are cut.
func (p *Prediction) Points(from, to time.Duration) []audience.Point {
	if to <= from {
		return nil
	}
	at := func(t time.Duration) audience.Point {
		return audience.Point{At: t - from, Rate: min(p.Rate(t).P50, audience.MaxRate)}
	}
	out := []audience.Point{at(from)}
	for _, m := range p.Curve {
		if m.At > from && m.At < to {
			out = append(out, at(m.At))
		}
	}
	return append(out, at(to))
}
