package progress

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// Progress draws States on one writer. It is safe for concurrent use: Run in one goroutine, Log from any.
type Progress struct {
	isTTY  bool
	width  func() int
	height func() int
	color  bool
	ascii  bool
	every  time.Duration // between plain lines

	mu    sync.Mutex
	w     io.Writer
	hist  History
	kept  struct{ emitted, stored uint64 } // the ledger as last known
	panel []string                         // what is on the terminal now, without a cursor position of its own: the cursor stands below it
	cols  []int                            // the width of each of those lines
	shown bool                             // the cursor is hidden

	// What plain lines have said.
	lastLine   time.Time
	said       bool
	phase      string
	faults     map[string]string // state by fault id
	levers     []string
	experiment string
	warning    string // the newest that was said
}

// Option changes how a Progress draws.
type Option func(*Progress)

// Height gives the terminal's height in lines, asked at every redraw; the panel stays below it. Without it, 24.
func Height(height func() int) Option { return func(p *Progress) { p.height = height } }

// Color switches ANSI colours on or off; a terminal has them by default, anything else never does.
func Color(on bool) Option { return func(p *Progress) { p.color = on && p.isTTY } }

// ASCII keeps to ASCII, for a terminal without UTF-8.
func ASCII(on bool) Option { return func(p *Progress) { p.ascii = on } }

// Every sets the time between plain lines where nothing else happens; 5 s by default.
func Every(d time.Duration) Option { return func(p *Progress) { p.every = d } }

// New makes a Progress that writes to w: a panel redrawn in place when isTTY, plain lines otherwise. width gives the
// terminal's width in columns and is asked at every redraw; nil means 80. Summary wraps at that width too; without one,
// at that of the terminal that w is, or at 100 columns.
func New(w io.Writer, isTTY bool, width func() int, opts ...Option) *Progress {
	p := &Progress{
		w: w, isTTY: isTTY, width: width, color: isTTY, every: 5 * time.Second,
		faults: map[string]string{},
	}
	for _, o := range opts {
		o(p)
	}
	return p
}

// ForFile makes a Progress for f (usually os.Stderr): panel, colour, size and characters as the terminal and the
// environment (NO_COLOR, TERM, LC_ALL, LC_CTYPE, LANG) say.
func ForFile(f *os.File, getenv func(string) string) *Progress {
	fd := int(f.Fd())
	size := func() (cols, rows int) {
		cols, rows, err := term.GetSize(fd)
		if err != nil {
			return 0, 0
		}
		return cols, rows
	}
	name := getenv("TERM")
	isTTY := term.IsTerminal(fd) && name != "" && name != "dumb"
	return New(f, isTTY,
		func() int { c, _ := size(); return c },
		Height(func() int { _, r := size(); return r }),
		Color(getenv("NO_COLOR") == ""),
		ASCII(name == "linux" || !utf8Locale(getenv)),
	)
}

// utf8Locale says whether the locale allows UTF-8. Where none is set, as in most containers, the terminal almost
// surely speaks it.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

// Run draws state() at every tick until ctx ends or ticks is closed; then it draws once more, for the last word, and
// leaves the terminal as it was found. Ticks carry the time at which they were sent; four a second look smooth.
// The error is the writer's: a rehearsal goes on without its panel.
func (p *Progress) Run(ctx context.Context, state func() State, ticks <-chan time.Time) error {
	defer p.release()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return p.draw(state(), last)
		case now, ok := <-ticks:
			if !ok {
				return p.draw(state(), last)
			}
			last = now
			if err := p.draw(state(), now); err != nil {
				return fmt.Errorf("draw progress: %w", err)
			}
		}
	}
}

func (p *Progress) draw(s State, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// A run that has ended takes its spool away, and with it what State counts there: the last figures stay.
	if s.Emitted == 0 {
		s.Emitted, s.Stored = p.kept.emitted, max(s.Stored, p.kept.stored)
	}
	p.kept.emitted, p.kept.stored = s.Emitted, s.Stored
	if !p.isTTY {
		return p.lines(s, now)
	}
	p.hist.Add(s)
	v := p.view()
	// One column and one line are left free: a full last line would scroll or wrap on some terminals.
	lines := renderLines(s, &p.hist, View{Width: v.Width - 1, Height: v.Height - 1, Color: p.color, ASCII: p.ascii})
	var b bytes.Buffer
	p.rewind(&b, v)
	p.put(&b, lines)
	return p.flush(b.Bytes())
}

func (p *Progress) view() View {
	v := View{Width: 80, Height: 24}
	if p.width != nil {
		if n := p.width(); n > 0 {
			v.Width = n
		}
	}
	if p.height != nil {
		if n := p.height(); n > 0 {
			v.Height = n
		}
	}
	return v
}

const (
	beginFrame  = "\x1b[?2026h" // synchronized update; a terminal that does not know it ignores it
	endFrame    = "\x1b[?2026l"
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	noWrap      = "\x1b[?7l"
	wrapAgain   = "\x1b[?7h"
	eraseToEnd  = "\x1b[K"
	eraseBelow  = "\x1b[J"
	maxLogBytes = 64 << 10
)

// rewind moves the cursor to the panel's first line. Where the window has become narrower the terminal may have folded
// the panel's lines, which then take more rows.
func (p *Progress) rewind(b *bytes.Buffer, v View) {
	rows := 0
	for _, c := range p.cols {
		rows += max(1, (c+v.Width-1)/v.Width)
	}
	rows = min(rows, v.Height-1)
	b.WriteByte('\r')
	if rows > 0 {
		fmt.Fprintf(b, "\x1b[%dA", rows)
	}
}

// put writes the panel from the cursor on and erases what an older, longer one left.
func (p *Progress) put(b *bytes.Buffer, lines []string) {
	p.panel, p.cols = lines, p.cols[:0]
	for _, l := range lines {
		b.WriteString(l + eraseToEnd + "\r\n")
		p.cols = append(p.cols, visible(l))
	}
	b.WriteString(eraseBelow)
}

// flush writes one frame in one piece, so that no half of it is ever seen.
func (p *Progress) flush(frame []byte) error {
	pre := beginFrame + noWrap
	if !p.shown {
		pre += hideCursor
		p.shown = true
	}
	_, err := p.w.Write(append(append([]byte(pre), frame...), wrapAgain+endFrame...))
	return err
}

// release gives the cursor back. The last panel stays in the scrollback.
func (p *Progress) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		io.WriteString(p.w, showCursor)
	}
	p.shown, p.panel, p.cols = false, nil, p.cols[:0]
}

// visible counts the columns of a rendered line, whose only escape sequences are our colours.
func visible(s string) (n int) {
	for {
		i := strings.IndexByte(s, '\x1b')
		if i < 0 {
			return n + cols(s)
		}
		n += cols(s[:i])
		j := strings.IndexByte(s[i:], 'm')
		if j < 0 {
			return n
		}
		s = s[i+j+1:]
	}
}

// lines says a State where there is no terminal: at once what changed, and where things stand every few seconds.
func (p *Progress) lines(s State, now time.Time) error {
	var b bytes.Buffer
	say := func(text string) {
		text = strings.ReplaceAll(text, words.NBSP, " ")
		if p.ascii {
			text = ascii(text)
		}
		b.WriteString(text + "\n")
	}
	at := ""
	if s.OnAir {
		at = clockWords(s) + " | "
	}
	changed := !p.said || s.Phase != p.phase
	for _, f := range s.Faults {
		state := f.State
		if state == "" {
			state = "waiting"
		}
		before, known := p.faults[f.ID]
		p.faults[f.ID] = state
		if state != before && (known || state != "waiting") {
			say(at + "fault " + f.name() + ": " + safe(state))
		}
	}
	if s.Experiment != p.experiment {
		p.experiment = s.Experiment
		say(at + "experiment " + safe(s.Experiment))
	}
	for _, l := range s.Levers {
		if !slices.Contains(p.levers, l) {
			say(at + "lever " + orDash(safe(l)) + ": engaged")
		}
	}
	for _, l := range p.levers {
		if !slices.Contains(s.Levers, l) {
			say(at + "lever " + orDash(safe(l)) + ": released")
		}
	}
	p.levers = append(p.levers[:0], s.Levers...)
	for _, w := range newWarnings(s.Warnings, p.warning) {
		say(at + "warning: " + orDash(safe(w)))
		p.warning = w
	}
	if changed || now.Sub(p.lastLine) >= p.every {
		say(Line(s))
		p.lastLine = now
	}
	p.said, p.phase = true, s.Phase
	if b.Len() == 0 {
		return nil
	}
	_, err := p.w.Write(b.Bytes())
	return err
}

// maxNewWarnings bounds what is said of warnings at once.
const maxNewWarnings = 10

// newWarnings is those after the one that was said last, which a long list may have lost.
func newWarnings(ws []string, said string) []string {
	if said != "" {
		for i := len(ws) - 1; i >= 0; i-- {
			if ws[i] == said {
				return ws[i+1:]
			}
		}
	}
	return ws[max(0, len(ws)-maxNewWarnings):]
}

// Log is a writer for log lines while Run draws: on a terminal they appear above the panel, whole. What is not yet a
// whole line is kept, up to 64 KB of it.
func (p *Progress) Log() io.Writer { return &logWriter{p: p} }

type logWriter struct {
	p    *Progress
	rest []byte
}

func (l *logWriter) Write(b []byte) (int, error) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if !l.p.isTTY {
		return l.p.w.Write(b)
	}
	l.rest = append(l.rest, b...)
	end := bytes.LastIndexByte(l.rest, '\n') + 1
	if end == 0 && len(l.rest) < maxLogBytes {
		return len(b), nil
	}
	if end == 0 {
		end = len(l.rest)
	}
	var frame bytes.Buffer
	if len(l.p.panel) > 0 {
		l.p.rewind(&frame, l.p.view())
		frame.WriteString(eraseBelow)
	}
	for line := range bytes.Lines(l.rest[:end]) {
		frame.Write(bytes.TrimRight(line, "\r\n"))
		frame.WriteString("\r\n")
	}
	l.rest = append(l.rest[:0], l.rest[end:]...)
	if len(l.p.panel) == 0 {
		_, err := l.p.w.Write(frame.Bytes())
		return len(b), err
	}
	l.p.put(&frame, l.p.panel)
	// Log lines may be longer than the window: they wrap, the panel does not.
	_, err := l.p.w.Write([]byte(beginFrame + frame.String() + endFrame))
	return len(b), err
}
