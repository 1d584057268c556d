package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Stream is one rung at one server.
type Stream struct {
	Base   string // "http://127.0.1.11:8080", without trailing slash
	Layout media.Layout
	Rung   string
	// Playlist is the path of the rung's HLS media playlist, which then says which segments there are; "": the layout's clock does.
	Playlist string
}

func (s Stream) validate() error {
	if s.Base == "" {
		return errors.New("a stream without a server")
	}
	if s.Playlist != "" {
		return nil
	}
	if _, ok := s.Layout.Path(s.Rung, 1); !ok || !s.Layout.Clocked || s.Layout.Duration <= 0 {
		return fmt.Errorf("%s has no playlist, and its layout does not say by the clock which segment is newest: give --set playlist=/path (a scenario: playlist: /path)", s.Base)
	}
	return nil
}

// SegmentsConfig is what a segment audit needs.
type SegmentsConfig struct {
	Fault, Region string // for the timeline
	Stream        Stream
	// Control is a rung, or the same rung elsewhere, that the fault must not reach; nil: nothing is compared.
	Control *Stream
	// Copy serves the same segments untouched, byte for byte; "": nothing is compared. Corruption of what has no structure
	// (audio) shows in no other way.
	Copy   string
	Want   media.Defect
	Select media.Selector // which segments the fault is about
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Now    func() time.Time
	Sink   event.Sink // nil: event.Discard
}

// Segments watches a rung at its live edge.
type Segments struct {
	cfg   SegmentsConfig
	asker asker

	mu      sync.Mutex
	samples []piece
	skipped int
	headers map[string]media.Header
	listed  map[string]time.Time // URL → when a playlist first had it
	asked   map[string]bool      // late ones, by URL
	read    map[string]bool      // playlists that have been read once
}

const (
	rounds      = 8                      // under way at a time
	window      = 4                      // newest segments that a round asks for
	pollDefault = 500 * time.Millisecond // of a playlist, at most
	maxPlaylist = 4096                   // segments that are read off one
	leastShift  = 500 * time.Millisecond // of timestamps: less is lost in what healthy ones stray
	boundary    = 150 * time.Millisecond // this near to a new segment, positions are in doubt
)

// NewSegments checks the configuration.
func NewSegments(cfg SegmentsConfig) (*Segments, error) {
	errs := []error{cfg.Want.Validate(), cfg.Select.Validate(), cfg.Stream.validate()}
	if cfg.Control != nil {
		errs = append(errs, cfg.Control.validate())
	}
	if cfg.Now == nil {
		errs = append(errs, errors.New("it needs a clock"))
	}
	if d := cfg.Want.Shift.Abs(); cfg.Want.Kind == media.WrongTime && d < leastShift {
		errs = append(errs, fmt.Errorf("a shift of %v is too small to measure: %v is the least", d, leastShift))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("segment audit of %s: %w", cfg.Fault, err)
	}
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	return &Segments{cfg: cfg, asker: newAsker(cfg.Dial, cfg.Now), headers: map[string]media.Header{}, listed: map[string]time.Time{}, asked: map[string]bool{}, read: map[string]bool{}}, nil
}

// piece is one segment that was asked for, and what it looked like.
type piece struct {
	start, end time.Time
	number     uint64
	position   int // relative to the newest when it was asked for
	control    bool
	selected   bool
	status     int
	fail       string
	late       time.Duration // from when it was due, or first listed, until it was there
	timed      bool          // late says something
	parsed     error         // of a body that cannot be
	faults     int
	differs    bool          // from its copy elsewhere
	at         time.Duration // media time of the pictures,
	wraps      time.Duration // which counts modulo this; 0: it does not
	lasts      time.Duration
	frames     int
	audio      bool
	same       bool // the pictures are those of the segment before
	compared   bool // same says something
}

func (p piece) there() bool  { return p.fail == "" && p.status == http.StatusOK }
func (p piece) whole() bool  { return p.there() && p.parsed == nil }
func (p piece) text() string { return response{status: p.status, fail: p.fail}.outcome() }

// After is how long it takes once the fault is undone to tell that it is gone: until enough of those segments that it would have
// spoiled have been at the live edge.
func (s *Segments) After() time.Duration {
	s.mu.Lock()
	first := s.samples[:min(len(s.samples), 4*window)] // of the time before it
	base := learnSegments(only(first, func(p piece) bool { return !p.control }))
	s.mu.Unlock()
	n, chosen := 1.0, s.cfg.Select
	if chance := base.chance(s.cfg.Want); chance > 0 && chance < 1 {
		n = math.Ceil(math.Log(hardly) / math.Log(1-chance))
	}
	segments := n*float64(max(chosen.Every, 1)) + 1
	if !s.newestAlone() && len(chosen.Live) == 0 { // a round asks for older ones as well
		segments -= window - 2
	}
	return time.Duration(min(segments, maxPlaylist)*float64(cmp.Or(s.cfg.Stream.Layout.Duration, base.lasts))) + time.Second
}

// newestAlone reports whether older segments than the newest say nothing of the fault.
func (s *Segments) newestAlone() bool {
	if len(s.cfg.Select.Live) > 0 {
		return false
	}
	// Where all are frozen, older ones may be older than the pictures shown in place of all.
	return s.cfg.Want.Kind == media.Late || s.cfg.Want.Kind == media.Frozen && s.cfg.Select.Every <= 1
}

// Watch asks until ctx ends.
func (s *Segments) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := make(chan struct{}, rounds)
	for {
		select {
		case open <- struct{}{}:
			wg.Go(func() {
				defer func() { <-open }()
				s.round(ctx, s.cfg.Stream, false)
				if s.cfg.Control != nil {
					s.round(ctx, *s.cfg.Control, true)
				}
			})
		default:
			s.mu.Lock()
			s.skipped++
			s.mu.Unlock()
		}
		timer := time.NewTimer(s.next(s.cfg.Now()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// next is how long to wait for the next round: a few times a segment, away from its borders; for late ones at the border.
func (s *Segments) next(now time.Time) time.Duration {
	l := s.cfg.Stream.Layout
	d := l.Duration
	if s.cfg.Stream.Playlist != "" || !l.Clocked {
		if d <= 0 {
			return pollDefault
		}
		return max(min(d/4, pollDefault), 20*time.Millisecond)
	}
	phase, step := d/4, d/2
	switch {
	case s.cfg.Want.Kind == media.Late:
		phase, step = min(10*time.Millisecond, d/20), d
	case len(s.cfg.Select.Live) > 0: // a position has one segment at a time: look at it more often
		phase, step = d/8, d/4
	}
	wait := phase - time.Duration(now.UnixNano())%d
	for wait <= 0 {
		wait += step
	}
	return wait
}

// target is one segment to ask for.
type target struct {
	number   uint64
	position int
	url      string
	init     string
	due      time.Time
	judge    bool // else it is asked for its neighbour's sake
}

// round asks for the newest segments of a stream, one after another: what comes first decides what a frozen one shows.
func (s *Segments) round(ctx context.Context, st Stream, control bool) {
	var targets []target
	if st.Playlist == "" {
		targets = s.clocked(st, s.cfg.Now(), control)
	} else {
		var gone *piece
		if targets, gone = s.playlist(ctx, st, control); gone != nil {
			s.keep(*gone, st)
			return
		}
	}
	var previous [32]byte
	var hadPrevious bool
	var last uint64
	for _, t := range targets {
		p, pictures, ok := s.fetch(ctx, st, t, control)
		if ctx.Err() != nil && !p.there() {
			return
		}
		if hadPrevious && ok && last+1 == t.number {
			p.same, p.compared = previous == pictures, true
		}
		previous, hadPrevious, last = pictures, ok, t.number
		if t.judge {
			s.keep(p, st)
		}
	}
}

// wanted chooses among the newest segments, given from the oldest to the newest, by position.
func (s *Segments) wanted(all []target, control bool) []target {
	judge := map[int]bool{}
	switch {
	case s.cfg.Want.Kind == media.Late && s.newestAlone():
		judge[0] = true
	case len(s.cfg.Select.Live) > 0 && !control:
		for _, p := range s.cfg.Select.Live {
			judge[p] = true
		}
	case s.newestAlone() && !control:
		judge[0] = true
	case control:
		judge[-1] = true
	default:
		for p := range window - 1 {
			judge[-p] = true
		}
	}
	var out []target
	for i, t := range all {
		t.judge = judge[t.position]
		before := i+1 < len(all) && judge[all[i+1].position] && s.cfg.Want.Kind == media.Frozen
		if t.judge || before {
			out = append(out, t)
		}
	}
	return out
}

// clocked lists the newest segments by the clock.
func (s *Segments) clocked(st Stream, now time.Time, control bool) []target {
	newest, ok := st.Layout.Newest(now)
	if !ok {
		return nil
	}
	oldest, youngest := -window+1, 0
	for _, p := range s.cfg.Select.Live {
		oldest, youngest = min(oldest, p-1), max(youngest, p)
	}
	var out []target
	for p := oldest; p <= youngest; p++ {
		if p < 0 && uint64(-p) > newest {
			continue
		}
		t := target{number: newest + uint64(int64(p)), position: p}
		name, _ := st.Layout.Path(st.Rung, t.number)
		ref, ok := st.Layout.Find(name)
		if !ok {
			return nil
		}
		t.url, t.init = st.Base+name, st.Base+st.Layout.InitPath(ref)
		t.due, _ = st.Layout.Due(t.number)
		out = append(out, t)
	}
	return s.wanted(out, control)
}

// playlist lists the newest segments by the rung's playlist. A playlist that is not there is a segment that is not there.
func (s *Segments) playlist(ctx context.Context, st Stream, control bool) ([]target, *piece) {
	r := s.asker.ask(ctx, st.Base+st.Playlist, limits{patience: s.patience(), keep: true})
	if ctx.Err() != nil && r.fail != "" {
		return nil, nil
	}
	if r.fail != "" || r.status != http.StatusOK {
		return nil, &piece{start: r.start, end: r.end, control: control, selected: true, status: r.status, fail: r.fail}
	}
	base, err := url.Parse(st.Base + st.Playlist)
	if err != nil {
		return nil, nil
	}
	all, init := readPlaylist(r.body, base, st.Layout)
	s.mu.Lock()
	again := s.read[base.String()]
	s.read[base.String()] = true
	for i, t := range all {
		first, ok := s.listed[t.url]
		if !ok {
			if again { // what the first look finds has been there for who knows how long
				first = r.start
			}
			if len(s.listed) > maxPlaylist*2 {
				clear(s.listed)
			}
			s.listed[t.url] = first
		}
		all[i].due, all[i].init = first, init
		all[i].position = i - len(all) + 1
	}
	s.mu.Unlock()
	out := s.wanted(all, control)
	if s.cfg.Want.Kind == media.Late { // each once and as soon as it is listed: asking again would say nothing new
		out = only(out, func(t target) bool { return s.once(t, control) })
	}
	if newest := len(all) - 1; len(s.cfg.Select.Live) > 0 && newest >= 0 {
		// Without a clock the live edge is the newest segment that anybody has asked for: somebody must.
		out = append([]target{all[newest]}, out...)
	}
	return out, nil
}

// once reports whether a segment has not been asked for before.
func (s *Segments) once(t target, control bool) bool {
	key := fmt.Sprintf("%v %s", control, t.url)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[key] {
		return false
	}
	if len(s.asked) > maxPlaylist*2 {
		clear(s.asked)
	}
	s.asked[key] = true
	return true
}

// readPlaylist reads the segments off an HLS media playlist (RFC 8216, 4.3), and its initialisation segment's URL.
func readPlaylist(text []byte, base *url.URL, l media.Layout) (out []target, init string) {
	resolve := func(uri string) (*url.URL, bool) {
		u, err := base.Parse(uri)
		return u, err == nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(make([]byte, 4<<10), 64<<10)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if attributes, ok := strings.CutPrefix(line, "#EXT-X-MAP:"); ok {
			if _, uri, ok := strings.Cut(attributes, `URI="`); ok {
				uri, _, _ = strings.Cut(uri, `"`)
				if u, ok := resolve(uri); ok {
					init = u.String()
				}
			}
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		u, ok := resolve(line)
		if !ok {
			continue
		}
		ref, ok := l.Find(u.EscapedPath())
		if !ok || ref.Kind != media.Segment {
			continue
		}
		out = append(out, target{number: ref.Number, url: u.String()})
		if len(out) > maxPlaylist {
			out = out[1:]
		}
	}
	if len(out) > 2*window+maxLiveAsked {
		out = out[len(out)-2*window-maxLiveAsked:]
	}
	return slices.Clone(out), init
}

// maxLiveAsked is how far behind the edge of a playlist positions are looked for.
const maxLiveAsked = 64

func (s *Segments) patience() time.Duration { return 5*time.Second + s.cfg.Want.Delay }

// fetch asks for one segment and looks into it; ok says that its pictures could be hashed.
func (s *Segments) fetch(ctx context.Context, st Stream, t target, control bool) (p piece, pictures [32]byte, ok bool) {
	r := s.asker.ask(ctx, t.url, limits{patience: s.patience(), keep: true})
	p = piece{start: r.start, end: r.end, number: t.number, position: t.position, control: control, status: r.status, fail: r.fail}
	if len(s.cfg.Select.Live) > 0 && st.Playlist == "" {
		// The position is that of the moment at which the request was seen, which lies between these two.
		from, _ := st.Layout.Newest(r.start)
		to, _ := st.Layout.Newest(cmp.Or(r.first, r.end))
		p.position = int(int64(t.number) - int64(from))
		if from != to {
			p.start = time.Time{} // in doubt: it belongs to no phase
		}
	}
	p.selected = s.cfg.Select.Numbered(t.number) && (len(s.cfg.Select.Live) == 0 || slices.Contains(s.cfg.Select.Live, p.position))
	// Only what was asked for when it was due tells how late it came.
	prompt := max(min(st.Layout.Duration/8, 250*time.Millisecond), 50*time.Millisecond)
	if p.timed = !t.due.IsZero() && r.start.Sub(t.due) < prompt; p.timed {
		p.late = r.end.Sub(t.due)
	} else if s.cfg.Want.Kind == media.Late && !control {
		p.start = time.Time{}
	}
	if !p.there() {
		return p, pictures, false
	}
	h := s.header(ctx, t.init)
	report, err := media.Inspect(r.body, h)
	if err != nil {
		p.parsed = err
		return p, pictures, false
	}
	p.faults, p.wraps = len(report.Faults()), report.Wraps
	for _, track := range report.Tracks {
		p.audio = p.audio || track.Kind == media.Audio
	}
	watched, ok := report.Pictures()
	if ok {
		p.at, p.lasts, p.frames = watched.Start, watched.Duration, watched.Frames
	}
	if s.cfg.Copy != "" && s.cfg.Want.Kind == media.Corrupt && !control {
		if path, found := strings.CutPrefix(t.url, st.Base); found {
			c := s.asker.ask(ctx, s.cfg.Copy+path, limits{patience: s.patience(), keep: true})
			p.differs = c.fail == "" && c.status == http.StatusOK && !bytes.Equal(c.body, r.body)
		}
	}
	return p, watched.Media, ok
}

// header is that of an initialisation segment, asked for until it has been there once.
func (s *Segments) header(ctx context.Context, init string) media.Header {
	if init == "" {
		return media.Header{}
	}
	s.mu.Lock()
	h, ok := s.headers[init]
	s.mu.Unlock()
	if ok {
		return h
	}
	r := s.asker.ask(ctx, init, limits{patience: s.patience(), keep: true})
	if r.fail != "" || r.status != http.StatusOK {
		return media.Header{}
	}
	h, err := media.ParseHeader(r.body)
	if err != nil {
		return media.Header{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.headers) > 64 {
		clear(s.headers)
	}
	s.headers[init] = h
	return h
}

// keep stores a sample and puts it on the timeline.
func (s *Segments) keep(p piece, st Stream) {
	s.mu.Lock()
	if len(s.samples) < kept {
		s.samples = append(s.samples, p)
	} else {
		s.skipped++
	}
	s.mu.Unlock()
	component := st.Base
	if u, err := url.Parse(st.Base); err == nil {
		component = u.Host
	}
	e := event.Event{
		At: p.start, Kind: event.Probe, Fault: s.cfg.Fault, Region: s.cfg.Region, Component: component, Rendition: st.Rung, Segment: p.number,
		Status: p.text(), Value: millis(p.end.Sub(p.start)), Detail: p.describe(),
	}
	if e.At.IsZero() {
		e.At = p.end
	}
	if e.Rendition == "" && st.Playlist != "" {
		e.Rendition = strings.TrimSuffix(path.Base(st.Playlist), ".m3u8")
	}
	if p.control {
		e.Detail = "control; " + e.Detail
	}
	s.cfg.Sink.Emit(e)
}

func (p piece) describe() string {
	switch {
	case !p.there():
		return "segment not there"
	case p.parsed != nil:
		return "segment cannot be parsed: " + p.parsed.Error()
	}
	text := "segment of " + strconv.Itoa(p.frames) + " frames, " + span(p.lasts)
	if p.same {
		text += ", pictures of the one before"
	}
	if p.faults > 0 {
		text += fmt.Sprintf(", %d faults", p.faults)
	}
	return text
}

// Judge says what the segments prove.
func (s *Segments) Judge(w evidence.Window) evidence.Evidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	elsewhere := ""
	if c := s.cfg.Control; c != nil {
		if elsewhere = c.Rung; elsewhere == s.cfg.Stream.Rung || elsewhere == "" {
			elsewhere = c.Base + c.Playlist
		}
	}
	e := judgeSegments(s.cfg.Want, w, elsewhere, s.samples)
	if s.skipped > 0 {
		e.Detail += fmt.Sprintf("; %d rounds or segments were skipped", s.skipped)
	}
	return e
}
