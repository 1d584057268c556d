package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
	"github.com/tminus-live/tminus/simulator/wire/consent"
)

// tminus runs a command line and returns what it says and its exit status.
func tminus(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = run(args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), status
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestForecastSpeaksToAPersonAndToAProgram(t *testing.T) {
	past := write(t, "past.csv", "name,kind,total,peak_starts_per_s,expected\nlast year,concert,400000,500,300000\n")
	marketing := write(t, "m.csv", "hours_before,interest\n48,20%\n24,55%\n")
	args := []string{"forecast", "--kind", "concert", "--audience", "500000", "--past", past, "--marketing", marketing, "--regions", "us-east=54,us-west=46", "--instance", "100"}
	out, errs, status := tminus(args...)
	if status != 0 || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	for _, want := range []string{"concert: ", "play starts (P90", "learnt from 1 past event\n", "█", "us-east", "54.0%", "T+0:00"} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 100 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
	out, errs, status = tminus(append(args, "--json")...)
	var p predictionJSON
	if err := json.Unmarshal([]byte(out), &p); err != nil || status != 0 || errs != "" {
		t.Fatalf("status %d, %v: %s", status, err, errs)
	}
	if p.Kind != "concert" || p.Total.P50 < 500_000 || p.Total.P90 < p.Total.P50 || len(p.Regions) != 2 || p.Regions[0].Instances == 0 || len(p.Curve) < 100 || p.Learnt != 1 {
		t.Errorf("%+v", p)
	}
}

func TestAForecastIsALegOfAScenario(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curve.csv")
	if _, errs, status := tminus("forecast", "--audience", "1e6", "--from", "-60s", "--to", "30s", "--csv", path); status != 0 {
		t.Fatal(errs)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	points, err := audience.ReadCurve(path, f)
	if err != nil {
		t.Fatal(err)
	}
	if last := points[len(points)-1]; last.At != 90*time.Second || points[0].At != 0 || points[0].Rate <= 0 {
		t.Errorf("%v to %v", points[0], last)
	}
}

func TestForecastMistakes(t *testing.T) {
	bad := write(t, "past.csv", "name,kind,total\nx,launch,5\ny,lunch,6\n")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"forecast"}, "neither an expected audience nor past events"},
		{[]string{"forecast", "--past", bad}, "past.csv:3: unknown kind of event"},
		{[]string{"forecast", "--past", "/nowhere.csv"}, "there is no file /nowhere.csv"},
		{[]string{"forecast", "--audience", "5", "--kind", "fight"}, `unknown kind of event "fight"`},
		{[]string{"forecast", "--audience", "-5"}, "an audience of -5"},
		{[]string{"forecast", "--audience", "NaN"}, "an audience of NaN"},
		{[]string{"forecast", "--audience", "5", "--start", "noon"}, "--start"},
		{[]string{"forecast", "--audience", "5", "--regions", "a=1,b"}, "--regions"},
		{[]string{"forecast", "--audience", "5", "--regions", "a=x"}, "--regions"},
		{[]string{"forecast", "--audience", "5", "--regions", "a=1,a=2"}, "region a is there twice"},
		{[]string{"forecast", "--audience", "5", "--from", "5s", "--to", "1s"}, "--from"},
		{[]string{"forecast", "now"}, "no arguments"},
		{[]string{"consent"}, "one host"},
		{[]string{"consent", "a b"}, "no host"},
		{[]string{"consent", "example.com", "--for", "1s"}, "lasts 1s"},
	} {
		out, errs, status := tminus(tc.args...)
		if status != exitUsage || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: status %d, %q, %q: want 2 and one sentence with %q", tc.args, status, out, errs, tc.want)
		}
	}
}

func TestConsentPrintsATokenAndWhereToServeIt(t *testing.T) {
	out, errs, status := tminus("consent", "http://10.0.7.12:8000", "--for", "24h")
	if status != 0 || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	first, _, _ := strings.Cut(out, "\n")
	tok, err := consent.ParseToken(first)
	if err != nil || tok.Host != "10.0.7.12:8000" || time.Until(tok.Expires) > 24*time.Hour || time.Until(tok.Expires) < 23*time.Hour {
		t.Errorf("%q: %v", first, err)
	}
	if !strings.Contains(out, "http://10.0.7.12:8000/.well-known/tminus-consent.txt") || !strings.Contains(out, "consent: "+first) {
		t.Error(out)
	}
}

// A history of another kind of event is used, and it is said that it counts for less.
func TestForecastNamesAHistoryOfAnotherKind(t *testing.T) {
	past := []forecast.Past{{Kind: "launch"}, {Kind: "title-fight"}}
	if got, want := otherKinds("title-fight", past), "; 1 of the 2 in the file are of another kind than title-fight, and count for less"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := otherKinds("launch", past[:1]); got != "" {
		t.Errorf("%q", got)
	}
}
