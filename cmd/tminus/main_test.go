package main

import (
	"os"
	"testing"

	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/scenarios/process"
)

// What a command starts is this very binary: as a child it is the program, not its tests.
func TestMain(m *testing.M) {
	if process.IsChild() || watchdog.IsChild() || netns.IsChild() {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
