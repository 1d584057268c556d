package rehearsal

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/experiment"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// heard is a sink that keeps what was decided.
type heard struct {
	mu     sync.Mutex
	events []event.Event
}

func (h *heard) Emit(e event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func (h *heard) statuses() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Kind == event.Experiment {
			all = append(all, e.Status)
		}
	}
	return all
}

// world is a system under an experiment: QoE is what the functions say at a moment of the event.
type world struct {
	steady, harm func(at time.Duration) qoe.Measured
	behind       func(at time.Duration) time.Duration // how far the store is; nil: not at all
	fails        func(at time.Duration) error
}

func stalls(percent float64) func(time.Duration) qoe.Measured {
	return func(time.Duration) qoe.Measured { return qoe.Measured{Value: percent, Samples: 40, Unit: "%"} }
}

var (
	tryFault = chaos.Fault{ID: "region-1", At: 20 * time.Second, For: 20 * time.Second, Fail: "region", Where: "us-east"}
	tryOut   = &spec.Experiment{
		SteadyState: []spec.Objective{{Metric: "rebuffer_ratio", Expression: "avg<1%", Aggregate: "avg", Op: "<", Threshold: 1}},
		Strategy:    experiment.Continuously, Settle: 5 * time.Second,
		Stop:   []spec.Objective{{Metric: "rebuffer_ratio", Expression: "avg>20%", Aggregate: "avg", Op: ">", Threshold: 20}},
		Window: 5 * time.Second,
	}
)

// watch runs an experiment's watcher beside a fault that is injected and undone on schedule, or undone when the watcher says
// so. It returns what the watcher saw, and when it stopped the faults; -1: it did not.
func (w world) watch(t *testing.T, x *spec.Experiment, faults ...chaos.Fault) (c course, at time.Duration, said []string) {
	t.Helper()
	sink := &heard{}
	zero := time.Now()
	watcher := newWatcher(x, faults, zero)
	watcher.sink, watcher.log = sink, slog.New(slog.DiscardHandler)
	watcher.ask = func(ctx context.Context, o spec.Objective, from, to time.Time) (qoe.Measured, error) {
		at := time.Since(zero)
		if w.fails != nil {
			if err := w.fails(at); err != nil {
				return qoe.Measured{}, err
			}
		}
		if o.Op == "<" {
			return w.steady(at), nil
		}
		if got := to.Sub(from); got != x.Window || to.After(time.Now()) {
			t.Errorf("asked about %s up to %s", got, to.Sub(zero))
		}
		return w.harm(at), nil
	}
	watcher.newest = func(context.Context, time.Time) (time.Time, error) {
		if w.behind == nil {
			return time.Now(), nil
		}
		return time.Now().Add(-w.behind(time.Since(zero))), nil
	}
	ear, stop := watcher.listen(sink), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	at = -1
	var wg sync.WaitGroup
	wg.Go(func() { c = watcher.run(ctx, func() { at = time.Since(zero); close(stop) }) })
	for _, f := range faults {
		wg.Go(func() {
			select {
			case <-time.After(f.At):
			case <-stop:
				return
			}
			ear.Emit(event.Event{Kind: event.Fault, Fault: f.ID, Status: "injecting"})
			select {
			case <-time.After(f.For):
			case <-stop:
			}
			ear.Emit(event.Event{Kind: event.Fault, Fault: f.ID, Status: "restored"})
		})
	}
	wg.Wait()
	return c, at, sink.statuses()
}

func TestExperimentIsWatched(t *testing.T) {
	from := func(at time.Duration, percent float64) func(time.Duration) qoe.Measured {
		return func(now time.Duration) qoe.Measured {
			if now < at {
				return stalls(0)(now)
			}
			return stalls(percent)(now)
		}
	}
	s := time.Second
	later := chaos.Fault{ID: "region-2", At: 50 * s, For: 5 * s, Fail: "region", Where: "us-east"}
	lost := errors.New("no answer")
	for _, c := range []struct {
		name   string
		world  world
		faults []chaos.Fault
		at     time.Duration // of the stop; -1: none
		within time.Duration
		said   string
		why    string // part of why nothing was injected
	}{
		{"all is well", world{stalls(0.2), stalls(0.2), nil, nil}, []chaos.Fault{tryFault}, -1, 0, "", ""},
		{"not in its steady state", world{stalls(3), stalls(3), nil, nil}, []chaos.Fault{tryFault}, 18500 * time.Millisecond, 0, "unsteady",
			"the system was not in its steady state before anything was broken: Rebuffering: 3 %, must be under 1 %"},
		{"nothing to tell the steady state by", world{func(time.Duration) qoe.Measured { return qoe.Measured{Unit: "%"} }, stalls(0), nil, nil}, []chaos.Fault{tryFault},
			18500 * time.Millisecond, 0, "unsteady", "nothing was measured for rebuffer_ratio"},
		{"nobody answers before the fault", world{stalls(0), stalls(0), nil, func(time.Duration) error { return lost }}, []chaos.Fault{tryFault},
			18500 * time.Millisecond, 0, "unsteady", "no answer"},
		{"too much harm", world{stalls(0), from(25*s, 30), nil, nil}, []chaos.Fault{tryFault}, 25 * s, 250 * time.Millisecond, "stopped", ""},
		{"too much harm between two faults", world{stalls(0), from(45*s, 30), nil, nil}, []chaos.Fault{tryFault, later}, 45 * s, 250 * time.Millisecond, "stopped", ""},
		{"too much harm when all is over", world{stalls(0), from(42*s, 30), nil, nil}, []chaos.Fault{tryFault}, -1, 0, "", ""},
		{"too much harm before anything was broken", world{stalls(0), from(19*s, 30), nil, nil}, []chaos.Fault{tryFault}, 19 * s, 250 * time.Millisecond, "stopped",
			"a stop condition held before anything was broken"},
		{"the store falls silent", world{stalls(0), stalls(0), nil, func(at time.Duration) error {
			if at > 25*s {
				return lost
			}
			return nil
		}}, []chaos.Fault{tryFault}, 30 * s, s, "blind", ""},
		{"the store takes nothing in any more", world{stalls(0), stalls(0), func(at time.Duration) time.Duration { return max(0, at-25100*time.Millisecond) }, nil},
			[]chaos.Fault{tryFault}, 30100 * time.Millisecond, 250 * time.Millisecond, "blind", ""},
		{"the store is far behind", world{stalls(0), stalls(0), func(time.Duration) time.Duration { return 8 * s }, nil}, []chaos.Fault{tryFault}, 19 * s, 0, "blind", "could not be watched"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, at, said := c.world.watch(t, tryOut, c.faults...)
				if c.at < 0 && at >= 0 || c.at >= 0 && (at < c.at || at > c.at+c.within) {
					t.Errorf("stopped at %s, want %s", at, c.at)
				}
				if strings.Join(said, " ") != c.said {
					t.Errorf("said %q, want %q", said, c.said)
				}
				if why := strings.ReplaceAll(got.notInjected, "\u00a0", " "); !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
					t.Errorf("not injected: %q, want %q", why, c.why)
				}
				if (got.stopped != nil) != (c.said == "stopped" || c.said == "blind") {
					t.Errorf("stopped: %+v", got.stopped)
				}
				if s := got.stopped; s != nil && ((s.held >= 0) != (c.said == "stopped") || (s.blind == "") != (c.said == "stopped")) {
					t.Errorf("stopped: %+v", s)
				}
			})
		})
	}
}

// A condition of which nothing was ever measured has not been seen not to hold.
func TestLooksThatFindNoSamplesAreTold(t *testing.T) {
	nothing := func(time.Duration) qoe.Measured { return qoe.Measured{Unit: "%"} }
	synctest.Test(t, func(t *testing.T) {
		got, _, _ := world{stalls(0), nothing, nil, nil}.watch(t, tryOut, tryFault)
		if c := stopConditions(tryOut, got)[0]; got.guard.Looks == 0 || !c.NeverMeasured || c.Held {
			t.Errorf("of nothing: %+v after %d looks", c, got.guard.Looks)
		}
		got, _, _ = world{stalls(0), stalls(1), nil, nil}.watch(t, tryOut, tryFault)
		if c := stopConditions(tryOut, got)[0]; c.NeverMeasured || c.Held {
			t.Errorf("of 40 viewers: %+v", c)
		}
	})
}

// A second that is not over, or not stored yet, must not look as if nothing had happened in it.
func TestWhatIsCountedBySecondsIsAskedForWholeOnes(t *testing.T) {
	zero := time.Date(2026, 11, 22, 20, 0, 0, 400, time.UTC)
	now := zero.Add(31*time.Second + 700*time.Millisecond)
	from, to := window(spec.Objective{Metric: "play_starts_per_second"}, 5500*time.Millisecond, zero, now)
	if to.Sub(zero) != 30*time.Second || to.Sub(from) != 5*time.Second {
		t.Errorf("from %s to %s", from.Sub(zero), to.Sub(zero))
	}
	from, to = window(spec.Objective{Metric: "rebuffer_ratio"}, 5500*time.Millisecond, zero, now)
	if to != now || to.Sub(from) != 5500*time.Millisecond {
		t.Errorf("from %s to %s", from.Sub(zero), to.Sub(zero))
	}
}

// hundred is what a store says of a crowd of 100 play starts a second: the least of a second from from to to. What is less
// than a second old is not in it yet.
func hundred(zero time.Time) func(context.Context, spec.Objective, time.Time, time.Time) (qoe.Measured, error) {
	return func(_ context.Context, _ spec.Objective, from, to time.Time) (qoe.Measured, error) {
		m := qoe.Measured{Value: math.Inf(1), Unit: "count"}
		stored := time.Now().Add(-time.Second)
		for k := zero; k.Before(to); k = k.Add(time.Second) {
			begin, end := k, k.Add(time.Second)
			for _, limit := range []time.Time{to, stored} {
				if limit.Before(end) {
					end = limit
				}
			}
			if begin.Before(from) {
				begin = from
			}
			if k.Add(time.Second).After(from) {
				m.Value, m.Samples = min(m.Value, 100*max(0, end.Sub(begin).Seconds())), m.Samples+1
			}
		}
		return m, nil
	}
}

// A second that an experiment's phases cut in two must not look as if half the crowd had stayed away.
func TestTheSteadyStateOfSecondsIsThatOfWholeOnes(t *testing.T) {
	perSecond := spec.Objective{Metric: "play_starts_per_second", Expression: "min>=90", Aggregate: qoe.Min, Op: ">=", Threshold: 90}
	synctest.Test(t, func(t *testing.T) {
		zero := time.Now()
		w := newWatcher(&spec.Experiment{SteadyState: []spec.Objective{perSecond}}, []chaos.Fault{tryFault}, zero)
		w.ask = hundred(zero)
		time.Sleep(18500 * time.Millisecond)
		steady, why := w.before(t.Context())
		if len(steady) != 1 || why != "" || steady[0].Samples != 17 || steady[0].ToS != 17 {
			t.Errorf("before: %+v, %q", steady, why)
		}
		time.Sleep(time.Minute)
		ms := time.Millisecond
		for _, c := range []struct {
			from, to time.Duration
			fromS    float64
			samples  uint64
		}{
			{20010 * ms, 32400 * ms, 21, 11},
			{20000 * ms, 32000 * ms, 20, 12},
			{20010 * ms, 21900 * ms, 20.01, 0}, // no whole second is left
		} {
			got, err := steadyState(experiment.Phase{Name: experiment.During, Span: experiment.Span{From: c.from, To: c.to}}, perSecond, func(s experiment.Span) (qoe.Measured, error) {
				return hundred(zero)(t.Context(), perSecond, zero.Add(s.From), zero.Add(s.To))
			})
			if err != nil || got.Samples != c.samples || got.Pass != (c.samples > 0) || got.FromS != c.fromS || got.Unit != "count" {
				t.Errorf("%s to %s: %+v, %v", c.from, c.to, got, err)
			}
		}
	})
}

func TestUndoingTooLateIsNotSafe(t *testing.T) {
	stopped := func(s report.Stopped) *report.Experiment { return &report.Experiment{Stopped: &s} }
	for _, c := range []struct {
		name   string
		e      *report.Experiment
		pass   bool
		detail string // "": there is no check
	}{
		{"no experiment", nil, false, ""},
		{"not stopped", &report.Experiment{}, false, ""},
		{"nothing was broken", &report.Experiment{NotInjected: "x", Stopped: &report.Stopped{UndoneAfterS: 9}}, false, ""},
		{"in time", stopped(report.Stopped{NoticedS: 0.25, UndoneAfterS: 2}), true, "every fault was undone 2.000 s after the stop condition held, 0.250 s of it until that was seen"},
		{"too late", stopped(report.Stopped{NoticedS: 0.25, UndoneAfterS: 2.01}), false,
			"every fault was undone 2.010 s after the stop condition held, 0.250 s of it until that was seen: 2 s at the most are promised"},
		{"too late, and blind", stopped(report.Stopped{Blind: "x", UndoneAfterS: 3}), false, "every fault was undone 3.000 s after the experiment was stopped: 2 s at the most are promised"},
		{"over before that", stopped(report.Stopped{NoticedS: 0.25, UndoneAfterS: -1}), true, "every fault was undone 0.000 s after the stop condition held, 0.250 s of it until that was seen"},
	} {
		got := undone(c.e)
		if (len(got) == 0) != (c.detail == "") || len(got) > 0 && (got[0].Pass != c.pass || got[0].Detail != c.detail) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestComparison(t *testing.T) {
	for _, c := range []struct {
		name             string
		m                qoe.Comparable
		baseline, canary qoe.Group
		difference       float64
		level            float64
		significant      bool
	}{
		{"shares", qoe.Comparable{Proportion: true}, qoe.Group{N: 400, Bad: 4}, qoe.Group{N: 500, Bad: 100}, 19, 0.95, true},
		{"means", qoe.Comparable{}, qoe.Group{N: 40, Mean: 6, Variance: 1}, qoe.Group{N: 50, Mean: 6.1, Variance: 1}, 0.1, 0.95, false},
		{"skewed means", qoe.Comparable{Skewed: true}, qoe.Group{N: 4, Mean: 0.25, Values: []float64{0, 0, 0, 1}}, qoe.Group{N: 4, Mean: 20.5, Values: []float64{19, 20, 21, 22}}, 20.25, 0.95, true},
		{"all of a group alike", qoe.Comparable{Skewed: true}, qoe.Group{N: 4, Values: []float64{0, 0, 0, 0}}, qoe.Group{N: 4, Mean: 1, Values: []float64{1, 1, 1, 1}}, 1, 0, false},
		{"one viewer", qoe.Comparable{}, qoe.Group{N: 40, Mean: 6, Variance: 1}, qoe.Group{N: 1, Mean: 9}, 3, 0, false},
		{"no case", qoe.Comparable{Proportion: true}, qoe.Group{N: 40, Bad: 2}, qoe.Group{}, -5, 0, false},
	} {
		got := comparison(c.m, c.baseline, c.canary, 7)
		if math.Abs(got.Difference-c.difference) > 1e-9 || got.Level != c.level || got.Significant != c.significant {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
