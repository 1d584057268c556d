// Package bench measures the parts that a rehearsal leans on, each against a yardstick that is measured in the same run on
// the same two cores: the bare system calls, or a named peer. A figure without its yardstick is not quoted.
//
// Servers and clients are child processes, a core each; the program that runs them sleeps meanwhile. Measurements take turns in
// rounds, every other round backwards, and a ratio is the median of its rounds' ratios, so that a machine that drifts
// takes both sides of it along. A wrong answer, a dropped request or a missing peer makes the run invalid: a figure
// is then still shown, and said to be worth nothing.
//
// If you are about to change it: All lists the benchmarks; a new one (telemetry, merge, edge …) is a file like playstarts.go that
// names its measurements and ratios and hands them to measure. part.go is what a child process does, bare the yardsticks,
// peers how vegeta and k6 are driven.
package bench
