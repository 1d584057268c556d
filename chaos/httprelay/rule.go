package httprelay

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/media"
)

// Action kinds.
const (
	Status   = "status"   // answered with Status by the relay itself
	Latency  = "latency"  // passed on only after Delay, give or take Jitter
	Stall    = "stall"    // after After bytes of its body the answer pauses for For, or until the rule is taken away
	Reset    = "reset"    // the connection is reset after After bytes of the body; 0: without any answer
	Truncate = "truncate" // the connection is closed in order after After bytes of the body, short of its length
	Throttle = "throttle" // the body is sent at Rate
	Corrupt  = "corrupt"  // one byte of the body in Each is flipped
	Segment  = "segment"  // the segment has Defect
)

// Actions lists the kinds.
func Actions() []string {
	return []string{Status, Latency, Stall, Reset, Truncate, Throttle, Corrupt, Segment}
}

// Action is what happens to a request that a rule takes.
type Action struct {
	Kind       string
	Status     int           // of Status: 100 to 599
	RetryAfter time.Duration // of Status: the Retry-After field, in whole seconds; 0: none
	Body       string        // of Status
	Delay      time.Duration // of Latency
	Jitter     time.Duration // of Latency: drawn evenly from Delay-Jitter to Delay+Jitter
	After      int64         // of Stall, Reset and Truncate: bytes of the body; what is not below a known length is half of it
	For        time.Duration // of Stall; 0: as long as the rule stands
	Rate       float64       // of Throttle: bytes a second
	Each       int           // of Corrupt; 0: 1024
	Defect     media.Defect  // of Segment
}

// Rule says which requests are broken and how. The first rule that takes a request is the only one.
type Rule struct {
	Name    string
	Methods []string        // none: GET and HEAD
	Path    *regexp.Regexp  // on the path as it stands in the request line; nil: every path
	Share   float64         // of the requests that match, in (0, 1]
	Seed    uint64          // of the draw
	Media   *media.Selector // only requests for these segments; nil: not asked. A Segment action without one is about all segments
	Action  Action
}

const (
	maxRules = 256
	maxWait  = time.Hour
	maxBody  = 64 << 10 // of an answer of the relay's own
)

// Validate reports everything that is wrong.
func (r Rule) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !(r.Share > 0 && r.Share <= 1) {
		bad("share %g is not above 0 and at most 1", r.Share)
	}
	if r.Media != nil {
		if err := r.Media.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	span := func(name string, d, least time.Duration) {
		if d < least || d > maxWait {
			bad("%s of %v is not between %v and %v", name, d, least, maxWait)
		}
	}
	a := r.Action
	switch a.Kind {
	case Status:
		if a.Status < 200 || a.Status > 599 {
			bad("status %d is not between 200 and 599", a.Status)
		}
		if a.RetryAfter != 0 {
			span("retry-after", a.RetryAfter, time.Second)
		}
		if len(a.Body) > maxBody {
			bad("a body of %d bytes is more than %d", len(a.Body), maxBody)
		}
	case Latency:
		span("delay", a.Delay, time.Millisecond)
		if a.Jitter < 0 || a.Jitter > a.Delay {
			bad("jitter of %v is not between 0 and the delay of %v", a.Jitter, a.Delay)
		}
	case Stall:
		if a.For != 0 {
			span("for", a.For, time.Millisecond)
		}
	case Reset, Truncate:
	case Throttle:
		if !(a.Rate >= 1 && a.Rate <= 1e12) {
			bad("rate of %g bytes/s is not at least 1", a.Rate)
		}
	case Corrupt:
		if a.Each < 0 {
			bad("one byte in %d", a.Each)
		}
	case Segment:
		if err := a.Defect.Validate(); err != nil {
			errs = append(errs, err)
		}
	default:
		bad("%q is no action (there is %s)", a.Kind, strings.Join(Actions(), ", "))
	}
	if a.After < 0 {
		bad("after %d bytes", a.After)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rule %s: %w", r.Name, err)
	}
	return nil
}

// Takes reports whether a rule is about requests with that method for that path, as it stands in the request line without its
// query; its share aside, and which segment it is.
func (r *Rule) Takes(method, path string) bool {
	methods := r.Methods
	if len(methods) == 0 {
		methods = []string{http.MethodGet, http.MethodHead}
	}
	return slices.Contains(methods, method) && (r.Path == nil || r.Path.MatchString(path))
}

// covers reports whether a rule is about such a request, its share aside. newest gives the newest complete segment.
func (r *Rule) covers(method, path string, ref media.Ref, known bool, newest func() uint64) bool {
	if !r.Takes(method, path) {
		return false
	}
	if r.Media == nil {
		if r.Action.Kind != Segment {
			return true
		}
		return known && ref.Kind == media.Segment
	}
	// A defect of bytes is about segments alone, whatever else of a rung is selected.
	if !known || r.Action.Kind == Segment && r.Action.Defect.Kind != media.Missing && ref.Kind != media.Segment {
		return false
	}
	return r.Media.Match(ref, newest())
}

// draw is a number in [0, 1) for the n-th request of a rule.
func draw(seed, n uint64) float64 {
	x := seed + (n+1)*0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return float64((x^x>>31)>>11) / (1 << 53)
}

// delay is how long the n-th request of a latency rule waits.
func (a Action) delay(seed, n uint64) time.Duration {
	return a.Delay + time.Duration((2*draw(^seed, n)-1)*float64(a.Jitter))
}

// border is after how many bytes of a body of that length, -1 where it is not known, something happens.
func (a Action) border(length int64) int64 {
	if length > 0 && a.After >= length || length > 1 && a.After == 0 && a.Kind == Truncate {
		return length / 2
	}
	return a.After
}
