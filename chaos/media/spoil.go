package media

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Defect kinds.
const (
	Missing       = "missing"         // the request is answered 404
	Late          = "late"            // the segment is held back until it is due plus Delay
	Short         = "short"           // only the first Keep of its time is there
	MissingFrames = "missing-frames"  // Share of its frames that others do not start from are left out, times kept
	Corrupt       = "corrupt"         // bytes of Share of its frames are flipped
	Frozen        = "frozen"          // pictures of an earlier segment at this one's times
	WrongTime     = "wrong-timestamp" // decode and presentation times shifted by Shift
)

// Defects lists the kinds.
func Defects() []string {
	return []string{Missing, Late, Short, MissingFrames, Corrupt, Frozen, WrongTime}
}

// Defect is what is wrong with a segment.
type Defect struct {
	Kind   string
	Status int           // of Missing: what is answered; 0: 404
	Delay  time.Duration // of Late
	Keep   float64       // of Short: share of the segment's time, in (0, 1)
	Share  float64       // of MissingFrames and Corrupt: share of frames, in (0, 1]
	Shift  time.Duration // of WrongTime, either way
	Seed   uint64        // of Share: the same seed and segment give the same bytes
}

// Validate reports everything that is wrong.
func (d Defect) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	share := func(name string, v, upTo float64) {
		if !(v > 0 && v <= upTo) {
			bad("%s: %s of %g is not above 0 and at most %g", d.Kind, name, v, upTo)
		}
	}
	switch d.Kind {
	case Missing:
		if d.Status != 0 && (d.Status < 400 || d.Status > 599) {
			bad("missing: status %d is no error", d.Status)
		}
	case Late:
		if d.Delay <= 0 || d.Delay > time.Hour {
			bad("late: a delay of %v is not above 0 and at most an hour", d.Delay)
		}
	case Short:
		share("keep", d.Keep, 0.99)
	case MissingFrames, Corrupt:
		share("share", d.Share, 1)
	case WrongTime:
		if d.Shift == 0 || d.Shift.Abs() > 24*time.Hour {
			bad("wrong-timestamp: a shift of %v is nothing, or more than a day", d.Shift)
		}
	case Frozen:
	default:
		bad("%q is no defect (there is %s)", d.Kind, strings.Join(Defects(), ", "))
	}
	return errors.Join(errs...)
}

// Bytes reports whether the defect is in the segment's bytes: Spoil makes it. The others are made by whoever answers.
func (d Defect) Bytes() bool { return d.Kind != Missing && d.Kind != Late }

// NeedsEarlier reports whether Spoil wants an earlier segment.
func (d Defect) NeedsEarlier() bool { return d.Kind == Frozen }

// Source is the segment whose pictures a frozen segment n shows: the one before it; and where all are frozen, the one
// before the first that was.
func (d Defect) Source(s Selector, n, first uint64) uint64 {
	if s.Every > 1 {
		first = n
	}
	return max(first, 1) - 1
}

// Input is what Spoil works on.
type Input struct {
	Number  uint64
	Segment []byte
	Earlier []byte // of Frozen
	Header  Header // of the initialisation segment, where the container has one
}

// NeedsHeader reports whether Spoil cannot do without the initialisation segment of a segment that starts like this one.
func (d Defect) NeedsHeader(segment []byte) bool { return looksLikeBMFF(segment) && d.Bytes() }

// Spoil returns the segment with the defect; the input is not changed. Its errors wrap ErrUnspoilable.
func Spoil(d Defect, in Input) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnspoilable, err)
	}
	var out []byte
	var err error
	switch {
	case !d.Bytes():
		err = fmt.Errorf("%s is no defect of bytes", d.Kind)
	case looksLikeBMFF(in.Segment):
		out, err = spoilFMP4(d, in)
	case looksLikeTS(in.Segment):
		out, err = spoilTS(d, in)
	default:
		err = errNoContainer
	}
	switch {
	case errors.Is(err, ErrUnspoilable):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnspoilable, err)
	case d.Kind == Frozen: // a loop comes by the pictures it stands still at: there they are right already
	case bytes.Equal(out, in.Segment) || d.Kind != Corrupt && d.Kind != WrongTime && same(out, in):
		return nil, fmt.Errorf("%w: %s would change nothing of segment %d", ErrUnspoilable, d.Kind, in.Number)
	}
	return out, nil
}

// same reports whether a segment written anew says what it said before.
func same(out []byte, in Input) bool {
	was, err1 := Inspect(in.Segment, in.Header)
	is, err2 := Inspect(out, in.Header)
	return err1 == nil && err2 == nil && slices.EqualFunc(was.Tracks, is.Tracks, func(a, b TrackReport) bool {
		return a.ID == b.ID && a.Start == b.Start && a.Duration == b.Duration && a.Frames == b.Frames && a.Longest == b.Longest && a.Media == b.Media
	})
}

func spoilFMP4(d Defect, in Input) ([]byte, error) {
	seg, err := parseFMP4(in.Segment, in.Header)
	if err != nil {
		return nil, err
	}
	tracks := seg.tracks()
	// pictures says which tracks a defect of pictures is about: of several, those that the header calls video.
	pictures := func(id uint32) bool { return len(tracks) == 1 || in.Header.Tracks[id].Kind == Video }
	if len(tracks) > 1 && len(in.Header.Tracks) == 0 {
		return nil, fmt.Errorf("%w: it holds %d tracks and there is no initialisation segment to tell them apart", ErrUnspoilable, len(tracks))
	}
	switch d.Kind {
	case WrongTime:
		return seg.shift(func(id uint32) (int64, error) {
			t, ok := in.Header.Tracks[id]
			if !ok || t.Timescale == 0 {
				return 0, fmt.Errorf("%w: no initialisation segment gives the timescale of track %d", ErrUnspoilable, id)
			}
			return int64(math.Round(d.Shift.Seconds() * float64(t.Timescale))), nil
		})
	case Corrupt:
		out := slices.Clone(in.Segment)
		for _, t := range tracks {
			for i, f := range t.frames {
				if hit(d.Seed, in.Number, uint64(i), d.Share) {
					flip(out[f.at:f.at+len(f.data)], nalHeader(in.Header.Tracks[t.id]))
				}
			}
		}
		return out, nil
	case Short:
		keep := map[uint32]int{} // track → frames that stay
		for _, t := range tracks {
			total := t.duration()
			if total == 0 {
				return nil, fmt.Errorf("%w: its frames have no duration", ErrUnspoilable)
			}
			end := uint64(float64(total) * d.Keep)
			var at uint64
			for _, f := range t.frames {
				if at >= end && keep[t.id] > 0 {
					break
				}
				at += uint64(f.Dur)
				keep[t.id]++
			}
		}
		return seg.encode(func(_ int, r run) []frame {
			n := min(keep[r.id], len(r.frames))
			keep[r.id] -= n
			return r.frames[:n]
		})
	case MissingFrames:
		nth := map[uint32]int{}
		return seg.encode(func(_ int, r run) []frame {
			if !pictures(r.id) {
				return r.frames
			}
			var out []frame
			allSync := !slices.ContainsFunc(r.frames, func(f frame) bool { return !f.sync() })
			for _, f := range r.frames {
				i := nth[r.id]
				nth[r.id]++
				if len(out) > 0 && (allSync || !f.sync()) && hit(d.Seed, in.Number, uint64(i), d.Share) {
					out[len(out)-1].Dur += f.Dur // the frame before stands longer, so that the times of all others hold
					continue
				}
				out = append(out, f)
			}
			return out
		})
	case Frozen:
		earlier, err := parseFMP4(in.Earlier, in.Header)
		if err != nil {
			return nil, fmt.Errorf("the earlier segment: %w", err)
		}
		return freeze(seg, tracks, earlier.tracks(), pictures)
	}
	return nil, errNoContainer
}

// freeze gives each fragment of seg as many frames of the earlier segment as it had of its own, and the last fragment
// the rest; the times are seg's.
func freeze(seg *fmp4, tracks, earlier []run, pictures func(uint32) bool) ([]byte, error) {
	stock := map[uint32][]frame{}
	for _, t := range tracks {
		if !pictures(t.id) {
			continue
		}
		i := slices.IndexFunc(earlier, func(r run) bool { return r.id == t.id })
		if i < 0 || len(earlier[i].frames) == 0 {
			return nil, fmt.Errorf("%w: the earlier segment has no track %d", ErrUnspoilable, t.id)
		}
		stock[t.id] = earlier[i].frames
	}
	if len(stock) == 0 {
		return nil, fmt.Errorf("%w: there are no pictures in it", ErrUnspoilable)
	}
	return seg.encode(func(n int, r run) []frame {
		frames, ok := stock[r.id]
		if !ok {
			return r.frames
		}
		take := min(len(r.frames), len(frames))
		if n == len(seg.fragments)-1 {
			take = len(frames)
		}
		stock[r.id] = frames[take:]
		return frames[:take]
	})
}

func spoilTS(d Defect, in Input) ([]byte, error) {
	t, err := parseTS(in.Segment)
	if err != nil {
		return nil, err
	}
	if len(t.units) == 0 {
		return nil, errors.New("there is no elementary stream in it")
	}
	switch d.Kind {
	case WrongTime:
		return t.shift(int64(math.Round(d.Shift.Seconds()*tsHz)), func(uint16) bool { return true }), nil
	case Corrupt:
		return t.corrupt(d, in.Number), nil
	case Short:
		type edge struct{ first, length int64 }
		ends := map[uint16]edge{}
		pids, _ := t.pids()
		for _, pid := range pids {
			first, length, _ := t.span(pid)
			ends[pid] = edge{first, int64(float64(length) * d.Keep)}
		}
		kept := map[uint16]bool{} // the first unit always stays
		return t.without(func(u unit) bool {
			e := ends[u.pid]
			drop := kept[u.pid] && u.dts >= 0 && after(u.dts, e.first) >= e.length
			kept[u.pid] = true
			return drop
		})
	case MissingFrames:
		nth := map[uint16]int{}
		return t.without(func(u unit) bool {
			if u.kind() != Video {
				return false
			}
			i := nth[u.pid]
			nth[u.pid]++
			return i > 0 && hit(d.Seed, in.Number, uint64(i), d.Share)
		})
	case Frozen:
		earlier, err := parseTS(in.Earlier)
		if err != nil {
			return nil, fmt.Errorf("the earlier segment: %w", err)
		}
		return t.withPictures(earlier)
	}
	return nil, errNoContainer
}

// corrupt flips bytes of the elementary streams and leaves the transport whole.
func (t *transport) corrupt(d Defect, number uint64) []byte {
	out := slices.Clone(t.data)
	nth := map[uint16]int{}
	for _, u := range t.units {
		i := nth[u.pid]
		nth[u.pid]++
		if !hit(d.Seed, number, uint64(i), d.Share) {
			continue
		}
		for k, n := range u.packets {
			p := t.packets[n]
			from := p.payload
			if k == 0 {
				from = u.body
			}
			body := out[from : p.at+tsPacket]
			if u.kind() != Video {
				flip(body, 0)
				continue
			}
			// The byte after a start code is the NAL unit's header; its first bit must be 0 (H.264 7.4.1, H.265 7.4.2.2).
			for at := 0; at+3 < len(body); at++ {
				if body[at] == 0 && body[at+1] == 0 && body[at+2] == 1 {
					body[at+3] ^= 0x80
					at += 3
				}
			}
			if len(body) > flipEvery/2 {
				body[len(body)/2] ^= 0xff
			}
		}
	}
	return out
}

// flipEvery is the distance of flipped bytes within a frame.
const flipEvery = 128

// flip turns bytes of a frame over: the one at first, where a NAL unit's header is, loses its forbidden zero bit, and
// then one in flipEvery.
func flip(b []byte, first int) {
	if first < len(b) {
		b[first] ^= 0x80
	}
	for i := first + flipEvery; i < len(b); i += flipEvery {
		b[i] ^= 0xff
	}
}

// nalHeader is where the first NAL unit's header stands in a sample.
func nalHeader(t TrackHeader) int { return t.NALLength }

// hit draws for frame i of segment n: the same numbers, the same answer.
func hit(seed, n, i uint64, share float64) bool {
	return float64(mix(mix(seed^n)+i)>>11)/(1<<53) < share
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
