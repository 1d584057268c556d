package player

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
	"pgregory.net/rapid"
)

// Whatever the network does, time adds up, nothing goes negative, no fetch is unaccounted for, and there is no storm.
func TestAnyNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Seed: rapid.Uint64().Draw(t, "seed")}
		var w *world
		if rapid.Bool().Draw(t, "hls") {
			w = hlsWorld(t, cfg)
		} else {
			w = newWorld(t, cfg)
		}
		// The network changes its mood every few seconds, edge by edge.
		type mood struct{ refuse, silent, missing, slow, garbage, broken int } // per cent
		moods := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) mood {
			p := rapid.SampledFrom([]int{0, 0, 0, 5, 50, 100})
			return mood{p.Draw(t, "refuse"), p.Draw(t, "silent"), p.Draw(t, "missing"), p.Draw(t, "slow"), p.Draw(t, "garbage"), p.Draw(t, "5xx")}
		}), 1, 12).Draw(t, "moods")
		dice := rand.New(rand.NewPCG(cfg.Seed, 1))
		serve := w.serve
		w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
			a, d, ok := serve(now, f)
			k := int(now.Sub(t0)/(4*time.Second)) + len(edgeOf(f))
			m := moods[k%len(moods)]
			switch roll := dice.IntN(100); {
			case roll < m.refuse:
				return Answer{Err: "connection refused"}, time.Millisecond, true
			case roll < m.silent:
				return Answer{}, 0, false
			case roll < m.missing:
				return Answer{Status: 404 + 6*dice.IntN(2)}, time.Millisecond, true
			case roll < m.broken:
				return Answer{Status: 503, Retry: time.Second, Body: []byte(`{"retryPolicy":{"maxRetries":100,"retryAfterSeconds":0}}`)}, time.Millisecond, true
			case roll < m.garbage:
				a.Body, a.Wrong = []byte("<MPD"), "malformed"
			case roll < m.slow:
				a.Took += 3 * time.Second
				d += 3 * time.Second
			}
			return a, d, ok
		}
		var pos time.Time
		w.check = func() {
			p := w.p
			if p.pos.Before(pos) {
				t.Fatalf("the playhead went back from %s to %s", pos, p.pos)
			}
			pos = p.pos
			if n := len(p.flights); n > 5 {
				t.Fatalf("%d fetches at once", n)
			}
			if p.state != Idle && !p.over() {
				if !w.wake.After(w.now) {
					t.Fatalf("asked to be woken at %s when it is %s", w.wake, w.now)
				}
				if w.wake.After(w.now.Add(1001 * time.Millisecond)) {
					t.Fatalf("sleeps for %s", w.wake.Sub(w.now))
				}
				c := p.totals
				if spent := c.starting + c.playing + c.rebuffering; spent != w.now.Sub(p.pressed) {
					t.Fatalf("after %s only %+v are accounted for", w.now.Sub(p.pressed), c)
				}
				for _, tr := range p.tracks {
					for i := 1; i < len(tr.buffer.chunks); i++ {
						if tr.buffer.chunks[i].start.Before(tr.buffer.chunks[i-1].end) {
							t.Fatal("the buffer overlaps itself")
						}
					}
				}
			}
		}
		w.step(Press{At: t0})
		const length = 50
		w.run(at(length))
		if !w.done {
			w.step(Leave{})
		}
		end := w.one(event.SessionEnd)
		if n := end.Nums; n["fetches"] != n["fetched"]+n["failures"]+n["early"]+n["cancelled"] {
			t.Fatalf("fetches do not add up: %v", n)
		}
		if len(w.of(event.FetchFailed)) != int(end.Nums["failures"]) {
			t.Fatalf("%d failures reported, %v counted", len(w.of(event.FetchFailed)), end.Nums["failures"])
		}
		if len(w.open) > 0 {
			t.Fatalf("%d fetches neither answered nor cancelled", len(w.open))
		}
		lived := end.At.Sub(t0).Seconds()
		if perSecond := float64(len(w.asked)) / max(lived, 1); perSecond > 20 {
			for _, a := range w.asked[len(w.asked)-40:] {
				t.Log(a.at.Sub(t0), a.Purpose, a.URL)
			}
			t.Fatalf("%.1f fetches a second%s", perSecond, details(w.events[max(0, len(w.events)-40):]))
		}
		for i := 60; i < len(w.asked); i++ {
			if d := w.asked[i].at.Sub(w.asked[i-60].at); d < time.Second {
				t.Fatalf("61 fetches within %s", d)
			}
		}
		playing, stalled := w.totals()
		if math.Abs(playing-end.PlayingMS) > 0.01 || math.Abs(stalled-end.RebufferMS) > 0.01 {
			t.Fatalf("heartbeats add up to %v and %v, the session to %v and %v", playing, stalled, end.PlayingMS, end.RebufferMS)
		}
		sum := 0.0
		for _, r := range w.of(event.Rebuffer) {
			sum += r.Value
		}
		if math.Abs(sum-end.RebufferMS) > 0.01 {
			t.Fatalf("stalls add up to %v, the session says %v", sum, end.RebufferMS)
		}
		beats := 0
		for _, b := range w.of(event.Heartbeat) {
			beats++
			if b.BufferMS < 0 || b.LatencyMS < 0 || b.PlayingMS < 0 || b.PlayingMS+b.RebufferMS > 1000.001 {
				t.Fatalf("heartbeat %+v", b)
			}
		}
		if want := int(lived); beats < want || beats > want+1 {
			t.Fatalf("%d heartbeats in %.3f s", beats, lived)
		}
		w.one(event.PlayStart)
		if n := len(w.of(event.FirstFrame)) + len(w.of(event.StartFailed)); n > 1 || n == 0 && lived >= 4 {
			t.Fatalf("%d outcomes of one start", n)
		}
	})
}
