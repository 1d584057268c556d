// Package watchdog is the dead man's switch of an experiment: a process of its own that puts the machine back in order when
// the conductor dies, kill -9 included. Use it for whatever outlives the process that made it: a stopped process, a
// network namespace, an interface, a cgroup, a kernel setting. What dies with the process anyway (a kernel
// program held by a file descriptor, a relay's sockets) needs none.
//
// # Two things that survive
//
// Before something is changed, Protect writes to a journal on disk how to undo it, and returns when the disk has it. The
// watchdog, in a session of its own so that neither Ctrl-C nor a closed terminal reaches it, holds the read end of a pipe
// whose write end only the conductor holds. The kernel closes that when the conductor is gone, after the last of its
// threads has left its last system call; the watchdog then undoes the journal's open entries, newest first, within
// Deadline, and ends. A watchdog that dies first closes Lost: the conductor must end its experiments, and Protect
// refuses.
//
// If both die, or the machine's power goes, Clean finds what is left: by the journals of conductors that live no more,
// and by the name, Prefix, that everything made here bears. It never touches what the journal of a living conductor
// lists.
//
// # Identity
//
// A pid is given out again; a pid with the moment it started is not (proc(5), field 22 of stat). A signal is sent
// through a pidfd, opened before the moment is compared, so that it cannot reach a stranger (pidfd_open(2)). Linux only.
package watchdog
