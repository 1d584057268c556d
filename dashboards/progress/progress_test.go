package progress

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// onAir is a State at sec seconds of a 75 s event with a region's crash from 30 to 50.
func onAir(sec float64) State {
	n := uint64(max(sec, 0) * 271)
	s := State{
		Scenario: "first-light", Run: "20261122-091412-first-light-7", Phase: "on air", OnAir: true,
		EventElapsed: time.Duration(sec * float64(time.Second)), EventDuration: 75 * time.Second,
		PlayStartsPerSecond: math.Round(250 + 200*math.Exp(-math.Pow(sec-15, 2)/20)),
		PlayStarts:          report.PlayStarts{Intended: n, Sent: n, OK: n},
		Sessions:            min(40, int(max(sec, 0)*4)), Players: 40,
		Emitted: n * 3, Stored: n*3 - min(n, 600),
		QoE:    QoE{Known: sec > 2, StartupP95: 1284 * time.Millisecond, RebufferRatio: 0.31, LatencyP50: 6200 * time.Millisecond, LatencyP95: time.Duration(7900+20*sec) * time.Millisecond},
		Faults: []Fault{{ID: "region-1", Name: "crash of us-east", State: "waiting", Left: time.Duration((30 - sec) * float64(time.Second))}},
	}
	if sec < 0 {
		s.Phase = "countdown"
		s.PlayStarts, s.PlayStartsPerSecond, s.Emitted, s.Stored = report.PlayStarts{}, 0, 412, 380
	}
	if sec >= 30 {
		s.Faults[0].State, s.Faults[0].Left = "injected", time.Duration((50-sec)*float64(time.Second))
		s.PlayStarts.OK -= 17
		s.PlayStarts.Failed, s.PlayStarts.Shed = 11, 6
	}
	if sec >= 30 && sec < 33 {
		s.FailuresPerSecond, s.Rebuffering = 6, 9
	}
	if sec >= 50 {
		s.Faults[0].State, s.Faults[0].Left = "restored", 0
	}
	return s
}

// bigCrowd is a State at sec seconds of a 90 s event with 100,000 play starts a second; from 40 s on viewers come back
// faster than the service can take them.
func bigCrowd(sec float64) State {
	s := onAir(sec)
	s.Scenario, s.Run, s.Faults = "title-fight", "20261122-190000-title-fight-7", nil
	s.EventDuration = 90 * time.Second
	s.PlayStartsPerSecond = math.Round(98_412 * math.Min(1, max(sec, 0)/10))
	s.FailuresPerSecond, s.Rebuffering, s.QoE.RebufferRatio = 0, 0, 0
	n := uint64(max(sec, 0) * 95_000)
	s.PlayStarts = report.PlayStarts{Intended: n, Sent: n, OK: n}
	s.Requests, s.Capacity = s.PlayStartsPerSecond, 120_000
	s.Emitted, s.Stored = n+20_000, n-min(n, 180_000)
	if sec >= 40 {
		s.Requests, s.FailuresPerSecond = 241_900, 9_400
		s.PlayStarts.Shed = 41_003
		s.PlayStarts.OK -= 41_003
		s.Levers = []string{"bookmarks", "personalisation", "top rung"}
		s.Warnings = []string{"the event is 1.2 times as large as forecast", "region us-west will need 15 % more at T+70 s", "region us-east will need 40 % more at T+3 min"}
	}
	return s
}

// drained is the last of a big crowd: everybody has gone and the store is still being filled.
func drained() State {
	s := bigCrowd(90)
	s.Phase, s.PlayStartsPerSecond, s.FailuresPerSecond, s.Requests, s.Levers, s.Warnings = "drain", 0, 0, 0, nil, nil
	s.Draining = Draining{Emitted: 8_570_000, Stored: 6_020_412}
	return s
}

func history(upTo float64) *History {
	h := new(History)
	for sec := -3.0; sec <= upTo; sec += 0.25 {
		h.Add(onAir(sec))
	}
	return h
}

func TestPanelGoldens(t *testing.T) {
	preparing := State{Scenario: "first-light", Run: "20261122-091412-first-light-7", Phase: "prepare", Doing: "starting region us-west (2 of 2)"}
	target := onAir(20)
	target.Scenario, target.PlayStarts, target.PlayStartsPerSecond, target.Faults = "our-stream", report.PlayStarts{}, 0, nil
	many := onAir(31)
	for i := range 6 {
		many.Faults = append(many.Faults, Fault{ID: fmt.Sprint("region-", i+2), Name: fmt.Sprintf("cut of region-%d", i), State: []string{"waiting", "mismatch", "restored"}[i%3], Left: time.Duration(20-i%3*20) * time.Second})
	}
	long := onAir(5000)
	long.EventDuration = 3 * time.Hour
	for _, c := range []struct {
		name string
		s    State
		v    View
	}{
		{"prepare", preparing, View{Width: 80}},
		{"countdown", onAir(-2.5), View{Width: 80}},
		{"first-second", onAir(0.2), View{Width: 80}},
		{"on-air", onAir(20), View{Width: 80}},
		{"fault", onAir(31), View{Width: 80}},
		{"fault-wide", onAir(31), View{Width: 120}},
		{"fault-narrow", onAir(31), View{Width: 38}},
		{"fault-low", onAir(31), View{Width: 80, Height: 6}},
		{"fault-ascii", onAir(31), View{Width: 80, ASCII: true}},
		{"fault-color", onAir(31), View{Width: 80, Color: true}},
		{"many-faults", many, View{Width: 80}},
		{"restored", onAir(60), View{Width: 80}},
		{"target", target, View{Width: 80}},
		{"three-hours", long, View{Width: 80}},
		{"nothing", State{}, View{Width: 80}},
		{"crowd", bigCrowd(30), View{Width: 80}},
		{"crowd-storm", bigCrowd(45), View{Width: 80}},
		{"crowd-storm-wide", bigCrowd(45), View{Width: 130}},
		{"crowd-storm-narrow", bigCrowd(45), View{Width: 38}},
		{"crowd-storm-low", bigCrowd(45), View{Width: 80, Height: 8}},
		{"crowd-storm-ascii", bigCrowd(45), View{Width: 80, ASCII: true}},
		{"crowd-storm-color", bigCrowd(45), View{Width: 80, Color: true}},
		{"crowd-drain", drained(), View{Width: 80}},
		{"crowd-drain-narrow", drained(), View{Width: 38}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := new(History)
			if c.s.OnAir {
				h = history(math.Min(c.s.EventElapsed.Seconds(), 75))
			}
			if c.s.Capacity > 0 {
				h = new(History)
				for sec := 0.0; sec <= c.s.EventElapsed.Seconds(); sec += 0.25 {
					h.Add(bigCrowd(sec))
				}
			}
			golden(t, c.name, Render(c.s, h, c.v)+"\n")
		})
	}
}

func TestPlainLinesGolden(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, false, nil)
	start := time.Unix(1_700_000_000, 0)
	states := []State{{Scenario: "first-light", Phase: "prepare", Doing: "starting region us-west (2 of 2)"}}
	for sec := -3.0; sec <= 60; sec++ {
		states = append(states, onAir(sec))
	}
	end := onAir(75)
	end.Phase = "drain"
	run(t, p, append(states, end), start)
	golden(t, "plain-lines", b.String())
	if strings.Contains(b.String(), "\x1b") {
		t.Error("escape sequences where there is no terminal")
	}
}

// Levers and warnings are said at once and once, whatever the State repeats of them.
func TestPlainLinesOfABigCrowdGolden(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, false, nil)
	var states []State
	for sec := 0.0; sec <= 50; sec++ {
		states = append(states, bigCrowd(sec))
	}
	newer := bigCrowd(51)
	newer.Warnings = append(newer.Warnings[2:], "region us-east will need 60 % more at T+3 min")
	newer.Levers = []string{"bookmarks"}
	run(t, p, append(states, newer, newer, drained()), time.Unix(1_700_000_000, 0))
	golden(t, "plain-lines-crowd", b.String())
}

func TestSummaryGoldens(t *testing.T) {
	for _, name := range []string{"go", "no-go", "inconclusive", "title-fight", "retry-storm", "forecast"} {
		r, err := report.Read(filepath.Join("..", "report", "testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "summary-"+name, Summary(r, "runs/x/report.html", View{Width: 100}))
		golden(t, "summary-"+name+"-color", Summary(r, "runs/x/report.html", View{Width: 72, Color: true}))
		golden(t, "summary-"+name+"-plain", Summary(r, "runs/x/report.html", View{ASCII: true}))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run go test -update and read the diff\n%s", path, got)
	}
}

// run feeds states to p, one a tick, a second apart.
func run(t *testing.T, p *Progress, states []State, start time.Time) {
	t.Helper()
	ticks := make(chan time.Time)
	i := 0
	go func() {
		defer close(ticks)
		for j := range states {
			ticks <- start.Add(time.Duration(j) * time.Second)
		}
	}()
	err := p.Run(context.Background(), func() State {
		s := states[min(i, len(states)-1)]
		i++
		return s
	}, ticks)
	if err != nil {
		t.Fatal(err)
	}
}

// No line is wider than the view, no panel higher, whatever is in the State.
func TestPanelKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.StringN(0, 120, -1)
		n := rapid.Uint64()
		d := rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64().Draw(t, "ns")) })
		s := State{
			Scenario: words.Draw(t, "scenario"), Run: words.Draw(t, "run"), Phase: words.Draw(t, "phase"), Doing: words.Draw(t, "doing"),
			OnAir: rapid.Bool().Draw(t, "on air"), EventElapsed: d.Draw(t, "elapsed"), EventDuration: d.Draw(t, "duration"),
			PlayStartsPerSecond: rapid.Float64().Draw(t, "rate"), FailuresPerSecond: rapid.Float64().Draw(t, "failures"),
			PlayStarts: report.PlayStarts{Intended: n.Draw(t, "intended"), OK: n.Draw(t, "ok"), Failed: n.Draw(t, "failed")},
			Sessions:   rapid.Int().Draw(t, "sessions"), Rebuffering: rapid.Int().Draw(t, "rebuffering"), Players: 3,
			QoE:     QoE{Known: rapid.Bool().Draw(t, "known"), RebufferRatio: rapid.Float64().Draw(t, "ratio"), LatencyP95: d.Draw(t, "p95")},
			Emitted: n.Draw(t, "emitted"), Stored: n.Draw(t, "stored"),
			Requests: rapid.Float64().Draw(t, "requests"), Capacity: rapid.Float64().Draw(t, "capacity"),
			Levers: rapid.SliceOfN(words, 0, 6).Draw(t, "levers"), Warnings: rapid.SliceOfN(words, 0, 6).Draw(t, "warnings"),
			Draining: Draining{n.Draw(t, "to drain"), n.Draw(t, "drained")},
		}
		for range rapid.IntRange(0, 12).Draw(t, "faults") {
			s.Faults = append(s.Faults, Fault{ID: words.Draw(t, "id"), Name: words.Draw(t, "name"), State: words.Draw(t, "state"), Left: d.Draw(t, "left")})
		}
		v := View{Width: rapid.IntRange(20, 200).Draw(t, "width"), Height: rapid.IntRange(1, 40).Draw(t, "height")}
		var h History
		h.Add(s)
		out := strings.Split(Render(s, &h, v), "\n")
		if len(out) > v.Height {
			t.Fatalf("%d lines in a view of %d", len(out), v.Height)
		}
		for _, l := range out {
			if cols(l) > v.Width {
				t.Fatalf("%d columns in a view of %d: %q", cols(l), v.Width, l)
			}
			if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
				t.Fatalf("a control character in %q", l)
			}
		}
		if l := Line(s); strings.ContainsAny(l, "\n\x1b") {
			t.Fatalf("a plain line of more than a line: %q", l)
		}
	})
}

// The panel is redrawn in place, log lines land above it, and nothing of an older panel is left.
func TestPanelIsRedrawnInPlace(t *testing.T) {
	term := newScreen(80, 30)
	p := New(term, true, func() int { return term.width }, Height(func() int { return term.height }), Color(false))
	ticks, drawn := make(chan time.Time), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sec := 0.0
	done := make(chan error, 1)
	go func() {
		done <- p.Run(ctx, func() State {
			s := onAir(sec)
			select {
			case drawn <- struct{}{}:
			case <-ctx.Done():
			}
			return s
		}, ticks)
	}()
	tick := func() {
		ticks <- time.Unix(int64(sec), 0)
		<-drawn
	}
	for range 40 {
		sec++
		tick()
	}
	fmt.Fprintf(p.Log(), "level=WARN msg=\"edge us-east-1 is down\"\nhalf a")
	sec++
	tick()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := term.text()
	if n := strings.Count(got, "first-light"); n != 2 { // the scenario and the run id, once each
		t.Errorf("the panel is on the screen %d times:\n%s", n/2, got)
	}
	if !strings.HasPrefix(got, "level=WARN msg=\"edge us-east-1 is down\"\nfirst-light ") {
		t.Errorf("the log line is not above the panel:\n%s", got)
	}
	if !strings.Contains(got, "T+41 s of 75 s") || strings.Contains(got, "half a") {
		t.Errorf("the screen shows:\n%s", got)
	}
	if term.hidden || term.noWrap {
		t.Error("the cursor or the line wrap was not given back")
	}
}

func TestWindowBecomesNarrower(t *testing.T) {
	term := newScreen(100, 30)
	p := New(term, true, func() int { return term.width }, Height(func() int { return term.height }), Color(false))
	if err := p.draw(onAir(31), time.Time{}); err != nil {
		t.Fatal(err)
	}
	term.resize(50)
	for sec := 32.0; sec < 36; sec++ {
		if err := p.draw(onAir(sec), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	p.release()
	if got := term.text(); strings.Count(got, "play starts") != 1 || strings.Count(got, "T+") != 1 {
		t.Errorf("left-overs after the window became narrower:\n%s", got)
	}
}

func TestColorNeedsATerminal(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, false, nil, Color(true))
	run(t, p, []State{onAir(31), onAir(51)}, time.Unix(0, 0))
	if strings.Contains(b.String(), "\x1b") {
		t.Error("colour without a terminal")
	}
	b.Reset()
	p = New(&b, true, nil, Color(false)) // NO_COLOR
	run(t, p, []State{onAir(31)}, time.Unix(0, 0))
	if strings.Contains(b.String(), "\x1b[3") || strings.Contains(b.String(), "\x1b[1m") {
		t.Error("colour in spite of NO_COLOR")
	}
}

func TestForFileOnAPlainFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	env := map[string]string{"TERM": "xterm-256color", "LANG": "C"}
	p := ForFile(f, func(k string) string { return env[k] })
	if p.isTTY || p.color || !p.ascii {
		t.Errorf("a file is taken for %+v", p)
	}
}

func TestWriterFails(t *testing.T) {
	p := New(failing{}, true, nil)
	ticks := make(chan time.Time, 1)
	ticks <- time.Unix(0, 0)
	err := p.Run(context.Background(), func() State { return onAir(1) }, ticks)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestHostileTextStaysText(t *testing.T) {
	s := onAir(31)
	s.Scenario = "a\x1b[2Jb\nc\u202e\r\x1b]0;title\x07y"
	got := Render(s, history(31), View{Width: 80})
	if strings.ContainsAny(got, "\x1b\r\x07\u202e") || !strings.Contains(got, "a[2Jb c") {
		t.Errorf("drawn: %q", got)
	}
}

// When a run has ended its spool is gone and State counts nothing: the last panel keeps its last row all the same.
func TestLastPanelIsWhole(t *testing.T) {
	term := newScreen(100, 24)
	p := New(term, true, func() int { return term.width }, Height(func() int { return term.height }), Color(false))
	last := onAir(75)
	gone := last
	gone.Emitted = 0
	run(t, p, []State{onAir(60), last, gone}, time.Unix(0, 0))
	if err := New(term, false, nil).Summary(sample(t, "go"), "runs/x/report.html"); err != nil {
		t.Fatal(err)
	}
	got := term.text()
	if !strings.Contains(got, "\nfaults       ✓ crash of us-east  restored\ntelemetry    60,975 emitted  60,375 stored  600 on the way\n\nGO  first-light\n") {
		t.Errorf("the panel's end and the summary:\n%s", got)
	}
}

// Words stay whole: on a terminal at its width, anywhere else at 100 columns, and tables are cut by a panel's terminal alone.
func TestSummaryWraps(t *testing.T) {
	r := sample(t, "inconclusive")
	r.Reasons[0] = strings.Repeat("a reason of many words ", 12)
	r.Objectives[0].Metric = strings.Repeat("long_", 20)
	for _, c := range []struct {
		name string
		cols int
		make func(io.Writer) *Progress
	}{
		{"plain", 100, func(w io.Writer) *Progress { return New(w, false, nil) }},
		{"width given", 60, func(w io.Writer) *Progress { return New(w, false, func() int { return 60 }) }},
		{"terminal", 72, func(w io.Writer) *Progress { return New(w, true, func() int { return 72 }, Color(false)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := c.make(&b).Summary(r, "runs/x/report.html"); err != nil {
				t.Fatal(err)
			}
			table := false
			for l := range strings.Lines(b.String()) {
				l = strings.TrimSuffix(l, "\n")
				isRow := strings.Contains(l, "<") // an objective's expression
				table = table || strings.Contains(l, "long_") && strings.Contains(l, "under 2 s")
				if cols(l) > c.cols && !(isRow && c.name != "terminal") {
					t.Errorf("%d columns: %q", cols(l), l)
				}
			}
			if table != (c.name != "terminal") {
				t.Errorf("the table's row is whole: %v\n%s", table, b.String())
			}
			if !strings.Contains(strings.Join(strings.Fields(b.String()), " "), strings.TrimSpace(r.Reasons[0])) {
				t.Error("words were lost")
			}
		})
	}
}

func TestFaultThatNeverCame(t *testing.T) {
	s := onAir(20)
	s.Faults[0].State, s.Faults[0].Left = "inconclusive", 0
	if got := Render(s, history(20), View{Width: 80}); !strings.Contains(got, "○ crash of us-east  inconclusive") {
		t.Errorf("never injected:\n%s", got)
	}
	if got := Render(s, history(40), View{Width: 80}); !strings.Contains(got, "● crash of us-east  inconclusive") {
		t.Errorf("injected and not measured:\n%s", got)
	}
	r := sample(t, "inconclusive")
	r.Faults = []report.Fault{{ID: "region-1", Fail: "region", Model: "crash", Where: "us-east", AtS: 30, Restored: true,
		Evidence: report.Evidence{Status: report.Inconclusive, Unit: "% of probes", Detail: "the run ended before the fault was due"}}}
	got := Summary(r, "x", View{})
	if !strings.Contains(got, "? fault      crash of us-east: inconclusive, the run ended before the fault was due\n") {
		t.Errorf("summary:\n%s", got)
	}
}

func TestSmallTimesAreMilliseconds(t *testing.T) {
	s := onAir(20)
	s.QoE.StartupP95 = 7340 * time.Microsecond
	if got := Render(s, history(20), View{Width: 80}); !strings.Contains(got, "startup p95 7.34 ms") {
		t.Errorf("panel:\n%s", got)
	}
	if got := Line(s); !strings.Contains(got, "startup p95 7.34 ms") {
		t.Errorf("line: %s", got)
	}
}

func sample(t *testing.T, name string) *report.Report {
	t.Helper()
	r, err := report.Read(filepath.Join("..", "report", "testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What ended an experiment is said at once and once.
func TestLinesSayWhatEndedTheExperiment(t *testing.T) {
	var b strings.Builder
	p := New(&b, false, nil)
	s := State{Phase: "on air", OnAir: true, EventElapsed: 32 * time.Second, EventDuration: time.Minute}
	now := time.Unix(1_800_000_000, 0)
	for i, stopped := range []string{"", "stopped: rebuffer_ratio avg>20% over 5s", "stopped: rebuffer_ratio avg>20% over 5s"} {
		s.Experiment = stopped
		if err := p.draw(s, now.Add(time.Duration(i)*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.String(); strings.Count(got, "T+32 s | experiment stopped: rebuffer_ratio avg>20% over 5s\n") != 1 {
		t.Errorf("%s", got)
	}
	if panel := Render(s, &History{}, View{Width: 80}); !strings.Contains(panel, "experiment   stopped: rebuffer_ratio") {
		t.Errorf("%s", panel)
	}
}

// A crowd that its own machine was a little late with is told of with a mark that casts no doubt, unless it was for the verdict.
func TestSummaryMarksALateCrowd(t *testing.T) {
	r := &report.Report{Verdict: report.Go, Load: report.Load{InTimePercent: 96.9, Late: 31, LatePercent: 3.1}}
	if s := Summary(r, "report.html", View{}); !strings.Contains(s, "\n○ load") {
		t.Errorf("no reason to doubt it:\n%s", s)
	}
	r.Objectives = []report.Objective{{Metric: "send_lag", Expression: "p(99)<10ms", Samples: 1}}
	if s := Summary(r, "report.html", View{}); !strings.Contains(s, "\n? load") {
		t.Errorf("a reason to doubt it:\n%s", s)
	}
}
