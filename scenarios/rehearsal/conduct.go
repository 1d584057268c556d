package rehearsal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/scenarios/parts"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/wire/consent"
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Bounds of the phases before and after the event.
const (
	// leadIn is how many segments the stream is old when it begins: a player starts three behind the live edge and must
	// find them, whenever it comes.
	leadIn = 6
	// countdown is the time between the pipeline's readiness and T-0.
	countdown = 3 * time.Second
	// stopGrace bounds the orderly end of the regions.
	stopGrace = 10 * time.Second
	// drainLimit is how long after the last event the store may take to hold them all, as long as it gets on.
	drainLimit = 10 * time.Minute
	// crowdGrace is how long after the end of the event the last answers are waited for.
	crowdGrace = 5 * time.Second
)

// Config says what to rehearse and where things are.
type Config struct {
	Scenario   *spec.Scenario
	Runs       string // folder that holds the runs' folders
	Port       int    // of every HTTP server of the reference pipeline; 0: pipeline.DefaultPort
	Kafka      string // address of a Kafka broker; "": the embedded one
	ClickHouse string // address of a ClickHouse server; "": the embedded engine
	Log        *slog.Logger
	Version    string // of this program: targets are told who loads them
}

// Rehearsal is one run of a scenario.
type Rehearsal struct {
	cfg    Config
	id     string
	folder string
	log    *slog.Logger

	state state

	system    *system
	telemetry *telemetryPath
	regions   []*region
	pipeline  pipeline.Config
	permits   consent.Permits // of a target
	nowcast   *nowcast        // nil: nothing was forecast
	zero      time.Time       // T-0
	stopped   error           // why a region could not be stopped in order
	pods      int             // that sent the run; 0: it is this machine's own
}

// New names a run; it does nothing yet.
func New(cfg Config, now time.Time) (*Rehearsal, error) {
	if cfg.Port == 0 {
		cfg.Port = pipeline.DefaultPort
	}
	var salt [2]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, err
	}
	r := &Rehearsal{cfg: cfg, log: cfg.Log}
	r.id = fmt.Sprintf("%s-%s-%s", now.UTC().Format("20060102-150405"), cfg.Scenario.Name, hex.EncodeToString(salt[:]))
	r.state.init(cfg.Scenario, r.id)
	r.folder = filepath.Join(cfg.Runs, r.id)
	return r, nil
}

// The free disk space that a run starts with: the store, the spool and the report of some minutes, and what the play starts
// of a large crowd take until they are stored.
const (
	minFree      = 256 << 20
	freePerStart = 400
)

// needs is the disk space that the scenario's run starts with, bytes.
func needs(sc *spec.Scenario) uint64 {
	schedule, err := sc.Audience.Schedule(sc.Event.Duration)
	if err != nil {
		return minFree // what is wrong with the schedule is told when it is needed
	}
	return minFree + freePerStart*schedule.Total()
}

// makeFolder makes the run's folder and says whether its file system has space for a run.
func makeFolder(folder string, need uint64) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot make the run's folder: %w", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil {
		return fmt.Errorf("cannot tell how much disk space is left for %s: %w", folder, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		_ = os.Remove(folder) // it is empty
		return fmt.Errorf("no space for a run in %s: %d MB are free and it starts with %d MB; free some space or choose another folder with --runs", folder, free>>20, need>>20)
	}
	return nil
}

// Folder is the run's folder: report, timeline and logs.
func (r *Rehearsal) Folder() string { return r.folder }

// Run conducts the rehearsal from venue to verdict and returns the report, which is also in the run's folder. An error
// says why there is no report. When ctx ends during the event, the event ends there, everything is undone in order,
// and the report says that it was interrupted. When Run returns, nothing that it started is left running.
func (r *Rehearsal) Run(ctx context.Context) (rep *report.Report, err error) {
	r.phase("prepare", "opening the event path to the store")
	if _, err := Foresee(r.cfg); err != nil {
		return nil, err
	}
	var undo stack
	defer func() {
		if e := undo.run(); e != nil {
			err = errors.Join(err, e)
		}
	}()
	if r.system, err = openSystem(ctx, r.cfg, r.id); err != nil {
		return nil, err
	}
	undo.push(r.system.close)
	if target := r.cfg.Scenario.Target; target != nil {
		if err := r.system.assembleOwn(); err != nil {
			return nil, err
		}
		if err := r.system.refuse(); err != nil {
			return nil, err
		}
		if r.permits, err = r.admit(ctx, target); err != nil {
			return nil, err
		}
	}
	if err := makeFolder(r.folder, needs(r.cfg.Scenario)); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(r.folder) }() // when it is empty: nothing came of it

	// Last of all: once everything is in the store, nobody needs what carried it there.
	undo.push(func() error { return r.tidy(rep, err) })
	r.telemetry, err = openTelemetry(ctx, r.cfg, r.id, r.folder, &r.state, r.system)
	if err != nil {
		return nil, err
	}
	undo.push(r.telemetry.close)

	if r.cfg.Scenario.Target == nil {
		r.phase("prepare", "starting the regions")
		if err := r.startPipeline(ctx, r.cfg.Scenario.Playback.Tokens); err != nil {
			return nil, err
		}
		undo.push(r.stopRegions)
	} else {
		r.zero = time.Now().Add(time.Second)
	}

	// What cannot be broken, or is not this run's to break, is told before anybody presses Play.
	if err := plan(r.breaking()); err != nil {
		return nil, err
	}
	out, err := r.event(ctx)
	if err != nil {
		return nil, err
	}

	// From here on the run ends with a report, even when it was interrupted: what follows must not end with ctx.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit+stopGrace+time.Minute)
	defer cancel()
	r.phase("drain", "waiting until every event is stored")
	if err := r.stopRegions(); err != nil {
		r.stopped = err
	}
	ledger, err := r.telemetry.drain(after, drainLimit)
	if err != nil {
		return nil, err
	}
	r.phase("verdict", "asking the store what viewers lived through")
	return r.judge(after, out, ledger)
}

// tidy removes from the run's folder what nobody needs once Run returns rep and err.
func (r *Rehearsal) tidy(rep *report.Report, err error) error {
	switch {
	case errors.Is(err, ErrRefused): // before anybody pressed Play: nothing was recorded
		return os.RemoveAll(r.folder)
	case rep == nil || rep.Telemetry.Lost > 0: // then it is evidence
		return nil
	}
	return r.forget()
}

// errOver ends whoever is still at it some time after the end of the event: it is not an interruption.
var errOver = errors.New("the event is over")

// outcome is what the event left behind beside its telemetry.
type outcome struct {
	faults      []chaos.Result
	ran         time.Duration // how long the event ran
	course      course        // of the experiment, where there is one
	interrupted string        // why it ended early; "": it did not
	ids         []process.ID  // of the crowd's processes
	starts      starts.Snapshot
}

// event runs the crowd and the faults from T-0 to the end of the event.
func (r *Rehearsal) event(ctx context.Context) (outcome, error) {
	sc := r.cfg.Scenario
	crowd, err := r.newCrowd()
	if err != nil {
		return outcome{}, err
	}
	ops := newControl(sc, r.pipeline, r.nowcast, r.zero, r.log)
	r.state.begins(r.zero, crowd, ops)
	end := r.zero.Add(sc.Event.Duration)
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	live, cancel := context.WithDeadlineCause(running, end.Add(crowdGrace), errOver)
	defer cancel()
	// A fault that lasts until the end may have to be watched for longer than the crowd takes to leave.
	watched, unwatch := context.WithDeadlineCause(running, end.Add(crowdGrace+chaos.WatchMost), errOver)
	defer unwatch()

	var out outcome
	var wg sync.WaitGroup
	// The crowd takes its places during the countdown: nobody presses Play before T-0.
	wg.Go(func() {
		if err := crowd.run(live); err != nil {
			stop(err)
		}
	})
	watching, stopWatching := context.WithCancel(live)
	var watchers sync.WaitGroup
	watchers.Go(func() {
		watchProcesses(watching, func() map[string]int { return r.pids(crowd) }, r.telemetry.sink, r.log)
	})
	watchers.Go(func() { ops.run(watching) })
	watchers.Go(func() {
		if err := r.permits.Run(watching); err != nil {
			stop(err)
		}
	})
	defer watchers.Wait() // they put events on the timeline, which ends after this
	defer stopWatching()
	r.phase("countdown", "")
	if err := sleepUntil(live, r.zero); err != nil {
		stop(nil)
		wg.Wait()
		if ctx.Err() != nil {
			return outcome{}, errors.New("interrupted before the event began")
		}
		return outcome{}, context.Cause(live)
	}
	r.phase(onAir, "")

	// A region or a store that dies unasked, or a crowd that cannot go on, ends the event: there is nothing left to rehearse.
	go func() {
		if err, died := <-r.partFailed(live); died {
			stop(err)
		}
	}()
	wg.Go(func() {
		var err error
		out.faults, out.course, err = r.underWatch(watched, r.breaking(), crowd)
		if err != nil {
			stop(err)
		}
	})
	wg.Wait()
	if live.Err() == nil && time.Now().Before(end) && crowd.streamOver() {
		stop(errors.New("the stream was over and every player had left"))
	}
	_ = sleepUntil(live, end) // whoever gave up has been counted, and the event goes on without them
	out.ran = min(time.Since(r.zero), sc.Event.Duration)
	out.ids = crowd.ids()
	out.starts = crowd.snapshot()
	switch cause := context.Cause(live); {
	case cause == nil, errors.Is(cause, errOver):
	case ctx.Err() != nil:
		out.interrupted = "interrupted by a signal"
	default:
		out.interrupted = cause.Error()
	}
	return out, nil
}

// startPipeline decides when T-0 is, starts a process for each region, and returns when all of them serve the stream. With
// tokens, edges serve media to sessions alone.
func (r *Rehearsal) startPipeline(ctx context.Context, tokens bool) error {
	sc := r.cfg.Scenario
	tl := timeline.Default
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	r.pipeline = pipeline.Config{
		Run:     r.id,
		Seed:    sc.Seed,
		Event:   sc.Name,
		Ladder:  sc.Event.Ladder,
		First:   tl.At(time.Now()) - leadIn,
		LeadIn:  leadIn,
		DVR:     sc.Event.DVR,
		Regions: pipeline.Regions(r.cfg.Port, sc.Topology.Regions, sc.Topology.Edges),
		Key:     key,
		Playback: pipeline.PlaybackConfig{
			Capacity:      sc.Playback.Capacity / float64(len(sc.Topology.Regions)),
			GuidedBackoff: &sc.Playback.GuidedBackoff,
			Tokens:        tokens,
		},
	}
	if sc.Audience.Connections.Kind == spec.FreshTLS {
		var err error
		if r.pipeline.Playback.Cert, r.pipeline.Playback.PrivateKey, err = certificate(r.id, r.pipeline.Regions, time.Now(), sc.Event.Duration); err != nil {
			return err
		}
	}
	if sc.Audience.Forecast != nil {
		var err error
		if r.nowcast, err = newNowcast(sc); err != nil {
			return err
		}
	}
	r.system.place(r.pipeline.Regions)
	capacity := r.nowcast.start()
	for i := range r.pipeline.Regions {
		cfg := r.pipeline
		cfg.Region = i
		if sc.Playback.Instance > 0 {
			cfg.Playback.Capacity = capacity[i]
		}
		region := newRegion(RegionConfig{Pipeline: cfg, Events: r.telemetry.events}, r.folder, r.log)
		region.fork = r.system.fork(region.Name())
		r.regions = append(r.regions, region)
	}
	if err := r.system.assemble(r.pipeline, r.regions); err != nil {
		return err
	}
	if err := startRegions(ctx, r.regions); err != nil {
		return err
	}
	r.zero = time.Now().Add(countdown)
	return nil
}

// partFailed delivers the reason when a process of the run, a region's or the store's, ends without being told to; it is
// closed when ctx ends.
func (r *Rehearsal) partFailed(ctx context.Context) <-chan error {
	first := make(chan error)
	var wg sync.WaitGroup
	tell := func(err error) {
		select {
		case first <- err:
		case <-ctx.Done():
		}
	}
	for _, region := range r.regions {
		wg.Go(func() {
			select {
			case err := <-region.Failed():
				tell(err)
			case <-ctx.Done():
			}
		})
	}
	wg.Go(func() {
		select {
		case <-r.telemetry.died():
			tell(r.telemetry.process.Err())
		case <-ctx.Done():
		}
	})
	go func() {
		wg.Wait()
		close(first)
	}()
	return first
}

// stopRegions ends every region, all at once: they are peers. It may be called again.
func (r *Rehearsal) stopRegions() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	errs := make([]error, len(r.regions))
	var wg sync.WaitGroup
	for i, region := range r.regions {
		wg.Go(func() { errs[i] = region.Stop(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (r *Rehearsal) phase(name, doing string) {
	r.state.phase(name, doing)
	r.log.Info("phase", "phase", name, "doing", doing)
	if r.telemetry != nil && !r.telemetry.drained {
		r.telemetry.sink.Emit(event.Event{Kind: event.Phase, At: time.Now(), Detail: name, State: doing})
	}
}

// refusal is an ErrRefused in words of its own.
type refusal struct{ error }

func (refusal) Is(target error) bool { return target == ErrRefused }

func (r refusal) Unwrap() error { return r.error }

// Foresee says what a scenario's faults would do here, in their order. What it refuses Run refuses too, before anything is begun: a
// fault that this user cannot have on this machine, or not beside the others, or that is about what is not the run's, or not there; a
// relay whose address is in use, or that nobody listens behind; and a target elsewhere that has not agreed. The error wraps ErrRefused,
// chaos.ErrRefused or chaos.ErrUnsupported, and joins all there is to say; another is of /proc, which could not be read.
func Foresee(cfg Config) ([]chaos.Step, error) {
	sc := cfg.Scenario
	_, _, together := arrange(sc, chaos.Here)
	errs := []error{Permissible(sc), elsewhere(cfg), chaos.Preflight(sc.Faults), together}
	datagrams := map[string]bool{}
	if sc.Target != nil {
		for _, o := range sc.Target.Own {
			datagrams[o.Name] = o.Datagrams
			_, err := o.Fronts(chaos.Here(chaos.PartService, o.Datagrams), sc.Faults)
			errs = append(errs, err, present(o, sc.Faults), parts.RelayFree(o))
		}
	}
	kinds := map[string]string{}
	for _, p := range sc.Parts() {
		kinds[p.Name] = p.Kind
	}
	var steps []chaos.Step
	for _, f := range sc.Faults {
		step, err := f.Foresee(chaos.Here(kinds[f.Where], datagrams[f.Where]))
		if errors.Is(err, chaos.ErrUnsupported) { // Preflight says the others
			errs = append(errs, err)
		}
		steps = append(steps, step)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return steps, nil
}

// present refuses an own part that is not there, where a fault is about it or viewers come to its relay. One that nothing is to
// happen to may be declared without being there.
func present(o spec.Own, faults []chaos.Fault) error {
	about, processes := false, false
	for _, f := range faults {
		if f.Where == o.Name {
			about, processes = true, processes || f.Fail == "process"
		}
	}
	if !about && !o.Relay.IsValid() {
		return nil
	}
	return parts.Present(o, processes)
}

// elsewhere refuses faults in what the run was given by others: somebody else's broker, or store.
func elsewhere(cfg Config) error {
	var errs []error
	for _, f := range cfg.Scenario.Faults {
		for name, address := range map[string]string{"kafka": cfg.Kafka, "clickhouse": cfg.ClickHouse} {
			if f.Where == name && address != "" {
				errs = append(errs, fmt.Errorf("fault %s: %w to touch %s at %s: it is not of this run, which can break its own embedded one alone", f.ID, chaos.ErrRefused, name, address))
			}
		}
	}
	return errors.Join(errs...)
}

// breaking is what the event breaks, once everything of the run listens.
func (r *Rehearsal) breaking() chaos.Config {
	return r.system.chaos(chaos.Config{
		Start:   r.zero,
		Regions: breakable(r.regions),
		Now:     time.Now,
		Sink:    faultWatch{r.telemetry.sink, &r.state},
		Logger:  r.log,
	})
}

// breakable is the regions as chaos takes them.
func breakable(regions []*region) []chaos.Region {
	rs := make([]chaos.Region, len(regions))
	for i, r := range regions {
		rs[i] = r
	}
	return rs
}

// stack undoes what was done, in reverse.
type stack []func() error

func (s *stack) push(f func() error) { *s = append(*s, f) }

func (s *stack) run() error {
	var errs []error
	for i := len(*s) - 1; i >= 0; i-- {
		errs = append(errs, (*s)[i]())
	}
	*s = nil
	return errors.Join(errs...)
}

func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
