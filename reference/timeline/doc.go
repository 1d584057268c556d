// Package timeline maps wall clock to segment numbers and back. Every encoder, packager, origin, edge and player that
// agrees on a segment duration agrees on every segment's number and deadline without a word between them: segment n
// covers [n·d, (n+1)·d) since the Unix epoch (DASH-IF live media ingest v1.2, interface 1). All functions are pure; the
// clock is an argument.
package timeline
