package starts

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Why a start did not end well: the Detail of its event, and the keys of Snapshot.Failures.
const (
	whyCancelled  = "cancelled"
	whyQueueFull  = "queue full"
	whyLate       = "not sent in time"
	whyRefused    = "connection refused"
	whyTimeout    = "time-out"
	whyReset      = "connection reset"
	whyClosed     = "closed before the answer ended"
	whyNotHTTP    = "answer is not HTTP"
	whyTooLong    = "answer too long"
	whyNotJSON    = "answer is not JSON"
	whyNoSession  = "answer without a session"
	whyNoManifest = "answer without manifests"
	whyShed       = "shed"
	whyOther      = "other error"
)

// worker sends one start at a time.
type worker struct {
	g   *Generator
	in  meter
	br  *bufio.Reader
	req []byte
	ans answer

	mu   sync.Mutex
	conn net.Conn // guarded by mu: in use now, for interrupt
}

func newWorker(g *Generator) *worker {
	w := &worker{g: g}
	w.br = bufio.NewReaderSize(&w.in, maxLine)
	return w
}

func (w *worker) run(ctx context.Context) {
	for s := range w.g.queue {
		w.serve(ctx, s)
		if w.g.busy.Add(-1) == 0 {
			w.g.wakePacer()
		}
	}
}

// serve makes a start's attempts: the home region's service first, then each other one once. It ends with finish, or
// with the start parked until a shedding server wants it back.
func (w *worker) serve(ctx context.Context, s start) {
	g := w.g
	if s.attempts == 0 {
		now := g.now()
		switch {
		case ctx.Err() != nil:
			g.finish(s, end{status: Dropped, detail: whyCancelled})
			return
		case now-s.intended > g.c.MaxSendLag:
			g.finish(s, end{status: Dropped, detail: whyLate})
			return
		}
		s.sent = now
		g.stats.send(now)
	}
	v := g.c.Crowd.Viewer(s.k)
	if s.service < 0 {
		s.service = g.home[v.Home] // a home without a service starts at the first
	}
	last := end{status: Failed, detail: whyCancelled, service: s.service}
	for range g.pools {
		if ctx.Err() != nil {
			break
		}
		p := g.pools[s.service]
		w.req = g.render(w.req, p, v)
		s.attempts++
		last.service = s.service
		err := w.attempt(ctx, p)
		if err != nil {
			last.detail = why(ctx, err)
			s.service = (s.service + 1) % len(g.pools)
			continue
		}
		a := &w.ans
		switch {
		case a.status == 200:
			session, problem := a.session()
			if problem == "" {
				g.finish(s, end{status: OK, session: session, service: s.service})
			} else {
				g.finish(s, end{status: Failed, detail: problem, service: s.service})
			}
			return
		case a.status == 503 || a.status == 429:
			if policy, ok := a.retryPolicy(); ok {
				if s.retries < min(policy.max, g.c.MaxRetries) {
					s.retries++
					s.resume = g.now() + policy.after
					if g.comeBack(s) {
						return
					}
				}
				g.finish(s, end{status: Shed, detail: whyShed, service: s.service})
				return
			}
		}
		last.detail = statusDetail(a.status)
		if a.status < 500 {
			break // the service understood and said no: another region would too
		}
		s.service = (s.service + 1) % len(g.pools)
	}
	g.finish(s, last)
}

// attempt sends the request that w.req holds and reads the answer into w.ans, all within the attempt's time-out.
func (w *worker) attempt(ctx context.Context, p *pool) error {
	deadline := time.Now().Add(w.g.c.AttemptTimeout)
	if conn := p.take(); conn != nil {
		err := w.exchange(ctx, p, conn, deadline)
		// A server may close a kept connection at any moment (RFC 9112, 9.6). When it did so before a byte of the answer
		// that is no failed attempt: the request goes out once more on a fresh connection.
		if err == nil || w.in.read > 0 || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
	dial, cancel := context.WithDeadline(ctx, deadline)
	conn, err := w.g.c.Dial(dial, "tcp", p.addr)
	cancel()
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			p.drain() // nobody listens: what is kept is dead too
		}
		return err
	}
	return w.exchange(ctx, p, conn, deadline)
}

func (w *worker) exchange(ctx context.Context, p *pool, conn net.Conn, deadline time.Time) error {
	w.hold(conn)
	defer w.hold(nil)
	w.in.reset(conn)
	w.br.Reset(&w.in)
	err := conn.SetDeadline(deadline)
	if err == nil && ctx.Err() != nil { // cancelled before hold: interrupt has not seen this connection
		err = ctx.Err()
	}
	if err == nil {
		_, err = conn.Write(w.req)
	}
	if err == nil {
		err = w.ans.read(w.br)
	}
	// Bytes after the answer were not asked for: the connection's state is unknown.
	if err != nil || w.ans.close || w.br.Buffered() > 0 {
		conn.Close()
		return err
	}
	p.give(conn)
	return nil
}

func (w *worker) hold(conn net.Conn) {
	w.mu.Lock()
	w.conn = conn
	w.mu.Unlock()
}

func (w *worker) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed connection is interrupted already
	}
}

func why(ctx context.Context, err error) string {
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return whyCancelled
	case errors.Is(err, errNotHTTP):
		return whyNotHTTP
	case errors.Is(err, errTooLong):
		return whyTooLong
	case errors.Is(err, syscall.ECONNREFUSED):
		return whyRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return whyTimeout
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return whyReset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return whyClosed
	}
	return whyOther
}
