// Package spread turns seeds and counters into numbers that look drawn by lot: for jitter, and for choosing among equals
// so that load spreads evenly. It is pure: the same input gives the same number in every process. It is not for secrets.
//
// Source: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
package spread
