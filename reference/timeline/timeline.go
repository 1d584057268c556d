package timeline

import "time"

// SegmentDuration is the segment duration of the reference pipeline.
const SegmentDuration = 2 * time.Second

// Timeline is a segment duration; d must be positive and divide a second or be a multiple of a millisecond.
type Timeline struct{ Duration time.Duration }

// Default is the reference pipeline's timeline: 2 s segments.
var Default = Timeline{SegmentDuration}

// At returns the number of the segment that covers t: floor(t / d). Times before the epoch return 0.
func (tl Timeline) At(t time.Time) uint64 {
	ns := t.UnixNano()
	if ns < 0 {
		return 0
	}
	return uint64(ns) / uint64(tl.Duration)
}

// Start returns the wall-clock time of segment n's first frame, in UTC.
func (tl Timeline) Start(n uint64) time.Time {
	return time.Unix(0, int64(n)*int64(tl.Duration)).UTC()
}

// End returns the time at which segment n is complete, which is when segment n+1 starts: no encoder can have
// published n before it.
func (tl Timeline) End(n uint64) time.Time { return tl.Start(n + 1) }

// LastComplete returns the newest segment whose last frame has been captured at now, and false when there is none.
func (tl Timeline) LastComplete(now time.Time) (uint64, bool) {
	n := tl.At(now)
	if n == 0 {
		return 0, false
	}
	return n - 1, true
}

// DecodeTime returns segment n's start in units of timescale since the epoch, exact for a timescale that makes a
// segment a whole number of units; otherwise rounded down.
func (tl Timeline) DecodeTime(n uint64, timescale uint32) uint64 {
	// n·d·timescale overflows 64 bits in nanoseconds: split into seconds and a remainder.
	ms := n * uint64(tl.Duration/time.Millisecond)
	return ms/1000*uint64(timescale) + ms%1000*uint64(timescale)/1000
}

// Frames returns the frames that belong to segment n of a track whose frame k starts k·frame/timescale seconds after the
// epoch: those whose start lies in [n·d, (n+1)·d). A frame duration that does not divide the segment makes the count vary
// without ever drifting: AAC at 48 kHz (1024/48000 s) gives 94, 94, 94, 93 frames to every four 2 s segments. Both frame and
// timescale must be positive.
func (tl Timeline) Frames(n uint64, frame, timescale uint32) (first, count uint64) {
	f := uint64(frame)
	first = (tl.DecodeTime(n, timescale) + f - 1) / f
	next := (tl.DecodeTime(n+1, timescale) + f - 1) / f
	return first, next - first
}
