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
`
	got := parseListening(strings.NewReader(text))
	want := []listens{{netip.MustParseAddrPort("127.0.0.1:8088"), "4711"}, {netip.MustParseAddrPort("0.0.0.0:80"), "4712"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseListening(f *testing.F) {
	f.Add("   0: 0100007F:1F98 00000000:0000 0A 0 0 0 0 0 4711\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range parseListening(strings.NewReader(text)) {
			if !l.at.IsValid() || l.inode == "" {
				t.Errorf("%+v", l)
			}
		}
	})
}

func TestWhoListens(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	mine, err := Listening(os.Getpid())
	if err != nil || !slices.Contains(mine, addr) {
		t.Errorf("this process listens at %v, %v: want %s too", mine, err, addr)
	}
	got, err := At(addr)
	if err != nil || len(got) != 1 || got[0].PID != os.Getpid() {
		t.Errorf("at %s listen %v, %v", addr, got, err)
	}
	ln.Close()
	if got, err := At(addr); err != nil || len(got) != 0 {
		t.Errorf("nobody listens there any more, but %v, %v", got, err)
	}
	if !Covers(netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("127.0.0.1:80")) || Covers(netip.MustParseAddrPort("0.0.0.0:80"), netip.MustParseAddrPort("127.0.0.1:81")) {
		t.Error("Covers")
	}
}
