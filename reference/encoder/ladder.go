package encoder

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/Eyevinn/mp4ff/aac"
	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
)

// clips are made by clips/make.sh (make clips).
//
//go:embed clips/*.mp4 clips/*.aac
var clips embed.FS

// ladders names the clips of each ladder, rungs from the lowest, then languages.
var ladders = map[string][]source{
	"sports": {
		{id: "v360", file: "v360.mp4"},
		{id: "v540", file: "v540.mp4"},
		{id: "v720", file: "v720.mp4"},
		{id: "a-en", file: "a-en.aac", language: "en"},
		{id: "a-es", file: "a-es.aac", language: "es"},
	},
}

type source struct{ id, file, language string }

// aacFrame is the length of an AAC-LC access unit in samples (ISO/IEC 14496-3).
const aacFrame = 1024

// boxOverhead is what CMAF adds to a segment's media bytes, rounded up: a fixed part, and a size a sample in trun.
const (
	boxOverhead       = 256
	boxOverheadSample = 4
)

// Sample is one coded frame. Data is shared: nobody may write to it.
type Sample struct {
	Data     []byte // AVC: NAL units with 4-byte lengths; AAC: one raw access unit
	Duration uint32 // in the rendition's timescale
	Sync     bool   // an IDR frame, or any audio frame
}

// Track is one rendition's part of a segment.
type Track struct {
	Rendition  manifest.Rendition
	DecodeTime uint64 // of the first sample, in the rendition's timescale since the Unix epoch
	Samples    []Sample
	Want       int // samples a whole segment has; fewer Samples are a defect
}

// Segment is one segment of every rendition.
type Segment struct {
	Number uint64
	Tracks []Track
}

// Codec is what an init segment needs to know of a rendition's bitstream.
type Codec struct {
	SPS, PPS [][]byte // AVC parameter sets, without start codes or lengths
	AAC      byte     // audio object type, 2 = AAC-LC; 0 for video
}

// Ladder is a set of renditions and the clips they loop. It is immutable and safe for concurrent use.
type Ladder struct {
	tl    timeline.Timeline
	clips []clip
}

type clip struct {
	rendition manifest.Rendition
	codec     Codec
	frame     uint32   // duration of each sample in the rendition's timescale
	samples   []Sample // one loop, from a whole multiple of the loop's duration since the epoch
}

// Names returns the ladders there are, sorted.
func Names() []string {
	var names []string
	for name := range ladders {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var (
	loadMu sync.Mutex
	loaded = map[string]*Ladder{}
)

// Load returns the ladder of that name, on the default timeline. The clips are parsed once a process.
func Load(name string) (*Ladder, error) {
	loadMu.Lock()
	defer loadMu.Unlock()
	if l := loaded[name]; l != nil {
		return l, nil
	}
	sources, ok := ladders[name]
	if !ok {
		return nil, fmt.Errorf("no ladder %q; there is %s", name, strings.Join(Names(), ", "))
	}
	l := &Ladder{tl: timeline.Default}
	for _, s := range sources {
		raw, err := clips.ReadFile("clips/" + s.file)
		if err != nil {
			return nil, fmt.Errorf("ladder %s: %w", name, err)
		}
		var c clip
		if s.language == "" {
			c, err = parseVideo(raw)
		} else {
			c, err = parseAudio(raw)
			c.rendition.Language = s.language
		}
		if err != nil {
			return nil, fmt.Errorf("ladder %s, clip %s: %w", name, s.file, err)
		}
		c.rendition.ID = s.id
		if err := l.add(c); err != nil {
			return nil, fmt.Errorf("ladder %s, clip %s: %w", name, s.file, err)
		}
	}
	loaded[name] = l
	return l, nil
}

// add measures a clip's bit rate, and checks that it loops on the segment grid: each of its segments starts with a sync sample, in
// every turn of the loop.
func (l *Ladder) add(c clip) error {
	loop := uint64(len(c.samples)) * uint64(c.frame)
	d := l.tl.DecodeTime(1, c.rendition.Timescale)
	if loop == 0 || loop%d != 0 {
		return fmt.Errorf("a loop of %d/%d s is no whole number of segments of %v", loop, c.rendition.Timescale, l.tl.Duration)
	}
	segments := loop / d
	peak, total := 0, 0
	for n := range segments {
		t := c.at(l.tl, n)
		if !t.Samples[0].Sync {
			return fmt.Errorf("segment %d of the loop does not start with a sync sample", n)
		}
		size := boxOverhead
		for _, s := range t.Samples {
			size += boxOverheadSample + len(s.Data)
		}
		peak, total = max(peak, size), total+size
	}
	c.rendition.Bandwidth = bitrate(peak, l.tl.Duration.Seconds())
	c.rendition.Average = bitrate(total, l.tl.Duration.Seconds()*float64(segments))
	l.clips = append(l.clips, c)
	return nil
}

// bitrate rounds up to whole kbit/s.
func bitrate(size int, seconds float64) int {
	return (int(float64(size)*8/seconds) + 999) / 1000 * 1000
}

// Renditions returns the ladder's renditions, video rungs from the lowest, then audio.
func (l *Ladder) Renditions() []manifest.Rendition {
	out := make([]manifest.Rendition, len(l.clips))
	for i, c := range l.clips {
		out[i] = c.rendition
	}
	return out
}

// Codec returns the codec configuration of a rendition, and false when the ladder has no such rendition.
func (l *Ladder) Codec(rendition string) (Codec, bool) {
	for _, c := range l.clips {
		if c.rendition.ID == rendition {
			return c.codec, true
		}
	}
	return Codec{}, false
}

// Segment returns segment n of every rendition. It is pure: n alone decides the answer, wherever and whenever it is asked.
func (l *Ladder) Segment(n uint64) Segment {
	seg := Segment{Number: n, Tracks: make([]Track, len(l.clips))}
	for i, c := range l.clips {
		seg.Tracks[i] = c.at(l.tl, n)
	}
	return seg
}

func (c clip) at(tl timeline.Timeline, n uint64) Track {
	first, count := tl.Frames(n, c.frame, c.rendition.Timescale)
	t := Track{
		Rendition:  c.rendition,
		DecodeTime: first * uint64(c.frame),
		Samples:    make([]Sample, count),
		Want:       int(count),
	}
	for i := range t.Samples {
		t.Samples[i] = c.samples[(first+uint64(i))%uint64(len(c.samples))]
	}
	return t
}

// parseVideo reads one H.264 track from an MP4 file whose samples all have one duration and no composition offset.
func parseVideo(raw []byte) (clip, error) {
	file, err := mp4.DecodeFile(bytes.NewReader(raw))
	if err != nil {
		return clip{}, fmt.Errorf("decode: %w", err)
	}
	if file.Moov == nil || file.Moov.Trak == nil || file.Mdat == nil || file.IsFragmented() {
		return clip{}, fmt.Errorf("not a progressive file of one track")
	}
	trak := file.Moov.Trak
	stbl := trak.Mdia.Minf.Stbl
	if stbl.Stsd == nil || stbl.Stsd.AvcX == nil || stbl.Stsd.AvcX.AvcC == nil {
		return clip{}, fmt.Errorf("no H.264 track")
	}
	avcC := stbl.Stsd.AvcX.AvcC
	if len(avcC.SPSnalus) == 0 || len(avcC.PPSnalus) == 0 {
		return clip{}, fmt.Errorf("no parameter sets")
	}
	sps, err := avc.ParseSPSNALUnit(avcC.SPSnalus[0], false)
	if err != nil {
		return clip{}, fmt.Errorf("sequence parameter set: %w", err)
	}
	count := trak.GetNrSamples()
	meta, err := trak.GetSampleData(1, count)
	if err != nil {
		return clip{}, fmt.Errorf("sample table: %w", err)
	}
	timescale := trak.Mdia.Mdhd.Timescale
	c := clip{frame: meta[0].Dur, codec: Codec{SPS: avcC.SPSnalus, PPS: avcC.PPSnalus}}
	ranges, err := trak.GetRangesForSampleInterval(1, count)
	if err != nil {
		return clip{}, fmt.Errorf("sample table: %w", err)
	}
	var media []byte
	for _, r := range ranges {
		if r.Offset+r.Size > uint64(len(raw)) {
			return clip{}, fmt.Errorf("samples reach beyond the file")
		}
		media = append(media, raw[r.Offset:r.Offset+r.Size]...)
	}
	for i, m := range meta {
		if m.Dur != c.frame || m.CompositionTimeOffset != 0 {
			return clip{}, fmt.Errorf("frame %d lasts %d of %d units, composition offset %d", i, m.Dur, c.frame, m.CompositionTimeOffset)
		}
		if uint64(m.Size) > uint64(len(media)) {
			return clip{}, fmt.Errorf("frame %d is cut short", i)
		}
		c.samples = append(c.samples, Sample{Data: media[:m.Size:m.Size], Duration: m.Dur, Sync: m.IsSync()})
		media = media[m.Size:]
	}
	if timescale%c.frame != 0 {
		return clip{}, fmt.Errorf("%d/%d frames a second is not a whole number", timescale, c.frame)
	}
	c.rendition = manifest.Rendition{
		Kind: manifest.Video, Codecs: avc.CodecString("avc1", sps), Timescale: timescale,
		Width: int(sps.Width), Height: int(sps.Height), FrameRate: fmt.Sprint(timescale / c.frame),
	}
	return c, nil
}

// parseAudio reads AAC-LC access units from an ADTS stream.
func parseAudio(raw []byte) (clip, error) {
	c := clip{frame: aacFrame}
	r := bytes.NewReader(raw)
	for r.Len() > 0 {
		h, skipped, err := aac.DecodeADTSHeader(r)
		if err != nil {
			return clip{}, fmt.Errorf("access unit %d: %w", len(c.samples), err)
		}
		if skipped != 0 || h.ObjectType != aac.AAClc {
			return clip{}, fmt.Errorf("access unit %d: object type %d after %d stray bytes", len(c.samples), h.ObjectType, skipped)
		}
		data := make([]byte, h.PayloadLength)
		if _, err := io.ReadFull(r, data); err != nil {
			return clip{}, fmt.Errorf("access unit %d is cut short: %w", len(c.samples), err)
		}
		c.samples = append(c.samples, Sample{Data: data, Duration: aacFrame, Sync: true})
		c.codec.AAC = h.ObjectType
		c.rendition.SampleHz = int(h.Frequency())
		c.rendition.Channels = int(h.ChannelConfig)
	}
	if len(c.samples) == 0 {
		return clip{}, fmt.Errorf("no access unit")
	}
	c.rendition.Kind = manifest.Audio
	c.rendition.Codecs = "mp4a.40.2"
	c.rendition.Timescale = uint32(c.rendition.SampleHz)
	return c, nil
}
