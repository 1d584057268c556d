package encoder

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
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
	SPS, PPS [][]byte // AVC, without start codes or lengths
	AAC      byte     // audio object type, 2 = AAC-LC; 0 for video
}

// Ladder is a set of renditions and the clips they loop. It is immutable and safe for concurrent use.
type Ladder struct{}

// Load returns the ladder of that name, "sports" for now.
func Load(name string) (*Ladder, error) { return nil, errors.New("not built yet") }

// Renditions returns the ladder's renditions, video rungs from the lowest, then audio.
func (l *Ladder) Renditions() []manifest.Rendition { return nil }

// Codec returns the codec configuration of a rendition, and false when the ladder has no such rendition.
func (l *Ladder) Codec(rendition string) (Codec, bool) { return Codec{}, false }

// Segment returns segment n of every rendition. It is pure: n alone decides the answer.
func (l *Ladder) Segment(n uint64) Segment { return Segment{} }

// Config is what an encoder needs.
type Config struct {
	Ladder   *Ladder
	Timeline timeline.Timeline
	First    uint64           // first segment of the event; the encoder starts later when it is started later
	Last     uint64           // last segment; 0: until the context ends
	Now      func() time.Time // the wall clock
	// Publish takes each segment at its end time. It must not block for long: the next segment waits for it.
	Publish func(Segment)
	// CatchUp is how many complete segments a late encoder still hands over; older ones are skipped. 0: 2.
	CatchUp uint64
	Log     *slog.Logger // nil: silent
}

// Encoder is a running encoder.
type Encoder struct{ cfg Config }

// New checks the configuration.
func New(cfg Config) (*Encoder, error) { return &Encoder{cfg}, nil }

// Run hands over each segment at its end time until the event's last segment or the end of ctx.
func (e *Encoder) Run(ctx context.Context) error { return nil }
