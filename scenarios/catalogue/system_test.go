package catalogue

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/scenarios/parts"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/kafka"
)

const (
	// Two regions that are broken, and one that never is: what is beside a fault is seen there.
	east, west, calm = "us-east", "us-west", "calm"
	edges            = 9 // of those that are broken
	stream           = "catalogue"
	leadIn           = 15
	patience         = 30 * time.Second
)

// What the test binary plays as a child.
const (
	playRegion  = "region"
	playService = "service"
)

func TestMain(m *testing.M) {
	switch {
	case watchdog.IsChild():
		os.Exit(watchdog.Serve())
	case netns.IsChild():
		os.Exit(netns.Serve())
	case process.WatchLifeline():
		if err := play(os.Args[1]); err != nil {
			_ = process.Fail(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func play(role string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	raw, err := process.Config()
	if err != nil {
		return err
	}
	if role == playRegion {
		var cfg pipeline.Config
		if err := json.Unmarshal(raw, &cfg); err != nil {
			return err
		}
		region, err := pipeline.Listen(cfg, event.Discard, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		if err != nil {
			return err
		}
		go func() {
			select {
			case <-region.Ready():
				_ = process.Ready(nil)
			case <-ctx.Done():
			}
		}()
		return region.Run(ctx)
	}
	var cfg serviceConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return err
	}
	return cfg.serve(ctx)
}

// serviceConfig is a service of one's own.
type serviceConfig struct {
	TCP, UDP int  // addresses that it answers HTTP at, and those where it sends datagrams back
	DNS      int  // those where it says the address of title
	Burn     bool // it takes half a core
	Eat      bool // it takes memory and gives it back, over and over
}

// answer is what the service says to everybody.
var answer = []byte(strings.Repeat("as it should be\n", 4096))

func (c serviceConfig) serve(ctx context.Context) error {
	info := map[string]string{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		w.Write(answer)
	})}
	for i := range c.TCP {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		info["tcp"+strconv.Itoa(i)] = ln.Addr().String()
		go server.Serve(ln)
	}
	datagrams := func(name string, n int, answer func([]byte) []byte) error {
		for i := range n {
			conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				return err
			}
			info[name+strconv.Itoa(i)] = conn.LocalAddr().String()
			go func() {
				buf := make([]byte, 64<<10)
				for {
					n, from, err := conn.ReadFrom(buf)
					if err != nil {
						return
					}
					conn.WriteTo(answer(buf[:n]), from)
				}
			}()
		}
		return nil
	}
	if err := datagrams("udp", c.UDP, func(asked []byte) []byte { return asked }); err != nil {
		return err
	}
	if err := datagrams("dns", c.DNS, resolve); err != nil {
		return err
	}
	if c.Burn {
		go burn(ctx)
	}
	if c.Eat {
		go eat(ctx)
	}
	if err := process.Ready(info); err != nil {
		return err
	}
	<-ctx.Done()
	return server.Close()
}

// What a resolver is asked for, and what it says.
const title = "play.example.test"

var titleAddr = [4]byte{127, 0, 0, 53}

// resolve answers every question with the address of title.
func resolve(asked []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(asked); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response = true
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
		Body:   &dnsmessage.AResource{A: titleAddr},
	}}
	b, _ := m.Pack()
	return b
}

// burn takes half of a core.
func burn(ctx context.Context) {
	const slice = 10 * time.Millisecond
	for tick := time.NewTicker(2 * slice); ctx.Err() == nil; <-tick.C {
		for end := time.Now().Add(slice); time.Now().Before(end); {
		}
	}
}

// eat takes up to 48 MB, a little at a time, and gives all of it back.
func eat(ctx context.Context) {
	const piece, most = 1 << 20, 48
	var held [][]byte
	for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
		if len(held) == most {
			for _, b := range held {
				_ = unix.Munmap(b)
			}
			held = held[:0]
		}
		b, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
}

// region is one region of the pipeline, in a process of its own.
type region struct {
	cfg  pipeline.Config
	fork func(func() error) error
	log  string

	mu   sync.Mutex
	proc *process.Process
	runs int
}

func (r *region) Name() string         { return r.cfg.Here().Name }
func (r *region) Prefix() netip.Prefix { return r.cfg.Here().Prefix() }

func (r *region) Endpoints() (all []netip.AddrPort) {
	here := r.cfg.Here()
	for k := 1; k <= here.Edges; k++ {
		all = append(all, here.EdgeAddr(k))
	}
	return append(all, here.PlaybackAddr())
}

func (r *region) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	cfg := r.cfg
	if r.runs++; r.runs > 1 {
		cfg.LeadIn = 0 // what it would have encoded while it was gone, nobody encoded
	}
	stdin, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	r.proc, err = process.Start(ctx, process.Spec{
		Name: "region/" + r.Name(), Args: []string{playRegion}, Stdin: stdin, LogPath: r.log, ReadyTimeout: patience, Fork: r.fork,
	})
	return err
}

func (r *region) process() *process.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc
}

func (r *region) Kill() error { return r.process().Kill() }
func (r *region) Alive() bool { p := r.process(); return p != nil && p.Alive() }

func (r *region) processes() ([]procfs.Process, error) {
	if !r.Alive() {
		return nil, nil
	}
	p, err := procfs.Read(r.process().PID())
	return []procfs.Process{p}, err
}

// system is everything that can be broken, and what stands around it for that.
type system struct {
	guard   *watchdog.Watchdog
	network *netns.Network // nil: the regions are on the loopback
	fronts  *parts.Fronts
	cfg     pipeline.Config
	regions []*region
	parts   []chaos.Part
	copies  copies
	early   map[string]bool
}

// open makes a system in which the rows' faults are possible, and takes it away when the test ends.
func open(t *testing.T, rows []row, networked bool) *system {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	run := fmt.Sprintf("catalogue-%d", os.Getpid())
	s := &system{fronts: parts.NewFronts(slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn})))}
	var err error
	if s.guard, err = watchdog.Start(ctx, watchdog.Config{Run: run}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.guard.Close(); err != nil {
			t.Errorf("the watchdog: %v", err)
		}
	})
	if networked {
		if s.network, err = netns.Build(netns.Config{Run: run, Regions: []string{east, west, calm}}, s.guard); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.network.Close(); err != nil {
				t.Errorf("the network: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if err := s.fronts.Close(); err != nil {
			t.Errorf("the relays: %v", err)
		}
	})
	faults := faultsOf(rows)
	s.pipeline(t, ctx, faults)
	if !networked {
		s.kafka(t, faults)
		s.services(t, ctx, rows, faults)
	}
	return s
}

// pipeline starts both regions, with relays in front of what is to be broken.
func (s *system) pipeline(t *testing.T, ctx context.Context, faults []chaos.Fault) {
	t.Helper()
	s.cfg = pipeline.Config{
		Run: "catalogue", Seed: 1, Event: stream, Ladder: "sports", First: timeline.Default.At(time.Now()) - leadIn, LeadIn: leadIn, DVR: time.Minute,
		Regions: pipeline.Regions(freePort(t), []string{east, west, calm}, map[string]int{east: edges, west: edges, calm: 1}),
		Key:     make([]byte, 32),
	}
	if _, err := rand.Read(s.cfg.Key); err != nil {
		t.Fatal(err)
	}
	var all []spec.Part
	for i := range s.cfg.Regions {
		r := &s.cfg.Regions[i]
		if s.network != nil {
			r.Block = s.network.Prefix(r.Name)
		}
		of := []spec.Part{{Name: r.Name, Kind: chaos.PartRegion}}
		for _, kind := range []string{chaos.PartEncoder, chaos.PartPackager, chaos.PartOrigin, chaos.PartPlayback} {
			of = append(of, spec.Part{Name: r.Name + "/" + kind, Kind: kind})
		}
		for k := range r.Edges {
			of = append(of, spec.Part{Name: edge(r.Name, k+1), Kind: chaos.PartEdge})
		}
		for _, p := range of {
			p.Region = r.Name
			all = append(all, p)
			if component, ok := strings.CutPrefix(p.Name, r.Name+"/"); ok && len(s.frontsOf(p.Name, p.Kind, faults)) > 0 {
				r.Behind = append(r.Behind, component)
			}
		}
	}
	folder := t.TempDir()
	for i, r := range s.cfg.Regions {
		cfg := s.cfg
		cfg.Region = i
		s.regions = append(s.regions, &region{cfg: cfg, fork: s.in(r.Name), log: filepath.Join(folder, r.Name+".log")})
	}
	reference := parts.Reference{Pipeline: s.cfg, Network: s.network, Processes: func(name string) func() ([]procfs.Process, error) {
		i := slices.IndexFunc(s.regions, func(r *region) bool { return r.Name() == name })
		return s.regions[i].processes
	}}
	for _, p := range all {
		out, err := reference.Part(p)
		if err != nil {
			t.Fatal(err)
		}
		if fronts := s.frontsOf(p.Name, p.Kind, faults); len(fronts) > 0 {
			public := out.Addrs[0]
			i := slices.IndexFunc(s.cfg.Regions, func(r pipeline.RegionConfig) bool { return r.Name == p.Region })
			place := parts.Place{Public: public, Behind: s.cfg.Regions[i].Shadow(public), From: public.Addr(), Layout: reference.Layout(), In: s.in(p.Region)}
			if err := s.fronts.Put(&out, fronts, place); err != nil {
				t.Fatal(err)
			}
		}
		s.parts = append(s.parts, out)
	}
	s.copies.layout = reference.Layout()
	var starting sync.WaitGroup
	errs := make([]error, len(s.regions))
	for i, r := range s.regions {
		starting.Go(func() { errs[i] = r.Start(ctx) })
	}
	starting.Wait()
	t.Cleanup(func() {
		for _, r := range s.regions {
			if r.Alive() {
				if err := r.process().Stop(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// frontsOf says what is to stand in front of a part: in a network of the run's own, nothing for its packets.
func (s *system) frontsOf(name, kind string, faults []chaos.Fault) []chaos.Front {
	fronts := parts.FrontsOf(name, kind, faults)
	return slices.DeleteFunc(fronts, func(f chaos.Front) bool { return s.network != nil && f != chaos.FrontHTTP })
}

// in opens sockets, and forks, where a region lives; nil: here.
func (s *system) in(region string) func(func() error) error {
	if s.network == nil {
		return nil
	}
	return func(open func() error) error { return s.network.Start(region, open) }
}

// kafka is a broker with a relay in front of it.
func (s *system) kafka(t *testing.T, faults []chaos.Fault) {
	t.Helper()
	p := chaos.Part{Name: "kafka", Kind: chaos.PartKafka}
	broker, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0", Public: func(listening string) (string, error) {
		behind, err := netip.ParseAddrPort(listening)
		if err != nil {
			return "", err
		}
		if err := s.fronts.Put(&p, parts.FrontsOf(p.Name, p.Kind, faults), parts.Place{Public: netip.AddrPortFrom(behind.Addr(), 0), Behind: behind}); err != nil {
			return "", err
		}
		p.Addrs = []netip.AddrPort{p.TCP.Addr()}
		return p.TCP.Addr().String(), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.parts = append(s.parts, p)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- broker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the broker: %v", err)
		}
	})
}

// services are the parts of one's own, and what stands in for the store.
func (s *system) services(t *testing.T, ctx context.Context, rows []row, faults []chaos.Fault) {
	t.Helper()
	start := func(name string, cfg serviceConfig) map[string]string {
		stdin, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		p, err := process.Start(ctx, process.Spec{Name: "service/" + name, Args: []string{playService}, Stdin: stdin})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return p.Info()
	}
	var own []row
	for _, r := range rows {
		if r.own() && !slices.ContainsFunc(own, func(o row) bool { return o.where == r.where }) {
			own = append(own, r)
		}
	}
	shared := start("shared", serviceConfig{TCP: len(own) + 1, UDP: len(own), DNS: len(own)})
	for i, r := range own {
		at := shared["tcp"+strconv.Itoa(i)]
		if r.datagrams {
			at = shared["udp"+strconv.Itoa(i)]
		}
		if r.resolver {
			at = shared["dns"+strconv.Itoa(i)]
		}
		if r.fail == "process" {
			at = start(r.where, serviceConfig{TCP: 1, Burn: r.model == "cpu", Eat: r.model == "memory"})["tcp0"]
		}
		o := spec.Own{Name: r.where, Address: netip.MustParseAddrPort(at), Datagrams: r.datagrams}
		if r.relay || kernel.Able() != nil {
			o.Relay = vacant(t)
		}
		p, err := parts.Own(o)
		if err == nil {
			err = s.fronts.PutOwn(&p, o, faults)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.parts = append(s.parts, p)
	}
	public := vacant(t)
	store := chaos.Part{Name: "clickhouse", Kind: chaos.PartClickHouse, Addrs: []netip.AddrPort{public}, URL: "http://" + public.String(), Look: "/ping"}
	behind := netip.MustParseAddrPort(shared["tcp"+strconv.Itoa(len(own))])
	if err := s.fronts.Put(&store, parts.FrontsOf(store.Name, store.Kind, faults), parts.Place{Public: public, Behind: behind}); err != nil {
		t.Fatal(err)
	}
	s.parts = append(s.parts, store)
}

// part finds one by its name.
func (s *system) part(name string) chaos.Part {
	i := slices.IndexFunc(s.parts, func(p chaos.Part) bool { return p.Name == name })
	if i < 0 {
		return chaos.Part{}
	}
	return s.parts[i]
}

// chaos is what breaks the system.
func (s *system) chaos(faults []chaos.Fault) chaos.Config {
	cfg := chaos.Config{Faults: faults, Parts: s.parts, Start: time.Now(), Now: time.Now, Guard: s.guard}
	for _, r := range s.regions {
		cfg.Regions = append(cfg.Regions, r)
	}
	return cfg
}

func edge(region string, k int) string { return region + "/edge-" + strconv.Itoa(k) }

// vacant is an address that nobody listens at.
func vacant(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// freePort is a port that is free on every address, below the range that the kernel takes local ports from.
func freePort(t *testing.T) int {
	t.Helper()
	for i := range 200 {
		port := 20_000 + (os.Getpid()*37+i*101)%10_000
		if ln, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// writer is a test's log.
type writer struct{ t *testing.T }

func (w writer) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
