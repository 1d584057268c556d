package packager

import (
	"fmt"
	"strings"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
)

// Defects of a media segment, as they stand in origin.HeaderDefects.
const (
	DefectEmpty         = "empty"          // no sample at all
	DefectMissingFrames = "missing-frames" // fewer samples than the segment's time has room for
	DefectShort         = "short"          // ends before the next segment starts
	DefectNoSync        = "no-sync"        // cannot be decoded on its own
)

// ntpEpoch is the Unix epoch in NTP seconds (RFC 5905).
const ntpEpoch = 2208988800

// trackID is the only track of every init segment.
const trackID = 1

// Init returns the CMAF header (ISO/IEC 23000-19, 7.3.1) of a rendition. The same rendition gives the same bytes.
func Init(r manifest.Rendition, c encoder.Codec) ([]byte, error) {
	profile := "caac"
	if r.Kind == manifest.Video {
		profile = "cfhd"
	}
	init := mp4.CreateEmptyInit()
	init.Ftyp = mp4.NewFtyp("cmf2", 0, []string{"iso6", "cmfc", "cmf2", "dash", profile})
	init.Children[0] = init.Ftyp
	trak := init.AddEmptyTrack(r.Timescale, r.Kind, language(r.Language))
	switch r.Kind {
	case manifest.Video:
		if len(c.SPS) == 0 || len(c.PPS) == 0 {
			return nil, fmt.Errorf("init segment of %s: no parameter sets", r.ID)
		}
		if err := trak.SetAVCDescriptor("avc1", c.SPS, c.PPS, true); err != nil {
			return nil, fmt.Errorf("init segment of %s: %w", r.ID, err)
		}
	case manifest.Audio:
		if r.Channels != 2 {
			return nil, fmt.Errorf("init segment of %s: %d audio channels, only stereo is supported", r.ID, r.Channels)
		}
		if err := trak.SetAACDescriptor(c.AAC, r.SampleHz); err != nil {
			return nil, fmt.Errorf("init segment of %s: %w", r.ID, err)
		}
	default:
		return nil, fmt.Errorf("init segment of %s: unknown media kind %q", r.ID, r.Kind)
	}
	sw := bits.NewFixedSliceWriter(int(init.Size()))
	if err := init.EncodeSW(sw); err != nil {
		return nil, fmt.Errorf("init segment of %s: %w", r.ID, err)
	}
	return sw.Bytes(), nil
}

// Media returns the CMAF segment of one track: styp, prft, moof, mdat, one fragment. Its bytes depend on the track and
// number alone: the producer reference time is the capture time that the timeline gives the first frame, never the clock of
// the machine. last adds the lmsg brand, which marks the event's last segment (ISO/IEC 23009-1).
func Media(t encoder.Track, n uint64, last bool) ([]byte, error) {
	if len(t.Samples) == 0 {
		return nil, fmt.Errorf("segment %s/%d has no samples", t.Rendition.ID, n)
	}
	// The fragment sequence number has 32 bits; 2 s segments since 1970 fit until 2242.
	f, err := mp4.CreateFragment(uint32(n), trackID)
	if err != nil {
		return nil, fmt.Errorf("segment %s/%d: %w", t.Rendition.ID, n, err)
	}
	size := 0
	for _, s := range t.Samples {
		size += len(s.Data)
	}
	f.Mdat.Data = make([]byte, 0, size)
	decode := t.DecodeTime
	for _, s := range t.Samples {
		flags := mp4.NonSyncSampleFlags
		if s.Sync {
			flags = mp4.SyncSampleFlags
		}
		f.AddFullSample(mp4.FullSample{
			Sample:     mp4.NewSample(flags, s.Duration, uint32(len(s.Data)), 0),
			DecodeTime: decode,
			Data:       s.Data,
		})
		decode += uint64(s.Duration)
	}
	f.Moof.Traf.Tfdt.Version = 1 // 64 bits, also for a time that would fit 32
	prft := mp4.CreatePrftBox(1, mp4.PrftTimeCaptured, trackID, ntp(t.DecodeTime, t.Rendition.Timescale), t.DecodeTime)
	f.Prft = prft
	f.Children = append([]mp4.Box{prft}, f.Children...)

	brands := []string{"cmfs", "cmff", "cmfl", "msdh"}
	if last {
		brands = append(brands, "lmsg")
	}
	seg := mp4.NewMediaSegmentWithStyp(mp4.NewStyp("cmfs", 0, brands))
	seg.EncOptimize = mp4.OptimizeTrun
	seg.AddFragment(f)
	// OptimizeTrun makes the segment smaller while it is written: the size before is an upper bound.
	sw := bits.NewFixedSliceWriter(int(seg.Size()) + 64)
	if err := seg.EncodeSW(sw); err != nil {
		return nil, fmt.Errorf("segment %s/%d: %w", t.Rendition.ID, n, err)
	}
	return sw.Bytes(), nil
}

// Defects says what is wrong with a track's part of segment n, in a fixed order; nil when it is whole.
func Defects(tl timeline.Timeline, n uint64, t encoder.Track) []string {
	if len(t.Samples) == 0 {
		return []string{DefectEmpty}
	}
	var out []string
	if len(t.Samples) < t.Want {
		out = append(out, DefectMissingFrames)
	}
	end := t.DecodeTime
	for _, s := range t.Samples {
		end += uint64(s.Duration)
	}
	if end < tl.DecodeTime(n+1, t.Rendition.Timescale) {
		out = append(out, DefectShort)
	}
	if !t.Samples[0].Sync {
		out = append(out, DefectNoSync)
	}
	return out
}

// ntp is a decode time as an NTP time stamp, rounded down to 2^-32 s. NTP seconds wrap in 2036, as RFC 5905 has it.
func ntp(decode uint64, timescale uint32) mp4.NTP64 {
	sec, rest := decode/uint64(timescale), decode%uint64(timescale)
	frac := rest << 32 / uint64(timescale)
	return mp4.NTP64((sec+ntpEpoch)<<32 | frac)
}

// language is the ISO 639-2 code that mdhd wants for a BCP 47 tag; what it does not know goes into an elng box.
func language(tag string) string {
	base, _, _ := strings.Cut(tag, "-")
	switch base {
	case "":
		return "und"
	case "en":
		return "eng"
	case "es":
		return "spa"
	}
	return tag
}
