package chaos

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/chaos/defects"
	"github.com/tminus-live/tminus/chaos/dnsrelay"
	"github.com/tminus-live/tminus/chaos/probe"
	"github.com/tminus-live/tminus/chaos/relay"
	"github.com/tminus-live/tminus/chaos/watchdog"
	"github.com/tminus-live/tminus/telemetry/event"
)

var crashEast = Fault{ID: "region-1", At: 30 * time.Second, For: 20 * time.Second, Fail: "region", Where: "us-east"}

func config(t *town, tape *tape, faults ...Fault) Config {
	return Config{Faults: faults, Regions: t.list(), Start: time.Now(), Now: time.Now, Sink: tape, probe: t.probe}
}

func TestCrashOnSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town, tape := newTown("us-east", "us-west"), &tape{}
		town.regions["us-east"].startTakes = 2 * time.Second
		faults := []Fault{crashEast}
		began := time.Now()
		results, err := Run(t.Context(), config(town, tape, faults...))
		if err != nil {
			t.Fatal(err)
		}
		r := results[0]
		if r.AtS != 30 || r.ForS != 22 {
			t.Errorf("in effect at %g s for %g s, want 30 s for 20 s and 2 s of starting again", r.AtS, r.ForS)
		}
		if r.Evidence.Status != Confirmed || !r.Restored || r.Err != nil {
			t.Errorf("%+v", r)
		}
		if !strings.Contains(r.Evidence.Detail, "us-west answered throughout") {
			t.Errorf("detail %q", r.Evidence.Detail)
		}
		if took := time.Since(began); took != 57*time.Second {
			t.Errorf("took %s, want until 5 s after the restoration", took)
		}
		equal(t, "calls", town.history(), []string{"kill us-east", "start us-east"})
		equal(t, "events", tape.statuses(event.Fault, "region-1"), []string{"injecting", "injected", "restoring", "restored", "confirmed"})
		// 5 s before, 22 s during, 5 s after; three addresses and one elsewhere, four times a second.
		if n := len(tape.statuses(event.Probe, "region-1")); n < 500 || n > 520 {
			t.Errorf("%d probes", n)
		}
		if faults[0].Model != "" {
			t.Error("the caller's faults were changed")
		}
		if r.Fault.Model != "crash" {
			t.Errorf("model %q", r.Fault.Model)
		}
	})
}

// What evidence is for: an injector that lies is found out.
func TestSabotage(t *testing.T) {
	crash, cut := crashEast, crashEast
	cut.Model = "cut"
	for _, c := range []struct {
		name   string
		fault  Fault
		with   func(*town) Injector
		status string
		detail string
	}{
		{"silence instead of a crash", crash, func(t *town) Injector { return silence{t.regions["us-east"]} }, Mismatch, "connection refused was expected"},
		{"nothing instead of a crash", crash, func(*town) Injector { return idle{} }, Mismatch, "connection refused was expected"},
		{"a crash of another region", crash, func(t *town) Injector { return crashOf(t, "us-west") }, Mismatch, "connection refused was expected"},
		{"a cut as it should be", cut, func(t *town) Injector { return silence{t.regions["us-east"]} }, Confirmed, "timeout"},
		{"a crash instead of a cut", cut, func(t *town) Injector { return crashOf(t, "us-east") }, Mismatch, "silence was expected"},
		{"nothing instead of a cut", cut, func(*town) Injector { return idle{} }, Mismatch, "silence was expected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				town := newTown("us-east", "us-west")
				cfg := config(town, &tape{}, c.fault)
				cfg.Sabotage = func(Fault, Injector) Injector { return c.with(town) }
				results, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if e := results[0].Evidence; e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

func crashOf(t *town, name string) Injector { return crash{t.regions[name]} }

func TestEndOfTheRunUndoesWhatIsInEffectLatestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town, tape := newTown("a", "b", "c", "d"), &tape{}
		var faults []Fault
		for i, where := range []string{"b", "a", "c", "d"} {
			faults = append(faults, Fault{
				ID: where, Fail: "region", Where: where, At: time.Duration(i+1) * 10 * time.Second, For: time.Hour,
			})
		}
		faults[1].For = 5 * time.Second // over by then
		faults[3].At = time.Hour        // not due by then
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		began := time.Now()
		results, err := Run(ctx, config(town, tape, faults...))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 45*time.Second {
			t.Errorf("took %s", took)
		}
		equal(t, "calls", town.history(), []string{"kill b", "kill a", "start a", "kill c", "start c", "start b"})
		for _, r := range results {
			if !r.Restored || r.Err != nil {
				t.Errorf("%s: restored %v, %v", r.Fault.ID, r.Restored, r.Err)
			}
		}
		for i, want := range []string{"nothing was measured after", "connected within", "nothing was measured after", "before the fault was due"} {
			if !strings.Contains(results[i].Evidence.Detail, want) {
				t.Errorf("%s: detail %q", results[i].Fault.ID, results[i].Evidence.Detail)
			}
		}
		if r := results[0]; r.AtS != 10 || r.ForS != 35 || r.Evidence.Status != Inconclusive {
			t.Errorf("%+v", r)
		}
		if r := results[3]; r.AtS != 3600 || r.ForS != 0 || r.Evidence.Status != Inconclusive {
			t.Errorf("%+v", r)
		}
	})
}

// What became of a fault is said once it has been watched, and not when the last one has.
func TestEachFaultIsConcludedInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town, tape := newTown("a", "b"), &tape{}
		cfg := config(town, tape, Fault{ID: "a", Fail: "region", Where: "a", At: 10 * time.Second, For: 10 * time.Second},
			Fault{ID: "b", Fail: "region", Where: "b", At: 20 * time.Second, For: 40 * time.Second})
		if _, err := Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		said := map[string]time.Duration{}
		for _, e := range tape.events {
			if e.Kind == event.Fault && e.Status == Confirmed {
				said[e.Fault] = e.At.Sub(cfg.Start)
			}
		}
		if said["a"] != 25*time.Second || said["b"] != 65*time.Second {
			t.Errorf("said at %v, want 5 s after the end of each", said)
		}
	})
}

// A stop ends the faults and not the run: all are undone at once, and proven as ever.
func TestStopUndoesFaultsAndWatchesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town, tape := newTown("a", "b", "c", "d"), &tape{}
		var faults []Fault
		for i, where := range []string{"a", "b", "c"} {
			faults = append(faults, Fault{ID: where, Fail: "region", Where: where, At: time.Duration(i+1) * 10 * time.Second, For: time.Hour})
		}
		for _, q := range town.regions {
			q.startTakes = time.Second
		}
		stop := make(chan struct{})
		cfg := config(town, tape, faults...)
		cfg.Stop = stop
		time.AfterFunc(25*time.Second, func() { close(stop) })
		began := time.Now()
		results, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 31*time.Second {
			t.Errorf("took %s, want until 5 s after the restoration, which took 1 s", took)
		}
		for i, forS := range []float64{16, 6} {
			if r := results[i]; r.ForS != forS || !r.Restored || r.Evidence.Status != Confirmed {
				t.Errorf("%+v", r)
			}
		}
		if r := results[2]; r.ForS != 0 || !r.Restored || !strings.Contains(r.Evidence.Detail, "stopped before the fault was due") {
			t.Errorf("%+v", r)
		}
	})
}

// patient is an observer that has to watch for so long, as it learns when it has seen the part.
type patient struct {
	after time.Duration
	seen  atomic.Bool
}

func (p *patient) Watch(ctx context.Context) { p.seen.Store(true); <-ctx.Done() }
func (p *patient) Judge(Window) Evidence     { return Evidence{} }
func (p *patient) After() time.Duration {
	if !p.seen.Load() {
		return 0
	}
	return p.after
}

func TestAnObserverWatchesUntilItHasSeenTheEnd(t *testing.T) {
	for wants, want := range map[time.Duration]time.Duration{0: watchAfter, 12 * time.Second: 12 * time.Second, time.Hour: WatchMost} {
		synctest.Test(t, func(t *testing.T) {
			o := &patient{after: wants}
			c := &conductor{cfg: config(newTown("a"), &tape{}), faults: t.Context()}
			c.cfg.Logger = slog.New(slog.DiscardHandler)
			r := planned(crashEast, plan{injector: idle{}, observer: o})
			c.play(t.Context(), r)
			if got := time.Since(r.window.Restored); got != want {
				t.Errorf("an observer that has to watch for %s watched for %s", wants, got)
			}
		})
	}
}

// sceptic is an observer that panics when it is asked.
type sceptic struct{ patient }

func (*sceptic) Judge(Window) Evidence { panic("what was that?") }

func TestAnObserverThatPanicsProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conductor{cfg: config(newTown("a"), &tape{}), faults: t.Context()}
		c.cfg.Logger = slog.New(slog.DiscardHandler)
		r := planned(crashEast, plan{injector: idle{}, observer: &sceptic{}})
		c.play(t.Context(), r)
		c.conclude(r)
		if e := r.result.Evidence; e.Status != Inconclusive || e.Detail != "it could not be judged: panic: what was that?" || !r.result.Restored {
			t.Errorf("%+v", r.result)
		}
	})
}

func TestNoFaultComesWhileAnotherIsWatched(t *testing.T) {
	for _, c := range []struct {
		where string
		at    time.Duration // of the second; the first is over at 50 s and watched for 20
		want  string
	}{
		{"us-east", 60 * time.Second, "region-1 and next both break us-east, less than 20s apart"},
		{"us-east/edge-1", 60 * time.Second, "both break us-east/edge-1"},
		{"us-east", 70 * time.Second, ""},
		{"us-west", 60 * time.Second, ""},
	} {
		next := Fault{ID: "next", Where: c.where, At: c.at, For: 20 * time.Second}
		err := crowded([]*running{{fault: next, after: watchAfter}, {fault: crashEast, after: 20 * time.Second}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s at %s: %v, want %q", c.where, c.at, err, c.want)
		}
	}
}

func TestAFaultThatCannotBeInjected(t *testing.T) {
	for _, panics := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			town, tape, restored := newTown("us-east", "us-west"), &tape{}, 0
			cfg := config(town, tape, crashEast)
			cfg.Sabotage = func(Fault, Injector) Injector { return reluctant{panics, &restored} }
			results, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			r := results[0]
			if r.Err == nil || !r.Restored || restored != 1 || r.Evidence.Status != Inconclusive || !strings.Contains(r.Evidence.Detail, "could not be injected: inject: ") {
				t.Errorf("restored %d times, %+v", restored, r)
			}
			equal(t, "events", tape.statuses(event.Fault, "region-1"), []string{"injecting", "failed", "restoring", "restored", "inconclusive"})
		})
	}
}

func TestAPanicStopsNoOneElsesRestoration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("a", "b", "c")
		town.regions["b"].killPanics = true
		results, err := Run(t.Context(), config(town, &tape{},
			Fault{ID: "a", Fail: "region", Where: "a", At: 10 * time.Second, For: 20 * time.Second},
			Fault{ID: "b", Fail: "region", Where: "b", At: 15 * time.Second, For: 20 * time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		if results[0].Evidence.Status != Confirmed || !results[0].Restored {
			t.Errorf("%+v", results[0])
		}
		if results[1].Err == nil || !strings.Contains(results[1].Err.Error(), "panic: kill b") || !results[1].Restored {
			t.Errorf("%+v", results[1])
		}
	})
}

// explosive is a sink that panics on faults: telemetry must not keep a region dead.
type explosive struct{}

func (explosive) Emit(e event.Event) {
	if e.Kind == event.Fault {
		panic("full")
	}
}

func TestASinkThatPanicsKeepsNothingBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("us-east", "us-west")
		cfg := config(town, nil, crashEast)
		cfg.Sink = explosive{}
		results, err := Run(t.Context(), cfg)
		if err != nil || !results[0].Restored || !town.regions["us-east"].Alive() {
			t.Fatalf("%+v, %v", results, err)
		}
	})
}

// A region whose start fails once is not down until the others' faults are over.
func TestRestorationIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("us-east", "us-west")
		town.regions["us-east"].startErrs = []error{errors.New("port taken"), errors.New("port taken")}
		west := crashEast
		west.ID, west.Where, west.At = "region-2", "us-west", time.Hour
		results, err := Run(t.Context(), config(town, &tape{}, crashEast, west))
		if err != nil {
			t.Fatal(err)
		}
		if r := results[0]; !r.Restored || r.Err == nil || r.ForS != 23 {
			t.Errorf("in effect for %g s, want 20 s and pauses of 1 s and 2 s: %+v", r.ForS, r)
		}
	})
}

// What takes its time to undo when the run ends holds up nothing else.
func TestASlowRestorationHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("us-east", "us-south", "us-west")
		town.regions["us-east"].startTakes = 20 * time.Second // when its time is over
		town.regions["us-west"].startTakes = 25 * time.Second // when the run is
		var faults []Fault
		for i, where := range []string{"us-south", "us-east", "us-west"} {
			f := crashEast
			f.ID, f.Where, f.At = where, where, crashEast.At+time.Duration(i)*time.Second
			if where != "us-east" {
				f.For = time.Hour
			}
			faults = append(faults, f)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		results, err := Run(ctx, config(town, &tape{}, faults...))
		if err != nil {
			t.Fatal(err)
		}
		for i, forS := range []float64{31, 40, 53} {
			if r := results[i]; r.ForS != forS || !r.Restored {
				t.Errorf("%s was in effect for %g s, want %g: %+v", r.Fault.ID, r.ForS, forS, r)
			}
		}
	})
}

func TestWhatIsInTheSamePlaceIsUndoneInOrder(t *testing.T) {
	for _, c := range []struct {
		where string // of the fault that was injected later, and takes 20 s to undo
		waits time.Duration
	}{{"us-west", headStart}, {"us-east", 20 * time.Second}, {"us-east/edge-1", 20 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			first, second := &running{fault: crashEast}, &running{fault: Fault{Where: c.where}}
			var cancel func()
			second.undone, cancel = context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			began := time.Now()
			(&conductor{order: []*running{first, second}}).behind(first)
			if waited := time.Since(began); waited != c.waits {
				t.Errorf("waited %s for what is at %s, want %s", waited, c.where, c.waits)
			}
		})
	}
}

// patientInjector takes as long to inject as it is let.
type patientInjector struct{}

func (patientInjector) Inject(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
func (patientInjector) Restore(context.Context) error    { return nil }

// Whoever stops the faults does not wait for one that is being injected.
func TestStopEndsAnInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		cfg := config(newTown("us-east", "us-west"), &tape{}, crashEast)
		cfg.Stop = stop
		cfg.Sabotage = func(Fault, Injector) Injector { return patientInjector{} }
		time.AfterFunc(40*time.Second, func() { close(stop) })
		began := time.Now()
		results, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r := results[0]; time.Since(began) > 41*time.Second || r.Evidence.Detail != "the experiment was stopped while the fault was being injected" || !r.Restored {
			t.Errorf("after %s: %+v", time.Since(began), r)
		}
	})
}

// A fault that was never injected is not one that was undone.
func TestSafetyCountsWhatWasInjected(t *testing.T) {
	never := Result{Fault: crashEast, AtS: 30, Restored: true}
	done := never
	done.ForS = 20
	if c := Safety([]Result{never})[0]; !c.Pass || c.Detail != "nothing to undo: no fault was injected" {
		t.Errorf("%+v", c)
	}
	if c := Safety([]Result{never, done})[0]; !c.Pass || c.Detail != "1 of 1" {
		t.Errorf("%+v", c)
	}
}

func TestWhatCannotBeUndoneIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("us-east", "us-west")
		taken := errors.New("port taken")
		town.regions["us-east"].startErrs = slices.Repeat([]error{taken}, 100)
		results, err := Run(t.Context(), config(town, &tape{}, crashEast))
		if !errors.Is(err, ErrNotRestored) || !errors.Is(err, taken) || results[0].Restored {
			t.Fatalf("%+v, %v", results, err)
		}
		checks := Safety(results)
		if checks[0].Pass || !strings.Contains(checks[0].Detail, "port taken") {
			t.Errorf("%+v", checks)
		}
	})
}

func TestRunRefusesBeforeAnythingIsBroken(t *testing.T) {
	east, west := crashEast, crashEast
	west.ID, west.Where = "region-2", "us-west"
	twice := west
	twice.ID = east.ID
	overlapping := east
	overlapping.ID, overlapping.At = "region-3", east.At+time.Second
	nowhere := east
	nowhere.Where = "us-north"
	unheard := east
	unheard.Fail = "regoin"
	strange := east
	strange.Model = "crush"
	cut := east
	cut.Model = "cut"
	for _, c := range []struct {
		name   string
		faults []Fault
		change func(*town)
		is     error
		want   string
	}{
		{name: "where", faults: []Fault{nowhere}, is: ErrUnknown, want: `unknown region "us-north" (there is us-east, us-west)`},
		{name: "fail", faults: []Fault{unheard}, is: ErrUnknown, want: `unknown fail: "regoin" (there is region, `},
		{name: "model", faults: []Fault{strange}, is: ErrUnknown, want: `unknown model "crush" of fail: region (there is crash, cut)`},
		{name: "same id", faults: []Fault{east, twice}, want: "region-1 is there twice"},
		{name: "overlap", faults: []Fault{east, overlapping}, want: "region-1 and region-3 both break us-east, less than 5s apart"},
		{name: "no address", faults: []Fault{east}, change: func(t *town) { t.regions["us-east"].endpoints = nil }, want: "no address to watch it by"},
		{
			name: "blast radius", faults: []Fault{cut}, is: ErrRefused, want: "refused to touch 10.0.0.0/24",
			change: func(t *town) { t.regions["us-east"].prefix = prefix("10.0.0.0/24") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			town := newTown("us-east", "us-west")
			if c.change != nil {
				c.change(town)
			}
			results, err := Run(t.Context(), config(town, &tape{}, append(c.faults, west)...))
			if err == nil || results != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, %v", results, err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if len(town.history()) != 0 {
				t.Errorf("did %q", town.history())
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	short, unheard := crashEast, crashEast
	short.For = time.Second
	unheard.Fail = "rain"
	if err := Preflight([]Fault{crashEast}); err != nil {
		t.Fatal(err)
	}
	err := Preflight([]Fault{short, unheard})
	if err == nil || !strings.Contains(err.Error(), "less than 2s cannot be measured") || !strings.Contains(err.Error(), `"rain"`) {
		t.Fatalf("%v", err)
	}
}

func TestShortestFaultIsMeasured(t *testing.T) {
	for _, model := range []string{"crash", "cut"} {
		synctest.Test(t, func(t *testing.T) {
			town := newTown("us-east", "us-west")
			f := crashEast
			f.Model, f.For = model, MinFor
			cfg := config(town, &tape{}, f)
			if model == "cut" {
				cfg.Sabotage = func(Fault, Injector) Injector { return silence{town.regions["us-east"]} }
			}
			results, err := Run(t.Context(), cfg)
			if err != nil || results[0].Evidence.Status != Confirmed {
				t.Fatalf("%+v, %v", results, err)
			}
		})
	}
}

func TestControlIsARegionWithoutTroublesOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		town := newTown("us-east", "us-west", "us-south")
		west := crashEast
		west.ID, west.Where, west.At = "region-2", "us-west", 40*time.Second
		results, err := Run(t.Context(), config(town, &tape{}, crashEast, west))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Evidence.Status != Confirmed || !strings.Contains(r.Evidence.Detail, "us-south answered throughout") {
				t.Errorf("%+v", r.Evidence)
			}
		}
	})
}

func TestCatalogueIsDocumented(t *testing.T) {
	for _, k := range Catalogue() {
		if k.Fail == "" || k.Summary == "" || k.Where == "" || len(k.Models) == 0 || len(k.On) == 0 {
			t.Errorf("kind %+v", k)
		}
		for _, m := range k.Models {
			if m.Name == "" || m.Summary == "" || m.Evidence == "" || m.plan == nil || !strings.Contains(m.Example, "fail: "+k.Fail) {
				t.Errorf("%s/%+v", k.Fail, m)
			}
			for _, p := range m.Parameters {
				if p.Name == "" || p.Summary == "" || p.Required && p.Default != "" {
					t.Errorf("%s/%s: %+v", k.Fail, m.Name, p)
				}
				if !p.Required && p.Default != "" && p.Check(p.Default) != nil {
					t.Errorf("%s/%s: the default of %s: %v", k.Fail, m.Name, p.Name, p.Check(p.Default))
				}
			}
			if m.able != nil && m.Needs == "" {
				t.Errorf("%s/%s: something is checked that is not said", k.Fail, m.Name)
			}
			if _, found, err := lookup(Fault{Fail: k.Fail, Model: m.Name}); err != nil || found.Name != m.Name {
				t.Errorf("%s/%s: %v", k.Fail, m.Name, err)
			}
		}
	}
}

// Who watches a fault says for how long, and gets it.
var _ = []Patient{(*defects.Observer)(nil), (*probe.UDP)(nil), (*probe.TCP)(nil), (*dnsrelay.Observer)(nil)}

// What the catalogue allows can be seen to end, over streams too, where it takes longest.
func TestPathsAtTheirWorstAreSeenToEnd(t *testing.T) {
	r, err := relay.ListenTCP(relay.Config{Listen: homeAny, Upstream: netip.MustParseAddrPort("127.0.0.1:9")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct {
		fail, model string
		params      map[string]string // the worst of them "": as far as the catalogue goes
		refused     bool
	}{
		{"packet-delay", "delay", map[string]string{"delay": ""}, false},
		{"packet-delay", "delay", map[string]string{"delay": "10s", "jitter": ""}, true},
		{"kafka", "slow", map[string]string{"delay": ""}, false},
		{"rate-limit", "rate", map[string]string{"rate": ""}, false},
		{"rate-limit", "rate", map[string]string{"rate": "100kbit", "queue": "1MB"}, true},
		{"brown-out", "slow", map[string]string{"rate": ""}, false},
		{"brown-out", "slow", map[string]string{"rate": "10Mbit", "delay": ""}, false},
	} {
		f := Fault{ID: c.fail, Fail: c.fail, Model: c.model, Where: "mine", At: Lead, For: time.Minute, Params: c.params}
		_, m, err := lookup(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Parameters {
			if worst, ok := f.Params[p.Name]; ok && worst == "" {
				f.Params[p.Name] = show(p.Type, p.Most)
				if p.Type == TypeRate {
					f.Params[p.Name] = show(p.Type, p.Least)
				}
			}
		}
		_, err = Plan(Config{Faults: []Fault{f}, Parts: []Part{{Name: "mine", Kind: PartService, TCP: r}}, Now: time.Now})
		if (err != nil) != c.refused || c.refused && !strings.Contains(err.Error(), "nobody looks for longer") {
			t.Errorf("%s %v: %v", c.fail, f.Params, err)
		}
	}
}

// mortal is a guard that dies.
type mortal struct{ lost chan struct{} }

func (m mortal) Protect(watchdog.Entry) (watchdog.Token, error) { return 1, nil }
func (m mortal) Release(watchdog.Token) error                   { return nil }
func (m mortal) Lost() <-chan struct{}                          { return m.lost }

// Nothing stays broken when nobody would undo it any more, whether or not others may stop the faults too; and what ended early
// for it, or was left out, is not proven.
func TestALostWatchdogEndsTheFaults(t *testing.T) {
	for _, stop := range []chan struct{}{nil, make(chan struct{})} {
		synctest.Test(t, func(t *testing.T) {
			town := newTown("us-east", "us-west", "us-south")
			over, due := crashEast, crashEast
			over.ID, over.Where, over.At, over.For = "region-2", "us-west", 10*time.Second, 10*time.Second
			due.ID, due.Where, due.At = "region-3", "us-south", time.Hour
			cfg := config(town, &tape{}, crashEast, over, due)
			guard := mortal{make(chan struct{})}
			cfg.Guard = guard
			if stop != nil {
				cfg.Stop = make(chan struct{})
			}
			time.AfterFunc(35*time.Second, func() { close(guard.lost) })
			results, err := Run(t.Context(), cfg)
			if !errors.Is(err, watchdog.ErrLost) || !results[0].Restored || results[0].ForS > 5.1 {
				t.Fatalf("in effect for %g s, %+v, %v", results[0].ForS, results[0], err)
			}
			for i, want := range []struct{ status, detail string }{
				{Inconclusive, "it was undone after 5.0 s of 20s: the watchdog is gone: nobody would undo this if the conductor died; until then during the fault"},
				{Confirmed, "during the fault"},
				{Inconclusive, "the fault was left out: the watchdog is gone"},
			} {
				if e := results[i].Evidence; e.Status != want.status || !strings.HasPrefix(e.Detail, want.detail) {
					t.Errorf("%s: %+v", results[i].Fault.ID, e)
				}
			}
		})
	}
}
