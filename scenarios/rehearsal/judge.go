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
	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// judge fills in the report from what was stored, decides, and writes the run's folder.
func (r *Rehearsal) judge(ctx context.Context, out outcome, l ledger) (_ *report.Report, err error) {
	sc := r.cfg.Scenario
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
		if rep.Target, err = loaded(ctx, r.telemetry.db, r.id); err != nil {
			return nil, err
		}
	}
	for _, region := range r.pipeline.Regions {
		rep.Topology = append(rep.Topology, report.Region{Name: region.Name, Edges: region.Edges})
	}
	for _, f := range out.faults {
		rep.Faults = append(rep.Faults, faultReport(f, out))
	}
	if rep.Load, err = r.load(ctx, out.starts); err != nil {
		return nil, err
	}
	if rep.Players, err = r.players(ctx); err != nil {
		return nil, err
	}
	if err := r.bySecond(ctx, rep, out); err != nil {
		return nil, err
	}
	if rep.Processes, err = r.processes(ctx, out); err != nil {
		return nil, err
	}
	if rep.Telemetry, err = r.delivery(ctx, &l); err != nil {
		return nil, err
	}
	if rep.Objectives, err = r.objectives(ctx, out, l); err != nil {
		return nil, err
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
		_, rep.Telemetry.LeftOut, err = qoe.ExportSample(ctx, r.telemetry.db, r.id, qoe.DefaultSample, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rep, nil
}

// load is how the crowd was sent and what became of its play starts; told is what the process that sent the open-loop crowd
// said of it.
func (r *Rehearsal) load(ctx context.Context, told starts.Snapshot) (rep report.Load, err error) {
	db := r.telemetry.db
	load, err := qoe.LoadOf(ctx, db, r.id)
	if err != nil {
		return rep, err
	}
	rep = report.Load{
		PlayStarts: report.PlayStarts{Intended: load.Intended, Sent: load.Sent, OK: load.OK, Shed: load.Shed, Failed: load.Failed, Dropped: load.Dropped},
		LatencyMS:  report.Quantiles(load.LatencyMS),
		SendLagMS:  report.Quantiles(load.SendLagMS),
		Attempts:   told.Attempts,
		Left:       told.Left,
		Failures:   failures(told.Failures),

		FirstFailure: told.FirstFailure,
	}
	if told.Sent > 0 {
		done, own := report.Quantiles(told.FromSent), report.Quantiles(told.OwnLag)
		rep.SentToDoneMS, rep.OwnLagMS = &done, &own
	}
	sending, err := qoe.SendingOf(ctx, db, r.id)
	if err != nil || sending.Sent == 0 {
		return rep, err
	}
	rep.Late, rep.LatePercent = sending.Late, 100*float64(sending.Late)/float64(sending.Sent)
	onTime, err := qoe.Measure(ctx, db, r.id, qoe.Query{Metric: "play_starts_on_time", Aggregate: qoe.Rate})
	rep.InTimePercent = onTime.Value
	return rep, err
}

// players is what the full players lived through, all of them together.
func (r *Rehearsal) players(ctx context.Context) (report.Players, error) {
	p, err := qoe.PlayersOf(ctx, r.telemetry.db, r.id)
	return report.Players{
		Sessions: p.Sessions, StartFailures: p.StartFailures,
		StartupP50S: p.StartupP50S, StartupP95S: p.StartupP95S,
		PlayingS: p.PlayingS, RebufferS: p.RebufferS, Rebuffers: p.Rebuffers, LongestStallS: p.LongestStallS,
		EdgeSwitches: p.EdgeSwitches, SkippedS: p.SkippedS, LiveLatencyP95: p.LiveLatencyP95,
	}, err
}

// bySecond fills in what is told second by second: the timeline, and from the crowd's seconds its storms and the forecast.
func (r *Rehearsal) bySecond(ctx context.Context, rep *report.Report, out outcome) error {
	db, n := r.telemetry.db, int(math.Ceil(out.ran.Seconds()))
	seconds, err := qoe.Timeline(ctx, db, r.id, r.zero, n)
	if err != nil {
		return err
	}
	crowd, err := qoe.LoadSeconds(ctx, db, r.id, r.zero, n)
	if err != nil {
		return err
	}
	for i, s := range seconds {
		rep.Timeline = append(rep.Timeline, report.Second{
			T: s.T, PlayStarts: s.PlayStarts, PlayFailures: s.PlayFailures, Sessions: s.Sessions, RebufferRatio: s.RebufferRatio,
			LiveLatencyS: s.LiveLatencyS, LiveLatencyP95S: s.LiveLatencyP95S, BitrateKbps: s.BitrateKbps,
			Scheduled: crowd[i].Scheduled, Requests: crowd[i].Requests, Shed: min(crowd[i].Shed, s.PlayFailures), Capacity: r.capacityAt(out, i),
		})
	}
	if r.nowcast != nil {
		came := make([]float64, len(crowd))
		for i, s := range crowd {
			came[i] = s.Scheduled
		}
		rep.Forecast = r.nowcast.report(came)
	}
	rep.Storms, err = r.storms(ctx, db, out.ran, crowd, out.starts.CutOff)
	return err
}

// processes is what each process of the run took of its machine.
func (r *Rehearsal) processes(ctx context.Context, out outcome) (reps []report.Process, err error) {
	list, err := qoe.Processes(ctx, r.telemetry.db, r.id, r.zero, r.zero.Add(out.ran))
	if err != nil {
		return nil, err
	}
	incarnations := map[string]int{}
	for _, id := range r.ids(out) {
		incarnations[id.Name]++
	}
	for _, p := range list {
		reps = append(reps, processReport(p, max(1, incarnations[p.Name])))
	}
	return reps, nil
}

// delivery is how the events came from emitter to store; what was wrong with that is noted in the ledger.
func (r *Rehearsal) delivery(ctx context.Context, l *ledger) (report.Telemetry, error) {
	delivery, err := qoe.DeliveryOf(ctx, r.telemetry.db, r.id)
	if err != nil {
		return report.Telemetry{}, err
	}
	if delivery.Twice > 0 {
		l.notes = append(l.notes, fmt.Sprintf("%d events are stored twice", delivery.Twice))
	}
	rep := report.Telemetry{
		Emitted: l.emitted, Stored: l.stored, Duplicated: l.duplicated, LagS: delivery.LagP95S,
		Kafka: r.telemetry.broker, ClickHouse: r.telemetry.store,
		Lost: l.dropped,
	}
	if l.emitted > l.stored {
		rep.Lost += l.emitted - l.stored
	}
	return rep, nil
}

// objectives computes the objectives by SQL from what was stored.
func (r *Rehearsal) objectives(ctx context.Context, out outcome, l ledger) (reps []report.Objective, err error) {
	for _, o := range r.cfg.Scenario.Objectives {
		q := query(o, r.zero, time.Time{}, time.Time{})
		q.Ledger = qoe.Ledger{Emitted: l.emitted, Dropped: l.dropped}
		if o.From > 0 || o.To > 0 {
			q.From, q.To = r.zero.Add(o.From), r.zero.Add(out.ran)
			if o.To > 0 {
				q.To = r.zero.Add(o.To)
			}
		}
		m, err := qoe.Measure(ctx, r.telemetry.db, r.id, q)
		if err != nil {
			return nil, fmt.Errorf("objective %s %s: %w", o.Metric, o.Expression, err)
		}
		reps = append(reps, miss(o, m))
	}
	return reps, nil
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
