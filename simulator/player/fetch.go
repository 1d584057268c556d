package player

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// Pacing of retries and look-aheads.
const (
	firstPause   = 250 * time.Millisecond // after every path has failed, doubling
	maxPause     = 2 * time.Second
	maxAhead     = 30 * time.Second // media in hand beyond which nothing is fetched
	startingIdle = 1500 * time.Millisecond
	abandonAfter = 500 * time.Millisecond
)

// track is one of the streams that play together: the ladder, or the sound beside it.
type track struct {
	kind    string
	pres    *stream.Presentation
	ladder  []int // renditions, lowest bandwidth first
	current int   // index in ladder; -1 before the first fetch
	limit   int   // the next fetch goes no higher; -1: no limit
	next    time.Time
	buffer  buffer
	fits    continuity
	inits   map[initKey]stream.Media
	lists   map[listKey]*list

	load    *flight // init or media segment
	list    *flight // media playlist
	avoid   []*path // do not have the next segment
	early   int     // 404s that the next segment was too early for
	rounds  int     // times every path has failed for it
	due     time.Time
	listDue time.Time
	fails   int  // playlist failures in a row
	waiting bool // caught up with the live edge
	over    bool // the presentation has no more of it
}

type listKey struct{ rendition, path string }

// initKey tells initialisation segments apart; the same path below two hosts is the same thing.
type initKey struct {
	rendition string
	path      string
	rng       stream.ByteRange
}

// list is a media playlist as loaded last.
type list struct {
	index   *stream.Index
	loaded  time.Time // when the load began
	grew    time.Time // when it last brought something new
	changed bool
}

// reloadAt is when the playlist may be asked for again: after a target duration, or half of one when the last load
// brought nothing new (RFC 8216 section 6.3.4).
func (l *list) reloadAt() time.Time {
	d := l.index.Target
	if !l.changed {
		d /= 2
	}
	return l.loaded.Add(max(d, 250*time.Millisecond))
}

func newTrack(kind string, ladder []int, pres *stream.Presentation) *track {
	return &track{kind: kind, pres: pres, ladder: ladder, current: -1, limit: -1,
		inits: map[initKey]stream.Media{}, lists: map[listKey]*list{}}
}

func (t *track) name(rendition int) string {
	if rendition < 0 || rendition >= len(t.pres.Renditions) {
		return ""
	}
	return t.pres.Renditions[rendition].ID
}

// key names the rendition being fetched, over c.
func (t *track) key(c *path) listKey { return listKey{t.name(t.rendition()), c.id} }

// rendition is the one being fetched.
func (t *track) rendition() int { return t.ladder[max(t.current, 0)] }

// seek makes to the next media to fetch.
func (t *track) seek(to time.Time) {
	t.next, t.due, t.waiting, t.over = to, time.Time{}, false, false
	t.avoid, t.rounds, t.early = nil, 0, 0
}

// bits is the announced bandwidth of a rendition, bits/s.
func (t *track) bits(rendition int) float64 { return float64(t.pres.Renditions[rendition].Bandwidth) }

// remap moves the track over to a reloaded manifest; false when its renditions are no longer there.
func (t *track) remap(pres *stream.Presentation) ([]int, int, bool) {
	var ladder []int
	current := -1
	for i, r := range t.ladder {
		was := t.pres.Renditions[r]
		k := slices.IndexFunc(pres.Renditions, func(n stream.Rendition) bool { return n.ID == was.ID && n.Kind == was.Kind })
		if k < 0 {
			continue
		}
		if i == t.current {
			current = len(ladder)
		}
		ladder = append(ladder, k)
	}
	return ladder, current, len(ladder) > 0
}

// index is what is known of the rendition on the path; nil: its playlist must be loaded first.
func (t *track) index(rendition int, c *path) (x *stream.Index, playlist string, ok bool) {
	s, ok := t.pres.Source(rendition, c.id)
	if !ok {
		return nil, "", false
	}
	if s.Playlist == "" {
		return s.Index, "", true
	}
	if l := t.lists[listKey{t.name(rendition), c.id}]; l != nil {
		return l.index, s.Playlist, true
	}
	return nil, s.Playlist, true
}

// via is the path for the track's next fetch.
func (p *Player) via(t *track) *path {
	if !slices.Contains(t.avoid, p.current) {
		return p.current
	}
	return p.best(t.avoid)
}

// feed fetches what the track needs next; it says whether it changed something.
func (p *Player) feed(t *track) bool {
	if t.over {
		return false
	}
	changed := p.reload(t)
	if t.load != nil || p.now.Before(t.due) {
		return changed
	}
	t.waiting = false
	if t.next.IsZero() {
		if t != p.tracks[0] || !p.place() {
			t.due = p.now.Add(time.Second) // a playlist's answer brings it forward
			return changed
		}
		return true
	}
	if t.buffer.level(p.pos) > maxAhead {
		t.due = p.now.Add(time.Second)
		return changed
	}
	p.adapt(t)
	c := p.via(t)
	x, _, ok := t.index(t.rendition(), c)
	switch {
	case !ok:
		p.missing(t, c, t.next, p.now)
		return true
	case x == nil:
		t.due = p.now.Add(time.Second)
		return p.reload(t) || changed
	}
	s, place := x.At(t.next)
	switch {
	case place == stream.Beyond:
		t.over = true
		return true
	case place == stream.Ahead:
		t.waiting = true
		t.due = p.now.Add(time.Second) // a reload brings it forward
		return changed
	case s.Gap:
		t.next = s.End()
		return true
	}
	if e, ok := x.Earliest(p.now); ok && x.Depth > 0 && s.End().Before(e) {
		t.next = e
		return true
	}
	if at := s.Available; !at.IsZero() && p.now.Before(at.Add(p.lag+p.stagger)) {
		t.waiting = true
		t.due = at.Add(p.lag + p.stagger)
		return changed
	}
	f := &flight{purpose: Segment, url: s.URL, path: c, track: t, key: t.key(c), bits: t.bits(t.rendition()), segment: s, patience: p.patience(t),
		final: p.now.Add(min(max(2*s.Duration, p.level(), 4*time.Second), 12*time.Second))}
	rng, limit := s.Range, int64(maxSegment)
	var init stream.Media
	if s.Init != nil {
		f.initKey = initKeyOf(t.name(t.rendition()), *s.Init)
		if init, ok = t.inits[f.initKey]; !ok {
			f.purpose, f.url, rng, limit = Init, s.Init.URL, s.Init.Range, maxInit
		}
	}
	t.load = p.send(f, nil, rng, limit, init)
	return true
}

func initKeyOf(rendition string, r stream.Resource) initKey {
	k := initKey{rendition: rendition, path: r.URL, rng: r.Range}
	if u, err := url.Parse(r.URL); err == nil {
		k.path = u.Path
	}
	return k
}

// place puts the playhead where a viewer who joins now begins.
func (p *Player) place() bool {
	to, ok := p.liveTarget()
	if !ok {
		return false
	}
	p.pos = to
	p.targetLatency = max(p.now.Sub(to), time.Second)
	for _, t := range p.tracks {
		t.seek(to)
	}
	return true
}

// liveTarget is where to begin: the manifest's suggested delay behind the encoder's clock, or some segments behind the
// live edge (RFC 8216 section 6.3.3: at least three target durations), and never before the window.
func (p *Player) liveTarget() (time.Time, bool) {
	t := p.tracks[0]
	x, _, _ := t.index(t.rendition(), p.via(t))
	if x == nil {
		return time.Time{}, false
	}
	edge, ok := x.LiveEdge(p.now)
	if !ok {
		return time.Time{}, false
	}
	var to time.Time
	if d := p.pres.Delay; d > 0 {
		to = p.now.Add(-d)
		// A delay of one segment, as ffmpeg suggests, leaves nothing in hand while the next is fetched; and a manifest that
		// must be polled first tells of a segment up to another one late.
		least := 2 * x.Target
		if p.pres.Refresh > 0 {
			least += min(x.Target, p.pres.Refresh)
		}
		if latest := edge.Add(-least); to.After(latest) {
			to = latest
		}
	} else {
		hold := x.Hold
		if hold < x.Target {
			hold = time.Duration(p.tune.LiveSegments) * x.Target
		}
		to = edge.Add(-hold)
		if s, place := x.At(to); place == stream.Here || place == stream.Later {
			to = s.Start
		}
	}
	if e, ok := x.Earliest(p.now); ok && to.Before(e) {
		to = e
	}
	return to, true
}

// adapt chooses the rung for the track's next segment.
func (p *Player) adapt(t *track) {
	if len(t.ladder) == 1 {
		t.current = 0
		return
	}
	s := situation{current: t.current, estimate: p.speed.estimate(), level: t.buffer.level(p.pos), target: p.targetLatency,
		since: p.now.Sub(p.switched), safety: p.tune.Safety}
	if p.state != Playing {
		s.level = s.target // nothing is playing: a low buffer is no sign of trouble
	}
	for _, r := range t.ladder {
		s.ladder = append(s.ladder, rung{r, t.bits(r)})
	}
	for _, o := range p.tracks {
		if o != t && p.pres.Format == stream.DASH { // an HLS variant's BANDWIDTH counts its sound in
			s.spare += o.bits(o.rendition())
		}
	}
	k := choose(s)
	if t.limit >= 0 {
		k = min(k, t.limit)
	}
	if k == t.current {
		return
	}
	if t.current >= 0 {
		p.stats.upDown++
		e := p.event(event.RenditionSwitch)
		e.Rendition = t.name(t.ladder[k])
		e.Detail = t.name(t.ladder[t.current]) + "→" + t.name(t.ladder[k])
		e.BitrateKbps = s.ladder[k].bits / 1000
		p.do(Emit{e})
	}
	t.current = k
	p.switched = p.now
}

// patience is how long a fetch may stay silent. A third of what is in hand leaves room for two more silent edges and the
// good one after them; while nothing plays there is nothing to lose but time.
func (p *Player) patience(t *track) time.Duration {
	d := startingIdle << min(t.rounds, 1)
	if p.state == Playing {
		d = min(t.buffer.level(p.pos), p.level()) / 3
	}
	return min(max(d, p.tune.MinFetchTimeout), p.tune.MaxFetchTimeout)
}

// reload fetches the media playlist of the rendition in use when it is due.
func (p *Player) reload(t *track) bool {
	if t.list != nil || p.now.Before(t.listDue) {
		return false
	}
	if t.current < 0 && len(t.ladder) > 0 {
		p.adapt(t)
	}
	c := p.via(t)
	x, u, ok := t.index(t.rendition(), c)
	if !ok || u == "" {
		return false
	}
	if l := t.lists[t.key(c)]; l != nil {
		if x.Ended {
			return false
		}
		if at := l.reloadAt(); p.now.Before(at) {
			t.listDue = at
			return false
		}
	}
	t.list = p.send(&flight{purpose: Playlist, url: u, path: c, track: t, key: t.key(c), patience: p.patience(t),
		final: p.now.Add(p.tune.MaxFetchTimeout)}, nil, stream.ByteRange{}, stream.MaxManifest, stream.Media{})
	return true
}

func (p *Player) playlistAnswered(f *flight, a Answer) {
	t := f.track
	if a.Status != 200 {
		p.pathFailed(f, cmp.Or(a.Err, status(a.Status)), a.Retry)
		return
	}
	x, err := stream.ParsePlaylist(a.Body, cmp.Or(a.URL, f.url), f.sent, p.mark)
	if err != nil {
		p.pathFailed(f, err.Error(), 0)
		return
	}
	p.stats.fetched++
	t.fails = 0
	p.worked(f)
	l := &list{index: x, loaded: f.sent, grew: p.now, changed: true}
	if old := t.lists[f.key]; old != nil && old.index.Last() == x.Last() && old.index.Ended == x.Ended {
		l.changed, l.grew = false, old.grew
	}
	t.lists[f.key] = l
	if m, ok := x.Mark(); ok && (p.mark == nil || t == p.tracks[0]) {
		p.mark = &m
	}
	t.due, t.listDue = p.now, time.Time{}
	if stale := p.now.Sub(l.grew); stale > 3*x.Target && len(p.paths) > 1 && !f.path.resting(p.now) {
		p.strike(f.path, f.sent, "its playlist has not grown for "+round(stale), 0)
	}
}

// mediaAnswered takes an init or media segment.
func (p *Player) mediaAnswered(f *flight, a Answer) {
	t := f.track
	ok := a.Status == 200 || a.Status == 206
	switch {
	case ok && a.Wrong != "":
		p.stats.wrong++
		p.failed(f, "wrong segment: "+a.Wrong)
		p.missing(t, f.path, f.segment.Start, f.segment.End())
	case ok && f.purpose == Init:
		p.stats.fetched++
		p.worked(f)
		t.inits[f.initKey] = a.Media
		t.due = p.now
	case ok:
		if why := t.fits.check(f.segment, a.Media, t.kind); why != "" {
			p.stats.wrong++
			p.failed(f, why)
			p.missing(t, f.path, f.segment.Start, f.segment.End())
			return
		}
		p.arrived(f, a)
	case a.Status == 404 && p.early(f):
		p.stats.early++
		t.early++
		wait := f.segment.Duration / 8
		if a.Retry > 0 {
			wait = a.Retry
		}
		t.due = p.now.Add(p.jitter(min(max(wait, 150*time.Millisecond), time.Second)))
		t.waiting = true
	case a.Status == 404 || a.Status == 410:
		p.failed(f, status(a.Status))
		if a.Status == 410 {
			t.rounds++ // it will not come back: ask the others once, not twice
		}
		p.missing(t, f.path, f.segment.Start, f.segment.End())
	default:
		p.pathFailed(f, cmp.Or(a.Err, status(a.Status)), a.Retry)
	}
}

// early says that a 404 may only mean that the segment is not published yet.
func (p *Player) early(f *flight) bool {
	at := f.segment.Available
	return f.purpose == Segment && !at.IsZero() && p.now.Before(at.Add(max(2*f.segment.Duration, 2*time.Second)))
}

// arrived puts a good segment into the buffer.
func (p *Player) arrived(f *flight, a Answer) {
	t, s := f.track, f.segment
	p.stats.fetched++
	p.worked(f)
	took := a.Took
	if took <= 0 {
		took = p.now.Sub(f.sent)
	}
	p.speed.sample(a.Bytes, took)
	kbps := f.bits / 1000
	if kbps == 0 && s.Duration > 0 {
		kbps = float64(a.Bytes) * 8 / 1000 / s.Duration.Seconds()
	}
	t.buffer.add(chunk{start: s.Start, end: s.End(), rendition: f.key.rendition, kbps: kbps, number: s.Number})
	if t.next.Before(s.End()) {
		t.next = s.End()
	}
	// Segments that come later than announced are asked for later: that saves a 404 each time. It wears off by itself.
	if at := s.Available; !at.IsZero() {
		if t.early > 0 {
			p.lag = max(p.lag, min(f.sent.Sub(at)-p.stagger, s.Duration))
		} else {
			p.lag -= p.lag / 16
		}
	}
	t.waiting = false
	t.avoid, t.rounds, t.early, t.limit = nil, 0, 0, -1
	t.due = p.now
}

// missing notes that a path does not have the segment that covers [from, to): the next path is asked, and when none has
// it, after a second round the segment is skipped.
func (p *Player) missing(t *track, c *path, from, to time.Time) {
	if !slices.Contains(t.avoid, c) {
		t.avoid = append(t.avoid, c)
	}
	t.due = p.now
	for _, o := range p.paths {
		if !slices.Contains(t.avoid, o) && !o.resting(p.now) {
			return
		}
	}
	t.avoid = nil
	if t.rounds++; t.rounds < 2 {
		t.due = p.now.Add(p.jitter(firstPause))
		return
	}
	t.rounds, t.early = 0, 0
	if !to.After(from) || !to.After(t.next) {
		to = t.next.Add(time.Second)
	}
	t.next = to
}

// pathFailed is a failure of the way there, not of what was asked for: the edge rests, and another one is asked.
func (p *Player) pathFailed(f *flight, why string, atLeast time.Duration) {
	t := f.track
	p.failed(f, why)
	p.strike(f.path, f.sent, why, atLeast)
	pause := time.Duration(0)
	if p.via(t).resting(p.now) { // there is no better one
		t.rounds++
		pause = p.jitter(min(firstPause<<min(t.rounds, 5), maxPause))
	}
	if f.purpose == Playlist {
		t.fails++
		t.listDue = p.now.Add(pause)
		return
	}
	t.due = p.now.Add(pause)
}

// worked forgives the path.
func (p *Player) worked(f *flight) {
	if c := f.path; c != nil && f.sent.After(c.struck) {
		c.strikes, c.until = 0, time.Time{}
	}
}

// send puts a fetch on its way.
func (p *Player) send(f *flight, post []byte, rng stream.ByteRange, limit int64, init stream.Media) *flight {
	p.nextID++
	f.id, f.sent, f.progress = p.nextID, p.now, -1
	f.deadline = p.now.Add(f.patience)
	p.flights = append(p.flights, f)
	p.stats.fetches++
	p.do(Fetch{ID: f.id, Purpose: f.purpose, URL: f.url, Range: rng, Post: post, Limit: limit,
		Timeout: f.final.Sub(p.now) + time.Second, Init: init})
	return f
}

// land takes a fetch off the list.
func (p *Player) land(f *flight) {
	p.flights = slices.DeleteFunc(p.flights, func(o *flight) bool { return o == f })
	if t := f.track; t != nil {
		if t.load == f {
			t.load = nil
		}
		if t.list == f {
			t.list = nil
		}
	}
}

func (p *Player) cancel(f *flight) {
	p.land(f)
	p.do(Cancel{ID: f.id})
}

// withdraw cancels a fetch that nobody is to blame for.
func (p *Player) withdraw(f *flight) {
	p.cancel(f)
	p.stats.cancelled++
}

// due is when the fetch is given up, and why.
func (f *flight) due() (time.Time, string) {
	if f.deadline.Before(f.final) {
		return f.deadline, "silent for " + round(f.patience)
	}
	return f.final, "not done after " + round(f.final.Sub(f.sent))
}

// progressed notes a sign of life, and abandons a download that would outlast the buffer (the dash.js player's
// AbandonRequestsRule).
func (p *Player) progressed(f *flight, bytes int64) {
	f.progress = max(f.progress, bytes, 0)
	f.deadline = p.now.Add(f.patience)
	t := f.track
	elapsed := p.now.Sub(f.sent)
	if f.purpose != Segment || p.state != Playing || t.current <= 0 || elapsed < abandonAfter || bytes == 0 {
		return
	}
	rate := float64(bytes) * 8 / elapsed.Seconds()
	total := f.bits * f.segment.Duration.Seconds()
	left := time.Duration((total - float64(bytes)*8) / rate * float64(time.Second))
	if left > t.buffer.level(p.pos) {
		p.cancel(f)
		p.tooSlow(f, rate)
	}
}

// tooSlow goes on with a rung that the measured rate can carry.
func (p *Player) tooSlow(f *flight, rate float64) {
	t := f.track
	p.failed(f, fmt.Sprintf("abandoned: %.0f kb/s would not do", rate/1000))
	p.speed.sample(f.progress, p.now.Sub(f.sent))
	t.limit = 0
	for i, r := range t.ladder {
		if t.bits(r) <= rate*p.tune.Safety && i < t.current {
			t.limit = i
		}
	}
	t.due = p.now
}

// timedOut is a fetch given up by the player's own reckoning.
func (p *Player) timedOut(f *flight, why string) {
	switch {
	case f.purpose == Play:
		p.playMissed(f, why)
	case f.purpose == Manifest:
		p.manifestMissed(f, why)
	case f.purpose == Segment && f.progress > 0 && f.track.current > 0 && !p.now.Before(f.final):
		p.tooSlow(f, float64(f.progress)*8/p.now.Sub(f.sent).Seconds())
	default:
		p.pathFailed(f, why, 0)
	}
}

// failed writes a failed fetch.
func (p *Player) failed(f *flight, why string) {
	p.stats.failures++
	e := p.event(event.FetchFailed)
	if f.path != nil {
		e.Edge, e.Region = f.path.id, f.path.region
	} else if f.purpose == Play || p.cfg.Manifest == "" {
		s := p.cfg.Services[f.service%len(p.cfg.Services)]
		e.Edge, e.Region = host(f.url), s.Region
	} else {
		e.Edge = host(f.url)
	}
	e.Rendition = f.key.rendition
	if f.purpose == Segment {
		e.Segment = f.segment.Number
	}
	e.Detail = string(f.purpose) + ": " + why
	e.Value = ms(p.now.Sub(f.sent))
	p.do(Emit{e})
}
