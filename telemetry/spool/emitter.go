package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// Publisher takes events to Kafka: kafka.Client is one. It returns nil only when all in-sync replicas have the values,
// each of which is NDJSON of whole events of the source. An error with a method HeldBack() bool that returns true says
// that nothing was taken and that it should be asked again soon.
type Publisher interface {
	Publish(ctx context.Context, run, source string, values [][]byte) error
}

// Config of an emitter. Zero values of the sizes and times mean their defaults.
type Config struct {
	Dir    string // folder of the run's spools, shared by all its processes
	Run    string
	Source string // one process incarnation: "region/us-east#2"; never used twice in a folder

	Publisher Publisher // nil: nothing is shipped, Recover does it later

	QueueBytes   int           // events waiting in memory for the disk; 64 MiB: two seconds of 100,000 play starts each
	SpoolBytes   int64         // events waiting on disk for Kafka; 16 GiB
	SpareBytes   int64         // of the disk, left to others: the spool counts as full before; 256 MiB
	SegmentBytes int64         // 32 MiB
	FlushEvery   time.Duration // 5 ms
	ShipEvery    time.Duration // how long events on disk wait to make a fuller request to Kafka; 50 ms
	DrainFor     time.Duration // how long Run goes on shipping after its context ended; 5 s

	Now    func() time.Time // nil = time.Now
	Logger *slog.Logger     // nil = none
}

// ErrExists is wrapped by Open's error when the source already has a spool in the folder.
var ErrExists = errors.New("the source already has a telemetry spool")

var errSpoolFull = errors.New("the spool is at its limit")

const (
	kickBytes    = 256 << 10
	keepBytes    = 4 << 20   // of an emptied buffer's memory that is kept for the next
	messageBytes = 64 << 10  // of events in one Kafka message
	batchBytes   = 512 << 10 // of events in one request to Kafka
	retryFirst   = 50 * time.Millisecond
	retryMost    = time.Second
	heldMost     = 200 * time.Millisecond // between two questions to a Kafka that holds back
	landing      = 2 * time.Second        // for a request that is on its way when shipping ends: cut off, it may arrive twice
	lockEvery    = 20 * time.Millisecond
	lockWait     = time.Second // how long a lock that another process holds is asked for
)

// Counts of one source.
type Counts struct {
	Emitted uint64 // appended to the spool
	Acked   uint64 // acknowledged by Kafka
	Dropped uint64 // refused: queue, spool or disk full, or emitted after the end
}

// Emitter is an event.Sink. Emit may be called from Open on; Run must run for events to leave memory.
type Emitter struct {
	cfg  Config
	log  *slog.Logger
	base string
	head []byte // of every line, up to Seq

	mu       sync.Mutex
	queue    []byte
	seq      uint64
	dropped  uint64
	reported uint64 // of dropped, in TelemetryDropped events
	why      error  // why the flusher is not getting on; nil when it is
	cause    error  // why, when the last event was dropped
	ended    bool

	kick    chan struct{} // the queue is worth a flush now
	dirty   chan struct{} // the queue is no longer empty
	grown   chan struct{} // the spool has grown
	bodies  sync.Pool
	flushed flushed // owned by the flusher

	stateMu sync.Mutex
	state   state
	file    *os.File // the state file, locked
	unacked int64    // bytes
	saved   state
}

type flushed struct {
	file    io.WriteCloser
	pending []byte // taken from the queue, not yet written
	torn    int64  // bytes of half an event at the end of the file
	spare   []byte
}

// Open makes the spool of a source. Call Run next.
func Open(cfg Config) (*Emitter, error) {
	cfg.QueueBytes = or(cfg.QueueBytes, 64<<20)
	cfg.SpoolBytes = or(cfg.SpoolBytes, 16<<30)
	cfg.SpareBytes = or(cfg.SpareBytes, 256<<20)
	cfg.SegmentBytes = or(cfg.SegmentBytes, 32<<20)
	cfg.FlushEvery = or(cfg.FlushEvery, 5*time.Millisecond)
	cfg.ShipEvery = or(cfg.ShipEvery, 50*time.Millisecond)
	cfg.DrainFor = or(cfg.DrainFor, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Run == "" || cfg.Source == "" || len(cfg.Source) > maxSource || len(cfg.Run) > maxSource {
		return nil, fmt.Errorf("telemetry spool: run %q and source %q need 1 to %d bytes", cfg.Run, cfg.Source, maxSource)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("telemetry spool: %w", err)
	}
	e := &Emitter{
		cfg:   cfg,
		log:   cfg.Logger.With("source", cfg.Source),
		base:  base(cfg.Dir, cfg.Source),
		head:  event.AppendHead(nil, cfg.Run, cfg.Source),
		kick:  make(chan struct{}, 1),
		dirty: make(chan struct{}, 1),
		grown: make(chan struct{}, 1),
		state: state{Run: cfg.Run, Source: cfg.Source},
	}
	e.bodies.New = func() any { b := make([]byte, 0, 1024); return &b }
	var err error
	e.file, err = openState(e.base+stateSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %s in %s", ErrExists, cfg.Source, cfg.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("telemetry spool: %w", err)
	}
	undo := func(err error) (*Emitter, error) {
		e.file.Close()
		os.Remove(e.file.Name())
		return nil, fmt.Errorf("telemetry spool in %s: %w", cfg.Dir, err)
	}
	patience, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	for {
		free, err := tryLock(e.file)
		if err != nil {
			return undo(fmt.Errorf("cannot lock the state file: %w", err))
		}
		if free {
			break
		}
		if !pause(patience, lockEvery) { // who recovers the folder holds a file for a moment
			return undo(fmt.Errorf("another process has held the state file %s for %s", e.file.Name(), lockWait))
		}
	}
	if err := e.save(); err != nil {
		return undo(err)
	}
	if e.flushed.file, err = createSegment(e.base, 0); err != nil {
		return undo(err)
	}
	return e, nil
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// reuse keeps an emptied buffer for the next events, unless a burst has made it large.
func (f *flushed) reuse(b []byte) {
	f.pending, f.spare = nil, nil
	if cap(b) <= keepBytes {
		f.spare = b[:0]
	}
}

// freeBytes is what is left of the disk that a folder is on. It is replaced by a test.
var freeBytes = func(dir string) (int64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil //nolint:unconvert // the types differ between systems
}

func createSegment(base string, n int) (*os.File, error) {
	return os.OpenFile(segmentPath(base, n), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
}

// Source is the incarnation's name.
func (e *Emitter) Source() string { return e.cfg.Source }

// Emit takes one event: fills Run, Source, Seq and Written, and At if it is zero. It never blocks on a disk or a
// network; what finds no room is counted as dropped.
func (e *Emitter) Emit(ev event.Event) {
	ev.Written = e.cfg.Now()
	if ev.At.IsZero() {
		ev.At = ev.Written
	}
	p := e.bodies.Get().(*[]byte)
	*p = event.AppendBody((*p)[:0], &ev) // outside the lock: it is most of the work
	e.mu.Lock()
	before := len(e.queue)
	ok := !e.ended && e.enqueue(*p)
	if !ok {
		e.dropped++
		e.cause = e.why
	}
	after := len(e.queue)
	e.mu.Unlock()
	e.bodies.Put(p)
	switch {
	case !ok:
	case before == 0:
		wake(e.dirty)
	case before < kickBytes && after >= kickBytes:
		wake(e.kick)
	}
}

// enqueue appends one event to the queue, if it has room.
func (e *Emitter) enqueue(body []byte) bool {
	if len(e.queue)+len(e.head)+len(body)+21 > e.cfg.QueueBytes {
		return false
	}
	e.push(body)
	return true
}

func (e *Emitter) push(body []byte) {
	e.seq++
	e.queue = append(e.queue, e.head...)
	e.queue = strconv.AppendUint(e.queue, e.seq, 10)
	e.queue = append(e.queue, body...)
	e.queue = append(e.queue, '\n')
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Counts says how the source stands.
func (e *Emitter) Counts() Counts {
	e.mu.Lock()
	dropped := e.dropped
	e.mu.Unlock()
	e.stateMu.Lock()
	defer e.stateMu.Unlock()
	return Counts{Emitted: e.state.Written.Lines, Acked: e.state.Acked.Lines, Dropped: dropped}
}

// Err says in one sentence why events are not getting to disk, or nil.
func (e *Emitter) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.why
}

// Run writes and ships until ctx ends; then it refuses further events, writes what it has, goes on shipping for
// DrainFor at most, and returns. What was not acknowledged by then stays in the spool for Recover. The error, if any,
// says how many events could not be written.
func (e *Emitter) Run(ctx context.Context) error {
	sendCtx, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	shipCtx, stopShipping := context.WithCancel(sendCtx)
	defer stopShipping()
	shipped := make(chan struct{})
	flushDone := make(chan struct{})
	go func() {
		defer close(shipped)
		e.ship(shipCtx, sendCtx, flushDone)
	}()
	e.flushUntil(ctx)
	close(flushDone)
	wake(e.grown)
	if !ended(shipped, e.cfg.DrainFor) {
		stopShipping()
		ended(shipped, landing)
	}
	stopSending()
	<-shipped
	return e.close()
}

// ended waits for done; false when it took longer than d.
func ended(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func (e *Emitter) flushUntil(ctx context.Context) {
	for {
		wait := e.cfg.FlushEvery
		select {
		case <-ctx.Done():
			e.mu.Lock()
			e.ended = true
			e.mu.Unlock()
			e.flush()
			return
		case <-e.dirty:
		}
		for {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-e.kick:
			case <-ctx.Done():
			}
			timer.Stop()
			if e.flush() {
				break
			}
			if ctx.Err() != nil {
				return // one last try was made
			}
			wait = min(2*wait, retryMost) // the disk is full: look again, ever less often
		}
	}
}

// flush takes the queue to the spool; false where something is left to be written.
func (e *Emitter) flush() bool {
	e.take()
	err := e.write()
	e.mu.Lock()
	was := e.why
	e.why = err
	left := len(e.queue)
	e.mu.Unlock()
	if err != nil && was == nil {
		e.log.Error("telemetry cannot be written; events wait in memory and are dropped when that is full", "error", err)
	}
	if err == nil && was != nil {
		e.log.Info("telemetry is written again")
	}
	if err := e.save(); err != nil {
		e.log.Error("telemetry spool state", "error", err)
	}
	wake(e.grown)
	if left > 0 {
		wake(e.dirty)
	}
	return err == nil
}

// take moves the queue to the flusher, and puts an event about what was dropped into the place that opened. While an
// earlier take is still unwritten the queue stays, and so stays bounded.
func (e *Emitter) take() {
	if len(e.flushed.pending) > 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.dropped - e.reported; n > 0 {
		now := e.cfg.Now()
		report := event.Event{Kind: event.TelemetryDropped, At: now, Written: now, Value: float64(n), Component: "emitter", Detail: "the queue in memory was full"}
		if e.cause != nil {
			report.Detail = e.cause.Error()
		}
		// One event beyond the bound: the queue is still full when this is the last flush of all.
		e.push(event.AppendBody(nil, &report))
		e.reported = e.dropped
	}
	e.flushed.pending, e.queue = e.queue, e.flushed.spare[:0]
	e.flushed.spare = nil
}

func (e *Emitter) write() error {
	f := &e.flushed
	for start := f.pending; ; {
		if len(f.pending) == 0 {
			f.reuse(start)
			return nil
		}
		e.stateMu.Lock()
		pos, unacked := e.state.Written, e.unacked
		e.stateMu.Unlock()
		if unacked > 0 && unacked+int64(len(f.pending)) > e.cfg.SpoolBytes {
			return fmt.Errorf("telemetry spool %s: %w of %d MiB: Kafka is not taking its events", e.cfg.Dir, errSpoolFull, e.cfg.SpoolBytes>>20)
		}
		if free, err := freeBytes(e.cfg.Dir); err == nil && free < e.cfg.SpareBytes+int64(len(f.pending)) {
			return fmt.Errorf("telemetry spool %s: the disk is nearly full: %d MiB are left", e.cfg.Dir, free>>20)
		}
		n, err := f.file.Write(f.pending)
		if n > 0 {
			lines := bytes.Count(f.pending[:n], []byte{'\n'})
			rest := int64(n - 1 - bytes.LastIndexByte(f.pending[:n], '\n'))
			f.pending = f.pending[n:]
			e.stateMu.Lock()
			if lines == 0 {
				f.torn += int64(n)
			} else {
				e.state.Written.Offset += f.torn + int64(n) - rest
				e.state.Written.Lines += uint64(lines)
				f.torn = rest
			}
			e.unacked += int64(n)
			pos = e.state.Written
			e.stateMu.Unlock()
		}
		if err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("telemetry spool %s: the disk is full", e.cfg.Dir)
			}
			return fmt.Errorf("telemetry spool: %w", err)
		}
		if len(f.pending) == 0 && pos.Offset >= e.cfg.SegmentBytes { // only between whole events
			next, err := createSegment(e.base, pos.Segment+1)
			if err != nil {
				f.reuse(start)
				e.log.Warn("telemetry spool stays with a long segment", "error", err)
				return nil
			}
			f.file.Close()
			f.file = next
			e.stateMu.Lock()
			e.state.Written = position{Segment: pos.Segment + 1, Lines: pos.Lines}
			e.stateMu.Unlock()
		}
	}
}

// save rewrites the state record, if anything changed.
func (e *Emitter) save() error {
	e.mu.Lock()
	dropped := e.dropped
	e.mu.Unlock()
	e.stateMu.Lock()
	defer e.stateMu.Unlock()
	e.state.Dropped = dropped
	if e.state == e.saved {
		return nil
	}
	b, err := e.state.encode()
	if err != nil {
		return err
	}
	if _, err := e.file.WriteAt(b, 0); err != nil {
		return err
	}
	e.saved = e.state
	return nil
}

func (e *Emitter) close() error {
	e.mu.Lock()
	e.ended = true
	lost := uint64(bytes.Count(e.queue, []byte{'\n'}) + bytes.Count(e.flushed.pending, []byte{'\n'}))
	e.queue, e.flushed.pending = nil, nil
	e.dropped += lost
	why := e.why
	e.mu.Unlock()
	e.stateMu.Lock()
	e.state.Closed = true
	e.stateMu.Unlock()
	err := e.save()
	e.flushed.file.Close()
	e.stateMu.Lock()
	defer e.stateMu.Unlock()
	if e.state.Acked == e.state.Written {
		os.Remove(segmentPath(e.base, e.state.Written.Segment))
	}
	e.file.Close()
	if lost > 0 {
		return fmt.Errorf("%d events were not written: %w", lost, why)
	}
	if err != nil {
		return fmt.Errorf("telemetry spool: %w", err)
	}
	return nil
}

// ship sends what is spooled, in order, until all is acknowledged and no more will come, or ctx ends; a request that is
// under way then may go on until sendCtx ends.
func (e *Emitter) ship(ctx, sendCtx context.Context, flushDone <-chan struct{}) {
	if e.cfg.Publisher == nil {
		return
	}
	r := reader{base: e.base}
	defer r.close()
	wait := retryFirst
	for {
		e.stateMu.Lock()
		from, to := e.state.Acked, e.state.Written
		e.stateMu.Unlock()
		if from.Lines == to.Lines {
			if from != to {
				e.advance(from, to) // past the end of a segment
			}
			select {
			case <-flushDone:
				e.stateMu.Lock()
				done := e.state.Acked.Lines == e.state.Written.Lines
				e.stateMu.Unlock()
				if done {
					return
				}
			case <-e.grown:
			case <-ctx.Done():
				return
			}
			continue
		}
		if from.Segment == to.Segment && to.Offset-from.Offset < batchBytes && !closed(flushDone) {
			if fuller, ok := e.linger(ctx, flushDone, to); ok {
				to = fuller
			}
		}
		if ctx.Err() != nil {
			return
		}
		next, err := r.send(sendCtx, e.cfg.Publisher, e.cfg.Run, e.cfg.Source, from, to)
		if err != nil {
			most := retryMost
			if heldBack(err) {
				most = heldMost
			} else if wait == retryFirst {
				e.log.Warn("telemetry waits in the spool", "error", err)
			}
			if !pause(ctx, min(wait, most)) {
				return
			}
			wait = min(2*wait, most)
			continue
		}
		if wait != retryFirst {
			e.log.Debug("telemetry is shipped again")
			wait = retryFirst
		}
		e.advance(from, next)
	}
}

// linger waits a little for more than what ends at to, and says where it ends then: a request to Kafka costs the same for
// one event as for a thousand.
func (e *Emitter) linger(ctx context.Context, flushDone <-chan struct{}, to position) (position, bool) {
	timer := time.NewTimer(e.cfg.ShipEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-flushDone:
		case <-ctx.Done():
			return to, false
		case <-e.grown:
			e.stateMu.Lock()
			now := e.state.Written
			e.stateMu.Unlock()
			if now.Segment == to.Segment && now.Offset-to.Offset < batchBytes {
				continue
			}
		}
		e.stateMu.Lock()
		defer e.stateMu.Unlock()
		return e.state.Written, true
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// heldBack reports whether a Publisher's error says that it takes nothing for now: it is asked again soon, and quietly.
func heldBack(err error) bool {
	var says interface{ HeldBack() bool }
	return errors.As(err, &says) && says.HeldBack()
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// advance notes an acknowledgement and deletes the segments that lie wholly before it.
func (e *Emitter) advance(from, to position) {
	e.stateMu.Lock()
	e.state.Acked = to
	if from.Segment == to.Segment {
		e.unacked -= to.Offset - from.Offset
	} else {
		for s := from.Segment; s < to.Segment; s++ {
			if info, err := os.Stat(segmentPath(e.base, s)); err == nil {
				e.unacked -= info.Size()
			}
		}
		e.unacked -= to.Offset - from.Offset
	}
	e.stateMu.Unlock()
	if err := e.save(); err != nil {
		e.log.Error("telemetry spool state", "error", err)
		return // the record on disk still points into the segments
	}
	for s := from.Segment; s < to.Segment; s++ {
		os.Remove(segmentPath(e.base, s))
	}
}

// reader reads a source's events back for shipping.
type reader struct {
	base    string
	file    *os.File
	segment int
	buf     []byte
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// send publishes the next batch of [from, to) and returns where it ends.
func (r *reader) send(ctx context.Context, p Publisher, run, source string, from, to position) (next position, err error) {
	for {
		if r.file == nil || r.segment != from.Segment {
			r.close()
			if r.file, err = os.Open(segmentPath(r.base, from.Segment)); err != nil {
				return from, fmt.Errorf("telemetry spool: %w", err)
			}
			r.segment = from.Segment
		}
		size := int64(batchBytes)
		if from.Segment == to.Segment {
			size = min(size, to.Offset-from.Offset)
		}
		if int64(cap(r.buf)) < size {
			r.buf = make([]byte, batchBytes)
		}
		n, rerr := r.file.ReadAt(r.buf[:size], from.Offset)
		whole := r.buf[:bytes.LastIndexByte(r.buf[:n], '\n')+1]
		if len(whole) > 0 {
			if err := p.Publish(ctx, run, source, messages(whole)); err != nil {
				return from, err
			}
			from.Offset += int64(len(whole))
			from.Lines += uint64(bytes.Count(whole, []byte{'\n'}))
			return from, nil
		}
		if from.Segment < to.Segment {
			from = position{Segment: from.Segment + 1, Lines: from.Lines}
			continue
		}
		return from, fmt.Errorf("telemetry spool %s: %d bytes where a whole event was expected: %w", filepath.Base(r.file.Name()), n, rerr)
	}
}

// messages cuts a batch of lines into the values of messages, without their last newline.
func messages(lines []byte) (values [][]byte) {
	for len(lines) > 0 {
		n := len(lines)
		if n > messageBytes {
			n = bytes.LastIndexByte(lines[:messageBytes], '\n') + 1
			if n == 0 { // one event longer than that
				n = bytes.IndexByte(lines, '\n') + 1
			}
		}
		values = append(values, lines[:n-1])
		lines = lines[n:]
	}
	return values
}
