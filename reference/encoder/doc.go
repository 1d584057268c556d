// Package encoder is a live encoder that loops real clips, locked to the epoch: wall clock decides the segment number,
// and the segment number decides every frame of every rendition. Two encoders that never exchange a word therefore make
// the same frames (DASH-IF live media ingest v1.2, interface 1: segment boundaries at K·duration since 1970).
//
// Ladder.Segment is the pure part; Encoder.Run hands each segment over when its last frame would have been captured.
package encoder
