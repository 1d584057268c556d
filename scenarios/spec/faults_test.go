package spec_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/spec"
)

const ownStack = `apiVersion: tminus/v1
name: own
event:    {duration: 60s}
target:
  manifest: "http://127.0.0.1:9080/live/master.m3u8"
  own:
    nginx: {address: "127.0.0.1:8088", relay: "127.0.0.1:9080", segments: "/live/{rung}-{number}.m4s", init: "init.mp4"}
audience: {players: 5}
objectives: {rebuffer_ratio: ["avg<1%"]}
`

func TestReadWhatIsOnesOwn(t *testing.T) {
	got, err := spec.Read("f", []byte(ownStack), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Own{Name: "nginx", Address: netip.MustParseAddrPort("127.0.0.1:8088"), Relay: netip.MustParseAddrPort("127.0.0.1:9080"),
		Segments: "/live/{rung}-{number}.m4s", Init: "init.mp4"}
	if len(got.Target.Own) != 1 || got.Target.Own[0] != want {
		t.Errorf("%+v", got.Target.Own)
	}
	var names []string
	for _, p := range got.Parts() {
		names = append(names, p.Name+" "+p.Kind)
	}
	if strings.Join(names, ", ") != "nginx service, kafka kafka, clickhouse clickhouse" {
		t.Errorf("parts %v", names)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"127.0.0.1:8088"`, `"10.0.0.1:8088"`, "target.own.nginx.address: 10.0.0.1:8088 is not on this machine's loopback: nothing else can be broken"},
		{`"127.0.0.1:8088"`, `"127.0.0.1"`, `target.own.nginx.address: want an address such as 127.0.0.1:8080, got "127.0.0.1"`},
		{"  own:\n", "  own:\n    other: {address: \"127.0.0.1:8090\", relay: \"127.0.0.1:9080\"}\n", "target.own.nginx.relay: the relay needs an address of its own: 127.0.0.1:9080 is that of the relay of other"},
		{`relay: "127.0.0.1:9080"`, `relay: "127.0.0.1:8088"`, "target.own.nginx.relay: the relay needs an address of its own"},
		{"{number}", "{nummer}", "target.own.nginx.segments: "},
		{"nginx:", "clickhouse:", "target.own.clickhouse: want a short name"},
		{"address:", "adress:", `target.own.nginx.adress: unknown key; did you mean "address"?`},
	} {
		_, err := spec.Read("f", []byte(strings.Replace(ownStack, c.old, c.new, 1)), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.new, err, c.want)
		}
	}
}

func TestPartsOfTheReferencePipeline(t *testing.T) {
	got, err := spec.Read("f", []byte(least), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got.Parts() {
		names = append(names, p.Name)
	}
	if want := "here here/encoder here/packager here/origin here/playback here/edge-1 here/edge-2 kafka clickhouse"; strings.Join(names, " ") != want {
		t.Errorf("parts %v, want %s", names, want)
	}
}

// What the reader accepts of a fault, no later look finds wrong: parameters that do not fit together, and something of one's own that
// cannot have what its faults need in front of it on any machine.
func TestFaultsThatCannotBe(t *testing.T) {
	const stack = `apiVersion: tminus/v1
name: own
event:    {duration: 60s}
target:
  manifest: "http://127.0.0.1:9080/live/master.m3u8"
  own:
    bare: {address: "127.0.0.1:8088"}
    nginx: {address: "127.0.0.1:8088", relay: "127.0.0.1:9080"}
    resolver: {address: "127.0.0.1:53", relay: "127.0.0.1:9053", protocol: udp}
    datagrams: {address: "127.0.0.1:54", protocol: udp}
audience: {players: 5}
objectives: {rebuffer_ratio: ["avg<1%"]}
faults:
`
	for _, c := range []struct {
		faults []string
		want   string // "": nothing is wrong
	}{
		{[]string{"brown-out, where: nginx, model: {slow: {delay: 20ms, rate: 30Mbit}}"}, "f:14:61: faults[0].model: jitter of 30ms needs a delay as long at least"},
		{[]string{`http, where: nginx, model: {status: {path: "("}}`}, "faults[0].model: path: error parsing regexp"},
		{[]string{"segments, where: nginx, model: {missing: {live: nonsense}}"}, `faults[0].model: live: "nonsense" is no position`},
		{[]string{"packet-loss, where: nginx, model: {trace: {file: broken.txt}}"}, "faults[0].model: trace broken.txt: 1:1: '2' is neither"},
		{[]string{"dns, where: resolver, model: {address: {name: a.b, address: foo}}"}, "faults[0].model: address: want an IPv4 address"},
		{[]string{"http, where: bare"}, "f:14:42: faults[0].where: cannot be injected here: bare needs a relay in front of it for its faults"},
		{[]string{"packet-delay, where: bare, model: {delay: {delay: 80ms}}"}, "bare needs a relay"},
		{[]string{"partition, where: bare"}, ""}, // in the kernel
		{[]string{"process, where: bare"}, ""},
		{[]string{"http, where: resolver"}, "resolver takes datagrams: there is nothing of HTTP to break"},
		{[]string{"connections, where: resolver"}, "resolver takes datagrams: there are no connections to break"},
		{[]string{"dns, where: nginx, model: {silence: {name: a.b}}"}, "a resolver takes datagrams: say so of nginx"},
		{[]string{"dns, where: datagrams, model: {silence: {name: a.b}}"}, "datagrams needs a relay"},
		{[]string{"dns, where: resolver, model: {silence: {name: a.b}}", "packet-delay, where: resolver, model: {delay: {delay: 80ms}}"}, "faults[1].where: cannot be injected here: faults in what resolver answers and in its packets"},
		{[]string{"packet-loss, where: datagrams, model: {bernoulli: {loss: 5%}}"}, ""},
		{[]string{"http, where: nginx"}, ""}, // what others need does not matter to it
	} {
		src := stack
		for i, fault := range c.faults {
			src += fmt.Sprintf("  - {at: %ds, for: 5s, fail: %s}\n", 5+15*i, fault)
		}
		_, err := spec.Read("f", []byte(src), func(string) ([]byte, error) { return []byte("2"), nil })
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", c.faults, err, c.want)
		}
	}
}

// Viewers who are sent past the relay that a fault stands in would never meet it.
func TestViewersGoThroughTheRelay(t *testing.T) {
	const stack = `apiVersion: tminus/v1
name: own
event:    {duration: 60s}
target:
  manifest: "MANIFEST"
  play: {url: "PLAY", session: id}
  own:
    nginx: {address: "127.0.0.1:8088", relay: "127.0.0.1:9089"}
    bare: {address: "127.0.0.1:8090"}
    plain: {address: "127.0.0.1:80", relay: "127.0.0.1:9080"}
    six: {address: "[::1]:8091", relay: "[::1]:9091"}
    resolver: {address: "127.0.0.1:8092", relay: "127.0.0.1:9092", protocol: udp}
audience: AUDIENCE
objectives: {telemetry_loss: ["rate<1%"]}
faults: [{at: 5s, for: 5s, fail: FAULT}]
`
	const relayed, straight, other = "http://127.0.0.1:9089/l", "http://127.0.0.1:8088/l", "http://127.0.0.1:8000/l"
	const both = "{players: 5, starts: [{at: 0s, rate: 1}]}"
	const says = "%s: viewers would go straight to %s and meet none of the faults that stand in its relay: send them through it, to %s"
	inManifest := func(part, to string) string { return fmt.Sprintf("f:5:13: "+says, "target.manifest", part, to) }
	for _, c := range []struct {
		name, manifest, play, audience, fault string
		want                                  string // "": nothing is wrong
	}{
		{"through it", relayed, relayed, both, "http, where: nginx", ""},
		{"somewhere else, from where it may go on through it", other, other, both, "http, where: nginx", ""},
		{"players past it", straight, relayed, both, "http, where: nginx", inManifest("nginx", relayed)},
		{"play starts past it", relayed, straight, both, "http, where: nginx", fmt.Sprintf("f:6:15: "+says, "target.play.url", "nginx", relayed)},
		{"both past it", straight, straight, both, "http, where: nginx", inManifest("nginx", relayed) + "\n" + fmt.Sprintf("f:6:15: "+says, "target.play.url", "nginx", relayed)},
		{"no players to go past it", straight, relayed, "{starts: [{at: 0s, rate: 1}]}", "http, where: nginx", ""},
		{"no play starts to go past it", relayed, straight, "{players: 5}", "http, where: nginx", ""},
		{"by name", "http://LocalHost:8088/l?a=b", relayed, both, "connections, where: nginx", inManifest("nginx", relayed+"?a=b")},
		{"packets that are held up", straight, relayed, both, "packet-delay, where: nginx, model: {delay: {delay: 80ms}}", inManifest("nginx", relayed)},
		{"packets that the kernel drops at it", straight, relayed, both, "packet-loss, where: nginx, model: {bernoulli: {loss: 5%}}", inManifest("nginx", relayed)},
		{"silence", straight, relayed, both, "partition, where: nginx", inManifest("nginx", relayed)},
		{"processes, which are behind it", straight, relayed, both, "process, where: nginx", ""},
		{"a fault elsewhere", straight, relayed, both, "process, where: bare", ""},
		{"no relay", "http://127.0.0.1:8090/l", relayed, both, "partition, where: bare", ""},
		{"another address", "http://127.0.0.2:8088/l", relayed, both, "http, where: nginx", ""},
		{"the scheme's port", "http://127.0.0.1/l", relayed, both, "http, where: plain", inManifest("plain", "http://127.0.0.1:9080/l")},
		{"another scheme's port", "https://127.0.0.1/l", relayed, both, "http, where: plain", ""},
		{"IPv6", "http://[::1]:8091/l", relayed, both, "http, where: six", inManifest("six", "http://[::1]:9091/l")},
		{"datagrams, at the port of another's connections", "http://127.0.0.1:8092/l", relayed, both, "packet-delay, where: resolver, model: {delay: {delay: 80ms}}", ""},
	} {
		src := strings.NewReplacer("MANIFEST", c.manifest, "PLAY", c.play, "AUDIENCE", c.audience, "FAULT", c.fault).Replace(stack)
		got := ""
		if _, err := spec.Read("f", []byte(src), nil); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// A part that takes datagrams has a relay where a fault needs one, or its owner gave it one.
func TestFrontsOfOnesOwn(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:9080")
	loss, hang := chaos.Fault{Fail: "packet-loss", Params: map[string]string{"loss": "5%"}}, chaos.Fault{Fail: "process"}
	for _, c := range []struct {
		own    spec.Own
		fault  chaos.Fault
		kernel bool
		want   []chaos.Front
		wrong  bool
	}{
		{spec.Own{Datagrams: true}, loss, false, nil, true},
		{spec.Own{Datagrams: true}, loss, true, nil, false},
		{spec.Own{Datagrams: true, Relay: at}, loss, false, []chaos.Front{chaos.FrontUDP}, false},
		{spec.Own{Datagrams: true}, hang, false, nil, false},
		{spec.Own{Datagrams: true, Relay: at}, hang, false, []chaos.Front{chaos.FrontUDP}, false},
		{spec.Own{Relay: at}, hang, false, []chaos.Front{chaos.FrontTCP}, false},
		{spec.Own{}, hang, false, nil, false},
	} {
		c.own.Name, c.fault.Where = "it", "it"
		got, err := c.own.Fronts(chaos.Terms{Kind: chaos.PartService, Datagrams: c.own.Datagrams, Kernel: c.kernel}, []chaos.Fault{c.fault})
		if !slices.Equal(got, c.want) || (err != nil) != c.wrong || c.wrong && !errors.Is(err, chaos.ErrUnsupported) {
			t.Errorf("%+v, %s: %q, %v", c.own, c.fault.Fail, got, err)
		}
	}
}
