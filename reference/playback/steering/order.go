package steering

import (
	"slices"

	"github.com/tminus-live/tminus/reference/spread"
)

// Edge is what steering knows of an edge.
type Edge struct {
	ID     string // "us-east-1"
	Region string // "us-east"
}

// Map is the edges of a topology, by region; build it once. It is safe for concurrent use.
type Map struct {
	edges   []Edge
	regions []string
	members [][]int // by region: indices into edges
}

// NewMap arranges edges by region; both keep their order.
func NewMap(edges []Edge) *Map {
	m := &Map{edges: edges}
	index := make(map[string]int)
	for i, e := range edges {
		r, ok := index[e.Region]
		if !ok {
			r = len(m.regions)
			index[e.Region] = r
			m.regions = append(m.regions, e.Region)
			m.members = append(m.members, nil)
		}
		m.members[r] = append(m.members[r], i)
	}
	return m
}

// Edges returns the edges that the map was built from. Nobody may write to them.
func (m *Map) Edges() []Edge { return m.edges }

// Regions returns the regions in the order of their first edges. Nobody may write to them.
func (m *Map) Regions() []string { return m.regions }

// Region returns a region's index in Regions, and -1 when the map has no such region.
func (m *Map) Region(name string) int {
	for i, r := range m.regions {
		if r == name {
			return i
		}
	}
	return -1
}

// Order appends to dst the indices of all edges in the order in which a viewer should use them: the healthy edges of the
// home region first, then the other regions' healthy ones, then the rest in the same manner. Inside a region, and among the
// other regions, the viewer's hash decides who is first, so that load spreads evenly, also that of a region that died.
// home is an index of Regions; outside it the hash picks one. healthy says how edge i is.
func (m *Map) Order(dst []int, viewer uint64, home int, healthy func(edge int) bool) []int {
	n := len(m.regions)
	if n == 0 {
		return dst
	}
	others := spread.Mix(viewer ^ 0x7265_6769_6f6e)
	if home < 0 || home >= n {
		home = int(others % uint64(n))
	}
	within := spread.Mix(viewer)
	var few [64]bool
	health, sick := few[:0], false
	for i := range m.edges {
		ok := healthy(i)
		health, sick = append(health, ok), sick || !ok
	}
	for _, want := range [2]bool{true, false} {
		if !want && !sick {
			break
		}
		dst = m.rotate(dst, home, within, want, health)
		for i := range n - 1 {
			// The n−1 others in a circle that starts at one of them.
			r := (home + 1 + (i+int(others%uint64(n-1)))%(n-1)) % n
			dst = m.rotate(dst, r, within, want, health)
		}
	}
	return dst
}

// rotate appends the edges of region r whose health is as wanted, starting at the one that the hash picks among those.
// Rotating among these only keeps the load even when one is out: with a fixed circle its neighbour would get its whole share.
func (m *Map) rotate(dst []int, r int, hash uint64, want bool, health []bool) []int {
	start := len(dst)
	for _, i := range m.members[r] {
		if health[i] == want {
			dst = append(dst, i)
		}
	}
	if part := dst[start:]; len(part) > 1 {
		k := int(hash % uint64(len(part)))
		slices.Reverse(part[:k])
		slices.Reverse(part[k:])
		slices.Reverse(part)
	}
	return dst
}

// Hash is a viewer's hash (64-bit FNV-1a, finished by Order itself).
func Hash[T string | []byte](viewer T) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(viewer) {
		h = (h ^ uint64(viewer[i])) * 0x100000001b3
	}
	return h
}
