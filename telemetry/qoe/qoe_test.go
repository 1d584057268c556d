package qoe_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/procstat"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

func TestMain(m *testing.M) { chtest.Main(m) }

var start = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// run holds a small rehearsal whose every figure can be worked out by hand.
func fixture() []event.Event {
	var events []event.Event
	add := func(t float64, e event.Event) {
		e.At = at(t)
		events = append(events, e)
	}
	add(-5, event.Event{Kind: event.Phase, Detail: "warm-up"})
	// The crowd: 7 ok, 1 shed, 1 failed, 1 dropped.
	for i := range 7 {
		add(0.5, event.Event{Kind: event.PlayStart, Status: "ok", Component: "starts", Session: fmt.Sprint("c", i), Region: "us-east", Device: "tv",
			Value: float64(100 * (i + 1)), LagMS: float64(i), Attempts: 1})
	}
	add(1.5, event.Event{Kind: event.PlayStart, Status: "shed", Region: "us-east", Value: 1000, LagMS: 1, Attempts: 2})
	add(1.5, event.Event{Kind: event.PlayStart, Status: "failed", Region: "us-west", Value: 2000, LagMS: 2, Attempts: 3})
	add(1.6, event.Event{Kind: event.PlayStart, Status: "dropped", Region: "us-west", Value: 9999, LagMS: 9999})
	// Players a and b watch; c gives up after its play start; d never gets a session.
	for _, s := range []string{"a", "b", "c"} {
		add(0.2, event.Event{Kind: event.PlayStart, Status: "ok", Component: "player", Session: s, Region: "us-east", Device: "phone", Value: 50})
	}
	add(0.2, event.Event{Kind: event.PlayStart, Status: "failed", Component: "player", Region: "us-east", Device: "phone", Value: 3000})
	add(3, event.Event{Kind: event.StartFailed, Session: "c", Region: "us-east", Device: "phone", Value: 3000})
	add(3, event.Event{Kind: event.StartFailed, Session: "d", Region: "us-east", Device: "phone", Value: 3000})
	add(1, event.Event{Kind: event.FirstFrame, Session: "a", Region: "us-east", Device: "phone", Edge: "us-east-1", Rendition: "720p", Value: 800})
	add(2, event.Event{Kind: event.FirstFrame, Session: "b", Region: "us-west", Device: "phone", Edge: "us-west-1", Rendition: "360p", Value: 1800})
	for i := range 4 { // a plays 4 s without a stall
		add(2+float64(i), event.Event{Kind: event.Heartbeat, Session: "a", Region: "us-east", Device: "phone", Edge: "us-east-1", State: "playing",
			Rendition: "720p", PlayingMS: 1000, LatencyMS: 5000, BitrateKbps: 3000})
	}
	// b plays 3 s and stalls 1 s, during which it moves to another edge, and then fails.
	for i := range 3 {
		add(3+float64(i), event.Event{Kind: event.Heartbeat, Session: "b", Region: "us-west", Device: "phone", Edge: "us-west-1", State: "playing",
			Rendition: "360p", PlayingMS: 1000, LatencyMS: 7000, BitrateKbps: 1000})
	}
	add(6, event.Event{Kind: event.Heartbeat, Session: "b", Region: "us-west", Device: "phone", Edge: "us-west-1", State: "rebuffering", Rendition: "360p", RebufferMS: 1000, LatencyMS: 8000})
	add(5, event.Event{Kind: event.Rebuffer, Session: "b", Region: "us-west", Device: "phone", Edge: "us-west-1", Rendition: "360p", Value: 1000})
	add(6, event.Event{Kind: event.EdgeSwitch, Session: "b", Region: "us-east", Device: "phone", Edge: "us-east-1", Detail: "timeout"})
	add(7, event.Event{Kind: event.SessionEnd, Session: "a", Status: "ok", Region: "us-east", Device: "phone", Edge: "us-east-1", Rendition: "720p", PlayingMS: 4000})
	add(7, event.Event{Kind: event.SessionEnd, Session: "b", Status: "failed", Region: "us-east", Device: "phone", Edge: "us-east-1", Rendition: "360p", PlayingMS: 3000, RebufferMS: 1000, Nums: map[string]float64{"skipped_ms": 2500}})
	add(7, event.Event{Kind: event.SessionEnd, Session: "c", Status: "failed", Region: "us-east", Device: "phone"})
	add(4, event.Event{Kind: event.Fault, Fault: "region-1", Status: "injected", Region: "us-west", Nums: map[string]float64{"a": 1}})
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq = "r", fmt.Sprint("s", i%2), uint64(i/2+1)
		events[i].Written = events[i].At
	}
	return events
}

func open(t testing.TB) *clickhouse.DB {
	t.Helper()
	p := chtest.Start(t, t.TempDir())
	db, err := clickhouse.Open(t.Context(), p.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func store(t testing.TB, db *clickhouse.DB, events []event.Event) {
	t.Helper()
	var rows clickhouse.Rows
	for i := range events {
		rows.Append(&events[i], clickhouse.Origin{Topic: "t", Offset: int64(i)})
	}
	if err := db.Insert(t.Context(), &rows, "token", at(60)); err != nil {
		t.Fatal(err)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }

func TestMeasures(t *testing.T) {
	db := open(t)
	store(t, db, fixture())
	where := func(kv ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		q    qoe.Query
		want float64
		n    uint64
		unit string
	}{
		{qoe.Query{Metric: "startup_time", Aggregate: "p", Quantile: 95}, 0.8 + 0.95, 2, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "p", Quantile: 0}, 0.8, 2, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "p", Quantile: 100}, 1.8, 2, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "avg"}, 1.3, 2, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "med"}, 1.3, 2, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "count"}, 2, 2, "count"},
		{qoe.Query{Metric: "startup_time", Aggregate: "max", Where: where("region", "us-east")}, 0.8, 1, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "max", Where: where("region", "us-east", "device", "tv")}, 0, 0, "s"},
		{qoe.Query{Metric: "startup_time", Aggregate: "max", Where: where("region", "' OR 1 = 1 --")}, 0, 0, "s"},
		{qoe.Query{Metric: "play_start_time", Aggregate: "max"}, 0.7, 10, "s"},
		{qoe.Query{Metric: "play_start_time", Aggregate: "min"}, 0.05, 10, "s"},
		{qoe.Query{Metric: "send_lag", Aggregate: "max"}, 0.006, 13, "s"},
		{qoe.Query{Metric: "send_lag", Aggregate: "avg", Where: where("device", "tv")}, 0.003, 7, "s"},
		{qoe.Query{Metric: "send_lag", Aggregate: "count"}, 13, 13, "count"},
		{qoe.Query{Metric: "play_starts_on_time", Aggregate: "rate"}, 100 * 13. / 14, 14, "%"},
		{qoe.Query{Metric: "play_starts_on_time", Aggregate: "count", Where: where("region", "us-west")}, 1, 2, "count"},
		{qoe.Query{Metric: "retry_amplification", Aggregate: "avg"}, 12. / 9, 9, "count"},
		{qoe.Query{Metric: "retry_amplification", Aggregate: "max", Where: where("region", "us-west")}, 3, 1, "count"},
		// 14 asked; shed, failed, dropped, the player without a session, and the one that gave up later.
		{qoe.Query{Metric: "video_start_failures", Aggregate: "rate"}, 100 * 5. / 14, 14, "%"},
		{qoe.Query{Metric: "video_start_failures", Aggregate: "count"}, 5, 14, "count"},
		{qoe.Query{Metric: "video_start_failures", Aggregate: "rate", Where: where("device", "tv")}, 0, 7, "%"},
		// a and b had a first frame, c and d gave up: the crowd's starts do not dilute it.
		{qoe.Query{Metric: "player_start_failures", Aggregate: "rate"}, 50, 4, "%"},
		{qoe.Query{Metric: "player_start_failures", Aggregate: "count"}, 2, 4, "count"},
		{qoe.Query{Metric: "player_start_failures", Aggregate: "rate", Where: where("region", "us-west")}, 0, 1, "%"},
		{qoe.Query{Metric: "player_start_failures", Aggregate: "rate", Where: where("device", "tv")}, 0, 0, "%"},
		{qoe.Query{Metric: "rebuffer_ratio", Aggregate: "avg"}, 12.5, 2, "%"},
		{qoe.Query{Metric: "rebuffer_ratio", Aggregate: "max"}, 25, 2, "%"},
		{qoe.Query{Metric: "rebuffer_ratio", Aggregate: "rate"}, 12.5, 2, "%"},
		{qoe.Query{Metric: "rebuffer_ratio", Aggregate: "rate", Where: where("region", "us-west")}, 25, 1, "%"},
		{qoe.Query{Metric: "rebuffer_ratio", Aggregate: "rate", Where: where("rendition", "360p")}, 25, 1, "%"},
		{qoe.Query{Metric: "rebuffer_duration", Aggregate: "max", Where: where("rendition", "360p")}, 1, 1, "s"},
		{qoe.Query{Metric: "rebuffer_duration", Aggregate: "p", Quantile: 50}, 1, 1, "s"},
		{qoe.Query{Metric: "rebuffer_duration", Aggregate: "max", Where: where("region", "us-east")}, 0, 1, "s"}, // nobody stalled, one watched
		{qoe.Query{Metric: "rebuffer_duration", Aggregate: "max", Where: where("region", "mars")}, 0, 0, "s"},
		{qoe.Query{Metric: "live_latency", Aggregate: "p", Quantile: 95}, 7.65, 8, "s"}, // 5 5 5 5 7 7 7, and 8 in a stall
		{qoe.Query{Metric: "live_latency", Aggregate: "avg", Where: where("rendition", "720p")}, 5, 4, "s"},
		{qoe.Query{Metric: "bitrate", Aggregate: "avg"}, 15000. / 7, 7, "kb/s"},
		{qoe.Query{Metric: "edge_switches", Aggregate: "count"}, 1, 2, "count"},
		{qoe.Query{Metric: "edge_switches", Aggregate: "avg"}, 0.5, 2, "count"},
		{qoe.Query{Metric: "playback_failures", Aggregate: "rate"}, 50, 2, "%"},
		{qoe.Query{Metric: "playback_failures", Aggregate: "count"}, 1, 2, "count"},
		// b began in us-west and failed in us-east, where a went on.
		{qoe.Query{Metric: "playback_failures", Aggregate: "rate", Where: where("region", "us-east")}, 50, 2, "%"},
		{qoe.Query{Metric: "playback_failures", Aggregate: "rate", Where: where("region", "us-west")}, 0, 0, "%"},
		{qoe.Query{Metric: "playback_failures", Aggregate: "count", Where: where("edge", "us-east-1", "rendition", "360p")}, 1, 1, "count"},
		{qoe.Query{Metric: "telemetry_loss", Aggregate: "rate", Ledger: qoe.Ledger{Emitted: 48, Dropped: 2}}, 100 * 17. / 50, 50, "%"},
		{qoe.Query{Metric: "telemetry_loss", Aggregate: "count", Ledger: qoe.Ledger{Emitted: 33}}, 0, 33, "count"},
	} {
		got, err := qoe.Measure(t.Context(), db, "r", c.q)
		if err != nil {
			t.Errorf("%+v: %v", c.q, err)
			continue
		}
		if !near(got.Value, c.want) || got.Samples != c.n || got.Unit != c.unit {
			t.Errorf("%+v:\n got  %+v\n want %v of %d in %s", c.q, got, c.want, c.n, c.unit)
		}
	}
}

// Every aggregate of every metric, with every filter, is SQL that the engine takes; of an empty run it is 0 of nothing.
func TestEveryMeasureOfNothing(t *testing.T) {
	db := open(t)
	for _, m := range qoe.Metrics() {
		where := make(map[string]string)
		for _, d := range m.Dimensions {
			where[d] = "x"
		}
		for _, a := range m.Aggregates {
			for _, w := range []map[string]string{nil, where} {
				got, err := qoe.Measure(t.Context(), db, "none", qoe.Query{Metric: m.Name, Aggregate: a, Quantile: 99.9, Where: w})
				if err != nil || got.Value != 0 || got.Samples != 0 {
					t.Errorf("%s %s %v: %+v, %v", m.Name, a, w, got, err)
				}
			}
		}
	}
}

// A figure that is no number is unknown, whatever it was computed from: never 0 of something, which would pass.
func TestWhatIsNoNumberIsUnknown(t *testing.T) {
	db := open(t)
	events := []event.Event{
		{Kind: event.Heartbeat, Session: "a", State: "playing", PlayingMS: 1000},
		{Kind: event.Rebuffer, Session: "a", Value: math.Inf(1)},
	}
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq, events[i].At, events[i].Written = "r", "s", uint64(i+1), start, start
	}
	store(t, db, events)
	got, err := qoe.Measure(t.Context(), db, "r", qoe.Query{Metric: "rebuffer_duration", Aggregate: "max"})
	if err != nil || got.Value != 0 || got.Samples != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestValidate(t *testing.T) {
	for want, q := range map[string]qoe.Query{
		`no metric "startup"`:                       {Metric: "startup"},
		`startup_time has no "rate": it has p, avg`: {Metric: "startup_time", Aggregate: "rate"},
		`p(101) is not between`:                     {Metric: "startup_time", Aggregate: "p", Quantile: 101},
		`p(NaN) is not between`:                     {Metric: "startup_time", Aggregate: "p", Quantile: math.NaN()},
		`startup_time cannot be filtered by "run"`:  {Metric: "startup_time", Aggregate: "avg", Where: map[string]string{"run": "x"}},
	} {
		if err := q.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", q, err, want)
		}
	}
}

func TestReport(t *testing.T) {
	db := open(t)
	events := fixture()
	store(t, db, events)
	ctx := t.Context()

	load, err := qoe.LoadOf(ctx, db, "r")
	if err != nil {
		t.Fatal(err)
	}
	if load.Intended != 14 || load.Sent != 13 || load.OK != 10 || load.Shed != 1 || load.Failed != 2 || load.Dropped != 1 ||
		load.LatencyMS.P50 != 400 || load.LatencyMS.Max != 3000 || load.SendLagMS.Max != 6 {
		t.Errorf("%+v", load)
	}

	players, err := qoe.PlayersOf(ctx, db, "r")
	if err != nil {
		t.Fatal(err)
	}
	want := qoe.Players{Sessions: 4, StartFailures: 2, StartupP50S: 1.3, StartupP95S: 1.75, PlayingS: 7, RebufferS: 1, Rebuffers: 1,
		LongestStallS: 1, EdgeSwitches: 1, SkippedS: 2.5, LiveLatencyP50: 6, LiveLatencyP95: 7.65, BitrateKbps: 15000. / 7}
	if fmt.Sprintf("%.6v", players) != fmt.Sprintf("%.6v", want) {
		t.Errorf("%+v\n%+v", players, want)
	}

	seconds, err := qoe.Timeline(ctx, db, "r", start, 8)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range seconds {
		got = append(got, fmt.Sprint(s))
	}
	wantSeconds := []string{
		"{0 10 1 0 0 -1 -1 -1}",
		"{1 0 3 0 0 -1 -1 -1}",
		"{2 0 0 1 0 5 5 3000}",
		"{3 0 0 2 0 6 6.9 2000}",
		"{4 0 0 2 0 6 6.9 2000}",
		"{5 0 0 2 0 6 6.9 2000}",
		"{6 0 0 1 100 8 8 -1}",
		"{7 0 0 0 0 -1 -1 -1}",
	}
	if !slices.Equal(got, wantSeconds) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}

	d, err := qoe.DeliveryOf(ctx, db, "r")
	if err != nil {
		t.Fatal(err)
	}
	if n := uint64(len(events)); d.Stored != n || d.Twice != 0 || d.Sources["s0"]+d.Sources["s1"] != n || d.LagMaxS != 65 {
		t.Errorf("%+v", d)
	}

	var story []string
	err = qoe.Events(ctx, db, "r", qoe.Story, 10, func(e event.Event) error {
		story = append(story, fmt.Sprint(e.At.Sub(start), " ", e.Kind, " ", e.Detail, e.Fault, e.Nums))
		return nil
	})
	if err != nil || !slices.Equal(story, []string{"-5s phase warm-upmap[]", "4s fault region-1map[a:1]"}) {
		t.Errorf("%q, %v", story, err)
	}

	stalls, err := qoe.Stalls(ctx, db, "r")
	if err != nil || len(stalls) != 1 || stalls[0] != (qoe.Stall{At: at(5), Sessions: 1, LongestS: 1, Region: "us-west"}) {
		t.Errorf("%+v, %v", stalls, err)
	}
}

func TestExportIsEveryEventInOrder(t *testing.T) {
	db := open(t)
	events := fixture()
	store(t, db, events)
	var out bytes.Buffer
	n, err := qoe.Export(t.Context(), db, "r", &out)
	if err != nil || n != uint64(len(events)) {
		t.Fatal(n, err)
	}
	slices.SortFunc(events, func(a, b event.Event) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		if c := strings.Compare(a.Source, b.Source); c != 0 {
			return c
		}
		return int(a.Seq) - int(b.Seq)
	})
	var want bytes.Buffer
	for i := range events {
		want.Write(append(event.Append(nil, &events[i]), '\n'))
	}
	if !bytes.Equal(out.Bytes(), want.Bytes()) {
		t.Errorf("got\n%s\nwant\n%s", &out, &want)
	}
}

// A sample leaves out play starts of the crowd, of each status no more than asked, and nothing else; it is even, and the
// same every time.
func TestExportSample(t *testing.T) {
	db := open(t)
	events := fixture()
	const crowd = 5000
	for i := range crowd {
		events = append(events, event.Event{Run: "r", Source: fmt.Sprint("c", i%3), Seq: uint64(i/3 + 1), At: at(float64(i) / 100), Written: start,
			Kind: event.PlayStart, Status: "ok", Component: "starts", Session: fmt.Sprint(i)})
	}
	store(t, db, events)
	lines := func(most int) (out string, left uint64) {
		t.Helper()
		var b bytes.Buffer
		n, left, err := qoe.ExportSample(t.Context(), db, "r", most, &b)
		if err != nil || int(n) != strings.Count(b.String(), "\n") || int(n+left) != len(events) {
			t.Fatalf("%d written, %d left out of %d, %v", n, left, len(events), err)
		}
		return b.String(), left
	}
	const ok = crowd + 7 // of the fixture
	if _, left := lines(ok); left != 0 {
		t.Errorf("%d left out of what is not too much", left)
	}
	out, left := lines(100)
	if left != ok-100 {
		t.Errorf("%d left out, want %d", left, ok-100)
	}
	if again, _ := lines(100); again != out {
		t.Error("not the same sample again")
	}
	early := 0
	var d event.Decoder
	for line := range strings.Lines(out) {
		var e event.Event
		if err := d.Decode([]byte(strings.TrimSuffix(line, "\n")), &e); err != nil {
			t.Fatal(err)
		}
		if e.Component == "starts" && e.At.Before(start.Add(25*time.Second)) {
			early++
		}
	}
	if early < 25 || early > 75 { // of 100, in the first half
		t.Errorf("%d of 100 in the first half", early)
	}
	for _, status := range []string{"shed", "failed", "dropped"} { // there are few of them
		if !strings.Contains(out, `"status":"`+status+`"`) {
			t.Errorf("no %s play start in the sample", status)
		}
	}
	const crowdAll = ok + 3
	if out, left := lines(0); strings.Contains(out, `"component":"starts"`) || left != crowdAll || strings.Count(out, "\n") != len(events)-crowdAll {
		t.Errorf("%d left out, not every one of the crowd, or not everything else", left)
	}
}

func TestProcesses(t *testing.T) {
	db := open(t)
	var events []event.Event
	for second := -3; second < 30; second++ {
		rss, cpu := min(float64(second+5), 17)*1e6, float64(second+3) // grows until T+12
		events = append(events,
			procstat.Sample{RSS: uint64(rss), CPU: time.Duration(cpu) * time.Second}.Event("store", at(float64(second))),
			procstat.Sample{RSS: 5e6, CPU: time.Duration((second+3)%10) * time.Second}.Event("region/us-east", at(float64(second)))) // killed every 10 s
	}
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq, events[i].Written = "r", "s", uint64(i+1), events[i].At
	}
	store(t, db, events)
	got, err := qoe.Processes(t.Context(), db, "r", start, at(30))
	want := []qoe.Process{
		{Name: "region/us-east", SettledMB: 5, PeakMB: 5, LastMB: 5, CPUS: 9 + 9 + 9 + 2, Samples: 30},
		{Name: "store", SettledMB: 15, PeakMB: 17, LastMB: 17, CPUS: 32, Samples: 30},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if got, err := qoe.Processes(t.Context(), db, "none", start, at(30)); len(got) != 0 || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func BenchmarkExport(b *testing.B) {
	db := open(b)
	var events []event.Event
	for i := range 200_000 {
		events = append(events, event.Event{Run: "r", Source: "s", Seq: uint64(i + 1), At: at(float64(i) / 1000), Written: start, Kind: event.Heartbeat,
			Session: fmt.Sprint("s", i%1000), State: "playing", PlayingMS: 1000, LatencyMS: 5000})
	}
	store(b, db, events)
	for b.Loop() {
		if n, err := qoe.Export(b.Context(), db, "r", io.Discard); err != nil || n != uint64(len(events)) {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(len(events)*b.N)/b.Elapsed().Seconds(), "events/s")
}

func TestAPartOfTheEvent(t *testing.T) {
	db := open(t)
	var events []event.Event
	for second, n := range []int{5, 3, 0, 4} { // ok play starts in each
		for i := range n {
			events = append(events, event.Event{Kind: event.PlayStart, Status: "ok", Region: "us-east", Attempts: 1, At: at(float64(second) + 0.1 + 0.1*float64(i))})
		}
		for _, source := range []float64{1, 2} { // two processes send the crowd
			events = append(events, event.Event{Kind: event.LoadStats, At: at(float64(second) + 0.9),
				Nums: map[string]float64{"scheduled": 10 * source, "requests": 10*source + 15*float64(second)}})
		}
	}
	events = append(events, event.Event{Kind: event.PlayStart, Status: "failed", At: at(3.9)})
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq, events[i].Written = "r", "s", uint64(i+1), events[i].At
	}
	store(t, db, events)
	for _, c := range []struct {
		metric, aggregate string
		from, to          float64 // of no length: the whole
		value             float64
		samples           uint64
	}{
		{"play_starts_per_second", qoe.Max, 0, 0, 5, 4},
		{"play_starts_per_second", qoe.Min, 0, 0, 0, 4},
		{"play_starts_per_second", qoe.Min, 0, 2, 3, 2},
		{"play_starts_per_second", qoe.Min, 3, 6, 0, 3}, // nothing came in the last two seconds
		{"load_amplification", qoe.Max, 0, 0, 4, 4},     // (10+45 + 20+45) / 30
		{"load_amplification", qoe.Max, 0, 2, 2, 2},
		{"video_start_failures", qoe.Rate, 0, 3, 0, 8},
		{"video_start_failures", qoe.Rate, 3, 4, 20, 5},
	} {
		q := qoe.Query{Metric: c.metric, Aggregate: c.aggregate, Zero: start}
		if c.to > c.from {
			q.From, q.To = at(c.from), at(c.to)
		}
		got, err := qoe.Measure(t.Context(), db, "r", q)
		if err != nil {
			t.Fatal(err)
		}
		if !near(got.Value, c.value) || got.Samples != c.samples {
			t.Errorf("%s %s from %v to %v: %v of %d, want %v of %d", c.metric, c.aggregate, c.from, c.to, got.Value, got.Samples, c.value, c.samples)
		}
	}
	if _, err := qoe.Measure(t.Context(), db, "r", qoe.Query{Metric: "telemetry_loss", Aggregate: qoe.Rate, From: start}); err == nil {
		t.Error("the loss of a part of the event was measured")
	}
	// No full player is among them.
	for _, m := range qoe.Metrics() {
		if m.Name == "telemetry_loss" {
			continue
		}
		got, err := qoe.Measure(t.Context(), db, "r", qoe.Query{Metric: m.Name, Aggregate: m.Aggregates[len(m.Aggregates)-1], Zero: start})
		if err != nil || m.Players != (got.Samples == 0) {
			t.Errorf("%s comes from full players alone: %v, and of others there are %d samples, %v", m.Name, m.Players, got.Samples, err)
		}
		if _, ok := qoe.Lookup(m.Instead); !ok && m.Instead != "" {
			t.Errorf("instead of %s: no metric %q", m.Name, m.Instead)
		}
	}
}

func TestLoadAndReturns(t *testing.T) {
	db := open(t)
	var events []event.Event
	for second := range 3 {
		events = append(events, event.Event{Kind: event.LoadStats, At: at(float64(second) + 0.5),
			Nums: map[string]float64{"scheduled": 10, "requests": 10 * float64(second+1), "shed": float64(second), "sent": 9, "late": float64(second)}})
	}
	for i := range 20 { // one of 20 never comes back
		e := event.Event{Kind: event.PlayStart, State: "return", Status: "ok", Attempts: uint32(1 + i%2), At: at(1 + float64(i)/10)}
		if i == 19 {
			e.Status = "failed"
		}
		events = append(events, e)
	}
	events = append(events, event.Event{Kind: event.PlayStart, Status: "ok", Attempts: 9, At: at(2)})
	for i := range events {
		events[i].Run, events[i].Source, events[i].Seq, events[i].Written = "r", "s", uint64(i+1), events[i].At
	}
	store(t, db, events)
	seconds, err := qoe.LoadSeconds(t.Context(), db, "r", start, 4)
	if want := []qoe.LoadSecond{{10, 10, 0}, {10, 20, 1}, {10, 30, 2}, {}}; err != nil || !slices.Equal(seconds, want) {
		t.Errorf("%v, %v, want %v", seconds, err, want)
	}
	if got, err := qoe.SendingOf(t.Context(), db, "r"); err != nil || got != (qoe.Sending{Sent: 27, Late: 3}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := qoe.SendingOf(t.Context(), db, "nobody's"); err != nil || got != (qoe.Sending{}) {
		t.Errorf("%+v, %v", got, err)
	}
	r, err := qoe.ReturnsOf(t.Context(), db, "r", at(1), at(9), 20)
	if want := (qoe.Returns{Viewers: 20, OK: 19, Attempts: 1.5, BackS: 1.8}); err != nil || !near(r.BackS, want.BackS) || r.Viewers != 20 || r.OK != 19 || r.Attempts != 1.5 {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
	if r, err := qoe.ReturnsOf(t.Context(), db, "r", at(1), at(2), 10); err != nil || r.Viewers != 10 || r.BackS < 0 {
		t.Errorf("the first second: %+v, %v", r, err)
	}
	// Of 21 who were cut off, one has no event at all: 19 are not 95 % of them.
	if r, err := qoe.ReturnsOf(t.Context(), db, "r", at(1), at(9), 21); err != nil || r.OK != 19 || r.BackS != -1 {
		t.Errorf("of those cut off: %+v, %v", r, err)
	}
	if r, err := qoe.ReturnsOf(t.Context(), db, "r", at(20), at(30), 0); err != nil || r.Viewers != 0 || r.BackS != -1 {
		t.Errorf("nobody: %+v, %v", r, err)
	}
}
