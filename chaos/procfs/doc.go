// Package procfs reads what Linux says of processes in /proc and sends them signals that cannot reach a stranger. Use it
// wherever a pid is kept for longer than a moment: a pid is given out again, a pid with the moment it started is not.
// Source: proc(5), pidfd_open(2), pidfd_send_signal(2). Linux 5.3 or later.
package procfs
