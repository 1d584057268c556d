package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a scenario file.
type Problem struct {
	File      string
	Line, Col int    // from 1; columns count characters
	Path      string // where in the scenario: "faults[0].where"
	Problem   string // what is wrong, and what would be right
}

// String gives the problem as file:line:col: path: problem.
func (p Problem) String() string {
	if p.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Problem)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Col, p.Path, p.Problem)
}

// Errors is every mistake found in a scenario file, in the order of their positions.
type Errors struct{ Problems []Problem }

// Error gives one problem a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (e *Errors) sort() {
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// Nearest returns the word that was most likely meant, or "": at most one slip for every three letters of it.
func Nearest(got string, words []string) string {
	best, bestSlips := "", 1<<30
	for _, w := range words {
		if len(got) > 2*len(w)+2 { // too long to be meant; also bounds the work on hostile input
			continue
		}
		// A slip is a wrong, missing, extra or swapped letter; a difference of case alone is none.
		n := slips(strings.ToLower(got), strings.ToLower(w))
		if n <= max(1, len(w)/3) && n < bestSlips {
			best, bestSlips = w, n
		}
	}
	return best
}

// slips is the optimal string alignment distance (Damerau 1964 without repeated edits of one substring).
func slips(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int
	prev := make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(y)]
}

// oneOf says which words are valid, after the one that may have been meant.
func oneOf(got string, words []string) string {
	if len(words) == 0 {
		return ""
	}
	if near := Nearest(got, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	if len(words) == 1 {
		return fmt.Sprintf("; the only one is %q", words[0])
	}
	return "; want one of " + strings.Join(words, ", ")
}

// clip keeps a quoted piece of the file short enough to read.
func clip(s string) string {
	const limit = 60
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
