package link

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	ms   = time.Millisecond
	size = 1316 + 28
)

// send sends n packets, one every so often, and returns what became of each.
func send(l *Link, n int, every time.Duration) [][]Delivery {
	all := make([][]Delivery, n)
	for i := range all {
		out, copies := l.Send(time.Duration(i)*every, size)
		all[i] = append([]Delivery(nil), out[:copies]...)
	}
	return all
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within*want {
		t.Errorf("%s: %g, want %g within %g %%", what, got, want, 100*within)
	}
}

func TestAPathThatDoesNothing(t *testing.T) {
	var none Impairment
	if !none.None() || none.Validate() != nil {
		t.Fatal("the zero value does nothing")
	}
	for i, d := range send(New(none), 1000, ms) {
		if want := []Delivery{{At: time.Duration(i) * ms, CorruptBit: -1}}; !reflect.DeepEqual(d, want) {
			t.Fatalf("packet %d arrives as %v, want %v", i, d, want)
		}
	}
}

func TestLossIsTheDroppersWhateverElseHappens(t *testing.T) {
	loss := Loss{Model: GilbertElliott, Share: 0.05, Burst: 8}
	everything := Impairment{Loss: loss, Delay: 50 * ms, Jitter: 20 * ms, Reorder: true, Duplicate: 0.3, Corrupt: 0.2, Seed: 7}
	for name, i := range map[string]Impairment{"loss alone": {Loss: loss, Seed: 7}, "loss among others": everything} {
		l, d := New(i), NewDropper(loss, 7)
		for n := range 100_000 {
			_, copies := l.Send(time.Duration(n)*ms, size)
			if lost := d.Next(); lost != (copies == 0) {
				t.Fatalf("%s: packet %d arrives %d times, and the dropper says lost: %v", name, n, copies, lost)
			}
		}
	}
}

func TestAMillionPacketsLoseWhatTheModelSays(t *testing.T) {
	l := New(Impairment{Loss: Loss{Model: GilbertElliott, Share: 0.05, Burst: 8}, Delay: 10 * ms, Seed: 11})
	const packets = 1_000_000
	lost, bursts, before := 0, 0, false
	for n := range packets {
		_, copies := l.Send(time.Duration(n)*time.Microsecond, size)
		if copies == 0 {
			lost++
			if !before {
				bursts++
			}
		}
		before = copies == 0
	}
	near(t, "share", float64(lost)/packets, 0.05, 0.05)
	near(t, "burst", float64(lost)/float64(bursts), 8, 0.05)
}

func TestACutLetsNothingPass(t *testing.T) {
	l := New(Impairment{Cut: true, Duplicate: 1})
	for n, d := range send(l, 1000, ms) {
		if len(d) != 0 || l.Fate() != Lost {
			t.Fatalf("packet %d arrives %d times", n, len(d))
		}
	}
}

func TestDelayIsTheSameForAll(t *testing.T) {
	for i, d := range send(New(Impairment{Delay: 20 * ms}), 1000, ms) {
		if got := d[0].At - time.Duration(i)*ms; got != 20*ms {
			t.Fatalf("packet %d takes %s", i, got)
		}
	}
}

func TestJitterWithoutReorderingNeverOvertakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		delay := time.Duration(rapid.Int64Range(1, int64(time.Second)).Draw(t, "delay"))
		i := Impairment{
			Delay: delay, Jitter: time.Duration(rapid.Int64Range(0, int64(delay)).Draw(t, "jitter")),
			Rate: rapid.SampledFrom([]float64{0, 1e5, 1e7}).Draw(t, "rate"), Seed: rapid.Uint64().Draw(t, "seed"),
		}
		l := New(i)
		free := New(i) // without the guard against rounding, which could hide a step back
		now, last := time.Duration(0), time.Duration(0)
		for range 200 {
			now += time.Duration(rapid.Int64Range(0, int64(50*ms)).Draw(t, "apart"))
			free.last = 0
			out, n := l.Send(now, size)
			bare, _ := free.Send(now, size)
			if n == 0 {
				continue
			}
			if out[0].At < last {
				t.Fatalf("a packet sent at %s arrives at %s, one before it at %s", now, out[0].At, last)
			}
			if out[0].At-bare[0].At > 2 { // ns
				t.Fatalf("the course of the delay steps back by %s", out[0].At-bare[0].At)
			}
			last = out[0].At
		}
	})
}

func TestJitterIsOfTheSizeAskedFor(t *testing.T) {
	for _, reorder := range []bool{false, true} {
		for _, apart := range []time.Duration{10 * time.Microsecond, ms, 30 * ms} {
			i := Impairment{Delay: 50 * ms, Jitter: 20 * ms, Reorder: reorder, Seed: 3}
			least, most, sum, late := time.Hour, time.Duration(0), 0.0, 0
			last := time.Duration(0)
			n := int(20 * time.Second / apart)
			for k, d := range send(New(i), n, apart) {
				delay := d[0].At - time.Duration(k)*apart
				least, most, sum = min(least, delay), max(most, delay), sum+delay.Seconds()
				if d[0].At < last {
					late++
				}
				last = max(last, d[0].At)
			}
			near(t, "mean delay", sum/float64(n), 0.050, 0.05)
			if least < 30*ms || most > 70*ms || least > 33*ms || most < 67*ms {
				t.Errorf("reorder %v, %s apart: the delay is between %s and %s, want 30ms and 70ms", reorder, apart, least, most)
			}
			if overtakes := late > 0; overtakes != reorder {
				t.Errorf("reorder %v, %s apart: %d of %d packets were overtaken", reorder, apart, late, n)
			}
		}
	}
}

func TestDuplicatesAndCorruption(t *testing.T) {
	const packets = 100_000
	twice, corrupt, bits := 0, 0, map[int]bool{}
	for _, d := range send(New(Impairment{Duplicate: 0.1, Corrupt: 0.2, Seed: 5}), packets, ms) {
		if len(d) == 2 {
			twice++
		}
		if bit := d[0].CorruptBit; bit >= 0 {
			corrupt++
			bits[bit] = true
			if bit >= size*8 {
				t.Fatalf("bit %d of a packet of %d", bit, size*8)
			}
		}
	}
	near(t, "duplicates", float64(twice)/packets, 0.1, 0.05)
	near(t, "corrupt", float64(corrupt)/packets, 0.2, 0.05)
	if len(bits) < size*8/2 {
		t.Errorf("only %d bits of %d are ever flipped", len(bits), size*8)
	}
	if out, n := New(Impairment{Corrupt: 1}).Send(0, 0); n != 1 || out[0].CorruptBit != -1 {
		t.Error("there is no bit to flip in nothing")
	}
}

func TestARatePassesWhatItSays(t *testing.T) {
	const rate = 10e6
	l := New(Impairment{Rate: rate, Delay: 5 * ms})
	var bits float64
	var last time.Duration
	for n := range 20_000 { // 21.5 Mb/s for 10 s
		if out, copies := l.Send(time.Duration(n)*500*time.Microsecond, size); copies == 1 {
			bits += size * 8
			last = out[0].At
		}
	}
	near(t, "rate", bits/(last-5*ms).Seconds(), rate, 0.01)
}

func TestAQueueDropsAtItsTail(t *testing.T) {
	l := New(Impairment{Rate: 1e6, Queue: 10 * size})
	for n := range 12 {
		out, copies := l.Send(0, size)
		if want := n < 10; want != (copies == 1) {
			t.Fatalf("packet %d of 12 into a queue of 10 arrives %d times", n, copies)
		}
		if n == 11 && l.Fate() != NoRoom {
			t.Errorf("its fate is %d, want NoRoom", l.Fate())
		}
		if n == 9 {
			near(t, "the wait of the last", out[0].At.Seconds(), 10*size*8/1e6, 0.001)
			near(t, "Longest", Impairment{Rate: 1e6, Queue: 10 * size}.Longest().Seconds(), out[0].At.Seconds(), 0.001)
		}
	}
	if _, copies := l.Send(time.Second, size); copies != 1 {
		t.Error("a second later there is room again")
	}
}

func TestFlowsShareABottleneck(t *testing.T) {
	b := NewBottleneck(1e6, 0)
	one, other := NewOn(Impairment{}, b), NewOn(Impairment{}, b)
	first, _ := one.Send(0, size)
	second, _ := other.Send(0, size)
	if second[0].At != 2*first[0].At {
		t.Errorf("the second leaves at %s, the first at %s", second[0].At, first[0].At)
	}
}

func TestSameSeedSameDeliveries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := Impairment{
			Loss: Loss{Share: rapid.Float64Range(0, 1).Draw(t, "loss")}, Delay: 50 * ms, Jitter: 10 * ms, Reorder: rapid.Bool().Draw(t, "reorder"),
			Duplicate: 0.2, Corrupt: 0.2, Rate: 1e7, Seed: rapid.Uint64().Draw(t, "seed"),
		}
		if err := i.Validate(); err != nil {
			t.Fatal(err)
		}
		a, b := send(New(i), 500, ms), send(New(i), 500, ms)
		if !reflect.DeepEqual(a, b) {
			t.Fatal("the same seed made something else")
		}
	})
	a := send(New(Impairment{Corrupt: 0.5, Seed: 1}), 100, ms)
	if b := send(New(Impairment{Corrupt: 0.5, Seed: 2}), 100, ms); reflect.DeepEqual(a, b) {
		t.Error("another seed makes the same")
	}
	if Flow(7, 0) != 7 || Flow(7, 1) == 7 || Flow(7, 1) == Flow(7, 2) {
		t.Error("flow 0 has the impairment's seed, others have their own")
	}
}

func TestValidateSaysEverything(t *testing.T) {
	err := Impairment{Loss: Loss{Share: 2}, Delay: -1, Jitter: 5 * ms, Duplicate: -0.1, Corrupt: math.NaN(), Rate: -1, Queue: -1}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, word := range []string{"share", "duplicate", "corrupt", "delay", "jitter", "rate", "queue"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("nothing is said of %s: %v", word, err)
		}
	}
	for _, i := range []Impairment{{Reorder: true}, {Queue: 5000}, {Delay: ms, Jitter: 2 * ms}} {
		if i.Validate() == nil {
			t.Errorf("%+v is valid", i)
		}
	}
	fine := Impairment{Loss: Loss{Model: GilbertElliott, Share: 0.05, Burst: 8}, Delay: ms, Jitter: ms, Reorder: true, Duplicate: 1, Corrupt: 1, Rate: 1e6, Queue: 1}
	if err := fine.Validate(); err != nil {
		t.Error(err)
	}
}
