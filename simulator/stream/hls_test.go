package stream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/hls-m3u8/m3u8"
	"pgregory.net/rapid"
)

const mediaURL = "http://127.0.0.1:9/live/v/media.m3u8"

func playlistOf(t *testing.T, body string, now time.Time, mark *Mark) *Index {
	t.Helper()
	x, err := ParsePlaylist([]byte(body), mediaURL, now, mark)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestMediaPlaylistWithDates(t *testing.T) {
	x := playlistOf(t, `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:100
#EXT-X-SERVER-CONTROL:HOLD-BACK=6.0
#EXT-X-MAP:URI="init.mp4",BYTERANGE="700@0"
#EXTINF:2.000,
s100.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T20:00:02.000+0000
#EXTINF:2.000,title, with a comma
#EXT-X-BYTERANGE:1000@700
s.m4s
#EXTINF:2,
#EXT-X-BYTERANGE:500
s.m4s
#EXT-X-DISCONTINUITY
#EXT-X-GAP
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T20:00:30Z
#EXTINF:2,
/abs.m4s
`, at(32.5), nil)
	if x.Hold != 6*time.Second || x.Target != 2*time.Second || x.Ended || x.Last() != 103 {
		t.Errorf("index %+v", x)
	}
	want := []struct {
		t     float64
		place Place
		url   string
		start float64
		rng   ByteRange
		era   int
		gap   bool
	}{
		{-5, Later, "/live/v/s100.m4s", 0, ByteRange{}, 0, false}, // dated backwards from the segment after it
		{0, Here, "/live/v/s100.m4s", 0, ByteRange{}, 0, false},
		{2, Here, "/live/v/s.m4s", 2, ByteRange{700, 1000}, 0, false},
		{5, Here, "/live/v/s.m4s", 4, ByteRange{1700, 500}, 0, false},
		{7, Later, "/abs.m4s", 30, ByteRange{}, 1, true},
		{31.95, Ahead, "", 0, ByteRange{}, 0, false},
	}
	for _, w := range want {
		s, place := x.At(at(w.t))
		if place != w.place {
			t.Errorf("At(%v): place %d, want %d", w.t, place, w.place)
			continue
		}
		if place == Ahead {
			continue
		}
		if s.URL != "http://127.0.0.1:9"+w.url || !s.Start.Equal(at(w.start)) || s.Range != w.rng || s.Era != w.era || s.Gap != w.gap {
			t.Errorf("At(%v) = %+v, want %+v", w.t, s, w)
		}
		if s.Init == nil || s.Init.URL != "http://127.0.0.1:9/live/v/init.mp4" || s.Init.Range.Length != 700 || s.MediaTime != -1 {
			t.Errorf("init %+v, media time %s", s.Init, s.MediaTime)
		}
	}
	if e, _ := x.LiveEdge(at(0)); !e.Equal(at(32)) {
		t.Errorf("live edge %v", e.Sub(t0))
	}
}

// Without dates the first load ties the end of the playlist to its time; reloads and other renditions count on from it.
func TestMediaPlaylistWithoutDates(t *testing.T) {
	list := func(first, n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:%d\n", first)
		for i := range n {
			fmt.Fprintf(&b, "#EXTINF:2.0,\n%d.ts\n", first+i)
		}
		return b.String()
	}
	x := playlistOf(t, list(10, 5), at(20), nil)
	if s, place := x.At(at(10)); place != Here || s.Number != 10 || s.Init != nil {
		t.Errorf("first load: %+v %d", s, place)
	}
	mark, _ := x.Mark()
	if mark.Number != 14 || !mark.Start.Equal(at(18)) {
		t.Errorf("mark %+v", mark)
	}
	// One segment on, loaded at an odd moment: nothing moves.
	x = playlistOf(t, list(11, 5), at(23.7), &mark)
	if s, place := x.At(at(18)); place != Here || s.Number != 14 {
		t.Errorf("reload: %+v %d", s, place)
	}
	// The whole window has passed since.
	x = playlistOf(t, list(30, 3), at(70), &mark)
	if s, _ := x.At(at(51)); s.Number != 30 || !s.Start.Equal(at(50)) {
		t.Errorf("after a long absence: %d at %v", s.Number, s.Start.Sub(t0))
	}
	// Dates of a recording looped from years ago are no wall clock.
	old := strings.Replace(list(10, 5), "#EXTINF", "#EXT-X-PROGRAM-DATE-TIME:2010-01-01T00:00:00Z\n#EXTINF", 1)
	x = playlistOf(t, old, at(20), nil)
	if e, _ := x.LiveEdge(at(20)); !e.Equal(at(20)) {
		t.Errorf("looped recording: live edge %s", e)
	}
	// And the end.
	x = playlistOf(t, list(10, 5)+"#EXT-X-ENDLIST\n", at(20), nil)
	if _, place := x.At(at(20)); place != Beyond || !x.Ended {
		t.Errorf("after the end: place %d", place)
	}
}

func TestMultivariant(t *testing.T) {
	p := parse(t, `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aud-b",NAME="English",LANGUAGE="en",DEFAULT=YES,URI="http://127.0.1.12/ev/en/media.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aud-a",NAME="Español",LANGUAGE="es",URI="http://127.0.1.11/ev/es/media.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aud-a",NAME="English",LANGUAGE="en",DEFAULT=YES,URI="http://127.0.1.11/ev/en/media.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="English",URI="s.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=2000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,AUDIO="aud-a",PATHWAY-ID="a"
http://127.0.1.11/ev/hi/media.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=500000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=640x360,AUDIO="aud-a",PATHWAY-ID="a"
http://127.0.1.11/ev/lo/media.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=2000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,AUDIO="aud-b",PATHWAY-ID="b"
http://127.0.1.12/ev/hi/media.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=500000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=640x360,AUDIO="aud-b",PATHWAY-ID="b"
http://127.0.1.12/ev/lo/media.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=96000,CODECS="mp4a.40.2",AUDIO="aud-b",PATHWAY-ID="b"
http://127.0.1.12/ev/en/media.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="i.m3u8"
`, "http://127.0.1.5/master.m3u8", at(0))
	var ids []string
	for _, r := range p.Renditions {
		ids = append(ids, fmt.Sprintf("%s/%s%v", r.Kind, r.ID, r.Audio))
	}
	if got := strings.Join(ids, " "); got != "video/360p[2 3] video/720p[2 3] audio/English[] audio/Español[]" {
		t.Errorf("renditions %s", got)
	}
	if fmt.Sprint(p.Paths) != "[a b]" {
		t.Errorf("paths %v", p.Paths)
	}
	for _, c := range []struct {
		r    int
		path string
		want string
	}{{0, "a", "http://127.0.1.11/ev/lo/media.m3u8"}, {1, "b", "http://127.0.1.12/ev/hi/media.m3u8"}, {2, "b", "http://127.0.1.12/ev/en/media.m3u8"},
		{2, "a", "http://127.0.1.11/ev/en/media.m3u8"}, {3, "b", ""}} {
		if s, _ := p.Source(c.r, c.path); s.Playlist != c.want {
			t.Errorf("rendition %d on %s: %q, want %q", c.r, c.path, s.Playlist, c.want)
		}
	}
}

func TestRedundantStreamsAreNamedByHost(t *testing.T) {
	p := parse(t, `#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=500000
http://127.0.1.1/lo.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=500000
http://127.0.1.2/lo.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000
http://127.0.1.1/hi.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000
http://127.0.1.2/hi.m3u8
`, "http://127.0.1.1/master.m3u8", at(0))
	if fmt.Sprint(p.Paths) != "[127.0.1.1 127.0.1.2]" || len(p.Renditions) != 2 || p.Renditions[0].ID != "500k" {
		t.Errorf("paths %v, renditions %+v", p.Paths, p.Renditions)
	}
	if s, ok := p.Source(1, "127.0.1.2"); !ok || s.Playlist != "http://127.0.1.2/hi.m3u8" {
		t.Errorf("source %+v", s)
	}
}

func TestHLSRefusals(t *testing.T) {
	head := "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
	cases := []struct {
		name, body string
		is         error
		says       string
	}{
		{"no target duration", "#EXTM3U\n#EXTINF:2,\na.ts\n", ErrMalformed, "TARGETDURATION"},
		{"no EXTINF", head + "a.ts\n", ErrMalformed, "line 3: malformed: a URI without EXTINF"},
		{"bad duration", head + "#EXTINF:two,\na.ts\n", ErrMalformed, `line 3: malformed: "two"`},
		{"infinite", head + "#EXTINF:+Inf,\na.ts\n", ErrMalformed, "duration"},
		{"encrypted", head + `#EXT-X-KEY:METHOD=AES-128,URI="k"` + "\n", ErrUnsupported, "AES-128"},
		{"delta update", head + "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n", ErrUnsupported, "EXT-X-SKIP"},
		{"variables", head + `#EXT-X-DEFINE:NAME="a",VALUE="b"` + "\n", ErrUnsupported, "DEFINE"},
		{"i-frames", head + "#EXT-X-I-FRAMES-ONLY\n", ErrUnsupported, "I-FRAMES"},
		{"bad range", head + "#EXT-X-BYTERANGE:-3@x\n", ErrMalformed, "byte range"},
		{"bad date", head + "#EXT-X-PROGRAM-DATE-TIME:yesterday\n", ErrMalformed, "DATE-TIME"},
		{"late sequence", head + "#EXTINF:1,\na\n#EXT-X-MEDIA-SEQUENCE:3\n", ErrMalformed, "after a segment"},
		{"variant without URI", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", ErrMalformed, "no URI"},
		{"variant without bandwidth", "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"x\"\na\n", ErrMalformed, "BANDWIDTH"},
		{"open quote", "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"x\na\n", ErrMalformed, "closing quote"},
		{"no such group", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"x\"\na\n", ErrMalformed, "audio group"},
		{"other scheme", head + "#EXTINF:1,\nfile:///etc/passwd\n", ErrUnsupported, "want http"},
		{"too many", head + strings.Repeat("#EXTINF:1,\na\n", maxSegments+1), ErrMalformed, "more than"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.body), mediaURL, at(0), nil)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want %v that says %q", err, c.is, c.says)
			}
		})
	}
}

// What hls-m3u8 writes is read here as it was meant: the tests' second opinion.
func TestAgreesWithHLSM3U8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "segments")
		p, err := m3u8.NewMediaPlaylist(uint(n), uint(n))
		if err != nil {
			t.Fatal(err)
		}
		p.SeqNo = rapid.Uint64Range(0, 1<<40).Draw(t, "sequence")
		dated := rapid.Bool().Draw(t, "dated")
		var lengths []float64
		for i := range n {
			d := float64(rapid.IntRange(1, 10_000).Draw(t, "ms")) / 1000
			s := &m3u8.MediaSegment{URI: fmt.Sprintf("%d.ts", i), Duration: d}
			if dated && i == 0 {
				s.ProgramDateTime = t0
			}
			if err := p.AppendSegment(s); err != nil {
				t.Fatal(err)
			}
			lengths = append(lengths, d)
		}
		total := 0.0
		for _, d := range lengths {
			total += d
		}
		start, now := 0.0, at(total+3)
		if !dated {
			now = at(total)
		}
		x, err := ParsePlaylist(p.Encode().Bytes(), mediaURL, now, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range lengths {
			s, place := x.At(at(start + d/2))
			if place != Here || s.Number != p.SeqNo+uint64(i) || !strings.HasSuffix(s.URL, fmt.Sprintf("/%d.ts", i)) || s.Start.Sub(at(start)).Abs() > time.Millisecond {
				t.Fatalf("segment %d: place %d %+v, want it at %v", i, place, s, start)
			}
			start += d
		}
	})
}

func FuzzParseHLS(f *testing.F) {
	for _, pattern := range []string{"../../reference/manifest/testdata/*.m3u8"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil {
				f.Add(b)
			}
		}
	}
	f.Add([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=NONE\nfoo\n"))
	f.Add([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:5\n#EXT-X-DISCONTINUITY\n#EXT-X-BYTERANGE:5\n#EXTINF:2.5,x\na.ts\n#EXT-X-GAP\n#EXTINF:0,\nb.ts\n"))
	fuzzParse(f, "http://127.0.0.1/a/b.m3u8")
}
