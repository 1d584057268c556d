// Package consent decides who may be loaded, and says to them who loads. Loopback passes. Anything else, private addresses
// included, must prove that it agrees: it serves a token, made by `tminus consent HOST` and bound to its host and port and to
// a day, at /.well-known/tminus-consent.txt on that very port.
//
// Check fetches that file before a run and Permit.Run again every minute; a file that is gone, another answer, or silence ends
// the load. The name is resolved once: the address that was checked is the one that every connection of the run goes to, so
// that a name server cannot point the load elsewhere. Redirects are not followed, what is read is bounded in bytes and time.
//
// The file is text, 4 KiB at most: one token a line; empty lines and lines that begin with # are for people.
//
// If you are about to change it: every doubt is a no. What can be reached without a Permit is loopback alone, and no option,
// flag or environment variable changes that.
package consent
