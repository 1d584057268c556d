package media

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Containers.
const (
	FMP4 = "fmp4"
	TS   = "ts"
)

// Report is what a segment's bytes say of themselves.
type Report struct {
	Container string
	Tracks    []TrackReport
	// Wraps: times count modulo this; 0: they do not.
	Wraps time.Duration
}

// TrackReport is one track of a segment.
type TrackReport struct {
	ID       uint32 // track id or PID
	Kind     string // Video, Audio or "": not known
	Start    time.Duration
	Duration time.Duration
	Frames   int // samples, or PES packets
	// Longest is the longest time that one frame stands.
	Longest time.Duration
	// Media is a hash of the frames' bytes, times left aside.
	Media [32]byte
	// Faults are what is wrong with the coded media, as far as that shows without decoding: a sentence each, a few at most.
	Faults []string
}

// Pictures is the track that a viewer watches: the first video track, else the only track.
func (r Report) Pictures() (TrackReport, bool) {
	if i := slices.IndexFunc(r.Tracks, func(t TrackReport) bool { return t.Kind == Video }); i >= 0 {
		return r.Tracks[i], true
	}
	if len(r.Tracks) == 1 {
		return r.Tracks[0], true
	}
	return TrackReport{}, false
}

// Faults gathers those of all tracks.
func (r Report) Faults() (out []string) {
	for _, t := range r.Tracks {
		out = append(out, t.Faults...)
	}
	return out
}

const maxFaults = 3

// Inspect reads a segment. An error says that it cannot be parsed at all. Without a header, the times of a fragmented
// MP4 are not known (0), nor are its tracks' kinds, and coded media is not looked into.
func Inspect(segment []byte, h Header) (Report, error) {
	switch {
	case looksLikeBMFF(segment):
		return inspectFMP4(segment, h)
	case looksLikeTS(segment):
		return inspectTS(segment)
	case len(segment) == 0:
		return Report{}, errors.New("the segment is empty")
	}
	return Report{}, errNoContainer
}

func inspectFMP4(segment []byte, h Header) (Report, error) {
	seg, err := parseFMP4(segment, h)
	if err != nil {
		return Report{}, err
	}
	out := Report{Container: FMP4}
	for _, t := range seg.tracks() {
		head := h.Tracks[t.id]
		r := TrackReport{ID: t.id, Kind: head.Kind, Frames: len(t.frames)}
		sum := sha256.New()
		var longest uint32
		for i, f := range t.frames {
			sum.Write(f.data)
			longest = max(longest, f.Dur)
			if head.NALLength > 0 && len(r.Faults) < maxFaults {
				if err := checkNALs(f.data, head); err != nil {
					r.Faults = append(r.Faults, fmt.Sprintf("frame %d of track %d: %s", i, t.id, err))
				}
			}
		}
		sum.Sum(r.Media[:0])
		if head.Timescale > 0 {
			r.Start = ticks(t.start, head.Timescale)
			r.Duration = ticks(t.duration(), head.Timescale)
			r.Longest = ticks(uint64(longest), head.Timescale)
		}
		out.Tracks = append(out.Tracks, r)
	}
	return out, nil
}

// ticks converts a time of up to centuries without overflow.
func ticks(n uint64, scale uint32) time.Duration {
	s := uint64(scale)
	if n/s >= math.MaxInt64/uint64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(n/s)*time.Second + time.Duration(n%s*uint64(time.Second)/s)
}

// checkNALs walks the NAL units of one sample.
func checkNALs(sample []byte, h TrackHeader) error {
	for at := 0; at < len(sample); {
		if len(sample)-at < h.NALLength+1 {
			return errors.New("stray bytes after its last NAL unit")
		}
		var size uint64
		switch h.NALLength {
		case 4:
			size = uint64(binary.BigEndian.Uint32(sample[at:]))
		default:
			return nil
		}
		at += h.NALLength
		if size == 0 || size > uint64(len(sample)-at) {
			return fmt.Errorf("a NAL unit of %d bytes where there are %d", size, len(sample)-at)
		}
		if err := checkNAL(sample[at]); err != nil {
			return err
		}
		at += int(size)
	}
	return nil
}

func checkNAL(head byte) error {
	if head&0x80 != 0 {
		return errors.New("a NAL unit's forbidden bit is set")
	}
	return nil
}

func inspectTS(segment []byte) (Report, error) {
	t, err := parseTS(segment)
	if err != nil {
		return Report{}, err
	}
	if len(t.units) == 0 {
		return Report{}, errors.New("there is no elementary stream in it")
	}
	out := Report{Container: TS, Wraps: ticks(tsWrap, tsHz)}
	pids, kinds := t.pids()
	for _, pid := range pids {
		first, length, n := t.span(pid)
		r := TrackReport{ID: uint32(pid), Kind: kinds[pid], Frames: n, Duration: ticks(uint64(length), tsHz)}
		if first >= 0 {
			r.Start = ticks(uint64(first), tsHz)
		}
		sum := sha256.New()
		last := int64(-1)
		for i, u := range t.units {
			if u.pid != pid {
				continue
			}
			body := t.elementary(u)
			sum.Write(body)
			if last >= 0 && u.dts >= 0 {
				r.Longest = max(r.Longest, ticks(uint64(max(after(u.dts, last), 0)), tsHz))
			}
			if u.dts >= 0 {
				last = u.dts
			}
			if r.Kind == Video && len(r.Faults) < maxFaults {
				if err := checkStartCodes(body); err != nil {
					r.Faults = append(r.Faults, fmt.Sprintf("PES packet %d of PID %d: %s", i, pid, err))
				}
			}
		}
		sum.Sum(r.Media[:0])
		out.Tracks = append(out.Tracks, r)
	}
	if n := t.continuity(); n > 0 {
		out.Tracks[0].Faults = append(out.Tracks[0].Faults, fmt.Sprintf("%d breaks of continuity counters", n))
	}
	return out, nil
}

// checkStartCodes looks at the header byte of each NAL unit of a byte stream (H.264 annex B).
func checkStartCodes(b []byte) error {
	for at := 0; at+3 < len(b); at++ {
		if b[at] == 0 && b[at+1] == 0 && b[at+2] == 1 {
			if err := checkNAL(b[at+3]); err != nil {
				return err
			}
			at += 2
		}
	}
	return nil
}
