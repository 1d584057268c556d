package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

// server accepts connections and hands each to do.
func server(t *testing.T, do func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { do(c); c.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) { io.Copy(c, c) } //nolint:errcheck // a test that misses it fails

func runTCP(t *testing.T, c Config) *TCP {
	t.Helper()
	c.Listen = local
	r, err := ListenTCP(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func dial(t *testing.T, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a word and waits for the same.
func ask(t *testing.T, c *net.TCPConn, word string) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	if string(b) != word {
		t.Fatalf("%q comes back as %q", word, b)
	}
	return time.Since(began)
}

func setTCP(t *testing.T, r *TCP, ups, downs link.Impairment) {
	t.Helper()
	if err := r.Set(ups, downs); err != nil {
		t.Fatal(err)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(b) //nolint:errcheck // never fails
	return b
}

// exchange sends b, ends the stream, and returns what comes back.
func exchange(t *testing.T, c *net.TCPConn, b []byte) []byte {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c.Write(b)     //nolint:errcheck // what comes back would not be the same
		c.CloseWrite() //nolint:errcheck // as before
	})
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBytesArriveAsTheyAreWhateverHappens(t *testing.T) {
	want := noise(8 << 20)
	for name, i := range map[string]link.Impairment{
		"nothing": {}, "delay": {Delay: 5 * ms, Jitter: 5 * ms}, "rate": {Rate: 200e6}, "all": {Delay: 2 * ms, Jitter: 1 * ms, Rate: 400e6, Queue: 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			r := runTCP(t, Config{Upstream: server(t, echo)})
			setTCP(t, r, i, i)
			if got := exchange(t, dial(t, r.Addr()), want); !bytes.Equal(got, want) {
				t.Fatalf("%d bytes come back as %d others", len(want), len(got))
			}
			c := r.Counts()
			if c.UpBytes != uint64(len(want)) || c.DownBytes != uint64(len(want)) || c.Accepted != 1 {
				t.Errorf("counted %+v", c)
			}
			eventually(t, "the connection is closed", func() bool { return r.Counts().Sessions == 0 })
		})
	}
}

func TestBytesSurviveEveryChangeOfOrders(t *testing.T) {
	want := noise(32 << 20)
	r := runTCP(t, Config{Upstream: server(t, echo)})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for k := 0; ; k++ {
			select {
			case <-stop:
				r.Clear()
				return
			case <-time.After(ms):
			}
			i := []link.Impairment{{Delay: ms}, {}, {Rate: 1e9}, {Cut: true}, {Delay: 2 * ms, Jitter: ms}}[k%5]
			if r.Set(i, i) != nil {
				panic("a valid order is refused")
			}
		}
	})
	got := exchange(t, dial(t, r.Addr()), want)
	close(stop)
	wg.Wait()
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%d bytes come back as %d others", len(want), len(got))
	}
}

func TestTCPDelay(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, echo)})
	c := dial(t, r.Addr())
	ask(t, c, "before")
	setTCP(t, r, link.Impairment{Delay: 30 * ms}, link.Impairment{Delay: 20 * ms})
	if took := ask(t, c, "there and back"); took < 50*ms {
		t.Errorf("an answer takes %s, want 50ms at least", took)
	}
	// A new connection's handshake would have taken another round trip.
	if took := ask(t, dial(t, r.Addr()), "anew"); took < 95*ms {
		t.Errorf("the first answer takes %s, want 100ms at least", took)
	}
	r.Clear()
	ask(t, c, "after")
}

func TestTCPRateIsSharedByAll(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, echo)})
	setTCP(t, r, link.Impairment{}, link.Impairment{Rate: 8e6})
	began := time.Now()
	var wg sync.WaitGroup
	for range 2 {
		c := dial(t, r.Addr())
		wg.Go(func() { exchange(t, c, make([]byte, 200_000)) })
	}
	wg.Wait()
	if took, least := time.Since(began), 390*ms; took < least {
		t.Errorf("400,000 bytes at 1,000,000 a second took %s", took)
	}
}

func TestTCPCutHoldsBytesBack(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, echo)})
	c := dial(t, r.Addr())
	ask(t, c, "before")
	setTCP(t, r, link.Impairment{Cut: true}, link.Impairment{Cut: true})
	if _, err := io.WriteString(c, "during"); err != nil {
		t.Fatal(err)
	}
	late := dial(t, r.Addr())
	for _, s := range []*net.TCPConn{c, late} {
		s.SetReadDeadline(time.Now().Add(50 * ms)) //nolint:errcheck // the read says so
		if n, err := s.Read(make([]byte, 8)); !isTimeout(err) {
			t.Fatalf("in a cut there are %d bytes and %v", n, err)
		}
		s.SetReadDeadline(time.Now().Add(deadline)) //nolint:errcheck // as before
	}
	r.Clear()
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "during" {
		t.Errorf("after the cut %q comes, %v", b, err)
	}
	ask(t, late, "the one that came in the cut")
}

func TestTCPReset(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, echo)})
	c := dial(t, r.Addr())
	ask(t, c, "before")
	if err := r.Break(Reset); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the open connection ends with %v, want a reset", err)
	}
	n, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(r.Addr()))
	if err == nil { // the handshake is the kernel's
		n.SetDeadline(time.Now().Add(deadline)) //nolint:errcheck // the read says so
		_, err = n.Read(make([]byte, 1))
		n.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a new connection ends with %v, want a reset", err)
	}
	if r.Counts().Broken < 1 {
		t.Errorf("counted %+v", r.Counts())
	}
	r.Clear()
	ask(t, dial(t, r.Addr()), "after")
	if r.Break("gently") == nil {
		t.Error("there is no such way to break a connection")
	}
}

func TestTCPHalfOpen(t *testing.T) {
	ended := make(chan error, 8)
	r := runTCP(t, Config{Upstream: server(t, func(c *net.TCPConn) {
		_, err := io.Copy(c, c)
		ended <- err
	})})
	c := dial(t, r.Addr())
	ask(t, c, "before")
	if err := r.Break(HalfOpen); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended: // what is behind has lost it
	case <-time.After(deadline):
		t.Fatal("what is behind the relay still holds the connection")
	}
	fresh := dial(t, r.Addr())
	for _, s := range []*net.TCPConn{c, fresh} {
		if _, err := io.WriteString(s, "is anybody there?"); err != nil {
			t.Fatalf("the client's half is gone: %v", err)
		}
		s.SetReadDeadline(time.Now().Add(50 * ms)) //nolint:errcheck // the read says so
		if n, err := s.Read(make([]byte, 8)); !isTimeout(err) {
			t.Fatalf("there is an answer of %d bytes, %v", n, err)
		}
	}
	r.Clear()
	for _, s := range []*net.TCPConn{c, fresh} {
		s.SetReadDeadline(time.Now().Add(deadline)) //nolint:errcheck // the read says so
		if _, err := s.Read(make([]byte, 8)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("a host that came back answers with %v, want a reset", err)
		}
	}
	ask(t, dial(t, r.Addr()), "after")
}

func TestTCPNobodyBehind(t *testing.T) {
	gone := socket(t) // a port that nobody listens on over TCP
	r := runTCP(t, Config{Upstream: addrOf(gone)})
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(r.Addr()))
	if err == nil {
		c.SetDeadline(time.Now().Add(deadline)) //nolint:errcheck // the read says so
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
	if r.Counts().Unreachable != 1 {
		t.Errorf("counted %+v", r.Counts())
	}
}

func TestTCPAnswersAfterTheQuestionsEnd(t *testing.T) {
	for _, i := range []link.Impairment{{}, {Delay: ms}} {
		r := runTCP(t, Config{Upstream: server(t, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			c.Write(append([]byte("you said "), b...)) //nolint:errcheck // a test that misses it fails
		})})
		setTCP(t, r, i, i)
		if got := exchange(t, dial(t, r.Addr()), []byte("no more")); string(got) != "you said no more" {
			t.Errorf("%q", got)
		}
	}
}

func TestTCPRoutes(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, func(c *net.TCPConn) { io.WriteString(c, "public") })}) //nolint:errcheck // as above
	own := server(t, func(c *net.TCPConn) { io.WriteString(c, "own") })                               //nolint:errcheck // as above
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(local))                                   // finds a free port
	if err != nil {
		t.Fatal(err)
	}
	from := l.Addr().(*net.TCPAddr)
	l.Close()
	if err := r.Route(from.AddrPort(), own); err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTCP("tcp4", from, net.TCPAddrFromAddrPort(r.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline)) //nolint:errcheck // the read says so
	if got, err := io.ReadAll(c); string(got) != "own" {
		t.Errorf("it reads %q, %v", got, err)
	}
	if got, _ := io.ReadAll(dial(t, r.Addr())); string(got) != "public" {
		t.Errorf("another reads %q", got)
	}
}

func TestTCPRelayEnds(t *testing.T) {
	upstream := server(t, echo)
	r, err := ListenTCP(Config{Listen: local, Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	c := dial(t, r.Addr())
	ask(t, c, "before")
	setTCP(t, r, link.Impairment{Cut: true}, link.Impairment{Delay: time.Minute})
	if _, err := io.WriteString(c, "during"); err != nil {
		t.Fatal(err)
	}
	dial(t, r.Addr())
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Fatal("it does not end")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the client is left with %v", err)
	}
	again, err := ListenTCP(Config{Listen: r.Addr(), Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestTCPRelaySaysWhatItCannotDo(t *testing.T) {
	r := runTCP(t, Config{Upstream: server(t, echo)})
	for _, i := range []link.Impairment{
		{Loss: link.Loss{Share: 0.1}}, {Duplicate: 0.1}, {Corrupt: 0.1}, {Delay: ms, Jitter: ms, Reorder: true}, {Rate: -1},
	} {
		if r.Set(i, link.Impairment{}) == nil || r.Set(link.Impairment{}, i) == nil {
			t.Errorf("%+v is taken", i)
		}
	}
}
