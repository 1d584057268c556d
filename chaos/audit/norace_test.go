//go:build !race

package audit

// atOnce is how many faults are rehearsed together: they wait far more than they work.
const atOnce = 14
