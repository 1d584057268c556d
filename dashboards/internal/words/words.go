package words

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Ordinal writes a rank given in digits: 95th, 1st, 99.9th.
func Ordinal(n string) string {
	switch {
	case strings.Contains(n, "."), strings.HasSuffix(n, "11"), strings.HasSuffix(n, "12"), strings.HasSuffix(n, "13"):
		return n + "th"
	case strings.HasSuffix(n, "1"):
		return n + "st"
	case strings.HasSuffix(n, "2"):
		return n + "nd"
	case strings.HasSuffix(n, "3"):
		return n + "rd"
	}
	return n + "th"
}

// NBSP keeps a number and its unit on one line.
const NBSP = "\u00a0"

// WithUnit joins a figure and its unit; "count" and none add nothing.
func WithUnit(s, unit string) string {
	switch unit {
	case "", "count":
		return s
	}
	return s + NBSP + unit
}

// Share writes a fraction as whole per cent, or finer below 1 %.
func Share(f float64) string {
	p := f * 100
	if p < 0 {
		p = 0
	}
	if p >= 1 || p == 0 {
		return strconv.Itoa(int(math.Floor(p+1e-9))) + NBSP + "%"
	}
	return Significant(p, 1) + NBSP + "%"
}

// Significant writes f with at most that many significant digits, no exponent, and thousands separated.
func Significant(f float64, digits int) string {
	if !isFinite(f) {
		return "–"
	}
	if f == 0 {
		return "0"
	}
	decimals := digits - 1 - int(math.Floor(math.Log10(math.Abs(f))))
	decimals = min(max(decimals, 0), 9)
	s := strconv.FormatFloat(f, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		s = "0"
	}
	return thousands(s)
}

// thousands puts a comma between each three digits of the whole part.
func thousands(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "−", s[1:]
	}
	whole, frac, _ := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if frac != "" {
		whole += "." + frac
	}
	return sign + whole
}

// Compact writes a figure in few characters: 1,159, then 98.4k and 1.02M.
func Compact(f float64) string {
	switch a := math.Abs(f); {
	case isFinite(f) && a >= 1e12:
		return strconv.FormatFloat(f, 'g', 3, 64)
	case a >= 999_500:
		return Significant(f/1e6, 3) + "M"
	case a >= 1e4:
		return Significant(f/1e3, 3) + "k"
	}
	return Significant(f, 3)
}

// PerSecond writes a rate of whole things: "250/s", "98.4k/s".
func PerSecond(f float64) string {
	if isFinite(f) && math.Abs(f) < 1e4 {
		f = math.Round(f)
	}
	return Compact(f) + "/s"
}

// Percent writes a share between nothing and all, given in per cent, and never 100 % or 0 % of what is not.
func Percent(p float64) string {
	s := strconv.FormatFloat(p, 'f', 2, 64)
	switch {
	case !isFinite(p):
		return "–"
	case s == "100.00" && p < 100:
		s = ">99.99"
	case s == "0.00" && p > 0:
		s = "<0.01"
	case s == "100.00", s == "0.00":
		s = s[:len(s)-3]
	}
	return s + NBSP + "%"
}

// Times writes a multiple: "1.4×", "12×".
func Times(f float64) string { return Significant(f, 2) + "×" }

// Bytes writes an amount of memory in decimal units: "61.2 MB", "1.34 GB".
func Bytes(n uint64) string {
	f := float64(n)
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if f >= u.size*0.9995 {
			return Significant(f/u.size, 3) + NBSP + u.name
		}
	}
	return Significant(f, 3) + NBSP + "B"
}

// Count writes a whole number, thousands separated.
func Count(n uint64) string { return thousands(strconv.FormatUint(n, 10)) }

// Plural is "1 region", "2 regions".
func Plural[N int | uint64](n N, one string) string {
	s := Count(uint64(n)) + " " + one
	if n != 1 {
		s += "s"
	}
	return s
}

// Millis writes a latency given in milliseconds, in the unit that reads best.
func Millis(ms float64) string {
	switch {
	case !isFinite(ms):
		return "–"
	case ms >= 1000:
		return Significant(ms/1000, 3) + NBSP + "s"
	case ms > 0 && ms < 1:
		return Significant(ms*1000, 2) + NBSP + "µs"
	}
	return Significant(ms, 3) + NBSP + "ms"
}

// Seconds writes a time given in seconds, three digits of it: "1.42 s", and below 0.1 s "7.34 ms".
func Seconds(s float64) string {
	if s > 0 && s < 0.1 {
		return Millis(s * 1000)
	}
	return WithUnit(Significant(s, 3), "s")
}

// Lasting writes a duration in seconds: "7.34 ms", "20 s", "1 min 30 s", "3 h 0 min".
func Lasting(s float64) string {
	if !isFinite(s) {
		return "–"
	}
	if s > 0 && s < 0.1 {
		return Millis(s * 1000)
	}
	if s < 120 {
		return Significant(math.Round(s*10)/10, 3) + NBSP + "s"
	}
	n := int(math.Round(s))
	if n < 3600 {
		if n%60 == 0 {
			return fmt.Sprintf("%d%smin", n/60, NBSP)
		}
		return fmt.Sprintf("%d%smin %d%ss", n/60, NBSP, n%60, NBSP)
	}
	return fmt.Sprintf("%d%sh %d%smin", n/3600, NBSP, n%3600/60, NBSP)
}

// Clock writes moments of one run alike: seconds in a short run, minutes and hours in a long one.
type Clock struct {
	Span float64 // of the run, in seconds
}

// At writes s seconds after the start of the event: "T+31 s", "T+12:05", "T+1:02:05".
func (c Clock) At(s float64) string {
	if !isFinite(s) {
		return "T+?"
	}
	n := int(math.Round(s))
	sign := "+"
	if n < 0 {
		sign, n = "−", -n
	}
	switch {
	case c.Span <= 180:
		return fmt.Sprintf("T%s%d%ss", sign, n, NBSP)
	case c.Span <= 3600:
		return fmt.Sprintf("T%s%d:%02d", sign, n/60, n%60)
	}
	return fmt.Sprintf("T%s%d:%02d:%02d", sign, n/3600, n%3600/60, n%60)
}

func isFinite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
