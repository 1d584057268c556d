// Package sessions runs full players (package player) over real sockets: N viewers who press Play at seeded times, fetch
// real manifests and segments, check the bytes they get, and leave at the end of the event. It is the only part of the
// crowd's players that touches the network and the clock.
//
// Only loopback addresses and those of a Permit are talked to, whatever a scenario, a name server, a manifest or a redirect
// says: ErrNotLoopback names the first other address met.
package sessions
