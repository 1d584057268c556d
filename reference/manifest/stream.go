package manifest

import (
	"time"

	"github.com/tminus-live/tminus/reference/timeline"
)

// Media kinds.
const (
	Video = "video"
	Audio = "audio"
)

// Rendition is one encoded version of a track: a rung of the video ladder, or an audio language.
type Rendition struct {
	ID        string // URL path element, unique in the stream: "v720", "a-en"
	Kind      string // Video or Audio
	Codecs    string // RFC 6381: "avc1.64001f", "mp4a.40.2"
	Bandwidth int    // bits/s, the peak over one segment
	Average   int    // bits/s over the whole clip; 0: not known
	Timescale uint32
	Width     int    // video, pixels
	Height    int    // video, pixels
	FrameRate string // video: "30", "30000/1001"
	Language  string // audio: BCP 47, "en"
	SampleHz  int    // audio
	Channels  int    // audio
}

// Edge is one CDN node that carries the stream. ID doubles as HLS PATHWAY-ID and DASH serviceLocation.
type Edge struct {
	ID     string // "us-east-1": region and index
	Region string
	URL    string // base URL without trailing slash: "http://127.0.1.11:8080"
}

// Stream is the segment template of one live event: with it, wall clock decides every URL.
//
// URLs below an edge, origin or packager: /{Event}/{Rendition.ID}/init.mp4, /{Event}/{Rendition.ID}/{n}.m4s,
// /{Event}/manifest.mpd, /{Event}/master.m3u8, /{Event}/{Rendition.ID}/media.m3u8.
type Stream struct {
	Event      string // URL path element: "first-light"
	Timeline   timeline.Timeline
	First      uint64        // number of the event's first segment
	Last       uint64        // number of the event's last segment; 0 while the event is open-ended
	DVR        time.Duration // time-shift buffer
	Renditions []Rendition
	Edges      []Edge // every edge of every region, in a fixed order
}
