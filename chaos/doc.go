// Package chaos breaks a rehearsal on purpose, proves that it broke, and puts it back.
//
// A Fault is data. The catalogue turns it into an Injector, which applies and undoes it, and an Observer, which watches
// from outside and knows nothing of the injector: a fault counts as injected only when the Observer saw it. Run keeps
// the schedule, restores whatever happens, and returns a Result for each fault: confirmed, mismatch or inconclusive.
//
// What is broken belongs to the caller, who hands it in as Parts: what a run does not hand in cannot be broken. The blast
// radius is checked here all the same: addresses outside the loopback and the run's own network, and processes that are
// not the run's, are refused.
//
// Nothing outlives the process that injected it: kernel programs and namespaces are held by descriptors, relays live in
// the process, components' own misbehaviour is on lease, and what would stay (stopped processes, control groups, names)
// a watchdog undoes, whose journal knows of it before it is done.
//
// The means are packages of their own: link (what a bad path does to packets, in arithmetic), kernel, relay, httprelay and
// netns (who does it), media (what segments are, and how they are spoilt), processes, defects (orders to components);
// probe and audit measure. How to add a fault: ADDING.md.
package chaos
