package player

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

func TestPlaysALiveStream(t *testing.T) {
	w := newWorld(t, Config{Title: "ev", Device: "tv"})
	w.step(Press{At: at(-0.05)}) // the driver was 50 ms late
	w.run(at(30))
	ps := w.one(event.PlayStart)
	if ps.Status != "ok" || ps.Session != "v1" || ps.Detail != "s1" || ps.Attempts != 1 || ps.Value != 60 || ps.LagMS != 50 || ps.Region != "east" || ps.Edge != "127.0.1.5" {
		t.Errorf("play start %+v", ps)
	}
	ff := w.one(event.FirstFrame)
	if ff.Value < 100 || ff.Value > 400 || ff.Session != "v1" || ff.Edge != "east-1" || ff.Region != "east" || ff.Device != "tv" {
		t.Errorf("first frame %+v", ff)
	}
	for _, k := range []event.Kind{event.Rebuffer, event.FetchFailed, event.EdgeSwitch, event.StartFailed, event.SessionEnd} {
		w.none(k)
	}
	beats := w.of(event.Heartbeat)
	if len(beats) != 30 && len(beats) != 29 {
		t.Errorf("%d heartbeats in 30 s", len(beats))
	}
	for i, b := range beats[1:] {
		if b.State != "playing" || b.PlayingMS != 1000 || b.RebufferMS != 0 || b.BufferMS < 3000 || b.BufferMS > 6000 {
			t.Errorf("heartbeat %d: %+v", i+1, b)
		}
		// 6 s behind the encoder when the manifest came, plus what the start took.
		if b.LatencyMS < 6000 || b.LatencyMS > 6400 {
			t.Errorf("heartbeat %d: latency %.0f ms", i+1, b.LatencyMS)
		}
	}
	if last := beats[len(beats)-1]; last.Rendition != "hi" || last.BitrateKbps != 3000 {
		t.Errorf("ends on %s at %.0f kb/s", last.Rendition, last.BitrateKbps)
	}
	w.step(Leave{Why: "enough"})
	end := w.one(event.SessionEnd)
	if !w.done || end.Status != "ok" || end.Detail != "enough" || end.RebufferMS != 0 || end.PlayingMS < 29000 {
		t.Errorf("session end %+v", end)
	}
	if len(w.open) != 0 {
		t.Errorf("fetches left open: %v", w.open)
	}
	if playing, _ := w.totals(); math.Abs(playing-end.PlayingMS) > 0.001 {
		t.Errorf("heartbeats add up to %v, the session to %v", playing, end.PlayingMS)
	}
}

func TestSameSeedSameLife(t *testing.T) {
	life := func(seed uint64) string {
		w := newWorld(t, Config{Seed: seed})
		serve := w.serve
		w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
			if edgeOf(f) == "east-1" && now.After(at(10)) {
				return Answer{Err: "connection refused"}, time.Millisecond, true
			}
			return serve(now, f)
		}
		w.step(Press{At: t0})
		w.run(at(60))
		return details(w.events)
	}
	if first, again := life(1), life(1); first != again {
		t.Error("the same seed lived two lives")
	}
	if life(1) == life(2) {
		t.Error("the seed changes nothing")
	}
}

// An edge that dies must not be felt while another one works: by refusals, by silence, alone or with its neighbour.
func TestADeadEdgeIsNotFelt(t *testing.T) {
	dies := func(edges string, silent bool) func(*world) {
		return func(w *world) {
			serve := w.serve
			w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
				if e := edgeOf(f); e != "" && strings.Contains(edges, e) && now.After(at(10)) {
					return Answer{Err: "connection refused"}, time.Millisecond, !silent
				}
				return serve(now, f)
			}
		}
	}
	for name, c := range map[string]struct {
		edges  string
		silent bool
		to     string
	}{
		"one refuses":       {"east-1", false, "east-2"},
		"one falls silent":  {"east-1", true, "east-2"},
		"two refuse":        {"east-1 east-2", false, "west-1"},
		"two fall silent":   {"east-1 east-2", true, "west-1"},
		"the others refuse": {"east-2 west-1", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				w := newWorld(t, Config{Seed: seed})
				dies(c.edges, c.silent)(w)
				w.step(Press{At: t0})
				w.run(at(70))
				w.none(event.Rebuffer)
				if _, stalled := w.totals(); stalled > 0 {
					t.Fatalf("seed %d stalled for %.0f ms%s", seed, stalled, details(w.of(event.FetchFailed)))
				}
				if c.to == "" {
					w.none(event.EdgeSwitch)
					continue
				}
				found := false
				for _, e := range w.of(event.EdgeSwitch) {
					found = found || e.Edge == c.to
				}
				if !found {
					t.Errorf("never went to %s%s", c.to, details(w.of(event.EdgeSwitch)))
				}
				if n := len(w.of(event.FetchFailed)); n == 0 || n > 40 {
					t.Errorf("%d failed fetches in a minute", n)
				}
			}
		})
	}
}

func TestAnEdgeComesBack(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if edgeOf(f) == "east-1" && now.After(at(10)) && now.Before(at(20)) {
			return Answer{Err: "connection refused"}, time.Millisecond, true
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(80))
	sw := w.of(event.EdgeSwitch)
	if len(sw) < 2 || sw[0].Edge != "east-2" || sw[0].Region != "east" || sw[0].Detail != "east-1: connection refused" {
		t.Fatalf("switches%s", details(sw))
	}
	if last := sw[len(sw)-1]; last.Edge != "east-1" || last.At.Before(at(20)) || last.At.After(at(45)) {
		t.Errorf("came back%s", details(sw))
	}
	w.none(event.Rebuffer)
}

func TestStallAndResume(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if f.Purpose == Segment && now.After(at(10)) && now.Before(at(18)) {
			return Answer{Err: "connection refused"}, time.Millisecond, true
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(40))
	r := w.one(event.Rebuffer)
	// 4 to 6 s in hand at 10 s, segments again from 18 s on, retries at most 4 s apart.
	if began := r.At.Sub(t0).Seconds(); began < 13.5 || began > 16.5 {
		t.Errorf("stalled at %.3f s", began)
	}
	if r.Value < 1500 || r.Value > 9000 {
		t.Errorf("stalled for %.0f ms", r.Value)
	}
	_, stalled := w.totals()
	if math.Abs(stalled-r.Value) > 0.001 {
		t.Errorf("heartbeats count %.3f ms of stall, the event %.3f", stalled, r.Value)
	}
	last := w.of(event.Heartbeat)[38]
	if last.State != "playing" || math.Abs(last.LatencyMS-6100-r.Value) > 400 {
		t.Errorf("afterwards %+v", last)
	}
}

// A long outage leaves the viewer behind; it comes back at the live edge, not where it left off.
func TestALongStallEndsAtTheLiveEdge(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if f.Purpose == Segment && now.After(at(10)) && now.Before(at(45)) {
			return Answer{}, 0, false
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(70))
	beats := w.of(event.Heartbeat)
	last := beats[len(beats)-1]
	if last.State != "playing" || last.LatencyMS > 18_000 {
		t.Errorf("ends %s, %.0f ms behind", last.State, last.LatencyMS)
	}
	w.step(Leave{})
	if n := w.one(event.SessionEnd).Nums; n["resyncs"] == 0 || n["skipped_ms"] < 10_000 {
		t.Errorf("counters %v", n)
	}
}

func TestAdaptsUpAndDown(t *testing.T) {
	w := newWorld(t, Config{})
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		rate := 20e6
		if now.After(at(20)) && now.Before(at(50)) {
			rate = 1.5e6
		}
		return healthy(rate)(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(100))
	on := func(s float64) string {
		for _, b := range w.of(event.Heartbeat) {
			if b.At.Sub(at(s)).Abs() < 600*time.Millisecond {
				return b.Rendition
			}
		}
		return ""
	}
	if got := fmt.Sprint(on(18), on(45), on(95)); got != "hi lo hi" && got != "hilohi" {
		t.Errorf("renditions at 18, 45 and 95 s: %s%s", got, details(w.of(event.RenditionSwitch)))
	}
	if _, stalled := w.totals(); stalled > 0 {
		t.Errorf("stalled for %.0f ms%s", stalled, details(w.events[len(w.events)-1:]))
	}
	if n := len(w.of(event.RenditionSwitch)); n > 8 {
		t.Errorf("%d switches%s", n, details(w.of(event.RenditionSwitch)))
	}
}

func TestDeviceCapsTheLadder(t *testing.T) {
	w := newWorld(t, Config{MaxHeight: 540})
	w.step(Press{At: t0})
	w.run(at(30))
	for _, a := range w.asked {
		if strings.Contains(a.URL, "/hi/") {
			t.Fatalf("asked for %s", a.URL)
		}
	}
}

// Segments are published 300 ms after they end: the player learns to ask then instead of being told to wait.
func TestLiveEdge404(t *testing.T) {
	w := newWorld(t, Config{})
	w.step(Press{At: t0})
	w.run(at(60))
	w.none(event.FetchFailed)
	w.none(event.Rebuffer)
	w.step(Leave{})
	n := w.one(event.SessionEnd).Nums
	if n["early"] == 0 || n["early"] > 20 {
		t.Errorf("%v early requests in a minute of 60 segments", n["early"])
	}
}

func TestAGapIsSkippedAndCounted(t *testing.T) {
	for name, code := range map[string]int{"gone": 410, "never came": 404} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			serve := w.serve
			w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
				if f.Purpose == Segment && segmentNumber(f) == 1806 && !strings.Contains(f.URL, "/a/") {
					return Answer{Status: code}, 5 * time.Millisecond, true
				}
				return serve(now, f)
			}
			w.step(Press{At: t0})
			w.run(at(40))
			if b := w.of(event.Heartbeat); b[len(b)-1].State != "playing" {
				t.Errorf("ends %+v", b[len(b)-1])
			}
			if n := len(w.of(event.FetchFailed)); n < 3 || n > 10 {
				t.Errorf("%d failed fetches%s", n, details(w.of(event.FetchFailed)))
			}
			w.none(event.EdgeSwitch) // the edges are fine
			w.step(Leave{})
			if n := w.one(event.SessionEnd).Nums; n["gaps"] != 1 || n["skipped_ms"] < 1900 || n["skipped_ms"] > 2100 {
				t.Errorf("counters %v", n)
			}
		})
	}
}

func TestWrongSegment(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		a, d, ok := serve(now, f)
		if f.Purpose == Segment && a.Status == 200 && edgeOf(f) == "east-1" {
			switch segmentNumber(f) {
			case 1805:
				a.Media.Tracks[0].Decode -= 20_000 // the segment of 20 s ago
			case 1807:
				a.Media.Tracks[0].Duration = 400
			case 1809:
				a.Wrong = "malformed"
			}
		}
		return a, d, ok
	}
	w.step(Press{At: t0})
	w.run(at(40))
	w.none(event.Rebuffer)
	var got []string
	for _, e := range w.of(event.FetchFailed) {
		if e.Rendition != "a" {
			got = append(got, fmt.Sprint(e.Segment, " ", e.Detail))
		}
	}
	want := []string{"1805 segment: wrong segment: its media is -20s away from where the manifest puts it",
		"1807 segment: wrong segment: 400ms of media where 2s were announced", "1809 segment: wrong segment: malformed"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	w.step(Leave{})
	if n := w.one(event.SessionEnd).Nums; n["wrong"] != 6 || n["gaps"] != 0 {
		t.Errorf("counters %v", n)
	}
}

func TestEndOfTheEvent(t *testing.T) {
	w := newWorld(t, Config{End: at(20)})
	w.step(Press{At: t0})
	w.run(at(60))
	e := w.one(event.SessionEnd)
	if !w.done || !e.At.Equal(at(20)) || e.Status != "ok" || e.Detail != "the end of the event" {
		t.Errorf("session end %+v", e)
	}
}

func TestEndOfTheStream(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		a, d, ok := serve(now, f)
		if f.Purpose == Manifest { // segments up to t0+20 s
			a.Body = []byte(strings.ReplaceAll(string(a.Body), `startNumber="0"`, `startNumber="0" endNumber="1809"`))
		}
		return a, d, ok
	}
	w.step(Press{At: t0})
	w.run(at(60))
	e := w.one(event.SessionEnd)
	if e.Status != "ok" || e.Detail != "the end of the stream" || e.At.Before(at(25.9)) || e.At.After(at(27)) {
		t.Errorf("session end %s %+v", e.At.Sub(t0), e)
	}
	w.none(event.Rebuffer)
}

func TestPlayRequests(t *testing.T) {
	ok := healthy(20e6)
	cases := map[string]struct {
		play     func(n int, f Fetch) (Answer, bool) // n-th request; false: silence
		status   string
		attempts uint32
		region   string
		within   time.Duration
	}{
		"home region refuses": {func(n int, f Fetch) (Answer, bool) {
			if strings.HasPrefix(f.URL, services[0].URL) {
				return Answer{Err: "connection refused"}, true
			}
			return Answer{}, true
		}, "ok", 2, "west", 500 * time.Millisecond},
		"home region is silent": {func(n int, f Fetch) (Answer, bool) {
			return Answer{}, !strings.HasPrefix(f.URL, services[0].URL)
		}, "ok", 2, "west", 2500 * time.Millisecond},
		"shed twice": {func(n int, f Fetch) (Answer, bool) {
			if n <= 2 {
				return Answer{Status: 503, Body: []byte(`{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":2}}`)}, true
			}
			return Answer{}, true
		}, "ok", 3, "east", 6500 * time.Millisecond},
		"shed for good": {func(n int, f Fetch) (Answer, bool) {
			return Answer{Status: 503, Body: []byte(`{"retryPolicy":{"maxRetries":2,"retryAfterSeconds":1}}`)}, true
		}, "shed", 3, "east", 4 * time.Second},
		"all refuse":    {func(n int, f Fetch) (Answer, bool) { return Answer{Err: "connection refused"}, true }, "failed", 8, "east", 6 * time.Second},
		"unknown title": {func(n int, f Fetch) (Answer, bool) { return Answer{Status: 404}, true }, "failed", 1, "east", time.Second},
		"nonsense":      {func(n int, f Fetch) (Answer, bool) { return Answer{Status: 200, Body: []byte(`{"session":3}`)}, true }, "failed", 8, "east", 6 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Seed: 3})
			n := 0
			w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
				if f.Purpose != Play {
					return ok(now, f)
				}
				n++
				a, answered := c.play(n, f)
				if answered && a.Status == 0 && a.Err == "" {
					return ok(now, f)
				}
				return a, 10 * time.Millisecond, answered
			}
			w.step(Press{At: t0})
			w.run(at(25))
			ps := w.one(event.PlayStart)
			if ps.Status != c.status || ps.Attempts != c.attempts || ps.Region != c.region || ps.Home != w.p.cfg.Region || ps.At.Sub(t0) > c.within {
				t.Errorf("after %s: %s in %s after %d attempts: %s", ps.At.Sub(t0), ps.Status, ps.Region, ps.Attempts, ps.Detail)
			}
			if c.status == "ok" {
				w.one(event.FirstFrame)
				return
			}
			sf, end := w.one(event.StartFailed), w.one(event.SessionEnd)
			if !w.done || end.Status != "failed" || sf.Detail == "" || ps.Session != "" {
				t.Errorf("start failed %+v, end %+v", sf, end)
			}
		})
	}
}

// Every region's playback answers for every session: a manifest fetch fails over as the play request does.
func TestManifestFailsOver(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if f.Purpose == Manifest && strings.HasPrefix(f.URL, services[0].URL) {
			return Answer{Err: "connection refused"}, time.Millisecond, true
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(5))
	w.one(event.FirstFrame)
	var urls []string
	for _, a := range w.asked {
		if a.Purpose == Manifest {
			urls = append(urls, a.URL)
		}
	}
	if fmt.Sprint(urls) != "[http://127.0.1.5/v1/sessions/s1/manifest.mpd http://127.0.2.5/v1/sessions/s1/manifest.mpd]" {
		t.Errorf("asked %v", urls)
	}
}

func TestStartGivesUp(t *testing.T) {
	w := newWorld(t, Config{})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if f.Purpose == Segment || f.Purpose == Init {
			return Answer{}, 0, false
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(60))
	if sf := w.one(event.StartFailed); sf.Value != 20_000 || !strings.Contains(sf.Detail, "no first frame within 20s") {
		t.Errorf("%+v", sf)
	}
	if e := w.one(event.SessionEnd); e.Status != "failed" || !w.done {
		t.Errorf("%+v", e)
	}
}

// A viewer without a picture when the event ends is a failed start, unless it has only just pressed Play.
func TestLeavingWithoutAPicture(t *testing.T) {
	silent := func(purposes ...Purpose) func(*world) {
		return func(w *world) {
			serve := w.serve
			w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
				if slices.Contains(purposes, f.Purpose) {
					return Answer{}, 0, false
				}
				return serve(now, f)
			}
		}
	}
	for name, c := range map[string]struct {
		hold  func(*world)
		after float64
		play  string // play_start's status; empty: there is none
		fails bool
	}{
		"requesting, young": {silent(Play), 3.9, "", false},
		"requesting":        {silent(Play), 4, "failed", true},
		"loading, young":    {silent(Manifest), 3.9, "ok", false},
		"loading":           {silent(Manifest), 4, "ok", true},
		"starting, young":   {silent(Init, Segment), 3.9, "ok", false},
		"starting":          {silent(Init, Segment), 9, "ok", true},
	} {
		for _, manifest := range []string{"", "http://127.0.0.1/live.mpd"} {
			if manifest != "" && strings.HasPrefix(name, "requesting") {
				continue
			}
			t.Run(name+" "+manifest, func(t *testing.T) {
				w := newWorld(t, Config{Manifest: manifest, End: at(c.after)})
				c.hold(w)
				w.step(Press{At: t0})
				w.run(at(30))
				play, failed := c.play, 0
				if c.fails {
					failed = 1
				}
				if manifest != "" && strings.HasPrefix(name, "loading") { // the manifest is the play request
					play = map[bool]string{true: "failed"}[c.fails]
				}
				got := ""
				for _, e := range w.of(event.PlayStart) {
					got += e.Status
				}
				if got != play {
					t.Errorf("play start %q, want %q", got, play)
				}
				sf := w.of(event.StartFailed)
				if len(sf) != failed || c.fails && (sf[0].Value != c.after*1000 || sf[0].Detail != "the end of the event, before the first frame") {
					t.Errorf("start failed %+v", sf)
				}
				if end := w.one(event.SessionEnd); !w.done || end.Status != map[bool]string{false: "ok", true: "failed"}[c.fails] {
					t.Errorf("session end %+v", end)
				}
				w.none(event.FirstFrame)
			})
		}
	}
	t.Run("as patient as its tuning", func(t *testing.T) {
		w := newWorld(t, Config{Tuning: Tuning{StartPatience: 10 * time.Second}})
		silent(Segment)(w)
		w.step(Press{At: t0})
		w.run(at(9))
		w.step(Leave{})
		w.none(event.StartFailed)
	})
}

// One watch is one session on the timeline, also where events come before a playback service has answered.
func TestOneViewerIsOneSession(t *testing.T) {
	w := newWorld(t, Config{End: at(20)})
	serve := w.serve
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		if f.Purpose == Play && now.Before(at(2)) {
			return Answer{Err: "connection refused"}, time.Millisecond, true
		}
		return serve(now, f)
	}
	w.step(Press{At: t0})
	w.run(at(30))
	if beats := w.of(event.Heartbeat); len(beats) < 15 || beats[0].At.After(w.one(event.PlayStart).At) {
		t.Fatalf("no heartbeat before the play start%s", details(w.events))
	}
	for _, e := range w.events {
		if e.Session != "v1" {
			t.Errorf("%s of session %q", e.Kind, e.Session)
		}
	}
}

// What a stall takes away is a rendition's time too: {rendition=…} must find it.
func TestAStallNamesTheLastRenditionShown(t *testing.T) {
	for name, world := range map[string]func(tb, Config) *world{"dash": newWorld, "hls": hlsWorld} {
		t.Run(name, func(t *testing.T) {
			w := world(t, Config{})
			serve := w.serve
			w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
				if f.Purpose == Segment && now.After(at(10)) && now.Before(at(25)) {
					return Answer{Err: "connection refused"}, time.Millisecond, true
				}
				return serve(now, f)
			}
			w.step(Press{At: t0})
			w.run(at(21)) // in the middle of the stall
			if w.p.State() != Rebuffering {
				t.Fatalf("%s at 21 s", w.p.State())
			}
			shown, stalled := "", 0
			for _, e := range w.of(event.Heartbeat) {
				switch e.State {
				case "playing":
					shown = e.Rendition
				case "rebuffering":
					if stalled++; e.Rendition != shown || shown == "" || e.BitrateKbps == 0 {
						t.Errorf("a stalled heartbeat of %q at %.0f kb/s, last shown %q", e.Rendition, e.BitrateKbps, shown)
					}
				default:
					if e.Rendition != "" {
						t.Errorf("%q before the first frame", e.Rendition)
					}
				}
			}
			if stalled < 2 {
				t.Errorf("%d heartbeats of a stall", stalled)
			}
			w.step(Leave{}) // ends the stall
			for _, k := range []event.Kind{event.Rebuffer, event.SessionEnd} {
				if e := w.one(k); e.Rendition != shown {
					t.Errorf("%s of rendition %q, last shown %q", k, e.Rendition, shown)
				}
			}
			if e := w.one(event.FirstFrame); e.Rendition == "" {
				t.Error("a first frame of no rendition")
			}
		})
	}
}

func TestUnsupportedStreamSaysWhy(t *testing.T) {
	w := newWorld(t, Config{Manifest: "http://127.0.0.1/x.m3u8"})
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		return Answer{Status: 200, Body: []byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\n")}, time.Millisecond, true
	}
	w.step(Press{At: t0})
	w.run(at(5))
	if ps := w.one(event.PlayStart); ps.Status != "failed" || !strings.Contains(ps.Detail, "AES-128") {
		t.Errorf("%+v", ps)
	}
	w.one(event.StartFailed)
}

// hlsWorld serves a live HLS stream without dates: 2 s TS segments, muxed, a window of six, on two redundant hosts.
func hlsWorld(t tb, cfg Config) *world {
	cfg.Manifest = "http://127.0.0.1/master.m3u8"
	w := newWorld(t, cfg)
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		newest := int(now.Sub(t0)/(2*time.Second)) + 100
		switch f.Purpose {
		case Manifest:
			return Answer{Status: 200, Body: []byte("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=500000\nhttp://127.0.0.11/lo/m.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=500000\nhttp://127.0.0.12/lo/m.m3u8\n")}, time.Millisecond, true
		case Playlist:
			var b strings.Builder
			fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:%d\n", newest-5)
			for n := newest - 5; n <= newest; n++ {
				fmt.Fprintf(&b, "#EXTINF:2.0,\n%d\n", n)
			}
			return Answer{Status: 200, Body: []byte(b.String())}, 5 * time.Millisecond, true
		}
		m := media(f)
		m.Container = "ts"
		return Answer{Status: 200, Bytes: 125_000, Took: 20 * time.Millisecond, Media: m}, 20 * time.Millisecond, true
	}
	return w
}

func TestHLSReloadsAsTheStandardSays(t *testing.T) {
	w := hlsWorld(t, Config{})
	w.step(Press{At: at(0.7)})
	w.run(at(60))
	for _, k := range []event.Kind{event.Rebuffer, event.FetchFailed, event.EdgeSwitch, event.StartFailed} {
		w.none(k)
	}
	var last time.Time
	n := 0
	for _, a := range w.asked {
		if a.Purpose != Playlist {
			continue
		}
		// RFC 8216 section 6.3.4: not before half a target duration after the last load.
		if d := a.at.Sub(last); !last.IsZero() && (d < time.Second || d > 2100*time.Millisecond) {
			t.Errorf("reloaded after %s", d)
		}
		last = a.at
		n++
	}
	if n < 28 || n > 60 {
		t.Errorf("%d reloads in a minute of 2 s segments", n)
	}
	b := w.of(event.Heartbeat)
	if last := b[len(b)-1]; last.LatencyMS < 5900 || last.LatencyMS > 8200 || last.Edge != "127.0.0.11" {
		t.Errorf("heartbeat %+v", last)
	}
}

// A lone playlist without dates is dated once, by its first load: the second load may find it unchanged, or two segments
// on, and must not move what has been placed.
func TestAPlaylistIsDatedOnce(t *testing.T) {
	for press := 0.0; press < 4; press += 0.1 {
		w := newWorld(t, Config{Manifest: "http://127.0.0.11/lo/m.m3u8"})
		w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
			const rtt = 10 * time.Millisecond
			if f.Purpose == Segment {
				return Answer{Status: 200, Bytes: 1000, Media: media(f)}, rtt, true
			}
			// Every other segment is published 1.9 s late, together with the next.
			var b strings.Builder
			newest := uint64(now.Sub(t0.Add(-time.Hour)).Seconds()/2) - 1
			if newest%2 == 1 && now.Sub(t0)%(2*time.Second) < 1900*time.Millisecond {
				newest--
			}
			fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:%d\n", newest-5)
			for n := newest - 5; n <= newest; n++ {
				fmt.Fprintf(&b, "#EXTINF:2.000,\n%d\n", n)
			}
			return Answer{Status: 200, Body: []byte(b.String())}, rtt, true
		}
		w.now = at(press)
		w.step(Press{At: w.now})
		w.run(at(30))
		w.none(event.FetchFailed)
		w.none(event.Rebuffer)
		if n := w.one(event.FirstFrame); n.Value > 1000 {
			t.Errorf("pressed at %.1f s: first frame after %.0f ms", press, n.Value)
		}
	}
}

func TestAPlaylistThatStopsGrowingIsLeft(t *testing.T) {
	w := hlsWorld(t, Config{})
	serve := w.serve
	var frozen Answer
	w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
		a, d, ok := serve(now, f)
		if f.Purpose == Playlist && strings.Contains(f.URL, "0.11") {
			if now.Before(at(20)) {
				frozen = a
			}
			a = frozen
		}
		return a, d, ok
	}
	w.step(Press{At: t0})
	w.run(at(60))
	sw := w.of(event.EdgeSwitch)
	if len(sw) == 0 || sw[0].Edge != "127.0.0.12" || !strings.Contains(sw[0].Detail, "has not grown") {
		t.Errorf("switches%s", details(sw))
	}
	if b := w.of(event.Heartbeat); b[len(b)-1].State != "playing" {
		t.Errorf("ends %+v", b[len(b)-1])
	}
}

func TestStepAfterTheEndAndOutOfOrder(t *testing.T) {
	w := newWorld(t, Config{})
	w.step(Tick{}) // before Press
	w.step(Press{At: t0})
	w.run(at(5))
	w.p.Step(at(3), Tick{})                       // time does not go back
	w.p.Step(at(5), Answer{ID: 999, Status: 200}) // nobody asked
	w.p.Step(at(5), Progress{ID: 999})            //
	w.p.Step(at(5), Press{At: at(5)})             // pressed already
	w.p.Step(at(5), Answer{ID: 1, Status: 200})   // answered already
	if got := w.p.Step(at(6), Leave{}); len(got) == 0 {
		t.Error("no goodbye")
	}
	if got := w.p.Step(at(7), Tick{}); got != nil {
		t.Errorf("after the end: %v", got)
	}
	if s := w.p.State(); s != Ended {
		t.Errorf("state %s", s)
	}
}
