package admission

import (
	"errors"
	"fmt"
	"time"
)

// Defaults of Config.
const (
	DefaultBurst       = 250 * time.Millisecond
	DefaultMaxInFlight = 4096
	DefaultMaxQueue    = 250 * time.Millisecond
	DefaultSmooth      = time.Second
	DefaultRamp        = 5 * time.Second
	DefaultStale       = 3 * time.Second
	DefaultHold        = 3 * time.Second
	DefaultStay        = time.Hour
	DefaultMaxRetries  = 3
	DefaultShortest    = time.Second
	DefaultLongest     = time.Minute

	// Interval is how often the slow measures, levers and weights are worked out. A capacity below 100 a second has a burst
	// of 25 starts instead of Burst: Poisson arrivals at capacity would lose too many otherwise.
	Interval   = 100 * time.Millisecond
	leastBurst = 25
)

// Lever is one step of degradation.
type Lever uint8

// The levers in the order in which they engage.
const (
	Bookmarks       Lever = iota // no resume positions
	Personalisation              // one manifest for every device
	TopRung                      // nobody gets the highest rung
	LowStarts                    // starts with a priority number above LowPriority are shed
	LiveOnly                     // all starts but live ones are shed

	Levers = 5
)

var leverNames = [Levers]string{"bookmarks", "personalisation", "top-rung", "low-starts", "live-only"}

// String is the lever's name.
func (l Lever) String() string { return leverNames[l] }

// ParseLever finds a lever by name.
func ParseLever(name string) (Lever, error) {
	for l, n := range leverNames {
		if n == name {
			return Lever(l), nil
		}
	}
	return 0, fmt.Errorf("there is no lever %q; there are %v", name, leverNames)
}

// Bound is when load moves a lever: it engages at Engage and releases at Release, both of pressure, but is engaged for Hold at
// least.
type Bound struct {
	Engage, Release float64
	Hold            time.Duration // 0: DefaultHold
}

// DefaultBounds degrade before the capacity is reached and shed beyond it.
var DefaultBounds = [Levers]Bound{
	Bookmarks:       {Engage: 0.80, Release: 0.60},
	Personalisation: {Engage: 0.90, Release: 0.70},
	TopRung:         {Engage: 1.00, Release: 0.80},
	LowStarts:       {Engage: 1.10, Release: 0.90},
	LiveOnly:        {Engage: 1.30, Release: 1.05},
}

// Config is what a region's control needs. Only Regions is required.
type Config struct {
	Regions []string // of the topology, in an order that every region shares
	Self    int      // index in Regions

	Capacity    float64       // play starts a second; 0: not bounded
	Burst       time.Duration // how much of the capacity may be used ahead of time
	MaxInFlight int           // starts in the service at once that count as full overload
	MaxQueue    time.Duration // queueing delay that counts as full overload
	Smooth      time.Duration // time constant of the moving averages
	Bounds      [Levers]Bound // zero: DefaultBounds

	Unguided          bool          // answers carry no retry policy
	MaxRetries        int           // of a retry policy
	Shortest, Longest time.Duration // bounds of a wait
	Stay              time.Duration // mean time that a viewer stays: who started longer ago is not expected back

	Ramp  time.Duration // a region's whole weight moves in this time
	Stale time.Duration // a region that was not heard of for this long is taken for gone

	Seed uint64 // of the jitter
}

// Validate reports everything that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("admission: "+format, args...)) }
	if c.Self < 0 || c.Self >= len(c.Regions) {
		bad("region %d is none of the %d", c.Self, len(c.Regions))
	}
	if !(c.Capacity >= 0 && c.Capacity <= MaxCapacity) {
		bad("a capacity of %v is outside 0 to %d starts a second", c.Capacity, MaxCapacity)
	}
	for _, d := range []time.Duration{c.Burst, c.MaxQueue, c.Smooth, c.Shortest, c.Longest, c.Stay, c.Ramp, c.Stale} {
		if d < 0 || d > 24*time.Hour {
			bad("a time of %s is outside 0 to 24h", d)
		}
	}
	if c.MaxInFlight < 0 || c.MaxRetries < 0 {
		bad("bounds must not be negative")
	}
	for l, b := range c.Bounds {
		if b != (Bound{}) && !(b.Release > 0 && b.Engage >= b.Release && b.Engage <= 2 && b.Hold >= 0) {
			bad("lever %s engages at %v and releases at %v: 0 < release <= engage <= 2 is needed", Lever(l), b.Engage, b.Release)
		}
	}
	d := c.withDefaults()
	if d.Shortest >= d.Longest {
		bad("waits of %s to %s leave no room to spread viewers", d.Shortest, d.Longest)
	}
	return errors.Join(errs...)
}

// MaxCapacity is the largest capacity that can be asked for, in play starts a second.
const MaxCapacity = 100_000_000

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Burst, DefaultBurst)
	def(&c.MaxQueue, DefaultMaxQueue)
	def(&c.Smooth, DefaultSmooth)
	def(&c.Shortest, DefaultShortest)
	def(&c.Longest, DefaultLongest)
	def(&c.Stay, DefaultStay)
	def(&c.Ramp, DefaultRamp)
	def(&c.Stale, DefaultStale)
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.MaxRetries <= 0 {
		c.MaxRetries = DefaultMaxRetries
	}
	for l := range c.Bounds {
		if c.Bounds[l] == (Bound{}) {
			c.Bounds[l] = DefaultBounds[l]
		}
		def(&c.Bounds[l].Hold, DefaultHold)
	}
	return c
}
