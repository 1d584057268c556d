package bare

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// maxHandshakes bounds the connections that a TLSServer serves at once.
const maxHandshakes = 1024

// TLSServer is Server over TLS for fresh connections: it accepts, shakes hands, answers, and closes when the client has, with
// crypto/tls as it comes.
type TLSServer struct {
	c   ServerConfig
	tls *tls.Config
	l   *net.TCPListener
}

// ListenTLS binds the server's address.
func ListenTLS(c ServerConfig, t *tls.Config) (*TLSServer, error) {
	if len(c.Answer) == 0 {
		return nil, errors.New("bare: a server needs an answer")
	}
	if c.End == 0 {
		c.End = '}'
	}
	if _, err := loopback(c.Addr); err != nil {
		return nil, err
	}
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(c.Addr))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	return &TLSServer{c, t, l}, nil
}

// Addr is where the server listens.
func (s *TLSServer) Addr() netip.AddrPort { return s.l.Addr().(*net.TCPAddr).AddrPort() }

// Run serves until ctx ends and returns nil once every connection is closed.
func (s *TLSServer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { s.l.Close() })
	defer stop()
	places := make(chan struct{}, maxHandshakes)
	for {
		c, err := s.l.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("bare server: %w", err)
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			s.serve(c)
		})
	}
}

func (s *TLSServer) serve(raw net.Conn) {
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(silence)) //nolint:errcheck // a closed connection fails below
	c := tls.Server(raw, s.tls)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := c.Read(*buf)
		if err != nil {
			return
		}
		if bytes.IndexByte((*buf)[:n], s.c.End) >= 0 {
			if _, err := c.Write(s.c.Answer); err != nil {
				return
			}
		}
	}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 4096); return &b }}

// Handshake is Exchange over TLS with a fresh connection for each exchange: it connects, shakes hands, sends, reads the
// answer and ends with a reset. InFlight and Fresh are not looked at.
func Handshake(ctx context.Context, c ClientConfig, t *tls.Config) (Result, error) {
	if _, err := loopback(c.Addr); err != nil {
		return Result{}, err
	}
	if len(c.Request) == 0 || len(c.Answer) == 0 || c.Connections <= 0 || c.For <= 0 || c.Warm < 0 {
		return Result{}, errors.New("bare: a client needs a request, an answer, connections and a time")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	var done atomic.Uint64
	for range c.Connections {
		wg.Go(func() {
			buf := make([]byte, len(c.Answer))
			for ctx.Err() == nil {
				if err := shake(c, t, buf); err != nil {
					cancel(fmt.Errorf("bare client: %w", err))
					return
				}
				done.Add(1)
			}
		})
	}
	sleep := func(d time.Duration) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := sleep(c.Warm); err != nil {
		return Result{}, err
	}
	since, counted := time.Now(), done.Load()
	if c.Begin != nil {
		c.Begin()
	}
	if err := sleep(c.For); err != nil {
		return Result{}, err
	}
	return Result{Done: done.Load() - counted, For: time.Since(since)}, nil
}

func shake(c ClientConfig, t *tls.Config, buf []byte) error {
	raw, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(c.Addr))
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(silence)) //nolint:errcheck // a closed connection fails below
	conn := tls.Client(raw, t)
	if _, err := conn.Write(c.Request); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, buf); err != nil {
		return err
	}
	if !bytes.Equal(buf, c.Answer) {
		return ErrAnswer
	}
	return raw.SetLinger(0)
}
