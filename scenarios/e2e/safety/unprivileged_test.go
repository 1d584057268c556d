package safety

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tminus-live/tminus/chaos/watchdog/stock"
)

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unprivileged is a user that is not root, on a machine of its own where this one is root: with the ClickHouse engine where that
// user finds it.
func unprivileged(t *testing.T) (as user, dir string, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return self, folder(t, self), true
	}
	if !stock.Inside() {
		stock.Isolated(t, envProgram+"="+program(t), envFolder+"="+t.TempDir())
		return user{}, "", false
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	const seen = "/run/cache/tminus"
	if err := os.MkdirAll(seen, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "--bind", filepath.Join(cache, "tminus"), seen)
	t.Setenv("XDG_CACHE_HOME", filepath.Dir(seen))
	return nobody, folder(t, nobody), true
}

// lacks is what a fault by hand lacks without root; "": nothing.
func (h byHand) lacks() string {
	switch {
	case strings.HasPrefix(h.fail, "packet-") && !h.udp && h.fail != "packet-delay":
		return "CAP_BPF"
	case h.fail == "partition" && !h.relay:
		return "needs a relay in front of it"
	case h.fail == "process" && h.model == "memory":
		return "may not write"
	}
	return ""
}

// Without root everything that can work does, and the rest says what it lacks.
func TestWithoutRootWhatCannotBeDoneSaysWhatItLacks(t *testing.T) {
	as, dir, ok := unprivileged(t)
	if !ok {
		return
	}
	s := started(t, as)
	if err := os.WriteFile(filepath.Join(dir, traceFile), []byte("01\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	works := 0
	for _, h := range hands {
		out := run(t, as, dir, append(h.args(s.at, free(t)), "--dry-run")...)
		sentence := strings.TrimSpace(out.stderr)
		what := h.fail + " " + h.model
		switch lacks := h.lacks(); {
		case lacks == "" && out.status == 0:
			works++
		case lacks == "":
			t.Errorf("%s: exit status %d: %s", what, out.status, sentence)
		case out.status != 2 || !strings.Contains(sentence, lacks) || strings.Contains(sentence, "\n"):
			t.Errorf("%s: exit status %d, %q: want 2 and one sentence that says %q", what, out.status, sentence, lacks)
		default:
			t.Logf("%s: %s", what, sentence)
		}
	}
	t.Logf("%d of %d faults by hand work", works, len(hands))

	// Nor does anything begin to rehearse that cannot be, and a dry run says the same.
	for fault, lacks := range map[string]string{
		"region, where: us-east, model: cut":                                 "CAP_BPF and CAP_NET_ADMIN (run as root), which this user lacks; model: crash works without",
		"packet-delay, where: us-east, model: {delay: {delay: 60ms}}":        "no relay stands in front of a whole region",
		"rate-limit, where: us-east, model: {rate: {rate: 20Mbit}}":          "no relay stands in front of a whole region",
		"brown-out, where: us-east, model: {slow: {rate: 20Mbit}}":           "no relay stands in front of a whole region",
		"partition, where: us-east":                                          "no relay stands in front of a whole region",
		"packet-loss, where: us-east/edge-1, model: {bernoulli: {loss: 5%}}": "streams that pass a relay have no packets to lose",
	} {
		scenario := filepath.Join(dir, "lacking.yaml")
		if err := os.WriteFile(scenario, []byte(rehearsed{fault}.scenario()), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"rehearse", scenario}, {"rehearse", "--dry-run", scenario}} {
			out := run(t, as, dir, args...)
			sentence := strings.TrimSpace(out.stderr[max(0, strings.LastIndex(out.stderr, "tminus: ")):])
			if out.status != 2 || !strings.Contains(sentence, lacks) || strings.Contains(sentence, "\n") {
				t.Errorf("%s, %s: exit status %d: %s", fault, args[1], out.status, out.stderr)
			}
		}
	}
}

func TestWithoutRootFaultsAreConfirmed(t *testing.T) {
	as, dir, ok := unprivileged(t)
	if !ok {
		return
	}
	confirmed(t, as, dir, []byHand{
		{fail: "packet-delay", model: "delay", set: []string{"delay=80ms"}, relay: true},
		{fail: "packet-loss", model: "bernoulli", set: []string{"loss=20%"}, relay: true, udp: true},
		{fail: "process", model: "hang"},
		{fail: "process", model: "cpu", set: []string{"cores=0.05"}},
		{fail: "http", model: "status", relay: true},
		{fail: "connections", model: "reset", relay: true},
	})
}

// Packets are broken in the kernel where somebody takes datagrams at the same port, and where clients go through a relay that is
// there for something else.
func TestWithRootPacketsAreBrokenWhateverElseIsThere(t *testing.T) {
	if !stock.Inside() {
		stock.Isolated(t, envProgram+"="+program(t), envFolder+"="+t.TempDir())
		return
	}
	confirmed(t, self, os.Getenv(envFolder), []byHand{
		{fail: "packet-loss", model: "bernoulli", set: []string{"loss=20%"}},
		{fail: "packet-loss", model: "bernoulli", set: []string{"loss=20%"}, relay: true},
		{fail: "partition", model: "silence"},
	})
}

// confirmed injects faults, all at once and each into a service of its own, until they are confirmed and undone.
func confirmed(t *testing.T, as user, dir string, faults []byHand) {
	t.Helper()
	var all sync.WaitGroup
	for i, h := range faults {
		all.Go(func() {
			t.Run(fmt.Sprintf("%d-%s-%s", i+1, h.fail, h.model), func(t *testing.T) {
				s := started(t, as)
				if h.model == "cpu" {
					res, err := http.Post("http://"+s.at+"/busy", "", nil)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
				}
				out := run(t, as, dir, append(h.args(s.at, free(t)), "--for", "5s", "--json")...)
				var o struct {
					Restored bool
					Means    string
					Evidence struct{ Status, Detail string }
				}
				if err := json.Unmarshal([]byte(out.stdout), &o); err != nil {
					t.Fatalf("%v\n%s", err, out.stderr)
				}
				t.Logf("by %s: %s: %s", o.Means, o.Evidence.Status, o.Evidence.Detail)
				if !o.Restored || out.status != 0 {
					t.Errorf("exit status %d, restored %v", out.status, o.Restored)
				}
				if err := s.answers(); err != nil {
					t.Errorf("what was broken is not as before: %v", err)
				}
			})
		})
	}
	all.Wait()
}

func TestWithoutRootARehearsalBreaksWhatItCan(t *testing.T) {
	as, dir, ok := unprivileged(t)
	if !ok {
		return
	}
	scenario := filepath.Join(dir, "rootless.yaml")
	faults := rehearsed{"http, where: us-east/playback, model: {status: {share: 30%}}", "encoder, where: us-east/encoder", "packet-delay, where: us-east/edge-2, model: {delay: {delay: 60ms}}", "region, where: us-west", "kafka, where: kafka, model: {slow: {delay: 60ms}}", "process, where: clickhouse"}
	if err := os.WriteFile(scenario, []byte(faults.scenario()), 0o644); err != nil {
		t.Fatal(err)
	}
	out := run(t, as, dir, "rehearse", scenario, "--json")
	var report struct {
		Reasons []string
		Faults  []struct {
			ID       string
			Restored bool
			Evidence struct{ Status, Detail string }
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &report); err != nil {
		t.Fatalf("%v\n%s", err, out.stderr)
	}
	if len(report.Faults) != len(faults) {
		t.Errorf("%d faults; %v", len(report.Faults), report.Reasons)
	}
	for _, f := range report.Faults {
		t.Logf("%s: %s: %s", f.ID, f.Evidence.Status, f.Evidence.Detail)
		if !f.Restored || f.Evidence.Status != "confirmed" {
			t.Errorf("%s is %s, restored %v", f.ID, f.Evidence.Status, f.Restored)
		}
	}
}
