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
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays other processes too.
const role = "TMINUS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "holder": // raises a barrier, says so, and holds it until it is killed
		b, err := raiseBarrier(prefix(os.Getenv("TMINUS_TEST_PREFIX")))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("up", b.LinkID())
		io.ReadAll(os.Stdin)
	case "nobody": // gives up every privilege, and asks
		if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(Preflight([]Fault{
			{ID: "region-1", Fail: "region", Where: "us-east", Model: "cut", For: time.Minute},
			{ID: "region-2", Fail: "region", Where: "us-west", Model: "crash", For: time.Minute},
		}))
		_, err := Leftovers()
		fmt.Println(err)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// block is the third of three octets for these tests alone: other runs on this machine have others.
func block(n int) string {
	return fmt.Sprintf("127.%d.%d", 64+os.Getpid()%128, (os.Getpid()/128*8+n)%256)
}

// needsKernel skips a test where no program can be put into the kernel, and fails it where one must be possible.
func needsKernel(t *testing.T) {
	t.Helper()
	err := cutAble()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true" && os.Getuid() == 0:
		t.Fatalf("this machine must be able to cut a region: %v", err)
	default:
		t.Skipf("NOT TESTED, the kernel's part of a cut: a region that is cut %v", err)
	}
}

const (
	soon     = 400 * time.Millisecond // long enough for loopback, short enough to wait for silence
	patience = 20 * time.Second
)

// echo answers on a port of addr, which it returns, with whatever it is told.
func echo(t *testing.T, addr string) string {
	t.Helper()
	l, err := net.Listen("tcp4", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(from, to string) (net.Conn, error) {
	d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.Dial("tcp4", to)
}

// line is one connection to an echo server.
type line struct {
	net.Conn
	r *bufio.Reader
}

func mustDial(t *testing.T, from, to string) line {
	t.Helper()
	c, err := dial(from, to)
	if err != nil {
		t.Fatalf("%s → %s: %v", from, to, err)
	}
	t.Cleanup(func() { c.Close() })
	return line{c, bufio.NewReader(c)}
}

func (l line) ask(what string, within time.Duration) error {
	l.SetDeadline(time.Now().Add(within))
	if _, err := fmt.Fprintln(l, what); err != nil {
		return err
	}
	return l.hear(what)
}

func (l line) hear(what string) error {
	got, err := l.r.ReadString('\n')
	if err != nil {
		return err
	}
	if got != what+"\n" {
		return fmt.Errorf("heard %q, want %q", got, what)
	}
	return nil
}

func silent(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout() && !errors.Is(err, unix.ECONNRESET)
}

func TestBarrier(t *testing.T) {
	needsKernel(t)
	region, neighbour := block(1), block(2)
	in, alsoIn, out := echo(t, region+".11"), region+".3", echo(t, neighbour+".11")
	outside, inside, elsewhere := mustDial(t, "127.0.0.1", in), mustDial(t, alsoIn, in), mustDial(t, "127.0.0.1", out)
	leaving := mustDial(t, alsoIn, out)
	for _, l := range []line{outside, inside, elsewhere, leaving} {
		if err := l.ask("before", patience); err != nil {
			t.Fatal(err)
		}
	}

	b, err := raiseBarrier(prefix(region + ".0/24"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	for name, l := range map[string]line{"into": outside, "out of": leaving} {
		if err := l.ask("during", soon); !silent(err) {
			t.Errorf("a connection %s the region should have gone silent: %v", name, err)
		}
	}
	for _, way := range [][2]string{{"127.0.0.1", in}, {neighbour + ".5", in}, {alsoIn, out}} {
		if _, err := dial(way[0], way[1]); !silent(err) {
			t.Errorf("%s → %s should time out: %v", way[0], way[1], err)
		}
	}
	for name, l := range map[string]line{
		"inside": inside, "elsewhere": elsewhere, "inside, new": mustDial(t, alsoIn, in), "elsewhere, new": mustDial(t, "127.0.0.1", out),
	} {
		if err := l.ask("during", patience); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	n, err := b.Counts()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("dropped %+v", n)
	if n.To.Lost.Packets < 3 || n.From.Lost.Packets < 2 || n.To.Lost.Bytes < 3*40 || n.From.Lost.Bytes < 2*40 {
		t.Errorf("counted %+v", n)
	}
	if left, err := Leftovers(b.LinkID()); err != nil || len(left) != 1 || left[0].Program != "tminus_cut" {
		t.Errorf("leftovers %v, %v", left, err)
	}

	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := Leftovers(b.LinkID()); err != nil || len(left) != 0 {
		t.Errorf("leftovers %v, %v", left, err)
	}
	for _, l := range []line{outside, leaving} {
		// TCP kept what was said into the silence, and says it again.
		l.SetDeadline(time.Now().Add(patience))
		if err := l.hear("during"); err != nil {
			t.Errorf("the connection did not recover: %v", err)
		}
	}
	if err := mustDial(t, "127.0.0.1", in).ask("after", patience); err != nil {
		t.Error(err)
	}
}

// Every border of a prefix, by whole addresses: the masks and byte orders are easily wrong.
func TestBarrierBorders(t *testing.T) {
	needsKernel(t)
	base := block(3)
	for _, c := range []struct {
		prefix string
		cut    []string
		open   []string
	}{
		{base + ".200/32", []string{base + ".200"}, []string{base + ".199", base + ".201"}},
		{base + ".128/25", []string{base + ".128", base + ".255"}, []string{base + ".127"}},
		{base + ".64/30", []string{base + ".64", base + ".67"}, []string{base + ".63", base + ".68"}},
		{base + ".0/24", []string{base + ".0", base + ".255"}, []string{block(4) + ".0", block(2) + ".255"}},
	} {
		b, err := raiseBarrier(prefix(c.prefix))
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range c.cut {
			if datagram(t, addr) {
				t.Errorf("%s: %s is not cut", c.prefix, addr)
			}
		}
		for _, addr := range c.open {
			if !datagram(t, addr) {
				t.Errorf("%s: %s is cut too", c.prefix, addr)
			}
		}
		if n, err := b.Counts(); err != nil || n.To.Lost.Packets != uint64(len(c.cut)) || n.From.Lost.Packets != 0 {
			t.Errorf("%s: counted %+v, %v", c.prefix, n, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Two rehearsals on one machine share addresses, never ports: what one cuts must not touch the other.
func TestBarrierLeavesOtherPortsAlone(t *testing.T) {
	needsKernel(t)
	region, neighbour := block(5), block(6)
	mine, theirs, out := echo(t, region+".11"), echo(t, region+".11"), echo(t, neighbour+".11")
	held, leaving := mustDial(t, "127.0.0.1", theirs), mustDial(t, region+".3", out)
	b, err := raiseBarrier(prefix(region+".0/24"), 1, netip.MustParseAddrPort(mine).Port())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := dial("127.0.0.1", mine); !silent(err) {
		t.Errorf("the port asked for is not cut: %v", err)
	}
	for name, l := range map[string]line{"into, held": held, "into, new": mustDial(t, "127.0.0.1", theirs), "out of": leaving} {
		if err := l.ask("during", patience); err != nil {
			t.Errorf("another port is cut too, %s: %v", name, err)
		}
	}
	if n, err := b.Counts(); err != nil || n.To.Lost.Packets == 0 || n.From.Lost.Packets != 0 {
		t.Errorf("counted %+v, %v", n, err)
	}

	other, err := raiseBarrier(prefix(region+".0/24"), netip.MustParseAddrPort(out).Port())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := leaving.ask("during", soon); !silent(err) {
		t.Errorf("a connection out of the region to the port asked for is not cut: %v", err)
	}
}

// datagram reports whether one sent from 127.0.0.1 arrives. Loopback delivers while it sends.
func datagram(t *testing.T, to string) bool {
	t.Helper()
	l, err := net.ListenPacket("udp4", to+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	c, err := d.Dial("udp4", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	l.SetReadDeadline(time.Now().Add(soon / 4))
	_, _, err = l.ReadFrom(make([]byte, 1))
	return err == nil
}

// kill -9 of the process that holds a cut: the kernel undoes it.
func TestKilledHolderLeavesNothing(t *testing.T) {
	needsKernel(t)
	in := echo(t, block(5)+".11")
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), role+"=holder", "TMINUS_TEST_PREFIX="+block(5)+".0/24")
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := holder.StdinPipe() // its end ends the holder, should this test not
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	said, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(said, "up ") {
		t.Fatalf("the holder said %q, %v", said, err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(said[3:]), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := Leftovers(uint32(id)); err != nil || len(left) != 1 {
		t.Fatalf("the holder's link is not listed: %v, %v", left, err)
	}
	if all, err := Leftovers(); err != nil || len(all) == 0 {
		t.Fatalf("no link is listed: %v, %v", all, err)
	}
	if _, err := dial("127.0.0.1", in); !silent(err) {
		t.Fatalf("not cut: %v", err)
	}

	if err := holder.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for {
		left, err := Leftovers(uint32(id))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Since(began) > time.Second {
			t.Fatalf("a second later: %v", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("gone after %s", time.Since(began).Round(time.Millisecond))
	if err := mustDial(t, "127.0.0.1", in).ask("back", soon); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutPrivilegesItSaysWhatIsLacking(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can show how it is without")
	}
	nobody := exec.Command(os.Args[0])
	nobody.Env = append(os.Environ(), role+"=nobody")
	out, err := nobody.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, want := range []string{
		"fault region-1 (region, model: cut) cannot be injected here: it needs CAP_BPF and CAP_NET_ADMIN (run as root), which this user lacks; model: crash works without",
		"listing bpf links needs CAP_SYS_ADMIN (run as root)",
	} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("said %q, want %q", lines[i], want)
		}
	}
}

func TestBlastRadius(t *testing.T) {
	for _, c := range []struct {
		prefix string
		ok     bool
	}{
		{"127.0.1.0/24", true},
		{"127.255.255.254/32", true},
		{"127.0.2.0/23", true},
		{"127.0.0.0/24", false},
		{"127.0.0.1/32", false},
		{"127.0.0.0/8", false},
		{"127.0.0.0/23", false},
		{"126.0.0.0/7", false},
		{"10.0.1.0/24", false},
		{"192.168.1.0/24", false},
		{"0.0.0.0/0", false},
		{"::1/128", false},
		{"::ffff:127.0.1.0/120", false},
	} {
		err := checkPrefix(prefix(c.prefix))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", c.prefix, err)
		}
		if !c.ok {
			if b, err := raiseBarrier(prefix(c.prefix)); !errors.Is(err, ErrRefused) {
				b.Close()
				t.Errorf("%s was cut: %v", c.prefix, err)
			}
		}
	}
	if err := checkPrefix(netip.Prefix{}); !errors.Is(err, ErrRefused) {
		t.Errorf("no prefix: %v", err)
	}
}

// place is a Region of real HTTP servers in this process.
type place struct {
	name, base string
	mu         sync.Mutex
	servers    []*http.Server
}

const placePort = "18480"

func (p *place) Name() string         { return p.name }
func (p *place) Prefix() netip.Prefix { return prefix(p.base + ".0/24") }
func (p *place) Endpoints() []netip.AddrPort {
	var as []netip.AddrPort
	for _, host := range []string{".11", ".12", ".5"} {
		as = append(as, netip.MustParseAddrPort(p.base+host+":"+placePort))
	}
	return as
}

func (p *place) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.servers) > 0
}

func (p *place) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, s := range p.servers {
		errs = append(errs, s.Close())
	}
	p.servers = nil
	return errors.Join(errs...)
}

func (p *place) Start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.Endpoints() {
		l, err := net.Listen("tcp4", a.String())
		if err != nil {
			return err
		}
		s := &http.Server{
			Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.URL.Path) }),
			ReadHeaderTimeout: patience,
		}
		p.servers = append(p.servers, s)
		go s.Serve(l)
	}
	return nil
}

// Both forms of a region's failure on real sockets: each confirmed, each undone, and a third region unharmed.
func TestRegionFailsForReal(t *testing.T) {
	needsKernel(t)
	var regions []Region
	for i, name := range []string{"us-east", "us-west", "eu-west"} {
		p := &place{name: name, base: block(5 + i)}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Kill() })
		regions = append(regions, p)
	}
	results, err := Run(t.Context(), Config{
		Regions: regions, Start: time.Now(), Now: time.Now,
		Faults: []Fault{
			{ID: "region-1", Fail: "region", Model: "crash", Where: "us-east", At: 1500 * time.Millisecond, For: 3 * time.Second},
			{ID: "region-2", Fail: "region", Model: "cut", Where: "us-west", At: 1500 * time.Millisecond, For: 4 * time.Second},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		t.Logf("%s: %s: %s", r.Fault.Model, r.Evidence.Status, r.Evidence.Detail)
		if r.Evidence.Status != Confirmed || !r.Restored || r.Err != nil {
			t.Errorf("%+v", r)
		}
	}
	if len(results[0].Links) != 0 || len(results[1].Links) != 1 {
		t.Errorf("links %v and %v", results[0].Links, results[1].Links)
	}
	for _, c := range Safety(results) {
		t.Logf("%+v", c)
		if !c.Pass {
			t.Errorf("%+v", c)
		}
	}
}

// The run ends while a region is cut: the cut ends with it.
func TestCutEndsWithTheRun(t *testing.T) {
	needsKernel(t)
	here, there := &place{name: "us-east", base: block(5)}, &place{name: "us-west", base: block(6)}
	ctx, cancel := context.WithCancel(t.Context())
	sink := &tape{}
	done := make(chan []Result, 1)
	go func() {
		results, err := Run(ctx, Config{
			Regions: []Region{here, there}, Start: time.Now(), Now: time.Now, Sink: sink,
			Faults: []Fault{{ID: "region-1", Fail: "region", Model: "cut", Where: "us-east", For: time.Hour}},
		})
		if err != nil {
			t.Error(err)
		}
		done <- results
	}()
	deadline := time.Now().Add(patience)
	for !strings.Contains(strings.Join(sink.statuses("fault", "region-1"), " "), "injected") {
		if time.Now().After(deadline) {
			t.Fatal("never injected")
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	results := <-done
	if r := results[0]; !r.Restored || len(r.Links) != 1 || r.Evidence.Status != Inconclusive {
		t.Fatalf("%+v", r)
	}
	if left, err := Leftovers(results[0].Links...); err != nil || len(left) != 0 {
		t.Fatalf("leftovers %v, %v", left, err)
	}
}
