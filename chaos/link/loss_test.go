package link

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The numbers of splitmix64's reference implementation (Vigna, splitmix64.c) for seed 1234567.
func TestDrawIsSplitMix64(t *testing.T) {
	state := uint64(1234567)
	for i, want := range []uint64{
		6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
	} {
		if got := Draw(&state); got != want {
			t.Errorf("number %d is %d, want %d", i+1, got, want)
		}
	}
}

// drops draws a sequence.
func drops(l Loss, seed uint64, packets int) []bool {
	d := NewDropper(l, seed)
	lost := make([]bool, packets)
	for i := range lost {
		lost[i] = d.Next()
	}
	return lost
}

// figures are the share that was lost and the mean number lost in a row.
func figures(lost []bool) (share, burst float64) {
	n, bursts := 0, 0
	for i, is := range lost {
		if is {
			n++
			if i == 0 || !lost[i-1] {
				bursts++
			}
		}
	}
	return float64(n) / float64(len(lost)), float64(n) / float64(max(bursts, 1))
}

func off(got, want float64) float64 { return math.Abs(got-want) / want }

// Over a million packets the share and the mean burst are within 5 % of the model's, whatever the seed.
func TestAMillionPackets(t *testing.T) {
	for _, l := range []Loss{
		{Share: 0.01},
		{Model: Bernoulli, Share: 0.3},
		{Model: GilbertElliott, Share: 0.01, Burst: 1},
		{Model: GilbertElliott, Share: 0.05, Burst: 8},
		{Model: GilbertElliott, Share: 0.02, Burst: 3},
		{Model: GilbertElliott, Share: 0.5, Burst: 4},
	} {
		for seed := range uint64(5) {
			if err := l.Validate(); err != nil {
				t.Fatal(err)
			}
			wantShare, wantBurst := l.Expect()
			share, burst := figures(drops(l, seed, 1_000_000))
			if off(share, wantShare) > 0.05 || off(burst, wantBurst) > 0.05 {
				t.Errorf("%+v, seed %d: lost a share of %.5f in bursts of %.3f, want %.5f and %.3f", l, seed, share, burst, wantShare, wantBurst)
			}
		}
	}
}

// The lengths of bursts are geometric, as the model says, not merely right on average.
func TestBurstsAreGeometric(t *testing.T) {
	l := Loss{Model: GilbertElliott, Share: 0.1, Burst: 4}
	lengths, run := make(map[int]int), 0
	for _, lost := range drops(l, 7, 1_000_000) {
		if lost {
			run++
		} else if run > 0 {
			lengths[run]++
			run = 0
		}
	}
	all := 0
	for _, n := range lengths {
		all += n
	}
	for length := 1; length <= 8; length++ {
		want := math.Pow(1-1/l.Burst, float64(length-1)) / l.Burst
		if got := float64(lengths[length]) / float64(all); off(got, want) > 0.08 {
			t.Errorf("%.4f of bursts are %d long, want %.4f", got, length, want)
		}
	}
}

func TestSameSeedSameDrops(t *testing.T) {
	for _, l := range []Loss{{Share: 0.1}, {Model: GilbertElliott, Share: 0.1, Burst: 3}} {
		if !slices.Equal(drops(l, 7, 10_000), drops(l, 7, 10_000)) {
			t.Errorf("%+v: the same seed lost others", l)
		}
		if slices.Equal(drops(l, 7, 10_000), drops(l, 8, 10_000)) {
			t.Errorf("%+v: another seed lost the same", l)
		}
	}
}

// The drops of a seed are part of what is reproducible between versions: 0 and 1 per packet, as a trace has it.
func TestDropsOfASeedStayWhatTheyAre(t *testing.T) {
	for _, c := range []struct {
		loss Loss
		want string
	}{
		{Loss{Share: 0.25}, "1000100101000000000010000100001000010110001100000001001000000000"},
		{Loss{Model: GilbertElliott, Share: 0.25, Burst: 3}, "1000000001000000000011100110001111110000001111000001111111111000"},
	} {
		var got strings.Builder
		for _, lost := range drops(c.loss, 7, 64) {
			if lost {
				got.WriteByte('1')
			} else {
				got.WriteByte('0')
			}
		}
		if got.String() != c.want {
			t.Errorf("%+v lost %s, want %s", c.loss, got.String(), c.want)
		}
	}
}

func TestNothingAndEverything(t *testing.T) {
	if n, _ := figures(drops(Loss{}, 7, 10_000)); n != 0 {
		t.Errorf("the zero Loss lost a share of %g", n)
	}
	if n, _ := figures(drops(Loss{Share: 1}, 7, 10_000)); n != 1 {
		t.Errorf("a share of 1 lost %g", n)
	}
	if n, _ := figures(drops(Loss{Model: GilbertElliott, Burst: 3}, 7, 10_000)); n != 0 {
		t.Errorf("bursts of a share of 0 lost %g", n)
	}
	// As many as can be: one packet between any two bursts.
	most := Loss{Model: GilbertElliott, Share: 0.75, Burst: 3}
	if lost := drops(most, 7, 10_000); strings.Contains(fmt.Sprint(lost), "false false") {
		t.Error("two packets in a row arrived between bursts that have one between them")
	}
}

func TestTraceIsReplayedAgainAndAgain(t *testing.T) {
	trace := []bool{true, false, false, true, true}
	l := Loss{Model: Trace, Trace: trace}
	if got := drops(l, 7, 15); !slices.Equal(got, slices.Concat(trace, trace, trace)) {
		t.Errorf("lost %v", got)
	}
	// Its end and its beginning are one burst.
	if share, burst := l.Expect(); share != 0.6 || burst != 3 {
		t.Errorf("expected a share of %g in bursts of %g", share, burst)
	}
}

func TestExpect(t *testing.T) {
	for _, c := range []struct {
		loss         Loss
		share, burst float64
	}{
		{Loss{}, 0, 0},
		{Loss{Share: 0.5}, 0.5, 2},
		{Loss{Share: 1}, 1, math.Inf(1)},
		{Loss{Model: GilbertElliott, Share: 0.05, Burst: 8}, 0.05, 8},
		{Loss{Model: GilbertElliott, Burst: 8}, 0, 0},
		{Loss{Model: Trace, Trace: []bool{false, false}}, 0, 0},
		{Loss{Model: Trace, Trace: []bool{true, true}}, 1, math.Inf(1)},
		{Loss{Model: Trace, Trace: []bool{true, false, true, true, false}}, 0.6, 1.5},
	} {
		if share, burst := c.loss.Expect(); share != c.share || burst != c.burst {
			t.Errorf("%+v: expects %g in bursts of %g, want %g and %g", c.loss, share, burst, c.share, c.burst)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		loss Loss
		want []string
	}{
		{Loss{}, nil},
		{Loss{Share: 1}, nil},
		{Loss{Model: GilbertElliott, Share: 0.75, Burst: 3}, nil},
		{Loss{Model: Trace, Trace: []bool{true}}, nil},
		{Loss{Model: "gilbert"}, []string{`unknown model of loss "gilbert" (there is bernoulli, gilbert-elliott, trace)`}},
		{Loss{Share: 1.01}, []string{"a share of 1.01"}},
		{Loss{Share: -0.01}, []string{"a share of -0.01"}},
		{Loss{Share: math.NaN()}, []string{"a share of NaN"}},
		{Loss{Share: 0.1, Burst: 2}, []string{"bursts belongs to the model gilbert-elliott"}},
		{Loss{Model: GilbertElliott, Share: 0.1}, []string{"1 is the shortest"}},
		{Loss{Model: GilbertElliott, Share: 0.1, Burst: math.NaN()}, []string{"1 is the shortest"}},
		{Loss{Model: GilbertElliott, Share: 0.1, Burst: math.Inf(1)}, []string{"1 is the shortest"}},
		{Loss{Model: GilbertElliott, Share: 0.76, Burst: 3}, []string{"it is 0.75 at most"}},
		{Loss{Model: Trace}, []string{"empty"}},
		{Loss{Model: Trace, Trace: make([]bool, MaxTrace+1)}, []string{"1048576 is the longest"}},
		{Loss{Trace: []bool{true}}, []string{"a trace belongs to the model trace"}},
		{Loss{Model: Trace, Trace: []bool{true}, Share: 0.1, Burst: 2}, []string{"by itself", "bursts belongs to"}},
	} {
		err := c.loss.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c.loss, err)
		}
		for _, want := range c.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.loss, err, want)
			}
		}
	}
}

// What is valid behaves, and a seed's sequence is within its model's limits.
func TestValidLossesBehave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Loss{Model: rapid.SampledFrom([]string{"", Bernoulli, GilbertElliott, Trace}).Draw(t, "model")}
		switch l.Model {
		case Trace:
			l.Trace = rapid.SliceOfN(rapid.Bool(), 1, 9).Draw(t, "trace")
		case GilbertElliott:
			l.Burst = rapid.Float64Range(1, 100).Draw(t, "burst")
			l.Share = rapid.Float64Range(0, l.Burst/(1+l.Burst)).Draw(t, "share")
		default:
			l.Share = rapid.Float64Range(0, 1).Draw(t, "share")
		}
		if err := l.Validate(); err != nil {
			t.Fatal(err)
		}
		share, burst := l.Expect()
		if !(share >= 0 && share <= 1) || !(burst == 0 || burst >= 1) || (share == 0) != (burst == 0) {
			t.Fatalf("%+v expects %g in bursts of %g", l, share, burst)
		}
		if !slices.Equal(drops(l, 7, 100), drops(l, 7, 100)) {
			t.Fatalf("%+v: the same seed lost others", l)
		}
	})
}

func TestParseTrace(t *testing.T) {
	got, err := ParseTrace(strings.NewReader("# a venue's uplink, 100 packets/s\n0010 11\r\n\t0 # the rest was lost\n1"))
	if err != nil || !slices.Equal(got, []bool{false, false, true, false, true, true, false, true}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, c := range []struct{ in, want string }{
		{"", "the trace is empty"},
		{"# nothing\n", "the trace is empty"},
		{"01\n0x", `2:2: 'x' is neither 0 (arrived) nor 1 (lost)`},
		{strings.Repeat("0", MaxTrace+1), "1:1048577: the trace is longer than 1048576 packets"},
		{"#" + strings.Repeat(" ", maxTraceBytes), "the trace is longer than 4194304 bytes"},
	} {
		if got, err := ParseTrace(strings.NewReader(c.in)); err == nil || err.Error() != c.want || got != nil {
			t.Errorf("%.20q: %d packets, %v, want %q", c.in, len(got), err, c.want)
		}
	}
	if got, err := ParseTrace(strings.NewReader(strings.Repeat("0", MaxTrace))); err != nil || len(got) != MaxTrace {
		t.Errorf("the longest: %d packets, %v", len(got), err)
	}
}

func FuzzParseTrace(f *testing.F) {
	for _, s := range []string{"", "01", "# x\n0 1\r\n", "0x", "#\n\n1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		trace, err := ParseTrace(strings.NewReader(string(in)))
		if (err == nil) == (len(trace) == 0) {
			t.Fatalf("%d packets, %v", len(trace), err)
		}
		if err == nil {
			if err := (Loss{Model: Trace, Trace: trace}).Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkNext(b *testing.B) {
	d := NewDropper(Loss{Model: GilbertElliott, Share: 0.05, Burst: 8}, 7)
	for b.Loop() {
		d.Next()
	}
}
