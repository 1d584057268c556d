// Package starts is the open-loop generator of play starts over real sockets.
//
// Open loop means that the schedule alone says when a viewer presses Play: a slow server does not slow the crowd down.
// Every start is therefore measured twice: from its intended moment and from the moment it was sent, and what
// could not be sent in time is dropped and counted, never sent later in silence. Nothing is corrected afterwards
// (G. Tene's "coordinated omission" is what this avoids).
//
// If you are about to change it: pacer.go decides when (pure), generator.go owns the queue between the pacer and the
// workers and every bound on it, worker.go is one viewer's attempts, conn.go and http.go are the socket and the bytes.
// What lies under worker.serve can be replaced by event-loop shards without touching the rest.
package starts
