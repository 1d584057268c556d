// Package process starts, watches and ends the child processes of a run: one for each region, and whatever else a
// rehearsal needs beside the conductor. It exists so that nothing a rehearsal started outlives it, whatever happens to
// the conductor, kill -9 included.
//
// # Two ropes
//
// Every child holds the read end of a pipe whose write end only its parent holds. The kernel closes the write end when
// the parent is gone, however it went; the child's WatchLifeline sees end-of-file and the child ends at once. That rope
// needs the child to be running, so a second one covers the child that is stopped, wedged, or has not got as far as
// WatchLifeline: PR_SET_PDEATHSIG, with which the kernel itself sends SIGKILL. Linux ties that signal to the thread that
// forked, not to the process: a Go program's thread may end long before the program, so every fork is made on one
// thread that is locked and never given back.
//
// # Groups
//
// Every child leads a process group of its own. Ctrl-C in a terminal therefore reaches the conductor alone, which stops
// its children in its own order; and when a child ends, for whatever reason, what is left of its group (its own
// children) is killed before its pid is given back to the kernel, while no stranger can have it. A grandchild is not
// covered by the ropes above when the conductor itself is killed with SIGKILL: a child that has children of its own
// starts them with this package too, and each level then hangs on the one above.
//
// # Talking to a child
//
// Its configuration goes in through standard input (argv can be read by everyone on the machine). Standard output and
// standard error go to a bounded log file, whose last lines are quoted when the child ends without being asked to. When
// it is ready to serve, or cannot, it says so in one line of JSON on a pipe of its own: {"ready":true} or
// {"error":"a sentence"}. Linux only.
package process
