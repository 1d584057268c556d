// Package starts is the open-loop generator of play starts over real sockets.
//
// Open loop means that the schedule alone says when a viewer presses Play: a slow server does not slow the crowd down.
// Every start is therefore measured twice, from its intended moment and from the moment it was sent, in histograms of
// constant memory (HDR), and what could not be sent in time is dropped and counted, never sent later in silence. Nothing is
// corrected afterwards (G. Tene's "coordinated omission" is what this avoids).
//
// It runs in shards: event loops over non-blocking sockets and epoll, each with a thread, connections and every n-th start
// of the schedule of its own, so that no word passes between them. Connections are kept, as a gateway fleet keeps them,
// with one request in flight or several (pipelined), or made anew for each attempt, with TLS if asked for. Viewers fail
// over from region to region, follow a server's retry policy or press Play again as audience.People says, and an
// Interruption brings back those who were watching. The server at the other end may be broken or hostile: whatever it
// sends, or does not, every wait, buffer and queue has a bound.
//
// An event's strings given to Config.Sink lie in memory that is used again: a sink copies what it keeps.
//
// If you are about to change it: pacer.go decides when (pure). shard.go is the loop, and what becomes of a start, from
// release through next, begin, take, attemptFailed and pressed to finish, which every intended start reaches exactly
// once. conn.go is the sockets and who waits on which; poller.go epoll itself; tls.go the goroutines that take the sockets'
// place under TLS. start.go has the containers: starts are numbers in slabs without pointers, in one list at a time.
// request.go renders and says what a good answer has; package answer reads it. On the way of a start nothing is
// allocated and no lock is taken but the shard's own, which its loop holds except while it sleeps: TestStartsDoNotAllocate and
// BenchmarkPlayStarts watch that.
package starts
