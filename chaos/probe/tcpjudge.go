package probe

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/link"
)

// Outcome is what became of a question over TCP.
type Outcome string

// Outcomes.
const (
	Answered Outcome = "answered"
	Silent   Outcome = "silent"  // no answer in time
	Reset    Outcome = "reset"   // the connection was torn down
	Refused  Outcome = "refused" // nobody listens
	Failed   Outcome = "failed"  // anything else
)

// Conduct is what a fault does to connections beyond what their path does to bytes.
type Conduct string

// Conducts.
const (
	Sound    Conduct = ""
	Resets   Conduct = "reset"     // open connections are torn down, and so is each new one
	HalfOpen Conduct = "half-open" // nobody answers, and open connections are torn down when somebody does again
)

// Ask is one question and its answer. Times are since the probe began.
type Ask struct {
	Sent, Done time.Duration
	Outcome    Outcome
	Conn       int           // which connection of the long-lived ones; of a fresh one nothing
	Fresh      bool          // on a connection of its own, and Sent is when that was begun
	Lag        time.Duration // by how much later it was asked than it was to be
	First      bool          // of a long-lived connection: its answer waits for the handshake too
}

// Haul is one measurement of the rate, in bit/s; 0: none.
type Haul struct {
	Sent, Done time.Duration
	Up, Down   float64
}

// Connections is what a TCP probe saw, and what the fault promises.
type Connections struct {
	Up, Down link.Impairment
	Conduct  Conduct
	Asks     []Ask
	Hauls    []Haul
}

const (
	unitConnections = "% of connections"
	// enough is the share of connections, in per cent, that must agree: a machine under load loses one now and then.
	enough = 90
	// fewestFresh connections say something.
	fewestFresh = 3
	// fewestAsks on long-lived connections say something about times.
	fewestAsks = 10
)

// want is the outcome that a fault promises of new connections.
func (c Connections) want() Outcome {
	switch {
	case c.Conduct == Resets:
		return Reset
	case c.Conduct == HalfOpen, c.Up.Cut, c.Down.Cut:
		return Silent
	}
	return Answered
}

// tcpPhases are the questions before, during and after a fault.
type tcpPhases struct{ before, during, after struct{ fresh, steady []Ask } }

// sortAsks sorts questions by when they were asked. One that waits for an answer needs so long for it on a path that does what the fault
// promises, as long as there is to be one: asked any later, it says nothing when the fault ends first.
func sortAsks(w evidence.Window, start time.Time, end time.Duration, longest, needs time.Duration, asks []Ask) tcpPhases {
	var p tcpPhases
	since := func(t time.Time) time.Duration { return t.Sub(start) }
	for _, a := range asks {
		to := (*struct{ fresh, steady []Ask })(nil)
		switch {
		case w.Inject.IsZero() || a.Done < since(w.Inject):
			to = &p.before
		case w.Injected.IsZero() || a.Sent < since(w.Injected)+settle:
		case w.Restore.IsZero() || a.Sent < since(w.Restore)-border:
			if !w.Restore.IsZero() && a.Done >= since(w.Restore) {
				if a.Sent+needs > since(w.Restore) {
					continue
				}
				a.Outcome = Silent // as long as it lasted
			}
			to = &p.during
		case !w.Restored.IsZero() && a.Sent >= since(w.Restored)+settle+longest && a.Sent < end-inFlight-longest:
			to = &p.after
		}
		switch {
		case to == nil:
		case a.Fresh:
			// One that was begun shortly before the end had no time to be silent.
			if a.Outcome != Silent || to != &p.during || a.Done-a.Sent >= border {
				to.fresh = append(to.fresh, a)
			}
		case !a.First:
			to.steady = append(to.steady, a)
		}
	}
	return p
}

func lags(asks []Ask) []time.Duration {
	all := make([]time.Duration, len(asks))
	for i, a := range asks {
		all[i] = a.Lag
	}
	return all
}

func shareOf(asks []Ask, o Outcome) float64 {
	n := 0
	for _, a := range asks {
		// Whether a handshake is refused or torn down is a matter of a moment.
		if a.Outcome == o || o == Reset && a.Outcome == Refused {
			n++
		}
	}
	return 100 * float64(n) / float64(max(1, len(asks)))
}

func outcomes(asks []Ask) string {
	var parts []string
	for _, o := range []Outcome{Answered, Silent, Reset, Refused, Failed} {
		n := 0
		for _, a := range asks {
			if a.Outcome == o {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return fmt.Sprintf("%d new connections: %s", len(asks), strings.Join(parts, ", "))
}

// answers are the times that answers took: their median and their spread.
func answers(asks []Ask) (median, spread time.Duration, n int) {
	var times []time.Duration
	for _, a := range asks {
		if a.Outcome == Answered {
			times = append(times, a.Done-a.Sent)
		}
	}
	if len(times) == 0 {
		return 0, 0, 0
	}
	slices.Sort(times)
	at := func(share float64) time.Duration { return times[int(share*float64(len(times)-1))] }
	return at(0.5), at(highEnd) - at(lowEnd), len(times)
}

// tcpModel asks the same questions over two links of the promised kind: the median and the spread of the answers' times.
func tcpModel(c Connections, asks []Ask) (median, spread expectation) {
	type result struct{ median, spread float64 }
	runs := make([]result, modelRuns)
	for seed := range runs {
		ups, downs := c.Up, c.Down
		ups.Rate, ups.Queue, downs.Rate, downs.Queue = 0, 0, 0, 0 // questions are too small to feel them
		ups.Seed, downs.Seed = link.Flow(0x61736b, uint64(seed)+1), link.Flow(0x746f6c64, uint64(seed)+1)
		there, back := link.New(ups), link.New(downs)
		seen := make([]Ask, 0, len(asks))
		for _, a := range asks {
			out, n := there.Send(a.Sent, 1)
			if n == 0 {
				continue
			}
			if out, n = back.Send(out[0].At, 1); n > 0 {
				seen = append(seen, Ask{Sent: a.Sent, Done: out[0].At, Outcome: Answered})
			}
		}
		m, s, _ := answers(seen)
		runs[seed] = result{millis(m), millis(s)}
	}
	sum := func(of func(result) float64) (e expectation) {
		for _, r := range runs {
			e.mean += of(r) / modelRuns
		}
		for _, r := range runs {
			e.deviation += (of(r) - e.mean) * (of(r) - e.mean) / (modelRuns - 1)
		}
		e.deviation = math.Sqrt(e.deviation)
		return e
	}
	return sum(func(r result) float64 { return r.median }), sum(func(r result) float64 { return r.spread })
}

// bystander says what became of the connection that was open when the fault came, if that is not what it promises; "": it is.
func bystander(c Connections, w evidence.Window, start time.Time) string {
	inject, restore := w.Inject.Sub(start), w.Restore.Sub(start)
	conn := -1
	for _, a := range c.Asks {
		if !a.Fresh && a.Sent < inject {
			conn = max(conn, a.Conn)
		}
	}
	if conn < 0 {
		return "no connection was open when the fault came"
	}
	var in, out Outcome // what its last answer was while the fault lasted, and the first afterwards
	for _, a := range c.Asks {
		switch {
		case a.Fresh || a.Conn != conn || a.Done < inject:
		case a.Done < restore:
			in = a.Outcome
		case out == "":
			out = a.Outcome
		}
	}
	say := func(what, want string) string {
		return fmt.Sprintf("the connection that was open when the fault came was %s, not %s", what, want)
	}
	then := string(out)
	if out == "" {
		then = "gone"
	}
	switch {
	case c.Conduct == Resets && in != Reset:
		return say("not torn down", "reset")
	case c.Conduct == HalfOpen && in == Reset:
		return say("reset at once", "left half open")
	case c.Conduct == HalfOpen && out != Reset:
		return say(then+" after it", "reset when somebody was there again")
	case c.Conduct == Sound && in == Reset:
		return say("reset", "kept")
	case c.want() == Silent && c.Conduct == Sound && (in == Reset || out == Reset):
		// Silent still is no contradiction: TCP sends again ever more rarely.
		return say("reset", "kept")
	}
	return ""
}

// JudgeTCP says what questions over TCP prove. start is when the probe began, end how long it went on.
func JudgeTCP(w evidence.Window, start time.Time, end time.Duration, c Connections) evidence.Evidence {
	want := c.want()
	longest := c.Up.Longest() + c.Down.Longest()
	needs := time.Duration(0)
	if want == Answered {
		needs = 2*longest + border // the handshake's round trip, and the question's
	}
	p := sortAsks(w, start, end, longest, needs, c.Asks)
	e := evidence.Evidence{
		Status: evidence.Inconclusive, Expected: 100, Measured: round(shareOf(p.during.fresh, want)), Unit: unitConnections,
	}
	var findings []finding
	median, noise, n := answers(p.before.steady)
	if want == Answered {
		findings = c.times(w, start, p, median, noise)
		lead(&e, findings)
	}
	was := "during the fault " + outcomes(p.during.fresh)
	switch {
	case len(p.during.fresh) < fewestFresh:
		e.Detail = fmt.Sprintf("too little was measured: %d new connections during the fault", len(p.during.fresh))
		return e
	case lagging(lags(p.during.steady)) != "" || lagging(lags(p.during.fresh)) != "":
		e.Detail = tooBusy + lagging(append(lags(p.during.steady), lags(p.during.fresh)...))
		return e
	case len(p.before.fresh) < fewestFresh || n < fewestAsks:
		e.Detail = fmt.Sprintf("nothing to compare with: %d new connections and %d answers before the fault", len(p.before.fresh), n)
		return e
	case shareOf(p.before.fresh, Answered) < enough:
		e.Detail = "the target was not well before the fault: " + outcomes(p.before.fresh)
		return e
	case shareOf(p.during.fresh, want) < enough:
		e.Status, e.Expected, e.Measured, e.Unit = evidence.Mismatch, 100, round(shareOf(p.during.fresh, want)), unitConnections
		e.Detail = fmt.Sprintf("%s was expected, but %s", want, was)
		return e
	}
	if !w.Restored.IsZero() || c.Conduct == Resets || want == Answered {
		if s := bystander(c, w, start); s != "" {
			e.Status, e.Detail = evidence.Mismatch, s+"; "+was
			return e
		}
	}
	if want == Answered {
		if _, _, n := answers(p.during.steady); n < fewestAsks {
			e.Detail = fmt.Sprintf("too little was measured: %d answers on connections that stay open during the fault; a longer one would say more", n)
			return e
		}
		var wrong, weak []finding
		promised := false
		for _, f := range findings {
			promised = promised || f.promised
			switch {
			case !f.holds():
				wrong = append(wrong, f)
			case f.promised && !f.tells():
				weak = append(weak, f)
			}
		}
		switch {
		case !promised:
			e.Detail = "the fault promises nothing that connections would show"
			return e
		case len(wrong) > 0:
			e.Status = evidence.Mismatch
			lead(&e, wrong)
			e.Detail = "during the fault: " + list(wrong)
			return e
		case len(weak) > 0:
			lead(&e, weak)
			e.Detail = "too little was measured to tell it from half of it: " + list(weak)
			return e
		}
		was = during(findings)
	}
	then, _, back := answers(p.after.steady)
	limited, unknown := c.limited(w, start)
	lingers := back >= fewestFresh && overdue(then-median, c.Up.Delay+c.Down.Delay, median, noise)
	rushed := lagging(append(lags(p.after.steady), lags(p.after.fresh)...))
	switch {
	case lingers && rushed != "":
		e.Detail = fmt.Sprintf("%s; after it answers take %s longer than before, but %s%s", was, quantity(millis(then-median), unitTime), tooBusy, rushed)
	case lingers:
		e.Status = evidence.Mismatch
		e.Detail = fmt.Sprintf("the fault outlived its end: answers take %s longer than before; %s", quantity(millis(then-median), unitTime), was)
	case len(p.after.fresh) < fewestFresh || want == Answered && back < fewestAsks:
		e.Detail = was + "; nothing was measured after it"
	case shareOf(p.after.fresh, Answered) < enough:
		e.Status = evidence.Mismatch
		e.Detail = "the fault outlived its end: after it " + outcomes(p.after.fresh) + "; " + was
	case limited != "":
		e.Status = evidence.Mismatch
		e.Detail = "the fault outlived its end: after it " + limited + "; " + was
	case unknown:
		e.Detail = was + "; no rate was measured before it, or none after it"
	default:
		e.Status = evidence.Confirmed
		e.Detail = was + "; after it everything is as it was before"
	}
	return e
}

// times holds what answers and hauls took during a fault against the promise.
func (c Connections) times(w evidence.Window, start time.Time, p tcpPhases, before, noise time.Duration) []finding {
	var all []finding
	took, spread, n := answers(p.during.steady)
	if n < fewestAsks {
		return nil
	}
	mean, range_ := tcpModel(c, p.during.steady)
	delayed := c.Up.Delay+c.Down.Delay > 0
	f := finding{
		what: "answers take longer by", expected: mean.mean, measured: millis(took - before), unit: unitTime, promised: delayed,
		// A relay in user space counts in whole milliseconds, twice there and twice back.
		tolerance: sigmas*mean.deviation + slack*mean.mean + millis(2*timeSlack+noise),
	}
	if !delayed {
		f.tolerance += millis(busySlack)
	}
	all = append(all, f)
	if c.Up.Jitter+c.Down.Jitter > 0 {
		all = append(all, finding{
			what: "spread of answers' times", expected: range_.mean, measured: millis(spread), unit: unitTime, promised: true,
			tolerance: sigmas*range_.deviation + 2*slack*range_.mean + millis(timeSlack+noise),
		})
	}
	for _, d := range []struct {
		name string
		rate float64
		of   func(Haul) float64
	}{{"upwards", c.Up.Rate, func(h Haul) float64 { return h.Up }}, {"downwards", c.Down.Rate, func(h Haul) float64 { return h.Down }}} {
		if d.rate == 0 {
			continue
		}
		end := time.Duration(math.MaxInt64)
		if !w.Restore.IsZero() {
			end = w.Restore.Sub(start)
		}
		measured := c.rate(d.of, w.Injected.Sub(start)+settle, end)
		f := finding{what: "rate " + d.name, expected: d.rate / 1e6, unit: unitRate, promised: true, tolerance: rateSlack * d.rate / 1e6}
		if f.measured = measured / 1e6; measured == 0 {
			f.what, f.tolerance = "no rate was measured "+d.name+":", d.rate/1e6
		}
		all = append([]finding{f}, all...)
	}
	return all
}

// rate is the median of the hauls one way that lie between two moments, in bit/s; 0: there are none.
func (c Connections) rate(of func(Haul) float64, from, to time.Duration) float64 {
	var rates []float64
	for _, h := range c.Hauls {
		if h.Sent >= from && h.Done < to && of(h) > 0 {
			rates = append(rates, of(h))
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// limited says which way a rate that was promised is kept although the fault is over; "": none. It is unknown where no rate was measured.
func (c Connections) limited(w evidence.Window, start time.Time) (kept string, unknown bool) {
	if w.Restored.IsZero() {
		return "", false
	}
	for _, d := range []struct {
		name string
		rate float64
		of   func(Haul) float64
	}{{"upwards", c.Up.Rate, func(h Haul) float64 { return h.Up }}, {"downwards", c.Down.Rate, func(h Haul) float64 { return h.Down }}} {
		was := c.rate(d.of, 0, w.Inject.Sub(start))
		is := c.rate(d.of, w.Restored.Sub(start)+settle, math.MaxInt64)
		// Half as fast as before, and no more than half as fast again as it was to be.
		switch {
		case d.rate == 0:
		case is == 0 || was == 0:
			unknown = true
		case is < was/2 && is < 1.5*d.rate:
			return fmt.Sprintf("the rate %s is %s", d.name, quantity(is/1e6, unitRate)), false
		}
	}
	return "", unknown
}
