package dnsrelay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tminus-live/tminus/chaos/evidence"
)

const (
	askEvery  = 150 * time.Millisecond
	askTime   = time.Second
	asksKept  = 40_000
	asksOpen  = 64
	settle    = 300 * time.Millisecond // what was under way when the fault began, or ended
	enough    = 90.0                   // % of questions that must agree
	fewest    = 5
	slowShare = 0.25 // of a delay that answers may be off by
	lastShare = 0.05 // of a delay that answers may still be late by when it is over
	// busySlack is how much later than they should answers may be, and than before once a delay is over: what a machine with
	// more to do takes.
	busySlack = 15 * time.Millisecond
)

// Ask is one question and what came of it.
type Ask struct {
	Start, End time.Time
	Answer     string // addresses in order, or the response code; "": none
}

// Observer asks a resolver for a name, again and again.
type Observer struct {
	to   netip.AddrPort
	name dnsmessage.Name
	want Rule
	now  func() time.Time

	mu   sync.Mutex
	asks []Ask
	left int // questions that were not asked, or not kept
}

// NewObserver prepares to ask for a name at the address that clients use.
func NewObserver(to netip.AddrPort, name string, want Rule, now func() time.Time) (*Observer, error) {
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	n, err := dnsmessage.NewName(name)
	if err != nil || name == "." {
		return nil, fmt.Errorf("%q is no name to ask a resolver for", name)
	}
	if err := want.Validate(); err != nil {
		return nil, err
	}
	if !want.covers(name) {
		return nil, fmt.Errorf("the fault is about names that end with %s, and %s is not one", want.Name, name)
	}
	if now == nil {
		return nil, errors.New("an observer needs a clock")
	}
	return &Observer{to: to, name: n, want: want, now: now}, nil
}

// Watch asks until ctx ends.
func (o *Observer) Watch(ctx context.Context) {
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, asksOpen)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case slots <- struct{}{}:
			open.Go(func() {
				defer func() { <-slots }()
				o.once(ctx)
			})
		default:
			o.leave()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// After is how long to watch from the end of the fault: until answers would have come, had it gone on.
func (o *Observer) After() time.Duration { return o.want.Delay + 5*time.Second }

func (o *Observer) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.left++
}

func (o *Observer) once(ctx context.Context) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: o.name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	packet, err := m.Pack()
	if err != nil {
		return
	}
	a := Ask{Start: o.now()}
	reply, err := ask(ctx, o.to, packet, askTime+o.want.Delay)
	a.End = o.now()
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		a.Answer = read(reply, m.ID)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.asks) == asksKept {
		o.left++
		return
	}
	o.asks = append(o.asks, a)
}

// read says what an answer holds: its addresses in order, or its response code.
func read(reply []byte, id uint16) string {
	var m dnsmessage.Message
	if err := m.Unpack(reply); err != nil || !m.Response || m.ID != id {
		return ""
	}
	if m.RCode != dnsmessage.RCodeSuccess {
		return m.RCode.String()
	}
	var all []string
	for _, r := range m.Answers {
		if a, ok := r.Body.(*dnsmessage.AResource); ok {
			all = append(all, netip.AddrFrom4(a.A).String())
		}
	}
	if len(all) == 0 {
		return "no address"
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// Judge says what the answers prove.
func (o *Observer) Judge(w evidence.Window) evidence.Evidence {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := Judge(o.want, w, o.asks)
	if o.left > 0 {
		e.Detail += fmt.Sprintf("; %d questions were left out", o.left)
	}
	return e
}

// Judge holds answers against what a rule promises: before and after they are right, and come in their usual time; during the fault
// they do not. What is measured is the share of answers that are as promised, in %, or how much later they come, in ms.
func Judge(want Rule, w evidence.Window, asks []Ask) evidence.Evidence {
	e := evidence.Evidence{Status: evidence.Inconclusive, Expected: 100, Unit: "% of answers"}
	var before, during, after []Ask
	for _, a := range asks {
		switch {
		case a.End.Before(w.Inject):
			before = append(before, a)
		case !a.Start.Before(w.Injected.Add(settle)) && a.End.Before(w.Restore):
			during = append(during, a)
		case !w.Restored.IsZero() && !a.Start.Before(w.Restored.Add(settle)):
			after = append(after, a)
		}
	}
	right, agree := most(before)
	switch {
	case len(before) < fewest || agree < enough || right == "" || right == dnsmessage.RCodeNameError.String() || right == dnsmessage.RCodeServerFailure.String():
		e.Detail = fmt.Sprintf("the resolver was not well before the fault: %s of %d answers were alike (%q)", percent(agree), len(before), right)
		return e
	case len(during) < fewest:
		e.Detail = fmt.Sprintf("only %d answers during the fault", len(during))
		return e
	case len(after) < fewest:
		e.Detail = fmt.Sprintf("only %d answers after the fault", len(after))
		return e
	}
	usual := median(before, right)
	hit, back := 0, 0
	for _, a := range during {
		if want.shows(a, right, usual) {
			hit++
		}
	}
	for _, a := range after {
		if a.Answer == right {
			back++
		}
	}
	e.Measured = share(hit, len(during))
	e.Detail = fmt.Sprintf("during the fault %d of %d answers were as the fault promises; after it %d of %d were right again", hit, len(during), back, len(after))
	e.Status = evidence.Confirmed
	if share(hit, len(during)) < enough || share(back, len(after)) < enough {
		e.Status = evidence.Mismatch
	}
	if want.Kind != Slow {
		return e
	}
	late, still := median(during, right)-usual, median(after, right)-usual
	e.Expected, e.Measured, e.Unit = millis(want.Delay), millis(late), "ms"
	e.Detail += fmt.Sprintf("; they came %.1f ms later than before (%.1f expected), and %.1f ms later after it", millis(max(0, late)), millis(want.Delay), millis(max(0, still)))
	if late > want.Delay+max(time.Duration(slowShare*float64(want.Delay)), busySlack) || still > max(time.Duration(lastShare*float64(want.Delay)), busySlack) {
		e.Status = evidence.Mismatch
	}
	return e
}

// shows reports whether an answer is what the rule promises where right is the right one, which usually takes so long.
func (rule Rule) shows(a Ask, right string, usual time.Duration) bool {
	switch rule.Kind {
	case NXDomain:
		return a.Answer == dnsmessage.RCodeNameError.String()
	case ServFail:
		return a.Answer == dnsmessage.RCodeServerFailure.String()
	case Silence:
		return a.Answer == ""
	case Address:
		return a.Answer == rule.Address.String() && a.Answer != right
	case Slow:
		return a.Answer == right && a.End.Sub(a.Start)-usual > time.Duration((1-slowShare)*float64(rule.Delay))
	}
	return false
}

// most is the answer that came most often, and its share in %.
func most(asks []Ask) (answer string, percent float64) {
	count := map[string]int{}
	for _, a := range asks {
		if count[a.Answer]++; count[a.Answer] > count[answer] {
			answer = a.Answer
		}
	}
	return answer, share(count[answer], len(asks))
}

// median is the time that right answers took; 0: there were none.
func median(asks []Ask, right string) time.Duration {
	var all []time.Duration
	for _, a := range asks {
		if a.Answer == right {
			all = append(all, a.End.Sub(a.Start))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func millis(d time.Duration) float64 {
	return math.Round(float64(d)/float64(100*time.Microsecond)) / 10
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(n) / float64(of)
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", v) }
