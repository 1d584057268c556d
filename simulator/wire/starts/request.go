package starts

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/answer"
)

// Request describes the HTTP play API of a target. URL, the headers' values and Body are templates: they may have
// {{viewer}}, {{device}}, {{isp}}, {{region}} (the viewer's home), {{title}} and {{number}}, which is
// different for each play start of a run. In a JSON or form body and in the URL they are escaped as those want it.
type Request struct {
	Method  string // "" is POST
	URL     string // its host goes into the Host header, its path and query are asked for; where to connect to is the Service's
	Headers []Header
	Body    string // "": none
	// Where a good answer (status 200 to 299) has its session and manifest: paths as answer.CompilePaths reads them. An
	// answer without them is a failed start. "" is not looked for; without both the status alone counts.
	Session, Manifest string

	strict bool // it is the reference playback service's: its answers must be whole
}

// Reference is the request of the reference playback service, to any URL: an answer counts as good only when it is one of
// that service's, with status 200, a session and both manifests.
func Reference(url string, headers ...Header) *Request {
	r := builtIn
	r.URL = url
	r.Headers = slices.Clone(builtIn.Headers)
	for _, h := range headers {
		r.Headers = slices.DeleteFunc(r.Headers, func(own Header) bool { return strings.EqualFold(own.Name, h.Name) })
	}
	r.Headers = append(r.Headers, headers...)
	return &r
}

// Header is one header of a request.
type Header struct{ Name, Value string }

// Bounds on a request.
const (
	maxRequest = 64 << 10
	maxHeader  = 64
	maxAgent   = 1 << 10
)

// The built-in request and what is read from its answer.
var (
	builtIn = Request{
		Method: "POST",
		URL:    "/v1/play",
		Headers: []Header{
			{"Accept", "application/json"},
			{"Content-Type", "application/json"},
		},
		Body:    `{"title":"{{title}}","device":"{{device}}","viewer":"{{viewer}}","region":"{{region}}","token":"{{token}}"}`,
		Session: "session",
		strict:  true,
	}
	builtInManifests = []string{"manifests.dash", "manifests.hls"}
)

// variable is what changes from one request to the next.
type variable uint8

const (
	literal variable = iota
	viewerID
	device
	isp
	region
	number
)

// Variables names what a template may have between {{ and }}, for a person.
func Variables() []string {
	return []string{"viewer", "device", "isp", "region", "title", "number"}
}

var variables = map[string]variable{"viewer": viewerID, "device": device, "isp": isp, "region": region, "number": number}

// escaping is how a value is written where it stands.
type escaping uint8

const (
	inHeader escaping = iota // control characters become _
	inText                   // as it is
	inJSON                   // within a JSON string
	inURL                    // percent-encoded
)

type part struct {
	text []byte
	v    variable
	esc  escaping
}

// template renders requests to one service.
type template struct {
	head    []part // up to the value of Content-Length, or the whole head of a request that has none
	body    []part
	hasBody bool
	digits  int // of the last Content-Length: the next one's most often
}

// clone is the template for another thread.
func (t *template) clone() *template {
	c := *t
	return &c
}

// Validate says everything that New would find wrong with the request, or nil. secure: it goes out over TLS.
func (r *Request) Validate(secure bool) error {
	var c Config
	if secure {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	}
	_, err := r.compile(&c, "127.0.0.1:80") // the address goes into the Host header and is never wrong
	_, unread := r.reading()
	return errors.Join(err, unread)
}

// compile makes the template of a request to the service at addr.
func (r *Request) compile(c *Config, addr string) (*template, error) {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("play request: "+format, a...)) }
	method := or(r.Method, "POST")
	if !isToken(method) || method == "HEAD" || method == "CONNECT" {
		bad("method %q", method)
	}
	host := addr
	target, _, _ := strings.Cut(r.URL, "#")
	if !strings.HasPrefix(target, "/") {
		scheme, rest, ok := strings.Cut(target, "://")
		if !ok || scheme != "http" && scheme != "https" {
			bad("want an http or https URL, got %q", r.URL)
		}
		if scheme == "https" && c.TLS == nil {
			bad("an https URL needs connections with TLS (Config.TLS)")
		}
		slash := strings.IndexAny(rest, "/?")
		if slash < 0 {
			slash, rest = len(rest), rest+"/"
		}
		host, target = rest[:slash], rest[slash:]
		if u, err := url.Parse("//" + host); err != nil || u.Host == "" || u.User != nil || u.Host != host {
			bad("host %q of the URL", host)
		}
		if target[0] == '?' {
			target = "/" + target
		}
	}
	if strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f || c > 0x7f }) {
		bad("the URL %q has characters that must be percent-encoded", r.URL)
	}

	t := &template{hasBody: r.Body != "" || method != "GET" && method != "DELETE", digits: 3}
	add := func(parts *[]part, esc escaping, text string) {
		if err := r.add(parts, esc, text, c); err != nil {
			bad("%w", err)
		}
	}
	add(&t.head, inText, method+" ")
	add(&t.head, inURL, target)
	add(&t.head, inText, " HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: ")
	write(&t.head, c.UserAgent)
	content := ""
	if len(r.Headers) > maxHeader {
		bad("%d headers, at most %d", len(r.Headers), maxHeader)
	}
	for _, h := range r.Headers {
		switch {
		case !isToken(h.Name):
			bad("%q is no name of a header", h.Name)
		case slices.ContainsFunc([]string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "User-Agent"}, func(own string) bool { return strings.EqualFold(own, h.Name) }):
			bad("the header %s is the generator's own", h.Name)
		case strings.ContainsFunc(h.Value, isControl):
			bad("the value of %s is not one line of text", h.Name)
		}
		if strings.EqualFold(h.Name, "Content-Type") {
			content = strings.ToLower(h.Value)
		}
		add(&t.head, inText, "\r\n"+h.Name+": ")
		add(&t.head, inHeader, h.Value)
	}
	if content == "" && strings.HasPrefix(strings.TrimSpace(r.Body), "{") {
		content = "application/json"
		add(&t.head, inText, "\r\nContent-Type: application/json")
	}
	if c.Connections == Fresh {
		add(&t.head, inText, "\r\nConnection: close")
	}
	switch {
	case strings.Contains(content, "json"):
		add(&t.body, inJSON, r.Body)
	case strings.Contains(content, "form-urlencoded"):
		add(&t.body, inURL, r.Body)
	default:
		add(&t.body, inText, r.Body)
	}
	if t.hasBody {
		add(&t.head, inText, "\r\nContent-Length: ")
	} else {
		add(&t.head, inText, "\r\n\r\n")
	}
	if n := len(r.Body) + len(target); n > maxRequest/2 {
		bad("%d bytes", n)
	}
	return t, errors.Join(errs...)
}

// write appends text that stands as it is.
func write(parts *[]part, s string) {
	if n := len(*parts); n > 0 && (*parts)[n-1].v == literal {
		(*parts)[n-1].text = append((*parts)[n-1].text, s...)
	} else if s != "" {
		*parts = append(*parts, part{text: []byte(s)})
	}
}

// add splits a text at its variables. What is the same for all requests becomes text.
func (r *Request) add(parts *[]part, esc escaping, text string, c *Config) error {
	for {
		before, rest, ok := strings.Cut(text, "{{")
		write(parts, before)
		if !ok {
			return nil
		}
		name, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return fmt.Errorf("{{ without }} before %.20q", rest)
		}
		name = strings.TrimSpace(name)
		v, ok := variables[name]
		switch {
		case name == "title":
			write(parts, string(appendEscaped(nil, c.Title, esc)))
		case name == "token" && r.strict:
			write(parts, string(appendEscaped(nil, c.Token, esc)))
		case !ok:
			return fmt.Errorf("unknown variable {{%.40s}}: want one of %s", name, strings.Join(Variables(), ", "))
		default:
			*parts = append(*parts, part{v: v, esc: esc})
		}
		text = after
	}
}

// render appends the request of a viewer. It does not allocate where dst has room.
func (t *template) render(dst []byte, v *audience.Viewer, num uint64) []byte {
	dst = renderParts(dst, t.head, v, num)
	if !t.hasBody {
		return dst
	}
	// The length stands before the body: leave as many digits open as it had last time.
	for {
		at := len(dst)
		dst = append(dst, "00000000"[:t.digits]...)
		dst = append(dst, "\r\n\r\n"...)
		from := len(dst)
		dst = renderParts(dst, t.body, v, num)
		n := len(dst) - from
		var room [20]byte
		length := strconv.AppendInt(room[:0], int64(n), 10)
		if len(length) == t.digits {
			copy(dst[at:], length)
			return dst
		}
		t.digits = len(length)
		dst = dst[:at]
	}
}

func renderParts(dst []byte, parts []part, v *audience.Viewer, num uint64) []byte {
	for i := range parts {
		p := &parts[i]
		switch p.v {
		case literal:
			dst = append(dst, p.text...)
		case viewerID:
			dst = v.AppendName(dst)
		case device:
			dst = appendEscaped(dst, v.Device, p.esc)
		case isp:
			dst = appendEscaped(dst, v.ISP, p.esc)
		case region:
			dst = appendEscaped(dst, v.Home, p.esc)
		case number:
			dst = strconv.AppendUint(dst, num, 10)
		}
	}
	return dst
}

// plain says which bytes stand for themselves wherever they are (RFC 3986's unreserved ones).
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
	}
	return t
}()

func appendEscaped(dst []byte, s string, esc escaping) []byte {
	for i := range len(s) {
		if !plain[s[i]] {
			return appendSpecial(dst, s, esc)
		}
	}
	return append(dst, s...)
}

func appendSpecial(dst []byte, s string, esc escaping) []byte {
	const hex = "0123456789ABCDEF"
	if esc == inJSON {
		if text, err := json.Marshal(s); err == nil { // it is never one of the crowd's words
			return append(dst, text[1:len(text)-1]...)
		}
	}
	for i := range len(s) {
		switch c := s[i]; {
		case plain[c] || esc == inText:
			dst = append(dst, c)
		case esc == inURL:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		case c < ' ' || c == 0x7f:
			dst = append(dst, '_')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func isControl(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// reading says what a good answer has, and where.
type reading struct {
	paths     *answer.Paths
	session   int // index of its value; -1: not looked for
	manifests []int
	policy    int // of the retry policy; its two parts follow
	any2xx    bool
	urls      bool // manifests are absolute URLs
}

func (r *Request) reading() (reading, error) {
	rd := reading{session: -1, any2xx: true}
	var paths []string
	add := func(path string) int {
		paths = append(paths, path)
		return len(paths) - 1
	}
	if r.Session != "" {
		rd.session = add(r.Session)
	}
	if r.Manifest != "" {
		rd.manifests = []int{add(r.Manifest)}
	}
	if r.strict {
		rd.any2xx, rd.urls = false, true
		for _, path := range builtInManifests {
			rd.manifests = append(rd.manifests, add(path))
		}
	}
	rd.policy = add("retryPolicy")
	add("retryPolicy.maxRetries")
	add("retryPolicy.retryAfterSeconds")
	var err error
	if rd.paths, err = answer.CompilePaths(paths...); err != nil {
		return rd, fmt.Errorf("play request: where the session and the manifest are: %w", err)
	}
	return rd, nil
}
