package netns

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ebpflink "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
	"github.com/tminus-live/tminus/chaos/watchdog"
)

// patience bounds every wait for what should happen at once.
const patience = 10 * time.Second

const (
	east = "us-east"
	west = "us-west"
)

func build(t *testing.T, run string, guard watchdog.Guard) *Network {
	t.Helper()
	if err := Able(); err != nil {
		t.Skip(err)
	}
	n, err := Build(Config{Run: run, Regions: []string{east, west}}, guard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func linkOf(t *testing.T, n *Network, region string, flow kernel.Flow) *Link {
	t.Helper()
	l, err := n.Link(region, flow)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func impair(t *testing.T, l *Link, up, down link.Impairment) {
	t.Helper()
	if err := l.Impair(up, down); err != nil {
		t.Fatal(err)
	}
}

func release(t *testing.T, l *Link) {
	t.Helper()
	if err := l.Clear(); err != nil {
		t.Fatal(err)
	}
}

func counts(t *testing.T, l *Link) Counts {
	t.Helper()
	c, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// in runs f in a region; "" is the machine.
func in(t *testing.T, n *Network, region string, f func() error) {
	t.Helper()
	var err error
	if region == "" {
		err = f()
	} else {
		err = n.Start(region, f)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// echo answers datagrams at an address of a region with themselves, and returns the address.
func echo(t *testing.T, n *Network, region string) netip.AddrPort {
	t.Helper()
	var conn *net.UDPConn
	in(t, n, region, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host(n.Prefix(region), 77), 0)))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			size, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(buf[:size], from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// dial is a datagram socket of a region's that talks to an address.
func dial(t *testing.T, n *Network, region string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	in(t, n, region, func() (err error) {
		conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a number of numbered datagrams, one every pause, and returns how often each came back and how long its first
// answer took. It waits for the last ones.
func ask(t *testing.T, conn *net.UDPConn, number, size int, pause, wait time.Duration) (answers []int, took []time.Duration) {
	t.Helper()
	answers, took = make([]int, number), make([]time.Duration, number)
	sent := make([]time.Time, number)
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			size, err := conn.Read(buf)
			if err != nil {
				return
			}
			at := time.Now()
			if size < 4 {
				continue
			}
			mu.Lock()
			if i := int(binary.BigEndian.Uint32(buf)); i < number {
				if answers[i]++; answers[i] == 1 {
					took[i] = at.Sub(sent[i])
				}
			}
			mu.Unlock()
		}
	}()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	packet := make([]byte, size)
	for i := range number {
		<-tick.C
		binary.BigEndian.PutUint32(packet, uint32(i))
		mu.Lock()
		sent[i] = time.Now()
		mu.Unlock()
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	for until := time.Now().Add(wait); time.Now().Before(until); time.Sleep(time.Millisecond) {
		mu.Lock()
		all := arrived(answers) == number
		mu.Unlock()
		if all {
			wait = 20 * time.Millisecond // for a duplicate of the last
			break
		}
		wait = time.Until(until)
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	<-done
	conn.SetReadDeadline(time.Time{})
	return answers, took
}

func arrived(answers []int) (n int) {
	for _, a := range answers {
		if a > 0 {
			n++
		}
	}
	return n
}

func median(took []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(took))
	return s[len(s)/2]
}

// reaches says whether one place reaches an address of another.
func reaches(t *testing.T, n *Network, from string, to netip.AddrPort) bool {
	t.Helper()
	answers, _ := ask(t, dial(t, n, from, to), 3, 64, time.Millisecond, 200*time.Millisecond)
	return arrived(answers) > 0
}

func TestEverybodyReachesEverybody(t *testing.T) {
	n := build(t, "reach", nil)
	a, b := echo(t, n, east), echo(t, n, west)
	var own netip.AddrPort
	here, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.Host(), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	own = here.LocalAddr().(*net.UDPAddr).AddrPort()
	go func() {
		buf := make([]byte, 64)
		for {
			size, from, err := here.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			here.WriteToUDPAddrPort(buf[:size], from)
		}
	}()
	for _, c := range []struct {
		from string
		to   netip.AddrPort
	}{{"", a}, {"", b}, {east, b}, {west, a}, {east, a}, {east, own}, {west, own}} {
		if !reaches(t, n, c.from, c.to) {
			t.Errorf("%q does not reach %s", c.from, c.to)
		}
	}
	if _, err := n.Link("eu", kernel.Flow{}); !errors.Is(err, evidence.ErrUnknown) || !strings.Contains(err.Error(), "us-east, us-west") {
		t.Errorf("a link of a region that is not there: %v", err)
	}
	if err := n.Start("eu", nil); !errors.Is(err, evidence.ErrUnknown) {
		t.Errorf("started in a region that is not there: %v", err)
	}
}

// A process that is forked in a region lives there, and its death signal comes with the network's end or this process's, not before.
func TestProcessesLiveInTheirRegion(t *testing.T) {
	n := build(t, "fork", nil)
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	in(t, n, west, cmd.Start)
	var want unix.Stat_t
	if err := unix.Fstat(n.regions[1].space.fd, &want); err != nil {
		t.Fatal(err)
	}
	var got unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), &got); err != nil || got.Ino != want.Ino {
		t.Errorf("it is in namespace %d, want %d: %v", got.Ino, want.Ino, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended: %v", err)
	}
	// What the rest of the system takes for this process's namespace is the machine's, even so.
	var own, machine unix.Stat_t
	if errors.Join(unix.Stat("/proc/self/ns/net", &own), unix.Stat(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()), &machine)) != nil || own.Ino != machine.Ino {
		t.Error("this process is in a region's namespace")
	}
}

// 1 % loss means 1 % of packets of at most 1,500 bytes, so nothing on the cable may be larger.
func TestPacketsAreOfTheirRealSize(t *testing.T) {
	n := build(t, "size", nil)
	var before [2]interfaceState
	read := func() (s [2]interfaceState) {
		for i, name := range []string{"region1", hostEnd} {
			state, err := n.hub.netlink.find(name)
			if err != nil {
				t.Fatal(err)
			}
			s[i] = state
		}
		return s
	}
	before = read()
	sink := listen(t, n, "")
	conn := connect(t, n, east, sink.addr, "")
	sent := 0
	for buf := make([]byte, 256<<10); sent < 8<<20; sent += len(buf) {
		if _, err := conn.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	await(t, "everything to arrive", func() bool { return sink.total() >= sent })
	after := read()
	for i, s := range after {
		in, bytes := s.received-before[i].received, s.receivedBy-before[i].receivedBy
		out, outBytes := s.sent-before[i].sent, s.sentBy-before[i].sentBy
		if i == 0 && (in < uint64(sent/1500) || bytes/in > 1514) || i == 1 && (out < uint64(sent/1500) || outBytes/out > 1514) {
			t.Errorf("%d bytes came in %d packets of %d bytes, and left in %d of %d", sent, in, bytes/max(in, 1), out, outBytes/max(out, 1))
		}
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A delay of 20 ms measures 20 to 23 ms, either way and both, and none once it is cleared.
func TestDelay(t *testing.T) {
	n := build(t, "delay", nil)
	to := echo(t, n, east)
	l := linkOf(t, n, east, kernel.Flow{})
	late := link.Impairment{Delay: 20 * time.Millisecond}
	for _, c := range []struct {
		name     string
		from     string
		up, down link.Impairment
		want     time.Duration
	}{
		{"nothing", "", link.Impairment{}, link.Impairment{}, 0},
		{"up", "", late, link.Impairment{}, 20 * time.Millisecond},
		{"down", "", link.Impairment{}, late, 20 * time.Millisecond},
		{"between regions", west, late, link.Impairment{}, 20 * time.Millisecond},
		{"both", "", late, late, 40 * time.Millisecond},
		{"cleared", "", link.Impairment{}, link.Impairment{}, 0},
	} {
		impair(t, l, c.up, c.down)
		answers, took := ask(t, dial(t, n, c.from, to), 100, 1316, 2*time.Millisecond, 300*time.Millisecond)
		got := median(took)
		t.Logf("%s: %v (%v to %v)", c.name, got, slices.Min(took), slices.Max(took))
		if arrived(answers) != 100 {
			t.Errorf("%s: %d of 100 came back", c.name, arrived(answers))
		}
		if slices.Min(took) < c.want || got > c.want+3*time.Millisecond {
			t.Errorf("%s: took %v, want %v to %v", c.name, got, c.want, c.want+3*time.Millisecond)
		}
	}
	if c := counts(t, l); c.Up.Held != 300 || c.Down.Held != 200 || c.Up.Overrun+c.Down.Overrun > 0 {
		t.Errorf("%+v", c)
	}
}

// oneWay sends datagrams from the machine into a region and says how long each was on its way: from just before it was sent until the
// kernel had it for its receiver (SO_TIMESTAMPNS), whenever that one is let to look. Those whose sender was interrupted
// meanwhile say nothing, and are left out.
func oneWay(t *testing.T, n *Network, region string, number int, pause time.Duration) []time.Duration {
	t.Helper()
	var conn *net.UDPConn
	in(t, n, region, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host(n.Prefix(region), 99), 0)))
		return err
	})
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}
	out := dial(t, n, "", conn.LocalAddr().(*net.UDPAddr).AddrPort())
	began, ended := make([]time.Time, number), make([]time.Time, number)
	var sender sync.WaitGroup
	sender.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := range number {
			<-tick.C
			began[i] = time.Now()
			out.Write(binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(i)))
			ended[i] = time.Now()
		}
	})
	arrived := make([]time.Time, number)
	buf, oob := make([]byte, 64), make([]byte, 128)
	conn.SetReadDeadline(time.Now().Add(patience))
	for n := range number {
		size, more, _, _, err := conn.ReadMsgUDP(buf, oob)
		if err != nil {
			t.Fatalf("%d of %d arrived: %v", n, number, err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:more])
		if err != nil || len(messages) != 1 || size != 8 {
			t.Fatalf("%d bytes with %d times: %v", size, len(messages), err)
		}
		at := messages[0].Data
		arrived[binary.BigEndian.Uint64(buf)] = time.Unix(int64(binary.NativeEndian.Uint64(at)), int64(binary.NativeEndian.Uint64(at[8:])))
	}
	sender.Wait()
	var took []time.Duration
	for i := range number {
		if ended[i].Sub(began[i]) < time.Millisecond {
			took = append(took, arrived[i].Sub(began[i].Round(0))) // by the wall clock, which is the kernel's
		}
	}
	if len(took) < number/4 {
		t.Skipf("this machine let only %d of %d datagrams be sent without an interruption", len(took), number)
	}
	return took
}

// A wire is on time however busy the process is that built the network.
func TestDelayOfABusyConductor(t *testing.T) {
	n := build(t, "busy", nil)
	impair(t, linkOf(t, n, east, kernel.Flow{}), link.Impairment{}, link.Impairment{Delay: 20 * time.Millisecond})
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer all.Wait()
	defer close(stop)
	for range 4 * runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for x := 0; ; x++ {
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	took := slices.Sorted(slices.Values(oneWay(t, n, east, 100, 2*time.Millisecond)))
	p50, p95 := took[len(took)/2], took[len(took)*95/100]
	t.Logf("%v at least; half within %v, 95 %% within %v, all within %v", took[0], p50, p95, took[len(took)-1])
	// The wall clock may be slewed meanwhile, by 500 millionths (adjtimex(2)). In the conductor's own process it would be 60 ms and more.
	if took[0] < 19980*time.Microsecond || p50 > 30*time.Millisecond {
		t.Errorf("took %v at least and half of them %v, want 20 to 30 ms", took[0], p50)
	}
}

// When the process that holds packets up dies, packets pass as they are, and the Link says that they do.
func TestPacketsPassWhenTheWireIsGone(t *testing.T) {
	n := build(t, "wireless", nil)
	to := echo(t, n, east)
	l := linkOf(t, n, east, kernel.Flow{})
	impair(t, l, link.Impairment{Delay: 20 * time.Millisecond}, link.Impairment{Delay: 20 * time.Millisecond})
	n.wires.cmd.Process.Kill()
	await(t, "packets to pass", func() bool { return reaches(t, n, west, to) })
	if _, err := l.Counts(); err == nil || !strings.Contains(err.Error(), "has ended: signal: killed") {
		t.Errorf("counts: %v", err)
	}
	if err := l.Impair(link.Impairment{Delay: time.Millisecond}, link.Impairment{}); err == nil {
		t.Error("it can be impaired")
	}
	release(t, l)
	// What needs no wire still works.
	impair(t, l, link.Impairment{Cut: true}, link.Impairment{})
	if reaches(t, n, west, to) {
		t.Error("it cannot be cut")
	}
	release(t, l)
	if !reaches(t, n, west, to) {
		t.Error("it is not cleared")
	}
}

// Only the chosen flow is held up, by address, port and protocol.
func TestOnlyTheFlow(t *testing.T) {
	n := build(t, "flow", nil)
	hit, spared := echo(t, n, east), echo(t, n, east)
	l := linkOf(t, n, east, kernel.Flow{Prefix: netip.PrefixFrom(hit.Addr(), 32), Ports: []uint16{hit.Port()}, Proto: kernel.UDP})
	impair(t, l, link.Impairment{Delay: 30 * time.Millisecond, Loss: link.Loss{Share: 0.5}, Seed: 7}, link.Impairment{})
	answers, took := ask(t, dial(t, n, "", hit), 100, 64, time.Millisecond, 300*time.Millisecond)
	if a := arrived(answers); a < 20 || a > 80 || slices.Max(took) < 30*time.Millisecond {
		t.Errorf("%d of 100 came back, %v", a, slices.Max(took))
	}
	answers, took = ask(t, dial(t, n, "", spared), 100, 64, time.Millisecond, 300*time.Millisecond)
	if a := arrived(answers); a != 100 || median(took) > 5*time.Millisecond {
		t.Errorf("another port: %d of 100 came back, in %v", a, median(took))
	}
	if c := counts(t, l); c.Up.Seen != 100 || c.Up.Lost == 0 || c.Down != (Count{}) {
		t.Errorf("%+v", c)
	}
}

// What the kernel loses is what link.Dropper says, packet by packet, whether the packets go round by the wire or not, on either way.
func TestTheSeedDecidesWhatIsLost(t *testing.T) {
	n := build(t, "seed", nil)
	to := echo(t, n, east)
	loss := link.Loss{Model: link.GilbertElliott, Share: 0.2, Burst: 3}
	for name, c := range map[string][2]link.Impairment{
		"up":             {{Loss: loss, Seed: 7}, {}},
		"down":           {{}, {Loss: loss, Seed: 7}},
		"up, by wire":    {{Loss: loss, Seed: 7, Delay: time.Millisecond}, {}},
		"down, by wire":  {{}, {Loss: loss, Seed: 7, Delay: time.Millisecond}},
		"up, wire below": {{Loss: loss, Seed: 7}, {Delay: time.Millisecond}},
	} {
		l := linkOf(t, n, east, kernel.Flow{})
		impair(t, l, c[0], c[1])
		answers, _ := ask(t, dial(t, n, "", to), 500, 64, 200*time.Microsecond, 300*time.Millisecond)
		d := link.NewDropper(loss, 7)
		for i, a := range answers {
			if lost := d.Next(); lost != (a == 0) {
				t.Errorf("%s: packet %d: lost %t, want %t", name, i, a == 0, lost)
				break
			}
		}
		release(t, l)
	}
}

// Two faults on one cable: a packet that is part of both meets both, and each goes without the other.
func TestTwoLinksOnOneCable(t *testing.T) {
	n := build(t, "two-links", nil)
	to := echo(t, n, east)
	flow := kernel.Flow{Prefix: netip.PrefixFrom(to.Addr(), 32)}
	conn := dial(t, n, "", to)
	check := func(name string, lossy, slow bool) {
		t.Helper()
		answers, took := ask(t, conn, 200, 64, 500*time.Microsecond, 300*time.Millisecond)
		took = slices.DeleteFunc(took, func(d time.Duration) bool { return d == 0 })
		a := arrived(answers)
		if lossy != (a < 150) || !lossy && a != 200 || slow != (median(took) >= 20*time.Millisecond) {
			t.Errorf("%s: %d of 200 came back, in %v", name, a, median(took))
		}
	}
	for name, ways := range map[string]func(i link.Impairment) (link.Impairment, link.Impairment){
		"up":   func(i link.Impairment) (link.Impairment, link.Impairment) { return i, link.Impairment{} },
		"down": func(i link.Impairment) (link.Impairment, link.Impairment) { return link.Impairment{}, i },
	} {
		lossy, slow := linkOf(t, n, east, kernel.Flow{}), linkOf(t, n, east, flow)
		set := func(l *Link, i link.Impairment) {
			t.Helper()
			u, d := ways(i)
			impair(t, l, u, d)
		}
		check(name+": nothing", false, false)
		set(lossy, link.Impairment{Loss: link.Loss{Share: 0.5}, Seed: 7})
		check(name+": loss", true, false)
		set(slow, link.Impairment{Delay: 20 * time.Millisecond})
		check(name+": loss, then delay", true, true)
		release(t, lossy)
		check(name+": delay", false, true)
		set(lossy, link.Impairment{Loss: link.Loss{Share: 0.5}, Seed: 7})
		check(name+": delay, then loss", true, true)
		release(t, slow)
		check(name+": loss again", true, false)
		release(t, lossy)
		check(name+": nothing again", false, false)
	}
}

func TestCutDuplicateCorrupt(t *testing.T) {
	n := build(t, "rest", nil)
	to := echo(t, n, east)
	conn := dial(t, n, "", to)
	l := linkOf(t, n, east, kernel.Flow{})
	for name, c := range map[string]struct {
		up, down link.Impairment
		want     func(answers []int) bool
	}{
		"cut up":                {link.Impairment{Cut: true}, link.Impairment{}, func(a []int) bool { return arrived(a) == 0 }},
		"cut down":              {link.Impairment{}, link.Impairment{Cut: true}, func(a []int) bool { return arrived(a) == 0 }},
		"duplicate up":          {link.Impairment{Duplicate: 1}, link.Impairment{}, func(a []int) bool { return slices.Min(a) == 2 && slices.Max(a) == 2 }},
		"duplicate down":        {link.Impairment{}, link.Impairment{Duplicate: 1}, func(a []int) bool { return slices.Min(a) == 2 && slices.Max(a) == 2 }},
		"duplicate by wire":     {link.Impairment{Duplicate: 1, Delay: time.Millisecond}, link.Impairment{}, func(a []int) bool { return slices.Min(a) == 2 && slices.Max(a) == 2 }},
		"duplicate over a wire": {link.Impairment{}, link.Impairment{Duplicate: 1, Delay: time.Millisecond}, func(a []int) bool { return slices.Min(a) == 2 && slices.Max(a) == 2 }},
	} {
		impair(t, l, c.up, c.down)
		if answers, _ := ask(t, conn, 50, 64, 200*time.Microsecond, 200*time.Millisecond); !c.want(answers) {
			t.Errorf("%s: answers %v", name, answers)
		}
	}
	for name, c := range map[string][2]link.Impairment{"up": {{Corrupt: 1}, {}}, "down": {{}, {Corrupt: 1}}, "up, by wire": {{Corrupt: 1, Delay: time.Millisecond}, {}}} {
		impair(t, l, c[0], c[1])
		want := make([]byte, 1000)
		if _, err := conn.Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2000)
		conn.SetReadDeadline(time.Now().Add(patience))
		size, err := conn.Read(got)
		if err != nil {
			t.Fatalf("corrupt %s: %v", name, err)
		}
		bits := 0
		for i := range want {
			for b := want[i] ^ got[i]; b != 0; b &= b - 1 {
				bits++
			}
		}
		if size != len(want) || bits != 1 {
			t.Errorf("corrupt %s: %d bits of %d bytes differ", name, bits, size)
		}
	}
}

// A rate lets that much pass, and its queue drops at its tail.
func TestRate(t *testing.T) {
	n := build(t, "rate", nil)
	sink := listen(t, n, west)
	l := linkOf(t, n, west, kernel.Flow{})
	const rate = 20e6
	impair(t, l, link.Impairment{}, link.Impairment{Rate: rate, Queue: 50_000})
	conn := connect(t, n, east, sink.addr, "")
	stop := pump(conn)
	defer stop()
	await(t, "the flow to begin", func() bool { return sink.total() > 1<<20 })
	got := sink.rate(3 * time.Second)
	stop()
	c := counts(t, l)
	t.Logf("%.2f Mbit/s of payload at %.0f; %+v", got/1e6, rate/1e6, c.Down)
	if payload := rate * 1448 / 1500; got > payload*1.02 || got < payload*0.9 || c.Down.NoRoom == 0 {
		t.Errorf("%.0f bit/s of payload passed, want %.0f; %+v", got, payload, c.Down)
	}
}

func TestTwoNetworksSideBySide(t *testing.T) {
	a, b := build(t, "side-a", nil), build(t, "side-b", nil)
	if a.Block().Overlaps(b.Block()) {
		t.Fatalf("both have %s", a.Block())
	}
	inA, inB := echo(t, a, east), echo(t, b, east)
	la := linkOf(t, a, east, kernel.Flow{})
	impair(t, la, link.Impairment{Cut: true}, link.Impairment{Cut: true})
	if reaches(t, a, "", inA) || reaches(t, a, west, inA) {
		t.Error("what was cut is reached")
	}
	if !reaches(t, b, "", inB) || !reaches(t, b, west, inB) {
		t.Error("the other network is cut too")
	}
	if reaches(t, a, west, inB) {
		t.Error("one network reaches into the other")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if !reaches(t, b, "", inB) || !reaches(t, b, west, inB) {
		t.Error("the other network went with it")
	}
	if err := la.Clear(); err != nil {
		t.Errorf("clear after close: %v", err)
	}
	if err := la.Impair(link.Impairment{}, link.Impairment{}); err == nil {
		t.Error("a network that is closed can be impaired")
	}
	if _, err := Build(Config{Run: "side-b", Regions: []string{east}}, nil); err == nil || !strings.Contains(err.Error(), "has a network already") {
		t.Errorf("a second network of the same run: %v", err)
	}
	if !reaches(t, b, west, inB) {
		t.Error("a failed build took the other network away")
	}
}

// ledger is a guard that remembers.
type ledger struct {
	mu      sync.Mutex
	entries []watchdog.Entry
	open    map[watchdog.Token]bool
	fail    int // refuses the entry of this number, counted from 1
	seen    func(watchdog.Entry)
}

func (l *ledger) Protect(e watchdog.Entry) (watchdog.Token, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := e.Validate(); err != nil {
		return 0, err
	}
	if l.entries = append(l.entries, e); len(l.entries) == l.fail {
		return 0, watchdog.ErrLost
	}
	if l.seen != nil {
		l.seen(e)
	}
	if l.open == nil {
		l.open = make(map[watchdog.Token]bool)
	}
	token := watchdog.Token(len(l.entries))
	l.open[token] = true
	return token, nil
}

func (l *ledger) Release(t watchdog.Token) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, t)
	return nil
}

func exists(e watchdog.Entry) bool {
	if e.Kind == watchdog.Interface {
		_, err := net.InterfaceByName(e.Name)
		return err == nil
	}
	_, err := os.Lstat(filepath.Join(watchdog.NamespaceDir, e.Name))
	return err == nil
}

// What would outlive the process is journalled before it is there, and released when it has gone.
func TestTheJournalComesFirst(t *testing.T) {
	guard := &ledger{seen: func(e watchdog.Entry) {
		if exists(e) {
			t.Errorf("%s was there before it was journalled", e)
		}
	}}
	n := build(t, "journal", guard)
	var names []string
	for _, e := range guard.entries {
		names = append(names, e.String())
		if !exists(e) {
			t.Errorf("%s is not there", e)
		}
	}
	if want := []string{"network namespace tminus-journal-hub", "network interface " + n.config.interfaceName(), "network namespace tminus-journal-us-east", "network namespace tminus-journal-us-west"}; !slices.Equal(names, want) {
		t.Errorf("journalled %v, want %v", names, want)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, e := range guard.entries {
		if exists(e) {
			t.Errorf("%s is left", e)
		}
	}
	if len(guard.open) > 0 {
		t.Errorf("not released: %v", guard.open)
	}
}

// A build that fails half way leaves nothing.
func TestBuildFailsWithoutARest(t *testing.T) {
	if err := Able(); err != nil {
		t.Skip(err)
	}
	for fail := 1; fail <= 4; fail++ {
		guard := &ledger{fail: fail}
		if _, err := Build(Config{Run: "half", Regions: []string{east, west}}, guard); !errors.Is(err, watchdog.ErrLost) {
			t.Errorf("entry %d refused: %v", fail, err)
		}
		for _, e := range guard.entries {
			if exists(e) {
				t.Errorf("entry %d refused: %s is left", fail, e)
			}
		}
		if len(guard.open) > 0 {
			t.Errorf("entry %d refused: not released: %v", fail, guard.open)
		}
	}
}

// childRun makes this test's binary a process that builds a network, breaks it and waits to be killed.
const (
	childRun     = "NETNS_TEST_RUN"
	childJournal = "NETNS_TEST_JOURNAL" // folder for a watchdog's journal; "": no watchdog
)

func TestMain(m *testing.M) {
	switch {
	case watchdog.IsChild():
		os.Exit(watchdog.Serve())
	case IsChild():
		os.Exit(Serve())
	}
	if run := os.Getenv(childRun); run != "" {
		if err := holdNetwork(run, os.Getenv(childJournal)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// held is what the child says that it has made.
type held struct {
	Interface string
	Block     netip.Prefix
	Spaces    []uint64 // inodes of namespaces
	Links     []uint32

	said *bufio.Reader
}

func holdNetwork(run, journal string) error {
	var guard watchdog.Guard
	if journal != "" {
		w, err := watchdog.Start(context.Background(), watchdog.Config{Run: run, Dir: journal})
		if err != nil {
			return err
		}
		guard = w
	}
	n, err := Build(Config{Run: run, Regions: []string{east, west}}, guard)
	if err != nil {
		return err
	}
	l, err := n.Link(east, kernel.Flow{})
	if err != nil {
		return err
	}
	bad := link.Impairment{Loss: link.Loss{Share: 0.1}, Delay: 20 * time.Millisecond, Seed: 7}
	if err := l.Impair(bad, bad); err != nil {
		return err
	}
	sleeper := exec.Command("cat") // a region's process: it ends with its parent
	sleeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if _, err := sleeper.StdinPipe(); err != nil {
		return err
	}
	if err := n.Start(west, sleeper.Start); err != nil {
		return err
	}
	h := held{Interface: n.config.interfaceName(), Block: n.Block(), Links: l.LinkIDs()}
	for _, s := range []*space{n.hub, n.regions[0].space, n.regions[1].space} {
		var st unix.Stat_t
		if err := unix.Fstat(s.fd, &st); err != nil {
			return err
		}
		h.Spaces = append(h.Spaces, st.Ino)
	}
	if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// left says what there still is of a network: a look from outside, at the kernel's own lists.
func (h *held) left(journal string) (what []string) {
	if _, err := net.InterfaceByName(h.Interface); err == nil {
		what = append(what, "interface "+h.Interface)
	}
	if routes, err := os.ReadFile("/proc/net/route"); err != nil || strings.Contains(string(routes), h.Interface) {
		what = append(what, "a route")
	}
	spaces, _ := filepath.Glob("/proc/[0-9]*/task/*/ns/net")
	for _, path := range spaces {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && slices.Contains(h.Spaces, st.Ino) {
			what = append(what, "namespace of "+path)
		}
	}
	for _, id := range h.Links {
		if l, err := ebpflink.NewFromID(ebpflink.ID(id)); err == nil {
			l.Close()
			what = append(what, fmt.Sprintf("bpf link %d", id))
		}
	}
	names, _ := filepath.Glob(filepath.Join(watchdog.NamespaceDir, watchdog.Prefix+"killed*"))
	what = append(what, names...)
	if journal != "" {
		files, _ := filepath.Glob(filepath.Join(journal, "*"))
		what = append(what, files...)
	}
	return what
}

// kill -9 of whoever holds a network leaves nothing of it within three seconds: with nobody to tidy up, and with a watchdog,
// which also takes off the names; when everything is in use, and in the middle of building it.
func TestNothingIsLeftAfterKill(t *testing.T) {
	if err := Able(); err != nil {
		t.Skip(err)
	}
	journal := t.TempDir()
	if err := os.Chmod(journal, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, journal string }{{"alone", ""}, {"with a watchdog", journal}} {
		t.Run(c.name, func(t *testing.T) {
			h, kill := hold(t, c.journal)
			line, err := h.said.ReadBytes('\n')
			if err == nil {
				err = json.Unmarshal(line, h)
			}
			if err != nil || len(h.left(c.journal)) < 5 {
				t.Errorf("the child holds only %v: %v", h.left(c.journal), err)
			}
			kill()
			gone(t, h, c.journal)
		})
		for i := range 8 {
			t.Run(fmt.Sprintf("%s, %d ms after its start", c.name, 15*i), func(t *testing.T) {
				h, kill := hold(t, c.journal)
				<-time.After(time.Duration(15*i) * time.Millisecond)
				kill()
				gone(t, h, c.journal)
			})
		}
	}
}

// hold starts a process that holds a network.
func hold(t *testing.T, journal string) (h *held, kill func()) {
	t.Helper()
	const run = "killed"
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childRun+"="+run, childJournal+"="+journal)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kill = func() {
		once.Do(func() {
			cmd.Process.Kill()
			cmd.Wait()
			stdin.Close()
		})
	}
	t.Cleanup(kill)
	return &held{Interface: Config{Run: run}.interfaceName(), said: bufio.NewReader(stdout)}, kill
}

func gone(t *testing.T, h *held, journal string) {
	t.Helper()
	killed := time.Now()
	await(t, "nothing to be left", func() bool { return len(h.left(journal)) == 0 })
	took := time.Since(killed)
	if t.Logf("nothing left after %v", took); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A sink takes what TCP brings to it and counts.
type sink struct {
	addr     netip.AddrPort
	listener net.Listener

	mu    sync.Mutex
	bytes int
	conns []net.Conn
}

// listen opens a sink in a region, or on the machine.
func listen(t *testing.T, n *Network, region string) *sink {
	t.Helper()
	at := n.Host()
	if region != "" {
		at = host(n.Prefix(region), 88)
	}
	s := &sink{}
	in(t, n, region, func() (err error) {
		var cfg net.ListenConfig
		cfg.SetMultipathTCP(false)
		s.listener, err = cfg.Listen(context.Background(), "tcp4", netip.AddrPortFrom(at, 0).String())
		return err
	})
	s.addr = s.listener.Addr().(*net.TCPAddr).AddrPort()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			all.Go(func() {
				buf := make([]byte, 256<<10)
				for {
					size, err := conn.Read(buf)
					s.mu.Lock()
					s.bytes += size
					s.mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		all.Wait()
	})
	return s
}

func (s *sink) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// rate is how fast bits come in over some time.
func (s *sink) rate(over time.Duration) float64 {
	from, begin := s.total(), time.Now()
	<-time.After(over)
	return float64(s.total()-from) * 8 / time.Since(begin).Seconds()
}

// connect opens a TCP connection from a region, with a congestion control; "" is the machine's own.
func connect(t *testing.T, n *Network, region string, to netip.AddrPort, congestion string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if congestion == "" {
			return nil
		}
		if e := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		}); e != nil {
			return e
		}
		return err
	}}
	var conn net.Conn
	in(t, n, region, func() (err error) {
		conn, err = d.Dial("tcp4", to.String())
		return err
	})
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// pump writes into a connection as fast as it takes it, until stop.
func pump(conn net.Conn) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256<<10)
		for {
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	}()
	return func() {
		conn.SetWriteDeadline(time.Now())
		<-done
		conn.(*net.TCPConn).SetLinger(0) // what is still to be sent would keep the namespace for its retransmissions
		conn.Close()
	}
}

func tcpInfo(t *testing.T, conn *net.TCPConn) (info *unix.TCPInfo) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil {
			err = e
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TCP under loss behaves like TCP under loss: its throughput follows MSS/RTT × C/√p (Mathis, Semke, Mahdavi and Ott, Computer
// Communication Review 27(3), 1997) within 15 % across three loss rates, for the one congestion control that the formula
// describes.
func TestTCPFollowsTheMathisBound(t *testing.T) {
	if testing.Short() {
		t.Skip("20 seconds of traffic")
	}
	n := build(t, "mathis", nil)
	const (
		flows   = 12
		warm    = 2 * time.Second // slow start, and what it overshoots
		measure = 5 * time.Second
	)
	var constants []float64
	shares := []float64{0.002, 0.01, 0.02}
	for i, p := range shares {
		sink := listen(t, n, west)
		l := linkOf(t, n, east, kernel.Flow{Proto: kernel.TCP})
		impair(t, l, link.Impairment{Loss: link.Loss{Share: p}, Delay: 10 * time.Millisecond, Seed: uint64(i + 1)}, link.Impairment{Delay: 10 * time.Millisecond})
		var conns []*net.TCPConn
		var stops []func()
		for range flows {
			c := connect(t, n, east, sink.addr, "reno")
			conns, stops = append(conns, c), append(stops, pump(c))
		}
		<-time.After(warm)
		before := counts(t, l)
		begin, from := time.Now(), sink.total()
		var rtt time.Duration
		samples := 0
		for time.Since(begin) < measure {
			<-time.After(100 * time.Millisecond)
			for _, c := range conns {
				rtt += time.Duration(tcpInfo(t, c).Rtt) * time.Microsecond
				samples++
			}
		}
		took, bytes := time.Since(begin), sink.total()-from
		after := counts(t, l)
		mss := tcpInfo(t, conns[0]).Snd_mss
		for _, stop := range stops {
			stop()
		}
		rtt /= time.Duration(samples)
		perFlow := float64(bytes) / took.Seconds() / flows
		c := perFlow * rtt.Seconds() * math.Sqrt(p) / float64(mss)
		constants = append(constants, c)
		lost := float64(after.Up.Lost-before.Up.Lost) / float64(after.Up.Seen-before.Up.Seen)
		t.Logf("%.1f %% asked, %.3f %% lost: %.2f Mbit/s a flow, MSS %d, RTT %v: C = %.3f; overrun %d and %d",
			p*100, lost*100, perFlow*8/1e6, mss, rtt.Round(10*time.Microsecond), c, after.Up.Overrun, after.Down.Overrun)
		release(t, l)
	}
	mean := 1.0
	for _, c := range constants {
		mean *= math.Pow(c, 1/float64(len(constants)))
	}
	t.Logf("C = %.3f", mean)
	for i, c := range constants {
		if off := c/mean - 1; math.Abs(off) > 0.15 {
			t.Errorf("at %.1f %% loss the throughput is %+.0f %% off the bound's shape", shares[i]*100, off*100)
		}
	}
	if mean < 0.8 || mean > 1.5 {
		t.Errorf("C is %.2f; it is 1.22 where every packet is acknowledged, 0.87 where every second one is", mean)
	}
}

// Packets a second that a wire carries, of 1316 bytes, on a core that its sender shares.
func BenchmarkWire(b *testing.B) {
	if err := Able(); err != nil {
		b.Skip(err)
	}
	n, err := Build(Config{Run: "bench", Regions: []string{east}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	var sink, source *net.UDPConn
	if err := n.Start(east, func() (err error) {
		sink, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(host(n.Prefix(east), 77), 0)))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	if source, err = net.DialUDP("udp4", nil, sink.LocalAddr().(*net.UDPAddr)); err != nil {
		b.Fatal(err)
	}
	defer source.Close()
	l, err := n.Link(east, kernel.Flow{})
	if err == nil {
		err = l.Impair(link.Impairment{}, link.Impairment{Delay: time.Millisecond})
	}
	if err != nil {
		b.Fatal(err)
	}
	packet := make([]byte, 1316)
	for b.Loop() {
		if _, err := source.Write(packet); err != nil {
			b.Fatal(err)
		}
	}
	c, err := l.Counts()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(c.Down.Held)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(c.Down.Overrun)/float64(b.N), "overrun/op")
}
