// Package probe measures what a path does to packets and to connections, from its two ends, and says whether that is what a
// fault promises. It knows nothing of what impairs the path: it has a socket of its own at either end, sends its own
// numbered and checksummed packets through it before, during and after, and compares what it saw with what a link of the
// promised kind would have done to these very packets (package link, run many times with other seeds).
//
// Use UDP for anything that drops, delays, repeats, reorders or spoils packets or limits their rate, whether a relay, a program in the
// kernel or a wire between namespaces does it. Use TCP for what happens to connections: delay, rate, silence, resets and
// half-open ones. Both are observers: Watch measures, Judge says what it proves, and is a pure function underneath.
//
// Measured are the share lost and the mean length of bursts, one-way delay and its spread, interarrival jitter (RFC 3550, 6.4.1),
// duplicates, reordering (RFC 4737, type-P-reordered), corruption, and the rate of packet trains (dispersion: the pace at which a train
// that was sent at once arrives). Packets are stamped by the kernel when they arrive, so that a busy observer does not
// take its own delay for the path's.
//
// A promise is confirmed only if what was measured could not have been half of it: too few packets for that are inconclusive.
package probe
