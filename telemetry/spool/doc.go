// Package spool is the emitting end of telemetry: an event.Sink that never blocks its caller and loses nothing that it
// has taken to disk.
//
//	Emit → memory (bounded) → spool file, write(2) every few ms → Kafka, acks from all → acknowledged position
//
// An event is *emitted* once it is appended to the spool file: a kill -9 of the process does not take it away (a crash
// of the machine may). What a dead process left unacknowledged, Recover ships; what it emitted, Ledger counts. So the
// end of a run can say: emitted = stored, or by how many not.
//
// Delivery is at least once: an answer that was lost, or a process that died between the answer and noting it, makes
// the same events go out again. Events of a source are numbered from 1 without gaps, so that the store can tell.
//
// The spool is the buffer of the whole path: when the store does not keep up, its ingester stops reading, Kafka holds the
// emitters back, and spools grow, to SpoolBytes or to what the disk can spare. What is acknowledged is deleted.
//
// # Files
//
// Per source, in one folder: SOURCE.state, one fixed-size record rewritten in place (counts and positions), held under
// flock by the living process; SOURCE.NNNNNN.ndjson, the events, in segments that are deleted once acknowledged.
package spool
