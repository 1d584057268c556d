package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

var (
	//go:embed page.tmpl
	pageSource string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string

	pageTemplate = template.Must(template.New("page").Parse(pageSource))
	// The page's only script is allowed by its hash, so that nothing a scenario's author wrote can ever run.
	pageScriptHash = scriptHash(pageJS)
)

func scriptHash(js string) string {
	sum := sha256.Sum256([]byte(js))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// Bounds of what the page lists; the rest is in report.json.
const (
	maxMomentsShown = 200
	maxTableRows    = 60
	maxReasonsShown = 5
)

// WriteHTML writes the report as one page that needs nothing else: no network, no script to be read.
func (r *Report) WriteHTML(w io.Writer) error {
	c, _ := r.Finite()
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, c.page()); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// page is what the template prints: words and positions, nothing left to decide. A tone is ok, bad, warn or none.
type page struct {
	R                  *Report
	CSS                template.CSS
	JS                 template.JS
	ScriptHash         string
	Word, Why, Started string
	Also               []string
	Poll               []pollRow

	ObjectivesLine string
	Objectives     []objectiveRow

	Charts    []*chart
	TableHead []string
	TableRows []tableRow
	Data      []figures

	Moments     []momentRow
	MoreMoments int
	Faults      []faultRow

	Experiment *experimentBlock

	StormWords string
	Storms     []stormCard
	MoreStorms int
	Forecast   *forecastBlock

	Load        []loadRow
	LoadSplit   []splitPart
	LoadWarning string
	LoadLine    string
	Quantiles   []quantileRow
	Crowd       *crowdBlock // what is known of an open-loop crowd beside its counts
	Processes   *processBlock
	Players     []fact
	Telemetry   []fact
	LedgerTone  string
	LedgerSign  string
	Emitted     string
	Stored      string
	LeftOut     string // what timeline.ndjson does not repeat
	Safety      []checkRow
	Facts       []fact
}

type (
	pollRow     struct{ Icon, Name, Fact string }
	fact        struct{ Name, Value string }
	momentRow   struct{ At, Kind, Class, Text string }
	checkRow    struct{ Tone, Word, Name, Detail string }
	loadRow     struct{ Name, Count, Share string }
	quantileRow struct{ Name, Done, Answer, Sent string }
	tableRow    struct {
		At string
		V  []string
	}
	splitPart struct {
		Class string
		Grow  float64
	}
	faultRow struct {
		ID, Words, Settings, When, Status, Tone, Evidence, Detail, Undone, UndoneTone string
	}
	objectiveRow struct {
		Title, Code, Measured, Limit, Margin string
		Tone, StateWord                      string
		Suspect, Note                        string
		Whom                                 string // whom it counts, where they are not everybody
		Notes                                bool
		HasGauge, Over, Zone, Past           bool
		Fill                                 float64 // per cent of the gauge's width
		GaugeWords                           string
	}
	// figures is what the crosshair shows of one drawing of the chart.
	figures struct {
		ID      string
		Figures any
	}
)

func (r *Report) page() *page {
	p := &page{
		R: r, CSS: template.CSS(pageCSS), JS: template.JS(pageJS), ScriptHash: pageScriptHash,
		Word: VerdictWord(r.Verdict), Started: started(r.Started),
	}
	p.reasons(r)
	p.objectives(r)
	p.poll(r)
	p.experiment(r)
	p.timeline(r)
	p.storms(r)
	p.forecast(r)
	p.story(r)
	p.faults(r)
	p.load(r)
	p.crowd(r)
	p.processes(r)
	p.people(r)
	p.ledger(r)
	for _, c := range r.Safety {
		row := checkRow{Tone: "ok", Word: "passed", Name: c.Name, Detail: c.Detail}
		if !c.Pass {
			row.Tone, row.Word = "bad", "failed"
		}
		p.Safety = append(p.Safety, row)
	}
	slices.SortStableFunc(p.Safety, func(a, b checkRow) int { return strings.Compare(a.Tone, b.Tone) }) // bad before ok
	p.facts(r)
	return p
}

// VerdictWord is a verdict as it is said aloud: GO, NO-GO, INCONCLUSIVE.
func VerdictWord(verdict string) string { return strings.ToUpper(verdict) }

func (p *page) reasons(r *Report) {
	if len(r.Reasons) > 0 {
		p.Why = unbroken(r.Reasons[0])
		for _, s := range r.Reasons[1:min(len(r.Reasons), maxReasonsShown)] {
			p.Also = append(p.Also, unbroken(s))
		}
		return
	}
	switch r.Verdict {
	case Go:
		p.Why = "Every objective was met."
	case NoGo:
		p.Why = "An objective was missed."
	default:
		p.Why = "The rehearsal proves nothing either way."
	}
}

var hyphenated = regexp.MustCompile(`(\pL|\pN)-(\pL|\pN)`)

// unbroken keeps a name such as us-east on one line: a word joiner (U+2060) forbids the break that a hyphen allows.
func unbroken(s string) string { return hyphenated.ReplaceAllString(s, "$1-\u2060$2") }

// tally counts objectives by state.
func (r *Report) tally() (met, missed, noData int) {
	for _, o := range r.Objectives {
		switch o.State() {
		case Met:
			met++
		case Missed:
			missed++
		default:
			noData++
		}
	}
	return
}

func (p *page) objectives(r *Report) {
	met, missed, noData := r.tally()
	if n := len(r.Objectives); n > 0 {
		p.ObjectivesLine = fmt.Sprintf("%d of %d met", met, n)
		if missed > 0 {
			p.ObjectivesLine = fmt.Sprintf("%d missed, ", missed) + p.ObjectivesLine
		}
		if noData > 0 {
			p.ObjectivesLine += fmt.Sprintf(", %d without data", noData)
		}
	}
	for _, o := range r.WorstFirst() {
		row := objectiveRow{
			Title: o.Title(), Code: o.Name() + " " + o.Expression,
			Measured: o.MeasuredWords(), Limit: o.LimitWords(), Margin: o.MarginWords(),
			Tone: "ok", StateWord: "Met", Note: o.Note,
		}
		if n := r.Players.Sessions; ofPlayers[o.Metric] && n > 0 && r.Load.PlayStarts.Intended > n {
			row.Whom = "of the " + words.Plural(n, "full player")
		}
		if w := o.AggregateWords(); w != "" && w != "rate" && w != "count" {
			row.Title += ", " + w
		}
		switch o.State() {
		case Missed:
			row.Tone, row.StateWord = "bad", "Missed"
		case NoData:
			row.Tone, row.StateWord = "warn", "No data"
		}
		if f, ok := r.fault(o.Suspect); ok {
			row.Suspect = f.Words()
		}
		row.Notes = row.Suspect != "" || row.Note != ""
		row.gauge(o)
		p.Objectives = append(p.Objectives, row)
	}
}

// ofPlayers are the metrics that count full players alone: the open-loop crowd fetches no media.
var ofPlayers = map[string]bool{
	"startup_time": true, "player_start_failures": true, "rebuffer_ratio": true, "rebuffer_duration": true, "live_latency": true,
	"bitrate": true, "edge_switches": true, "playback_failures": true,
}

// limitAt is where every gauge has its limit, in per cent of its width: one line down the whole table.
const limitAt = 62.5

func (row *objectiveRow) gauge(o Objective) {
	if o.Samples == 0 || o.Threshold < 0 || o.Measured < 0 || o.Threshold == 0 && o.Pass {
		return // no data, or no length to compare
	}
	row.HasGauge = true
	switch {
	case o.Threshold > 0:
		row.Fill = o.Measured / o.Threshold * limitAt
	case o.Measured > 0:
		row.Fill = math.Inf(1)
	}
	if row.Fill > 100 {
		row.Fill, row.Past = 100, true
	}
	row.Fill = round1(row.Fill)
	row.Zone = strings.ContainsAny(o.op(), "<>")
	row.Over = strings.HasPrefix(o.op(), ">")
	row.GaugeWords = fmt.Sprintf("measured %s, must be %s", row.Measured, row.Limit)
	if row.Margin != "" {
		row.GaugeWords += ", " + row.Margin
	}
}

// poll is the director's round of the stations.
func (p *page) poll(r *Report) {
	met, missed, noData := r.tally()
	row := pollRow{"ok", "Objectives", fmt.Sprintf("%d of %d met", met, len(r.Objectives))}
	switch {
	case missed > 0:
		row.Icon, row.Fact = "bad", fmt.Sprintf("%d of %d missed", missed, len(r.Objectives))
	case noData > 0:
		row.Icon, row.Fact = "warn", fmt.Sprintf("%d of %d without data", noData, len(r.Objectives))
	case met == 0:
		row.Icon, row.Fact = "none", "none set"
	}
	p.Poll = append(p.Poll, row)

	p.Poll = append(p.Poll, r.loadPoll()...)

	var confirmed, stuck int
	for _, f := range r.Faults {
		if f.Evidence.Status == Confirmed {
			confirmed++
		}
		if !f.Restored {
			stuck++
		}
	}
	row = pollRow{"ok", "Faults", fmt.Sprintf("%d of %d confirmed", confirmed, len(r.Faults))}
	switch {
	case len(r.Faults) == 0:
		row.Icon, row.Fact = "none", "none planned"
	case stuck > 0:
		row.Icon, row.Fact = "bad", fmt.Sprintf("%d of %d not undone", stuck, len(r.Faults))
	case confirmed < len(r.Faults):
		row.Icon = "warn"
	}
	p.Poll = append(p.Poll, row)

	if e := r.Experiment; e != nil {
		p.Poll = append(p.Poll, e.poll(words.Clock{Span: r.span()}))
	}

	t := r.Telemetry
	row = pollRow{"ok", "Telemetry", "all " + words.Plural(t.Emitted, "event") + " stored"}
	switch {
	case t.Emitted == 0 && t.Stored == 0:
		row.Icon, row.Fact = "none", "none emitted"
	case t.Lost > 0:
		row.Icon, row.Fact = "warn", words.Plural(t.Lost, "event")+" lost"
	case t.Emitted != t.Stored:
		row.Icon, row.Fact = "warn", words.Count(t.Emitted)+" emitted, "+words.Count(t.Stored)+" stored"
	}
	p.Poll = append(p.Poll, row)

	passed := 0
	for _, c := range r.Safety {
		if c.Pass {
			passed++
		}
	}
	row = pollRow{"ok", "Safety", fmt.Sprintf("%d of %d checks passed", passed, len(r.Safety))}
	switch {
	case len(r.Safety) == 0:
		row.Icon, row.Fact = "none", "no checks"
	case passed < len(r.Safety):
		row.Icon, row.Fact = "bad", fmt.Sprintf("%d of %d checks failed", len(r.Safety)-passed, len(r.Safety))
	}
	p.Poll = append(p.Poll, row)
}

func (p *page) timeline(r *Report) {
	clk := words.Clock{Span: r.span()}
	for _, l := range []layout{wide, narrow} {
		c := r.drawChart(l)
		if c == nil {
			return
		}
		if _, width := bins(r.Timeline, l.maxBins); width > 1 {
			c.Note = "each step is " + words.Lasting(float64(width)) + " and shows its worst second"
		}
		p.Charts = append(p.Charts, c)
		p.Data = append(p.Data, figures{c.Class + "-figures", r.crosshair(c, l, clk)})
	}
	bs, _ := bins(r.Timeline, maxTableRows)
	has := r.crowdColumns()
	p.TableHead = figureNames(r, has)
	for _, b := range bs {
		p.TableRows = append(p.TableRows, tableRow{clk.At(float64(b.t)), figureWords(r, has, b)})
	}
}

// hasLoad says whether play starts were asked for or seen.
func (r *Report) hasLoad() bool {
	return r.Load.PlayStarts.Intended > 0 || slices.ContainsFunc(r.Timeline, func(s Second) bool { return s.PlayStarts > 0 || s.PlayFailures > 0 })
}

func figureNames(r *Report, has crowdColumns) []string {
	names := []string{"sessions", "rebuffering", "latency p50", "latency p95", "bitrate"}
	if r.hasLoad() {
		names = append(append([]string{"starts/s", "failed/s"}, has.names()...), names...)
	}
	return names
}

func figureWords(r *Report, has crowdColumns, b bin) []string {
	orDash := func(v float64, unit string) string {
		if v < 0 {
			return "–"
		}
		if unit == "s" {
			return words.Seconds(v)
		}
		return words.Significant(v, 3) + words.NBSP + unit
	}
	row := []string{words.Significant(b.sessions, 4), orDash(b.rebuffer, "%"), orDash(b.p50, "s"), orDash(b.p95, "s"), bitrate(b.bitrate)}
	if r.hasLoad() {
		row = append(append([]string{words.Significant(b.starts, 4), words.Significant(b.fails, 4)}, has.words(b)...), row...)
	}
	return row
}

func bitrate(kbps float64) string {
	switch {
	case kbps < 0:
		return "–"
	case kbps >= 1000:
		return words.Significant(kbps/1000, 3) + words.NBSP + "Mb/s"
	}
	return words.Significant(kbps, 3) + words.NBSP + "kb/s"
}

type (
	crosshair struct {
		W      float64          `json:"w"`
		X0     float64          `json:"x0"`
		X1     float64          `json:"x1"`
		T0     float64          `json:"t0"`
		T1     float64          `json:"t1"`
		Names  []string         `json:"names"`
		Bins   []crosshairBin   `json:"bins"`
		Faults []crosshairFault `json:"faults"`
	}
	crosshairBin struct {
		T   float64  `json:"t"`
		End float64  `json:"end"`
		At  string   `json:"at"`
		V   []string `json:"v"`
	}
	crosshairFault struct {
		From float64 `json:"from"`
		To   float64 `json:"to"`
		Kind string  `json:"kind"`
		Name string  `json:"name"`
	}
)

func (r *Report) crosshair(c *chart, l layout, clk words.Clock) crosshair {
	has := r.crowdColumns()
	x := crosshair{W: c.W, X0: c.X0, X1: c.X1, T0: c.T0, T1: c.T1, Names: figureNames(r, has), Bins: []crosshairBin{}, Faults: []crosshairFault{}}
	bs, width := bins(r.Timeline, l.maxBins)
	for _, b := range bs {
		at := clk.At(float64(b.t))
		if width > 1 {
			at += " to " + clk.At(float64(b.end))
		}
		x.Bins = append(x.Bins, crosshairBin{float64(b.t), float64(b.end), at, figureWords(r, has, b)})
	}
	for _, s := range r.stretches() {
		x.Faults = append(x.Faults, crosshairFault{s.at, s.at + math.Max(s.lasts, 1), s.kind, s.words})
	}
	return x
}

func (p *page) story(r *Report) {
	clk := words.Clock{Span: r.span()}
	for i, m := range r.Moments {
		if i == maxMomentsShown {
			p.MoreMoments = len(r.Moments) - i
			break
		}
		row := momentRow{At: clk.At(m.AtS), Kind: m.Kind, Text: m.Text}
		if m.Kind == "fault" || m.Kind == "evidence" {
			row.Class = "fault"
		}
		p.Moments = append(p.Moments, row)
	}
}

func (p *page) faults(r *Report) {
	clk := words.Clock{Span: r.span()}
	for _, f := range r.Faults {
		row := faultRow{
			ID: f.ID, Words: f.Words(), Status: f.Evidence.Status, Tone: evidenceTone(f.Evidence.Status),
			When:     clk.At(f.AtS) + " to " + clk.At(f.AtS+f.ForS) + ", " + words.Lasting(f.ForS),
			Settings: f.Settings(), Evidence: f.EvidenceWords(), Detail: f.Evidence.Detail, Undone: "yes", UndoneTone: "ok",
		}
		if row.Detail == row.Evidence {
			row.Detail = ""
		}
		if !f.Injected() {
			row.When = "not injected"
			row.Undone, row.UndoneTone = "nothing to undo", "none"
		}
		if !f.Restored {
			row.Undone, row.UndoneTone = "no", "bad"
		}
		p.Faults = append(p.Faults, row)
	}
}

func evidenceTone(status string) string {
	switch status {
	case Confirmed:
		return "ok"
	case Mismatch:
		return "bad"
	}
	return "warn"
}

// partOf writes v of whole in per cent, and never 100 % or 0 % of what is not.
func partOf(v, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return words.Percent(float64(min(v, whole)) / float64(whole) * 100)
}

func (p *page) load(r *Report) {
	n := r.Load.PlayStarts
	if n.Intended == 0 && n.Sent == 0 {
		return
	}
	for _, row := range []struct {
		name string
		n    uint64
	}{{"intended", n.Intended}, {"sent", n.Sent}, {"started", n.OK}, {"shed", n.Shed}, {"failed", n.Failed}, {"dropped, never sent", n.Dropped}} {
		p.Load = append(p.Load, loadRow{row.name, words.Count(row.n), partOf(row.n, n.Intended)})
	}
	for _, s := range []struct {
		class string
		n     uint64
	}{{"is-ok", n.OK}, {"is-shed", n.Shed}, {"is-failed", n.Failed}, {"is-dropped", n.Dropped}} {
		if s.n > 0 {
			p.LoadSplit = append(p.LoadSplit, splitPart{s.class, float64(s.n)})
		}
	}
	if n.Intended != n.Sent+n.Dropped || n.Sent != n.OK+n.Shed+n.Failed {
		p.LoadWarning = "these counts do not add up"
	}
	l, lag, answer := r.Load.LatencyMS, r.Load.SendLagMS, r.Load.SentToDoneMS
	p.LoadLine = "open loop: times run from the intended moment"
	if answer != nil {
		p.LoadLine = "open loop: nobody waits for anybody else's answer"
	}
	for _, q := range []struct {
		name string
		of   func(Quantiles) float64
	}{
		{"median", func(q Quantiles) float64 { return q.P50 }},
		{"95th percentile", func(q Quantiles) float64 { return q.P95 }},
		{"99th percentile", func(q Quantiles) float64 { return q.P99 }},
		{"99.9th percentile", func(q Quantiles) float64 { return q.P999 }},
		{"slowest", func(q Quantiles) float64 { return q.Max }},
	} {
		row := quantileRow{Name: q.name, Done: words.Millis(q.of(l)), Sent: words.Millis(q.of(lag))}
		if answer != nil {
			row.Answer = words.Millis(q.of(*answer))
		}
		p.Quantiles = append(p.Quantiles, row)
	}
}

func (p *page) people(r *Report) {
	v := r.Players
	p.Players = []fact{{"Sessions", words.Count(v.Sessions)}, {"Failed to start", words.Count(v.StartFailures)}}
	if v.Sessions == 0 {
		return
	}
	ratio := "–"
	if t := v.PlayingS + v.RebufferS; t > 0 {
		ratio = words.Significant(v.RebufferS/t*100, 3) + words.NBSP + "% of viewing time"
	}
	p.Players = append(p.Players,
		fact{"Startup, median", lasting2(v.StartupP50S)},
		fact{"Startup, 95th percentile", lasting2(v.StartupP95S)},
		fact{"Time played", words.Lasting(v.PlayingS)},
		fact{"Rebuffering", ratio},
		fact{"Stalls", words.Plural(v.Rebuffers, "stall") + ", " + lasting2(v.RebufferS) + " in all"},
		fact{"Longest stall", lasting2(v.LongestStallS)},
		fact{"Skipped to catch up", lasting2(v.SkippedS)},
		fact{"Edge switches", words.Count(v.EdgeSwitches)},
		fact{"Behind live, 95th percentile", lasting2(v.LiveLatencyP95)},
	)
}

// lasting2 writes short times with three digits: "1.42 s", "7.34 ms".
func lasting2(s float64) string {
	if s >= 120 {
		return words.Lasting(s)
	}
	return words.Seconds(s)
}

func (p *page) ledger(r *Report) {
	t := r.Telemetry
	p.Emitted, p.Stored = words.Count(t.Emitted), words.Count(t.Stored)
	p.LedgerTone, p.LedgerSign = "ok", "="
	if t.Emitted != t.Stored {
		p.LedgerTone, p.LedgerSign = "bad", "≠"
	}
	p.Telemetry = []fact{
		{"Lost", words.Count(t.Lost)},
		{"Arrived twice, stored once", words.Count(t.Duplicated)},
		{"Written to readable, 95th percentile", lasting2(t.LagS)},
		{"Kafka", t.Kafka},
		{"ClickHouse", t.ClickHouse},
	}
	if t.LeftOut > 0 {
		p.LeftOut = words.Plural(t.LeftOut, "play start")
	}
}

func (p *page) facts(r *Report) {
	target := r.Target
	if target == "" || target == "reference" {
		target = "the reference pipeline"
	}
	p.Facts = []fact{{"Name", r.Scenario}, {"Target", target}}
	if len(r.Topology) > 0 {
		var regions []string
		for _, g := range r.Topology {
			regions = append(regions, g.Name+" ("+words.Plural(g.Edges, "edge")+")")
		}
		p.Facts = append(p.Facts, fact{"Regions", strings.Join(regions, ", ")})
	}
	p.Facts = append(p.Facts,
		fact{"Seed", strconv.FormatUint(r.Seed, 10)},
		fact{"Started", p.Started},
		fact{"Whole run", words.Lasting(r.DurationS)},
		fact{"Run", r.Run},
	)
}
