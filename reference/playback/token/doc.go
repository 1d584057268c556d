// Package token signs the URLs of a session's media: a token names the session, ends at a moment, and stands as the first element
// of a URL's path, /t/<token>/<event>/…, so that relative URLs inherit it. An edge checks it, takes it off, and goes on as if it
// had never been there: neither segments, cache keys nor fills know of tokens.
//
// It is pure: expiry is judged by the clock that a caller passes. The signature is HMAC-SHA256 (RFC 2104), cut to 14 bytes as its
// section 5 allows; the text is base64url (RFC 4648, 5). A token carries the id of its key, so that keys can be changed while
// old tokens are still good.
package token
