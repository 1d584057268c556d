package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/wire/starts"
)

// What is wrong with a load is said before anything is sent.
func TestLoadIsRefused(t *testing.T) {
	for _, c := range []struct{ args, stderr string }{
		{"ftp://127.0.0.1/", "want the http or https URL"},
		{"http://127.0.0.1:9/ --rate 100 --limit-rate 50", "peaks at 100 play starts a second, above the ceiling of 50"},
		{"http://127.0.0.1:9/ --for 1h --limit-duration 10m", "lasts 1h0m0s, above the ceiling of 10m0s"},
		{"http://127.0.0.1:9/ --limit-rate -1", "a ceiling of -1"},
		{"http://127.0.0.1:9/ --curve round", "want constant, ramp or spike"},
		{"http://127.0.0.1:9/ --rate 0", "--rate 0: want more than 0"},
		{"http://127.0.0.1:9/ --rate -5", "--rate -5: want more than 0 play starts a second, 1000000 at the most\n"},
		{"http://127.0.0.1:9/ --for -5s", "tminus: --for -5s: want more than 0, 24h0m0s at the most\n"},
		{"http://127.0.0.1:9/ --in-flight 0", "--in-flight 0: want 1 to 256"},
		{"http://127.0.0.1:9/ --connections -1", "tminus: --connections -1: want 1 to 65536\n"},
		{"http://127.0.0.1:9/ --timeout 0s", "--timeout 0s: want more than 0"},
		{"http://127.0.0.1:9/ --session id", "the answer to a --body of your own"},
		{"http://127.0.0.1:9/ --body {{token}}", "unknown variable {{token}}"},
		{"http://192.0.2.1:9/ --limit-rate 1000 --limit-duration 1h", "no proof that the target agrees"},
		{"http://192.0.2.1:9/ --limit-rate 1000 --limit-duration 1h", ", and give it with --consent\n"},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"load"}, strings.Fields(c.args)...), strings.NewReader(""), &stdout, &stderr)
		if status != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q", c.args, status, stdout.String(), stderr.String())
		}
	}
}

// playAPI answers every play start with status and body, and tells what it was asked.
func playAPI(t *testing.T, status int, body string) (url string, asked func() *http.Request) {
	t.Helper()
	var mu sync.Mutex
	var last *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		mu.Lock()
		last = r.Clone(context.Background())
		last.Body = io.NopCloser(bytes.NewReader(got))
		mu.Unlock()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() *http.Request {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

// A status alone is a good answer only where nothing else can be asked for, and then that is said.
func TestLoadSaysWhatCountsAsOK(t *testing.T) {
	const soldOut = "sorry, sold out"
	url, asked := playAPI(t, 200, soldOut)
	whole, _ := playAPI(t, 200, `{"session":"s","manifests":{"dash":"http://h/d.mpd","hls":"http://h/m.m3u8"}}`)
	bad, _ := playAPI(t, 400, "{\"error\": \"title missing\"}\n"+strings.Repeat("x", 300))
	for _, c := range []struct {
		name   string
		args   []string
		status int
		ok     uint64
		note   bool
		stderr string
		first  string
	}{
		{"the reference's request wants its answer", []string{url + "/play"}, exitError, 0, false, "not one play start was answered with a session", "HTTP 200: " + soldOut},
		{"and has it", []string{whole + "/elsewhere"}, 0, 40, false, "", ""},
		{"with a header of one's own", []string{whole, "-H", "Content-Type: text/plain"}, 0, 40, false, "", ""},
		{"a body without a session", []string{url, "--body", "x"}, 0, 40, true, "no --session: every status from 200 to 299 counts as ok", ""},
		{"another method without a session", []string{url, "--method", "GET"}, 0, 40, true, "no --session", ""},
		{"another method with a session", []string{whole, "--method", "GET", "--session", "data.id"}, exitError, 0, false, "not one play start was answered with a session", "HTTP 200: {\"session\":"},
		{"what the API says of a mistake", []string{bad}, exitError, 0, false, "not one", `HTTP 400: {"error": "title missing"} xxx`},
	} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"load", "--rate", "200", "--for", "200ms", "--json", "--timeout", "30s"}, c.args...), strings.NewReader(""), &stdout, &stderr)
		var got loadResult
		if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v, %s", c.name, err, stderr.String())
		}
		if late := got.Result.Late > 0; status != c.status && !(late && c.status == 0 && status == 98) || got.Result.OK != c.ok || (got.Note != "") != c.note || got.Interrupted ||
			!strings.Contains(stderr.String(), c.stderr) || !strings.HasPrefix(got.Result.FirstFailure, c.first) || len(got.Result.FirstFailure) > 230 {
			t.Errorf("%s: exit status %d, %+v, stderr %q", c.name, status, got, stderr.String())
		}
		if c.name == "the reference's request wants its answer" {
			body, _ := io.ReadAll(asked().Body)
			if r := asked(); r.Method != "POST" || r.URL.Path != "/play" || !strings.Contains(string(body), `"device":"`) {
				t.Errorf("asked %s %s with %q", r.Method, r.URL, body)
			}
		}
	}
}

// A load that was ended early is not a load that was sent.
func TestLoadSaysThatItWasInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel() // as Ctrl-C does, while it is on its way
		_, _ = io.WriteString(w, "ok")
	}))
	defer srv.Close()
	var stdout, stderr bytes.Buffer
	root := newRoot(false)
	root.SetArgs([]string{"load", srv.URL, "--method", "GET", "--rate", "100", "--for", "30m", "--json"})
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err := root.ExecuteContext(ctx)
	var e exit
	if !errors.As(err, &e) || e.status != 98 || !strings.HasPrefix(err.Error(), "interrupted after ") || !strings.HasSuffix(err.Error(), " of 30m0s") {
		t.Errorf("%v", err)
	}
	var got loadResult
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || !got.Interrupted || got.DurationS > 600 {
		t.Errorf("%v, %+v", err, got)
	}
}

// A load whose machine was late says so, and is not taken for one of the API's.
func TestLoadIsInconclusiveWhenLate(t *testing.T) {
	f := &loadFlags{length: 30 * time.Second}
	for _, c := range []struct {
		n      starts.Snapshot
		status int
	}{
		{starts.Snapshot{Intended: 10_000, Sent: 10_000, OK: 10_000, Late: 10}, 0},
		{starts.Snapshot{Intended: 10_000, Sent: 10_000, OK: 10_000, Late: 11}, 98},
		{starts.Snapshot{Intended: 10_000, Sent: 9_980, OK: 9_980, Dropped: 20}, 98},
	} {
		err := loadResult{Result: c.n}.judge(f)
		var e exit
		if errors.As(err, &e); e.status != c.status || (err == nil) != (c.status == 0) {
			t.Errorf("%+v: %v", c.n, err)
		}
	}
}

func TestMillisHaveNoExponent(t *testing.T) {
	for ms, want := range map[float64]string{0: "0.000 ms", 0.1234: "0.123 ms", 12.34: "12.3 ms", 123.4: "123 ms", 1000: "1.00 s", 7670: "7.67 s", 3.6e6: "3600 s"} {
		if got := millis(ms); got != want {
			t.Errorf("%v: %q, want %q", ms, got, want)
		}
	}
}
