// Package media knows what a stream's segments are to somebody who stands between a server and its viewers: which
// request asks for which segment (Layout, Ref), whether a fault is about that segment (Selector, Edge), how to spoil its
// bytes (Defect, Spoil), and what its bytes say of themselves (Inspect). It is pure: no clock, no I/O.
//
// Two containers are known: fragmented MP4 as CMAF has it (ISO/IEC 14496-12, 23000-19), one fragment a segment or a
// fragment a chunk, one track or several; and MPEG-2 transport streams (ISO/IEC 13818-1) of 188-byte packets. A spoiled
// segment is still well formed unless it is meant not to be: a short one has boxes and offsets that agree, so that what
// a player does about it is what it would do about a short one from an encoder.
//
// Use it beneath chaos/httprelay, which carries bytes, and chaos/audit, which looks at what arrived.
package media
