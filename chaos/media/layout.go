package media

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kind is what a path names.
type Kind uint8

// What a path can name.
const (
	Segment  Kind = iota + 1
	Init          // initialisation segment
	Playlist      // media playlist of one rung
	Manifest      // MPD or multivariant playlist
)

// Track kinds.
const (
	Video = "video"
	Audio = "audio"
)

// Ref is what a path asks for.
type Ref struct {
	Kind   Kind
	Rung   string // rendition's name; "": the layout has none
	Track  string // Video, Audio or what the layout's group says; "": the layout cannot tell
	Number uint64 // of Segment

	path     string
	from, to int    // the number's digits in path
	width    int    // the number is padded with zeros to this width
	token    [2]int // what is a viewer's own in path, from and to
}

// Stream names what the segments of one rung have in common, whoever asks for them: their path without the number and without
// what is a viewer's own.
func (r Ref) Stream() string {
	if r.Kind != Segment {
		return path.Dir(r.path)
	}
	from, to := r.token[0], r.token[1]
	if to > r.from { // behind the number
		return r.path[:r.from] + "#" + r.path[r.to:from] + r.path[to:]
	}
	return r.path[:from] + r.path[to:r.from] + "#" + r.path[r.to:]
}

// Sibling is the path of another segment of the same stream.
func (r Ref) Sibling(number uint64) string {
	digits := strconv.FormatUint(number, 10)
	if n := r.width - len(digits); n > 0 {
		digits = strings.Repeat("0", n) + digits
	}
	return r.path[:r.from] + digits + r.path[r.to:]
}

// Layout says what paths mean. The zero value knows nothing: make one with Reference, Pattern or Template.
type Layout struct {
	// Duration of a segment; 0: not known.
	Duration time.Duration
	// Clocked: segment n covers [n, n+1) times Duration since 1970, so that the clock alone says which is newest and
	// when each is due.
	Clocked bool
	// InitName is the initialisation segment's path, relative to the segment's; {rung} in it stands for the rung's name.
	InitName string

	expr   *regexp.Regexp
	probe  string // a segment's name without its folder, when the rung is a folder
	width  int    // zeros that a template asks for
	fixed  bool   // width is what the template says, 0 included; else it is read off each path
	render func(rung string, number uint64) (string, bool)
}

// ErrLayout is wrapped by the errors of Pattern and Template.
var ErrLayout = errors.New("not a segment layout")

const (
	maxPattern = 1 << 10
	maxPath    = 2 << 10 // longer paths name nothing
	maxWidth   = 20
)

// reference is the reference pipeline's layout: an optional token, event, rendition, number.
var reference = regexp.MustCompile(`^(?P<token>/t/[^/]+)?/[^/]+/(?P<rung>[^/]+)/(?:(?P<number>0|[1-9][0-9]*)\.m4s|(?P<init>init\.mp4)|(?P<playlist>media\.m3u8))$`)

// Reference is the layout of the reference pipeline: /event/rendition/number.m4s, with or without a token in front,
// numbers counting from 1970.
func Reference(duration time.Duration) Layout {
	return Layout{Duration: duration, Clocked: true, InitName: "init.mp4", expr: reference, fixed: true}
}

// ReferenceEvent is Reference for one event, so that paths can be written too.
func ReferenceEvent(event string, duration time.Duration) Layout {
	l := Reference(duration)
	l.render = func(rung string, number uint64) (string, bool) {
		return "/" + event + "/" + rung + "/" + strconv.FormatUint(number, 10) + ".m4s", true
	}
	return l
}

// Pattern makes a layout from a regular expression on the path. Its group `number` matches a segment's number; `rung`
// and `track` are optional, and so are `init` and `playlist`, which mark paths of the rung that are no segments, and `token`,
// which is a viewer's own.
func Pattern(expr string) (Layout, error) {
	if len(expr) > maxPattern {
		return Layout{}, fmt.Errorf("%w: the expression has %d bytes, more than %d", ErrLayout, len(expr), maxPattern)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return Layout{}, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	if re.SubexpIndex("number") < 0 {
		return Layout{}, fmt.Errorf("%w: %q has no group (?P<number>…)", ErrLayout, expr)
	}
	return Layout{InitName: "init.mp4", expr: re}, nil
}

// token is an identifier of a template: $RepresentationID$ and $Number%05d$ as DASH has them (ISO/IEC 23009-1, 5.3.9.4.4),
// {rung}, {track} and {number}, or %v and %05d as ffmpeg's HLS muxer has them.
var token = regexp.MustCompile(`\$RepresentationID\$|\$Number(?:%0([0-9]+)d)?\$|\{(rung|track|number)\}|%v|%(?:0([0-9]+))?d`)

// Template makes a layout from a segment's path with identifiers in place of rung and number, such as
// "/live/$RepresentationID$/$Number%05d$.m4s", "/hls/{rung}/{number}.ts" or "/hls/stream_%v/seg-%05d.m4s". A template
// that does not start with a slash is the end of a path.
func Template(text string) (Layout, error) {
	if len(text) > maxPattern {
		return Layout{}, fmt.Errorf("%w: the template has %d bytes, more than %d", ErrLayout, len(text), maxPattern)
	}
	var expr strings.Builder
	type piece struct{ text, group string }
	var pieces []piece
	seen := map[string]bool{}
	width, at := 0, 0
	if strings.HasPrefix(text, "/") {
		expr.WriteString("^")
	} else {
		expr.WriteString("(?:^|/)")
	}
	for _, m := range token.FindAllStringSubmatchIndex(text, -1) {
		expr.WriteString(regexp.QuoteMeta(text[at:m[0]]))
		pieces = append(pieces, piece{text: text[at:m[0]]})
		at = m[1]
		id, group := text[m[0]:m[1]], "number"
		switch {
		case id == "$RepresentationID$" || id == "%v":
			group = "rung"
		case m[4] >= 0:
			group = text[m[4]:m[5]]
		}
		for _, g := range [2]int{2, 6} {
			if m[g] >= 0 {
				width, _ = strconv.Atoi(text[m[g]:m[g+1]])
				if width > maxWidth {
					return Layout{}, fmt.Errorf("%w: %q pads the number to %d digits, more than %d", ErrLayout, text, width, maxWidth)
				}
			}
		}
		pieces = append(pieces, piece{group: group})
		form := `[^/]+`
		if group == "number" {
			form = `[0-9]+`
		}
		if seen[group] { // the number or the rung stands there twice; the first one counts
			expr.WriteString(form)
			continue
		}
		seen[group] = true
		fmt.Fprintf(&expr, `(?P<%s>%s)`, group, form)
	}
	if !seen["number"] {
		return Layout{}, fmt.Errorf("%w: %q has no $Number$, {number} or %%d", ErrLayout, text)
	}
	expr.WriteString(regexp.QuoteMeta(text[at:]) + "$")
	pieces = append(pieces, piece{text: text[at:]})
	l, err := Pattern(expr.String())
	if err != nil {
		return Layout{}, err
	}
	l.width, l.fixed = width, true
	if name := text[strings.LastIndex(text, "/")+1:]; !strings.Contains(name, "{") && !strings.Contains(name, "%v") && !strings.Contains(name, "$Rep") {
		l.probe = token.ReplaceAllString(name, fmt.Sprintf("%0*d", width, 0))
	}
	if strings.HasPrefix(text, "/") && !seen["track"] {
		l.render = func(rung string, number uint64) (string, bool) {
			var out strings.Builder
			for _, p := range pieces {
				switch p.group {
				case "rung":
					out.WriteString(rung)
				case "number":
					fmt.Fprintf(&out, "%0*d", width, number)
				default:
					out.WriteString(p.text)
				}
			}
			return out.String(), true
		}
	}
	return l, nil
}

// Path is the path of a segment, and false when the layout can read paths but not write them.
func (l Layout) Path(rung string, number uint64) (string, bool) {
	if l.render == nil {
		return "", false
	}
	return l.render(rung, number)
}

// Find says what a path asks for, and false when the layout does not know it.
func (l Layout) Find(p string) (Ref, bool) {
	if l.expr == nil || len(p) > maxPath {
		return Ref{}, false
	}
	m := l.expr.FindStringSubmatchIndex(p)
	if m == nil {
		return l.beside(p)
	}
	group := func(name string) (string, int, int) {
		i := l.expr.SubexpIndex(name)
		if i < 0 || m[2*i] < 0 {
			return "", -1, -1
		}
		return p[m[2*i]:m[2*i+1]], m[2*i], m[2*i+1]
	}
	r := Ref{path: p}
	r.Rung, _, _ = group("rung")
	if _, from, to := group("token"); from >= 0 {
		r.token = [2]int{from, to}
	}
	r.Track, _, _ = group("track")
	if kind := trackOf(r.Track); kind != "" {
		r.Track = kind
	} else if r.Track == "" {
		r.Track = trackOf(r.Rung)
	}
	digits, from, to := group("number")
	switch {
	case from >= 0:
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return Ref{}, false
		}
		r.Kind, r.Number, r.from, r.to, r.width = Segment, n, from, to, l.width
		if !l.fixed && len(digits) > 1 && digits[0] == '0' {
			r.width = len(digits)
		}
		return r, true
	}
	if _, from, _ := group("init"); from >= 0 {
		r.Kind = Init
		return r, true
	}
	if _, from, _ := group("playlist"); from >= 0 {
		r.Kind = Playlist
		return r, true
	}
	return l.beside(p)
}

// beside knows what is no segment by its name alone, and its rung by the folder it shares with segments.
func (l Layout) beside(p string) (Ref, bool) {
	r := Ref{path: p}
	switch name := path.Base(p); {
	case l.isInit(name, &r):
		r.Kind = Init
		if r.Rung != "" {
			return r, true
		}
	case strings.HasSuffix(name, ".mpd"), name == "master.m3u8":
		return Ref{Kind: Manifest, path: p}, true
	case strings.HasSuffix(name, ".m3u8"):
		r.Kind = Playlist
	default:
		return Ref{}, false
	}
	if i := l.expr.SubexpIndex("rung"); l.probe != "" && i >= 0 {
		if m := l.expr.FindStringSubmatch(path.Join(path.Dir(p), l.probe)); m != nil {
			r.Rung, r.Track = m[i], trackOf(m[i])
		}
	}
	return r, true
}

// isInit reports whether a name is an initialisation segment's, and reads the rung off it.
func (l Layout) isInit(name string, r *Ref) bool {
	head, tail, named := strings.Cut(path.Base(l.InitName), "{rung}")
	if !named {
		return l.InitName != "" && name == head
	}
	rest, ok := strings.CutPrefix(name, head)
	if !ok {
		return false
	}
	if rest, ok = strings.CutSuffix(rest, tail); !ok || rest == "" {
		return false
	}
	r.Rung, r.Track = rest, trackOf(rest)
	return true
}

// InitPath is the path of the initialisation segment that goes with a segment.
func (l Layout) InitPath(r Ref) string {
	name := strings.ReplaceAll(l.InitName, "{rung}", r.Rung)
	if strings.HasPrefix(name, "/") {
		return name
	}
	return path.Join(path.Dir(r.path), name)
}

// Newest is the newest complete segment at now, by the clock alone; false when the layout is not clocked.
func (l Layout) Newest(now time.Time) (uint64, bool) {
	if !l.Clocked || l.Duration <= 0 || now.UnixNano() < int64(l.Duration) {
		return 0, false
	}
	return uint64(now.UnixNano())/uint64(l.Duration) - 1, true
}

// Due is when segment n is complete, by the clock alone; false when the layout is not clocked.
func (l Layout) Due(n uint64) (time.Time, bool) {
	if !l.Clocked || l.Duration <= 0 || n >= uint64(1<<63-1)/uint64(l.Duration) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(n+1)*int64(l.Duration)).UTC(), true
}

// trackOf guesses a track's kind from a rung's name: "a-en", "audio_1", "v720", "video", "1080p".
func trackOf(name string) string {
	lower := strings.ToLower(name)
	word := strings.TrimRight(lower, "0123456789")
	if i := strings.IndexAny(word, "-_. "); i >= 0 {
		word = word[:i]
	}
	switch word {
	case "a", "audio", "aud", "aac", "sound":
		return Audio
	case "v", "video", "vid":
		return Video
	}
	if height(lower) > 0 {
		return Video
	}
	return ""
}

// height reads "1080p" or "720p60"; 0: no such name.
func height(name string) int {
	digits, rest, ok := strings.Cut(name, "p")
	if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 && strings.Trim(rest, "0123456789") == "" {
		return n
	}
	return 0
}
