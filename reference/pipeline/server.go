package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
)

// limits bound what a server's clients may do. Whoever is slower or larger is cut off.
type limits struct {
	conns int           // connections at once; later ones wait in the kernel's backlog
	read  time.Duration // a whole request, body included
	write time.Duration // from the end of a request's header to the end of its answer, holding it open included
	idle  time.Duration // between requests of one connection
}

// Bounds by component. The origin holds a request for up to 4 s and an edge waits as long for a fill; the rest of the
// writing time is for slow clients.
var (
	originLimits   = limits{conns: 8192, read: 15 * time.Second, write: 30 * time.Second, idle: time.Minute}
	edgeLimits     = limits{conns: 32768, read: 5 * time.Second, write: 30 * time.Second, idle: time.Minute}
	playbackLimits = limits{conns: 32768, read: 5 * time.Second, write: 10 * time.Second, idle: time.Minute}
)

const (
	headerTime  = 3 * time.Second
	headerBytes = 8 << 10
	// drain is how long answers under way may take when a server stops.
	drain = 500 * time.Millisecond
)

// server is one bound listener and what answers on it.
type server struct {
	what string // "edge us-east-1"
	ln   net.Listener
	http http.Server
}

// bind binds addr. Its error is one sentence that names what and where.
func bind(what string, addr netip.AddrPort, h http.Handler, l limits, log *slog.Logger) (*server, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, bindError(what, addr.String(), err)
	}
	return &server{what: what, ln: netutil.LimitListener(ln, l.conns), http: http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       l.read,
		WriteTimeout:      l.write,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(log.With("component", what).Handler(), slog.LevelDebug),
	}}, nil
}

func bindError(what, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s cannot listen on %s: %w; another program, perhaps another rehearsal, has it: end that one or choose another port", what, addr, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s cannot listen on %s: %w; ports below 1024 need privileges: choose another port", what, addr, syscall.EACCES)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s cannot listen on %s: %w", what, addr, op.Err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// run serves until ctx ends. Requests that are held open then end at once, others have a moment.
func (s *server) run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if s.http.Shutdown(drained) != nil {
			s.http.Close()
		}
	}()
	err := s.http.Serve(s.ln)
	if ctx.Err() == nil {
		// Serve fails for a reason of its own; the goroutine ends with ctx, which Run ends next.
		return fmt.Errorf("%s stopped serving: %w", s.what, err)
	}
	<-stopped
	return nil
}
