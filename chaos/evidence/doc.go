// Package evidence is what is said about a fault: when it was in effect, what was measured meanwhile by somebody who
// does not know of its injector, and what that proves. It is a leaf, so that whatever breaks and whatever measures can
// speak of the same things without knowing each other.
package evidence
