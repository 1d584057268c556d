package spec_test

import (
	"net/netip"
	"strings"
	"testing"

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
