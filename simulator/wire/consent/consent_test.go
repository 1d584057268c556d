package consent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// stranger is a server that stands for one elsewhere: it is on loopback, but the checker of these tests owns nothing.
type stranger struct {
	*httptest.Server
	url   *url.URL
	serve atomic.Pointer[http.HandlerFunc]
	asked atomic.Int32
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	s.url, _ = url.Parse(s.URL)
	s.says("", http.StatusNotFound)
	return s
}

func (s *stranger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	(*s.serve.Load())(w, r)
}

func (s *stranger) does(h http.HandlerFunc) { s.serve.Store(&h) }

// says serves a text at Path.
func (s *stranger) says(text string, status int) {
	s.does(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != Path || r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	})
}

// suspicious is a checker that owns no address and is quick.
func suspicious() *checker {
	c := standard()
	c.own = func(netip.Addr) bool { return false }
	c.every, c.pause = 10*time.Millisecond, 10*time.Millisecond
	return c
}

// impatient is suspicious, and waits for nobody.
func impatient() *checker {
	c := suspicious()
	c.timeout = 300 * time.Millisecond
	return c
}

func token(t *testing.T, u *url.URL) Token {
	t.Helper()
	tok, err := NewToken(u, time.Now(), DefaultLife)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestLoopbackPassesAndNothingElseDoes(t *testing.T) {
	c := standard()
	c.dial = func(_ context.Context, _, address string) (net.Conn, error) {
		t.Errorf("%s was contacted", address)
		return nil, errors.New("no")
	}
	c.resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		return map[string][]netip.Addr{"localhost": {netip.MustParseAddr("127.0.0.1")}, "inside": {netip.MustParseAddr("10.1.2.3")},
			"zero": {netip.MustParseAddr("0.0.0.0")}, "many": {netip.MustParseAddr("239.1.1.1")}, "none": {}}[host], nil
	}
	for target, want := range map[string]string{
		"http://127.0.0.1:9/x": "", "http://127.9.8.7:9": "", "https://[::1]:9": "", "http://localhost:9": "", "http://[::ffff:127.0.0.1]:9": "",
		"http://10.0.0.1": "agrees", "http://172.16.0.1:80": "agrees", "http://192.168.1.1": "agrees", "http://169.254.169.254": "agrees", "http://[fd00::1]": "agrees",
		"http://[fe80::1]": "agrees", "http://192.0.2.1": "agrees", "http://8.8.8.8": "agrees", "http://inside": "agrees", "http://[::ffff:10.0.0.1]": "agrees",
		"http://0.0.0.0:9": "no address of a machine", "http://[::]:9": "no address", "http://224.0.0.1": "no address", "http://255.255.255.255": "no address",
		"http://zero": "no address of a machine", "http://many": "no address", "http://none": "the name has no address",
		"http://[fe80::1%25eth0]": "no host and port", "http://127.0.0.1:0": "no host and port", "ftp://127.0.0.1": "want an http or https URL", "http://": "no host and port", "http://a b": "",
	} {
		u, err := url.Parse(target)
		if err != nil {
			continue
		}
		p, err := c.check(t.Context(), u, Given{Tokens: "", As: "in the scenario as target.consent"})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s is refused: %v", target, err)
		case want == "" && !p.Addr().Addr().IsLoopback():
			t.Errorf("%s leads to %v", target, p.Addr())
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want one with %q", target, err, want)
		case want == "agrees" && !errors.Is(err, ErrNoConsent):
			t.Errorf("%s: %v is not ErrNoConsent", target, err)
		}
	}
}

func TestATargetThatServesItsTokenAgrees(t *testing.T) {
	s := newStranger(t)
	mine, other := token(t, s.url), token(t, s.url)
	s.says("# We agree to a rehearsal on Thursday.\r\n\r\n"+other.String()+"\r\n"+mine.String()+"\r\n", 200)
	elsewhere := token(t, parse(t, "https://example.com"))
	for _, tokens := range []string{mine.String(), elsewhere.String() + ", " + mine.String() + "\n"} {
		p, err := suspicious().check(t.Context(), s.url, Given{Tokens: tokens, As: "in the scenario as target.consent"})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Addr().String(); got != s.url.Host || p.Host() != s.url.Host {
			t.Errorf("pinned %s, host %s, want %s", got, p.Host(), s.url.Host)
		}
		if !p.Allowed(p.Addr()) || p.Allowed(netip.AddrPortFrom(p.Addr().Addr(), p.Addr().Port()+1)) || p.Allowed(netip.MustParseAddrPort("10.0.0.1:80")) {
			t.Error("something else than the target is allowed")
		}
	}
}

func TestHTTPSIsVerified(t *testing.T) {
	s := &stranger{}
	s.Server = httptest.NewTLSServer(s)
	defer s.Close()
	s.url, _ = url.Parse(s.URL)
	s.url.Host = "example.com:" + s.url.Port() // a name that the certificate has
	tok := token(t, s.url)
	s.says(tok.String(), 200)
	c := suspicious()
	c.resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	if _, err := c.check(t.Context(), s.url, Given{Tokens: tok.String(), As: "in the scenario as target.consent"}); !errors.Is(err, ErrNoConsent) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody's: %v", err)
	}
	c.roots = x509.NewCertPool()
	c.roots.AddCert(s.Certificate())
	if _, err := c.check(t.Context(), s.url, Given{Tokens: tok.String(), As: "in the scenario as target.consent"}); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	s := newStranger(t)
	tok := token(t, s.url)
	past, err := NewToken(s.url, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	long := tok
	long.Expires = time.Now().Add(365 * 24 * time.Hour).UTC().Truncate(time.Second)
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, tok.String()) }))
	defer good.Close()
	endless := func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat("# nothing to see\n", 1000))
		for r.Context().Err() == nil {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("#"))
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	garbage := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = c.Write([]byte("\x00\xff nonsense\r\n\r\n"))
			c.Close()
		}
	}
	text := func(s string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, s)
		}
	}
	for _, tc := range []struct {
		name, tokens string
		serve        http.HandlerFunc
		want         string
		asked        bool
		slow         bool
	}{
		{"no token in the scenario", "", text(tok.String(), 200), "no token is given", false, false},
		{"a token of another host", token(t, parse(t, "http://example.com:81")).String(), text(tok.String(), 200), "the token that is given is for example.com:81", false, false},
		{"a token of another port", token(t, parse(t, "http://127.0.0.1:81")).String(), text(tok.String(), 200), "the token that is given is for 127.0.0.1:81", false, false},
		{"no token at all", "let me in", text("let me in", 200), "no token of tminus consent", false, false},
		{"an expired token", past.String(), text(past.String(), 200), "expired at", false, false},
		{"a token for a year", long.String(), text(long.String(), 200), "longer than 31 days", false, false},
		{"nothing there", tok.String(), text("", 404), "404 Not Found", true, false},
		{"the token under another status", tok.String(), text(tok.String(), 201), "201 Created", true, false},
		{"another token", tok.String(), text(token(t, s.url).String(), 200), "another token", true, false},
		{"an empty file", tok.String(), text("# not yet\n", 200), "no token", true, false},
		{"a page for everything", tok.String(), text("<html>"+tok.String(), 200), "a line that is no token", true, false},
		{"a redirect to who would agree", tok.String(), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, good.URL+Path, http.StatusFound) }, "redirects are not followed", true, false},
		{"an endless body", tok.String(), endless, "larger than 4 KiB", true, false},
		{"a byte now and then", tok.String(), drip, "cannot use the file", true, true},
		{"no answer", tok.String(), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "does not answer", true, true},
		{"no HTTP", tok.String(), garbage, "does not answer", true, false},
		{"an error", tok.String(), text(tok.String(), 503), "503", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.does(tc.serve)
			s.asked.Store(0)
			began := time.Now()
			c := suspicious()
			if tc.slow {
				c = impatient()
			}
			_, err := c.check(t.Context(), s.url, Given{Tokens: tc.tokens, As: "in the scenario as target.consent"})
			if !errors.Is(err, ErrNoConsent) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want one with %q", err, tc.want)
			}
			if !strings.Contains(err.Error(), "run \"tminus consent ") || !strings.HasSuffix(err.Error(), ", and give it in the scenario as target.consent") || !strings.Contains(err.Error(), Path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is no sentence that says what to do: %v", err)
			}
			if (s.asked.Load() > 0) != tc.asked {
				t.Errorf("asked %d times", s.asked.Load())
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A name server that changes its mind changes nothing: all connections go to the address that was checked.
func TestTheCheckedAddressIsPinned(t *testing.T) {
	s := newStranger(t)
	named := parse(t, "http://event.example:"+s.url.Port()+"/live.mpd")
	tok := token(t, named)
	s.says(tok.String(), 200)
	c := suspicious()
	var asked atomic.Int32
	c.resolve = func(context.Context, string) ([]netip.Addr, error) {
		if asked.Add(1) > 1 {
			return []netip.Addr{netip.MustParseAddr("10.66.66.66")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	p, err := c.check(t.Context(), named, Given{Tokens: tok.String(), As: "in the scenario as target.consent"})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{"event.example:" + s.url.Port(), "EVENT.example.:" + s.url.Port(), s.url.Host} {
		if ap, ok := p.Pinned(again); !ok || ap != p.Addr() {
			t.Errorf("%s leads to %v, %v", again, ap, ok)
		}
		conn, err := Permits{p}.DialContext(t.Context(), "tcp", again)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.RemoteAddr().String(); got != s.url.Host {
			t.Errorf("%s was dialled at %s", again, got)
		}
		conn.Close()
	}
	for _, other := range []string{"event.example:1", "other.example:" + s.url.Port(), "10.66.66.66:" + s.url.Port(), "nonsense"} {
		if ap, ok := p.Pinned(other); ok {
			t.Errorf("%s leads to %v", other, ap)
		}
	}
	// The rechecks go there, too, and resolve nothing.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	before := s.asked.Load()
	go func() { ended <- p.Run(ctx) }()
	until(t, func() bool { return s.asked.Load() > before+3 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the name was resolved %d times", n)
	}
}

// Of a name with several addresses, the first that answers is pinned; one that says no ends it.
func TestSeveralAddresses(t *testing.T) {
	s := newStranger(t)
	named := parse(t, "http://event.example:"+s.url.Port())
	tok := token(t, named)
	s.says(tok.String(), 200)
	c := suspicious()
	c.resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("127.0.0.1")}, nil // nobody listens at the first
	}
	p, err := c.check(t.Context(), named, Given{Tokens: tok.String(), As: "in the scenario as target.consent"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Addr().String() != s.url.Host {
		t.Errorf("pinned %v", p.Addr())
	}
}

func until(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come")
		}
	}
}

func TestWithdrawnConsentEndsTheLoad(t *testing.T) {
	for name, withdraw := range map[string]func(s *stranger){
		"gone":          func(s *stranger) { s.says("", 404) },
		"another token": func(s *stranger) { s.says(token(t, s.url).String(), 200) },
		"errors":        func(s *stranger) { s.says("", 500) },
		"no answer":     func(s *stranger) { s.does(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) },
		"server down":   func(s *stranger) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStranger(t)
			tok := token(t, s.url)
			s.says(tok.String(), 200)
			p, err := suspicious().check(t.Context(), s.url, Given{Tokens: tok.String(), As: "in the scenario as target.consent"})
			if err != nil {
				t.Fatal(err)
			}
			if name == "no answer" {
				p.c.timeout = 300 * time.Millisecond
			}
			own := &Permit{own: true}
			ended := make(chan error, 1)
			go func() { ended <- Permits{own, p}.Run(t.Context()) }()
			until(t, func() bool { return s.asked.Load() > 3 })
			began := time.Now()
			withdraw(s)
			select {
			case err = <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("the load goes on")
			}
			if !errors.Is(err, ErrNoConsent) || !strings.Contains(err.Error(), s.url.Host) {
				t.Errorf("ended with %v", err)
			}
			t.Logf("ended after %v: %v", time.Since(began).Round(time.Millisecond), err)
			if _, ok := p.Pinned(s.url.Host); ok || p.Allowed(p.Addr()) {
				t.Error("the target may still be loaded")
			}
		})
	}
}

func TestATokenThatExpiresEndsTheLoad(t *testing.T) {
	s := newStranger(t)
	c := suspicious()
	c.every = time.Hour
	var shift atomic.Int64
	c.now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	tok, err := NewToken(s.url, c.now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	s.says(tok.String(), 200)
	p, err := c.check(t.Context(), s.url, Given{Tokens: tok.String(), As: "in the scenario as target.consent"})
	if err != nil {
		t.Fatal(err)
	}
	shift.Store(int64(time.Until(tok.Expires) - 50*time.Millisecond))
	if err := p.Run(t.Context()); !errors.Is(err, ErrNoConsent) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("ended with %v", err)
	}
}

// One look that is not answered, as happens under load, is repeated before it counts.
func TestOneLostLookIsForgiven(t *testing.T) {
	s := newStranger(t)
	tok := token(t, s.url)
	s.says(tok.String(), 200)
	p, err := suspicious().check(t.Context(), s.url, Given{Tokens: tok.String(), As: "in the scenario as target.consent"})
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	s.does(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, tok.String())
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	until(t, func() bool { return n.Load() > 6 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPermitsReachNothingElse(t *testing.T) {
	var none Permits
	for address, ok := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:80": false, "[::ffff:10.0.0.1]:80": false, "192.0.2.1:80": false, "0.0.0.0:80": false} {
		ap := netip.MustParseAddrPort(address)
		if none.Allowed(ap) != ok || (none.Permit(t.Context(), ap) == nil) != ok {
			t.Errorf("%s: allowed %v", address, !ok)
		}
		if !ok {
			if _, err := none.DialContext(t.Context(), "tcp", address); !errors.Is(err, ErrNoConsent) && !strings.HasPrefix(address, "0.") {
				t.Errorf("dialling %s: %v", address, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := none.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestTokens(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 999, time.FixedZone("", 3600))
	for text, host := range map[string]string{
		"example.com": "example.com:443", "example.com:8443": "example.com:8443", "EXAMPLE.com.": "example.com:443", "http://example.com/live/x.mpd?a=b": "example.com:80",
		"https://example.com": "example.com:443", "10.0.0.1": "10.0.0.1:443", "10.0.0.1:80": "10.0.0.1:80", "[fd00::1]:81": "[fd00::1]:81", "fd00::1": "[fd00::1]:443", "http://[fd00:0::1]": "[fd00::1]:80",
	} {
		u, err := ParseTarget(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		tok, err := NewToken(u, now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if tok.Host != host || !strings.HasPrefix(tok.String(), "tminus/v1/"+host+"/2026-11-21T12:00:00Z/") {
			t.Errorf("%s: %s", text, tok)
		}
		if again, err := ParseToken(tok.String()); err != nil || again != tok {
			t.Errorf("%s reads as %v, %v", tok, again, err)
		}
	}
	for _, text := range []string{"", ":80", "a b", "ftp://example.com", "http://", "example.com:0", "example.com:70000", "http://exa\nmple.com", "[fe80::1%25lo]:80"} {
		if u, err := ParseTarget(text); err == nil {
			t.Errorf("%q is read as %v", text, u)
		}
	}
	u := parse(t, "http://example.com")
	for _, life := range []time.Duration{0, -time.Hour, MaxLife + 1} {
		if _, err := NewToken(u, now, life); err == nil {
			t.Errorf("no error for a token of %v", life)
		}
	}
	a, _ := NewToken(u, now, time.Hour)
	if b, _ := NewToken(u, now, time.Hour); a == b {
		t.Error("two tokens are the same")
	}
}

func TestLimits(t *testing.T) {
	if err := (Limits{}).Validate(); err != nil {
		t.Error(err)
	}
	if err := (Limits{MaxRate: -1, MaxDuration: 25 * time.Hour}).Validate(); err == nil || !strings.Contains(err.Error(), "-1 play starts") || !strings.Contains(err.Error(), "25h") {
		t.Errorf("error %v", err)
	}
	l := Limits{MaxRate: 500, MaxDuration: time.Minute}
	if err := l.Allow(500, time.Minute); err != nil {
		t.Error(err)
	}
	if err := l.Allow(501, time.Minute+1); err == nil || !strings.Contains(err.Error(), "501 play starts") || !strings.Contains(err.Error(), "lasts") {
		t.Errorf("error %v", err)
	}
	if (Limits{}).Allow(2e6, time.Hour) == nil || (Limits{}).Allow(1, 25*time.Hour) == nil {
		t.Error("no ceiling without limits")
	}
}

func TestUserAgent(t *testing.T) {
	if got := UserAgent("", ""); got != "tminus/unknown" {
		t.Error(got)
	}
	if got := UserAgent("v0.3.0 abcdef", "20261122-1946-title-fight"); got != "tminus/v0.3.0 (run 20261122-1946-title-fight)" {
		t.Error(got)
	}
	if got := UserAgent("v1", "a\r\nHost: b"); got != "tminus/v1 (run a--Host:-b)" {
		t.Error(got)
	}
}

// A file from a stranger is read or refused; what it was read as serves the same tokens again.
func FuzzReadFile(f *testing.F) {
	u, _ := url.Parse("http://example.com:81")
	tok, err := NewToken(u, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", tok.String(), "# hello\n\n" + tok.String() + "\r\n", strings.Repeat("#\n", 3000), "tminus/v1/a:1/2026-11-21T12:00:00Z/00000000000000000000000000000000", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tokens, err := readFile(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, tok := range tokens {
			fmt.Fprintln(&again, tok)
		}
		twice, err := readFile(strings.NewReader(again.String()))
		if err != nil || len(twice) != len(tokens) {
			t.Fatalf("%v, then %v: %v", tokens, twice, err)
		}
	})
}
