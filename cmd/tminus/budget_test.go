package main

import "testing"

func TestWhatIsAliveHasRoom(t *testing.T) {
	for _, c := range []struct{ budget, live, want int64 }{
		{96 << 20, 0, 96 << 20},
		{96 << 20, 60 << 20, 96 << 20},
		{96 << 20, 160 << 20, 212 << 20},
	} {
		if got := room(c.budget, c.live); got != c.want {
			t.Errorf("%d MB alive of %d: %d MB", c.live>>20, c.budget>>20, got>>20)
		}
	}
}
