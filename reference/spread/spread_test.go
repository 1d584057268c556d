package spread

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The first numbers of splitmix64 from seed 1234567, as its authors' reference implementation gives them.
func TestMixIsSplitmix64(t *testing.T) {
	x := uint64(1234567)
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := Mix(x); got != want {
			t.Errorf("number %d is %d, want %d", i, got, want)
		}
		x += 0x9e3779b97f4a7c15
	}
}

func TestJitterStaysWithinHalf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "d"))
		x := rapid.Uint64().Draw(t, "x")
		if s := Share(x); s < 0 || s >= 1 {
			t.Fatal(s)
		}
		if j := Jitter(d, x); j < d/2 || j > d/2+d || j != Jitter(d, x) {
			t.Fatalf("%s becomes %s", d, j)
		}
	})
}
