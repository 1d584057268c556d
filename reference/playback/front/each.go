package front

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// serveEach serves every connection in a goroutine of its own.
func (f *Front) serveEach(ctx context.Context, ln net.Listener, r *rest, secure *tls.Config) error {
	var mu sync.Mutex
	open := map[net.Conn]struct{}{}
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range open { // whoever is being answered has a moment, whoever is being waited for has none
			c.SetReadDeadline(time.Unix(1, 0))
			c.SetWriteDeadline(time.Now().Add(drain))
		}
	})
	defer stop()
	places := make(chan struct{}, f.cfg.MaxConns)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done(): // what is left in the backlog has no place
			ln.Close()
			wg.Wait()
			return nil
		}
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				wg.Wait()
				return nil
			}
			if <-places; isTemporary(err) { // out of file descriptors
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			ln.Close()
			wg.Wait()
			return err
		}
		f.conns.Add(1)
		mu.Lock()
		open[c] = struct{}{}
		mu.Unlock()
		wg.Go(func() {
			inner, left, aside := f.one(ctx, c, secure)
			mu.Lock()
			delete(open, c)
			mu.Unlock()
			free := func() { <-places; f.conns.Add(-1) }
			if inner == nil {
				c.Close()
				free()
				return
			}
			inner.SetDeadline(time.Time{})
			r.take(inner, left, aside, free)
		})
	}
}

func isTemporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

type seat struct {
	worker
	in, out []byte
}

var seats = sync.Pool{New: func() any { return &seat{in: make([]byte, 16<<10)} }}

// one serves a connection until it ends, or has something for net/http: then it is returned with what was read of it.
func (f *Front) one(ctx context.Context, c net.Conn, secure *tls.Config) (rest net.Conn, left []byte, waits bool) {
	if secure != nil {
		t := tls.Server(c, secure)
		c.SetDeadline(time.Now().Add(f.cfg.HeadTime))
		if ctx.Err() != nil || t.HandshakeContext(ctx) != nil {
			return nil, nil, false
		}
		c = t
	}
	s := seats.Get().(*seat)
	defer seats.Put(s)
	s.f = f
	have, since := 0, time.Time{} // bytes of an unfinished request, and when it began
	for {
		now := time.Now()
		limit := now.Add(f.cfg.IdleTime)
		if have > 0 {
			if since.IsZero() {
				since = now
			}
			limit = since.Add(f.cfg.HeadTime)
		}
		c.SetReadDeadline(limit)
		if ctx.Err() != nil { // after the deadline was set: the one who stops sets another, later or before
			return nil, nil, false
		}
		if have == len(s.in) {
			s.in = append(s.in, make([]byte, readSize-len(s.in))...)
		}
		n, err := c.Read(s.in[have:])
		if n == 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) || err != nil {
				return nil, nil, false
			}
			continue
		}
		have += n
		began := f.cfg.Now()
		s.now, s.answered = began, 0
		busy := f.busy.Add(1)
		for {
			var used int
			var what next
			s.out, used, what = s.work(s.in[:have], s.out[:0])
			have = copy(s.in, s.in[used:have])
			if used > 0 {
				since = time.Time{}
			}
			if len(s.out) > 0 {
				c.SetWriteDeadline(time.Now().Add(f.cfg.SendTime))
				if _, err := c.Write(s.out); err != nil {
					f.busy.Add(-1)
					return nil, nil, false
				}
			}
			if what == send {
				continue
			}
			f.busy.Add(-1)
			if s.answered > 0 && f.cfg.Observe != nil {
				end := f.cfg.Now()
				f.cfg.Observe(end, int(busy), end.Sub(began))
			}
			switch what {
			case hand, aside:
				return c, append([]byte(nil), s.in[:have]...), what == aside
			case hangUp, linger:
				part(c, what == linger)
				return nil, nil, false
			}
			break
		}
	}
}

// part ends a connection so that the client can read the last answer.
func part(c net.Conn, reads bool) {
	if t, ok := c.(interface{ CloseWrite() error }); ok {
		t.CloseWrite() //nolint:errcheck // it is being closed
	}
	if !reads {
		return
	}
	c.SetReadDeadline(time.Now().Add(goodbye))
	var b [4 << 10]byte
	for range 64 {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
	}
}
