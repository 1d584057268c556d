package report

import (
	"fmt"
	"math"
	"reflect"
)

// Finite returns a deep copy of r in which every figure is finite and no list is nil, so that it can be written as
// JSON, and the JSON paths of the figures that were NaN or ±Inf. They become 0, or −1 where −1 means "nobody
// reported"; an objective whose measured value or threshold was not a number has no samples left and does not pass.
func (r *Report) Finite() (*Report, []string) {
	c := *r
	c.Schema = Schema
	c.Reasons = copied(r.Reasons)
	c.Objectives = copied(r.Objectives)
	c.Faults = copied(r.Faults)
	c.Safety = copied(r.Safety)
	c.Timeline = copied(r.Timeline)
	c.Moments = copied(r.Moments)
	if r.Topology != nil {
		c.Topology = copied(r.Topology)
	}
	c.Load.Failures = kept(r.Load.Failures)
	c.Load.SentToDoneMS, c.Load.OwnLagMS = pointed(r.Load.SentToDoneMS), pointed(r.Load.OwnLagMS)
	c.Processes = kept(r.Processes)
	c.Storms = kept(r.Storms)
	for i := range c.Storms {
		c.Storms[i].Series = copied(c.Storms[i].Series)
	}
	if c.Forecast = pointed(r.Forecast); c.Forecast != nil {
		c.Forecast.Bins = copied(c.Forecast.Bins)
		c.Forecast.Warnings = kept(c.Forecast.Warnings)
		c.Forecast.Scaling = kept(c.Forecast.Scaling)
	}
	if c.Experiment = pointed(r.Experiment); c.Experiment != nil {
		e := c.Experiment
		e.SteadyState, e.Comparison, e.Stop = copied(e.SteadyState), copied(e.Comparison), kept(e.Stop)
		e.Watch, e.Stopped = pointed(e.Watch), pointed(e.Stopped)
		for i := range e.SteadyState {
			e.SteadyState[i].unmeasured()
		}
		for i := range e.Comparison {
			if d := &e.Comparison[i]; !finite(d.Difference) || !finite(d.Low) || !finite(d.High) {
				d.Level, d.Significant = 0, false
			}
		}
	}

	for i := range c.Objectives {
		c.Objectives[i].unmeasured()
	}
	var bad []string
	settle(reflect.ValueOf(&c).Elem(), "", &bad)
	return &c, bad
}

// unmeasured takes the samples from an objective whose figures are no numbers.
func (o *Objective) unmeasured() {
	if !finite(o.Measured) || !finite(o.Threshold) {
		o.Samples, o.Pass = 0, false
	}
}

// copied never returns nil: report.json says [] and not null.
func copied[T any](s []T) []T { return append(make([]T, 0, len(s)), s...) }

// kept is nil for an empty list, which report.json leaves out.
func kept[T any](s []T) []T { return append([]T(nil), s...) }

func pointed[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// maxBadPaths bounds the list of replaced figures: past it, knowing one more helps nobody.
const maxBadPaths = 20

// settle replaces what is not finite below v, a settable value, and appends its path to bad.
func settle(v reflect.Value, path string, bad *[]string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name := jsonName(v.Type().Field(i))
			sub := path + "." + name
			switch {
			case path == "":
				sub = name
			case name == "": // embedded: its fields are the outer one's
				sub = path
			}
			f := v.Field(i)
			if f.Kind() == reflect.Float64 && !finite(f.Float()) {
				f.SetFloat(absent(v.Type(), name))
				note(bad, sub)
				continue
			}
			settle(f, sub, bad)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			settle(v.Elem(), path, bad)
		}
	case reflect.Slice:
		for i := range v.Len() {
			settle(v.Index(i), fmt.Sprintf("%s[%d]", path, i), bad)
		}
	case reflect.Float64: // of a list; a field knows what its absence is
		if !finite(v.Float()) {
			v.SetFloat(0)
			note(bad, path)
		}
	}
}

func note(bad *[]string, path string) {
	switch {
	case len(*bad) < maxBadPaths:
		*bad = append(*bad, path)
	case len(*bad) == maxBadPaths:
		*bad = append(*bad, "and more")
	}
}

// absent is the value that says "no figure" in field name of t.
func absent(t reflect.Type, name string) float64 {
	switch t {
	case reflect.TypeFor[Second]():
		switch name {
		case "live_latency_s", "live_latency_p95_s", "bitrate_kbps":
			return -1
		}
	case reflect.TypeFor[Storm]():
		if name == "back_s" {
			return -1
		}
	case reflect.TypeFor[Bin]():
		if name == "nowcast" {
			return -1
		}
	}
	return 0
}

func jsonName(f reflect.StructField) string {
	tag := f.Tag.Get("json")
	for i := range len(tag) {
		if tag[i] == ',' {
			return tag[:i]
		}
	}
	return tag
}
