package stream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/simulator/stream"
)

var event = manifest.Stream{
	Event: "first-light", Timeline: timeline.Default, First: 882_000_000, Last: 882_000_044, DVR: time.Minute,
	Renditions: []manifest.Rendition{
		{ID: "v360", Kind: manifest.Video, Codecs: "avc1.4D401E", Bandwidth: 630_000, Timescale: 90_000, Width: 640, Height: 360, FrameRate: "30"},
		{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001F", Bandwidth: 2_900_000, Timescale: 90_000, Width: 1280, Height: 720, FrameRate: "30"},
		{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 99_000, Timescale: 48_000, Language: "en", SampleHz: 48_000, Channels: 2},
		{ID: "a-es", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 99_000, Timescale: 48_000, Language: "es", SampleHz: 48_000, Channels: 2},
	},
	Edges: []manifest.Edge{
		{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"},
		{ID: "us-east-2", Region: "us-east", URL: "http://127.0.1.12:8080"},
		{ID: "us-west-1", Region: "us-west", URL: "http://127.0.2.11:8080"},
	},
}

// Both manifests of the reference pipeline name the same segment for every moment, rendition and edge: the one that the
// timeline says.
func TestReadsTheReferenceManifests(t *testing.T) {
	start := event.Timeline.Start(event.First)
	now := start.Add(41 * time.Second)
	opt := manifest.Options{Order: []string{"us-west-1", "us-east-1", "us-east-2"}, SteeringURL: "http://127.0.1.5:8080/v1/steering/s"}
	mpd, err := manifest.DASH(event, opt)
	if err != nil {
		t.Fatal(err)
	}
	master, err := manifest.HLSMaster(event, opt)
	if err != nil {
		t.Fatal(err)
	}
	for format, body := range map[string][]byte{stream.DASH: mpd, stream.HLS: master} {
		t.Run(format, func(t *testing.T) {
			p, err := stream.Parse(body, "http://127.0.1.5:8080/v1/sessions/s/manifest", now, nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, body)
			}
			if p.Format != format || fmt.Sprint(p.Paths) != "[us-west-1 us-east-1 us-east-2]" {
				t.Errorf("format %s, paths %v", p.Format, p.Paths)
			}
			var ids []string
			for _, r := range p.Renditions {
				ids = append(ids, r.ID)
			}
			if got := strings.Join(ids, " "); got != "v360 v720 a-en a-es" {
				t.Errorf("renditions %s", got)
			}
			if fmt.Sprint(p.Renditions[0].Audio) != "[2 3]" {
				t.Errorf("audio of v360: %v", p.Renditions[0].Audio)
			}
			for i, r := range p.Renditions {
				for _, e := range event.Edges {
					src, ok := p.Source(i, e.ID)
					if !ok {
						t.Fatalf("no %s on %s", r.ID, e.ID)
					}
					x := src.Index
					if format == stream.HLS {
						list, err := manifest.HLSMedia(event, r.ID, now, opt)
						if err != nil {
							t.Fatal(err)
						}
						if want := e.URL + "/first-light/" + r.ID + "/media.m3u8"; src.Playlist != want {
							t.Errorf("playlist %s, want %s", src.Playlist, want)
						}
						if x, err = stream.ParsePlaylist(list, src.Playlist, now, nil); err != nil {
							t.Fatalf("%v\n%s", err, list)
						}
					}
					n := event.Timeline.At(now) - 3
					s, place := x.At(event.Timeline.Start(n).Add(time.Second))
					want := fmt.Sprintf("%s/first-light/%s/%d.m4s", e.URL, r.ID, n)
					if place != stream.Here || s.URL != want || !s.Start.Equal(event.Timeline.Start(n)) || s.Duration != 2*time.Second {
						t.Errorf("%s, place %d, from %s for %s; want %s", s.URL, place, s.Start, s.Duration, want)
					}
					if s.Init == nil || s.Init.URL != fmt.Sprintf("%s/first-light/%s/init.mp4", e.URL, r.ID) {
						t.Errorf("init %+v", s.Init)
					}
					if format == stream.DASH {
						if end, ok := x.End(); !ok || !end.Equal(event.Timeline.End(event.Last)) {
							t.Errorf("end %s %t", end, ok)
						}
						if got := uint64(s.MediaTime / time.Second); got != 2*n {
							t.Errorf("media time %s of segment %d", s.MediaTime, n)
						}
						if s.Number != n || !s.Available.Equal(event.Timeline.End(n)) {
							t.Errorf("number %d, available %s", s.Number, s.Available)
						}
					}
				}
			}
		})
	}
}
