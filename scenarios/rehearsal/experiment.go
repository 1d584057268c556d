package rehearsal

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/experiment"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/scenarios/verdict"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// How an experiment is watched.
const (
	// stopEvery is the time from one look at the stop conditions to the next, and stopMost what it may grow to so that a store
	// that takes long to answer is asked for a third of the time at the most.
	stopEvery = 250 * time.Millisecond
	stopMost  = 500 * time.Millisecond
	// lookLimit bounds the answer to one look.
	lookLimit = 2 * time.Second
	// lagEvery is how many looks share one question for how far behind the store is.
	lagEvery = 4
	// lookAhead is how long before the first fault is due the stop conditions are watched: what holds then is not its doing.
	lookAhead = time.Second
	// foresight is how long before the first fault is due the steady state is asked for, and decided how long before it
	// there must be an answer.
	foresight = 1500 * time.Millisecond
	decided   = 100 * time.Millisecond
	// landed is how old a second of the event must be to be whole in the store, for what is counted by the second.
	landed = 1500 * time.Millisecond
	// heldStep and heldBack are how finely, and how far back at the most, it is sought when a condition began to hold.
	heldStep = 50 * time.Millisecond
	heldBack = 10 * time.Second
	// unsteady is the status of an experiment that was not begun: the system was not in its steady state.
	unsteady = "unsteady"
)

// course is how an experiment went, as far as it was decided while it ran.
type course struct {
	guard       experiment.Guard
	steady      []report.SteadyState // before the first fault, where they kept it from being injected
	notInjected string               // why nothing was injected; "": something may have been
	stopped     *stopped
}

// stopped is why and when the faults were ended early.
type stopped struct {
	at       time.Duration // since T-0
	held     int           // the stop condition; -1: they could not be watched
	measured qoe.Measured
	blind    string
}

// watcher watches an experiment while it runs.
type watcher struct {
	x      *spec.Experiment
	zero   time.Time
	due    time.Duration // of the first fault
	now    func() time.Time
	ask    func(ctx context.Context, o spec.Objective, from, to time.Time) (qoe.Measured, error)
	newest func(ctx context.Context, since time.Time) (time.Time, error)
	sink   event.Sink
	log    *slog.Logger

	mu     sync.Mutex
	left   map[string]bool // faults that are in effect or still to come
	broken bool            // something was injected
	over   chan struct{}   // closed when none is left
}

// underWatch runs the faults of an experiment under its eyes: when a stop condition holds they are undone at once, and when the
// system is not in its steady state before them they are not injected. Without an experiment it is chaos.Run.
func (r *Rehearsal) underWatch(ctx context.Context, cfg chaos.Config, people *crowd) ([]chaos.Result, course, error) {
	x := r.cfg.Scenario.Experiment
	if x == nil {
		results, err := chaos.Run(ctx, cfg)
		return results, course{}, err
	}
	w := newWatcher(x, cfg.Faults, r.zero)
	w.sink, w.log = cfg.Sink, r.log
	w.ask = func(ctx context.Context, o spec.Objective, from, to time.Time) (qoe.Measured, error) {
		return qoe.Measure(ctx, r.telemetry.db, r.id, query(o, r.zero, from, to))
	}
	w.newest = func(ctx context.Context, since time.Time) (time.Time, error) {
		return qoe.Newest(ctx, r.telemetry.db, r.id, append(people.sources(), r.telemetry.sink.Source()), since)
	}
	stop := make(chan struct{})
	cfg.Stop = stop
	cfg.Sink = w.listen(cfg.Sink)
	watching, end := context.WithCancel(ctx)
	defer end()
	done := make(chan course)
	go func() { done <- w.run(watching, func() { close(stop) }) }()
	results, err := chaos.Run(ctx, cfg)
	end()
	return results, <-done, err
}

func newWatcher(x *spec.Experiment, faults []chaos.Fault, zero time.Time) *watcher {
	w := &watcher{x: x, zero: zero, now: time.Now, left: map[string]bool{}, over: make(chan struct{}), due: math.MaxInt64}
	for _, f := range faults {
		w.left[f.ID] = true
		w.due = min(w.due, f.At)
	}
	return w
}

// query asks for an objective's figure in a part of the event.
func query(o spec.Objective, zero, from, to time.Time) qoe.Query {
	return qoe.Query{Metric: o.Metric, Aggregate: o.Aggregate, Quantile: o.Quantile, Where: o.Where, Zero: zero, From: from, To: to}
}

// listen is a sink that hears which faults are over.
func (w *watcher) listen(next event.Sink) event.Sink { return faultEar{next, w} }

type faultEar struct {
	event.Sink
	w *watcher
}

func (e faultEar) Emit(ev event.Event) {
	if ev.Kind == event.Fault {
		e.w.hear(ev)
	}
	e.Sink.Emit(ev)
}

func (w *watcher) hear(e event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e.Status {
	case "injecting":
		w.broken = true
	case "restored":
		if w.left[e.Fault] {
			delete(w.left, e.Fault)
			if len(w.left) == 0 {
				close(w.over)
			}
		}
	}
}

// anything reports whether something was injected.
func (w *watcher) anything() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// say puts a decision on the timeline.
func (w *watcher) say(status, detail string, value float64) {
	w.log.Info("experiment", "status", status, "why", detail)
	w.sink.Emit(event.Event{Kind: event.Experiment, At: w.now(), Component: "experiment", Status: status, Detail: detail, Value: value})
}

// run watches until the faults are over or ctx ends. It calls stop at most once.
func (w *watcher) run(ctx context.Context, stop func()) (c course) {
	if len(w.x.SteadyState) > 0 && experiment.Checks(w.x.Strategy, experiment.Before) {
		if sleepUntil(ctx, w.zero.Add(w.due-foresight)) != nil {
			return c
		}
		if c.steady, c.notInjected = w.before(ctx); c.notInjected != "" {
			stop()
			w.say(unsteady, c.notInjected, 0)
			return c
		}
		c.steady = nil // what is told is measured once everything is stored
	}
	if len(w.x.Stop) == 0 || sleepUntil(ctx, w.zero.Add(w.due-lookAhead)) != nil {
		return c
	}
	next := time.NewTimer(0)
	defer next.Stop()
	var newest time.Time
	for i := 0; ; i++ {
		select {
		case <-next.C:
		case <-w.over:
			return c
		case <-ctx.Done():
			return c
		}
		began := w.now()
		look, measured := w.look(ctx, i%lagEvery == 0, &newest)
		if ctx.Err() != nil {
			return c
		}
		decision := c.guard.Take(look)
		if decision != experiment.GoOn {
			stop()
			c.stopped = &stopped{at: w.now().Sub(w.zero), held: look.Held, measured: measured}
			switch {
			case decision == experiment.GoBlind:
				c.stopped.held = -1
				c.stopped.blind = blind(look)
				w.say("blind", c.stopped.blind, 0)
			default:
				o := w.x.Stop[look.Held]
				w.say("stopped", fmt.Sprintf("%s %s over %s", name(o), o.Expression, w.x.Window), measured.Value)
			}
			if !w.anything() {
				c.notInjected = "a stop condition held before anything was broken: " + miss(w.x.Stop[max(0, look.Held)], measured).MeasuredWords() + " of " + w.x.Stop[max(0, look.Held)].Metric
				if c.stopped.held < 0 {
					c.notInjected = c.stopped.blind
				}
			}
			return c
		}
		took := w.now().Sub(began)
		next.Reset(min(max(3*took, stopEvery), stopMost) - took)
	}
}

// blind says why stop conditions could not be watched.
func blind(l experiment.Look) string {
	s := fmt.Sprintf("the stop conditions could not be watched for %s", experiment.BlindAfter)
	if l.Err != nil {
		return s + ": " + l.Err.Error()
	}
	return s + ": the newest event in the store was written " + (l.At - l.Newest).Round(100*time.Millisecond).String() + " ago"
}

// before asks for the steady state before the first fault; the sentence says why the faults must not be injected.
func (w *watcher) before(ctx context.Context) (steady []report.SteadyState, why string) {
	ctx, cancel := context.WithDeadline(ctx, w.zero.Add(w.due-decided))
	defer cancel()
	now := w.now().Sub(w.zero)
	for _, o := range w.x.SteadyState {
		p := experiment.Phase{Name: experiment.Before, Span: experiment.Span{To: now}}
		if bySecond(o) {
			p.To = max(0, now-landed)
		}
		s, err := steadyState(p, o, func(s experiment.Span) (qoe.Measured, error) {
			return w.ask(ctx, o, w.zero.Add(s.From), w.zero.Add(s.To))
		})
		if err != nil {
			return nil, "nothing tells whether the system was in its steady state before anything was broken: " + err.Error()
		}
		steady = append(steady, s)
		switch {
		case why != "":
		case s.Samples == 0:
			why = fmt.Sprintf("nothing tells whether the system was in its steady state before anything was broken: nothing was measured for %s", s.Name())
		case !s.Pass:
			why = verdict.NotSteady + ": " + s.MissWords()
		}
	}
	return steady, why
}

// look asks for every stop condition over the window that ends now, and for the newest event in the store where lag says so,
// or the newest that is known of is getting old.
func (w *watcher) look(ctx context.Context, lag bool, newest *time.Time) (experiment.Look, qoe.Measured) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	now := w.now()
	l := experiment.Look{At: now.Sub(w.zero), Held: -1}
	if lag || now.Sub(*newest) > experiment.BlindAfter/2 {
		// Twice as far back as matters, so that a store without anything newer is seen to be that far behind.
		since := now.Add(-2 * experiment.BlindAfter)
		at, err := w.newest(ctx, since)
		if err != nil {
			l.Err = err
			return l, qoe.Measured{}
		}
		if at.Before(since) {
			at = since
		}
		*newest, l.Asked = at, true
	}
	l.Newest = min(l.At, newest.Sub(w.zero))
	for i, o := range w.x.Stop {
		from, to := window(o, w.x.Window, w.zero, now)
		m, err := w.ask(ctx, o, from, to)
		if err != nil {
			l.Err = err
			return l, qoe.Measured{}
		}
		l.Found = append(l.Found, m.Samples)
		if holds(o, m) {
			l.Held = i
			return l, m
		}
	}
	return l, qoe.Measured{}
}

// holds reports whether a threshold holds of what was measured; of nothing none does.
func holds(o spec.Objective, m qoe.Measured) bool {
	return m.Samples > 0 && verdict.Compare(m.Value, o.Op, o.Threshold)
}

// window is the part of the event that a stop condition looks back over: up to now or, of what is counted by the second, whole
// seconds that the store has.
func window(o spec.Objective, length time.Duration, zero, now time.Time) (from, to time.Time) {
	if !bySecond(o) {
		return now.Add(-length), now
	}
	to = zero.Add(now.Add(-landed).Sub(zero).Truncate(time.Second))
	return to.Add(-max(time.Second, length.Truncate(time.Second))), to
}

// bySecond reports whether a sample of a threshold's metric is a whole second of the event.
func bySecond(o spec.Objective) bool {
	m, _ := qoe.Lookup(o.Metric)
	return m.Seconds
}

// wholly is the part of the event that a threshold is measured over: of what is counted by the second, the seconds that lie
// in it from their beginning to their end.
func wholly(o spec.Objective, s experiment.Span) experiment.Span {
	if bySecond(o) {
		s.From, s.To = (s.From + time.Second - 1).Truncate(time.Second), s.To.Truncate(time.Second)
	}
	return s
}

// name is a threshold's metric with its filter.
func name(o spec.Objective) string {
	return report.Objective{Metric: o.Metric, Where: o.WhereText}.Name()
}

// miss is a threshold and what was measured, for the report.
func miss(o spec.Objective, m qoe.Measured) report.Objective {
	return report.Objective{Metric: o.Metric, Where: o.WhereText, Expression: o.Expression, Measured: m.Value, Threshold: o.Threshold, Unit: m.Unit,
		Samples: m.Samples, Pass: holds(o, m)}
}

// steadyState measures a threshold in a phase; of one that leaves nothing to look at there are no samples.
func steadyState(p experiment.Phase, o spec.Objective, measure func(experiment.Span) (qoe.Measured, error)) (report.SteadyState, error) {
	span, m := wholly(o, p.Span), qoe.Measured{}
	if span.Length() == 0 {
		metric, _ := qoe.Lookup(o.Metric)
		span, m.Unit = p.Span, metric.UnitOf(o.Aggregate)
	} else {
		var err error
		if m, err = measure(span); err != nil {
			return report.SteadyState{}, err
		}
	}
	return report.SteadyState{Phase: p.Name, FromS: span.From.Seconds(), ToS: span.To.Seconds(), Objective: miss(o, m)}, nil
}

// experiment is what the scenario's experiment came to, from what was stored; nil: it has none.
func (r *Rehearsal) experiment(ctx context.Context, out outcome) (*report.Experiment, error) {
	x := r.cfg.Scenario.Experiment
	if x == nil {
		return nil, nil
	}
	e := &report.Experiment{Strategy: x.Strategy, SettleS: x.Settle.Seconds(), NotInjected: out.course.notInjected, Canary: x.Canary, Baseline: x.Baseline}
	c := experiment.Course{Settle: x.Settle, Ran: out.ran, Due: math.MaxInt64}
	for _, f := range r.cfg.Scenario.Faults {
		c.Due = min(c.Due, f.At)
	}
	for _, f := range out.faults {
		if f.ForS > 0 {
			c.Faults = append(c.Faults, experiment.Span{From: seconds(f.AtS), To: seconds(f.AtS + f.ForS)})
		}
	}
	if out.course.steady != nil {
		e.SteadyState = out.course.steady
	} else if err := r.steadyStates(ctx, e, c.Phases(x.Strategy)); err != nil {
		return nil, err
	}
	if len(x.Stop) > 0 {
		g := out.course.guard
		e.WindowS = x.Window.Seconds()
		e.Watch = &report.Watch{Looks: g.Looks, EveryS: g.Gap.Seconds(), BehindS: g.Behind.Seconds()}
		e.Stop = stopConditions(x, out.course)
	}
	if out.course.stopped != nil {
		var err error
		if e.Stopped, err = r.stoppedReport(ctx, *out.course.stopped, c); err != nil {
			return nil, err
		}
	}
	return e, r.compare(ctx, e, c)
}

// stopConditions says which of the conditions held, and of which nobody could tell.
func stopConditions(x *spec.Experiment, c course) (out []report.StopCondition) {
	for i, o := range x.Stop {
		out = append(out, report.StopCondition{Metric: o.Metric, Where: o.WhereText, Expression: o.Expression,
			Held: c.stopped != nil && c.stopped.held == i, NeverMeasured: i >= len(c.guard.Found) || c.guard.Found[i] == 0})
	}
	return out
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (r *Rehearsal) steadyStates(ctx context.Context, e *report.Experiment, phases []experiment.Phase) error {
	for _, p := range phases {
		for _, o := range r.cfg.Scenario.Experiment.SteadyState {
			s, err := steadyState(p, o, func(s experiment.Span) (qoe.Measured, error) {
				return qoe.Measure(ctx, r.telemetry.db, r.id, query(o, r.zero, r.zero.Add(s.From), r.zero.Add(s.To)))
			})
			if err != nil {
				return fmt.Errorf("the steady state %s the faults: %w", p.Name, err)
			}
			e.SteadyState = append(e.SteadyState, s)
		}
	}
	return nil
}

// stoppedReport says since when the condition held, by the times of the crowd's own events, and how soon after it every fault
// was undone.
func (r *Rehearsal) stoppedReport(ctx context.Context, s stopped, c experiment.Course) (*report.Stopped, error) {
	x := r.cfg.Scenario.Experiment
	rep := &report.Stopped{AtS: s.at.Seconds(), HeldAtS: s.at.Seconds(), Blind: s.blind}
	since := s.at
	if s.held >= 0 {
		o := x.Stop[s.held]
		rep.Metric, rep.Where, rep.Expression, rep.Threshold = o.Metric, o.WhereText, o.Expression, o.Threshold
		rep.Condition, rep.Measured, rep.Unit, rep.Samples = name(o)+" "+o.Expression, s.measured.Value, s.measured.Unit, s.measured.Samples
		step := heldStep
		if bySecond(o) {
			step = time.Second
		}
		earliest := max(c.Due-lookAhead, s.at-heldBack)
		var err error
		since, err = experiment.HeldSince(s.at, earliest, step, func(at time.Duration) (bool, error) {
			from, to := r.zero.Add(at-x.Window), r.zero.Add(at)
			if bySecond(o) {
				to = r.zero.Add(at.Truncate(time.Second))
				from = to.Add(-max(time.Second, x.Window.Truncate(time.Second)))
			}
			m, err := qoe.Measure(ctx, r.telemetry.db, r.id, query(o, r.zero, from, to))
			return holds(o, m), err
		})
		if err != nil {
			return nil, fmt.Errorf("since when %s held: %w", rep.Condition, err)
		}
	}
	rep.HeldAtS, rep.NoticedS = since.Seconds(), (s.at - since).Seconds()
	for _, f := range c.Faults {
		rep.UndoneAfterS = max(rep.UndoneAfterS, (f.To - since).Seconds())
	}
	return rep, nil
}

// undone is what an experiment that was stopped owes: that nothing stayed broken for longer than it had to.
func undone(e *report.Experiment) []report.Check {
	if e == nil || e.Stopped == nil || e.NotInjected != "" {
		return nil
	}
	s := e.Stopped
	c := report.Check{Name: fmt.Sprintf("every fault was undone within %d s of what stopped the experiment", report.UndoneWithin), Pass: s.UndoneAfterS <= report.UndoneWithin}
	c.Detail = fmt.Sprintf("every fault was undone %.3f s after the stop condition held, %.3f s of it until that was seen", max(0, s.UndoneAfterS), max(0, s.NoticedS))
	if s.Blind != "" {
		c.Detail = fmt.Sprintf("every fault was undone %.3f s after the experiment was stopped", max(0, s.UndoneAfterS))
	}
	if !c.Pass {
		c.Detail += fmt.Sprintf(": %d s at the most are promised", report.UndoneWithin)
	}
	return []report.Check{c}
}

// compare fills in how the canary differs from the baseline.
func (r *Rehearsal) compare(ctx context.Context, e *report.Experiment, c experiment.Course) error {
	span, ok := c.Compared()
	if e.Canary == "" || !ok || span.Length() == 0 {
		return nil
	}
	e.ComparedFromS, e.ComparedToS = span.From.Seconds(), span.To.Seconds()
	from, to := r.zero.Add(span.From), r.zero.Add(span.To)
	for _, m := range qoe.Comparables() {
		baseline, err := qoe.GroupOf(ctx, r.telemetry.db, r.id, m, e.Baseline, from, to)
		if err != nil {
			return err
		}
		canary, err := qoe.GroupOf(ctx, r.telemetry.db, r.id, m, e.Canary, from, to)
		if err != nil {
			return err
		}
		if baseline.N > 0 || canary.N > 0 {
			e.Comparison = append(e.Comparison, comparison(m, baseline, canary, audience.Seed(r.cfg.Scenario.Seed, "comparison/"+m.Metric)))
		}
	}
	return nil
}

// comparison is the difference of two groups in one measure, with its interval.
func comparison(m qoe.Comparable, baseline, canary qoe.Group, seed uint64) report.Comparison {
	c := report.Comparison{Metric: m.Metric, Unit: m.Unit, MoreIsGood: m.MoreIsGood,
		Baseline: report.Arm{N: baseline.N, Value: baseline.Mean}, Canary: report.Arm{N: canary.N, Value: canary.Mean}}
	var i experiment.Interval
	var ok bool
	switch {
	case m.Proportion:
		c.Baseline.Value, c.Canary.Value = percent(baseline), percent(canary)
		c.Difference, i, ok = experiment.Shares(experiment.Share{Cases: baseline.Bad, N: baseline.N}, experiment.Share{Cases: canary.Bad, N: canary.N})
		c.Difference, i.Low, i.High = 100*c.Difference, 100*i.Low, 100*i.High
	case m.Skewed && len(baseline.Values) > 0 && len(canary.Values) > 0:
		c.Difference, i, ok = experiment.SkewedMeans(baseline.Values, canary.Values, seed)
	default:
		c.Difference, i, ok = experiment.Means(moments(baseline), moments(canary))
	}
	if !ok {
		c.Difference = c.Canary.Value - c.Baseline.Value
		return c
	}
	c.Low, c.High, c.Level, c.Significant = i.Low, i.High, experiment.Level, i.Significant()
	return c
}

func moments(g qoe.Group) experiment.Moments {
	return experiment.Moments{N: g.N, Mean: g.Mean, Variance: g.Variance}
}

func percent(g qoe.Group) float64 {
	if g.N == 0 {
		return 0
	}
	return 100 * float64(g.Bad) / float64(g.N)
}

// experimentMoments is what the story tells of an experiment.
func experimentMoments(e *report.Experiment, due float64) (ms []report.Moment) {
	if e == nil {
		return nil
	}
	switch {
	case e.NotInjected != "":
		ms = append(ms, report.Moment{AtS: due, Kind: "fault", Text: "Nothing is broken: " + e.NotInjected + "."})
	case e.Stopped != nil:
		ms = append(ms, report.Moment{AtS: e.Stopped.AtS, Kind: "fault", Text: "The experiment is stopped: " + e.Stopped.Words(e.WindowS) + "; " + e.Stopped.UndoneWords() + "."})
	}
	return ms
}
