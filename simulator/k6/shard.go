package k6

import (
	"errors"
	"fmt"
	"strconv"

	"go.k6.io/k6/lib"
)

// shard is a pod's share of the crowd: the starts i, i+of, i+2·of …
type shard struct{ i, of int }

// shardOf says which share this process takes: the script's own word, or TMINUS_SHARD=i/of, or what k6's execution segment
// says, which is how the k6 operator's parallelism reaches a pod. An error where the segments are not of one size: the
// schedule has no halves of a start.
func shardOf(o *shardOption, env func(string) string, opts lib.Options) (shard, error) {
	if o != nil {
		return shard{o.I, o.Of}, nil
	}
	if v := env("TMINUS_SHARD"); v != "" {
		var s shard
		if n, err := fmt.Sscanf(v, "%d/%d", &s.i, &s.of); n != 2 || err != nil || s.of < 1 || s.i < 0 || s.i >= s.of || v != strconv.Itoa(s.i)+"/"+strconv.Itoa(s.of) {
			return shard{}, fmt.Errorf("TMINUS_SHARD=%q: want i/of, such as 0/4 for the first of four", clip(v))
		}
		return s, nil
	}
	seg := opts.ExecutionSegment
	if seg == nil {
		return shard{0, 1}, nil
	}
	if seq := opts.ExecutionSegmentSequence; seq != nil && len(*seq) > 0 {
		own := -1
		for j, s := range *seq {
			if d := s.FloatLength() - (*seq)[0].FloatLength(); d > 1e-9 || d < -1e-9 {
				return shard{}, errors.New("k6's execution segments are not of one size: give every pod its shard: {i, of}")
			}
			if s.Equal(seg) {
				own = j
			}
		}
		if own >= 0 {
			return shard{own, len(*seq)}, nil
		}
	}
	return shard{}, errors.New("k6 has an execution segment and no sequence that holds it: give every pod its shard: {i, of}, or --execution-segment-sequence")
}

// part is the shard's part of n things.
func (s shard) part(n int) int { return (n - s.i + s.of - 1) / s.of }
