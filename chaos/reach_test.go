package chaos

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2027, 5, 1, 20, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }

// window: injected from T+10 s, undone from T+30 s, back at T+32 s.
var window = Window{Inject: second(10), Injected: second(10.1), Restore: second(30), Restored: second(32)}

var (
	edge1   = netip.MustParseAddrPort("127.0.1.11:8080")
	edge2   = netip.MustParseAddrPort("127.0.1.12:8080")
	targets = []netip.AddrPort{edge1, edge2}
	distant = netip.MustParseAddrPort("127.0.2.11:8080")
)

// probes makes a sample of each address every quarter of a second from one moment to another (seconds after T+0).
func probes(from, to float64, o Outcome, addrs ...netip.AddrPort) []sample {
	var samples []sample
	for at := from; at < to; at += 0.25 {
		for _, a := range addrs {
			s := sample{start: second(at), end: second(at + 0.001), addr: a, control: a == distant, outcome: o}
			if o == Timeout {
				s.end = second(at + 1)
			}
			samples = append(samples, s)
		}
	}
	return samples
}

func TestJudge(t *testing.T) {
	before := probes(5, 10, Connected, edge1, edge2)
	refused := probes(10.1, 30, Refused, edge1, edge2)
	silent := probes(10.1, 30, Timeout, edge1, edge2)
	after := probes(32.1, 37, Connected, edge1, edge2)
	control := probes(5, 37, Connected, distant)

	for _, c := range []struct {
		name     string
		want     Outcome
		samples  [][]sample
		window   Window
		status   string
		measured float64
		detail   []string // each is said
	}{
		{
			name: "crash", want: Refused, samples: [][]sample{before, refused, after, control},
			status: Confirmed, measured: 100,
			detail: []string{"0 of 156 probes connected: 156 refused", "after it 40 of 40 connected within 101 ms", "us-west answered throughout"},
		},
		{
			name: "cut", want: Timeout, samples: [][]sample{before, silent, after, control},
			status: Confirmed, measured: 100, detail: []string{"timeout", "after it 40 of 40"},
		},
		{
			name: "a probe lost here and there is no mismatch", want: Refused,
			samples: [][]sample{before, refused, probes(12, 13, Timeout, edge1), after, control}, status: Confirmed, measured: 100 * 78.0 / 82,
		},
		{
			name: "no other region to compare with", want: Refused, samples: [][]sample{before, refused, after}, status: Confirmed, measured: 100,
		},
		{
			name: "slow to come back", want: Refused,
			samples: [][]sample{before, refused, probes(32.1, 34, Refused, edge1, edge2), probes(34, 37, Connected, edge1, edge2), control},
			status:  Confirmed, measured: 100, detail: []string{"24 of 24 connected within 2.00 s"},
		},
		{
			name: "the injector did nothing", want: Refused, samples: [][]sample{probes(5, 37, Connected, edge1, edge2), control},
			status: Mismatch, measured: 0, detail: []string{"connection refused was expected", "154 of 154 probes connected"},
		},
		{
			name: "refused where silence was expected", want: Timeout, samples: [][]sample{before, refused, after, control},
			status: Mismatch, measured: 0, detail: []string{"silence was expected", "156 refused"},
		},
		{
			name: "silence where refused was expected", want: Refused, samples: [][]sample{before, silent, after, control},
			status: Mismatch, measured: 0, detail: []string{"connection refused was expected", "timeout"},
		},
		{
			name: "only half of the region", want: Refused,
			samples: [][]sample{before, probes(10.1, 30, Refused, edge1), probes(10.1, 30, Connected, edge2), after, control},
			status:  Mismatch, measured: 0, detail: []string{"78 of 78 probes of 127.0.1.12:8080 connected"},
		},
		{
			name: "the other region was hit too", want: Refused, samples: [][]sample{before, refused, after, probes(5, 37, Refused, distant)},
			status: Mismatch, measured: 100, detail: []string{"reached us-west too"},
		},
		{
			name: "never came back", want: Refused, samples: [][]sample{before, refused, probes(32.1, 37, Refused, edge1, edge2), control},
			status: Mismatch, measured: 100, detail: []string{"outlived its end: after it 0 of 40 probes connected (40 refused)"},
		},
		{
			name: "half of it never came back", want: Refused,
			samples: [][]sample{before, refused, probes(32.1, 37, Connected, edge1), probes(32.1, 37, Refused, edge2), control},
			status:  Mismatch, measured: 100, detail: []string{"outlived its end"},
		},
		{
			name: "came back and went again", want: Refused,
			samples: [][]sample{before, refused, probes(32.1, 33, Connected, edge1, edge2), probes(33, 37, Refused, edge1, edge2), control},
			status:  Mismatch, measured: 100, detail: []string{"outlived its end", "32 refused"},
		},
		{
			name: "an address that was not seen during it", want: Refused,
			samples: [][]sample{before, probes(10.1, 30, Refused, edge1), after, control},
			status:  Inconclusive, detail: []string{"too little was measured", "0 of 0 probes of 127.0.1.12:8080"},
		},
		{
			name: "an address that was not seen before it", want: Refused,
			samples: [][]sample{probes(5, 10, Connected, edge1), refused, after, control},
			status:  Inconclusive, measured: 100, detail: []string{"not every address was measured before", "127.0.1.12:8080"},
		},
		{
			name: "an address that was not seen after it", want: Refused,
			samples: [][]sample{before, refused, probes(32.1, 37, Connected, edge2), control},
			status:  Inconclusive, measured: 100, detail: []string{"not every address was measured after", "127.0.1.11:8080"},
		},
		{name: "no probes", want: Refused, status: Inconclusive, detail: []string{"0 probes during the fault"}},
		{
			name: "hardly any probes", want: Refused, samples: [][]sample{before, probes(20, 20.5, Refused, edge1), after},
			status: Inconclusive, measured: 0, detail: []string{"2 probes during the fault"},
		},
		{
			name: "nothing before", want: Refused, samples: [][]sample{refused, after, control},
			status: Inconclusive, measured: 100, detail: []string{"nothing was measured before"},
		},
		{
			name: "not well before", want: Refused, samples: [][]sample{probes(5, 10, Refused, edge1, edge2), refused, after, control},
			status: Inconclusive, measured: 100, detail: []string{"not well before", "0 of 40 probes connected (40 refused)"},
		},
		{
			name: "nothing after", want: Refused, samples: [][]sample{before, refused, control},
			status: Inconclusive, measured: 100, detail: []string{"nothing was measured after"},
		},
		{
			name: "never undone", want: Refused, samples: [][]sample{before, refused, control},
			window: Window{Inject: second(10), Injected: second(10.1)}, status: Inconclusive, measured: 100,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.window
			if w.Inject.IsZero() {
				w = window
			}
			e := judge(c.want, w, "us-west", targets, slices.Concat(c.samples...))
			if e.Status != c.status || e.Expected != 100 || e.Unit != "% of probes" || abs(e.Measured-c.measured) > 0.01 {
				t.Errorf("judged %+v, want %s with %.2f", e, c.status, c.measured)
			}
			for _, want := range c.detail {
				if !strings.Contains(e.Detail, want) {
					t.Errorf("detail %q does not say %q", e.Detail, want)
				}
			}
		})
	}
}

// One address of many that the fault did not reach is less than a tenth of all probes, and yet the region was not down.
func TestOneAddressOfManyDecides(t *testing.T) {
	var many []netip.AddrPort
	for i := range 11 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(11 + i)}), 8080))
	}
	rest, one := many[:10], many[10]
	before, after := probes(5, 10, Connected, many...), probes(32.1, 37, Connected, many...)
	for _, c := range []struct {
		name    string
		samples []sample
		status  string
		detail  string
	}{
		{"down", slices.Concat(before, probes(10.1, 30, Refused, many...), after), Confirmed, "within 101 ms"},
		{"one stays up", slices.Concat(before, probes(10.1, 30, Refused, rest...), probes(10.1, 30, Connected, one), after), Mismatch,
			"connection refused was expected, but during the fault 78 of 78 probes of 127.0.1.21:8080 connected"},
		{"one stays down", slices.Concat(before, probes(10.1, 30, Refused, many...), probes(32.1, 37, Connected, rest...), probes(32.1, 37, Refused, one)), Mismatch,
			"outlived its end: after it 0 of 20 probes of 127.0.1.21:8080 connected (20 refused)"},
		{"one was down already", slices.Concat(probes(5, 10, Connected, rest...), probes(5, 10, Refused, one), probes(10.1, 30, Refused, many...), after), Inconclusive,
			"not well before the fault: 0 of 20 probes of 127.0.1.21:8080 connected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := judge(Refused, window, "", many, c.samples); e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("judged %+v, want %s: %s", e, c.status, c.detail)
			}
		})
	}
}

func TestSkippedProbesAreSaid(t *testing.T) {
	p := &prober{want: Refused, targets: targets, samples: slices.Concat(
		probes(5, 10, Connected, targets...), probes(10.1, 30, Refused, targets...), probes(32.1, 37, Connected, targets...))}
	if e := p.Judge(window); e.Status != Confirmed || strings.Contains(e.Detail, "skipped") {
		t.Errorf("%+v", e)
	}
	p.skipped = 7
	if e := p.Judge(window); e.Status != Confirmed || !strings.HasSuffix(e.Detail, "; 7 probes were skipped") {
		t.Errorf("%+v", e)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 40 * time.Microsecond: "1 ms", 40 * time.Millisecond: "40 ms", time.Second: "1.00 s", 2346 * time.Millisecond: "2.35 s",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

func TestProbesOnABorderCountForNeitherSide(t *testing.T) {
	at := func(start, end float64, o Outcome) sample {
		return sample{start: second(start), end: second(end), addr: edge1, outcome: o}
	}
	p := sortProbes(window, []sample{
		at(9.9, 10.05, Reset),   // killed under way
		at(10.2, 10.3, Reset),   // still settling
		at(29.5, 30.5, Timeout), // the fault ended under it
		at(31, 31.1, Refused),   // coming back
		at(31.9, 32.5, Timeout),
	})
	if n := p.before.total() + p.during.total() + p.after.total() + p.control.total(); n != 0 {
		t.Fatalf("%d counted: %+v", n, p)
	}
}

// Whatever is measured, a fault is confirmed only if nearly all probes during it say so.
func TestConfirmedMeansMeasured(t *testing.T) {
	outcomes := []Outcome{Connected, Refused, Reset, Timeout, Failed}
	rapid.Check(t, func(t *rapid.T) {
		samples := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) sample {
			start := second(rapid.Float64Range(0, 40).Draw(t, "start"))
			return sample{
				start: start, end: start.Add(time.Duration(rapid.IntRange(0, 1e9).Draw(t, "took"))),
				addr: rapid.SampledFrom([]netip.AddrPort{edge1, edge2}).Draw(t, "addr"), control: rapid.Bool().Draw(t, "control"),
				outcome: rapid.SampledFrom(outcomes).Draw(t, "outcome"),
			}
		}), 0, 60).Draw(t, "samples")
		want := rapid.SampledFrom([]Outcome{Refused, Timeout}).Draw(t, "want")
		e := judge(want, window, "us-west", targets, samples)
		if e.Detail == "" || e.Measured < 0 || e.Measured > 100 {
			t.Fatalf("%+v", e)
		}
		if e.Status == Confirmed && e.Measured < enough {
			t.Fatalf("%+v", e)
		}
	})
}

func TestPaceKeepsSamplesWithinBounds(t *testing.T) {
	if pace(20*time.Second) != probeEvery {
		t.Errorf("a usual fault is probed every %s", pace(20*time.Second))
	}
	for _, length := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		if rounds := (length + watchBefore + watchAfter + restoreWait) / pace(length); int(rounds)*(probeAtOnce+1) > probesKept {
			t.Errorf("%s makes %d rounds", length, rounds)
		}
	}
}
