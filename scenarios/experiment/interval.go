package experiment

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Level is the confidence of every interval.
const Level = 0.95

// Interval is where a difference lies, with the confidence of Level, in the unit of the difference.
type Interval struct{ Low, High float64 }

// Significant says that the interval holds no zero: no difference at all is not among what the samples allow.
func (i Interval) Significant() bool { return i.Low > 0 || i.High < 0 }

// Share is so many cases out of N.
type Share struct{ Cases, N uint64 }

func (s Share) value() float64 { return float64(s.Cases) / float64(s.N) }

// Shares returns the difference of two shares, b − a, and its hybrid score interval, both as fractions, of which the caller
// makes per cent: method 10 of Newcombe, "Interval estimation for the difference between independent proportions: comparison
// of eleven methods" (Statistics in Medicine 17, 1998), which keeps its level where shares are 0 or 1. It is false where a
// group has no cases to count.
func Shares(a, b Share) (difference float64, _ Interval, ok bool) {
	if a.N == 0 || b.N == 0 || a.Cases > a.N || b.Cases > b.N {
		return 0, Interval{}, false
	}
	pa, pb := a.value(), b.value()
	la, ua := wilson(a)
	lb, ub := wilson(b)
	d := pb - pa
	return d, Interval{d - math.Hypot(pb-lb, ua-pa), d + math.Hypot(ub-pb, pa-la)}, true
}

// wilson is the score interval of one share (Wilson, "Probable inference, the law of succession, and statistical
// inference", JASA 22, 1927).
func wilson(s Share) (low, high float64) {
	n, p, z := float64(s.N), s.value(), normal((1+Level)/2)
	middle := (2*n*p + z*z) / (2 * (n + z*z))
	half := z * math.Sqrt(z*z+4*n*p*(1-p)) / (2 * (n + z*z))
	return max(0, middle-half), min(1, middle+half)
}

// Moments is what the interval of a mean needs of its samples: the mean in the measure's unit, the variance, with N-1 below
// the line, in its square.
type Moments struct {
	N              uint64
	Mean, Variance float64
}

// MomentsOf computes the moments of samples.
func MomentsOf(values []float64) Moments {
	m := Moments{N: uint64(len(values))}
	if m.N == 0 {
		return m
	}
	for _, v := range values {
		m.Mean += v
	}
	m.Mean /= float64(m.N)
	if m.N > 1 {
		for _, v := range values {
			m.Variance += (v - m.Mean) * (v - m.Mean)
		}
		m.Variance /= float64(m.N - 1)
	}
	return m
}

// se2 is the squared standard error of the mean.
func (m Moments) se2() float64 { return m.Variance / float64(m.N) }

// alike is the standard error, as a fraction of the larger mean, up to which samples differ by their rounding alone.
const alike = 1e-9

// Means returns the difference of two means, b − a, and its interval, both in the measure's unit, after Welch, "The
// generalization of 'Student's' problem when several different population variances are involved" (Biometrika 34, 1947): for
// samples that are not very skewed, or many. It is false where a group has fewer than two samples, and where all samples of
// each group are alike: nothing tells by how much they could have differed.
func Means(a, b Moments) (difference float64, _ Interval, ok bool) {
	if a.N < 2 || b.N < 2 {
		return 0, Interval{}, false
	}
	d := b.Mean - a.Mean
	va, vb := a.se2(), b.se2()
	if math.Sqrt(va+vb) <= alike*max(math.Abs(a.Mean), math.Abs(b.Mean)) {
		return 0, Interval{}, false
	}
	degrees := (va + vb) * (va + vb) / (va*va/float64(a.N-1) + vb*vb/float64(b.N-1))
	half := student((1+Level)/2, degrees) * math.Sqrt(va+vb)
	return d, Interval{d - half, d + half}, true
}

const (
	// resamples: with more of them the ends of an interval move by less than a hundredth of its width.
	resamples = 2000
	// redrawn bounds how often a resample without any spread is drawn again: nothing can be studentised by it.
	redrawn = 10
	// enough samples in each group make the mean's distribution normal, however skewed the samples are.
	enough = 2000
)

// SkewedMeans is Means for samples most of which lie close together and a few far above them, in the same unit: a symmetric
// studentised bootstrap, whose level is off by far less than that of normal theory or of percentiles (Hall, "On symmetric
// bootstrap confidence intervals", Journal of the Royal Statistical Society B 50, 1988). The same seed and samples give the
// same interval.
func SkewedMeans(a, b []float64, seed uint64) (difference float64, _ Interval, ok bool) {
	ma, mb := MomentsOf(a), MomentsOf(b)
	d, normalTheory, ok := Means(ma, mb)
	se := math.Sqrt(ma.se2() + mb.se2())
	if !ok || min(len(a), len(b)) >= enough {
		return d, normalTheory, ok
	}
	rng := rand.New(rand.NewPCG(seed, 0x626f6f7473747261)) // a stream of its own: "bootstra"
	draw := func(from []float64) Moments {
		// In one pass, about a value near the mean so that squares do not cancel out.
		var n, sum, squares float64
		near := from[len(from)/2]
		for range from {
			v := from[rng.IntN(len(from))] - near
			n, sum, squares = n+1, sum+v, squares+v*v
		}
		mean := sum / n
		return Moments{N: uint64(len(from)), Mean: mean + near, Variance: max(0, squares-n*mean*mean) / (n - 1)}
	}
	ts := make([]float64, 0, resamples)
	for range resamples {
		for range redrawn {
			x, y := draw(a), draw(b)
			if s := math.Sqrt(x.se2() + y.se2()); s > 1e-9*se {
				ts = append(ts, math.Abs(y.Mean-x.Mean-d)/s)
				break
			}
		}
	}
	if len(ts) < resamples/2 {
		return d, normalTheory, true // nearly all samples are alike
	}
	slices.Sort(ts)
	half := ts[min(int(Level*float64(len(ts))), len(ts)-1)] * se
	return d, Interval{d - half, d + half}, true
}

// normal is a quantile of the normal distribution.
func normal(q float64) float64 { return math.Sqrt2 * math.Erfinv(2*q-1) }

// student is a quantile above the middle of Student's t distribution with so many degrees of freedom, which need not be
// whole.
func student(q, degrees float64) float64 {
	if degrees > 1e6 {
		return normal(q)
	}
	low, high := 0.0, 1.0
	for studentCDF(high, degrees) < q {
		high *= 2
	}
	for range 50 {
		middle := (low + high) / 2
		if studentCDF(middle, degrees) < q {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// studentCDF is the share of Student's t distribution below t, which is not negative.
func studentCDF(t, degrees float64) float64 {
	return 1 - beta(degrees/(degrees+t*t), degrees/2, 0.5)/2
}

// beta is the regularised incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17.22), by Lentz's
// evaluation of its continued fraction.
func beta(x, a, b float64) float64 {
	switch {
	case x <= 0:
		return 0
	case x >= 1:
		return 1
	case x > (a+1)/(a+b+2): // the fraction converges fast on the other side
		return 1 - beta(1-x, b, a)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab-la-lb+a*math.Log(x)+b*math.Log1p(-x)) / a
	const tiny = 1e-300
	c, d := 1.0, 1/nonzero(1-(a+b)*x/(a+1), tiny)
	f := d
	for m := 1.0; m <= 10_000; m++ {
		for _, k := range [2]float64{
			m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m)),
			-(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1)),
		} {
			d = 1 / nonzero(1+k*d, tiny)
			c = nonzero(1+k/c, tiny)
			f *= c * d
		}
		if math.Abs(c*d-1) < 1e-15 {
			break
		}
	}
	return front * f
}

func nonzero(v, tiny float64) float64 {
	if math.Abs(v) < tiny {
		return tiny
	}
	return v
}
