package experiment

import (
	"math"
	"math/rand/v2"
	"testing"
)

func close4(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if !(math.Abs(got-want) <= by) {
		t.Errorf("%s: %.6f, want %.6f", what, got, want)
	}
}

// Newcombe 1998, table II, method 10.
func TestSharesOfThePaper(t *testing.T) {
	for _, c := range []struct {
		b, a      Share // the paper subtracts the second from the first
		low, high float64
	}{
		{Share{56, 70}, Share{48, 80}, 0.0524, 0.3339},
		{Share{9, 10}, Share{3, 10}, 0.1705, 0.8090},
		{Share{6, 7}, Share{2, 7}, 0.0582, 0.8062},
		{Share{5, 56}, Share{0, 29}, -0.0381, 0.1926},
		{Share{0, 10}, Share{0, 20}, -0.1611, 0.2775},
		{Share{0, 10}, Share{0, 10}, -0.2775, 0.2775},
		{Share{10, 10}, Share{0, 20}, 0.6791, 1},
		{Share{10, 10}, Share{0, 10}, 0.6075, 1},
	} {
		d, i, ok := Shares(c.a, c.b)
		if !ok {
			t.Fatalf("%v − %v: no interval", c.b, c.a)
		}
		close4(t, "difference", d, c.b.value()-c.a.value(), 1e-12)
		close4(t, "low", i.Low, c.low, 0.00006)
		close4(t, "high", i.High, c.high, 0.00006)
	}
	for _, c := range [][2]Share{{{0, 0}, {1, 2}}, {{1, 2}, {0, 0}}, {{3, 2}, {1, 2}}} {
		if _, _, ok := Shares(c[0], c[1]); ok {
			t.Errorf("an interval of %v", c)
		}
	}
}

// Student's sleep data as R's t.test prints them, and the first example of Welch's test that Wikipedia gives.
func TestMeansOfPublishedExamples(t *testing.T) {
	first := MomentsOf([]float64{0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2})
	second := MomentsOf([]float64{1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4})
	d, i, ok := Means(second, first)
	if !ok {
		t.Fatal("no interval")
	}
	close4(t, "difference", d, 0.75-2.33, 1e-9)
	close4(t, "low", i.Low, -3.3654832104, 1e-7)
	close4(t, "high", i.High, 0.2054832104, 1e-7)
	if i.Significant() {
		t.Error("an interval with zero in it is no difference")
	}

	a1 := MomentsOf([]float64{27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4})
	a2 := MomentsOf([]float64{27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4})
	d, i, _ = Means(a1, a2)
	close4(t, "t", d/math.Sqrt(a1.se2()+a2.se2()), 2.46, 0.005)
	if !i.Significant() || i.Low < 0 { // p = 0.021
		t.Errorf("%+v, want one above zero", i)
	}
	for _, m := range []Moments{{}, {N: 1, Mean: 3}} {
		if _, _, ok := Means(m, a1); ok {
			t.Errorf("an interval of %+v", m)
		}
	}
}

// Tables of the t distribution, 97.5 %.
func TestStudent(t *testing.T) {
	for degrees, want := range map[float64]float64{1: 12.7062, 2: 4.3027, 5: 2.5706, 10: 2.2281, 30: 2.0423, 120: 1.9799, 1e5: 1.95999, 1e9: 1.95996} {
		close4(t, "t", student(0.975, degrees), want, 0.00006)
	}
	close4(t, "z", normal(0.975), 1.959964, 1e-6)
}

// covered is how often, of so many experiments, the interval holds the true difference.
func covered(runs int, one func(rng *rand.Rand) (Interval, float64)) float64 {
	rng := rand.New(rand.NewPCG(7, 7))
	in := 0
	for range runs {
		if i, truth := one(rng); i.Low <= truth && truth <= i.High {
			in++
		}
	}
	return float64(in) / float64(runs)
}

// Newcombe's own evaluation finds a mean coverage of 0.9602 for method 10, never below 0.8673.
func TestCoverageOfShares(t *testing.T) {
	for _, c := range []struct {
		na, nb uint64
		pa, pb float64
	}{
		{20, 20, 0.5, 0.5}, {40, 30, 0.05, 0.05}, {40, 30, 0.02, 0.3}, {500, 400, 0.001, 0.02}, {5000, 4000, 0.01, 0.01},
	} {
		draw := func(rng *rand.Rand, n uint64, p float64) Share {
			s := Share{N: n}
			for range n {
				if rng.Float64() < p {
					s.Cases++
				}
			}
			return s
		}
		got := covered(2000, func(rng *rand.Rand) (Interval, float64) {
			_, i, _ := Shares(draw(rng, c.na, c.pa), draw(rng, c.nb, c.pb))
			return i, c.pb - c.pa
		})
		if got < 0.93 {
			t.Errorf("%+v: %.3f of the intervals hold the truth", c, got)
		}
	}
}

func TestCoverageOfMeans(t *testing.T) {
	normals := func(rng *rand.Rand, n int, mean, sigma float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = mean + sigma*rng.NormFloat64()
		}
		return v
	}
	for _, c := range []struct {
		na, nb         int
		sigmaA, sigmaB float64
	}{{20, 20, 1, 1}, {10, 40, 5, 1}, {40, 10, 5, 1}, {300, 200, 1, 3}} {
		got := covered(1500, func(rng *rand.Rand) (Interval, float64) {
			_, i, _ := Means(MomentsOf(normals(rng, c.na, 6, c.sigmaA)), MomentsOf(normals(rng, c.nb, 7, c.sigmaB)))
			return i, 1
		})
		if got < 0.93 || got > 0.97 {
			t.Errorf("%+v: %.3f of the intervals hold the truth", c, got)
		}
	}
}

// Figures of viewers are skewed: start-up times have a long tail, and most viewers never stall.
func TestCoverageOfSkewedMeans(t *testing.T) {
	startup := func(rng *rand.Rand) float64 { return 0.6 * math.Exp(0.6*rng.NormFloat64()) }
	stalls := func(rng *rand.Rand) float64 { // one viewer in three, for an exponential while
		if rng.Float64() < 1./3 {
			return 6 * rng.ExpFloat64()
		}
		return 0
	}
	for _, c := range []struct {
		name        string
		draw        func(*rand.Rand) float64
		mean, times float64 // of the baseline; the canary's are so many times as large
		na, nb      int
		least       float64
	}{
		{"start-up times, the same", startup, 0.6 * math.Exp(0.18), 1, 40, 40, 0.93},
		{"start-up times, doubled", startup, 0.6 * math.Exp(0.18), 2, 60, 40, 0.92},
		{"stalls, the same", stalls, 2, 1, 40, 40, 0.92},
		{"stalls, five times", stalls, 2, 5, 50, 50, 0.92},
	} {
		got := covered(300, func(rng *rand.Rand) (Interval, float64) {
			a, b := make([]float64, c.na), make([]float64, c.nb)
			for i := range a {
				a[i] = c.draw(rng)
			}
			for i := range b {
				b[i] = c.times * c.draw(rng)
			}
			_, i, _ := SkewedMeans(a, b, rng.Uint64())
			return i, c.mean * (c.times - 1)
		})
		t.Logf("%s: %.3f", c.name, got)
		if got < c.least {
			t.Errorf("%s: %.3f of the intervals hold the truth", c.name, got)
		}
	}
}

// Two viewers who fare alike, and two others who do, say nothing of how much viewers differ.
func TestNoIntervalWithoutSpread(t *testing.T) {
	for _, c := range [][2][]float64{
		{{0, 0}, {1, 1}},
		{{0, 0, 0, 0}, {1, 1, 1, 1}},
		{{0, 0, 0}, {0, 0}},
		{{950.4, 950.4, 950.4, 950.4 + 1e-12}, {950.4 - 1e-12, 950.4, 950.4}}, // rounding is no spread
	} {
		if d, i, ok := Means(MomentsOf(c[0]), MomentsOf(c[1])); ok {
			t.Errorf("%v against %v: %v, %v", c[1], c[0], d, i)
		}
		if d, i, ok := SkewedMeans(c[0], c[1], 7); ok {
			t.Errorf("%v against %v: %v, %v", c[1], c[0], d, i)
		}
	}
	if _, _, ok := Means(MomentsOf([]float64{0, 0}), MomentsOf([]float64{1, 2})); !ok {
		t.Error("one group has a spread")
	}
}

func TestSkewedMeansIsTheSameAgain(t *testing.T) {
	a, b := []float64{0, 0, 0, 1, 0, 3, 0, 0}, []float64{0, 4, 0, 9, 2, 0, 1, 30}
	d, one, ok := SkewedMeans(a, b, 7)
	_, two, _ := SkewedMeans(a, b, 7)
	if !ok || one != two || math.Abs(d-5.25) > 1e-12 {
		t.Errorf("%v, %v and %v", d, one, two)
	}
	if _, _, ok := SkewedMeans([]float64{1}, []float64{0, 0}, 7); ok {
		t.Error("an interval of one sample")
	}
}
