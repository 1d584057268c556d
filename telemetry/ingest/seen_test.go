package ingest

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSpansAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		set := make(map[uint64]bool)
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			seq := rapid.Uint64Range(0, 40).Draw(t, "seq")
			if fresh := s.add(seq); fresh == set[seq] {
				t.Fatalf("add(%d) = %v, in the set: %v", seq, fresh, set[seq])
			}
			set[seq] = true
			n := 0
			for i, x := range s {
				n += int(x.hi-x.lo) + 1
				if x.lo > x.hi || (i > 0 && s[i-1].hi+1 >= x.lo) {
					t.Fatalf("spans %v", s)
				}
			}
			if n != len(set) {
				t.Fatalf("%d in %v, want %d", n, s, len(set))
			}
		}
	})
}

func TestSpansAtTheEnds(t *testing.T) {
	var s spans
	const most = 1<<64 - 1
	for _, seq := range []uint64{most, 0, most - 1, 1} {
		if !s.add(seq) || s.add(seq) {
			t.Errorf("%d: %v", seq, s)
		}
	}
	if len(s) != 2 {
		t.Error(s)
	}
}
