// Package answer reads what a play API sends back: HTTP/1.1 responses (RFC 9112) byte by byte as they arrive, and a few
// values out of a JSON text (RFC 8259). Neither allocates on the way of a usual answer, both are strict, and both
// are bounded, because what is at the other end may be broken or hostile.
//
// Use it where net/http and encoding/json are too dear: in the event loop that sends a hundred thousand play starts a
// second on one core.
//
// If you are about to change it: http.go must give the same result however the bytes are cut (FuzzParser), and json.go
// must accept exactly what encoding/json accepts (FuzzPaths), whatever memo.go has seen before (FuzzMemo).
package answer
