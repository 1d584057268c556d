package starts

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

// A minute of fresh connections must not run out of ports: none stays occupied after its answer.
func TestFreshConnectionsLeaveNoPortOccupied(t *testing.T) {
	addr := startBare(t)
	c := config(t, event.Discard, schedule(t, 500*ms, audience.Leg{Rate: 1}), addr)
	c.Connections, c.Saturate, c.MaxInFlight, c.Start = Fresh, true, 64, time.Now()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := g.Snapshot()
	if n.OK < 500 || n.OK != n.Intended {
		t.Fatalf("%+v", n)
	}
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	// "sl local_address rem_address st …": addresses in host order, state 06 is TIME_WAIT.
	port, waiting := fmt.Sprintf(":%04X", addr.Port()), 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) > 3 && w[3] == "06" && (strings.HasSuffix(w[1], port) || strings.HasSuffix(w[2], port)) {
			waiting++
		}
	}
	if waiting > 10 {
		t.Errorf("%d of %d connections still occupy a port", waiting, n.OK)
	}
}

// When one source address has no ports left, there are others.
func TestSourceAddresses(t *testing.T) {
	t.Parallel()
	from := make(chan net.Addr, 1)
	addr := listen(t, func(c *net.TCPConn) { from <- c.RemoteAddr() })
	r := newRemote(addr)
	r.source = 6
	fd, errno := r.dial()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer closeFD(fd)
	if got := (<-from).(*net.TCPAddr); !got.IP.Equal(net.IPv4(127, 0, 0, 7)) {
		t.Errorf("from %s", got)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				always(response(200, good))(c.(*net.TCPConn))
			}()
		}
	}()
	if n := mustRun(t, config(t, nil, schedule(t, s/4, audience.Leg{Rate: 200}), netip.MustParseAddrPort(l.Addr().String()))).Snapshot(); n.OK != 50 {
		t.Errorf("%+v", n)
	}
}
