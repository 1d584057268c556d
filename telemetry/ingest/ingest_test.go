package ingest_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/clickhouse/chtest"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/ingest"
	"github.com/tminus-live/tminus/telemetry/kafka"
	"github.com/tminus-live/tminus/telemetry/kafka/kafkatest"
	"github.com/tminus-live/tminus/telemetry/qoe"
	"github.com/tminus-live/tminus/telemetry/spool"
)

func TestMain(m *testing.M) { chtest.Main(m) }

func openDB(t testing.TB) *clickhouse.DB {
	t.Helper()
	p := chtest.Start(t, t.TempDir())
	db, err := clickhouse.Open(t.Context(), p.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// background runs f until stop is called or the test ends.
func background(t testing.TB, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func broker(t testing.TB, dir, addr string) (address string, stop func()) {
	t.Helper()
	b, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: dir, Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	return b.Addr(), background(t, b.Run)
}

func client(t testing.TB, address string) *kafka.Client {
	t.Helper()
	c, err := kafka.New(kafka.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func ingester(t testing.TB, c *kafka.Client, db *clickhouse.DB, run string, since time.Time) (*ingest.Ingester, func()) {
	t.Helper()
	g, err := ingest.New(ingest.Config{Client: c, DB: db, Run: run, Since: since, Rows: 3000, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return g, background(t, g.Run)
}

func wait(t testing.TB, g *ingest.Ingester, n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := g.WaitStored(ctx, n); err != nil {
		t.Fatal(err)
	}
}

func emit(e event.Sink, n int) {
	for i := range n {
		e.Emit(event.Event{Kind: event.Heartbeat, Session: fmt.Sprint("s", i%100), State: "playing", PlayingMS: 1000, LatencyMS: float64(i)})
	}
}

// wantExactlyOnce checks the store against the spools' ledger.
func wantExactlyOnce(t testing.TB, db *clickhouse.DB, dir, run string) qoe.Delivery {
	t.Helper()
	accounts, err := spool.Ledger(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := qoe.DeliveryOf(t.Context(), db, run)
	if err != nil {
		t.Fatal(err)
	}
	total := spool.Total(accounts, run)
	if d.Stored != total.Emitted || d.Twice != 0 || total.Dropped != 0 {
		t.Errorf("emitted %d, dropped %d; stored %d, %d of them twice", total.Emitted, total.Dropped, d.Stored, d.Twice)
	}
	for _, a := range accounts {
		if a.Run == run && d.Sources[a.Source] != a.Emitted {
			t.Errorf("%s emitted %d, stored %d", a.Source, a.Emitted, d.Sources[a.Source])
		}
	}
	return d
}

func TestExactlyOnce(t *testing.T) {
	address, _ := broker(t, t.TempDir(), "127.0.0.1:0")
	testExactlyOnce(t, address)
}

func TestExactlyOnceThroughApacheKafka(t *testing.T) { testExactlyOnce(t, kafkatest.Start(t)) }

// Four processes emit, one dies with a backlog and is recovered twice over, another run shares the topic, a producer
// repeats itself, somebody else writes rubbish, and the ingester is replaced in the middle.
func testExactlyOnce(t *testing.T, address string) {
	since := time.Now()
	db := openDB(t)
	c := client(t, address)
	if err := c.EnsureTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, other := t.TempDir(), t.TempDir()
	g, stopIngester := ingester(t, c, db, "run-1", since)

	const sources, first, second = 4, 2000, 3000
	emitters := make([]*spool.Emitter, sources)
	var stops []func()
	for i := range emitters {
		e, err := spool.Open(spool.Config{Dir: dir, Run: "run-1", Source: fmt.Sprintf("region/r%d#1", i), Publisher: client(t, address)})
		if err != nil {
			t.Fatal(err)
		}
		emitters[i] = e
		stops = append(stops, background(t, e.Run))
	}
	stranger, err := spool.Open(spool.Config{Dir: other, Run: "run-2", Source: "region/r0#1", Publisher: c})
	if err != nil {
		t.Fatal(err)
	}
	stops = append(stops, background(t, stranger.Run))

	both := func(n int) {
		var wg sync.WaitGroup
		for _, e := range append(emitters[:sources:sources], stranger) {
			wg.Go(func() { emit(e, n) })
		}
		wg.Wait()
	}
	both(first)
	wait(t, g, sources*first)

	stopIngester()
	both(second)
	g, _ = ingester(t, c, db, "run-1", since)
	wait(t, g, sources*(first+second))

	// A dead process's spool, whose events had arrived before it could note that.
	dead, err := spool.Open(spool.Config{Dir: dir, Run: "run-1", Source: "region/dead#1"})
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, dead.Run)
	emit(dead, 500)
	stop()
	var repeated [][]byte
	for seq := uint64(1); seq <= 300; seq++ {
		at := time.Now().UTC()
		repeated = append(repeated, event.Append(nil, &event.Event{Run: "run-1", Source: "region/dead#1", Seq: seq, At: at, Written: at, Kind: event.Heartbeat}))
	}
	if err := c.Publish(t.Context(), "run-1", "region/dead#1", [][]byte{bytes.Join(repeated, []byte("\n"))}); err != nil {
		t.Fatal(err)
	}
	if n, err := spool.Recover(t.Context(), dir, c); n != 500 || err != nil {
		t.Fatal(n, err)
	}
	if err := c.Publish(t.Context(), "run-1", "rubbish", [][]byte{[]byte("rubbish"), []byte(`{"run":"run-2","source":"s","seq":1}`)}); err != nil {
		t.Fatal(err)
	}
	for _, stop := range stops {
		stop()
	}
	wait(t, g, sources*(first+second)+500)
	deadline := time.After(20 * time.Second)
	for s := g.Stats(); s.Duplicates != 300 || s.Malformed != 2; s = g.Stats() {
		select {
		case <-deadline:
			t.Fatalf("%+v, want 300 duplicates and 2 malformed", s)
		case <-time.After(10 * time.Millisecond):
		}
	}
	d := wantExactlyOnce(t, db, dir, "run-1")
	t.Logf("lag p50 %.3f s, p95 %.3f s, max %.3f s", d.LagP50S, d.LagP95S, d.LagMaxS)
	if n, err := db.Stored(t.Context(), "run-2"); n != 0 || err != nil {
		t.Errorf("%d events of another run were stored, %v", n, err)
	}

	late, _ := ingester(t, c, db, "run-2", since)
	wait(t, late, first+second)
	wantExactlyOnce(t, db, other, "run-2")
}

func TestBrokerAwayInTheMiddle(t *testing.T) {
	kafkaDir, dir := t.TempDir(), t.TempDir()
	address, stopBroker := broker(t, kafkaDir, "127.0.0.1:0")
	db := openDB(t)
	c := client(t, address)
	g, _ := ingester(t, c, db, "r", time.Time{})
	e, err := spool.Open(spool.Config{Dir: dir, Run: "r", Source: "s#1", Publisher: client(t, address), DrainFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, e.Run)
	emit(e, 1000)
	wait(t, g, 1000)
	stopBroker()
	emit(e, 1000)
	deadline := time.After(20 * time.Second)
	for e.Counts().Emitted < 2000 {
		select {
		case <-deadline:
			t.Fatalf("%+v", e.Counts())
		case <-time.After(time.Millisecond):
		}
	}
	broker(t, kafkaDir, address)
	wait(t, g, 2000)
	stop()
	wantExactlyOnce(t, db, dir, "r")
}

func TestStoreKilledInTheMiddle(t *testing.T) {
	address, _ := broker(t, t.TempDir(), "127.0.0.1:0")
	storeDir, dir := t.TempDir(), t.TempDir()
	p := chtest.Start(t, storeDir)
	db, err := clickhouse.Open(t.Context(), p.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := client(t, address)
	g, err := ingest.New(ingest.Config{Client: c, DB: db, Run: "r", Rows: 50, Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	background(t, g.Run)
	e, err := spool.Open(spool.Config{Dir: dir, Run: "r", Source: "s#1", Publisher: c, FlushEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stop := background(t, e.Run)
	emitted := uint64(0)
	for range 3 {
		for range 40 { // small batches, so that the kill hits one on its way
			emit(e, 50)
			emitted += 50
			for deadline := time.Now().Add(20 * time.Second); e.Counts().Acked+200 < emitted; {
				if time.Now().After(deadline) {
					t.Fatalf("%+v of %d", e.Counts(), emitted)
				}
				time.Sleep(time.Millisecond)
			}
		}
		p.Process.Kill()
		p.Wait()
		p = chtest.StartAt(t, storeDir, strings.TrimPrefix(p.URL, "http://"))
	}
	wait(t, g, emitted)
	stop()
	wantExactlyOnce(t, db, dir, "r")
}

func TestWaitSaysHowManyAreMissing(t *testing.T) {
	address, _ := broker(t, t.TempDir(), "127.0.0.1:0")
	g, _ := ingester(t, client(t, address), openDB(t), "r", time.Time{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.WaitStored(ctx, 7); err == nil || !strings.HasPrefix(err.Error(), "0 of 7 events are stored: ") {
		t.Error(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := ingest.New(ingest.Config{})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Error(err)
	}
}

func BenchmarkPath(b *testing.B) {
	address, _ := broker(b, b.TempDir(), "127.0.0.1:0")
	db := openDB(b)
	c := client(b, address)
	g, err := ingest.New(ingest.Config{Client: c, DB: db, Run: "r"})
	if err != nil {
		b.Fatal(err)
	}
	background(b, g.Run)
	e, err := spool.Open(spool.Config{Dir: b.TempDir(), Run: "r", Source: "s#1", Publisher: c, QueueBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	background(b, e.Run)
	n := uint64(0)
	for b.Loop() {
		emit(e, 100_000)
		n += 100_000
		wait(b, g, n)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
