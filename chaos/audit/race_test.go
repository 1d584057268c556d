//go:build race

package audit

// atOnce: see norace_test.go. The race detector makes work of what was waiting.
const atOnce = 5
