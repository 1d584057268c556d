package player

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Whatever bodies a server sends, the player neither crashes nor storms, and says goodbye once.
func FuzzAnyBodies(f *testing.F) {
	f.Add([]byte(`{"session":"s","manifests":{"dash":"http://127.0.0.1/m"},"steering":["a"],"retryPolicy":{"maxRetries":1e9,"retryAfterSeconds":-1}}`), mpd(), []byte("#EXTM3U"), uint64(3600_000), uint32(2000))
	f.Add([]byte(`{"session":"s","manifests":{"hls":"http://127.0.0.1/m"}}`), []byte("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\na\n"),
		[]byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n#EXTINF:2,\nb\n#EXTINF:2,\nc\n#EXTINF:0.001,\nd\n"), uint64(0), uint32(0))
	f.Fuzz(func(t *testing.T, play, manifest, playlist []byte, decode uint64, duration uint32) {
		w := newWorld(t, Config{})
		w.serve = func(now time.Time, f Fetch) (Answer, time.Duration, bool) {
			a := Answer{Status: 200, Bytes: 100_000}
			switch f.Purpose {
			case Play:
				a.Body = play
			case Manifest:
				a.Body = manifest
			case Playlist:
				a.Body = playlist
			default:
				a.Media = stream.Media{Container: "mp4", Tracks: []stream.Track{{ID: 1, Timescale: 1000, Decode: decode, Duration: uint64(duration)}}}
			}
			return a, 5 * time.Millisecond, true
		}
		w.step(Press{At: t0})
		w.run(at(15))
		if !w.done {
			w.step(Leave{})
		}
		w.one(event.SessionEnd)
		w.one(event.PlayStart)
		// A list of very short segments is fetched as fast as it is answered; beyond that there is no reason to hurry.
		if n := len(w.asked); n > 15*2*200 {
			t.Fatalf("%d fetches in 15 s", n)
		}
	})
}
