// Package bare is the yardstick of the benchmarks: an epoll client and an epoll server that exchange given bytes over TCP
// and do nothing else. Nobody parses, decides, allocates or measures latency here, so what this pair reaches on two cores
// is what the system calls and the loopback stack allow, and a figure is quoted as a share of it.
//
// Server answers every request with the same bytes. It recognises a request by its last byte alone, which must not occur
// elsewhere in one: the closing brace of a flat JSON body. Exchange keeps connections busy with one request (or several:
// pipelined) in flight on each; Fresh opens a connection for each exchange. TLSServer and Handshake are the same
// for TLS, with crypto/tls on blocking connections. Pin ties a process to one core.
//
// SendPackets and Sink are the same for datagrams: one sends, the other says what it has heard, number by number, so that whatever loses some
// of them on purpose between the two can be held to which.
//
// If you are about to change it: it must stay the fastest of its kind that is written down plainly. A slower yardstick
// flatters everything that is measured with it.
package bare
