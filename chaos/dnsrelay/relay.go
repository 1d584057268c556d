package dnsrelay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Kinds of wrong answers.
const (
	NXDomain = "nxdomain" // there is no such name
	ServFail = "servfail" // the resolver failed
	Address  = "address"  // another address than the right one
	Silence  = "silence"  // no answer
	Slow     = "slow"     // the right answer, late
)

// Kinds lists them.
func Kinds() []string { return []string{NXDomain, ServFail, Address, Silence, Slow} }

// Rule says which questions are answered wrongly, and how.
type Rule struct {
	Kind    string
	Name    string        // of the question, or what it ends with; "": every name
	Address netip.Addr    // of Address; IPv4: who asks for another kind is told that there is none
	Delay   time.Duration // of Slow
}

// Validate reports everything that is wrong.
func (r Rule) Validate() error {
	var errs []error
	switch r.Kind {
	case NXDomain, ServFail, Silence:
	case Address:
		if !r.Address.Is4() {
			errs = append(errs, errors.New("no IPv4 address to answer with"))
		}
	case Slow:
		if r.Delay <= 0 || r.Delay > maxDelay {
			errs = append(errs, fmt.Errorf("a delay of %v is not above 0 and at most %v", r.Delay, maxDelay))
		}
	default:
		errs = append(errs, fmt.Errorf("%q is no wrong answer (there is %s)", r.Kind, strings.Join(Kinds(), ", ")))
	}
	return errors.Join(errs...)
}

// covers reports whether a rule is about a name.
func (r Rule) covers(name string) bool {
	want := strings.ToLower(strings.TrimSuffix(r.Name, "."))
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return want == "" || name == want || strings.HasSuffix(name, "."+want)
}

const (
	maxDelay   = time.Minute
	maxPacket  = 64 << 10
	maxOpen    = 1024 // questions under way
	answerTime = 5 * time.Second
	wrongTTL   = 1 // second: a wrong answer is to be over soon after the fault is
)

// Counts is what a relay has done.
type Counts struct{ Questions, Wrong, Refused uint64 }

// order is a rule in force.
type order struct {
	Rule
	gone chan struct{} // closed when it is no more
}

// Relay stands in front of one resolver.
type Relay struct {
	conn     *net.UDPConn
	upstream netip.AddrPort
	rule     atomic.Pointer[order]

	questions, wrong, refused atomic.Uint64
}

// Listen takes the public address; Run relays.
func Listen(listen, upstream netip.AddrPort) (*Relay, error) {
	if upstream.Port() == 0 {
		return nil, errors.New("DNS relay: the resolver behind it has no port")
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen))
	if err != nil {
		return nil, fmt.Errorf("DNS relay: %w", err)
	}
	return &Relay{conn: conn, upstream: upstream}, nil
}

// Addr is the public address.
func (r *Relay) Addr() netip.AddrPort { return r.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Set orders wrong answers; nil: none. Questions that a rule before it holds up are answered at once.
func (r *Relay) Set(rule *Rule) error {
	var next *order
	if rule != nil {
		if err := rule.Validate(); err != nil {
			return fmt.Errorf("DNS relay: %w", err)
		}
		next = &order{*rule, make(chan struct{})}
	}
	if last := r.rule.Swap(next); last != nil {
		close(last.gone)
	}
	return nil
}

// Counts is what was done so far.
func (r *Relay) Counts() Counts {
	return Counts{r.questions.Load(), r.wrong.Load(), r.refused.Load()}
}

// Close gives the public address back; for a relay that was never run.
func (r *Relay) Close() error { return r.conn.Close() }

// Run relays until ctx ends; questions under way are dropped then.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { r.conn.Close() })
	defer stop()
	slots := make(chan struct{}, maxOpen)
	packet := make([]byte, maxPacket)
	for {
		n, client, err := r.conn.ReadFromUDPAddrPort(packet)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("DNS relay: %w", err)
		}
		select {
		case slots <- struct{}{}:
			question := append([]byte(nil), packet[:n]...)
			open.Go(func() {
				defer func() { <-slots }()
				r.answer(ctx, client, question)
			})
		default:
			r.refused.Add(1)
		}
	}
}

// answer answers one question, rightly or wrongly.
func (r *Relay) answer(ctx context.Context, client netip.AddrPort, question []byte) {
	r.questions.Add(1)
	if rule := r.rule.Load(); rule != nil {
		reply, wait, wrong := rule.wrong(question)
		if wrong {
			r.wrong.Add(1)
			if reply == nil && wait == 0 {
				return
			}
			if wait > 0 && !sleep(ctx, wait, rule.gone) {
				return
			}
			if reply != nil {
				r.conn.WriteToUDPAddrPort(reply, client) //nolint:errcheck // the client asks again
				return
			}
		}
	}
	reply, err := ask(ctx, r.upstream, question, answerTime)
	if err != nil {
		return
	}
	r.conn.WriteToUDPAddrPort(reply, client) //nolint:errcheck // the client asks again
}

// wrong is what a rule makes of a question: an answer, or none, at once or after a while; wrong is false when the rule is
// not about it. A wait without an answer is for the right one.
func (rule Rule) wrong(question []byte) (reply []byte, wait time.Duration, wrong bool) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil || head.Response {
		return nil, 0, false
	}
	q, err := p.Question()
	if err != nil || !rule.covers(q.Name.String()) {
		return nil, 0, false
	}
	switch rule.Kind {
	case Silence:
		return nil, 0, true
	case Slow:
		return nil, rule.Delay, true
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	switch rule.Kind {
	case NXDomain:
		m.RCode = dnsmessage.RCodeNameError
	case ServFail:
		m.RCode = dnsmessage.RCodeServerFailure
	case Address:
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: wrongTTL}
		if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: rule.Address.As4()}}}
		}
	}
	if reply, err = m.Pack(); err != nil {
		return nil, 0, false
	}
	return reply, 0, true
}

// ask sends a question to a resolver and returns its answer.
func ask(ctx context.Context, resolver netip.AddrPort, question []byte, within time.Duration) ([]byte, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(resolver))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	reply := make([]byte, maxPacket)
	n, err := conn.Read(reply)
	if err != nil {
		return nil, err
	}
	return reply[:n], nil
}

// sleep waits until d is over, or what makes it wait is gone; false: ctx has ended.
func sleep(ctx context.Context, d time.Duration, gone <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return true
	case <-ctx.Done():
		return false
	}
}
