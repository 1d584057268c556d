package forecast

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds on a file.
const (
	maxFile = 4 << 20
	maxRows = 10_000
)

// Past is an event that has been.
type Past struct {
	Name     string
	Kind     string
	Peak     float64   // play starts a second; 0: not known
	Total    float64   // play starts in all
	Expected float64   // the audience that was expected beforehand; 0: not known
	Start    time.Time // zero: not known
}

// Interest is a point of a marketing curve: so many hours before the start, this share of the expected audience had
// shown interest (set a reminder, signed up).
type Interest struct {
	Hours float64 // before the start
	Share float64 // of the expected audience; above 1 when more showed interest than were expected
}

// PastColumns are the columns that a file of past events may have; name, kind and total must be there.
func PastColumns() []string {
	return []string{"name", "kind", "total", "peak_starts_per_s", "expected", "start"}
}

// ReadPast reads past events as CSV. The first line names the columns, in any order: name, kind and total, and where known
// peak_starts_per_s, expected and start (RFC 3339). Cells of the last three may be empty. file is the file's name in
// errors, which read "file:line: problem".
func ReadPast(file string, r io.Reader) ([]Past, error) {
	t, err := readTable(file, r, PastColumns(), []string{"name", "kind", "total"})
	if err != nil {
		return nil, err
	}
	var past []Past
	for _, row := range t.rows {
		p := Past{Name: row.cell("name"), Kind: row.cell("kind")}
		if _, err := shapeOf(p.Kind); err != nil {
			return nil, row.bad("%w", err)
		}
		for _, c := range []struct {
			column string
			into   *float64
			least  float64
			needed bool
		}{{"total", &p.Total, 1, true}, {"peak_starts_per_s", &p.Peak, 0, false}, {"expected", &p.Expected, 1, false}} {
			if err := row.number(c.column, c.least, maxAudience, c.needed, c.into); err != nil {
				return nil, err
			}
		}
		if p.Peak > p.Total {
			return nil, row.bad("a peak of %.0f a second in an event with %.0f play starts in all", p.Peak, p.Total)
		}
		if text := row.cell("start"); text != "" {
			if p.Start, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, row.bad("start %q, want a time such as 2026-11-21T20:00:00-05:00", clip(text))
			}
		}
		past = append(past, p)
	}
	return past, nil
}

// ReadMarketing reads a marketing curve as CSV with the columns hours_before and interest (a share, 0.25, or 25%), the
// earliest first. Errors read "file:line: problem".
func ReadMarketing(file string, r io.Reader) ([]Interest, error) {
	t, err := readTable(file, r, []string{"hours_before", "interest"}, []string{"hours_before", "interest"})
	if err != nil {
		return nil, err
	}
	var out []Interest
	for _, row := range t.rows {
		var i Interest
		if err := row.number("hours_before", 0, maxHours, true, &i.Hours); err != nil {
			return nil, err
		}
		percent := strings.HasSuffix(row.cell("interest"), "%")
		most := maxInterest
		if percent {
			most *= 100
		}
		if err := row.number("interest", 0, most, true, &i.Share); err != nil {
			return nil, err
		}
		if percent {
			i.Share /= 100
		}
		if n := len(out); n > 0 && i.Hours >= out[n-1].Hours {
			return nil, row.bad("hours before the start must fall from line to line, and %v does not", i.Hours)
		}
		out = append(out, i)
	}
	return out, nil
}

type table struct{ rows []row }

type row struct {
	file   string
	line   int
	column map[string]int
	cells  []string
}

func (r row) bad(format string, a ...any) error {
	return fmt.Errorf("%s:%d: %w", r.file, r.line, fmt.Errorf(format, a...))
}

// cell is empty for a column that the file has not.
func (r row) cell(column string) string {
	i, ok := r.column[column]
	if !ok {
		return ""
	}
	return strings.TrimSpace(r.cells[i])
}

func (r row) number(column string, least, most float64, needed bool, into *float64) error {
	text := r.cell(column)
	if text == "" && !needed {
		return nil
	}
	digits := strings.TrimSuffix(text, "%")
	if column != "interest" {
		digits = text
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsAny(text, "xX_") || !(v >= least && v <= most) {
		return r.bad("%s %q, want a number from %g to %g", column, clip(text), least, most)
	}
	*into = v
	return nil
}

// readTable reads a CSV file whose first line names columns of known, with all of needed among them.
func readTable(file string, r io.Reader, known, needed []string) (*table, error) {
	in := &io.LimitedReader{R: r, N: maxFile + 1}
	c := csv.NewReader(in)
	c.Comment = '#'
	c.TrimLeadingSpace = true
	t := &table{}
	var column map[string]int
	line := 1
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%s:%d: %w", file, line, fmt.Errorf(format, a...))
	}
	for {
		cells, err := c.Read()
		if in.N == 0 {
			return nil, bad("the file is larger than %d MiB", maxFile>>20)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		var wrong *csv.ParseError
		switch {
		case errors.As(err, &wrong):
			line = wrong.Line
			if errors.Is(wrong.Err, csv.ErrFieldCount) {
				return nil, bad("%d columns, the first line has %d", len(cells), len(column))
			}
			return nil, bad("%w", wrong.Err)
		case err != nil:
			return nil, bad("%w", err)
		}
		line, _ = c.FieldPos(0)
		if column == nil {
			column = map[string]int{}
			for i, name := range cells {
				name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
				if !slices.Contains(known, name) {
					return nil, bad("unknown column %q; the columns are %s", clip(name), strings.Join(known, ", "))
				}
				if _, twice := column[name]; twice {
					return nil, bad("column %q is there twice", name)
				}
				column[name] = i
			}
			for _, name := range needed {
				if _, ok := column[name]; !ok {
					return nil, bad("the first line names no column %q; the columns are %s", name, strings.Join(known, ", "))
				}
			}
			continue
		}
		if len(t.rows) == maxRows {
			return nil, bad("more than %d lines", maxRows)
		}
		t.rows = append(t.rows, row{file: file, line: line, column: column, cells: cells})
	}
	if len(t.rows) == 0 {
		return nil, bad("nothing below the line that names the columns (%s)", strings.Join(known, ", "))
	}
	return t, nil
}

// clip shortens what a stranger's file says for an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
