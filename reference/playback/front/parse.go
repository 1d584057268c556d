package front

import (
	"bytes"
	"strconv"
)

// verdict is what the bytes at hand are.
type verdict uint8

const (
	more  verdict = iota // the beginning of a play start
	start                // a whole play start
	other                // something for net/http
	bad                  // a broken play start: status says how
)

// parsed is what parse found.
type parsed struct {
	verdict verdict
	status  int    // of bad
	why     string // of bad
	body    []byte // of start; points into the input
	size    int    // of start: bytes in all
	close   bool   // of start: the client wants the connection closed
}

const maxFields = 64

// Classes of bytes: tchar of RFC 9110, 5.6.2; what a field's value may have of 5.5, without CR.
var (
	isToken [256]bool
	isValue [256]bool
)

func init() {
	for c := range 256 {
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		isToken[c] = alnum
		isValue[c] = c >= 0x20 && c != 0x7f || c == '\t'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		isToken[c] = true
	}
}

func refuse(status int, why string) parsed { return parsed{verdict: bad, status: status, why: why} }

// parse looks at the first request in b. line is the request line of a play start with its CRLF. It never looks at anything behind the
// request that it returns.
func parse(b []byte, line string, maxHead, maxBody int) parsed {
	n := min(len(b), len(line))
	if string(b[:n]) != line[:n] {
		return parsed{verdict: other}
	}
	if n < len(line) {
		return parsed{verdict: more}
	}
	head := b
	if len(head) > maxHead {
		head = head[:maxHead]
	}
	length, hosts, closing, coded, expects := -1, 0, false, false, false
	i := n
	for fields := 0; ; fields++ {
		if i+1 < len(head) && head[i] == '\r' {
			if head[i+1] != '\n' {
				return refuse(400, "a carriage return without a line feed")
			}
			i += 2
			break
		}
		from := i
		for i < len(head) && isToken[head[i]] {
			i++
		}
		if i == len(head) || i == from && head[i] == '\r' {
			return short(b, maxHead)
		}
		if i == from || head[i] != ':' {
			return refuse(400, "a header line that is none")
		}
		if fields == maxFields {
			return refuse(431, "too many header lines")
		}
		name := head[from:i]
		i++
		for i < len(head) && (head[i] == ' ' || head[i] == '\t') {
			i++
		}
		from = i
		for i < len(head) && isValue[head[i]] {
			i++
		}
		if i+1 >= len(head) {
			if i < len(head) && head[i] != '\r' {
				return refuse(400, "a control character in a header line")
			}
			return short(b, maxHead)
		}
		if head[i] != '\r' || head[i+1] != '\n' {
			return refuse(400, "a control character in a header line")
		}
		value := head[from:i]
		i += 2
		switch len(name) {
		case 4:
			if fold(name, "host") {
				hosts++
			}
		case 6:
			expects = expects || fold(name, "expect")
		case 10:
			closing = closing || fold(name, "connection") && lists(value, "close")
		case 14:
			if fold(name, "content-length") {
				v, ok := digits(trim(value))
				if !ok || length >= 0 {
					return refuse(400, "Content-Length must be one number, once")
				}
				length = v
			}
		case 17:
			coded = coded || fold(name, "transfer-encoding")
		}
	}
	switch {
	case coded && length >= 0:
		return refuse(400, "Content-Length and Transfer-Encoding together")
	case coded:
		return refuse(501, "a play start has a Content-Length, not a Transfer-Encoding")
	case hosts != 1:
		return refuse(400, "a request has one Host")
	case expects:
		return parsed{verdict: other} // net/http knows how to say 100
	case length < 0:
		return refuse(411, "a play start has a Content-Length")
	case length > maxBody:
		return refuse(413, "the request has more than "+strconv.Itoa(maxBody)+" bytes")
	}
	if len(b)-i < length {
		return parsed{verdict: more}
	}
	return parsed{verdict: start, body: b[i : i+length : i+length], size: i + length, close: closing}
}

// heads remembers the last heads of whole play starts: players of one make send the same again and again, but for the length.
// What parse makes of a head follows from its bytes alone.
type heads struct {
	known [8]struct {
		bytes  []byte
		length int // of the body
		close  bool
	}
	turn int // whose place the next one takes
	last int // the one that was asked for last
}

// maxKnown is how long a head may be to be remembered, in bytes.
const maxKnown = 1 << 10

// parse is the function of that name, but does not read again a head that it knows.
func (h *heads) parse(b []byte, line string, maxHead, maxBody int) parsed {
	for i := range h.known {
		i = (h.last + i) % len(h.known)
		k := &h.known[i]
		if n := len(k.bytes); n > 0 && bytes.HasPrefix(b, k.bytes) {
			h.last = i
			if len(b)-n < k.length {
				return parsed{verdict: more}
			}
			end := n + k.length
			return parsed{verdict: start, body: b[n:end:end], size: end, close: k.close}
		}
	}
	p := parse(b, line, maxHead, maxBody)
	if n := p.size - len(p.body); p.verdict == start && n <= maxKnown {
		k := &h.known[h.turn]
		h.turn = (h.turn + 1) % len(h.known)
		k.bytes, k.length, k.close = append(k.bytes[:0], b[:n]...), len(p.body), p.close
	}
	return p
}

// short is what a head that does not end is.
func short(b []byte, maxHead int) parsed {
	if len(b) >= maxHead {
		return refuse(431, "the request's head is too long")
	}
	return parsed{verdict: more}
}

// fold compares a field's name with a lower-case one of the same length.
func fold(name []byte, lower string) bool {
	for i, c := range name {
		if c|0x20 != lower[i] && c != lower[i] { // no name looked for has a byte whose upper-case partner is another tchar
			return false
		}
	}
	return true
}

// lists says whether a comma list (RFC 9110, 5.6.1) has an element, whatever its case.
func lists(value []byte, element string) bool {
	for from, i := 0, 0; i <= len(value); i++ {
		if i < len(value) && value[i] != ',' {
			continue
		}
		if e := trim(value[from:i]); len(e) == len(element) && fold(e, element) {
			return true
		}
		from = i + 1
	}
	return false
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func digits(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
