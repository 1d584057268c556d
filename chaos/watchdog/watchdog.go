package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/procfs"
)

// Deadline is how long the watchdog takes at most to put everything back once the conductor is gone.
const Deadline = 3 * time.Second

// startWait bounds the wait for a watchdog to watch: it is this very program, and may have to be read from disk.
const startWait = 15 * time.Second

// ErrLost: the watchdog is dead, so nothing may be broken any more.
var ErrLost = errors.New("the watchdog is gone: nobody would undo this if the conductor died")

// Command is the subcommand that Start runs this very binary with: it calls Serve.
const Command = "watchdog"

const (
	// envOrder tells a watchdog what to watch, an order in JSON. It is what makes a process one.
	envOrder = "TMINUS_WATCHDOG"

	lifelineFD = 3 // read end of the pipe whose write end the conductor holds
	readyFD    = 4 // write end: one word in JSON
)

// order is what a watchdog is told.
type order struct {
	Dirs   []string `json:"dirs"` // for the journal, best first
	Header header   `json:"header"`
}

// word is what a watchdog answers: where the journal is, or why it cannot watch.
type word struct {
	Journal string `json:"journal,omitempty"`
	Error   string `json:"error,omitempty"`
}

// maxWord bounds a word, in bytes.
const maxWord = 8 << 10

// Config says what is watched over.
type Config struct {
	Run  string   // the run's id: in the journal, and in what Clean says
	Dir  string   // where the journal lies; "" = /run/tminus for root, else below XDG_RUNTIME_DIR or TMPDIR
	Args []string // of this very binary, to make it call Serve; nil = Command
}

// Watchdog is the conductor's side of its watchdog: a Guard. It may be used by several goroutines.
type Watchdog struct {
	journal  *journal
	cmd      *exec.Cmd
	lifeline *os.File
	exited   chan struct{} // the process has ended
	lost     chan struct{} // and it should not have

	closing sync.Once
	closed  error

	mu    sync.Mutex
	ended bool // Close was called: the process may end
}

// Start starts a watchdog for this process and returns when it watches. It lives until Close, or until this process
// ends; ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*Watchdog, error) {
	if IsChild() {
		return nil, errors.New("start the watchdog: this process was to be one itself")
	}
	if cfg.Args == nil {
		cfg.Args = []string{Command}
	}
	o := order{Dirs: dirs()}
	if cfg.Dir != "" {
		o.Dirs = []string{cfg.Dir}
	}
	self, err := procfs.Read(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("start the watchdog: when did this process start: %w", err)
	}
	o.Header = header{Version: journalVersion, Run: cfg.Run, PID: self.PID, Start: self.Start, Boot: bootID(), Space: pidNamespace()}
	w := &Watchdog{exited: make(chan struct{}), lost: make(chan struct{})}
	if err := w.start(ctx, cfg.Args, o); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return w, nil
}

func (w *Watchdog) start(ctx context.Context, args []string, o order) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	// os.Pipe marks its ends close-on-exec: no other child inherits the write end and keeps the lifeline up.
	theirs, lifeline, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make its lifeline: %w", err)
	}
	defer theirs.Close()
	ready, readyTheirs, err := os.Pipe()
	if err != nil {
		lifeline.Close()
		return fmt.Errorf("make its readiness pipe: %w", err)
	}
	defer ready.Close()
	defer readyTheirs.Close()

	cmd := exec.Command(self(), args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envOrder+"="+string(text))
	cmd.ExtraFiles = []*os.File{theirs, readyTheirs}
	cmd.Dir = "/"
	// A session of its own: neither Ctrl-C, nor a closed terminal, nor a signal to the conductor's group reaches it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		lifeline.Close()
		return err
	}
	theirs.Close()
	readyTheirs.Close()
	w.cmd, w.lifeline = cmd, lifeline
	go w.reap()

	if w.journal, err = awaitReady(ctx, ready); err != nil {
		w.end()
		lifeline.Close() // it removes the journal it may have made, and ends
		select {
		case <-w.exited:
		case <-time.After(Deadline):
			_ = cmd.Process.Kill()
			<-w.exited
		}
	}
	return err
}

// awaitReady waits until a watchdog says where the journal is, and opens it.
func awaitReady(ctx context.Context, ready *os.File) (*journal, error) {
	type said struct {
		word word
		err  error
	}
	heard := make(chan said, 1)
	go func() {
		var s said
		b, err := io.ReadAll(io.LimitReader(ready, maxWord))
		if err == nil {
			err = json.Unmarshal(b, &s.word)
		}
		if err != nil || s.word == (word{}) {
			s.err = errors.New("it ended before it watched")
		}
		heard <- s
	}()
	timer := time.NewTimer(startWait)
	defer timer.Stop()
	select {
	case s := <-heard:
		if s.err == nil && s.word.Error != "" {
			s.err = errors.New(s.word.Error)
		}
		if s.err != nil {
			return nil, s.err
		}
		return openJournal(s.word.Journal)
	case <-timer.C:
		return nil, fmt.Errorf("it does not watch after %s", startWait)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (w *Watchdog) reap() {
	_ = w.cmd.Wait()
	w.mu.Lock()
	if !w.ended {
		close(w.lost)
	}
	w.mu.Unlock()
	close(w.exited)
}

// end says that the process may end from now on.
func (w *Watchdog) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
}

// PID is the watchdog's process id.
func (w *Watchdog) PID() int { return w.cmd.Process.Pid }

// Protect returns when the disk knows how to undo e. Only then may e be done.
func (w *Watchdog) Protect(e Entry) (Token, error) {
	t, err := w.journal.protect(e)
	if err != nil {
		return 0, fmt.Errorf("protect %s: %w", e, err)
	}
	// Asked last: whoever is told that e is protected has a watchdog at that moment.
	select {
	case <-w.exited:
		_ = w.journal.release(t)
		return 0, fmt.Errorf("protect %s: %w", e, ErrLost)
	default:
		return t, nil
	}
}

// Release says that an entry has been undone, or was never done. Releasing twice, or the zero Token, is fine.
func (w *Watchdog) Release(t Token) error {
	if err := w.journal.release(t); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// Protected lists what is protected now, oldest first.
func (w *Watchdog) Protected() []Entry {
	var entries []Entry
	for _, o := range w.journal.entries() {
		entries = append(entries, o.entry)
	}
	return entries
}

// Lost is closed when the watchdog has ended before Close: experiments must end.
func (w *Watchdog) Lost() <-chan struct{} { return w.lost }

// Close undoes what is still protected, newest first, ends the watchdog and removes the journal. The error says what could
// not be undone; the journal is kept then, for Clean. Closing twice is fine.
func (w *Watchdog) Close() error {
	w.closing.Do(func() { w.closed = w.close() })
	return w.closed
}

func (w *Watchdog) close() error {
	w.end()
	failed := undoAll(context.Background(), w.journal.entries())
	var errs []error
	for _, o := range w.journal.entries() {
		if err := failed[o.token]; err != nil {
			errs = append(errs, err)
		} else if err := w.journal.release(o.token); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, w.journal.remove())
	}
	w.lifeline.Close() // it looks at the journal, finds nothing to do, and ends
	timer := time.NewTimer(Deadline)
	defer timer.Stop()
	select {
	case <-w.exited:
	case <-timer.C:
		_ = w.cmd.Process.Kill()
		<-w.exited
		errs = append(errs, fmt.Errorf("the watchdog did not end within %s", Deadline))
	}
	return errors.Join(errs...)
}

// self is the path of this very binary: its file, so that ps shows its name, or the kernel's handle to it when the file
// was replaced or removed since this process started.
func self() string {
	const handle = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return handle
	}
	file, err := os.Stat(path)
	if err != nil {
		return handle
	}
	if running, err := os.Stat(handle); err != nil || !os.SameFile(file, running) {
		return handle
	}
	return path
}

// A process that was given an order is a watchdog, whatever its main would do: one that did not call Serve, a test binary
// without a TestMain, would begin again what its parent did, a watchdog included, and so would that.
func init() {
	if IsChild() && isPipe(lifelineFD) && isPipe(readyFD) {
		os.Exit(Serve())
	}
}

// IsChild reports whether this process was started to be a watchdog: main then calls Serve and exits with its status.
func IsChild() bool { return os.Getenv(envOrder) != "" }

// Serve is the watchdog itself. It returns an exit status when the conductor is gone and what it left is undone (0), or
// could not be undone within Deadline (1: the journal is kept, for Clean), or when this process is no watchdog (2).
func Serve() int {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(envOrder)), &o); err != nil || !isPipe(lifelineFD) || !isPipe(readyFD) {
		return 2
	}
	_ = os.Unsetenv(envOrder)
	unix.CloseOnExec(lifelineFD)
	unix.CloseOnExec(readyFD)
	// What ends a conductor must not end its watchdog: a whole session's end sends these to everybody.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	// Nor must a fault that eats memory; only root may say so.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0)

	// The watchdog makes the journal: a conductor killed at any moment leaves none without somebody to remove it.
	path, file, err := createJournal(o.Dirs, o.Header)
	if err == nil {
		defer file.Close()
		// Clean sees by the lock that somebody is at work on a dead conductor's journal.
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			err = fmt.Errorf("lock the journal: %w", err)
		}
	}
	say(path, err)
	if err != nil {
		return 1
	}
	awaitEnd(lifelineFD)

	_, entries, err := parse(io.NewSectionReader(file, 0, maxJournal+1))
	if undoAll(context.Background(), entries) != nil || err != nil || removeJournal(path) != nil {
		return 1
	}
	return 0
}

// say tells the conductor, which may be gone already.
func say(journal string, err error) {
	w := word{Journal: journal}
	if err != nil {
		w = word{Error: err.Error()}
	}
	if text, err := json.Marshal(w); err == nil && len(text) <= maxWord {
		_, _ = unix.Write(readyFD, text)
	}
	unix.Close(readyFD)
}

// awaitEnd returns when nobody holds the pipe's other end.
func awaitEnd(fd int) {
	var buf [16]byte
	for {
		// A blocking read holds a thread of its own: it depends on nothing else in this process.
		n, err := unix.Read(fd, buf[:])
		if n > 0 || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return
	}
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}
