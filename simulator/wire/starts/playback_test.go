package starts

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/simulator/audience"
)

// The generator and the reference pipeline's playback service speak the same words: answers, refusals and advice.
func TestReferencePlaybackService(t *testing.T) {
	t.Parallel()
	listen := func(capacity float64) netip.AddrPort {
		service, err := playback.New(playback.Config{
			Stream: manifest.Stream{
				Event: "title-fight", Timeline: timeline.Default, First: 1000, DVR: time.Minute,
				Renditions: []manifest.Rendition{
					{ID: "v360", Kind: manifest.Video, Codecs: "avc1.64001e", Bandwidth: 800_000, Timescale: 90000, Width: 640, Height: 360, FrameRate: "30"},
					{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 128_000, Timescale: 48000, Language: "en", SampleHz: 48000, Channels: 2},
				},
				Edges: []manifest.Edge{{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"}},
			},
			Region: "us-east", URL: "http://127.0.1.5:8080", Key: []byte("0123456789abcdef"), Now: time.Now, Capacity: capacity,
			Probe: func(context.Context, manifest.Edge) error { return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.1.5:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: service.Handler()}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
		return netip.MustParseAddrPort(l.Addr().String())
	}
	send := func(addr netip.AddrPort, title string) Snapshot {
		c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 400}), addr)
		c.Title, c.Drain = title, 500*ms
		return mustRun(t, c).Snapshot()
	}
	open := listen(0)
	if n := send(open, "title-fight"); n.OK != 200 {
		t.Errorf("%+v, want 200 sessions", n)
	}
	if n := send(open, "another event"); n.Failed != 200 || n.Failures["HTTP 404"] != 200 {
		t.Errorf("%+v, want an unknown event", n)
	}
	if n := send(listen(10), "title-fight"); n.OK == 0 || n.Shed == 0 || n.OK+n.Shed != 200 {
		t.Errorf("%+v, want some sessions and the rest shed", n)
	}
}
