package manifest

import (
	"fmt"
	"time"
)

// HLSMaster renders the multivariant playlist (RFC 8216): every rung once per edge, in steering order, so that a player
// fails over on its own; each edge is a pathway with an audio group of its own.
func HLSMaster(s Stream, opt Options) ([]byte, error) {
	return nil, fmt.Errorf("not rendered yet")
}

// HLSMedia renders the media playlist of one rendition as it stands at now. Its media sequence number is the segment
// number, its URLs are relative. It returns ErrUnknownRendition when the stream has no such rendition.
func HLSMedia(s Stream, rendition string, now time.Time, opt Options) ([]byte, error) {
	return nil, fmt.Errorf("not rendered yet")
}

// ErrUnknownRendition says that a stream has no rendition of that ID.
var ErrUnknownRendition = fmt.Errorf("unknown rendition")

// MediaChanges returns the time at which HLSMedia's answer changes next: until then a copy may be cached. It returns the zero time once the playlist
// has ended for good.
func MediaChanges(s Stream, now time.Time) time.Time {
	return time.Time{}
}
