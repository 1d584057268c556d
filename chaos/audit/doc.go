// Package audit proves faults of HTTP and of media from where viewers stand: it asks for things at a pace of its own, through
// the addresses that viewers use, and knows nothing of who breaks what.
//
// HTTP asks URLs and measures status, time to the first byte, pauses, completeness and rate. Segments fetches what is at
// the live edge of one rung, by the clock or by its playlist, and looks into the bytes: are they there, on time, whole,
// parseable, continuous, and are the pictures new? Both learn what is healthy from the time before the fault, want exactly
// the announced effect during it, want whatever the fault must not reach unharmed, and want the baseline back after it,
// within 5 %. What they conclude is pure and tested by tables.
package audit
