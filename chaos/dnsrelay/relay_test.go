package dnsrelay

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tminus-live/tminus/chaos/evidence"
)

var (
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
	rightIP  = netip.MustParseAddr("192.0.2.7")
	wrongIP  = netip.MustParseAddr("192.0.2.66")
)

// resolver answers every A question with rightIP, until the test ends.
func resolver(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, maxPacket)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(packet)
			if err != nil {
				return
			}
			if reply, _, ok := (Rule{Kind: Address, Address: rightIP}).wrong(packet[:n]); ok {
				conn.WriteToUDPAddrPort(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func running(t *testing.T, upstream netip.AddrPort) *Relay {
	t.Helper()
	r, err := Listen(loopback, upstream)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// Each wrong answer is given, proven by somebody who only asks, and over when it is to be; a rule that is not set, or is
// another one, is found out. All of them live through the same phases at the same time.
func TestWrongAnswersAreProven(t *testing.T) {
	type trial struct {
		name  string
		relay *Relay
		o     *Observer
		do    *Rule
		want  string
	}
	var trials []trial
	for _, rule := range []Rule{
		{Kind: NXDomain}, {Kind: ServFail, Name: "example.test"}, {Kind: Address, Address: wrongIP}, {Kind: Silence}, {Kind: Slow, Delay: 300 * time.Millisecond},
	} {
		for _, sabotage := range []string{"", "nothing", "another name", "something else"} {
			tr := trial{name: rule.Kind + " " + sabotage, relay: running(t, resolver(t)), want: evidence.Mismatch}
			var err error
			if tr.o, err = NewObserver(tr.relay.Addr(), "play.example.test", rule, time.Now); err != nil {
				t.Fatal(err)
			}
			do := rule
			switch sabotage {
			case "":
				tr.want = evidence.Confirmed
			case "another name":
				do.Name = "other.test"
			case "something else":
				if do.Kind = ServFail; rule.Kind == ServFail {
					do.Kind = NXDomain
				}
			}
			if sabotage != "nothing" {
				tr.do = &do
			}
			trials = append(trials, tr)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for _, tr := range trials {
		watching.Go(func() { tr.o.Watch(ctx) })
	}
	phase := func(d time.Duration) { <-time.After(d) } // the phases of a fault are lengths of time
	phase(1500 * time.Millisecond)
	w := evidence.Window{Inject: time.Now()}
	for _, tr := range trials {
		if err := tr.relay.Set(tr.do); err != nil {
			t.Fatal(err)
		}
	}
	w.Injected = time.Now()
	phase(3500 * time.Millisecond)
	w.Restore = time.Now()
	for _, tr := range trials {
		if err := tr.relay.Set(nil); err != nil {
			t.Fatal(err)
		}
	}
	w.Restored = time.Now()
	phase(2 * time.Second)
	cancel()
	watching.Wait()
	for _, tr := range trials {
		if e := tr.o.Judge(w); e.Status != tr.want {
			t.Errorf("%s: %+v, want %s", tr.name, e, tr.want)
		}
	}
}

// Who is kept waiting is answered as soon as the fault is over, and keeps nobody else out.
func TestQuestionsThatAreHeldUpAreAnsweredAtTheEnd(t *testing.T) {
	r := running(t, resolver(t))
	if err := r.Set(&Rule{Kind: Slow, Delay: maxDelay}); err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.b."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan string)
	go func() {
		reply, _ := ask(context.Background(), r.Addr(), packet, 15*time.Second)
		answered <- read(reply, 7)
	}()
	for deadline := time.Now().Add(15 * time.Second); r.Counts().Wrong == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if err := r.Set(nil); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got != rightIP.String() {
		t.Errorf("after the fault the question that it held up is answered %q", got)
	}
}

// What was not measured is told.
func TestQuestionsThatAreLeftOutAreCounted(t *testing.T) {
	o, err := NewObserver(running(t, resolver(t)).Addr(), "a.b", Rule{Kind: Silence}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	o.asks = make([]Ask, asksKept)
	o.once(t.Context())
	if e := o.Judge(evidence.Window{}); !strings.Contains(e.Detail, "1 questions were left out") {
		t.Errorf("%+v", e)
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule  Rule
		wrong string
	}{
		{Rule{Kind: NXDomain}, ""},
		{Rule{Kind: "lies"}, `"lies" is no wrong answer (there is nxdomain`},
		{Rule{Kind: Address}, "no IPv4 address"},
		{Rule{Kind: Address, Address: netip.IPv6Loopback()}, "no IPv4 address"},
		{Rule{Kind: Slow}, "a delay of 0s"},
		{Rule{Kind: Slow, Delay: time.Hour}, "at most 1m0s"},
	} {
		err := c.rule.Validate()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%+v: %v", c.rule, err)
		}
	}
	for name, want := range map[string]bool{"a.b.": true, "x.a.b.": true, "A.B": true, "xa.b.": false, "b.": false} {
		if (Rule{Name: "a.b"}).covers(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func TestJudgeNeedsAResolverThatWasWell(t *testing.T) {
	t0 := time.Unix(1000, 0)
	w := evidence.Window{Inject: t0.Add(5 * time.Second), Injected: t0.Add(5 * time.Second), Restore: t0.Add(10 * time.Second), Restored: t0.Add(10 * time.Second)}
	asks := func(answer func(s float64) string) (all []Ask) {
		for s := 0.0; s < 15; s += .2 {
			at := t0.Add(time.Duration(s * 1e9))
			all = append(all, Ask{at, at.Add(10 * time.Millisecond), answer(s)})
		}
		return all
	}
	rule := Rule{Kind: Silence}
	for _, c := range []struct {
		name, status string
		answer       func(s float64) string
	}{
		{"as promised", evidence.Confirmed, func(s float64) string {
			if s >= 5 && s < 10 {
				return ""
			}
			return "192.0.2.7"
		}},
		{"never there", evidence.Inconclusive, func(float64) string { return "" }},
		{"does not come back", evidence.Mismatch, func(s float64) string {
			if s >= 5 {
				return ""
			}
			return "192.0.2.7"
		}},
		{"never gone", evidence.Mismatch, func(float64) string { return "192.0.2.7" }},
	} {
		if e := Judge(rule, w, asks(c.answer)); e.Status != c.status {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
	slow := Rule{Kind: Slow, Delay: 300 * time.Millisecond}
	for _, c := range []struct {
		name, status  string
		during, after time.Duration // that answers are late by
	}{
		{"late while it lasts", evidence.Confirmed, 300 * time.Millisecond, 0},
		{"late while it lasts, on a machine with more to do", evidence.Confirmed, 340 * time.Millisecond, 10 * time.Millisecond},
		{"late while it lasts, and a little sooner after it", evidence.Confirmed, 300 * time.Millisecond, -40 * time.Microsecond},
		{"late for ever", evidence.Mismatch, 300 * time.Millisecond, 300 * time.Millisecond},
		{"later than promised", evidence.Mismatch, 3 * time.Second, 0},
		{"not late enough", evidence.Mismatch, 150 * time.Millisecond, 0},
		{"half as late for ever", evidence.Mismatch, 300 * time.Millisecond, 150 * time.Millisecond},
		{"a bit late for ever", evidence.Mismatch, 300 * time.Millisecond, 40 * time.Millisecond},
	} {
		list := asks(func(float64) string { return "192.0.2.7" })
		for i, a := range list {
			switch {
			case !a.Start.Before(w.Restore):
				list[i].End = a.End.Add(c.after)
			case !a.Start.Before(w.Inject):
				list[i].End = a.End.Add(c.during)
			}
		}
		if e := Judge(slow, w, list); e.Status != c.status || e.Unit != "ms" || e.Expected != 300 || e.Measured != millis(c.during) || strings.Contains(e.Detail, "-0") {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
	if e := Judge(rule, w, nil); e.Status != evidence.Inconclusive {
		t.Errorf("%+v", e)
	}
}

func FuzzWrong(f *testing.F) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.b."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packet, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Add([]byte{0, 7})
	f.Fuzz(func(t *testing.T, question []byte) {
		reply, _, wrong := (Rule{Kind: Address, Address: wrongIP}).wrong(question)
		if wrong && reply == nil {
			t.Error("wrong, and nothing said")
		}
		read(question, 7)
	})
}
