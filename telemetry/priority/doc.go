// Package priority says when this process is scheduled beside the others of a machine that a rehearsal shares: what is
// rehearsed before what measures it. Linux keeps a priority for each thread; threads to come take it from the one that
// starts them. On other systems nothing is changed.
package priority
