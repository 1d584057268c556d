package media

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/origin/availability"
	"github.com/tminus-live/tminus/reference/packager"
	"github.com/tminus-live/tminus/reference/timeline"
)

const present = 882_000_001

func TestLayoutsFindSegments(t *testing.T) {
	ref := Reference(2 * time.Second)
	pattern := func(expr string) Layout {
		l, err := Pattern(expr)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	template := func(text string) Layout {
		l, err := Template(text)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, c := range []struct {
		layout  Layout
		path    string
		kind    Kind // 0: nothing
		rung    string
		track   string
		number  uint64
		sibling string // of number-1
	}{
		{ref, "/final/v720/882000001.m4s", Segment, "v720", Video, present, "/final/v720/882000000.m4s"},
		{ref, "/t/AbC-d_9/final/a-en/882000001.m4s", Segment, "a-en", Audio, present, "/t/AbC-d_9/final/a-en/882000000.m4s"},
		{ref, "/final/v720/init.mp4", Init, "v720", Video, 0, ""},
		{ref, "/final/a-es/media.m3u8", Playlist, "a-es", Audio, 0, ""},
		{ref, "/final/manifest.mpd", Manifest, "", "", 0, ""},
		{ref, "/final/v720/0882.m4s", 0, "", "", 0, ""},
		{ref, "/v1/play", 0, "", "", 0, ""},
		{ref, "/healthz", 0, "", "", 0, ""},
		{pattern(`/hls/(?P<rung>\w+)/seg-(?P<number>\d+)\.(?:ts|m4s)$`), "/hls/1080p/seg-00012.ts", Segment, "1080p", Video, 12, "/hls/1080p/seg-00011.ts"},
		{pattern(`seg(?P<number>\d+)\.ts$`), "/hls/seg10.ts", Segment, "", "", 10, "/hls/seg9.ts"},
		{pattern(`/(?P<track>audio|video)/(?P<number>\d+)$`), "/audio/7", Segment, "", Audio, 7, "/audio/6"},
		{template("/live/$RepresentationID$/$Number%05d$.m4s"), "/live/v1080/00010.m4s", Segment, "v1080", Video, 10, "/live/v1080/00009.m4s"},
		{template("/live/$RepresentationID$/$Number%05d$.m4s"), "/live/v1080/init.mp4", Init, "v1080", Video, 0, ""},
		{template("/hls/{rung}/{number}.ts"), "/hls/720p/10.ts", Segment, "720p", Video, 10, "/hls/720p/9.ts"},
		{template("stream_%v/seg-%03d.m4s"), "/x/stream_1/seg-100.m4s", Segment, "1", "", 100, "/x/stream_1/seg-099.m4s"},
		{template("stream_%v/seg-%03d.m4s"), "/x/stream_1/seg-1x0.m4s", 0, "", "", 0, ""},
		{template("/hls/seg%d.ts"), "/hls/live.m3u8", Playlist, "", "", 0, ""},
		{Layout{}, "/final/v720/882000001.m4s", 0, "", "", 0, ""},
	} {
		r, ok := c.layout.Find(c.path)
		if ok != (c.kind != 0) || r.Kind != c.kind || r.Rung != c.rung || r.Track != c.track || r.Number != c.number {
			t.Errorf("%s: %v %+v", c.path, ok, r)
			continue
		}
		if c.sibling != "" && r.Sibling(r.Number-1) != c.sibling {
			t.Errorf("%s: the one before is %s, want %s", c.path, r.Sibling(r.Number-1), c.sibling)
		}
	}
	// As ffmpeg names them with -var_stream_map and %v.
	own := pattern(`/(?P<rung>[^/]+)-(?P<number>\d+)\.m4s$`)
	own.InitName = "init-{rung}.mp4"
	if r, ok := own.Find("/live/360p-7.m4s"); !ok || r.Rung != "360p" || own.InitPath(r) != "/live/init-360p.mp4" {
		t.Errorf("%+v, %s", r, own.InitPath(r))
	}
	if r, ok := own.Find("/live/init-360p.mp4"); !ok || r.Kind != Init || r.Rung != "360p" {
		t.Errorf("%+v", r)
	}
	if p, ok := template("/live/{rung}/$Number%05d$.m4s").Path("v1", 7); !ok || p != "/live/v1/00007.m4s" {
		t.Errorf("%q %v", p, ok)
	}
	for _, bad := range []string{"/live/seg.ts", "/x/%021d.ts"} {
		if _, err := Template(bad); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{"(", `seg\d+`, strings.Repeat("x", 2000)} {
		if _, err := Pattern(bad); !errors.Is(err, ErrLayout) {
			t.Errorf("%.20s: %v", bad, err)
		}
	}
}

// What the origin takes for a segment, the layout does too, and the other way round.
func TestReferenceLayoutAgreesWithTheOrigin(t *testing.T) {
	l := Reference(2 * time.Second)
	for _, p := range []string{
		"/final/v720/882000001.m4s", "/final/v720/0.m4s", "/final/v720/init.mp4", "/final/v720/media.m3u8", "/final/manifest.mpd",
		"/final/master.m3u8", "/final/v720/x.m4s", "/final/v720/01.m4s", "/final/v720", "/",
	} {
		res, err := availability.Parse(p)
		r, ok := l.Find(p)
		if ok != (err == nil) || ok && r.Kind == Segment && (res.Number != r.Number || res.Rendition != r.Rung) {
			t.Errorf("%s: %+v, the origin says %+v, %v", p, r, res, err)
		}
	}
	now := timeline.Default.End(present).Add(time.Millisecond)
	if n, ok := l.Newest(now); !ok || n != present {
		t.Errorf("newest %d, %v", n, ok)
	}
	if due, ok := l.Due(present); !ok || !due.Equal(timeline.Default.End(present)) {
		t.Errorf("due %v, %v", due, ok)
	}
}

func TestSelector(t *testing.T) {
	l := Reference(2 * time.Second)
	find := func(p string) Ref { r, _ := l.Find(p); return r }
	for _, c := range []struct {
		s      Selector
		path   string
		newest uint64
		want   bool
	}{
		{Selector{}, "/e/v720/9.m4s", 20, true},
		{Selector{}, "/e/v720/init.mp4", 20, false},
		{Selector{Whole: true}, "/e/v720/init.mp4", 20, true},
		{Selector{Whole: true}, "/e/manifest.mpd", 20, false},
		{Selector{Rung: "v720"}, "/e/v360/9.m4s", 20, false},
		{Selector{Rung: "720p"}, "/e/v720/9.m4s", 20, true},
		{Selector{Rung: "1080p"}, "/e/v720/9.m4s", 20, false},
		{Selector{Track: Audio}, "/e/v720/9.m4s", 20, false},
		{Selector{Track: Audio}, "/e/a-en/9.m4s", 20, true},
		{Selector{Every: 3}, "/e/v720/9.m4s", 20, true},
		{Selector{Every: 3}, "/e/v720/10.m4s", 20, false},
		{Selector{Every: 3, Phase: 1}, "/e/v720/10.m4s", 20, true},
		{Selector{Every: 3, Live: []int{-2}, Rung: "720p"}, "/e/v720/9.m4s", 11, true},
		{Selector{Every: 3, Live: []int{-2}, Rung: "720p"}, "/e/v720/9.m4s", 12, false},
		{Selector{Live: []int{1}}, "/e/v720/12.m4s", 11, true},
	} {
		if got := c.s.Match(find(c.path), c.newest); got != c.want {
			t.Errorf("%+v, %s at %d: %v", c.s, c.path, c.newest, got)
		}
	}
	for text, want := range map[string][]int{
		"": nil, "live": {0}, "live - 2": {-2}, "-2": {-2}, "live+1": {1}, "live-4..live-2": {-4, -3, -2}, "-1..-2": {-2, -1},
	} {
		if got, err := ParseLive(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"two", "live+2", "live-9999999", "live-100..live", "live-"} {
		if _, err := ParseLive(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	bad := Selector{Track: "text", Every: 2, Phase: 2, Live: []int{3}, Whole: true}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("%v", err)
	}
}

func TestEdgeKnowsTheNewestAndWhenItWasAskedFor(t *testing.T) {
	l, err := Template("/hls/{rung}/{number}.ts")
	if err != nil {
		t.Fatal(err)
	}
	find := func(p string) Ref { r, _ := l.Find(p); return r }
	var e Edge
	e.Served(find("/hls/a/10.ts"))
	e.Served(find("/hls/a/9.ts"))
	if n := e.Newest(find("/hls/a/8.ts")); n != 10 {
		t.Errorf("newest %d", n)
	}
	if n := e.Newest(find("/hls/a/11.ts")); n != 11 {
		t.Errorf("newest %d", n)
	}
	if n := e.Newest(find("/hls/b/3.ts")); n != 3 {
		t.Errorf("newest of another rung %d", n)
	}
	first := time.Unix(100, 0)
	if at := e.Asked(find("/hls/a/11.ts"), first); !at.Equal(first) {
		t.Errorf("%v", at)
	}
	if at := e.Asked(find("/hls/a/11.ts"), first.Add(time.Minute)); !at.Equal(first) {
		t.Errorf("asked again: %v", at)
	}
}

// clip is a rung of the reference pipeline: its initialisation segment and its segments.
type clip struct {
	init   []byte
	header Header
	id     string
}

func sports(t testing.TB, id string) clip {
	t.Helper()
	l, err := encoder.Load("sports")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range l.Renditions() {
		if r.ID != id {
			continue
		}
		codec, _ := l.Codec(id)
		init, err := packager.Init(r, codec)
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHeader(init)
		if err != nil {
			t.Fatal(err)
		}
		return clip{init, h, id}
	}
	t.Fatalf("no rung %s", id)
	return clip{}
}

func (c clip) segment(t testing.TB, n uint64) []byte {
	t.Helper()
	l, err := encoder.Load("sports")
	if err != nil {
		t.Fatal(err)
	}
	for _, track := range l.Segment(n).Tracks {
		if track.Rendition.ID == c.id {
			raw, err := packager.Media(track, n, false)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
	}
	return nil
}

func inspect(t testing.TB, seg []byte, h Header) TrackReport {
	t.Helper()
	r, err := Inspect(seg, h)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := r.Pictures()
	if !ok {
		t.Fatalf("no pictures: %+v", r)
	}
	return p
}

func start(n uint64) time.Duration { return time.Duration(n) * 2 * time.Second }

func TestHealthyReferenceSegments(t *testing.T) {
	for _, id := range []string{"v360", "v720", "a-en"} {
		c := sports(t, id)
		a, b := inspect(t, c.segment(t, present), c.header), inspect(t, c.segment(t, present+1), c.header)
		if len(a.Faults) != 0 {
			t.Errorf("%s: %v", id, a.Faults)
		}
		if got := a.Start + a.Duration; got != b.Start {
			t.Errorf("%s: one ends at %v, the next starts at %v", id, got, b.Start)
		}
		if d := (a.Start - start(present)).Abs(); d > 22*time.Millisecond {
			t.Errorf("%s: starts %v off", id, d)
		}
		if a.Media == b.Media {
			t.Errorf("%s: two segments have the same pictures", id)
		}
	}
}

// Each defect shows as itself and as nothing else.
func TestSpoiledReferenceSegments(t *testing.T) {
	v := sports(t, "v720")
	healthy := inspect(t, v.segment(t, present), v.header)
	before := inspect(t, v.segment(t, present-1), v.header)
	spoil := func(d Defect) TrackReport {
		t.Helper()
		in := Input{Number: present, Segment: v.segment(t, present), Earlier: v.segment(t, present-1), Header: v.header}
		copied := bytes.Clone(in.Segment)
		out, err := Spoil(d, in)
		if err != nil {
			t.Fatalf("%+v: %v", d, err)
		}
		if !bytes.Equal(copied, in.Segment) {
			t.Fatalf("%+v: the input was changed", d)
		}
		again, err := Spoil(d, in)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("%+v: not the same again", d)
		}
		file, err := mp4.DecodeFile(bytes.NewReader(out))
		if err != nil || len(file.Segments) != 1 || len(file.Segments[0].Fragments) != 1 {
			t.Fatalf("%+v: mp4ff reads %v, %v", d, file, err)
		}
		if _, err := file.Segments[0].Fragments[0].GetFullSamples(nil); err != nil {
			t.Fatalf("%+v: mp4ff: %v", d, err)
		}
		return inspect(t, out, v.header)
	}
	short := spoil(Defect{Kind: Short, Keep: 0.5})
	if short.Start != healthy.Start || short.Duration != time.Second || short.Frames != 30 || len(short.Faults) != 0 {
		t.Errorf("short: %+v", short)
	}
	holes := spoil(Defect{Kind: MissingFrames, Share: 0.25})
	if holes.Start != healthy.Start || holes.Duration != healthy.Duration || holes.Frames > 52 || holes.Frames < 35 || holes.Longest < 60*time.Millisecond || len(holes.Faults) != 0 {
		t.Errorf("missing frames: %+v", holes)
	}
	corrupt := spoil(Defect{Kind: Corrupt, Share: 0.2})
	if corrupt.Start != healthy.Start || corrupt.Duration != healthy.Duration || corrupt.Media == healthy.Media || len(corrupt.Faults) == 0 {
		t.Errorf("corrupt: %+v", corrupt)
	}
	frozen := spoil(Defect{Kind: Frozen})
	if frozen.Start != healthy.Start || frozen.Duration != healthy.Duration || frozen.Media != before.Media || len(frozen.Faults) != 0 {
		t.Errorf("frozen: %+v", frozen)
	}
	for _, by := range []time.Duration{10 * time.Second, -3 * time.Second} {
		wrong := spoil(Defect{Kind: WrongTime, Shift: by})
		if wrong.Start != healthy.Start+by || wrong.Duration != healthy.Duration || wrong.Media != healthy.Media || len(wrong.Faults) != 0 {
			t.Errorf("wrong timestamp: %+v", wrong)
		}
	}
}

func TestSpoiledAudio(t *testing.T) {
	a := sports(t, "a-en")
	in := Input{Number: present, Segment: a.segment(t, present), Earlier: a.segment(t, present-1), Header: a.header}
	for _, d := range []Defect{{Kind: Short, Keep: 0.25}, {Kind: MissingFrames, Share: 0.5}, {Kind: Corrupt, Share: 1}, {Kind: Frozen}, {Kind: WrongTime, Shift: time.Second}} {
		out, err := Spoil(d, in)
		if err != nil {
			t.Errorf("%s: %v", d.Kind, err)
			continue
		}
		if _, err := Inspect(out, a.header); err != nil {
			t.Errorf("%s: %v", d.Kind, err)
		}
	}
}

// A viewer's own part of a path does not make a stream of its own, wherever it stands.
func TestStreamsAreEverybodys(t *testing.T) {
	own, err := Pattern(`^/(?P<rung>[^/]+)/(?P<number>\d+)\.ts(?P<token>;[^/]*)?$`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		layout    Layout
		one, same string
		other     string
	}{
		{Reference(2 * time.Second), "/e/v360/7.m4s", "/t/e/e/v360/8.m4s", "/t/e/e/v720/8.m4s"},
		{own, "/v360/7.ts;abc", "/v360/123.ts", "/v720/7.ts;abc"},
	} {
		stream := func(path string) string {
			ref, ok := c.layout.Find(path)
			if !ok {
				t.Errorf("%s is nothing", path)
			}
			return ref.Stream()
		}
		if stream(c.one) != stream(c.same) || stream(c.one) == stream(c.other) {
			t.Errorf("%s, %s, %s", stream(c.one), stream(c.same), stream(c.other))
		}
	}
}

func TestWhatCannotBeSpoiledIsSaid(t *testing.T) {
	v := sports(t, "v360")
	seg := v.segment(t, present)
	for want, in := range map[string]struct {
		d  Defect
		in Input
	}{
		"no initialisation segment": {Defect{Kind: WrongTime, Shift: time.Second}, Input{Segment: seg}},
		"there is no such time":     {Defect{Kind: WrongTime, Shift: -3 * time.Second}, Input{Segment: v.segment(t, 1), Header: v.header}},
		"the earlier segment":       {Defect{Kind: Frozen}, Input{Segment: seg, Header: v.header}},
		"would change nothing":      {Defect{Kind: MissingFrames, Share: 1e-9}, Input{Segment: seg, Header: v.header}},
		"neither fragmented MP4":    {Defect{Kind: Corrupt, Share: 1}, Input{Segment: []byte("<html>")}},
		"no defect of bytes":        {Defect{Kind: Missing}, Input{Segment: seg}},
		"keep of 2":                 {Defect{Kind: Short, Keep: 2}, Input{Segment: seg}},
		`"odd" is no defect`:        {Defect{Kind: "odd"}, Input{Segment: seg}},
	} {
		if _, err := Spoil(in.d, in.in); !errors.Is(err, ErrUnspoilable) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// The segment shown in place of all is the one before the first; where only some are frozen, each shows the one before it.
func TestFrozenSource(t *testing.T) {
	d := Defect{Kind: Frozen}
	if n := d.Source(Selector{}, 12, 10); n != 9 {
		t.Errorf("%d", n)
	}
	if n := d.Source(Selector{Every: 3}, 12, 9); n != 11 {
		t.Errorf("%d", n)
	}
}

// ffmpegSegments makes HLS segments of six seconds, muxed, as an encoder in front of nginx would.
func ffmpegSegments(t testing.TB, kind string) (init []byte, segments [][]byte) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	dir := t.TempDir()
	name := "seg-%05d.ts"
	args := []string{
		"-nostdin", "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=s=256x144:r=25:d=6", "-f", "lavfi", "-i", "sine=f=440:d=6",
		"-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-keyint_min", "50", "-c:a", "aac", "-f", "hls", "-hls_time", "2", "-hls_list_size", "0", "-hls_segment_type", kind,
	}
	if kind == "fmp4" {
		name = "seg-%05d.m4s"
	}
	args = append(args, "-hls_segment_filename", filepath.Join(dir, name), filepath.Join(dir, "live.m3u8"))
	if out, err := exec.Command("ffmpeg", args...).CombinedOutput(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "seg-*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	slices.Sort(files)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		segments = append(segments, raw)
	}
	if kind == "fmp4" {
		if init, err = os.ReadFile(filepath.Join(dir, "init.mp4")); err != nil {
			t.Fatal(err)
		}
	}
	return init, segments
}

// The same defects in what ffmpeg writes for HLS: pictures and sound in one segment, B frames, an index; in both containers.
func TestSpoiledFFmpegSegments(t *testing.T) {
	for _, kind := range []string{"fmp4", "mpegts"} {
		t.Run(kind, func(t *testing.T) {
			init, segs := ffmpegSegments(t, kind)
			var h Header
			if init != nil {
				var err error
				if h, err = ParseHeader(init); err != nil {
					t.Fatal(err)
				}
			}
			track := func(seg []byte, kind string) TrackReport {
				t.Helper()
				r, err := Inspect(seg, h)
				if err != nil {
					t.Fatal(err)
				}
				if f := r.Faults(); len(f) > 0 && kind != "" {
					t.Fatalf("faults: %v", f)
				}
				for _, tr := range r.Tracks {
					if tr.Kind == kind {
						return tr
					}
				}
				return TrackReport{}
			}
			in := Input{Number: 1, Segment: segs[1], Earlier: segs[0], Header: h}
			spoil := func(d Defect) []byte {
				t.Helper()
				out, err := Spoil(d, in)
				if err != nil {
					t.Fatalf("%+v: %v", d, err)
				}
				return out
			}
			near := func(a, b time.Duration) bool { return (a - b).Abs() < 100*time.Millisecond }
			v, a, v0 := track(segs[1], Video), track(segs[1], Audio), track(segs[0], Video)
			if !near(v.Duration, 2*time.Second) || !near(v.Start-v0.Start, 2*time.Second) || v.Frames != 50 {
				t.Fatalf("healthy: %+v after %+v", v, v0)
			}
			if s := track(spoil(Defect{Kind: Short, Keep: 0.5}), Video); !near(s.Duration, time.Second) || s.Start != v.Start {
				t.Errorf("short pictures: %+v", s)
			}
			if s := track(spoil(Defect{Kind: Short, Keep: 0.5}), Audio); s.Duration > 1500*time.Millisecond || s.Start != a.Start {
				t.Errorf("short sound: %+v", s)
			}
			if s := track(spoil(Defect{Kind: MissingFrames, Share: 0.5}), Video); s.Frames > 40 || s.Start != v.Start || !near(s.Duration, v.Duration) {
				t.Errorf("missing frames: %+v", s)
			}
			if s := track(spoil(Defect{Kind: WrongTime, Shift: 5 * time.Second}), Video); s.Start != v.Start+5*time.Second || s.Media != v.Media {
				t.Errorf("wrong timestamp: %+v", s)
			}
			frozen := spoil(Defect{Kind: Frozen})
			if s := track(frozen, Video); !near(s.Start, v.Start) || s.Media != v0.Media || !near(s.Duration, v.Duration) {
				t.Errorf("frozen pictures: %+v", s)
			}
			if s := track(frozen, Audio); s.Media != a.Media || s.Start != a.Start || s.Duration != a.Duration || s.Frames != a.Frames {
				t.Errorf("sound of frozen pictures: %+v, was %+v", s, a)
			}
			r, err := Inspect(spoil(Defect{Kind: Corrupt, Share: 0.5}), h)
			if err != nil || len(r.Faults()) == 0 {
				t.Errorf("corrupt: %+v, %v", r, err)
			}
			// Frames that others refer to leave a hole that a decoder speaks of; the rest is clean.
			for _, d := range []Defect{{Kind: Short, Keep: 0.5}, {Kind: Frozen}, {Kind: WrongTime, Shift: time.Second}} {
				probe(t, d.Kind, init, spoil(d), true)
			}
			probe(t, Corrupt, init, spoil(Defect{Kind: Corrupt, Share: 0.5}), false)
		})
	}
}

// ffmpeg decodes spoiled reference segments: without a word where only times or frames are wrong, with errors where bytes are.
func TestSpoiledReferenceSegmentsInFFmpeg(t *testing.T) {
	v := sports(t, "v360")
	in := Input{Number: present, Segment: v.segment(t, present), Earlier: v.segment(t, present-1), Header: v.header}
	for _, d := range []Defect{{Kind: Short, Keep: 0.5}, {Kind: Frozen}, {Kind: WrongTime, Shift: time.Second}, {Kind: Corrupt, Share: 0.2}} {
		out, err := Spoil(d, in)
		if err != nil {
			t.Fatal(err)
		}
		probe(t, d.Kind, v.init, out, d.Kind != Corrupt)
	}
}

// probe decodes a segment with ffmpeg.
func probe(t testing.TB, what string, init, seg []byte, clean bool) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	cmd := exec.Command("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-i", "pipe:0", "-map", "0:v", "-f", "null", "-")
	cmd.Stdin = bytes.NewReader(append(bytes.Clone(init), seg...))
	out, err := cmd.CombinedOutput()
	if said := len(bytes.TrimSpace(out)) > 0 || err != nil; said == clean {
		t.Errorf("%s: ffmpeg says %q, %v", what, out, err)
	}
}

func TestTransportTimesWrap(t *testing.T) {
	b := []byte{0x31, 0, 1, 0, 1}
	for _, v := range []int64{0, 1, 90_000, tsWrap - 1, tsWrap / 2, 0x123456789} {
		putStamp(b, v)
		if got := stamp(b); got != v || b[0]&0xf1 != 0x31 || b[2]&1 != 1 || b[4]&1 != 1 {
			t.Errorf("%d reads back as %d, %x", v, got, b)
		}
	}
	p := make([]byte, 6)
	p[4] = 0x7e
	for _, v := range []int64{0, 1, tsWrap - 1, 0x123456789} {
		putClock(p, v)
		if got := clock(p); got != v || p[4]&0x7f != 0x7e {
			t.Errorf("%d reads back as %d", v, got)
		}
	}
	if d := after(10, tsWrap-10); d != 20 {
		t.Errorf("%d", d)
	}
}

func BenchmarkSpoil(b *testing.B) {
	v := sports(b, "v720")
	in := Input{Number: present, Segment: v.segment(b, present), Earlier: v.segment(b, present-1), Header: v.header}
	for _, d := range []Defect{{Kind: Short, Keep: 0.5}, {Kind: Frozen}, {Kind: Corrupt, Share: 0.2}, {Kind: WrongTime, Shift: time.Second}} {
		b.Run(d.Kind, func(b *testing.B) {
			b.SetBytes(int64(len(in.Segment)))
			for b.Loop() {
				if _, err := Spoil(d, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzSpoil(f *testing.F) {
	v, a := sports(f, "v360"), sports(f, "a-en")
	f.Add(a.segment(f, present)[:600], uint8(3))
	// Two chunks of a few small frames: what a fuzzer gets through quickly.
	l, err := encoder.Load("sports")
	if err != nil {
		f.Fatal(err)
	}
	track := l.Segment(present).Tracks[0]
	track.Samples = slices.Clone(track.Samples[:4])
	for i := range track.Samples {
		track.Samples[i].Data = []byte{0, 0, 0, 3, 0x65, byte(i), 1, 0, 0, 0, 1, 0x41}
	}
	small, err := packager.Media(track, 7, false)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 6 {
		f.Add(small, uint8(i))
		f.Add(slices.Concat(small, small), uint8(i))
	}
	ts := make([]byte, 4*tsPacket)
	for i := range 4 {
		copy(ts[i*tsPacket:], []byte{tsSync, 0x41, 0x00, 0x10, 0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0, 1, byte(i), 1, 0x11, 0, 1, byte(i), 1, 0, 0, 1, 0x65})
	}
	f.Add(ts, uint8(1))
	defects := []Defect{
		{Kind: Short, Keep: 0.5}, {Kind: MissingFrames, Share: 0.5}, {Kind: Corrupt, Share: 0.5}, {Kind: Frozen}, {Kind: WrongTime, Shift: -time.Hour},
	}
	f.Fuzz(func(t *testing.T, seg []byte, which uint8) {
		d := defects[int(which)%len(defects)]
		for _, h := range []Header{{}, v.header} {
			out, err := Spoil(d, Input{Number: 1, Segment: seg, Earlier: seg[:len(seg)/188*188], Header: h})
			if err != nil && !errors.Is(err, ErrUnspoilable) {
				t.Fatalf("%v", err)
			}
			if len(out) > 8*len(seg)+64<<10 {
				t.Fatalf("%d bytes became %d", len(seg), len(out))
			}
			_, _ = Inspect(seg, h)
			_, _ = Inspect(out, h)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	f.Add(sports(f, "v360").init)
	f.Add(sports(f, "a-en").init)
	f.Fuzz(func(t *testing.T, raw []byte) { _, _ = ParseHeader(raw) })
}

func FuzzLayout(f *testing.F) {
	f.Add("/live/$RepresentationID$/$Number%05d$.m4s", "/live/v1080/00010.m4s")
	f.Add("/hls/{rung}/{number}.ts", "/hls/a/1.ts")
	f.Fuzz(func(t *testing.T, template, path string) {
		l, err := Template(template)
		if err != nil {
			return
		}
		if r, ok := l.Find(path); ok && r.Kind == Segment {
			if again, ok := l.Find(r.Sibling(r.Number)); !ok || again.Number != r.Number {
				t.Fatalf("%q: %q has the sibling %q", template, path, r.Sibling(r.Number))
			}
		}
	})
}
