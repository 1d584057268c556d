package media

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Selector says which segments a fault is about. The zero value is every segment.
type Selector struct {
	// Rung is a rendition's name, or a height such as "720p"; "": all.
	Rung string
	// Track is Video or Audio; "": both.
	Track string
	// Every: those numbers n with n mod Every = Phase. 0 and 1: all.
	Every, Phase uint64
	// Live holds positions relative to the newest complete segment at the moment of asking: -2 is two before it. None: all.
	Live []int
	// Whole also selects the initialisation segment and the media playlist, as when a rung is gone altogether.
	Whole bool
}

const (
	maxEvery = 1 << 20
	maxLive  = 64 // positions, and how far from the edge they may lie
)

// Validate reports everything that is wrong.
func (s Selector) Validate() error {
	var errs []error
	if s.Track != "" && s.Track != Video && s.Track != Audio {
		errs = append(errs, fmt.Errorf("track %q is neither %s nor %s", s.Track, Video, Audio))
	}
	if s.Every > maxEvery {
		errs = append(errs, fmt.Errorf("every %d segments is more than %d", s.Every, maxEvery))
	}
	if s.Phase >= max(s.Every, 1) {
		errs = append(errs, fmt.Errorf("phase %d is not below every %d", s.Phase, max(s.Every, 1)))
	}
	if len(s.Live) > maxLive {
		errs = append(errs, fmt.Errorf("%d live positions are more than %d", len(s.Live), maxLive))
	}
	for _, p := range s.Live {
		if p > 1 || p < -maxLive*1000 {
			errs = append(errs, fmt.Errorf("live %+d: positions run from %d to +1", p, -maxLive*1000))
		}
	}
	if s.Whole && (s.Every > 1 || len(s.Live) > 0) {
		errs = append(errs, errors.New("a whole rung has no every and no live position"))
	}
	return errors.Join(errs...)
}

// Numbered reports whether the selector is about that number, its position aside.
func (s Selector) Numbered(n uint64) bool { return s.Every <= 1 || n%s.Every == s.Phase }

// Named reports whether the selector is about that rung and track.
func (s Selector) Named(r Ref) bool {
	return (s.Track == "" || s.Track == r.Track) && (s.Rung == "" || sameRung(s.Rung, r.Rung))
}

// Match reports whether a request is for what the selector is about, asked for when newest was the newest complete segment.
func (s Selector) Match(r Ref, newest uint64) bool {
	if !s.Named(r) {
		return false
	}
	switch r.Kind {
	case Segment:
	case Init, Playlist:
		return s.Whole
	default:
		return false
	}
	if !s.Numbered(r.Number) {
		return false
	}
	return len(s.Live) == 0 || slices.Contains(s.Live, int(int64(r.Number)-int64(newest)))
}

// sameRung compares names; "720p" also names "v720", "720" and "video_720p".
func sameRung(want, have string) bool {
	if strings.EqualFold(want, have) {
		return true
	}
	h := height(strings.ToLower(want))
	if h == 0 {
		return false
	}
	for _, run := range digitRuns.FindAllString(have, -1) {
		if n, err := strconv.Atoi(run); err == nil && n == h {
			return true
		}
	}
	return false
}

var (
	digitRuns = regexp.MustCompile(`[0-9]+`)
	liveText  = regexp.MustCompile(`^(?:live)?\s*([+-]?)\s*([0-9]+)$`)
)

// ParseLive reads a position relative to the live edge: "live", "live - 2", "-2", or a span "live-4..live-2".
func ParseLive(text string) ([]int, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if text == "" {
		return nil, nil
	}
	one := func(s string) (int, error) {
		s = strings.TrimSpace(s)
		if s == "live" {
			return 0, nil
		}
		m := liveText.FindStringSubmatch(s)
		if m == nil {
			return 0, fmt.Errorf("%q is no position relative to the live edge: say live, live-2 or live-4..live-2", text)
		}
		n, err := strconv.Atoi(m[2])
		if err != nil || n > maxLive*1000 {
			return 0, fmt.Errorf("%q lies too far from the live edge", text)
		}
		if m[1] == "-" {
			n = -n
		}
		return n, nil
	}
	first, last, span := strings.Cut(text, "..")
	from, err := one(first)
	if err != nil {
		return nil, err
	}
	to := from
	if span {
		if to, err = one(last); err != nil {
			return nil, err
		}
	}
	from, to = min(from, to), max(from, to)
	if to > 1 {
		return nil, fmt.Errorf("%q: nobody can ask for more than the one segment after the newest", text)
	}
	if to-from >= maxLive {
		return nil, fmt.Errorf("%q spans more than %d segments", text, maxLive)
	}
	var out []int
	for p := from; p <= to; p++ {
		out = append(out, p)
	}
	return out, nil
}

// Edge remembers how far each stream has come, for layouts whose numbers the clock does not give, and when each of the
// latest segments was first asked for. It is safe for concurrent use and bounded.
type Edge struct {
	mu      sync.Mutex
	streams map[string]*progress
}

type progress struct {
	newest uint64
	known  bool
	asked  [askedKept]asking
}

type asking struct {
	number uint64
	at     time.Time
}

const (
	maxStreams = 256
	askedKept  = 64
)

func (e *Edge) of(stream string) *progress {
	p := e.streams[stream]
	if p == nil {
		if e.streams == nil || len(e.streams) >= maxStreams { // more streams than anybody has: begin anew
			e.streams = map[string]*progress{}
		}
		p = &progress{}
		e.streams[stream] = p
	}
	return p
}

// Served notes that segment r exists.
func (e *Edge) Served(r Ref) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.of(r.Stream()); !p.known || r.Number > p.newest {
		p.newest, p.known = r.Number, true
	}
}

// Newest is the newest segment known of r's stream, r itself included: who asks for a newer one knows better.
func (e *Edge) Newest(r Ref) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.streams[r.Stream()]; p != nil && p.known {
		return max(p.newest, r.Number)
	}
	return r.Number
}

// Asked notes a request and returns when that segment was first asked for.
func (e *Edge) Asked(r Ref, now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	slot := &e.of(r.Stream()).asked[r.Number%askedKept]
	if slot.number != r.Number || slot.at.IsZero() {
		*slot = asking{r.Number, now}
	}
	return slot.at
}
