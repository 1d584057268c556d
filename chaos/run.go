package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Figures of a run that no caller has had reason to set.
const (
	// MinFor is the shortest fault that can be measured: time to settle, and a few probes that may take their whole
	// time-out.
	MinFor = 2 * time.Second
	// MinBefore is the least time that a fault is watched before it: what takes longer to be seen well is said to be
	// inconclusive.
	MinBefore = 2 * time.Second
	// watchBefore and watchAfter are how long a fault is watched before it and after it is undone.
	watchBefore = 5 * time.Second
	// Lead is the earliest that a fault by hand may be due: it has been watched for long enough by then.
	Lead       = watchBefore + 500*time.Millisecond
	watchAfter = 5 * time.Second
	// WatchMost is how long a fault is watched after it is undone at the most, by a Patient observer.
	WatchMost = time.Minute
	// MinApart is the least time between two faults of one region: the first is watched for so long after its end, or longer
	// where its observer is Patient.
	MinApart = watchAfter
	// restoreWait bounds one attempt to undo a fault.
	restoreWait = 30 * time.Second
	// againFirst is the pause before the second attempt, and againMost what the pauses grow to.
	againFirst = time.Second
	againMost  = 15 * time.Second
	// againFor is how long after the last fault's end it is still tried, where ctx does not end before.
	againFor = time.Minute
	// headStart is how long, when ctx ends, a fault waits for those injected after it to be undone: one that takes its time
	// holds up no other.
	headStart = time.Second
)

// errStopped: the faults were told to end, and not the run.
var errStopped = errors.New("the experiment was stopped")

// Config is one run's faults and what they act on.
type Config struct {
	Faults  []Fault
	Regions []Region
	Parts   []Part           // what else may be broken
	Start   time.Time        // T+0, the start of the event; a fault's At counts from it. Run begins before the first is due
	Now     func() time.Time // the run's clock
	Sink    event.Sink       // takes event.Fault and event.Probe; nil = event.Discard
	Logger  *slog.Logger     // nil = silent
	Guard   watchdog.Guard   // knows how to undo what would outlive this process, and ends the faults when it is lost; nil: faults that need one are refused

	// Stop, once closed, ends the faults and not the run: those in effect are undone at once, all together, and none is
	// injected any more, but what was undone is watched as ever. Nil: nobody stops them.
	Stop <-chan struct{}

	// Sabotage, when set, replaces each fault's injector. Tests use it to prove that evidence notices an injector that
	// lies; nothing else does.
	Sabotage func(Fault, Injector) Injector

	probe attempt // nil = real connections
}

// Preflight says, before anything runs, what is wrong with the faults themselves, and whether this user can inject them
// on this machine. All complaints are joined; each is one sentence.
func Preflight(faults []Fault) error {
	errs := []error{check(faults)}
	for _, f := range faults {
		if _, m, err := lookup(f); err == nil && m.able != nil {
			if err := m.able(); err != nil {
				errs = append(errs, fmt.Errorf("fault %s (%s, model: %s) %w", f.ID, f.Fail, m.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// check says what is wrong with faults as data.
func check(faults []Fault) error {
	var errs []error
	seen := make(map[string]bool)
	for i, f := range faults {
		if _, err := f.Complete(); err != nil {
			errs = append(errs, err)
		}
		if f.For < MinFor {
			errs = append(errs, fmt.Errorf("fault %s lasts %s: less than %s cannot be measured", f.ID, f.For, MinFor))
		}
		if seen[f.ID] {
			errs = append(errs, fmt.Errorf("fault %s is there twice", f.ID))
		}
		seen[f.ID] = true
		for _, g := range faults[:i] {
			if (Inside(g.Where, f.Where) || Inside(f.Where, g.Where)) && Clash(f, g) {
				errs = append(errs, fmt.Errorf("faults %s and %s both break %s, less than %s apart: neither could be proven", g.ID, f.ID, longer(f.Where, g.Where), MinApart))
			}
		}
	}
	return errors.Join(errs...)
}

// longer is the more particular of two places of which one is inside the other.
func longer(a, b string) string {
	if len(b) > len(a) {
		return b
	}
	return a
}

// Clash reports whether one fault is in effect while the other is being watched. After one fault of a region another
// may come only when the first has been seen to be over.
func Clash(a, b Fault) bool {
	return a.At < b.At+b.For+MinApart && b.At < a.At+a.For+MinApart
}

// Patient is an Observer for which five seconds after a fault are too short to see that it is over.
type Patient interface {
	Observer
	// After is how long it has to watch from when the fault has been undone: as far as it knows before it has watched anything, which
	// is for how long faults of the same place are kept apart, and once the fault is undone. WatchMost is the most that it gets.
	After() time.Duration
}

// watchedAfter is how long an observer watches from when its fault has been undone.
func watchedAfter(o Observer) time.Duration {
	if p, ok := o.(Patient); ok {
		return min(max(watchAfter, p.After()), WatchMost)
	}
	return watchAfter
}

// Run executes the faults on schedule and returns a Result for each, in their order, when all have been undone and
// watched, or soon after ctx ends. Whatever happens meanwhile (ctx ends, an injector fails or panics), every fault that
// was injected is undone before Run returns, those still in effect in reverse order of injection; what cannot be undone
// at once is tried again while the run lasts.
//
// An error that comes with no results means that nothing was injected: the sentence says what is wrong with the faults.
// One that comes with results wraps ErrNotRestored, or watchdog.ErrLost where faults ended early, or were left out, because
// the guard was dead: those are inconclusive. An injection that failed is in its Result alone.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	if cfg.Sink == nil {
		cfg.Sink = event.Discard
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	runs, err := prepare(&cfg)
	if err != nil {
		return nil, err
	}

	faults, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-cfg.Stop:
			end(errStopped)
		case <-lostOf(cfg.Guard):
			end(watchdog.ErrLost)
		case <-faults.Done():
		}
	}()
	conductor := &conductor{cfg: cfg, faults: faults}
	for _, r := range runs {
		if at := cfg.Start.Add(r.fault.At + r.fault.For + againFor); at.After(conductor.giveUp) {
			conductor.giveUp = at
		}
	}
	var wg sync.WaitGroup
	for _, r := range runs {
		wg.Go(func() {
			conductor.play(ctx, r)
			if !r.active { // else there is more to come
				conductor.conclude(r)
			}
		})
	}
	wg.Wait()
	conductor.restoreAll(ctx)

	results := make([]Result, len(runs))
	var errs []error
	lost := false
	for i, r := range runs {
		if r.result == nil {
			conductor.conclude(r)
		}
		results[i] = *r.result
		lost = lost || errors.Is(r.short, watchdog.ErrLost)
		if !results[i].Restored {
			errs = append(errs, fmt.Errorf("fault %s (%s of %s): %w: %w", r.fault.ID, r.fault.Model, r.fault.Where, ErrNotRestored, results[i].Err))
		}
	}
	discard(runs)
	if lost {
		errs = append(errs, watchdog.ErrLost)
	}
	return results, errors.Join(errs...)
}

// discard gives back what plans hold.
func discard(runs []*running) {
	for _, r := range runs {
		if r.plan.done != nil {
			r.plan.done()
		}
	}
}

// lostOf is closed when a guard is dead; nil: it cannot be.
func lostOf(g watchdog.Guard) <-chan struct{} {
	if mortal, ok := g.(interface{ Lost() <-chan struct{} }); ok {
		return mortal.Lost()
	}
	return nil
}

// Step is what a fault would do.
type Step struct {
	Fault Fault  // with everything filled in
	Means string // how; "": in the one way there is
	Does  string // what
	Proof string // what would prove it
}

// Plan says what Run would do, and does nothing; the error is Run's.
func Plan(cfg Config) ([]Step, error) {
	runs, err := prepare(&cfg)
	if err != nil {
		return nil, err
	}
	defer discard(runs)
	var steps []Step
	for _, r := range runs {
		_, m, _ := lookup(r.fault)
		steps = append(steps, Step{Fault: r.fault, Means: r.plan.means, Does: m.Summary, Proof: m.Evidence})
	}
	return steps, nil
}

// running is one fault on its way.
type running struct {
	fault  Fault
	plan   plan
	after  time.Duration // for how long it is to be watched from when it is undone, as far as that is known before
	window Window
	active bool  // may be in effect
	short  error // why it was not in effect for as long as it was to be: errStopped, watchdog.ErrLost, ctx's; nil: it was
	errs   []error
	failed error   // of the last attempt to undo it that failed
	note   string  // what its injector has to say of it
	result *Result // once it is known

	undone  context.Context // ends when its play has undone it, or has given up
	settled func()          // ends it
}

// planned is a fault that nothing has been done about yet.
func planned(f Fault, p plan) *running {
	r := &running{fault: f, plan: p, after: watchedAfter(p.observer)}
	r.undone, r.settled = context.WithCancel(context.Background())
	return r
}

// prepare checks everything that can be checked before anything is broken.
func prepare(cfg *Config) ([]*running, error) {
	if cfg.Now == nil {
		return nil, errors.New("chaos: no clock")
	}
	if err := check(cfg.Faults); err != nil {
		return nil, err
	}
	var errs []error
	var runs []*running
	for _, f := range cfg.Faults {
		_, m, err := lookup(f)
		if err != nil {
			return nil, err
		}
		if f, err = f.Complete(); err != nil {
			return nil, err
		}
		p, err := m.plan(f, cfg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if cfg.Sabotage != nil {
			p.injector = cfg.Sabotage(f, p.injector)
		}
		runs = append(runs, planned(f, p))
	}
	if err := errors.Join(append(errs, crowded(runs))...); err != nil {
		discard(runs)
		return nil, err
	}
	return runs, nil
}

// crowded says which faults come while one of the same place is still being watched, for longer than MinApart after its end.
func crowded(runs []*running) error {
	var errs []error
	for _, first := range runs {
		for _, next := range runs {
			a, b := first.fault, next.fault
			if b.At >= a.At+a.For && b.At < a.At+a.For+first.after && !Clash(a, b) && (Inside(a.Where, b.Where) || Inside(b.Where, a.Where)) {
				errs = append(errs, fmt.Errorf("faults %s and %s both break %s, less than %s apart: it takes so long to see that %s is over", a.ID, b.ID, longer(a.Where, b.Where), first.after, a.ID))
			}
		}
	}
	return errors.Join(errs...)
}

// conductor keeps the order in which faults went into effect.
type conductor struct {
	cfg    Config
	faults context.Context // ends when no fault is to be in effect any more; its cause says why
	giveUp time.Time       // of the run's clock: what cannot be undone by then is left to restoreAll

	mu    sync.Mutex
	order []*running
}

// play takes one fault from its schedule to its restoration and on until it has been watched. What it cannot undo it leaves
// to restoreAll.
func (c *conductor) play(ctx context.Context, r *running) {
	defer r.settled()
	defer func() {
		// A panic in one fault must not keep the others from being undone.
		if v := recover(); v != nil {
			r.errs = append(r.errs, fmt.Errorf("panic: %v", v))
			c.cfg.Logger.Error("fault panicked", "fault", r.fault.ID, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	due := c.cfg.Start.Add(r.fault.At)
	if r.short = c.until(due.Add(-watchBefore)); r.short != nil {
		return
	}
	watch, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { r.plan.observer.Watch(watch) })
	defer watching.Wait()
	defer stop()

	if r.short = c.until(due); r.short != nil {
		return
	}
	if !c.inject(r) {
		r.short = context.Cause(c.faults)
		c.undo(ctx, r)
		return
	}
	r.short = c.until(r.window.Injected.Add(r.fault.For))
	if c.undo(ctx, r) {
		c.wait(ctx, r.window.Restored.Add(watchedAfter(r.plan.observer)))
	}
}

// until waits for a moment of the run's clock; the error says why no fault is to be in effect any more.
func (c *conductor) until(at time.Time) error {
	c.wait(c.faults, at)
	return context.Cause(c.faults)
}

// wait waits for a moment of the run's clock, or until ctx ends.
func (c *conductor) wait(ctx context.Context, at time.Time) {
	timer := time.NewTimer(at.Sub(c.cfg.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (c *conductor) inject(r *running) bool {
	c.mu.Lock()
	c.order = append(c.order, r)
	r.active = true
	c.mu.Unlock()
	r.window.Inject = c.cfg.Now()
	c.say(r, "injecting", fmt.Sprintf("%s: %s of %s for %s", r.fault.Fail, r.fault.Model, r.fault.Where, r.fault.For))
	if err := guarded(func() error { return r.plan.injector.Inject(c.faults) }); err != nil {
		r.errs = append(r.errs, fmt.Errorf("inject: %w", err))
		c.say(r, "failed", err.Error())
		return false
	}
	r.window.Injected = c.cfg.Now()
	c.say(r, "injected", "")
	return true
}

// undo undoes one fault, again and again until it is undone, ctx has ended or it is time to give up. When ctx has ended,
// those injected later go first.
func (c *conductor) undo(ctx context.Context, r *running) bool {
	defer r.settled()
	if ctx.Err() != nil {
		c.behind(r)
	}
	for pause := againFirst; !c.restore(ctx, r); pause = min(2*pause, againMost) {
		next := c.cfg.Now().Add(pause)
		if ctx.Err() != nil || next.After(c.giveUp) {
			return false
		}
		c.wait(ctx, next)
	}
	return true
}

// behind waits until the faults injected after r are undone: a moment at most for those in other places.
func (c *conductor) behind(r *running) {
	c.mu.Lock()
	after := slices.Clone(c.order[slices.Index(c.order, r)+1:])
	c.mu.Unlock()
	moment, cancel := context.WithTimeout(context.Background(), headStart)
	defer cancel()
	for _, other := range slices.Backward(after) {
		enough := moment.Done()
		if Inside(other.fault.Where, r.fault.Where) || Inside(r.fault.Where, other.fault.Where) {
			enough = nil
		}
		select {
		case <-other.undone.Done():
		case <-enough:
		}
	}
}

// restore undoes one fault; its deadline is its own, since it has to happen after ctx has ended too.
func (c *conductor) restore(ctx context.Context, r *running) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreWait)
	defer cancel()
	if r.window.Restore.IsZero() {
		r.window.Restore = c.cfg.Now()
	}
	c.say(r, "restoring", "")
	if err := guarded(func() error { return r.plan.injector.Restore(ctx) }); err != nil {
		r.failed = fmt.Errorf("restore: %w", err)
		c.say(r, "failed", err.Error())
		return false
	}
	r.window.Restored = c.cfg.Now()
	c.mu.Lock()
	r.active = false
	c.mu.Unlock()
	if r.plan.note != nil {
		r.note = r.plan.note()
	}
	c.say(r, "restored", r.note)
	return true
}

// restoreAll undoes what is still in effect, the latest first.
func (c *conductor) restoreAll(ctx context.Context) {
	c.mu.Lock()
	order := c.order
	c.order = nil
	c.mu.Unlock()
	for i := len(order) - 1; i >= 0; i-- {
		if order[i].active {
			c.restore(ctx, order[i])
		}
	}
}

// guarded turns a panic of an injector into an error, so that restoration goes on.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}

// conclude says what became of a fault.
func (c *conductor) conclude(r *running) {
	res := c.result(r)
	// A panic in one fault must not keep the others from being undone.
	if err := guarded(func() error { c.judge(r, &res); return nil }); err != nil {
		res.Evidence = unproven("it could not be judged: %v", err)
	}
	if res.Evidence.Status != Confirmed && r.note != "" { // no evidence, but it helps to find out why there is none
		res.Evidence.Detail += "; by its own account: " + r.note
	}
	r.result = &res
	c.say(r, res.Evidence.Status, res.Evidence.Detail)
}

func (c *conductor) result(r *running) Result {
	w := r.window
	res := Result{
		Fault: r.fault, Means: r.plan.means, AtS: r.fault.At.Seconds(), Begun: !w.Inject.IsZero(), Restored: !r.active, Err: errors.Join(append(r.errs, r.failed)...),
	}
	if !w.Injected.IsZero() {
		res.AtS = w.Injected.Sub(c.cfg.Start).Seconds()
		end := w.Restored
		if end.IsZero() {
			end = c.cfg.Now()
		}
		res.ForS = end.Sub(w.Injected).Seconds()
	}
	return res
}

func unproven(format string, args ...any) Evidence {
	return Evidence{Status: Inconclusive, Unit: unitProbes, Detail: fmt.Sprintf(format, args...)}
}

// judge says what the observer makes of a fault.
func (c *conductor) judge(r *running, res *Result) {
	w := r.window
	if r.plan.links != nil {
		res.Links = r.plan.links()
	}
	lost, stopped := errors.Is(r.short, watchdog.ErrLost), errors.Is(r.short, errStopped)
	switch {
	case w.Inject.IsZero() && lost:
		res.Evidence = unproven("the fault was left out: %v", r.short)
	case w.Inject.IsZero() && stopped:
		res.Evidence = unproven("%v before the fault was due", r.short)
	case w.Inject.IsZero():
		res.Evidence = unproven("the run ended before the fault was due")
	case w.Injected.IsZero() && stopped:
		res.Evidence = unproven("%v while the fault was being injected", r.short)
	case w.Injected.IsZero():
		res.Evidence = unproven("the fault could not be injected: %v", res.Err)
	default:
		res.Evidence = r.plan.observer.Judge(w)
		if lost && res.Evidence.Status == Confirmed {
			res.Evidence.Status = Inconclusive
			res.Evidence.Detail = fmt.Sprintf("it was undone after %.1f s of %s: %v; until then %s", res.ForS, r.fault.For, r.short, res.Evidence.Detail)
		}
	}
}

// say puts a fault's change of state on the timeline. A sink that panics must not keep anything from being undone.
func (c *conductor) say(r *running, status, detail string) {
	err := guarded(func() error {
		c.cfg.Sink.Emit(event.Event{
			At: c.cfg.Now(), Kind: event.Fault, Fault: r.fault.ID, Region: r.fault.Where, Status: status, Detail: detail,
		})
		return nil
	})
	if err != nil {
		c.cfg.Logger.Error("fault event lost", "fault", r.fault.ID, "status", status, "error", err)
	}
	c.cfg.Logger.Info("fault", "fault", r.fault.ID, "where", r.fault.Where, "model", r.fault.Model, "status", status, "detail", detail)
}
