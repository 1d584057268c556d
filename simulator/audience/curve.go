package audience

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds on a file of ReadCurve.
const (
	maxCurveLines  = 4_000_000
	maxCurveErrors = 10   // that are told
	maxCurveLine   = 1024 // bytes
	maxCurveLength = 24 * time.Hour
)

// The first lines that name a curve's columns.
var curveHeads = [][]string{{"seconds", "rate"}, {"timestamp", "rate"}, {"seconds"}, {"timestamp"}}

// ReadCurve reads a measured curve; name is the file's in errors, which read "name:line: problem". Each line is
//
//	seconds,rate      120.5,4000                  or
//	timestamp,rate    2026-11-21T19:58:00Z,4000   or a single start
//	timestamp         2026-11-21T19:58:00.217Z
//
// all of one form. A first line with these words is allowed; empty lines and lines that begin with # are skipped. A time
// is a number of seconds, or RFC 3339 (also with a space for the T; without a zone it is UTC). Numbers from 1e9 on are
// seconds since 1970. With timestamps of either sort the curve begins at the first line. Rates are play starts a second and must
// come in order of their times; single starts may come in any order and are counted in bins of 0.1 s (1 s when they span over
// 1,000 s, 10 s when over 10,000 s), so that their number is kept exactly.
// The error names every line that is wrong, ten at the most.
func ReadCurve(name string, r io.Reader) ([]Point, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxCurveLine), maxCurveLine)
	var points []Point
	var starts []float64 // seconds; of single starts
	var form struct {
		fields int // 0: no line has told yet
		stamps bool
		epoch  bool
		origin float64
		zero   time.Time
	}
	n := 0
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%s:%d: %w", name, max(1, n), fmt.Errorf(format, a...))
	}
	line := func() error {
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			return nil
		}
		fields := strings.Split(text, ",")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if form.fields == 0 && len(points) == 0 && slices.ContainsFunc(curveHeads, func(h []string) bool { return slices.Equal(h, fields) }) {
			form.fields = -len(fields) // told, but for the sort of time
			return nil
		}
		if want := max(form.fields, -form.fields); want == 0 && len(fields) > 2 || want > 0 && len(fields) != want {
			if want == 0 {
				return bad("%d columns, want seconds,rate or timestamp,rate or a timestamp alone", len(fields))
			}
			return bad("%d columns where the lines before have %d", len(fields), want)
		}

		first := form.fields <= 0
		form.fields = len(fields)
		seconds, isNumber := number(fields[0])
		var stamp time.Time
		if !isNumber {
			var ok bool
			if stamp, ok = timestamp(fields[0]); !ok {
				return bad("%q is neither a number of seconds nor a time such as 2026-11-21T19:58:00Z", clip(fields[0]))
			}
		}
		if first {
			form.stamps, form.zero = !isNumber, stamp
			if form.epoch = isNumber && seconds >= 1e9; form.epoch {
				form.origin = seconds
			}
		}
		switch {
		case form.stamps == isNumber:
			return bad("a number of seconds and a timestamp in one file")
		case seconds >= 1e11:
			return bad("%q: times are in seconds, and this looks like milliseconds", clip(fields[0]))
		case !isNumber:
			seconds = float64(stamp.Sub(form.zero)) / 1e9
		case form.epoch:
			seconds -= form.origin
		}
		if math.Abs(seconds) > maxCurveLength.Seconds() {
			return bad("%q is more than %v from the start of the curve", clip(fields[0]), maxCurveLength)
		}
		if len(fields) == 1 {
			if seconds < 0 && !form.stamps && !form.epoch {
				return bad("a time before 0")
			}
			starts = append(starts, seconds)
			return nil
		}
		rate, ok := number(fields[1])
		if !ok || rate < 0 || rate > MaxRate {
			return bad("rate %q, want play starts a second, 0 to %.0f", clip(fields[1]), float64(MaxRate))
		}
		at := time.Duration(math.Round(seconds * 1e9))
		if seconds < 0 || len(points) > 0 && at <= points[len(points)-1].At {
			return bad("times must increase from line to line, and %q does not", clip(fields[0]))
		}
		if len(points) == MaxPoints {
			return bad("more than %d points", MaxPoints)
		}
		points = append(points, Point{At: at, Rate: rate})
		return nil
	}
	var errs []error
	for lines.Scan() {
		if n++; n > maxCurveLines {
			return nil, bad("more than %d lines", maxCurveLines)
		}
		if err := line(); err != nil {
			if errs = append(errs, err); len(errs) == maxCurveErrors {
				return nil, errors.Join(append(errs, fmt.Errorf("%s: and perhaps more", name))...)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if err := lines.Err(); err != nil {
		n++
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, bad("a line longer than %d bytes", maxCurveLine)
		}
		return nil, bad("%w", err)
	}
	if len(starts) > 0 {
		return bin(name, starts)
	}
	if len(points) < 2 {
		return nil, bad("a curve needs two points or more, such as 0,100 and 60,4000")
	}
	return points, nil
}

// bin counts single starts, in seconds, in bins of one width; each bin is a level stretch between two points.
func bin(name string, starts []float64) ([]Point, error) {
	slices.Sort(starts)
	from := starts[0]
	if from >= 0 {
		from = 0 // numbers of seconds count from the start of the curve; timestamps may come before the first line's
	}
	span := starts[len(starts)-1] - from
	width := 100 * time.Millisecond
	for span/width.Seconds() > 10_000 {
		width *= 10
	}
	bins := make([]int, int(span/width.Seconds())+1)
	for _, s := range starts {
		bins[min(int((s-from)/width.Seconds()), len(bins)-1)]++
	}
	var points []Point
	for i, count := range bins {
		rate := float64(count) / width.Seconds()
		if rate > MaxRate {
			return nil, fmt.Errorf("%s: %d starts within %v, more than %.0f a second", name, count, width, float64(MaxRate))
		}
		points = append(points, Point{time.Duration(i) * width, rate}, Point{time.Duration(i+1) * width, rate})
	}
	return points, nil
}

// number reads a plain decimal number: no hexadecimal, no infinity.
func number(s string) (float64, bool) {
	if s == "" || strings.Trim(s, "+-.0123456789eE") != "" || len(s) > 40 {
		return 0, false
	}
	v, err := strconv.ParseFloat(s, 64)
	return v, err == nil
}

func timestamp(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// clip shortens what a stranger's file says for an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
