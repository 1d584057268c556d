package forecast_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

func TestReadPast(t *testing.T) {
	got, err := forecast.ReadPast("past.csv", strings.NewReader("\ufeffname,kind,peak_starts_per_s,total,expected,start\r\n# last year\r\n"+
		"\"Smith, Jones\",title-fight,12000,3e6,2500000,2026-03-07T20:00:00-05:00\r\nSpring launch,launch,,400000,,\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []forecast.Past{
		{Name: "Smith, Jones", Kind: "title-fight", Peak: 12000, Total: 3e6, Expected: 2.5e6, Start: time.Date(2026, 3, 8, 1, 0, 0, 0, time.UTC)},
		{Name: "Spring launch", Kind: "launch", Total: 4e5},
	}
	for i, w := range want {
		if g := got[i]; !g.Start.Equal(w.Start) {
			t.Errorf("start %v, want %v", g.Start, w.Start)
		}
		got[i].Start = w.Start
		if got[i] != w {
			t.Errorf("got %+v, want %+v", got[i], w)
		}
	}
}

func TestReadMarketing(t *testing.T) {
	got, err := forecast.ReadMarketing("m.csv", strings.NewReader("hours_before,interest\n72,10%\n24,.5\n1,1.2\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []forecast.Interest{{72, .1}, {24, .5}, {1, 1.2}} {
		if got[i] != w {
			t.Errorf("got %v, want %v", got[i], w)
		}
	}
}

func TestBadFiles(t *testing.T) {
	past := func(text string) error {
		_, err := forecast.ReadPast("f.csv", strings.NewReader(text))
		return err
	}
	marketing := func(text string) error {
		_, err := forecast.ReadMarketing("f.csv", strings.NewReader(text))
		return err
	}
	for _, tc := range []struct {
		read       func(string) error
		text, want string
	}{
		{past, "", "f.csv:1: nothing below the line"},
		{past, "name,kind,total\n", "f.csv:1: nothing below"},
		{past, "name,sort,total\na,launch,1\n", `f.csv:1: unknown column "sort"`},
		{past, "name,kind\na,launch\n", `f.csv:1: the first line names no column "total"`},
		{past, "name,kind,total,total\n", `f.csv:1: column "total" is there twice`},
		{past, "name,kind,total\n\n\na,lunch,5\n", `f.csv:4: unknown kind of event "lunch"`},
		{past, "name,kind,total\na,launch\n", "f.csv:2: 2 columns, the first line has 3"},
		{past, "name,kind,total\na,launch,many\n", `f.csv:2: total "many", want a number`},
		{past, "name,kind,total\na,launch,NaN\n", `f.csv:2: total "NaN"`},
		{past, "name,kind,total\na,launch,0x10\n", `f.csv:2: total "0x10"`},
		{past, "name,kind,total\na,launch,\n", `f.csv:2: total ""`},
		{past, "name,kind,total,peak_starts_per_s\na,launch,5,6\n", "f.csv:2: a peak of 6 a second in an event with 5"},
		{past, "name,kind,total,start\na,launch,5,noon\n", `f.csv:2: start "noon"`},
		{past, "name,kind,total\n\"a,launch,5\n", "f.csv:"},
		{past, "name,kind,total\n" + strings.Repeat("a,launch,5\n", 10_001), "more than 10000 lines"},
		{past, "name,kind,total\n" + strings.Repeat("a", 5<<20), "larger than 4 MiB"},
		{marketing, "hours_before,interest\n1,.5\n2,.6\n", "f.csv:3: hours before the start must fall"},
		{marketing, "hours_before,interest\n1,-5\n", `f.csv:2: interest "-5"`},
		{marketing, "hours_before,interest\n1%,5\n", `f.csv:2: hours_before "1%"`},
	} {
		if err := tc.read(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40q: error %v, want one with %q", tc.text, err, tc.want)
		}
	}
}

func FuzzReadPast(f *testing.F) {
	f.Add([]byte("name,kind,total\na,launch,5\n"))
	f.Add([]byte("name,kind,peak_starts_per_s,total,expected,start\n\"x,\"\"y\",title-fight,1,2,3,2026-03-07T20:00:00Z\n"))
	f.Add([]byte("name,kind,total\n\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		past, err := forecast.ReadPast("f", bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Fatalf("error names no line: %v", err)
			}
			return
		}
		if _, err := forecast.Predict(forecast.Event{Past: past}); err != nil {
			t.Fatalf("read, but of no use: %v", err)
		}
	})
}

func FuzzReadMarketing(f *testing.F) {
	f.Add([]byte("hours_before,interest\n72,10%\n24,.5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		points, err := forecast.ReadMarketing("f", bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := forecast.Predict(forecast.Event{Audience: 1000, Marketing: points}); err != nil {
			t.Fatalf("read, but of no use: %v", err)
		}
	})
}
