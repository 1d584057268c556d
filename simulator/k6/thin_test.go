package k6

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"go.k6.io/k6/metrics"
)

// crowds are distributions of latency (ms) that percentiles are hard to keep of: a long tail, two humps, a stall in the
// middle of the run, and steps of one bucket.
var crowds = map[string]func(rng *rand.Rand, at float64) float64{
	"log-normal": func(rng *rand.Rand, _ float64) float64 { return math.Exp(rng.NormFloat64() * 0.8) },
	"two humps": func(rng *rand.Rand, _ float64) float64 {
		if rng.Float64() < 0.93 {
			return 2 + 0.3*rng.NormFloat64()
		}
		return 400 + 60*rng.NormFloat64()
	},
	"a stall": func(rng *rand.Rand, at float64) float64 {
		if at > 0.5 && at < 0.55 {
			return 1000 * (0.55 - at) / 0.05
		}
		return 1 + rng.ExpFloat64()
	},
	"constant": func(*rand.Rand, float64) float64 { return 3.25 },
}

var levels = []float64{0.5, 0.9, 0.95, 0.99, 0.999}

// What k6's thresholds see of the samples is what they would have seen of every start: the percentile's rank among all
// values is off by some samples, its value by a bucket's width besides.
func TestThinningKeepsPercentiles(t *testing.T) {
	for name, draw := range crowds {
		for _, n := range []int{1000, 100_000, 2_000_000} {
			rng := rand.New(rand.NewPCG(7, uint64(n)))
			every := everyFor(uint64(n))
			if n <= maxSamples && every != 1 {
				t.Fatalf("%d values are thinned, one in %d", n, every)
			}
			series, sink := new(thin), metrics.NewTrendSink()
			all := make([]float64, n)
			for i := range all {
				v := draw(rng, float64(i)/float64(n))
				all[i] = v
				if series.pass(v, every) {
					sink.Add(metrics.Sample{Value: v})
				}
			}
			for _, v := range series.extremes() {
				sink.Add(metrics.Sample{Value: v})
			}
			slices.Sort(all)
			if sink.Min() != all[0] || sink.Max() != all[n-1] {
				t.Errorf("%s, %d values: min and max %v and %v, want %v and %v", name, n, sink.Min(), sink.Max(), all[0], all[n-1])
			}
			if want := float64(n) / float64(every); math.Abs(float64(sink.Count())-want) > 0.01*want+2 {
				t.Errorf("%s, %d values: %d samples, want about %.0f", name, n, sink.Count(), want)
			}
			for _, q := range levels {
				got := sink.P(q)
				// Where it stands among all: anywhere between its first and last equal, a bucket's width to both sides.
				from, _ := slices.BinarySearch(all, got*(1-1.0/256)-0.001)
				to, _ := slices.BinarySearch(all, got*(1+1.0/256)+0.001)
				low, high := float64(from)/float64(n), float64(to)/float64(n)
				slack := 0.0003 // 30 samples of 100,000
				if every == 1 {
					slack = 1 / float64(n)
				}
				if low-slack > q || high+slack < q {
					t.Errorf("%s, %d values, one in %d: p(%v) is %v, which is p(%.3f) to p(%.3f) of all", name, n, every, 100*q, got, 100*low, 100*high)
				}
				if own := series.quantile(q); math.Abs(own-at(all, q)) > at(all, q)/256+0.001 && n > 1000 {
					// A gap between two humps may lie at the rank: then both its ends are right.
					from, _ := slices.BinarySearch(all, own*(1-1.0/256)-0.001)
					if math.Abs(float64(from)/float64(n)-q) > 0.001 {
						t.Errorf("%s, %d values: the call's own p(%v) is %v, want %v", name, n, 100*q, own, at(all, q))
					}
				}
			}
		}
	}
}

func at(sorted []float64, q float64) float64 {
	i, part := math.Modf(q * float64(len(sorted)-1))
	v := sorted[int(i)]
	if part > 0 {
		v += part * (sorted[int(i)+1] - v)
	}
	return v
}

func TestThinningGrowsWithTheCrowd(t *testing.T) {
	series := new(thin)
	let := 0
	for i := range 300_000 {
		every := uint32(1)
		if i >= 100_000 {
			every = 20 // a second call, of more starts, thins more; what is let through is never doubled
		}
		if series.pass(5+float64(i%100)/100, every) {
			let++
		}
	}
	if want := 100_000 + 200_000/20; let < want-300 || let > want+300 {
		t.Errorf("%d let through, want about %d", let, want)
	}
}

func TestFailuresAreNeverThinnedAway(t *testing.T) {
	for _, tc := range []struct {
		good, bad int
		every     uint32
	}{{5_999_999, 1, 60}, {6_000_000, 0, 60}, {100, 100, 1}, {1_000_000, 300, 13}, {0, 1000, 60}} {
		var r thinRate
		sink := &metrics.RateSink{}
		for i := range tc.good + tc.bad {
			bad := i < tc.bad
			if r.pass(bad, tc.every) {
				v := 0.0
				if bad {
					v = 1
				}
				sink.Add(metrics.Sample{Value: v})
			}
		}
		got, want := float64(sink.Trues)/float64(sink.Total), float64(tc.bad)/float64(tc.good+tc.bad)
		slack := 2 * float64(tc.every) / float64(tc.good+tc.bad)
		if got < want || got > want+slack {
			t.Errorf("%d of %d failed, one in %d let through: rate %v, want %v and %v more at most", tc.bad, tc.good+tc.bad, tc.every, got, want, slack)
		}
	}
}

func TestHistogramHoldsAnything(t *testing.T) {
	last := -1
	for v := 0.0; v < 5e6; v = v*1.003 + 0.0005 {
		b := bucketOf(v)
		if b < last || b >= histogramBuckets {
			t.Fatalf("%v is in bucket %d after %d", v, b, last)
		}
		last = b
		if m := middle(b); v < math.MaxUint32/perUnit && math.Abs(m-v) > v/256+0.001 {
			t.Fatalf("%v is in the bucket of %v", v, m)
		}
	}
	var h histogram
	for _, v := range []float64{-1, 0, math.Inf(1), math.MaxFloat64, 1e12} {
		h.add(v)
	}
	if h.quantile(1) != math.Inf(1) || h.quantile(0) != -1 && h.quantile(0) != 0 {
		t.Errorf("%v to %v", h.quantile(0), h.quantile(1))
	}
}

func BenchmarkThin(b *testing.B) {
	series := new(thin)
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, 4096)
	for i := range values {
		values[i] = math.Exp(rng.NormFloat64())
	}
	i := 0
	for b.Loop() {
		series.pass(values[i&4095], 60)
		i++
	}
}
