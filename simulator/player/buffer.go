package player

import (
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
)

// holeTolerance is the hole between two segments that playback steps over without noticing, as browsers' media source
// buffers do.
const holeTolerance = 100 * time.Millisecond

// chunk is one segment's media in the buffer.
type chunk struct {
	start, end time.Time
	rendition  string
	kbps       float64
	number     uint64
}

// buffer is what one track has in hand, in order of time. Fetches are sequential, so a hole before a chunk is media that
// was given up on purpose: playback jumps it.
type buffer struct{ chunks []chunk }

func (b *buffer) add(c chunk) {
	if n := len(b.chunks); n > 0 && c.start.Before(b.chunks[n-1].end) {
		c.start = b.chunks[n-1].end
	}
	if c.end.After(c.start) {
		b.chunks = append(b.chunks, c)
	}
}

// drop forgets what lies before pos.
func (b *buffer) drop(pos time.Time) {
	k := 0
	for k < len(b.chunks) && !b.chunks[k].end.After(pos) {
		k++
	}
	b.chunks = b.chunks[k:]
}

// level is how much media lies ahead of pos.
func (b *buffer) level(pos time.Time) time.Duration {
	var d time.Duration
	for _, c := range b.chunks {
		switch {
		case !c.end.After(pos):
		case c.start.Before(pos):
			d += c.end.Sub(pos)
		default:
			d += c.end.Sub(c.start)
		}
	}
	return d
}

// contiguous is how far playback gets from pos without a jump; pos itself when nothing covers it.
func (b *buffer) contiguous(pos time.Time) time.Time {
	end := pos
	for _, c := range b.chunks {
		if !c.end.After(end) {
			continue
		}
		if c.start.After(end.Add(holeTolerance)) {
			break
		}
		end = c.end
	}
	return end
}

// after is the start of the first chunk beyond pos.
func (b *buffer) after(pos time.Time) (time.Time, bool) {
	for _, c := range b.chunks {
		if c.start.After(pos) {
			return c.start, true
		}
	}
	return time.Time{}, false
}

// continuity checks that a track's media times move as its manifest says.
type continuity struct {
	known  bool
	era    int
	ref    time.Time     // Start of the segment that set it, where the manifest gives no media time
	offset time.Duration // found − announced
	doubt  time.Duration // offset of the last segment that did not fit
	doubts int
}

// tsWrap is when MPEG-TS time stamps start anew: 2^33 / 90000 s.
const tsWrap = time.Duration(1<<33) * time.Second / 90_000

// check says what is wrong with a segment's media, or "".
func (c *continuity) check(s stream.Segment, m stream.Media, kind string) string {
	if len(m.Tracks) == 0 {
		return "" // the driver did not look inside
	}
	t := m.Tracks[0]
	for _, o := range m.Tracks {
		if o.Kind == kind {
			t = o
			break
		}
	}
	if l := t.Length(); l > 0 && s.Duration > 0 && l < s.Duration/2 {
		return "wrong segment: " + round(l) + " of media where " + round(s.Duration) + " were announced"
	}
	tolerance := max(s.Duration/2, holeTolerance)
	if !c.known || c.era != s.Era {
		*c = continuity{known: true, era: s.Era, ref: s.Start}
		if off := t.Start() - c.announced(s); s.MediaTime < 0 || off > tolerance || off < -tolerance {
			c.offset = off
		}
		return ""
	}
	off := t.Start() - c.announced(s)
	drift := off - c.offset
	if m.Container == "ts" {
		drift = (drift%tsWrap + tsWrap + tsWrap/2) % tsWrap
		drift -= tsWrap / 2
	}
	if drift <= tolerance && drift >= -tolerance {
		c.doubts = 0
		return ""
	}
	if d := off - c.doubt; c.doubts > 0 && d <= tolerance && d >= -tolerance {
		// Two in a row agree with each other: it is the one before them that was off, or the stream was restarted.
		c.offset, c.doubts = off, 0
		return ""
	}
	c.doubt = off
	c.doubts++
	return "wrong segment: its media is " + round(drift) + " away from where the manifest puts it"
}

func (c *continuity) announced(s stream.Segment) time.Duration {
	if s.MediaTime >= 0 {
		return s.MediaTime
	}
	return s.Start.Sub(c.ref)
}

func round(d time.Duration) string { return d.Round(time.Millisecond).String() }
