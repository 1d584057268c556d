package chaos

import (
	"context"
	"fmt"
	"net/http"

	"github.com/tminus-live/tminus/chaos/audit"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/probe"
	"github.com/tminus-live/tminus/chaos/relay"
)

const streamEvidence = "connections of its own through the same relay, to a listener of its own, before, during and after"

var frontTCP = func(Fault, Terms) Front { return FrontTCP }

var streamKinds = []Kind{
	{
		Fail: "connections", Summary: "connections break, whatever is spoken over them", Where: "something of one's own", On: []string{PartService},
		Models: []Model{
			streamModel(Model{Name: "reset", Summary: "open connections are torn down with a reset, and so is each new one", Example: "{at: 30s, for: 10s, fail: connections, where: nginx}"}, relay.Reset, probe.Resets),
			streamModel(Model{Name: "half-open", Summary: "the host vanishes: connections stay open and nothing more is heard", Example: "{at: 30s, for: 10s, fail: connections, where: nginx, model: half-open}"}, relay.HalfOpen, probe.HalfOpen),
		},
	},
	{
		Fail: "kafka", Summary: "the broker that every event goes through is gone, or slow", Where: "kafka: the embedded broker", On: []string{PartKafka},
		Models: []Model{
			streamModel(Model{Name: "gone", Summary: "connections to the broker are torn down, and so is each new one: events wait in their spools", Example: "{at: 30s, for: 10s, fail: kafka, where: kafka}"}, relay.Reset, probe.Resets),
			{
				Name: "slow", Summary: "what goes to and from the broker takes longer", Evidence: streamEvidence,
				Parameters: []Parameter{{Name: "delay", Type: TypeDuration, Default: "300ms", Least: .001, Most: longestDelay, Summary: "each way"}},
				Example:    "{at: 30s, for: 10s, fail: kafka, where: kafka, model: {slow: {delay: 200ms}}}",
				front:      frontTCP,
				plan: func(f Fault, cfg *Config) (plan, error) {
					p, err := part(f, cfg)
					if err != nil {
						return plan{}, err
					}
					return planPackets(f, cfg, link.Impairment{Delay: f.Duration("delay"), Seed: f.Seed}, p)
				},
			},
		},
	},
	{
		Fail: "clickhouse", Summary: "the store that events end in is gone, or takes no writes", Where: "clickhouse: the embedded store", On: []string{PartClickHouse},
		Models: []Model{
			storeModel(Model{Name: "gone", Summary: "whoever asks the store for anything has the connection reset", Example: "{at: 30s, for: 10s, fail: clickhouse, where: clickhouse}"},
				httprelay.Action{Kind: httprelay.Reset}, audit.Want{Kind: audit.Reset, Share: 1}),
			storeModel(Model{Name: "refusing", Summary: "the store answers everything with an error, as one that is read-only or full does to writes", Example: "{at: 30s, for: 10s, fail: clickhouse, where: clickhouse, model: refusing}"},
				httprelay.Action{Kind: httprelay.Status, Status: http.StatusInternalServerError, Body: "Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)\n"},
				audit.Want{Kind: audit.Status, Status: http.StatusInternalServerError, Share: 1}),
		},
	},
}

// breaks is the injector that breaks the connections that pass a relay.
type breaks struct {
	relay *relay.TCP
	how   relay.Break
}

func (b breaks) Inject(context.Context) error  { return b.relay.Break(b.how) }
func (b breaks) Restore(context.Context) error { return b.relay.Break(relay.Whole) }

// streamModel completes a model that breaks connections.
func streamModel(m Model, how relay.Break, conduct probe.Conduct) Model {
	m.Evidence, m.front = streamEvidence, frontTCP
	m.plan = func(f Fault, cfg *Config) (plan, error) {
		p, err := part(f, cfg)
		if err != nil {
			return plan{}, err
		}
		if p.TCP == nil {
			return plan{}, unfronted(f, p, "and there is none")
		}
		o, done, err := observeStream(p.TCP, streamed{conduct: conduct}, cfg.Now)
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		return plan{injector: breaks{p.TCP, how}, observer: o, done: done, means: behindRelay}, nil
	}
	return m
}

// storeModel completes a model that is about the store's answers.
func storeModel(m Model, action httprelay.Action, want audit.Want) Model {
	m.Evidence = "requests of its own, at the address that events are stored at, before, during and after"
	m.front = func(Fault, Terms) Front { return FrontHTTP }
	m.plan = func(f Fault, cfg *Config) (plan, error) {
		p, err := behind(f, cfg)
		if err != nil {
			return plan{}, err
		}
		o, err := audit.NewHTTP(audit.HTTPConfig{Fault: f.ID, For: f.For, Targets: []audit.URL{audit.Fixed(p.URL + p.Look)}, Want: want, Now: cfg.Now, Sink: cfg.Sink})
		if err != nil {
			return plan{}, fmt.Errorf("fault %s: %w", f.ID, err)
		}
		rule := httprelay.Rule{Name: f.ID, Share: 1, Methods: []string{http.MethodGet, http.MethodHead, http.MethodPost}, Action: action}
		return relayed(f, p, rule, o), nil
	}
	return m
}
