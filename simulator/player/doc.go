// Package player is one viewer as a state machine: press Play, ask a playback service for a session, load a manifest,
// fill a buffer, play, adapt, change edge when one fails, stall, recover, leave. Step(now, event) → actions is all there
// is to it: no I/O, no clock, no goroutine, and randomness from a seed, so that the same viewer runs on real sockets
// (simulator/wire/sessions) and in virtual time.
//
//	idle → requesting → loading → starting → playing ⇄ rebuffering → ended
//	            └───────────┴─────────┴──────────┴──────────┴───────→ failed
//
// Adaptation is the hybrid that the dash.js reference player describes (Spiteri, Sitaraman, Sparacio: "From Theory to
// Practice: Improving Bitrate Adaptation in the DASH Reference Player", MMSys 2018): a throughput rule, guarded by the
// buffer level, and abandonment of a download that would outlast the buffer. Throughput is the lower of a fast and a
// slow exponentially weighted average with half-lives of 2 s and 5 s of download time, as Shaka Player and hls.js do.
//
// The steering order of edges comes from playback/steering; the choice along it is in path.go.
package player
