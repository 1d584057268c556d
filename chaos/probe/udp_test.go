package probe

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/relay"
)

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err) // Fatal is for the test's own goroutine
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// observe runs a fault of three seconds: what inject and restore do, seen by a probe through a relay of its own.
func observe(t *testing.T, ups, downs link.Impairment, inject func(*relay.UDP) error) evidence.Evidence {
	t.Helper()
	public, near, far := socket(t), socket(t), socket(t)
	r, err := relay.ListenUDP(relay.Config{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Upstream: addrOf(public),
		Routes: map[netip.AddrPort]netip.AddrPort{addrOf(near): addrOf(far)},
	})
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
	const length = 3 * time.Second
	p, err := NewUDP(Config{Near: near, Far: far, To: r.Addr(), Up: ups, Down: downs, For: length, Now: time.Now})
	if err != nil {
		t.Error(err)
		return evidence.Evidence{}
	}
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.Watch(watch) })
	var w evidence.Window
	time.Sleep(time.Second)
	w.Inject = time.Now()
	if err := inject(r); err != nil {
		t.Error(err)
	}
	w.Injected = time.Now()
	time.Sleep(length)
	w.Restore = time.Now()
	r.Clear()
	w.Restored = time.Now()
	time.Sleep(1500*time.Millisecond + ups.Longest() + downs.Longest())
	stop()
	watching.Wait()
	if c := r.Counts(); c.Overrun > 0 || c.Up.Failed > 0 || c.Up.Overflow > 0 {
		t.Logf("the relay was too busy: %+v", c)
	}
	return p.Judge(w)
}

// calmly observes again while the machine has too much else to do for an answer.
func calmly(observe func() evidence.Evidence) (e evidence.Evidence) {
	for range 5 {
		if e = observe(); e.Status != evidence.Inconclusive {
			break
		}
	}
	return e
}

// A relay that does what it is told is confirmed, and one that does not is a mismatch: on real sockets.
func TestThroughARelay(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range []struct {
		name           string
		ups, downs     link.Impairment // promised
		does, doesBack link.Impairment // what happens in the sabotaged run
	}{
		{
			name: "bursts upwards", ups: link.Impairment{Loss: link.Loss{Model: link.GilbertElliott, Share: 0.1, Burst: 4}, Seed: 3},
			does: link.Impairment{Loss: link.Loss{Share: 0.1}, Seed: 3},
		},
		{name: "delay both ways", ups: link.Impairment{Delay: 40 * ms}, downs: link.Impairment{Delay: 60 * ms}, does: link.Impairment{Delay: 40 * ms}},
		{
			name: "reordering downwards", downs: link.Impairment{Delay: 60 * ms, Jitter: 50 * ms, Reorder: true},
			doesBack: link.Impairment{Delay: 60 * ms, Jitter: 50 * ms},
		},
		{name: "rate", ups: link.Impairment{Rate: 4e6}, does: link.Impairment{Rate: 8e6}},
		{name: "corruption and duplicates", ups: link.Impairment{Corrupt: 0.1, Duplicate: 0.1}, does: link.Impairment{Corrupt: 0.1}},
		{name: "cut one way", downs: link.Impairment{Cut: true}, does: link.Impairment{Cut: true}},
	} {
		// All at once: they wait most of the time.
		wg.Go(func() {
			if e := calmly(func() evidence.Evidence {
				return observe(t, c.ups, c.downs, func(r *relay.UDP) error { return r.Set(c.ups, c.downs) })
			}); e.Status != evidence.Confirmed {
				t.Errorf("%s: it does what it promises: %+v", c.name, e)
			}
		})
		wg.Go(func() {
			if e := calmly(func() evidence.Evidence {
				return observe(t, c.ups, c.downs, func(r *relay.UDP) error { return r.Set(c.does, c.doesBack) })
			}); e.Status != evidence.Mismatch {
				t.Errorf("%s: it does something else: %+v", c.name, e)
			}
		})
	}
}
