package main

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/chaos"
)

// The catalogue has an index of a line for each kind, and is told of in whole or in part.
func TestChaosListIsNarrowed(t *testing.T) {
	for _, c := range []struct {
		args       string
		has, lacks string
		lines      int // at most; 0: however many
	}{
		{"", "dns                 nxdomain, servfail, address, silence, slow\n", "model:", len(chaos.Catalogue()) + 2},
		{"", "\ntminus chaos list KIND [MODEL] tells", "evidence:", 0},
		{"dns", "\n  model: nxdomain\n", "fail: process", 0},
		{"dns slow", "\n  model: slow\n    it answers late\n    - delay (duration, 100ms to 30s, required): how late\n", "nxdomain", 0},
		{"--all", "\nfail: region\n", "KIND", 0},
		{"--all", "\nfail: dns\n", "KIND", 0},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"chaos", "list"}, strings.Fields(c.args)...), strings.NewReader(""), &stdout, &stderr)
		out := stdout.String()
		if status != 0 || !strings.Contains(out, c.has) || strings.Contains(out, c.lacks) || c.lines > 0 && strings.Count(out, "\n") > c.lines {
			t.Errorf("list %s: exit status %d, %s\n%s", c.args, status, stderr.String(), out)
		}
	}
	for args, want := range map[string]int{"": len(chaos.Catalogue()), "--all": len(chaos.Catalogue()), "dns": 1, "dns slow": 1} {
		var stdout, stderr bytes.Buffer
		run(append([]string{"chaos", "list", "--json"}, strings.Fields(args)...), strings.NewReader(""), &stdout, &stderr)
		var kinds []chaos.Kind
		if err := json.Unmarshal(stdout.Bytes(), &kinds); err != nil || len(kinds) != want || args == "dns slow" && len(kinds[0].Models) != 1 {
			t.Errorf("list --json %s: %d kinds, want %d; %v %s", args, len(kinds), want, err, stderr.String())
		}
	}
}

// What is asked wrongly is said in a sentence that names what was given, and what may have been meant.
func TestChaosUsage(t *testing.T) {
	tcp, taken := listening(t, "tcp"), listening(t, "tcp")
	udp, datagrams := listening(t, "udp"), listening(t, "udp")
	for _, c := range []struct{ args, says string }{
		{"list dsn", `unknown kind of fault "dsn"; did you mean "dns"?`},
		{"list slots", `unknown kind of fault "slots": slots is a model of overload`},
		{"list dns slwo", `unknown model of dns "slwo"; did you mean "slow"?`},
		{"list dns x", `unknown model of dns "x" (there is nxdomain, servfail, address, silence, slow)`},
		{"list dns slow now", "takes a kind of fault and one of its models at most"},
		{"list dns --all", "takes --all or a kind of fault, and not both"},
		{"run --fail nope --json", `--fail: unknown kind of fault "nope" (there is region,`},
		{"run --fail proces --where nowhere", `--fail: unknown kind of fault "proces"; did you mean "process"?`},
		{"run --fail hang", `--fail: unknown kind of fault "hang": hang is a model of process`},
		{"run --fail process --model hnag", `--model: unknown model of process "hnag"; did you mean "hang"?`},
		{"run --fail process --for 100h", "--for: at most 24h, got 100h"},
		{"run --fail process --where http://127.0.0.1:8080/live", "--where: want an address, not a URL: 127.0.0.1:8080"},
		{"run --fail http --where 127.0.0.1:1 --relay http://localhost/", "--relay: want an address, not a URL: 127.0.0.1:80"},
		{"run --fail http --where 127.0.0.1:1 --relay http://[::1]:8080/x", "--relay: want an address, not a URL: [::1]:8080"},
		{"run --fail process --where https://10.1.2.3/", "--where: want an address, not a URL: 10.1.2.3:443"},
		{"run --fail process", "--where is missing: what is to be broken, such as 127.0.0.1:8080"},
		{"run --fail process --where :1", "refused to touch 127.0.0.1:1: nobody listens there"},
		{"run --fail process --where localhost:1", "refused to touch 127.0.0.1:1: nobody listens there, in this network namespace"},
		{"run --fail process --where localhost", `want an address such as 127.0.0.1:8080, got "localhost"`},
		{"run --fail http --where 127.0.0.1:1 --relay localhost:1", "--relay: the relay needs an address of its own: 127.0.0.1:1 is what it is to stand in front of"},
		{"run --fail process --udp --where " + tcp, "only a TCP socket listens there: leave out --udp"},
		{"run --fail process --where " + udp, "a UDP socket listens there: add --udp"},
		{"run --fail http --where " + udp, "only a UDP socket listens there, and this fault is of connections"},
		{"run --fail connections --where " + udp, "only a UDP socket listens there, and this fault is of connections"},
		{"run --fail dns --set name=a.test --where " + tcp, "only a TCP socket listens there, and a resolver is asked over UDP"},
		{"run --fail dns --set name=a.test --where " + udp, "needs a relay in front of it"},
		{"run --fail http --where " + tcp + " --relay " + taken, "tminus: --relay: " + taken + " is in use: give the relay an address that is free\n"},
		{"run --fail connections --where " + tcp + " --relay " + taken, "tminus: --relay: " + taken + " is in use: give the relay an address that is free\n"},
		{"run --fail dns --set name=a.test --where " + udp + " --relay " + datagrams, "tminus: --relay: " + datagrams + " is in use: give the relay an address that is free\n"},
		{"run --fail region --where 127.0.0.1:1", "--fail region works only in a rehearsal, on a region's name"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"chaos"}, strings.Fields(c.args)...), strings.NewReader(""), &stdout, &stderr)
		if status != exitUsage || !strings.Contains(stderr.String(), c.says) || stdout.Len() > 0 {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", c.args, status, stdout.String(), stderr.String())
		}
	}
}

// listening is where something listens until the test ends.
func listening(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
