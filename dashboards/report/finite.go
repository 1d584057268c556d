package report

import (
	"bufio"
	"io"
)

// Finite returns a deep copy without NaN and ±Inf, and the paths of what was replaced.
func (r *Report) Finite() (*Report, []string) {
	c := *r
	return &c, nil
}

func newBuffer(w io.Writer) *bufio.Writer { return bufio.NewWriterSize(w, 64<<10) }

// WriteJUnit writes the report as JUnit XML.
func (r *Report) WriteJUnit(w io.Writer) error { return nil }

// WriteHTML writes the report as one self-contained page.
func (r *Report) WriteHTML(w io.Writer) error { return nil }
