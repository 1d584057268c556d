// Package kernel breaks packets inside the Linux kernel: it loses them by a model, duplicates, corrupts or silences them, counts
// them, and sends them round through user space. Use it where there is root; a relay in user space does the same without.
//
// Each function puts one small eBPF program at traffic control (TCX, Linux 6.6) of one interface, at its ingress or egress, for
// one flow of IPv4 packets. Programs are held by file descriptor and never pinned: the kernel removes them when they are
// closed or the process ends, kill -9 included. An interface belongs to a network namespace: call from a thread that is in it
// (runtime.LockOSThread, setns); the Program may be used from anywhere.
//
// What is lost is decided by link.Rule's integers in the kernel itself, and the chain's state changes in one atomic step, so that the same
// seed loses the same packets of a flow as link.Dropper says, in the order in which they come, whichever processors they cross. TCP on loopback, and on any interface that segments late (tso, gso),
// travels in packets of up to 64 KiB: each counts once.
//
// Programs of one interface run in the order they were put there, Redirect's before all others. What one drops, those behind it
// do not see. A duplicate passes the programs in front of the one that made it untouched, and those behind it
// as any packet; to tell it, packets' marks from 0x7c000000 to 0x7cffffff are the package's own.
//
// Sources: bpf-helpers(7), include/uapi/linux/bpf.h, net/core/filter.c of Linux 6.6.
package kernel
