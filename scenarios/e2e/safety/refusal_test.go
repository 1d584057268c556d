package safety

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tminus-live/tminus/chaos/watchdog/stock"
)

// What is not one's own to break is refused with exit status 2 and one sentence, and nothing happens to it.
func TestRefusals(t *testing.T) {
	dir := folder(t, self)
	if err := os.Chmod(dir, 0o755); err != nil { // others read the scenarios
		t.Fatal(err)
	}
	mine := started(t, self)
	var elsewhere service // in a network namespace that is nobody's here
	if os.Geteuid() == 0 {
		elsewhere = startedIn(t, self, syscall.CLONE_NEWNET)
	}
	scenario := func(name, target, where string) string {
		path := filepath.Join(dir, name+".yaml")
		text := fmt.Sprintf("apiVersion: tminus/v1\nname: %s\nevent: {duration: 20s}\n%saudience: {starts: [{at: 0s, rate: 1}]}\nfaults:\n  - {at: 2s, for: 2s, %s}\nobjectives:\n  video_start_failures: [\"rate<50%%\"]\n", name, target, where)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const pipeline = "topology: {regions: [us-east]}\n"
	own := func(address string) string {
		return fmt.Sprintf("target: {play: {url: \"http://%s/\", method: GET, session: x}, own: {mine: {address: %q}}}\n", mine.at, address)
	}
	for name, c := range map[string]struct {
		args []string
		as   user
		says string
		root bool // only where there is root
	}{
		"an address of another machine":        {args: []string{"chaos", "run", "--fail", "packet-loss", "--set", "loss=5%", "--where", "192.0.2.1:80"}, says: "only what listens on this machine's loopback can be broken"},
		"every address of this machine":        {args: []string{"chaos", "run", "--fail", "process", "--where", "0.0.0.0:80"}, says: "only what listens on this machine's loopback can be broken"},
		"a relay that others would reach":      {args: []string{"chaos", "run", "--fail", "http", "--where", mine.at, "--relay", "192.0.2.1:9080"}, says: "only what listens on this machine's loopback can be broken"},
		"an address where nobody listens":      {args: []string{"chaos", "run", "--fail", "packet-loss", "--set", "loss=5%", "--where", free(t)}, says: "nobody listens there"},
		"a process by its id":                  {args: []string{"chaos", "run", "--fail", "process", "--where", "1"}, says: "want an address such as"},
		"another user's process":               {args: []string{"chaos", "run", "--fail", "process", "--where", mine.at}, as: nobody, says: "no process of this user's listens at", root: true},
		"a namespace that is not this one":     {args: []string{"chaos", "run", "--fail", "process", "--where", elsewhere.at}, says: "nobody listens there, in this network namespace", root: true},
		"packets of a namespace not this one":  {args: []string{"chaos", "run", "--fail", "partition", "--where", elsewhere.at}, says: "nobody listens there, in this network namespace", root: true},
		"a namespace by its name":              {args: []string{"chaos", "run", "--fail", "partition", "--where", "/run/netns/other"}, says: "want an address such as"},
		"a region that is not of a run":        {args: []string{"chaos", "run", "--fail", "region", "--where", mine.at}, says: "--fail region works only in a rehearsal, on a region's name"},
		"a component that is not of a run":     {args: []string{"chaos", "run", "--fail", "encoder", "--where", mine.at}, says: "--fail encoder works only in a rehearsal"},
		"somebody else's broker":               {args: []string{"rehearse", scenario("broker", pipeline, "fail: kafka, where: kafka"), "--kafka", "127.0.0.1:9"}, says: "it is not of this run"},
		"somebody else's store":                {args: []string{"rehearse", scenario("store", pipeline, "fail: clickhouse, where: clickhouse"), "--clickhouse", "http://127.0.0.1:9"}, says: "it is not of this run"},
		"a rehearsal of another user's":        {args: []string{"rehearse", scenario("anothers", own(mine.at), "fail: process, where: mine")}, as: nobody, says: "belongs to another user", root: true},
		"a rehearsal where nobody listens":     {args: []string{"rehearse", scenario("nobodys", own(free(t)), "fail: process, where: mine"), "--runs", dir}, says: "nobody listens at"},
		"a rehearsal of what has no such part": {args: []string{"rehearse", scenario("unmatched", own(mine.at), "fail: encoder, where: mine"), "--runs", dir}, says: "encoder needs the reference pipeline"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("it takes root")
			}
			as, at := self, dir
			if c.as != (user{}) {
				as, at = c.as, folder(t, c.as)
			}
			out := run(t, as, at, c.args...)
			sentence := strings.TrimSpace(out.stderr)
			if i := strings.LastIndex(sentence, "\ntminus: "); i >= 0 && c.args[0] == "rehearse" { // what it was doing is said before
				sentence = sentence[i+1:]
			}
			t.Logf("exit status %d: %s", out.status, sentence)
			if !strings.Contains(sentence, c.says) || strings.Contains(sentence, "\n") {
				t.Errorf("want one sentence that says %q", c.says)
			}
			want := 2
			if strings.Contains(sentence, ".yaml:") { // the scenario itself is no good
				want = 104
			}
			if out.status != want {
				t.Errorf("exit status %d, want %d", out.status, want)
			}
		})
	}
	if err := mine.answers(); err != nil {
		t.Errorf("what was refused happened: %v", err)
	}
}

// What others have made is theirs, whatever it is: chaos clean takes away what bears this program's name and is nobody's.
func TestCleanTouchesNobodyElsesNamespace(t *testing.T) {
	if !stock.Inside() {
		stock.Isolated(t, envProgram+"="+program(t), envFolder+"="+t.TempDir())
		return
	}
	for _, name := range []string{"somebodys", "tminus-left-hub"} {
		command(t, "ip", "netns", "add", name)
	}
	// Its exit status may be about the journals of others, in the folder for temporary files.
	if out := run(t, self, os.Getenv(envFolder), "chaos", "clean"); !strings.Contains(out.stdout, "removed: network namespace tminus-left-hub") || strings.Contains(out.stdout, "somebodys") {
		t.Errorf("%+v", out)
	}
	if got := strings.Fields(command(t, "ip", "netns", "list")); len(got) == 0 || got[0] != "somebodys" || strings.Contains(strings.Join(got, " "), "tminus-") {
		t.Errorf("namespaces %v", got)
	}
}
