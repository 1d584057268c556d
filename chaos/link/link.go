package link

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Limits of an Impairment.
const (
	MaxDelay = time.Minute
	MaxRate  = 1e12    // bit/s
	MaxQueue = 1 << 30 // bytes

	// queueTime is what a queue holds when nobody says: as much as the rate carries in that time, leastQueue at least.
	queueTime  = 200 * time.Millisecond
	leastQueue = 10 * 1500 // bytes

	// noCorruption: a Delivery's bits are as they were sent.
	noCorruption = -1
)

// Impairment is what one direction of a path does to packets. The zero value does nothing.
type Impairment struct {
	Loss      Loss
	Delay     time.Duration // added to each packet
	Jitter    time.Duration // the delay varies by so much to either side; at most Delay
	Reorder   bool          // each packet's delay is its own, so that one may overtake another; else the delay drifts and none does
	Duplicate float64       // share of packets that arrive twice, 0..1
	Corrupt   float64       // share of packets that arrive with one bit flipped, 0..1
	Rate      float64       // bit/s that pass, by the sizes that Send is told; 0: no limit
	Queue     int           // bytes that wait for the rate before the last one to come is dropped; 0: what Rate carries in 200 ms, and 15,000 at least
	Cut       bool          // nothing arrives
	Seed      uint64        // of everything that is left to chance
}

// Validate reports everything that is wrong at once.
func (i Impairment) Validate() error {
	var errs []error
	share := func(name string, v float64) {
		if !(v >= 0 && v <= 1) {
			errs = append(errs, fmt.Errorf("%s is a share between 0 and 1, not %g", name, v))
		}
	}
	if err := i.Loss.Validate(); err != nil {
		errs = append(errs, err)
	}
	share("duplicate", i.Duplicate)
	share("corrupt", i.Corrupt)
	if i.Delay < 0 || i.Delay > MaxDelay {
		errs = append(errs, fmt.Errorf("delay is between 0 and %s, not %s", MaxDelay, i.Delay))
	}
	switch {
	case i.Jitter < 0:
		errs = append(errs, fmt.Errorf("jitter is not negative, as %s is", i.Jitter))
	case i.Jitter > i.Delay:
		errs = append(errs, fmt.Errorf("jitter of %s needs a delay as long at least, not %s: no packet arrives before it was sent", i.Jitter, i.Delay))
	}
	if i.Reorder && i.Jitter == 0 {
		errs = append(errs, errors.New("reorder needs a jitter: packets with the same delay keep their order"))
	}
	if !(i.Rate >= 0 && i.Rate <= MaxRate) {
		errs = append(errs, fmt.Errorf("rate is between 0 and %g bit/s, not %g", MaxRate, i.Rate))
	}
	if i.Queue < 0 || i.Queue > MaxQueue {
		errs = append(errs, fmt.Errorf("queue is between 0 and %d bytes, not %d", MaxQueue, i.Queue))
	}
	if i.Queue > 0 && i.Rate == 0 {
		errs = append(errs, errors.New("queue needs a rate: without one nothing waits"))
	}
	return errors.Join(errs...)
}

// None reports whether packets pass as they are.
func (i Impairment) None() bool {
	return !i.loses() && i.Delay == 0 && i.Jitter == 0 && i.Duplicate == 0 && i.Corrupt == 0 && i.Rate == 0 && !i.Cut
}

func (i Impairment) loses() bool { return i.Loss.Share > 0 || len(i.Loss.Trace) > 0 }

// Longest is the most that a packet which is not dropped can be held up by.
func (i Impairment) Longest() time.Duration {
	d := i.Delay + i.Jitter
	if i.Rate > 0 {
		d += seconds(float64(queueOf(i.Rate, i.Queue)) * 8 / i.Rate)
	}
	return d
}

// Delivery is one arrival of a packet.
type Delivery struct {
	At         time.Duration // when, on the clock that Send is told
	CorruptBit int           // number of the bit that is flipped, from the packet's first byte and each byte's lowest bit on; -1: none
}

// Bottleneck is what several Links may share: a rate and the queue before it. It serves one caller at a time.
type Bottleneck struct {
	rate  float64       // bit/s; 0: no limit
	queue float64       // bytes
	free  time.Duration // when the last byte that was let in has left
}

// NewBottleneck makes one that lets rate bit/s pass and has room for queue bytes; see Impairment for what 0 means.
func NewBottleneck(rate float64, queue int) *Bottleneck {
	return &Bottleneck{rate: rate, queue: float64(queueOf(rate, queue))}
}

func queueOf(rate float64, queue int) int {
	if queue > 0 {
		return queue
	}
	return max(leastQueue, int(min(rate/8*queueTime.Seconds(), MaxQueue)))
}

// pass says when a packet has left; false: there was no room for it.
func (b *Bottleneck) pass(now time.Duration, size int) (time.Duration, bool) {
	if b.rate <= 0 {
		return now, true
	}
	waiting := max(0, b.free-now).Seconds() * b.rate / 8
	if waiting+float64(size) > b.queue {
		return 0, false
	}
	b.free = max(b.free, now) + seconds(float64(size)*8/b.rate)
	return b.free, true
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Link is the state of one direction. Time is its caller's, and never goes back. It serves one caller at a time.
type Link struct {
	does       Impairment
	bottleneck *Bottleneck
	dropper    *Dropper // nil: loses nothing
	duplicates draws
	corrupts   draws
	jitters    draws
	drift      uint64 // seed of the delay's course
	last       time.Duration
	fate       Fate
}

// Fate is why a packet did or did not arrive.
type Fate uint8

// Fates of a packet.
const (
	Arrives Fate = iota
	Lost         // by Loss or Cut
	NoRoom       // in the queue before the rate
)

// New makes a link; an Impairment that is not valid makes one that does something else than was asked.
func New(i Impairment) *Link { return NewOn(i, NewBottleneck(i.Rate, i.Queue)) }

// NewOn makes a link that shares a bottleneck with others; the impairment's own rate and queue are not used.
func NewOn(i Impairment, b *Bottleneck) *Link {
	l := &Link{does: i, bottleneck: b}
	if i.loses() {
		l.dropper = NewDropper(i.Loss, i.Seed) // by the seed itself, as in the kernel
	}
	// A stream each, so that more of one thing does not change when another happens.
	l.duplicates, l.corrupts, l.jitters, l.drift = newDraws(i.Seed, 1), newDraws(i.Seed, 2), newDraws(i.Seed, 3), uint64(newDraws(i.Seed, 4))
	return l
}

// Send decides what becomes of a packet of size bytes that is sent at now: it arrives n times, as out says. n is 0 when it
// is lost and 2 when it is duplicated.
func (l *Link) Send(now time.Duration, size int) (out [2]Delivery, n int) {
	l.fate = Lost
	// The chain goes on in a cut and for what the queue has no room for, so that the n-th packet's loss depends on the seed alone.
	lost := l.dropper != nil && l.dropper.Next()
	if lost || l.does.Cut {
		return out, 0
	}
	left, ok := l.bottleneck.pass(now, size)
	if !ok {
		l.fate = NoRoom
		return out, 0
	}
	l.fate = Arrives
	at := left + l.does.Delay + l.jitter(left)
	if !l.does.Reorder {
		at = max(at, l.last)
		l.last = at
	}
	out[0] = Delivery{At: at, CorruptBit: l.corruption(size)}
	n = 1
	if l.duplicates.happens(l.does.Duplicate) {
		out[1] = Delivery{At: at, CorruptBit: l.corruption(size)}
		n = 2
	}
	return out, n
}

// Fate says what Send's last packet met.
func (l *Link) Fate() Fate { return l.fate }

func (l *Link) corruption(size int) int {
	if size <= 0 || !l.corrupts.happens(l.does.Corrupt) {
		return noCorruption
	}
	return int(l.corrupts.next() % (uint64(size) * 8))
}

// driftSteps is how many jitters long a step of the drifting delay is. Within a step the delay changes by two jitters at most, hence
// by less than the time that passes, and no packet overtakes another, however close they are.
const driftSteps = 4

// jitter is what a packet's delay differs by. With Reorder it is drawn for each packet, evenly. Without, it is a
// function of time: a line from one evenly drawn value to the next.
func (l *Link) jitter(at time.Duration) time.Duration {
	if l.does.Jitter <= 0 {
		return 0
	}
	if l.does.Reorder {
		return time.Duration(float64(l.does.Jitter) * (2*l.jitters.uniform() - 1))
	}
	step := driftSteps * l.does.Jitter
	k := uint64(at / step)
	part := float64(at%step) / float64(step)
	from, to := l.course(k), l.course(k+1)
	return time.Duration(float64(l.does.Jitter) * (from + part*(to-from)))
}

// course is the drifting delay's value, -1 to 1, at the beginning of step k.
func (l *Link) course(k uint64) float64 {
	d := draws(l.drift + k*golden)
	return 2*d.uniform() - 1
}

// draws is a stream of random numbers: splitmix64, as Draw.
type draws uint64

const golden = 0x9e3779b97f4a7c15 // splitmix64's own step

// newDraws makes the stream of a number that belongs to a seed.
func newDraws(seed, number uint64) draws {
	d := draws(seed ^ number*0xd1342543de82ef95)
	return draws(d.next())
}

func (d *draws) next() uint64 { return Draw((*uint64)(d)) }

// uniform is in [0, 1).
func (d *draws) uniform() float64 { return float64(d.next()>>11) / (1 << 53) }

// happens is true in a share p of calls.
func (d *draws) happens(p float64) bool { return p > 0 && d.uniform() < p }

// Flow derives the seed of one flow among several that meet the same impairment; flow 0 has the impairment's own.
func Flow(seed, flow uint64) uint64 {
	if flow == 0 {
		return seed
	}
	d := newDraws(seed, math.MaxUint32+flow)
	return d.next()
}
