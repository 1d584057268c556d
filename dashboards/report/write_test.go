package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func TestGoldens(t *testing.T) {
	for _, s := range samples {
		if s.name == "long" || s.name == "hostile" {
			continue // too long to read; other tests hold them
		}
		for _, g := range []struct {
			ext   string
			write func(*Report, io.Writer) error
		}{
			{"json", (*Report).WriteJSON},
			{"xml", (*Report).WriteJUnit},
		} {
			t.Run(s.name+"."+g.ext, func(t *testing.T) {
				r := s.make()
				r.Timeline = r.Timeline[:3]
				if r.Forecast != nil {
					r.Forecast.Bins = r.Forecast.Bins[5:9]
				}
				for i := range r.Storms {
					r.Storms[i].Series = r.Storms[i].Series[8:14]
				}
				var b bytes.Buffer
				if err := g.write(r, &b); err != nil {
					t.Fatal(err)
				}
				golden(t, s.name+"."+g.ext, b.Bytes())
			})
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run go test -update and read the diff\n%s", path, got)
	}
}

func TestWriteThenRead(t *testing.T) {
	for _, s := range samples {
		if s.name == "hostile" {
			continue // its evidence status is no status
		}
		dir := filepath.Join(t.TempDir(), "runs", "x")
		want := s.make()
		if err := Write(dir, want, nil); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, _ = want.Finite()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read back something else", s.name)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != "junit.xml report.html report.json timeline.ndjson" {
			t.Errorf("%s: the folder holds %s", s.name, got)
		}
	}
}

func TestJSONStartsWithItsSchema(t *testing.T) {
	var b bytes.Buffer
	r := sampleGo()
	r.Schema = "" // the writer's to set
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "{\n  \"schema\": \""+Schema+"\",\n") {
		t.Errorf("begins %.60q", b.String())
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	var b bytes.Buffer
	if err := (&Report{}).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "null") {
		t.Errorf("null in %s", b.String())
	}
}

// What cannot be written as JSON is replaced, named, and never passes for a measurement.
func TestFiguresThatAreNotNumbers(t *testing.T) {
	r := sampleGo()
	r.Objectives[0].Measured = math.NaN()
	r.Telemetry.LagS = math.Inf(1)
	r.Timeline[4].LiveLatencyS = math.NaN()
	r.Timeline[4].RebufferRatio = math.Inf(-1)
	dir := t.TempDir()
	if err := Write(dir, r, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if o := got.Objectives[0]; o.State() != NoData || o.Pass {
		t.Errorf("an objective that measured NaN is %+v", o)
	}
	if s := got.Timeline[4]; s.LiveLatencyS != -1 || s.RebufferRatio != 0 {
		t.Errorf("the second is %+v", s)
	}
	last := got.Safety[len(got.Safety)-1]
	for _, path := range []string{"objectives[0].measured", "telemetry.lag_s", "timeline[4].live_latency_s", "timeline[4].rebuffer_ratio"} {
		if last.Pass || !strings.Contains(last.Detail, path) {
			t.Errorf("the safety check %+v does not name %s", last, path)
		}
	}
	if !math.IsNaN(r.Objectives[0].Measured) || len(r.Safety) != 4 {
		t.Error("Write changed the caller's report")
	}
}

func TestWriteTakesTheRunsEvents(t *testing.T) {
	dir := t.TempDir()
	err := Write(dir, sampleGo(), func(w io.Writer) error {
		_, err := io.WriteString(w, "{\"kind\":\"phase\"}\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, TimelineFile)); string(b) != "{\"kind\":\"phase\"}\n" {
		t.Errorf("timeline.ndjson is %q", b)
	}
}

func TestOwnTimelineIsOneObjectALine(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, sampleTarget(), nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, TimelineFile))
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for line := range strings.Lines(string(b)) {
		var v struct{ Type string }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		types[v.Type]++
	}
	if types["moment"] != 2 || types["second"] != 60 {
		t.Errorf("lines by type: %v", types)
	}
}

// A failure half way leaves the former file, no temporary one, and an error that names the file.
func TestWriteFailsInOneSentence(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, sampleGo(), nil); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, TimelineFile))
	err := Write(dir, sampleNoGo(), func(w io.Writer) error {
		io.WriteString(w, "half")
		return &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	})
	want := "write " + filepath.Join(dir, TimelineFile) + ": no space left on device: free some space or choose another folder"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Error("the cause is lost")
	}
	after, _ := os.ReadFile(filepath.Join(dir, TimelineFile))
	if !bytes.Equal(before, after) {
		t.Error("the former timeline was spoilt")
	}
	if r, err := Read(dir); err != nil || r.Verdict != NoGo {
		t.Errorf("the other files were not written: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWriteIntoAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Write(filepath.Join(file, "run"), sampleGo(), nil)
	if err == nil || !strings.Contains(err.Error(), "make the run's folder "+filepath.Join(file, "run")+": not a directory") {
		t.Errorf("error %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	var good bytes.Buffer
	if err := sampleTarget().WriteJSON(&good); err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) string {
		s := strings.Replace(good.String(), old, new, 1)
		if s == good.String() {
			t.Fatalf("%q is not in the sample", old)
		}
		return s
	}
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", "not a report: EOF"},
		{"another schema", edit("tminus.report/v1", "tminus.report/v9"), `schema is "tminus.report/v9" and this version reads "tminus.report/v1"`},
		{"half a file", good.String()[:2000], "not a report: unexpected EOF"},
		{"two reports", good.String() + good.String(), "something follows the report"},
		{"a word for a figure", edit(`"seed": 1`, `"seed": "one"`), "cannot unmarshal string"},
		{"an unknown verdict", edit(`"verdict": "go"`, `"verdict": "maybe"`), `verdict: "maybe" is none of go, no-go, inconclusive`},
		{"time running backwards", edit(`"t": 7,`, `"t": 3,`), "timeline[7].t: 3 does not follow 6"},
		{"a second of next century", edit(`"t": 59,`, `"t": 5900000000,`), "timeline[59].t: 5900000000 is out of bounds"},
	} {
		r, err := Parse([]byte(c.in))
		if r != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	two := strings.Replace(edit(`"verdict": "go"`, `"verdict": "maybe"`), `"run": "`, `"rum": "`, 1)
	if _, err := Parse([]byte(two)); err == nil || !strings.Contains(err.Error(), "run: missing") || !strings.Contains(err.Error(), "maybe") {
		t.Errorf("not everything wrong at once: %v", err)
	}
	if _, err := Parse([]byte(edit(`"seed": 1`, `"later": {"x": 1}, "seed": 1`))); err != nil {
		t.Errorf("a field that a later version added: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none.json")); err == nil || !strings.HasSuffix(err.Error(), "none.json: no such file or directory") {
		t.Errorf("a missing file: %v", err)
	}
}

// CI servers count from the attributes: they must add up, and every case must say what the scenario asked.
func TestJUnitAddsUp(t *testing.T) {
	for _, s := range samples {
		r := s.make()
		var b bytes.Buffer
		if err := r.WriteJUnit(&b); err != nil {
			t.Fatal(err)
		}
		var got junitSuites
		if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		var suites struct {
			Suites []struct {
				Name     string `xml:"name,attr"`
				Tests    int    `xml:"tests,attr"`
				Failures int    `xml:"failures,attr"`
				Errors   int    `xml:"errors,attr"`
				Cases    []struct {
					Name    string    `xml:"name,attr"`
					Failure *struct{} `xml:"failure"`
					Error   *struct{} `xml:"error"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.Unmarshal(b.Bytes(), &suites); err != nil {
			t.Fatal(err)
		}
		tests, failures, errs := 0, 0, 0
		for _, u := range suites.Suites {
			f, e := 0, 0
			for _, c := range u.Cases {
				if c.Failure != nil {
					f++
				}
				if c.Error != nil {
					e++
				}
			}
			if u.Tests != len(u.Cases) || u.Failures != f || u.Errors != e {
				t.Errorf("%s: %s counts %d/%d/%d, has %d/%d/%d", s.name, u.Name, u.Tests, u.Failures, u.Errors, len(u.Cases), f, e)
			}
			tests, failures, errs = tests+u.Tests, failures+u.Failures, errs+u.Errors
		}
		want := len(r.Objectives) + len(r.Faults) + len(r.Safety)
		if e := r.Experiment; e != nil {
			want += len(e.SteadyState) + len(e.Stop) + len(e.Comparison)
			if e.Stopped != nil && e.Stopped.Blind != "" {
				want++
			}
		}
		if got.Tests != tests || got.Failures != failures || got.Errors != errs || tests != want {
			t.Errorf("%s: the whole counts %d/%d/%d", s.name, got.Tests, got.Failures, got.Errors)
		}
		if (r.Verdict == Go) != (failures+errs == 0) {
			t.Errorf("%s: verdict %s with %d failures and %d errors", s.name, r.Verdict, failures, errs)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range samples[:10] {
		var b bytes.Buffer
		r := s.make()
		r.Timeline = r.Timeline[:3]
		if r.Forecast != nil {
			r.Forecast.Bins = r.Forecast.Bins[:4]
		}
		for i := range r.Storms {
			r.Storms[i].Series = r.Storms[i].Series[:15]
		}
		if err := r.WriteJSON(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		// Whatever is read can be drawn, and written again.
		for _, w := range []func(io.Writer) error{r.WriteJSON, r.WriteJUnit, r.WriteHTML} {
			if err := w(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
	})
}
