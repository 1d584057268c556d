package starts

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whoever is parked comes back once, not early, and at most a tick late for who looks every tick.
func TestWheel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sl, w := newSlab(), newWheel()
		now := time.Duration(0)
		parked := map[uint64]time.Duration{}
		k := uint64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			for range rapid.IntRange(0, 5).Draw(t, "parked") {
				i := sl.get()
				k++
				sl.at(i).k = k
				sl.at(i).ready = now + time.Duration(rapid.Int64Range(0, int64(40*time.Second)).Draw(t, "after"))
				parked[k] = sl.at(i).ready
				w.add(&sl, i)
			}
			if wake, ok := w.wake(); ok != (len(parked) > 0) {
				t.Fatalf("%d are parked, wakes: %v", len(parked), ok)
			} else if ok {
				soonest := time.Duration(1<<63 - 1)
				for _, at := range parked {
					soonest = min(soonest, at)
				}
				if wake > max(now, soonest)+2*wheelTick {
					t.Fatalf("wakes at %v, the first is ready at %v", wake, soonest)
				}
			}
			now += time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "pass"))
			w.due(&sl, now, func(i uint32) {
				st := sl.at(i)
				if ready, ok := parked[st.k]; !ok || ready > now {
					t.Fatalf("%d came back at %v: parked until %v (%v)", st.k, now, ready, ok)
				}
				delete(parked, st.k)
				sl.put(i)
			})
			for k, at := range parked {
				if at+2*wheelTick <= now {
					t.Fatalf("%d was ready at %v and is still parked at %v", k, at, now)
				}
			}
			if w.n != len(parked) || sl.used != len(parked) {
				t.Fatalf("%d in the wheel, %d in use, %d parked", w.n, sl.used, len(parked))
			}
		}
		w.all(&sl, func(i uint32) { delete(parked, sl.at(i).k) })
		if len(parked) != 0 || w.n != 0 {
			t.Fatalf("%d are left", len(parked))
		}
	})
}

func TestList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sl, l := newSlab(), newList()
		var want []uint32
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			if len(want) > 0 && rapid.Bool().Draw(t, "remove") {
				at := rapid.IntRange(0, len(want)-1).Draw(t, "which")
				l.remove(&sl, want[at])
				want = append(want[:at:at], want[at+1:]...)
			} else {
				i := sl.get()
				l.push(&sl, i)
				want = append(want, i)
			}
			i, n := l.head, 0
			for ; i != none; i, n = sl.at(i).next, n+1 {
				if i != want[n] {
					t.Fatalf("place %d has %d, want %d", n, i, want[n])
				}
			}
			if n != len(want) || l.n != n {
				t.Fatalf("%d in the list, which says %d; want %d", n, l.n, len(want))
			}
		}
	})
}
