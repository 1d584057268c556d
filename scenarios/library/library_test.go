package library_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/scenarios/library"
)

func TestReadByName(t *testing.T) {
	for _, name := range []string{library.Default, "first-light-unprepared", "first-light-cut"} {
		if !slices.Contains(library.Names(), name) {
			t.Errorf("%s is not in %v", name, library.Names())
		}
		a, err := library.Read(name)
		b, err2 := library.Read(name + ".yaml")
		if err != nil || err2 != nil || len(a) == 0 || string(a) != string(b) {
			t.Errorf("%s: %v, %v", name, err, err2)
		}
	}
	if _, err := library.Read("../library/first-light"); err == nil || !strings.Contains(err.Error(), "first-light-cut") {
		t.Errorf("error %v, want one that lists the names", err)
	}
}
