package answer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func response(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// read parses the first answer of in, given in pieces of at most cut bytes, and then the connection's end.
func read(p *Parser, in []byte, cut func(i int) int) (used int, err error) {
	p.Reset()
	for used < len(in) {
		piece := in[used:min(len(in), used+cut(used))]
		n, done, err := p.Feed(piece)
		used += n
		if done || err != nil {
			return used, err
		}
		if n != len(piece) {
			return used, fmt.Errorf("took %d of %d bytes without an end", n, len(piece))
		}
	}
	_, err = p.End()
	return used, err
}

func whole(int) int   { return 1 << 30 }
func oneByte(int) int { return 1 }

func TestParser(t *testing.T) {
	for _, tc := range []struct {
		in     string
		status int
		body   string
		close  bool
		rest   string
		err    error
	}{
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", status: 200, body: "{}"},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200", status: 200, body: "{}", rest: "HTTP/1.1 200"},
		{in: "HTTP/1.1 200\r\ncontent-length:2\r\nConnection: close\r\n\r\n{}", status: 200, body: "{}", close: true},
		{in: "HTTP/1.1 200\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", status: 200, close: true},
		{in: "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, close: true},
		{in: "HTTP/1.1 200 OK\n\nuntil the end", status: 200, body: "until the end", close: true},
		{in: "HTTP/1.1 503 Busy\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\nrest", status: 503, body: "abc0123456789", rest: "rest"},
		{in: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
		{in: "", err: io.EOF},
		{in: "HTTP/1.1 200", err: io.ErrUnexpectedEOF},
		{in: "HTTP/2.0 200 OK\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 2000 OK\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 099 OK\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 100 Continue\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\n folded\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\n: nameless\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nBad name: x\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n{}", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", err: io.ErrUnexpectedEOF},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", err: ErrNotHTTP},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", MaxHeaders+1) + "\r\n", err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", MaxHeaders+1) + "\r\n", err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", MaxLine) + "\r\n\r\n", err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("b", MaxLine-10)+"\r\n", 30), err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", MaxBody+1), err: ErrTooLong},
		{in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 1000), err: ErrTooLong},
	} {
		for how, cut := range map[string]func(int) int{"whole": whole, "byte by byte": oneByte} {
			var p Parser
			used, err := read(&p, []byte(tc.in), cut)
			if !errors.Is(err, tc.err) {
				// The end of the connection is the end of an answer without a length.
				t.Errorf("%s %.60q: %v, want %v", how, tc.in, err, tc.err)
				continue
			}
			if err == nil && (p.Status != tc.status || string(p.Body) != tc.body || p.Close != tc.close || tc.in[used:] != tc.rest) {
				t.Errorf("%s %.60q: %d %q close=%v, rest %q; want %d %q close=%v, rest %q", how, tc.in, p.Status, p.Body, p.Close, tc.in[used:], tc.status, tc.body, tc.close, tc.rest)
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]int{"": -1, "Retry-After: 7\r\n": 7, "retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n": -1, "Retry-After: -3\r\n": -1} {
		var p Parser
		if _, err := read(&p, []byte("HTTP/1.1 503 Busy\r\n"+header+"Content-Length: 0\r\n\r\n"), whole); err != nil || p.RetryAfter != want {
			t.Errorf("%q: %d, %v; want %d", header, p.RetryAfter, err, want)
		}
	}
}

// A large answer does not leave a large buffer behind, and what a usual one needs is kept.
func TestBuffersAreLetGo(t *testing.T) {
	var p Parser
	if _, err := read(&p, []byte(response(200, strings.Repeat("x", MaxBody))), func(int) int { return 1000 }); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	if cap(p.own) > keepBody || cap(p.line) > keepLine {
		t.Errorf("keeps %d and %d bytes", cap(p.own), cap(p.line))
	}
	usual := []byte(response(200, strings.Repeat("x", 600)))
	if n := testing.AllocsPerRun(100, func() { read(&p, usual, whole) }); n != 0 {
		t.Errorf("%v allocations for an answer in one piece", n)
	}
	p.Heads = &Heads{}
	read(&p, usual, whole)
	if n := testing.AllocsPerRun(100, func() { read(&p, usual, whole) }); n != 0 {
		t.Errorf("%v allocations for one with a known head", n)
	}
	half := func(int) int { return 400 }
	read(&p, usual, half)
	if n := testing.AllocsPerRun(100, func() { read(&p, usual, half) }); n != 0 {
		t.Errorf("%v allocations for one in pieces", n)
	}
}

// Whatever a server sends, however the bytes are cut: the parser ends, keeps within its bounds, and says the same as
// when it has them all at once.
func FuzzParser(f *testing.F) {
	for _, s := range []string{
		response(200, `{"session":"s"}`) + "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.0 200 OK\n\nrest",
		"HTTP/1.1 200 OK\r\nRetry-After: 3\r\nConnection: close\r\n\r\n",
	} {
		f.Add([]byte(s), uint64(0))
		f.Add([]byte(s), uint64(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		var a, b, c Parser
		usedA, errA := read(&a, in, whole)
		c.Heads = &Heads{}
		for range 2 { // the second time the head is known
			usedC, errC := read(&c, in, whole)
			if errA != errC || errA == nil && (usedA != usedC || a.Status != c.Status || a.Close != c.Close || a.RetryAfter != c.RetryAfter || !bytes.Equal(a.Body, c.Body)) {
				t.Errorf("with heads: %d bytes, %d %q close=%v, %v; without: %d bytes, %d %q close=%v, %v", usedC, c.Status, c.Body, c.Close, errC, usedA, a.Status, a.Body, a.Close, errA)
			}
		}
		draw := seed
		usedB, errB := read(&b, bytes.Clone(in), func(int) int {
			draw = draw*6364136223846793005 + 1442695040888963407
			return int(draw>>59) + 1
		})
		if errA != errB || errA == nil && (usedA != usedB || a.Status != b.Status || a.Close != b.Close || a.RetryAfter != b.RetryAfter || !bytes.Equal(a.Body, b.Body)) {
			t.Errorf("whole: %d bytes, %d %q close=%v, %v; in pieces: %d bytes, %d %q close=%v, %v", usedA, a.Status, a.Body, a.Close, errA, usedB, b.Status, b.Body, b.Close, errB)
		}
		for _, p := range []*Parser{&a, &b} {
			if len(p.Body) > MaxBody+1 || len(p.line) > MaxLine || cap(p.own) > 2*MaxBody {
				t.Errorf("a body of %d bytes, a line of %d, a buffer of %d", len(p.Body), len(p.line), cap(p.own))
			}
		}
	})
}

func BenchmarkParser(b *testing.B) {
	in := []byte(response(200, strings.Repeat("x", 600)))
	for name, heads := range map[string]*Heads{"any": nil, "alike": {}} {
		b.Run(name, func(b *testing.B) {
			p := Parser{Heads: heads}
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				p.Reset()
				if _, done, err := p.Feed(in); !done || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
