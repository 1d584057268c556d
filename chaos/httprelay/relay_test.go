package httprelay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/packager"
)

// front runs a relay in front of a handler.
func front(t testing.TB, layout media.Layout, now func() time.Time, h http.Handler) *Relay {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return relay(t, layout, now, server.Listener.Addr().String())
}

func relay(t testing.TB, layout media.Layout, now func() time.Time, upstream string) *Relay {
	t.Helper()
	if now == nil {
		now = time.Now
	}
	return start(t, Config{Upstream: upstream, Layout: layout, Now: now})
}

func start(t testing.TB, cfg Config) *Relay {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	r, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the relay does not end")
		}
	})
	return r
}

// alone is a client that never uses a connection twice: what happens to one is seen.
var alone = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: 20 * time.Second}

func get(t testing.TB, r *Relay, path string) (int, []byte, http.Header, error) {
	t.Helper()
	resp, err := alone.Get("http://" + r.Addr() + path)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, resp.Header, err
}

func set(t testing.TB, r *Relay, rules ...Rule) {
	t.Helper()
	if err := r.Add("", rules); err != nil {
		t.Fatal(err)
	}
}

// raw sends text on one connection and returns what comes back until the connection ends.
func raw(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

var body = bytes.Repeat([]byte("0123456789abcdef"), 8192) // 128 KiB

// server answers in every way that HTTP has.
func server(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/range":
		w.Header().Set("Etag", `"v1"`)
		http.ServeContent(w, r, "x.bin", time.Unix(1_700_000_000, 0), bytes.NewReader(body))
	case "/chunked":
		w.Header().Set("Trailer", "X-Sum")
		for i := range 4 {
			fmt.Fprintf(w, "part %d\n", i)
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", "42")
	case "/echo":
		h := w.Header()
		for _, name := range []string{"User-Agent", "X-Forwarded-For", "Forwarded", "Accept-Encoding", "X-Own", "Via"} {
			h["Saw-"+name] = r.Header[name]
		}
		h["Date"], h["Content-Type"] = nil, nil
		fmt.Fprintf(w, "%s %s host=%s body=", r.Method, r.RequestURI, r.Host)
		_, _ = io.Copy(w, r.Body)
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	case "/teapot":
		http.Error(w, "short and stout", http.StatusTeapot)
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
}

// Whatever a client says and a server answers is the same with the relay between them.
func TestTransparentWithoutRules(t *testing.T) {
	direct := httptest.NewServer(http.HandlerFunc(server))
	defer direct.Close()
	r := relay(t, media.Layout{}, nil, direct.Listener.Addr().String())
	date := regexp.MustCompile(`(?m)^Date: .*\r\n`)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a.example\r\n",
		"HEAD / HTTP/1.1\r\nHost: a.example\r\n",
		"GET /range HTTP/1.1\r\nHost: a.example\r\nRange: bytes=100-199\r\n",
		"GET /range HTTP/1.1\r\nHost: a.example\r\nRange: bytes=-5,0-3\r\n",
		"GET /range HTTP/1.1\r\nHost: a.example\r\nIf-None-Match: \"v1\"\r\n",
		"GET /chunked HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n",
		"GET /echo?a=1;b=%zz&c=%2F HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=x\r\nX-Own: 1\r\nX-Own: 2\r\n",
		"GET /a%2Fb/../c HTTP/1.1\r\nHost: a.example\r\nUser-Agent: none\r\n",
		"POST /echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n",
		"PUT /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n",
		"DELETE /none HTTP/1.1\r\nHost: a.example\r\n",
		"OPTIONS /teapot HTTP/1.1\r\nHost: a.example\r\n",
	} {
		request += "Connection: close\r\n\r\n"
		switch {
		case strings.Contains(request, "Content-Length"):
			request += "hello"
		case strings.Contains(request, "chunked\r\n\r\n"), strings.Contains(request, "Transfer-Encoding"):
			request += "5\r\nhello\r\n0\r\n\r\n"
		}
		want := raw(t, direct.Listener.Addr().String(), request)
		got := raw(t, r.Addr(), request)
		want, got = date.ReplaceAllString(want, ""), date.ReplaceAllString(got, "")
		// A boundary of parts is random.
		boundary := regexp.MustCompile(`[0-9a-f]{60}`)
		want, got = boundary.ReplaceAllString(want, "B"), boundary.ReplaceAllString(got, "B")
		if !sameAnswer(t, want, got) {
			t.Errorf("%q\nwant %.400q\ngot  %.400q", request, want, got)
		}
	}
}

// sameAnswer compares answers as HTTP does: header order and chunk sizes mean nothing.
func sameAnswer(t *testing.T, a, b string) bool {
	t.Helper()
	read := func(text string) (string, http.Header) {
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
		if err != nil {
			t.Fatalf("%v in %.200q", err, text)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // of HEAD
			t.Fatal(err)
		}
		return fmt.Sprint(resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Trailer, string(b)), resp.Header
	}
	textA, headA := read(a)
	textB, headB := read(b)
	return textA == textB && fmt.Sprint(headA) == fmt.Sprint(headB)
}

func TestConnectionsAreKeptAlive(t *testing.T) {
	r := front(t, media.Layout{}, nil, http.HandlerFunc(server))
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "GET /teapot HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusTeapot {
			t.Fatalf("request %d: %v %v", i, resp.Status, err)
		}
	}
}

// Each action does what it says while its rule stands, and nothing once it is gone.
func TestActions(t *testing.T) {
	r := front(t, media.Layout{}, nil, http.HandlerFunc(server))
	rule := func(a Action) Rule { return Rule{Name: a.Kind, Share: 1, Action: a} }
	healthy := func(after string) {
		t.Helper()
		r.Clear()
		if status, got, _, err := get(t, r, "/"); status != 200 || !bytes.Equal(got, body) || err != nil {
			t.Errorf("after %s: %d, %d bytes, %v", after, status, len(got), err)
		}
	}

	set(t, r, rule(Action{Kind: Status, Status: 503, RetryAfter: 1500 * time.Millisecond, Body: "busy"}))
	if status, got, h, err := get(t, r, "/"); status != 503 || string(got) != "busy" || h.Get("Retry-After") != "2" || h.Get("Cache-Control") != "no-store" || err != nil {
		t.Errorf("status: %d %q %v %v", status, got, h, err)
	}
	healthy(Status)

	set(t, r, rule(Action{Kind: Latency, Delay: 120 * time.Millisecond}))
	began := time.Now()
	if status, got, _, err := get(t, r, "/"); status != 200 || len(got) != len(body) || err != nil || time.Since(began) < 120*time.Millisecond {
		t.Errorf("latency: %d, %d bytes, %v after %v", status, len(got), err, time.Since(began))
	}
	healthy(Latency)

	set(t, r, rule(Action{Kind: Reset}))
	if _, _, _, err := get(t, r, "/"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
	healthy(Reset)

	set(t, r, rule(Action{Kind: Reset, After: 1000}))
	if status, got, _, err := get(t, r, "/"); status != 200 || len(got) > 1000 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset in the body: %d, %d bytes, %v", status, len(got), err)
	}
	healthy(Reset)

	for after, want := range map[int64]int{1000: 1000, 0: len(body) / 2, 1 << 30: len(body) / 2} {
		set(t, r, rule(Action{Kind: Truncate, After: after}))
		if status, got, _, err := get(t, r, "/"); status != 200 || len(got) != want || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("truncate after %d: %d, %d bytes, %v", after, status, len(got), err)
		}
	}
	healthy(Truncate)

	set(t, r, rule(Action{Kind: Corrupt, Each: 1000}))
	if status, got, _, err := get(t, r, "/"); status != 200 || len(got) != len(body) || err != nil {
		t.Errorf("corrupt: %d, %d bytes, %v", status, len(got), err)
	} else {
		differ := 0
		for i := range got {
			if got[i] != body[i] {
				differ++
			}
		}
		if differ != len(body)/1000 {
			t.Errorf("corrupt: %d bytes differ", differ)
		}
	}
	healthy(Corrupt)

	set(t, r, rule(Action{Kind: Throttle, Rate: 512 << 10}))
	began = time.Now()
	if status, got, _, err := get(t, r, "/"); status != 200 || !bytes.Equal(got, body) || err != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("throttle: %d, %d bytes, %v after %v", status, len(got), err, time.Since(began))
	}
	healthy(Throttle)

	set(t, r, rule(Action{Kind: Stall, After: 1000, For: 150 * time.Millisecond}))
	began = time.Now()
	if status, got, _, err := get(t, r, "/"); status != 200 || !bytes.Equal(got, body) || err != nil || time.Since(began) < 150*time.Millisecond {
		t.Errorf("stall: %d, %d bytes, %v after %v", status, len(got), err, time.Since(began))
	}
	healthy(Stall)
}

// What a rule holds back goes on when the rule is taken away, and ends when the relay does.
func TestRestoringLetsGo(t *testing.T) {
	for name, a := range map[string]Action{
		"stall for ever": {Kind: Stall, After: 1000},
		"long delay":     {Kind: Latency, Delay: time.Hour},
		"slow":           {Kind: Throttle, Rate: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := front(t, media.Layout{}, nil, http.HandlerFunc(server))
			i := &Injector{Relay: r, Owner: "stall-1", Rules: []Rule{{Name: "s", Share: 1, Action: a}}}
			if err := i.Inject(t.Context()); err != nil {
				t.Fatal(err)
			}
			type result struct {
				n   int
				err error
			}
			done := make(chan result, 1)
			go func() {
				_, got, _, err := get(t, r, "/")
				done <- result{len(got), err}
			}()
			wait := func(what string, ok func() bool) {
				t.Helper()
				for deadline := time.Now().Add(5 * time.Second); !ok(); {
					if time.Now().After(deadline) {
						t.Fatalf("no %s", what)
					}
					time.Sleep(time.Millisecond)
				}
			}
			wait("request held", func() bool { c := r.Counts().Rules; return len(c) == 1 && c[0].Applied == 1 })
			select {
			case got := <-done:
				t.Fatalf("answered while the rule stood: %+v", got)
			default:
			}
			if note := i.Note(); note != "1 of 1 matching requests broken" {
				t.Errorf("%q", note)
			}
			for range 2 { // again, and when there is nothing to undo
				if err := i.Restore(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if note := i.Note(); note != "1 of 1 matching requests broken" {
				t.Errorf("%q after restoration", note)
			}
			select {
			case got := <-done:
				if got.n != len(body) || got.err != nil {
					t.Errorf("%+v", got)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("still held")
			}
		})
	}
}

func TestShareIsDrawnFromTheSeed(t *testing.T) {
	r := front(t, media.Layout{}, nil, http.HandlerFunc(server))
	sequence := func(seed uint64) string {
		set(t, r, Rule{Name: "some", Share: 0.3, Seed: seed, Action: Action{Kind: Status, Status: 500}})
		var out strings.Builder
		for range 200 {
			status, _, _, err := get(t, r, "/teapot")
			if err != nil {
				t.Fatal(err)
			}
			if status == 500 {
				out.WriteByte('x')
			} else {
				out.WriteByte('.')
			}
		}
		return out.String()
	}
	one, again, other := sequence(7), sequence(7), sequence(8)
	if one != again {
		t.Errorf("the same seed gave\n%s\n%s", one, again)
	}
	if one == other {
		t.Error("another seed gave the same")
	}
	if n := strings.Count(one, "x"); n < 40 || n > 80 {
		t.Errorf("%d of 200 for a share of 30 %%", n)
	}
	hits := 0
	for n := range uint64(100_000) {
		if draw(7, n) < 0.3 {
			hits++
		}
	}
	if hits < 29_500 || hits > 30_500 {
		t.Errorf("%d of 100000 draws below 0.3", hits)
	}
}

// What a server sends bit by bit arrives bit by bit.
func TestEndlessBodiesArriveAsTheyAreSent(t *testing.T) {
	next := make(chan string)
	r := front(t, media.Layout{}, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for text := range next {
			_, _ = io.WriteString(w, text)
			w.(http.Flusher).Flush()
		}
	}))
	go func() { next <- "one\n" }()
	resp, err := alone.Get("http://" + r.Addr() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n"} {
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if want == "one\n" {
			next <- "two\n" // only after the first has been read
		}
	}
	close(next)
}

// A body that began during a fault is whole again from the moment at which the fault is taken away.
func TestLongBodiesAreLetGo(t *testing.T) {
	for _, a := range []Action{{Kind: Corrupt, Each: 1}, {Kind: Reset, After: 6}, {Kind: Truncate, After: 6}, {Kind: Stall, After: 6}, {Kind: Throttle, Rate: 1e6}} {
		t.Run(a.Kind, func(t *testing.T) {
			next := make(chan string)
			r := front(t, media.Layout{}, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for text := range next {
					_, _ = io.WriteString(w, text)
					w.(http.Flusher).Flush()
				}
			}))
			set(t, r, Rule{Name: a.Kind, Share: 1, Action: a})
			go func() { next <- "one\n" }()
			resp, err := alone.Get("http://" + r.Addr() + "/events")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			first := make([]byte, len("one\n"))
			if _, err := io.ReadFull(lines, first); err != nil {
				t.Fatal(err)
			}
			if spoiled := string(first) != "one\n"; spoiled != (a.Kind == Corrupt) {
				t.Errorf("%q during the fault", first)
			}
			r.Clear()
			next <- "two\n"
			close(next)
			if rest, err := io.ReadAll(lines); string(rest) != "two\n" || err != nil {
				t.Errorf("%q, %v after it", rest, err)
			}
		})
	}
}

func TestUpgradesPass(t *testing.T) {
	r := front(t, media.Layout{}, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, strings.ToUpper(line))
		rw.Flush()
	}))
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprint(c, "hello\n")
	if got, err := in.ReadString('\n'); got != "HELLO\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRulesTakeWhatTheyAreAbout(t *testing.T) {
	r := front(t, media.Reference(2*time.Second), nil, http.HandlerFunc(server))
	status := func(code int) Action { return Action{Kind: Status, Status: code} }
	set(t, r,
		Rule{Name: "puts", Methods: []string{"PUT"}, Share: 1, Action: status(507)},
		Rule{Name: "playlists", Path: regexp.MustCompile(`\.m3u8$`), Share: 1, Action: status(502)},
		Rule{Name: "rung", Media: &media.Selector{Rung: "720p", Whole: true}, Share: 1, Action: status(404)},
		Rule{Name: "third", Media: &media.Selector{Rung: "v360", Every: 3}, Share: 1, Action: status(410)},
	)
	if err := r.Add("other", []Rule{{Name: "audio", Media: &media.Selector{Track: media.Audio}, Share: 1, Action: status(503)}}); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]int) {
		t.Helper()
		for path, code := range want {
			if got, _, _, err := get(t, r, path); got != code || err != nil {
				t.Errorf("%s: %d, want %d, %v", path, got, code, err)
			}
		}
	}
	check(map[string]int{
		"/": 200, "/e/v720/9.m4s": 404, "/e/v720/init.mp4": 404, "/e/v360/9.m4s": 410, "/e/v360/10.m4s": 200, "/e/v360/init.mp4": 200,
		"/e/v360/media.m3u8": 502, "/e/a-en/1.m4s": 503, "/e/a-en/init.mp4": 200, "/t/token/e/v360/9.m4s?x=1": 410,
	})
	req, err := http.NewRequest("PUT", "http://"+r.Addr()+"/e/v540/9.m4s", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := alone.Do(req); err != nil || resp.StatusCode != 507 {
		t.Errorf("PUT: %v, %v", resp, err)
	}
	r.Remove("other")
	check(map[string]int{"/e/a-en/1.m4s": 200, "/e/v360/9.m4s": 410})
	r.Clear()
	check(map[string]int{"/e/v720/9.m4s": 200, "/e/v360/9.m4s": 200})
}

func TestRulesAreChecked(t *testing.T) {
	r := front(t, media.Layout{}, nil, http.HandlerFunc(server))
	bad := []Rule{
		{Action: Action{Kind: Status, Status: 200}},
		{Share: 1.1, Action: Action{Kind: Reset}},
		{Share: 1, Action: Action{Kind: Status, Status: 99}},
		{Share: 1, Action: Action{Kind: Latency}},
		{Share: 1, Action: Action{Kind: Latency, Delay: time.Second, Jitter: 2 * time.Second}},
		{Share: 1, Action: Action{Kind: Throttle}},
		{Share: 1, Action: Action{Kind: "explode"}},
		{Share: 1, Action: Action{Kind: Truncate, After: -1}},
		{Share: 1, Action: Action{Kind: Segment, Defect: media.Defect{Kind: media.Short}}},
		{Share: 1, Media: &media.Selector{Every: 2, Phase: 5}, Action: Action{Kind: Reset}},
	}
	for _, rule := range bad {
		if err := r.Add("", []Rule{rule}); err == nil {
			t.Errorf("%+v is taken", rule)
		}
	}
	many := make([]Rule, maxRules+1)
	for i := range many {
		many[i] = Rule{Share: 1, Action: Action{Kind: Reset}}
	}
	if err := r.Add("", many); err == nil {
		t.Error("too many rules are taken")
	}
	if len(r.Counts().Rules) != 0 {
		t.Errorf("%+v", r.Counts())
	}
}

// A server that is gone looks gone, and one that is back looks back.
func TestDeadServerLooksDead(t *testing.T) {
	t.Run("here", func(t *testing.T) { looksDead(t, nil) })
	t.Run("elsewhere", func(t *testing.T) { looksDead(t, func(open func() error) error { return open() }) })
}

func looksDead(t *testing.T, in func(open func() error) error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	live := &http.Server{Handler: http.HandlerFunc(server)}
	go live.Serve(ln)
	r := start(t, Config{Upstream: addr, Now: time.Now, In: in})
	if status, _, _, err := get(t, r, "/none"); status != 204 || err != nil {
		t.Fatal(status, err)
	}
	live.Close()
	until := func(what string, ok func(status int, err error) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; {
			status, _, _, err := get(t, r, "/none")
			if ok(status, err) {
				return
			}
			if status >= 500 {
				t.Fatalf("the relay answers %d in a dead server's place", status)
			}
			if time.Now().After(deadline) {
				t.Fatalf("never %s: %d, %v", what, status, err)
			}
		}
	}
	until("refused", func(_ int, err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	live = &http.Server{Handler: http.HandlerFunc(server)}
	go live.Serve(ln)
	defer live.Close()
	until("back", func(status int, err error) bool { return status == 204 && err == nil })
}

func TestClientsBeyondTheBoundWait(t *testing.T) {
	release := make(chan struct{})
	var inside, most atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := inside.Add(1)
		defer inside.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-release
	}))
	defer up.Close()
	r, err := Listen(Config{Listen: "127.0.0.1:0", Upstream: up.Listener.Addr().String(), Now: time.Now, MaxConns: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if status, _, _, err := get(t, r, "/"); status != 200 || err != nil {
				t.Errorf("%d, %v", status, err)
			}
		})
	}
	for deadline := time.Now().Add(5 * time.Second); inside.Load() < 3; {
		if time.Now().After(deadline) {
			t.Fatal("three never got in")
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d at once", most.Load())
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// stage serves reference segments as an edge does.
func stage(t testing.TB) http.Handler {
	t.Helper()
	l, err := encoder.Load("sports")
	if err != nil {
		t.Fatal(err)
	}
	layout := media.Reference(2 * time.Second)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref, ok := layout.Find(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		var out []byte
		for _, rendition := range l.Renditions() {
			if rendition.ID == ref.Rung && ref.Kind == media.Init {
				codec, _ := l.Codec(ref.Rung)
				out, _ = packager.Init(rendition, codec)
			}
		}
		if ref.Kind == media.Segment {
			for _, track := range l.Segment(ref.Number).Tracks {
				if track.Rendition.ID == ref.Rung {
					out, _ = packager.Media(track, ref.Number, false)
				}
			}
		}
		if out == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "video/mp4")
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(out))
	})
}

func TestSegmentsAreSpoiledOnTheWay(t *testing.T) {
	const n = 882_000_003
	r := front(t, media.Reference(2*time.Second), func() time.Time { return time.Unix(2*(n+1), 0) }, stage(t))
	path := func(rung string, n uint64) string { return fmt.Sprintf("/e/%s/%d.m4s", rung, n) }
	header := func(rung string) media.Header {
		_, raw, _, err := get(t, r, "/e/"+rung+"/init.mp4")
		if err != nil {
			t.Fatal(err)
		}
		h, err := media.ParseHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := header("v360")
	look := func(rung string, n uint64) (media.TrackReport, []byte) {
		t.Helper()
		status, raw, head, err := get(t, r, path(rung, n))
		if status != 200 || err != nil || head.Get("Content-Type") != "video/mp4" {
			t.Fatalf("%d, %v, %v", status, head, err)
		}
		report, err := media.Inspect(raw, h)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := report.Pictures()
		return p, raw
	}
	healthy, whole := look("v360", n)
	earlier, _ := look("v360", n-1)
	other, _ := look("v540", n)
	spoil := func(d media.Defect, s media.Selector) {
		t.Helper()
		set(t, r, Rule{Name: d.Kind, Share: 1, Media: &s, Action: Action{Kind: Segment, Defect: d}})
	}
	third := media.Selector{Rung: "360p", Every: 3, Live: []int{0}}

	spoil(media.Defect{Kind: media.Short, Keep: 0.5}, third)
	if s, _ := look("v360", n); s.Duration != time.Second {
		t.Errorf("short: %+v", s)
	}
	if s, _ := look("v540", n); s.Media != other.Media {
		t.Error("another rung was hit")
	}
	if s, _ := look("v360", n-1); s.Media != earlier.Media {
		t.Error("another number was hit")
	}
	if s, _ := look("v360", n-3); s.Duration != 2*time.Second {
		t.Error("another position was hit")
	}
	spoil(media.Defect{Kind: media.Frozen}, third)
	if s, _ := look("v360", n); s.Media != earlier.Media || s.Start != healthy.Start {
		t.Errorf("frozen: %+v", s)
	}
	spoil(media.Defect{Kind: media.WrongTime, Shift: time.Minute}, third)
	if s, _ := look("v360", n); s.Start != healthy.Start+time.Minute {
		t.Errorf("wrong timestamp: %+v", s)
	}
	spoil(media.Defect{Kind: media.Corrupt, Share: 0.5}, third)
	if s, _ := look("v360", n); len(s.Faults) == 0 {
		t.Errorf("corrupt: %+v", s)
	}
	_, spoiled := look("v360", n)

	// A range of a spoiled segment is a range of the spoiled bytes, and nobody is told that nothing has changed.
	req, _ := http.NewRequest("GET", "http://"+r.Addr()+path("v360", n), nil)
	req.Header.Set("Range", "bytes=1000-1999")
	req.Header.Set("If-None-Match", `"x"`)
	resp, err := alone.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	part, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 206 || !bytes.Equal(part, spoiled[1000:2000]) || resp.Header.Get("Etag") != "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s, %d bytes, %v, %v", resp.Status, len(part), resp.Header, err)
	}
	resp, err = alone.Head("http://" + r.Addr() + path("v360", n))
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != int64(len(spoiled)) {
		t.Errorf("HEAD: %v, %v", resp, err)
	}

	spoil(media.Defect{Kind: media.Missing}, third)
	if status, _, _, err := get(t, r, path("v360", n)); status != 404 || err != nil {
		t.Errorf("missing: %d, %v", status, err)
	}
	spoil(media.Defect{Kind: media.Late, Delay: 150 * time.Millisecond}, third)
	began := time.Now()
	if s, _ := look("v360", n); s.Media != healthy.Media || time.Since(began) < 150*time.Millisecond {
		t.Errorf("late by %v: %+v", time.Since(began), s)
	}
	r.Clear()
	if _, again := look("v360", n); !bytes.Equal(again, whole) {
		t.Error("not the same after the fault")
	}
}

// Viewers whose paths carry tokens of their own watch the same stream: the same pictures stand still for all of them, and what is
// needed for that is fetched once.
func TestViewersWithTokensShareAStream(t *testing.T) {
	const n = 882_000_003
	var mu sync.Mutex
	asked := map[string]int{}
	origin := stage(t)
	r := front(t, media.Reference(2*time.Second), func() time.Time { return time.Unix(2*(n+1), 0) }, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Path
		if rest, ok := strings.CutPrefix(path, "/t/"); ok {
			_, path, _ = strings.Cut(rest, "/")
			path = "/" + path
		}
		mu.Lock()
		asked[path]++
		mu.Unlock()
		req.URL.Path = path
		origin.ServeHTTP(w, req)
	}))
	get := func(viewer int, name string) []byte {
		t.Helper()
		status, raw, _, err := get(t, r, fmt.Sprintf("/t/viewer-%d/e/v360/%s", viewer, name))
		if status != 200 || err != nil {
			t.Fatal(status, err)
		}
		return raw
	}
	h, err := media.ParseHeader(get(0, "init.mp4"))
	if err != nil {
		t.Fatal(err)
	}
	pictures := func(viewer int, number uint64) [32]byte {
		t.Helper()
		report, err := media.Inspect(get(viewer, fmt.Sprintf("%d.m4s", number)), h)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := report.Pictures()
		return p.Media
	}
	still := pictures(0, n-1)
	mu.Lock()
	clear(asked)
	mu.Unlock()
	set(t, r, Rule{Name: "frozen", Share: 1, Media: &media.Selector{Rung: "v360"}, Action: Action{Kind: Segment, Defect: media.Defect{Kind: media.Frozen}}})
	if pictures(0, n) != still {
		t.Error("not frozen")
	}
	for viewer := range maxStreams + 2 { // more viewers than streams are kept
		if pictures(viewer, n+1) != still {
			t.Fatalf("viewer %d sees other pictures than the first", viewer)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if asked["/e/v360/init.mp4"] != 1 || asked[fmt.Sprintf("/e/v360/%d.m4s", n-1)] != 1 {
		t.Errorf("%v", asked)
	}
}

// Where the segment that was to be shown is gone, the fault begins with the next one.
func TestFrozenBeginsWhereItCan(t *testing.T) {
	const n = 882_000_003
	origin := stage(t)
	r := front(t, media.Reference(2*time.Second), func() time.Time { return time.Unix(2*(n+1), 0) }, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, fmt.Sprintf("/%d.m4s", n-8)) {
			http.Error(w, "gone", http.StatusGone)
			return
		}
		origin.ServeHTTP(w, req)
	}))
	set(t, r, Rule{Name: "frozen", Share: 1, Media: &media.Selector{Rung: "v360"}, Action: Action{Kind: Segment, Defect: media.Defect{Kind: media.Frozen}}})
	for _, number := range []int{n - 7, n, n + 1} {
		if status, _, _, err := get(t, r, fmt.Sprintf("/e/v360/%d.m4s", number)); status != 200 || err != nil {
			t.Fatal(status, err)
		}
	}
	if c := r.Counts().Rules[0]; c.Applied != 2 || c.Failed != 1 {
		t.Errorf("%+v", c)
	}
}

// No more segments are in hand at once than there is room for; who waits goes on when there is, or leaves when they have to.
func TestSegmentsInHandAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, gone := newHands(), make(chan struct{})
		all, err := h.take(t.Context(), gone, 10*maxHeld*handful) // more than there is
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.take(ctx, gone, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has left: %v", err)
		}
		got := false
		go func() {
			three, err := h.take(t.Context(), gone, 3*handful)
			if err != nil {
				t.Error(err)
				return
			}
			got = true
			three.give(0)
		}()
		all.give((maxHeld - 2) * handful) // room for two of three
		if synctest.Wait(); got {
			t.Error("it did not wait")
		}
		all.give(0)
		if synctest.Wait(); !got || len(h.full) != 0 || len(h.turn) != 0 {
			t.Errorf("%v, %d are held still", got, len(h.full))
		}
	})
}

// A crowd for whose segments there is no room waits; when the fault is over it gets them as they are.
func TestWhoWaitsForRoomIsLetGo(t *testing.T) {
	const n = 882_000_003
	r := front(t, media.Reference(2*time.Second), func() time.Time { return time.Unix(2*(n+1), 0) }, stage(t))
	path := fmt.Sprintf("/e/v360/%d.m4s", n)
	_, whole, _, err := get(t, r, path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.hands.take(t.Context(), nil, maxHeld*handful)
	if err != nil {
		t.Fatal(err)
	}
	set(t, r, Rule{Name: "short", Share: 1, Action: Action{Kind: Segment, Defect: media.Defect{Kind: media.Short, Keep: 0.5}}})
	answered := make(chan []byte, 1)
	go func() {
		_, got, _, _ := get(t, r, path)
		answered <- got
	}()
	for deadline := time.Now().Add(5 * time.Second); len(r.hands.turn) == 0; { // it has its turn, and waits
		if time.Now().After(deadline) {
			t.Fatal("it does not wait")
		}
		time.Sleep(time.Millisecond)
	}
	r.Clear()
	if got := <-answered; !bytes.Equal(got, whole) {
		t.Errorf("%d bytes of %d", len(got), len(whole))
	}
	all.give(0)
}

// unanswering is a server that listens and takes no more connections.
func unanswering(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0))
	name, nameErr := unix.Getsockname(fd)
	if err = errors.Join(err, nameErr); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 16 { // until nobody gets in any more
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it takes every connection")
	return ""
}

// Who else opens sockets where the relay stands does not wait for a server that does not answer.
func TestDialingKeepsNobodyWaiting(t *testing.T) {
	addr := unanswering(t)
	var thread sync.Mutex
	turns := make(chan struct{}, 16)
	in := func(open func() error) error {
		thread.Lock()
		defer thread.Unlock()
		turns <- struct{}{}
		return open()
	}
	r, err := Listen(Config{Listen: "127.0.0.1:0", Upstream: addr, In: in, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	<-turns
	ctx, cancel := context.WithCancel(t.Context())
	dialed := make(chan error, 1)
	go func() {
		_, err := r.dial(ctx, "tcp", addr)
		dialed <- err
	}()
	<-turns
	other := make(chan error, 1)
	go func() { other <- in(func() error { return nil }) }()
	select {
	case <-other:
	case <-time.After(dialTimeout / 2):
		t.Error("somebody else waits for the server")
	}
	select {
	case err := <-dialed:
		t.Errorf("connected: %v", err)
	default:
	}
	cancel()
	if err := <-dialed; !errors.Is(err, context.Canceled) {
		t.Errorf("%v when it was to give up", err)
	}
}

// A segment that cannot be spoiled passes, and is counted.
func TestWhatCannotBeSpoiledPasses(t *testing.T) {
	layout, err := media.Template("/x/%d.ts")
	if err != nil {
		t.Fatal(err)
	}
	r := front(t, layout, nil, http.HandlerFunc(server))
	set(t, r, Rule{Name: "short", Share: 1, Action: Action{Kind: Segment, Defect: media.Defect{Kind: media.Short, Keep: 0.5}}})
	if status, got, _, err := get(t, r, "/x/1.ts"); status != 200 || !bytes.Equal(got, body) || err != nil {
		t.Errorf("%d, %d bytes, %v", status, len(got), err)
	}
	if c := r.Counts().Rules[0]; c.Matched != 1 || c.Applied != 0 || c.Failed != 1 || !strings.Contains(c.Failure, "neither fragmented MP4") {
		t.Errorf("%+v", c)
	}
}

// Where numbers do not follow the clock, the newest segment served is the live edge.
func TestLiveEdgeWithoutAClock(t *testing.T) {
	layout, err := media.Template("/x/%d.ts")
	if err != nil {
		t.Fatal(err)
	}
	r := front(t, layout, nil, http.HandlerFunc(server))
	for n := range 11 {
		if _, _, _, err := get(t, r, fmt.Sprintf("/x/%d.ts", n)); err != nil {
			t.Fatal(err)
		}
	}
	set(t, r, Rule{Name: "two back", Share: 1, Media: &media.Selector{Live: []int{-2}}, Action: Action{Kind: Status, Status: 404}})
	for n, want := range map[int]int{7: 200, 8: 404, 9: 200, 10: 200} {
		if status, _, _, err := get(t, r, fmt.Sprintf("/x/%d.ts", n)); status != want || err != nil {
			t.Errorf("segment %d of 10: %d, %v", n, status, err)
		}
	}
}

func BenchmarkPassThrough(b *testing.B) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body[:16<<10]) }))
	defer up.Close()
	r := relay(b, media.Reference(2*time.Second), nil, up.Listener.Addr().String())
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	for name, addr := range map[string]string{"direct": up.Listener.Addr().String(), "relay": r.Addr()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				resp, err := client.Get("http://" + addr + "/e/v360/1.m4s")
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
