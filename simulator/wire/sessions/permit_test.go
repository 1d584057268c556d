package sessions

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// pins is a permit for some host:port.
type pins struct {
	sync.Mutex
	at map[string]netip.AddrPort
}

func (p *pins) Pinned(address string) (netip.AddrPort, bool) {
	p.Lock()
	defer p.Unlock()
	ap, ok := p.at[address]
	return ap, ok
}

// A target with a permit is played at its pinned address, whatever its name would resolve to, and its requests name the run;
// without the permit, or for another port, it is refused.
func TestAPermitIsDialledWhereItPins(t *testing.T) {
	const agent = "tminus/v0 (run permit-test)"
	var asked, unnamed atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.UserAgent() != agent || !strings.HasPrefix(r.Host, "192.0.2.7") {
			unnamed.Add(1)
		}
		if strings.HasSuffix(r.URL.Path, ".m3u8") {
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\n7.ts\n#EXTINF:2,\n8.ts\n")
			return
		}
		http.NotFound(w, r)
	}))
	defer srv.Close()
	here := netip.MustParseAddrPort(srv.Listener.Addr().String())
	permit := &pins{at: map[string]netip.AddrPort{"192.0.2.7:80": here}} // TEST-NET-1: nobody's
	const target = "http://192.0.2.7/live.m3u8"

	if err := ProbeWith(t.Context(), target, time.Now(), Config{Permit: permit, UserAgent: agent}); err != nil {
		t.Fatal(err)
	}
	if err := Probe(t.Context(), target, time.Now()); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("without a permit: %v", err)
	}
	if _, err := New(Config{Players: 1, Manifest: "http://192.0.2.7:81/live.m3u8", Sink: event.Discard, Permit: permit}); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("another port: %v", err)
	}
	c, err := New(Config{Players: 1, Manifest: target, Sink: event.Discard, Permit: permit, UserAgent: agent})
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for asked.Load() < before+3 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	// Withdrawn: what is not connected yet is refused, and the run with it.
	permit.Lock()
	clear(permit.at)
	permit.Unlock()
	srv.CloseClientConnections()
	if err := <-ended; !errors.Is(err, ErrNotLoopback) {
		t.Errorf("after the permit was withdrawn: %v", err)
	}
	if n := unnamed.Load(); n > 0 {
		t.Errorf("%d requests did not name the run or the host", n)
	}
}
