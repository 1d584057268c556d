package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/telemetry/event"
)

const (
	probeEvery   = 250 * time.Millisecond
	probeTimeout = time.Second // of the handshake, and again of the answer
	probeAtOnce  = 20          // target addresses a round, all of a region's; were there more, they would take turns
	probesOpen   = 128         // attempts in flight, at most
	probesKept   = 40_000      // samples a fault's evidence may hold
)

// attempt tries one address: connects, and asks for /healthz. connected is called when the handshake is done.
type attempt func(ctx context.Context, addr netip.AddrPort, connected func()) (Outcome, int)

// prober is the Observer of faults that change who can be reached: it connects from 127.0.0.1, outside every region,
// as a viewer would.
type prober struct {
	fault     Fault
	want      Outcome
	where     string
	targets   []netip.AddrPort
	control   netip.AddrPort // not valid: there is none
	elsewhere string         // the region control is in
	every     time.Duration
	now       func() time.Time
	sink      event.Sink
	try       attempt

	mu      sync.Mutex
	samples []sample
	skipped int // attempts not made because too many were open, or samples not kept
}

func newProber(f Fault, r Region, cfg *Config, want Outcome) (*prober, error) {
	p := &prober{fault: f, want: want, where: r.Name(), targets: r.Endpoints(), every: pace(f.For), now: cfg.Now, sink: cfg.Sink, try: cfg.probe}
	if p.try == nil {
		p.try = connect
	}
	if len(p.targets) == 0 {
		return nil, fmt.Errorf("fault %s: region %s has no address to watch it by", f.ID, r.Name())
	}
	for _, other := range cfg.Regions {
		if other.Name() != r.Name() && len(other.Endpoints()) > 0 && !troubled(other.Name(), f, cfg.Faults) {
			p.control, p.elsewhere = other.Endpoints()[0], other.Name()
			break
		}
	}
	return p, nil
}

// troubled reports whether a region has a fault of its own while f is watched.
func troubled(name string, f Fault, faults []Fault) bool {
	for _, g := range faults {
		if Inside(g.Where, name) && Clash(f, g) {
			return true
		}
	}
	return false
}

// pace is the time between two rounds: probeEvery, and longer for faults so long that their samples would not fit.
func pace(length time.Duration) time.Duration {
	rounds := probesKept / (probeAtOnce + 1)
	return max(probeEvery, (length+watchBefore+watchAfter+restoreWait)/time.Duration(rounds))
}

// Watch probes until ctx ends.
func (p *prober) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := make(chan struct{}, probesOpen)
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	next := 0
	for {
		round := make([]netip.AddrPort, 0, probeAtOnce+1)
		for range min(probeAtOnce, len(p.targets)) {
			round = append(round, p.targets[next%len(p.targets)])
			next++
		}
		if p.control.IsValid() {
			round = append(round, p.control)
		}
		for _, addr := range round {
			select {
			case open <- struct{}{}:
				wg.Go(func() {
					p.once(ctx, addr)
					<-open
				})
			default:
				p.mu.Lock()
				p.skipped++
				p.mu.Unlock()
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// once makes one attempt and keeps what came of it. An attempt that ctx broke off says nothing.
func (p *prober) once(ctx context.Context, addr netip.AddrPort) {
	s := sample{start: p.now(), addr: addr, control: addr == p.control}
	var done time.Time
	s.outcome, s.health = p.try(ctx, addr, func() { done = p.now() })
	if s.end = p.now(); s.outcome == Connected && !done.IsZero() {
		s.end = done
	}
	if ctx.Err() != nil && s.outcome != Connected {
		return
	}
	p.mu.Lock()
	if len(p.samples) < probesKept {
		p.samples = append(p.samples, s)
	} else {
		p.skipped++
	}
	p.mu.Unlock()

	e := event.Event{
		At: s.start, Kind: event.Probe, Fault: p.fault.ID, Region: p.where, Component: addr.String(),
		Status: string(s.outcome), Value: float64(s.end.Sub(s.start).Microseconds()) / 1000,
	}
	switch {
	case s.health != 0:
		e.Detail = fmt.Sprintf("GET /healthz: %d", s.health)
	case s.outcome == Connected:
		e.Detail = "GET /healthz: no answer"
	}
	if s.control {
		e.Region = p.elsewhere
		e.Detail = strings.TrimSuffix("control; "+e.Detail, "; ")
	}
	p.sink.Emit(e)
}

// Judge says what the probes prove.
func (p *prober) Judge(w Window) Evidence {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := judge(p.want, w, p.elsewhere, p.targets, p.samples)
	if p.skipped > 0 {
		e.Detail += fmt.Sprintf("; %d probes were skipped", p.skipped)
	}
	return e
}

// connect is the real probe.
func connect(ctx context.Context, addr netip.AddrPort, connected func()) (Outcome, int) {
	d := net.Dialer{Timeout: probeTimeout, KeepAlive: -1}
	if addr.Addr().IsLoopback() { // from outside every region; a network of its own is outside of this machine as it is
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	}
	conn, err := d.DialContext(ctx, "tcp4", addr.String())
	if err != nil {
		return classify(err), 0
	}
	connected()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	if _, err := fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: %s\r\nUser-Agent: tminus-probe\r\nConnection: close\r\n\r\n", addr); err != nil {
		return answered(err), 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 16<<10)), nil)
	if err != nil {
		return answered(err), 0
	}
	resp.Body.Close()
	return Connected, resp.StatusCode
}

// classify names a failed handshake.
func classify(err error) Outcome {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.ECONNRESET):
		return Reset
	case errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	}
	return Failed
}

// answered names what came after a handshake: a torn-down connection is one thing, a server that is slow to answer is
// connected all the same.
func answered(err error) Outcome {
	if errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return Reset
	}
	return Connected
}
