// Package dnsrelay stands in front of a resolver on a local address and answers wrongly, late or not at all for the names
// that it is told to; everything else it passes on as it is (RFC 1035 over UDP; answers that do not fit a datagram are the
// resolver's own to truncate). Its observer asks through the relay before, during and after, and knows only what it is
// answered. The relay lives in the process that made it and leaves nothing behind.
package dnsrelay
