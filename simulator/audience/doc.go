// Package audience says who presses Play, when, and who presses again: an open-loop arrival schedule, a seeded crowd, and
// people who follow a retry policy or do not.
//
// It is pure. A Schedule is an integrated rate, and the intended time of the k-th play start is its exact inverse, so
// that two generators, or a generator and a simulation, agree on every start without talking. A Crowd is a function of
// (seed, k), People are one of (seed, viewer, attempt). Nothing here reads a clock, a random source or a socket.
//
// If you are about to change it: a seed must mean the same crowd in every release, or old runs cannot be repeated; the
// tests' goldens hold that. Schedule.Intended and Crowd.Viewer are on the path of 100,000 play starts a second: they
// allocate nothing, and `go test -bench . ./simulator/audience` says what they cost.
package audience
