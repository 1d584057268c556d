package process

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The environment that tells a child which file descriptors are whose. WatchLifeline removes both, and marks the
// descriptors close-on-exec, so that a child's own children inherit neither.
const (
	envLifeline = "TMINUS_LIFELINE_FD"
	envReady    = "TMINUS_READY_FD"
)

// LifelineStatus is the exit status of a child that ended because its parent was gone.
const LifelineStatus = 86

// MaxConfig bounds what Config reads from standard input, in bytes.
const MaxConfig = 8 << 20

// maxWord bounds a child's readiness line, in bytes.
const maxWord = 64 << 10

// readyFD is this process's end of the readiness pipe; nil when it has none.
var readyFD *os.File

// IsChild reports whether this process was started by Start and has not called WatchLifeline yet: main, or a test's
// TestMain, then goes on as the program that it is.
func IsChild() bool {
	_, is := os.LookupEnv(envLifeline)
	return is
}

// WatchLifeline ends this process at once (exit status LifelineStatus, no deferred functions) when its parent is gone.
// It is called first thing in a child's main, and reports whether the process was started by Start at all: started by
// hand it has no lifeline, and nothing is watched.
func WatchLifeline() bool {
	text, ok := os.LookupEnv(envLifeline)
	if !ok {
		return false
	}
	fd, err := strconv.Atoi(text)
	if err != nil || !isPipe(fd) {
		// Without a lifeline nothing would end this process with its parent: better not to live.
		fmt.Fprintf(os.Stderr, "%s=%q does not name a pipe: this child would outlive its parent\n", envLifeline, text)
		os.Exit(LifelineStatus)
	}
	unix.CloseOnExec(fd)
	if ready, err := strconv.Atoi(os.Getenv(envReady)); err == nil && isPipe(ready) {
		unix.CloseOnExec(ready)
		readyFD = os.NewFile(uintptr(ready), "readiness")
	}
	os.Unsetenv(envLifeline)
	os.Unsetenv(envReady)

	go func() {
		// A blocking read holds a thread of its own, so it does not depend on the poller or on a free goroutine slot.
		var buf [16]byte
		for {
			n, err := unix.Read(fd, buf[:])
			if n > 0 || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
				continue
			}
			os.Exit(LifelineStatus)
		}
	}()
	return true
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return fd > 2 && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// Config reads the configuration that the parent sent through standard input, MaxConfig bytes at most.
func Config() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(os.Stdin, MaxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration from standard input: %w", err)
	}
	if len(b) > MaxConfig {
		return nil, fmt.Errorf("configuration on standard input is larger than %d bytes", MaxConfig)
	}
	return b, nil
}

// Ready tells the parent that this child serves. Info (may be nil) reaches the parent as Process.Info: an address that
// the kernel chose, for example. In a process that has no parent waiting, Ready does nothing.
func Ready(info map[string]string) error { return say(word{Ready: true, Info: info}) }

// Fail tells the parent why this child cannot serve; Start returns the sentence. The caller then exits.
func Fail(err error) error {
	e := say(word{Error: err.Error()})
	readyFD.Close() // whoever waits for more need not
	return e
}

// Tell sends the parent a message, any time after Ready, for its Spec's Heard. It is called by one goroutine. A parent
// that does not listen is no error.
func Tell(message any) error {
	raw, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode a message to the parent: %w", err)
	}
	if err := say(word{Message: raw}); err != nil && !errors.Is(err, unix.EPIPE) {
		return err
	}
	return nil
}

// word is one line of a child: first that it is ready or why not, then messages.
type word struct {
	Ready   bool              `json:"ready,omitempty"`
	Error   string            `json:"error,omitempty"`
	Info    map[string]string `json:"info,omitempty"`
	Message json.RawMessage   `json:"message,omitempty"`
}

func say(w word) error {
	if readyFD == nil {
		return nil
	}
	line, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode readiness: %w", err)
	}
	if len(line) >= maxWord {
		return fmt.Errorf("a message of %d bytes to the parent, at most %d are possible", len(line), maxWord)
	}
	if _, err := readyFD.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	return nil
}

// errSilent: the child closed its end, or ended, without a word.
var errSilent = errors.New("said nothing")

// readWord reads a child's next line. It never reads more than maxWord bytes ahead: r is at least that large.
func readWord(r *bufio.Reader) (word, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return word{}, fmt.Errorf("readiness line is longer than %d bytes", maxWord)
	}
	if err != nil && len(bytes.TrimSpace(line)) == 0 {
		return word{}, errSilent
	}
	var w word
	if err := json.Unmarshal(line, &w); err != nil {
		return word{}, fmt.Errorf("readiness line is not JSON: %w", err)
	}
	said := 0
	for _, is := range []bool{w.Ready, w.Error != "", len(w.Message) > 0} {
		if is {
			said++
		}
	}
	if said != 1 {
		return word{}, errors.New(`readiness line has none of "ready":true, "error" and "message", or two of them`)
	}
	return w, nil
}
