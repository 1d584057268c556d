package audience

import "fmt"

// portion says which starts of a schedule, or viewers of a crowd, one of several generators takes: every of-th, from the
// first on. The zero value takes all.
type portion struct{ first, of uint64 }

// index is the number, among all, of the k-th of the portion.
func (p portion) index(k uint64) uint64 {
	if p.of == 0 {
		return k
	}
	return p.first + k*p.of
}

// count is how many of the first n are in the portion.
func (p portion) count(n uint64) uint64 {
	switch {
	case p.of == 0:
		return n
	case n <= p.first:
		return 0
	}
	return (n-p.first-1)/p.of + 1
}

// rate is the portion's part of a rate.
func (p portion) rate(r float64) float64 {
	if p.of == 0 {
		return r
	}
	return r / float64(p.of)
}

func newPortion(i, n int) (portion, error) {
	if n < 1 || i < 0 || i >= n {
		return portion{}, fmt.Errorf("shard %d of %d: want 0 to n-1 of n", i, n)
	}
	return portion{uint64(i), uint64(n)}, nil
}

// Shard is the i-th generator's part (from 0) of a schedule that n generators send together: the starts i, i+n, i+2n …,
// each at its own time. With the Crowd's Shard of the same i and n, all of them together send exactly the starts, by exactly
// the viewers, that one generator would have sent. A shard is not sharded again.
func (s *Schedule) Shard(i, n int) (*Schedule, error) {
	p, err := newPortion(i, n)
	if err != nil {
		return nil, err
	}
	if s.part.of != 0 {
		return nil, fmt.Errorf("shard %d of %d of a schedule that is a shard", i, n)
	}
	c := *s
	c.part = p
	return &c, nil
}

// Shard is the crowd as the i-th of n generators counts it: its k-th viewer is viewer i+k·n.
func (c *Crowd) Shard(i, n int) (*Crowd, error) {
	p, err := newPortion(i, n)
	if err != nil {
		return nil, err
	}
	if c.part.of != 0 {
		return nil, fmt.Errorf("shard %d of %d of a crowd that is a shard", i, n)
	}
	d := *c
	d.part = p
	return &d, nil
}
