package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

// ErrUnspoilable says that a segment cannot be spoiled in the way asked for; the sentence says why.
var ErrUnspoilable = errors.New("cannot be spoiled")

// MaxSegment is the largest segment that is looked into, in bytes.
const MaxSegment = 32 << 20

// Header is what an initialisation segment says of its tracks. The zero value says nothing.
type Header struct{ Tracks map[uint32]TrackHeader }

// TrackHeader is one track of an initialisation segment.
type TrackHeader struct {
	Kind      string // Video, Audio or ""
	Timescale uint32
	// NALLength is the size in bytes of the length in front of each NAL unit; 0: the track has no NAL units.
	NALLength int
	HEVC      bool

	trex *mp4.TrexBox
}

// ParseHeader reads an initialisation segment.
func ParseHeader(init []byte) (h Header, err error) {
	defer guard(&err)
	if len(init) > MaxSegment {
		return Header{}, fmt.Errorf("an initialisation segment of %d bytes is too large", len(init))
	}
	tops, err := boxes(init, 0, len(init))
	if err != nil {
		return Header{}, fmt.Errorf("initialisation segment: %w", err)
	}
	for _, b := range tops {
		if b.name != "moov" {
			continue
		}
		box, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(init[b.start:b.end]))
		if err != nil {
			return Header{}, fmt.Errorf("initialisation segment: %w", err)
		}
		moov, ok := box.(*mp4.MoovBox)
		if !ok {
			break
		}
		h.Tracks = map[uint32]TrackHeader{}
		for _, trak := range moov.Traks {
			if trak.Tkhd == nil || trak.Mdia == nil || trak.Mdia.Mdhd == nil {
				return Header{}, errors.New("initialisation segment: a track without tkhd or mdhd")
			}
			h.Tracks[trak.Tkhd.TrackID] = trackHeader(trak, moov)
		}
		return h, nil
	}
	return Header{}, errors.New("initialisation segment: there is no moov")
}

func trackHeader(trak *mp4.TrakBox, moov *mp4.MoovBox) TrackHeader {
	t := TrackHeader{Timescale: trak.Mdia.Mdhd.Timescale}
	if h := trak.Mdia.Hdlr; h != nil {
		switch h.HandlerType {
		case "vide":
			t.Kind = Video
		case "soun":
			t.Kind = Audio
		}
	}
	if moov.Mvex != nil {
		for _, trex := range moov.Mvex.Trexs {
			if trex.TrackID == trak.Tkhd.TrackID {
				t.trex = trex
			}
		}
	}
	if trak.Mdia.Minf == nil || trak.Mdia.Minf.Stbl == nil || trak.Mdia.Minf.Stbl.Stsd == nil {
		return t
	}
	// Both records hold lengthSizeMinusOne; mp4ff writes and reads 4-byte lengths only, as every encoder does.
	for _, entry := range trak.Mdia.Minf.Stbl.Stsd.Children {
		switch entry.Type() {
		case "avc1", "avc3":
			t.NALLength = 4
		case "hvc1", "hev1":
			t.NALLength, t.HEVC = 4, true
		}
	}
	return t
}

// guard turns a panic of the box parser into an error: the bytes come from outside.
func guard(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("the boxes cannot be parsed: %v", v)
	}
}

// box is the place of one box.
type box struct {
	name             string
	start, body, end int
}

// maxBoxes bounds the boxes of one level: a segment of empty chunks has no use.
const maxBoxes = 4096

// boxes finds the boxes that lie one after another in data[from:to].
func boxes(data []byte, from, to int) ([]box, error) {
	var out []box
	for at := from; at < to; {
		if to-at < 8 {
			return nil, fmt.Errorf("%d stray bytes at %d", to-at, at)
		}
		size := uint64(binary.BigEndian.Uint32(data[at:]))
		b := box{name: string(data[at+4 : at+8]), start: at, body: at + 8}
		switch size {
		case 0:
			size = uint64(to - at)
		case 1:
			if to-at < 16 {
				return nil, fmt.Errorf("box %q at %d is cut short", b.name, at)
			}
			size = binary.BigEndian.Uint64(data[at+8:])
			b.body = at + 16
		}
		if size < uint64(b.body-at) || size > uint64(to-at) {
			return nil, fmt.Errorf("box %q at %d has %d bytes, there are %d", b.name, at, size, to-at)
		}
		b.end = at + int(size)
		out = append(out, b)
		if len(out) > maxBoxes {
			return nil, fmt.Errorf("more than %d boxes", maxBoxes)
		}
		at = b.end
	}
	return out, nil
}

// looksLikeBMFF reports whether a segment starts with a box that one may start with.
func looksLikeBMFF(seg []byte) bool {
	return len(seg) >= 8 && slices.Contains([]string{"styp", "ftyp", "moof", "sidx", "prft", "emsg", "free", "skip", "uuid", "moov"}, string(seg[4:8]))
}

// frame is one sample and where its bytes lie in the segment it was read from.
type frame struct {
	mp4.Sample
	data []byte
	at   int
}

// sync reports whether decoding may start here (sample_is_non_sync_sample of ISO/IEC 14496-12, 8.8.3.1, is not set).
func (f frame) sync() bool { return f.Flags>>16&1 == 0 }

// run is the part of one track that lies in one fragment.
type run struct {
	id     uint32
	start  uint64 // decode time
	frames []frame
	traf   *mp4.TrafBox
}

func (r run) duration() (d uint64) {
	for _, f := range r.frames {
		d += uint64(f.Dur)
	}
	return d
}

// fragment is a moof and its mdat.
type fragment struct {
	moof, mdat box
	head       *mp4.MoofBox
	runs       []run
}

// fmp4 is a segment taken apart.
type fmp4 struct {
	data      []byte
	tops      []box
	fragments []fragment
}

// parseFMP4 takes a segment apart. Nothing is copied.
func parseFMP4(seg []byte, h Header) (out *fmp4, err error) {
	defer guard(&err)
	if len(seg) > MaxSegment {
		return nil, fmt.Errorf("a segment of %d bytes is too large", len(seg))
	}
	tops, err := boxes(seg, 0, len(seg))
	if err != nil {
		return nil, err
	}
	out = &fmp4{data: seg, tops: tops}
	for i, b := range tops {
		if b.name != "moof" {
			continue
		}
		if i+1 == len(tops) || tops[i+1].name != "mdat" {
			return nil, fmt.Errorf("the moof at %d has no mdat after it", b.start)
		}
		f, err := parseFragment(seg, b, tops[i+1], h)
		if err != nil {
			return nil, fmt.Errorf("the moof at %d: %w", b.start, err)
		}
		out.fragments = append(out.fragments, f)
	}
	if len(out.fragments) == 0 {
		return nil, errors.New("there is no moof")
	}
	return out, nil
}

func parseFragment(seg []byte, moof, mdat box, h Header) (fragment, error) {
	f := fragment{moof: moof, mdat: mdat}
	decoded, err := mp4.DecodeBoxSR(uint64(moof.start), bits.NewFixedSliceReader(seg[moof.start:moof.end]))
	if err != nil {
		return f, err
	}
	head, ok := decoded.(*mp4.MoofBox)
	if !ok || len(head.Trafs) == 0 {
		return f, errors.New("it has no track")
	}
	f.head = head
	for _, traf := range head.Trafs {
		if traf.Tfhd == nil || traf.Tfdt == nil {
			return f, errors.New("a track has no tfhd or no tfdt")
		}
		r := run{id: traf.Tfhd.TrackID, start: traf.Tfdt.BaseMediaDecodeTime(), traf: traf}
		// A base data offset is the moof's own place in whatever file the writer counted in: it is taken as the moof.
		at := mdat.body
		for _, trun := range traf.Truns {
			trun.AddSampleDefaultValues(traf.Tfhd, h.Tracks[r.id].trex)
			if trun.HasDataOffset() {
				at = moof.start + int(trun.DataOffset)
			}
			for _, s := range trun.Samples {
				if at < mdat.body || at > mdat.end || int64(s.Size) > int64(mdat.end-at) {
					return f, fmt.Errorf("sample %d of track %d lies outside the mdat", len(r.frames), r.id)
				}
				end := at + int(s.Size)
				r.frames = append(r.frames, frame{Sample: s, data: seg[at:end:end], at: at})
				at = end
			}
		}
		f.runs = append(f.runs, r)
	}
	return f, nil
}

// tracks gathers each track's frames over all fragments, in the order of the first fragment that has it.
func (s *fmp4) tracks() []run {
	var out []run
	for _, f := range s.fragments {
		for _, r := range f.runs {
			i := slices.IndexFunc(out, func(o run) bool { return o.id == r.id })
			if i < 0 {
				out = append(out, run{id: r.id, start: r.start})
				i = len(out) - 1
			}
			out[i].frames = append(out[i].frames, r.frames...)
		}
	}
	return out
}

// encode writes the segment with other frames. A track left without frames leaves its fragment, a fragment without
// tracks leaves the segment together with the prft and emsg boxes in front of it, and indexes are made to agree.
func (s *fmp4) encode(frames func(fragment int, r run) []frame) (out []byte, err error) {
	defer guard(&err)
	type piece struct {
		name     string
		bytes    []byte
		fragment int // of moof and mdat; -1: none
	}
	var pieces []piece
	durations := make([]map[uint32]uint64, len(s.fragments))
	n := 0
	for i := 0; i < len(s.tops); i++ {
		b := s.tops[i]
		if b.name != "moof" {
			pieces = append(pieces, piece{b.name, s.data[b.start:b.end], -1})
			continue
		}
		f := s.fragments[n]
		moof, mdat, lasts, err := f.encode(func(r run) []frame { return frames(n, r) })
		if err != nil {
			return nil, err
		}
		durations[n] = lasts
		if moof == nil {
			for len(pieces) > 0 && (pieces[len(pieces)-1].name == "prft" || pieces[len(pieces)-1].name == "emsg") {
				pieces = pieces[:len(pieces)-1]
			}
		} else {
			pieces = append(pieces, piece{"moof", moof, n}, piece{"mdat", mdat, n})
		}
		n++
		i++ // its mdat
	}
	sizes := make([]int, len(s.fragments)) // of each fragment with what stands in front of it
	pending, total := 0, 0
	for _, p := range pieces {
		switch {
		case p.fragment >= 0:
			sizes[p.fragment] += len(p.bytes) + pending
			pending = 0
		case p.name == "prft" || p.name == "emsg":
			pending += len(p.bytes)
		}
		total += len(p.bytes)
	}
	out = make([]byte, 0, total)
	for _, p := range pieces {
		if p.name == "sidx" {
			out = append(out, reindex(p.bytes, sizes, durations)...)
			continue
		}
		out = append(out, p.bytes...)
	}
	return out, nil
}

// encode writes one fragment; nil when no frame is left.
func (f fragment) encode(frames func(run) []frame) (moof, mdat []byte, lasts map[uint32]uint64, err error) {
	head := *f.head
	head.Children, head.Traf, head.Trafs = nil, nil, nil
	lasts = map[uint32]uint64{}
	var payload []byte
	type placed struct {
		trun *mp4.TrunBox
		at   int
	}
	var truns []placed
	next := 0
	for _, child := range f.head.Children {
		traf, isTraf := child.(*mp4.TrafBox)
		if !isTraf {
			head.Children = append(head.Children, child)
			continue
		}
		r := f.runs[next]
		next++
		kept := frames(r)
		if len(kept) == 0 {
			continue
		}
		if len(kept) != len(r.frames) && (traf.Senc != nil || traf.UUIDSenc != nil || traf.Saiz != nil || traf.Saio != nil) {
			return nil, nil, nil, fmt.Errorf("%w: the frames of an encrypted segment cannot be taken out", ErrUnspoilable)
		}
		trun := mp4.CreateTrun(0)
		start := len(payload)
		hasCTO := false
		for _, k := range kept {
			trun.AddSample(k.Sample)
			payload = append(payload, k.data...)
			lasts[r.id] += uint64(k.Dur)
			hasCTO = hasCTO || k.CompositionTimeOffset != 0
		}
		if !hasCTO {
			trun.Flags &^= mp4.TrunSampleCompositionTimeOffsetPresentFlag
		}
		if v := version(traf); v == 0 {
			trun.Version = 0
		}
		truns = append(truns, placed{trun, start})

		tfhd := *traf.Tfhd
		tfhd.Flags = tfhd.Flags&^mp4.TfhdBaseDataOffsetPresentFlag | mp4.TfhdDefaultBaseIsMoofFlag
		copied := &mp4.TrafBox{}
		written := false
		for _, c := range traf.Children {
			switch c.(type) {
			case *mp4.TfhdBox:
				err = copied.AddChild(&tfhd)
			case *mp4.TrunBox:
				if written {
					continue
				}
				written = true
				err = copied.AddChild(trun)
			default:
				err = copied.AddChild(c)
			}
			if err != nil {
				return nil, nil, nil, err
			}
		}
		if err := head.AddChild(copied); err != nil {
			return nil, nil, nil, err
		}
	}
	if len(truns) == 0 {
		return nil, nil, lasts, nil
	}
	size := int(head.Size())
	for _, t := range truns {
		t.trun.DataOffset = int32(size + 8 + t.at)
	}
	sw := bits.NewFixedSliceWriter(size)
	if err := head.EncodeSW(sw); err != nil {
		return nil, nil, nil, err
	}
	mdat = binary.BigEndian.AppendUint32(make([]byte, 0, 8+len(payload)), uint32(8+len(payload)))
	mdat = append(append(mdat, "mdat"...), payload...)
	return sw.Bytes(), mdat, lasts, nil
}

// version is that of a track's runs: it says whether composition offsets have a sign.
func version(traf *mp4.TrafBox) byte {
	if len(traf.Truns) == 0 {
		return 1
	}
	return traf.Truns[0].Version
}

// reindex makes an index agree with the fragments' new sizes and durations. An index that does not have one entry for
// all fragments or one for each is left out: it is optional, and a wrong one is worse than none.
func reindex(raw []byte, sizes []int, durations []map[uint32]uint64) []byte {
	decoded, err := mp4.DecodeBoxSR(0, bits.NewFixedSliceReader(raw))
	if err != nil {
		return nil
	}
	sidx, ok := decoded.(*mp4.SidxBox)
	if !ok || int(sidx.Size()) != len(raw) {
		return nil
	}
	last := func(i int) uint32 {
		if d, ok := durations[i][sidx.ReferenceID]; ok {
			return uint32(d)
		}
		return 0
	}
	switch len(sidx.SidxRefs) {
	case 1:
		ref := &sidx.SidxRefs[0]
		ref.ReferencedSize, ref.SubSegmentDuration = 0, 0
		for i, n := range sizes {
			ref.ReferencedSize += uint32(n)
			ref.SubSegmentDuration += last(i)
		}
	case len(sizes):
		refs := sidx.SidxRefs[:0]
		for i, n := range sizes {
			if n == 0 {
				continue
			}
			ref := sidx.SidxRefs[i]
			ref.ReferencedSize, ref.SubSegmentDuration = uint32(n), last(i)
			refs = append(refs, ref)
		}
		sidx.SidxRefs = refs
	default:
		return nil
	}
	sw := bits.NewFixedSliceWriter(int(sidx.Size()))
	if sidx.EncodeSW(sw) != nil {
		return nil
	}
	return sw.Bytes()
}

// shift adds to every decode time in a copy: by gives each track's addend in its timescale.
func (s *fmp4) shift(by func(id uint32) (int64, error)) ([]byte, error) {
	out := slices.Clone(s.data)
	for _, f := range s.fragments {
		moofs, err := boxes(out, f.moof.body, f.moof.end)
		if err != nil {
			return nil, err
		}
		for _, traf := range moofs {
			if traf.name != "traf" {
				continue
			}
			children, err := boxes(out, traf.body, traf.end)
			if err != nil {
				return nil, err
			}
			var id uint32
			for _, c := range children {
				if c.name == "tfhd" && c.end-c.body >= 8 {
					id = binary.BigEndian.Uint32(out[c.body+4:])
				}
			}
			add, err := by(id)
			if err != nil {
				return nil, err
			}
			for _, c := range children {
				if c.name != "tfdt" {
					continue
				}
				v := out[c.body:c.end]
				var now, most uint64
				switch {
				case len(v) >= 12 && v[0] == 1:
					now, most = binary.BigEndian.Uint64(v[4:]), 1<<63-1
				case len(v) >= 8 && v[0] == 0:
					now, most = uint64(binary.BigEndian.Uint32(v[4:])), 1<<32-1
				default:
					return nil, fmt.Errorf("a tfdt of %d bytes", len(v))
				}
				then := now + uint64(add)
				if add < 0 && then > now || then > most {
					return nil, fmt.Errorf("%w: media time %d cannot be shifted by %d: there is no such time", ErrUnspoilable, now, add)
				}
				if v[0] == 1 {
					binary.BigEndian.PutUint64(v[4:], then)
				} else {
					binary.BigEndian.PutUint32(v[4:], uint32(then))
				}
			}
		}
	}
	return out, nil
}
