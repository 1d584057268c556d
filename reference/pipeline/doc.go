// Package pipeline assembles the reference pipeline, region by region: encoder, packager, origin, edges and playback of
// one region in one process. A Config is the whole run's shape; every process of the run gets the same one (as JSON)
// with its own Region index, so that each can compute every address, URL and segment number without asking another.
//
// Region r (counted from 1, in the scenario's order) owns the loopback prefix 127.0.r.0/24 and each component in it has an
// address of its own: a region can be cut, delayed or made lossy by address. Everything a component dials, it dials
// from its own address.
package pipeline
