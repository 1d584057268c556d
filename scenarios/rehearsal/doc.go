// Package rehearsal conducts a run from venue to verdict. Read conduct.go first: it is the walk. Each step has a file:
//
//	system.go      what can be broken, and what stands around it for that: a network, relays, a watchdog
//	target.go      somebody else's stream or play API: whether it may be loaded, and where it is reached
//	telemetry.go   broker, store and ingester: embedded, or somebody's by address
//	regions.go     one child process a region; what chaos may kill and bring back
//	certificate.go what the regions' playback services are known by over TLS
//	crowd.go       everybody who presses Play: the open-loop play starts and the full players
//	starts.go      the open-loop play starts, which a child process sends
//	control.go     the operator, who watches the playback services and scales them
//	nowcast.go     the forecast, corrected by what they see, and the capacity that it takes
//	experiment.go  what is watched while things are broken, and what it came to
//	processes.go   what each process takes of the machine
//	judge.go       the objectives, as SQL over what was stored, and the report
//	storms.go      what an interruption brought back, for the report
//	story.go       what happened, in words
//	state.go       what a terminal shows meanwhile
//
// Beside the walk, up.go runs the pipeline alone, distributed.go judges a run that pods sent and nobody conducted, and store.go
// opens the store of a finished run.
package rehearsal
