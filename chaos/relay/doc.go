// Package relay stands in front of whatever listens on a local address, in user space, and is a bad path to it on order: for
// machines without root, and for what a kernel program cannot do, such as delay.
//
// Use UDP for datagrams: loss, delay, jitter with and without reordering, duplication, corruption, rate with a queue, and cut, each
// way by itself, as package link decides. Use TCP for streams: delay, jitter, rate, cut, reset and half-open; a stream has
// no packets here, so it loses none. The public address is the relay's and the part behind listens on another, so
// when the process that holds the relay ends, nothing of it is left.
//
// A relay that has nothing to do costs what its system calls cost: datagrams go through in batches (recvmmsg, sendmmsg) by one thread,
// streams by splice(2). Measure says how much that is.
//
// Routes lead single clients elsewhere: a probe sends its own flow through the same relay to its own sink. Each client's flow has
// a sequence of losses of its own (the first that comes, the impairment's seed), so that a probe beside it does not change what it
// loses; clients share the rate and its queue, a routed one has its own, so that measuring takes nothing from what is measured.
package relay
