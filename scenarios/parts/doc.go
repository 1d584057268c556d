// Package parts makes what a scenario may break out of what it says: the regions and components of the reference pipeline,
// the event path, and what its owner declares as theirs. It puts in front of each part what its faults need: a relay, or
// nothing where the kernel does it.
package parts
