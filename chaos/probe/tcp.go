package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
)

// TCPConfig says where a TCP probe connects, and what it expects.
type TCPConfig struct {
	// Far is a listener of the probe's own behind the path; Close closes it.
	Far *net.TCPListener
	// To is where the probe connects: the path's public address, which leads to Far.
	To netip.AddrPort
	// From is the address it connects from; not valid: the kernel chooses.
	From netip.Addr
	// Bound is told each connection's own address before it connects, and Unbound when it is closed: a relay's Route and
	// Unroute. nil: nobody needs to know.
	Bound   func(netip.AddrPort) error
	Unbound func(netip.AddrPort)
	// Up, Down and Conduct are what the fault promises.
	Up, Down link.Impairment
	Conduct  Conduct
	Now      func() time.Time // the run's clock
}

const (
	askEvery   = 50 * time.Millisecond
	freshEvery = 200 * time.Millisecond
	freshWait  = time.Second // beside what the path itself may take
	freshOpen  = 32          // at once, at most
	redial     = 200 * time.Millisecond
	repeat     = time.Second
	haulTime   = 250 * time.Millisecond // that a haul takes at the promised rate
	haulEvery  = time.Second
	leastHaul  = 16 << 10
	mostHaul   = 8 << 20
	farOpen    = 128
	asksKept   = 200_000
)

// TCP is the observer of what happens to connections.
type TCP struct {
	cfg   TCPConfig
	start time.Time
	end   time.Duration

	mu      sync.Mutex
	asks    []Ask
	hauls   []Haul
	skipped int
	failed  error // of Bound
}

// NewTCP prepares a probe; Watch runs it.
func NewTCP(c TCPConfig) (*TCP, error) {
	errs := []error{c.Up.Validate(), c.Down.Validate()}
	if c.Far == nil || c.Now == nil || !c.To.IsValid() || c.To.Port() == 0 {
		errs = append(errs, errors.New("it needs a listener, where to connect, and a clock"))
	}
	if c.Conduct != Sound && c.Conduct != Resets && c.Conduct != HalfOpen {
		errs = append(errs, fmt.Errorf("connections cannot be %q", c.Conduct))
	}
	p := &TCP{cfg: c}
	if err := errors.Join(append(errs, tooLong(c.Up.Longest()+c.Down.Longest(), p.After()))...); err != nil {
		return nil, fmt.Errorf("TCP probe: %w", err)
	}
	return p, nil
}

// After is how long to watch from the end of the fault, to see that it is over.
func (p *TCP) After() time.Duration {
	up, down := p.cfg.Up, p.cfg.Down
	asks := settle + 2*(up.Longest()+down.Longest()) + inFlight + max(fewestAsks*askEvery, (fewestFresh+1)*freshEvery) + spare
	if up.Rate == 0 && down.Rate == 0 {
		return asks
	}
	// A haul may have begun before the end; the one after it counts, and takes as long when the rate is what it was.
	haul := up.Delay + up.Jitter + down.Delay + down.Jitter
	for _, rate := range []float64{up.Rate, down.Rate} {
		if rate > 0 {
			haul += time.Duration(float64(haulSize(rate)) * 8 / rate * float64(time.Second))
		}
	}
	return max(asks, settle+2*haul+haulEvery+redial+spare)
}

// Close closes the listener.
func (p *TCP) Close() error { return p.cfg.Far.Close() }

func (p *TCP) since() time.Duration { return p.cfg.Now().Sub(p.start) }

// Watch asks until ctx ends. It may be called once.
func (p *TCP) Watch(ctx context.Context) {
	p.start = p.cfg.Now()
	ctx, cancel := context.WithCancel(ctx)
	var far, near sync.WaitGroup
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	far.Go(func() { p.serve(serving) })
	near.Go(func() { p.steady(ctx) })
	near.Go(func() { p.fresh(ctx) })
	if p.cfg.Up.Rate > 0 || p.cfg.Down.Rate > 0 {
		near.Go(func() { p.haul(ctx) })
	}
	near.Wait()
	cancel()
	p.end = p.since()
	stop()
	far.Wait()
}

func (p *TCP) keep(a Ask) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asks) == asksKept {
		p.skipped++
		return
	}
	p.asks = append(p.asks, a)
}

// steady asks over one connection after another: the next only when one is lost.
func (p *TCP) steady(ctx context.Context) {
	for conn := 0; ctx.Err() == nil; conn++ {
		c, err := p.dial(ctx, 0)
		if err != nil {
			pause(ctx, redial)
			continue
		}
		func() {
			defer p.hangUp(c)
			defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a closed one needs none
			due := p.since()
			for first := true; ; first = false {
				a := Ask{Sent: p.since(), Conn: conn, First: first}
				a.Lag = a.Sent - due
				stop := p.insist(c)
				_, err := ask(c, question{})
				stop()
				a.Done, a.Outcome = p.since(), outcome(err)
				if ctx.Err() != nil && a.Outcome != Answered {
					a.Outcome = Silent // to the end
				}
				p.keep(a)
				due = a.Done + askEvery
				if err != nil || !pause(ctx, askEvery) {
					return
				}
			}
		}()
		pause(ctx, redial)
	}
}

// insist repeats a question that has long been without an answer, until it is told to stop: who has forgotten a connection says so
// only to one who sends.
func (p *TCP) insist(c *net.TCPConn) (stop func()) {
	if p.cfg.Conduct != HalfOpen {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var insisting sync.WaitGroup
	insisting.Go(func() {
		for pause(ctx, repeat) {
			c.Write(question{}.marshal()) //nolint:errcheck // whoever reads learns of it
		}
	})
	return func() {
		cancel()
		insisting.Wait()
	}
}

// fresh asks over a new connection each time.
func (p *TCP) fresh(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := make(chan struct{}, freshOpen)
	for due := p.since(); ctx.Err() == nil; pause(ctx, freshEvery) {
		lag := p.since() - due
		due = p.since() + freshEvery
		select {
		case open <- struct{}{}:
		default:
			p.mu.Lock()
			p.skipped++
			p.mu.Unlock()
			continue
		}
		wg.Go(func() {
			defer func() { <-open }()
			wait := freshWait + 2*(p.cfg.Up.Longest()+p.cfg.Down.Longest())
			a := Ask{Sent: p.since(), Fresh: true, Lag: lag}
			c, err := p.dial(ctx, wait)
			if err == nil {
				defer p.hangUp(c)
				defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a closed one needs none
				c.SetDeadline(time.Now().Add(wait))                                       //nolint:errcheck // asking says so
				_, err = ask(c, question{})
			}
			a.Done, a.Outcome = p.since(), outcome(err)
			if ctx.Err() != nil && a.Outcome != Answered {
				return // broken off by the end
			}
			p.keep(a)
		})
	}
}

// haul moves as much as the promised rate carries in a moment, and measures how long that takes.
func (p *TCP) haul(ctx context.Context) {
	q := question{up: haulSize(p.cfg.Up.Rate), down: haulSize(p.cfg.Down.Rate)}
	wait := freshWait + 8*haulTime + 2*(p.cfg.Up.Longest()+p.cfg.Down.Longest())
	for ; ctx.Err() == nil; pause(ctx, redial) {
		c, err := p.dial(ctx, wait)
		if err != nil {
			continue
		}
		func() {
			defer p.hangUp(c)
			defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a closed one needs none
			for ctx.Err() == nil {
				c.SetDeadline(time.Now().Add(wait)) //nolint:errcheck // asking says so
				h := Haul{Sent: p.since()}
				got, err := ask(c, q)
				if err != nil {
					return
				}
				h.Done, h.Up, h.Down = p.since(), got.up, got.down
				p.mu.Lock()
				if len(p.hauls) < asksKept {
					p.hauls = append(p.hauls, h)
				}
				p.mu.Unlock()
				pause(ctx, haulEvery)
			}
		}()
	}
}

func haulSize(rate float64) uint32 {
	if rate == 0 {
		return 0
	}
	return uint32(min(max(rate/8*haulTime.Seconds(), leastHaul), mostHaul))
}

// dial connects; the connection's own address is known to Bound before the other side sees it.
func (p *TCP) dial(ctx context.Context, wait time.Duration) (*net.TCPConn, error) {
	var local netip.AddrPort
	d := net.Dialer{Timeout: or(wait, freshWait), KeepAlive: -1, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) { local, err = p.bind(int(fd)) })
		return errors.Join(err, failed)
	}}
	c, err := d.DialContext(ctx, "tcp", p.cfg.To.String())
	if err != nil {
		if local.IsValid() && p.cfg.Unbound != nil {
			p.cfg.Unbound(local)
		}
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (p *TCP) bind(fd int) (local netip.AddrPort, err error) {
	from := p.cfg.From
	if p.cfg.Bound == nil && !from.IsValid() {
		return local, nil
	}
	if !from.IsValid() {
		if !p.cfg.To.Addr().IsLoopback() {
			return local, errors.New("a route needs an address to connect from")
		}
		from = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if p.cfg.To.Addr().Is6() {
			from = netip.IPv6Loopback()
		}
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(from.AsSlice())}
	if from.Is6() {
		to = &unix.SockaddrInet6{Addr: from.As16()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return local, fmt.Errorf("bind %s: %w", from, err)
	}
	s, err := unix.Getsockname(fd)
	if err != nil {
		return local, fmt.Errorf("own address: %w", err)
	}
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		local = netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		local = netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	if p.cfg.Bound != nil {
		if err := p.cfg.Bound(local); err != nil {
			p.mu.Lock()
			p.failed = err
			p.mu.Unlock()
			return local, err
		}
	}
	return local, nil
}

// hangUp closes with a reset: the port is free at once.
func (p *TCP) hangUp(c *net.TCPConn) {
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	c.SetLinger(0) //nolint:errcheck // closed is closed
	c.Close()
	if p.cfg.Unbound != nil {
		p.cfg.Unbound(netip.AddrPortFrom(local.Addr().Unmap(), local.Port()))
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// outcome names what became of a question.
func outcome(err error) Outcome {
	var timeout net.Error
	switch {
	case err == nil:
		return Answered
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	case errors.As(err, &timeout) && timeout.Timeout():
		return Silent
	}
	return Failed
}

// A question is 16 bytes: magic, how many bytes follow it, and how many the answer is to have. The answer is 16 bytes, how long the
// first took and how many of them that counts, and those it was to have.
type question struct{ up, down uint32 }

const questionSize = 16

// rates are what a question measured, in bit/s.
type rates struct{ up, down float64 }

func (q question) marshal() []byte {
	b := binary.BigEndian.AppendUint64(nil, magic)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, q.up), q.down)
}

func parseQuestion(b []byte) (question, error) {
	if len(b) != questionSize || binary.BigEndian.Uint64(b) != magic {
		return question{}, errors.New("not a probe's question")
	}
	q := question{up: binary.BigEndian.Uint32(b[8:]), down: binary.BigEndian.Uint32(b[12:])}
	if q.up > mostHaul || q.down > mostHaul {
		return question{}, errors.New("a question that asks for too much")
	}
	return q, nil
}

// ask asks one question and waits for the answer.
func ask(c *net.TCPConn, q question) (rates, error) {
	if _, err := c.Write(q.marshal()); err != nil {
		return rates{}, err
	}
	if q.up > 0 {
		if err := give(c, q.up); err != nil {
			return rates{}, err
		}
	}
	var b [questionSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return rates{}, err
	}
	took, counted := time.Duration(binary.BigEndian.Uint64(b[:])), binary.BigEndian.Uint64(b[8:])
	r := rates{up: rate(counted, took)}
	if q.down > 0 {
		counted, took, err := take(c, q.down)
		if err != nil {
			return rates{}, err
		}
		r.down = rate(counted, took)
	}
	return r, nil
}

func rate(bytes uint64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(bytes) * 8 / took.Seconds()
}

func give(c *net.TCPConn, n uint32) error {
	b := make([]byte, min(n, 64<<10))
	for n > 0 {
		k, err := c.Write(b[:min(n, uint32(len(b)))])
		if err != nil {
			return err
		}
		n -= uint32(k)
	}
	return nil
}

// take reads n bytes and measures the pace of all after the first that came, or, where all came at once, of all since they were
// waited for: no slower than that.
func take(c *net.TCPConn, n uint32) (counted uint64, took time.Duration, err error) {
	b := make([]byte, 64<<10)
	began, all := time.Now(), uint64(n)
	var first, last time.Time
	for n > 0 {
		k, err := c.Read(b[:min(n, uint32(len(b)))])
		if err != nil {
			return 0, 0, err
		}
		n -= uint32(k)
		last = time.Now()
		if first.IsZero() {
			first = last
			continue
		}
		counted += uint64(k)
	}
	if counted == 0 {
		return all, last.Sub(began), nil
	}
	return counted, last.Sub(first), nil
}

// serve answers questions until ctx ends.
func (p *TCP) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { p.cfg.Far.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a closed one accepts nothing
	open := make(chan struct{}, farOpen)
	for {
		select {
		case open <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c, err := p.cfg.Far.AcceptTCP()
		if err != nil {
			<-open
			if errors.Is(err, net.ErrClosed) || !pause(ctx, redial) {
				return
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-open }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // a closed one needs none
			var b [questionSize]byte
			for {
				if _, err := io.ReadFull(c, b[:]); err != nil {
					return
				}
				q, err := parseQuestion(b[:])
				if err != nil {
					return
				}
				counted, took, err := take(c, q.up)
				if err != nil {
					return
				}
				answer := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(took)), counted)
				if _, err := c.Write(answer); err != nil {
					return
				}
				if err := give(c, q.down); err != nil {
					return
				}
			}
		})
	}
}

// Connections is what was seen so far.
func (p *TCP) Connections() Connections {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Connections{
		Up: p.cfg.Up, Down: p.cfg.Down, Conduct: p.cfg.Conduct, Asks: append([]Ask(nil), p.asks...), Hauls: append([]Haul(nil), p.hauls...),
	}
}

// Judge says what the questions prove. Watch has returned.
func (p *TCP) Judge(w evidence.Window) evidence.Evidence {
	e := JudgeTCP(w, p.start, p.end, p.Connections())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		e.Detail += "; some questions were not asked: " + p.failed.Error()
	}
	if p.skipped > 0 {
		e.Detail += fmt.Sprintf("; %d questions were skipped", p.skipped)
	}
	return e
}
