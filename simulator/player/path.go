package player

import (
	"slices"
	"strings"
	"time"
)

// path is one way to the stream: an edge.
type path struct {
	id      string
	region  string
	strikes int       // failures in a row
	until   time.Time // left alone until then
	struck  time.Time // when it failed last
}

func (p *path) resting(now time.Time) bool { return now.Before(p.until) }

// setPaths lays the presentation's paths in steering order and keeps what is remembered of each.
func (p *Player) setPaths(ids []string) {
	var order []string
	for _, id := range p.steering {
		if slices.Contains(ids, id) && !slices.Contains(order, id) {
			order = append(order, id)
		}
	}
	for _, id := range ids {
		if !slices.Contains(order, id) {
			order = append(order, id)
		}
	}
	var paths []*path
	for _, id := range order {
		k := slices.IndexFunc(p.paths, func(o *path) bool { return o.id == id })
		if k >= 0 {
			paths = append(paths, p.paths[k])
			continue
		}
		paths = append(paths, &path{id: id, region: p.regionOf(id)})
	}
	p.paths = paths
	if p.current == nil || !slices.Contains(paths, p.current) {
		p.current = paths[0]
	}
}

// regionOf reads an edge's region from its name, "us-east-1" of "us-east", where the play services name regions.
func (p *Player) regionOf(edge string) string {
	best := ""
	for _, s := range p.cfg.Services {
		if (edge == s.Region || strings.HasPrefix(edge, s.Region+"-")) && len(s.Region) > len(best) {
			best = s.Region
		}
	}
	if best == "" {
		return p.cfg.Region
	}
	return best
}

// strike notes a failure of the path that began at sent: it rests for a while that doubles, jittered so that viewers do
// not come back in step. at least is what the server asked for.
func (p *Player) strike(bad *path, sent time.Time, why string, atLeast time.Duration) {
	if !bad.struck.IsZero() && !sent.After(bad.struck) {
		return // this failure began before the last one was known: the same outage
	}
	bad.strikes++
	bad.struck = p.now
	d := p.tune.Penalty
	for i := 1; i < bad.strikes && d < p.tune.MaxPenalty; i++ {
		d *= 2
	}
	bad.until = p.now.Add(max(p.jitter(min(d, p.tune.MaxPenalty)), min(atLeast, p.tune.MaxPenalty)))
	if bad != p.current {
		return
	}
	if next := p.best(nil); next != p.current {
		p.moveTo(next, bad.id+": "+why)
		p.abandon(bad)
	}
}

// best is the path to use: the first in steering order that is not resting, else the one whose rest ends first. Paths in
// avoid are taken only when nothing else is left.
func (p *Player) best(avoid []*path) *path {
	var rested *path
	for _, c := range p.paths {
		if slices.Contains(avoid, c) {
			continue
		}
		if !c.resting(p.now) {
			return c
		}
		if rested == nil || c.until.Before(rested.until) {
			rested = c
		}
	}
	if rested != nil {
		return rested
	}
	return p.current
}

// prefer goes back to a better edge whose rest is over, when there is enough in hand to be wrong about it.
func (p *Player) prefer() {
	next := p.best(nil)
	if next == p.current {
		return
	}
	if p.state == Playing && p.level() < p.targetLatency/2 && !p.current.resting(p.now) {
		return
	}
	p.moveTo(next, next.id+" is tried again")
}

func (p *Player) moveTo(next *path, why string) {
	p.current = next
	p.stats.edgeSwitches++
	p.emitEdge(next, why)
}

// abandon withdraws what is in flight on a path that has gone silent: nothing has come of it yet.
func (p *Player) abandon(bad *path) {
	for _, f := range slices.Clone(p.flights) {
		if f.path == bad && f.progress == 0 {
			p.cancel(f)
			p.failed(f, "abandoned with the edge")
		}
	}
}

func (p *Player) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + p.rng.Float64()))
}
