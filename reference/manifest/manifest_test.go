package manifest_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/dash-mpd/mpd"
	"github.com/Eyevinn/hls-m3u8/m3u8"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// first is the number of the segment that starts at 2025-11-24T16:00:00Z.
const first = 882_000_000

func stream() manifest.Stream {
	video := func(id, codecs string, w, h, peak, average int) manifest.Rendition {
		return manifest.Rendition{
			ID: id, Kind: manifest.Video, Codecs: codecs, Bandwidth: peak, Average: average, Timescale: 90_000,
			Width: w, Height: h, FrameRate: "30",
		}
	}
	audio := func(id, lang string) manifest.Rendition {
		return manifest.Rendition{
			ID: id, Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 99_000, Average: 98_000, Timescale: 48_000,
			Language: lang, SampleHz: 48_000, Channels: 2,
		}
	}
	return manifest.Stream{
		Event: "first-light", Timeline: timeline.Default, First: first, DVR: time.Minute,
		Renditions: []manifest.Rendition{
			video("v360", "avc1.4D401E", 640, 360, 630_000, 600_000),
			video("v540", "avc1.4D401F", 960, 540, 1_450_000, 1_400_000),
			video("v720", "avc1.64001F", 1280, 720, 2_900_000, 2_800_000),
			audio("a-en", "en"), audio("a-es", "es"),
		},
		Edges: []manifest.Edge{
			{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"},
			{ID: "us-east-2", Region: "us-east", URL: "http://127.0.1.12:8080"},
			{ID: "us-west-1", Region: "us-west", URL: "http://127.0.2.11:8080"},
		},
	}
}

func at(s manifest.Stream, d time.Duration) time.Time { return s.Timeline.Start(s.First).Add(d) }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

func TestGoldens(t *testing.T) {
	s := stream()
	ended := s
	ended.Last = first + 44
	personal := manifest.Options{
		Order: []string{"us-west-1", "us-east-2"}, MaxHeight: 540, Query: "session=s1&v=2",
		SteeringURL: "http://127.0.2.5:8080/v1/steering/s1",
	}
	edge := manifest.Options{Via: "us-east-2", Relative: true}
	render := func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	golden(t, "generic.mpd", render(manifest.DASH(s, manifest.Options{})))
	golden(t, "edge.mpd", render(manifest.DASH(ended, edge)))
	golden(t, "personal.mpd", render(manifest.DASH(s, personal)))
	golden(t, "generic.m3u8", render(manifest.HLSMaster(s, manifest.Options{})))
	golden(t, "edge.m3u8", render(manifest.HLSMaster(s, edge)))
	golden(t, "personal.m3u8", render(manifest.HLSMaster(s, personal)))
	golden(t, "media-empty.m3u8", render(manifest.HLSMedia(s, "v360", at(s, time.Second), manifest.Options{})))
	golden(t, "media-live.m3u8", render(manifest.HLSMedia(s, "v360", at(s, 80*time.Second), manifest.Options{Query: "session=s1"})))
	golden(t, "media-ended.m3u8", render(manifest.HLSMedia(ended, "a-es", at(s, time.Hour), manifest.Options{})))
}

// A player that reads the MPD computes, for any moment, the number, time and URL that the timeline gives that moment.
func TestMPDTemplateAgreesWithTheTimeline(t *testing.T) {
	s := stream()
	raw, err := manifest.DASH(s, manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := mpd.MPDFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	if doc.MinimumUpdatePeriod != nil || doc.GetType() != "dynamic" {
		t.Errorf("type %s, minimumUpdatePeriod %v: want a live MPD that nobody polls", doc.GetType(), doc.MinimumUpdatePeriod)
	}
	ast, err := doc.AvailabilityStartTime.ConvertToSeconds()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		now := at(s, time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(rt, "since start")))
		for _, set := range doc.Periods[0].AdaptationSets {
			st := set.SegmentTemplate
			scale := float64(st.GetTimescale())
			n := uint64(*st.StartNumber) + uint64((float64(now.UnixMilli())/1000-ast)*scale/float64(*st.Duration))
			if n != s.Timeline.At(now) {
				rt.Fatalf("at %v the MPD says segment %d, the timeline %d", now, n, s.Timeline.At(now))
			}
			if st.PresentationTimeOffset != nil {
				rt.Fatalf("presentationTimeOffset %d: ffmpeg takes it off the clock as well", *st.PresentationTimeOffset)
			}
			// Media time of segment n on the presentation timeline, from AST.
			media := ast + float64(s.Timeline.DecodeTime(n, st.GetTimescale()))/scale
			if want := float64(s.Timeline.Start(n).Unix()); media != want {
				rt.Fatalf("segment %d plays at %v s, want %v", n, media, want)
			}
			if st.Media != "$RepresentationID$/$Number$.m4s" {
				rt.Fatalf("media template %q", st.Media)
			}
		}
	})
}

func TestSteeringOrderIsDocumentOrderButTheSecondLiesElsewhere(t *testing.T) {
	s := stream()
	for _, c := range []struct {
		opt  manifest.Options
		want string
	}{
		{manifest.Options{}, "us-east-1 us-west-1 us-east-2"},
		{manifest.Options{Order: []string{"us-west-1", "us-east-1", "us-west-1", "mars-1"}}, "us-west-1 us-east-1"},
		{manifest.Options{Order: []string{"mars-1"}}, "us-east-1 us-west-1 us-east-2"},
		{manifest.Options{Via: "us-west-1"}, "us-west-1 us-east-1 us-east-2"},
		{manifest.Options{Via: "us-west-1", Order: []string{"us-east-2"}}, "us-west-1 us-east-2"},
		{manifest.Options{Via: "mars-1"}, "us-east-1 us-west-1 us-east-2"},
	} {
		raw, err := manifest.DASH(s, c.opt)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := mpd.MPDFromBytes(raw)
		if err != nil {
			t.Fatal(err)
		}
		var dash []string
		for _, b := range doc.BaseURL {
			dash = append(dash, b.ServiceLocation)
		}
		if got := strings.Join(dash, " "); got != c.want {
			t.Errorf("%+v: MPD lists %s, want %s", c.opt, got, c.want)
		}
		var hls []string
		for _, v := range master(t, s, c.opt).Variants {
			if !slices.Contains(hls, v.PathwayId) {
				hls = append(hls, v.PathwayId)
			}
		}
		if got := strings.Join(hls, " "); got != c.want {
			t.Errorf("%+v: the multivariant playlist lists %s, want %s", c.opt, got, c.want)
		}
	}
}

func master(t *testing.T, s manifest.Stream, opt manifest.Options) *m3u8.MasterPlaylist {
	t.Helper()
	raw, err := manifest.HLSMaster(s, opt)
	if err != nil {
		t.Fatal(err)
	}
	p, kind, err := m3u8.DecodeFrom(bytes.NewReader(raw), true)
	if err != nil || kind != m3u8.MASTER {
		t.Fatalf("%v %v", kind, err)
	}
	return p.(*m3u8.MasterPlaylist)
}

func TestHeightCapKeepsTheLowestRung(t *testing.T) {
	for height, want := range map[int]int{0: 3, 4320: 3, 720: 3, 719: 2, 540: 2, 360: 1, 100: 1} {
		p := master(t, stream(), manifest.Options{MaxHeight: height, Order: []string{"us-east-1"}})
		if len(p.Variants) != want {
			t.Errorf("capped at %d: %d rungs, want %d", height, len(p.Variants), want)
		}
	}
}

func TestEveryPathwayHasItsAudio(t *testing.T) {
	p := master(t, stream(), manifest.Options{})
	for _, v := range p.Variants {
		host, _, _ := strings.Cut(strings.TrimPrefix(v.URI, "http://"), "/")
		if len(v.Alternatives) != 2 {
			t.Errorf("%s has %d audio languages, want 2", v.URI, len(v.Alternatives))
		}
		for _, a := range v.Alternatives {
			if a.GroupId != v.Audio || !strings.Contains(a.URI, host) {
				t.Errorf("pathway %s fetches audio from %s", v.PathwayId, a.URI)
			}
		}
	}
}

// The window of a media playlist, at the moments around each change.
func TestMediaPlaylistWindow(t *testing.T) {
	open := stream()
	open.DVR = 10 * time.Second
	ended := open
	ended.Last = first + 9
	const allowance = manifest.PublishAllowance
	for _, c := range []struct {
		s           manifest.Stream
		since       time.Duration
		from, count int
		closed      bool
		next        time.Duration // 0: never again
	}{
		{open, -time.Hour, 0, 0, false, 2*time.Second + allowance},
		{open, 0, 0, 0, false, 2*time.Second + allowance},
		{open, 2*time.Second + allowance - 1, 0, 0, false, 2*time.Second + allowance},
		{open, 2*time.Second + allowance, 0, 1, false, 4*time.Second + allowance},
		{open, 10*time.Second + allowance, 0, 5, false, 12*time.Second + allowance},
		{open, 12*time.Second + allowance, 1, 5, false, 14*time.Second + allowance},
		{ended, 18*time.Second + allowance, 4, 5, false, 20*time.Second + allowance},
		{ended, 20*time.Second + allowance, 5, 5, true, 0},
		{ended, 24 * time.Hour, 5, 5, true, 0},
	} {
		now := at(c.s, c.since)
		raw, err := manifest.HLSMedia(c.s, "a-en", now, manifest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := m3u8.DecodeFrom(bytes.NewReader(raw), true)
		if err != nil {
			t.Fatal(err)
		}
		media := p.(*m3u8.MediaPlaylist)
		if media.SeqNo != uint64(first+c.from) || int(media.Count()) != c.count || media.Closed != c.closed {
			t.Errorf("after %v: %d segments from %d, closed %v; want %d from %d, %v",
				c.since, media.Count(), media.SeqNo-first, media.Closed, c.count, c.from, c.closed)
		}
		for i, seg := range media.Segments[:media.Count()] {
			if want := fmt.Sprintf("%d.m4s", first+c.from+i); seg.URI != want {
				t.Errorf("after %v: segment %d is %s, want %s", c.since, i, seg.URI, want)
			}
		}
		if c.count > 0 && !media.Segments[0].ProgramDateTime.Equal(c.s.Timeline.Start(uint64(first+c.from))) {
			t.Errorf("after %v: program date time %v", c.since, media.Segments[0].ProgramDateTime)
		}
		next := manifest.MediaChanges(c.s, now)
		if c.next == 0 && !next.IsZero() || c.next != 0 && !next.Equal(at(c.s, c.next)) {
			t.Errorf("after %v: changes next at %v, want %v after the start", c.since, next, c.next)
		}
	}
}

// Until MediaChanges says so the playlist stays as it is, and then it does change.
func TestMediaChangesIsExact(t *testing.T) {
	s := stream()
	s.Last = first + 100
	rapid.Check(t, func(t *rapid.T) {
		now := at(s, time.Duration(rapid.Int64Range(-int64(time.Minute), int64(5*time.Minute)).Draw(t, "since start")))
		get := func(now time.Time) string {
			b, err := manifest.HLSMedia(s, "v720", now, manifest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		next := manifest.MediaChanges(s, now)
		if next.IsZero() {
			if get(now) != get(now.Add(time.Hour)) {
				t.Fatal("the ended playlist changed")
			}
			return
		}
		if !next.After(now) || get(now) != get(next.Add(-1)) {
			t.Fatalf("at %v: said to change at %v, changed before", now, next)
		}
		if get(now) == get(next) {
			t.Fatalf("at %v: said to change at %v, did not", now, next)
		}
	})
}

func TestUnknownRendition(t *testing.T) {
	_, err := manifest.HLSMedia(stream(), "v2160", at(stream(), time.Minute), manifest.Options{})
	if !errors.Is(err, manifest.ErrUnknownRendition) {
		t.Errorf("got %v", err)
	}
}

func TestImpossibleStreams(t *testing.T) {
	for want, spoil := range map[string]func(*manifest.Stream){
		"event name":     func(s *manifest.Stream) { s.Event = "" },
		"duration":       func(s *manifest.Stream) { s.Timeline.Duration = 0 },
		"before the fir": func(s *manifest.Stream) { s.Last = 1 },
		"video":          func(s *manifest.Stream) { s.Renditions = s.Renditions[3:] },
		"used twice":     func(s *manifest.Stream) { s.Renditions[1].ID = "v360" },
		"timescale":      func(s *manifest.Stream) { s.Renditions[1].Timescale = 0 },
		"does not fit":   func(s *manifest.Stream) { s.Last = 1 << 40 },
	} {
		s := stream()
		spoil(&s)
		if _, err := manifest.DASH(s, manifest.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
