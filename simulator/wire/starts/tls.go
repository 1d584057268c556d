package starts

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/simulator/wire/answer"
)

// dialers make the attempts over TLS: a bounded number of goroutines, each with one connection at a time, because a
// handshake is a hundred times the work of an exchange and crypto/tls wants to block. The shards go on to decide
// who is sent when; nil: there is no TLS.
type dialers struct {
	g       *Generator
	ctx     context.Context // ends with the run
	cancel  context.CancelFunc
	configs []*tls.Config // by service
	kept    []keptConns   // by service
	dialer  net.Dialer
	jobs    chan *job
	max     int32
	hired   atomic.Int32
	inHand  atomic.Int32
	wg      sync.WaitGroup
}

// job is one attempt on its way to a dialer and back.
type job struct {
	shard    *shard
	start    uint32
	service  int
	request  []byte
	resent   bool
	deadline time.Time

	reply reply // its body lies in body
	body  []byte
	why   reason
	due   time.Duration // of a first attempt: since when it could have been made; else -1
	began time.Duration // when a dialer took it up
	at    time.Duration // when the answer was there, or the attempt had failed
}

func newDialers(g *Generator) *dialers {
	d := &dialers{g: g, kept: make([]keptConns, len(g.c.Services)), dialer: net.Dialer{KeepAlive: -1}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	most := g.c.MaxInFlight
	if g.c.Connections == KeepAlive {
		most = g.c.PerService * len(g.c.Services)
	}
	most = max(most, len(g.c.Services)) + g.c.Shards*len(g.c.Services) // each shard has one at least
	d.max = int32(most)
	d.jobs = make(chan *job, most)
	for _, s := range g.c.Services {
		c := g.c.TLS.Clone()
		if c.ServerName == "" {
			c.ServerName = s.Addr.Addr().Unmap().String()
			if g.c.Target != nil {
				if u, err := url.Parse(g.c.Target.URL); err == nil && u.Hostname() != "" {
					c.ServerName = u.Hostname()
				}
			}
		}
		if c.MinVersion == 0 {
			c.MinVersion = tls.VersionTLS13
		}
		d.configs = append(d.configs, c)
	}
	return d
}

func (d *dialers) interrupt() {
	if d != nil {
		d.cancel()
	}
}

// close ends the dialers, whose jobs are all done.
func (d *dialers) close() {
	if d == nil {
		return
	}
	d.cancel()
	close(d.jobs)
	d.wg.Wait()
	for i := range d.kept {
		d.kept[i].close()
	}
}

// do hands over a job; there is always room.
func (d *dialers) do(j *job) {
	d.jobs <- j
	if busy := d.inHand.Add(1); busy > d.hired.Load() && d.hired.Load() < d.max {
		d.hired.Add(1)
		d.wg.Go(d.work)
	}
}

func (d *dialers) work() {
	w := tlsWorker{d: d, buf: make([]byte, 16<<10)}
	for j := range d.jobs {
		j.began = time.Since(*d.g.clock.Load())
		w.attempt(j)
		j.at = time.Since(*d.g.clock.Load())
		d.inHand.Add(-1)
		j.shard.results.put(j)
	}
}

// tlsWorker makes one attempt after the other.
type tlsWorker struct {
	d      *dialers
	buf    []byte
	parser answer.Parser
}

// attempt sends the job's request and reads the answer into it, all before its deadline.
func (w *tlsWorker) attempt(j *job) {
	j.why, j.resent = noReason, false
	d := w.d
	ctx, cancel := context.WithDeadline(d.ctx, j.deadline)
	defer cancel()
	keep := d.g.c.Connections == KeepAlive
	if keep {
		if conn := d.kept[j.service].take(); conn != nil {
			err := w.exchange(ctx, j, conn)
			// As with connections without TLS: one that was closed while it was kept is no failed attempt.
			if err == nil || w.parser.Begun() || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
				j.why = whyError(ctx, err)
				return
			}
			j.resent = true
		}
	}
	raw, err := d.dialer.DialContext(ctx, "tcp", unmapped(d.g.c.Services[j.service].Addr).String())
	if err != nil {
		j.why = whyError(ctx, err)
		return
	}
	conn := &tlsConn{Conn: tls.Client(raw, d.configs[j.service]), raw: raw.(*net.TCPConn)}
	if err := conn.HandshakeContext(ctx); err != nil {
		conn.abort()
		if j.why = whyError(ctx, err); j.why == otherError {
			j.why = badTLS
		}
		return
	}
	j.why = whyError(ctx, w.exchange(ctx, j, conn))
}

type tlsConn struct {
	*tls.Conn
	raw *net.TCPConn
}

// abort ends the connection with a reset, so that no port stays occupied.
func (c *tlsConn) abort() {
	_ = c.raw.SetLinger(0) // a closed one needs none
	c.raw.Close()
}

func (w *tlsWorker) exchange(ctx context.Context, j *job, conn *tlsConn) error {
	w.parser.Reset()
	stop := context.AfterFunc(ctx, func() { conn.raw.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // a closed one is interrupted already
	defer stop()
	_, err := conn.Write(j.request)
	for done := false; err == nil && !done; {
		var n, used int
		n, err = conn.Read(w.buf)
		if n > 0 {
			var wrong error
			used, done, wrong = w.parser.Feed(w.buf[:n])
			if wrong != nil {
				err = wrong
				break
			}
			if done && used < n { // bytes that nobody asked for
				w.parser.Close = true
			}
		}
		if done {
			if err != nil { // the server's farewell came with the end of its answer, which is whole all the same
				w.parser.Close, err = true, nil
			}
			break
		}
		if errors.Is(err, io.EOF) {
			if done, err = w.parser.End(); done {
				err = nil
			}
		}
	}
	if err != nil {
		conn.abort()
		return err
	}
	j.body = append(j.body[:0], w.parser.Body...)
	j.reply = reply{w.parser.Status, w.parser.RetryAfter, j.body}
	if w.parser.Close || w.d.g.c.Connections == Fresh || !stop() || !w.d.kept[j.service].give(conn) {
		conn.abort()
	}
	return nil
}

func whyError(ctx context.Context, err error) reason {
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case err == nil:
		return noReason
	case errors.Is(ctx.Err(), context.Canceled):
		return cancelled
	case errors.Is(err, answer.ErrNotHTTP):
		return notHTTP
	case errors.Is(err, answer.ErrTooLong):
		return tooLong
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return timeOut
	case errors.As(err, &errno):
		return whyErrno(errno)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return closed
	}
	return otherError
}

// keptConns are idle connections; the one used last is taken first.
type keptConns struct {
	mu     sync.Mutex
	idle   []*tlsConn // guarded by mu; as many as there were attempts at once, at most
	closed bool       // guarded by mu
}

func (k *keptConns) take() *tlsConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.idle) == 0 {
		return nil
	}
	last := len(k.idle) - 1
	conn := k.idle[last]
	k.idle[last] = nil
	k.idle = k.idle[:last]
	return conn
}

func (k *keptConns) give(conn *tlsConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return false
	}
	k.idle = append(k.idle, conn)
	return true
}

func (k *keptConns) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for _, conn := range k.idle {
		conn.Close()
	}
	k.idle = nil
}

// results are jobs that come back to their shard.
type results struct {
	mu   sync.Mutex
	list []*job // guarded by mu
	took []*job // the loop's
	free []*job // the loop's
	poke chan struct{}
}

func (r *results) put(j *job) {
	r.mu.Lock()
	r.list = append(r.list, j)
	r.mu.Unlock()
	r.wake()
}

func (r *results) wake() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// wait returns when there are results, or after d (d < 0: without end), and whether it had to wait for them.
func (r *results) wait(d time.Duration) (waited bool) {
	select {
	case <-r.poke:
		return false
	default:
	}
	if d < 0 {
		<-r.poke
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.poke:
	case <-timer.C:
	}
	return true
}

// take returns what has come since the last call; valid until the next.
func (r *results) take() []*job {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took, r.list = r.list, r.took[:0]
	return r.took
}

// pumpTLS hands what waits for a service to the dialers.
func (s *shard) pumpTLS(svc *service, now time.Duration) {
	for svc.conns < svc.max && (svc.queue.n > 0 || s.saturating(now)) {
		i := s.next(svc, now)
		if i == none {
			return
		}
		j := &job{shard: s}
		if n := len(s.results.free); n > 0 {
			j, s.results.free = s.results.free[n-1], s.results.free[:n-1]
		}
		j.start, j.service, j.due = i, int(s.slab.at(i).service), -1
		j.request = s.begin(i, svc, s.viewer(s.slab.at(i).k), now, j.request[:0])
		if st := s.slab.at(i); st.attempts == 1 {
			j.due = max(st.intended, s.idle)
		}
		j.deadline = s.zero.Add(now + s.g.c.AttemptTimeout)
		svc.conns++
		s.jobs++
		s.g.tls.do(j)
	}
}

// takeResults deals with the attempts that dialers have ended.
func (s *shard) takeResults() {
	if s.g.tls == nil {
		return
	}
	for _, j := range s.results.take() {
		s.services[j.service].conns--
		if j.resent {
			s.stats.resent++
		}
		s.jobs--
		if j.due >= 0 { // a handshake that nobody got round to is this machine's doing too
			s.stats.sentLate(max(j.began-j.due, s.slab.at(j.start).lateness()), j.began)
		}
		switch {
		case s.ended:
			s.stats.attemptFailures.add(cancelled)
			s.finish(j.start, s.viewer(s.slab.at(j.start).k), isFailed, cancelled, "", j.at)
		case j.why != noReason:
			s.attemptFailed(j.start, j.why, j.at)
		default:
			s.take(j.start, s.viewer(s.slab.at(j.start).k), j.reply, j.at)
		}
		if cap(j.body) > 8<<10 {
			j.body = nil
		}
		s.results.free = append(s.results.free, j)
	}
}
