package starts

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// Bounds on an answer. A play start's is about half a kilobyte.
const (
	maxLine    = 4 << 10
	maxHeaders = 64
	maxBody    = 64 << 10
	maxAnswer  = maxBody + 32<<10 // with its headers and chunk sizes
	maxSession = 1 << 10
)

var (
	errNotHTTP = errors.New("not an HTTP/1 answer")
	errTooLong = errors.New("answer too long")
)

// requestHead is the request to a service up to the value of Content-Length.
func requestHead(addr string) []byte {
	return []byte("POST /v1/play HTTP/1.1\r\nHost: " + addr +
		"\r\nUser-Agent: tminus\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: ")
}

// answer is one HTTP/1 response (RFC 9112); its body is reused from one read to the next.
type answer struct {
	status int
	close  bool // the connection cannot be used again
	body   []byte
}

// read parses one response. It is strict: what RFC 9112 calls an error is one, and interim (1xx) responses, which
// nobody asked for, are too. The reader must have a buffer of maxLine bytes.
func (a *answer) read(br *bufio.Reader) error {
	a.status, a.close, a.body = 0, false, a.body[:0]
	line, err := readLine(br)
	if err != nil {
		return err
	}
	// status-line = HTTP-version SP 3DIGIT SP [ reason ]
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return errNotHTTP
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return errNotHTTP
		}
		a.status = a.status*10 + int(c-'0')
	}
	if a.status < 200 || a.status > 599 {
		return errNotHTTP
	}
	a.close = line[7] == '0'

	length, chunked := -1, false
	for n := 0; ; n++ {
		line, err := readLine(br)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		if n == maxHeaders {
			return errTooLong
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !isToken(name) {
			return errNotHTTP
		}
		value = bytes.Trim(value, " \t")
		switch {
		case equalFold(name, "content-length"):
			v, ok := digits(value)
			if !ok || length >= 0 && length != v {
				return errNotHTTP
			}
			length = v
		case equalFold(name, "transfer-encoding"):
			if chunked || !equalFold(value, "chunked") {
				return errNotHTTP
			}
			chunked = true
		case equalFold(name, "connection"):
			a.close = a.close || bytes.Contains(bytes.ToLower(value), []byte("close"))
		}
	}
	switch {
	case chunked && length >= 0:
		return errNotHTTP // RFC 9112, 6.3: an attempt at response splitting
	case a.status == 204 || a.status == 304:
		return nil
	case chunked:
		return a.readChunks(br)
	case length > maxBody:
		return errTooLong
	case length >= 0:
		return a.append(br, length)
	}
	// Without a length the body lasts until the connection is closed; meter bounds it.
	a.close = true
	for {
		if len(a.body) > maxBody {
			return errTooLong
		}
		if _, err := br.Peek(1); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		b, _ := br.Peek(br.Buffered())
		a.body = append(a.body, b...)
		br.Discard(len(b)) //nolint:errcheck // it is buffered
	}
}

func (a *answer) readChunks(br *bufio.Reader) error {
	for {
		line, err := readLine(br)
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		size = bytes.Trim(size, " \t")
		if len(size) == 0 || len(size) > 8 {
			return errNotHTTP
		}
		n, err := strconv.ParseUint(string(size), 16, 32)
		if err != nil {
			return errNotHTTP
		}
		if n == 0 {
			break
		}
		if n > maxBody || len(a.body)+int(n) > maxBody {
			return errTooLong
		}
		if err := a.append(br, int(n)); err != nil {
			return err
		}
		if line, err = readLine(br); err != nil {
			return err
		} else if len(line) != 0 {
			return errNotHTTP
		}
	}
	for n := 0; ; n++ { // trailers
		line, err := readLine(br)
		if err != nil || len(line) == 0 {
			return err
		}
		if n == maxHeaders {
			return errTooLong
		}
	}
}

// append reads n more bytes of the body. It grows the body by what has arrived, not by what was announced.
func (a *answer) append(br *bufio.Reader, n int) error {
	for n > 0 {
		if _, err := br.Peek(1); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		b, _ := br.Peek(min(n, br.Buffered()))
		a.body = append(a.body, b...)
		br.Discard(len(b)) //nolint:errcheck // it is buffered
		n -= len(b)
	}
	return nil
}

// readLine returns a line without its CRLF (a bare LF is accepted: RFC 9112, 2.2), valid until the next read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return nil, errTooLong
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

func isToken(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return len(b) > 0
}

// equalFold compares an ASCII name with a lower-case one.
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

// session returns the session of a play start's answer, or what is wrong with the answer.
func (a *answer) session() (session, problem string) {
	var v struct {
		Session   string `json:"session"`
		Manifests struct {
			DASH string `json:"dash"`
			HLS  string `json:"hls"`
		} `json:"manifests"`
	}
	switch err := json.Unmarshal(a.body, &v); {
	case err != nil:
		return "", whyNotJSON
	case v.Session == "" || len(v.Session) > maxSession:
		return "", whyNoSession
	case !isURL(v.Manifests.DASH) || !isURL(v.Manifests.HLS):
		return "", whyNoManifest
	}
	return v.Session, ""
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// retryPolicy is how a shedding server guides its clients' backoff.
type retryPolicy struct {
	max   int
	after time.Duration
}

// retryPolicy returns the answer's, and false when it has none: then it is a server error like any other.
func (a *answer) retryPolicy() (retryPolicy, bool) {
	var v struct {
		Policy *struct {
			Max   int     `json:"maxRetries"`
			After float64 `json:"retryAfterSeconds"`
		} `json:"retryPolicy"`
	}
	if json.Unmarshal(a.body, &v) != nil || v.Policy == nil || v.Policy.Max < 0 || !(v.Policy.After >= 0) {
		return retryPolicy{}, false
	}
	return retryPolicy{v.Policy.Max, time.Duration(min(v.Policy.After, maxRetryAfter.Seconds()) * 1e9)}, true
}

func statusDetail(status int) string { return "HTTP " + strconv.Itoa(status) }
