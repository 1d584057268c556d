package consent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrNoConsent says that a target has not proved that it agrees to be loaded, or no longer does. What wraps it is one sentence
// that says what to do; a command ends with the usage status on it.
var ErrNoConsent = errors.New("no proof that the target agrees to be loaded")

// maxAddresses bounds how many of a name's addresses are tried.
const maxAddresses = 3

// checker is how consent is checked; tests replace its parts.
type checker struct {
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	now     func() time.Time
	own     func(netip.Addr) bool // passes without ceremony
	roots   *x509.CertPool        // nil: the system's

	timeout time.Duration // of one look, names and body included
	every   time.Duration // between two looks
	pause   time.Duration // before a look that was not answered is repeated
}

func standard() *checker {
	return &checker{
		resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		},
		dial:    (&net.Dialer{}).DialContext,
		now:     time.Now,
		own:     netip.Addr.IsLoopback,
		timeout: 3 * time.Second,
		every:   time.Minute,
		pause:   time.Second,
	}
}

// Permit is a target that may be loaded, and the one address that it is loaded at. It is safe for concurrent use.
type Permit struct {
	c         *checker
	target    *url.URL
	host      string // host:port as the target is named
	addr      netip.AddrPort
	token     Token
	as        string // where the token is given
	own       bool
	withdrawn atomic.Bool
}

// Given is the consent that somebody has for their targets.
type Given struct {
	Tokens string // one token or several, separated by spaces or commas: the one for the target's host and port counts
	As     string // where they are given, for the sentence that asks for them: "the scenario as target.consent"
}

// Check says whether the target may be loaded; loopback targets need nothing. It takes a few seconds at
// the most. The error wraps ErrNoConsent unless the target's name cannot be resolved or its URL is wrong.
func Check(ctx context.Context, target *url.URL, given Given) (*Permit, error) {
	return standard().check(ctx, target, given)
}

func (c *checker) check(ctx context.Context, target *url.URL, given Given) (*Permit, error) {
	host, port, err := hostPort(target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	p := &Permit{c: c, target: target, host: host, as: given.As}
	addrs, err := c.addresses(ctx, target.Hostname())
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", host, err)
	}
	if first := addrs[0]; c.own(first) {
		p.addr, p.own = netip.AddrPortFrom(first, port), true
		return p, nil
	}
	if p.token, err = choose(given.Tokens, host, c.now()); err != nil {
		return nil, p.refuse(err)
	}
	for i, a := range addrs {
		if i == maxAddresses {
			break
		}
		p.addr = netip.AddrPortFrom(a, port)
		var definite bool
		if definite, err = p.look(ctx); err == nil {
			return p, nil
		} else if definite || ctx.Err() != nil {
			break
		}
	}
	return nil, p.refuse(err)
}

// addresses resolves a host; every address is one that a single machine can have.
func (c *checker) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, a)
	} else {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		if addrs, err = c.resolve(ctx, host); err != nil {
			return nil, err
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("the name has no address")
	}
	for i, a := range addrs {
		if a = a.Unmap(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return nil, fmt.Errorf("%s is no address of a machine", a)
		}
		addrs[i] = a
	}
	return addrs, nil
}

// choose finds the token for a host among those that were given.
func choose(tokens, host string, now time.Time) (Token, error) {
	fields := strings.FieldsFunc(tokens, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' || r == '\t' || r == '\r' })
	if len(fields) == 0 {
		return Token{}, errors.New("no token is given")
	}
	if len(fields) > maxTokens {
		return Token{}, fmt.Errorf("more than %d tokens are given", maxTokens)
	}
	var others []string
	for _, f := range fields {
		t, err := ParseToken(f)
		if err != nil {
			return Token{}, fmt.Errorf("%q: %w", clip(f), err)
		}
		if t.Host == host {
			return t, t.current(now)
		}
		others = append(others, t.Host)
	}
	return Token{}, fmt.Errorf("the token that is given is for %s", clip(strings.Join(others, ", ")))
}

func (t Token) current(now time.Time) error {
	switch {
	case !now.Before(t.Expires):
		return fmt.Errorf("the token expired at %s", t.Expires.Format(time.RFC3339))
	case t.Expires.Sub(now) > MaxLife+time.Hour: // an hour for clocks that disagree
		return fmt.Errorf("the token lasts longer than %d days", int(MaxLife.Hours()/24))
	}
	return nil
}

// refuse says what is missing and what to do about it.
func (p *Permit) refuse(why error) error {
	at := url.URL{Scheme: p.target.Scheme, Host: p.target.Host, Path: Path}
	return fmt.Errorf("target %s: %w (%w); run \"tminus consent %s://%s\", serve the line it prints at %s, and give it %s",
		p.host, ErrNoConsent, why, p.target.Scheme, p.target.Host, at.String(), p.as)
}

// look fetches the file from the pinned address. definite: the target answered, and its answer is no.
func (p *Permit) look(ctx context.Context) (definite bool, err error) {
	if err := p.token.current(p.c.now()); err != nil {
		return true, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.c.timeout)
	defer cancel()
	t := &http.Transport{
		Proxy: nil, // a proxy would answer for the target
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return p.c.dial(ctx, network, p.addr.String())
		},
		TLSClientConfig:        &tls.Config{RootCAs: p.c.roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	at := url.URL{Scheme: p.target.Scheme, Host: p.target.Host, Path: Path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return true, err
	}
	req.Header.Set("User-Agent", "tminus (consent check)")
	req.Header.Set("Cache-Control", "no-cache")
	resp, err := client.Do(req)
	if err != nil {
		return false, fmt.Errorf("it does not answer: %w", cause(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500:
		return false, fmt.Errorf("it answers %s", resp.Status)
	case resp.StatusCode/100 == 3:
		return true, fmt.Errorf("it answers %s, and redirects are not followed", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return true, fmt.Errorf("it answers %s", resp.Status)
	}
	tokens, err := readFile(resp.Body)
	if err != nil {
		return ctx.Err() == nil, fmt.Errorf("cannot use the file it serves: %w", err)
	}
	for _, t := range tokens {
		if t == p.token {
			return true, nil
		}
	}
	return true, errors.New("it serves another token than the one that is given")
}

// cause is what went wrong without the request's method and URL, which the sentence has.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Run looks again every minute, and when the token expires, until ctx ends: then it returns nil. It returns an error that
// wraps ErrNoConsent within seconds of a look that is not answered with consent; from then on nothing is allowed. A look that
// gets no answer at all is repeated once.
func (p *Permit) Run(ctx context.Context) error {
	if p.own {
		<-ctx.Done()
		return nil
	}
	for {
		wait := max(0, min(p.c.every, p.token.Expires.Sub(p.c.now())))
		if !sleep(ctx, wait) {
			return nil
		}
		definite, err := p.look(ctx)
		if err != nil && !definite && sleep(ctx, p.c.pause) {
			_, err = p.look(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.withdrawn.Store(true)
			return fmt.Errorf("target %s: %w any longer: %w; the load has been stopped", p.host, ErrNoConsent, err)
		}
	}
}

// sleep waits; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Addr is the address that was checked: the one that the target is loaded at.
func (p *Permit) Addr() netip.AddrPort { return p.addr }

// Host is the target's host:port as it is named.
func (p *Permit) Host() string { return p.host }

// Allowed reports whether a connection to addr may be opened now.
func (p *Permit) Allowed(addr netip.AddrPort) bool {
	return !p.withdrawn.Load() && netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()) == p.addr
}

// Pinned is where a connection to address (host:port) goes: the checked address for the target's name or for that address
// itself. false: it has no permit.
func (p *Permit) Pinned(address string) (netip.AddrPort, bool) {
	if p.withdrawn.Load() {
		return netip.AddrPort{}, false
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return p.addr, p.Allowed(ap)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	name, _, ok := canonical(host, port)
	return p.addr, ok && name == p.host
}

// Permits are a run's targets: what may be reached is their addresses and loopback. None is loopback alone.
type Permits []*Permit

// Allowed reports whether a connection to addr may be opened now.
func (ps Permits) Allowed(addr netip.AddrPort) bool {
	for _, p := range ps {
		if p.Allowed(addr) {
			return true
		}
	}
	return addr.Addr().Unmap().IsLoopback()
}

// Permit is Allowed as an error that wraps ErrNoConsent, for engines that dial by themselves.
func (ps Permits) Permit(_ context.Context, addr netip.AddrPort) error {
	if !ps.Allowed(addr) {
		return fmt.Errorf("%s: %w", addr, ErrNoConsent)
	}
	return nil
}

// Pinned is where a connection to address (host:port) goes; false: no target of that name or address has a permit.
func (ps Permits) Pinned(address string) (netip.AddrPort, bool) {
	for _, p := range ps {
		if ap, ok := p.Pinned(address); ok {
			return ap, true
		}
	}
	return netip.AddrPort{}, false
}

// DialContext is net.Dialer's for a run: to the targets at their checked addresses, to loopback, and nowhere else.
func (ps Permits) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if ap, ok := ps.Pinned(address); ok {
		address = ap.String()
	}
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		return ps.Permit(ctx, ap)
	}}
	return d.DialContext(ctx, network, address)
}

// Run watches over all of them; it returns the first withdrawal, or nil when ctx ends.
func (ps Permits) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(ps))
	for _, p := range ps {
		go func() { ended <- p.Run(ctx) }()
	}
	var first error
	for range ps {
		if err := <-ended; err != nil && first == nil {
			first = err
			stop()
		}
	}
	if len(ps) == 0 {
		<-ctx.Done()
	}
	return first
}
