package starts

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	for _, tc := range []struct {
		in     string
		status int
		body   string
		close  bool
		err    error
	}{
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", status: 200, body: "{}"},
		{in: "HTTP/1.1 200\r\ncontent-length:2\r\nConnection: close\r\n\r\n{}", status: 200, body: "{}", close: true},
		{in: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, close: true},
		{in: "HTTP/1.1 200 OK\n\nuntil the end", status: 200, body: "until the end", close: true},
		{in: "HTTP/1.1 503 Busy\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n", status: 503, body: "abc0123456789"},
		{in: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
		{in: "", err: io.EOF},
		{in: "HTTP/1.1 200", err: io.ErrUnexpectedEOF},
		{in: "HTTP/2.0 200 OK\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 2000 OK\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 099 OK\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\n folded\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nBad name: x\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", err: errTooLong},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", err: io.ErrUnexpectedEOF},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", err: errTooLong},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", err: errNotHTTP},
		{in: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", maxHeaders+1) + "\r\n", err: errTooLong},
		{in: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", maxLine) + "\r\n\r\n", err: errTooLong},
	} {
		var a answer
		err := a.read(bufio.NewReaderSize(strings.NewReader(tc.in), maxLine))
		if !errors.Is(err, tc.err) || err == nil && (a.status != tc.status || string(a.body) != tc.body || a.close != tc.close) {
			t.Errorf("%.60q: %d %q close=%v, %v; want %d %q close=%v, %v", tc.in, a.status, a.body, a.close, err, tc.status, tc.body, tc.close, tc.err)
		}
	}
}

// Whatever a server sends: reading ends, keeps within the bounds, and reads the same however the bytes are cut.
func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{
		response(200, good),
		response(503, `{"retryPolicy":{"maxRetries":2,"retryAfterSeconds":1.5}}`),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nrest",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var a, b answer
		errA := a.read(bufio.NewReaderSize(bytes.NewReader(in), maxLine))
		errB := b.read(bufio.NewReaderSize(oneByte{bytes.NewReader(in)}, maxLine))
		if (errA == nil) != (errB == nil) || errA == nil && (a.status != b.status || a.close != b.close || !bytes.Equal(a.body, b.body)) {
			t.Errorf("whole: %+v %v; byte by byte: %+v %v", a, errA, b, errB)
		}
		if len(a.body) > maxBody+maxLine {
			t.Errorf("a body of %d bytes", len(a.body))
		}
		if errA == nil {
			a.session()
			if p, ok := a.retryPolicy(); ok && (p.max < 0 || p.after < 0 || p.after > maxRetryAfter) {
				t.Errorf("retry policy %+v", p)
			}
		}
	})
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }
