// Package httprelay stands in front of a local HTTP server and breaks what the server cannot be asked to break: answers
// with errors by share, delays, stalls in mid-body, resets, bodies cut short or slowed down or corrupted, and segments
// that are missing, late, short, corrupt, frozen or at the wrong time (package media).
//
// A Relay without rules is an HTTP/1.1 gateway that adds nothing and takes nothing away beyond the hop-by-hop fields of
// RFC 9110, 7.6.1: ranges, conditions, trailers, chunked and endless bodies, HEAD and upgrades pass. When its server
// refuses connections the relay stops listening until it takes them again, so that a dead server looks dead; when the server
// hangs, so does the relay. It lives in the process that made it and leaves nothing behind.
//
// Rules come and go while requests are under way. What a rule holds back is let go the moment the rule is taken away.
// Which requests a rule with a share takes is drawn from its seed and the request's number among those that match: the same
// seed and order of requests, the same answers.
package httprelay
