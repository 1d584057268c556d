package probe

import (
	"fmt"
	"math"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

// Pace is how packets are sent one way.
type Pace struct {
	Every time.Duration // from the first packet of a train to the next train's
	Train int           // packets sent at once
	Size  int           // bytes of each
}

const (
	leastPerSecond = 100.0
	mostPerSecond  = 10_000.0
	// mostKept bounds what a probe remembers of each direction.
	mostKept = 400_000
	// around is for how many seconds a fault is watched before it and after it, and while it is being undone, at the most.
	around = 100
	// mostAfter is how long a probe is let watch after a fault.
	mostAfter = time.Minute
	// spare is how much longer it does than it would have to.
	spare = 500 * time.Millisecond

	smallSize   = 100
	trainSize   = 1316
	trainLength = 24
	// trainShare is what trains may take of a rate: each is through before the next one comes.
	trainShare = 0.3

	// sigmas is how far from the model's mean a measure may be, in standard deviations.
	sigmas = 3.5
	// telling is the share of a promise that its tolerance must stay below: half of it must not look like the whole. Of that,
	// chance may take chanceShare.
	telling     = 0.5
	chanceShare = 0.32
)

// PaceFor is a pace at which a fault of so long can be told from half of it.
func PaceFor(i link.Impairment, length time.Duration) Pace {
	p := Pace{Train: 1, Size: smallSize}
	seconds := max((length - settle - border).Seconds(), 1)
	if i.Rate > 0 && !i.Cut {
		p.Train, p.Size = trainLength, trainSize
		// A packet takes 2 ms at least, or trains of a slow path would last for seconds.
		p.Size = int(min(trainSize, max(leastSize, i.Rate*0.002/8-ipHeaders)))
		if room := i.Queue; room > 0 {
			p.Train = max(3, min(p.Train, room/2/(p.Size+ipHeaders)))
		}
		bits := float64(p.Train*(p.Size+ipHeaders)) * 8
		kept := float64(p.Train) * (seconds + around) / mostKept
		p.Every = max(time.Duration(max(bits/(trainShare*i.Rate), kept)*float64(time.Second)), 10*time.Millisecond)
		return p
	}
	share, burst := i.Loss.Expect()
	perSecond := leastPerSecond
	need := func(packets float64) { perSecond = max(perSecond, packets/seconds) }
	// A share of n packets strays by sqrt((1-p)/(p·n)) of itself, and in bursts of b by sqrt(2b(1-p)-1) more.
	of := math.Pow(sigmas/chanceShare, 2)
	for _, p := range []struct{ share, burst float64 }{{share, burst}, {i.Duplicate, 0}, {i.Corrupt, 0}} {
		if p.share > 0 && p.share < 1 {
			need(of * (1 - p.share) / p.share * max(1, 2*p.burst*(1-p.share)-1))
		}
	}
	if i.Reorder && i.Jitter > 0 {
		perSecond = max(perSecond, 4/i.Jitter.Seconds()) // or nobody would be near enough to be overtaken
	}
	perSecond = min(perSecond, mostPerSecond, mostKept/(seconds+around))
	p.Every = time.Duration(float64(time.Second) / perSecond)
	return p
}

// after is how long packets have to be watched when a path is whole again: until none is late any more, and those that say so are
// sure not to be on their way.
func (p Pace) after(i link.Impairment) time.Duration {
	trains := 1 + (fewestAround+p.Train-1)/p.Train
	return settle + 2*i.Longest() + time.Duration(trains)*p.Every + inFlight + spare
}

// tooLong says that a path holds up packets for so long that nobody would wait to see that it is whole again; nil: it does not.
func tooLong(longest, after time.Duration) error {
	if after <= mostAfter {
		return nil
	}
	return fmt.Errorf("what may be held up for %s is seen to be so no more after %s, and nobody looks for longer than %s", longest.Round(time.Millisecond), after.Round(time.Second), mostAfter)
}
