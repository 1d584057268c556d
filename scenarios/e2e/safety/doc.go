// Package safety proves what is promised of whatever breaks things on purpose, with the built program and from outside: that
// nothing of it is left when it is killed, that it does not touch what is not its own, and what of it works without root.
//
//	go test ./scenarios/e2e/safety -run Kill -v
//
// Where a kill strikes is left to chance; SAFETY_SEED=<what the test has printed> strikes there again.
package safety
