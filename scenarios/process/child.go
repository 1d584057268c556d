package process

import (
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

// readyFD is this process's end of the readiness pipe; -1 when it has none. Only main's goroutine touches it.
var readyFD = -1

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
		readyFD = ready
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
func Fail(err error) error { return say(word{Error: err.Error()}) }

// word is the one line a child says.
type word struct {
	Ready bool              `json:"ready,omitempty"`
	Error string            `json:"error,omitempty"`
	Info  map[string]string `json:"info,omitempty"`
}

func say(w word) error {
	if readyFD < 0 {
		return nil
	}
	fd := readyFD
	readyFD = -1
	f := os.NewFile(uintptr(fd), "readiness")
	defer f.Close()
	line, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode readiness: %w", err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	return nil
}

// errSilent: the child closed its end, or ended, without a word.
var errSilent = errors.New("said nothing")

// readWord reads a child's one line. It never reads more than maxWord bytes.
func readWord(r io.Reader) (word, error) {
	var line []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		line = append(line, buf[:n]...)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i]
			break
		}
		if len(line) > maxWord {
			return word{}, fmt.Errorf("readiness line is longer than %d bytes", maxWord)
		}
		if err != nil {
			if len(bytes.TrimSpace(line)) == 0 {
				return word{}, errSilent
			}
			break
		}
	}
	var w word
	if err := json.Unmarshal(line, &w); err != nil {
		return word{}, fmt.Errorf("readiness line is not JSON: %w", err)
	}
	if w.Ready == (w.Error != "") {
		return word{}, errors.New(`readiness line has neither "ready":true nor "error", or both`)
	}
	return w, nil
}
