package spec

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/simulator/wire/starts"
)

var (
	protocols = []string{"tcp", "udp"}
	methods   = []string{"POST", "GET", "PUT"}
	variable  = regexp.MustCompile(`\{\{([^{}]*)\}\}`)
)

// targetNodes are where a target's ways in stand: those that it has, well or badly written.
type targetNodes struct{ manifest, play, playURL noted[struct{}] }

// target reads a target.
func (r *reader) target(n ast.Node, path string) (t *Target, at targetNodes) {
	t = &Target{}
	ok := r.mapping(n, path, []field{
		{"manifest", "", func(n ast.Node, path string) {
			at.manifest = keep(n, path)
			t.Manifest = r.url(n, path, "of a DASH or HLS manifest")
		}},
		{"play", "", func(n ast.Node, path string) {
			before := len(r.problems)
			t.Play, at.playURL = r.play(n, path)
			at.play = keep(n, path)
			if len(r.problems) == before { // otherwise what follows would say it again
				r.playable(at.play, t.Play)
			}
		}},
		{"own", "", func(n ast.Node, path string) { t.Own = r.own(n, path) }},
		{"consent", "", func(n ast.Node, path string) { t.Consent, _ = r.text(n, path, "the token that tminus consent printed") }},
	})
	if ok && !at.manifest.ok && !at.play.ok {
		r.bad(n, path, "want the target's manifest, its play API under play, or both")
	}
	return t, at
}

// own reads what of a target faults may break: by name, where it listens.
func (r *reader) own(n ast.Node, path string) []Own {
	entries, _ := r.entries(n, path)
	if len(entries) > MaxOwn {
		r.bad(n, path, "%d parts, at most %d are allowed", len(entries), MaxOwn)
		return nil
	}
	var out []Own
	for _, e := range entries {
		o := Own{Name: e.key}
		at := join(path, e.key)
		if !nameForm.MatchString(e.key) || e.key == "kafka" || e.key == "clickhouse" {
			r.bad(e.node, at, "want a short name of lower-case letters, digits and dashes, such as nginx")
		}
		r.mapping(e.value, at, []field{
			{"address", "where it listens, such as 127.0.0.1:8080", func(n ast.Node, path string) { o.Address = r.local(n, path) }},
			{"relay", "", func(n ast.Node, path string) { o.Relay = r.local(n, path) }},
			{"protocol", "", func(n ast.Node, path string) { o.Datagrams = r.word(n, path, "protocol", protocols) == "udp" }},
			{"segments", "", func(n ast.Node, path string) {
				var ok bool
				if o.Segments, ok = r.text(n, path, "a template such as /live/{rung}/{number}.m4s"); ok {
					if _, err := media.Template(o.Segments); err != nil {
						r.bad(n, path, "%s", err)
					}
				}
			}},
			{"init", "", func(n ast.Node, path string) { o.Init, _ = r.text(n, path, "a path such as init.mp4") }},
		})
		if o.Relay.IsValid() && o.Relay == o.Address {
			r.bad(e.value, join(at, "relay"), "the relay needs an address of its own: %s is where %s listens", o.Relay, clip(e.key))
		}
		if i := slices.IndexFunc(out, func(other Own) bool { return o.Relay.IsValid() && other.Relay == o.Relay }); i >= 0 {
			r.bad(e.value, join(at, "relay"), "the relay needs an address of its own: %s is that of the relay of %s", o.Relay, clip(out[i].Name))
		}
		out = append(out, o)
	}
	return out
}

// Fronts says what must stand in front of it for the faults that are about it, on some terms. The error wraps chaos.ErrUnsupported:
// its faults cannot be had of what it is, or together, or need a relay that it has no address for.
func (o Own) Fronts(t chaos.Terms, faults []chaos.Fault) ([]chaos.Front, error) {
	fronts := chaos.FrontsOf(o.Name, t, faults)
	refused := func(format string, args ...any) ([]chaos.Front, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{chaos.ErrUnsupported}, args...)...)
	}
	dns := slices.Contains(fronts, chaos.FrontDNS)
	switch {
	case o.Datagrams && slices.Contains(fronts, chaos.FrontHTTP):
		return refused("%s takes datagrams: there is nothing of HTTP to break", o.Name)
	case o.Datagrams && slices.Contains(fronts, chaos.FrontTCP):
		return refused("%s takes datagrams: there are no connections to break", o.Name)
	case dns && !o.Datagrams:
		return refused("a resolver takes datagrams: say so of %s (protocol: udp, --udp)", o.Name)
	case dns && len(fronts) > 1:
		return refused("faults in what %s answers and in its packets cannot be in one rehearsal", o.Name)
	case len(fronts) > 0 && !o.Relay.IsValid():
		return refused("%s needs a relay in front of it for its faults: give it an address of its own, and send its users there (relay: 127.0.0.1:…, --relay)", o.Name)
	case len(fronts) == 0 && o.Relay.IsValid(): // whoever goes through it is to find something there
		if o.Datagrams {
			return []chaos.Front{chaos.FrontUDP}, nil
		}
		return []chaos.Front{chaos.FrontTCP}, nil
	}
	return fronts, nil
}

// throughRelays checks that viewers are sent through the relays that faults stand in: who goes straight to what is behind one never
// meets them, and the run would say that all was well.
func (r *reader) throughRelays(at targetNodes, s *Scenario) {
	if s.Target == nil {
		return
	}
	if s.Audience.Players > 0 {
		r.throughRelay(at.manifest, s.Target.Manifest, s)
	}
	if s.Target.Play != nil && len(s.Audience.Starts) > 0 {
		r.throughRelay(at.playURL, s.Target.Play.URL, s)
	}
}

func (r *reader) throughRelay(at noted[struct{}], to string, s *Scenario) {
	u, err := url.Parse(to)
	if !at.ok || err != nil {
		return
	}
	straight, err := netip.ParseAddrPort(HostPort(u))
	if err != nil {
		return // a name, of which nobody knows here where it leads
	}
	straight = netip.AddrPortFrom(straight.Addr().Unmap(), straight.Port())
	// What has a relay is broken there, by the kernel too: what needs something in front of a part wherever it is broken without root.
	poorest := chaos.Terms{Kind: chaos.PartService, Datagrams: true}
	for _, o := range s.Target.Own {
		behind := netip.AddrPortFrom(o.Address.Addr().Unmap(), o.Address.Port())
		if o.Datagrams || !o.Relay.IsValid() || straight != behind || len(chaos.FrontsOf(o.Name, poorest, s.Faults)) == 0 {
			continue
		}
		u.Host = o.Relay.String()
		r.bad(at.node, at.path, "viewers would go straight to %s and meet none of the faults that stand in its relay: send them through it, to %s", o.Name, clip(u.String()))
		return
	}
}

// HostPort is the host and the port that a URL leads to, this machine by its address.
func HostPort(u *url.URL) string {
	host, port := u.Hostname(), "80"
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	if u.Scheme == "https" {
		port = "443"
	}
	return net.JoinHostPort(host, cmp.Or(u.Port(), port))
}

// local reads an address on this machine.
func (r *reader) local(n ast.Node, path string) netip.AddrPort {
	text, ok := r.text(n, path, "an address such as 127.0.0.1:8080")
	if !ok {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Port() == 0 {
		r.bad(n, path, "want an address such as 127.0.0.1:8080, got %q", clip(text))
		return netip.AddrPort{}
	}
	if !a.Addr().IsLoopback() {
		r.bad(n, path, "%s is not on this machine's loopback: nothing else can be broken", clip(text))
		return netip.AddrPort{}
	}
	return a
}

// play reads a play API; to is where its URL stands.
func (r *reader) play(n ast.Node, path string) (p *Play, to noted[struct{}]) {
	p = &Play{Method: "POST"}
	r.mapping(n, path, []field{
		{"url", "where play starts are sent", func(n ast.Node, path string) { p.URL, to = r.url(n, path, "of a play API"), keep(n, path) }},
		{"method", "", func(n ast.Node, path string) { p.Method = r.word(n, path, "method", methods) }},
		{"headers", "", func(n ast.Node, path string) {
			entries, _ := r.entries(n, path)
			for _, e := range entries {
				at := join(path, e.key)
				if v, ok := r.text(e.value, at, "the header's value"); ok {
					r.template(e.value, at, v)
					p.Headers = append(p.Headers, Header{e.key, v})
				}
			}
		}},
		{"body", "", func(n ast.Node, path string) {
			if l, ok := n.(*ast.LiteralNode); ok {
				p.Body = l.Value.Value
			} else {
				p.Body, _ = r.text(n, path, "the request's body")
			}
			r.template(n, path, p.Body)
		}},
		{"session", "where the answer has the session, such as data.session.id", func(n ast.Node, path string) {
			p.Session, _ = r.text(n, path, "a path into the answer's JSON")
		}},
		{"manifest", "", func(n ast.Node, path string) { p.Manifest, _ = r.text(n, path, "a path into the answer's JSON") }},
	})
	return p, to
}

// Request is the play API as the load engine wants it.
func (p *Play) Request() *starts.Request {
	req := &starts.Request{Method: p.Method, URL: p.URL, Body: p.Body, Session: p.Session, Manifest: p.Manifest}
	for _, h := range p.Headers {
		req.Headers = append(req.Headers, starts.Header(h))
	}
	return req
}

func (p *Play) secure() bool {
	u, err := url.Parse(p.URL)
	return err == nil && u.Scheme == "https"
}

// playable refuses at the play node what the load engine would.
func (r *reader) playable(at noted[struct{}], p *Play) {
	err := p.Request().Validate(p.secure())
	if err == nil {
		return
	}
	for _, line := range strings.Split(err.Error(), "\n") { // one sentence each
		r.bad(at.node, at.path, "%s", strings.TrimPrefix(line, "play request: "))
	}
}

// reachable checks a play API against the connections that play starts come over.
func (r *reader) reachable(at noted[struct{}], p *Play, c Connections) {
	switch u, err := url.Parse(p.URL); {
	case err != nil:
	case u.Scheme == "https" && c.InFlight > 1:
		r.bad(at.node, at.path, "over https a connection carries one request at a time: leave out audience.connections.inFlight")
	case u.Scheme == "http" && c.Kind == FreshTLS:
		r.bad(at.node, at.path, "connections of the kind %s need an https URL", FreshTLS)
	}
}

// template checks the variables of a play request where they stand; what else is wrong with it, playable finds.
func (r *reader) template(n ast.Node, path, text string) {
	known := starts.Variables()
	for _, m := range variable.FindAllStringSubmatch(text, 20) {
		if name := strings.TrimSpace(m[1]); !slices.Contains(known, name) {
			r.bad(n, path, "unknown variable {{%s}}%s", clip(name), oneOf(name, known))
		}
	}
}

func (r *reader) url(n ast.Node, path, what string) string {
	v, ok := r.text(n, path, "a URL")
	if !ok {
		return ""
	}
	u, err := url.Parse(v)
	if err == nil && u.User != nil {
		r.bad(n, path, "leave the user and the password out of the URL") // and out of this message
		return ""
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		r.bad(n, path, "want the http or https URL %s, got %q", what, clip(v))
		return ""
	}
	return v
}

// Loopback reports whether every connection to the target stays on this machine by its name alone.
func (t *Target) Loopback() bool {
	for _, s := range t.URLs() {
		u, err := url.Parse(s)
		if err != nil || !loopback(u.Hostname()) {
			return false
		}
	}
	return true
}

// URLs lists what the target is reached by.
func (t *Target) URLs() (urls []string) {
	if t.Manifest != "" {
		urls = append(urls, t.Manifest)
	}
	if t.Play != nil {
		urls = append(urls, t.Play.URL)
	}
	return urls
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
