package bench

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback"
	"github.com/tminus-live/tminus/reference/playback/front"
	"github.com/tminus-live/tminus/reference/timeline"
)

// The event that everyone wants to see, and where.
const (
	title  = "title-fight"
	token  = "open-house"
	region = "us-east"
)

// newService is the reference playback service of a region that has another one beside it, two edges each, as a rehearsal's.
func newService(addr netip.AddrPort, log *slog.Logger) (*playback.Service, error) {
	return playback.New(playback.Config{
		Stream: manifest.Stream{
			Event: title, Timeline: timeline.Default, First: 1000, DVR: time.Minute,
			Renditions: []manifest.Rendition{
				{ID: "v360", Kind: manifest.Video, Codecs: "avc1.64001e", Bandwidth: 800_000, Timescale: 90000, Width: 640, Height: 360, FrameRate: "30"},
				{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 3_000_000, Timescale: 90000, Width: 1280, Height: 720, FrameRate: "30"},
				{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 128_000, Timescale: 48000, Language: "en", SampleHz: 48000, Channels: 2},
			},
			Edges: []manifest.Edge{
				{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"}, {ID: "us-east-2", Region: "us-east", URL: "http://127.0.1.12:8080"},
				{ID: "us-west-1", Region: "us-west", URL: "http://127.0.2.11:8080"}, {ID: "us-west-2", Region: "us-west", URL: "http://127.0.2.12:8080"},
			},
		},
		Region: region, URL: "http://" + addr.String(), Key: []byte("tminus bench play-starts"), Now: time.Now, Log: log,
		Probe: func(context.Context, manifest.Edge) error { return nil },
	})
}

func serveService(ctx context.Context, p Part, log *slog.Logger) error {
	l, err := listenAbove(p.Addr, func(a netip.AddrPort) (net.Listener, error) { return net.Listen("tcp4", a.String()) })
	if err != nil {
		return err
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	service, err := newService(addr, log)
	if err != nil {
		return err
	}
	f, err := front.New(front.Config{
		Play: service.Answer, Observe: service.Observe, Rest: service.Handler(), MaxBody: playback.MaxRequest, Loops: 1, Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	answer := func(ctx context.Context) error { return f.Serve(ctx, l) }
	if p.TLS != nil {
		t, err := serverTLS(p.TLS)
		if err != nil {
			return err
		}
		answer = func(ctx context.Context) error { return f.ServeTLS(ctx, l, t) }
	}
	// As in a region: what watches the edges and keeps the service's state runs beside it.
	return runServer(ctx, addr, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- service.Run(ctx) }()
		err := answer(ctx)
		cancel()
		return errors.Join(err, <-ended)
	})
}
