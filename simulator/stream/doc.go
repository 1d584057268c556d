// Package stream reads somebody's live stream — MPEG-DASH (ISO/IEC 23009-1) or HLS (RFC 8216) — into one model: a
// Presentation of renditions, each reachable over one or more paths (DASH BaseURLs, HLS pathways and redundant variants:
// the edges of one or several CDNs), and for each rendition and path an Index that answers which segment covers a time,
// what it is called and when it can be had.
//
// One clock runs through it. Every segment's Start is a wall-clock time: in DASH availabilityStartTime plus the
// presentation time, in HLS EXT-X-PROGRAM-DATE-TIME, and where a playlist has none, the time it was first loaded is taken
// for the end of its last segment. Live latency is then the same subtraction everywhere: now − (Start + offset).
//
// Everything is pure: bytes and times in, values out. What is outside the model is refused by name (ErrUnsupported),
// every size is bounded, and no input panics.
//
// Both formats are read here rather than with the libraries that the reference pipeline writes them with, because they
// do not survive hostile input: dash-mpd v0.14.0 never returns from text that contains "/>", hls-m3u8 v0.6.0 dereferences
// nil on an EXT-X-KEY that no segment follows. They are the tests' second opinion instead.
package stream
