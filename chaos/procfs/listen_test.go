package procfs

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseListening(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F98 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F98 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4 30 10 -1
   3: 0B02007F:1F90 00000000:0000 0A short
   garbage
   4: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0000000000000000 100 0 0 10 0
   5: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4715 1 0000000000000000 100 0 0 10 0
   6: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4716 1 0000000000000000 100 0 0 10 0
`
	got := parseListening(TCP, strings.NewReader(text))
	want := []listens{{netip.MustParseAddrPort("127.0.0.1:8088"), "4711"}, {netip.MustParseAddrPort("0.0.0.0:80"), "4712"},
		{netip.MustParseAddrPort("[::]:8080"), "4714"}, {netip.MustParseAddrPort("127.0.0.1:8081"), "4715"}, {netip.MustParseAddrPort("[::1]:8082"), "4716"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	const datagrams = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  100: 0100007F:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4717 2 0000000000000000 0
  101: 0100007F:9C40 0100007F:14E9 01 00000000:00000000 00:00000000 00000000     0        0 4718 2 0000000000000000 0
`
	if got := parseListening(UDP, strings.NewReader(datagrams)); !slices.Equal(got, []listens{{netip.MustParseAddrPort("127.0.0.1:5353"), "4717"}}) {
		t.Errorf("datagrams are taken at %v", got)
	}
}

func FuzzParseListening(f *testing.F) {
	f.Add("   0: 0100007F:1F98 00000000:0000 0A 0 0 0 0 0 4711\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, network := range []string{TCP, UDP} {
			for _, l := range parseListening(network, strings.NewReader(text)) {
				if !l.at.IsValid() || l.inode == "" {
					t.Errorf("%+v", l)
				}
			}
		}
	})
}

func TestWhoListens(t *testing.T) {
	for _, at := range []string{"127.0.0.9:0", ":0"} { // the other at every address, of IPv6 too where there is such
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), ln.Addr().(*net.TCPAddr).AddrPort().Port())
		mine, err := Listening(os.Getpid())
		if err != nil || !slices.ContainsFunc(mine, func(l netip.AddrPort) bool { return Covers(l, addr) }) {
			t.Errorf("this process listens at %v, %v: want %s too", mine, err, addr)
		}
		got, err := At(TCP, addr)
		if err != nil || len(got) != 1 || got[0].PID != os.Getpid() {
			t.Errorf("at %s listen %v, %v", addr, got, err)
		}
		if taken, err := Taken(TCP, addr); err != nil || !taken {
			t.Errorf("nobody listens at %s, %v", addr, err)
		}
		ln.Close()
		if got, err := At(TCP, addr); err != nil || len(got) != 0 {
			t.Errorf("nobody listens there any more, but %v, %v", got, err)
		}
		if taken, err := Taken(TCP, addr); err != nil || taken {
			t.Errorf("somebody listens at %s still, %v", addr, err)
		}
	}
}

// Who takes datagrams is another than who takes connections at the same port.
func TestWhoTakesDatagrams(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	for network, want := range map[string]int{TCP: 0, UDP: 1} {
		got, err := At(network, addr)
		if err != nil || len(got) != want {
			t.Errorf("at %s over %s listen %v, %v", addr, network, got, err)
		}
		if taken, err := Taken(network, addr); err != nil || taken != (want > 0) {
			t.Errorf("at %s over %s somebody listens: %v, %v", addr, network, taken, err)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		listening, to string
		want          bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:81", false},
		{"0.0.0.0:80", "[::1]:80", false},
		{"[::]:80", "127.0.0.1:80", true},
		{"[::]:80", "[::1]:80", true},
		{"[::1]:80", "127.0.0.1:80", false},
		{"127.0.0.1:80", "[::ffff:127.0.0.1]:80", true},
	} {
		if got := Covers(netip.MustParseAddrPort(c.listening), netip.MustParseAddrPort(c.to)); got != c.want {
			t.Errorf("%s covers %s: %v", c.listening, c.to, got)
		}
	}
}
