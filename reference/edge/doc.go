// Package edge is a caching node of a CDN. However many viewers ask for an object, an edge fetches it once (request
// collapsing): the first request starts a fill that belongs to nobody, so that a viewer who leaves does not cancel it, and
// everybody else waits for its end. That includes the next segment, which the origin holds open until it is published.
//
// A fill asks the origin of the edge's own region first and then the others; an origin that is silent for longer than
// it should be is not waited for: the next one is asked beside it, the first good answer wins, and a failing origin goes to
// the end of the order for a short, jittered while. Lifetimes come from Tminus-Max-Age-Ms (milliseconds) or Cache-Control,
// refusals included (RFC 9111 negative caching); what the segment template alone refuses needs no fill at all.
package edge
