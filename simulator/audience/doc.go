// Package audience says who presses Play and when: an open-loop arrival schedule and a seeded crowd.
//
// It is pure. A Schedule is an integrated rate, and the intended time of the k-th play start is its exact inverse, so
// that two generators, or a generator and a simulation, agree on every start without talking. A Crowd is a function of
// (seed, k). Nothing here reads a clock, a random source or a socket.
package audience
