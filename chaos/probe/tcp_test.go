package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/relay"
)

// questions makes what a probe would see: each answer takes so long, and outcomes are as given while the fault lasts.
func questions(took func(at time.Duration) time.Duration, during Outcome, then Outcome) []Ask {
	from, to := window.Injected.Sub(t0), window.Restore.Sub(t0)
	var asks []Ask
	conn, broken := 0, false
	for at := time.Duration(0); at < stop; at += freshEvery {
		a := Ask{Sent: at, Done: at + took(at), Outcome: Answered, Fresh: true}
		if at >= from && at < to && during != Answered {
			a.Outcome = during
			if during == Silent {
				a.Done = at + freshWait
			}
		}
		asks = append(asks, a)
	}
	for at := time.Duration(0); at < stop; at += askEvery {
		a := Ask{Sent: at, Done: at + took(at), Outcome: Answered, Conn: conn, First: at == 0}
		if at >= from && at < to && during != Answered && !broken {
			broken = true
			a.Outcome = during
			if during == Silent {
				a.Done, a.Outcome = to+200*ms, then
				if then == Silent {
					a.Done = stop
				}
			}
			asks = append(asks, a)
			at = to + 500*ms
			if then == Reset || during == Reset {
				conn++
			}
			continue
		}
		asks = append(asks, a)
	}
	return asks
}

func constant(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// while is how long answers take while the fault lasts; 1 ms else.
func while(d time.Duration) func(time.Duration) time.Duration {
	return func(at time.Duration) time.Duration {
		if at >= window.Injected.Sub(t0) && at < window.Restore.Sub(t0) {
			return d
		}
		return ms
	}
}

// lateAfter is the same, asked late when the fault is over.
func lateAfter(asks []Ask) []Ask {
	for i := range asks {
		if asks[i].Sent > window.Restored.Sub(t0) {
			asks[i].Lag = 30 * ms
		}
	}
	return asks
}

// few is the same with one in a hundred of the answers on connections that stay open while the fault lasts.
func few(asks []Ask) (left []Ask) {
	for i, a := range asks {
		if a.Fresh || a.Sent < window.Inject.Sub(t0) || a.Sent > window.Restore.Sub(t0) || i%100 == 0 {
			left = append(left, a)
		}
	}
	return left
}

// Connections are watched for as long as it takes to see that they are as before: there are questions, and a haul where there is to be one, that
// the fault cannot have touched.
func TestConnectionsAreWatchedForLongEnough(t *testing.T) {
	listener, err := net.ListenTCP("tcp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, c := range []struct {
		name     string
		up, down link.Impairment
		fits     bool
	}{
		{"nothing", link.Impairment{}, link.Impairment{}, true},
		{"a slow broker", link.Impairment{Delay: 10 * time.Second}, link.Impairment{Delay: 10 * time.Second}, true},
		{"a rate", link.Impairment{Rate: 16e3}, link.Impairment{Rate: 16e3}, true},
		{"a rate one way", link.Impairment{Rate: 100e3}, link.Impairment{}, true},
		{"too long a delay", link.Impairment{Delay: 20 * time.Second}, link.Impairment{Delay: 20 * time.Second}, false},
		{"too low a rate", link.Impairment{Rate: 8e3}, link.Impairment{Rate: 8e3}, false},
	} {
		p, err := NewTCP(TCPConfig{Far: listener, To: netip.MustParseAddrPort("127.0.0.1:9"), Up: c.up, Down: c.down, Now: time.Now})
		if (err == nil) != c.fits {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		end := window.Restored.Sub(t0) + p.After()
		asks := questions(constant(ms), Answered, "")
		for at := stop; at < end; at += freshEvery {
			asks = append(asks, Ask{Sent: at, Done: at + ms, Outcome: Answered, Fresh: true})
		}
		for at := stop; at < end; at += askEvery + ms {
			asks = append(asks, Ask{Sent: at, Done: at + ms, Outcome: Answered})
		}
		longest := c.up.Longest() + c.down.Longest()
		got := sortAsks(window, t0, end, longest, 0, asks).after
		if len(got.fresh) < fewestFresh || len(got.steady) < fewestAsks {
			t.Errorf("%s: within %s %d new connections and %d answers after it", c.name, p.After(), len(got.fresh), len(got.steady))
		}
	}
}

func TestJudgeTCP(t *testing.T) {
	delay := Connections{Up: link.Impairment{Delay: 20 * ms}, Down: link.Impairment{Delay: 30 * ms}}
	long := Connections{Up: link.Impairment{Delay: 1100 * ms}, Down: link.Impairment{Delay: 1100 * ms}}
	drift := Connections{Up: link.Impairment{Delay: 30 * ms, Jitter: 30 * ms}}
	slow := Connections{Down: link.Impairment{Rate: 5e6}}
	cut := Connections{Up: link.Impairment{Cut: true}, Down: link.Impairment{Cut: true}}
	resets, half := Connections{Conduct: Resets}, Connections{Conduct: HalfOpen}
	at := func(mbit float64) []Haul {
		var h []Haul
		for s := time.Second; s < stop; s += time.Second {
			h = append(h, Haul{Sent: s, Done: s + haulTime, Down: mbit * 1e6})
		}
		return h
	}
	with := func(c Connections, asks []Ask, hauls []Haul) Connections {
		c.Asks, c.Hauls = asks, hauls
		return c
	}
	drifting := func(i link.Impairment) []Ask {
		return questions(func(at time.Duration) time.Duration {
			if d := while(0)(at); d > 0 {
				return d
			}
			out, _ := link.New(i).Send(at, 1) // the course is a function of time
			return out[0].At - at + ms
		}, Answered, Answered)
	}
	well := questions(constant(ms), Answered, Answered)
	for _, c := range []struct {
		name   string
		is     Connections
		status string
		detail string
	}{
		{"delay", with(delay, questions(while(51*ms), Answered, ""), nil), evidence.Confirmed, "answers take longer by 50.0 ms"},
		{"half the delay", with(delay, questions(while(26*ms), Answered, ""), nil), evidence.Mismatch, "longer by 25.0 ms"},
		{"no delay", with(delay, well, nil), evidence.Mismatch, "longer by"},
		{"a delay that stays", with(delay, questions(func(at time.Duration) time.Duration {
			if at >= window.Injected.Sub(t0) {
				return 51 * ms
			}
			return ms
		}, Answered, ""), nil), evidence.Mismatch, "outlived"},
		{"a delay, and a crowd that comes back", with(delay, questions(func(at time.Duration) time.Duration {
			if at >= window.Restored.Sub(t0) {
				return 6 * ms
			}
			return while(51 * ms)(at)
		}, Answered, ""), nil), evidence.Confirmed, "longer by 50.0 ms"},
		{"a delay that stays, on a machine that is too busy by then", with(delay, lateAfter(questions(func(at time.Duration) time.Duration {
			if at >= window.Injected.Sub(t0) {
				return 51 * ms
			}
			return ms
		}, Answered, "")), nil), evidence.Inconclusive, tooBusy},
		{"a delay so long that few are answered", with(long, few(questions(while(2201*ms), Answered, "")), nil), evidence.Inconclusive, "a longer one would say more"},
		{"a delay so long that the last answers come after the end", with(long, questions(while(2201*ms), Answered, ""), nil), evidence.Confirmed, "longer by 2200 ms"},
		{"silence for a delay", with(delay, questions(constant(ms), Silent, Answered), nil), evidence.Mismatch, "answered was expected"},
		{"drift", with(drift, drifting(link.Impairment{Delay: 30 * ms, Jitter: 30 * ms, Seed: 3}), nil), evidence.Confirmed, "spread"},
		{"a delay that does not drift", with(drift, drifting(link.Impairment{Delay: 30 * ms}), nil), evidence.Mismatch, "spread"},
		{"rate", with(slow, well, at(4.9)), evidence.Confirmed, "rate downwards 4.9 Mbit/s"},
		{"twice the rate", with(slow, well, at(10)), evidence.Mismatch, "rate downwards 10.0"},
		{"a rate that nobody measured", with(slow, well, nil), evidence.Inconclusive, "no rate was measured"},
		{"a rate that stays", with(slow, well, slices.Concat(at(500)[:5], at(4.9)[5:])), evidence.Mismatch, "outlived its end: after it the rate downwards is 4.9 Mbit/s"},
		{"a rate, and nobody knows whether it stays", with(slow, well, at(4.9)[:24]), evidence.Inconclusive, "none after it"},
		{"cut", with(cut, questions(constant(ms), Silent, Answered), nil), evidence.Confirmed, "silent"},
		{"cut, and TCP is slow to send again", with(cut, questions(constant(ms), Silent, Silent), nil), evidence.Confirmed, "silent"},
		{"half-open for a cut", with(cut, questions(constant(ms), Silent, Reset), nil), evidence.Mismatch, "not kept"},
		{"resets for a cut", with(cut, questions(constant(ms), Reset, ""), nil), evidence.Mismatch, "silent was expected"},
		{"resets", with(resets, questions(constant(ms), Reset, ""), nil), evidence.Confirmed, "reset"},
		{"nothing for resets", with(resets, well, nil), evidence.Mismatch, "reset was expected"},
		{"half-open", with(half, questions(constant(ms), Silent, Reset), nil), evidence.Confirmed, "silent"},
		{"a cut for half-open", with(half, questions(constant(ms), Silent, Answered), nil), evidence.Mismatch, "reset when somebody was there again"},
		{"nothing promised", with(Connections{}, well, nil), evidence.Inconclusive, "promises nothing"},
		{"nothing measured", delay, evidence.Inconclusive, "too little"},
		{"not well before", with(cut, questions(constant(ms), Silent, Answered)[200:], nil), evidence.Inconclusive, ""},
	} {
		if e := JudgeTCP(window, t0, stop, c.is); e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s: %s: %s, want %s that says %q", c.name, e.Status, e.Detail, c.status, c.detail)
		}
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add(question{up: 5, down: 7}.marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := parseQuestion(b); err == nil && string(q.marshal()) != string(b) {
			t.Errorf("%v is not %x", q, b)
		}
	})
}

// observeTCP runs a fault of three seconds, seen by a probe through a relay of its own.
func observeTCP(t *testing.T, promise Connections, inject func(*relay.TCP) error) evidence.Evidence {
	t.Helper()
	local := netip.MustParseAddrPort("127.0.0.1:0")
	far, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(local))
	if err != nil {
		t.Error(err)
		return evidence.Evidence{}
	}
	defer far.Close()
	to := far.Addr().(*net.TCPAddr).AddrPort()
	// Its public side leads nowhere: the probe comes by its route.
	r, err := relay.ListenTCP(relay.Config{Listen: local, Upstream: netip.MustParseAddrPort("127.0.0.1:9")})
	if err != nil {
		t.Error(err)
		return evidence.Evidence{}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	p, err := NewTCP(TCPConfig{
		Far: far, To: r.Addr(), Up: promise.Up, Down: promise.Down, Conduct: promise.Conduct, Now: time.Now,
		Bound: func(a netip.AddrPort) error { return r.Route(a, to) }, Unbound: r.Unroute,
	})
	if err != nil {
		t.Error(err)
		return evidence.Evidence{}
	}
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.Watch(watch) })
	var w evidence.Window
	time.Sleep(1500 * ms)
	w.Inject = time.Now()
	if err := inject(r); err != nil {
		t.Error(err)
	}
	w.Injected = time.Now()
	time.Sleep(3 * time.Second)
	w.Restore = time.Now()
	r.Clear()
	w.Restored = time.Now()
	time.Sleep(p.After())
	stop()
	watching.Wait()
	return p.Judge(w)
}

func TestConnectionsThroughARelay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	path := func(ups, downs link.Impairment) func(*relay.TCP) error {
		return func(r *relay.TCP) error { return r.Set(ups, downs) }
	}
	breaks := func(how relay.Break) func(*relay.TCP) error {
		return func(r *relay.TCP) error { return r.Break(how) }
	}
	gone := link.Impairment{Cut: true}
	for _, c := range []struct {
		name           string
		promise        Connections
		does, sabotage func(*relay.TCP) error
	}{
		{"delay", Connections{Up: link.Impairment{Delay: 20 * ms}, Down: link.Impairment{Delay: 30 * ms}},
			path(link.Impairment{Delay: 20 * ms}, link.Impairment{Delay: 30 * ms}), path(link.Impairment{}, link.Impairment{Delay: 25 * ms})},
		{"rate", Connections{Down: link.Impairment{Rate: 8e6}}, path(link.Impairment{}, link.Impairment{Rate: 8e6}), path(link.Impairment{}, link.Impairment{Rate: 16e6})},
		{"rate upwards", Connections{Up: link.Impairment{Rate: 4e6}}, path(link.Impairment{Rate: 4e6}, link.Impairment{}), path(link.Impairment{}, link.Impairment{Rate: 4e6})},
		{"cut", Connections{Up: gone, Down: gone}, path(gone, gone), breaks(relay.HalfOpen)},
		{"reset", Connections{Conduct: Resets}, breaks(relay.Reset), path(gone, gone)},
		{"half-open", Connections{Conduct: HalfOpen}, breaks(relay.HalfOpen), path(gone, gone)},
	} {
		wg.Go(func() {
			if e := calmly(func() evidence.Evidence { return observeTCP(t, c.promise, c.does) }); e.Status != evidence.Confirmed {
				t.Errorf("%s: it does what it promises: %+v", c.name, e)
			}
		})
		wg.Go(func() {
			if e := calmly(func() evidence.Evidence { return observeTCP(t, c.promise, c.sabotage) }); e.Status != evidence.Mismatch {
				t.Errorf("%s: it does something else: %+v", c.name, e)
			}
		})
	}
}
