package chaos

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/tminus-live/tminus/chaos/dnsrelay"
)

var aboutName = Parameter{Name: "name", Type: TypeText, Required: true, Summary: "which name, or what it ends with; it is asked for to prove it"}

var dnsKinds = []Kind{{
	Fail: "dns", Summary: "a resolver answers wrongly, late or not at all", Where: "a resolver of one's own (protocol: udp), which is asked through its relay", On: []string{PartService},
	Models: []Model{
		dnsModel(dnsrelay.NXDomain, "there is no such name, it says", "{at: 30s, for: 10s, fail: dns, where: nginx, model: {nxdomain: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.ServFail, "it says that it failed", "{at: 30s, for: 10s, fail: dns, where: nginx, model: {servfail: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.Address, "it answers with another address", "{at: 30s, for: 10s, fail: dns, where: nginx, model: {address: {name: play.example.test, address: 127.9.9.9}}}",
			[]Parameter{{Name: "address", Type: TypeText, Required: true, Summary: "the wrong one"}}),
		dnsModel(dnsrelay.Silence, "it does not answer", "{at: 30s, for: 10s, fail: dns, where: nginx, model: {silence: {name: play.example.test}}}", nil),
		dnsModel(dnsrelay.Slow, "it answers late", "{at: 30s, for: 10s, fail: dns, where: nginx, model: {slow: {name: play.example.test, delay: 800ms}}}",
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

func dnsModel(kind, summary, example string, parameters []Parameter) Model {
	return Model{
		Name: kind, Summary: summary, Example: example, Parameters: append(parameters, aboutName),
		Evidence: "the name is asked for at the address that clients ask, before, during and after",
		front:    func(Fault, string) Front { return FrontDNS },
		plan: func(f Fault, cfg *Config) (plan, error) {
			p, err := part(f, cfg)
			if err != nil {
				return plan{}, err
			}
			if p.DNS == nil {
				return plan{}, unfronted(f, p, "which takes datagrams (protocol: udp)")
			}
			rule := dnsrelay.Rule{Kind: kind, Name: f.Text("name"), Delay: f.Duration("delay")}
			if text := f.Text("address"); text != "" {
				if rule.Address, err = netip.ParseAddr(text); err != nil {
					return plan{}, fmt.Errorf("fault %s: address: %w", f.ID, err)
				}
			}
			o, err := dnsrelay.NewObserver(p.DNS.Addr(), rule.Name, rule, cfg.Now)
			if err != nil {
				return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
			}
			return plan{injector: lies{p.DNS, rule}, observer: o, means: behindRelay}, nil
		},
	}
}
