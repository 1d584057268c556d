package stream

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// Sentinels of what Parse, ParsePlaylist and the Inspect functions refuse. The wrapping error says what and where.
var (
	// ErrUnsupported marks a stream that is well-formed but outside what tminus plays.
	ErrUnsupported = errors.New("unsupported")
	// ErrMalformed marks what breaks its standard, or a bound of this package.
	ErrMalformed = errors.New("malformed")
)

// Bounds of what is read. Beyond them Parse and ParsePlaylist return ErrMalformed.
const (
	MaxManifest   = 4 << 20 // bytes of an MPD or playlist
	maxDepth      = 64      // XML elements within each other
	maxElements   = 200_000 // XML elements
	maxSegments   = 20_000  // of one rendition
	maxPeriods    = 64
	maxRenditions = 128
	maxPaths      = 32
	maxSpan       = 100 * 365 * 24 * time.Hour // of any duration in a manifest
)

// Kinds of renditions and of media in a segment. A rendition with picture and sound in one is Video.
const (
	Video = "video"
	Audio = "audio"
)

// Formats.
const (
	DASH = "dash"
	HLS  = "hls"
)

// ByteRange is a part of a resource (RFC 9110 section 14.1.2). Length 0: all of it.
type ByteRange struct{ Offset, Length int64 }

// Resource is something to fetch.
type Resource struct {
	URL   string // absolute
	Range ByteRange
}

// Presentation is a live stream as its manifest describes it.
type Presentation struct {
	Format     string
	Renditions []Rendition   // the ladder by bandwidth, lowest first; then audio
	Paths      []string      // IDs, in the manifest's order of preference
	Ended      bool          // nothing will be added (DASH @type static after having been dynamic)
	Refresh    time.Duration // DASH @minimumUpdatePeriod: reload the manifest that often; 0: never
	Location   string        // where to reload it from
	Delay      time.Duration // suggested distance from the encoder's wall clock; 0: none
	UTCTiming  []string      // URLs of DASH UTCTiming http clocks; noted, not used: the crowd shares one clock
	Anchor     time.Time     // DASH: availabilityStartTime

	sources map[sourceKey]Source
}

type sourceKey struct {
	rendition int
	path      string
}

// Rendition is one encoded version of a track.
type Rendition struct {
	ID            string
	Kind          string // Video or Audio
	Codecs        string
	Bandwidth     int // bits/s; 0: the manifest does not say
	Width, Height int // pixels
	Language      string
	Audio         []int // with Video: the audio renditions that go with it, the preferred first; empty: none, or in the same segments
}

// Source is how one rendition is reached over one path: an Index at once, a media playlist to load, or both.
type Source struct {
	Index    *Index
	Playlist string // HLS media playlist URL
}

// Source returns how rendition r (an index of Renditions) is reached over path; false when that path does not carry it.
func (p *Presentation) Source(r int, path string) (Source, bool) {
	s, ok := p.sources[sourceKey{r, path}]
	return s, ok
}

// Ladder returns the renditions that adaptation chooses from, lowest bandwidth first: the video, or all audio where there
// is no video.
func (p *Presentation) Ladder() []int {
	var video, all []int
	for i, r := range p.Renditions {
		all = append(all, i)
		if r.Kind == Video {
			video = append(video, i)
		}
	}
	if len(video) > 0 {
		return video
	}
	return all
}

// Segment is one media segment on one path.
type Segment struct {
	Resource
	Number        uint64        // DASH $Number$, HLS media sequence number
	Start         time.Time     // wall clock of its first frame
	Duration      time.Duration // as announced
	Available     time.Time     // when it can be had; zero: it is listed, so now
	Init          *Resource     // initialisation segment; nil: none (MPEG-TS)
	Discontinuity bool          // media times start anew here
	Gap           bool          // EXT-X-GAP: announced as missing
	Era           int           // changes where the relation of media time and Start may change (period, discontinuity)
	MediaTime     time.Duration // decode time announced (DASH); -1: not announced
}

// End is the wall clock at which the segment's media ends.
func (s Segment) End() time.Time { return s.Start.Add(s.Duration) }

// Place says how Index.At's answer lies to the time asked for.
type Place int

// Places.
const (
	Here   Place = iota // the segment covers the time
	Later               // the time is in a hole or before the window: the segment is the next there is
	Ahead               // nothing so late is announced yet
	Beyond              // the presentation ends before that time
)

// Index answers for one rendition on one path which segment covers a time. It does not change; a reload makes another.
type Index struct {
	Target time.Duration // the longest segment: HLS target duration, or DASH's longest
	Hold   time.Duration // HLS EXT-X-SERVER-CONTROL HOLD-BACK or EXT-X-START; 0: none
	Depth  time.Duration // DASH timeShiftBufferDepth; 0: unlimited or what is listed
	Ended  bool          // no segment will be added
	pieces []piece       // in order of time
}

// piece is a run of segments: listed entries, or a rule that goes on until end.
type piece struct {
	begin, end time.Time // end zero: open
	era        int
	entries    []entry // nil: a rule
	rule       rule
	naming     naming
}

type entry struct {
	number   uint64
	start    time.Time
	duration time.Duration
	media    uint64 // units of the timescale
	res      Resource
	init     *Resource
	disc     bool
	gap      bool
	era      int
}

// rule makes segment first+k cover [k·d, (k+1)·d) units after the piece's begin.
type rule struct {
	first     uint64 // number of the first segment
	media     uint64 // its media time, units
	d         uint64 // duration, units
	timescale uint32
	early     time.Duration // available that much before its end (availabilityTimeOffset)
}

func (r rule) start(begin time.Time, k uint64) time.Time {
	return begin.Add(units(k*r.d, r.timescale))
}

func (r rule) length() time.Duration { return units(r.d, r.timescale) }

// slack is how much of a segment's length two descriptions of one boundary may differ.
func slack(d time.Duration) time.Duration { return min(d/8, 100*time.Millisecond) }

// At returns the segment that covers t, within a tenth of a second, or the next there is. now matters only to rules: a
// segment that is due later is returned all the same, with its Available.
func (x *Index) At(t time.Time) (Segment, Place) {
	for i := range x.pieces {
		p := &x.pieces[i]
		if p.entries != nil {
			k, _ := slices.BinarySearchFunc(p.entries, t, func(e entry, t time.Time) int {
				if e.start.Add(e.duration - slack(e.duration)).After(t) {
					return 1
				}
				return -1
			})
			if k == len(p.entries) {
				continue
			}
			e := p.entries[k]
			if e.start.Add(-slack(e.duration)).After(t) {
				return p.listed(e), Later
			}
			return p.listed(e), Here
		}
		d := p.rule.length()
		if d <= 0 {
			continue
		}
		eps := slack(d)
		if !p.end.IsZero() && !t.Before(p.end.Add(-eps)) {
			continue
		}
		if t.Before(p.begin.Add(-eps)) {
			return p.ruled(0), Later
		}
		return p.ruled(p.covering(t.Add(eps))), Here
	}
	if x.Ended {
		return Segment{}, Beyond
	}
	return Segment{}, Ahead
}

// covering is the number, counted from 0, of the rule's segment that covers t, which is not before begin.
func (p *piece) covering(t time.Time) uint64 {
	since := t.Sub(p.begin)
	if since <= 0 {
		return 0
	}
	// Whole units, not nanoseconds: a rounded segment length would add up over the years since the epoch.
	ts := uint64(p.rule.timescale)
	k := (uint64(since/time.Second)*ts + uint64(since%time.Second)*ts/uint64(time.Second)) / p.rule.d
	for k > 0 && p.rule.start(p.begin, k).After(t) {
		k--
	}
	for !p.rule.start(p.begin, k+1).After(t) {
		k++
	}
	return k
}

func (p *piece) listed(e entry) Segment {
	s := Segment{Resource: e.res, Number: e.number, Start: e.start, Duration: e.duration, Init: e.init,
		Discontinuity: e.disc, Gap: e.gap, Era: e.era, MediaTime: -1}
	if p.naming.media != "" {
		s.Resource = Resource{URL: p.naming.segment(e.number, e.media)}
		s.Init = p.naming.init
		s.MediaTime = units(e.media, p.rule.timescale)
		s.Era = p.era
	}
	return s
}

func (p *piece) ruled(k uint64) Segment {
	r := p.rule
	start, media := r.start(p.begin, k), r.media+k*r.d
	d := r.start(p.begin, k+1).Sub(start)
	s := Segment{Resource: Resource{URL: p.naming.segment(r.first+k, media)}, Number: r.first + k, Start: start, Duration: d,
		Available: start.Add(d - r.early), Init: p.naming.init, Era: p.era, MediaTime: units(media, r.timescale)}
	if !p.end.IsZero() && s.End().After(p.end) {
		s.Duration = p.end.Sub(start)
	}
	return s
}

// LiveEdge returns the end of the newest segment available at now, and false when there is none.
func (x *Index) LiveEdge(now time.Time) (time.Time, bool) {
	for i := len(x.pieces) - 1; i >= 0; i-- {
		p := &x.pieces[i]
		if n := len(p.entries); n > 0 {
			e := p.entries[n-1]
			return e.start.Add(e.duration), true
		}
		if d := p.rule.length(); p.entries == nil && d > 0 {
			t := now.Add(p.rule.early)
			if !p.end.IsZero() && t.After(p.end) {
				return p.end, true
			}
			if t.Sub(p.begin) >= d {
				return p.rule.start(p.begin, p.covering(t)), true
			}
		}
	}
	return time.Time{}, false
}

// Earliest returns the start of the oldest segment that can still be had at now, and false when there is none.
func (x *Index) Earliest(now time.Time) (time.Time, bool) {
	if len(x.pieces) == 0 {
		return time.Time{}, false
	}
	p := &x.pieces[0]
	t := p.begin
	if len(p.entries) > 0 {
		t = p.entries[0].start
	}
	if x.Depth > 0 && now.Add(-x.Depth).After(t) {
		t = now.Add(-x.Depth)
	}
	return t, true
}

// End returns when the last segment's media ends, and false while that is open.
func (x *Index) End() (time.Time, bool) {
	if len(x.pieces) == 0 {
		return time.Time{}, false
	}
	p := &x.pieces[len(x.pieces)-1]
	switch n := len(p.entries); {
	case p.entries == nil && !p.end.IsZero():
		return p.end, true
	case n > 0 && x.Ended:
		return p.entries[n-1].start.Add(p.entries[n-1].duration), true
	}
	return time.Time{}, false
}

// Last returns the number of the newest listed segment, to see whether a reload brought anything; 0 for rules.
func (x *Index) Last() uint64 {
	for i := len(x.pieces) - 1; i >= 0; i-- {
		if n := len(x.pieces[i].entries); n > 0 {
			return x.pieces[i].entries[n-1].number
		}
	}
	return 0
}

// Mark ties a media sequence number to a wall-clock time, for playlists that carry no dates.
type Mark struct {
	Number uint64
	Start  time.Time
}

// Mark returns the newest listed segment's number and start, and false when nothing is listed.
func (x *Index) Mark() (Mark, bool) {
	for i := len(x.pieces) - 1; i >= 0; i-- {
		if n := len(x.pieces[i].entries); n > 0 {
			e := x.pieces[i].entries[n-1]
			return Mark{e.number, e.start}, true
		}
	}
	return Mark{}, false
}

// Parse reads an MPD, an HLS multivariant playlist or a lone HLS media playlist. at is the URL it came from, after
// redirects; now is when it was asked for. prev is what the same URL gave before, or nil: it lends its clock to an MPD that has
// ended and to a playlist without dates.
func Parse(body []byte, at string, now time.Time, prev *Presentation) (*Presentation, error) {
	if len(body) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes: %w: more than %d", len(body), ErrMalformed, MaxManifest)
	}
	base, err := webURL(at)
	if err != nil {
		return nil, err
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case bytes.HasPrefix(text, []byte("#EXTM3U")):
		return parseHLS(text, base, now, prev)
	case bytes.HasPrefix(text, []byte("<")):
		return parseDASH(text, base, now, prev)
	}
	return nil, fmt.Errorf("manifest: %w: neither an MPD nor an HLS playlist: it begins with %q", ErrMalformed, text[:min(len(text), 24)])
}

// webURL parses an absolute http or https URL.
func webURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("URL %q: %w", clip(s), ErrMalformed)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: %w: want http:// or https:// and a host", clip(s), ErrUnsupported)
	}
	return u, nil
}

// resolve makes ref absolute against base (RFC 3986 section 5).
func resolve(base *url.URL, ref string) (*url.URL, error) {
	u, err := base.Parse(ref)
	if err != nil {
		return nil, fmt.Errorf("URL %q: %w", clip(ref), ErrMalformed)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("URL %q: %w: want http or https", clip(ref), ErrUnsupported)
	}
	return u, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
