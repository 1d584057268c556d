package httprelay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/chaos/media"
)

// Config is what a relay needs.
type Config struct {
	Listen   string // host:port that clients know
	Upstream string // host:port where the server listens now
	// In runs what opens a socket where the relay stands, in another network namespace; nil: it stands in this process's. What it
	// runs returns at once: others wait for their turn.
	In func(open func() error) error
	// Dial opens connections to the server; nil: from within In, to an IPv4 address where there is an In.
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Layout media.Layout // which paths are segments; zero: rules about segments take nothing
	Now    func() time.Time
	Log    *slog.Logger // nil: silent
	// MaxConns bounds clients' connections; more wait in the kernel's backlog. 0: DefaultMaxConns.
	MaxConns int
}

// DefaultMaxConns is how many clients' connections a relay has at once.
const DefaultMaxConns = 8192

const (
	dialTimeout  = 5 * time.Second
	pollEvery    = 50 * time.Millisecond // a server that refuses is asked again
	headTimeout  = 30 * time.Second      // for a client's request line and header
	idleTimeout  = 2 * time.Minute
	maxHeader    = 64 << 10
	idleUpstream = 256
)

// Relay is one listener in front of one server.
type Relay struct {
	cfg       Config
	addr      string
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	edge      media.Edge
	shelf     shelf
	hands     hands

	mu       sync.Mutex // of owned
	owned    map[string][]*armed
	order    []string
	rules    atomic.Pointer[[]*armed]
	listener *listener // the first one

	refused  chan struct{} // the server refuses connections; one is enough
	requests atomic.Uint64
	open     atomic.Int64
}

// armed is a rule that stands.
type armed struct {
	Rule
	owner                    string
	gone                     chan struct{} // closed when the rule is taken away
	matched, applied, failed atomic.Uint64
	failure                  atomic.Pointer[string]

	mu    sync.Mutex
	first map[string]uint64 // stream → the first of its segments that was frozen
}

// Listen checks the configuration and binds the listener. Clients wait until Run.
func Listen(cfg Config) (*Relay, error) {
	var errs []error
	if cfg.Listen == "" || cfg.Upstream == "" {
		errs = append(errs, errors.New("it needs an address to listen on and one to pass on to"))
	}
	if cfg.Now == nil {
		errs = append(errs, errors.New("it needs a clock"))
	}
	if cfg.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("%d connections at most", cfg.MaxConns))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("http relay: %w", err)
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Dial != nil:
	case cfg.In == nil:
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: -1}).DialContext
	default:
		cfg.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) { return dialFrom(ctx, cfg.In, addr) }
	}
	if cfg.In == nil {
		cfg.In = func(open func() error) error { return open() }
	}
	r := &Relay{cfg: cfg, owned: map[string][]*armed{}, refused: make(chan struct{}, 1), hands: newHands()}
	r.rules.Store(&[]*armed{})
	r.transport = &http.Transport{
		DialContext:         r.dial,
		DisableCompression:  true,
		MaxIdleConnsPerHost: idleUpstream,
		IdleConnTimeout:     30 * time.Second,
		// Hop-by-hop limits are the server's own affair: nothing here ends a request before its client does.
		MaxResponseHeaderBytes: maxHeader,
	}
	r.proxy = &httputil.ReverseProxy{
		Rewrite:        r.rewrite,
		Transport:      r.transport,
		FlushInterval:  -1,
		ErrorLog:       log.New(io.Discard, "", 0),
		BufferPool:     &buffers{},
		ModifyResponse: r.seen,
		ErrorHandler:   func(_ http.ResponseWriter, req *http.Request, _ error) { reset(req) },
	}
	ln, err := r.listen(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("http relay: listen on %s: %w", cfg.Listen, err)
	}
	r.listener, r.addr = ln, ln.Addr().String()
	return r, nil
}

// Addr is the address clients connect to.
func (r *Relay) Addr() string { return r.addr }

// Close releases the listener of a relay that is never run.
func (r *Relay) Close() error { return r.listener.Close() }

// Run relays until ctx ends, or until the address cannot be listened on. Connections have ended when it returns.
func (r *Relay) Run(ctx context.Context) error {
	defer r.transport.CloseIdleConnections()
	defer r.Clear()
	ln := r.listener
	for {
		err := r.serve(ctx, ln)
		r.transport.CloseIdleConnections()
		if err != nil || ctx.Err() != nil {
			return err
		}
		r.cfg.Log.Info("the server refuses connections: so does its relay", "relay", r.addr, "upstream", r.cfg.Upstream)
		if !r.await(ctx) {
			return nil
		}
		if ln, err = r.listen(r.addr); err != nil {
			return fmt.Errorf("http relay: listen on %s again: %w", r.addr, err)
		}
	}
}

// serve answers clients until ctx ends or the server refuses; nil in both cases.
func (r *Relay) serve(ctx context.Context, ln net.Listener) error {
	select {
	case <-r.refused: // of the time before
	default:
	}
	var gate gate
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if gate.enter() {
				defer gate.leave()
				r.handle(w, req)
			}
		}),
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	var err error
	select {
	case <-ctx.Done():
	case <-r.refused:
	case err = <-failed:
		failed <- err
		err = fmt.Errorf("http relay: serve on %s: %w", r.addr, err)
	}
	server.Close()
	<-failed
	gate.shut()
	return err
}

// gate waits for handlers, which may still be starting when their server has been closed.
type gate struct {
	mu     sync.Mutex
	inside int
	empty  chan struct{} // not nil: shut
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty != nil {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
	}
}

// shut lets nobody in and returns when everybody has left.
func (g *gate) shut() {
	g.mu.Lock()
	g.empty = make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
}

// await waits until the server takes connections again; false when ctx ended first.
func (r *Relay) await(ctx context.Context) bool {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := r.cfg.Dial(try, "tcp", r.cfg.Upstream)
		cancel()
		if err == nil {
			conn.Close()
			return ctx.Err() == nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
}

func (r *Relay) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := r.cfg.Dial(ctx, network, addr)
	if errors.Is(err, syscall.ECONNREFUSED) {
		select {
		case r.refused <- struct{}{}:
		default:
		}
	}
	return conn, err
}

// Add makes these the owner's rules, in place of those it had, behind everybody else's.
func (r *Relay) Add(owner string, rules []Rule) error {
	var errs []error
	for _, rule := range rules {
		errs = append(errs, rule.Validate())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(rules)
	for who, those := range r.owned {
		if who != owner {
			n += len(those)
		}
	}
	if n > maxRules {
		return fmt.Errorf("http relay %s: %d rules are more than %d", r.addr, n, maxRules)
	}
	r.drop(owner)
	if len(rules) > 0 {
		r.order = append(r.order, owner)
		for _, rule := range rules {
			r.owned[owner] = append(r.owned[owner], &armed{Rule: rule, owner: owner, gone: make(chan struct{}), first: map[string]uint64{}})
		}
	}
	r.publish()
	return nil
}

// Remove takes an owner's rules away; what they held back goes on.
func (r *Relay) Remove(owner string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(owner)
	r.publish()
}

// Clear takes all rules away.
func (r *Relay) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, owner := range slices.Clone(r.order) {
		r.drop(owner)
	}
	r.publish()
}

func (r *Relay) drop(owner string) {
	for _, a := range r.owned[owner] {
		close(a.gone)
	}
	delete(r.owned, owner)
	r.order = slices.DeleteFunc(r.order, func(o string) bool { return o == owner })
}

func (r *Relay) publish() {
	all := make([]*armed, 0, maxRules)
	for _, owner := range r.order {
		all = append(all, r.owned[owner]...)
	}
	r.rules.Store(&all)
}

// Counts is what a relay has done.
type Counts struct {
	Requests uint64
	Open     int // requests under way
	Rules    []RuleCount
}

// RuleCount is what a rule that stands has done.
type RuleCount struct {
	Owner, Name string
	Matched     uint64 // requests it is about
	Applied     uint64 // requests it broke
	Failed      uint64 // requests it should have broken and could not; they passed unharmed
	Failure     string // why the last of those did
}

// Counts returns what has been counted.
func (r *Relay) Counts() Counts {
	c := Counts{Requests: r.requests.Load(), Open: int(r.open.Load())}
	for _, a := range *r.rules.Load() {
		n := RuleCount{Owner: a.owner, Name: a.Name, Matched: a.matched.Load(), Applied: a.applied.Load(), Failed: a.failed.Load()}
		if why := a.failure.Load(); why != nil {
			n.Failure = *why
		}
		c.Rules = append(c.Rules, n)
	}
	return c
}

// listener bounds the connections it has open.
type listener struct {
	net.Listener
	slots chan struct{}
	done  chan struct{}
	once  sync.Once
}

func (r *Relay) listen(addr string) (*listener, error) {
	var ln net.Listener
	if err := r.cfg.In(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
		return nil, err
	}
	return &listener{Listener: ln, slots: make(chan struct{}, r.cfg.MaxConns), done: make(chan struct{})}, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		<-l.slots
		return nil, fmt.Errorf("accepted a %T", c)
	}
	return &conn{TCPConn: tcp, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

type conn struct {
	*net.TCPConn
	release func()
}

func (c *conn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}

type connKey struct{}

// reset ends a request's connection with a reset, whatever was sent of its answer.
func reset(req *http.Request) {
	if c, ok := req.Context().Value(connKey{}).(*conn); ok {
		_ = c.SetLinger(0)
	}
	panic(http.ErrAbortHandler)
}

// buffers lends the proxy its copy buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// rawPath is the path as it stands in the request line, without its query.
func rawPath(req *http.Request) string {
	p, _, _ := strings.Cut(req.RequestURI, "?")
	if strings.HasPrefix(p, "/") {
		return p
	}
	return req.URL.EscapedPath()
}
