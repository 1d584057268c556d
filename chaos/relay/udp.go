package relay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

const (
	sweepEvery = time.Second
	// turns are the batches taken from one socket before the others have theirs.
	turns = 4
	// On the wire a packet has its IP and UDP headers too; a rate counts them.
	headers4 = 20 + 8
	headers6 = 40 + 8
)

// UDP relays datagrams between clients and one address behind it. One thread does it all.
type UDP struct {
	cfg     Config
	addr    netip.AddrPort
	start   time.Time
	headers int

	order atomic.Pointer[order]
	tid   atomic.Int32  // of the thread that relays; 0: none
	spent time.Duration // of that thread's CPU time, by others before; written before tid

	mu     sync.Mutex // what follows, against an end in between
	fd     int
	poll   *poller
	routes map[netip.AddrPort]netip.AddrPort
	ran    bool
	closed bool
	final  uint64 // fd's overrun when it was closed

	counts [2]counter
	live   atomic.Int64
	refuse atomic.Uint64
	over   atomic.Uint64 // overrun of sessions' sockets that are closed
	overs  atomic.Uint64 // and of those that are open, as last looked at

	// The thread's own.
	clients map[sockaddr]*session
	byFD    map[int32]*session
	last    *session // the client of the packet before
	held    held
	in      *arena
	out     outbox
	outWay  way
	swept   time.Duration
}

// order is what the relay has to do, as of one Set.
type order struct {
	number uint64
	ways   [2]wayOrder
}

// wayOrder is one direction's; what it counts is the thread's own.
type wayOrder struct {
	does          link.Impairment
	none          bool
	shared        *link.Bottleneck
	flows, routed uint64
}

func newOrder(number uint64, ups, downs link.Impairment) *order {
	o := &order{number: number}
	for w, i := range map[way]link.Impairment{up: ups, down: downs} {
		o.ways[w] = wayOrder{does: i, none: i.None(), shared: link.NewBottleneck(i.Rate, i.Queue)}
	}
	return o
}

// session is one client's.
type session struct {
	client sockaddr
	fd     int
	routed bool
	seen   time.Duration
	held   int
	sides  [2]side
}

// side is a session's path in one direction, under one order.
type side struct {
	order uint64
	link  *link.Link
}

// counter is Traffic that grows.
type counter struct {
	received, sent, receivedBytes, sentBytes, lost, tail, duplicated, corrupted, overflow, failed atomic.Uint64
}

func (c *counter) traffic() Traffic {
	return Traffic{
		Received: c.received.Load(), Sent: c.sent.Load(), ReceivedBytes: c.receivedBytes.Load(), SentBytes: c.sentBytes.Load(),
		Lost: c.lost.Load(), TailDropped: c.tail.Load(), Duplicated: c.duplicated.Load(), Corrupted: c.corrupted.Load(),
		Overflow: c.overflow.Load(), Failed: c.failed.Load(),
	}
}

// ListenUDP takes the public address; Run relays.
func ListenUDP(c Config) (*UDP, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("UDP relay: %w", err)
	}
	u := &UDP{
		cfg: c, start: time.Now(), headers: headers6, fd: -1, routes: make(map[netip.AddrPort]netip.AddrPort),
		clients: make(map[sockaddr]*session), byFD: make(map[int32]*session), in: newArena(),
	}
	if c.Listen.Addr().Is4() {
		u.headers = headers4
	}
	for client, to := range c.Routes {
		u.routes[client] = to
	}
	u.order.Store(newOrder(1, link.Impairment{}, link.Impairment{}))
	var err error
	if u.fd, err = udpSocket(c.Listen, netip.AddrPort{}); err != nil {
		return nil, fmt.Errorf("UDP relay: %w", err)
	}
	if u.addr, err = boundTo(u.fd); err == nil {
		u.poll, err = newPoller()
	}
	if err == nil {
		err = u.poll.add(u.fd, 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("UDP relay: %w", err), u.Close())
	}
	return u, nil
}

func boundTo(fd int) (netip.AddrPort, error) {
	s, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("own address: %w", err)
	}
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port)), nil
	}
	return netip.AddrPort{}, errors.New("own address: of no family known")
}

// Addr is the public address.
func (u *UDP) Addr() netip.AddrPort { return u.addr }

// Set orders what happens to packets each way, from the next that is read on; every flow begins its sequence anew. What
// is on its way by then arrives when it was to.
func (u *UDP) Set(ups, downs link.Impairment) error {
	if err := errors.Join(ups.Validate(), downs.Validate()); err != nil {
		return fmt.Errorf("UDP relay: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.order.Store(newOrder(u.order.Load().number+1, ups, downs))
	return nil
}

// Clear lets everything pass as it is.
func (u *UDP) Clear() { u.Set(link.Impairment{}, link.Impairment{}) } //nolint:errcheck // nothing is always valid

// Route leads one client elsewhere, from its first packet on: a session that it has already stays as it is.
func (u *UDP) Route(client, to netip.AddrPort) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return addRoute(u.routes, u.cfg, client, to)
}

// Unroute forgets a route; its session goes on until it is idle.
func (u *UDP) Unroute(client netip.AddrPort) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.routes, client)
}

func addRoute(routes map[netip.AddrPort]netip.AddrPort, c Config, client, to netip.AddrPort) error {
	for _, a := range []netip.AddrPort{client, to} {
		if !a.IsValid() || a.Port() == 0 || a.Addr().Is4() != c.Listen.Addr().Is4() {
			return fmt.Errorf("a route leads from one address with a port to another of %s's family, not from %s to %s", c.Listen, client, to)
		}
	}
	if _, ok := routes[client]; !ok && len(routes) >= maxRoutes {
		return fmt.Errorf("there are at most %d routes", maxRoutes)
	}
	routes[client] = to
	return nil
}

// Counts is what was relayed so far.
func (u *UDP) Counts() Counts {
	c := Counts{
		Up: u.counts[up].traffic(), Down: u.counts[down].traffic(),
		Sessions: int(u.live.Load()), Refused: u.refuse.Load(), Overrun: u.over.Load() + u.overs.Load(),
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fd >= 0 {
		return c.overrun(overrun(u.fd))
	}
	return c.overrun(u.final)
}

func (c Counts) overrun(n uint64) Counts {
	c.Overrun += n
	return c
}

// CPU is the time that the relay's thread has used; an error when it does not run.
func (u *UDP) CPU() (time.Duration, error) {
	tid := u.tid.Load()
	if tid == 0 {
		return 0, errors.New("the relay does not run")
	}
	d, err := threadTime(int(tid))
	return d - u.spent, err
}

// Close gives the public address back. It is for a relay that was never run: Run does it by itself.
func (u *UDP) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ran {
		return errors.New("UDP relay: it runs; end its context")
	}
	u.release()
	return nil
}

// release closes everything, once.
func (u *UDP) release() {
	if u.closed {
		return
	}
	u.closed = true
	for _, s := range u.byFD {
		u.over.Add(overrun(s.fd))
		unix.Close(s.fd)
	}
	u.overs.Store(0)
	u.live.Store(0)
	if u.fd >= 0 {
		u.final = overrun(u.fd)
		unix.Close(u.fd)
		u.fd = -1
	}
	if u.poll != nil {
		u.poll.close()
	}
}

// Run relays until ctx ends, and gives the public address back. It may be called once. Its thread makes the sockets towards Upstream, in
// the network namespace that it is called in.
func (u *UDP) Run(ctx context.Context) error {
	u.mu.Lock()
	if u.ran || u.closed {
		u.mu.Unlock()
		return errors.New("UDP relay: a relay runs once")
	}
	u.ran = true
	u.mu.Unlock()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		u.tid.Store(0)
		u.mu.Lock()
		defer u.mu.Unlock()
		u.release()
	}()
	tid := unix.Gettid()
	spent, err := threadTime(tid)
	if err != nil {
		return fmt.Errorf("UDP relay: %w", err)
	}
	u.spent = spent
	u.tid.Store(int32(tid))
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		u.poll.interrupt()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // it must not write to a descriptor that is closed
		}
	}()
	for ctx.Err() == nil {
		if err := u.turn(); err != nil {
			return fmt.Errorf("UDP relay: %w", err)
		}
	}
	return nil
}

func (u *UDP) now() time.Duration { return time.Since(u.start) }

// turn lets go what is due, and takes what is there.
func (u *UDP) turn() error {
	now := u.now()
	u.deliver(now)
	if now-u.swept >= sweepEvery {
		u.sweep(now)
	}
	events, err := u.poll.waitUntil(now, min(u.held.next(), u.swept+sweepEvery))
	if err != nil {
		return err
	}
	for i := range events {
		switch fd := events[i].Fd; {
		case fd == int32(u.poll.wake):
			u.poll.calm()
		case fd == int32(u.poll.timer):
		case fd == int32(u.fd):
			u.fromClients()
		default:
			if s := u.byFD[fd]; s != nil {
				u.fromUpstream(s)
			}
		}
	}
	return nil
}

func (u *UDP) fromClients() {
	for range turns {
		n, errno := u.in.receive(u.fd, true)
		if errno != 0 || n == 0 {
			return
		}
		// After the packets were read: what is ordered before a packet is sent applies to it.
		order, now := u.order.Load(), u.now()
		u.deliver(now)
		bytes := 0
		for i := range n {
			b := u.in.packet(i)
			bytes += len(b)
			s := u.session(&u.in.names[i], now)
			if s == nil {
				u.refuse.Add(1)
				continue
			}
			u.carry(order, s, up, b, now)
		}
		u.flush()
		u.counts[up].received.Add(uint64(n))
		u.counts[up].receivedBytes.Add(uint64(bytes))
		if n < batch {
			return
		}
	}
}

func (u *UDP) fromUpstream(s *session) {
	for range turns {
		n, errno := u.in.receive(s.fd, false)
		if errno != 0 || n == 0 {
			return // a refusal that a packet met before counts as nothing: the client learns of no port either
		}
		order, now := u.order.Load(), u.now()
		u.deliver(now)
		s.seen = now
		bytes := 0
		for i := range n {
			b := u.in.packet(i)
			bytes += len(b)
			u.carry(order, s, down, b, now)
		}
		u.flush()
		u.counts[down].received.Add(uint64(n))
		u.counts[down].receivedBytes.Add(uint64(bytes))
		if n < batch {
			return
		}
	}
}

// session finds a client's, and makes one for a client that is new; nil when there is no room.
func (u *UDP) session(client *sockaddr, now time.Duration) *session {
	s := u.last
	if s == nil || s.client != *client {
		if s = u.clients[*client]; s == nil {
			s = u.meet(client)
		}
		if s == nil {
			return nil
		}
		u.last = s
	}
	s.seen = now
	return s
}

func (u *UDP) meet(client *sockaddr) *session {
	if len(u.clients) >= u.cfg.Sessions {
		return nil
	}
	u.mu.Lock()
	to, routed := u.routes[client.addrPort()]
	u.mu.Unlock()
	if !routed {
		to = u.cfg.Upstream
	}
	from := netip.AddrPort{}
	if u.cfg.From.IsValid() {
		from = netip.AddrPortFrom(u.cfg.From, 0)
	}
	fd, err := udpSocket(from, to)
	if err != nil {
		return nil
	}
	if err := u.poll.add(fd, 0); err != nil {
		unix.Close(fd)
		return nil
	}
	s := &session{client: *client, fd: fd, routed: routed}
	u.clients[*client], u.byFD[int32(fd)] = s, s
	u.live.Store(int64(len(u.clients)))
	return s
}

// sweep forgets clients that are silent.
func (u *UDP) sweep(now time.Duration) {
	u.swept = now
	open := uint64(0)
	for key, s := range u.clients {
		dropped := overrun(s.fd)
		if now-s.seen < u.cfg.Idle || s.held > 0 {
			open += dropped
			continue
		}
		u.over.Add(dropped)
		unix.Close(s.fd)
		delete(u.clients, key)
		delete(u.byFD, int32(s.fd))
		if u.last == s {
			u.last = nil
		}
	}
	u.overs.Store(open)
	u.live.Store(int64(len(u.clients)))
}

// carry takes one packet over the path. What leaves at once is gathered; flush sends it.
func (u *UDP) carry(o *order, s *session, w way, b []byte, now time.Duration) {
	wo := &o.ways[w]
	if wo.none {
		u.put(s, w, b, nil)
		return
	}
	l := s.path(o, w)
	c := &u.counts[w]
	out, n := l.Send(now, len(b)+u.headers)
	if n == 0 {
		if l.Fate() == link.NoRoom {
			c.tail.Add(1)
		} else {
			c.lost.Add(1)
		}
		return
	}
	if n == 2 {
		c.duplicated.Add(1)
	}
	for _, d := range out[:n] {
		corrupt := d.CorruptBit >= 0 && len(b) > 0
		if d.At <= now && !corrupt {
			u.put(s, w, b, nil)
			continue
		}
		if u.held.size+len(b) > u.cfg.Held {
			c.overflow.Add(1)
			continue
		}
		own := u.held.buffer(len(b))
		copy(own, b)
		if corrupt {
			c.corrupted.Add(1)
			bit := d.CorruptBit % (len(b) * 8) // the headers are the kernel's to write
			own[bit/8] ^= 1 << (bit % 8)
		}
		if d.At <= now {
			u.put(s, w, own, own)
		} else {
			u.held.push(parcel{at: d.At, to: s, way: w, bytes: own})
		}
	}
}

// path is a session's link under an order.
func (s *session) path(o *order, w way) *link.Link {
	here, wo := &s.sides[w], &o.ways[w]
	if here.order == o.number {
		return here.link
	}
	i, b, flow := wo.does, wo.shared, &wo.flows
	if s.routed {
		b, flow = link.NewBottleneck(i.Rate, i.Queue), &wo.routed
	}
	i.Seed = flowSeed(i.Seed, *flow, s.routed)
	*flow++
	*here = side{o.number, link.NewOn(i, b)}
	return here.link
}

// put gathers a packet; own: a buffer to free when it has gone.
func (u *UDP) put(s *session, w way, b, own []byte) {
	fd, to := s.fd, (*sockaddr)(nil)
	if w == down {
		fd, to = u.fd, &s.client
	}
	if u.out.n > 0 && (u.out.fd != fd || u.outWay != w) || u.out.n == batch {
		u.flush()
	}
	u.out.fd, u.outWay = fd, w
	u.out.owned[u.out.n] = own
	u.out.put(b, to)
}

func (u *UDP) flush() {
	if u.out.n == 0 {
		return
	}
	sent, bytes, failed := u.out.send()
	c := &u.counts[u.outWay]
	c.sent.Add(sent)
	c.sentBytes.Add(bytes)
	if failed > 0 {
		c.failed.Add(failed)
	}
	for i := range u.out.n {
		if b := u.out.owned[i]; b != nil {
			u.held.free(b)
			u.out.owned[i] = nil
		}
	}
	u.out.n = 0
}

// deliver lets go what is due.
func (u *UDP) deliver(now time.Duration) {
	if u.held.next() > now {
		return
	}
	for u.held.next() <= now {
		p := u.held.pop()
		u.put(p.to, p.way, p.bytes, p.bytes)
	}
	u.flush()
}
