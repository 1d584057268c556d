package starts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

func tcpListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.1.5:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// certificate is one for a server at 127.0.1.5, and who trusts it.
func certificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "play"}, IPAddresses: []net.IP{net.IPv4(127, 0, 1, 5)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}}, &tls.Config{RootCAs: roots}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	var handshakes, old atomic.Int64
	server.VerifyConnection = func(c tls.ConnectionState) error {
		handshakes.Add(1)
		if c.Version != tls.VersionTLS13 {
			old.Add(1)
		}
		return nil
	}
	addr := listenHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, good)
	}), server)
	for connections, most := range map[Connections]int64{KeepAlive: 40, Fresh: 100} {
		handshakes.Store(0)
		c := config(t, nil, schedule(t, s, audience.Leg{Rate: 100}), addr)
		c.Connections, c.TLS = connections, client
		g := mustRun(t, c)
		if n := g.Snapshot(); n.OK != 100 {
			t.Errorf("%s: %+v", connections, n)
		}
		if n := handshakes.Load(); n > most || connections == Fresh && n != 100 || old.Load() > 0 {
			t.Errorf("%s: %d handshakes, %d of them not TLS 1.3", connections, n, old.Load())
		}
	}
	// Dialers that do not get round to a handshake are the generator's own lateness.
	g := &Generator{}
	g.clock.Store(new(time.Time))
	sh := &shard{g: g, stats: newStats(s), services: []service{{conns: 1}}, slab: newSlab(), ended: true}
	g.c.Sink, g.c.Crowd, g.tls = event.Discard, config(t, nil, nil, addr).Crowd, &dialers{}
	sh.results.poke = make(chan struct{}, 1)
	sh.jobs = 1
	sh.results.put(&job{shard: sh, start: sh.slab.get(), due: 10 * ms, began: 60 * ms, at: 70 * ms})
	sh.takeResults()
	if n := sh.stats.late; n != 1 || sh.stats.ownLag.Max() < 49_000 {
		t.Errorf("%d late, by %d µs", n, sh.stats.ownLag.Max())
	}
	// Nobody vouches for this one.
	c := config(t, nil, schedule(t, s/10, audience.Leg{Rate: 100}), addr)
	c.Connections, c.TLS = Fresh, &tls.Config{RootCAs: x509.NewCertPool()}
	if n := mustRun(t, c).Snapshot(); n.Failed != 10 || n.Failures[badTLS.String()] != 10 {
		t.Errorf("%+v", n)
	}
}

func TestTLSToHostileServers(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	over := func(serve func(net.Conn)) func(*net.TCPConn) {
		return func(c *net.TCPConn) { serve(tls.Server(c, server)) }
	}
	for name, tc := range map[string]struct {
		serve func(*net.TCPConn)
		why   reason
	}{
		"silent":          {func(c *net.TCPConn) { io.Copy(io.Discard, c) }, timeOut},
		"silent after it": {over(func(c net.Conn) { io.Copy(io.Discard, c) }), timeOut},
		"no TLS":          {func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); io.Copy(io.Discard, c) }, badTLS},
		"garbage":         {over(func(c net.Conn) { readRequest(c); io.WriteString(c, "garbage\n"); io.Copy(io.Discard, c) }), notHTTP},
		"endless": {over(func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for piece, err := make([]byte, 4096), error(nil); err == nil; {
				_, err = c.Write(piece)
			}
		}), tooLong},
		"closes": {over(func(c net.Conn) { readRequest(c) }), closed},
	} {
		for _, connections := range []Connections{KeepAlive, Fresh} {
			t.Run(name+"/"+string(connections), func(t *testing.T) {
				t.Parallel()
				c := config(t, nil, schedule(t, s/10, audience.Leg{Rate: 100}), listen(t, tc.serve))
				c.Connections, c.TLS = connections, client
				if tc.why == timeOut {
					c.AttemptTimeout = 300 * ms
				}
				if n := mustRun(t, c).Snapshot(); n.Failed != 10 || n.Failures[tc.why.String()] != 10 {
					t.Errorf("%+v, want 10 × %q", n, tc.why)
				}
			})
		}
	}
}

// gathered is a connection whose writes go out in one piece, when it is closed.
type gathered struct {
	net.Conn
	on  bool
	out []byte
}

func (c *gathered) Write(b []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(b)
	}
	c.out = append(c.out, b...)
	return len(b), nil
}

// SetWriteDeadline does nothing: crypto/tls lets no write follow its farewell.
func (c *gathered) SetWriteDeadline(time.Time) error { return nil }

func (c *gathered) Close() error {
	c.Conn.Write(c.out)
	return c.Conn.Close()
}

// A whole answer is one, also when the server's farewell comes in the same packet.
func TestTLSFarewellWithTheAnswer(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	server.MaxVersion, client.MinVersion = tls.VersionTLS12, tls.VersionTLS12 // in 1.3 crypto/tls reads the farewell later
	for _, connections := range []Connections{KeepAlive, Fresh} {
		c := config(t, nil, schedule(t, s/5, audience.Leg{Rate: 100}), listen(t, func(c *net.TCPConn) {
			under := &gathered{Conn: c}
			over := tls.Server(under, server)
			if readRequest(over) {
				under.on = true
				io.WriteString(over, response(200, good))
				over.Close()
			}
		}))
		c.Connections, c.TLS = connections, client
		if n := mustRun(t, c).Snapshot(); n.OK != 20 || len(n.AttemptFailures) > 0 {
			t.Errorf("%s: %+v", connections, n)
		}
	}
}

// A kept connection that the server closed costs no attempt; that its request went out again is counted.
func TestTLSSendsAgain(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	c := config(t, nil, schedule(t, s, audience.Leg{Rate: 20}), listen(t, func(c *net.TCPConn) {
		over := tls.Server(c, server)
		if readRequest(over) {
			io.WriteString(over, response(200, good))
		}
		over.Close()
	}))
	c.TLS, c.PerService, c.Shards = client, 1, 1
	if n := mustRun(t, c).Snapshot(); n.OK != 20 || n.Attempts != 20 || n.Resent == 0 {
		t.Errorf("%+v", n)
	}
}

func TestTLSCancelled(t *testing.T) {
	t.Parallel()
	_, client := certificate(t)
	c := config(t, nil, schedule(t, 100*s, audience.Leg{Rate: 10}), listen(t, func(c *net.TCPConn) { io.Copy(io.Discard, c) }))
	c.Connections, c.TLS, c.MaxInFlight, c.AttemptTimeout, c.MaxSendLag, c.Shards = Fresh, client, 5, 50*s, 100*s, 1
	ctx, cancel := context.WithTimeout(t.Context(), s+50*ms)
	defer cancel()
	began := time.Now()
	g, err := run(t, ctx, c)
	if n := g.Snapshot(); err == nil || n.Failed != 5 || n.Failures[cancelled.String()] != n.Intended {
		t.Errorf("%v %+v", err, n)
	}
	if took := time.Since(began); took > 3*s {
		t.Errorf("ended after %v", took)
	}
}

// A start that is due while the only connection is in use goes out as soon as that is free, also when nobody is due after
// it.
func TestTLSLastOfACrowd(t *testing.T) {
	t.Parallel()
	server, client := certificate(t)
	c := config(t, nil, schedule(t, 100*ms, audience.Leg{Rate: 50}), listen(t, func(c *net.TCPConn) {
		over := tls.Server(c, server)
		for readRequest(over) {
			time.Sleep(150 * ms) // the service takes its time: the next one is due meanwhile
			io.WriteString(over, response(200, good))
		}
		over.Close()
	}))
	c.TLS, c.PerService, c.Shards, c.MaxSendLag = client, 1, 1, 10*s
	if n := mustRun(t, c).Snapshot(); n.OK != 5 || n.Dropped > 0 || n.SendLag.Max > 5000 {
		t.Errorf("%+v", n)
	}
}
