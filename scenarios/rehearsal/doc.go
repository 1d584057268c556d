// Package rehearsal conducts a run from venue to verdict. Read conduct.go first: it is the walk. Each step has a file:
//
//	telemetry.go   broker, store and ingester: embedded, or somebody's by address
//	regions.go     one child process a region; what chaos may kill and bring back
//	crowd.go       the open-loop play starts and the full players
//	experiment.go  what is watched while things are broken, and what it came to
//	judge.go       the objectives, as SQL over what was stored, and the report
//	story.go       what happened, in words
//	state.go       what a terminal shows meanwhile
//
// Beside the walk, up.go runs the pipeline alone, and store.go opens the store of a finished run.
package rehearsal
