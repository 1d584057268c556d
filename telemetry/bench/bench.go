package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/ingest"
	"github.com/tminus-live/tminus/telemetry/kafka"
	"github.com/tminus-live/tminus/telemetry/procstat"
	"github.com/tminus-live/tminus/telemetry/spool"
)

// Config of a measurement.
type Config struct {
	Dir        string // folder for spool and broker, emptied by the caller afterwards
	ClickHouse string // address of the store; its events of the runs "bench-…" are new ones
	StorePID   int    // process of the store on this machine, to measure its CPU; 0: not measured
	Kafka      string // address of a broker; "": the embedded one
	Events     int    // 0: a million

	Logger *slog.Logger // nil = none
}

// Result of a measurement. CPU is that of all cores together.
type Result struct {
	Events        int     `json:"events"`
	Kafka         string  `json:"kafka"`           // "embedded" or the address
	EmitNS        float64 `json:"emit_ns"`         // of one goroutine, an event
	EmitCPUNS     float64 `json:"emit_cpu_ns"`     // with the writing to disk, an event
	EmitAllocs    float64 `json:"emit_allocs"`     // an event
	Dropped       uint64  `json:"dropped"`         // while emitting as fast as one goroutine can
	SpoolBytes    float64 `json:"spool_bytes"`     // on disk, an event
	PathPerS      float64 `json:"path_per_s"`      // events a second from the spool to the store
	PathCPUUS     float64 `json:"path_cpu_us"`     // of this process (shipping, broker, ingester), an event
	StoreCPUUS    float64 `json:"store_cpu_us"`    // of the store, an event
	YardstickPerS float64 `json:"yardstick_per_s"` // rows a second through clickhouse-go's columns
	Ratio         float64 `json:"ratio"`           // of the two
	RowBytes      float64 `json:"row_bytes"`       // compressed, in the store, after a merge
	PeakRSS       uint64  `json:"peak_rss_bytes"`  // of this process
}

// Run measures.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	if cfg.Events == 0 {
		cfg.Events = 1_000_000
	}
	res.Events = cfg.Events
	db, err := clickhouse.Open(ctx, cfg.ClickHouse)
	if err != nil {
		return res, err
	}
	defer db.Close()
	tag := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	if res.YardstickPerS, err = yardstick(ctx, cfg, tag+"-yardstick"); err != nil {
		return res, fmt.Errorf("the yardstick: %w", err)
	}
	run := tag + "-path"
	dir := filepath.Join(cfg.Dir, run)
	emitted, err := emit(ctx, cfg, &res, run, filepath.Join(dir, "spool"))
	if err != nil {
		return res, err
	}
	if err := path(ctx, cfg, &res, db, run, dir, emitted); err != nil {
		return res, err
	}
	res.Ratio = res.PathPerS / res.YardstickPerS
	if err := rowBytes(ctx, db, &res); err != nil {
		return res, err
	}
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		res.PeakRSS = uint64(use.Maxrss) << 10
	}
	return res, nil
}

// emit writes the events into a spool that nothing ships yet.
func emit(ctx context.Context, cfg Config, res *Result, run, dir string) (emitted uint64, err error) {
	e, err := spool.Open(spool.Config{Dir: dir, Run: run, Source: "conductor#1", Logger: cfg.Logger})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	// What making the crowd takes is measured first and taken off.
	batch := make([]event.Event, 1000)
	make := func(c *crowd, n int) {
		for i := range n {
			batch[i] = c.next()
		}
	}
	crowd := newCrowd(time.Now())
	cpu0 := selfCPU()
	for n := 0; n < cfg.Events; n += len(batch) {
		make(crowd, min(len(batch), cfg.Events-n))
	}
	making := selfCPU() - cpu0

	var before, after runtime.MemStats
	var inEmit time.Duration
	crowd = newCrowd(time.Now())
	cpu0 = selfCPU()
	for n := 0; n < cfg.Events && ctx.Err() == nil; {
		size := min(len(batch), cfg.Events-n)
		make(crowd, size)
		if n == 0 {
			runtime.ReadMemStats(&before)
		}
		start := time.Now()
		for i := range size {
			e.Emit(batch[i])
		}
		inEmit += time.Since(start)
		if n += size; n == size {
			runtime.ReadMemStats(&after)
		}
		for e.Counts().Emitted+50_000 < uint64(n) && ctx.Err() == nil { // one goroutine can emit more than a disk takes
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	if err := <-done; err != nil {
		return 0, err
	}
	counts := e.Counts()
	n := float64(cfg.Events)
	res.EmitNS = float64(inEmit.Nanoseconds()) / n
	res.EmitCPUNS = float64((selfCPU() - cpu0 - making).Nanoseconds()) / n
	res.EmitAllocs = float64(after.Mallocs-before.Mallocs) / float64(len(batch))
	res.Dropped = counts.Dropped
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			res.SpoolBytes += float64(info.Size()) / float64(counts.Emitted)
		}
	}
	return counts.Emitted, nil
}

// path ships the spool, and waits until all of it is stored.
func path(ctx context.Context, cfg Config, res *Result, db *clickhouse.DB, run, dir string, emitted uint64) error {
	ctx, stop := context.WithCancel(ctx)
	var background []chan error
	start := func(f func(context.Context) error) {
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		background = append(background, done)
	}
	defer func() {
		stop()
		for _, done := range background {
			<-done
		}
	}()
	res.Kafka = cfg.Kafka
	var stored func(int, int64)
	if cfg.Kafka == "" {
		broker, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join(dir, "kafka"), Addr: "127.0.0.1:0", HoldBytes: kafka.DefaultHold})
		if err != nil {
			return err
		}
		start(broker.Run)
		cfg.Kafka, res.Kafka, stored = broker.Addr(), "embedded", broker.Stored
	}
	client, err := kafka.New(kafka.Config{Address: cfg.Kafka})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopic(ctx); err != nil {
		return err
	}
	g, err := ingest.New(ingest.Config{Client: client, DB: db, Run: run, Since: time.Now(), Stored: stored, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	start(g.Run)

	began, cpu, storeCPU := time.Now(), selfCPU(), cpuOf(cfg.StorePID)
	if _, err := spool.Recover(ctx, filepath.Join(dir, "spool"), client); err != nil {
		return err
	}
	if err := g.WaitStored(ctx, emitted); err != nil {
		return err
	}
	n := float64(emitted)
	res.PathPerS = n / time.Since(began).Seconds()
	res.PathCPUUS = float64((selfCPU() - cpu).Microseconds()) / n
	if cfg.StorePID > 0 {
		res.StoreCPUUS = float64((cpuOf(cfg.StorePID) - storeCPU).Microseconds()) / n
	}
	if s := g.Stats(); s.Stored != emitted || s.Duplicates+s.Malformed > 0 {
		return fmt.Errorf("%d events were emitted, and %+v", emitted, s)
	}
	return nil
}

func rowBytes(ctx context.Context, db *clickhouse.DB, res *Result) error {
	return db.QueryRow(ctx, `SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND active`).Scan(&res.RowBytes)
}

// cpuOf is the CPU time of another process; 0 where it is not known.
func cpuOf(pid int) time.Duration {
	if pid == 0 {
		return 0
	}
	s, _ := procstat.Read(pid)
	return s.CPU
}

func selfCPU() time.Duration {
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) != nil {
		return 0
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
