package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/tminus-live/tminus/chaos/procfs"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/clickhouse/engine"
	"github.com/tminus-live/tminus/telemetry/ingest"
	"github.com/tminus-live/tminus/telemetry/kafka"
	"github.com/tminus-live/tminus/telemetry/spool"
)

// StoreCommand is the subcommand that the embedded ClickHouse engine's child process runs; it reads a StoreConfig from
// standard input and answers with its address under StoreURL.
const (
	StoreCommand = "store"
	StoreURL     = "url"
)

// StoreConfig is what the child process of the embedded ClickHouse engine is told.
type StoreConfig struct {
	Dir  string `json:"dir"`
	Addr string `json:"addr"`
}

// EventsConfig says how one process hands in its events.
type EventsConfig struct {
	Run    string `json:"run"`
	Source string `json:"source"` // one incarnation: "region/us-east#2"
	Spool  string `json:"spool"`  // folder of the run's spools
	Kafka  string `json:"kafka"`  // address of a broker
}

// Events is one process's way into the telemetry.
type Events struct {
	*spool.Emitter
	stop context.CancelFunc
	done chan error
}

// Open opens the way. Close must be called.
func (c EventsConfig) Open(log *slog.Logger) (*Events, error) {
	client, err := kafka.New(kafka.Config{Address: c.Kafka})
	if err != nil {
		return nil, err
	}
	emitter, err := spool.Open(spool.Config{Dir: c.Spool, Run: c.Run, Source: c.Source, Publisher: client, Logger: log})
	if err != nil {
		return nil, err
	}
	// Events outlive whatever ends their process: it is Close that ends the way in.
	ctx, stop := context.WithCancel(context.Background())
	e := &Events{emitter, stop, make(chan error, 1)}
	go func() {
		defer client.Close()
		e.done <- emitter.Run(ctx)
	}()
	return e, nil
}

// Close hands in what is left, for a few seconds at most, and returns an error that says how many events could not be
// written. What Kafka did not take stays in the spool for whoever recovers it. It is called once.
func (e *Events) Close() error {
	e.stop()
	return <-e.done
}

// telemetryPath is the event path of a run as its conductor holds it: broker, store, ingester, and its own sink.
type telemetryPath struct {
	events  EventsConfig // for other processes, but for Source
	sink    *Events
	broker  string // as reported: "embedded" or the address
	store   string
	client  *kafka.Client
	db      *clickhouse.DB
	ingest  *ingest.Ingester
	process *process.Process // of the embedded engine; nil: somebody else's server
	undo    stack
	drained bool
	log     *slog.Logger
}

// openTelemetry opens the event path of a run; on an error nothing of it is left running.
func openTelemetry(ctx context.Context, cfg Config, run, folder string, st *state, sys *system) (_ *telemetryPath, err error) {
	t := &telemetryPath{log: cfg.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.undo.run())
		}
	}()

	front := func(url string) (string, error) { return sys.clickhouse(url, t.processes) }
	if err := t.openStore(ctx, cfg.ClickHouse, folder, front); err != nil {
		return nil, err
	}
	address := cfg.Kafka
	var stored func(partition int, offset int64) // nil: somebody else's broker keeps what it is told to keep
	t.broker = address
	if address == "" {
		t.broker = "embedded"
		broker, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join(folder, "kafka"), Addr: netip.AddrPortFrom(sys.home(), 0).String(), Public: sys.kafka(), HoldBytes: kafka.DefaultHold})
		if err != nil {
			return nil, err
		}
		t.background(broker.Run)
		address, stored = broker.Addr(), broker.Stored
	}
	if err := t.follow(ctx, address, ingest.Config{Run: run, Since: time.Now(), Stored: stored}); err != nil {
		return nil, err
	}

	t.events = EventsConfig{Run: run, Spool: filepath.Join(folder, "spool"), Kafka: address}
	mine := t.events
	mine.Source = "conductor#1"
	if t.sink, err = mine.Open(cfg.Log); err != nil {
		return nil, err
	}
	t.undo.push(t.closeSink)
	st.watchTelemetry(func() (emitted, stored uint64) {
		counts, _ := spool.Peek(t.events.Spool, run) // only the picture would suffer: the ledger that counts is read at the end
		return counts.Emitted, t.ingest.Stored()
	})
	return t, nil
}

// openStore opens the ClickHouse server at url, or, where there is none, an embedded engine with its data in folder, through
// what stands in front of it (nil: nothing does).
func (t *telemetryPath) openStore(ctx context.Context, url, folder string, front func(url string) (string, error)) (err error) {
	embedded := url == ""
	if embedded {
		if url, err = t.startStore(ctx, filepath.Join(folder, StoreFolder), filepath.Join(folder, "store.log")); err != nil {
			return err
		}
		if front != nil {
			if url, err = front(url); err != nil {
				return err
			}
		}
	}
	if t.db, err = clickhouse.Open(ctx, url); err != nil {
		return err
	}
	t.undo.push(t.db.Close)
	t.store = "embedded"
	if !embedded {
		t.store = t.db.Address()
	}
	return nil
}

// follow stores what comes from the broker at address, in the background; the configuration's client, store and log are
// the path's own.
func (t *telemetryPath) follow(ctx context.Context, address string, cfg ingest.Config) (err error) {
	if t.client, err = kafka.New(kafka.Config{Address: address}); err != nil {
		return err
	}
	t.undo.push(func() error { t.client.Close(); return nil })
	if err := t.client.EnsureTopic(ctx); err != nil {
		return err
	}
	cfg.Client, cfg.DB, cfg.Logger = t.client, t.db, t.log
	if t.ingest, err = ingest.New(cfg); err != nil {
		return err
	}
	t.background(t.ingest.Run)
	return nil
}

// startStore starts the embedded ClickHouse engine in a child process and returns its address.
func (t *telemetryPath) startStore(ctx context.Context, dir, logPath string) (url string, err error) {
	if _, err := engine.FindLib(); err != nil {
		return "", err
	}
	t.process, url, err = spawnStore(ctx, dir, logPath, t.log)
	if err != nil {
		return "", err
	}
	t.undo.push(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*storeGrace)
		defer cancel()
		return t.process.Stop(ctx)
	})
	return url, nil
}

// processes are the embedded store's while it lives.
func (t *telemetryPath) processes() ([]procfs.Process, error) {
	if t.process == nil || !t.process.Alive() {
		return nil, nil
	}
	p, err := procfs.Read(t.process.PID())
	if err != nil {
		return nil, err
	}
	return []procfs.Process{p}, nil
}

// died is closed when the embedded store's process ends before it is told to; with somebody else's server it never is.
func (t *telemetryPath) died() <-chan struct{} {
	if t.process == nil {
		return nil
	}
	return t.process.Exited()
}

// background runs a long-running part until the path is undone.
func (t *telemetryPath) background(run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.undo.push(func() error {
		stop()
		return <-done
	})
}

func (t *telemetryPath) closeSink() error {
	if t.drained {
		return nil
	}
	t.drained = true
	return t.sink.Close()
}

func (t *telemetryPath) close() error { return t.undo.run() }

// ledger is what was emitted, and what of it is stored.
type ledger struct {
	emitted    uint64 // written by any process of the run
	dropped    uint64 // refused by a full queue, spool or disk: lost
	stored     uint64
	duplicated uint64
	notes      []string
}

// drainStall is how long nothing more may be stored before drain gives up. A test shortens it.
var drainStall = 15 * time.Second

// drain closes the conductor's own sink, ships what dead processes left behind, and waits until the store holds all that
// was emitted: for as long as it gets on, limit at most. Every other process of the run must have ended.
func (t *telemetryPath) drain(ctx context.Context, limit time.Duration) (l ledger, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		t.watchDrain(ctx, stop)
	}()
	defer func() {
		stop(nil)
		<-watched
	}()
	if err := t.closeSink(); err != nil {
		l.notes = append(l.notes, err.Error())
	}
	select {
	case <-t.died():
		return l, fmt.Errorf("there is nothing to judge by: %w", t.process.Err())
	default:
	}
	if _, err := spool.Recover(ctx, t.events.Spool, t.client); err != nil && context.Cause(ctx) == nil { // else it is told below
		l.notes = append(l.notes, err.Error())
	}
	accounts, err := spool.Ledger(t.events.Spool)
	if err != nil {
		return l, fmt.Errorf("cannot tell what was emitted: %w", err)
	}
	total := spool.Total(accounts, t.events.Run)
	l.emitted, l.dropped = total.Emitted, total.Dropped
	if err := t.ingest.WaitStored(ctx, l.emitted); err != nil {
		l.notes = append(l.notes, err.Error())
	}
	if l.stored, err = t.db.Stored(context.WithoutCancel(ctx), t.events.Run); err != nil {
		return l, fmt.Errorf("cannot tell what was stored: %w", err)
	}
	seen := t.ingest.Stats()
	l.duplicated = seen.Duplicates
	if seen.Malformed > 0 {
		l.notes = append(l.notes, fmt.Sprintf("%d lines in Kafka were no events of the run", seen.Malformed))
	}
	return l, nil
}

// watchDrain ends a drain that does not get on, or that nothing is left to wait for.
func (t *telemetryPath) watchDrain(ctx context.Context, stop context.CancelCauseFunc) {
	const every = 250 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	var before ingest.Stats
	var acked uint64
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.died():
			stop(fmt.Errorf("the store has ended: %w", t.process.Err()))
			return
		case now := <-tick.C:
			counts, _ := spool.Peek(t.events.Spool, t.events.Run) // what cannot be read does not get on
			if stats := t.ingest.Stats(); stats != before || counts.Acked != acked {
				before, acked, since = stats, counts.Acked, now
			}
			if now.Sub(since) > drainStall {
				stop(fmt.Errorf("nothing more was stored for %s", drainStall))
				return
			}
		}
	}
}
