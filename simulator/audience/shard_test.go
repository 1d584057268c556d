package audience

import (
	"testing"
	"time"
)

// Several generators that each take their share send, all together, what one would have sent: the same starts, at the same
// times, by the same viewers.
func TestShardsTogetherAreTheWhole(t *testing.T) {
	schedule, err := NewSchedule([]Leg{{Rate: 7}, {At: 3 * time.Second, Rate: 1000, For: 2 * time.Second, Curve: Spike}, {At: 6 * time.Second, Rate: 300, Curve: Sinus, Amplitude: 200, Period: time.Second}}, 9*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := NewCrowd(DefaultMix, []string{"us-east", "us-west"}, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 3, 4, 5000} {
		var total, due uint64
		var peak, rate float64
		for i := range n {
			s, err := schedule.Shard(i, n)
			if err != nil {
				t.Fatal(err)
			}
			c, err := crowd.Shard(i, n)
			if err != nil {
				t.Fatal(err)
			}
			walk := s.Walk()
			for k := range s.Total() {
				whole := uint64(i) + k*uint64(n)
				if got, want := s.Intended(k), schedule.Intended(whole); got != want || walk.Intended(k) != want {
					t.Fatalf("shard %d of %d: start %d is due at %v (walked %v), want %v", i, n, k, got, walk.Intended(k), want)
				}
				if got, want := c.Viewer(k), crowd.Viewer(whole); got != want {
					t.Fatalf("shard %d of %d: start %d is %+v's, want %+v's", i, n, k, got, want)
				}
			}
			if got := s.Intended(s.Total()); got != s.End() {
				t.Errorf("shard %d of %d: after the last start %v, want the end %v", i, n, got, s.End())
			}
			total += s.Total()
			due += s.Count(4 * time.Second)
			peak += s.Peak()
			rate += s.Rate(time.Second)
		}
		if total != schedule.Total() || due != schedule.Count(4*time.Second) {
			t.Errorf("%d shards hold %d starts, %d of them in 4 s; want %d and %d", n, total, due, schedule.Total(), schedule.Count(4*time.Second))
		}
		if d := peak/schedule.Peak() - 1; d > 1e-9 || d < -1e-9 {
			t.Errorf("the peaks of %d shards add up to %v, want %v", n, peak, schedule.Peak())
		}
		if d := rate/schedule.Rate(time.Second) - 1; d > 1e-9 || d < -1e-9 {
			t.Errorf("the rates of %d shards add up to %v, want %v", n, rate, schedule.Rate(time.Second))
		}
	}
	for _, bad := range [][2]int{{0, 0}, {-1, 2}, {2, 2}} {
		if _, err := schedule.Shard(bad[0], bad[1]); err == nil {
			t.Errorf("shard %d of %d of a schedule", bad[0], bad[1])
		}
		if _, err := crowd.Shard(bad[0], bad[1]); err == nil {
			t.Errorf("shard %d of %d of a crowd", bad[0], bad[1])
		}
	}
	half, _ := schedule.Shard(0, 2)
	if _, err := half.Shard(0, 2); err == nil {
		t.Error("a shard was sharded again: its starts would not be of the whole")
	}
}
