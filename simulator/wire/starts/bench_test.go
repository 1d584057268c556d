package starts

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
)

// bareServer says that this process is a test's server, not its tests.
const bareServer = "TMINUS_TEST_BARE_SERVER"

func TestMain(m *testing.M) {
	if core := os.Getenv(bareServer); core != "" {
		serveBare(core)
		return
	}
	os.Exit(m.Run())
}

// serveBare answers every request with the same bytes, from one epoll loop on the given core, until standard input ends.
func serveBare(core string) {
	if n, err := strconv.Atoi(core); err == nil {
		var set unix.CPUSet
		set.Set(n)
		_ = unix.SchedSetaffinity(0, &set) // without it the figures are worse, no more
	}
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	check(err)
	check(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, 5}}))
	check(unix.Listen(l, 4096))
	name, err := unix.Getsockname(l)
	check(err)
	fmt.Printf("127.0.1.5:%d\n", name.(*unix.SockaddrInet4).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	epoll, err := unix.EpollCreate1(0)
	check(err)
	check(unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l)}))
	answers := bytes.Repeat([]byte(response(200, good)), 64)
	size := len(answers) / 64
	events, buf := make([]unix.EpollEvent, 64), make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(epoll, events, -1)
		if err == unix.EINTR {
			continue
		}
		check(err)
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			if fd == l {
				for {
					c, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK)
					if err != nil {
						break
					}
					_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
					check(unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, c, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: int32(c)}))
				}
				continue
			}
			n, errno := receive(fd, buf)
			if errno == unix.EAGAIN {
				continue
			}
			if n <= 0 || errno != 0 {
				closeFD(fd)
				continue
			}
			k := bytes.Count(buf[:n], []byte("}")) // a request ends with one
			send(fd, answers[:min(k, 64)*size])
		}
	}
}

// startBare runs serveBare in a process of its own, on the last core.
func startBare(t testing.TB) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bareServer+"=1", "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(line[:len(line)-1])
}

// bareClient exchanges the same bytes with no application for a while, and returns how often a second.
func bareClient(b *testing.B, addr netip.AddrPort, conns, inFlight int, d time.Duration) float64 {
	c := config(b, event.Discard, schedule(b, s, audience.Leg{Rate: 1}), addr)
	request := &builtIn
	c.UserAgent = "tminus"
	t, err := request.compile(&c, addr.String())
	if err != nil {
		b.Fatal(err)
	}
	v := c.Crowd.Viewer(1)
	one := t.render(nil, &v, 1)
	slab := bytes.Repeat(one, inFlight)
	size := len(response(200, good))
	epoll, _ := unix.EpollCreate1(0)
	defer unix.Close(epoll)
	remote := newRemote(addr)
	for range conns {
		fd, errno := remote.dial()
		if errno != 0 {
			b.Fatal(errno)
		}
		defer closeFD(fd)
		setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			b.Fatal(err)
		}
		if n, errno := send(fd, slab); n != len(slab) {
			b.Fatal(n, errno)
		}
	}
	events, buf := make([]unix.EpollEvent, 64), make([]byte, 64<<10)
	have := make([]int, 1<<16)
	done := 0
	began := time.Now()
	for time.Since(began) < d {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 100, 0, 0)
		if errno != 0 {
			continue
		}
		for _, ev := range events[:n] {
			fd := int(ev.Fd)
			n, _ := receive(fd, buf)
			have[fd] += n
			k := have[fd] / size
			have[fd] -= k * size
			done += k
			send(fd, slab[:k*len(one)])
		}
	}
	return float64(done) / time.Since(began).Seconds()
}

// BenchmarkPlayStarts sends as fast as a bare server in another process takes them, in turns with a bare client, and gives
// the medians. One core each:
//
//	go test -c -o starts.test ./simulator/wire/starts && taskset -c 0 ./starts.test -test.run xxx -test.bench PlayStarts -test.benchtime 10x
func BenchmarkPlayStarts(b *testing.B) {
	const turn = 400 * ms
	for _, v := range []struct {
		name     string
		conns    int
		inFlight int
		fresh    bool
	}{{"one-in-flight", 64, 1, false}, {"pipelined-8", 16, 8, false}, {"fresh", 64, 1, true}} {
		b.Run(v.name, func(b *testing.B) {
			addr := startBare(b)
			var rates, bares, ratios, cpu, bcpu []float64
			for b.Loop() {
				bare := 0.0
				if !v.fresh {
					before := processorTime(b)
					bare = bareClient(b, addr, v.conns, v.inFlight, turn)
					bcpu = append(bcpu, float64((processorTime(b)-before).Nanoseconds())/(bare*turn.Seconds()))
				}
				c := config(b, event.Discard, schedule(b, turn, audience.Leg{Rate: 1}), addr)
				c.Saturate, c.Shards = true, 1
				c.PerService, c.InFlight = v.conns, v.inFlight
				if v.fresh {
					c.Connections, c.MaxInFlight = Fresh, v.conns
				}
				g, err := New(c)
				if err != nil {
					b.Fatal(err)
				}
				before := processorTime(b)
				if err := g.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
				n := g.Snapshot()
				if n.OK != n.Intended {
					b.Fatalf("%+v", n)
				}
				rate := float64(n.OK) / turn.Seconds()
				rates, bares, ratios = append(rates, rate), append(bares, bare), append(ratios, rate/bare)
				cpu = append(cpu, float64((processorTime(b)-before).Nanoseconds())/float64(n.OK))
			}
			median := func(v []float64) float64 {
				slices.Sort(v)
				return v[len(v)/2]
			}
			b.ReportMetric(median(rates), "starts/s")
			b.ReportMetric(median(cpu), "cpu-ns/start")
			if !v.fresh {
				b.ReportMetric(median(bcpu), "bare-cpu-ns")
				b.ReportMetric(median(bcpu)/median(cpu), "cpu-ratio")
				b.ReportMetric(median(bares), "bare/s")
				b.ReportMetric(median(ratios), "ratio")
			}
		})
	}
}

// processorTime is this process's own, the kernel's on its behalf included.
func processorTime(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
