package experiment

import (
	"errors"
	"slices"
	"testing"
	"time"
)

const s = time.Second

func TestPhases(t *testing.T) {
	one := Course{Faults: []Span{{20 * s, 31 * s}}, Due: 20 * s, Settle: 10 * s, Ran: 60 * s}
	two := Course{Faults: []Span{{30 * s, 41 * s}, {20 * s, 25 * s}}, Due: 20 * s, Settle: 5 * s, Ran: 60 * s}
	short := Course{Faults: []Span{{20 * s, 55 * s}}, Due: 20 * s, Settle: 10 * s, Ran: 60 * s}
	none := Course{Due: 20 * s, Settle: 10 * s, Ran: 60 * s}
	for _, c := range []struct {
		name     string
		course   Course
		strategy string
		want     []Phase
	}{
		{"the whole", one, Continuously, []Phase{{Before, Span{0, 20 * s}}, {During, Span{20 * s, 31 * s}}, {After, Span{41 * s, 60 * s}}}},
		{"default", one, Default, []Phase{{Before, Span{0, 20 * s}}, {After, Span{41 * s, 60 * s}}}},
		{"before alone", one, BeforeMethodOnly, []Phase{{Before, Span{0, 20 * s}}}},
		{"during alone", one, DuringMethodOnly, []Phase{{During, Span{20 * s, 31 * s}}}},
		{"after alone", one, AfterMethodOnly, []Phase{{After, Span{41 * s, 60 * s}}}},
		{"two faults are one method", two, Continuously, []Phase{{Before, Span{0, 20 * s}}, {During, Span{20 * s, 41 * s}}, {After, Span{46 * s, 60 * s}}}},
		{"no time is left after", short, AfterMethodOnly, []Phase{{After, Span{60 * s, 60 * s}}}},
		{"nothing was injected", none, Continuously, []Phase{{Before, Span{0, 20 * s}}}},
		{"nothing was injected, nothing is checked", none, AfterMethodOnly, nil},
	} {
		if got := c.course.Phases(c.strategy); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	if got, ok := one.Compared(); !ok || got != (Span{20 * s, 41 * s}) {
		t.Errorf("compared over %v", got)
	}
	if got, ok := short.Compared(); !ok || got != (Span{20 * s, 60 * s}) {
		t.Errorf("compared over %v", got)
	}
	if _, ok := none.Compared(); ok {
		t.Error("compared over nothing")
	}
	for _, strategy := range Strategies() {
		if len(checked[strategy]) == 0 {
			t.Errorf("%s checks nothing", strategy)
		}
	}
}

func TestGuard(t *testing.T) {
	lost := errors.New("no answer")
	for _, c := range []struct {
		name  string
		looks []Look
		want  []Decision
	}{
		{"all is well", []Look{{At: 1 * s, Newest: 1 * s, Held: -1}, {At: 2 * s, Newest: 1 * s, Held: -1}, {At: 30 * s, Newest: 29 * s, Held: -1}}, []Decision{GoOn, GoOn, GoOn}},
		{"a condition holds", []Look{{At: 1 * s, Newest: 1 * s, Held: -1}, {At: 2 * s, Newest: 2 * s, Held: 0}}, []Decision{GoOn, Stop}},
		{"no answers for too long", []Look{{At: 1 * s, Newest: 1 * s, Held: -1}, {At: 4 * s, Err: lost}, {At: 6 * s, Err: lost}, {At: 6100 * time.Millisecond, Err: lost}}, []Decision{GoOn, GoOn, GoOn, GoBlind}},
		{"never an answer", []Look{{At: 1 * s, Err: lost}, {At: 7 * s, Err: lost}}, []Decision{GoOn, GoBlind}},
		{"an answer about long ago to begin with", []Look{{At: 10 * s, Newest: 4 * s, Held: -1}}, []Decision{GoBlind}},
		{"an answer in time", []Look{{At: 1 * s, Err: lost}, {At: 5 * s, Newest: 5 * s, Held: -1}, {At: 9 * s, Err: lost}}, []Decision{GoOn, GoOn, GoOn}},
		{"answers about long ago", []Look{{At: 10 * s, Newest: 10 * s, Held: -1}, {At: 14 * s, Newest: 10 * s, Held: -1}, {At: 16 * s, Newest: 10 * s, Held: -1}}, []Decision{GoOn, GoOn, GoBlind}},
	} {
		var g Guard
		for i, l := range c.looks {
			if got := g.Take(l); got != c.want[i] {
				t.Errorf("%s: look %d: %d, want %d", c.name, i, got, c.want[i])
			}
		}
	}
	var g Guard
	for _, l := range []Look{{At: s, Asked: true, Held: -1, Found: []uint64{40, 0}}, {At: 2 * s, Err: lost, Asked: true, Found: []uint64{40, 7}},
		{At: 3 * s, Newest: 5 * s / 2, Asked: true, Held: -1, Found: []uint64{1, 0, 9}}, {At: 4 * s, Newest: 5 * s / 2, Held: -1}} {
		g.Take(l)
	}
	if g.Looks != 3 || g.Gap != 2*s || g.Behind != s || !slices.Equal(g.Found, []uint64{2, 0, 1}) {
		t.Errorf("%d looks, at most %s apart and %s behind, samples in %d", g.Looks, g.Gap, g.Behind, g.Found)
	}
}

func TestHeldSince(t *testing.T) {
	asked := 0
	from := func(since time.Duration) func(time.Duration) (bool, error) {
		return func(at time.Duration) (bool, error) {
			asked++
			return at >= since, nil
		}
	}
	if got, err := HeldSince(20*s, 10*s, 100*time.Millisecond, from(19500*time.Millisecond)); err != nil || got != 19500*time.Millisecond || asked != 6 {
		t.Errorf("since %s, asked %d times, %v", got, asked, err)
	}
	if got, _ := HeldSince(20*s, 19*s, 100*time.Millisecond, from(0)); got != 19*s {
		t.Errorf("since %s, want no further back than 19s", got)
	}
	if got, _ := HeldSince(20*s, 19*s, 100*time.Millisecond, from(time.Hour)); got != 20*s {
		t.Errorf("since %s, want the moment it was seen", got)
	}
	broken := errors.New("broken")
	if _, err := HeldSince(20*s, 19*s, s/10, func(time.Duration) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
