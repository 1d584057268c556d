package rehearsal

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
)

// A broker or a store that somebody else runs is used, and not broken.
func TestWhatOthersRunIsNotBroken(t *testing.T) {
	cfg := Config{Scenario: &spec.Scenario{Faults: []spec.Fault{{ID: "kafka-1", Where: "kafka"}, {ID: "clickhouse-1", Where: "clickhouse"}, {ID: "region-1", Where: "us-east"}}}}
	if err := elsewhere(cfg); err != nil {
		t.Errorf("the run's own: %v", err)
	}
	cfg.Kafka = "broker.example.test:9092"
	err := elsewhere(cfg)
	if !errors.Is(err, chaos.ErrRefused) || !strings.Contains(err.Error(), "fault kafka-1") || !strings.Contains(err.Error(), cfg.Kafka) || strings.Contains(err.Error(), "clickhouse-1") {
		t.Errorf("%v", err)
	}
	cfg.ClickHouse = "http://store.example.test:8123"
	if err := elsewhere(cfg); !errors.Is(err, chaos.ErrRefused) || !strings.Contains(err.Error(), cfg.ClickHouse) {
		t.Errorf("%v", err)
	}
}

// What would be refused once a rehearsal is under way is refused by its dry run too, in the same words.
func TestForeseeRefusesWhatRunWould(t *testing.T) {
	kafka := spec.Fault{ID: "kafka-1", At: 30 * time.Second, For: 20 * time.Second, Fail: "kafka", Where: "kafka"}
	hang := kafka
	hang.ID, hang.Fail, hang.Where = "process-1", "process", "nginx"
	far := &spec.Target{Manifest: "http://192.0.2.1/live.m3u8", Own: []spec.Own{{Name: "nginx", Address: netip.MustParseAddrPort("127.0.0.1:8080")}}}
	answers := hang
	answers.Fail, answers.Model = "http", "status"
	for _, c := range []struct {
		name string
		cfg  Config
		is   error // nil: it is not refused
		says string
	}{
		{"nothing", Config{Scenario: &spec.Scenario{Faults: []spec.Fault{kafka}}}, nil, ""},
		{"another's broker", Config{Scenario: &spec.Scenario{Faults: []spec.Fault{kafka}}, Kafka: "broker.example.test:9092"}, chaos.ErrRefused, "it is not of this run"},
		{"another's target", Config{Scenario: &spec.Scenario{Target: far, Faults: []spec.Fault{hang}}}, ErrRefused, "must agree to be loaded"},
		{"no relay", Config{Scenario: &spec.Scenario{Target: far, Faults: []spec.Fault{answers}}}, chaos.ErrUnsupported, "nginx needs a relay in front of it"},
	} {
		steps, err := Foresee(c.cfg)
		if c.is == nil && (err != nil || len(steps) != 1 || steps[0].Fault.Model != "gone" || steps[0].Means != "a TCP relay in front of it") ||
			c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %+v, %v", c.name, steps, err)
		}
		run, err := New(c.cfg, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if c.is == nil {
			continue
		}
		run.log, run.cfg.Runs = slog.New(slog.DiscardHandler), t.TempDir()
		if _, err := run.Run(t.Context()); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: it runs: %v", c.name, err)
		}
	}
}

// What is one's own has to be there, and its relay's address free: that is told before anything is begun, by the dry run too.
func TestForeseeLooksAtWhatIsOnesOwn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	free := func() netip.AddrPort {
		at, err := freePort(netip.MustParseAddr("127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	mine, udp := netip.MustParseAddrPort(ln.Addr().String()), netip.MustParseAddrPort(datagrams.LocalAddr().String())
	nobody, relay := free(), free()
	for _, c := range []struct {
		name  string
		own   spec.Own
		fault *spec.Fault // nil: there is none
		says  string      // "": it is not refused
	}{
		{"there, and its relay's address free", spec.Own{Address: mine, Relay: relay}, &spec.Fault{Fail: "http", Model: "status"}, ""},
		{"nobody behind a relay", spec.Own{Address: nobody, Relay: relay}, &spec.Fault{Fail: "http", Model: "status"}, "refused: nobody listens at " + nobody.String() + " (nginx)"},
		{"nobody behind a relay, and no fault", spec.Own{Address: nobody, Relay: relay}, nil, "refused: nobody listens at " + nobody.String() + " (nginx)"},
		{"nobody at all, to hang", spec.Own{Address: nobody}, &spec.Fault{Fail: "process", Model: "hang"}, "refused: nobody listens at " + nobody.String() + " (nginx)"},
		{"nobody at all, and nothing is to happen to it", spec.Own{Address: nobody}, nil, ""},
		{"a relay's address that is taken", spec.Own{Address: mine, Relay: mine}, nil, mine.String() + ", the address of the relay in front of nginx, is in use"},
		{"one's own process", spec.Own{Address: mine}, &spec.Fault{Fail: "process", Model: "hang"}, "it is the one that would have to put it back"},
		{"datagrams that nobody said it takes", spec.Own{Address: udp, Relay: relay}, nil, "only a UDP socket listens at " + udp.String()},
		{"datagrams", spec.Own{Address: udp, Relay: relay, Datagrams: true}, nil, ""},
		{"connections that nobody said it takes", spec.Own{Address: mine, Relay: relay, Datagrams: true}, nil, "only a TCP socket listens at " + mine.String()},
	} {
		c.own.Name = "nginx"
		sc := &spec.Scenario{Target: &spec.Target{Manifest: "http://127.0.0.1:1/live.m3u8", Own: []spec.Own{c.own}}}
		if f := c.fault; f != nil {
			f.ID, f.Where, f.At, f.For = "it", "nginx", 10*time.Second, 5*time.Second
			sc.Faults = []spec.Fault{*f}
		}
		_, err := Foresee(Config{Scenario: sc})
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, chaos.ErrRefused) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestFaultsThatCannotBeHadTogether(t *testing.T) {
	fault := func(fail, where, name, value string) spec.Fault {
		return spec.Fault{ID: fail, Fail: fail, Where: where, Params: map[string]string{name: value}}
	}
	// A machine where a region's packets are broken in a network, and an edge's by a relay for streams.
	mixed := func(kind string, datagrams bool) chaos.Terms {
		return chaos.Terms{Kind: kind, Datagrams: datagrams, Kernel: true, Network: kind == chaos.PartRegion}
	}
	sc := &spec.Scenario{
		Topology: spec.Topology{Regions: []string{"us-east", "us-west"}, Edges: map[string]int{"us-east": 1, "us-west": 1}},
		Faults:   []spec.Fault{fault("packet-delay", "us-east", "delay", "80ms"), fault("http", "us-west/edge-1", "status", "503")},
	}
	front, networked, err := arrange(sc, mixed)
	if err != nil || !networked || !slices.Equal(front["us-west/edge-1"], []chaos.Front{chaos.FrontHTTP}) || front["us-east"] != nil {
		t.Errorf("%v, networked %v, %v", front, networked, err)
	}
	sc.Faults = append(sc.Faults, fault("packet-delay", "us-west/edge-1", "delay", "80ms"))
	if _, _, err := arrange(sc, mixed); !errors.Is(err, chaos.ErrUnsupported) || !strings.Contains(err.Error(), "one at a time") {
		t.Errorf("%v", err)
	}
}

// What Plan does not allow is a refusal, in its own words.
func TestAPlanThatCannotBeIsARefusal(t *testing.T) {
	err := plan(chaos.Config{Now: time.Now, Faults: []chaos.Fault{{ID: "region-1", Fail: "region", Where: "nowhere", For: time.Minute}}})
	if !errors.Is(err, ErrRefused) || !errors.Is(err, chaos.ErrUnknown) || strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

// What a run leaves in its folder: nothing of one that was refused, since nothing was recorded.
func TestWhatARunLeaves(t *testing.T) {
	for _, c := range []struct {
		name string
		rep  *report.Report
		err  error
		left string
	}{
		{"refused", nil, refusal{errors.New("unknown place")}, ""},
		{"failed", nil, errors.New("a region did not start"), "kafka spool store.log"},
		{"judged", &report.Report{}, nil, "store.log"},
		{"lost something", &report.Report{Telemetry: report.Telemetry{Lost: 1}}, nil, "kafka spool store.log"},
	} {
		r := &Rehearsal{folder: filepath.Join(t.TempDir(), "run")}
		for _, dir := range []string{"kafka", "spool"} {
			if err := os.MkdirAll(filepath.Join(r.folder, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(r.folder, "store.log"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.tidy(c.rep, c.err); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var left []string
		entries, _ := os.ReadDir(r.folder)
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if _, err := os.Stat(r.folder); strings.Join(left, " ") != c.left || (err != nil) != (c.left == "") {
			t.Errorf("%s: it leaves %v, %v", c.name, left, err)
		}
	}
}
