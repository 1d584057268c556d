package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultPath     = "/v1/play"
	DefaultMaxConns = 32768
	DefaultMaxHead  = 8 << 10
	DefaultMaxBody  = 4 << 10
	DefaultHeadTime = 3 * time.Second
	DefaultReadTime = 5 * time.Second
	DefaultSendTime = 10 * time.Second
	DefaultIdleTime = time.Minute
	DefaultRest     = 512

	// drain is how long answers under way may take when a front stops.
	drain = 500 * time.Millisecond
	// goodbye is how long the rest of what a refused client sends is read, so that it gets to read why.
	goodbye = time.Second
)

// Config is what a front needs. Play, Rest and Now are required.
type Config struct {
	Path string // of play starts
	// Play answers a play start: it appends a JSON body to dst and returns it with the HTTP status, and the whole seconds of
	// Retry-After, 0 for none. It runs on the loop, must not block, and body is only good until it returns.
	// Where it would have to block it returns a status of 0, and Rest has the connection from this play start on: see Aside.
	Play func(dst []byte, now time.Time, body []byte) (answer []byte, status, retryAfter int)
	// Observe is told, after each batch of a loop, the longest that a play start of it waited, in its socket or the backlog, until
	// it was looked at, and how many others were answered meanwhile: both as bounds from above that a batch makes coarse. A
	// connection that is not on a loop tells how many like it are being answered, and how long that took it. It may be nil.
	Observe func(now time.Time, inFlight int, queue time.Duration)
	Rest    http.Handler // everything else
	// Before, when set, has each request of Rest first, without a place among MaxRest: it may block, and says whether it answered.
	Before func(w http.ResponseWriter, r *http.Request) (answered bool)

	Loops    int           // 0: one for every two processors
	MaxConns int           // connections at once, those of Rest included; later ones wait in the backlog
	MaxRest  int           // requests that Rest handles at once; later ones wait
	MaxHead  int           // bytes of a request's head
	MaxBody  int           // bytes of a play start's body
	HeadTime time.Duration // a request's head, and a TLS handshake
	ReadTime time.Duration // a whole request
	SendTime time.Duration // until a client has taken its answers
	IdleTime time.Duration // between requests of a connection

	Now func() time.Time
	Log *slog.Logger // nil: silent
}

// Front is a server. It may serve several listeners.
type Front struct {
	cfg   Config
	line  string // request line of a play start
	conns atomic.Int64
	busy  atomic.Int64 // connections, not on a loop, that are being answered
}

// New checks cfg.
func New(cfg Config) (*Front, error) {
	if cfg.Play == nil || cfg.Rest == nil || cfg.Now == nil {
		return nil, errors.New("front: Play, Rest and Now are required")
	}
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	def(&cfg.Loops, max(1, runtime.GOMAXPROCS(0)/2))
	def(&cfg.MaxConns, DefaultMaxConns)
	def(&cfg.MaxRest, DefaultRest)
	def(&cfg.MaxHead, DefaultMaxHead)
	def(&cfg.MaxBody, DefaultMaxBody)
	if cfg.MaxHead+cfg.MaxBody > readSize {
		return nil, fmt.Errorf("front: a request of %d bytes is more than the %d that are read at once", cfg.MaxHead+cfg.MaxBody, readSize)
	}
	for d, v := range map[*time.Duration]time.Duration{&cfg.HeadTime: DefaultHeadTime, &cfg.ReadTime: DefaultReadTime, &cfg.SendTime: DefaultSendTime, &cfg.IdleTime: DefaultIdleTime} {
		if *d <= 0 {
			*d = v
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Front{cfg: cfg, line: "POST " + cfg.Path + " HTTP/1.1\r\n"}, nil
}

// Serve answers on ln until ctx ends, and closes it. Answers under way then have a moment. It returns nil after ctx's end.
func (f *Front) Serve(ctx context.Context, ln net.Listener) error {
	r := f.newRest(ctx, ln.Addr())
	defer r.stop()
	if tcp, ok := ln.(*net.TCPListener); ok && haveLoops {
		return f.serveLoops(ctx, tcp, r)
	}
	return f.serveEach(ctx, ln, r, nil)
}

// ServeTLS is Serve behind TLS 1.3 or what cfg says. It speaks HTTP/1.1 only.
func (f *Front) ServeTLS(ctx context.Context, ln net.Listener, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS13
	}
	r := f.newRest(ctx, ln.Addr())
	defer r.stop()
	return f.serveEach(ctx, ln, r, cfg)
}

// Buffers of a loop, in bytes. A batch's answers are written when there are highWater of them.
const (
	readSize  = 64 << 10
	highWater = 64 << 10
)

// worker answers what a buffer holds. It belongs to one goroutine.
type worker struct {
	f        *Front
	now      time.Time
	answered int // play starts since the batch began
	heads    heads
	body     []byte
	second   int64
	ok       []byte // head of a 200 up to the length, as of second
	date     []byte
}

// next is how work ends.
type next uint8

const (
	readOn next = iota // all is answered, or the rest is the beginning of a play start
	send               // there is enough to write first
	hand               // what is left is for net/http
	aside              // the same, from a play start on that would have to wait
	hangUp             // nothing that follows will be answered
	linger             // the same, and the client may not have read everything
)

// work answers the play starts at the beginning of data in order, appending to out. used is how much of data that was.
func (w *worker) work(data, out []byte) (answers []byte, used int, n next) {
	for used < len(data) {
		if len(out) >= highWater {
			return out, used, send
		}
		p := w.heads.parse(data[used:], w.f.line, w.f.cfg.MaxHead, w.f.cfg.MaxBody)
		switch p.verdict {
		case more:
			return out, used, readOn
		case other:
			return out, used, hand
		case bad:
			w.body = strconv.AppendQuote(append(w.body[:0], `{"error":`...), p.why)
			w.body = append(w.body, '}')
			return w.head(out, p.status, 0, true), used, linger
		}
		used += p.size
		if w.answered&63 == 63 {
			w.now = w.f.cfg.Now()
		}
		w.answered++
		var status, after int
		w.body, status, after = w.f.cfg.Play(w.body[:0], w.now, p.body)
		if status == 0 {
			w.answered--
			return out, used - p.size, aside
		}
		out = w.head(out, status, after, p.close)
		if p.close {
			if used < len(data) {
				return out, used, linger
			}
			return out, used, hangUp
		}
	}
	return out, used, readOn
}

const fields = "\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\n"

// head appends an answer's head and w.body.
func (w *worker) head(out []byte, status, after int, closing bool) []byte {
	if s := w.now.Unix(); s != w.second {
		w.second = s
		w.date = w.now.UTC().AppendFormat(append(w.date[:0], "\r\nDate: "...), http.TimeFormat)
		w.ok = append(append(append(append(w.ok[:0], "HTTP/1.1 200 OK"...), w.date...), fields...), "Content-Length: "...)
	}
	if status == 200 && !closing && after == 0 {
		out = append(out, w.ok...)
	} else {
		out = append(strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(status), 10), ' ')
		out = append(append(append(out, http.StatusText(status)...), w.date...), fields...)
		if after > 0 {
			out = append(strconv.AppendInt(append(out, "Retry-After: "...), int64(after), 10), "\r\n"...)
		}
		if closing {
			out = append(out, "Connection: close\r\n"...)
		}
		out = append(out, "Content-Length: "...)
	}
	out = strconv.AppendInt(out, int64(len(w.body)), 10)
	return append(append(out, "\r\n\r\n"...), w.body...)
}

// rest is net/http for the connections that are handed over. It is a net.Listener for it.
type rest struct {
	f     *Front
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	http  http.Server
	ended chan struct{}
}

func (f *Front) newRest(ctx context.Context, addr net.Addr) *rest {
	r := &rest{f: f, addr: addr, conns: make(chan net.Conn), done: make(chan struct{}), ended: make(chan struct{})}
	slots := make(chan struct{}, f.cfg.MaxRest)
	r.http = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if f.cfg.Before != nil && f.cfg.Before(w, req) {
				return
			}
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				f.cfg.Rest.ServeHTTP(w, req)
			case <-req.Context().Done():
			}
		}),
		ReadHeaderTimeout: f.cfg.HeadTime, ReadTimeout: f.cfg.ReadTime, WriteTimeout: f.cfg.SendTime, IdleTimeout: f.cfg.IdleTime,
		MaxHeaderBytes: f.cfg.MaxHead,
		ErrorLog:       slog.NewLogLogger(f.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if h, ok := c.(*handed); ok && h.aside {
				return context.WithValue(ctx, asideKey{}, true)
			}
			return ctx
		},
	}
	go func() {
		defer close(r.ended)
		r.http.Serve(r) //nolint:errcheck // it ends when r is closed
	}()
	return r
}

type asideKey struct{}

// Aside says whether a request came to Rest on a connection that is there because of a play start that Play could not answer without
// blocking. When that is over, Connection: close on its next answer brings the client back to Play.
func Aside(ctx context.Context) bool { return ctx.Value(asideKey{}) != nil }

// take hands over a connection and what was read of it. left is called when it is closed.
func (r *rest) take(c net.Conn, read []byte, aside bool, left func()) {
	h := &handed{Conn: c, read: read, aside: aside, left: left}
	select {
	case r.conns <- h:
	case <-r.done:
		h.Close()
	}
}

func (r *rest) Accept() (net.Conn, error) {
	select {
	case c := <-r.conns:
		return c, nil
	case <-r.done:
		return nil, net.ErrClosed
	}
}

func (r *rest) Close() error   { r.once.Do(func() { close(r.done) }); return nil }
func (r *rest) Addr() net.Addr { return r.addr }

func (r *rest) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if r.http.Shutdown(ctx) != nil {
		r.http.Close()
	}
	r.Close()
	<-r.ended
}

// handed is a connection of which something has been read already.
type handed struct {
	net.Conn
	read  []byte
	aside bool
	once  sync.Once
	left  func()
}

func (h *handed) Read(b []byte) (int, error) {
	if len(h.read) > 0 {
		n := copy(b, h.read)
		if h.read = h.read[n:]; len(h.read) == 0 {
			h.read = nil
		}
		return n, nil
	}
	return h.Conn.Read(b)
}

func (h *handed) Close() error {
	h.once.Do(h.left)
	return h.Conn.Close()
}
