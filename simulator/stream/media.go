package stream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

// Media is what an init or media segment turned out to hold.
type Media struct {
	Container string // "mp4" or "ts"; empty: nothing was read
	Tracks    []Track
}

// Track is one track of an init segment, or its share of a media segment.
type Track struct {
	ID              uint32
	Kind            string // Video, Audio, or "" for others
	Timescale       uint32 // units a second
	DefaultDuration uint32 // of a sample, units; from an init segment's trex
	Decode          uint64 // decode time of the first sample (MPEG-TS: its least PTS), units
	Duration        uint64 // of all samples, units
	Samples         int
}

// Start is the decode time of the track's first sample since the media timeline's zero.
func (t Track) Start() time.Duration { return units(t.Decode, t.Timescale) }

// Length is the duration of the track's samples.
func (t Track) Length() time.Duration { return units(t.Duration, t.Timescale) }

// units converts n units of 1/timescale s to a duration, without overflow before the result itself does.
func units(n uint64, timescale uint32) time.Duration {
	if timescale == 0 {
		return 0
	}
	ts := uint64(timescale)
	sec, rest := n/ts, n%ts
	if sec >= uint64(1<<63-1)/uint64(time.Second) {
		return 1<<63 - 1
	}
	return time.Duration(sec)*time.Second + time.Duration(rest*uint64(time.Second)/ts)
}

const (
	maxBoxes    = 10_000
	maxTracks   = 16
	tsPacket    = 188
	tsTimescale = 90_000
)

// Inspect reads a media segment: fragmented MP4 (ISO/IEC 14496-12), for which init is what InspectInit said of the
// initialisation segment, or MPEG-TS (ISO/IEC 13818-1). The error says what is wrong with the bytes.
func Inspect(b []byte, init Media) (Media, error) {
	switch {
	case len(b) == 0:
		return Media{}, fmt.Errorf("media segment: %w: empty", ErrMalformed)
	case init.Container != "mp4" && b[0] == 0x47:
		return inspectTS(b)
	}
	return inspectFragments(b, init)
}

// boxes walks the top level of an MP4 and hands every box, header included, to f.
func boxes(b []byte, f func(kind string, box []byte) error) error {
	for n := 0; len(b) > 0; n++ {
		if n == maxBoxes {
			return fmt.Errorf("mp4: %w: more than %d boxes", ErrMalformed, maxBoxes)
		}
		if len(b) < 8 {
			return fmt.Errorf("mp4: %w: %d bytes left over after the last box", ErrMalformed, len(b))
		}
		size, kind := uint64(binary.BigEndian.Uint32(b)), string(b[4:8])
		header := uint64(8)
		switch size {
		case 0:
			size = uint64(len(b))
		case 1:
			if len(b) < 16 {
				return fmt.Errorf("mp4: %w: box %q is cut off", ErrMalformed, kind)
			}
			size, header = binary.BigEndian.Uint64(b[8:]), 16
		}
		if size < header || size > uint64(len(b)) {
			return fmt.Errorf("mp4: %w: box %q says %d bytes where %d are", ErrMalformed, kind, size, len(b))
		}
		if err := f(kind, b[:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// decode reads one box with mp4ff.
func decode[T mp4.Box](box []byte) (T, error) {
	var zero T
	got, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(box))
	if err != nil {
		return zero, fmt.Errorf("mp4: %w: %w", ErrMalformed, err)
	}
	t, ok := got.(T)
	if !ok {
		return zero, fmt.Errorf("mp4: %w: box is %s", ErrMalformed, got.Type())
	}
	return t, nil
}

// InspectInit reads an initialisation segment: every track's timescale and the default duration of its samples.
func InspectInit(b []byte) (Media, error) {
	m := Media{Container: "mp4"}
	err := boxes(b, func(kind string, box []byte) error {
		if kind != "moov" {
			return nil
		}
		moov, err := decode[*mp4.MoovBox](box)
		if err != nil {
			return err
		}
		if len(moov.Traks) > maxTracks {
			return fmt.Errorf("mp4: %w: %d tracks", ErrMalformed, len(moov.Traks))
		}
		for _, trak := range moov.Traks {
			if trak.Tkhd == nil || trak.Mdia == nil || trak.Mdia.Mdhd == nil || trak.Mdia.Mdhd.Timescale == 0 {
				return fmt.Errorf("mp4: %w: a track without header or timescale", ErrMalformed)
			}
			t := Track{ID: trak.Tkhd.TrackID, Timescale: trak.Mdia.Mdhd.Timescale}
			if h := trak.Mdia.Hdlr; h != nil {
				switch h.HandlerType {
				case "vide":
					t.Kind = Video
				case "soun":
					t.Kind = Audio
				}
			}
			if moov.Mvex != nil {
				if trex, ok := moov.Mvex.GetTrex(t.ID); ok {
					t.DefaultDuration = trex.DefaultSampleDuration
				}
			}
			m.Tracks = append(m.Tracks, t)
		}
		return nil
	})
	if err == nil && len(m.Tracks) == 0 {
		err = fmt.Errorf("init segment: %w: no moov with a track in it", ErrMalformed)
	}
	if err != nil {
		return Media{}, err
	}
	return m, nil
}

func inspectFragments(b []byte, init Media) (Media, error) {
	m := Media{Container: "mp4"}
	fragments, payloads := 0, 0
	err := boxes(b, func(kind string, box []byte) error {
		switch kind {
		case "mdat":
			payloads++
		case "moof":
			fragments++
			moof, err := decode[*mp4.MoofBox](box)
			if err != nil {
				return err
			}
			for _, traf := range moof.Trafs {
				if traf.Tfhd == nil {
					return fmt.Errorf("mp4: %w: traf without tfhd", ErrMalformed)
				}
				if err := m.add(traf, init); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return Media{}, err
	case fragments == 0 || len(m.Tracks) == 0:
		return Media{}, fmt.Errorf("media segment: %w: no moof in it: it begins with %q", ErrMalformed, b[:min(len(b), 12)])
	case payloads < fragments:
		return Media{}, fmt.Errorf("media segment: %w: %d moof but %d mdat", ErrMalformed, fragments, payloads)
	}
	return m, nil
}

// add counts a track fragment in.
func (m *Media) add(traf *mp4.TrafBox, init Media) error {
	id := traf.Tfhd.TrackID
	var known Track
	for _, t := range init.Tracks {
		if t.ID == id {
			known = t
		}
	}
	if known.ID == 0 {
		return fmt.Errorf("media segment: %w: track %d is not in the init segment", ErrMalformed, id)
	}
	k := -1
	for i := range m.Tracks {
		if m.Tracks[i].ID == id {
			k = i
		}
	}
	if k < 0 {
		if traf.Tfdt == nil {
			return fmt.Errorf("media segment: %w: track %d has no decode time (tfdt)", ErrMalformed, id)
		}
		if len(m.Tracks) == maxTracks {
			return fmt.Errorf("media segment: %w: more than %d tracks", ErrMalformed, maxTracks)
		}
		known.Decode = traf.Tfdt.BaseMediaDecodeTime()
		m.Tracks = append(m.Tracks, known)
		k = len(m.Tracks) - 1
	}
	t := &m.Tracks[k]
	def := known.DefaultDuration
	if traf.Tfhd.HasDefaultSampleDuration() {
		def = traf.Tfhd.DefaultSampleDuration
	}
	for _, trun := range traf.Truns {
		for _, s := range trun.Samples {
			d := def
			if trun.HasSampleDuration() {
				d = s.Dur
			}
			t.Duration += uint64(d)
			t.Samples++
		}
	}
	return nil
}

// inspectTS reads MPEG-TS as far as a player's demuxer must get before it can begin: sync bytes, PAT, PMT, and the time
// stamps of the PES packets.
func inspectTS(b []byte) (Media, error) {
	if len(b)%tsPacket != 0 {
		return Media{}, fmt.Errorf("mpeg-ts: %w: %d bytes are not whole packets of %d", ErrMalformed, len(b), tsPacket)
	}
	pmt := -1
	pat, programme := false, false
	var tracks []Track
	var span [maxTracks]struct{ first, min, max int64 } // PTS, unwrapped around the first
	for at := 0; at < len(b); at += tsPacket {
		p := b[at : at+tsPacket]
		if p[0] != 0x47 {
			return Media{}, fmt.Errorf("mpeg-ts: %w: no sync byte at %d", ErrMalformed, at)
		}
		pid := int(binary.BigEndian.Uint16(p[1:])) & 0x1fff
		unitStart, control := p[1]&0x40 != 0, p[3]>>4&3
		payload := p[4:]
		if control&2 != 0 { // adaptation field
			skip := 1 + int(payload[0])
			if skip > len(payload) {
				return Media{}, fmt.Errorf("mpeg-ts: %w: adaptation field at %d is longer than its packet", ErrMalformed, at)
			}
			payload = payload[skip:]
		}
		if control&1 == 0 || !unitStart {
			continue
		}
		switch {
		case pid == 0:
			if s := section(payload, 0); len(s) >= 4 {
				pat = true
				if !programme {
					pmt = programPID(s)
				}
			}
		case pid == pmt && !programme:
			if s := section(payload, 2); s != nil {
				programme = true
				tracks = elementary(s)
			}
		default:
			pts, ok := pesTime(payload)
			if !ok {
				continue
			}
			for i := range tracks {
				if t, s := &tracks[i], &span[i]; t.ID == uint32(pid) {
					if t.Samples == 0 {
						s.first, s.min, s.max = pts, pts, pts
					}
					// 33 bits wrap every 26.5 h: take the value nearest to the first.
					const wrap = 1 << 33
					if pts-s.first > wrap/2 {
						pts -= wrap
					} else if s.first-pts > wrap/2 {
						pts += wrap
					}
					s.min, s.max = min(s.min, pts), max(s.max, pts)
					t.Samples++
				}
			}
		}
	}
	if !pat || !programme {
		return Media{}, fmt.Errorf("mpeg-ts: %w: no PAT and PMT in the segment", ErrMalformed)
	}
	m := Media{Container: "ts"}
	for i, t := range tracks {
		if t.Samples == 0 {
			continue
		}
		t.Timescale = tsTimescale
		t.Decode = uint64(max(span[i].min, 0))
		if n := int64(t.Samples); n > 1 { // the last sample lasts about as long as the others
			t.Duration = uint64((span[i].max - span[i].min) * n / (n - 1))
		}
		m.Tracks = append(m.Tracks, t)
	}
	if len(m.Tracks) == 0 {
		return Media{}, fmt.Errorf("mpeg-ts: %w: no time stamps in the segment", ErrMalformed)
	}
	return m, nil
}

// section returns the body of a PSI section that starts in this packet, after its 8-byte header and without its CRC;
// nil when it is not of that table or does not fit the packet.
func section(payload []byte, table byte) []byte {
	if len(payload) < 1 || int(payload[0])+1+8 > len(payload) {
		return nil
	}
	s := payload[1+int(payload[0]):]
	if s[0] != table {
		return nil
	}
	length := int(binary.BigEndian.Uint16(s[1:])) & 0xfff
	if length < 9 || 3+length > len(s) {
		return nil
	}
	return s[8 : 3+length-4]
}

func programPID(pat []byte) int {
	for ; len(pat) >= 4; pat = pat[4:] {
		if pat[0] != 0 || pat[1] != 0 { // programme 0 is the network
			return int(binary.BigEndian.Uint16(pat[2:])) & 0x1fff
		}
	}
	return -1
}

func elementary(pmt []byte) []Track {
	if len(pmt) < 4 {
		return nil
	}
	skip := 4 + int(binary.BigEndian.Uint16(pmt[2:]))&0xfff
	if skip > len(pmt) {
		return nil
	}
	var tracks []Track
	for es := pmt[skip:]; len(es) >= 5 && len(tracks) < maxTracks; {
		t := Track{ID: uint32(binary.BigEndian.Uint16(es[1:])) & 0x1fff}
		switch {
		case bytes.IndexByte([]byte{0x01, 0x02, 0x10, 0x1b, 0x24, 0x33}, es[0]) >= 0:
			t.Kind = Video
		case bytes.IndexByte([]byte{0x03, 0x04, 0x0f, 0x11, 0x81, 0x87}, es[0]) >= 0:
			t.Kind = Audio
		}
		if t.Kind != "" {
			tracks = append(tracks, t)
		}
		skip := 5 + int(binary.BigEndian.Uint16(es[3:]))&0xfff
		if skip > len(es) {
			break
		}
		es = es[skip:]
	}
	return tracks
}

// pesTime returns the PTS of a PES packet that starts here, in 1/90000 s.
func pesTime(p []byte) (int64, bool) {
	if len(p) < 14 || p[0] != 0 || p[1] != 0 || p[2] != 1 || p[6]&0xc0 != 0x80 || p[7]&0x80 == 0 {
		return 0, false
	}
	return int64(p[9]&0x0e)<<29 | int64(p[10])<<22 | int64(p[11]&0xfe)<<14 | int64(p[12])<<7 | int64(p[13])>>1, true
}
