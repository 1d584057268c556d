package k6

import (
	"math"
	"math/bits"
)

// A k6 trend keeps every sample that it is given and sorts them all each time a threshold is looked at. A hundred thousand
// play starts a second for a minute would be six million floats for each trend, sorted every two seconds on the core that is to
// send the next start. So of a large crowd only one in every n values becomes a sample, chosen such that the percentiles of the
// samples are those of the crowd: values are counted in the buckets of a histogram, and each bucket lets every n-th of its own
// through. Every sample then stands for n values near its own, wherever in the distribution it lies.
//
// How exact that is: with n = 1 (up to maxSamples values a call) exact. Above, a bucket's share of the samples differs from its
// share of the crowd by less than one sample; where within its first n values a bucket lets one through is spread by the golden
// ratio, so that these differences cancel out between neighbours instead of adding up. The rank of a percentile is off by some
// samples in maxSamples, its value by no more than what lies between these ranks. The smallest and the largest value are added
// at the end of a call: min and max are always the crowd's own.

// maxSamples is how many samples one call gives each of its trends, about.
const maxSamples = 100_000

// everyFor is n for a crowd of so many values.
func everyFor(values uint64) uint32 {
	return uint32(min((values+maxSamples-1)/maxSamples, math.MaxUint32))
}

// histogram counts values in buckets that are 1/256 (0.4 %) wide or less, from 0.001 to four million, in constant memory.
type histogram struct {
	buckets  [histogramBuckets]uint64
	n        uint64
	sum      float64
	min, max float64
}

const (
	subBits          = 8
	histogramBuckets = (33 - subBits) << subBits
	perUnit          = 1000 // a bucket of the smallest values is 1/1000 wide: a microsecond, where values are milliseconds
)

// bucketOf is the bucket of a value; what is below 0 or above the last bucket counts in the first or the last.
func bucketOf(v float64) int {
	u := uint64(math.MaxUint32)
	if v < math.MaxUint32/perUnit {
		u = uint64(max(0, v)*perUnit + 0.5)
	}
	if u < 2<<subBits {
		return int(u)
	}
	shift := bits.Len64(u) - subBits - 1
	return shift<<subBits + int(u>>shift)
}

// middle is the value in the middle of a bucket.
func middle(b int) float64 {
	if b < 2<<subBits {
		return float64(b) / perUnit
	}
	shift := b>>subBits - 1
	from := uint64(b-shift<<subBits) << shift
	return (float64(from) + float64(uint64(1)<<shift)/2 - 0.5) / perUnit
}

func (h *histogram) add(v float64) (bucket int) {
	bucket = bucketOf(v)
	h.buckets[bucket]++
	if h.n == 0 || v < h.min {
		h.min = v
	}
	if h.n == 0 || v > h.max {
		h.max = v
	}
	h.n++
	h.sum += v
	return bucket
}

// quantile is the value at level q (0 to 1), within a bucket's width, interpolated between the closest ranks as k6 does it
// (both ends included); 0 of nothing.
func (h *histogram) quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	rank := q * float64(h.n-1)
	low, part := math.Modf(rank)
	v := h.ranked(uint64(low))
	if part > 0 {
		v += part * (h.ranked(uint64(low)+1) - v)
	}
	return v
}

// ranked is the value of a rank from 0 on.
func (h *histogram) ranked(rank uint64) float64 {
	if rank >= h.n-1 {
		return h.max
	}
	var seen uint64
	for b, n := range h.buckets {
		if seen += n; seen > rank {
			return min(max(middle(b), h.min), h.max)
		}
	}
	return h.max
}

func (h *histogram) mean() float64 {
	if h.n == 0 {
		return 0
	}
	return h.sum / float64(h.n)
}

// thin lets one in every so many of its values through.
type thin struct {
	histogram
	credit   [histogramBuckets]uint32
	let      uint64
	least    float64 // of those let through
	greatest float64
}

// pass counts a value and says whether it becomes a sample. every may grow between two values, never shrink.
func (t *thin) pass(v float64, every uint32) bool {
	b := t.add(v)
	if every > 1 {
		if t.buckets[b] == 1 {
			_, phase := math.Modf(float64(b) * (math.Phi - 1))
			t.credit[b] = uint32(phase * float64(every))
		}
		if t.credit[b]++; t.credit[b] < every {
			return false
		}
		t.credit[b] -= every
	}
	t.note(v)
	return true
}

func (t *thin) note(v float64) {
	if t.let == 0 || v < t.least {
		t.least = v
	}
	if t.let == 0 || v > t.greatest {
		t.greatest = v
	}
	t.let++
}

// extremes are the smallest and the largest value, where they have not been let through.
func (t *thin) extremes() (missing []float64) {
	if t.n == 0 {
		return nil
	}
	if t.let == 0 || t.max > t.greatest {
		missing = append(missing, t.max)
	}
	if t.min < t.max && (t.let == 0 || t.min < t.least) {
		missing = append(missing, t.min)
	}
	for _, v := range missing {
		t.note(v)
	}
	return missing
}

// thinRate lets one in every so many of its yes and no through: of failures the first, the (n+1)th …, of the others the n-th, the
// 2n-th …: one failure among millions is seen at once, and a rate is never told better than it is, by a sample at most.
type thinRate struct{ bad, good uint64 }

// pass counts one and says whether it becomes a sample.
func (t *thinRate) pass(bad bool, every uint32) bool {
	n, first := &t.good, uint64(every)-1
	if bad {
		n, first = &t.bad, 0
	}
	*n++
	return (*n-1)%uint64(every) == first
}
