package starts

import (
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

// ceiling is how many requests a shard may send beyond the schedule's own: its part of what these leave of each second. It reads
// no clock.
type ceiling struct {
	rate       float64 // requests a second, of all shards; 0: as many as there are
	schedule   *audience.Schedule
	id, shards int

	second int64 // that left is of
	left   int
}

func newCeiling(c *Config, id int) ceiling {
	return ceiling{rate: c.MaxRate, schedule: c.Schedule, id: id, shards: c.Shards, second: -1}
}

// take reports whether there is room for one more at now, and takes it.
func (c *ceiling) take(now time.Duration) bool {
	if c.rate == 0 {
		return true
	}
	if k := int64(now / time.Second); k != c.second {
		c.second = k
		from := time.Duration(k) * time.Second
		room := int(max(c.rate-float64(c.schedule.Count(from+time.Second)-c.schedule.Count(from)), 0))
		c.left = room*(c.id+1)/c.shards - room*c.id/c.shards
	}
	if c.left == 0 {
		return false
	}
	c.left--
	return true
}

// next is when there is room again, at the earliest.
func (c *ceiling) next(now time.Duration) time.Duration { return (now/time.Second + 1) * time.Second }
