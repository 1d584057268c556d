package chaos

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/relay"
)

// A fault in a region's packets on the loopback is about what crosses the region's border, as it is in a network of the run's
// own, and about its ports: another rehearsal may have the same addresses.
func TestPacketsOfARegionAreThoseAcrossItsBorder(t *testing.T) {
	needsKernel(t)
	region := block(7)
	in, another, near := echo(t, region+".11"), echo(t, region+".11"), region+".3"
	p := Part{Name: "us-east", Kind: PartRegion, Prefix: prefix(region + ".0/24"), Addrs: []netip.AddrPort{netip.MustParseAddrPort(in)}}
	paths, err := kernelPaths(p)
	if err != nil {
		t.Fatal(err)
	}
	outside, inside, others := mustDial(t, "127.0.0.1", in), mustDial(t, near, in), mustDial(t, "127.0.0.1", another)
	silence := link.Impairment{Cut: true}
	for name, c := range map[string]struct{ to, from link.Impairment }{"both": {silence, silence}, "to": {to: silence}, "from": {from: silence}} {
		for _, path := range paths {
			if err := path.impair(c.to, c.from); err != nil {
				t.Fatal(err)
			}
		}
		if err := outside.ask(name, soon); !silent(err) {
			t.Errorf("%s: a connection across the border should have gone silent: %v", name, err)
		}
		for who, l := range map[string]line{"inside": inside, "another rehearsal's": others} {
			if err := l.ask(name, patience); err != nil {
				t.Errorf("%s: %s: %v", name, who, err)
			}
		}
		for _, path := range paths {
			if err := path.clear(); err != nil {
				t.Fatal(err)
			}
		}
		outside.SetDeadline(time.Now().Add(patience))
		if err := outside.hear(name); err != nil { // TCP says it again
			t.Fatalf("%s: after it: %v", name, err)
		}
	}
}

// What stands in front of a part is what it and the machine leave: no relay stands in front of a whole region, and none for streams
// does anything to datagrams.
func TestFrontsOfPacketFaults(t *testing.T) {
	region, edge, own, datagrams := Terms{Kind: PartRegion}, Terms{Kind: PartEdge}, Terms{Kind: PartService}, Terms{Kind: PartService, Datagrams: true}
	kernel := func(t Terms) Terms { t.Kernel = true; return t }
	network := func(t Terms) Terms { t.Network = true; return kernel(t) }
	loss, delay, silence := Fault{Fail: "packet-loss", Params: map[string]string{"loss": "5%"}}, Fault{Fail: "packet-delay", Params: map[string]string{"delay": "80ms"}}, Fault{Fail: "partition"}
	for _, c := range []struct {
		name  string
		fault Fault
		terms Terms
		want  Front
		lacks string // part of the sentence that says why it cannot be
	}{
		{"a region's delay", delay, region, FrontNothing, "no relay stands in front of a whole region: one does in front of each component (there/edge-1)"},
		{"a region's silence", silence, region, FrontNothing, "no relay stands in front of a whole region"},
		{"a region's loss", loss, region, FrontNothing, "streams that pass a relay have no packets to lose"},
		{"a region's delay, with kernel programs", delay, kernel(region), FrontNothing, "no relay stands in front of a whole region"},
		{"a region's loss, with kernel programs", loss, kernel(region), FrontNothing, ""},
		{"a region's delay, in a network", delay, network(region), FrontNetwork, ""},
		{"an edge's delay", delay, edge, FrontTCP, ""},
		{"an edge's loss", loss, edge, FrontNothing, "streams that pass a relay have no packets to lose"},
		{"an edge's loss, in a network", loss, network(edge), FrontNetwork, ""},
		{"one's own silence", silence, own, FrontTCP, ""},
		{"one's own silence, with kernel programs", silence, network(own), FrontNothing, ""},
		{"one's own delay", delay, network(own), FrontTCP, ""},
		{"datagrams' loss", loss, datagrams, FrontUDP, ""},
		{"datagrams' loss, with kernel programs", loss, network(datagrams), FrontNothing, ""},
		{"datagrams' delay", delay, network(datagrams), FrontUDP, ""},
		{"datagrams of a process", Fault{Fail: "process"}, datagrams, FrontNothing, ""},
	} {
		c.fault.Where = "there"
		if got := c.fault.Front(c.terms); got != c.want {
			t.Errorf("%s: %q in front of it, want %q", c.name, got, c.want)
		}
		_, err := c.fault.Foresee(c.terms)
		if (err == nil) != (c.lacks == "") || err != nil && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.lacks)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.lacks)
		}
	}
}

// The probes of a region's packets meet what they do.
func TestPacketsOfARegionAreProven(t *testing.T) {
	needsKernel(t)
	region := block(8)
	p := Part{Name: "us-east", Kind: PartRegion, Prefix: prefix(region + ".0/24"), Addrs: []netip.AddrPort{netip.MustParseAddrPort(echo(t, region+".11"))}}
	results, err := Run(t.Context(), Config{Parts: []Part{p}, Start: time.Now(), Now: time.Now, Faults: []Fault{
		{ID: "packet-loss-1", Fail: "packet-loss", Where: "us-east", Params: map[string]string{"loss": "30%"}, At: 1500 * time.Millisecond, For: 4 * time.Second, Seed: 7},
	}})
	if err != nil || results[0].Evidence.Status != Confirmed || !results[0].Restored {
		t.Fatalf("%+v, %v", results, err)
	}
	t.Log(results[0].Evidence.Detail)
}

// descriptors is how many files this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// Where one fault cannot be planned, the others' probes are given back.
func TestPlansThatComeToNothingHoldNothing(t *testing.T) {
	r, err := relay.ListenUDP(relay.Config{Listen: homeAny, Upstream: netip.MustParseAddrPort("127.0.0.1:9")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	good := Fault{ID: "packet-loss-1", Fail: "packet-loss", Where: "datagrams", Params: map[string]string{"loss": "5%"}, At: Lead, For: MinFor}
	bad := Fault{ID: "partition-1", Fail: "partition", Where: "nowhere", At: Lead, For: MinFor}
	cfg := Config{Now: time.Now, Faults: []Fault{good, bad}, Parts: []Part{{Name: "datagrams", Kind: PartService, Datagrams: r}}}
	before := descriptors(t)
	for range 3 {
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
	// Nor does the relay lead whoever has a probe's port next where the probe had its end: it would be full of such routes.
	cfg.Faults = cfg.Faults[:1]
	for i := range 8000 {
		if _, err := Plan(cfg); err != nil {
			t.Fatalf("plan %d: %v", i, err)
		}
	}
}

// What is said of a fault by hand is what it takes: each class of packet faults, with root and without, on streams and on datagrams.
func TestByHandIsWhatItTakes(t *testing.T) {
	for _, c := range []struct {
		fail   string
		params map[string]string
		says   string
		// What stands in front of something of one's own.
		root, rootUDP, streams, datagrams Front
		lacks                             bool // there is no way for streams without root
	}{
		{"packet-delay", map[string]string{"delay": "50ms"}, "yes, through a relay", FrontTCP, FrontUDP, FrontTCP, FrontUDP, false},
		{"rate-limit", map[string]string{"rate": "1Mbit"}, "yes, through a relay", FrontTCP, FrontUDP, FrontTCP, FrontUDP, false},
		{"brown-out", map[string]string{"rate": "1Mbit"}, "yes, through a relay", FrontTCP, FrontUDP, FrontTCP, FrontUDP, false},
		{"partition", nil, "yes, as root; without root through a relay", FrontNothing, FrontNothing, FrontTCP, FrontUDP, false},
		{"packet-loss", map[string]string{"loss": "5%"}, "yes, as root; without root through a relay, and only what takes datagrams (--udp)", FrontNothing, FrontNothing, FrontNothing, FrontUDP, true},
		{"packet-duplication", map[string]string{"share": "5%"}, "yes, as root; without root through a relay, and only what takes datagrams (--udp)", FrontNothing, FrontNothing, FrontNothing, FrontUDP, true},
		{"packet-corruption", map[string]string{"share": "5%"}, "yes, as root; without root through a relay, and only what takes datagrams (--udp)", FrontNothing, FrontNothing, FrontNothing, FrontUDP, true},
		{"region", nil, "no: only in a rehearsal", "", "", "", "", false},
		{"process", nil, "yes", "", "", "", "", false},
		{"http", nil, "yes, through a relay", FrontHTTP, FrontHTTP, FrontHTTP, FrontHTTP, false},
		{"dns", map[string]string{"name": "a.test"}, "yes, through a relay", FrontDNS, FrontDNS, FrontDNS, FrontDNS, false},
	} {
		f, err := Fault{ID: "f", Fail: c.fail, Where: "mine", Params: c.params}.Complete()
		if err != nil {
			t.Fatal(err)
		}
		_, model, _ := lookup(f)
		if got := model.ByHand; got != c.says {
			t.Errorf("%s by hand: %s, want %s", c.fail, got, c.says)
		}
		mine := Terms{Kind: PartService}
		for _, on := range []struct {
			root, datagrams bool
			want            Front
		}{{true, false, c.root}, {true, true, c.rootUDP}, {false, false, c.streams}, {false, true, c.datagrams}} {
			mine.Kernel, mine.Network, mine.Datagrams = on.root, on.root, on.datagrams
			if got := f.Front(mine); got != on.want {
				t.Errorf("%s of one's own, %+v: %q stands in front, want %q", c.fail, mine, got, on.want)
			}
		}
		if _, err := f.Foresee(Terms{Kind: PartService}); c.lacks != (err != nil) {
			t.Errorf("%s of one's own without root: %v", c.fail, err)
		}
	}
}
