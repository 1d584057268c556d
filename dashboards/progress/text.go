package progress

import (
	"strings"
	"unicode"

	"github.com/tminus-live/tminus/dashboards/internal/words"
)

// A style is how a stretch of text looks where there is colour; the words never depend on it.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

type span struct {
	style style
	text  string
}

type line []span

func (l *line) add(s style, text string) { *l = append(*l, span{s, text}) }

// cols is the line's width on a terminal.
func (l line) cols() (n int) {
	for _, s := range l {
		n += cols(s.text)
	}
	return n
}

// cut shortens the line to n columns, an ellipsis last.
func (l line) cut(n int) line {
	if l.cols() <= n {
		return l
	}
	var out line
	for _, s := range l {
		w := cols(s.text)
		if w < n {
			out = append(out, s)
			n -= w
			continue
		}
		return append(out, span{s.style, cutTo(s.text, n-1) + "…"})
	}
	return out
}

func (l line) render(color bool) string {
	var b strings.Builder
	for _, s := range l {
		if !color || s.style == plain || s.text == "" {
			b.WriteString(s.text)
			continue
		}
		b.WriteString("\x1b[" + string(s.style) + "m" + s.text + "\x1b[0m")
	}
	return strings.TrimRight(strings.ReplaceAll(b.String(), words.NBSP, " "), " ")
}

func cols(s string) (n int) {
	for _, r := range s {
		n += runeCols(r)
	}
	return n
}

// runeCols is how many columns a terminal gives r: Unicode Standard Annex 11, the wide blocks, roughly.
func runeCols(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r):
		return 0
	case r < 0x1100:
		return 1
	case r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f,
		r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// cutTo keeps at most n columns of s.
func cutTo(s string, n int) string {
	for i, r := range s {
		if n -= runeCols(r); n < 0 {
			return s[:i]
		}
	}
	return s
}

// safe makes text from a scenario or a log fit for one line of a terminal: no control characters, no escape
// sequences, nothing that turns the direction of writing, and no more than a line could show.
func safe(s string) string {
	const most = 2000
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\u00a0':
			return r // keeps a figure and its unit together until the line is drawn
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, s)
}

// ascii replaces what a terminal without UTF-8 cannot show.
var ascii = strings.NewReplacer("━", "=", "─", "-", "✓", "+", "✗", "x", "●", "*", "○", "o", "…", "~", "−", "-", "–", "-", "×", "x", "≠", "!=", "µ", "u",
	"▁", "_", "▂", "_", "▃", ".", "▄", "-", "▅", "-", "▆", "=", "▇", "#", "█", "#", "·", "|", "→", "->").Replace

// wrap breaks s at spaces into lines of at most n columns.
func wrap(s string, n int) (out []string) {
	n = max(n, 10)
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }) {
		if last := len(out) - 1; last >= 0 && cols(out[last])+1+cols(word) <= n {
			out[last] += " " + word
			continue
		}
		out = append(out, word)
	}
	return out
}
