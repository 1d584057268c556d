package progress

import (
	"strings"
)

// screen is as much of a terminal as the panel uses: text, CR, LF, cursor up, erase, wrap and a hidden cursor. Lines
// are refolded when the window changes, as most terminals do.
type screen struct {
	width, height  int
	rows           [][]rune // everything ever shown; the window is the last height of them
	folded         []bool   // row i continues row i−1
	row, col       int
	hidden, noWrap bool
}

func newScreen(width, height int) *screen {
	return &screen{width: width, height: height, rows: [][]rune{nil}, folded: []bool{false}}
}

func (s *screen) Write(b []byte) (int, error) {
	rs := []rune(string(b))
	for i := 0; i < len(rs); i++ {
		switch r := rs[i]; r {
		case '\r':
			s.col = 0
		case '\n':
			s.down(false)
		case '\x1b':
			j := i + 2
			for j < len(rs) && (rs[j] == '?' || rs[j] >= '0' && rs[j] <= '9' || rs[j] == ';') {
				j++
			}
			s.escape(string(rs[i+2:j]), rs[j])
			i = j
		default:
			s.put(r)
		}
	}
	return len(b), nil
}

func (s *screen) down(fold bool) {
	s.row++
	if s.row == len(s.rows) {
		s.rows = append(s.rows, nil)
		s.folded = append(s.folded, fold)
	}
}

func (s *screen) put(r rune) {
	if s.col >= s.width {
		if s.noWrap {
			s.col = s.width - 1
		} else {
			s.down(true)
			s.col = 0
		}
	}
	for len(s.rows[s.row]) <= s.col {
		s.rows[s.row] = append(s.rows[s.row], ' ')
	}
	s.rows[s.row][s.col] = r
	s.col++
}

func (s *screen) escape(arg string, final rune) {
	switch final {
	case 'A':
		n := 0
		for _, r := range arg {
			n = n*10 + int(r-'0')
		}
		s.row = max(s.row-n, max(0, len(s.rows)-s.height))
	case 'K':
		s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
	case 'J':
		s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
		s.rows, s.folded = s.rows[:s.row+1], s.folded[:s.row+1]
	case 'h', 'l':
		switch arg {
		case "?25":
			s.hidden = final == 'l'
		case "?7":
			s.noWrap = final == 'l'
		}
	case 'm':
	default:
		panic("escape sequence " + arg + string(final))
	}
}

// resize folds every line anew.
func (s *screen) resize(width int) {
	var lines [][]rune
	for i, r := range s.rows {
		if s.folded[i] {
			lines[len(lines)-1] = append(lines[len(lines)-1], r...)
			continue
		}
		lines = append(lines, append([]rune(nil), r...))
	}
	s.width, s.rows, s.folded = width, nil, nil
	for _, l := range lines {
		fold := false
		for {
			n := min(width, len(l))
			s.rows, s.folded = append(s.rows, l[:n:n]), append(s.folded, fold)
			l, fold = l[n:], true
			if len(l) == 0 {
				break
			}
		}
	}
	s.row, s.col = len(s.rows)-1, 0
}

func (s *screen) text() string {
	var b strings.Builder
	for _, r := range s.rows {
		b.WriteString(strings.TrimRight(string(r), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
