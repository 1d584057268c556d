package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tminus-live/tminus/chaos/dnsrelay"
)

var aboutName = Parameter{Name: "name", Type: TypeText, Required: true, Summary: "which name, or what it ends with; it is asked for to prove it"}

var dnsKinds = []Kind{{
	Fail: "dns", Summary: "a resolver answers wrongly, late or not at all", Where: "a resolver of one's own (protocol: udp), which is asked through its relay", On: []string{PartService},
	Models: []Model{
		dnsModel(dnsrelay.NXDomain, "there is no such name, it says", "{at: 30s, for: 10s, fail: dns, where: resolver, model: {nxdomain: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.ServFail, "it says that it failed", "{at: 30s, for: 10s, fail: dns, where: resolver, model: {servfail: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.Address, "it answers with another address", "{at: 30s, for: 10s, fail: dns, where: resolver, model: {address: {name: play.example.test, address: 127.9.9.9}}}",
			[]Parameter{{Name: "address", Type: TypeText, Required: true, Summary: "the wrong one, of 127.0.0.0/8 or of the run's own network"}}),
		dnsModel(dnsrelay.Silence, "it does not answer", "{at: 30s, for: 10s, fail: dns, where: resolver, model: {silence: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.Slow, "it answers late", "{at: 30s, for: 10s, fail: dns, where: resolver, model: {slow: {name: play.example.test, delay: 800ms}}}",
			[]Parameter{{Name: "delay", Type: TypeDuration, Required: true, Least: .1, Most: 30, Summary: "how late"}}),
	},
}}

// lies is the injector of wrong answers.
type lies struct {
	relay *dnsrelay.Relay
	rule  dnsrelay.Rule
}

func (l lies) Inject(context.Context) error  { return l.relay.Set(&l.rule) }
func (l lies) Restore(context.Context) error { return l.relay.Set(nil) }

// ownAddress reports whether an address is this machine's own, or of a network of the run's: whoever believes a wrong answer is not
// to turn up at a stranger's.
func ownAddress(a netip.Addr, cfg *Config) bool {
	return loopback.Contains(a) || slices.ContainsFunc(cfg.Parts, func(p Part) bool { return p.Network != nil && p.Network.Block().Contains(a) })
}

// strange says that an address is not one to send anybody to.
func strange(a netip.Addr) error {
	return fmt.Errorf("address: %w to send anybody to %s: only IPv4 addresses of %s, and of the run's own network, belong to a rehearsal", ErrRefused, a, loopback)
}

// lie is what the relay is told.
func lie(f Fault, kind string) (dnsrelay.Rule, error) {
	rule := dnsrelay.Rule{Kind: kind, Name: f.Text("name"), Delay: f.Duration("delay")}
	if text := f.Text("address"); text != "" {
		var err error
		if rule.Address, err = netip.ParseAddr(text); err != nil {
			return rule, fmt.Errorf("address: want an IPv4 address such as 127.9.9.9, got %q", text)
		}
		if !rule.Address.Is4() {
			return rule, strange(rule.Address)
		}
	}
	return rule, nil
}

func dnsModel(kind, summary, example string, parameters []Parameter) Model {
	return Model{
		Name: kind, Summary: summary, Example: example, Parameters: append(parameters, aboutName),
		Evidence: "the name is asked for at the address that clients ask, before, during and after",
		front:    func(Fault, Terms) Front { return FrontDNS },
		check: func(f Fault) error {
			rule, err := lie(f, kind)
			if err == nil {
				_, err = dnsrelay.NewObserver(netip.AddrPort{}, rule.Name, rule, time.Now)
			}
			return err
		},
		plan: func(f Fault, cfg *Config) (plan, error) {
			p, err := part(f, cfg)
			if err != nil {
				return plan{}, err
			}
			if p.DNS == nil {
				return plan{}, unfronted(f, p, "which takes datagrams (protocol: udp)")
			}
			rule, err := lie(f, kind)
			if err != nil {
				return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
			}
			if rule.Address.IsValid() && !ownAddress(rule.Address, cfg) {
				return plan{}, fmt.Errorf("fault %s: %w", f.ID, strange(rule.Address))
			}
			o, err := dnsrelay.NewObserver(p.DNS.Addr(), rule.Name, rule, cfg.Now)
			if err != nil {
				return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
			}
			return plan{injector: lies{p.DNS, rule}, observer: o, means: behindRelay}, nil
		},
	}
}
