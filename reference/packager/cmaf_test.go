package packager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
	"pgregory.net/rapid"
)

func sports(t testing.TB) *encoder.Ladder {
	t.Helper()
	l, err := encoder.Load("sports")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// present is a segment number of the day this was written.
const present = 882_000_001

func TestInitIsCMAFHeader(t *testing.T) {
	l := sports(t)
	for _, r := range l.Renditions() {
		codec, _ := l.Codec(r.ID)
		raw, err := Init(r, codec)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := Init(r, codec)
		if !bytes.Equal(raw, again) {
			t.Errorf("%s: two init segments differ", r.ID)
		}
		file, err := mp4.DecodeFile(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", r.ID, err)
		}
		for _, brand := range []string{"cmfc", "cmf2"} {
			if !slices.Contains(file.Ftyp.CompatibleBrands(), brand) {
				t.Errorf("%s: ftyp lacks %s", r.ID, brand)
			}
		}
		mdhd := file.Init.Moov.Trak.Mdia.Mdhd
		if mdhd.Timescale != r.Timescale {
			t.Errorf("%s: timescale %d, want %d", r.ID, mdhd.Timescale, r.Timescale)
		}
		if want := map[string]string{"": "und", "en": "eng", "es": "spa"}[r.Language]; mdhd.GetLanguage() != want {
			t.Errorf("%s: language %s, want %s", r.ID, mdhd.GetLanguage(), want)
		}
		if mvhd := file.Init.Moov.Mvhd; mvhd.CreationTime != 0 || mdhd.CreationTime != 0 {
			t.Errorf("%s: a creation time makes regions differ", r.ID)
		}
	}
}

// A segment read back is what the encoder made, at the time the number says.
func TestMediaRoundTrip(t *testing.T) {
	l := sports(t)
	for _, n := range []uint64{0, 1, 2, 3, present, present + 1} {
		for _, track := range l.Segment(n).Tracks {
			id := fmt.Sprintf("%s/%d", track.Rendition.ID, n)
			raw, err := Media(track, n, false)
			if err != nil {
				t.Fatal(err)
			}
			file, err := mp4.DecodeFile(bytes.NewReader(raw))
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if len(file.Segments) != 1 || len(file.Segments[0].Fragments) != 1 {
				t.Fatalf("%s: not one fragment", id)
			}
			seg, frag := file.Segments[0], file.Segments[0].Fragments[0]
			var boxes []string
			var prft *mp4.PrftBox
			for _, b := range file.Children {
				boxes = append(boxes, b.Type())
				if p, ok := b.(*mp4.PrftBox); ok {
					prft = p
				}
			}
			if !slices.Equal(boxes, []string{"styp", "prft", "moof", "mdat"}) {
				t.Fatalf("%s: boxes %v", id, boxes)
			}
			for _, brand := range []string{"cmfs", "cmff", "msdh"} {
				if !slices.Contains(seg.Styp.CompatibleBrands(), brand) {
					t.Errorf("%s: styp lacks %s", id, brand)
				}
			}
			traf := frag.Moof.Traf
			if !traf.Tfhd.DefaultBaseIfMoof() || traf.Tfdt.Version != 1 {
				t.Errorf("%s: default-base-is-moof %v, tfdt version %d", id, traf.Tfhd.DefaultBaseIfMoof(), traf.Tfdt.Version)
			}
			samples, err := frag.GetFullSamples(nil)
			if err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			if len(samples) != len(track.Samples) || len(samples) != track.Want {
				t.Fatalf("%s: %d samples, want %d", id, len(samples), track.Want)
			}
			decode := track.DecodeTime
			for i, s := range samples {
				want := track.Samples[i]
				if s.DecodeTime != decode || s.Dur != want.Duration || s.IsSync() != want.Sync || !bytes.Equal(s.Data, want.Data) {
					t.Fatalf("%s: sample %d differs", id, i)
				}
				decode += uint64(s.Dur)
			}
			// The reference time is the capture time of the first frame.
			captured := time.Unix(0, 0).Add(time.Duration(float64(track.DecodeTime) / float64(track.Rendition.Timescale) * 1e9))
			if diff := prft.NTPTimestamp.Time().Sub(captured).Abs(); n < 4 && diff > time.Microsecond {
				t.Errorf("%s: prft is %v off", id, diff)
			}
			if got := prft.NTPTimestamp.UTCSeconds(); got != track.DecodeTime/uint64(track.Rendition.Timescale) {
				t.Errorf("%s: prft at %d s", id, got)
			}
			if prft.MediaTime != track.DecodeTime {
				t.Errorf("%s: prft media time %d, want %d", id, prft.MediaTime, track.DecodeTime)
			}
		}
	}
}

func TestLastSegmentIsMarked(t *testing.T) {
	track := sports(t).Segment(7).Tracks[0]
	raw, err := Media(track, 7, true)
	if err != nil {
		t.Fatal(err)
	}
	file, err := mp4.DecodeFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(file.Segments[0].Styp.CompatibleBrands(), "lmsg") {
		t.Error("the last segment lacks the lmsg brand")
	}
}

func TestDefects(t *testing.T) {
	l := sports(t)
	whole := l.Segment(present)
	for i, track := range whole.Tracks {
		if d := Defects(timeline.Default, present, track); d != nil {
			t.Errorf("%s: whole segment has defects %v", track.Rendition.ID, d)
		}
		short := track
		short.Samples = track.Samples[:len(track.Samples)-2]
		if d := Defects(timeline.Default, present, short); !slices.Equal(d, []string{DefectMissingFrames, DefectShort}) {
			t.Errorf("%s without its last two frames: %v", track.Rendition.ID, d)
		}
		empty := track
		empty.Samples = nil
		if d := Defects(timeline.Default, present, empty); !slices.Equal(d, []string{DefectEmpty}) {
			t.Errorf("%s without a frame: %v", track.Rendition.ID, d)
		}
		if _, err := Media(empty, present, false); err == nil {
			t.Errorf("%s: an empty segment was packaged", track.Rendition.ID)
		}
		if i == 0 {
			headless := track
			headless.Samples = track.Samples[1:]
			headless.DecodeTime += uint64(track.Samples[0].Duration)
			if d := Defects(timeline.Default, present, headless); !slices.Equal(d, []string{DefectMissingFrames, DefectNoSync}) {
				t.Errorf("%s without its first frame: %v", track.Rendition.ID, d)
			}
		}
	}
}

// Whatever number is asked, in whatever order, segments of one rendition join without a gap or an overlap.
func TestSegmentsJoin(t *testing.T) {
	l := sports(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 1<<31).Draw(t, "n")
		a, b := l.Segment(n), l.Segment(n+1)
		for i := range a.Tracks {
			end := a.Tracks[i].DecodeTime
			for _, s := range a.Tracks[i].Samples {
				end += uint64(s.Duration)
			}
			if end != b.Tracks[i].DecodeTime {
				t.Fatalf("%s: segment %d ends at %d, the next starts at %d", a.Tracks[i].Rendition.ID, n, end, b.Tracks[i].DecodeTime)
			}
		}
	})
}

// ffmpeg decodes any run of segments behind the init segment, every frame, with steady time stamps.
func TestFFmpegDecodes(t *testing.T) {
	ffprobe, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Skip("ffprobe is not installed")
	}
	l := sports(t)
	const run = 10
	for _, r := range l.Renditions() {
		t.Run(r.ID, func(t *testing.T) {
			t.Parallel()
			codec, _ := l.Codec(r.ID)
			file, err := Init(r, codec)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			for n := uint64(present); n < present+run; n++ {
				for _, track := range l.Segment(n).Tracks {
					if track.Rendition.ID != r.ID {
						continue
					}
					raw, err := Media(track, n, false)
					if err != nil {
						t.Fatal(err)
					}
					file = append(file, raw...)
					want += track.Want
				}
			}
			name := filepath.Join(t.TempDir(), r.ID+".mp4")
			if err := os.WriteFile(name, file, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(ffprobe, "-v", "error", "-show_entries", "frame=pts,pkt_dts,nb_samples,width", "-of", "json", name)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || stderr.Len() > 0 {
				t.Fatalf("ffprobe: %v: %s", err, stderr.String())
			}
			var got struct {
				Frames []struct {
					PTS       int64 `json:"pts"`
					NBSamples int   `json:"nb_samples"`
					Width     int   `json:"width"`
				} `json:"frames"`
			}
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Frames) != want {
				t.Fatalf("%d frames decoded, want %d", len(got.Frames), want)
			}
			step := int64(r.Timescale)
			if r.Kind == manifest.Video {
				fps, _ := strconv.ParseInt(r.FrameRate, 10, 64)
				step /= fps
			} else {
				step = 1024
			}
			for i, f := range got.Frames {
				if i > 0 && f.PTS-got.Frames[i-1].PTS != step {
					t.Fatalf("frame %d comes %d units after the one before, want %d", i, f.PTS-got.Frames[i-1].PTS, step)
				}
				if r.Kind == manifest.Video && f.Width != r.Width {
					t.Fatalf("frame %d is %d wide, want %d", i, f.Width, r.Width)
				}
			}
		})
	}
}
