package sessions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
)

// ErrNotLoopback says that something led to an address that is not on this machine. Its text is one sentence for a
// person; a caller reports it as a scenario that cannot be run.
var ErrNotLoopback = errors.New("only a stream on a loopback address (127.0.0.0/8 or ::1) can be rehearsed without its consent")

// Permit says what may be reached beyond loopback; package consent gives one.
type Permit interface {
	// Pinned is where a connection to address (host:port) goes; false: it has no permit.
	Pinned(address string) (netip.AddrPort, bool)
}

// pinned asks a permit, if there is one.
func pinned(p Permit, address string) (netip.AddrPort, bool) {
	if p == nil {
		return netip.AddrPort{}, false
	}
	return p.Pinned(address)
}

// CheckTarget resolves the host of a manifest or playback URL and refuses it with ErrNotLoopback unless every address it
// has is a loopback address.
func CheckTarget(ctx context.Context, target string) error { return checkTarget(ctx, target, nil) }

// checkTarget is CheckTarget but for what has a permit.
func checkTarget(ctx context.Context, target string, permit Permit) error {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("target %q: want a URL that begins with http:// or https:// and names a host", target)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if _, ok := pinned(permit, net.JoinHostPort(u.Hostname(), port)); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fmt.Errorf("target %q: %w", target, err)
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return fmt.Errorf("target %q leads to %s: %w", target, a, ErrNotLoopback)
		}
	}
	return nil
}

// probeTimeout bounds Probe.
const probeTimeout = 5 * time.Second

// Probe fetches a manifest once and reads it, so that a target that is not there, or is no manifest, is told before
// anybody presses Play.
func Probe(ctx context.Context, target string, now time.Time) error {
	return ProbeWith(ctx, target, now, Config{})
}

// ProbeWith is Probe with the Permit and the UserAgent of a crowd's configuration.
func ProbeWith(ctx context.Context, target string, now time.Time, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := checkTarget(ctx, target, cfg.Permit); err != nil {
		return err
	}
	client, done := newClient(Config{ConnectTimeout: probeTimeout, Permit: cfg.Permit, UserAgent: cfg.UserAgent}, func(error) {})
	defer done()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return fmt.Errorf("target %q: %w", target, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot fetch the target's manifest: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot fetch the target's manifest: %s answers %s", target, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, stream.MaxManifest+1))
	if err != nil {
		return fmt.Errorf("cannot fetch the target's manifest: %w", err)
	}
	if _, err := stream.Parse(body, resp.Request.URL.String(), now, nil); err != nil {
		return fmt.Errorf("the target %s is no manifest that can be played: %w", target, err)
	}
	return nil
}

// newClient makes the one client that all players share. Every connection is checked where it is dialled, after name
// resolution, so that neither a manifest nor a redirect nor a name server leads off this machine; refused hears of it. What
// has a permit is not resolved again: it is dialled at the address that the permit pins.
func newClient(cfg Config, refused func(error)) (*http.Client, func()) {
	permitted := &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 15 * time.Second}
	d := &net.Dialer{
		Timeout:   cfg.ConnectTimeout,
		KeepAlive: 15 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if !ap.Addr().Unmap().IsLoopback() {
				err := fmt.Errorf("the stream leads to %s: %w", address, ErrNotLoopback)
				refused(err)
				return err
			}
			return nil
		},
	}
	// A player has its tracks' and its playlists' requests open at once, mostly to one edge.
	perHost := min(max(4*cfg.Players, 16), 2048)
	t := &http.Transport{
		Proxy: nil, // a proxy would hide where a request goes
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if ap, ok := pinned(cfg.Permit, address); ok {
				return permitted.DialContext(ctx, network, ap.String())
			}
			return d.DialContext(ctx, network, address)
		},
		MaxIdleConns:           4 * perHost,
		MaxIdleConnsPerHost:    perHost,
		MaxConnsPerHost:        2 * perHost,
		IdleConnTimeout:        30 * time.Second,
		TLSHandshakeTimeout:    2 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // media does not compress, and a bomb is kept out
	}
	c := &http.Client{Transport: agent{t, cfg.UserAgent}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than 5 redirects")
		}
		if s := r.URL.Scheme; s != "http" && s != "https" {
			return fmt.Errorf("redirected to %q", r.URL.Redacted())
		}
		return nil
	}}
	return c, t.CloseIdleConnections
}

// agent names the run in every request.
type agent struct {
	http.RoundTripper
	name string
}

func (a agent) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.name != "" {
		r.Header.Set("User-Agent", a.name) // the request is ours, and made for this one exchange
	}
	return a.RoundTripper.RoundTrip(r)
}
