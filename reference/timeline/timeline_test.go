package timeline_test

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/timeline"
	"pgregory.net/rapid"
)

func TestSegmentOfAMoment(t *testing.T) {
	tl := timeline.Default
	for _, c := range []struct {
		at   time.Time
		want uint64
	}{
		{time.Unix(0, 0), 0},
		{time.Unix(1, 999_999_999), 0},
		{time.Unix(2, 0), 1},
		{time.Unix(1_764_000_000, 0), 882_000_000},
		{time.Unix(1_764_000_001, 999_999_999), 882_000_000},
		{time.Unix(-5, 0), 0},
	} {
		if got := tl.At(c.at); got != c.want {
			t.Errorf("segment at %v is %d, want %d", c.at, got, c.want)
		}
	}
}

func TestNothingIsCompleteInTheFirstSegment(t *testing.T) {
	if n, ok := timeline.Default.LastComplete(time.Unix(1, 0)); ok {
		t.Errorf("segment %d is complete one second after the epoch", n)
	}
	if n, ok := timeline.Default.LastComplete(time.Unix(4, 0)); !ok || n != 1 {
		t.Errorf("four seconds after the epoch the last complete segment is %d %v, want 1", n, ok)
	}
}

func durations(t *rapid.T) timeline.Timeline {
	return timeline.Timeline{Duration: time.Duration(rapid.IntRange(100, 10_000).Draw(t, "ms")) * time.Millisecond}
}

// A moment lies in the segment it maps to, and segments follow each other without a gap.
func TestMomentsAndSegmentsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tl := durations(t)
		at := time.Unix(0, rapid.Int64Range(0, 1<<62).Draw(t, "ns"))
		n := tl.At(at)
		if at.Before(tl.Start(n)) || !at.Before(tl.End(n)) {
			t.Fatalf("%v is in segment %d, which covers [%v, %v)", at, n, tl.Start(n), tl.End(n))
		}
		if !tl.End(n).Equal(tl.Start(n + 1)) {
			t.Fatalf("segment %d ends at %v, the next starts at %v", n, tl.End(n), tl.Start(n+1))
		}
	})
}

// Every frame of a track is in exactly one segment: the one its start lies in.
func TestFramesArePartitioned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tl := timeline.Timeline{Duration: time.Duration(rapid.IntRange(1, 10).Draw(t, "s")) * time.Second}
		frame := rapid.Uint32Range(1, 4096).Draw(t, "frame")
		timescale := rapid.Uint32Range(frame, 96_000).Draw(t, "timescale")
		n := rapid.Uint64Range(0, 1<<31).Draw(t, "n")
		first, count := tl.Frames(n, frame, timescale)
		next, _ := tl.Frames(n+1, frame, timescale)
		if first+count != next {
			t.Fatalf("segment %d ends at frame %d, the next starts at %d", n, first+count, next)
		}
		start, end := tl.DecodeTime(n, timescale), tl.DecodeTime(n+1, timescale)
		if at := first * uint64(frame); at < start || at >= start+uint64(frame) {
			t.Fatalf("segment %d starts at %d, its first frame at %d", n, start, at)
		}
		if last := (next - 1) * uint64(frame); count > 0 && last >= end {
			t.Fatalf("segment %d ends at %d, its last frame starts at %d", n, end, last)
		}
	})
}

func TestAACFramesAlignEveryFourSegments(t *testing.T) {
	want := []uint64{94, 94, 94, 93}
	for n := uint64(882_000_000); n < 882_000_016; n++ {
		first, count := timeline.Default.Frames(n, 1024, 48_000)
		if count != want[n%4] {
			t.Errorf("segment %d has %d AAC frames, want %d", n, count, want[n%4])
		}
		if n%4 == 0 && first*1024 != timeline.Default.DecodeTime(n, 48_000) {
			t.Errorf("segment %d does not start on an AAC frame", n)
		}
		if _, count := timeline.Default.Frames(n, 3000, 90_000); count != 60 {
			t.Errorf("segment %d has %d frames at 30 a second, want 60", n, count)
		}
	}
}

func TestDecodeTimeIsExactFarFromTheEpoch(t *testing.T) {
	if got, want := timeline.Default.DecodeTime(882_000_000, 90_000), uint64(1_764_000_000*90_000); got != want {
		t.Errorf("decode time %d, want %d", got, want)
	}
	if got, want := timeline.Default.DecodeTime(1<<32, 90_000), uint64(1<<33*90_000); got != want {
		t.Errorf("decode time %d, want %d", got, want)
	}
}
