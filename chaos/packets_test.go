package chaos

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
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
