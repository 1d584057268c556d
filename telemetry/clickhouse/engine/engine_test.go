package engine_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
	"github.com/tminus-live/tminus/telemetry/clickhouse/engine"
)

func TestMain(m *testing.M) { chtest.Main(m) }

type proc struct{ p *chtest.Process }

func start(t *testing.T, dir string) proc { return proc{chtest.Start(t, dir)} }

var client = &http.Client{Timeout: time.Minute}

func (p proc) ask(t *testing.T, params url.Values, body string) (status int, answer string) {
	t.Helper()
	res, err := client.Post(p.p.URL+"/?"+params.Encode(), "", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (p proc) want(t *testing.T, params url.Values, body, answer string) {
	t.Helper()
	if status, got := p.ask(t, params, body); status != 200 || got != answer {
		t.Errorf("%s: %d %q, want 200 %q", body, status, got, answer)
	}
}

func TestSpeaksClickHouseHTTP(t *testing.T) {
	p := start(t, t.TempDir())
	p.want(t, nil, "SELECT 1", "1\n")
	p.want(t, nil, "SELECT 1 AS a FORMAT JSONEachRow", "{\"a\":1}\n")
	p.want(t, url.Values{"default_format": {"CSV"}}, "SELECT 'a,b'", "\"a,b\"\n")
	p.want(t, url.Values{"query": {"SELECT 2"}}, "", "2\n")
	p.want(t, url.Values{"param_x": {"a'b"}}, "SELECT {x:String}", "a\\'b\n")
	p.want(t, nil, "SELECT 1 WHERE 0", "")
	p.want(t, nil, "CREATE DATABASE d", "")
	p.want(t, url.Values{"database": {"d"}}, "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a", "")
	p.want(t, url.Values{"query": {"INSERT INTO d.t (a, b) FORMAT CSV"}}, "1,x\n2,y\n", "")
	p.want(t, nil, "INSERT INTO d.t VALUES (3, 'z')", "")
	p.want(t, url.Values{"database": {"d"}}, "SELECT * FROM t ORDER BY a", "1\tx\n2\ty\n3\tz\n")
	p.want(t, nil, "SELECT count() FROM numbers(1000000)", "1000000\n")
	p.want(t, url.Values{"max_result_rows": {"0"}}, "SELECT getSetting('max_execution_time')", "60\n")
	p.want(t, url.Values{"max_execution_time": {"7"}}, "SELECT getSetting('max_execution_time')", "7\n")
	p.want(t, nil, "SELECT getSetting('max_execution_time')", "60\n")
	if _, out := p.ask(t, nil, "SELECT number FROM numbers(3000000)"); len(out) != 22888890 {
		t.Errorf("a streamed result of %d bytes", len(out))
	}
	for body, code := range map[string]string{
		"SELECT nothing":          "Code: 47.",
		"SELEKT 1":                "Code: 62.",
		"SELECT * FROM d.missing": "Code: 60.",
		"SELECT throwIf(number = 2000000, 'late') FROM numbers(3000000)": "__exception__",
	} {
		status, got := p.ask(t, nil, body)
		if !strings.Contains(got, code) || (status == 200) != (code == "__exception__") {
			t.Errorf("%s: %d %.200q", body, status, got)
		}
	}
	for _, bad := range []url.Values{{"compress": {"1"}}, {"database": {"`"}}, {"a b": {"1"}}, {"query": {" "}}} {
		if status, got := p.ask(t, bad, ""); status != 400 {
			t.Errorf("%v: %d %q", bad, status, got)
		}
	}
	if status, _ := p.ask(t, url.Values{"no_such_setting": {"1"}}, "SELECT 1"); status != 500 {
		t.Errorf("an unknown setting: %d", status)
	}
	p.want(t, nil, "SELECT 1", "1\n")
}

func TestStatementsRunSideBySide(t *testing.T) {
	p := start(t, t.TempDir())
	failed := make(chan string, 16)
	for i := range cap(failed) {
		go func() {
			res, err := client.Post(p.p.URL, "", strings.NewReader(fmt.Sprintf("SELECT sum(number) + %d - %d FROM numbers(1000000)", i, i)))
			if err != nil {
				failed <- err.Error()
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			if string(b) != "499999500000\n" {
				failed <- string(b)
				return
			}
			failed <- ""
		}()
	}
	for range cap(failed) {
		if msg := <-failed; msg != "" {
			t.Error(msg)
		}
	}
}

func TestKillLosesNoAcknowledgedRow(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	p.want(t, nil, "CREATE DATABASE d", "")
	p.want(t, nil, "CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a", "")
	for i := range 20 {
		p.want(t, url.Values{"query": {"INSERT INTO d.t (a) FORMAT CSV"}}, fmt.Sprintf("%d\n", i), "")
	}
	p.p.Process.Kill()
	p.p.Wait()
	p = start(t, dir)
	p.want(t, nil, "SELECT count(), sum(a) FROM d.t", "20\t190\n")
}

// Every thread gives way, also those of the library that came later.
func TestGivesWay(t *testing.T) {
	p := start(t, t.TempDir())
	p.want(t, nil, "SELECT count() FROM numbers(1000000)", "1000000\n")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.p.Process.Pid))
	if err != nil || len(tasks) < 5 {
		t.Skip("no threads to be seen", err)
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if err != nil {
			continue // it has just ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if nice := fields[19-3]; nice != fmt.Sprint(engine.DefaultNice) {
			t.Errorf("%.60s… runs at nice %s", stat, nice)
		}
	}
}

func TestOneProcessPerFolder(t *testing.T) {
	dir := t.TempDir()
	start(t, dir)
	_, err := engine.Listen(engine.Config{Dir: dir, Addr: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Error(err)
	}
}

func TestAddressInUse(t *testing.T) {
	p := start(t, t.TempDir())
	_, err := engine.Listen(engine.Config{Dir: t.TempDir(), Addr: strings.TrimPrefix(p.p.URL, "http://"), Lib: "unused"})
	if err == nil || !strings.Contains(err.Error(), "cannot listen on 127.0.0.1:") {
		t.Error(err)
	}
}

func TestFindLibSaysWhatToDo(t *testing.T) {
	t.Setenv("TMINUS_CHDB_LIB", "")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := engine.FindLib()
	if err == nil || !strings.Contains(err.Error(), "make setup") {
		t.Error(err)
	}
}

func TestNotALibrary(t *testing.T) {
	lib := t.TempDir() + "/libchdb.so"
	if err := os.WriteFile(lib, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := engine.Listen(engine.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", Lib: lib})
	if err == nil || !strings.Contains(err.Error(), "cannot load the ClickHouse engine") {
		t.Error(err)
	}
}
