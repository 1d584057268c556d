package stream

import (
	"errors"
	"time"
)

// ErrUnsupported marks a stream that is well-formed but outside what tminus plays; the error says what.
var ErrUnsupported = errors.New("unsupported")

// Kinds of renditions and of media in a segment. A rendition with picture and sound in one is Video.
const (
	Video = "video"
	Audio = "audio"
)

// Formats.
const (
	DASH = "dash"
	HLS  = "hls"
)

// ByteRange is a part of a resource (RFC 9110 section 14.1.2). Length 0: all of it.
type ByteRange struct{ Offset, Length int64 }

// Media is what an init or media segment turned out to hold.
type Media struct {
	Container string // "mp4" or "ts"
	Tracks    []Track
}

// Track is one track of an init segment, or its share of a media segment.
type Track struct {
	ID              uint32
	Kind            string // Video, Audio, or "" for others
	Timescale       uint32 // units a second
	DefaultDuration uint32 // of a sample, units; from an init segment's trex
	Decode          uint64 // decode time of the first sample, units
	Duration        uint64 // of all samples, units; 0 when a TS segment does not tell
	Samples         int
}

// Start is the decode time of the track's first sample as a duration since the media timeline's zero.
func (t Track) Start() time.Duration { return units(t.Decode, t.Timescale) }

// Length is the duration of the track's samples.
func (t Track) Length() time.Duration { return units(t.Duration, t.Timescale) }

// units converts n units of 1/timescale s without overflowing before the result does.
func units(n uint64, timescale uint32) time.Duration {
	if timescale == 0 {
		return 0
	}
	ts := uint64(timescale)
	sec, rest := n/ts, n%ts
	const maxSec = uint64(1<<63-1) / uint64(time.Second)
	if sec >= maxSec {
		return 1<<63 - 1
	}
	return time.Duration(sec)*time.Second + time.Duration(rest*uint64(time.Second)/ts)
}
