package player

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

var t0 = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// tb is what testing.T and rapid.T share.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
}

// world is a network with a clock: it answers the player's fetches when their time has come.
type world struct {
	t      tb
	p      *Player
	now    time.Time
	wake   time.Time
	done   bool
	mail   []letter
	events []event.Event
	asked  []ask
	// serve answers a fetch after a delay; ok false: silence.
	serve func(now time.Time, f Fetch) (a Answer, delay time.Duration, ok bool)

	cancelled map[uint64]bool
	open      map[uint64]bool
	check     func() // after every step
}

type letter struct {
	at time.Time
	ev Event
	id uint64
}

type ask struct {
	at time.Time
	Fetch
}

const (
	rungLo, rungMid, rungHi = 500_000, 1_500_000, 3_000_000
	edges                   = "east-1 east-2 west-1"
)

// mpd is a live stream of 2 s segments since t0−1 h on three edges.
func mpd() []byte {
	var b strings.Builder
	b.WriteString(`<MPD type="dynamic" availabilityStartTime="` + t0.Add(-time.Hour).Format(time.RFC3339) + `" suggestedPresentationDelay="PT6S" timeShiftBufferDepth="PT2M" profiles="">`)
	for i, e := range strings.Fields(edges) {
		fmt.Fprintf(&b, `<BaseURL serviceLocation="%s">http://127.0.0.%d/ev/</BaseURL>`, e, 11+i)
	}
	b.WriteString(`<Period start="PT0S"><AdaptationSet contentType="video"><SegmentTemplate duration="2" startNumber="0" media="$RepresentationID$/$Number$" initialization="$RepresentationID$/init"/>`)
	fmt.Fprintf(&b, `<Representation id="lo" bandwidth="%d" height="360"/><Representation id="mid" bandwidth="%d" height="540"/><Representation id="hi" bandwidth="%d" height="720"/></AdaptationSet>`, rungLo, rungMid, rungHi)
	b.WriteString(`<AdaptationSet contentType="audio"><SegmentTemplate duration="2" startNumber="0" media="$RepresentationID$/$Number$" initialization="$RepresentationID$/init"/><Representation id="a" bandwidth="96000"/></AdaptationSet></Period></MPD>`)
	return []byte(b.String())
}

func (f ask) number() uint64 {
	n, _ := strconv.ParseUint(f.URL[strings.LastIndex(f.URL, "/")+1:], 10, 64)
	return n
}

func segmentNumber(f Fetch) uint64 { return ask{Fetch: f}.number() }

func edgeOf(f Fetch) string {
	for i, e := range strings.Fields(edges) {
		if strings.Contains(f.URL, fmt.Sprintf("127.0.0.%d/", 11+i)) {
			return e
		}
	}
	return ""
}

// media is what a good segment or init segment holds.
func media(f Fetch) stream.Media {
	tr := stream.Track{ID: 1, Kind: stream.Video, Timescale: 1000}
	if strings.Contains(f.URL, "/a/") {
		tr.Kind = stream.Audio
	}
	if f.Purpose == Segment {
		tr.Decode, tr.Duration, tr.Samples = segmentNumber(f)*2000, 2000, 60
	}
	return stream.Media{Container: "mp4", Tracks: []stream.Track{tr}}
}

func bits(f Fetch) int64 {
	for name, b := range map[string]int64{"/lo/": rungLo, "/mid/": rungMid, "/hi/": rungHi, "/a/": 96_000} {
		if strings.Contains(f.URL, name) {
			return b
		}
	}
	return 0
}

const published = 300 * time.Millisecond // after a segment's last frame

// healthy is an origin behind good edges: bandwidth in bits/s, latency 10 ms, 404 before publication.
func healthy(bandwidth float64) func(time.Time, Fetch) (Answer, time.Duration, bool) {
	return func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		const rtt = 10 * time.Millisecond
		switch f.Purpose {
		case Play:
			return Answer{Status: 200, Body: []byte(`{"session":"s1","manifests":{"dash":"http://127.0.1.5/v1/sessions/s1/manifest.mpd"},"steering":["east-1","east-2","west-1"],"retryPolicy":{"maxRetries":3,"retryAfterSeconds":1}}`)}, rtt, true
		case Manifest:
			return Answer{Status: 200, Body: mpd()}, rtt, true
		case Init:
			return Answer{Status: 200, Bytes: 700, Media: media(f)}, rtt, true
		}
		end := t0.Add(-time.Hour).Add(time.Duration(segmentNumber(f)+1) * 2 * time.Second)
		if now.Before(end.Add(published)) {
			return Answer{Status: 404, Retry: end.Add(published).Sub(now)}, rtt, true
		}
		n := bits(f) * 2 / 8
		took := time.Duration(float64(n) * 8 / bandwidth * float64(time.Second))
		return Answer{Status: 200, Bytes: n, Took: took, Media: media(f)}, rtt + took, true
	}
}

var services = []Service{{"east", "http://127.0.1.5"}, {"west", "http://127.0.2.5"}}

func newWorld(t tb, cfg Config) *world {
	if cfg.Services == nil && cfg.Manifest == "" {
		cfg.Services = services
		cfg.Region = "east"
	}
	cfg.Viewer = "v1"
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, p: New(cfg), now: t0, serve: healthy(20e6), cancelled: map[uint64]bool{}, open: map[uint64]bool{}}
}

// step hands the player an event now and files what it wants.
func (w *world) step(ev Event) {
	w.t.Helper()
	acts := w.p.Step(w.now, ev)
	if len(acts) > 80 {
		w.t.Fatalf("%d actions in one step at %s: %T", len(acts), w.now.Sub(t0), acts[0])
	}
	for _, a := range acts {
		switch a := a.(type) {
		case Fetch:
			w.asked = append(w.asked, ask{w.now, a})
			w.open[a.ID] = true
			if ans, delay, ok := w.serve(w.now, a); ok {
				ans.ID = a.ID
				w.mail = append(w.mail, letter{w.now.Add(delay), ans, a.ID})
				for d := 200 * time.Millisecond; d < delay && ans.Took > 0; d += 200 * time.Millisecond {
					w.mail = append(w.mail, letter{w.now.Add(d), Progress{a.ID, int64(float64(ans.Bytes) * d.Seconds() / delay.Seconds())}, a.ID})
				}
			}
		case Cancel:
			w.cancelled[a.ID] = true
			delete(w.open, a.ID)
		case Emit:
			w.events = append(w.events, a.Event)
		case Wake:
			w.wake = a.At
		case Done:
			w.done = true
		}
	}
	if w.check != nil {
		w.check()
	}
}

// run lets the world go on until a time or the end of the session.
func (w *world) run(until time.Time) {
	w.t.Helper()
	for steps := 0; !w.done; steps++ {
		if steps > 200_000 {
			w.t.Fatal("an event storm")
		}
		next, k := until, -1
		for i, l := range w.mail {
			if l.at.Before(next) {
				next, k = l.at, i
			}
		}
		if !w.wake.IsZero() && w.wake.Before(next) {
			next, k = w.wake, -2
		}
		if next.After(w.now) {
			w.now = next
		}
		switch k {
		case -1:
			return
		case -2:
			w.wake = time.Time{}
			w.step(Tick{})
		default:
			l := w.mail[k]
			w.mail = append(w.mail[:k], w.mail[k+1:]...)
			if w.cancelled[l.id] {
				continue
			}
			if _, ok := l.ev.(Answer); ok {
				delete(w.open, l.id)
			}
			w.step(l.ev)
		}
	}
}

func (w *world) of(k event.Kind) []event.Event {
	var out []event.Event
	for _, e := range w.events {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

func (w *world) one(k event.Kind) event.Event {
	w.t.Helper()
	es := w.of(k)
	if len(es) != 1 {
		w.t.Fatalf("%d %s events, want 1: %+v", len(es), k, es)
	}
	return es[0]
}

func (w *world) none(k event.Kind) {
	w.t.Helper()
	if es := w.of(k); len(es) > 0 {
		w.t.Errorf("%d %s events: %s", len(es), k, details(es))
	}
}

func details(es []event.Event) string {
	var b strings.Builder
	for _, e := range es {
		fmt.Fprintf(&b, "\n  %7.3f %s %s %s %s %.0f %s", e.At.Sub(t0).Seconds(), e.Kind, e.Status, e.Edge, e.Rendition, e.Value, e.Detail)
	}
	return b.String()
}

// totals adds the heartbeats up.
func (w *world) totals() (playing, rebuffering float64) {
	for _, e := range w.of(event.Heartbeat) {
		playing += e.PlayingMS
		rebuffering += e.RebufferMS
	}
	return
}
