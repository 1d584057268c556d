package catalogue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/netns"
	"github.com/tminus-live/tminus/chaos/watchdog/stock"
	"github.com/tminus-live/tminus/reference/timeline"
)

// row is one model of the catalogue, with what it is done to.
type row struct {
	fail, model, where string
	params             map[string]string
	files              map[string]string
	lasts              time.Duration

	root      bool // it is refused without
	relay     bool // a service of one's own that has a relay in front of it
	datagrams bool // which takes datagrams
	resolver  bool // which answers questions for names with them
	quiet     bool // it may be that its user does not notice

	// seen is for how long its user gets what was made while the fault was in effect.
	seen time.Duration

	ask func(*system, row) ask // nil: as the kind of part suggests
}

func (r row) name() string { return r.fail + " " + r.model + " of " + r.where }

// own reports whether a row is about a service of one's own.
func (r row) own() bool {
	return !strings.HasPrefix(r.where, east) && !strings.HasPrefix(r.where, west) && r.where != "kafka" && r.where != "clickhouse"
}

func (r row) fault(at time.Duration) chaos.Fault {
	return chaos.Fault{
		ID: strings.NewReplacer(" ", "-", "/", "-").Replace(r.fail + "-" + r.model + "-" + r.where), At: at, For: r.lasts,
		Fail: r.fail, Where: r.where, Model: r.model, Params: r.params, Files: r.files, Seed: 7,
	}
}

func faultsOf(rows []row) (faults []chaos.Fault) {
	for _, r := range rows {
		faults = append(faults, r.fault(begin))
	}
	return faults
}

// user is who asks a row's part.
func (s *system) user(r row) ask {
	p := s.part(r.where)
	switch {
	case r.ask != nil:
		return r.ask(s, r)
	case r.resolver:
		return s.resolved(r.where)
	case r.datagrams:
		return s.echo(r.where)
	case r.where == "kafka":
		return s.broker(r.where)
	case p.Kind == chaos.PartRegion:
		return page("http://" + p.Addrs[0].String() + "/" + stream + "/v540/init.mp4")
	case p.Kind == chaos.PartEdge, p.Kind == chaos.PartOrigin:
		return s.segment(r.where, "a-en")
	}
	return page(p.URL + p.Look)
}

// Rungs that a row's user watches.
func watching(rung string) func(*system, row) ask {
	return func(s *system, r row) ask { return s.segment(r.where, rung) }
}

// pressing is a viewer who asks a playback service at an endpoint.
func pressing(endpoint string) func(*system, row) ask {
	return func(s *system, r row) ask { return s.asked(r.where, endpoint) }
}

const (
	brief = 8 * time.Second
	// long is eight segments.
	long = 17 * time.Second
	// lastSegment is for how long the segment that the end of a fault lies in is the newest but one.
	lastSegment = 3 * timeline.SegmentDuration
	// begin is when every fault of a round is due.
	begin = chaos.Lead + time.Second
)

type params = map[string]string

// round is faults that are injected together.
type round struct {
	name string
	rows []row
}

// onLoopback are those that need no network of the run's own.
var onLoopback = []round{
	{"segments, and packets of datagrams", []row{
		{fail: "segments", model: "missing", where: edge(west, 1), lasts: long},
		{fail: "segments", model: "late", where: edge(west, 2), params: params{"delay": "3s"}, lasts: long},
		{fail: "segments", model: "short", where: edge(west, 3), lasts: long},
		{fail: "segments", model: "missing-frames", where: edge(west, 4), params: params{"share": "50%"}, lasts: long},
		{fail: "segments", model: "corrupt", where: edge(west, 5), lasts: long},
		{fail: "segments", model: "frozen", where: edge(west, 6), lasts: long, ask: watching("v360")},
		{fail: "segments", model: "wrong-timestamp", where: edge(west, 7), params: params{"shift": "3s"}, lasts: long},
		{fail: "segments", model: "rung-lost", where: edge(west, 8), params: params{"rung": "v360"}, lasts: long, ask: watching("v360")},
		{fail: "segments", model: "audio-lost", where: edge(west, 9), lasts: long},
		{fail: "store", model: "failing", where: east + "/origin", params: params{"share": "60%"}, lasts: brief},
		{fail: "steering", model: "gone", where: west + "/playback", lasts: brief, ask: pressing("steering")},
		{fail: "kafka", model: "slow", where: "kafka", params: params{"delay": "300ms"}, lasts: brief},
		{fail: "clickhouse", model: "refusing", where: "clickhouse", lasts: brief},
		{fail: "packet-loss", model: "bernoulli", where: "echo-1", params: params{"loss": "30%"}, relay: true, datagrams: true, lasts: brief},
		{fail: "packet-loss", model: "gilbert-elliott", where: "echo-2", params: params{"loss": "30%", "burst": "4"}, relay: true, datagrams: true, lasts: brief},
		{fail: "packet-loss", model: "trace", where: "echo-3", params: params{"file": "trace.txt"}, files: params{"file": trace}, relay: true, datagrams: true, lasts: brief},
		{fail: "packet-delay", model: "delay", where: "echo-4", params: params{"delay": "300ms", "jitter": "50ms", "reorder": "true"}, relay: true, datagrams: true, lasts: brief},
		{fail: "packet-duplication", model: "duplicate", where: "echo-5", params: params{"share": "40%"}, relay: true, datagrams: true, lasts: brief},
		{fail: "packet-corruption", model: "flip", where: "echo-6", params: params{"share": "40%"}, relay: true, datagrams: true, lasts: brief},
		{fail: "rate-limit", model: "rate", where: "echo-7", params: params{"rate": "200kbit"}, relay: true, datagrams: true, lasts: brief, quiet: true},
		{fail: "partition", model: "silence", where: "echo-8", relay: true, datagrams: true, lasts: brief},
		{fail: "brown-out", model: "slow", where: "echo-9", params: params{"delay": "300ms", "jitter": "20ms", "rate": "1Mbit"}, relay: true, datagrams: true, lasts: brief},
	}},
	{"answers, connections, and the kernel's packets", []row{
		{fail: "http", model: "status", where: edge(east, 1), params: params{"share": "60%"}, lasts: brief},
		{fail: "http", model: "latency", where: edge(east, 2), params: params{"delay": "700ms"}, lasts: brief},
		{fail: "http", model: "stall", where: edge(east, 3), params: params{"for": "1s", "after": "1kB"}, lasts: brief},
		{fail: "http", model: "reset", where: edge(east, 4), params: params{"share": "50%"}, lasts: brief},
		{fail: "http", model: "truncate", where: edge(east, 5), params: params{"share": "50%", "after": "1kB"}, lasts: brief},
		{fail: "http", model: "throttle", where: edge(east, 6), params: params{"rate": "100kbit"}, lasts: brief},
		{fail: "http", model: "corrupt", where: edge(east, 7), params: params{"share": "50%"}, lasts: brief},
		{fail: "encoder", model: "frozen", where: east + "/encoder", params: params{"rung": "360p"}, lasts: long, seen: lastSegment, ask: func(s *system, _ row) ask { return s.segment(east+"/packager", "v360") }},
		{fail: "publish", model: "failing", where: east + "/packager", lasts: long, ask: func(s *system, _ row) ask { return s.offered(east+"/origin", east) }},
		{fail: "store", model: "slow", where: west + "/origin", params: params{"delay": "700ms"}, lasts: brief},
		{fail: "kafka", model: "gone", where: "kafka", lasts: brief},
		{fail: "clickhouse", model: "gone", where: "clickhouse", lasts: brief},
		{fail: "connections", model: "reset", where: "web-1", relay: true, lasts: brief},
		{fail: "connections", model: "half-open", where: "web-2", relay: true, lasts: brief},
		{fail: "packet-loss", model: "bernoulli", where: "web-3", params: params{"loss": "30%"}, lasts: brief, root: true},
		{fail: "packet-loss", model: "gilbert-elliott", where: "web-4", params: params{"loss": "30%", "burst": "4"}, lasts: brief, root: true},
		{fail: "packet-loss", model: "trace", where: "web-5", params: params{"file": "trace.txt"}, files: params{"file": trace}, lasts: brief, root: true},
		{fail: "packet-duplication", model: "duplicate", where: "web-6", params: params{"share": "40%"}, lasts: brief, root: true, quiet: true},
		{fail: "packet-corruption", model: "flip", where: "web-7", params: params{"share": "40%"}, lasts: brief, root: true},
		{fail: "partition", model: "silence", where: "web-8", params: params{"direction": "to"}, lasts: brief},
	}},
	{"components, packets of streams, and names", []row{
		{fail: "encoder", model: "restart", where: east + "/encoder", lasts: 10 * time.Second, seen: lastSegment, ask: func(s *system, _ row) ask { return s.made(east + "/packager") }},
		{fail: "cache", model: "wipe", where: edge(east, 1), params: params{"every": "500ms"}, lasts: 10 * time.Second, ask: func(s *system, r row) ask { return s.cached(r.where) }},
		{fail: "overload", model: "slots", where: edge(east, 2), params: params{"slots": "1", "service": "200ms"}, lasts: brief, ask: func(s *system, r row) ask { return s.together(r.where) }},
		{fail: "clock", model: "skewed", where: edge(east, 3), params: params{"offset": "-3s"}, lasts: brief, ask: func(s *system, r row) ask { return s.time(r.where) }},
		{fail: "store", model: "throttled", where: west + "/origin", params: params{"rate": "2Mbit"}, lasts: long, quiet: true},
		{fail: "playback", model: "slow", where: west + "/playback", params: params{"delay": "700ms", "endpoint": "play"}, lasts: brief, ask: pressing("play")},
		{fail: "playback", model: "failing", where: east + "/playback", params: params{"share": "60%"}, lasts: brief, ask: pressing("manifest")},
		{fail: "packet-delay", model: "delay", where: "web-9", params: params{"delay": "300ms"}, relay: true, lasts: brief},
		{fail: "rate-limit", model: "rate", where: "web-10", params: params{"rate": "400kbit"}, relay: true, lasts: brief},
		{fail: "partition", model: "silence", where: "web-11", relay: true, lasts: brief},
		{fail: "brown-out", model: "slow", where: "web-12", params: params{"delay": "300ms", "jitter": "0s", "rate": "2Mbit"}, relay: true, lasts: brief},
		{fail: "dns", model: "nxdomain", where: "resolver-1", params: params{"name": title}, relay: true, datagrams: true, resolver: true, lasts: brief},
		{fail: "dns", model: "servfail", where: "resolver-2", params: params{"name": title}, relay: true, datagrams: true, resolver: true, lasts: brief},
		{fail: "dns", model: "address", where: "resolver-3", params: params{"name": title, "address": "127.9.9.9"}, relay: true, datagrams: true, resolver: true, lasts: brief},
		{fail: "dns", model: "silence", where: "resolver-4", params: params{"name": title}, relay: true, datagrams: true, resolver: true, lasts: brief},
		{fail: "dns", model: "slow", where: "resolver-5", params: params{"name": title, "delay": "800ms"}, relay: true, datagrams: true, resolver: true, lasts: brief},
	}},
	{"regions and processes", []row{
		{fail: "region", model: "crash", where: east, lasts: brief},
		{fail: "region", model: "cut", where: west, lasts: brief, root: true},
		{fail: "process", model: "hang", where: "worker-1", lasts: brief},
		{fail: "process", model: "cpu", where: "worker-2", params: params{"cores": "0.1"}, lasts: brief, quiet: true},
		{fail: "process", model: "memory", where: "worker-3", params: params{"room": "8MB"}, lasts: brief, root: true, quiet: true},
	}},
}

// onNetwork are those in a network of the run's own.
var onNetwork = []round{
	{"packets and answers in a network, and a whole region", []row{
		{fail: "http", model: "status", where: east + "/playback", params: params{"share": "60%"}, lasts: brief, ask: pressing("play")},
		{fail: "packet-loss", model: "bernoulli", where: edge(east, 1), params: params{"loss": "30%"}, lasts: brief, root: true},
		{fail: "packet-loss", model: "gilbert-elliott", where: edge(east, 2), params: params{"loss": "30%", "burst": "4"}, lasts: brief, root: true},
		{fail: "packet-loss", model: "trace", where: edge(east, 3), params: params{"file": "trace.txt"}, files: params{"file": trace}, lasts: brief, root: true},
		{fail: "packet-delay", model: "delay", where: edge(east, 4), params: params{"delay": "300ms", "jitter": "20ms"}, lasts: brief, root: true},
		{fail: "packet-duplication", model: "duplicate", where: edge(east, 5), params: params{"share": "40%"}, lasts: brief, root: true, quiet: true},
		{fail: "packet-corruption", model: "flip", where: edge(east, 6), params: params{"share": "40%"}, lasts: brief, root: true},
		{fail: "rate-limit", model: "rate", where: edge(east, 7), params: params{"rate": "200kbit"}, lasts: brief, root: true},
		{fail: "partition", model: "silence", where: edge(east, 8), params: params{"direction": "from"}, lasts: brief, root: true},
		{fail: "brown-out", model: "slow", where: edge(east, 9), params: params{"delay": "300ms", "jitter": "20ms", "rate": "2Mbit"}, lasts: brief, root: true},
		{fail: "region", model: "cut", where: west, lasts: brief, root: true},
	}},
}

// trace loses three packets of ten.
const trace = "1110000000\n"

func all(rounds []round) (rows []row) {
	for _, r := range rounds {
		rows = append(rows, r.rows...)
	}
	return rows
}

func TestEveryModelHasItsRow(t *testing.T) {
	rows := append(all(onLoopback), all(onNetwork)...)
	for _, k := range chaos.Catalogue() {
		for _, m := range k.Models {
			if !slices.ContainsFunc(rows, func(r row) bool { return r.fail == k.Fail && r.model == m.Name }) {
				t.Errorf("fail: %s, model: %s is in the catalogue and has no row here", k.Fail, m.Name)
			}
		}
	}
}

// way is what a round's injectors do instead of what they should.
type way struct {
	name string
	lies func(chaos.Fault, chaos.Injector, *liars) chaos.Injector // nil: nothing but what they should
	want string                                                   // evidence
}

var ways = []way{
	{"true", nil, chaos.Confirmed},
	{"idle", func(chaos.Fault, chaos.Injector, *liars) chaos.Injector { return idle{} }, chaos.Mismatch},
	{"gone too early, or never", func(f chaos.Fault, i chaos.Injector, l *liars) chaos.Injector {
		if l.early[f.ID] {
			return &fickle{Injector: i, after: f.For / 2}
		}
		l.list = append(l.list, i)
		return stubborn{i}
	}, chaos.Mismatch},
}

// liars are injectors of which something is left to undo.
type liars struct {
	list  []chaos.Injector
	early map[string]bool // by fault: it ends too early, rather than never
}

// idle does nothing.
type idle struct{}

func (idle) Inject(context.Context) error  { return nil }
func (idle) Restore(context.Context) error { return nil }

// stubborn says that it has undone what it has not.
type stubborn struct{ chaos.Injector }

func (stubborn) Restore(context.Context) error { return nil }

// fickle undoes what it did long before it should.
type fickle struct {
	chaos.Injector
	after time.Duration
	timer *time.Timer
	done  sync.WaitGroup
}

func (f *fickle) Inject(ctx context.Context) error {
	if err := f.Injector.Inject(ctx); err != nil {
		return err
	}
	f.done.Add(1)
	f.timer = time.AfterFunc(f.after, func() {
		defer f.done.Done()
		_ = f.Injector.Restore(context.WithoutCancel(ctx))
	})
	return nil
}

func (f *fickle) Restore(ctx context.Context) error {
	if f.timer != nil && f.timer.Stop() {
		f.done.Done()
	}
	f.done.Wait()
	return f.Injector.Restore(ctx)
}

func TestCatalogue(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the whole catalogue takes minutes; run without -short")
	}
	t.Run("loopback", func(t *testing.T) {
		if apart(t) {
			prove(t, onLoopback, false)
		}
	})
	t.Run("network", func(t *testing.T) {
		if err := errors.Join(netns.Able(), kernel.Able()); err != nil {
			missing(t, err)
		}
		if apart(t) {
			prove(t, onNetwork, true)
		}
	})
}

// apart runs a test on a machine of its own as far as that goes, and sees to it that nothing is left there; false: it has been run.
// Without root it is run where it is.
func apart(t *testing.T) bool {
	t.Helper()
	if os.Getuid() == 0 && !stock.Inside() {
		stock.Isolated(t)
		return false
	}
	if !stock.Inside() {
		return true
	}
	before, err := stock.Take(t.TempDir(), stock.Config{Dirs: []string{"/run/tminus", "/run/netns", "/dev/shm", "/sys/fs/bpf"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // registered first, so it runs last
		if err := before.Compare(5 * time.Second); err != nil {
			t.Error(err)
		}
	})
	return true
}

// missing skips what this machine cannot do, and fails where it must be possible.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Getuid() == 0 {
		t.Fatalf("this machine must be able to: %v", err)
	}
	t.Skipf("NOT TESTED: %v", err)
}

func prove(t *testing.T, rounds []round, networked bool) {
	s := open(t, all(rounds), networked)
	s.early = map[string]bool{}
	for i, f := range faultsOf(all(rounds)) {
		s.early[f.ID] = i%2 == 0
	}
	able := errors.Join(netns.Able(), kernel.Able())
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			for _, r := range rounds {
				t.Run(r.name, func(t *testing.T) {
					rows := r.rows
					if able != nil {
						rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.root })
					}
					for i, o := range s.insist(t, rows, w) {
						t.Run(rows[i].fail+" "+rows[i].model, func(t *testing.T) { o.judge(t, rows[i], w) })
					}
				})
			}
		})
	}
	if able != nil {
		t.Run("refused", func(t *testing.T) {
			for _, r := range all(rounds) {
				if r.root {
					t.Run(r.fail+" "+r.model, func(t *testing.T) { s.refuse(t, r) })
				}
			}
		})
	}
}

// refuse wants a sentence that says what a fault lacks.
func (s *system) refuse(t *testing.T, r row) {
	faults := []chaos.Fault{r.fault(begin)}
	_, planned := chaos.Plan(s.chaos(faults))
	err := errors.Join(chaos.Preflight(faults), planned)
	if !errors.Is(err, chaos.ErrUnsupported) {
		t.Fatalf("it was to be refused, and was not: %v", err)
	}
	t.Log(err)
}

// outcome is what became of a row.
type outcome struct {
	chaos.Result
	figure *figure
	start  time.Time
}

// insist plays a round, and once more those of its faults about which too little was measured: a busy machine does that.
func (s *system) insist(t *testing.T, rows []row, w way) []outcome {
	t.Helper()
	outcomes := s.play(t, rows, w)
	var again []row
	var of []int
	for i, o := range outcomes {
		if o.Evidence.Status == chaos.Inconclusive {
			t.Logf("%s is inconclusive, so once more: %s", rows[i].name(), o.Evidence.Detail)
			again, of = append(again, rows[i]), append(of, i)
		}
	}
	if len(again) > 0 {
		for i, o := range s.play(t, again, w) {
			outcomes[of[i]] = o
		}
	}
	return outcomes
}

// play injects a round's faults together, and returns when everything is as before.
func (s *system) play(t *testing.T, rows []row, w way) []outcome {
	t.Helper()
	users := make([]ask, len(rows))
	outcomes := make([]outcome, len(rows))
	for i, r := range rows {
		users[i] = s.user(r)
		outcomes[i].figure = &figure{}
	}
	well(t, rows, users)
	held := len(s.guard.Protected())

	asking, stop := context.WithCancel(context.Background())
	var asked sync.WaitGroup
	for i, u := range users {
		asked.Go(func() { outcomes[i].figure.watch(asking, u) })
	}
	cfg := s.chaos(faultsOf(rows))
	cfg.Logger = slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	liars := liars{early: s.early}
	if w.lies != nil {
		cfg.Sabotage = func(f chaos.Fault, i chaos.Injector) chaos.Injector { return w.lies(f, i, &liars) }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	results, err := chaos.Run(ctx, cfg)
	if w.lies == nil { // what comes late is to be seen too
		for i, res := range results {
			select {
			case <-time.After(time.Until(restored(cfg.Start, res).Add(calming + rows[i].seen + (enough+5)*askEvery))):
			case <-ctx.Done():
			}
		}
	}
	stop()
	asked.Wait()
	for _, i := range liars.list {
		err = errors.Join(err, i.Restore(ctx))
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range results {
		outcomes[i].Result, outcomes[i].start = results[i], cfg.Start
	}
	if w.lies == nil {
		for _, c := range chaos.Safety(results) {
			if !c.Pass {
				t.Errorf("%s: %s", c.Name, c.Detail)
			}
		}
	}
	if n := len(s.guard.Protected()); n != held {
		t.Errorf("the watchdog holds %d entries, and held %d before: %v", n, held, s.guard.Protected())
	}
	well(t, rows, users)
	return outcomes
}

// well waits until every user gets what they should, for a second.
func well(t *testing.T, rows []row, users []ask) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	errs := make([]error, len(rows))
	var waiting sync.WaitGroup
	for i, u := range users {
		waiting.Go(func() {
			for good := 0; good < 5; {
				each, cancel := context.WithTimeout(ctx, askWait)
				err := u(each)
				cancel()
				if good++; err != nil {
					good, errs[i] = 0, fmt.Errorf("%s is not well: %w", rows[i].where, err)
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(askEvery):
				}
			}
			errs[i] = nil
		})
	}
	waiting.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func injected(start time.Time, r chaos.Result) time.Time {
	return start.Add(time.Duration(r.AtS * float64(time.Second)))
}

func restored(start time.Time, r chaos.Result) time.Time {
	return injected(start, r).Add(time.Duration(r.ForS * float64(time.Second)))
}

// judge holds a row's outcome to what it should be.
func (o outcome) judge(t *testing.T, r row, w way) {
	injected, restored := injected(o.start, o.Result), restored(o.start, o.Result)
	before, n, wrong := o.figure.share(o.start, injected.Add(-100*time.Millisecond))
	during, _, felt := o.figure.share(injected, restored)
	after, m, late := o.figure.share(restored.Add(calming+r.seen), time.Now())
	e := o.Evidence
	means := o.Means
	if means == "" {
		means = "-"
	}
	t.Logf("%s: %s, expected %.4g, measured %.4g %s; figure %.1f %% of %d before, %.1f %% during (%v), %.1f %% of %d after; by %s; %s",
		r.name(), e.Status, e.Expected, e.Measured, e.Unit, 100*before, n, 100*during, felt, 100*after, m, means, e.Detail)
	if o.Err != nil || !o.Restored {
		t.Errorf("restored: %v, %v", o.Restored, o.Err)
	}
	if e.Status != w.want {
		t.Errorf("the evidence says %s, want %s: %s", e.Status, w.want, e.Detail)
	}
	if n < enough || before < 1-tolerance {
		t.Errorf("the part was not well before: %.1f %% of %d requests were answered well (%v)", 100*before, n, wrong)
	}
	switch w.name {
	case "true":
		if m < enough || math.Abs(after-before) > tolerance*before {
			t.Errorf("the figure is %.1f %% after the fault (of %d, %v), and was %.1f %% before", 100*after, m, late, 100*before)
		}
		if !r.quiet && during > before*(1-tolerance) {
			t.Errorf("its user noticed nothing: %.1f %% during the fault", 100*during)
		}
	case "idle":
		if during < before*(1-tolerance) {
			t.Errorf("nothing was broken, and yet %.1f %% were answered well: %v", 100*during, felt)
		}
	}
}

func TestWithoutRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it takes minutes; run without -short")
	}
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: only root can show how it is without, and this is how it is without")
	}
	// The handle to this very binary, since nobody may look into the folder that it was built in.
	runtime.LockOSThread() // which PR_SET_PDEATHSIG is about
	defer runtime.UnlockOSThread()
	nobody := exec.Command("/proc/self/exe", "-test.v", "-test.run", "^TestCatalogue$/^loopback$/^(true|refused)$", "-test.timeout", "10m")
	nobody.Dir = os.TempDir()
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	nobody.Env = append(os.Environ(), "HOME="+os.TempDir())
	out, err := nobody.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: TestCatalogue/loopback/refused/region_cut") {
		t.Error("nothing was refused")
	}
}
