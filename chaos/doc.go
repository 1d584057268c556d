// Package chaos breaks a rehearsal on purpose, proves that it broke, and puts it back.
//
// A Fault is data. The catalogue turns it into an Injector, which applies and undoes it, and an Observer, which watches
// from outside and knows nothing of the injector: a fault counts as injected only when the Observer saw it. Run keeps
// the schedule, restores whatever happens, and returns a Result for each fault: confirmed, mismatch or inconclusive.
//
// What is broken belongs to the caller, who hands it in through the small interfaces here (Region). The blast radius is
// checked here all the same: a network fault touches addresses of 127.0.0.0/8 outside 127.0.0.0/24, and nothing else.
//
// Nothing outlives the process that injected it: kernel programs are held by file descriptor and never pinned, so that
// the kernel removes them when the process dies, kill -9 included.
//
// How to add a fault: ADDING.md.
package chaos
