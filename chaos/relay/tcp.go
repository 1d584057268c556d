package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

const (
	dialWait   = 5 * time.Second
	acceptRest = 50 * time.Millisecond // after the kernel had no descriptor left
	obeyWait   = 50 * time.Millisecond // for connections to see an order
	obeyLook   = 100 * time.Microsecond
)

// Break is what a TCP relay does to connections beyond what a path does to bytes.
type Break string

// Ways to break connections.
const (
	Whole Break = ""
	// Reset tears every connection down with a reset, and each new one too.
	Reset Break = "reset"
	// HalfOpen is a host that vanishes: what is behind the relay loses its connections, clients keep theirs and hear
	// nothing more, and neither do new ones. When the relay is whole again, what a client sends there is answered with a reset.
	HalfOpen Break = "half-open"
)

// TCP relays connections between clients and one address behind it.
type TCP struct {
	cfg      Config
	listener *net.TCPListener
	start    time.Time
	order    atomic.Pointer[tcpOrder]
	held     atomic.Int64 // bytes on their way

	mu     sync.Mutex
	routes map[netip.AddrPort]netip.AddrPort
	conns  map[*conn]struct{}
	flows  [2]uint64 // of all and of routed connections, since the last order
	ran    bool

	bytes                          [2]atomic.Uint64
	accepted, unreachable, refused atomic.Uint64
}

// TCPCounts is what a TCP relay has done since it began.
type TCPCounts struct {
	UpBytes, DownBytes uint64 // carried, but for the last MiB of each connection that is still open
	Accepted           uint64
	Unreachable        uint64 // connections that nobody behind the relay took: torn down
	Broken             uint64 // by Break
	Sessions           int    // open now
}

// tcpOrder is what the relay has to do.
type tcpOrder struct {
	ways [2]tcpWay
	how  Break
	over chan struct{} // closed when another order comes
}

type tcpWay struct {
	does   link.Impairment
	none   bool
	mu     sync.Mutex // of every link on shared
	shared *link.Bottleneck
}

func newTCPOrder(ups, downs link.Impairment, how Break) *tcpOrder {
	o := &tcpOrder{how: how, over: make(chan struct{})}
	for w, i := range map[way]link.Impairment{up: ups, down: downs} {
		o.ways[w].does, o.ways[w].none, o.ways[w].shared = i, i.None(), link.NewBottleneck(i.Rate, i.Queue)
	}
	return o
}

// CheckTCP says what of an impairment a TCP relay cannot do.
func CheckTCP(i link.Impairment) error {
	errs := []error{i.Validate()}
	if i.Loss.Share > 0 || len(i.Loss.Trace) > 0 || i.Duplicate > 0 || i.Corrupt > 0 || i.Reorder {
		errs = append(errs, errors.New("a TCP relay sees bytes and no packets: it cannot lose, duplicate, corrupt or reorder them (a kernel program can)"))
	}
	return errors.Join(errs...)
}

// ListenTCP takes the public address; Run relays.
func ListenTCP(c Config) (*TCP, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("TCP relay: %w", err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(c.Listen))
	if err != nil {
		return nil, fmt.Errorf("TCP relay: %w", err)
	}
	t := &TCP{
		cfg: c, listener: l, start: time.Now(),
		routes: make(map[netip.AddrPort]netip.AddrPort), conns: make(map[*conn]struct{}),
	}
	for client, to := range c.Routes {
		t.routes[client] = to
	}
	t.order.Store(newTCPOrder(link.Impairment{}, link.Impairment{}, Whole))
	return t, nil
}

// Addr is the public address.
func (t *TCP) Addr() netip.AddrPort {
	a := t.listener.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Set orders what happens to bytes each way, for open connections and new ones. Bytes that are on their way arrive when
// they were to, and those that a cut holds back when it ends, as TCP itself would send them again.
func (t *TCP) Set(ups, downs link.Impairment) error {
	if err := errors.Join(CheckTCP(ups), CheckTCP(downs)); err != nil {
		return fmt.Errorf("TCP relay: %w", err)
	}
	t.replace(func(now *tcpOrder) *tcpOrder { return newTCPOrder(ups, downs, now.how) })
	return nil
}

// Break orders what happens to connections, open ones and new ones, and has happened to the open ones when it returns.
func (t *TCP) Break(how Break) error {
	if how != Whole && how != Reset && how != HalfOpen {
		return fmt.Errorf("TCP relay: connections can be %s or %s, not %q", Reset, HalfOpen, how)
	}
	t.replace(func(now *tcpOrder) *tcpOrder { return newTCPOrder(now.ways[up].does, now.ways[down].does, how) })
	return nil
}

// Clear lets everything pass as it is.
func (t *TCP) Clear() {
	t.replace(func(*tcpOrder) *tcpOrder { return newTCPOrder(link.Impairment{}, link.Impairment{}, Whole) })
}

// replace puts an order into effect: first it is there for whoever looks, then whoever does not look is woken. It returns when every
// connection has seen it, but for those that wait for a receiver: what they hold was read before.
func (t *TCP) replace(with func(now *tcpOrder) *tcpOrder) {
	t.mu.Lock()
	old := t.order.Load()
	o := with(old)
	t.order.Store(o)
	close(old.over)
	t.flows = [2]uint64{}
	open := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		c.obey(o)
		open = append(open, c)
	}
	t.mu.Unlock()
	for end := time.Now().Add(obeyWait); time.Now().Before(end); time.Sleep(obeyLook) {
		open = slices.DeleteFunc(open, func(c *conn) bool { return c.heeds(o) || t.order.Load() != o })
		if len(open) == 0 {
			return
		}
	}
}

// Route leads one client elsewhere when it connects.
func (t *TCP) Route(client, to netip.AddrPort) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return addRoute(t.routes, t.cfg, client, to)
}

// Unroute forgets a route; a connection that took it goes on.
func (t *TCP) Unroute(client netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.routes, client)
}

// Counts is what was relayed so far.
func (t *TCP) Counts() TCPCounts {
	t.mu.Lock()
	open := len(t.conns)
	t.mu.Unlock()
	return TCPCounts{
		UpBytes: t.bytes[up].Load(), DownBytes: t.bytes[down].Load(), Accepted: t.accepted.Load(),
		Unreachable: t.unreachable.Load(), Broken: t.refused.Load(), Sessions: open,
	}
}

// Close gives the public address back. It is for a relay that was never run: Run does it by itself.
func (t *TCP) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ran {
		return errors.New("TCP relay: it runs; end its context")
	}
	return t.listener.Close()
}

// Run relays until ctx ends; then every connection is closed and the public address given back. It may be called once.
func (t *TCP) Run(ctx context.Context) error {
	t.mu.Lock()
	if t.ran {
		t.mu.Unlock()
		return errors.New("TCP relay: a relay runs once")
	}
	t.ran = true
	t.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer t.listener.Close()
	defer context.AfterFunc(ctx, func() { t.listener.Close() })()
	places := make(chan struct{}, t.cfg.Sessions) // when they are taken, clients wait in the kernel's queue
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		client, err := t.listener.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				client.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("TCP relay: %w", err)
		case err != nil:
			<-places
			if !pause(ctx, acceptRest) {
				return nil
			}
			continue
		}
		t.accepted.Add(1)
		wg.Go(func() {
			defer func() { <-places }()
			t.serve(ctx, client)
		})
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *TCP) now() time.Duration { return time.Since(t.start) }

// conn is one client's connection, and the one behind the relay that belongs to it.
type conn struct {
	t      *TCP
	client *net.TCPConn
	gone   chan struct{} // closed when both are
	routed bool

	mu       sync.Mutex
	lines    [2]*line     // nil: not yet
	upstream *net.TCPConn // nil: not yet
	vanished bool         // what is behind is lost to it for good
	ended    bool
}

// serve is a connection's life.
func (t *TCP) serve(ctx context.Context, client *net.TCPConn) {
	c := &conn{t: t, client: client, gone: make(chan struct{})}
	t.mu.Lock()
	t.conns[c] = struct{}{}
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
		c.end(false)
	}()
	defer context.AfterFunc(ctx, func() { c.end(false) })()
	c.obey(t.order.Load()) // one that came before it was among conns

	if !c.connect(ctx) {
		return
	}
	if c.lost() {
		c.haunt()
		return
	}
	lines := [2]*line{newLine(c, up, c.client, c.upstream), newLine(c, down, c.upstream, c.client)}
	c.mu.Lock()
	c.lines = lines
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range lines {
		wg.Go(l.read)
		wg.Go(l.write)
	}
	wg.Wait()
	if c.lost() {
		c.haunt()
	}
}

// connect reaches what is behind the relay; false: the connection has ended. In a cut it waits for the end of it.
func (c *conn) connect(ctx context.Context) bool {
	t := c.t
	o := t.order.Load()
	for ; o.ways[up].does.Cut || o.ways[down].does.Cut; o = t.order.Load() {
		if !c.await(o.over) {
			return false
		}
	}
	select {
	case <-c.gone:
		return false
	default:
	}
	if c.lost() {
		return true
	}
	from := c.client.RemoteAddr().(*net.TCPAddr).AddrPort()
	t.mu.Lock()
	to, routed := t.routes[netip.AddrPortFrom(from.Addr().Unmap(), from.Port())]
	t.mu.Unlock()
	if !routed {
		to = t.cfg.Upstream
	}
	c.routed = routed
	d := net.Dialer{Timeout: dialWait, KeepAlive: -1}
	if t.cfg.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.cfg.From, 0))
	}
	upstream, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		t.unreachable.Add(1)
		c.end(true)
		return false
	}
	c.mu.Lock()
	if c.ended || c.vanished {
		c.mu.Unlock()
		discard(upstream.(*net.TCPConn))
		return c.lost()
	}
	c.upstream = upstream.(*net.TCPConn)
	c.mu.Unlock()
	// The client's handshake was answered by the kernel at once. The round trip it would have taken is waited for here, so that the
	// first byte takes as long as on a real path.
	if d := o.ways[up].does.Delay + o.ways[down].does.Delay; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-o.over:
		case <-c.gone:
			return false
		}
	}
	return true
}

// await waits for a channel; false: the connection has ended.
func (c *conn) await(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	case <-c.gone:
		return false
	}
}

// obey does at once what an order does to connections, and wakes who reads, so that it sees the rest.
func (c *conn) obey(o *tcpOrder) {
	switch o.how {
	case Reset:
		if c.end(true) {
			c.t.refused.Add(1)
		}
		return
	case HalfOpen:
		c.vanish()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	past := time.Unix(1, 0)
	c.client.SetReadDeadline(past) //nolint:errcheck // it fails when the connection is closed: nobody reads then
	if c.upstream != nil {
		c.upstream.SetReadDeadline(past) //nolint:errcheck // as before
	}
}

// heeds reports whether a connection does nothing under an older order any more.
func (c *conn) heeds(o *tcpOrder) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.vanished {
		return true
	}
	for _, l := range c.lines {
		if l != nil && l.under.Load() != o && !l.done.Load() {
			return false
		}
	}
	return true
}

// vanish takes away what is behind, and leaves the client in the belief that it is there.
func (c *conn) vanish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vanished || c.ended {
		return
	}
	c.vanished = true
	c.t.refused.Add(1)
	if c.upstream != nil {
		discard(c.upstream)
	}
	c.client.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // as in obey
}

func (c *conn) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vanished
}

// haunt keeps a client's half of a connection: silent while the relay is half-open, and as a host that has forgotten it afterwards.
func (c *conn) haunt() {
	for {
		o := c.t.order.Load()
		if o.how != HalfOpen {
			break
		}
		if !c.await(o.over) {
			return
		}
	}
	var b [1]byte
	for {
		c.client.SetReadDeadline(time.Time{}) //nolint:errcheck // as in obey
		if _, err := c.client.Read(b[:]); !isTimeout(err) {
			break
		}
	}
	c.end(true)
}

// end closes both connections, with resets if it has to be hard; true: it had not been done yet.
func (c *conn) end(hard bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.ended = true
	close(c.gone)
	for _, s := range []*net.TCPConn{c.client, c.upstream} {
		switch {
		case s == nil:
		case hard:
			discard(s)
		default:
			s.Close()
		}
	}
	return true
}

// fail ends a connection that broke, unless it was made to look as if it had not.
func (c *conn) fail() {
	if !c.lost() {
		c.end(true)
	}
}

// discard closes a connection with a reset.
func discard(s *net.TCPConn) {
	s.SetLinger(0) //nolint:errcheck // closed is closed
	s.Close()
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
