package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// child processes of the kill test are this binary, started again.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TMINUS_TEST_SPOOL_DIR"); dir != "" {
		emitUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// broker is a Publisher that keeps what it takes.
type broker struct {
	mu     sync.Mutex
	down   error
	events map[string][]uint64 // source → seqs as delivered
	detail []string
}

func (b *broker) Publish(_ context.Context, run, source string, values [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down != nil {
		return b.down
	}
	if b.events == nil {
		b.events = make(map[string][]uint64)
	}
	size := 0
	for _, v := range values {
		size += len(v)
		if len(v) > event.MaxLine {
			return fmt.Errorf("a message of %d bytes", len(v))
		}
		var d event.Decoder
		for line := range bytes.SplitSeq(v, []byte{'\n'}) {
			var e event.Event
			if err := d.Decode(line, &e); err != nil {
				return err
			}
			if e.Run != run || e.Source != source || e.At.IsZero() || e.Written.IsZero() {
				return fmt.Errorf("bad event %+v", e)
			}
			b.events[source] = append(b.events[source], e.Seq)
			if e.Kind == event.TelemetryDropped {
				b.detail = append(b.detail, fmt.Sprint(e.Value, " ", e.Detail))
			}
		}
	}
	if size > batchBytes {
		return fmt.Errorf("a batch of %d bytes", size)
	}
	return nil
}

func (b *broker) set(err error) {
	b.mu.Lock()
	b.down = err
	b.mu.Unlock()
}

func (b *broker) got(source string) []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]uint64(nil), b.events[source]...)
}

func wantSeqs(t *testing.T, got []uint64, n int) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d events, want %d", len(got), n)
	}
	for i, seq := range got {
		if seq != uint64(i+1) {
			t.Fatalf("event %d has seq %d", i, seq)
		}
	}
}

func run(e *Emitter) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited 20 s for ", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestEveryEventIsShippedInOrder(t *testing.T) {
	var b broker
	dir := t.TempDir()
	e, err := Open(Config{Dir: dir, Run: "r", Source: "region/us-east#1", Publisher: &b, SegmentBytes: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				e.Emit(event.Event{Kind: event.Heartbeat, Session: "s", Detail: strings.Repeat("x", 100)})
			}
		})
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got(e.Source()), writers*each)
	want := Counts{Emitted: writers * each, Acked: writers * each}
	if got := e.Counts(); got != want {
		t.Errorf("counts %+v", got)
	}
	ledger, err := Ledger(dir)
	if err != nil || len(ledger) != 1 || ledger[0] != (Account{Run: "r", Source: "region/us-east#1", Counts: want, Closed: true}) {
		t.Errorf("ledger %+v, %v", ledger, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.ndjson")); len(left) > 0 {
		t.Errorf("segments left: %v", left)
	}
	e.Emit(event.Event{})
	if got := e.Counts().Dropped; got != 1 {
		t.Errorf("after the end %d dropped", got)
	}
}

func TestBacklogWhileKafkaIsAway(t *testing.T) {
	var b broker
	b.set(errors.New("connection refused"))
	e, err := Open(Config{Dir: t.TempDir(), Run: "r", Source: "s", Publisher: &b, SegmentBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	for range 1000 {
		e.Emit(event.Event{Kind: event.PlayStart})
	}
	until(t, "the spool to take them", func() bool { return e.Counts().Emitted == 1000 })
	if got := e.Counts(); got.Acked != 0 || got.Dropped != 0 {
		t.Errorf("%+v", got)
	}
	b.set(nil)
	until(t, "the backlog to be shipped", func() bool { return e.Counts().Acked == 1000 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got("s"), 1000)
}

func TestQueueOverflowIsCountedAndReported(t *testing.T) {
	var b broker
	dir := t.TempDir()
	e, err := Open(Config{Dir: dir, Run: "r", Source: "s", Publisher: &b, QueueBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 { // Run is not there yet
		e.Emit(event.Event{Kind: event.PlayStart, Status: "ok"})
	}
	dropped := e.Counts().Dropped
	if dropped == 0 || dropped == 1000 {
		t.Fatalf("%d dropped", dropped)
	}
	stop := run(e)
	until(t, "the queue to empty", func() bool { return e.Counts().Emitted >= 1000-dropped })
	e.Emit(event.Event{Kind: event.PlayStart})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got("s"), int(1000-dropped)+2)
	if want := fmt.Sprintf("[%d the queue in memory was full]", dropped); fmt.Sprint(b.detail) != want {
		t.Errorf("%v, want %s", b.detail, want)
	}
	if l, _ := Ledger(dir); len(l) != 1 || l[0].Dropped != dropped {
		t.Errorf("%+v", l)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	var b broker
	b.set(errors.New("away"))
	e, err := Open(Config{Dir: t.TempDir(), Run: "r", Source: "s", Publisher: &b, QueueBytes: 20_000, SpoolBytes: 50_000, SegmentBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	until(t, "the limit", func() bool {
		e.Emit(event.Event{Kind: event.PlayStart, Detail: strings.Repeat("x", 500)})
		return e.Counts().Dropped > 100
	})
	if err := e.Err(); !errors.Is(err, errSpoolFull) {
		t.Errorf("Err() = %v", err)
	}
	if size := dirSize(t, e.cfg.Dir); size > 50_000+stateSize {
		t.Errorf("%d bytes in the spool", size)
	}
	b.set(nil)
	until(t, "the spool to empty", func() bool { c := e.Counts(); return e.Err() == nil && c.Acked == c.Emitted && c.Acked > 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got("s"), int(e.Counts().Emitted))
}

func dirSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range entries {
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// fullDisk takes room bytes and then says that the disk is full, in the middle of an event.
type fullDisk struct {
	io.WriteCloser
	mu   sync.Mutex
	room int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room >= len(p) {
		d.room -= len(p)
		return d.WriteCloser.Write(p)
	}
	n, err := d.WriteCloser.Write(p[:d.room])
	d.room = 0
	if err == nil {
		err = &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	return n, err
}

func TestDiskFull(t *testing.T) {
	var b broker
	var logged bytes.Buffer
	dir := t.TempDir()
	e, err := Open(Config{Dir: dir, Run: "r", Source: "s", Publisher: &b, QueueBytes: 20_000, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	disk := &fullDisk{WriteCloser: e.flushed.file, room: 777}
	e.flushed.file = disk
	stop := run(e)
	until(t, "drops", func() bool {
		e.Emit(event.Event{Kind: event.PlayStart, Detail: strings.Repeat("x", 100)})
		return e.Counts().Dropped > 10
	})
	if want := "telemetry spool " + dir + ": the disk is full"; e.Err() == nil || e.Err().Error() != want {
		t.Errorf("Err() = %v, want %s", e.Err(), want)
	}
	until(t, "the whole events to be shipped", func() bool { c := e.Counts(); return c.Emitted > 0 && c.Acked == c.Emitted })
	disk.mu.Lock()
	disk.room = 1 << 30
	disk.mu.Unlock()
	until(t, "room again", func() bool { return e.Err() == nil })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got("s"), int(e.Counts().Emitted))
	if len(b.detail) != 1 || !strings.Contains(b.detail[0], "the disk is full") {
		t.Errorf("reported %v", b.detail)
	}
	if n := strings.Count(logged.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors logged:\n%s", n, &logged)
	}
}

func TestDiskStaysFull(t *testing.T) {
	e, err := Open(Config{Dir: t.TempDir(), Run: "r", Source: "s", Publisher: new(broker), DrainFor: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.flushed.file = &fullDisk{WriteCloser: e.flushed.file, room: 300}
	stop := run(e)
	for range 10 {
		e.Emit(event.Event{Kind: event.PlayStart})
	}
	err = stop()
	c := e.Counts()
	if err == nil || !strings.Contains(err.Error(), "the disk is full") || c.Emitted+c.Dropped != 10 || c.Emitted == 0 {
		t.Errorf("%v, %+v", err, c)
	}
}

func TestSourceOnce(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Run: "r", Source: "conductor#1"}
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer run(e)()
	if _, err := Open(cfg); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
}

func TestRecoverLeavesTheLivingAlone(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(Config{Dir: dir, Run: "r", Source: "s"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	e.Emit(event.Event{Kind: event.Phase})
	until(t, "a flush", func() bool { return e.Counts().Emitted == 1 })
	var b broker
	if n, err := Recover(t.Context(), dir, &b); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if l, err := Ledger(dir); err != nil || len(l) != 1 || l[0].Emitted != 1 || l[0].Acked != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if err := stop(); err != nil { // nothing was shipped: no Publisher
		t.Fatal(err)
	}
	b.set(errors.New("away"))
	if _, err := Recover(t.Context(), dir, &b); err == nil || !strings.Contains(err.Error(), "1 events of s are still in its telemetry spool") {
		t.Error(err)
	}
	b.set(nil)
	for _, want := range []uint64{1, 0} {
		if n, err := Recover(t.Context(), dir, &b); n != want || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	wantSeqs(t, b.got("s"), 1)
}

// left makes a spool of n events that nobody holds, and returns its folder.
func left(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	e, err := Open(Config{Dir: dir, Run: "r", Source: "s"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	for range n {
		e.Emit(event.Event{Kind: event.Phase})
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// hold locks a state file as another process would, until the returned function is called.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if free, err := tryLock(f); !free || err != nil {
		t.Fatal(free, err)
	}
	return func() { f.Close() }
}

// Who looks on must not make a dead source look alive, nor keep one from starting.
func TestLookingOnDisturbsNobody(t *testing.T) {
	dir := left(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	for range 2 {
		looking.Go(func() {
			for ctx.Err() == nil {
				if _, err := Ledger(dir); err != nil {
					t.Error(err)
				}
				if _, err := Peek(dir, "r"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	defer looking.Wait()
	defer cancel()
	for i := range 200 {
		e, err := Open(Config{Dir: dir, Run: "r", Source: fmt.Sprint("next#", i)})
		if err != nil {
			t.Fatal(err)
		}
		e.file.Close()
		f, err := os.OpenFile(filepath.Join(dir, "s.state"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if free, err := tryLock(f); !free || err != nil {
			t.Fatalf("look %d: free %v, %v", i, free, err)
		}
		f.Close()
	}
}

func TestPeekAndLedgerReadWhatIsHeld(t *testing.T) {
	dir := left(t, 3)
	hold(t, filepath.Join(dir, "s.state"))
	hold(t, filepath.Join(dir, "made just now.state")) // empty still
	if c, err := Peek(dir, "r"); c != (Counts{Emitted: 3}) || err != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := Peek(dir, "another"); c != (Counts{}) || err != nil {
		t.Errorf("%+v, %v", c, err)
	}
	// What a killed process appended after its last note, the ledger counts.
	f, err := os.OpenFile(segmentPath(base(dir, "s"), 0), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("{}\n{\"torn"); err != nil {
		t.Fatal(err)
	}
	if l, err := Ledger(dir); len(l) != 1 || l[0].Emitted != 4 || err != nil {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestRecoverWaitsForALockHeldAMoment(t *testing.T) {
	dir := left(t, 3)
	release := hold(t, filepath.Join(dir, "s.state"))
	defer time.AfterFunc(lockWait/4, release).Stop()
	var b broker
	if n, err := Recover(t.Context(), dir, &b); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	wantSeqs(t, b.got("s"), 3)
}

func TestOpenWaitsForALockHeldAMoment(t *testing.T) {
	for _, c := range []struct {
		name string
		hold time.Duration
		err  string
	}{
		{name: "a moment", hold: lockWait / 4},
		{name: "for good", hold: time.Hour, err: "another process has held the state file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "s.state")
			// The lock is snatched between the making of the file and its locking.
			defer func(was func(string, int) (*os.File, error)) { openState = was }(openState)
			made := openState
			openState = func(path string, flags int) (*os.File, error) {
				f, err := made(path, flags)
				if err == nil && flags&os.O_EXCL != 0 {
					time.AfterFunc(c.hold, hold(t, path))
				}
				return f, err
			}
			e, err := Open(Config{Dir: dir, Run: "r", Source: "s"})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "%!") {
					t.Error(err)
				}
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Error("the state file was left behind")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			run(e)()
		})
	}
}

func TestNoSpools(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	if l, err := Ledger(dir); len(l) != 0 || err != nil {
		t.Error(l, err)
	}
	if n, err := Recover(t.Context(), dir, new(broker)); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestBrokenStateIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.state"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Ledger(dir); !errors.Is(err, errState) {
		t.Error(err)
	}
	if _, err := Recover(t.Context(), dir, new(broker)); !errors.Is(err, errState) {
		t.Error(err)
	}
}

// fileBroker appends the seqs it takes to a file, so that they outlive the process.
type fileBroker struct{ *os.File }

func (b fileBroker) Publish(_ context.Context, run, source string, values [][]byte) error {
	var d event.Decoder
	var out []byte
	for _, v := range values {
		for line := range bytes.SplitSeq(v, []byte{'\n'}) {
			var e event.Event
			if err := d.Decode(line, &e); err != nil {
				return err
			}
			out = fmt.Appendln(out, e.Seq)
		}
	}
	_, err := b.Write(out)
	return err
}

func emitUntilKilled(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, "broker"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	e, err := Open(Config{Dir: filepath.Join(dir, "spool"), Run: "r", Source: "child#1", Publisher: fileBroker{f}, SegmentBytes: 100_000, FlushEvery: time.Millisecond})
	if err != nil {
		panic(err)
	}
	go e.Run(context.Background())
	for i := 0; ; i++ {
		e.Emit(event.Event{Kind: event.PlayStart, Detail: strings.Repeat("x", i%300)})
		if i%100 == 0 {
			c := e.Counts()
			fmt.Println(c.Emitted, c.Acked) // a promise to the parent
		}
	}
}

func TestKillLosesNothingEmittedOrAcknowledged(t *testing.T) {
	for round := range 5 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TMINUS_TEST_SPOOL_DIR="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var emitted, acked uint64
		for acked < uint64(200+1500*round) {
			if _, err := fmt.Fscanln(out, &emitted, &acked); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()

		spool := filepath.Join(dir, "spool")
		ledger, err := Ledger(spool)
		if err != nil || len(ledger) != 1 {
			t.Fatal(ledger, err)
		}
		a := ledger[0]
		if a.Closed || a.Emitted < emitted || a.Emitted < a.Acked {
			t.Fatalf("%+v, and %d were emitted, %d acked before the kill", a, emitted, acked)
		}
		f, err := os.OpenFile(filepath.Join(dir, "broker"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Recover(t.Context(), spool, fileBroker{f}); err != nil {
			t.Fatal(err)
		}
		f.Close()
		after, err := Ledger(spool)
		if err != nil || after[0].Emitted != a.Emitted || after[0].Acked != a.Emitted {
			t.Fatalf("%+v, %v", after, err)
		}
		delivered, err := os.ReadFile(filepath.Join(dir, "broker"))
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[uint64]bool)
		for line := range strings.SplitSeq(strings.TrimSpace(string(delivered)), "\n") {
			var seq uint64
			fmt.Sscan(line, &seq)
			seen[seq] = true
		}
		for seq := range a.Emitted {
			if !seen[seq+1] {
				t.Fatalf("event %d of %d was lost", seq+1, a.Emitted)
			}
		}
		if uint64(len(seen)) != a.Emitted {
			t.Errorf("%d different events delivered, %d emitted", len(seen), a.Emitted)
		}
		t.Logf("killed after %d emitted, %d acked; ledger says %d; %d delivered twice", emitted, acked, a.Emitted,
			strings.Count(string(delivered), "\n")-len(seen))
	}
}

func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := state{Run: "r", Source: "dead#1"}
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	path := base(dir, s.Source)
	line := func(seq uint64) []byte {
		now := time.Unix(1, 0)
		return append(event.Append(nil, &event.Event{Run: "r", Source: "dead#1", Seq: seq, At: now, Written: now}), '\n')
	}
	torn := append(append(line(1), line(2)...), line(3)[:20]...)
	for name, content := range map[string][]byte{path + stateSuffix: b, segmentPath(path, 0): torn} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var br broker
	if n, err := Recover(t.Context(), dir, &br); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	wantSeqs(t, br.got("dead#1"), 2)
}

func FuzzState(f *testing.F) {
	s := state{Run: "r", Source: "s", Written: position{1, 2, 3}}
	b, _ := s.encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil {
			if again, err := s.encode(); err != nil || len(again) != stateSize {
				t.Fatal(err)
			}
		}
	})
}

// BenchmarkEmit is the price of one play start's event to whoever has it: CPU of the whole process, the flusher's too.
func BenchmarkEmit(b *testing.B) {
	e, err := Open(Config{Dir: b.TempDir(), Run: "20261121-200000-title-fight-1f2e", Source: "conductor#1", SegmentBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	stop := run(e)
	at := time.Now()
	ev := event.Event{Kind: event.PlayStart, At: at, Status: "ok", Region: "us-east", Component: "starts", Session: "aebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4",
		Device: "tv", ISP: "fibre-1", Edge: "us-east", Value: 1.823517, LagMS: 0.104219, Attempts: 1}
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		e.Emit(ev)
		n++
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(n), "cpu-ns/op")
	b.ReportMetric(float64(e.Counts().Dropped), "dropped")
	if err := stop(); err != nil {
		b.Fatal(err)
	}
}

type heldBackError struct{}

func (heldBackError) Error() string  { return "not now" }
func (heldBackError) HeldBack() bool { return true }

// A Kafka that holds back makes the spool grow and nothing else: no warning, nothing dropped, and Recover waits.
func TestKafkaHoldsBack(t *testing.T) {
	var b broker
	b.set(heldBackError{})
	dir := t.TempDir()
	var log bytes.Buffer
	e, err := Open(Config{Dir: dir, Run: "r", Source: "s", Publisher: &b, SegmentBytes: 10_000, DrainFor: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	for range 1000 {
		e.Emit(event.Event{Kind: event.PlayStart})
	}
	until(t, "the spool to take them", func() bool { return e.Counts().Emitted == 1000 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Error(log.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n, err := Recover(ctx, dir, &b); n != 0 || err == nil || !strings.HasPrefix(err.Error(), "1000 events of s are still") {
		t.Error(n, err)
	}
	recovered := make(chan error, 1)
	go func() {
		_, err := Recover(t.Context(), dir, &b)
		recovered <- err
	}()
	b.set(nil)
	if err := <-recovered; err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, b.got("s"), 1000)
	if left, _ := filepath.Glob(filepath.Join(dir, "*.ndjson")); len(left) > 0 {
		t.Errorf("segments left: %v", left)
	}
}

// The spool leaves some of the disk to others, and goes on when there is space again.
func TestDiskNearlyFull(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 20)
	was := freeBytes
	freeBytes = func(string) (int64, error) { return free.Load(), nil }
	defer func() { freeBytes = was }()
	var b broker
	e, err := Open(Config{Dir: t.TempDir(), Run: "r", Source: "s", Publisher: &b, SpareBytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(e)
	e.Emit(event.Event{Kind: event.PlayStart})
	until(t, "the complaint", func() bool { return e.Err() != nil })
	if err := e.Err(); !strings.HasSuffix(err.Error(), "the disk is nearly full: 1 MiB are left") {
		t.Error(err)
	}
	free.Store(3 << 20)
	until(t, "the event to be shipped", func() bool { return e.Counts().Acked == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
