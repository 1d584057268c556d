package availability

import (
	"errors"
	"strconv"
	"strings"

	"github.com/tminus-live/tminus/reference/manifest"
)

// Kind is what a path names.
type Kind uint8

// What a path can name.
const (
	Init    Kind = iota + 1 // /{event}/{rendition}/init.mp4
	Segment                 // /{event}/{rendition}/{n}.m4s
	MPD                     // /{event}/manifest.mpd
	Master                  // /{event}/master.m3u8
	Media                   // /{event}/{rendition}/media.m3u8
)

// Resource is a parsed path. Its URL is one and the same for PUT and GET.
type Resource struct {
	Event     string
	Rendition string // of Init, Segment and Media
	Kind      Kind
	Number    uint64 // of Segment
}

// ErrPath says that a path names nothing that a stream can have.
var ErrPath = errors.New("no such kind of path")

// maxElement bounds the length of an event's or rendition's name, in bytes.
const maxElement = 63

// Parse reads a path. It takes the canonical spelling only (no escapes, no leading zeros, no empty elements), so that a
// resource has exactly one cache key: Parse(p).Path() == p for every p it takes.
func Parse(path string) (Resource, error) {
	if len(path) > 2*maxElement+32 || !strings.HasPrefix(path, "/") {
		return Resource{}, ErrPath
	}
	event, rest, ok := strings.Cut(path[1:], "/")
	if !ok || !element(event) {
		return Resource{}, ErrPath
	}
	switch rest {
	case "manifest.mpd":
		return Resource{Event: event, Kind: MPD}, nil
	case "master.m3u8":
		return Resource{Event: event, Kind: Master}, nil
	}
	rendition, name, ok := strings.Cut(rest, "/")
	if !ok || !element(rendition) {
		return Resource{}, ErrPath
	}
	r := Resource{Event: event, Rendition: rendition}
	switch name {
	case "init.mp4":
		r.Kind = Init
		return r, nil
	case "media.m3u8":
		r.Kind = Media
		return r, nil
	}
	digits, ok := strings.CutSuffix(name, ".m4s")
	if !ok || digits == "" || len(digits) > 1 && digits[0] == '0' || digits[0] == '+' {
		return Resource{}, ErrPath
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > maxNumber {
		return Resource{}, ErrPath
	}
	r.Kind, r.Number = Segment, n
	return r, nil
}

// maxNumber keeps a segment's wall-clock times within what int64 nanoseconds hold. With segments of 2 s it is the year
// 2106; with the shortest that the field uses, 1 s, it is 2038 and has to be looked at again.
const maxNumber = 1<<31 - 1

func element(s string) bool {
	if s == "" || len(s) > maxElement {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && i > 0: // no hidden names, no dot segments
		default:
			return false
		}
	}
	return true
}

// Path is the resource's one canonical path.
func (r Resource) Path() string {
	switch r.Kind {
	case MPD:
		return "/" + r.Event + "/manifest.mpd"
	case Master:
		return "/" + r.Event + "/master.m3u8"
	case Media:
		return "/" + r.Event + "/" + r.Rendition + "/media.m3u8"
	case Init:
		return "/" + r.Event + "/" + r.Rendition + "/init.mp4"
	default:
		return "/" + r.Event + "/" + r.Rendition + "/" + strconv.FormatUint(r.Number, 10) + ".m4s"
	}
}

// ContentType is the media type of the resource's representation (RFC 6838; RFC 8216 for playlists, ISO/IEC 23009-1 for
// the MPD).
func (r Resource) ContentType(s manifest.Stream) string {
	switch r.Kind {
	case MPD:
		return "application/dash+xml"
	case Master, Media:
		return "application/vnd.apple.mpegurl"
	}
	if rd, ok := s.Rendition(r.Rendition); ok && rd.Kind == manifest.Audio {
		return "audio/mp4"
	}
	return "video/mp4"
}
