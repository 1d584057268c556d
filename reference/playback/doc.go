// Package playback answers play starts. A play start gets a session, manifests personalised to its device and steered over the
// edges of every region, and a retry policy; the service watches the health of every edge by probing it, and sheds what
// is beyond its bounds with a 503 that says when to come back.
//
// Nothing is stored: a session's id carries what the service has to know about it and is signed with the run's key, so that
// every region's service answers for every session. Service is the logic, without transport: its methods take the clock and bytes
// and append bytes. Handler puts it behind net/http.
package playback
