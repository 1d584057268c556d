package player

import (
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Event is something that happened to the player: Press, Tick, Progress, Answer or Leave.
type Event interface{ isEvent() }

// Press is the viewer pressing Play. At is the intended time: startup is measured from it, not from when a busy driver
// got round to saying so. It is the first event; a second one changes nothing.
type Press struct{ At time.Time }

// Tick says that the time asked for by the last Wake has come. An early or a spare one does no harm.
type Tick struct{}

// Progress says that a fetch is alive: Bytes of its body have arrived so far, 0 for headers alone. Optional, and at most
// a few a second for each fetch.
type Progress struct {
	ID    uint64
	Bytes int64
}

// Answer ends a fetch. A fetch that the player cancelled needs no answer; one that comes all the same is ignored.
type Answer struct {
	ID     uint64
	Status int    // HTTP status; 0 when there was no whole response
	Err    string // why there was no whole response, in a few words: "connection refused"
	// Retry is how long the server asked to be left alone (Retry-After, Tminus-Max-Age-Ms); 0: it did not say.
	Retry time.Duration
	Bytes int64
	// Took is how long the body took, for the throughput estimate; 0: since the Fetch action.
	Took time.Duration
	// Body is the answer's body for everything but media; the player keeps no reference to it.
	Body []byte
	// URL is the address that answered, after redirects; empty: the one asked.
	URL string
	// Media is what the bytes of an init or media segment turned out to hold; Wrong why they could not be read.
	Media stream.Media
	Wrong string
}

// Leave is the viewer (or the run) leaving: everything ends now, without being a failure of the stream.
type Leave struct{ Why string }

func (Press) isEvent()    {}
func (Tick) isEvent()     {}
func (Progress) isEvent() {}
func (Answer) isEvent()   {}
func (Leave) isEvent()    {}

// Action is something the player wants done: Fetch, Cancel, Emit, Wake or Done.
type Action interface{ isAction() }

// Purpose says what a fetch is for, and with that how its body is to be treated.
type Purpose string

// Purposes of a Fetch. The bodies of Init and Segment are read by stream.Inspect and described in Answer.Media; the
// others are passed on whole.
const (
	Play     Purpose = "play"     // POST a play start
	Manifest Purpose = "manifest" // MPD or HLS multivariant playlist
	Playlist Purpose = "playlist" // HLS media playlist
	Init     Purpose = "init"     // initialisation segment
	Segment  Purpose = "segment"  // media segment
)

// Fetch asks for an HTTP request. Its answer comes as an Answer with the same ID.
type Fetch struct {
	ID      uint64
	Purpose Purpose
	URL     string
	Range   stream.ByteRange // zero: the whole resource
	Post    []byte           // with Play: the JSON body to POST; nil: a GET
	Limit   int64            // the longest body worth reading, bytes
	// Timeout is when the driver may give up by itself. The player cancels earlier than that by its own reckoning.
	Timeout time.Duration
	// Init is what the rendition's initialisation segment said, for reading a media segment.
	Init stream.Media
}

// Cancel withdraws a fetch.
type Cancel struct{ ID uint64 }

// Emit is a fact for the timeline, with its time set.
type Emit struct{ Event event.Event }

// Wake asks for a Tick at that time; it replaces the one asked for before.
type Wake struct{ At time.Time }

// Done says that the player has left and wants nothing more. It is the last action.
type Done struct{}

func (Fetch) isAction()  {}
func (Cancel) isAction() {}
func (Emit) isAction()   {}
func (Wake) isAction()   {}
func (Done) isAction()   {}
