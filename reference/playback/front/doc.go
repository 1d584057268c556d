// Package front is the HTTP/1.1 server before a playback service. A play start (a POST to one path) is read, answered and
// written on an event loop without allocating; every other request takes its connection, with what was read of it, to
// net/http, which keeps it. So the loop has one kind of work and one strict parser, and everything else has the standard
// library's.
//
// A loop is one goroutine over one epoll instance. It reads what a connection has, answers every request in it, in order, with
// one write, and asks for the time once a batch (within 64 answers: well under a millisecond). A client that does not read its
// answers is not read from; slow heads, slow bodies, idle connections and unread answers all have a bound, and so do
// connections at once. TLS, and systems without epoll, have a goroutine for each connection and the same parser.
//
// A loop also tells how long play starts waited for it: since its last look at their connection, or since it last found nothing
// left to do, whichever is later; on new connections, since the backlog was last empty. epoll tells what is ready in order, which
// bounds the wait by one round of the connections, however long the loop has been busy.
//
// Framing is refused rather than guessed (RFC 9112, 11.2): a play start has one Content-Length, no Transfer-Encoding, one Host, no
// folded lines, no bare line feeds, no space before a colon. Where it says otherwise the answer is 400, 411, 413, 431 or 501, and the
// connection ends.
//
// Why a loop of its own and not gnet 2.9.7: that goes on reading from a client that does not read, keeps unsent answers without
// bound, and has no deadlines.
//
// If you are about to change it: what runs on a loop must never block, and a file descriptor belongs to one loop until it is
// closed or handed over.
package front
