// Package processes breaks what runs: a hang (SIGSTOP), too little processor time, too little memory; and measures from /proc and from outside whether it did. Use it for processes of the run: regions, their components, and
// what a scenario declares as its own. Anything else is refused.
//
// # How a process is held back
//
// Processor time and memory are limited by a control group that is made for the fault: the processes are moved into it,
// and back into their own at the end. Version 2 is used where it has the controller, version 1 where that is what there
// is. In version 2 the group is made beside the process's own, since a group that holds processes can have no others in it
// (Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint"); in version 1 inside it. Where neither can
// be written to, processor time is limited by stopping and continuing the processes; memory cannot be limited, and the
// error says what is lacking.
//
// A group counts what its processes take from the moment they are in it; what they had stays with the old one. A limit of
// memory is therefore room to grow.
//
// # When the conductor dies
//
// Whatever is stopped, moved or made is in the watchdog's journal before it is. Linux only.
package processes
