package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/process"
	"github.com/tminus-live/tminus/scenarios/verdict"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// judge computes the objectives by SQL from what was stored, decides, and writes the run's folder.
func (r *Rehearsal) judge(ctx context.Context, out outcome, l ledger) (_ *report.Report, err error) {
	sc := r.cfg.Scenario
	db := r.telemetry.db
	rep := &report.Report{
		Schema:    report.Schema,
		Run:       r.id,
		Scenario:  sc.Name,
		Seed:      sc.Seed,
		Started:   r.zero.UTC().Format(time.RFC3339),
		DurationS: out.ran.Seconds(),
		Target:    "reference",
	}
	if sc.Target != nil {
		rep.Target = sc.Target.URLs()[0]
	}
	if rep.Pods = r.pods; r.pods > 0 { // the scenario says nothing of whom they loaded
		if rep.Target, err = loaded(ctx, db, r.id); err != nil {
			return nil, err
		}
	}
	for _, region := range r.pipeline.Regions {
		rep.Topology = append(rep.Topology, report.Region{Name: region.Name, Edges: region.Edges})
	}
	for _, f := range out.faults {
		rep.Faults = append(rep.Faults, faultReport(f, out))
	}

	load, err := qoe.LoadOf(ctx, db, r.id)
	if err != nil {
		return nil, err
	}
	rep.Load = report.Load{
		PlayStarts: report.PlayStarts{Intended: load.Intended, Sent: load.Sent, OK: load.OK, Shed: load.Shed, Failed: load.Failed, Dropped: load.Dropped},
		LatencyMS:  report.Quantiles(load.LatencyMS),
		SendLagMS:  report.Quantiles(load.SendLagMS),
		Attempts:   out.starts.Attempts,
		Left:       out.starts.Left,
		Failures:   failures(out.starts.Failures),

		FirstFailure: out.starts.FirstFailure,
	}
	if out.starts.Sent > 0 {
		done, own := report.Quantiles(out.starts.FromSent), report.Quantiles(out.starts.OwnLag)
		rep.Load.SentToDoneMS, rep.Load.OwnLagMS = &done, &own
	}
	sending, err := qoe.SendingOf(ctx, db, r.id)
	if err != nil {
		return nil, err
	}
	if sending.Sent > 0 {
		rep.Load.Late, rep.Load.LatePercent = sending.Late, 100*float64(sending.Late)/float64(sending.Sent)
	}
	players, err := qoe.PlayersOf(ctx, db, r.id)
	if err != nil {
		return nil, err
	}
	rep.Players = report.Players{
		Sessions: players.Sessions, StartFailures: players.StartFailures,
		StartupP50S: players.StartupP50S, StartupP95S: players.StartupP95S,
		PlayingS: players.PlayingS, RebufferS: players.RebufferS, Rebuffers: players.Rebuffers, LongestStallS: players.LongestStallS,
		EdgeSwitches: players.EdgeSwitches, SkippedS: players.SkippedS, LiveLatencyP95: players.LiveLatencyP95,
	}
	n := int(math.Ceil(out.ran.Seconds()))
	seconds, err := qoe.Timeline(ctx, db, r.id, r.zero, n)
	if err != nil {
		return nil, err
	}
	crowd, err := qoe.LoadSeconds(ctx, db, r.id, r.zero, n)
	if err != nil {
		return nil, err
	}
	for i, s := range seconds {
		rep.Timeline = append(rep.Timeline, report.Second{
			T: s.T, PlayStarts: s.PlayStarts, PlayFailures: s.PlayFailures, Sessions: s.Sessions, RebufferRatio: s.RebufferRatio,
			LiveLatencyS: s.LiveLatencyS, LiveLatencyP95S: s.LiveLatencyP95S, BitrateKbps: s.BitrateKbps,
			Scheduled: crowd[i].Scheduled, Requests: crowd[i].Requests, Shed: min(crowd[i].Shed, s.PlayFailures), Capacity: r.capacityAt(out, i),
		})
	}
	if rep.Storms, err = r.storms(ctx, db, out.ran, crowd, out.starts.CutOff); err != nil {
		return nil, err
	}
	if r.nowcast != nil {
		came := make([]float64, len(crowd))
		for i, s := range crowd {
			came[i] = s.Scheduled
		}
		rep.Forecast = r.nowcast.report(came)
	}
	processes, err := qoe.Processes(ctx, db, r.id, r.zero, r.zero.Add(out.ran))
	if err != nil {
		return nil, err
	}
	incarnations := map[string]int{}
	for _, id := range r.ids(out) {
		incarnations[id.Name]++
	}
	for _, p := range processes {
		rep.Processes = append(rep.Processes, processReport(p, max(1, incarnations[p.Name])))
	}
	if sending.Sent > 0 {
		onTime, err := qoe.Measure(ctx, db, r.id, qoe.Query{Metric: "play_starts_on_time", Aggregate: qoe.Rate})
		if err != nil {
			return nil, err
		}
		rep.Load.InTimePercent = onTime.Value
	}
	delivery, err := qoe.DeliveryOf(ctx, db, r.id)
	if err != nil {
		return nil, err
	}
	if delivery.Twice > 0 {
		l.notes = append(l.notes, fmt.Sprintf("%d events are stored twice", delivery.Twice))
	}
	rep.Telemetry = report.Telemetry{
		Emitted: l.emitted, Stored: l.stored, Duplicated: l.duplicated, LagS: delivery.LagP95S,
		Kafka: r.telemetry.broker, ClickHouse: r.telemetry.store,
		Lost: l.dropped,
	}
	if l.emitted > l.stored {
		rep.Telemetry.Lost += l.emitted - l.stored
	}

	for _, o := range sc.Objectives {
		q := qoe.Query{
			Metric: o.Metric, Aggregate: o.Aggregate, Quantile: o.Quantile, Where: o.Where, Zero: r.zero,
			Ledger: qoe.Ledger{Emitted: l.emitted, Dropped: l.dropped},
		}
		if o.From > 0 || o.To > 0 {
			q.From, q.To = r.zero.Add(o.From), r.zero.Add(out.ran)
			if o.To > 0 {
				q.To = r.zero.Add(o.To)
			}
		}
		m, err := qoe.Measure(ctx, db, r.id, q)
		if err != nil {
			return nil, fmt.Errorf("objective %s %s: %w", o.Metric, o.Expression, err)
		}
		rep.Objectives = append(rep.Objectives, report.Objective{
			Metric: o.Metric, Where: o.WhereText, Expression: o.Expression,
			Measured: m.Value, Threshold: o.Threshold, Unit: m.Unit, Samples: m.Samples,
			Pass: m.Samples > 0 && verdict.Compare(m.Value, o.Op, o.Threshold),
		})
	}

	if rep.Experiment, err = r.experiment(ctx, out); err != nil {
		return nil, err
	}
	rep.Safety = append(r.safety(out, l), undone(rep.Experiment)...)
	verdict.Blame(rep)
	rep.Verdict, rep.Reasons = verdict.Decide(rep)
	if rep.Moments, err = r.story(ctx, rep, out); err != nil {
		return nil, err
	}
	err = report.Write(r.folder, rep, func(w io.Writer) (err error) {
		_, rep.Telemetry.LeftOut, err = qoe.ExportSample(ctx, db, r.id, qoe.DefaultSample, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rep, nil
}

// capacityAt is what all regions together could take in a second of the event, play starts; 0: it was not bounded.
func (r *Rehearsal) capacityAt(out outcome, second int) float64 {
	if r.nowcast == nil || r.cfg.Scenario.Playback.Instance == 0 {
		return r.cfg.Scenario.Playback.Capacity
	}
	return r.nowcast.capacityAt(time.Duration(second) * time.Second)
}

// failures lists what went wrong, the most frequent first.
func failures(by map[string]uint64) (out []report.Count) {
	for what, n := range by {
		out = append(out, report.Count{What: what, Count: n})
	}
	slices.SortFunc(out, func(a, b report.Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.What, b.What))
	})
	return out
}

// ids names every process that the run has started for its event.
func (r *Rehearsal) ids(out outcome) []process.ID {
	ids := slices.Clone(out.ids)
	for _, region := range r.regions {
		ids = append(ids, region.IDs()...)
	}
	return ids
}

func processReport(p qoe.Process, incarnated int) report.Process {
	const mb = 1e6
	out := report.Process{
		Name: p.Name, RSSAt10S: uint64(p.SettledMB * mb), RSSPeak: uint64(p.PeakMB * mb), RSSLast: uint64(p.LastMB * mb), CPUS: p.CPUS,
		Incarnated: incarnated,
	}
	if p.SettledMB > 0 {
		out.GrowthPct = 100 * (p.LastMB - p.SettledMB) / p.SettledMB
	}
	return out
}

func faultReport(f chaos.Result, out outcome) report.Fault {
	r := report.Fault{
		ID: f.Fault.ID, Fail: f.Fault.Fail, Model: f.Fault.Model, Where: f.Fault.Where, Params: f.Fault.Params, Means: f.Means,
		AtS: f.AtS, ForS: f.ForS, Evidence: report.Evidence(f.Evidence), Restored: f.Restored,
	}
	if f.ForS == 0 && out.ran < f.Fault.At {
		r.Evidence.Detail = "the event ended before it was due"
	}
	return r
}

// safety is what the rehearsal owes beside its figures: it ran whole, put everything back and left nothing running.
func (r *Rehearsal) safety(out outcome, l ledger) []report.Check {
	whole := report.Check{Name: "the event ran to its end", Pass: out.interrupted == "", Detail: fmt.Sprintf("%s on the air", out.ran.Round(time.Second))}
	if !whole.Pass {
		whole.Detail = fmt.Sprintf("the event ended after %s of %s: %s", out.ran.Round(100*time.Millisecond), r.cfg.Scenario.Event.Duration, out.interrupted)
	}
	checks := []report.Check{whole}
	for _, c := range chaos.Safety(out.faults) {
		checks = append(checks, report.Check(c))
	}

	if ids := r.ids(out); len(ids) > 0 {
		gone := report.Check{Name: "no process of the run is left", Pass: r.stopped == nil, Detail: fmt.Sprintf("%d started, all ended", len(ids))}
		if r.telemetry.process != nil { // it answers what this report asks
			gone.Detail = fmt.Sprintf("%d started, all ended but the store, which ends last", len(ids)+1)
		}
		if r.stopped != nil {
			gone.Detail = r.stopped.Error()
		}
		left, err := process.Leftovers(ids...)
		switch {
		case err != nil:
			gone.Pass, gone.Detail = false, err.Error()
		case len(left) > 0:
			gone.Pass, gone.Detail = false, fmt.Sprintf("%d are left, the first with pid %d", len(left), left[0].PID)
		}
		checks = append(checks, gone)
	}

	path := report.Check{Name: "the event path worked without a complaint", Pass: len(l.notes) == 0, Detail: fmt.Sprintf("%d events from emitter to store", l.stored)}
	if !path.Pass {
		path.Detail = strings.Join(l.notes, "; ")
	}
	return append(checks, path)
}

// forget removes what the run's folder need not keep once everything is in the store.
func (r *Rehearsal) forget() error {
	return errors.Join(os.RemoveAll(filepath.Join(r.folder, "kafka")), os.RemoveAll(filepath.Join(r.folder, "spool")))
}
