package process

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetPriority(t *testing.T) {
	was, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	nice := 20 - was
	if err := SetPriority(nice); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if os.Geteuid() != 0 {
		if err := SetPriority(-5); !errors.Is(err, os.ErrPermission) {
			t.Errorf("without the privilege: %v", err)
		}
	}
}
