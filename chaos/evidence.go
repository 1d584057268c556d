package chaos

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Outcome is what became of one connection attempt.
type Outcome string

const (
	Connected Outcome = "connected" // the TCP handshake was completed
	Refused   Outcome = "refused"   // answered with a reset: nobody listens
	Reset     Outcome = "reset"     // connected, then torn down
	Timeout   Outcome = "timeout"   // silence
	Failed    Outcome = "error"     // anything else
)

const unitProbes = "% of probes"

const (
	// enough is the share of probes, in per cent, that must agree: a machine under load loses one now and then.
	enough = 90
	// settle is left out at the beginning of a fault: what was on its way arrives still.
	settle = 500 * time.Millisecond
	// fewest probes that say anything about a fault.
	fewest = 4
)

// sample is one probe.
type sample struct {
	start, end time.Time // of the attempt; end is when its outcome was known
	addr       netip.AddrPort
	control    bool // of another region, which the fault must not reach
	outcome    Outcome
	health     int // HTTP status of GET /healthz; 0 = no answer
}

// tally counts outcomes.
type tally map[Outcome]int

func (t tally) total() int {
	n := 0
	for _, c := range t {
		n += c
	}
	return n
}

func (t tally) share(o Outcome) float64 {
	if n := t.total(); n > 0 {
		return 100 * float64(t[o]) / float64(n)
	}
	return 0
}

// String lists what was not connected: "118 refused, 2 timeout".
func (t tally) String() string {
	var parts []string
	for _, o := range []Outcome{Refused, Reset, Timeout, Failed} {
		if t[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t[o], o))
		}
	}
	return strings.Join(parts, ", ")
}

// phases are the probes of one fault's window, counted. A probe that straddles a border belongs to neither side.
type phases struct {
	before, during, after, control tally
	back                           time.Duration // from restored until every address had connected once
	missing                        int           // addresses that have not connected since
}

func sortProbes(w Window, samples []sample) phases {
	p := phases{before: tally{}, during: tally{}, after: tally{}, control: tally{}}
	first := make(map[netip.AddrPort]time.Time) // first connection since the fault was undone
	probed := make(map[netip.AddrPort]bool)
	for _, s := range samples {
		switch {
		case w.Inject.IsZero() || s.end.Before(w.Inject):
			if !s.control {
				p.before[s.outcome]++
			}
		case !w.Injected.IsZero() && !s.start.Before(w.Injected.Add(settle)) && (w.Restore.IsZero() || s.end.Before(w.Restore)):
			if s.control {
				p.control[s.outcome]++
			} else {
				p.during[s.outcome]++
			}
		case !w.Restored.IsZero() && s.start.After(w.Restored) && !s.control:
			probed[s.addr] = true
			if at, ok := first[s.addr]; s.outcome == Connected && (!ok || s.end.Before(at)) {
				first[s.addr] = s.end
			}
		}
	}
	for _, at := range first {
		p.back = max(p.back, at.Sub(w.Restored))
	}
	p.missing = len(probed) - len(first)
	// Counted from each address's first connection on: before that it was still coming back, and back says how long.
	for _, s := range samples {
		if s.control || w.Restored.IsZero() || !s.start.After(w.Restored) {
			continue
		}
		if at, ok := first[s.addr]; !ok || !s.end.Before(at) {
			p.after[s.outcome]++
		}
	}
	return p
}

// judge says what the probes prove about a fault that should have made every attempt end in want.
func judge(want Outcome, w Window, control string, samples []sample) Evidence {
	p := sortProbes(w, samples)
	e := Evidence{Status: Inconclusive, Expected: 100, Measured: p.during.share(want), Unit: unitProbes}
	n := p.during.total()
	during := fmt.Sprintf("during the fault %d of %d probes connected", p.during[Connected], n)
	if text := p.during.String(); text != "" {
		during += ": " + text
	}
	switch {
	case n < fewest:
		e.Detail = fmt.Sprintf("too little was measured: %d probes during the fault", n)
	case p.before.total() == 0:
		e.Detail = "nothing was measured before the fault; " + during
	case p.before.share(Connected) < enough:
		e.Detail = fmt.Sprintf("the target was not well before the fault: %d of %d probes connected (%s); %s",
			p.before[Connected], p.before.total(), p.before, during)
	case p.during.share(want) < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("%s was expected, but %s", plural(want), during)
	case p.control.total() > 0 && p.control.share(Connected) < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("the fault reached %s too: %d of %d probes there connected (%s); %s",
			control, p.control[Connected], p.control.total(), p.control, during)
	case p.after.total() == 0:
		e.Detail = during + "; nothing was measured after it"
	case p.missing > 0 || p.after.share(Connected) < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("the fault outlived its end: after it %d of %d probes connected (%s); %s",
			p.after[Connected], p.after.total(), p.after, during)
	default:
		e.Status = Confirmed
		e.Detail = fmt.Sprintf("%s; after it %d of %d connected within %.1f s",
			during, p.after[Connected], p.after.total(), p.back.Seconds())
		if p.control.total() > 0 {
			e.Detail += fmt.Sprintf("; %s answered throughout (%d of %d)", control, p.control[Connected], p.control.total())
		}
	}
	return e
}

func plural(o Outcome) string {
	switch o {
	case Refused:
		return "connection refused"
	case Timeout:
		return "silence"
	}
	return string(o)
}
