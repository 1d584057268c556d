package watchdog

import (
	"context"
	"errors"
	"time"
)

// Deadline is how long the watchdog takes at most to put everything back.
const Deadline = 3 * time.Second

// ErrLost: the watchdog is dead, so nothing may be broken any more.
var ErrLost = errors.New("the watchdog is gone: nothing would undo this if the conductor died")

var errUnfinished = errors.New("the watchdog is not finished yet")

// Config says what is watched over.
type Config struct {
	Run  string   // the run's id, in the journal and in what Clean says
	Dir  string   // where journals lie; "" = Dir()
	Args []string // of this very binary, to make it call Serve; nil = "watchdog"
}

// Watchdog is the conductor's side of its watchdog: a Guard.
type Watchdog struct{}

// Start starts a watchdog for this process and returns when it watches.
func Start(ctx context.Context, cfg Config) (*Watchdog, error) { return nil, errUnfinished }

// IsChild reports whether this process was started to be a watchdog: main, or a test's TestMain, then calls Serve.
func IsChild() bool { return false }

// Serve is the watchdog: it returns its exit status when the conductor has gone and everything is undone.
func Serve() int { return 1 }

func (w *Watchdog) Protect(e Entry) (Token, error) { return 0, errUnfinished }
func (w *Watchdog) Release(t Token) error          { return errUnfinished }

// Lost is closed when the watchdog has ended before Close.
func (w *Watchdog) Lost() <-chan struct{} { return nil }

// Close undoes what is still protected, newest first, ends the watchdog and removes the journal.
func (w *Watchdog) Close() error { return errUnfinished }

// Undo puts one change back. What is already undone, or was never done, is no error.
func Undo(ctx context.Context, e Entry) error { return errUnfinished }

// Found is something left over.
type Found struct {
	What    string `json:"what"`          // in words: "network namespace tminus-x"
	Run     string `json:"run,omitempty"` // of the journal that lists it; "": found by its name
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"` // why it is still there
}

// Clean finds and removes what is left of conductors that live no more.
func Clean(ctx context.Context) ([]Found, error) { return nil, errUnfinished }
