package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

// newGenerator makes the project's generator, set to send as fast as its connections carry it.
func newGenerator(p Part) (*starts.Generator, error) {
	crowd, err := audience.NewCrowd(audience.DefaultMix, []string{region}, 7)
	if err != nil {
		return nil, err
	}
	// Saturate asks for no rate: only the schedule's end counts, and the measurement ends before.
	schedule, err := audience.NewSchedule([]audience.Leg{{Rate: 1}}, p.Warm+p.For+time.Minute)
	if err != nil {
		return nil, err
	}
	c := starts.Config{
		Schedule: schedule, Crowd: crowd, Services: []starts.Service{{Region: region, Addr: p.Addr}},
		Title: title, Token: token, Start: time.Now(), Sink: event.Discard, Saturate: true, Shards: 1,
		PerService: p.Connections, InFlight: p.InFlight, AttemptTimeout: capture, // what is slow shows in the rate
	}
	if p.Fresh {
		c.Connections, c.MaxInFlight = starts.Fresh, p.Connections
	}
	if p.TLS != nil {
		if c.TLS, err = clientTLS(p.TLS); err != nil {
			return nil, err
		}
	}
	return starts.New(c)
}

func driveGenerator(ctx context.Context, p Part) (measured, error) {
	g, err := newGenerator(p)
	if err != nil {
		return measured{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	wait := func(d time.Duration) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case err := <-ended:
			return fmt.Errorf("the generator ended too soon: %w", errors.Join(err, context.Cause(ctx)))
		}
	}
	if err := wait(p.Warm); err != nil {
		return measured{}, err
	}
	cpu := meter{server: p.Server}
	cpu.begin()
	before, since := g.Snapshot(), time.Now()
	if err := wait(p.For); err != nil {
		return measured{}, err
	}
	after, took := g.Snapshot(), time.Since(since)
	m := measured{Done: after.OK - before.OK, Seconds: took.Seconds()}
	cpu.end(&m)
	// From the first one on: what went wrong while it warmed up went wrong. An attempt that a later one made good counts too.
	m.Wrong, m.Dropped = after.Shed+after.Failed, after.Dropped
	attempts := uint64(0)
	for _, n := range after.AttemptFailures {
		attempts += n
	}
	m.Wrong = max(m.Wrong, attempts)
	if m.Wrong > 0 || m.Dropped > 0 {
		m.Detail = fmt.Sprintf("%d shed, %d failed; starts %v, attempts %v", after.Shed, after.Failed, after.Failures, after.AttemptFailures)
	}
	cancel()
	<-ended
	return m, nil
}

// recordRequest returns the bytes that the generator sends for one play start.
func recordRequest(ctx context.Context) ([]byte, error) {
	l, err := listenAbove(netip.AddrPortFrom(loopbackAddr, firstPort), func(a netip.AddrPort) (net.Listener, error) { return net.Listen("tcp4", a.String()) })
	if err != nil {
		return nil, err
	}
	defer l.Close()
	g, err := newGenerator(Part{Addr: netip.MustParseAddrPort(l.Addr().String()), Connections: 1, For: time.Second})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(capture)) //nolint:errcheck // Accept fails then
	c, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("the generator sent nothing: %w", err)
	}
	defer c.Close()
	return readMessage(c)
}

// askService sends a request and returns the bytes of the answer.
func askService(addr netip.AddrPort, request []byte) ([]byte, error) {
	c, err := net.DialTimeout("tcp", addr.String(), capture)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(capture)); err != nil {
		return nil, err
	}
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	answer, err := readMessage(c)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		return nil, fmt.Errorf("the service answered %.60q", answer)
	}
	return answer, nil
}

// capture bounds the wait for one request or answer, and maxMessage its size in bytes.
const (
	capture    = 5 * time.Second
	maxMessage = 16 << 10
)

// readMessage reads one HTTP/1.1 message with a Content-Length, byte for byte.
func readMessage(c net.Conn) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(capture)); err != nil {
		return nil, err
	}
	var b []byte
	buf := make([]byte, 4096)
	for len(b) < maxMessage {
		n, err := c.Read(buf)
		b = append(b, buf[:n]...)
		if head, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok {
			_, after, ok := bytes.Cut(bytes.ToLower(head), []byte("\r\ncontent-length:"))
			value, _, _ := bytes.Cut(after, []byte("\r\n"))
			length, bad := strconv.Atoi(string(bytes.TrimSpace(value)))
			switch {
			case !ok || bad != nil:
				return nil, fmt.Errorf("a message without a length: %.200q", head)
			case len(body) > length:
				return nil, fmt.Errorf("%d bytes more than the message announces", len(body)-length)
			case len(body) == length:
				return b, nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
}
