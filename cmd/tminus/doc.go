// Command tminus rehearses a live stream before the audience arrives: it runs a reference pipeline or points at yours,
// sends a crowd, breaks things on purpose, and ends in GO or NO-GO.
//
// Exit status: 0 GO, 99 NO-GO, 98 inconclusive, 104 invalid scenario, 2 usage, 1 any other error.
package main
