package defects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/reference/defect"
	"github.com/tminus-live/tminus/reference/defect/orders"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/timeline"
)

var begin = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }

// took is a fault from 10 s to 20 s.
var took = evidence.Window{Inject: at(10), Injected: at(10.1), Restore: at(20), Restored: at(20.1)}

// brief is one from 18 s to 20 s.
var brief = evidence.Window{Inject: at(18), Injected: at(18), Restore: at(20), Restored: at(20.1)}

// levels makes ten readings a second: before, during and after.
func levels(before, during, after float64) []reading {
	var rs []reading
	for s := 5.0; s < 25; s += 0.1 {
		r := reading{at: at(s), value: before, known: true}
		switch {
		case s >= 20.05:
			r.value = after
		case s >= 10.05:
			r.value = during
		}
		rs = append(rs, r)
	}
	return rs
}

func with(rs []reading, change func(i int, r *reading)) []reading {
	for i := range rs {
		change(i, &rs[i])
	}
	return rs
}

// thin keeps one reading in ten.
func thin(rs []reading) (few []reading) {
	for i := 0; i < len(rs); i += 10 {
		few = append(few, rs[i])
	}
	return few
}

func TestJudge(t *testing.T) {
	l := level{what: "the clock of x", unit: "ms", expect: constant(-30000), within: 700, calm: 100}
	growing := level{what: "the age", unit: "s", expect: constant(0), growth: 1, within: 1, calm: 0.5}
	count := level{what: "x forgot", unit: "times", sum: true, expect: constant(3), rate: 0.5, within: 0.5, calm: 1}
	once := level{what: "x forgot", unit: "times", sum: true, expect: constant(1), rate: 0.1, within: 1.5, calm: 1}
	little := level{what: "the clock of x", unit: "ms", expect: constant(80), within: 102, calm: 100}
	share := level{what: "the share that x lacks", unit: "%", expect: constant(50), noise: 2500, within: 10, calm: 12.5}
	more := level{what: "refused", unit: "%", expect: constant(50), within: 10, calm: 5, orMore: true}
	grow := func(i int, r *reading) {
		if r.at.After(took.Inject) && r.at.Before(took.Restore) {
			r.value += r.at.Sub(took.Injected).Seconds()
		}
	}
	thrice := func(i int, r *reading) {
		r.value = 0
		if i == 60 || i == 90 || i == 120 {
			r.value = 1
		}
	}
	for what, c := range map[string]struct {
		level           level
		target, control []reading
		window          evidence.Window
		status, says    string
	}{
		"as promised":             {l, levels(20, -29980, 20), levels(0, 0, 0), took, evidence.Confirmed, "as before after it; the control's did not"},
		"without a control":       {l, levels(20, -29980, 20), nil, took, evidence.Confirmed, "as before"},
		"nothing happened":        {l, levels(20, 20, 20), levels(0, 0, 0), took, evidence.Mismatch, "-30000 was expected"},
		"half of it":              {l, levels(20, -15000, 20), levels(0, 0, 0), took, evidence.Mismatch, "-30000 was expected"},
		"more than promised":      {l, levels(20, -60000, 20), levels(0, 0, 0), took, evidence.Mismatch, "-30000 was expected"},
		"everybody's":             {l, levels(20, -29980, 20), levels(0, -30000, 0), took, evidence.Mismatch, "reached further"},
		"for ever":                {l, levels(20, -29980, -29980), levels(0, 0, 0), took, evidence.Mismatch, "outlived"},
		"not undone":              {l, levels(20, -29980, 20), nil, evidence.Window{Inject: took.Inject, Injected: took.Injected, Restore: took.Restore}, evidence.Mismatch, "not undone"},
		"never in effect":         {l, levels(20, 20, 20), nil, evidence.Window{Inject: took.Inject}, evidence.Inconclusive, "not in effect"},
		"nothing before":          {l, levels(20, -29980, 20)[60:], nil, took, evidence.Inconclusive, "too little"},
		"nothing after":           {l, levels(20, -29980, 20)[:150], nil, took, evidence.Inconclusive, "after it"},
		"no answers meanwhile":    {l, with(levels(20, -29980, 20), func(i int, r *reading) { r.known = i < 50 || i > 90 && i%3 == 0 || i > 150 }), nil, took, evidence.Inconclusive, "too little"},
		"no readings":             {l, nil, nil, took, evidence.Inconclusive, "too little"},
		"growing":                 {growing, with(levels(1, 1, 1), grow), levels(1, 1, 1), took, evidence.Confirmed, "differed by 4.95 s"},
		"not growing":             {growing, levels(1, 1, 1), levels(1, 1, 1), took, evidence.Mismatch, "4.95 was expected"},
		"counted":                 {count, with(levels(0, 0, 0), thrice), levels(0, 0, 0), took, evidence.Confirmed, "3.00 times"},
		"counted too few":         {count, with(levels(0, 0, 0), func(i int, r *reading) { thrice(i+25, r) }), nil, took, evidence.Mismatch, "3.00 was expected"},
		"counted before it":       {count, with(levels(0, 0, 0), func(i int, r *reading) { thrice(i, r); r.value += float64(i / 10 * 10 / (i + 1)) }), nil, took, evidence.Inconclusive, "not well"},
		"others make it more":     {more, levels(0, 80, 0), levels(0, 0, 0), took, evidence.Confirmed, "80"},
		"others do not make less": {more, levels(0, 30, 0), levels(0, 0, 0), took, evidence.Mismatch, "50"},
		// What nobody could tell from nothing, or from what goes on, proves nothing.
		"nothing, where little was promised":       {little, levels(20, 20, 20), nil, took, evidence.Inconclusive, "a stronger one"},
		"little, as promised":                      {little, levels(20, 100, 20), nil, took, evidence.Inconclusive, "too little to tell it from nothing"},
		"nothing, counted where one was promised":  {once, levels(0, 0, 0), nil, took, evidence.Inconclusive, "too little to tell it from nothing"},
		"nothing, where it grew for a moment":      {growing, levels(1, 1, 1), nil, brief, evidence.Inconclusive, "too little to tell it from nothing"},
		"nothing, where few were drawn":            {share, thin(levels(0, 0, 0)), nil, took, evidence.Inconclusive, "too little to tell it from nothing"},
		"as promised, and few were drawn after it": {share, levels(0, 50, 0)[:156], nil, took, evidence.Inconclusive, "whether it is over"},
		"counted, and not for long after it":       {count, with(levels(0, 0, 0)[:170], thrice), nil, took, evidence.Inconclusive, "whether it is over"},
		// Whether a control that cannot be read has changed, nobody knows.
		"the control is gone": {l, levels(20, -29980, 20), with(levels(0, 0, 0), func(i int, r *reading) { r.known = i < 50 || i > 150 }), took, evidence.Inconclusive, "the control, which answered before it, could not be read"},
		"no control answers":  {l, levels(20, -29980, 20), with(levels(0, 0, 0), func(i int, r *reading) { r.known = false }), took, evidence.Confirmed, "as before after it"},
	} {
		if what == "counted before it" {
			c.target = with(levels(0, 0, 0), func(i int, r *reading) {
				if thrice(i, r); i < 5 {
					r.value = 1
				}
			})
		}
		e := c.level.judge(c.window, c.target, c.control)
		if e.Status != c.status || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%s: %+v, want %s that says %q", what, e, c.status, c.says)
		}
		if what == "no control answers" && strings.Contains(e.Detail, "control") {
			t.Errorf("%s, and yet it says %q", what, e.Detail)
		}
	}
}

// A fault that never ends, and one that ends when it should, are told apart 95 times in 100 at least by what is measured until an
// observer has watched for as long as it wants; what 5 s say of those that need more confirms none.
func TestWhatGoesOnIsNoticed(t *testing.T) {
	const runs = 400
	w := evidence.Window{Inject: at(5), Injected: at(5), Restore: at(125), Restored: at(125)}
	type see func(random *rand.Rand, over, end time.Time) []reading // what is read until end when it is over at over
	wipes := func(every time.Duration) (*Observer, see) {
		o := Forgets("x", "", "", "", every)
		return o, func(random *rand.Rand, over, end time.Time) (rs []reading) {
			wiped := int64(0)
			for t := begin.Add(time.Duration(random.Int64N(int64(o.every)))); t.Before(end); t = t.Add(o.every) {
				r := reading{at: t, known: true}
				if n := int64(t.Sub(w.Injected)/every) + 1; t.After(w.Injected) && t.Before(over) && n > wiped {
					r.value, wiped = 1, n
				}
				rs = append(rs, r)
			}
			return rs
		}
	}
	lacks := func(share float64) (*Observer, see) {
		const segment, late = 2 * time.Second, 1700 * time.Millisecond
		o := Candidates("x", "", "us-east", Stream{Event: "ev", Rendition: "v360", Duration: segment}, share)
		return o, func(random *rand.Rand, over, end time.Time) (rs []reading) {
			for t := begin.Add(time.Duration(random.Int64N(int64(segment)))); t.Add(late).Before(end); t = t.Add(segment) {
				r := reading{at: t, known: true}
				if t.After(w.Injected) && t.Before(over) && random.Float64() < share {
					r.value = 100
				}
				rs = append(rs, r)
			}
			return rs
		}
	}
	for what, make := range map[string]func() (*Observer, see){
		"a wipe every second":       func() (*Observer, see) { return wipes(time.Second) },
		"a wipe every 5 s":          func() (*Observer, see) { return wipes(5 * time.Second) },
		"a wipe every 25 s":         func() (*Observer, see) { return wipes(25 * time.Second) },
		"no segments":               func() (*Observer, see) { return lacks(1) },
		"half of the segments":      func() (*Observer, see) { return lacks(0.5) },
		"a quarter of the segments": func() (*Observer, see) { return lacks(LeastShare) },
	} {
		o, see := make()
		if o.After() > time.Minute {
			t.Errorf("%s: it has to watch for %s, and gets a minute", what, o.After())
		}
		end := w.Restored.Add(max(5*time.Second, o.After()))
		confirmed, missed, early := 0, 0, 0
		random := rand.New(rand.NewPCG(4, 2))
		for range runs {
			if e := o.level.judge(w, see(random, w.Restored, end), nil); e.Status == evidence.Confirmed {
				confirmed++
			}
			if e := o.level.judge(w, see(random, end, end), nil); e.Status != evidence.Mismatch {
				missed++
			}
			if e := o.level.judge(w, see(random, end, w.Restored.Add(5*time.Second)), nil); e.Status == evidence.Confirmed {
				early++
			}
		}
		if confirmed < runs*95/100 || missed > runs/20 || early > 0 {
			t.Errorf("%s, of %d: %d confirmed; where it never ends, %d not noticed, and %d confirmed within 5 s", what, runs, confirmed, missed, early)
		}
	}
}

// A share is what it is give or take chance: the fewer were counted, the more.
func TestJudgeAllowsForChance(t *testing.T) {
	l := level{what: "x", unit: "%", expect: constant(25), within: 5, noise: 0.25 * 0.75 * 1e4, calm: 5}
	some := func(share float64) []reading {
		return with(levels(0, 0, 0), func(i int, r *reading) {
			if r.at.After(took.Injected) && r.at.Before(took.Restore) && i%20 < int(20*share) {
				r.value = 100
			}
		})
	}
	for share, want := range map[float64]string{0.25: evidence.Confirmed, 0.35: evidence.Confirmed, 0.05: evidence.Mismatch, 0.6: evidence.Mismatch} {
		if e := l.judge(took, some(share), nil); e.Status != want {
			t.Errorf("%g: %+v", share, e)
		}
	}
}

var key = []byte("0123456789abcdef")

// region is the part of a region that takes orders; deaf, it does not answer.
func region(t *testing.T) (order Order, set *defect.Set, deaf *atomic.Bool) {
	set = defect.NewSet(defect.Component{Name: "us-east/edge-1", Kind: defect.Edge})
	desk := orders.Handler(orders.Config{Set: set, Key: key, Now: time.Now})
	deaf = new(atomic.Bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if deaf.Load() {
			panic(http.ErrAbortHandler)
		}
		desk.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return Order{URL: s.URL, Key: key, ID: "cache-1", Part: "us-east/edge-1", Kind: "cache-wipe", Params: map[string]any{"every_ms": 500}, Lease: 600 * time.Millisecond}, set, deaf
}

func injector(t *testing.T, o Order) *Injector {
	t.Helper()
	i, err := NewInjector(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestALeaseIsHeldUntilItIsRestored(t *testing.T) {
	o, set, _ := region(t)
	i := injector(t, o)
	for range 2 {
		if err := i.Inject(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first := set.At(time.Now())
	if len(first) != 1 || first[0].Params["every_ms"] != 500.0 {
		t.Fatalf("in force: %+v", first)
	}
	eventually(t, "it is in force for longer than a lease", func() bool { return set.At(time.Now())[0].Ends.After(first[0].Since.Add(2 * o.Lease)) })
	for range 2 {
		if err := i.Restore(t.Context()); err != nil || len(set.At(time.Now())) != 0 {
			t.Errorf("restored: %v", err)
		}
	}
	if i.Note() != "" {
		t.Error(i.Note())
	}
}

func TestARegionThatDoesNotAnswerIsRestoredByItsLease(t *testing.T) {
	o, set, deaf := region(t)
	i := injector(t, o)
	if err := i.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	deaf.Store(true)
	if err := i.Restore(t.Context()); err != nil || len(set.At(time.Now())) != 0 {
		t.Errorf("%v, in force: %+v", err, set.At(time.Now()))
	}
	// An order whose answer was lost may be in force all the same: who undoes it waits for its end.
	if err := i.Inject(t.Context()); err == nil {
		t.Error("nobody answered, and it is in force")
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := i.Restore(short); err == nil {
		t.Error("it is said to be undone before that is certain")
	}
}

// A renewal that is under way when the defect is to end does not bring it back.
func TestARenewalUnderWayDoesNotOutliveTheEnd(t *testing.T) {
	o, set, _ := region(t)
	desk := orders.Handler(orders.Config{Set: set, Key: key, Now: time.Now})
	var puts atomic.Int32
	underWay, ended, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		renewal := r.Method == http.MethodPut && puts.Add(1) == 2
		if renewal {
			close(underWay)
			select { // the end overtakes it, if it can
			case <-ended:
			case <-time.After(100 * time.Millisecond):
			}
		}
		desk.ServeHTTP(w, r)
		switch {
		case renewal:
			close(done)
		case r.Method == http.MethodDelete:
			close(ended)
		}
	}))
	defer s.Close()
	o.URL = s.URL
	i := injector(t, o)
	if err := i.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-underWay
	if err := i.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	<-done
	if in := set.At(time.Now()); len(in) != 0 {
		t.Errorf("in force after it was undone: %+v", in)
	}
}

// A region that takes connections and answers nothing holds up nobody who has to undo things.
func TestAnOrderThatIsNotAnsweredIsGivenUp(t *testing.T) {
	o, _, _ := region(t)
	over := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	defer s.Close()
	defer close(over)
	o.URL = s.URL
	i := injector(t, o)
	given := make(chan error, 1)
	go func() { given <- i.Inject(t.Context()) }()
	select {
	case err := <-given:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(15 * time.Second):
		t.Error("it waits still")
	}
}

func TestALapsedLeaseIsTold(t *testing.T) {
	o, set, deaf := region(t)
	i := injector(t, o)
	if err := i.Inject(t.Context()); err != nil {
		t.Fatal(err)
	}
	deaf.Store(true)
	eventually(t, "the lease is over", func() bool { return len(set.At(time.Now())) == 0 })
	deaf.Store(false)
	eventually(t, "it is in force again", func() bool { return len(set.At(time.Now())) == 1 })
	eventually(t, "that is told", func() bool { return strings.Contains(i.Note(), "lapsed") })
	if err := i.Restore(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOrdersThatCannotBe(t *testing.T) {
	o, _, _ := region(t)
	for what, change := range map[string]func(*Order){
		"URL": func(o *Order) { o.URL = "us-east" }, "id": func(o *Order) { o.ID = "" }, "key": func(o *Order) { o.Key = nil }, "lease": func(o *Order) { o.Lease = time.Minute },
		"params": func(o *Order) { o.Params = map[string]any{"x": make(chan int)} },
	} {
		bad := o
		if change(&bad); what != "" {
			if _, err := NewInjector(bad); err == nil {
				t.Errorf("%s: taken", what)
			}
		}
	}
	for what, change := range map[string]func(*Order){
		"no place": func(o *Order) { o.Part = "us-west/edge-1" }, "sign the order": func(o *Order) { o.Key = []byte("another key that is long") }, "every_ms": func(o *Order) { o.Params = map[string]any{"every_ms": -1} },
	} {
		bad := o
		change(&bad)
		i := injector(t, bad)
		if err := i.Inject(t.Context()); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
		i.Restore(t.Context()) //nolint:errcheck // it never was in force
	}
}

// live runs a small pipeline of two regions until the test ends.
func live(t *testing.T) (c pipeline.Config) {
	c = pipeline.Config{Run: "r", Seed: 7, Event: "ev", Ladder: "sports", Key: key, LeadIn: 3}
	c.First = timeline.Default.At(time.Now()) - 10
	c.Regions = pipeline.Regions(freePort(t), []string{"us-east", "us-west"}, map[string]int{"us-east": 2, "us-west": 2})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range c.Regions {
		c.Region = i
		r, err := pipeline.Listen(c, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer func() {
			select {
			case <-r.Ready():
			case <-time.After(30 * time.Second):
				t.Error("the pipeline is not ready")
			}
		}()
	}
	return c
}

// freePort is free at every address of both regions, below those that outgoing connections are given.
func freePort(t *testing.T) int {
next:
	for i := range 100 {
		port := 20000 + (os.Getpid()*37+i*101+5000)%12000
		for _, host := range []string{"1.3", "1.4", "1.5", "1.11", "1.12", "2.3", "2.4", "2.5", "2.11", "2.12"} {
			ln, err := net.Listen("tcp", net.JoinHostPort("127.0."+host, strconv.Itoa(port)))
			if err != nil {
				continue next
			}
			ln.Close()
		}
		return port
	}
	t.Fatal("no free port")
	return 0
}

// On a real pipeline each observer confirms what its fault promises, and says mismatch where it was not injected (it watches the
// other region's components meanwhile, as if the injector had done nothing).
func TestTheEvidence(t *testing.T) {
	if testing.Short() {
		t.Skip("runs on the wall clock for a minute")
	}
	c := live(t)
	east, west := c.Regions[0], c.Regions[1]
	s := Stream{Event: c.Event, Rendition: "v360", Duration: 2 * time.Second}
	quiet := "/ev/a-es/init.mp4" // nobody else asks for it
	type way struct {
		name, part, kind string
		params           map[string]any
		observe          func(target, control pipeline.RegionConfig) *Observer
	}
	rounds := [][]way{{
		{"clock", "us-east/playback", "clock", map[string]any{"offset_ms": -30000}, func(r, o pipeline.RegionConfig) *Observer {
			return Clock(r.Name, r.PlaybackURL(), o.PlaybackURL(), -30*time.Second, 0)
		}},
		{"drift", "us-east/edge-2", "clock", map[string]any{"drift_ppm": 100000}, func(r, o pipeline.RegionConfig) *Observer {
			return Clock(r.Name, r.EdgeURL(2), o.EdgeURL(2), 0, 0.1)
		}},
		{"candidates", "us-east/packager", "publish-failure", map[string]any{"origin": "us-west"}, func(r, o pipeline.RegionConfig) *Observer {
			return Candidates(r.Name, o.OriginURL(), r.Name, s, 1)
		}},
		{"crowd", "us-east/edge-2", "edge-overload", map[string]any{"slots": 4, "service_ms": 200}, func(r, o pipeline.RegionConfig) *Observer {
			w, err := Crowd(r.Name, r.EdgeURL(2), o.EdgeURL(2), quiet, 16, 0.75, 500*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}},
		{"forgets", "us-east/edge-1", "cache-wipe", map[string]any{"every_ms": 1000}, func(r, o pipeline.RegionConfig) *Observer {
			return Forgets(r.Name, r.EdgeURL(1), o.EdgeURL(1), quiet, time.Second)
		}},
	}, {
		{"away", "us-east/encoder", "encoder-restart", nil, func(r, o pipeline.RegionConfig) *Observer {
			return Newest(r.Name, r.PackagerURL(), o.PackagerURL(), s)
		}},
	}}
	for _, round := range rounds {
		var wg sync.WaitGroup
		for _, w := range round {
			wg.Go(func() {
				i, err := NewInjector(Order{URL: east.PlaybackURL(), Key: key, ID: strings.ReplaceAll(w.name, " ", "-"), Part: w.part, Kind: w.kind, Params: w.params})
				if err != nil {
					t.Error(err)
					return
				}
				honest, fooled := w.observe(east, west), w.observe(west, east)
				fooled.control = nil // it would get in honest's way
				ctx, stop := context.WithCancel(t.Context())
				var watching sync.WaitGroup
				watching.Go(func() { honest.Watch(ctx) })
				watching.Go(func() { fooled.Watch(ctx) })
				time.Sleep(5 * time.Second) // as a run does
				var win evidence.Window
				win.Inject = time.Now()
				if err := i.Inject(ctx); err != nil {
					t.Error(err)
				}
				win.Injected = time.Now()
				time.Sleep(8 * time.Second)
				win.Restore = time.Now()
				if err := i.Restore(ctx); err != nil {
					t.Error(err)
				}
				win.Restored = time.Now()
				time.Sleep(5 * time.Second)
				stop()
				watching.Wait()
				e := honest.Judge(win)
				t.Log(w.name, fmt.Sprintf("%s: expected %.1f, measured %.1f %s: %s %s", e.Status, e.Expected, e.Measured, e.Unit, e.Detail, i.Note()))
				if e.Status != evidence.Confirmed {
					t.Errorf("%s: %+v", w.name, e)
				}
				if e := fooled.Judge(win); e.Status != evidence.Mismatch {
					t.Errorf("%s, not injected: %+v", w.name, e)
				}
			})
		}
		wg.Wait()
	}
}
