package k6

import (
	"context"
	"sync"
	"time"

	"go.k6.io/k6/lib"
	"go.k6.io/k6/metrics"

	"github.com/tminus-live/tminus/simulator/wire/starts"
	"github.com/tminus-live/tminus/telemetry/event"
)

const (
	flushEvery = 100 * time.Millisecond
	maxPending = 1 << 18     // samples that wait for k6
	pushWait   = time.Second // how long k6 may take to accept them, once a call is over
)

// record is what this process has seen of its viewers: samples on their way to k6, and totals for qoe.
type record struct {
	mu           sync.Mutex
	startsEvery  uint32 // one in so many play starts becomes a sample; it only grows
	viewingEvery uint32 // and so many of what players say every second
	pending      []metrics.Sample
	lost         uint64 // samples that found no room
	counts       map[metrics.TimeSeries]float64
	trends       map[metrics.TimeSeries]*thin
	rates        map[metrics.TimeSeries]*thinRate
	totals       totals
}

// totals are the process's, whatever call and tags.
type totals struct {
	starts           starts.Snapshot
	asked, notBegun  uint64 // play starts that ended, and those of them without video
	startTime        histogram
	startup, latency histogram
	bitrate          histogram
	sessions         uint64 // players that ended after a first frame
	failed           uint64 // of them, in an error
	rebuffers        uint64
	playing, stalled float64 // ms
}

func newRecord() *record {
	return &record{startsEvery: 1, viewingEvery: 1, counts: map[metrics.TimeSeries]float64{},
		trends: map[metrics.TimeSeries]*thin{}, rates: map[metrics.TimeSeries]*thinRate{}}
}

// expect says how many values a call will bring.
func (r *record) expect(playStarts, views uint64) {
	r.mu.Lock()
	r.startsEvery = max(r.startsEvery, everyFor(playStarts))
	r.viewingEvery = max(r.viewingEvery, everyFor(views))
	r.mu.Unlock()
}

// Held by whoever has locked r.mu.

func (r *record) count(m *metrics.Metric, tags *metrics.TagSet, n float64) {
	r.counts[metrics.TimeSeries{Metric: m, Tags: tags}] += n
}

func (r *record) trend(m *metrics.Metric, tags *metrics.TagSet) *thin {
	key := metrics.TimeSeries{Metric: m, Tags: tags}
	t := r.trends[key]
	if t == nil {
		t = new(thin)
		r.trends[key] = t
	}
	return t
}

func (r *record) rate(m *metrics.Metric, tags *metrics.TagSet) *thinRate {
	key := metrics.TimeSeries{Metric: m, Tags: tags}
	t := r.rates[key]
	if t == nil {
		t = new(thinRate)
		r.rates[key] = t
	}
	return t
}

func (r *record) sample(m *metrics.Metric, tags *metrics.TagSet, at time.Time, v float64) {
	if len(r.pending) >= maxPending {
		r.lost++
		return
	}
	r.pending = append(r.pending, metrics.Sample{TimeSeries: metrics.TimeSeries{Metric: m, Tags: tags}, Time: at, Value: v})
}

func (r *record) value(m *metrics.Metric, tags *metrics.TagSet, t *thin, every uint32, at time.Time, v float64) {
	if t.pass(v, every) {
		r.sample(m, tags, at, v)
	}
}

func (r *record) failure(m *metrics.Metric, tags *metrics.TagSet, t *thinRate, every uint32, at time.Time, bad bool) {
	if t.pass(bad, every) {
		v := 0.0
		if bad {
			v = 1
		}
		r.sample(m, tags, at, v)
	}
}

// drain takes what k6 is to have; at the end of a call with every trend's extremes.
func (r *record) drain(now time.Time, last bool) metrics.Samples {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last {
		for key, t := range r.trends {
			for _, v := range t.extremes() {
				r.sample(key.Metric, key.Tags, now, v)
			}
		}
	}
	out := r.pending
	r.pending = nil
	for key, n := range r.counts {
		out = append(out, metrics.Sample{TimeSeries: key, Time: now, Value: n})
	}
	clear(r.counts)
	return out
}

// during hands samples to k6 until work is done, and then the rest. When ctx ends, work is to return soon.
func (r *record) during(ctx context.Context, state *lib.State, work func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var held metrics.Samples
	for {
		// A slow k6 must not keep the call from ending: what it does not take waits, bounded.
		var to chan<- metrics.SampleContainer
		if len(held) > 0 {
			to = state.Samples
		}
		select {
		case now := <-tick.C:
			if len(held) == 0 {
				held = r.drain(now, false)
			}
		case to <- held:
			held = nil
		case err := <-done:
			// Also when ctx has ended: k6 reads on until every VU has returned.
			wait := time.NewTimer(pushWait)
			defer wait.Stop()
			for _, s := range []metrics.Samples{held, r.drain(time.Now(), true)} {
				if len(s) == 0 {
					continue
				}
				select {
				case state.Samples <- s:
				case <-wait.C:
					r.mu.Lock()
					r.lost += uint64(len(s))
					r.mu.Unlock()
				}
			}
			if lost := r.takeLost(); lost > 0 {
				state.Logger.Warnf("tminus: k6 was too slow for %d samples: its metrics are short of them", lost)
			}
			return err
		}
	}
}

func (r *record) takeLost() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.lost
	r.lost = 0
	return n
}

// startsSink turns the events of one call's play starts into figures, and passes them on.
type startsSink struct {
	next    event.Sink
	r       *record
	m       *metricSet
	base    *metrics.TagSet
	regions map[string]*startsOf // guarded by r.mu

	sent, ok, lag histogram // guarded by r.mu; ms: intended → done of all sent, of those that are ok; intended → sent
}

// startsOf are one region's series, so that a start costs no look-ups but its region's.
type startsOf struct {
	tags           *metrics.TagSet
	byStatus       map[string]*metrics.TagSet
	startTime, lag *thin
	failures       *thinRate
}

func newStartsSink(r *record, m *metricSet, base *metrics.TagSet, next event.Sink) *startsSink {
	return &startsSink{next: next, r: r, m: m, base: base, regions: map[string]*startsOf{}}
}

func (s *startsSink) of(region string) *startsOf {
	if o := s.regions[region]; o != nil {
		return o
	}
	region = string(append([]byte(nil), region...)) // an event's strings are its own only while it is emitted
	tags := s.base.With("region", region)
	o := &startsOf{tags: tags, byStatus: map[string]*metrics.TagSet{},
		startTime: s.r.trend(s.m.startTime, tags), lag: s.r.trend(s.m.sendLag, tags), failures: s.r.rate(s.m.startFailures, tags)}
	for _, status := range []string{starts.OK, starts.Shed, starts.Failed, starts.Dropped} {
		o.byStatus[status] = tags.With("status", status)
	}
	s.regions[region] = o
	return o
}

// Emit takes one event; it is called from the generator's loops.
func (s *startsSink) Emit(e event.Event) {
	if e.Kind == event.PlayStart {
		s.note(&e)
	}
	s.next.Emit(e)
}

func (s *startsSink) note(e *event.Event) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	o := s.of(e.Region)
	tags := o.byStatus[e.Status]
	if tags == nil {
		tags = o.tags
	}
	r.count(s.m.starts, tags, 1)
	r.totals.asked++
	if e.Status == starts.Dropped {
		r.count(s.m.dropped, o.tags, 1)
	} else {
		s.sent.add(e.Value)
		s.lag.add(e.LagMS)
		r.value(s.m.sendLag, o.tags, o.lag, r.startsEvery, e.At, e.LagMS)
	}
	bad := e.Status != starts.OK
	if bad {
		r.totals.notBegun++
	} else {
		s.ok.add(e.Value)
		r.totals.startTime.add(e.Value)
		r.value(s.m.startTime, o.tags, o.startTime, r.startsEvery, e.At, e.Value)
	}
	r.failure(s.m.startFailures, o.tags, o.failures, r.startsEvery, e.At, bad)
}

// viewersSink turns the events of one call's players into figures, and passes them on.
type viewersSink struct {
	next event.Sink
	r    *record
	m    *metricSet
	base *metrics.TagSet

	begun   map[string]bool // guarded by r.mu: sessions with a playback service's yes, until their first frame or its failure
	shown   map[string]bool // guarded by r.mu: sessions that had a first frame
	call    totals          // guarded by r.mu: this call's
	tagsets map[[2]string]*metrics.TagSet
}

func newViewersSink(r *record, m *metricSet, base *metrics.TagSet, next event.Sink) *viewersSink {
	return &viewersSink{next: next, r: r, m: m, base: base, begun: map[string]bool{}, shown: map[string]bool{}, tagsets: map[[2]string]*metrics.TagSet{}}
}

func (s *viewersSink) tags(e *event.Event) *metrics.TagSet {
	key := [2]string{e.Region, e.Device}
	t := s.tagsets[key]
	if t == nil {
		t = s.base.With("region", e.Region).With("device", e.Device)
		s.tagsets[key] = t
	}
	return t
}

// Emit takes one event of a player.
func (s *viewersSink) Emit(e event.Event) {
	s.note(&e)
	s.next.Emit(e)
}

// note follows the definitions of telemetry/qoe, so that a threshold and an objective of one name mean the same.
func (s *viewersSink) note(e *event.Event) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	both := func(f func(*totals)) { f(&r.totals); f(&s.call) }
	started := func(bad bool) {
		tags := s.tags(e)
		both(func(t *totals) {
			t.asked++
			if bad {
				t.notBegun++
			}
		})
		r.failure(s.m.startFailures, tags, r.rate(s.m.startFailures, tags), r.startsEvery, e.At, bad)
	}
	trend := func(m *metrics.Metric, every uint32, v float64) {
		tags := s.tags(e)
		r.value(m, tags, r.trend(m, tags), every, e.At, v)
	}
	switch e.Kind {
	case event.PlayStart:
		if e.Status == starts.OK {
			s.begun[e.Session] = true
		} else {
			started(true)
		}
	case event.FirstFrame:
		delete(s.begun, e.Session)
		s.shown[e.Session] = true
		started(false)
		both(func(t *totals) { t.startup.add(e.Value) })
		trend(s.m.startup, 1, e.Value)
	case event.StartFailed:
		if s.begun[e.Session] {
			delete(s.begun, e.Session)
			started(true)
		}
	case event.Heartbeat:
		both(func(t *totals) {
			t.playing += e.PlayingMS
			t.stalled += e.RebufferMS
			if e.LatencyMS > 0 && e.State != "starting" {
				t.latency.add(e.LatencyMS)
			}
			if e.State == "playing" && e.BitrateKbps > 0 {
				t.bitrate.add(e.BitrateKbps)
			}
		})
		if e.LatencyMS > 0 && e.State != "starting" {
			trend(s.m.latency, r.viewingEvery, e.LatencyMS)
		}
		if e.State == "playing" && e.BitrateKbps > 0 {
			trend(s.m.bitrate, r.viewingEvery, e.BitrateKbps)
		}
	case event.Rebuffer:
		both(func(t *totals) { t.rebuffers++ })
		r.count(s.m.rebuffers, s.tags(e), 1)
	case event.SessionEnd:
		if all := e.PlayingMS + e.RebufferMS; all > 0 {
			trend(s.m.rebufferRatio, 1, 100*e.RebufferMS/all)
		}
		if s.shown[e.Session] {
			delete(s.shown, e.Session)
			bad := e.Status == starts.Failed
			both(func(t *totals) {
				t.sessions++
				if bad {
					t.failed++
				}
			})
			tags := s.tags(e)
			r.failure(s.m.playbackFailures, tags, r.rate(s.m.playbackFailures, tags), 1, e.At, bad)
		}
	}
}

// qoe is what the process's viewers felt so far. Times are milliseconds, shares per cent.
func (r *record) qoe() map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.totals
	q := viewing(t)
	q["playStarts"] = countsOf(t.starts)
	q["playStartTime"] = quantiles(&t.startTime)
	q["videoStartFailures"] = percent(float64(t.notBegun), float64(t.asked))
	return q
}

// viewing is what players felt, as a script sees it.
func viewing(t *totals) map[string]any {
	return map[string]any{
		"sessions":         t.sessions,
		"startupTime":      quantiles(&t.startup),
		"liveLatency":      quantiles(&t.latency),
		"bitrate":          t.bitrate.mean(),
		"rebufferRatio":    percent(t.stalled, t.playing+t.stalled),
		"rebuffers":        t.rebuffers,
		"playbackFailures": percent(float64(t.failed), float64(t.sessions)),
	}
}

func percent(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * part / whole
}

func quantiles(h *histogram) map[string]any {
	return map[string]any{"p50": h.quantile(0.5), "p95": h.quantile(0.95), "p99": h.quantile(0.99), "p999": h.quantile(0.999), "max": h.quantile(1)}
}

func countsOf(s starts.Snapshot) map[string]any {
	return map[string]any{"intended": s.Intended, "sent": s.Sent, "ok": s.OK, "shed": s.Shed, "failed": s.Failed, "dropped": s.Dropped}
}

// add sums what a call came to.
func (r *record) add(s starts.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.totals.starts
	t.Intended += s.Intended
	t.Sent += s.Sent
	t.OK += s.OK
	t.Shed += s.Shed
	t.Failed += s.Failed
	t.Dropped += s.Dropped
}
