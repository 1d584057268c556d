package ingest

import "slices"

// span is a run of sequence numbers, both ends included.
type span struct{ lo, hi uint64 }

// spans are the sequence numbers of one source that are stored: sorted, apart, and nearly always a single one, as a
// source numbers without gaps and Kafka keeps its order.
type spans []span

// add reports whether seq is new, and adds it.
func (s *spans) add(seq uint64) bool {
	v := *s
	if n := len(v); n > 0 && v[n-1].hi+1 == seq && seq != 0 {
		v[n-1].hi = seq
		return true
	}
	i, _ := slices.BinarySearchFunc(v, seq, func(x span, seq uint64) int {
		switch {
		case x.hi < seq:
			return -1
		case x.hi > seq:
			return 1
		}
		return 0
	}) // the first span that ends at or after seq
	if i < len(v) && v[i].lo <= seq {
		return false
	}
	before := i > 0 && v[i-1].hi+1 == seq
	after := i < len(v) && v[i].lo == seq+1
	switch {
	case before && after:
		v[i-1].hi = v[i].hi
		v = slices.Delete(v, i, i+1)
	case before:
		v[i-1].hi = seq
	case after:
		v[i].lo = seq
	default:
		v = slices.Insert(v, i, span{seq, seq})
	}
	*s = v
	return true
}
