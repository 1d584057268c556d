package bare

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// lostOf says of one number after another whether it is to be lost.
func lostOf(numbers string) func() bool {
	i := -1
	return func() bool {
		i++
		return i < len(numbers) && numbers[i] == '1'
	}
}

func TestHeard(t *testing.T) {
	for _, c := range []struct {
		name    string
		lost    string
		arrived []uint64
		want    Heard
	}{
		{"all", "", []uint64{0, 1, 2}, Heard{Next: 3, Arrived: 3}},
		{"what should be lost is", "01100010", []uint64{0, 3, 4, 5, 7}, Heard{Next: 8, Arrived: 5, Lost: 3, Bursts: 2}},
		{"lost from the first on", "110", []uint64{2}, Heard{Next: 3, Arrived: 1, Lost: 2, Bursts: 1}},
		{"something else is lost", "010", []uint64{1, 2}, Heard{Next: 3, Arrived: 2, Lost: 1, Bursts: 1, Wrong: 2}},
		{"what should be lost is not", "010", []uint64{0, 1, 2}, Heard{Next: 3, Arrived: 3, Wrong: 1}},
		{"what should not be is", "", []uint64{0, 2}, Heard{Next: 3, Arrived: 2, Lost: 1, Bursts: 1, Wrong: 1}},
		{"twice, and late", "", []uint64{0, 1, 1, 0}, Heard{Next: 2, Arrived: 4, Wrong: 2}},
	} {
		var h Heard
		lost := lostOf(c.lost)
		for _, n := range c.arrived {
			h.arrives(n, lost)
		}
		if h != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, h, c.want)
		}
		var again Heard
		if again.parse(h.append(nil)); again != h {
			t.Errorf("%+v went over the wire as %+v", h, again)
		}
	}
}

// sink runs one for the length of a test.
func sink(t *testing.T, lost func() bool) *Sink {
	t.Helper()
	s, err := ListenPackets(anyPort, lost)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestPackets(t *testing.T) {
	began := false
	r, err := SendPackets(t.Context(), SourceConfig{
		To: sink(t, nil).Addr(), Size: 1316, Warm: 10 * time.Millisecond, For: 100 * time.Millisecond, Begin: func() { began = true },
	})
	if err != nil {
		t.Fatal(err)
	}
	h := r.Heard
	if r.Packets < 100 || r.For < 100*time.Millisecond || r.CPU <= 0 || !began || h.Wrong > 0 || h.Lost > 0 || h.Arrived != h.Next || h.Arrived < r.Packets {
		t.Errorf("%+v, begun %t", r, began)
	}
}

func TestPacketsThatShouldHaveBeenLost(t *testing.T) {
	r, err := SendPackets(t.Context(), SourceConfig{To: sink(t, lostOf("0001")).Addr(), Size: 8, For: 10 * time.Millisecond})
	if err != nil || r.Heard.Wrong != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestPacketsStayOnTheMachine(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:80", "[::1]:80"} {
		elsewhere := netip.MustParseAddrPort(addr)
		if _, err := ListenPackets(elsewhere, nil); err == nil {
			t.Errorf("a sink at %s", addr)
		}
		if _, err := SendPackets(t.Context(), SourceConfig{To: elsewhere, Size: 100, For: 1}); err == nil {
			t.Errorf("a source for %s", addr)
		}
	}
}

func TestASourceEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := SendPackets(ctx, SourceConfig{To: sink(t, nil).Addr(), Size: 100, For: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
	deaf, err := ListenPackets(anyPort, nil) // never runs
	if err != nil {
		t.Fatal(err)
	}
	_, err = SendPackets(t.Context(), SourceConfig{To: deaf.Addr(), Size: 100, For: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "has heard nothing for 2s: 0 of") {
		t.Errorf("%v, want what stalls", err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := deaf.Run(ended); err != nil {
		t.Error(err)
	}
}
