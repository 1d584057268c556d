package spec

import (
	"net/netip"
	"net/textproto"
	"net/url"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxBody bounds the template of a target's play request, in bytes.
const maxBody = 16 << 10

var (
	headerForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$") // RFC 9110, 5.6.2
	methods    = []string{"POST", "GET", "PUT"}
	// variables of a play request's template
	variables = []string{"viewer", "device", "isp", "region", "title", "token"}
	variable  = regexp.MustCompile(`\{\{([^{}]*)\}\}`)
)

// target reads a target; manifest and play say which of the two it has, well or badly written.
func (r *reader) target(n ast.Node, path string) (t *Target, manifest, play bool) {
	t = &Target{}
	ok := r.mapping(n, path, []field{
		{"manifest", "", func(n ast.Node, path string) {
			manifest = true
			t.Manifest = r.url(n, path, "of a DASH or HLS manifest")
		}},
		{"play", "", func(n ast.Node, path string) {
			play = true
			t.Play = r.play(n, path)
		}},
		{"consent", "", func(n ast.Node, path string) { t.Consent, _ = r.text(n, path, "the token that tminus consent printed") }},
	})
	if ok && !manifest && !play {
		r.bad(n, path, "want the target's manifest, its play API under play, or both")
	}
	return t, manifest, play
}

func (r *reader) play(n ast.Node, path string) *Play {
	p := &Play{Method: "POST"}
	r.mapping(n, path, []field{
		{"url", "where play starts are sent", func(n ast.Node, path string) { p.URL = r.url(n, path, "of a play API") }},
		{"method", "", func(n ast.Node, path string) { p.Method = r.word(n, path, "method", methods) }},
		{"headers", "", func(n ast.Node, path string) {
			entries, _ := r.entries(n, path)
			for _, e := range entries {
				at := join(path, e.key)
				v, ok := r.text(e.value, at, "the header's value")
				name := textproto.CanonicalMIMEHeaderKey(e.key)
				switch {
				case !headerForm.MatchString(e.key):
					r.bad(e.node, at, "that is no name of a header")
				case name == "Host" || name == "Content-Length" || name == "Transfer-Encoding" || name == "Connection":
					r.bad(e.node, at, "this header is the generator's own")
				case ok && strings.ContainsAny(v, "\r\n\x00"):
					r.bad(e.value, at, "a header's value is one line")
				case ok:
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
			if len(p.Body) > maxBody {
				r.bad(n, path, "a body of %d bytes, at most %d are allowed", len(p.Body), maxBody)
			}
			r.template(n, path, p.Body)
		}},
		{"session", "where the answer has the session, such as data.session.id", func(n ast.Node, path string) {
			p.Session, _ = r.text(n, path, "a path into the answer's JSON")
		}},
		{"manifest", "", func(n ast.Node, path string) { p.Manifest, _ = r.text(n, path, "a path into the answer's JSON") }},
	})
	return p
}

// template checks the variables of a play request.
func (r *reader) template(n ast.Node, path, text string) {
	for _, m := range variable.FindAllStringSubmatch(text, 20) {
		known := false
		for _, v := range variables {
			known = known || m[1] == v
		}
		if !known {
			r.bad(n, path, "unknown variable {{%s}}%s", clip(m[1]), oneOf(m[1], variables))
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
