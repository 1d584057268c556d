package stream

import (
	"bytes"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseHLS reads a multivariant playlist, or a media playlist as a presentation of one rendition.
func parseHLS(body []byte, base *url.URL, now time.Time, prev *Presentation) (*Presentation, error) {
	p := &Presentation{Format: HLS, Location: base.String(), sources: map[sourceKey]Source{}}
	if !bytes.Contains(body, []byte("#EXT-X-STREAM-INF:")) {
		var mark *Mark
		if prev != nil {
			if s, ok := prev.Source(0, base.Host); ok && s.Index != nil {
				if m, ok := s.Index.Mark(); ok {
					mark = &m
				}
			}
		}
		x, err := ParsePlaylist(body, base.String(), now, mark)
		if err != nil {
			return nil, err
		}
		p.Renditions = []Rendition{{ID: "main", Kind: Video}}
		p.Paths = []string{base.Host}
		p.Ended = x.Ended
		p.sources[sourceKey{0, base.Host}] = Source{Index: x, Playlist: base.String()}
		return p, nil
	}
	vs, groups, err := multivariant(body, base)
	if err != nil {
		return nil, fmt.Errorf("multivariant playlist: %w", err)
	}
	if err := p.assemble(vs, groups); err != nil {
		return nil, fmt.Errorf("multivariant playlist: %w", err)
	}
	return p, nil
}

type variant struct {
	Rendition
	key   string // what makes two variants the same rendition on two paths
	path  string
	uri   string
	group string // AUDIO
}

type alternative struct {
	Rendition
	key       string
	uri       string // empty: in the variant's own segments
	preferred bool
}

// lines calls f with every tag or URI and its line number; blank lines and comments are left out.
func lines(body []byte, f func(n int, tag, value string) error) error {
	for n := 1; len(body) > 0; n++ {
		var l []byte
		l, body, _ = bytes.Cut(body, []byte("\n"))
		s := strings.TrimRight(string(l), "\r \t")
		switch {
		case n == 1:
			if s != "#EXTM3U" {
				return fmt.Errorf("%w: the first line is not #EXTM3U", ErrMalformed)
			}
			continue
		case s == "" || strings.HasPrefix(s, "#") && !strings.HasPrefix(s, "#EXT"):
			continue
		}
		tag, value := "", s
		if s[0] == '#' {
			tag, value, _ = strings.Cut(s[1:], ":")
		}
		if err := f(n, tag, value); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return nil
}

// attributes reads an attribute list (RFC 8216 section 4.2).
func attributes(s string) (map[string]string, error) {
	out := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: attribute list at %q", ErrMalformed, clip(s))
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return nil, fmt.Errorf("%w: %s has no closing quote", ErrMalformed, clip(name))
			}
			value, rest = rest[1:1+end], rest[2+end:]
			if rest != "" && rest[0] != ',' {
				return nil, fmt.Errorf("%w: %q follows the value of %s", ErrMalformed, clip(rest), clip(name))
			}
			rest = strings.TrimPrefix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%w: %s appears twice", ErrMalformed, clip(name))
		}
		out[name] = value
		s = rest
	}
	return out, nil
}

func multivariant(body []byte, base *url.URL) ([]variant, map[string][]alternative, error) {
	var vs []variant
	groups := map[string][]alternative{}
	alternatives := 0
	var open *variant
	err := lines(body, func(n int, tag, value string) error {
		switch tag {
		case "EXT-X-DEFINE":
			return fmt.Errorf("%w: EXT-X-DEFINE variables", ErrUnsupported)
		case "EXTINF", "EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE":
			return fmt.Errorf("%w: #%s does not belong in a multivariant playlist", ErrMalformed, tag)
		case "EXT-X-MEDIA":
			a, err := attributes(value)
			if err != nil || a["TYPE"] != "AUDIO" {
				return err
			}
			if a["GROUP-ID"] == "" {
				return fmt.Errorf("%w: EXT-X-MEDIA without GROUP-ID", ErrMalformed)
			}
			if alternatives++; alternatives > maxRenditions*maxPaths {
				return fmt.Errorf("%w: more than %d EXT-X-MEDIA", ErrMalformed, maxRenditions*maxPaths)
			}
			alt := alternative{Rendition: Rendition{ID: first(a["STABLE-RENDITION-ID"], a["NAME"], a["LANGUAGE"]), Kind: Audio, Language: a["LANGUAGE"]},
				key: strings.Join([]string{"audio", a["STABLE-RENDITION-ID"], a["NAME"], a["LANGUAGE"], a["CHANNELS"]}, "|"), preferred: a["DEFAULT"] == "YES"}
			if a["URI"] != "" {
				u, err := resolve(base, a["URI"])
				if err != nil {
					return err
				}
				alt.uri = u.String()
			}
			groups[a["GROUP-ID"]] = append(groups[a["GROUP-ID"]], alt)
		case "EXT-X-STREAM-INF":
			if open != nil {
				return fmt.Errorf("%w: EXT-X-STREAM-INF without a URI", ErrMalformed)
			}
			a, err := attributes(value)
			if err != nil {
				return err
			}
			v := variant{path: a["PATHWAY-ID"], group: a["AUDIO"], Rendition: Rendition{ID: first(a["STABLE-VARIANT-ID"], a["NAME"]), Kind: Video, Codecs: a["CODECS"]}}
			if v.Bandwidth, err = strconv.Atoi(a["BANDWIDTH"]); err != nil || v.Bandwidth <= 0 {
				return fmt.Errorf("%w: BANDWIDTH %q", ErrMalformed, clip(a["BANDWIDTH"]))
			}
			if r := a["RESOLUTION"]; r != "" {
				w, h, ok := strings.Cut(r, "x")
				var errW, errH error
				v.Width, errW = strconv.Atoi(w)
				v.Height, errH = strconv.Atoi(h)
				if !ok || errW != nil || errH != nil || v.Width < 0 || v.Height < 0 {
					return fmt.Errorf("%w: RESOLUTION %q", ErrMalformed, clip(r))
				}
			} else if soundOnly(v.Codecs) {
				v.Kind = Audio
			}
			v.key = first(a["STABLE-VARIANT-ID"], strings.Join([]string{"video", a["BANDWIDTH"], a["RESOLUTION"], a["FRAME-RATE"], a["CODECS"], a["VIDEO-RANGE"]}, "|"))
			open = &v
		case "":
			if open == nil {
				return fmt.Errorf("%w: a URI without EXT-X-STREAM-INF", ErrMalformed)
			}
			u, err := resolve(base, value)
			if err != nil {
				return err
			}
			open.uri = u.String()
			if vs = append(vs, *open); len(vs) > maxRenditions*maxPaths {
				return fmt.Errorf("%w: more than %d variants", ErrMalformed, maxRenditions*maxPaths)
			}
			open = nil
		}
		return nil
	})
	if err == nil && open != nil {
		err = fmt.Errorf("%w: the last EXT-X-STREAM-INF has no URI", ErrMalformed)
	}
	return vs, groups, err
}

// soundOnly says that a CODECS list names audio codecs and no others.
func soundOnly(codecs string) bool {
	if codecs == "" {
		return false
	}
	for _, c := range strings.Split(codecs, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(c), ".")
		if !slices.Contains([]string{"mp4a", "ac-3", "ec-3", "ac-4", "Opus", "opus", "fLaC", "alac"}, name) {
			return false
		}
	}
	return true
}

// assemble sorts variants into renditions and paths. Variants that say the same of themselves are one rendition: on the
// pathways they name, or, where they name none, redundant streams (RFC 8216 section 6.2.4) on a path each.
func (p *Presentation) assemble(vs []variant, groups map[string][]alternative) error {
	if slices.ContainsFunc(vs, func(v variant) bool { return v.Kind == Video }) {
		vs = slices.DeleteFunc(vs, func(v variant) bool { return v.Kind != Video })
	}
	if len(vs) == 0 {
		return fmt.Errorf("%w: no variant", ErrMalformed)
	}
	type place struct{ key, path string }
	taken := map[place]int{}
	for i := range vs {
		v := &vs[i]
		n := taken[place{v.key, v.path}]
		taken[place{v.key, v.path}]++
		if v.path == "" && n == 0 {
			v.path = "."
		} else if n > 0 {
			v.path = first(v.path, ".") + "#" + strconv.Itoa(n+1)
		}
		if !slices.Contains(p.Paths, v.path) {
			p.Paths = append(p.Paths, v.path)
		}
	}
	p.nameByHost(vs)
	if len(p.Paths) > maxPaths {
		return fmt.Errorf("%w: more than %d pathways", ErrMalformed, maxPaths)
	}
	slices.SortStableFunc(vs, func(a, b variant) int { return a.Bandwidth - b.Bandwidth })
	known := map[string]int{}
	ids := map[string]bool{}
	add := func(key string, r Rendition, name string) int {
		if i, ok := known[key]; ok {
			return i
		}
		if r.ID == "" {
			r.ID = name
		}
		for n := 2; ids[r.ID]; n++ {
			if s := r.ID + "#" + strconv.Itoa(n); !ids[s] {
				r.ID = s
			}
		}
		ids[r.ID] = true
		known[key] = len(p.Renditions)
		p.Renditions = append(p.Renditions, r)
		return known[key]
	}
	for _, v := range vs {
		name := strconv.Itoa(v.Bandwidth/1000) + "k"
		if v.Height > 0 {
			name = strconv.Itoa(v.Height) + "p"
		}
		i := add(v.key, v.Rendition, name)
		p.sources[sourceKey{i, v.path}] = Source{Playlist: v.uri}
	}
	for _, v := range vs {
		alts, ok := groups[v.group]
		if v.group == "" {
			continue
		}
		if !ok {
			return fmt.Errorf("%w: no EXT-X-MEDIA of the audio group %q", ErrMalformed, clip(v.group))
		}
		alts = slices.Clone(alts)
		slices.SortStableFunc(alts, func(a, b alternative) int {
			return btoi(b.preferred) - btoi(a.preferred)
		})
		i := known[v.key]
		for _, a := range alts {
			if a.uri == "" {
				continue
			}
			// Two groups on one path with the same languages are two qualities, two renditions.
			key := a.key
			for n := 2; ; n++ {
				j, ok := known[key]
				if !ok {
					break
				}
				s, ok := p.sources[sourceKey{j, v.path}]
				if !ok || s.Playlist == a.uri {
					break
				}
				key = a.key + "#" + strconv.Itoa(n)
			}
			j := add(key, a.Rendition, "audio")
			p.sources[sourceKey{j, v.path}] = Source{Playlist: a.uri}
			if !slices.Contains(p.Renditions[i].Audio, j) {
				p.Renditions[i].Audio = append(p.Renditions[i].Audio, j)
			}
		}
		if len(p.Renditions) > maxRenditions {
			return fmt.Errorf("%w: more than %d renditions", ErrMalformed, maxRenditions)
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nameByHost calls paths that have no pathway ID after the host of their playlists, where that tells them apart.
func (p *Presentation) nameByHost(vs []variant) {
	host := map[string]string{} // path → host; "" when mixed
	for _, v := range vs {
		u, err := url.Parse(v.uri)
		if err != nil {
			return
		}
		if h, ok := host[v.path]; ok && h != u.Host {
			host[v.path] = ""
		} else {
			host[v.path] = u.Host
		}
	}
	used := map[string]bool{}
	for i, path := range p.Paths {
		h := host[path]
		if path != "." && !strings.HasPrefix(path, ".#") || h == "" || used[h] || slices.Contains(p.Paths, h) {
			continue
		}
		used[h] = true
		p.Paths[i] = h
		for k := range vs {
			if vs[k].path == path {
				vs[k].path = h
			}
		}
	}
}

// ParsePlaylist reads a live media playlist (RFC 8216 section 4.3.3). at is the URL it came from, now when it was asked for.
// Without EXT-X-PROGRAM-DATE-TIME, mark says when some segment of the same stream starts; nil: the last segment is taken
// to end now.
func ParsePlaylist(body []byte, at string, now time.Time, mark *Mark) (*Index, error) {
	if len(body) > MaxManifest {
		return nil, fmt.Errorf("media playlist of %d bytes: %w: more than %d", len(body), ErrMalformed, MaxManifest)
	}
	base, err := webURL(at)
	if err != nil {
		return nil, err
	}
	pl := playlist{base: base, dates: map[int]time.Time{}}
	text := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !bytes.HasPrefix(text, []byte("#EXTM3U")) {
		return nil, fmt.Errorf("media playlist: %w: it begins with %q, not #EXTM3U", ErrMalformed, text[:min(len(text), 24)])
	}
	if err := lines(text, pl.line); err != nil {
		return nil, fmt.Errorf("media playlist: %w", err)
	}
	if pl.target == 0 {
		return nil, fmt.Errorf("media playlist: %w: no EXT-X-TARGETDURATION", ErrMalformed)
	}
	pl.date(now, mark)
	x := &Index{Target: pl.target, Ended: pl.ended, Hold: pl.hold}
	if pl.entries != nil {
		x.pieces = []piece{{entries: pl.entries}}
	}
	return x, nil
}

type playlist struct {
	base     *url.URL
	target   time.Duration
	sequence uint64
	discs    int // discontinuity sequence number
	ended    bool
	hold     time.Duration
	entries  []entry
	dates    map[int]time.Time // entry → EXT-X-PROGRAM-DATE-TIME

	// of the segment to come
	duration time.Duration
	open     bool // EXTINF seen
	disc     bool
	gap      bool
	date1    time.Time
	rng      ByteRange
	ranged   bool
	anchored bool // the byte range has an offset
	init     *Resource
}

func seconds(s string) (time.Duration, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 3600 {
		return 0, fmt.Errorf("%w: %q is no duration in seconds (0 to 3600)", ErrMalformed, clip(s))
	}
	return time.Duration(math.Round(f*1e6)) * time.Microsecond, nil
}

func byteRange(s string) (r ByteRange, offset bool, err error) {
	length, at, offset := strings.Cut(s, "@")
	r.Length, err = strconv.ParseInt(length, 10, 64)
	if err == nil && offset {
		r.Offset, err = strconv.ParseInt(at, 10, 64)
	}
	if err != nil || r.Length <= 0 || r.Offset < 0 || r.Length > 1<<40 || r.Offset > 1<<50 {
		return ByteRange{}, false, fmt.Errorf("%w: byte range %q", ErrMalformed, clip(s))
	}
	return r, offset, nil
}

func (pl *playlist) line(_ int, tag, value string) error {
	var err error
	switch tag {
	case "EXT-X-STREAM-INF", "EXT-X-I-FRAME-STREAM-INF":
		return fmt.Errorf("%w: a multivariant playlist where a media playlist is due", ErrMalformed)
	case "EXT-X-DEFINE", "EXT-X-SKIP", "EXT-X-I-FRAMES-ONLY":
		return fmt.Errorf("%w: #%s", ErrUnsupported, tag)
	case "EXT-X-TARGETDURATION":
		if pl.target, err = seconds(value); err == nil && pl.target == 0 {
			err = fmt.Errorf("%w: EXT-X-TARGETDURATION 0", ErrMalformed)
		}
		return err
	case "EXT-X-MEDIA-SEQUENCE":
		if pl.entries != nil {
			return fmt.Errorf("%w: EXT-X-MEDIA-SEQUENCE after a segment", ErrMalformed)
		}
		if pl.sequence, err = strconv.ParseUint(value, 10, 63); err != nil {
			return fmt.Errorf("%w: EXT-X-MEDIA-SEQUENCE %q", ErrMalformed, clip(value))
		}
	case "EXT-X-DISCONTINUITY-SEQUENCE":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("%w: EXT-X-DISCONTINUITY-SEQUENCE %q", ErrMalformed, clip(value))
		}
		pl.discs += int(n)
	case "EXT-X-ENDLIST":
		pl.ended = true
	case "EXT-X-SERVER-CONTROL", "EXT-X-START":
		a, err := attributes(value)
		if err != nil {
			return err
		}
		hold := a["HOLD-BACK"]
		if offset, ok := strings.CutPrefix(a["TIME-OFFSET"], "-"); tag == "EXT-X-START" && ok {
			hold = offset // from the end of the playlist
		}
		if hold != "" {
			if pl.hold, err = seconds(hold); err != nil {
				return err
			}
		}
	case "EXT-X-KEY":
		a, err := attributes(value)
		if err != nil {
			return err
		}
		switch a["METHOD"] {
		case "NONE", "SAMPLE-AES", "SAMPLE-AES-CTR": // the container stays readable
		default:
			return fmt.Errorf("%w: segments encrypted with %s", ErrUnsupported, clip(a["METHOD"]))
		}
	case "EXT-X-MAP":
		a, err := attributes(value)
		if err != nil {
			return err
		}
		u, err := resolve(pl.base, a["URI"])
		if err != nil || a["URI"] == "" {
			return fmt.Errorf("%w: EXT-X-MAP without a usable URI", ErrMalformed)
		}
		r := &Resource{URL: u.String()}
		if a["BYTERANGE"] != "" {
			if r.Range, _, err = byteRange(a["BYTERANGE"]); err != nil {
				return err
			}
		}
		pl.init = r
	case "EXTINF":
		d, _, _ := strings.Cut(value, ",")
		pl.duration, err = seconds(d)
		pl.open = true
		return err
	case "EXT-X-DISCONTINUITY":
		pl.disc = true
	case "EXT-X-GAP":
		pl.gap = true
	case "EXT-X-PROGRAM-DATE-TIME":
		pl.date1, err = dateTime(value)
		return err
	case "EXT-X-BYTERANGE":
		pl.rng, pl.anchored, err = byteRange(value)
		pl.ranged = true
		return err
	case "":
		return pl.segment(value)
	}
	return nil
}

// dateTime reads ISO 8601 as packagers write it: with Z, +00:00, +0000 or without a zone, which is UTC.
func dateTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil && t.Year() > 1900 && t.Year() < 2200 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: EXT-X-PROGRAM-DATE-TIME %q", ErrMalformed, clip(s))
}

func (pl *playlist) segment(uri string) error {
	if !pl.open {
		return fmt.Errorf("%w: a URI without EXTINF", ErrMalformed)
	}
	if len(pl.entries) == maxSegments {
		return fmt.Errorf("%w: more than %d segments", ErrMalformed, maxSegments)
	}
	u, err := resolve(pl.base, uri)
	if err != nil {
		return err
	}
	e := entry{number: pl.sequence + uint64(len(pl.entries)), duration: pl.duration, res: Resource{URL: u.String()},
		init: pl.init, disc: pl.disc, gap: pl.gap}
	if pl.disc {
		pl.discs++ // RFC 8216 section 6.2.1: every tag ahead of the segment counts
	}
	e.era = pl.discs
	if pl.ranged {
		if !pl.anchored { // it follows the range before it (RFC 8216 section 4.3.2.2)
			if n := len(pl.entries); n > 0 && pl.entries[n-1].res.URL == e.res.URL {
				last := pl.entries[n-1].res.Range
				pl.rng.Offset = last.Offset + last.Length
			}
		}
		e.res.Range = pl.rng
	}
	if !pl.date1.IsZero() {
		pl.dates[len(pl.entries)] = pl.date1
	}
	pl.entries = append(pl.entries, e)
	pl.open, pl.disc, pl.gap, pl.ranged, pl.date1 = false, false, false, false, time.Time{}
	return nil
}

// maxClockError is how far a playlist's dates may be from now and still be taken for wall clock: beyond it they are a
// recording's or nonsense, and the live edge is taken to be now instead.
const maxClockError = time.Hour

// date gives every entry its wall-clock start.
func (pl *playlist) date(now time.Time, mark *Mark) {
	n := len(pl.entries)
	if n == 0 {
		return
	}
	if first, ok := firstDate(pl.dates, n); ok {
		t := pl.dates[first]
		for i := first - 1; i >= 0; i-- {
			t = t.Add(-pl.entries[i].duration)
			pl.entries[i].start = t
		}
		t = pl.dates[first]
		for i := first; i < n; i++ {
			// A date a hair before the last segment's end is rounding, not overlap.
			if d, ok := pl.dates[i]; ok && d.After(t.Add(-pl.entries[i].duration/2)) {
				t = d
			}
			pl.entries[i].start = t
			t = t.Add(pl.entries[i].duration)
		}
		if off := now.Sub(t); off < maxClockError && off > -maxClockError {
			return
		}
	}
	// Count on from the mark, over segments that have left the window at the target duration.
	t := now
	for _, e := range pl.entries {
		t = t.Add(-e.duration)
	}
	if mark != nil {
		first, last := pl.sequence, pl.sequence+uint64(n)
		switch {
		case mark.Number >= first && mark.Number < last:
			t = mark.Start
			for _, e := range pl.entries[:mark.Number-first] {
				t = t.Add(-e.duration)
			}
		case mark.Number < first && first-mark.Number < maxSegments:
			t = mark.Start.Add(time.Duration(first-mark.Number) * pl.target)
		}
	}
	for i := range pl.entries {
		pl.entries[i].start = t
		t = t.Add(pl.entries[i].duration)
	}
}

func firstDate(dates map[int]time.Time, n int) (int, bool) {
	for i := range n {
		if _, ok := dates[i]; ok {
			return i, true
		}
	}
	return 0, false
}
