package consent

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Path is where a target serves its consent.
const Path = "/.well-known/tminus-consent.txt"

// Bounds on tokens and on the file that holds them.
const (
	DefaultLife = 7 * 24 * time.Hour
	MaxLife     = 31 * 24 * time.Hour
	maxFile     = 4 << 10
	maxTokens   = 16
)

// Token is a target's consent: whoever serves it at Path agrees to be loaded until it expires.
type Token struct {
	Host    string // host:port, as canonical as in String
	Expires time.Time
	nonce   [16]byte // makes it unguessable, so that only who was given it can serve it
}

// NewToken makes a token for the host and port of a target that lasts from now on for so long, MaxLife at most.
func NewToken(target *url.URL, now time.Time, life time.Duration) (Token, error) {
	host, _, err := hostPort(target)
	if err != nil {
		return Token{}, err
	}
	if life < time.Minute || life > MaxLife {
		return Token{}, fmt.Errorf("a token that lasts %v, want %v to %v", life, time.Minute, MaxLife)
	}
	t := Token{Host: host, Expires: now.Add(life).UTC().Truncate(time.Second)}
	_, _ = rand.Read(t.nonce[:]) // never fails
	return t, nil
}

// String is the token as it is served: "tminus/v1/example.com:443/2026-11-28T00:00:00Z/" and 32 hexadecimal digits.
func (t Token) String() string {
	return "tminus/v1/" + t.Host + "/" + t.Expires.UTC().Format(time.RFC3339) + "/" + hex.EncodeToString(t.nonce[:])
}

// ParseToken reads what String wrote.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(s, "/")
	bad := errors.New("that is no token of tminus consent")
	if len(s) > 400 || len(parts) != 5 || parts[0] != "tminus" || parts[1] != "v1" {
		return Token{}, bad
	}
	t := Token{Host: parts[2]}
	var err error
	if t.Expires, err = time.Parse(time.RFC3339, parts[3]); err != nil {
		return Token{}, bad
	}
	nonce, err := hex.DecodeString(parts[4])
	if err != nil || len(nonce) != len(t.nonce) {
		return Token{}, bad
	}
	copy(t.nonce[:], nonce)
	if t.String() != s { // one spelling only
		return Token{}, bad
	}
	return t, nil
}

// readFile reads the tokens that a target serves, at most maxTokens of them.
func readFile(r io.Reader) ([]Token, error) {
	in := &io.LimitedReader{R: r, N: maxFile + 1}
	lines := bufio.NewScanner(in)
	var tokens []Token
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		t, err := ParseToken(line)
		if err != nil {
			return nil, errors.New("it holds a line that is no token")
		}
		if len(tokens) == maxTokens {
			return nil, fmt.Errorf("it holds more than %d tokens", maxTokens)
		}
		tokens = append(tokens, t)
	}
	if in.N <= 0 {
		return nil, fmt.Errorf("it is larger than %d KiB", maxFile>>10)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, errors.New("it holds no token")
	}
	return tokens, nil
}

// ParseTarget reads what a person calls a target: a URL, host:port, or a host (whose port is then HTTPS's, 443).
func ParseTarget(s string) (*url.URL, error) {
	text := s
	if !strings.Contains(text, "://") {
		scheme := "http://"
		if host, port, err := net.SplitHostPort(text); err != nil || port == "443" {
			scheme = "https://"
			if a, e := netip.ParseAddr(text); err != nil && e == nil && a.Is6() {
				text = "[" + text + "]"
			}
		} else if host == "" {
			return nil, fmt.Errorf("%q names no host", clip(s))
		}
		text = scheme + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no host, host:port or URL", clip(s))
	}
	if _, _, err := hostPort(u); err != nil {
		return nil, err
	}
	return u, nil
}

// hostPort is the host and port of an http or https URL in one spelling, and the port.
func hostPort(u *url.URL) (string, uint16, error) {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" || u.Opaque != "" {
		return "", 0, fmt.Errorf("%q: want an http or https URL", clip(u.Redacted()))
	}
	if p := u.Port(); p != "" {
		port = p
	}
	s, n, ok := canonical(u.Hostname(), port)
	if !ok {
		return "", 0, fmt.Errorf("%q names no host and port", clip(u.Redacted()))
	}
	return s, n, nil
}

// canonical is a host and a port in one spelling, and the port; false when they are none.
func canonical(host, port string) (string, uint16, bool) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, false
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a.Unmap(), uint16(n)).String(), uint16(n), a.Zone() == ""
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return "", 0, false
	}
	return host + ":" + strconv.FormatUint(n, 10), uint16(n), true
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
