package priority

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSet(t *testing.T) {
	was, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	nice := 20 - was
	if err := Set(nice); err != nil {
		t.Errorf("as it is: %v", err)
	}
	if os.Geteuid() != 0 {
		if err := Set(-5); !errors.Is(err, os.ErrPermission) {
			t.Errorf("without the privilege: %v", err)
		}
	}
}
