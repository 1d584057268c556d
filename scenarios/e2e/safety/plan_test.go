package safety

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
)

// byHand is a fault as `tminus chaos run` takes it.
type byHand struct {
	fail, model string
	set         []string
	relay, udp  bool
}

// Every model that something of one's own can suffer, by every means that there is.
var hands = []byHand{
	{fail: "packet-loss", model: "bernoulli", set: []string{"loss=20%"}},
	{fail: "packet-loss", model: "gilbert-elliott", set: []string{"loss=10%"}},
	{fail: "packet-loss", model: "trace", set: []string{"file=" + traceFile}},
	{fail: "packet-duplication", model: "duplicate", set: []string{"share=20%"}},
	{fail: "packet-corruption", model: "flip", set: []string{"share=10%"}},
	{fail: "partition", model: "silence"},
	{fail: "partition", model: "silence", set: []string{"direction=from"}, relay: true},
	{fail: "packet-delay", model: "delay", set: []string{"delay=80ms"}, relay: true},
	{fail: "rate-limit", model: "rate", set: []string{"rate=1Mbit"}, relay: true},
	{fail: "brown-out", model: "slow", set: []string{"rate=2Mbit"}, relay: true},
	{fail: "packet-loss", model: "gilbert-elliott", set: []string{"loss=10%"}, relay: true, udp: true},
	{fail: "packet-delay", model: "delay", set: []string{"delay=80ms", "jitter=20ms", "reorder=true"}, relay: true, udp: true},
	{fail: "packet-duplication", model: "duplicate", set: []string{"share=20%"}, relay: true, udp: true},
	{fail: "packet-corruption", model: "flip", set: []string{"share=10%"}, relay: true, udp: true},
	{fail: "process", model: "hang"},
	{fail: "process", model: "cpu", set: []string{"cores=0.05"}},
	{fail: "process", model: "memory"},
	{fail: "http", model: "status", relay: true},
	{fail: "http", model: "latency", set: []string{"delay=200ms"}, relay: true},
	{fail: "http", model: "stall", relay: true},
	{fail: "http", model: "reset", relay: true},
	{fail: "http", model: "truncate", relay: true},
	{fail: "http", model: "throttle", set: []string{"rate=100kbit"}, relay: true},
	{fail: "http", model: "corrupt", relay: true},
	{fail: "segments", model: "missing", set: []string{"every=3", listed}, relay: true},
	{fail: "segments", model: "late", set: []string{"delay=500ms", listed}, relay: true},
	{fail: "segments", model: "short", set: []string{listed}, relay: true},
	{fail: "segments", model: "missing-frames", set: []string{listed}, relay: true},
	{fail: "segments", model: "corrupt", set: []string{listed}, relay: true},
	{fail: "segments", model: "frozen", set: []string{listed}, relay: true},
	{fail: "segments", model: "wrong-timestamp", set: []string{"shift=3s", listed}, relay: true},
	{fail: "segments", model: "rung-lost", set: []string{"rung=720p", listed}, relay: true},
	{fail: "segments", model: "audio-lost", set: []string{listed}, relay: true},
	{fail: "connections", model: "reset", relay: true},
	{fail: "connections", model: "half-open", relay: true},
	{fail: "dns", model: "nxdomain", set: []string{asked}, relay: true, udp: true},
	{fail: "dns", model: "servfail", set: []string{asked}, relay: true, udp: true},
	{fail: "dns", model: "address", set: []string{asked, "address=127.9.9.9"}, relay: true, udp: true},
	{fail: "dns", model: "silence", set: []string{asked}, relay: true, udp: true},
	{fail: "dns", model: "slow", set: []string{asked, "delay=800ms"}, relay: true, udp: true},
}

const (
	asked     = "name=play.example.test"
	listed    = "playlist=/live/720p.m3u8"
	traceFile = "trace.txt"
)

// args are a fault's, on a service and behind a relay.
func (h byHand) args(service, relay string) []string {
	out := []string{"chaos", "run", "--fail", h.fail, "--model", h.model, "--where", service, "--for", "2s"}
	for _, s := range h.set {
		out = append(out, "--set", s)
	}
	if h.relay {
		out = append(out, "--relay", relay)
	}
	if h.udp {
		out = append(out, "--udp")
	}
	if h.fail == "segments" {
		out = append(out, "--segments", "/live/{rung}-{number}.m4s")
	}
	return out
}

// rehearsed are faults that a rehearsal has at once: the rest of the catalogue, and by what means it is done to a pipeline.
type rehearsed []string

var rehearsals = []rehearsed{
	{"http, where: us-east/edge-1, model: {status: {share: 30%}}", "segments, where: us-east/edge-2, model: {missing: {every: 3, rung: 720p}}", "encoder, where: us-west/encoder", "clock, where: us-east/origin, model: {skewed: {offset: -2s}}", "cache, where: us-west/edge-1", "overload, where: us-west/edge-2"},
	{"publish, where: us-west/packager", "store, where: us-east/origin, model: {slow: {delay: 500ms}}", "encoder, where: us-east/encoder, model: frozen", "http, where: us-east/edge-1, model: {throttle: {rate: 2Mbit}}"},
	{"store, where: us-east/origin, model: {failing: {share: 50%}}", "kafka, where: kafka", "clickhouse, where: clickhouse"},
	{"kafka, where: kafka, model: slow", "clickhouse, where: clickhouse, model: refusing", "region, where: us-east"},
	{"packet-loss, where: us-east, model: {gilbert-elliott: {loss: 5%}}", "packet-delay, where: us-west/edge-1, model: {delay: {delay: 40ms, jitter: 10ms}}"},
	{"brown-out, where: us-east/edge-1, model: {slow: {rate: 20Mbit}}", "rate-limit, where: us-west, model: {rate: {rate: 20Mbit}}", "process, where: clickhouse, model: hang"},
	{"region, where: us-east, model: cut", "packet-duplication, where: us-west, model: {duplicate: {share: 5%}}"},
	{"region, where: us-east, model: cut", "process, where: us-west, model: {cpu: {cores: 0.2}}"},
	{"region, where: us-east", "process, where: us-west, model: hang"},
	{"process, where: us-west, model: {memory: {room: 8MB}}", "process, where: us-east, model: {cpu: {cores: 0.2}}"},
	{"store, where: us-west/origin, model: {throttled: {rate: 2Mbit}}", "playback, where: us-east/playback, model: {slow: {delay: 500ms, endpoint: play}}", "steering, where: us-west/playback"},
	{"playback, where: us-west/playback, model: {failing: {share: 20%}}", "process, where: clickhouse, model: hang"},
}

// scenario is one whose faults begin four seconds into the event.
func (r rehearsed) scenario() string {
	var b strings.Builder
	b.WriteString(`apiVersion: tminus/v1
name: kill
event:     {duration: 20s}
topology:  {regions: [us-east, us-west], edges: {us-east: 2, us-west: 2}}
audience:  {players: 4, starts: [{at: 0s, rate: 10}]}
objectives:
  player_start_failures: ["rate<50%"]
faults:
`)
	for _, f := range r {
		fmt.Fprintf(&b, "  - {at: 4s, for: 6s, fail: %s}\n", f)
	}
	return b.String()
}

// moment is when the conductor is killed: so long after it was started, or has said something.
type moment struct {
	name  string
	after string // that a fault is in this state; "": started
	most  time.Duration
}

var (
	starting  = moment{"starting", "", 800 * time.Millisecond}
	watching  = moment{"watching", "", 5500 * time.Millisecond}
	injecting = moment{"injecting", "injecting", 40 * time.Millisecond}
	inEffect  = moment{"in-effect", "injected", 2 * time.Second}
	restoring = moment{"restoring", "restoring", 40 * time.Millisecond}
	over      = moment{"over", "restored", 4 * time.Second}
)

// kill is one kill -9 of a conductor.
type kill struct {
	name      string
	hand      byHand
	rehearsal rehearsed // nil: by hand
	moment    moment
	wait      time.Duration // after it
}

// times is how many conductors are killed.
const times = 100

// plan makes the kills of a seed: every rehearsal three times and every fault by hand as often as there are kills left, the
// first time of each while it is in the machine.
func plan(seed uint64) (kills []kill) {
	random := rand.New(rand.NewPCG(seed, 0))
	any := []moment{starting, watching, injecting, inEffect, restoring, over}
	there := []moment{injecting, inEffect, inEffect, restoring}
	for _, moments := range [][]moment{there, any, any} {
		for _, i := range random.Perm(len(rehearsals)) {
			kills = append(kills, kill{rehearsal: rehearsals[i], moment: moments[random.IntN(len(moments))]})
		}
	}
	for moments := there; len(kills) < times; moments = any {
		for _, i := range random.Perm(len(hands))[:min(len(hands), times-len(kills))] {
			kills = append(kills, kill{hand: hands[i], moment: moments[random.IntN(len(moments))]})
		}
	}
	for i := range kills {
		k := &kills[i]
		k.wait = time.Duration(random.Int64N(int64(k.moment.most)))
		what := k.hand.fail + "-" + k.hand.model
		if k.rehearsal != nil {
			what = "rehearsal"
		}
		k.name = fmt.Sprintf("%03d-%s-%s", i+1, what, k.moment.name)
	}
	return kills
}

// The kills are a hundred, at moments of every sort, spread over the whole catalogue.
func TestTheKillsAreSpreadOverTheWholeCatalogue(t *testing.T) {
	kills := plan(1)
	if len(kills) != times {
		t.Errorf("%d kills", len(kills))
	}
	struck := func(fail, model string, first bool) bool {
		return slices.ContainsFunc(kills, func(k kill) bool {
			if k.rehearsal == nil {
				return k.hand.fail == fail && k.hand.model == model
			}
			return slices.ContainsFunc(k.rehearsal, func(f string) bool {
				kind, rest, _ := strings.Cut(f, ",")
				_, form, named := strings.Cut(rest, "model: ")
				return kind == fail && (!named && first || named && strings.TrimLeft(form, "{ ")[:min(len(model), len(strings.TrimLeft(form, "{ ")))] == model)
			})
		})
	}
	for _, kind := range chaos.Catalogue() {
		for i, m := range kind.Models {
			if !struck(kind.Fail, m.Name, i == 0) {
				t.Errorf("no conductor is killed during fail: %s, model: %s", kind.Fail, m.Name)
			}
		}
	}
	for _, m := range []moment{starting, watching, injecting, inEffect, restoring, over} {
		if !slices.ContainsFunc(kills, func(k kill) bool { return k.moment == m }) {
			t.Errorf("no kill %s", m.name)
		}
	}
}
