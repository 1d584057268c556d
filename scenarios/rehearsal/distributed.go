package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/event"
	"github.com/tminus-live/tminus/telemetry/ingest"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// Distributed is a run that nobody conducts: pods of the k6 extension send it, each with a share of the crowd, and write to one
// Kafka under one id. It is judged once all of them have said that they are done.
type Distributed struct {
	Scenario   *spec.Scenario // its objectives, and what faults it expects
	Run        string         // the id that all pods share
	Pods       int            // how many are to say that they are done
	Wait       time.Duration  // how long to wait for them at the most
	Since      time.Time      // the run began later; zero: whatever the topic holds
	Runs       string         // folder that holds the runs' folders
	Kafka      string         // address of the pods' broker
	ClickHouse string         // address of a ClickHouse server; "": the embedded engine
	Tell       func(string)   // hears in a sentence how it goes; nil: nobody
	Log        *slog.Logger
}

// runID is what an id may be: it names a folder.
var runID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Validate says everything that is wrong, or nil.
func (d Distributed) Validate() error {
	var errs []error
	if !runID.MatchString(d.Run) {
		errs = append(errs, fmt.Errorf("run %q: want 1 to 100 letters, digits, dots, dashes and underscores", d.Run))
	}
	if d.Kafka == "" {
		errs = append(errs, errors.New("no Kafka: the events of a distributed run are in the one that its pods wrote to"))
	}
	if d.Pods < 1 {
		errs = append(errs, fmt.Errorf("%d pods: want 1 or more", d.Pods))
	}
	if d.Wait < 0 {
		errs = append(errs, fmt.Errorf("a wait of %v", d.Wait))
	}
	return errors.Join(errs...)
}

const (
	countEvery = time.Second
	// settle is how long all events of the pods may take to be stored once every pod has said that it is done, as long
	// as they get on.
	settle = time.Minute
	// askLimit bounds one look at how far the pods are.
	askLimit = time.Minute
	// storeLimit bounds the questions to the store after the wait.
	storeLimit = 10 * time.Minute
)

// Judge stores the run's events as they come, waits until every pod is done or the time is up, and judges by what is there:
// the report is in the run's folder. A pod that never said that it was done makes the verdict inconclusive. An error says why
// there is no report. It may be called again for the same run.
func (d Distributed) Judge(ctx context.Context) (rep *report.Report, err error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	tell := d.Tell
	if tell == nil {
		tell = func(string) {}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if x := d.Scenario.Experiment; x != nil && len(x.Stop) > 0 {
		tell("nobody watched the stop conditions: pods break things by themselves, and are judged afterwards")
	}
	d.Scenario = judged(d.Scenario)
	r := &Rehearsal{pods: d.Pods, cfg: Config{Scenario: d.Scenario, Runs: d.Runs, Kafka: d.Kafka, ClickHouse: d.ClickHouse, Log: d.Log}, id: d.Run, log: d.Log,
		folder: filepath.Join(d.Runs, d.Run)}
	r.state.init(d.Scenario, r.id)
	_, missing := os.Stat(r.folder)
	if err := makeFolder(r.folder, minFree); err != nil {
		return nil, err
	}
	defer func() {
		if errors.Is(missing, fs.ErrNotExist) && errors.Is(err, errNoEvents) {
			err = errors.Join(err, os.RemoveAll(r.folder)) // it holds an empty store, of a run that is none
		} else {
			_ = os.Remove(r.folder) // when it is empty
		}
	}()
	t := &telemetryPath{log: d.Log, broker: d.Kafka, drained: true} // it emits nothing itself
	defer func() {
		if e := t.undo.run(); e != nil {
			err = errors.Join(err, e)
		}
	}()
	r.telemetry = t
	if err := t.openStore(ctx, d.ClickHouse, r.folder, nil); err != nil {
		return nil, err
	}
	if err := t.follow(ctx, d.Kafka, ingest.Config{Run: d.Run, Since: d.Since}); err != nil {
		return nil, err
	}

	waiting, cancel := context.WithTimeout(ctx, d.Wait)
	pods, why, err := d.gather(waiting, tally{
		ends:    func(ctx context.Context) (uint64, error) { return ends(ctx, t.db, d.Run) },
		sources: func(ctx context.Context) ([]pod, error) { return sources(ctx, t.db, d.Run) },
		stored:  t.ingest.Stored,
		died:    t.died(),
		why:     func() error { return t.process.Err() },
	}, tell)
	cancel()
	if err != nil {
		return nil, err
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLimit)
	defer cancel()
	out, err := d.outcome(after, t.db, r)
	if err != nil {
		return nil, err
	}
	l := ledger{duplicated: t.ingest.Stats().Duplicates, notes: why}
	for _, p := range pods {
		l.emitted += p.emitted
		l.dropped += p.dropped
		l.stored += p.stored
		if p.failed != "" && out.interrupted == "" {
			out.interrupted = fmt.Sprintf("of %s, %s", p.source, p.failed)
		}
	}
	if n := t.ingest.Stats().Malformed; n > 0 {
		l.notes = append(l.notes, fmt.Sprintf("%d lines in Kafka were no events of the run", n))
	}
	tell("judging by what is stored")
	aside, err := setAside(r.folder)
	if err != nil {
		return nil, err
	}
	if aside != "" {
		tell("this run was judged before: that report is in " + aside + " now")
	}
	return r.judge(after, out, l)
}

// maxJudgements bounds how often a run is judged.
const maxJudgements = 1000

// setAside moves the report of an earlier judgement of a run into a folder of its own and returns its name; "": there is none.
func setAside(folder string) (string, error) {
	if _, err := os.Stat(filepath.Join(folder, report.JSONFile)); err != nil {
		return "", nil // there is none, or it cannot be read and is written over
	}
	for n := 1; n < maxJudgements; n++ {
		to := filepath.Join(folder, fmt.Sprintf("earlier-%d", n))
		if err := os.Mkdir(to, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", fmt.Errorf("the earlier report has no place: %w", err)
		}
		for _, name := range report.Files() {
			if err := os.Rename(filepath.Join(folder, name), filepath.Join(to, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("the earlier report: %w", err)
			}
		}
		return to, nil
	}
	return "", fmt.Errorf("%s has been judged %d times: remove some of its folders", folder, maxJudgements)
}

// errNoEvents says that nothing is known of a run.
var errNoEvents = errors.New("no event of run")

// maxLoaded is how many of the addresses that pods loaded a report names.
const maxLoaded = 4

// loaded names what the pods of a run sent their play starts to.
func loaded(ctx context.Context, db *clickhouse.DB, run string) (string, error) {
	var all []string
	err := db.QueryRow(ctx, "SELECT arraySort(groupUniqArray(100)(edge)) FROM events WHERE run = {run:String} AND kind = 'play_start' AND edge != ''", clickhouse.Named("run", run)).Scan(&all)
	if err != nil {
		return "", fmt.Errorf("what run %s loaded: %w", run, err)
	}
	more := ""
	if n := len(all) - maxLoaded; n > 0 {
		all, more = all[:maxLoaded], fmt.Sprintf(" and %d more", n)
	}
	return cmp.Or(strings.Join(all, ", ")+more, "unknown: no play start was answered"), nil
}

// judged is a scenario as far as it tells of a run that pods sent: they interrupt nobody, are held to no forecast, and set up no
// playback service, so that a report must not say so.
func judged(sc *spec.Scenario) *spec.Scenario {
	own := *sc
	own.Audience.Interruptions, own.Audience.Forecast, own.Playback = nil, nil, spec.Playback{}
	if own.Experiment != nil { // nobody watched: what is told of it is what was stored
		seen := *own.Experiment
		seen.Stop = nil
		own.Experiment = &seen
	}
	return &own
}

// pod is one source of the run, as the store knows it.
type pod struct {
	source                   string
	emitted, stored, dropped uint64
	ended                    bool
	failed                   string // why its load ended early
}

// tally is how far a run is, as the store knows it.
type tally struct {
	ends    func(context.Context) (uint64, error) // sources that have said that they are done
	sources func(context.Context) ([]pod, error)
	stored  func() uint64   // events, by this process
	died    <-chan struct{} // closed when the store is gone; nil: it is not ours
	why     func() error    // of its end
}

// gather waits for the pods until ctx ends, which ends a question that is under way too; then it looks once more. It returns the
// pods, and what is not as it should be.
func (d Distributed) gather(ctx context.Context, p tally, tell func(string)) (pods []pod, problems []string, err error) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	var said, failed string
	var last uint64
	var grew time.Time // the last time that anything was stored while everybody was done
	for {
		over := ctx.Err() != nil
		patience := ctx
		if over {
			patience = context.WithoutCancel(ctx) // the last look
		}
		ask, cancel := context.WithTimeout(patience, askLimit)
		ended, asked := p.ends(ask)
		if asked == nil && (over || ended >= uint64(d.Pods)) {
			pods, asked = p.sources(ask)
		}
		cancel()
		select {
		case <-p.died:
			return nil, nil, fmt.Errorf("there is nothing to judge by: %w", p.why())
		default:
		}
		switch {
		case asked == nil:
			failed = ""
		case !over && ctx.Err() == nil && asked.Error() != failed: // once for each reason, not once a second
			failed = asked.Error()
			d.Log.Warn("the store does not say how far the pods are; asking again", "error", asked)
		}
		stored := p.stored()
		if asked == nil && ended >= uint64(d.Pods) {
			if whole(pods) {
				tell(howFar(ended, d.Pods, stored))
				return pods, nil, nil
			}
			if stored != last || grew.IsZero() {
				last, grew = stored, time.Now()
			}
			over = over || time.Since(grew) > settle
		}
		if over {
			if asked != nil {
				return nil, nil, asked
			}
			if stored == 0 && len(pods) == 0 {
				return nil, nil, fmt.Errorf("%w %s came from Kafka at %s", errNoEvents, d.Run, d.Kafka)
			}
			if ended < uint64(d.Pods) {
				problems = append(problems, fmt.Sprintf("%d of %d pods said that they were done", ended, d.Pods))
			}
			for _, one := range pods {
				if !one.ended {
					problems = append(problems, one.source+" did not say that it was done: what it sent after its last event is unknown")
				}
			}
			return pods, problems, nil
		}
		if s := howFar(ended, d.Pods, stored); asked == nil && s != said {
			said = s
			tell(s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// howFar is how far the pods are.
func howFar(ended uint64, pods int, stored uint64) string {
	return fmt.Sprintf("%d of %d pods are done, %d events are stored", ended, pods, stored)
}

// whole reports whether everything that every pod emitted is stored.
func whole(pods []pod) bool {
	for _, p := range pods {
		if !p.ended || p.stored < p.emitted {
			return false
		}
	}
	return true
}

// ends is how many sources have said that they are done.
func ends(ctx context.Context, db *clickhouse.DB, run string) (n uint64, err error) {
	err = db.QueryRow(ctx, "SELECT uniqExact(source) FROM events WHERE run = {run:String} AND kind = 'source_end'", clickhouse.Named("run", run)).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("which pods of run %s are done: %w", run, err)
	}
	return n, nil
}

// sources lists the run's sources by name.
func sources(ctx context.Context, db *clickhouse.DB, run string) (pods []pod, err error) {
	rows, err := db.Query(ctx, `SELECT source, max(seq), count(), countIf(kind = 'source_end') > 0,
			toUInt64(maxIf(nums['dropped'], kind = 'source_end')), anyIf(detail, kind = 'source_end' AND status != 'ok')
		FROM events WHERE run = {run:String} GROUP BY source ORDER BY source`, clickhouse.Named("run", run))
	if err != nil {
		return nil, fmt.Errorf("the pods of run %s: %w", run, err)
	}
	defer rows.Close()
	for rows.Next() {
		var p pod
		var ended uint8
		if err := rows.Scan(&p.source, &p.emitted, &p.stored, &ended, &p.dropped, &p.failed); err != nil {
			return nil, fmt.Errorf("the pods of run %s: %w", run, err)
		}
		p.ended = ended > 0
		pods = append(pods, p)
	}
	return pods, rows.Err()
}

// outcome is what the run's events tell of its course; it sets T-0.
func (d Distributed) outcome(ctx context.Context, db *clickhouse.DB, r *Rehearsal) (out outcome, err error) {
	var phases, all uint64
	var air, first, last time.Time
	err = db.QueryRow(ctx, `SELECT countIf(kind = 'phase' AND detail = 'on air'), minIf(at, kind = 'phase' AND detail = 'on air'), min(at),
			maxIf(at, kind != 'source_end'), count() FROM events WHERE run = {run:String}`, clickhouse.Named("run", d.Run)).
		Scan(&phases, &air, &first, &last, &all)
	if err != nil {
		return out, fmt.Errorf("the course of run %s: %w", d.Run, err)
	}
	r.zero = first
	if phases > 0 {
		r.zero = air
	}
	out.ran = min(max(0, last.Sub(r.zero)), qoe.MaxSeconds*time.Second)
	out.faults, err = faultsSeen(ctx, db, d, r.zero)
	return out, err
}

// faultsSeen puts the run's faults together from what was said of them. A fault of the scenario that nobody injected is there
// too: nothing proves it.
func faultsSeen(ctx context.Context, db *clickhouse.DB, d Distributed, zero time.Time) ([]chaos.Result, error) {
	const unit = "% of probes"
	var order []string
	seen := map[string]*chaos.Result{}
	err := qoe.Events(ctx, db, d.Run, []event.Kind{event.Fault}, 0, func(e event.Event) error {
		f := seen[e.Fault]
		if f == nil {
			// The extension's ids say what a fault is: fail/model/where@time.
			id, _, _ := strings.Cut(e.Fault, "@")
			fail, rest, _ := strings.Cut(id, "/")
			model, _, _ := strings.Cut(rest, "/")
			f = &chaos.Result{Fault: chaos.Fault{ID: e.Fault, Fail: fail, Model: model, Where: e.Region}, Restored: true,
				Evidence: chaos.Evidence{Status: chaos.Inconclusive, Unit: unit, Detail: "the run ended before anything was proven"}}
			seen[e.Fault] = f
			order = append(order, e.Fault)
		}
		at := e.At.Sub(zero).Seconds()
		switch e.Status {
		case "injecting":
			f.AtS = at
		case "injected":
			f.AtS, f.Restored = at, false
		case "restored":
			f.ForS, f.Restored = at-f.AtS, true
		case chaos.Confirmed, chaos.Mismatch, chaos.Inconclusive:
			f.Evidence.Status, f.Evidence.Detail = e.Status, e.Detail
			if len(e.Nums) > 0 {
				f.Evidence.Expected, f.Evidence.Measured = e.Nums["expected"], e.Nums["measured"]
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []chaos.Result
	for _, id := range order {
		out = append(out, *seen[id])
	}
	for _, f := range d.Scenario.Faults {
		done := false
		for _, s := range out {
			done = done || s.Fault.Fail == f.Fail && s.Fault.Where == f.Where
		}
		if !done {
			out = append(out, chaos.Result{Fault: f, AtS: f.At.Seconds(), Restored: true,
				Evidence: chaos.Evidence{Status: chaos.Inconclusive, Unit: unit, Detail: "no pod injected it"}})
		}
	}
	return out, nil
}
