// Package link is what one direction of a bad path does to packets, as plain arithmetic: which are lost, when the others
// arrive, which arrive twice, and which with a flipped bit. It takes the time as an argument, opens no socket and draws from one
// seed, so that a relay, a wire between namespaces and a judge that wants to know what to expect all run the same path.
//
// Use New for a path of its own, and NewOn for flows that share a bottleneck.
//
// Loss follows Bernoulli, Gilbert (Bell System Technical Journal 39, 1960) and Elliott (42, 1963), or a recorded trace. A
// rate is a queue that is served at a constant pace and drops at its tail. Delay without reordering drifts in time, so
// that its variation does not depend on how close packets are; with reordering each packet's is drawn by itself, as Linux' netem does.
package link
