package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/kafka"
)

// Config of an ingester. Zero values of the sizes and times mean their defaults.
type Config struct {
	Client *kafka.Client
	DB     *clickhouse.DB
	Run    string
	// Since is when the run began, by the clocks of the producers: older messages are not read (a minute is allowed
	// for clocks that differ). Zero reads the topic from its beginning.
	Since time.Time

	Rows  int           // of a batch, before it is stored; 50,000
	Every time.Duration // the longest a row waits for its batch while the store is free; 200 ms

	// Stored is told, after each batch, up to which offset of a partition everything is in the store. Nil: nobody.
	Stored func(partition int, offset int64)

	Now    func() time.Time // nil = time.Now
	Logger *slog.Logger     // nil = none
}

// Stats is what an ingester has done.
type Stats struct {
	Stored     uint64 // events of the run in the store, also those of an earlier ingester
	Duplicates uint64 // arrived more than once and were stored once
	Malformed  uint64 // lines that are no events of the run; not stored
}

const (
	clockSkew  = time.Minute
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
	maxSpans   = 1_000_000
	noted      = 10 // malformed lines that are logged
)

// Ingester stores the events of one run. Only one may run for a run at a time.
type Ingester struct {
	cfg Config
	log *slog.Logger

	seen      map[string]*spans
	spanCount int

	mu      sync.Mutex
	stats   Stats
	changed chan struct{} // closed and replaced when stats change
}

// New makes an ingester; it talks to nobody yet.
func New(cfg Config) (*Ingester, error) {
	var missing []error
	if cfg.Client == nil {
		missing = append(missing, errors.New("ingest: no Kafka"))
	}
	if cfg.DB == nil {
		missing = append(missing, errors.New("ingest: no ClickHouse"))
	}
	if cfg.Run == "" {
		missing = append(missing, errors.New("ingest: no run"))
	}
	if err := errors.Join(missing...); err != nil {
		return nil, err
	}
	cfg.Rows = cmp.Or(cfg.Rows, 50_000)
	cfg.Every = cmp.Or(cfg.Every, 200*time.Millisecond)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Ingester{cfg: cfg, log: cfg.Logger, seen: make(map[string]*spans), changed: make(chan struct{})}, nil
}

// Stats says how far it is.
func (g *Ingester) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}

func (g *Ingester) update(f func(*Stats)) {
	g.mu.Lock()
	f(&g.stats)
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
}

// Stored is Stats().Stored.
func (g *Ingester) Stored() uint64 { return g.Stats().Stored }

// WaitStored returns nil once at least n events of the run are stored, or the context's cause with how many are missing.
func (g *Ingester) WaitStored(ctx context.Context, n uint64) error {
	for {
		g.mu.Lock()
		stored, changed := g.stats.Stored, g.changed
		g.mu.Unlock()
		if stored >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events are stored: %w", stored, n, context.Cause(ctx))
		}
	}
}

// Run reads and stores until ctx ends, through failures of Kafka and ClickHouse, which it waits out. Rows that were
// not stored when it ended are read again by the next one.
func (g *Ingester) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	offsets, err := g.resume(ctx)
	if err != nil {
		return nil // ctx ended
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	fetched := make(chan []kafka.Message)
	for partition, offset := range offsets {
		wg.Go(func() { g.fetch(ctx, partition, offset, fetched) })
	}
	full := make(chan *batch)
	empty := make(chan *batch, 2)
	empty <- new(batch)
	empty <- new(batch)
	wg.Go(func() {
		for b := range full {
			if g.retry(ctx, "storing events", func() error { return g.store(ctx, b) }) != nil {
				return
			}
			b.reset()
			empty <- b
		}
	})
	defer close(full)
	return g.collect(ctx, fetched, full, empty)
}

// batch is whole messages on their way into the store.
type batch struct {
	rows       clickhouse.Rows
	duplicates uint64
	malformed  uint64
	offsets    map[int]span // first and last of each partition
	due        bool         // its first row has waited long enough
	tries      int
	swallowed  int // how often the store knew the token and did not have the rows
}

func (b *batch) reset() {
	b.rows.Reset()
	b.duplicates, b.malformed, b.tries, b.swallowed, b.due = 0, 0, 0, 0, false
	clear(b.offsets)
}

// token names the batch by what is in it: the same token means the same rows.
func (b *batch) token(run, topic string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s/%s", run, topic)
	for _, p := range slices.Sorted(maps.Keys(b.offsets)) {
		fmt.Fprintf(&s, " %d:%d-%d", p, b.offsets[p].lo, b.offsets[p].hi)
	}
	return s.String()
}

// collect fills batches; storing one and filling the next go on side by side. A batch that is due goes on filling for as
// long as the store is busy with the one before: the more there is to do, the larger, and the cheaper, its inserts.
func (g *Ingester) collect(ctx context.Context, fetched <-chan []kafka.Message, full chan<- *batch, empty <-chan *batch) error {
	decoder := event.Decoder{Alias: true} // the rows copy what they keep
	due := time.NewTimer(time.Hour)
	due.Stop()
	var b *batch
	for {
		if b == nil {
			select {
			case b = <-empty:
			case <-ctx.Done():
				return nil
			}
		}
		in, out := fetched, full
		if b.rows.Len() >= g.cfg.Rows {
			in = nil
		} else if !b.due {
			out = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
			b.due = true
		case out <- b:
			due.Stop()
			b = nil
		case messages := <-in:
			first := len(b.offsets) == 0
			for _, m := range messages {
				if m.Run != g.cfg.Run {
					continue
				}
				if err := g.add(b, m, &decoder); err != nil {
					return err
				}
			}
			if first && len(b.offsets) > 0 {
				due.Reset(g.cfg.Every)
			}
		}
	}
}

// add takes one message's events into the batch.
func (g *Ingester) add(b *batch, m kafka.Message, decoder *event.Decoder) error {
	if b.offsets == nil {
		b.offsets = make(map[int]span)
	}
	offset := uint64(m.Offset)
	if o, ok := b.offsets[m.Partition]; ok {
		b.offsets[m.Partition] = span{o.lo, offset}
	} else {
		b.offsets[m.Partition] = span{offset, offset}
	}
	from := clickhouse.Origin{Topic: g.cfg.Client.Topic(), Partition: m.Partition, Offset: m.Offset}
	var e event.Event
	var source string
	var s *spans
	for line := range bytes.SplitSeq(m.Value, []byte{'\n'}) {
		err := decoder.Decode(line, &e)
		if err == nil && (e.Run != g.cfg.Run || e.Source == "" || e.Seq == 0) {
			err = fmt.Errorf("run %q, source %q, seq %d", e.Run, e.Source, e.Seq)
		}
		if err != nil {
			b.malformed++
			if g.Stats().Malformed+b.malformed <= noted {
				g.log.Error("a line in Kafka is no event of the run", "partition", m.Partition, "offset", m.Offset, "error", err)
			}
			continue
		}
		if s == nil || e.Source != source {
			if s = g.seen[e.Source]; s == nil {
				s = new(spans)
				g.seen[e.Source] = s
			}
			source = e.Source
		}
		n := len(*s)
		if !s.add(e.Seq) {
			b.duplicates++
			continue
		}
		if g.spanCount += len(*s) - n; g.spanCount > maxSpans {
			return fmt.Errorf("ingest: the events of run %s come with more than %d gaps", g.cfg.Run, maxSpans)
		}
		b.rows.Append(&e, from)
	}
	return nil
}

// store puts the batch into the store, and returns nil only when it is there. After an error it may be there, may
// still be on its way, or may never come: the token keeps a second one out, and counting tells the rest. (A store
// that was killed may know the token and not have the rows.)
func (g *Ingester) store(ctx context.Context, b *batch) error {
	again := b.tries > 0
	if again {
		there, err := g.isStored(ctx, b)
		if err != nil {
			return err
		}
		if there {
			g.note(b)
			return nil
		}
	}
	b.tries++
	token := b.token(g.cfg.Run, g.cfg.Client.Topic())
	if b.swallowed > 0 {
		token += fmt.Sprint(" again ", b.swallowed)
	}
	if err := g.cfg.DB.Insert(ctx, &b.rows, token, g.cfg.Now()); err != nil {
		return err
	}
	if again {
		there, err := g.isStored(ctx, b)
		if err != nil {
			return err
		}
		if !there {
			b.swallowed++
			return fmt.Errorf("the store took %d events for a repetition and does not have them", b.rows.Len())
		}
	}
	g.note(b)
	return nil
}

func (g *Ingester) isStored(ctx context.Context, b *batch) (bool, error) {
	var n uint64
	for p, offsets := range b.offsets {
		var here uint64
		err := g.cfg.DB.QueryRow(ctx, `SELECT count() FROM events WHERE run = {run:String} AND topic = {topic:String}
				AND partition = {partition:UInt32} AND offset BETWEEN {lo:UInt64} AND {hi:UInt64}`,
			clickhouse.Named("run", g.cfg.Run), clickhouse.Named("topic", g.cfg.Client.Topic()), clickhouse.Named("partition", fmt.Sprint(p)),
			clickhouse.Named("lo", fmt.Sprint(offsets.lo)), clickhouse.Named("hi", fmt.Sprint(offsets.hi))).Scan(&here)
		if err != nil {
			return false, fmt.Errorf("asking whether a batch is stored: %w", err)
		}
		n += here
	}
	return n == uint64(b.rows.Len()), nil
}

func (g *Ingester) note(b *batch) {
	g.update(func(s *Stats) {
		s.Stored += uint64(b.rows.Len())
		s.Duplicates += b.duplicates
		s.Malformed += b.malformed
	})
	if g.cfg.Stored != nil {
		for p, o := range b.offsets {
			g.cfg.Stored(p, int64(o.hi))
		}
	}
}

// fetch reads one partition from offset on.
func (g *Ingester) fetch(ctx context.Context, partition int, offset int64, fetched chan<- []kafka.Message) {
	for ctx.Err() == nil {
		var messages []kafka.Message
		next := offset
		err := g.retry(ctx, "reading from Kafka", func() (err error) {
			messages, next, err = g.cfg.Client.Fetch(ctx, g.cfg.Run, partition, offset)
			if errors.Is(err, kafka.ErrOffsetOutOfRange) {
				g.log.Error("Kafka no longer has the events that come next; going on with what it has", "partition", partition, "offset", offset)
				offset, err = g.cfg.Client.OffsetAt(ctx, partition, time.Time{})
				next = offset
			}
			return err
		})
		if err != nil {
			return
		}
		if len(messages) > 0 {
			select {
			case fetched <- messages:
			case <-ctx.Done():
				return
			}
		}
		offset = next
	}
}

// retry calls f until it succeeds; it returns an error only when ctx ended.
func (g *Ingester) retry(ctx context.Context, what string, f func() error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := f()
		if err == nil {
			if wait != retryFirst {
				g.log.Info("goes on again", "what", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == retryFirst {
			g.log.Warn("failed and is tried again", "what", what, "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resume learns from the store where to go on: the offset of each partition and the sequence numbers it has.
func (g *Ingester) resume(ctx context.Context) (offsets map[int]int64, err error) {
	err = g.retry(ctx, "asking the store how far it is", func() (err error) {
		offsets, err = g.stored(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = g.retry(ctx, "asking Kafka for its partitions", func() error {
		n, err := g.cfg.Client.Partitions(ctx)
		if err != nil {
			return err
		}
		since := g.cfg.Since
		if !since.IsZero() {
			since = since.Add(-clockSkew)
		}
		for p := range n {
			if _, ok := offsets[p]; ok {
				continue
			}
			if offsets[p], err = g.cfg.Client.OffsetAt(ctx, p, since); err != nil {
				delete(offsets, p)
				return err
			}
		}
		return nil
	})
	return offsets, err
}

func (g *Ingester) stored(ctx context.Context) (map[int]int64, error) {
	if err := g.waitForInserts(ctx); err != nil {
		return nil, err
	}
	run, topic := clickhouse.Named("run", g.cfg.Run), clickhouse.Named("topic", g.cfg.Client.Topic())
	offsets := make(map[int]int64)
	err := each(ctx, g.cfg.DB, "SELECT partition, max(offset) FROM events WHERE run = {run:String} AND topic = {topic:String} GROUP BY partition",
		[]any{run, topic}, func(scan func(...any) error) error {
			var partition uint32
			var last uint64
			err := scan(&partition, &last)
			offsets[int(partition)] = int64(last) + 1
			return err
		})
	if err != nil {
		return nil, err
	}
	clear(g.seen)
	g.spanCount = 0
	var stored uint64
	// A run of numbers is where number minus rank stays the same.
	err = each(ctx, g.cfg.DB, `SELECT source, min(seq) AS lo, max(seq) AS hi
		FROM (SELECT source, seq, seq - row_number() OVER (PARTITION BY source ORDER BY seq) AS island FROM events WHERE run = {run:String})
		GROUP BY source, island ORDER BY source, lo`,
		[]any{run}, func(scan func(...any) error) error {
			var source string
			var x span
			if err := scan(&source, &x.lo, &x.hi); err != nil {
				return err
			}
			if g.seen[source] == nil {
				g.seen[source] = new(spans)
			}
			*g.seen[source] = append(*g.seen[source], x)
			g.spanCount++
			stored += x.hi - x.lo + 1
			return nil
		})
	if err != nil {
		return nil, err
	}
	g.update(func(s *Stats) { s.Stored = stored })
	return offsets, nil
}

// waitForInserts lets an insert of an earlier ingester, killed since, end before its rows are counted. A store that
// does not show its processes is not waited for.
func (g *Ingester) waitForInserts(ctx context.Context) error {
	for range 100 {
		var busy uint64
		err := g.cfg.DB.QueryRow(ctx, "SELECT count() FROM system.processes WHERE startsWith(Settings['insert_deduplication_token'], {token:String})",
			clickhouse.Named("token", g.cfg.Run+"/"+g.cfg.Client.Topic())).Scan(&busy)
		if err != nil {
			g.log.Debug("the store does not show its processes", "error", err)
			return nil
		}
		if busy == 0 {
			return nil
		}
		select {
		case <-time.After(retryFirst):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("an earlier ingester's insert is still under way")
}

func each(ctx context.Context, db *clickhouse.DB, sql string, args []any, row func(scan func(...any) error) error) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
