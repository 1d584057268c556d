package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

// forecastBins is how many columns the picture of a forecast has.
const forecastBins = 72

func forecastCommand() *cobra.Command {
	var (
		e                           forecast.Event
		past, marketing, start, csv string
		regions                     []string
		from, to                    time.Duration
		asJSON                      bool
	)
	cmd := &cobra.Command{
		Use:   "forecast",
		Short: "Predict an event's play starts and the capacity that each region needs",
		Long: `Predict when an event's viewers press Play and what capacity that needs, from the kind of event, the audience that is
expected, past events and how the marketing goes. Every figure has a middle estimate (P50) and a high one that is passed in
one event of ten (P90).

Past events are CSV with a first line that names the columns: name,kind,total and, where known, peak_starts_per_s,expected,
start. A marketing curve is CSV: hours_before,interest, where interest is the share of the expected audience that has set a
reminder or signed up by then. A scenario plays the forecast with --csv FILE and a leg {curve: csv, file: FILE}.`,
		Example: `  tminus forecast --kind title-fight --audience 3000000 --regions us-east=54,us-west=46
  tminus forecast --kind launch --past last-year.csv --marketing reminders.csv --instance 2000
  tminus forecast --audience 500000 --from -60s --to 30s --csv saturday.csv`,
		Args: exactArgs(0, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if e.Regions, err = regionShares(regions); err != nil {
				return usage(err)
			}
			if start != "" {
				if e.Start, err = time.Parse(time.RFC3339, start); err != nil {
					return usage(fmt.Errorf("--start %q, want a time such as 2026-11-21T20:00:00-05:00", start))
				}
			}
			if e.Past, err = readTable(past, forecast.ReadPast); err != nil {
				return err
			}
			if e.Marketing, err = readTable(marketing, forecast.ReadMarketing); err != nil {
				return err
			}
			p, err := forecast.Predict(e)
			if err != nil {
				return usage(err)
			}
			first, last := worthSeeing(p)
			if !cmd.Flags().Changed("from") {
				from = first
			}
			if !cmd.Flags().Changed("to") {
				to = last
			}
			if to <= from || to-from > 24*time.Hour {
				return usage(fmt.Errorf("--from %s --to %s: want a stretch of time of 24 h at the most", from, to))
			}
			if csv != "" {
				if err := writeCurve(csv, p.Points(from, to)); err != nil {
					return usage(err)
				}
			}
			if asJSON {
				return printJSON(cmd, forecastJSON(p, from, to))
			}
			return printForecast(cmd.OutOrStdout(), e, p, from, to)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&e.Kind, "kind", forecast.DefaultKind, "kind of event: "+strings.Join(forecast.Kinds(), ", "))
	fl.Float64Var(&e.Audience, "audience", 0, "expected play starts in all; without it, learnt from --past")
	fl.StringVar(&start, "start", "", "when it starts, in the audience's time zone, such as 2026-11-21T20:00:00-05:00")
	fl.StringVar(&past, "past", "", "CSV file of past events")
	fl.StringVar(&marketing, "marketing", "", "CSV file of the interest shown so far")
	fl.StringSliceVar(&regions, "regions", nil, "regions and their shares of the audience, such as us-east=54,us-west=46")
	fl.Float64Var(&e.Headroom, "headroom", 0.25, "capacity above the P90 of the peak, as a share of it")
	fl.Float64Var(&e.InstanceRate, "instance", 0, "play starts a second that one instance carries; 0: instances are not counted")
	fl.DurationVar(&from, "from", 0, "first moment of the curve, from the start, such as -60s; without it, when one in thirty of the peak's rate comes")
	fl.DurationVar(&to, "to", 0, "last moment of the curve; without it, when only that many come still")
	fl.StringVar(&csv, "csv", "", "write the curve's P50 to this file, for a scenario's leg of curve csv")
	fl.BoolVar(&asJSON, "json", false, "print the forecast as JSON")
	return cmd
}

// worthSeeing is the stretch over which the rate is a thirtieth of its peak or more.
func worthSeeing(p *forecast.Prediction) (from, to time.Duration) {
	from = p.PeakAt
	for _, m := range p.Curve {
		if m.Rate.P50 >= p.Peak.P50/30 {
			from, to = min(from, m.At), m.At
		}
	}
	return from, to
}

// readTable reads a CSV file with a reader of package forecast; mistakes are the caller's.
func readTable[T any](path string, read func(string, io.Reader) ([]T, error)) ([]T, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage(fmt.Errorf("there is no file %s", path))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := read(path, f)
	if err != nil {
		return nil, usage(err)
	}
	return rows, nil
}

// regionShares reads us-east=54; without shares all regions are alike.
func regionShares(args []string) ([]audience.Region, error) {
	var out []audience.Region
	for _, a := range args {
		name, text, given := strings.Cut(strings.TrimSpace(a), "=")
		r := audience.Region{Name: name, Share: 1}
		if given {
			v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
			if err != nil {
				return nil, fmt.Errorf("--regions: %q, want a region and its share such as us-east=54", a)
			}
			r.Share = v
		}
		if name == "" || len(out) > 0 && given != (strings.Contains(args[0], "=")) {
			return nil, errors.New("--regions: give every region a name, and a share to all of them or to none")
		}
		out = append(out, r)
	}
	return out, nil
}

func writeCurve(path string, points []audience.Point) error {
	var b strings.Builder
	b.WriteString("seconds,rate\n")
	for _, p := range points {
		fmt.Fprintf(&b, "%s,%.2f\n", strconv.FormatFloat(p.At.Seconds(), 'f', -1, 64), p.Rate)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

type bandJSON struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

func band(b forecast.Band) bandJSON {
	return bandJSON{math.Round(b.P50*100) / 100, math.Round(b.P90*100) / 100}
}

type needJSON struct {
	Region    string   `json:"region"`
	Share     float64  `json:"share"`
	Peak      bandJSON `json:"peak_starts_per_s"`
	Capacity  float64  `json:"capacity_per_s"`
	Instances int      `json:"instances,omitempty"`
}

type momentJSON struct {
	At  float64 `json:"at_s"`
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
}

type predictionJSON struct {
	Kind    string       `json:"kind"`
	Total   bandJSON     `json:"total_starts"`
	Peak    bandJSON     `json:"peak_starts_per_s"`
	PeakAt  float64      `json:"peak_at_s"`
	Scale   bandJSON     `json:"scale"`
	Sigma   float64      `json:"sigma"`
	Learnt  int          `json:"learnt_from_events"`
	Regions []needJSON   `json:"regions"`
	Curve   []momentJSON `json:"curve"`
}

func forecastJSON(p *forecast.Prediction, from, to time.Duration) predictionJSON {
	out := predictionJSON{Kind: p.Kind, Total: band(p.Total), Peak: band(p.Peak), PeakAt: p.PeakAt.Seconds(), Scale: band(p.Scale),
		Sigma: math.Round(p.Sigma*1e4) / 1e4, Learnt: p.Learnt}
	for _, r := range p.Regions {
		out.Regions = append(out.Regions, needJSON{r.Region, r.Share, band(r.Peak), math.Ceil(r.Capacity), r.Instances})
	}
	for _, m := range p.Curve {
		if m.At >= from && m.At <= to {
			b := band(m.Rate)
			out.Curve = append(out.Curve, momentJSON{m.At.Seconds(), b.P50, b.P90})
		}
	}
	return out
}

// otherKinds says how many past events are of another kind than the one that is forecast: they count for less.
func otherKinds(kind string, past []forecast.Past) string {
	others := 0
	for _, p := range past {
		if p.Kind != kind {
			others++
		}
	}
	if others == 0 {
		return ""
	}
	return fmt.Sprintf("; %d of the %d in the file are of another kind than %s, and count for less", others, len(past), kind)
}

func printForecast(w io.Writer, e forecast.Event, p *forecast.Prediction, from, to time.Duration) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s play starts (P90 %s), peak %s a second (P90 %s) at %s\n", p.Kind, people(p.Total.P50), people(p.Total.P90),
		people(p.Peak.P50), people(p.Peak.P90), clock(p.PeakAt))
	if !e.Start.IsZero() {
		fmt.Fprintf(&b, "starts %s\n", e.Start.Format("Monday 2 January 2006, 15:04 MST"))
	}
	if p.Learnt > 0 {
		events := "past events"
		if p.Learnt == 1 {
			events = "past event"
		}
		fmt.Fprintf(&b, "learnt from %d %s%s\n", p.Learnt, events, otherKinds(p.Kind, e.Past))
	}
	rates := make([]float64, forecastBins)
	for i := range rates {
		a := from + (to-from)*time.Duration(i)/forecastBins
		z := from + (to-from)*time.Duration(i+1)/forecastBins
		for _, t := range []time.Duration{a, (a + z) / 2, z} {
			rates[i] = max(rates[i], p.Rate(t).P50)
		}
		if a <= p.PeakAt && p.PeakAt < z {
			rates[i] = p.Peak.P50
		}
	}
	left, right := clock(from), clock(to)
	fmt.Fprintf(&b, "\n%s\n%s%*s\n\n", sparkline(rates), left, forecastBins-len(left), right)
	fmt.Fprintf(&b, "%-16s %7s %12s %12s %14s %10s\n", "region", "share", "peak P50 /s", "peak P90 /s", "capacity /s", "instances")
	for _, r := range p.Regions {
		name, instances := r.Region, "-"
		if name == "" {
			name = "all"
		}
		if r.Instances > 0 {
			instances = strconv.Itoa(r.Instances)
		}
		fmt.Fprintf(&b, "%-16s %6.1f%% %12.0f %12.0f %14.0f %10s\n", name, 100*r.Share, r.Peak.P50, r.Peak.P90, math.Ceil(r.Capacity), instances)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// sparkline draws values as one line of blocks, the highest a full one.
func sparkline(values []float64) string {
	blocks := []rune(" ▁▂▃▄▅▆▇█")
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if v > 0 {
			i = min(1+int(v/top*float64(len(blocks)-1)), len(blocks)-1)
		}
		b.WriteRune(blocks[i])
	}
	return b.String()
}

// people is a number of viewers in a form to be read.
func people(n float64) string {
	switch {
	case n >= 1e6:
		return strconv.FormatFloat(math.Round(n/1e4)/100, 'f', -1, 64) + " million"
	case n >= 10_000:
		return strconv.FormatFloat(math.Round(n/100)/10, 'f', -1, 64) + " thousand"
	}
	return strconv.FormatFloat(math.Round(n), 'f', -1, 64)
}

// clock is a time from the event's start: T-45:00, T+0:10.
func clock(t time.Duration) string {
	sign := "+"
	if t < 0 {
		sign, t = "-", -t
	}
	t = t.Round(time.Second)
	h, m, s := int(t.Hours()), int(t.Minutes())%60, int(t.Seconds())%60
	if h > 0 {
		return fmt.Sprintf("T%s%d:%02d:%02d", sign, h, m, s)
	}
	return fmt.Sprintf("T%s%d:%02d", sign, m, s)
}
