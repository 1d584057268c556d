package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Schema is the version of a report's JSON.
const Schema = "tminus/bench/v1"

// Report is what a benchmark found.
type Report struct {
	Bench    string
	Problems []string // why the run is not valid; empty: it is
	Rounds   int
	Seconds  float64 // of each measurement in each round
	Machine  Machine
	Figures  []*Figure
	Ratios   []*Ratio
	Facts    map[string]any // what else JSON says at its top level
}

// Machine is what was measured on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"` // that this process may use
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Figure is one rate, measured once in each round.
type Figure struct {
	Key         string    `json:"key"` // in JSON's top level: the median
	What        string    `json:"what"`
	Rounds      []float64 `json:"rounds"`           // a second, in order; 0: not measured
	Median      float64   `json:"median"`           // 0: not measured
	Spread      float64   `json:"spread"`           // (highest - lowest) / median
	Seconds     float64   `json:"seconds"`          // of each round, without warm-up
	Connections int       `json:"connections"`      // at once
	InFlight    int       `json:"in_flight"`        // on each connection
	Cores       string    `json:"cores"`            // who ran where
	Settings    string    `json:"settings"`         // the rest that somebody would need to repeat it
	Wrong       uint64    `json:"wrong"`            // answers that were not the one asked for
	Dropped     uint64    `json:"dropped"`          // not sent in time
	ClientBusy  float64   `json:"client_busy"`      // share of a core that the client used, median
	ServerBusy  float64   `json:"server_busy"`      // the same of the server
	OthersBusy  float64   `json:"others_busy"`      // the same of everybody else on the machine, its host included, highest
	Target      float64   `json:"target,omitempty"` // at least
	Missing     bool      `json:"missing,omitempty"`

	client, server, others []float64
}

// Ratio is one figure over another, round by round.
type Ratio struct {
	Key     string    `json:"key"`
	Over    string    `json:"over"`  // "generator_per_s / bare_per_s"
	Means   string    `json:"means"` // for a person
	Rounds  []float64 `json:"rounds"`
	Median  float64   `json:"median"` // 0: not measured
	Spread  float64   `json:"spread"`
	Target  float64   `json:"target,omitempty"` // at least
	Missing bool      `json:"missing,omitempty"`

	of, by *Figure
}

func ratio(key string, of, by *Figure, target float64, means string) *Ratio {
	return &Ratio{Key: key, Over: of.Key + " / " + by.Key, Means: means, Target: target, of: of, by: by}
}

// settle computes the medians.
func (r *Report) settle() {
	for _, f := range r.Figures {
		median, spread := middle(f.Rounds)
		client, _ := middle(f.client)
		server, _ := middle(f.server)
		if len(f.others) > 0 {
			f.OthersBusy = round(slices.Max(f.others), 1000)
		}
		f.Median, f.Spread, f.ClientBusy, f.ServerBusy = round(median, 1), round(spread, 1000), round(client, 1000), round(server, 1000)
		f.Missing = f.Missing || median == 0
	}
	for _, q := range r.Ratios {
		q.Rounds = q.Rounds[:0]
		for i := range min(len(q.of.Rounds), len(q.by.Rounds)) {
			if a, b := q.of.Rounds[i], q.by.Rounds[i]; a > 0 && b > 0 {
				q.Rounds = append(q.Rounds, a/b)
			}
		}
		median, spread := middle(q.Rounds)
		q.Median, q.Spread = round(median, 1000), round(spread, 1000)
		q.Missing = q.of.Missing || q.by.Missing || median == 0
	}
	for _, f := range r.Figures { // after the ratios have had them whole
		f.Rounds = rounded(f.Rounds, 1)
	}
	for _, q := range r.Ratios {
		q.Rounds = rounded(q.Rounds, 1000)
	}
}

// round keeps the parts of one that somebody may read.
func round(v, parts float64) float64 { return math.Round(v*parts) / parts }

func rounded(v []float64, parts float64) []float64 {
	out := make([]float64, len(v)) // never nil: JSON says [] then
	for i := range v {
		out[i] = round(v[i], parts)
	}
	return out
}

// middle is the median of what was measured and its relative spread; 0, 0 of nothing.
func middle(v []float64) (median, spread float64) {
	s := slices.DeleteFunc(slices.Clone(v), func(x float64) bool { return x <= 0 })
	if len(s) == 0 {
		return 0, 0
	}
	slices.SortFunc(s, cmp.Compare)
	n := len(s)
	median = (s[(n-1)/2] + s[n/2]) / 2
	return median, (s[n-1] - s[0]) / median
}

// Valid reports whether the figures can be quoted.
func (r *Report) Valid() bool { return len(r.Problems) == 0 }

// quiet is what others may use of a core beside a measurement.
const quiet = 0.1

// Disturbed is the most of a core that others used while something was measured; 0 when that is too little to matter.
func (r *Report) Disturbed() float64 {
	most := 0.0
	for _, f := range r.Figures {
		most = max(most, f.OthersBusy)
	}
	if most < quiet {
		return 0
	}
	return most
}

// WriteJSON writes one object: each figure and each ratio by its key (null when it was not measured), then how they were come by.
func (r *Report) WriteJSON(w io.Writer) error {
	top := map[string]any{
		"schema": Schema, "bench": r.Bench, "valid": r.Valid(), "problems": append([]string{}, r.Problems...),
		"rounds": r.Rounds, "seconds": r.Seconds, "machine": r.Machine, "disturbed": r.Disturbed(), "figures": r.Figures, "ratios": r.Ratios,
	}
	for k, v := range r.Facts {
		top[k] = v
	}
	orNull := func(v float64, missing bool) any {
		if missing {
			return nil
		}
		return v
	}
	for _, f := range r.Figures {
		top[f.Key] = orNull(f.Median, f.Missing)
	}
	for _, q := range r.Ratios {
		top[q.Key] = orNull(q.Median, q.Missing)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(top)
}

// WriteTable writes the report for a person.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d rounds of %g s each, medians (and spread between rounds)\n", r.Bench, r.Rounds, r.Seconds)
	fmt.Fprintf(&b, "%s, %d cores, Linux %s, %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "a second\tspread\tconnections\tclient\tserver\twhat")
	for _, f := range r.Figures {
		if f.Missing {
			fmt.Fprintf(t, "-\t\t\t\t\t%s: not measured\n", f.What)
			continue
		}
		what := f.What
		if f.Target > 0 {
			what += fmt.Sprintf(" (%s)", against(f.Median, f.Target))
		}
		fmt.Fprintf(t, "%s\t%s\t%d x %d\t%s\t%s\t%s\n", thousands(f.Median), percent(f.Spread), f.Connections, f.InFlight,
			percent(f.ClientBusy), percent(f.ServerBusy), what)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("(connections x in flight on each; client, server: share of a core used)\n\n")
	fmt.Fprintln(t, "ratio\tspread\tat least\t \twhat it means")
	for _, q := range r.Ratios {
		value, spread, target, verdict := "-", "", "", ""
		if !q.Missing {
			value, spread = fmt.Sprintf("%.2f", q.Median), percent(q.Spread)
		}
		if q.Target > 0 {
			target = fmt.Sprint(q.Target)
			switch {
			case q.Missing:
				verdict = "not measured"
			case q.Median < q.Target:
				verdict = "missed"
			default:
				verdict = "met"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s: %s\n", value, spread, target, verdict, q.Key, q.Means)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	settings := false
	for _, f := range r.Figures {
		if f.Settings == "" || f.Missing {
			continue
		}
		if !settings {
			b.WriteString("\nsettings\n")
			settings = true
		}
		fmt.Fprintf(&b, "  %s: %s; %s\n", strings.TrimSuffix(f.Key, "_per_s"), f.Settings, f.Cores)
	}
	if busy := r.Disturbed(); busy > 0 {
		fmt.Fprintf(&b, "\nThis machine had other things to do: up to %s of a core. Figures are too low, and ratios are rough.\n", percent(busy))
	}
	if !r.Valid() {
		b.WriteString("\nNOT VALID\n")
		for _, p := range r.Problems {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func against(v, target float64) string {
	if v < target {
		return fmt.Sprintf("missed %s", thousands(target))
	}
	return fmt.Sprintf("at least %s: met", thousands(target))
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", share*100) }

// thousands writes a whole number in groups of three.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
