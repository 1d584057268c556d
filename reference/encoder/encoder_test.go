package encoder_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func TestSportsLadder(t *testing.T) {
	var got strings.Builder
	for _, r := range sports(t).Renditions() {
		fmt.Fprintln(&got, r.ID, r.Kind, r.Codecs, r.Width, r.Height, r.FrameRate, r.Language, r.SampleHz, r.Channels, r.Timescale)
		if r.Average <= 0 || r.Bandwidth < r.Average {
			t.Errorf("%s: peak %d bits/s, average %d", r.ID, r.Bandwidth, r.Average)
		}
	}
	const want = `v360 video avc1.4D401E 640 360 30  0 0 90000
v540 video avc1.4D401F 960 540 30  0 0 90000
v720 video avc1.64001F 1280 720 30  0 0 90000
a-en audio mp4a.40.2 0 0  en 48000 2 48000
a-es audio mp4a.40.2 0 0  es 48000 2 48000
`
	if got.String() != want {
		t.Errorf("ladder:\n%swant:\n%s", got.String(), want)
	}
}

func TestUnknownLadderNamesTheKnown(t *testing.T) {
	if _, err := encoder.Load("opera"); err == nil || !strings.Contains(err.Error(), "sports") {
		t.Errorf("an unknown ladder gives %v", err)
	}
}

func TestLanguagesDiffer(t *testing.T) {
	tracks := sports(t).Segment(4).Tracks
	same := 0
	en, es := tracks[3].Samples, tracks[4].Samples
	for i := range en {
		if bytes.Equal(en[i].Data, es[i].Data) {
			same++
		}
	}
	if same > 0 {
		t.Errorf("%d of %d access units are the same in both languages", same, len(en))
	}
}

// n alone decides every frame: each is the one its place on the epoch's time line asks for.
func TestSegmentIsAFunctionOfItsNumber(t *testing.T) {
	l := sports(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 1<<31).Draw(t, "n")
		seg, turn := l.Segment(n), l.Segment(n+4)
		if seg.Number != n {
			t.Fatalf("asked for %d, got %d", n, seg.Number)
		}
		for i, track := range seg.Tracks {
			r := track.Rendition
			start := timeline.Default.DecodeTime(n, r.Timescale)
			if track.DecodeTime < start || track.DecodeTime-start >= uint64(track.Samples[0].Duration) {
				t.Fatalf("%s: segment %d starts at %d, its first frame at %d", r.ID, n, start, track.DecodeTime)
			}
			if r.Kind == manifest.Video && (track.DecodeTime != start || len(track.Samples) != 60) {
				t.Fatalf("%s: segment %d has %d frames from %d, want 60 from %d", r.ID, n, len(track.Samples), track.DecodeTime, start)
			}
			if len(track.Samples) != track.Want || !track.Samples[0].Sync {
				t.Fatalf("%s: segment %d has %d of %d frames, sync %v", r.ID, n, len(track.Samples), track.Want, track.Samples[0].Sync)
			}
			// The loop is four segments long.
			for j, s := range turn.Tracks[i].Samples {
				if &s.Data[0] != &track.Samples[j].Data[0] {
					t.Fatalf("%s: frame %d of segments %d and %d differ", r.ID, j, n, n+4)
				}
			}
		}
	})
}

type handed struct {
	n  uint64
	at time.Time
}

func TestSegmentsAreHandedOverAtTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1234 * time.Millisecond) // start anywhere but on a boundary
		first := timeline.Default.At(time.Now())
		var got []handed
		enc, err := encoder.New(encoder.Config{
			Ladder: sports(t), Timeline: timeline.Default, First: first - 100, Last: first + 999, Now: time.Now,
			Publish: func(s encoder.Segment) {
				got = append(got, handed{s.Number, time.Now()})
				time.Sleep(150 * time.Millisecond) // packaging takes a while; it must not add up
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1000 {
			t.Fatalf("%d segments, want 1000", len(got))
		}
		for i, h := range got {
			if h.n != first+uint64(i) || !h.at.Equal(timeline.Default.End(h.n)) {
				t.Fatalf("segment %d handed over at %v, want %d at %v", h.n, h.at, first+uint64(i), timeline.Default.End(h.n))
			}
		}
	})
}

func TestAnEventInTheFutureIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := timeline.Default.At(time.Now()) + 30
		var got []handed
		enc, err := encoder.New(encoder.Config{
			Ladder: sports(t), Timeline: timeline.Default, First: first, Last: first, Now: time.Now,
			Publish: func(s encoder.Segment) { got = append(got, handed{s.Number, time.Now()}) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].n != first || !got[0].at.Equal(timeline.Default.End(first)) {
			t.Errorf("handed over %v, want %d at %v", got, first, timeline.Default.End(first))
		}
	})
}

// A process that hung for a minute gives the players what they can still use, and says what it gave up.
func TestALateEncoderCatchesUpWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := timeline.Default.At(time.Now())
		var got []uint64
		var from, to uint64
		enc, err := encoder.New(encoder.Config{
			Ladder: sports(t), Timeline: timeline.Default, First: first, Last: first + 40, Now: time.Now,
			Publish: func(s encoder.Segment) {
				got = append(got, s.Number-first)
				if s.Number == first+2 {
					time.Sleep(time.Minute)
				}
			},
			Skipped: func(f, t uint64) { from, to = f-first, t-first },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		// 2 was handed over at 6 s; at 66 s segment 32 is the newest complete one.
		want := []uint64{0, 1, 2, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("handed over %v, want %v", got, want)
		}
		if from != 3 || to != 28 {
			t.Errorf("said that %d to %d were skipped, want 3 to 28", from, to)
		}
	})
}

// A wall clock that is set back makes the encoder wait, never repeat itself.
func TestAClockSetBackRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shift atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		first := timeline.Default.At(now())
		var got []handed
		enc, err := encoder.New(encoder.Config{
			Ladder: sports(t), Timeline: timeline.Default, First: first, Last: first + 4, Now: now,
			Publish: func(s encoder.Segment) {
				got = append(got, handed{s.Number - first, now()})
				if s.Number == first+1 {
					shift.Add(-int64(5 * time.Second))
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, h := range got {
			if h.n != uint64(i) || !h.at.Equal(timeline.Default.End(first+h.n)) {
				t.Errorf("hand-over %d: segment %d at %v", i, h.n, h.at)
			}
		}
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		enc, err := encoder.New(encoder.Config{
			Ladder: sports(t), Timeline: timeline.Default, Now: time.Now, Publish: func(encoder.Segment) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- enc.Run(ctx) }()
		time.Sleep(5 * time.Second)
		cancel()
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("still running")
		}
	})
}

func TestConfigReportsEverything(t *testing.T) {
	_, err := encoder.New(encoder.Config{First: 7, Last: 3})
	for _, want := range []string{"ladder", "clock", "publish", "last segment 3"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in %v", want, err)
		}
	}
}

// Everybody who clones the repository, and every binary, carries the clips.
func TestClipsStaySmall(t *testing.T) {
	files, err := filepath.Glob("clips/*.*")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 6_000_000 {
		t.Errorf("the clips take %d bytes, more than 6 MB", total)
	}
}
