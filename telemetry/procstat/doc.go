// Package procstat reads what a process takes of this machine from Linux's /proc: memory, CPU time, threads. A rehearsal
// samples each of its processes once a second, so that its report can say whether their memory stayed flat.
//
// Source: proc(5), /proc/PID/stat and /proc/PID/status.
package procstat
