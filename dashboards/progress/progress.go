package progress

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
)

// Progress draws States on one writer.
type Progress struct {
	w     io.Writer
	isTTY bool
	width func() int
}

// Option changes how a Progress draws.
type Option func(*Progress)

// New makes a Progress that writes to w: a panel redrawn in place when isTTY, plain lines otherwise. width gives the
// terminal's width in columns and is asked at every redraw; nil means 80.
func New(w io.Writer, isTTY bool, width func() int, opts ...Option) *Progress {
	return &Progress{w: w, isTTY: isTTY, width: width}
}

// ForFile makes a Progress for f (usually os.Stderr): panel, colour and size as the terminal and the environment
// (NO_COLOR, TERM) say.
func ForFile(f *os.File, getenv func(string) string) *Progress {
	return New(f, false, nil)
}

// Run draws state() at every tick until ctx ends or ticks is closed, then leaves the terminal as it was found. Ticks
// carry the time they were sent; four a second look smooth.
func (p *Progress) Run(ctx context.Context, state func() State, ticks <-chan time.Time) error {
	return nil
}

// Log is a writer for log lines while Run draws: they appear above the panel, whole.
func (p *Progress) Log() io.Writer { return p.w }

// Summary prints the verdict, the objectives and where the report is. Call it after Run has returned.
func (p *Progress) Summary(r *report.Report, reportPath string) error { return nil }
