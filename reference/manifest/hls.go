package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/Eyevinn/hls-m3u8/m3u8"
)

// ErrUnknownRendition says that a stream has no rendition of that ID.
var ErrUnknownRendition = errors.New("unknown rendition")

// hlsVersion is the protocol version that fMP4 segments with EXT-X-MAP and independent segments need (RFC 8216, 7).
const hlsVersion = 7

// HLSMaster renders the multivariant playlist (RFC 8216): every rung once per edge, in steering order, so that a player
// fails over on its own; each edge is a pathway with an audio group of its own.
func HLSMaster(s Stream, opt Options) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	p := m3u8.NewMasterPlaylist()
	p.SetVersion(hlsVersion)
	p.SetIndependentSegments(true)
	audio := s.kind(Audio)
	edges := opt.edges(s)
	if opt.SteeringURL != "" {
		p.ContentSteering = &m3u8.ContentSteering{ServerURI: opt.SteeringURL}
		if len(edges) > 0 {
			p.ContentSteering.PathwayId = edges[0].ID
		}
	}
	var audioPeak, audioAverage int
	for _, a := range audio {
		audioPeak, audioAverage = max(audioPeak, a.Bandwidth), max(audioAverage, a.Average)
	}
	for i, e := range edges {
		base := e.base(s)
		if opt.Relative && i == 0 {
			base = ""
		}
		group := "audio-" + e.ID
		var tracks []*m3u8.Alternative
		for j, a := range audio {
			tracks = append(tracks, &m3u8.Alternative{
				Type: "AUDIO", GroupId: group, Name: languageName(a.Language), Language: a.Language,
				StableRenditionId: a.ID,
				Default:           j == 0, Autoselect: true,
				Channels: &m3u8.Channels{Amount: a.Channels},
				URI:      opt.query(base + a.ID + "/media.m3u8"),
			})
		}
		for _, v := range opt.video(s) {
			params := m3u8.VariantParams{
				Bandwidth:  uint32(v.Bandwidth + audioPeak),
				Codecs:     v.Codecs,
				Resolution: fmt.Sprintf("%dx%d", v.Width, v.Height),
				FrameRate:  frameRate(v.FrameRate),
				Captions:   "NONE",
				PathwayId:  e.ID,
				// A player that changes pathway finds the same rung again by this ID.
				StableVariantId: v.ID,
			}
			if v.Average > 0 {
				params.AverageBandwidth = uint32(v.Average + audioAverage)
			}
			if len(audio) > 0 {
				params.Codecs += "," + audio[0].Codecs
				params.Audio = group
				params.Alternatives = tracks
			}
			p.Append(opt.query(base+v.ID+"/media.m3u8"), nil, params)
		}
	}
	return p.Encode().Bytes(), nil
}

// HLSMedia renders the media playlist of one rendition as it stands at now. Its media sequence number is the segment
// number, its URLs are relative to the playlist; durations are nominal (an audio segment is up to one frame off, which
// never adds up). It returns ErrUnknownRendition when the stream has no such rendition. Before the first segment is
// complete the playlist is empty.
func HLSMedia(s Stream, rendition string, now time.Time, opt Options) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if _, ok := s.Rendition(rendition); !ok {
		return nil, fmt.Errorf("stream %s, rendition %q: %w", s.Event, rendition, ErrUnknownRendition)
	}
	first, last, ok := s.listed(now)
	count := uint(0)
	if ok {
		count = uint(last - first + 1)
	}
	p, err := m3u8.NewMediaPlaylist(count, max(count, 1))
	if err != nil {
		return nil, fmt.Errorf("render playlist of %s/%s: %w", s.Event, rendition, err)
	}
	p.SetVersion(hlsVersion)
	p.SetIndependentSegments(true)
	p.SetTargetDuration(uint((s.Timeline.Duration + time.Second - 1) / time.Second))
	p.SeqNo = first
	p.Map = &m3u8.Map{URI: opt.query("init.mp4")}
	// RFC 8216bis 4.4.3.8: a hold-back is at least three target durations.
	if d := opt.delay(); d >= 3*s.Timeline.Duration {
		p.ServerControl = &m3u8.ServerControl{HoldBack: d.Seconds()}
	}
	for i := range uint64(count) {
		n := first + i
		seg := &m3u8.MediaSegment{
			URI:      opt.query(strconv.FormatUint(n, 10) + ".m4s"),
			Duration: s.Timeline.Duration.Seconds(),
		}
		if n == first {
			seg.ProgramDateTime = s.Timeline.Start(n)
		}
		if err := p.AppendSegment(seg); err != nil {
			return nil, fmt.Errorf("render playlist of %s/%s, segment %d: %w", s.Event, rendition, n, err)
		}
	}
	p.Closed = s.Last != 0 && ok && last == s.Last
	return p.Encode().Bytes(), nil
}

// MediaChanges returns the time at which the answer of HLSMedia changes next: until then a copy may be cached. It
// returns the zero time once the event is over and the playlist has changed for the last time.
func MediaChanges(s Stream, now time.Time) time.Time {
	_, last, ok := s.listed(now)
	switch {
	case !ok:
		return s.Timeline.End(s.First).Add(PublishAllowance)
	case s.Last != 0 && last == s.Last:
		return time.Time{}
	}
	return s.Timeline.End(last + 1).Add(PublishAllowance)
}

// listed returns the segments that a media playlist has at now: complete ones, within the time-shift buffer. With none yet it returns
// First, First and false.
func (s Stream) listed(now time.Time) (first, last uint64, ok bool) {
	last, ok = s.Timeline.LastComplete(now.Add(-PublishAllowance))
	if !ok || last < s.First {
		return s.First, s.First, false
	}
	if s.Last != 0 {
		last = min(last, s.Last)
	}
	first = s.First
	if s.DVR > 0 {
		if window := max(1, uint64(s.DVR/s.Timeline.Duration)); last-first+1 > window {
			first = last - window + 1
		}
	}
	return first, last, true
}

// frameRate turns "30" or "30000/1001" into frames a second.
func frameRate(s string) float64 {
	num, den, ok := strings.Cut(s, "/")
	n, err := strconv.ParseFloat(num, 64)
	if err != nil {
		return 0
	}
	if !ok {
		return n
	}
	d, err := strconv.ParseFloat(den, 64)
	if err != nil || d == 0 {
		return 0
	}
	return n / d
}

// languageName is what a player's menu shows for a language.
func languageName(tag string) string {
	switch tag {
	case "en":
		return "English"
	case "es":
		return "Español"
	}
	return tag
}
