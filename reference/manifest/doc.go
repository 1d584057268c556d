// Package manifest describes a live stream as a template and renders it: an MPEG-DASH MPD with SegmentTemplate and
// @duration (ISO/IEC 23009-1, number n = startNumber + floor((now−AST−PeriodStart)/d)), so that a player needs no polling,
// and HLS playlists (RFC 8216) over the same CMAF segments. Rendering is pure: the template, the options and now decide
// every byte, so every origin, edge and region answers alike.
package manifest
