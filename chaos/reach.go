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
	// fewest probes that say anything about a fault; each address needs one of them.
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
}

func sortProbes(w Window, samples []sample) phases {
	p := phases{before: tally{}, during: tally{}, after: tally{}, control: tally{}}
	first := make(map[netip.AddrPort]time.Time) // first connection since the fault was undone
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
			if at, ok := first[s.addr]; s.outcome == Connected && (!ok || s.end.Before(at)) {
				first[s.addr] = s.end
			}
		}
	}
	for _, at := range first {
		p.back = max(p.back, at.Sub(w.Restored))
	}
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

// address is one target and what its own probes say.
type address struct {
	addr netip.AddrPort
	phases
}

// sortAddresses counts the probes of each target by itself.
func sortAddresses(w Window, targets []netip.AddrPort, samples []sample) []address {
	own := make(map[netip.AddrPort][]sample)
	for _, s := range samples {
		if !s.control {
			own[s.addr] = append(own[s.addr], s)
		}
	}
	addresses := make([]address, len(targets))
	for i, t := range targets {
		addresses[i] = address{t, sortProbes(w, own[t])}
	}
	return addresses
}

func before(p phases) tally { return p.before }
func during(p phases) tally { return p.during }
func after(p phases) tally  { return p.after }

// worst finds the address with the smallest share of an outcome in one phase; one that was not measured counts as 0.
// what counts that address's probes, and names it, unless all addresses are below enough: then it counts everybody's.
func worst(all phases, addresses []address, phase func(phases) tally, o Outcome) (share float64, unmeasured bool, what string) {
	deviate := 0
	least := -1
	for i, a := range addresses {
		t := phase(a.phases)
		if t.share(o) < enough {
			deviate++
		}
		if least < 0 || t.share(o) < phase(addresses[least].phases).share(o) {
			least = i
		}
		unmeasured = unmeasured || t.total() == 0
	}
	if least < 0 {
		return 0, true, "no address was probed"
	}
	t, of := phase(addresses[least].phases), " of "+addresses[least].addr.String()
	share = t.share(o)
	if deviate == 0 || deviate == len(addresses) {
		t, of = phase(all), ""
	}
	what = fmt.Sprintf("%d of %d probes%s connected", t[Connected], t.total(), of)
	if text := t.String(); text != "" {
		what += " (" + text + ")"
	}
	return share, unmeasured, what
}

// judge says what the probes prove about a fault that should have made every attempt at every target end in want. Each
// address is judged by its own probes, and the worst decides: one that stays reachable among many is no region down.
func judge(want Outcome, w Window, control string, targets []netip.AddrPort, samples []sample) Evidence {
	p := sortProbes(w, samples)
	addresses := sortAddresses(w, targets, samples)
	wellBefore, unknownBefore, atBefore := worst(p, addresses, before, Connected)
	measured, unknownDuring, atDuring := worst(p, addresses, during, want)
	wellAfter, unknownAfter, atAfter := worst(p, addresses, after, Connected)

	e := Evidence{Status: Inconclusive, Expected: 100, Measured: measured, Unit: unitProbes}
	n := p.during.total()
	during := fmt.Sprintf("during the fault %d of %d probes connected", p.during[Connected], n)
	if text := p.during.String(); text != "" {
		during += ": " + text
	}
	switch {
	case n < fewest:
		e.Detail = fmt.Sprintf("too little was measured: %d probes during the fault", n)
	case unknownDuring:
		e.Detail = "too little was measured: during the fault " + atDuring
	case p.before.total() == 0:
		e.Detail = "nothing was measured before the fault; " + during
	case wellBefore < enough:
		e.Detail = fmt.Sprintf("the target was not well before the fault: %s; %s", atBefore, during)
		if unknownBefore {
			e.Detail = fmt.Sprintf("not every address was measured before the fault: %s; %s", atBefore, during)
		}
	case measured < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("%s was expected, but during the fault %s", plural(want), atDuring)
	case p.control.total() > 0 && p.control.share(Connected) < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("the fault reached %s too: %d of %d probes there connected (%s); %s",
			control, p.control[Connected], p.control.total(), p.control, during)
	case p.after.total() == 0:
		e.Detail = during + "; nothing was measured after it"
	case unknownAfter:
		e.Detail = fmt.Sprintf("not every address was measured after the fault: %s; %s", atAfter, during)
	case wellAfter < enough:
		e.Status = Mismatch
		e.Detail = fmt.Sprintf("the fault outlived its end: after it %s; %s", atAfter, during)
	default:
		e.Status = Confirmed
		e.Detail = fmt.Sprintf("%s; after it %d of %d connected within %s",
			during, p.after[Connected], p.after.total(), span(p.back))
		if p.control.total() > 0 {
			e.Detail += fmt.Sprintf("; %s answered throughout (%d of %d)", control, p.control[Connected], p.control.total())
		}
	}
	return e
}

// span gives a time in the unit in which it says something.
func span(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", (d + time.Millisecond - 1).Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
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
