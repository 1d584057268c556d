package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
)

// The test binary plays a user without privileges too.
const role = "TMINUS_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "nobody" {
		os.Exit(m.Run())
	}
	if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	err := Able()
	fmt.Println(errors.Is(err, evidence.ErrUnsupported), err)
}

func TestWithoutPrivilegesItSaysWhatIsLacking(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can show how it is without")
	}
	nobody := exec.Command(os.Args[0])
	nobody.Env = append(os.Environ(), role+"=nobody")
	out, err := nobody.CombinedOutput()
	want := "true cannot be injected here: it needs CAP_BPF and CAP_NET_ADMIN (run as root), which this user lacks\n"
	if err != nil || string(out) != want {
		t.Errorf("%v, said %q, want %q", err, out, want)
	}
}

// able skips a test where no program can be put into the kernel, and fails it where one must be possible.
func able(t testing.TB) {
	t.Helper()
	err := Able()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true" && os.Getuid() == 0:
		t.Fatalf("this machine must be able to break packets in the kernel: %v", err)
	default:
		t.Skipf("NOT TESTED, what is broken in the kernel: %v", err)
	}
}

const patience = 20 * time.Second

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// address is one of loopback's for these tests alone: other runs on this machine have others.
func address(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 192+os.Getpid()%32, os.Getpid()/32%256, n)
}

func loopback(t testing.TB) int {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return lo.Index
}

func impair(t testing.TB, c Config) *Program {
	t.Helper()
	p, err := Impair(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, p) })
	return p
}

func closed(t testing.TB, p *Program) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func counts(t testing.TB, p *Program) Counts {
	t.Helper()
	c, err := p.Counts()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// crossing is a datagram socket that sends across loopback, and the one that receives. Both are driven by one thread on one processor:
// the kernel delivers in the order of sending then.
type crossing struct {
	t      testing.TB
	tx, rx int
	addr   netip.AddrPort // the receiver's
	buf    []byte
	n      int // bytes of the last packet whose mark was asked for
}

func cross(t testing.TB, to string) *crossing {
	t.Helper()
	runtime.LockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	x := &crossing{t: t, buf: make([]byte, 2048)}
	t.Cleanup(func() {
		unix.Close(x.tx)
		unix.Close(x.rx)
		unix.SchedSetaffinity(0, &all) //nolint:errcheck // as it was
		runtime.UnlockOSThread()
	})
	var err error
	if x.rx, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	if x.tx, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	a := unix.SockaddrInet4{Addr: netip.MustParseAddr(to).As4()}
	if err := unix.Bind(x.rx, &a); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(x.rx)
	if err != nil {
		t.Fatal(err)
	}
	a.Port = name.(*unix.SockaddrInet4).Port
	x.addr = netip.AddrPortFrom(netip.MustParseAddr(to), uint16(a.Port))
	if err := unix.SetsockoptInt(x.rx, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(x.tx, &a); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *crossing) flow() Flow {
	return Flow{Prefix: netip.PrefixFrom(x.addr.Addr(), 32), Ports: []uint16{x.addr.Port()}, Proto: UDP}
}

// send sends numbered packets and hands over what arrives, until as many packets as arrive says have, and no more come.
func (x *crossing) send(packets, size int, arrive func() int, each func(packet []byte)) {
	x.t.Helper()
	got := 0
	drain := func() {
		for {
			n, err := unix.Read(x.rx, x.buf)
			if err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					x.t.Fatal(err)
				}
				return
			}
			got++
			each(x.buf[:n])
		}
	}
	packet := make([]byte, size)
	for i := range packets {
		binary.BigEndian.PutUint32(packet, uint32(i))
		if _, err := unix.Write(x.tx, packet); err != nil {
			x.t.Fatal(err)
		}
		if i%64 == 63 {
			drain()
		}
	}
	deadline := time.Now().Add(patience)
	for drain(); got < arrive(); drain() {
		if time.Now().After(deadline) {
			x.t.Fatalf("%d packets arrived, want %d", got, arrive())
		}
		unix.Poll([]unix.PollFd{{Fd: int32(x.rx), Events: unix.POLLIN}}, 100) //nolint:errcheck // it only waits
	}
	if got > arrive() {
		x.t.Fatalf("%d packets arrived, want %d", got, arrive())
	}
}

// left is how many packets a program has let through, its duplicates among them.
func left(t testing.TB, p *Program) func() int {
	return func() int {
		c := counts(t, p).Total()
		return int(c.Seen.Packets - c.Lost.Packets + c.Duplicated)
	}
}

func number(packet []byte) int { return int(binary.BigEndian.Uint32(packet)) }

func TestCloseLeavesNothing(t *testing.T) {
	able(t)
	x := cross(t, address(1))
	p, err := Impair(Config{Interface: loopback(t), Flow: x.flow(), Cut: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	x.send(10, 100, func() int { return 0 }, func([]byte) { t.Error("a packet passed") })
	if p.LinkID() == 0 {
		t.Error("no id")
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What it has done is still known.
	if c := counts(t, p); c.To.Lost != (Traffic{10, 10 * (14 + 20 + 8 + 100)}) || c.To.Seen != c.To.Lost || c.From != (Tally{}) {
		t.Errorf("%+v", c)
	}
	x.send(10, 100, func() int { return 10 }, func([]byte) {})
}

func TestValidate(t *testing.T) {
	flow := Flow{Prefix: prefix("127.1.2.0/24")}
	for _, c := range []struct {
		err  error
		want []string
	}{
		{Config{Interface: 1}.Validate(), nil},
		{Config{Interface: 1, Flow: flow, Hook: Egress, Duplicate: 1, Corrupt: 1}.Validate(), nil},
		{RedirectConfig{Interface: 1, Via: 2, Except: 7}.Validate(), nil},
		{Flow{Prefix: flow.Prefix, Direction: Across, Ports: []uint16{1}}.Validate(), nil},
		{Config{Duplicate: -1, Corrupt: 2, Hook: "exit"}.Validate(), []string{"no interface 0", "duplicated", "corrupted", `unknown hook "exit"`}},
		{Flow{Prefix: prefix("::1/128")}.Validate(), []string{"::1/128 is not a range of IPv4"}},
		{Flow{Peer: prefix("::1/128")}.Validate(), []string{"::1/128 is not a range of IPv4"}},
		{Flow{Ports: make([]uint16, 129)}.Validate(), []string{"129 ports", "no port 0"}},
		{Flow{Proto: 1, Direction: "up"}.Validate(), []string{"protocol 1", `unknown direction "up"`}},
		{Flow{Direction: Across, Peer: flow.Prefix}.Validate(), []string{"a border needs", "has any peer"}},
		{Flow{Direction: Across, Prefix: prefix("0.0.0.0/0")}.Validate(), []string{"a border needs"}},
		{Flow{Direction: Entering, Peer: flow.Prefix}.Validate(), []string{"a border needs", "has any peer"}},
		{RedirectConfig{Interface: 1, Via: 1}.Validate(), []string{"another interface", "a mark is from 1 to 65535, not 0"}},
	} {
		if (c.err == nil) != (c.want == nil) {
			t.Errorf("%v, want %q", c.err, c.want)
		}
		for _, want := range c.want {
			if c.err != nil && !strings.Contains(c.err.Error(), want) {
				t.Errorf("%v, want %q", c.err, want)
			}
		}
	}
	for _, load := range []func() (*Program, error){
		func() (*Program, error) { return Impair(Config{}) },
		func() (*Program, error) { return Redirect(RedirectConfig{}) },
		func() (*Program, error) { return Mark(1, MaxMark+1) },
	} {
		if p, err := load(); err == nil || p != nil {
			t.Errorf("%v was loaded", p)
		}
	}
}

func TestAnInterfaceThatIsNotThere(t *testing.T) {
	able(t)
	if _, err := Impair(Config{Interface: 1 << 20}); err == nil || !strings.Contains(err.Error(), "interface 1048576") {
		t.Error(err)
	}
}

// await waits for a condition.
func await(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
	}
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
