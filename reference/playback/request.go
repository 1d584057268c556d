package playback

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxRequest bounds a play request, in bytes.
const MaxRequest = 4096

// request is a play request: {"title","device","viewer","region","token","kind"}, every member a string, only the title needed.
// Its fields may point into the body.
type request struct {
	title  []byte // the event
	device []byte // "tv", "phone" …
	viewer []byte // whoever it is, opaque
	region []byte // the viewer's home region
	token  []byte // opaque
	kind   []byte // what it is for: "live" …
}

// Errors of parseRequest, beside those that name a member.
var (
	errTooLong = fmt.Errorf("the request has more than %d bytes", MaxRequest)
	errNotJSON = errors.New("the request is not a JSON object of strings")
)

// parseRequest reads a play request strictly: one object, known members, each at most once, strings within their bounds,
// nothing behind. It reads the flat shape itself, without allocating: a play start is the hot path of an audience's
// arrival. Strings with escapes or beyond ASCII go to encoding/json.
func parseRequest(body []byte) (request, error) {
	var r request
	if len(body) > MaxRequest {
		return r, errTooLong
	}
	p := parser{body}
	if !p.take('{') {
		return r, errNotJSON
	}
	for first := true; !p.take('}'); first = false {
		if !first && !p.take(',') {
			return r, errNotJSON
		}
		name, err := p.string()
		if err != nil || !p.take(':') {
			return r, errNotJSON
		}
		var field *[]byte
		limit := 128
		switch string(name) {
		case "title":
			field = &r.title
		case "device":
			field = &r.device
		case "viewer":
			field = &r.viewer
		case "region":
			field = &r.region
		case "token":
			field, limit = &r.token, 2048
		case "kind":
			field = &r.kind
		default:
			return r, fmt.Errorf("the request has a member %.40q that is not known", name)
		}
		if *field != nil {
			return r, fmt.Errorf("the request has the member %q twice", name)
		}
		value, err := p.string()
		if err != nil {
			return r, fmt.Errorf("the request's member %q is not a string", name)
		}
		if len(value) > limit {
			return r, fmt.Errorf("the request's member %q has more than %d bytes", name, limit)
		}
		*field = value
	}
	if p.space(); len(p.rest) > 0 {
		return r, errNotJSON
	}
	if len(r.title) == 0 {
		return r, errors.New("the request has no title")
	}
	return r, nil
}

// isPlain says of each byte that it stands for itself within a string.
var isPlain = func() (is [256]bool) {
	for c := byte(' '); c < 0x80; c++ {
		is[c] = c != '"' && c != '\\'
	}
	return is
}()

type parser struct{ rest []byte }

func (p *parser) space() {
	for len(p.rest) > 0 {
		switch p.rest[0] {
		case ' ', '\t', '\n', '\r':
			p.rest = p.rest[1:]
		default:
			return
		}
	}
}

func (p *parser) take(c byte) bool {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// string reads a JSON string (RFC 8259, 7). It never returns nil without an error.
func (p *parser) string() ([]byte, error) {
	p.space()
	if len(p.rest) == 0 || p.rest[0] != '"' {
		return nil, errNotJSON
	}
	i := 1
	for i < len(p.rest) && isPlain[p.rest[i]] {
		i++
	}
	plain := true
	for ; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			token := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			if plain {
				return token[1:i:i], nil
			}
			var s string
			if err := json.Unmarshal(token, &s); err != nil {
				return nil, errNotJSON
			}
			return []byte(s), nil
		case c == '\\':
			plain = false
			i++ // whatever it escapes, it does not end the string
		case c >= 0x80:
			plain = false
		case c < 0x20:
			return nil, errNotJSON
		}
	}
	return nil, errNotJSON
}
