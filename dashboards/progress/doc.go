// Package progress shows a rehearsal on a terminal while it runs: a live panel redrawn in place on a terminal, plain
// lines anywhere else, and a summary at the end of both. Use it from the command that conducts a run; it decides
// nothing and only draws the State that it is given.
//
// ForFile picks panel or lines for a file. Run asks for the State at every tick; whoever owns the clock owns the ticks.
package progress
