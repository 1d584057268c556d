package report

import (
	"math"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"pgregory.net/rapid"
)

// What the sections about a crowd say, word for word.
func TestCrowdSectionsGoldens(t *testing.T) {
	for _, s := range samples {
		switch s.name {
		case "title-fight", "retry-storm", "forecast", "overload":
		default:
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			doc := parsePage(t, s.make())
			var b strings.Builder
			for _, poll := range byClass(doc, "poll") {
				b.WriteString(wordsOf(poll) + "\n")
			}
			for _, n := range find(doc, "section") {
				switch attr(n, "aria-labelledby") {
				case "storms", "forecast", "load", "processes", "telemetry":
					b.WriteString("\n" + wordsOf(n))
				case "timeline":
					b.WriteString("\n" + text(byClass(n, "plot")[0].FirstChild.NextSibling) + "\n") // its title
					for _, d := range find(n, "desc")[:1] {
						b.WriteString(text(d) + "\n")
					}
					for _, p := range find(byClass(n, "wide")[0], "text") {
						b.WriteString(text(p) + " | ")
					}
					b.WriteString("\n")
				}
			}
			for _, n := range find(doc, "footer") {
				b.WriteString("\n" + wordsOf(n))
			}
			golden(t, s.name+".txt", []byte(strings.ReplaceAll(b.String(), "\u00a0", " ")))
		})
	}
}

// wordsOf is a part of the page as lines of words: a row, a term and its value, a sentence each.
func wordsOf(n *html.Node) string {
	var b strings.Builder
	var add func(n *html.Node)
	add = func(n *html.Node) {
		switch n.Data {
		case "svg":
			for _, c := range []string{"title", "desc"} {
				if found := find(n, c); len(found) > 0 {
					b.WriteString("\n[" + text(found[0]) + "]")
				}
			}
			if len(byClass(n, "plot")) > 0 {
				b.WriteString("\n")
				for _, c := range find(n, "text") {
					b.WriteString(text(c) + " | ")
				}
			}
			return
		case "tr", "p", "dt", "li", "h2", "h3", "div", "article", "figure":
			b.WriteString("\n")
		case "td", "th", "dd", "small", "span":
			b.WriteString("  ")
		}
		if n.Type == html.TextNode {
			b.WriteString(strings.Join(strings.Fields(n.Data), " "))
			if strings.HasSuffix(n.Data, " ") {
				b.WriteString(" ")
			}
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			add(c)
		}
	}
	add(n)
	var out []string
	for _, l := range strings.Split(b.String(), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n") + "\n"
}

// A report without a crowd says nothing of one.
func TestPageWithoutACrowd(t *testing.T) {
	for _, r := range []*Report{sampleGo(), sampleTarget()} {
		doc := parsePage(t, r)
		for _, n := range find(doc, "h2") {
			switch s := text(n); s {
			case "Retry storms", "Forecast against actual", "Processes":
				t.Errorf("%s: a section %q", r.Scenario, s)
			}
		}
		all := text(doc)
		for _, not := range []string{"Sent → done", "scheduled", "capacity", "requests", "leaves out"} {
			if strings.Contains(strings.Split(all, "'use strict'")[0], not) {
				t.Errorf("%s: says %q", r.Scenario, not)
			}
		}
	}
}

func TestStormWords(t *testing.T) {
	storm := func(guided bool, times float64) Storm {
		return Storm{Region: "us-east", Guided: guided, Viewers: 20_000, BasePerS: 1000, PeakPerS: 1000 * times, Amplification: times}
	}
	for _, c := range []struct {
		storms []Storm
		want   string
	}{
		{nil, ""},
		{[]Storm{storm(true, 1.43)}, "Guided backoff held: the return of 20,000 viewers peaked at 1.4× the usual requests."},
		{[]Storm{storm(true, 2.6)}, "Guided backoff did not hold: the return of 20,000 viewers peaked at 2.6× the usual requests."},
		{[]Storm{storm(false, 9.8)}, "Without backoff the return of 20,000 viewers peaked at 9.8× the usual requests."},
		{[]Storm{storm(true, 1.43), storm(false, 9.8)}, "Backoff made the difference: the return peaked at 1.4× the usual requests with it, at 9.8× without."},
		{[]Storm{storm(false, 9.8), storm(true, 2.6)}, "Backoff helped and did not hold: the return peaked at 2.6× the usual requests with it, at 9.8× without."},
		{[]Storm{storm(false, 1.6), storm(true, 1.2)}, "Neither return became a storm: it peaked at 1.2× the usual requests with guided backoff, at 1.6× without."},
		{[]Storm{storm(false, 3), storm(true, 3.1)}, "Backoff made no difference: the return peaked at 3.1× the usual requests with it, at 3× without."},
		{[]Storm{storm(true, 1.2), storm(true, 2.2), storm(false, 9.8)}, "Backoff helped and did not hold: the return peaked at 2.2× the usual requests with it, at 9.8× without."},
		{[]Storm{{Viewers: 1, PeakPerS: 340}}, "Without backoff the return of 1 viewer peaked at 340/s."},
	} {
		if got := plain((&Report{Storms: c.storms}).StormWords()); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestProcessWords(t *testing.T) {
	for _, c := range []struct {
		p    Process
		want string
	}{
		{Process{RSSAt10S: 200e6, RSSLast: 204e6, GrowthPct: 2}, "flat"},
		{Process{RSSAt10S: 200e6, RSSLast: 268e6, GrowthPct: 34}, "grew by 34 %"},
		{Process{RSSAt10S: 12e6, RSSLast: 18e6, GrowthPct: 50}, "flat"}, // six megabytes are nothing
		{Process{RSSAt10S: 200e6, RSSLast: 100e6, GrowthPct: -50}, "fell by 50 %"},
		{Process{RSSLast: 100e6}, "began later"},
		{Process{RSSAt10S: 100e6}, "had ended"},
	} {
		if got := plain(c.p.GrowthWords()); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
	flat, grown := Process{Name: "a", RSSAt10S: 200e6, RSSLast: 204e6, GrowthPct: 2}, Process{Name: "store", RSSAt10S: 200e6, RSSLast: 268e6, GrowthPct: 34}
	for _, c := range []struct {
		ps   []Process
		want string
	}{
		{nil, ""},
		{[]Process{{Name: "probe"}}, ""},
		{[]Process{flat}, "Memory was flat after the first 10 s."},
		{[]Process{flat, {RSSAt10S: 100e6, RSSLast: 50e6, GrowthPct: -50}}, "No process took more memory after the first 10 s."},
		{[]Process{flat, flat}, "The memory of all 2 processes was flat after the first 10 s."},
		{[]Process{flat, grown}, "store grew by 34 % after the first 10 s; no other process did."},
		{[]Process{grown}, "store grew by 34 % after the first 10 s."},
		{[]Process{grown, grown, flat}, "2 of 3 processes grew after the first 10 s."},
	} {
		if got := plain(strings.TrimSuffix((&Report{Processes: c.ps}).ProcessWords(), markedWords)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// Storms are drawn to one scale, and none of a later one is in an earlier one's drawing.
func TestStormsShareAScale(t *testing.T) {
	r := sampleRetryStorm()
	r.Storms[0].Series = append(r.Storms[0].Series, r.Storms[1].Series...) // it reaches into the next
	sc := r.stormScale()
	if sc.top < r.Storms[1].PeakPerS || sc.t1 < r.Storms[0].BackS || sc.t1 > 90 {
		t.Errorf("scale %+v", sc)
	}
	for i, s := range r.Storms {
		vs := r.seen(s)
		if last := vs[len(vs)-1].to; last > 100 {
			t.Errorf("storm %d is drawn to +%v s", i, last)
		}
		for _, l := range []layout{stormWide, stormNarrow} {
			p := r.drawStorm(s, sc, l)
			if top := p.Grid[len(p.Grid)-1].Label; top != "20k" {
				t.Errorf("%s: the axis ends at %s", l.class, top)
			}
		}
	}
}

// Whatever is measured, words on a drawing stand clear of each other and inside it, and every path is made of numbers.
func TestPlotsKeepTheirWordsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		figure := rapid.OneOf(rapid.Float64Range(0, 1e6), rapid.Float64Range(-1, 1e300))
		r := &Report{Timeline: sampleTimeline(120, 10, 10, 1e6, 1e6, 1)}
		for range rapid.IntRange(1, 4).Draw(t, "storms") {
			r.Storms = append(r.Storms, Storm{Name: rapid.String().Draw(t, "name"), AtS: rapid.Float64Range(-100, 500).Draw(t, "at"), ForS: figure.Draw(t, "for"),
				Guided: rapid.Bool().Draw(t, "guided"), BasePerS: figure.Draw(t, "base"), PeakPerS: figure.Draw(t, "peak"), Amplification: figure.Draw(t, "times"),
				BackS: figure.Draw(t, "back"), Series: rapid.SliceOfN(figure, 0, 700).Draw(t, "series")})
		}
		f := &Forecast{Kind: "launch"}
		at := rapid.Float64Range(-1000, 1000).Draw(t, "first")
		for range rapid.IntRange(1, 600).Draw(t, "bins") {
			f.Bins = append(f.Bins, Bin{T: at, P50: figure.Draw(t, "p50"), P90: figure.Draw(t, "p90"), Nowcast: figure.Draw(t, "nowcast"), Actual: figure.Draw(t, "actual")})
			at += rapid.Float64Range(0.1, 30).Draw(t, "width")
		}
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			f.Scaling = append(f.Scaling, Scaling{figure.Draw(t, "step"), "us-east", figure.Draw(t, "to")})
		}
		r.Forecast = f
		sc := r.stormScale()
		var plots []*plot
		for _, l := range []layout{stormWide, stormNarrow} {
			for _, s := range r.Storms {
				plots = append(plots, r.drawStorm(s, sc, l))
			}
		}
		plots = append(plots, r.drawForecast(forecastWide), r.drawForecast(forecastNarrow))
		for _, p := range plots {
			for i, c := range p.Captions {
				if c.Class == "t" {
					continue
				}
				if c.Left < 0 || c.Right > p.W+1 || c.Y < 0 || c.Y > p.H {
					t.Fatalf("%s: %+v outside of %v by %v", p.Title, c, p.W, p.H)
				}
				if !free(p.Captions[:i], c) {
					t.Fatalf("%s: %+v covers others of %+v", p.Title, c, p.Captions)
				}
			}
			checkKeys(t, p.Keys, p.X1)
			for _, a := range p.Areas {
				if strings.Contains(a.D, "NaN") || strings.Contains(a.D, "Inf") {
					t.Fatalf("%s: %s", p.Title, a.D)
				}
			}
			right := math.Inf(-1)
			for _, tk := range p.Ticks {
				if tk.Pos < right {
					t.Fatalf("ticks out of order: %+v", p.Ticks)
				}
				right = tk.Pos
			}
		}
	})
}

// checkKeys holds a legend to its drawing: entries of a row apart, none past the edge unless it has the row for itself.
func checkKeys(t *rapid.T, keys []key, x1 float64) {
	for i, k := range keys {
		w := 18 + textWidth(k.Label, 12)
		if i > 0 && keys[i-1].Y == k.Y {
			if k.X < keys[i-1].X+18+textWidth(keys[i-1].Label, 12) || k.X+w > x1+0.1 {
				t.Fatalf("legend %+v in %v", keys, x1)
			}
		}
	}
}

// The panel of play starts never draws outside itself, its legend fits, and all of what was not started is above what was.
func TestStartsPanel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]float64{150, 2000, 100_000, 2.4e6}).Draw(t, "rate")
		r := &Report{Load: Load{PlayStarts: PlayStarts{Intended: 1}}}
		figure := rapid.Float64Range(0, rate)
		has := rapid.IntRange(0, 31).Draw(t, "has")
		for i := range rapid.IntRange(1, 700).Draw(t, "seconds") {
			s := Second{T: i, PlayStarts: figure.Draw(t, "ok")}
			if has&1 > 0 {
				s.PlayFailures = figure.Draw(t, "failed")
			}
			if has&2 > 0 {
				s.Shed = figure.Draw(t, "shed")
			}
			if has&4 > 0 {
				s.Scheduled = figure.Draw(t, "due")
			}
			if has&8 > 0 {
				s.Requests = 3 * figure.Draw(t, "requests")
			}
			if has&16 > 0 {
				s.Capacity = 5 * figure.Draw(t, "capacity")
			}
			r.Timeline = append(r.Timeline, s)
		}
		for _, l := range []layout{wide, narrow} {
			p := r.drawChart(l).Panels[0]
			if p.Kind != "starts" || len(p.Grid) < 3 || len(p.Grid) > 7 {
				t.Fatalf("panel %s with a grid of %+v", p.Kind, p.Grid)
			}
			checkKeys(t, p.Keys, l.w-l.right)
			for _, g := range p.Grid {
				if g.Pos < p.Y-0.1 || g.Pos > p.Y+p.H+0.1 || len([]rune(g.Label)) > 6 {
					t.Fatalf("grid %+v of a panel from %v, %v high", g, p.Y, p.H)
				}
			}
			for _, k := range p.Keys {
				if k.Y > p.Y {
					t.Fatalf("legend %+v in the panel at %v", k, p.Y)
				}
			}
		}
	})
}

func TestAxisReads(t *testing.T) {
	for _, c := range []struct {
		top  float64
		want string
	}{
		{120_000, "0 25k 50k 75k 100k"}, {100_000, "0 20k 40k 60k 80k 100k"}, {160, "0 50 100 150"}, {1200, "0 250 500 750 1,000"}, {24_000, "0 5k 10k 15k 20k"}, {2.4e6, "0 500k 1M 1.5M 2M"},
	} {
		var got []string
		for _, v := range tidy(c.top, 5) {
			got = append(got, axisLabel(v, c.top))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("up to %v: %s, want %s", c.top, s, c.want)
		}
	}
}

// A figure that is no number anywhere in the new parts is replaced and named, and the report that was given keeps it.
func TestFiguresOfACrowdThatAreNotNumbers(t *testing.T) {
	r := sampleRetryStorm()
	r.Forecast = sampleForecast().Forecast
	r.Load.SentToDoneMS.P95 = math.NaN()
	r.Storms[1].Series[3], r.Storms[1].BackS = math.Inf(1), math.NaN()
	r.Forecast.Bins[2].Nowcast, r.Forecast.Scaling[1].Capacity = math.NaN(), math.Inf(-1)
	c, bad := r.Finite()
	want := "load.sent_to_done_ms.p95 storms[1].back_s storms[1].series[3] forecast.bins[2].nowcast forecast.scaling[1].capacity"
	if got := strings.Join(bad, " "); got != want {
		t.Errorf("named %s, want %s", got, want)
	}
	if c.Storms[1].BackS != -1 || c.Forecast.Bins[2].Nowcast != -1 || c.Storms[1].Series[3] != 0 {
		t.Errorf("replaced by %v, %v, %v", c.Storms[1].BackS, c.Forecast.Bins[2].Nowcast, c.Storms[1].Series[3])
	}
	if !math.IsNaN(r.Load.SentToDoneMS.P95) || !math.IsInf(r.Storms[1].Series[3], 1) || !math.IsNaN(r.Forecast.Bins[2].Nowcast) {
		t.Error("the report that was given was changed")
	}
	render(t, r)
}

// A crowd that its own machine was late with is seen as such at the top of the page and in the figures of the load.
func TestCrowdThatItsOwnMachineWasLateWith(t *testing.T) {
	r := sampleTitleFight()
	r.Load.Late, r.Load.LatePercent, r.Load.OwnLagMS = 12_345, 4.5, &Quantiles{P999: 74.4, Max: 90}
	doc := parsePage(t, r)
	poll := wordsOf(byClass(doc, "poll")[0])
	if !strings.Contains(poll, "4.50 % sent late by this machine") {
		t.Errorf("%s", poll)
	}
	all := wordsOf(doc)
	if want := "Late by the sending machine's own doing"; !strings.Contains(all, want) || !strings.Contains(all, "12,345 (4.5") || !strings.Contains(all, "99.9th percentile 74.4") {
		t.Errorf("the page does not say %q", want)
	}
}

// Its own machine's lateness is marked as a doubt where it is a reason of the verdict, and else told alone.
func TestLatenessIsADoubtWhereItMatters(t *testing.T) {
	missed := []Objective{{Metric: "send_lag", Samples: 1}}
	for _, c := range []struct {
		percent    float64
		objectives []Objective
		icon       string
	}{
		{0, missed, "ok"},
		{3.1, nil, "none"},
		{3.1, []Objective{{Metric: "send_lag", Samples: 1, Pass: true}, {Metric: "rebuffer_ratio", Samples: 1}}, "none"},
		{3.1, missed, "warn"},
		{MostLatePercent + 1, nil, "warn"},
	} {
		r := &Report{Load: Load{InTimePercent: 100, LatePercent: c.percent}, Objectives: c.objectives}
		if row := r.loadPoll()[0]; row.Icon != c.icon {
			t.Errorf("%g %% late, %+v: %+v", c.percent, c.objectives, row)
		}
	}
}

// Who gave up is among those cut off: 95 % of them are not back when one in ten never came.
func TestStormCountsThoseWhoGaveUp(t *testing.T) {
	r := sampleRetryStorm()
	r.Storms[0].Back, r.Storms[0].Attempts = 19_990, 1
	r.Storms[1].Back, r.Storms[1].BackS, r.Storms[1].Attempts = 18_006, -1, 1
	var storms string
	for _, n := range find(parsePage(t, r), "section") {
		if attr(n, "aria-labelledby") == "storms" {
			storms = wordsOf(n)
		}
	}
	for _, want := range []string{"never within 90 s: 90.03 % came back", "Not back within 90 s", "1,994 (9.97 %)", "after 58 s"} {
		if !strings.Contains(storms, want) {
			t.Errorf("the page does not say %q:\n%s", want, storms)
		}
	}
	if strings.Contains(storms, "Requests for each viewer") {
		t.Error("requests for each viewer are the same on both sides, and are said all the same")
	}
	if got, want := r.Storms[1].ReturnWords(), "90.03\u00a0% of those cut off came back within 90\u00a0s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// An objective about the few who fetch media does not pass for one about the crowd.
func TestObjectiveOfPlayersNamesThem(t *testing.T) {
	r := sampleRetryStorm()
	r.Players.Sessions = 20
	r.Objectives = []Objective{
		{Metric: "rebuffer_ratio", Expression: "avg<0.4%", Threshold: 0.4, Unit: "%", Samples: 20, Pass: true},
		{Metric: "video_start_failures", Expression: "rate<1%", Threshold: 1, Unit: "%", Samples: 240_000, Pass: true},
	}
	rows := byClass(parsePage(t, r), "what")
	if len(rows) != 2 || !strings.Contains(text(rows[0]), "of the 20 full players") || strings.Contains(text(rows[1]), "players") {
		t.Errorf("%q", []string{text(rows[0]), text(rows[1])})
	}
}

// Memory is compared within one life of a process, and marked only beyond the limit that the page states.
func TestProcessGrowth(t *testing.T) {
	for _, c := range []struct {
		p     Process
		words string
		much  bool
	}{
		{Process{RSSAt10S: 100e6, RSSLast: 105e6, GrowthPct: 5, Incarnated: 1}, "flat", false},
		{Process{RSSAt10S: 96e6, RSSLast: 328e6, GrowthPct: 241, Incarnated: 1}, "grew by 241\u00a0%", false},
		{Process{RSSAt10S: 100e6, RSSLast: 900e6, GrowthPct: 800, Incarnated: 1}, "grew by 800\u00a0%", true},
		{Process{RSSAt10S: 2e9, RSSLast: 2.9e9, GrowthPct: 45, Incarnated: 1}, "grew by 45\u00a0%", false},
		{Process{RSSAt10S: 100e6, RSSLast: 900e6, GrowthPct: 800, Incarnated: 2}, "not compared: started again", false},
	} {
		if got := c.p.GrowthWords(); got != c.words || c.p.much() != c.much {
			t.Errorf("%+v: %q, marked %v", c.p, got, c.p.much())
		}
	}
}

// Of a run that only a play API was loaded in, no row of players is drawn.
func TestNoEmptyRowsWithoutPlayers(t *testing.T) {
	r := sampleTitleFight()
	r.Players = Players{}
	for i := range r.Timeline {
		s := &r.Timeline[i]
		s.Sessions, s.RebufferRatio, s.LiveLatencyS, s.LiveLatencyP95S, s.BitrateKbps = 0, 0, -1, -1, -1
	}
	all := wordsOf(byClass(parsePage(t, r), "wide")[0])
	if strings.Contains(all, "Players on the air") || strings.Contains(all, "Rebuffering") || !strings.Contains(all, "Play starts a second") {
		t.Error(all)
	}
}
