package edge

import (
	"container/list"
	"time"
)

// object is one answer of an origin, or one made up for it. It never changes once it is stored.
type object struct {
	status      int
	contentType string
	pipeline    string // header Tminus-Pipeline
	body        []byte
	stored      time.Time
	age         time.Duration // upstream's Age when it was stored
	ttl         time.Duration
	maxAge      string // upstream's Cache-Control
}

func (o *object) fresh(now time.Time) bool { return now.Sub(o.stored) < o.ttl }

// overhead is what an entry costs beside its body, about: key, headers, list and map.
const overhead = 1024

func (o *object) cost() int64 { return int64(len(o.body)) + overhead }

// cache is a least-recently-used cache bounded by bytes. It is not safe for concurrent use.
type cache struct {
	maxBytes int64
	bytes    int64
	order    list.List // of *entry, most recently used first
	entries  map[string]*list.Element
}

type entry struct {
	key string
	obj *object
}

func newCache(maxBytes int64) *cache {
	return &cache{maxBytes: maxBytes, entries: make(map[string]*list.Element)}
}

// get returns the object under key while it is fresh.
func (c *cache) get(key string, now time.Time) *object {
	el := c.entries[key]
	if el == nil {
		return nil
	}
	e := el.Value.(*entry)
	if !e.obj.fresh(now) {
		c.remove(el)
		return nil
	}
	c.order.MoveToFront(el)
	return e.obj
}

// put stores an object, and drops the least recently used ones beyond the bound. An object that may not be kept, or
// that would take more than a quarter of the cache, is not stored.
func (c *cache) put(key string, o *object) {
	if el := c.entries[key]; el != nil {
		c.remove(el)
	}
	if o.ttl <= 0 || o.cost() > c.maxBytes/4 {
		return
	}
	c.entries[key] = c.order.PushFront(&entry{key, o})
	c.bytes += o.cost()
	for c.bytes > c.maxBytes {
		c.remove(c.order.Back())
	}
}

// expire drops stale entries among the n least recently used ones.
func (c *cache) expire(now time.Time, n int) {
	for el := c.order.Back(); el != nil && n > 0; n-- {
		prev := el.Prev()
		if !el.Value.(*entry).obj.fresh(now) {
			c.remove(el)
		}
		el = prev
	}
}

func (c *cache) remove(el *list.Element) {
	e := el.Value.(*entry)
	c.order.Remove(el)
	delete(c.entries, e.key)
	c.bytes -= e.obj.cost()
}
