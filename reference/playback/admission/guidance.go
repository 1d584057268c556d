package admission

import (
	"math"
	"time"

	"github.com/tminus-live/tminus/reference/spread"
)

// Shares of the capacity that guidance plans with.
const (
	// leastFree is taken as free however busy the region is: some of the viewers will have to be let in.
	leastFree = 0.1
	// part of what is free is planned for returns, so that an estimate may be off.
	part = 0.7
	// growth is how much returns may add to the load there is anyway: with what estimates are off by, less than as much again.
	growth = 0.6
	// However little load there is, returns may take this share of the capacity, and this many may come in a second: a few viewers
	// of a quiet region need not wait.
	quick     = 0.02
	quickRate = 50
	// follow is the time constant of guidance's averages: short, since those who come while an average still rises would be told that the
	// region is quiet, and all wait long.
	follow = 300 * time.Millisecond
)

// guidance spreads viewers who come back. Each is given a wait of Shortest and half to one and a half times a window; the
// window of a viewer is how many are before it over the rate at which they are to return. So the k-th waits about k/rate,
// and they return at rate·ln 3 or less, however many there are and whichever of them are cut off: with draws from 0 on,
// those who came first would all be back at once. Those for whom the longest wait is too short are spread over all of it.
type guidance struct {
	window time.Duration // for those who start now: where they will be in the queue, if all are cut off
	back   float64       // rate at which those who are shed now are to return, a second

	load     float64 // starts a second, smoothed
	viewers  float64 // who is thought to be watching
	fresh    float64 // those of them that nobody was asked to come back for
	returns  float64 // the others, as they were asked to
	expected [slots]float64
	waiting  float64 // sum of expected
	second   int64   // of the slot that is being used up

	draws uint64
}

// slots is how many seconds ahead returns are booked: more than the longest wait, or the rest is booked in the last.
const slots = 128

func (g *guidance) begin(t int64) {
	g.second = t / 1e9
	g.window, g.back = 0, 0
}

// step takes what was asked for here a second since the last step, and how many were let in.
func (g *guidance) step(t int64, dt, capacity, asked, admitted float64, cfg *Config) {
	for n := 0; g.second < t/1e9; n++ {
		if n == slots {
			g.second = t / 1e9
			break
		}
		slot := &g.expected[g.second%slots]
		g.waiting -= *slot
		*slot = 0
		g.second++
	}
	g.waiting = max(g.waiting, 0)
	// A second's returns are spread over it by their waits' milliseconds, so its slot is a rate as well.
	blend := 1 - math.Exp(-dt/follow.Seconds())
	g.returns += blend * (g.expected[g.second%slots] - g.returns)
	g.load += blend * (asked - g.load)
	load := g.load
	g.fresh = max(load-g.returns, 0)
	g.viewers = g.viewers*math.Exp(-dt/cfg.Stay.Seconds()) + admitted
	rate := max(growth*load, quick*capacity, quickRate)
	if capacity > 0 {
		g.back = part * max(capacity-g.fresh, leastFree*capacity)
		rate = min(rate, part*max(capacity-load, leastFree*capacity))
	}
	g.window = seconds(g.viewers / rate)
}

func seconds(s float64) time.Duration { return time.Duration(min(s, 1e6) * 1e9) }

// comeBack books the return of a viewer that is shed at t.
func (g *guidance) comeBack(t int64, cfg *Config) time.Duration {
	window := time.Duration(0)
	if g.back > 0 {
		window = seconds((g.waiting + 1) / g.back)
	}
	after := g.drawWithin(window, cfg)
	slot := min((t+int64(after))/1e9, g.second+slots-1)
	if g.second > 0 {
		g.expected[max(slot, g.second)%slots]++
		g.waiting++
	}
	return after
}

// drawWithin draws a wait for a viewer with this window, from Shortest to Longest.
func (g *guidance) drawWithin(window time.Duration, cfg *Config) time.Duration {
	from, width := window/2, max(window, cfg.Shortest)
	if room := cfg.Longest - cfg.Shortest; from+width > room {
		from, width = 0, room
	}
	g.draws++
	lot := spread.Mix(cfg.Seed^g.draws<<17) % uint64(width/time.Millisecond+1)
	return (cfg.Shortest + from).Truncate(time.Millisecond) + time.Duration(lot)*time.Millisecond
}
