package starts

import (
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

func TestCeilingLeavesWhatTheScheduleDoes(t *testing.T) {
	// 100 a second, none, 40.
	sch := schedule(t, 3*s, audience.Leg{Rate: 100, For: s}, audience.Leg{At: 2 * s, Rate: 40, For: s})
	for _, c := range []struct {
		rate float64
		want [4]int // in each second, the one after the end too
	}{
		{0, [4]int{1000, 1000, 1000, 1000}}, // as many as are asked for
		{100, [4]int{0, 100, 60, 100}},
		{107, [4]int{7, 107, 67, 107}},
		{50, [4]int{0, 50, 10, 50}},
	} {
		var got [4]int
		for id := range 2 { // two shards share what is left
			l := newCeiling(&Config{MaxRate: c.rate, Schedule: sch, Shards: 2}, id)
			for k := range got {
				for i := range 500 {
					if l.take(time.Duration(k)*s + time.Duration(i)*ms) {
						got[k]++
					}
				}
			}
		}
		if got != c.want {
			t.Errorf("a ceiling of %g: room for %v, want %v", c.rate, got, c.want)
		}
	}
}

// A server that sheds everybody and asks them to come back at once gets no more requests in any second than the ceiling allows, and
// none after its end, however many want to.
func TestCeilingHoldsWhoTriesAgain(t *testing.T) {
	t.Parallel()
	again := always(response(503, `{"retryPolicy":{"maxRetries":3,"retryAfterSeconds":0}}`))
	for _, connections := range []Connections{KeepAlive, Fresh} {
		c := config(t, nil, schedule(t, 2*s, audience.Leg{Rate: 100, For: 2 * s}), listen(t, again))
		c.Connections, c.MaxRate, c.MaxLength, c.MaxRetries = connections, 150, 4*s, 3
		g := mustRun(t, c)
		n := g.Snapshot()
		if n.Intended != 200 || n.Shed != 200 || n.Attempts <= 250 || n.Parked != 0 {
			t.Errorf("%s: %+v", connections, n)
		}
		for i, second := range g.Seconds(0) {
			// One that came at a second's end may be sent in the next.
			if most := 150 + 20; int(second.Attempts) > most || i >= 4 && second.Attempts > 20 {
				t.Errorf("%s: %d requests in second %d", connections, second.Attempts, i)
			}
		}
	}
}
