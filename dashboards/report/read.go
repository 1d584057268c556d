package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Bounds of a report that is read. A day's timeline is about 18 MB of JSON.
const (
	maxReportBytes = 64 << 20
	maxSeconds     = 7 * 24 * 3600
	maxItems       = 10_000 // objectives, faults, checks, regions, moments, storms …
)

// Read reads a report from path: a report.json, or a run's folder that holds one.
func Read(path string) (*Report, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, JSONFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read report %s: %w", path, reason(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReportBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read report %s: %w", path, reason(err))
	}
	if len(b) > maxReportBytes {
		return nil, fmt.Errorf("read report %s: larger than %d MB", path, maxReportBytes>>20)
	}
	r, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read report %s: %w", path, err)
	}
	return r, nil
}

// Parse reads the content of report.json and checks it whole. Fields that it does not know are passed over, since a
// schema grows by adding; another schema, another type, an unknown verdict or evidence status, a timeline or a forecast
// out of order and anything after the report are refused, all that is wrong at once.
func Parse(b []byte) (*Report, error) {
	var head struct {
		Schema string `json:"schema"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&head); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if head.Schema != Schema {
		return nil, fmt.Errorf("schema is %q and this version reads %q", head.Schema, Schema)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the report")
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// validate says all that makes r no report.
func (r *Report) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if r.Run == "" {
		wrong("run: missing")
	}
	if r.Scenario == "" {
		wrong("scenario: missing")
	}
	if !slices.Contains([]string{Go, NoGo, Inconclusive}, r.Verdict) {
		wrong("verdict: %q is none of %s, %s, %s", r.Verdict, Go, NoGo, Inconclusive)
	}
	if r.DurationS < 0 {
		wrong("duration_s: %v is negative", r.DurationS)
	}
	fc := r.Forecast
	if fc == nil {
		fc = new(Forecast)
	}
	ex := r.Experiment
	if ex == nil {
		ex = new(Experiment)
	}
	for i, s := range ex.SteadyState {
		if !slices.Contains([]string{"before", "during", "after"}, s.Phase) {
			wrong("experiment.steady_state[%d].phase: %q is none of before, during, after", i, s.Phase)
			break
		}
	}
	for _, n := range []struct {
		name string
		len  int
		max  int
	}{
		{"reasons", len(r.Reasons), maxItems},
		{"topology", len(r.Topology), maxItems},
		{"objectives", len(r.Objectives), maxItems},
		{"faults", len(r.Faults), maxItems},
		{"safety", len(r.Safety), maxItems},
		{"moments", len(r.Moments), maxItems},
		{"timeline", len(r.Timeline), maxSeconds},
		{"load.failures", len(r.Load.Failures), maxItems},
		{"processes", len(r.Processes), maxItems},
		{"storms", len(r.Storms), maxItems},
		{"forecast.bins", len(fc.Bins), maxSeconds},
		{"forecast.warnings", len(fc.Warnings), maxItems},
		{"forecast.scaling", len(fc.Scaling), maxItems},
		{"experiment.steady_state", len(ex.SteadyState), maxItems},
		{"experiment.stop", len(ex.Stop), maxItems},
		{"experiment.comparison", len(ex.Comparison), maxItems},
	} {
		if n.len > n.max {
			wrong("%s: %d entries, at most %d are read", n.name, n.len, n.max)
		}
	}
	for i, f := range r.Faults {
		if s := f.Evidence.Status; !slices.Contains([]string{Confirmed, Mismatch, Inconclusive}, s) {
			wrong("faults[%d].evidence.status: %q is none of %s, %s, %s", i, s, Confirmed, Mismatch, Inconclusive)
		}
	}
	for i, s := range r.Timeline {
		if s.T < -maxSeconds || s.T > maxSeconds {
			wrong("timeline[%d].t: %d is out of bounds", i, s.T)
			break
		}
		if i > 0 && s.T <= r.Timeline[i-1].T {
			wrong("timeline[%d].t: %d does not follow %d", i, s.T, r.Timeline[i-1].T)
			break
		}
	}
	for i, s := range r.Storms {
		if len(s.Series) > maxSeconds {
			wrong("storms[%d].series: %d entries, at most %d are read", i, len(s.Series), maxSeconds)
		}
	}
	for i, b := range fc.Bins {
		if b.T < -maxSeconds || b.T > maxSeconds {
			wrong("forecast.bins[%d].t: %v is out of bounds", i, b.T)
			break
		}
		if i > 0 && b.T <= fc.Bins[i-1].T {
			wrong("forecast.bins[%d].t: %v does not follow %v", i, b.T, fc.Bins[i-1].T)
			break
		}
	}
	return errors.Join(errs...)
}
