package answer

import (
	"bytes"
	"errors"
	"io"
)

// Bounds on an answer. A play start's is about half a kilobyte.
const (
	MaxLine    = 4 << 10          // of a status line, a header, a chunk's size
	MaxHeaders = 64               // and as many trailers
	MaxBody    = 64 << 10         //
	MaxAnswer  = MaxBody + 32<<10 // the body with its headers and chunk sizes
	keepBody   = 4 << 10          // a larger buffer is not kept for the next answer
	keepLine   = 512              //
)

// What is wrong with an answer. A connection that ends within one is io.ErrUnexpectedEOF, and before one io.EOF.
var (
	ErrNotHTTP = errors.New("not an HTTP/1 answer")
	ErrTooLong = errors.New("answer too long")
)

// Parser reads the answers of one connection, one after the other. The zero value is ready.
type Parser struct {
	Status     int
	Close      bool   // the connection cannot be used after this answer
	RetryAfter int    // seconds, of the header of that name; -1: there is none, or a date
	Body       []byte // valid until the bytes given to Feed change, or the next Feed or Reset

	step  step
	count int // headers or trailers so far
	left  int // bytes to come of the body or chunk; -1: no length was given
	total int // bytes of the answer so far, whole lines and pieces of the body
	begun bool
	chunk bool

	// Heads may be set, and shared by the parsers of one goroutine: a head that is byte for byte one of the last few is not
	// parsed again.
	Heads *Heads

	line []byte // the beginning of a line that has not ended
	own  []byte // the beginning of a body that has not ended
}

type step uint8

const (
	statusLine step = iota
	headers
	body
	toTheEnd // of the connection
	chunkSize
	chunkData
	chunkEnd
	trailers
)

// Reset prepares for the connection's next answer. Buffers that grew beyond a usual answer are let go.
func (p *Parser) Reset() {
	line, own := p.line[:0], p.own[:0]
	if cap(line) > keepLine {
		line = nil
	}
	if cap(own) > keepBody {
		own = nil
	}
	*p = Parser{Heads: p.Heads, line: line, own: own}
}

// Begun reports whether a byte of the answer has come.
func (p *Parser) Begun() bool { return p.begun }

// Feed takes the next bytes of the connection. It returns how many of them belong to the answer, and whether that is
// whole: then the rest belongs to the next one, after Reset. It is strict: what RFC 9112 calls an error is
// one, and interim (1xx) answers, which nobody asked for, are too. After an error the connection is of no more use.
func (p *Parser) Feed(b []byte) (used int, done bool, err error) {
	var remember []byte
	if !p.begun && p.Heads != nil {
		if h := p.Heads.find(b); h != nil {
			p.Status, p.Close, p.RetryAfter = h.status, h.close, h.retryAfter
			p.step, p.left, p.count, p.chunk = h.step, h.left, h.count, h.chunk
			p.begun = true
			used = len(h.text)
			p.total = used
			if h.done {
				return used, true, nil
			}
		} else {
			remember = b
		}
	}
	p.begun = p.begun || len(b) > 0
	for used < len(b) {
		rest := b[used:]
		switch p.step {
		case body, chunkData:
			n := min(p.left, len(rest))
			if p.step == body && len(p.own) == 0 && n == p.left { // all of it at once: no need to copy
				p.Body = rest[:n]
			} else {
				p.own = append(p.own, rest[:n]...)
				p.Body = p.own
			}
			p.left -= n
			p.total += n
			used += n
			if p.total > MaxAnswer {
				return used, false, ErrTooLong
			}
			if p.left > 0 {
				return used, false, nil
			}
			if p.step == body {
				return used, true, nil
			}
			p.step = chunkEnd
		case toTheEnd:
			p.own = append(p.own, rest[:min(len(rest), MaxBody+1-len(p.own))]...)
			p.Body = p.own
			used = len(b)
			if len(p.own) > MaxBody {
				return used, false, ErrTooLong
			}
		default:
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				used = len(b)
				if len(p.line)+len(rest) >= MaxLine {
					return used, false, ErrTooLong
				}
				p.line = append(p.line, rest...)
				return used, false, nil
			}
			used += i + 1
			if len(p.line)+i+1 > MaxLine {
				return used, false, ErrTooLong
			}
			line := rest[:i]
			if len(p.line) > 0 {
				p.line = append(p.line, line...)
				line = p.line
			}
			p.total += len(line) + 1
			if p.total > MaxAnswer {
				return used, false, ErrTooLong
			}
			// A bare LF ends a line too (RFC 9112, 2.2).
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			inHead := p.step <= headers
			done, err = p.take(line)
			p.line = p.line[:0]
			if inHead && p.step > headers && remember != nil && err == nil {
				p.Heads.learn(remember[:used], p, done)
			}
			if done || err != nil {
				return used, done, err
			}
		}
	}
	return used, false, nil
}

// End says what it means that the connection has ended here: for an answer without a length that it is whole, else the
// error. Between two answers that is io.EOF.
func (p *Parser) End() (done bool, err error) {
	switch {
	case p.step == toTheEnd:
		return true, nil
	case p.begun:
		return false, io.ErrUnexpectedEOF
	}
	return false, io.EOF
}

// Heads remembers the last few heads of answers: those of one server are alike to the byte, but for a length. The zero
// value is ready.
type Heads struct {
	last [4]head
	next int
}

type head struct {
	text       []byte
	status     int
	retryAfter int
	left       int
	count      int
	step       step
	close      bool
	chunk      bool
	done       bool
}

// maxHead bounds a head that is remembered.
const maxHead = 1 << 10

func (h *Heads) find(b []byte) *head {
	for i := range h.last {
		if l := &h.last[i]; len(l.text) > 0 && len(b) >= len(l.text) && string(b[:len(l.text)]) == string(l.text) {
			return l
		}
	}
	return nil
}

func (h *Heads) learn(text []byte, p *Parser, done bool) {
	if len(text) > maxHead {
		return
	}
	l := &h.last[h.next]
	h.next = (h.next + 1) % len(h.last)
	*l = head{append(l.text[:0], text...), p.Status, p.RetryAfter, p.left, p.count, p.step, p.Close, p.chunk, done}
}

// take reads one whole line.
func (p *Parser) take(line []byte) (done bool, err error) {
	switch p.step {
	case statusLine:
		return false, p.takeStatus(line)
	case headers:
		if len(line) == 0 {
			return p.endHeaders()
		}
		return false, p.takeHeader(line)
	case chunkSize:
		return false, p.takeChunkSize(line)
	case chunkEnd:
		if len(line) != 0 {
			return false, ErrNotHTTP
		}
		p.step = chunkSize
		return false, nil
	default: // trailers
		if len(line) == 0 {
			return true, nil
		}
		if p.count++; p.count > MaxHeaders {
			return false, ErrTooLong
		}
		return false, nil
	}
}

// takeStatus reads: status-line = HTTP-version SP 3DIGIT SP [ reason ]; the last space is often missing.
func (p *Parser) takeStatus(line []byte) error {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return ErrNotHTTP
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return ErrNotHTTP
		}
		status = status*10 + int(c-'0')
	}
	if status < 200 || status > 599 {
		return ErrNotHTTP
	}
	p.Status = status
	p.Close = line[7] == '0'
	p.RetryAfter, p.left = -1, -1
	p.step = headers
	return nil
}

func (p *Parser) takeHeader(line []byte) error {
	if p.count++; p.count > MaxHeaders {
		return ErrTooLong
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return ErrNotHTTP
	}
	name := line[:colon]
	for _, c := range name {
		if !token[c] {
			return ErrNotHTTP
		}
	}
	// By length first: most headers are none of these.
	switch len(name) {
	case len("content-length"):
		if equalFold(name, "content-length") {
			v, ok := digits(trim(line[colon+1:]))
			if !ok || p.left >= 0 && p.left != v {
				return ErrNotHTTP
			}
			p.left = v
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			if p.chunk || !equalFold(trim(line[colon+1:]), "chunked") {
				return ErrNotHTTP
			}
			p.chunk = true
		}
	case len("connection"):
		if equalFold(name, "connection") && contains(line[colon+1:], "close") {
			p.Close = true
		}
	case len("retry-after"):
		if equalFold(name, "retry-after") {
			if v, ok := digits(trim(line[colon+1:])); ok {
				p.RetryAfter = v
			}
		}
	}
	return nil
}

func (p *Parser) endHeaders() (done bool, err error) {
	switch {
	case p.chunk && p.left >= 0:
		return false, ErrNotHTTP // RFC 9112, 6.3: an attempt at response splitting
	case p.Status == 204 || p.Status == 304:
		return true, nil
	case p.chunk:
		p.step, p.count = chunkSize, 0
		return false, nil
	case p.left > MaxBody:
		return false, ErrTooLong
	case p.left >= 0:
		p.step = body
		return p.left == 0, nil
	}
	p.step, p.Close = toTheEnd, true
	return false, nil
}

func (p *Parser) takeChunkSize(line []byte) error {
	if semi := bytes.IndexByte(line, ';'); semi >= 0 {
		line = line[:semi]
	}
	line = trim(line)
	if len(line) == 0 || len(line) > 8 {
		return ErrNotHTTP
	}
	n := 0
	for _, c := range line {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return ErrNotHTTP
		}
		n = n<<4 | int(c)
	}
	switch {
	case n == 0:
		p.step, p.count = trailers, 0
	case n > MaxBody || len(p.own)+n > MaxBody:
		return ErrTooLong
	default:
		p.step, p.left = chunkData, n
	}
	return nil
}

// token says which bytes a header's name may have (RFC 9110, 5.6.2).
var token = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = true
	}
	for _, c := range `"(),/:;<=>?@[\]{}` {
		t[c] = false
	}
	return t
}()

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares ASCII with a lower-case word.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func contains(b []byte, lower string) bool {
	for ; len(b) >= len(lower); b = b[1:] {
		if equalFold(b[:len(lower)], lower) {
			return true
		}
	}
	return false
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
