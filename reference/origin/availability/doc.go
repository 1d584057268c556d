// Package availability decides what a request for a part of a live stream deserves at an instant: to be served, to be held
// open for the next segment, or to be refused and for how long. It is pure: the clock, the segment template, the request
// and what the store holds are arguments, so that the origin, the edges and the simulation decide alike.
//
// Wall clock and template alone decide most answers, with no store read (Refuse): an unknown event or rendition, a number
// outside the event's range (404), a segment that is not due yet (404, cacheable until just before it is due), one that has
// left the time-shift buffer (410). The immediately next segment is held open until it is published or its retry deadline
// has passed; a segment that was never made is 410; under stress, reads far behind the live edge get 503 with max-age=5
// while live-edge reads go on.
package availability
