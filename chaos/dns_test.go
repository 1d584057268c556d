package chaos

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/dnsrelay"
)

// Nobody who believes a wrong answer is sent to a stranger's host.
func TestWrongAddressesAreTheRunsOwn(t *testing.T) {
	relay, err := dnsrelay.Listen(homeAny, netip.MustParseAddrPort("127.0.0.1:53"))
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	for address, refused := range map[string]bool{
		"127.9.9.9": false, "93.184.216.34": true, "192.168.1.1": true, "0.0.0.0": true, "::1": true, "::ffff:127.0.0.1": true, "2001:db8::1": true,
	} {
		cfg := Config{
			Faults: []Fault{{ID: "dns-1", Fail: "dns", Model: "address", Where: "resolver", At: Lead, For: MinFor, Params: map[string]string{"name": "a.b", "address": address}}},
			Parts:  []Part{{Name: "resolver", Kind: PartService, DNS: relay}}, Now: time.Now,
		}
		_, err := Plan(cfg)
		if (err != nil) != refused || refused && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), address)) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
