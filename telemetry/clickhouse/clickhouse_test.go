package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
	"github.com/tminus-live/tminus/telemetry/event"
)

func TestMain(m *testing.M) { chtest.Main(m) }

func open(t testing.TB, address string) *clickhouse.DB {
	t.Helper()
	db, err := clickhouse.Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

var start = time.Date(2026, 11, 21, 20, 0, 0, 123456000, time.UTC)

func TestInsertAndRead(t *testing.T) {
	p := chtest.Start(t, t.TempDir())
	db := open(t, p.URL)
	open(t, p.URL) // the schema is there already

	var rows clickhouse.Rows
	rows.Append(&event.Event{Run: "r", Source: "s#1", Seq: 1, At: start, Written: start.Add(time.Second), Kind: event.EdgeStats, Status: "ok",
		Region: "us-east", Component: "edge/us-east/1", Session: "x", Device: "tv", ISP: "cable", Home: "us-west", Edge: "us-east-1", Rendition: "720p", Segment: 5,
		Fault: "region-1", State: "playing", Detail: "it's \\ here\n", Value: 1.5, LagMS: 2.5, BufferMS: 3.5, LatencyMS: 4.5, PlayingMS: 5.5,
		RebufferMS: 6.5, BitrateKbps: 7.5, Bytes: 8, Attempts: 9, Nums: map[string]float64{"hits": 10}}, clickhouse.Origin{Topic: "t", Partition: 3, Offset: 77})
	rows.Append(&event.Event{Run: "r", Source: "s#1", Seq: 2, Kind: event.Phase}, clickhouse.Origin{Topic: "t", Partition: 3, Offset: 78})
	for range 3 { // the answer was lost, so it is sent again
		if err := db.Insert(t.Context(), &rows, "r/t/3/77-78", start.Add(2*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := db.Stored(t.Context(), "r"); n != 2 || err != nil {
		t.Fatalf("%d stored, %v", n, err)
	}
	var got string
	err := db.QueryRow(t.Context(), `SELECT toString(tuple(* EXCEPT (nums))) || toString(nums) FROM events WHERE seq = 1 AND run = {run:String}`, clickhouse.Named("run", "r")).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want := `('r','s#1',1,'2026-11-21 20:00:00.123456','2026-11-21 20:00:01.123456','2026-11-21 20:00:02.123456','edge_stats','ok','us-east',` +
		`'edge/us-east/1','x','tv','cable','us-east-1','720p',5,'region-1','playing','it\'s \\ here\n',1.5,2.5,3.5,4.5,5.5,6.5,7.5,8,9,'t',3,77,'us-west'){'hits':10}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	rows.Reset()
	if rows.Len() != 0 {
		t.Error("Reset left rows")
	}
}

// A store that an earlier version filled is opened as it is: what was added since is empty in its rows.
func TestOpenATableOfAnEarlierVersion(t *testing.T) {
	p := chtest.Start(t, t.TempDir())
	db := open(t, p.URL)
	insert := func(db *clickhouse.DB, seq uint64, home string) {
		var rows clickhouse.Rows
		rows.Append(&event.Event{Run: "r", Source: "s#1", Seq: seq, At: start, Kind: event.Heartbeat, Home: home}, clickhouse.Origin{Topic: "t", Offset: int64(seq)})
		if err := db.Insert(t.Context(), &rows, fmt.Sprint(seq), start); err != nil {
			t.Fatal(err)
		}
	}
	insert(db, 1, "")
	if err := db.Exec(t.Context(), "ALTER TABLE events DROP COLUMN home"); err != nil {
		t.Fatal(err)
	}
	again := open(t, p.URL)
	insert(again, 2, "us-east")
	var homes []string
	if err := again.QueryRow(t.Context(), "SELECT groupArray(home) FROM (SELECT toString(home) AS home FROM events WHERE run = 'r' ORDER BY seq)").Scan(&homes); err != nil {
		t.Fatal(err)
	}
	if len(homes) != 2 || homes[0] != "" || homes[1] != "us-east" {
		t.Errorf("homes %q", homes)
	}
}

// What was merged away leaves the disk within seconds: in the engine that a run has to itself.
func TestMergedPartsGo(t *testing.T) {
	p := chtest.Start(t, t.TempDir())
	db := open(t, p.URL)
	for i := range 3 {
		var rows clickhouse.Rows
		rows.Append(&event.Event{Run: "r", Source: "s#1", Seq: uint64(i + 1), At: start, Kind: event.Heartbeat}, clickhouse.Origin{Topic: "t", Offset: int64(i)})
		if err := db.Insert(t.Context(), &rows, fmt.Sprint(i), start); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var parts uint64
		if err := db.QueryRow(t.Context(), "SELECT count() FROM system.parts WHERE table = 'events'").Scan(&parts); err != nil {
			t.Fatal(err)
		}
		if parts == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d parts are left", parts)
		}
	}
}

// Every way in which a column's values are kept comes back as it was: words by the dictionary in one, two and four
// bytes, maps, and columns that are not sent at all.
func TestManyRowsComeBack(t *testing.T) {
	p := chtest.Start(t, t.TempDir())
	db := open(t, p.URL)
	var rows clickhouse.Rows
	for round, words := range []int{3, 1000, 70_000, 2} {
		rows.Reset() // the same memory again
		run := fmt.Sprint("r", round)
		n := max(words, 1000)
		var nums float64
		for i := range n {
			e := event.Event{Run: run, Source: "s#1", Seq: uint64(i + 1), At: start, Written: start, Kind: event.EdgeStats, Component: fmt.Sprint("c", i%words), Value: float64(i) / 8}
			if i%3 == 0 {
				e.Session, e.Segment, e.Attempts = fmt.Sprint("session ", i), uint64(i), uint32(i)
			}
			if round != 1 && i%2 == 0 {
				e.Nums = map[string]float64{"a": float64(i), "b": 1}
				nums += float64(i) + 1
			}
			rows.Append(&e, clickhouse.Origin{Topic: "t", Offset: int64(i)})
		}
		if err := db.Insert(t.Context(), &rows, run, start); err != nil {
			t.Fatal(err)
		}
		var count, components, wrong uint64
		var sum float64
		err := db.QueryRow(t.Context(), fmt.Sprintf(`SELECT count(), uniqExact(component), sum(arraySum(mapValues(nums))),
			countIf(component != 'c' || toString((seq - 1) %% %d) OR value != (seq - 1) / 8 OR offset != seq - 1 OR
				session != if((seq - 1) %% 3 = 0, 'session ' || toString(seq - 1), '') OR attempts != if((seq - 1) %% 3 = 0, seq - 1, 0))
			FROM events WHERE run = {run:String}`, words), clickhouse.Named("run", run)).Scan(&count, &components, &sum, &wrong)
		if err != nil || count != uint64(n) || components != uint64(words) || sum != nums || wrong != 0 {
			t.Errorf("%d words: %d rows, %d words, sum %v of %v, %d wrong, %v", words, count, components, sum, nums, wrong, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	for _, address := range []string{"http://127.0.0.1:1", "clickhouse://u:secret@127.0.0.1:1/db", "127.0.0.1:1"} {
		_, err := clickhouse.Open(context.Background(), address)
		if !errors.Is(err, clickhouse.ErrUnreachable) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "secret") ||
			!strings.HasSuffix(err.Error(), "127.0.0.1:1: connect: connection refused") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, scheme := range []string{"http://", "clickhouse://"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			before := time.Now()
			_, err := clickhouse.Open(context.Background(), scheme+l.Addr().String())
			want := "cannot reach ClickHouse at " + scheme + l.Addr().String() + ": no answer in time"
			if !errors.Is(err, clickhouse.ErrUnreachable) || err.Error() != want || time.Since(before) > 8*time.Second {
				t.Errorf("after %s: %v", time.Since(before), err)
			}
		})
	}
}

func TestBadAddress(t *testing.T) {
	for _, address := range []string{"", "ftp://host", "http://", "http://h/a`b", "http://h:8123?dial_timeout=x"} {
		if _, err := clickhouse.Open(context.Background(), address); err == nil || errors.Is(err, clickhouse.ErrUnreachable) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestNotOurTable(t *testing.T) {
	p := chtest.Start(t, t.TempDir())
	db := open(t, p.URL)
	for _, sql := range []string{"DROP TABLE events", "CREATE TABLE events (a UInt8) ENGINE = Memory"} {
		if err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := clickhouse.Open(t.Context(), p.URL); err == nil || !strings.Contains(err.Error(), "is not ours: run is") {
		t.Error(err)
	}
}

func BenchmarkInsert(b *testing.B) {
	p := chtest.Start(b, b.TempDir())
	db := open(b, p.URL)
	const batch = 20000
	n := 0
	for b.Loop() {
		var rows clickhouse.Rows
		for i := range batch {
			rows.Append(&event.Event{Run: "r", Source: "s#1", Seq: uint64(n*batch + i), At: start, Kind: event.Heartbeat, Session: fmt.Sprint("s", i%1000),
				Edge: "us-east-1", State: "playing", LatencyMS: 5000, PlayingMS: 1000, BitrateKbps: 3200}, clickhouse.Origin{Topic: "t", Offset: int64(n)})
		}
		n++
		if err := db.Insert(b.Context(), &rows, fmt.Sprint(n), start); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*batch)/b.Elapsed().Seconds(), "rows/s")
}
