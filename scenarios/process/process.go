package process

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults of a Spec's zero fields.
const (
	DefaultReadyTimeout = 15 * time.Second
	DefaultStopGrace    = 5 * time.Second
	DefaultLogLimit     = 8 << 20 // bytes
)

// killWait bounds the wait for a process that was sent SIGKILL: only one stuck in the kernel takes longer.
const killWait = 10 * time.Second

// lastWord bounds the wait for what an ended child has told: a descendant may hold its pipe.
const lastWord = time.Second

// ErrNotReady: a child did not say that it is ready in time.
var ErrNotReady = errors.New("not ready in time")

// ErrForced: a child did not end within its grace after SIGTERM and was killed.
var ErrForced = errors.New("had to be killed")

// Spec says what to start.
type Spec struct {
	Name         string        // "region/us-east": in errors and logs
	Path         string        // executable; "" = this very binary, even if its file was replaced since
	Args         []string      // arguments after the program's name; no secrets
	Env          []string      // "KEY=value", added to this process's environment
	Stdin        []byte        // configuration, sent through standard input, which is then closed
	LogPath      string        // file for standard output and error, appended to; "" = kept in memory for quoting only
	LogLimit     int64         // bytes written to LogPath by one incarnation; 0 = DefaultLogLimit
	ReadyTimeout time.Duration // until the child must have said that it is ready; 0 = DefaultReadyTimeout
	StopGrace    time.Duration // between SIGTERM and SIGKILL in Stop; 0 = DefaultStopGrace
	Logger       *slog.Logger  // nil = silent
	Finite       bool          // it ends by itself when its work is done: exit status 0 is no failure

	// Fork starts the child on a thread that lives as long as the child may: one in another network namespace, for
	// example. nil: this process's own.
	Fork func(start func() error) error

	// Heard is given what the child tells after it is ready, by one goroutine and in order, until the child ends. nil:
	// nobody listens.
	Heard func(message json.RawMessage)
}

// Process is one running, or ended, child.
type Process struct {
	spec   Spec
	id     ID
	info   map[string]string
	cmd    *exec.Cmd
	log    *boundedLog
	exited chan struct{}
	told   chan struct{} // closed when nothing more is heard from the child

	mu     sync.Mutex
	asked  bool // this process was told to end
	reaped bool // its pid is the kernel's again: no more signals to it
	state  *os.ProcessState
}

// ExitError: a child ended without being asked to.
type ExitError struct {
	Name    string
	PID     int
	Status  int            // exit status; -1 when a signal ended it
	Signal  syscall.Signal // 0 when it exited
	LogPath string
	Log     []string // its last lines, oldest first
}

func (e *ExitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (pid %d) ended unexpectedly: %s", e.Name, e.PID, reason(e.Status, e.Signal))
	quote(&b, e.LogPath, e.Log)
	return b.String()
}

func reason(status int, sig syscall.Signal) string {
	switch {
	case sig != 0:
		return "killed by " + unix.SignalName(sig)
	case status == LifelineStatus:
		return fmt.Sprintf("exit status %d (its lifeline was cut)", status)
	}
	return fmt.Sprintf("exit status %d", status)
}

func quote(b *strings.Builder, path string, lines []string) {
	if len(lines) == 0 {
		b.WriteString("; it printed nothing")
		return
	}
	b.WriteString("; its last lines")
	if path != "" {
		b.WriteString(" in " + path)
	}
	b.WriteString(":")
	for _, line := range lines {
		b.WriteString("\n    " + line)
	}
}

// Start starts a child and waits until it says that it is ready. ctx bounds the start only: a child that is ready lives
// until Stop, Kill, or the end of this process. When Start returns an error nothing is left running.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	spec = withDefaults(spec)
	if IsChild() {
		// A binary that does not know what it was started as, such as a test's, would begin its parent's work again.
		return nil, fmt.Errorf("start %s: this process is a child itself, and has not called WatchLifeline", spec.Name)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	out, err := openLog(spec.LogPath, spec.LogLimit)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", spec.Name, err)
	}
	p := &Process{spec: spec, log: out, exited: make(chan struct{}), told: make(chan struct{})}
	ready, lifeline, err := p.spawn()
	if err != nil {
		out.close()
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	go p.reap(lifeline)

	spec.Logger.Debug("process started", "process", spec.Name, "pid", p.id.PID)
	if err := p.awaitReady(ctx, ready); err != nil {
		if killErr := p.Kill(); killErr != nil {
			err = errors.Join(err, killErr)
		}
		return nil, err
	}
	spec.Logger.Debug("process ready", "process", spec.Name, "pid", p.id.PID)
	return p, nil
}

func withDefaults(s Spec) Spec {
	if s.Name == "" {
		s.Name = "child"
	}
	if s.Path == "" {
		s.Path = self()
	}
	if s.LogLimit <= 0 {
		s.LogLimit = DefaultLogLimit
	}
	if s.ReadyTimeout <= 0 {
		s.ReadyTimeout = DefaultReadyTimeout
	}
	if s.StopGrace <= 0 {
		s.StopGrace = DefaultStopGrace
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	return s
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

// spawn forks the child and returns this side's ends of its two pipes.
func (p *Process) spawn() (ready, lifeline *os.File, err error) {
	// os.Pipe marks both ends close-on-exec, so no sibling inherits a write end and keeps the lifeline up.
	lifelineRead, lifeline, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make its lifeline: %w", err)
	}
	defer lifelineRead.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		lifeline.Close()
		return nil, nil, fmt.Errorf("make its readiness pipe: %w", err)
	}
	defer readyWrite.Close()

	cmd := exec.Command(p.spec.Path, p.spec.Args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), p.spec.Env...), envLifeline+"=3", envReady+"=4")
	cmd.ExtraFiles = []*os.File{lifelineRead, readyWrite} // 3, 4
	cmd.Stdin = bytes.NewReader(p.spec.Stdin)
	cmd.Stdout, cmd.Stderr = p.log, p.log // one writer: one pipe, lines in order
	cmd.WaitDelay = time.Second           // a descendant that left the group must not hold the log open for ever
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd = cmd
	fork := onForkThread
	if p.spec.Fork != nil {
		fork = p.spec.Fork
	}
	if err := fork(cmd.Start); err != nil {
		lifeline.Close()
		ready.Close()
		return nil, nil, err
	}
	p.id = ID{Name: p.spec.Name, PID: cmd.Process.Pid}
	// Not reaped yet, so the pid is still this child's even if it has ended.
	if st, err := readStat(cmd.Process.Pid); err == nil {
		p.id.Started = st.started
	}
	return ready, lifeline, nil
}

// forkThread runs functions on one thread for the life of this process. PR_SET_PDEATHSIG fires when the thread that
// forked ends; a goroutine's thread may end at any time, this one never does.
var forkThread = sync.OnceValue(func() chan<- func() {
	calls := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range calls {
			f()
		}
	}()
	return calls
})

func onForkThread(f func() error) error {
	done := make(chan error, 1)
	forkThread() <- func() { done <- f() }
	return <-done
}

// reap waits for the child's end, clears its group away, and only then lets the kernel have its pid back.
func (p *Process) reap(lifeline io.Closer) {
	for {
		err := unix.Waitid(unix.P_PID, p.id.PID, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	// The leader is a zombie now: its pid, and so its group, cannot be anyone else's.
	_ = unix.Kill(-p.id.PID, unix.SIGKILL)
	p.reaped = true
	p.mu.Unlock()

	err := p.cmd.Wait()
	if p.spec.Heard != nil { // its last message counts
		last := time.NewTimer(lastWord)
		select {
		case <-p.told:
		case <-last.C:
		}
		last.Stop()
	}
	lifeline.Close()
	p.log.close()
	p.mu.Lock()
	p.state = p.cmd.ProcessState
	asked := p.asked || p.spec.Finite && err == nil
	p.mu.Unlock()
	if asked {
		p.spec.Logger.Debug("process ended", "process", p.spec.Name, "pid", p.id.PID)
	} else {
		p.spec.Logger.Warn("process ended unexpectedly", "process", p.spec.Name, "pid", p.id.PID, "error", err)
	}
	close(p.exited)
}

func (p *Process) awaitReady(ctx context.Context, ready *os.File) (err error) {
	type said struct {
		word word
		err  error
	}
	words := bufio.NewReaderSize(ready, maxWord)
	heard := make(chan said, 1)
	go func() {
		w, err := readWord(words)
		heard <- said{w, err}
	}()
	defer func() {
		if err != nil || p.spec.Heard == nil {
			ready.Close() // ends the read above
			close(p.told)
			return
		}
		go p.listen(ready, words)
	}()
	deadline := time.NewTimer(p.spec.ReadyTimeout)
	defer deadline.Stop()
	select {
	case s := <-heard:
		switch {
		case errors.Is(s.err, errSilent):
			return p.silent()
		case s.err != nil:
			return fmt.Errorf("start %s: %w", p.spec.Name, s.err)
		case s.word.Error != "":
			return fmt.Errorf("%s: %s", p.spec.Name, s.word.Error)
		case !s.word.Ready:
			return fmt.Errorf("start %s: it told something before it was ready", p.spec.Name)
		}
		p.info = s.word.Info
		return nil
	case <-deadline.C:
		var b strings.Builder
		quote(&b, p.spec.LogPath, p.log.lines())
		return fmt.Errorf("start %s: %w: nothing heard for %s%s", p.spec.Name, ErrNotReady, p.spec.ReadyTimeout, b.String())
	case <-ctx.Done():
		return fmt.Errorf("start %s: %w", p.spec.Name, context.Cause(ctx))
	}
}

// listen hands on what the child tells until it ends or makes no sense.
func (p *Process) listen(ready *os.File, words *bufio.Reader) {
	defer close(p.told)
	defer ready.Close()
	for {
		w, err := readWord(words)
		switch {
		case errors.Is(err, errSilent):
			return
		case err != nil:
			p.spec.Logger.Error("cannot make out what a process tells", "process", p.spec.Name, "error", err)
			return
		case len(w.Message) > 0:
			p.spec.Heard(w.Message)
		}
	}
}

// silent explains a child that closed its readiness pipe without a word: most likely it has just ended.
func (p *Process) silent() error {
	timer := time.NewTimer(2 * time.Second)
	defer timer.Stop()
	select {
	case <-p.exited:
		return fmt.Errorf("start %s: %w", p.spec.Name, p.Err())
	case <-timer.C:
		return fmt.Errorf("start %s: %w: it closed its readiness pipe without a word", p.spec.Name, ErrNotReady)
	}
}

// Name is the Spec's name.
func (p *Process) Name() string { return p.spec.Name }

// PID is the child's process id, which is also its process group's.
func (p *Process) PID() int { return p.id.PID }

// ID names this incarnation for Leftovers: a pid alone can be given to a stranger.
func (p *Process) ID() ID { return p.id }

// Info is what the child sent with Ready.
func (p *Process) Info() map[string]string { return p.info }

// LastLines returns the last lines the child printed, oldest first.
func (p *Process) LastLines() []string { return p.log.lines() }

// Exited is closed when the child has ended and its group is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Alive reports whether the child has not ended yet.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Err says why the child ended: nil while it lives, when it was told to end and when a Finite one was done, otherwise an
// *ExitError.
func (p *Process) Err() error {
	if p.Alive() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked {
		return nil
	}
	e := &ExitError{Name: p.spec.Name, PID: p.id.PID, LogPath: p.spec.LogPath, Log: p.log.lines()}
	e.Status, e.Signal = statusOf(p.state)
	if p.spec.Finite && e.Status == 0 {
		return nil
	}
	return e
}

// Reason says in words how the child ended: "exit status 0", "killed by SIGKILL"; "" while it lives.
func (p *Process) Reason() string {
	if p.Alive() {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return reason(statusOf(p.state))
}

func statusOf(state *os.ProcessState) (status int, sig syscall.Signal) {
	if state == nil {
		return -1, 0
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return -1, ws.Signal()
	}
	return state.ExitCode(), 0
}

// signal sends sig to the child's whole group, unless it has been reaped.
func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
	if !p.reaped {
		_ = unix.Kill(-p.id.PID, sig)
	}
}

// Kill ends the child and its group with SIGKILL and waits until they are gone. Killing twice is fine.
func (p *Process) Kill() error {
	if !p.Alive() {
		return nil
	}
	p.signal(unix.SIGKILL)
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s (pid %d) is still there %s after SIGKILL", p.spec.Name, p.id.PID, killWait)
	}
}

// Stop asks the child and its group to end with SIGTERM, and kills them when its grace, or ctx, is over. It returns
// after they are gone; an error that wraps ErrForced says that asking was not enough.
func (p *Process) Stop(ctx context.Context) error {
	if !p.Alive() {
		return nil
	}
	p.signal(unix.SIGTERM)
	grace := time.NewTimer(p.spec.StopGrace)
	defer grace.Stop()
	waited := p.spec.StopGrace.String()
	select {
	case <-p.exited:
		return nil
	case <-grace.C:
	case <-ctx.Done():
		waited = "the time there was"
	}
	if err := p.Kill(); err != nil {
		return err
	}
	return fmt.Errorf("%s (pid %d) %w: it did not end within %s of SIGTERM", p.spec.Name, p.id.PID, ErrForced, waited)
}
