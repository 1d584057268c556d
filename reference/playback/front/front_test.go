package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echo answers a play start with its own body.
func echo(dst []byte, _ time.Time, body []byte) ([]byte, int, int) {
	dst = append(append(append(dst, `{"got":"`...), body...), `"}`...)
	if bytes.HasPrefix(body, []byte("shed")) {
		return dst, 503, 7
	}
	return dst, 200, 0
}

var paths = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
})

// serve runs a front until the test ends, or stop is called; how is "loop", "each" or "tls".
func serve(t testing.TB, how string, change func(*Config)) (dial func() net.Conn, stop func()) {
	t.Helper()
	addr, stop := listen(t, how, change)
	return func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if how == "tls" {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		}
		t.Cleanup(func() { c.Close() })
		return c
	}, stop
}

// listen is serve for clients that dial themselves.
func listen(t testing.TB, how string, change func(*Config)) (addr string, stop func()) {
	t.Helper()
	cfg := Config{Play: echo, Rest: paths, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		switch how {
		case "tls":
			ended <- f.ServeTLS(ctx, ln, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
		case "each":
			ended <- f.Serve(ctx, struct{ net.Listener }{ln})
		default:
			ended <- f.Serve(ctx, ln)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the front does not stop")
		}
		if n := f.conns.Load(); n != 0 {
			t.Errorf("%d connections are still counted after the end", n)
		}
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

var certificate = func() func(testing.TB) tls.Certificate {
	made := sync.OnceValues(func() (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	})
	return func(t testing.TB) tls.Certificate {
		c, err := made()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}()

func post(body string) string {
	return fmt.Sprintf("POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// read reads one answer.
func read(t testing.TB, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func every(t *testing.T, test func(t *testing.T, how string)) {
	for _, how := range []string{"loop", "each", "tls"} {
		t.Run(how, func(t *testing.T) { test(t, how) })
	}
}

func TestAnswers(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		dial, _ := serve(t, how, nil)
		c := dial()
		br := bufio.NewReader(c)
		io.WriteString(c, post("one"))
		resp, body := read(t, br)
		if resp.StatusCode != 200 || body != `{"got":"one"}` || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Access-Control-Allow-Origin") != "*" ||
			resp.Header.Get("Cache-Control") != "no-store" || resp.ContentLength != int64(len(body)) {
			t.Errorf("%d %v %s", resp.StatusCode, resp.Header, body)
		}
		if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at) > 5*time.Second {
			t.Errorf("Date %q: %v", resp.Header.Get("Date"), err)
		}
		io.WriteString(c, post("shed"))
		if resp, _ := read(t, br); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "7" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
		// The connection is closed when the client asks for it, after the answer.
		io.WriteString(c, "POST /v1/play HTTP/1.1\r\nHOST: x\r\nconnection: keep-alive, Close\r\ncontent-length: 4\r\n\r\nlast")
		if resp, body := read(t, br); body != `{"got":"last"}` || !resp.Close {
			t.Errorf("%v %s", resp.Header, body)
		}
		if _, err := br.ReadByte(); err != io.EOF {
			t.Errorf("after the last answer: %v", err)
		}
	})
}

// However a stream of requests is cut into pieces, its answers come whole and in order, also around what net/http answers.
func TestPipelining(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		dial, _ := serve(t, how, nil)
		for _, piece := range []int{1 << 20, 4000, 7, 1} {
			n := 300
			if piece < 10 {
				n = 20
			}
			c := dial()
			var all strings.Builder
			for i := range n {
				all.WriteString(post(fmt.Sprint("start ", i)))
			}
			all.WriteString("GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
			all.WriteString("POST /v1/play HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nend\r\n0\r\n\r\n") // net/http has it by now
			go func() {
				for b := []byte(all.String()); len(b) > 0; {
					k := min(piece, len(b))
					c.Write(b[:k])
					b = b[k:]
				}
			}()
			br := bufio.NewReader(c)
			for i := range n {
				if _, body := read(t, br); body != fmt.Sprintf(`{"got":"start %d"}`, i) {
					t.Fatalf("in pieces of %d, answer %d is %s", piece, i, body)
				}
			}
			if _, body := read(t, br); body != "GET /other " {
				t.Errorf("in pieces of %d: %s", piece, body)
			}
			if _, body := read(t, br); body != "POST /v1/play end" {
				t.Errorf("in pieces of %d: %s", piece, body)
			}
			c.Close()
		}
	})
}

func TestEverythingElseGoesToTheHandler(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		dial, _ := serve(t, how, nil)
		for request, want := range map[string]string{
			"GET /v1/play HTTP/1.1\r\nHost: x\r\n\r\n":                                                            "GET /v1/play ",
			"OPTIONS /v1/play HTTP/1.1\r\nHost: x\r\n\r\n":                                                        "OPTIONS /v1/play ",
			"POST /v1/play?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\ny":                                 "POST /v1/play y",
			"POST /v1/play HTTP/1.0\r\nContent-Length: 1\r\n\r\ny":                                                "POST /v1/play y",
			"POST /v1/other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n":        "POST /v1/other ab",
			"POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\ny":             "POST /v1/play y",
			"POST /v1/playlist HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + strings.Repeat("z", 70000): "POST /v1/playlist " + strings.Repeat("z", 70000),
		} {
			c := dial()
			go io.WriteString(c, request)
			br := bufio.NewReader(c)
			resp, body := read(t, br)
			if resp.StatusCode == 100 {
				resp, body = read(t, br)
			}
			if resp.StatusCode != 200 || body != want {
				t.Errorf("%.60q: %d %.60q", request, resp.StatusCode, body)
			}
		}
	})
}

// Whatever could be read in two ways is read in none, and nothing behind it is.
// A play start that would have to wait is taken off the loop with its connection, answers before it stay in order, and the client
// is brought back when the wait is over.
func TestAPlayStartThatWouldBlockGoesAside(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		var slow atomic.Bool
		release := make(chan struct{})
		dial, stop := serve(t, how, func(c *Config) {
			c.MaxRest = 1
			play := c.Play
			c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
				if slow.Load() && string(body) == "wait" {
					return dst, 0, 0
				}
				return play(dst, now, body)
			}
			c.Before = func(w http.ResponseWriter, r *http.Request) bool {
				if !Aside(r.Context()) {
					return false
				}
				if !slow.Load() {
					w.Header().Set("Connection", "close")
				}
				body, _ := io.ReadAll(r.Body)
				if string(body) == "wait" && slow.Load() {
					<-release
				}
				io.WriteString(w, "aside "+string(body))
				return true
			}
		})
		defer stop()
		slow.Store(true)
		var conns []net.Conn
		var readers []*bufio.Reader
		for range 3 { // more than MaxRest
			c := dial()
			defer c.Close()
			io.WriteString(c, post("a")+post("wait")+post("b"))
			br := bufio.NewReader(c)
			if resp, body := read(t, br); resp.StatusCode != 200 || !strings.Contains(body, "a") || strings.Contains(body, "aside") {
				t.Errorf("what came before: %d %s", resp.StatusCode, body)
			}
			conns, readers = append(conns, c), append(readers, br)
		}
		// The others are not held up, and neither is what goes to the handler.
		other := dial()
		defer other.Close()
		io.WriteString(other, post("c")+"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
		br := bufio.NewReader(other)
		for range 2 {
			if resp, body := read(t, br); resp.StatusCode == 0 || strings.Contains(body, "aside") {
				t.Errorf("meanwhile: %d %s", resp.StatusCode, body)
			}
		}
		close(release)
		for i, br := range readers {
			for _, want := range []string{"aside wait", "aside b"} {
				if _, body := read(t, br); body != want {
					t.Errorf("connection %d: %s, want %s", i, body, want)
				}
			}
		}
		slow.Store(false)
		io.WriteString(conns[0], post("d"))
		if resp, body := read(t, readers[0]); !resp.Close || body != "aside d" {
			t.Errorf("when the wait is over: %s, closing %v", body, resp.Close)
		}
	})
}

func TestBrokenRequestsAreRefused(t *testing.T) {
	const line, host = "POST /v1/play HTTP/1.1\r\n", "Host: x\r\n"
	requests := map[string]int{
		line + host + "\r\n": 411,
		line + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\na":              400,
		line + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\na":              400,
		line + host + "Content-Length: 1, 1\r\n\r\na":                                400,
		line + host + "Content-Length: +1\r\n\r\na":                                  400,
		line + host + "Content-Length: -1\r\n\r\na":                                  400,
		line + host + "Content-Length: 0x1\r\n\r\na":                                 400,
		line + host + "Content-Length:\r\n\r\na":                                     400,
		line + host + "Content-Length: 99999999999999999999\r\n\r\na":                400,
		line + host + "Content-Length: 5000\r\n\r\n":                                 413,
		line + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n":                  501,
		line + host + "Transfer-Encoding: x\r\n\r\n":                                 501,
		line + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na":     400,
		line + host + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\na":     400,
		line + host + "Content-Length : 1\r\n\r\na":                                  400,
		line + host + " Content-Length: 1\r\n\r\na":                                  400,
		line + host + "X: a\r\n b\r\nContent-Length: 1\r\n\r\na":                     400,
		line + host + "X: a\nContent-Length: 1\r\n\r\na":                             400,
		line + host + "Content-Length: 1\n\na":                                       400,
		line + host + "X: a\rb\r\nContent-Length: 1\r\n\r\na":                        400,
		line + host + "X: a\x00b\r\nContent-Length: 1\r\n\r\na":                      400,
		line + host + "X\r\nContent-Length: 1\r\n\r\na":                              400,
		line + host + ": x\r\nContent-Length: 1\r\n\r\na":                            400,
		line + "Content-Length: 1\r\n\r\na":                                          400,
		line + host + "Host: y\r\nContent-Length: 1\r\n\r\na":                        400,
		line + host + "X: " + strings.Repeat("x", 9000) + "\r\n":                     431,
		line + host + strings.Repeat("X: y\r\n", 100) + "Content-Length: 1\r\n\r\na": 431,
	}
	every(t, func(t *testing.T, how string) {
		var starts atomic.Int64
		dial, _ := serve(t, how, func(c *Config) {
			c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
				starts.Add(1)
				return echo(dst, now, body)
			}
		})
		for request, want := range requests {
			c := dial()
			br := bufio.NewReader(c)
			go io.WriteString(c, request+post("smuggled"))
			resp, body := read(t, br)
			if resp.StatusCode != want || !strings.Contains(body, `"error"`) || !resp.Close {
				t.Errorf("%.100q: %d %s, want %d", request, resp.StatusCode, body, want)
			}
			if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%.100q: after the refusal %q, %v", request, rest, err)
			}
			c.Close()
		}
		if n := starts.Load(); n > 0 {
			t.Errorf("%d play starts were taken out of broken requests", n)
		}
	})
}

func TestSlowAndIdleClientsAreCutOff(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		dial, _ := serve(t, how, func(c *Config) {
			c.HeadTime, c.ReadTime, c.IdleTime, c.SendTime = 300*time.Millisecond, 300*time.Millisecond, 600*time.Millisecond, 300*time.Millisecond
		})
		var wg sync.WaitGroup
		for what, sends := range map[string]string{
			"head": "POST /v1/play HTTP/1.1\r\nHost:", "body": "POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123", "nothing": "",
			"idle": post("x"), "other": "GET / HTTP/1.1\r\nHost:",
		} {
			c := dial()
			if what == "nothing" && how == "tls" {
				c = c.(*tls.Conn).NetConn() // not even a handshake
			}
			wg.Go(func() {
				began := time.Now()
				go func() { // a byte now and then does not help
					io.WriteString(c, sends)
					for what == "head" {
						time.Sleep(50 * time.Millisecond)
						if _, err := io.WriteString(c, "x"); err != nil {
							return
						}
					}
				}()
				io.Copy(io.Discard, c)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("slow %s: connected for %v", what, took)
				}
			})
		}
		wg.Wait()
	})
}

// Who does not read its answers is not read from, holds little, and is cut off; others are served meanwhile.
func TestAClientThatDoesNotRead(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		var starts atomic.Int64
		dial, _ := serve(t, how, func(c *Config) {
			c.SendTime = 500 * time.Millisecond
			c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
				starts.Add(1)
				return append(dst, make([]byte, 8000)...), 200, 0
			}
		})
		const (
			all  = 32 << 20 // bytes of play starts: more than the kernel keeps for one who does not read
			most = 5000     // play starts, 40 MB of answers: likewise
		)
		deaf := dial()
		blocked := make(chan int, 1)
		go func() {
			n, batch := 0, []byte(strings.Repeat(post("x"), 100))
			for n < all {
				k, err := deaf.Write(batch)
				if n += k; err != nil {
					break
				}
			}
			blocked <- n
		}()
		// Others are served until it is cut off, and that is soon.
		c := dial()
		br := bufio.NewReader(c)
		for others := int64(1); ; others++ {
			io.WriteString(c, post("y"))
			read(t, br)
			answered := starts.Load() - others
			if answered > most {
				t.Fatalf("it was read from without end: %d play starts are answered", answered)
			}
			select {
			case sent := <-blocked:
				t.Logf("%d bytes were sent, %d play starts answered", sent, answered)
				if sent >= all {
					t.Error("all that it sent was taken, though it reads nothing")
				}
				return
			default:
			}
		}
	})
}

// A slow reader gets everything in the end.
func TestASlowReaderGetsEverything(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		var starts atomic.Int64
		dial, _ := serve(t, how, func(c *Config) {
			c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
				starts.Add(1)
				return append(append(dst, bytes.Repeat([]byte(" "), 8000)...), body...), 200, 0
			}
		})
		c := dial()
		const n = 2000 // 16 MB of answers
		go func() {
			for i := range n {
				io.WriteString(c, post(fmt.Sprint(i)))
			}
			io.WriteString(c, "GET /last HTTP/1.1\r\nHost: x\r\n\r\n")
		}()
		// Until everything is full: the front answers no more, and there is more to answer.
		deadline := time.Now().Add(5 * time.Second)
		for seen, same := int64(0), 0; same < 20; same++ {
			if now := starts.Load(); now != seen || now == 0 {
				seen, same = now, 0
			}
			if time.Now().After(deadline) {
				t.Fatal("it is never full")
			}
			time.Sleep(time.Millisecond)
		}
		if starts.Load() == n {
			t.Fatal("nothing was ever full")
		}
		br := bufio.NewReader(c)
		for i := range n {
			if _, body := read(t, br); strings.TrimSpace(body) != fmt.Sprint(i) {
				t.Fatalf("answer %d is %q", i, strings.TrimSpace(body))
			}
		}
		if _, body := read(t, br); body != "GET /last " {
			t.Error(body)
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		dial, _ := serve(t, how, func(c *Config) { c.MaxConns = 3 })
		ask := func(c net.Conn) error {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			io.WriteString(c, post("x"))
			_, err := http.ReadResponse(bufio.NewReader(c), nil)
			return err
		}
		var open []net.Conn
		for range 3 {
			c := dial()
			if err := ask(c); err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		// One of them is net/http's by now, and counts as before.
		io.WriteString(open[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		http.ReadResponse(bufio.NewReader(open[0]), nil)
		fourth := dial()
		answered := make(chan error, 1)
		go func() { answered <- ask(fourth) }()
		select {
		case err := <-answered:
			t.Fatalf("the fourth connection was served (%v)", err)
		case <-time.After(300 * time.Millisecond):
		}
		open[0].Close()
		if err := <-answered; err != nil {
			t.Errorf("a place became free, and the fourth connection has %v", err)
		}
	})
}

func TestTheHandlerIsBounded(t *testing.T) {
	release := make(chan struct{})
	var inside, most atomic.Int64
	dial, _ := serve(t, "loop", func(c *Config) {
		c.MaxRest = 2
		c.Rest = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-release
			inside.Add(-1)
		})
	})
	var wg sync.WaitGroup
	for range 6 {
		c := dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		wg.Go(func() { read(t, bufio.NewReader(c)) })
	}
	// Play starts go on while the handler is stuck.
	c := dial()
	io.WriteString(c, post("x"))
	read(t, bufio.NewReader(c))
	close(release)
	wg.Wait()
	if most.Load() > 2 {
		t.Errorf("%d requests were handled at once", most.Load())
	}
}

func TestManyConnectionsOnSeveralLoops(t *testing.T) {
	dial, stop := serve(t, "loop", func(c *Config) { c.Loops = 3 })
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for range 5 {
				c := dial()
				br := bufio.NewReader(c)
				for k := range 10 {
					io.WriteString(c, post(fmt.Sprint(i, k)))
					if _, body := read(t, br); body != fmt.Sprintf(`{"got":"%d %d"}`, i, k) {
						t.Errorf("%d %d: %s", i, k, body)
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	stop()
}

// Clients that keep coming, with a handshake each and more of them than there are places, do not keep a front from ending, nor do
// connections that one loop accepted for another that has left.
func TestItEndsWhileClientsKeepComing(t *testing.T) {
	every(t, func(t *testing.T, how string) {
		for range 50 {
			var starts atomic.Int64
			served := make(chan struct{})
			addr, stop := listen(t, how, func(c *Config) {
				if c.Loops = 3; how != "loop" { // a loop at its bound listens again only at its next sweep
					c.MaxConns = 4
				}
				c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
					if starts.Add(1) == 8 {
						close(served)
					}
					return echo(dst, now, body)
				}
			})
			ended := make(chan struct{})
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for {
						select {
						case <-ended:
							return
						default:
						}
						c, err := net.Dial("tcp", addr)
						if err != nil {
							continue // it has ended
						}
						c.SetDeadline(time.Now().Add(time.Second))
						plain := c
						if how == "tls" {
							c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
						}
						io.WriteString(c, post("x"))
						http.ReadResponse(bufio.NewReader(c), nil)
						plain.Close()
					}
				})
			}
			select {
			case <-served:
			case <-time.After(5 * time.Second):
				t.Error("nobody is served")
			}
			stop()
			close(ended)
			wg.Wait()
			if t.Failed() {
				return
			}
		}
	})
}

// Whoever has a connection of its own hears how long its answers took, and of how many at once.
func TestObserve(t *testing.T) {
	for _, how := range []string{"each", "tls"} {
		t.Run(how, func(t *testing.T) {
			heard := make(chan time.Duration, 100)
			dial, _ := serve(t, how, func(c *Config) {
				c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
					time.Sleep(20 * time.Millisecond)
					return echo(dst, now, body)
				}
				c.Observe = func(now time.Time, n int, queue time.Duration) {
					if n < 1 || now.IsZero() {
						t.Errorf("%d in flight at %v", n, now)
					}
					heard <- queue
				}
			})
			c := dial()
			io.WriteString(c, strings.Repeat(post("x"), 3))
			br := bufio.NewReader(c)
			for range 3 {
				read(t, br)
			}
			select {
			case queue := <-heard:
				if queue < 20*time.Millisecond {
					t.Errorf("a queueing delay of %v, though each start takes 20 ms", queue)
				}
			case <-time.After(5 * time.Second):
				t.Error("nothing was heard")
			}
		})
	}
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	for _, cfg := range []Config{{}, {Play: echo, Rest: paths}, {Play: echo, Rest: paths, Now: time.Now, MaxBody: 1 << 20}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// FuzzParse: what is taken as a play start is what net/http takes as one, byte for byte, and cutting the input anywhere never changes
// the verdict on what is whole.
func FuzzParse(f *testing.F) {
	f.Add([]byte(post("x")), uint16(3))
	f.Add([]byte("POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na"), uint16(30))
	f.Add([]byte("POST /v1/play HTTP/1.1\r\nHost:x\r\ncontent-LENGTH:\t2 \r\nConnection: a,close\r\n\r\nabPOST"), uint16(70))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(1))
	const line = "POST /v1/play HTTP/1.1\r\n"
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		p := parse(b, line, 2048, 512)
		var known heads
		for range 2 {
			known.parse([]byte(post("yz")), line, 2048, 512)
			if again := known.parse(b, line, 2048, 512); again.verdict != p.verdict || again.size != p.size || again.close != p.close || !bytes.Equal(again.body, p.body) {
				t.Fatalf("%q is %+v, and %+v when its head and another are known", b, p, again)
			}
		}
		part := parse(b[:min(int(cut), len(b))], line, 2048, 512)
		if part.verdict != more && (part.verdict != p.verdict || part.status != p.status || part.size != p.size) {
			t.Fatalf("%q cut at %d is %+v, whole %+v", b, cut, part, p)
		}
		if p.verdict != start {
			return
		}
		br := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(br)
		if err != nil {
			// net/http judges values that mean nothing to a play start (an odd Host).
			if strings.Contains(err.Error(), "Host") {
				return
			}
			t.Fatalf("%q is taken, but %v", b, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(body, p.body) || r.Method != "POST" || r.URL.Path != "/v1/play" || r.Close != p.close {
			t.Fatalf("%q is taken as %q (close %v), net/http reads %q (close %v), %v", b, p.body, p.close, body, r.Close, err)
		}
		rest, _ := io.ReadAll(br)
		if len(b)-len(rest) != p.size {
			t.Fatalf("%q has %d bytes for us, %d for net/http", b, p.size, len(b)-len(rest))
		}
	})
}

// Requests whose heads are known, and those between them whose are not, are read as they are.
func TestKnownHeads(t *testing.T) {
	const line = "POST /v1/play HTTP/1.1\r\n"
	for _, lengths := range []int{3, 20} { // fewer and more than are remembered
		var known heads
		for round := range 3 {
			for i := range lengths {
				body := strings.Repeat("x", i)
				closing := strings.Replace(post(body), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
				for again := range 2 {
					if p := known.parse([]byte(post(body)+"POST"), line, 2048, 512); p.verdict != start || string(p.body) != body || p.size != len(post(body)) || p.close {
						t.Errorf("round %d, time %d: %d bytes are read as %+v", round, again, i, p)
					}
					if p := known.parse([]byte(closing), line, 2048, 512); p.verdict != start || string(p.body) != body || p.size != len(closing) || !p.close {
						t.Errorf("round %d, time %d: %d bytes to close are read as %+v", round, again, i, p)
					}
					if cut := post(body); i > 0 && known.parse([]byte(cut[:len(cut)-1]), line, 2048, 512).verdict != more {
						t.Errorf("round %d, time %d: %d bytes but one are taken", round, again, i)
					}
				}
			}
		}
	}
}

func BenchmarkParse(b *testing.B) {
	request := []byte("POST /v1/play HTTP/1.1\r\nHost: 127.0.1.5:8080\r\nUser-Agent: tminus\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 100))
	for name, parse := range map[string]func([]byte, string, int, int) parsed{"new": parse, "known": new(heads).parse} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if parse(request, "POST /v1/play HTTP/1.1\r\n", 8192, 4096).verdict != start {
					b.Fatal()
				}
			}
		})
	}
}

// BenchmarkWork is a batch of eight without sockets.
func BenchmarkWork(b *testing.B) {
	f, err := New(Config{Play: echo, Rest: paths, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	w := worker{f: f, now: time.Now()}
	batch := []byte(strings.Repeat(post(strings.Repeat("x", 100)), 8))
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		if out, _, _ = w.work(batch, out[:0]); len(out) == 0 {
			b.Fatal()
		}
	}
}
