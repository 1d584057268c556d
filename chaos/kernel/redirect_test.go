package kernel

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A flow's packets go round by a TUN, where a process holds them, and come back marked; marked ones go straight on, and so
// does what is not the flow's.
func TestTheWayRound(t *testing.T) {
	able(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with the goroutine, for it is never unlocked, and its namespace with it.
		runtime.LockOSThread()
		wayRound(t)
	}()
	<-done
}

func wayRound(t *testing.T) {
	const mark = 0x77
	self := net.IPv4(198, 18, 7, 1)
	fatal := func(err error) bool {
		if err != nil {
			t.Errorf("%v", err)
		}
		return err != nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Errorf("a network namespace: %v", err)
		return
	}
	tun, via, err := makeTUN(self)
	if fatal(err) {
		return
	}
	defer unix.Close(tun)
	lo, err := net.InterfaceByName("lo")
	if fatal(err) {
		return
	}
	sink, err := listen(self)
	if fatal(err) {
		return
	}
	defer unix.Close(sink.fd)
	other, err := listen(self)
	if fatal(err) {
		return
	}
	defer unix.Close(other.fd)

	// What is duplicated behind the way round goes round once.
	twice, err := Impair(Config{Interface: lo.Index, Hook: Egress, Flow: Flow{Ports: []uint16{sink.port}, Proto: UDP}, Duplicate: 1})
	if fatal(err) {
		return
	}
	defer twice.Close()
	round, err := Redirect(RedirectConfig{Interface: lo.Index, Hook: Egress, Flow: Flow{Ports: []uint16{sink.port}, Proto: UDP}, Via: via, Except: mark})
	if fatal(err) {
		return
	}
	defer round.Close()
	back, err := Mark(via, mark)
	if fatal(err) {
		return
	}
	defer back.Close()

	sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if fatal(err) {
		return
	}
	defer unix.Close(sender)
	send := func(what string, to udpSink) bool {
		return fatal(unix.Sendto(sender, []byte(what), 0, &unix.SockaddrInet4{Port: int(to.port), Addr: [4]byte(self.To4())}))
	}

	if send("straight", other) {
		return
	}
	if what, got := other.receive(t); what != "straight" || got != 0 {
		t.Errorf("another flow's packet: %q with mark %#x", what, got)
	}

	if send("round", sink) {
		return
	}
	buf := make([]byte, 2048)
	var n int
	await(t, func() bool {
		n, err = unix.Read(tun, buf)
		return err == nil && buf[0]>>4 == 4 // IPv6 has things to say of its own
	})
	if packet := buf[:n]; string(packet[28:]) != "round" || packet[0] != 0x45 {
		t.Errorf("the TUN has % x", packet)
	}
	if _, err := sink.try(); err == nil {
		t.Error("it arrived, and went round too")
	}
	if _, err := unix.Write(tun, buf[:n]); fatal(err) {
		return
	}
	if what, got := sink.receive(t); what != "round" || got != mark {
		t.Errorf("what came back: %q with mark %#x, want %#x", what, got, mark)
	}

	if fatal(unix.SetsockoptInt(sender, unix.SOL_SOCKET, unix.SO_MARK, mark)) || send("been", sink) {
		return
	}
	for range 2 {
		if what, got := sink.receive(t); what != "been" || got != mark {
			t.Errorf("a marked packet: %q with mark %#x", what, got)
		}
	}
	for p, want := range map[*Program]uint64{round: 1, back: 1, twice: 1} {
		if c := counts(t, p).To; c.Seen.Packets != want {
			t.Errorf("counted %+v, want %d", c, want)
		}
	}
}

// udpSink receives datagrams and their marks.
type udpSink struct {
	fd   int
	port uint16
}

func listen(ip net.IP) (s udpSink, err error) {
	s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return s, err
	}
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Addr: [4]byte(ip.To4())}); err != nil {
		return s, err
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return s, err
	}
	s.port = uint16(name.(*unix.SockaddrInet4).Port)
	return s, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1)
}

func (s udpSink) try() (string, error) {
	buf := make([]byte, 100)
	n, err := unix.Read(s.fd, buf)
	return string(buf[:max(n, 0)]), err
}

func (s udpSink) receive(t *testing.T) (string, uint32) {
	x := crossing{t: t, rx: s.fd, buf: make([]byte, 100)}
	mark := x.mark()
	return string(x.buf[:x.n]), mark
}

// makeTUN makes one with an address, in this thread's network namespace, and lets packets from there have that address too.
func makeTUN(ip net.IP) (fd, index int, err error) {
	const name = "tun0"
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, 0, err
	}
	request := func(name string, set func(*unix.Ifreq) error) *unix.Ifreq {
		r, e := unix.NewIfreq(name)
		if e == nil {
			e = set(r)
		}
		if err == nil {
			err = e
		}
		return r
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(socket)
	do := func(fd int, call uint, name string, set func(*unix.Ifreq) error) {
		if r := request(name, set); err == nil {
			err = unix.IoctlIfreq(fd, call, r)
		}
	}
	flags := func(f uint16) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { r.SetUint16(f); return nil }
	}
	do(fd, unix.TUNSETIFF, name, flags(unix.IFF_TUN|unix.IFF_NO_PI))
	do(socket, unix.SIOCSIFADDR, name, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip.To4()) })
	for _, each := range []string{name, "lo"} {
		do(socket, unix.SIOCSIFFLAGS, each, flags(unix.IFF_UP|unix.IFF_RUNNING))
	}
	if err != nil {
		return 0, 0, err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/accept_local", []byte("1"), 0); err != nil {
		return 0, 0, err
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, 0, err
	}
	return fd, i.Index, nil
}
