package starts

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/simulator/audience"
)

// rendered is what the template makes of a request, read by net/http.
func rendered(t *testing.T, r *Request, c Config, v audience.Viewer, number uint64) (*http.Request, string) {
	t.Helper()
	c.UserAgent = or(c.UserAgent, "tminus")
	tmpl, err := r.compile(&c, "127.0.1.5:8080")
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for range 2 { // the second time the length is known
		raw = tmpl.render(raw[:0], &v, number)
	}
	br := bufio.NewReader(bytes.NewReader(raw))
	req, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || br.Buffered() > 0 {
		t.Fatalf("%v, %d bytes after %q", err, br.Buffered(), raw)
	}
	return req, string(body)
}

var someone = audience.Viewer{ID: 0x0123456789abcdef, Device: "tv", ISP: "cable-1", Home: "us-east"}

func TestBuiltInRequest(t *testing.T) {
	req, body := rendered(t, &builtIn, Config{Title: `the "fight"`, Token: "t&k"}, someone, 7)
	if req.Method != "POST" || req.URL.Path != "/v1/play" || req.Host != "127.0.1.5:8080" || req.Header.Get("User-Agent") != "tminus" || req.Header.Get("Content-Type") != "application/json" || req.Close {
		t.Errorf("%+v", req)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"title": `the "fight"`, "token": "t&k", "device": "tv", "viewer": "0123456789abcdef", "region": "us-east"}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
}

func TestTemplates(t *testing.T) {
	odd := someone
	odd.Home = `a"b&c d/é`
	c := Config{Title: "x y", UserAgent: "tminus/run-7"}
	r := &Request{
		Method: "PUT", URL: "http://play.example:8081/api/{{title}}?v={{viewer}}&r={{region}}",
		Headers: []Header{{"Authorization", "Bearer {{number}}"}, {"X-Device", "{{device}} {{ isp }}"}},
		Body:    `{"n":{{number}},"where":"{{region}}"}`,
	}
	req, body := rendered(t, r, c, odd, 1<<40)
	if req.Method != "PUT" || req.Host != "play.example:8081" || req.URL.Path != "/api/x y" || req.URL.Query().Get("r") != odd.Home || req.URL.Query().Get("v") != odd.Name() {
		t.Errorf("%+v", req.URL)
	}
	if req.Header.Get("Authorization") != "Bearer 1099511627776" || req.Header.Get("X-Device") != "tv cable-1" || req.Header.Get("Content-Type") != "application/json" || req.UserAgent() != "tminus/run-7" {
		t.Errorf("%+v", req.Header)
	}
	var got struct {
		N     uint64
		Where string
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.N != 1<<40 || got.Where != odd.Home {
		t.Errorf("%v %+v in %s", err, got, body)
	}

	form := &Request{URL: "/play", Headers: []Header{{"Content-Type", "application/x-www-form-urlencoded"}}, Body: "region={{region}}&title={{title}}"}
	if _, body := rendered(t, form, c, odd, 1); body != "region="+strings.ReplaceAll(url.QueryEscape(odd.Home), "+", "%20")+"&title=x%20y" {
		t.Error(body)
	}

	get := &Request{Method: "GET", URL: "http://play.example?v={{viewer}}"}
	req, body = rendered(t, get, Config{Connections: Fresh}, someone, 1)
	if req.Method != "GET" || body != "" || req.URL.Path != "/" || req.Header.Get("Content-Length") != "" || !req.Close {
		t.Errorf("%+v %q", req, body)
	}
}

// A body's length may need more digits than the last one's.
func TestLengthsOfManyDigits(t *testing.T) {
	tmpl, err := (&Request{URL: "/", Body: "{{region}}"}).compile(&Config{UserAgent: "tminus"}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 9, 10, 99, 100, 5, 12345, 7} {
		raw := tmpl.render([]byte("before"), &audience.Viewer{Home: strings.Repeat("x", n)}, 1)
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw[len("before"):])))
		if err != nil || req.ContentLength != int64(n) {
			t.Errorf("%d: %v %q", n, err, raw)
		}
	}
}

func TestBadRequests(t *testing.T) {
	for want, r := range map[string]*Request{
		"unknown variable {{nobody}}":  {URL: "/", Body: "{{nobody}}"},
		"unknown variable {{token}}":   {URL: "/", Body: "{{token}}"}, // the built-in request's alone
		"{{ without }}":                {URL: "/", Body: "{{viewer"},
		"want an http or https URL":    {URL: "play"},
		"needs connections with TLS":   {URL: "https://a/"},
		"host":                         {URL: "http://user@a/"},
		"the generator's own":          {URL: "/", Headers: []Header{{"content-length", "1"}}},
		"is no name of a header":       {URL: "/", Headers: []Header{{"a b", "1"}}},
		"is not one line":              {URL: "/", Headers: []Header{{"A", "1\r\nB: 2"}}},
		"must be percent-encoded":      {URL: "/a b"},
		"method":                       {Method: "HE AD", URL: "/"},
		"40000 bytes":                  {URL: "/", Body: strings.Repeat("x", 40000-1)},
		"where the session":            {URL: "/", Session: "a["},
		"no host: host":                {URL: "http://"},
		"headers, at most":             {URL: "/", Headers: make([]Header, 100)},
		"the header Host":              {URL: "/", Headers: []Header{{"Host", "x"}}},
		"the header Transfer-Encoding": {URL: "/", Headers: []Header{{"Transfer-Encoding", "chunked"}}},
	} {
		err := r.Validate(false)
		want = strings.TrimPrefix(want, "no host: ")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", r.URL, err, want)
		}
	}
	if err := (&Request{URL: "https://a/"}).Validate(true); err != nil {
		t.Error(err)
	}
}

func TestRenderingDoesNotAllocate(t *testing.T) {
	tmpl, err := builtIn.compile(&Config{UserAgent: "tminus", Title: "title-fight"}, "127.0.1.5:8080")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = tmpl.render(buf[:0], &someone, 7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever a template has, what is rendered is one request, and no value breaks out of its place.
func FuzzTemplate(f *testing.F) {
	f.Add("/play?r={{region}}", "X-A", "{{device}}", `{"r":"{{region}}"}`, "us-east\r\nX: y\"", "title\x00")
	f.Add("http://a.example/{{title}}#x", "Content-Type", "application/x-www-form-urlencoded", "a={{isp}}", "&b=c", "é")
	f.Fuzz(func(t *testing.T, target, name, value, body, word, title string) {
		r := &Request{URL: target, Headers: []Header{{name, value}}, Body: body}
		c := Config{UserAgent: "tminus", Title: title}
		tmpl, err := r.compile(&c, "127.0.0.1:1")
		if err != nil {
			return
		}
		if strings.ContainsAny(title, "\r\n") && strings.Contains(value, "title") {
			t.Skip()
		}
		raw := tmpl.render(nil, &audience.Viewer{ID: 1, Device: word, ISP: word, Home: word}, 1)
		br := bufio.NewReader(bytes.NewReader(raw))
		req, err := http.ReadRequest(br)
		if err != nil {
			if strings.Contains(err.Error(), "malformed") && strings.Contains(target, "%") || strings.Contains(err.Error(), "Host") || strings.Contains(err.Error(), "invalid") {
				return // a URL or host that net/http does not like
			}
			t.Fatalf("%v: %q", err, raw)
		}
		if _, err := io.ReadAll(req.Body); err != nil || br.Buffered() != 0 {
			t.Fatalf("%v, %d bytes left: %q", err, br.Buffered(), raw)
		}
		if n := len(req.Header); n > 4 {
			t.Fatalf("%d headers: %q", n, raw)
		}
	})
}

// A target that is not ours: another method, other paths, 201 and a number for a session.
func TestTarget(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 100)
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /api/sessions", func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r:
		default:
		}
		switch r.URL.Query().Get("d") {
		case "tv":
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"data":{"id":12345,"streams":[{"url":"/live/a.mpd"}]}}`)
		case "browser":
			io.WriteString(w, `{"data":{"streams":[]}}`)
		default:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	l := listenHTTP(t, mux, nil)
	c := config(t, nil, schedule(t, s/2, audience.Leg{Rate: 200}), l)
	c.Target = &Request{Method: "PUT", URL: "http://play.example/api/sessions?d={{device}}", Session: "data.id", Manifest: "data.streams[0].url"}
	c.MaxRetries = 2
	g := mustRun(t, c)
	for _, e := range g.events {
		want := map[string][3]string{"tv": {OK, "12345", ""}, "browser": {Failed, "", noSession.String()}}[e.Device]
		if want == [3]string{} {
			want = [3]string{Shed, "", shed.String()}
			if e.Attempts != 3 {
				t.Errorf("%d attempts by one who may try again twice", e.Attempts)
			}
		}
		if e.Status != want[0] || e.Session != want[1] || e.Detail != want[2] {
			t.Errorf("%+v, want %v", e, want)
		}
	}
	if r := <-seen; r.Host != "play.example" {
		t.Errorf("asked for %s", r.Host)
	}
}

// Of a target that names neither, the status counts alone.
func TestTargetWithoutPaths(t *testing.T) {
	t.Parallel()
	l := listenHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }), nil)
	rec := &recorder{}
	c := config(t, rec, schedule(t, s/4, audience.Leg{Rate: 200}), l)
	c.Target = &Request{Method: "GET", URL: "/"}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := g.Snapshot(); n.OK != 50 {
		t.Errorf("%+v", n)
	}
}

// listenHTTP serves a handler with net/http, over TLS where a configuration is given.
func listenHTTP(t testing.TB, h http.Handler, c *tls.Config) netip.AddrPort {
	t.Helper()
	srv := &http.Server{Handler: h, TLSConfig: c, ErrorLog: log.New(io.Discard, "", 0)}
	l := tcpListener(t)
	go func() {
		if c != nil {
			srv.ServeTLS(l, "", "")
		} else {
			srv.Serve(l)
		}
	}()
	t.Cleanup(func() { srv.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}
