package stream

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseDASH reads an MPD of the live profile: SegmentTemplate by @duration or by SegmentTimeline.
func parseDASH(body []byte, base *url.URL, now time.Time, prev *Presentation) (*Presentation, error) {
	if err := checkXML(body); err != nil {
		return nil, fmt.Errorf("MPD: %w", err)
	}
	var m mpdDoc
	if err := xml.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("MPD: %w: %w", ErrMalformed, err)
	}
	d := dash{mpd: &m, now: now, p: &Presentation{Format: DASH, Location: base.String(), sources: map[sourceKey]Source{}}}
	if err := d.read(base, prev); err != nil {
		return nil, fmt.Errorf("MPD: %w", err)
	}
	return d.p, nil
}

// checkXML bounds depth and size before the document is unmarshalled.
func checkXML(body []byte) error {
	dec := xml.NewDecoder(bytes.NewReader(body))
	dec.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("%w: only UTF-8", ErrUnsupported)
	}
	depth, elements := 0, 0
	for {
		t, err := dec.RawToken()
		if errors.Is(err, io.EOF) {
			if elements == 0 || depth != 0 {
				return fmt.Errorf("%w: the document is cut off", ErrMalformed)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		switch e := t.(type) {
		case xml.StartElement:
			if elements == 0 && e.Name.Local != "MPD" {
				return fmt.Errorf("%w: the root element is %q, want MPD", ErrMalformed, clip(e.Name.Local))
			}
			depth++
			if elements++; depth > maxDepth || elements > maxElements {
				return fmt.Errorf("%w: more than %d elements or %d levels", ErrMalformed, maxElements, maxDepth)
			}
		case xml.EndElement:
			depth--
		}
	}
}

type dash struct {
	mpd     *mpdDoc
	now     time.Time
	p       *Presentation
	anchor  time.Time // availabilityStartTime
	periods []period
}

type period struct {
	*mpdPeriod
	start, end time.Duration // since anchor; end -1: open
	bases      []baseURL
}

// baseURL is one alternative of a BaseURL list; id names the path.
type baseURL struct {
	id    string
	url   *url.URL
	early time.Duration // availabilityTimeOffset
}

func (d *dash) read(base *url.URL, prev *Presentation) error {
	m := d.mpd
	switch m.Type {
	case "dynamic":
	case "static", "":
		if prev == nil {
			return fmt.Errorf("%w: type=static: this is not a live stream, or it is over", ErrUnsupported)
		}
		d.p.Ended = true
	default:
		return fmt.Errorf("%w: type=%q", ErrUnsupported, clip(m.Type))
	}
	switch {
	case m.AvailabilityStartTime != "":
		t, err := xmlTime(m.AvailabilityStartTime)
		if err != nil {
			return fmt.Errorf("availabilityStartTime: %w", err)
		}
		d.anchor = t
	case prev != nil && !prev.Anchor.IsZero():
		d.anchor = prev.Anchor
	default:
		return fmt.Errorf("%w: a dynamic MPD without availabilityStartTime", ErrMalformed)
	}
	if age := d.now.Sub(d.anchor); age > maxSpan || age < -maxSpan {
		return fmt.Errorf("%w: availabilityStartTime %s is out of this world", ErrMalformed, d.anchor.Format(time.RFC3339))
	}
	d.p.Anchor = d.anchor
	if u := m.MinimumUpdatePeriod; u != nil && !d.p.Ended {
		d.p.Refresh = max(time.Duration(*u), 500*time.Millisecond) // PT0S asks for a reload at every segment: bounded
	}
	if s := m.SuggestedPresentationDelay; s != nil {
		d.p.Delay = time.Duration(*s)
	}
	if len(m.Location) > 0 {
		u, err := resolve(base, strings.TrimSpace(m.Location[0]))
		if err != nil {
			return fmt.Errorf("element Location: %w", err)
		}
		d.p.Location = u.String()
	}
	for _, t := range m.UTCTiming {
		if strings.HasPrefix(t.Scheme, "urn:mpeg:dash:utc:http") && len(d.p.UTCTiming) < maxPaths {
			d.p.UTCTiming = append(d.p.UTCTiming, strings.Fields(t.Value)...)
		}
	}
	root, err := bases([]baseURL{{url: base}}, m.BaseURL)
	if err != nil {
		return err
	}
	if err := d.readPeriods(root); err != nil {
		return err
	}
	return d.readRenditions()
}

// xmlTime reads an xs:dateTime; without a zone it is UTC, as every packager that leaves it out means it.
func xmlTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %q is no xs:dateTime", ErrMalformed, clip(s))
}

// bases combines BaseURL alternatives of one level with those above it (ISO/IEC 23009-1 section 5.6).
func bases(parents []baseURL, elems []mpdBaseURL) ([]baseURL, error) {
	if len(elems) == 0 {
		return parents, nil
	}
	var out []baseURL
	seen := map[string]bool{}
	for _, e := range elems {
		for _, p := range parents {
			u, err := resolve(p.url, strings.TrimSpace(e.Value))
			if err != nil {
				return nil, fmt.Errorf("element BaseURL: %w", err)
			}
			b := baseURL{id: e.ServiceLocation, url: u, early: p.early + time.Duration(e.AvailabilityTimeOffset)}
			if b.id == "" {
				b.id = p.id
			}
			if key := b.id + " " + u.String(); !seen[key] {
				seen[key] = true
				out = append(out, b)
			}
			if len(out) > maxPaths {
				return nil, fmt.Errorf("%w: more than %d BaseURL alternatives", ErrMalformed, maxPaths)
			}
		}
	}
	return out, nil
}

// named gives every alternative an ID of its own: serviceLocation, else the host, numbered where that repeats.
func named(bs []baseURL) []baseURL {
	out := slices.Clone(bs)
	seen := map[string]int{}
	for i := range out {
		if out[i].id == "" {
			out[i].id = out[i].url.Host
		}
		id := out[i].id
		if seen[id]++; seen[id] > 1 {
			out[i].id = id + "#" + strconv.Itoa(seen[id])
		}
	}
	return out
}

func (d *dash) readPeriods(root []baseURL) error {
	if len(d.mpd.Periods) == 0 || len(d.mpd.Periods) > maxPeriods {
		return fmt.Errorf("%w: %d periods, want 1 to %d", ErrMalformed, len(d.mpd.Periods), maxPeriods)
	}
	next := time.Duration(0) // start of the next period that does not say; -1: unknown
	for i := range d.mpd.Periods {
		p := &d.mpd.Periods[i]
		if p.Href != "" {
			return fmt.Errorf("%w: a remote period (xlink:href)", ErrUnsupported)
		}
		pr := period{mpdPeriod: p, start: next, end: -1}
		if p.Start != nil {
			pr.start = time.Duration(*p.Start)
		}
		if pr.start < 0 {
			continue // an early available period (section 5.3.2.1): it has no time yet
		}
		if n := len(d.periods); n > 0 {
			if last := &d.periods[n-1]; pr.start < last.start {
				return fmt.Errorf("%w: period %d starts before the one ahead of it", ErrMalformed, i+1)
			} else if last.end < 0 || last.end > pr.start {
				last.end = pr.start
			}
		}
		next = -1
		if p.Duration != nil {
			pr.end = pr.start + time.Duration(*p.Duration)
			next = pr.end
		}
		var err error
		if pr.bases, err = bases(root, p.BaseURL); err != nil {
			return err
		}
		d.periods = append(d.periods, pr)
	}
	if len(d.periods) == 0 {
		return fmt.Errorf("%w: no period with a start time", ErrUnsupported)
	}
	last := &d.periods[len(d.periods)-1]
	if md := d.mpd.MediaPresentationDuration; md != nil && last.end < 0 && (d.p.Ended || d.p.Refresh == 0) {
		// With updates to come, the duration is only as far as the packager has got.
		last.end = max(time.Duration(*md), last.start)
	}
	return nil
}

// version is one Representation in one period.
type version struct {
	Rendition
	group    int // adaptation set
	template template
	paths    []baseURL
}

// template is a SegmentTemplate with what it inherits (section 5.3.9.1).
type template struct {
	media, init string
	timescale   uint32
	duration    uint64
	start       uint64 // @startNumber
	last        uint64 // @endNumber; 0: open
	pto         uint64
	early       time.Duration
	timeline    []mpdS
	listed      bool // has a SegmentTimeline, be it empty
}

func inherit(levels ...*mpdTemplate) (template, bool) {
	t := template{timescale: 1, start: 1}
	found := false
	for _, l := range levels {
		if l == nil {
			continue
		}
		found = true
		if l.Media != "" {
			t.media = l.Media
		}
		if l.Initialization != "" {
			t.init = l.Initialization
		}
		if l.Timescale != nil {
			t.timescale = *l.Timescale
		}
		if l.Duration != nil {
			t.duration = uint64(*l.Duration)
		}
		if l.StartNumber != nil {
			t.start = uint64(*l.StartNumber)
		}
		if l.EndNumber != nil {
			t.last = uint64(*l.EndNumber)
		}
		if l.PresentationTimeOffset != nil {
			t.pto = *l.PresentationTimeOffset
		}
		if o := l.AvailabilityTimeOffset; o > 0 {
			t.early = time.Duration(o)
		}
		if l.Timeline != nil {
			t.listed, t.timeline = true, l.Timeline.S
		}
	}
	return t, found
}

func (d *dash) versions(p period) ([]version, error) {
	var out []version
	for g, as := range p.AdaptationSets {
		if slices.ContainsFunc(as.EssentialProperties, func(e mpdProperty) bool {
			return strings.Contains(e.Scheme, "trickmode")
		}) {
			continue
		}
		above, err := bases(p.bases, as.BaseURL)
		if err != nil {
			return nil, err
		}
		for _, r := range as.Representations {
			kind := kindOf(as.ContentType, as.MimeType, r.MimeType)
			if kind == "" {
				continue
			}
			t, ok := inherit(p.SegmentTemplate, as.SegmentTemplate, r.SegmentTemplate)
			switch {
			case !ok || t.media == "":
				return nil, fmt.Errorf("representation %q: %w: no SegmentTemplate@media (SegmentBase and SegmentList are not played)", clip(r.ID), ErrUnsupported)
			case t.timescale == 0:
				return nil, fmt.Errorf("representation %q: %w: timescale 0", clip(r.ID), ErrMalformed)
			case !t.listed && units(t.duration, t.timescale) < 100*time.Millisecond:
				return nil, fmt.Errorf("representation %q: %w: neither a SegmentTimeline nor a duration of 0.1 s or more", clip(r.ID), ErrMalformed)
			case !t.listed && units(t.duration, t.timescale) > time.Hour:
				return nil, fmt.Errorf("representation %q: %w: segments of more than an hour", clip(r.ID), ErrUnsupported)
			}
			v := version{group: g, template: t, Rendition: Rendition{ID: r.ID, Kind: kind, Codecs: first(r.Codecs, as.Codecs),
				Bandwidth: int(r.Bandwidth), Width: int(max(r.Width, as.Width)), Height: int(max(r.Height, as.Height)), Language: as.Lang}}
			if v.paths, err = bases(above, r.BaseURL); err != nil {
				return nil, err
			}
			v.paths = named(v.paths)
			if out = append(out, v); len(out) > maxRenditions {
				return nil, fmt.Errorf("%w: more than %d representations", ErrMalformed, maxRenditions)
			}
		}
	}
	// One video ladder: the first adaptation set's. The others are angles or codecs that a viewer would have to choose.
	ladder := -1
	out = slices.DeleteFunc(out, func(v version) bool {
		if v.Kind == Video && ladder < 0 {
			ladder = v.group
		}
		return v.Kind == Video && v.group != ladder
	})
	slices.SortStableFunc(out, func(a, b version) int {
		switch {
		case a.Kind != b.Kind && a.Kind == Video:
			return -1
		case a.Kind != b.Kind:
			return 1
		case a.group != b.group:
			return a.group - b.group
		}
		return a.Bandwidth - b.Bandwidth
	})
	return out, nil
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

func kindOf(hints ...string) string {
	for _, h := range hints {
		switch kind, _, _ := strings.Cut(h, "/"); kind {
		case Video, Audio:
			return kind
		}
	}
	return ""
}

// readRenditions takes the renditions from the period on the air, and strings every period's segments together.
func (d *dash) readRenditions() error {
	current := 0
	for i, p := range d.periods {
		if !d.anchor.Add(p.start).After(d.now) {
			current = i
		}
	}
	all := make([][]version, len(d.periods))
	for i, p := range d.periods {
		var err error
		if all[i], err = d.versions(p); err != nil {
			return err
		}
	}
	now := all[current]
	if len(now) == 0 {
		return fmt.Errorf("%w: no video or audio in the period on the air", ErrUnsupported)
	}
	var audio []int
	for i, v := range now {
		if v.Kind == Audio {
			audio = append(audio, i)
		}
		for _, b := range v.paths {
			if !slices.Contains(d.p.Paths, b.id) {
				d.p.Paths = append(d.p.Paths, b.id)
			}
		}
	}
	if len(d.p.Paths) > maxPaths {
		return fmt.Errorf("%w: more than %d paths", ErrMalformed, maxPaths)
	}
	budget := maxSegments * 4 // of all lists together
	for i, v := range now {
		r := v.Rendition
		if r.Kind == Video {
			r.Audio = audio
		}
		d.p.Renditions = append(d.p.Renditions, r)
		for _, b := range v.paths {
			x := &Index{Ended: d.p.Ended || d.p.Refresh == 0}
			if t := d.mpd.TimeShiftBufferDepth; t != nil {
				x.Depth = time.Duration(*t)
			}
			for k, p := range d.periods {
				w, ok := counterpart(all[k], now, i)
				if !ok {
					continue
				}
				j := max(slices.IndexFunc(w.paths, func(o baseURL) bool { return o.id == b.id }), 0)
				if err := d.addPieces(x, p, k, w, w.paths[j], &budget); err != nil {
					return fmt.Errorf("representation %q: %w", clip(r.ID), err)
				}
			}
			d.p.sources[sourceKey{i, b.id}] = Source{Index: x}
		}
	}
	return nil
}

// counterpart finds rendition i of the current period in another one: by ID, else by rank within its kind.
func counterpart(there, now []version, i int) (version, bool) {
	want := now[i]
	rank := 0
	for _, v := range now[:i] {
		if v.Kind == want.Kind {
			rank++
		}
	}
	var same []version
	for _, v := range there {
		if v.Kind == want.Kind {
			if v.ID == want.ID {
				return v, true
			}
			same = append(same, v)
		}
	}
	if len(same) == 0 {
		return version{}, false
	}
	return same[min(rank, len(same)-1)], true
}

// addPieces turns one representation of one period into pieces of its index.
func (d *dash) addPieces(x *Index, p period, era int, v version, b baseURL, budget *int) error {
	t := v.template
	words := map[string]string{"RepresentationID": url.PathEscape(v.ID), "Bandwidth": strconv.Itoa(v.Bandwidth)}
	media, err := expand(t.media, nil, words)
	if err != nil {
		return err
	}
	if _, err := expand(media, map[string]uint64{"Number": 1, "Time": 1}, nil); err != nil {
		return err
	}
	n := naming{base: b.url, media: media}
	if _, err := resolve(b.url, n.sample()); err != nil {
		return err
	}
	if t.init != "" {
		if t.init, err = expand(t.init, nil, words); err == nil {
			t.init, err = expand(t.init, map[string]uint64{}, nil)
		}
		if err != nil {
			return fmt.Errorf("initialization: %w", err)
		}
		u, err := resolve(b.url, t.init)
		if err != nil {
			return fmt.Errorf("initialization: %w", err)
		}
		n.init = &Resource{URL: u.String()}
	}
	begin := d.anchor.Add(p.start)
	var end time.Time
	if p.end >= 0 {
		end = d.anchor.Add(p.end)
	}
	pc := piece{begin: begin, end: end, era: era, naming: n,
		rule: rule{first: t.start, media: t.pto, d: t.duration, timescale: t.timescale, early: t.early + b.early}}
	if !t.listed {
		if t.last > 0 && t.last >= t.start {
			if e := pc.rule.start(begin, t.last-t.start+1); end.IsZero() || e.Before(end) {
				pc.end = e
			}
		}
		x.Target = max(x.Target, pc.rule.length())
		x.pieces = append(x.pieces, pc)
		return nil
	}
	// A media time before the offset lies before the period: such a segment begins earlier and is cut by the player.
	at := func(media uint64) time.Time {
		if media >= t.pto {
			return begin.Add(units(media-t.pto, t.timescale))
		}
		return begin.Add(-units(t.pto-media, t.timescale))
	}
	number, media64 := t.start, t.pto
	pc.entries = []entry{}
	for i, s := range t.timeline {
		if s.T != nil {
			media64 = *s.T
		}
		length := units(s.D, t.timescale)
		if length <= 0 || length > time.Hour || media64 > 1<<62 {
			return fmt.Errorf("SegmentTimeline: %w: S element %d lasts %s", ErrMalformed, i+1, length)
		}
		if off := at(media64).Sub(d.anchor); off > maxSpan || off < -maxSpan {
			return fmt.Errorf("SegmentTimeline: %w: S element %d is out of range", ErrMalformed, i+1)
		}
		x.Target = max(x.Target, length)
		repeat := int(s.R)
		if repeat < 0 {
			switch {
			case i+1 < len(t.timeline) && t.timeline[i+1].T != nil:
				repeat = int(min((max(*t.timeline[i+1].T, media64)-media64)/s.D, maxSegments)) - 1
			case i+1 < len(t.timeline):
				return fmt.Errorf("SegmentTimeline: %w: S element %d repeats without an end", ErrMalformed, i+1)
			default: // to the period's end: a rule from here on
				if length < 100*time.Millisecond {
					return fmt.Errorf("SegmentTimeline: %w: endless segments of %s", ErrMalformed, length)
				}
				if len(pc.entries) > 0 {
					x.pieces = append(x.pieces, pc)
				}
				x.pieces = append(x.pieces, piece{begin: at(media64), end: end, era: era, naming: n,
					rule: rule{first: number, media: media64, d: s.D, timescale: t.timescale, early: pc.rule.early}})
				return nil
			}
		}
		for k := 0; k <= repeat; k++ {
			if t.last > 0 && number > t.last {
				break
			}
			if *budget--; *budget < 0 || len(pc.entries) >= maxSegments {
				return fmt.Errorf("SegmentTimeline: %w: more than %d segments", ErrMalformed, maxSegments)
			}
			pc.entries = append(pc.entries, entry{number: number, start: at(media64), duration: length, media: media64})
			number++
			media64 += s.D
		}
	}
	for i := 1; i < len(pc.entries); i++ {
		if pc.entries[i].start.Before(pc.entries[i-1].start) {
			return fmt.Errorf("SegmentTimeline: %w: it runs backwards", ErrMalformed)
		}
	}
	x.pieces = append(x.pieces, pc)
	return nil
}

// sample is a segment name to try the template out.
func (n naming) sample() string {
	s, _ := expand(n.media, map[string]uint64{"Number": 1, "Time": 1}, nil)
	return s
}
