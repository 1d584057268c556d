package audience_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

func TestReadCurve(t *testing.T) {
	want := []audience.Point{{At: 0, Rate: 100}, {At: 90 * s, Rate: 4000.5}, {At: 2 * time.Minute, Rate: 0}}
	for name, text := range map[string]string{
		"seconds":                  "0,100\n90,4000.5\n120,0\n",
		"a head, CRLF, a comment":  "\ufeffseconds,rate\r\n# from Saturday\r\n\r\n0, 100\r\n90, 4000.5\r\n120,0",
		"timestamps":               "timestamp,rate\n2026-11-21T19:58:00Z,100\n2026-11-21T20:59:30+01:00,4000.5\n2026-11-21 20:00:00,0\n",
		"seconds since 1970":       "1795291080,100\n1795291170,4000.5\n1795291200,0\n",
		"an exponent and a sign +": "0,1e2\n+9e1,4000.5\n120,0\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := audience.ReadCurve("saturday.csv", strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Single starts are counted exactly, whatever their order and however long they span.
func TestReadCurveOfSingleStarts(t *testing.T) {
	for _, span := range []time.Duration{s, time.Minute, time.Hour, 20 * time.Hour} {
		zero := time.Date(2026, 11, 21, 19, 58, 0, 0, time.UTC)
		var text strings.Builder
		const n = 1234
		for i := range n {
			at := span * time.Duration((i*611)%n) / n
			fmt.Fprintln(&text, zero.Add(at).Format(time.RFC3339Nano))
		}
		points, err := audience.ReadCurve("starts.csv", strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		sch, err := audience.NewSchedule([]audience.Leg{{Curve: audience.CSV, Points: points}}, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if sch.Total() != n {
			t.Errorf("over %v: %d starts, want %d", span, sch.Total(), n)
		}
		if got := float64(sch.Count(span/2)) / n; math.Abs(got-.5) > .06 {
			t.Errorf("over %v: %.2f of the starts in the first half", span, got)
		}
	}
	points, err := audience.ReadCurve("starts.csv", strings.NewReader("seconds\n5\n5.05\n7.1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if points[0].At != 0 || points[0].Rate != 0 || points[len(points)-1].At < 7*s {
		t.Errorf("%v", points)
	}
}

func TestBadCurveFiles(t *testing.T) {
	for want, text := range map[string]string{
		"c.csv:1: a curve needs two points":               "",
		"c.csv:2: a curve needs two points":               "0,1\n# nothing\n",
		"c.csv:2: times must increase":                    "5,1\n5,2\n",
		"c.csv:3: 1 columns where the lines before have":  "0,1\n1,2\n3\n",
		"c.csv:2: 1 columns where":                        "seconds,rate\n3\n",
		"c.csv:1: 3 columns, want":                        "0,1,2\n",
		`c.csv:2: rate "fast"`:                            "0,1\n1,fast\n",
		`c.csv:1: rate "-1"`:                              "0,-1\n",
		`c.csv:1: rate "0x10"`:                            "0,0x10\n",
		`c.csv:1: rate "1e7"`:                             "0,1e7\n",
		`c.csv:1: "NaN" is neither`:                       "NaN,1\n",
		`c.csv:1: "at noon" is neither`:                   "at noon,1\n",
		"c.csv:2: a number of seconds and a timestamp":    "0,1\n2026-11-21T19:58:00Z,4\n",
		"looks like milliseconds":                         "1795291080000,1\n",
		`c.csv:2: "200000" is more than 24h0m0s`:          "0,1\n200000,2\n",
		`c.csv:2: "2027-11-21T19:58:00Z" is more than`:    "2026-11-21T19:58:00Z,1\n2027-11-21T19:58:00Z,1\n",
		"c.csv:1: times must increase":                    "-1,1\n",
		"c.csv:1: a time before 0":                        "-1\n",
		"c.csv:2: a line longer than":                     "0,1\n" + strings.Repeat("1", 5000),
		"c.csv: 100001 starts within 100ms, more than 10": strings.Repeat("5\n", 100_001),
	} {
		_, err := audience.ReadCurve("c.csv", strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want one with %q", text, err, want)
		}
	}
}

// What is read can be played, and errors name a line.
func FuzzReadCurve(f *testing.F) {
	for _, s := range []string{"0,1\n2,3\n", "seconds,rate\n0,1\n2,3", "timestamp\n2026-11-21T19:58:00Z\n2026-11-21T19:57:00.25Z\n", "1795291080,5\n1795291081,6", "5\n5.1\n80000\n", "#\n\n", "0,1e99\n", "-0,0\n1,0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		points, err := audience.ReadCurve("f", bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("error names no line: %v", err)
			}
			return
		}
		sch, err := audience.NewSchedule([]audience.Leg{{Curve: audience.CSV, Points: points}}, 48*time.Hour)
		if err != nil {
			t.Fatalf("read, but cannot be played: %v", err)
		}
		if n := sch.Total(); n > 0 && sch.Intended(n-1) < sch.Intended(0) {
			t.Fatal("the last start is before the first")
		}
	})
}

// All that is wrong with a file is said at once, up to a bound.
func TestReadCurveNamesEveryMistake(t *testing.T) {
	_, err := audience.ReadCurve("c.csv", strings.NewReader("0,1\nx,2\n2,-1\n3,4\n"))
	if err == nil || !strings.Contains(err.Error(), "c.csv:2: ") || !strings.Contains(err.Error(), "c.csv:3: ") || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v", err)
	}
	_, err = audience.ReadCurve("c.csv", strings.NewReader("0,1\n"+strings.Repeat("x,2\n", 1000)))
	if n := strings.Count(err.Error(), "\n"); n != 10 || !strings.HasSuffix(err.Error(), "and perhaps more") {
		t.Errorf("%d lines: %v", n, err)
	}
}
