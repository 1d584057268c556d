package player

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// State is where the viewer is.
type State string

// States.
const (
	Idle        State = "idle"
	Requesting  State = "requesting" // asking a playback service
	Loading     State = "loading"    // fetching the manifest
	Starting    State = "starting"   // filling the buffer before the first frame
	Playing     State = "playing"
	Rebuffering State = "rebuffering"
	Ended       State = "ended"
	Failed      State = "failed"
)

// Player is one viewer. It is not safe for concurrent use.
type Player struct {
	cfg  Config
	tune Tuning
	rng  *rand.Rand

	state   State
	now     time.Time // of the last Step
	pressed time.Time
	out     []Action
	nextID  uint64
	flights []*flight // by ID

	play playRequest

	manifest manifest
	pres     *stream.Presentation
	steering []string
	paths    []*path
	current  *path

	tracks        []*track      // the ladder's, then audio's
	pos           time.Time     // playhead, on the stream's clock
	shown         chunk         // the segment on the screen, or the last that was: a stalled viewer looks at its last frame
	targetLatency time.Duration // now − pos when all is well
	mark          *stream.Mark
	lag           time.Duration // how much later than announced segments turned out to be there
	stagger       time.Duration // this viewer's own delay behind availability
	speed         throughput
	switched      time.Time // when the rendition changed last

	stalled   time.Time // when the stall in progress began
	nextBeat  time.Time
	beat      clocks
	totals    clocks
	startedAt time.Time // first frame
	stats     counters
}

// clocks divide a viewer's time among what it was spent on.
type clocks struct{ starting, playing, rebuffering time.Duration }

// counters go into session_end's Nums.
type counters struct {
	fetches, fetched, failures, early, cancelled      int
	wrong, gaps, resyncs, edgeSwitches, upDown, stall int
	skipped                                           time.Duration
}

// flight is a fetch that has not been answered.
type flight struct {
	id       uint64
	purpose  Purpose
	url      string
	path     *path   // nil: not from an edge
	track    *track  // nil: play and manifest
	key      listKey // rendition and path
	bits     float64 // of the rendition, bits/s
	sent     time.Time
	deadline time.Time // of the next sign of life
	final    time.Time // of the whole answer
	patience time.Duration
	progress int64 // bytes so far; -1: none, not even headers
	segment  stream.Segment
	initKey  initKey
	service  int
}

// New makes a player that waits for Press.
func New(cfg Config) *Player {
	if cfg.Format == "" {
		cfg.Format = DASH
	}
	p := &Player{cfg: cfg, tune: cfg.Tuning.withDefaults(), state: Idle,
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)), speed: newThroughput()}
	p.stagger = time.Duration(p.rng.Float64() * float64(100*time.Millisecond))
	return p
}

// State is where the viewer is as of the last Step.
func (p *Player) State() State { return p.state }

// Step tells the player what happened at now and returns what it wants done, in order. A now before the last one is
// taken for the last one. The slice is good until the next Step.
func (p *Player) Step(now time.Time, ev Event) []Action {
	p.out = p.out[:0]
	if p.over() {
		return nil
	}
	if now.Before(p.now) {
		now = p.now
	}
	p.advance(now)
	if !p.over() {
		p.handle(ev)
	}
	for range 32 { // each round that changes something asks for one more; they are a handful
		if p.over() || !p.decide() {
			break
		}
	}
	if !p.over() && p.state != Idle {
		p.do(Wake{At: p.nextWake()})
	}
	return p.out
}

func (p *Player) over() bool { return p.state == Ended || p.state == Failed }

func (p *Player) do(a Action) { p.out = append(p.out, a) }

func (p *Player) handle(ev Event) {
	switch e := ev.(type) {
	case Press:
		if p.state != Idle {
			return
		}
		p.pressed = e.At
		if e.At.IsZero() || e.At.After(p.now) {
			p.pressed = p.now
		}
		p.nextBeat = p.pressed.Add(time.Second)
		p.state = Requesting
		if p.cfg.Manifest != "" {
			p.state = Loading
			p.manifest.urls = []string{p.cfg.Manifest}
		}
		p.play.due = p.now
		p.manifest.due = p.now
		p.beat.starting, p.totals.starting = p.now.Sub(p.pressed), p.now.Sub(p.pressed)
	case Leave:
		if p.state != Idle {
			p.leave(cmp.Or(e.Why, "left"))
		} else {
			p.state = Ended
			p.do(Done{})
		}
	case Progress:
		if f := p.flight(e.ID); f != nil {
			p.progressed(f, e.Bytes)
		}
	case Answer:
		f := p.flight(e.ID)
		if f == nil {
			return
		}
		p.land(f)
		switch f.purpose {
		case Play:
			p.playAnswered(f, e)
		case Manifest:
			p.manifestAnswered(f, e)
		case Playlist:
			p.playlistAnswered(f, e)
		default:
			p.mediaAnswered(f, e)
		}
	}
}

// advance lets time pass up to now: media plays, stalls begin at their exact time, heartbeats come each second.
func (p *Player) advance(now time.Time) {
	if p.state == Idle {
		p.now = now
		return
	}
	for p.now.Before(now) && !p.over() {
		until := now
		if p.nextBeat.Before(until) {
			until = p.nextBeat
		}
		if end := p.cfg.End; !end.IsZero() && end.After(p.now) && end.Before(until) {
			until = end
		}
		p.pass(until)
		if !p.now.Before(p.nextBeat) && !p.over() {
			p.heartbeat()
			p.nextBeat = p.nextBeat.Add(time.Second)
		}
		if end := p.cfg.End; !end.IsZero() && !p.now.Before(end) && !p.over() {
			p.leave("the end of the event")
		}
	}
}

// pass lets time pass within one heartbeat.
func (p *Player) pass(until time.Time) {
	for p.now.Before(until) && !p.over() {
		d := until.Sub(p.now)
		switch p.state {
		case Playing:
			if run := p.runway(); run < d {
				d = run
			}
			p.pos = p.pos.Add(d)
			p.show()
			p.beat.playing += d
			p.totals.playing += d
			p.now = p.now.Add(d)
			if p.runway() == 0 {
				p.dry()
			}
			continue
		case Rebuffering:
			p.beat.rebuffering += d
			p.totals.rebuffering += d
		default:
			p.beat.starting += d
			p.totals.starting += d
		}
		p.now = until
	}
	for _, t := range p.tracks {
		t.buffer.drop(p.pos)
	}
}

// show notes what is on the screen at the playhead.
func (p *Player) show() {
	for _, c := range p.tracks[0].buffer.chunks {
		if c.start.After(p.pos.Add(holeTolerance)) {
			break
		}
		p.shown = c
		if c.end.After(p.pos) {
			break
		}
	}
}

// runway is how long playback goes on from here without a jump.
func (p *Player) runway() time.Duration {
	run := time.Duration(1<<63 - 1)
	for _, t := range p.tracks {
		end := t.buffer.contiguous(p.pos)
		if t.over && !end.After(p.pos) {
			continue // this track has ended: the others play on
		}
		run = min(run, end.Sub(p.pos))
	}
	if run == 1<<63-1 {
		return 0
	}
	return run
}

// dry is called when playback cannot go on from here: it jumps a hole, ends, or stalls.
func (p *Player) dry() {
	var to time.Time
	ended := true
	for _, t := range p.tracks {
		if t.buffer.contiguous(p.pos).After(p.pos) {
			ended = false
			continue
		}
		next, ok := t.buffer.after(p.pos)
		switch {
		case ok && next.After(to):
			to, ended = next, false
		case !ok && !t.over:
			p.stall()
			return
		}
	}
	switch {
	case ended:
		p.leave("the end of the stream")
	case !to.IsZero():
		p.stats.gaps++
		p.stats.skipped += to.Sub(p.pos)
		p.pos = to
	}
}

func (p *Player) stall() {
	p.state = Rebuffering
	p.stalled = p.now
	p.stats.stall++
}

// level is the media in hand: the least of the tracks that have not ended.
func (p *Player) level() time.Duration {
	least := time.Duration(1<<63 - 1)
	for _, t := range p.tracks {
		if !t.over {
			least = min(least, t.buffer.level(p.pos))
		}
	}
	if least == 1<<63-1 {
		for _, t := range p.tracks {
			least = min(least, t.buffer.level(p.pos))
		}
	}
	if len(p.tracks) == 0 {
		return 0
	}
	return least
}

// decide does what is due; it says whether it changed something that may make more due.
func (p *Player) decide() bool {
	for _, f := range slices.Clone(p.flights) {
		if at, why := f.due(); !p.now.Before(at) {
			p.cancel(f)
			p.timedOut(f, why)
			return true
		}
	}
	switch p.state {
	case Requesting, Loading, Starting:
		if !p.now.Before(p.pressed.Add(p.tune.StartTimeout)) {
			p.startFailed("no first frame within " + p.tune.StartTimeout.String())
			return false
		}
	case Rebuffering:
		if !p.now.Before(p.stalled.Add(p.tune.GiveUpStall)) {
			p.finish(Failed, "gave up after a stall of "+p.tune.GiveUpStall.String())
			return false
		}
	}
	switch p.state {
	case Requesting:
		return p.requestPlay()
	case Loading:
		return p.requestManifest()
	}
	p.prefer()
	changed := p.requestManifest() || p.resync()
	for _, t := range p.tracks {
		changed = p.feed(t) || changed
	}
	return p.begin() || changed
}

// begin starts or resumes playback when there is enough in hand, or as much as there is to have.
func (p *Player) begin() bool {
	if p.state != Starting && p.state != Rebuffering {
		return false
	}
	need := p.tune.ResumeBuffer
	if p.state == Starting {
		need = p.tune.StartBuffer
	}
	level, caughtUp := p.level(), len(p.tracks) > 0
	for _, t := range p.tracks {
		caughtUp = caughtUp && (t.over || t.waiting)
		if !t.over && t.buffer.level(p.pos) == 0 {
			return false
		}
	}
	if level < need && !caughtUp {
		return false
	}
	if level == 0 {
		p.leave("the end of the stream") // every track is over
		return false
	}
	if p.state == Starting {
		p.state = Playing
		p.startedAt = p.now
		p.show()
		e := p.event(event.FirstFrame)
		e.Rendition = p.shown.rendition
		e.Value = ms(p.now.Sub(p.pressed))
		p.do(Emit{e})
	} else {
		p.settle()
		p.state = Playing
		p.show()
	}
	if p.runway() == 0 {
		p.dry()
	}
	return true
}

// settle writes the stall that has just ended.
func (p *Player) settle() {
	if p.state != Rebuffering {
		return
	}
	e := p.event(event.Rebuffer)
	e.At = p.stalled
	e.Rendition = p.shown.rendition
	e.Value = ms(p.now.Sub(p.stalled))
	p.do(Emit{e})
}

// resync jumps back to live when a stall has left the viewer too far behind.
func (p *Player) resync() bool {
	if p.state != Rebuffering || p.now.Sub(p.pos) <= p.targetLatency+p.tune.MaxBehind {
		return false
	}
	to, ok := p.liveTarget()
	if !ok || to.Before(p.pos.Add(p.tune.MaxBehind/2)) {
		return false
	}
	p.stats.resyncs++
	p.stats.gaps++
	p.stats.skipped += to.Sub(p.pos)
	p.pos = to
	for _, t := range p.tracks {
		if f := t.load; f != nil {
			p.withdraw(f)
		}
		t.buffer = buffer{}
		t.seek(to)
	}
	return true
}

// leave ends the session: without a failure, unless it has waited for its first frame beyond a viewer's patience. One
// that leaves before it has a picture and within that patience is neither a success nor a failure of the start: it has
// no first_frame and no start_failed, and no play_start where its play request had not been answered.
func (p *Player) leave(why string) {
	switch p.state {
	case Requesting, Loading, Starting:
		why += ", before the first frame"
		if p.now.Sub(p.pressed) >= p.tune.StartPatience {
			p.startFailed(why)
			return
		}
	}
	p.finish(Ended, why)
}

// finish withdraws everything and says goodbye.
func (p *Player) finish(s State, why string) {
	p.settle()
	if p.beat != (clocks{}) {
		p.heartbeat()
	}
	for _, f := range slices.Clone(p.flights) {
		p.withdraw(f)
	}
	p.state = s
	e := p.event(event.SessionEnd)
	e.State = ""
	e.Rendition = p.shown.rendition
	e.Status = "ok"
	if s == Failed {
		e.Status = "failed"
	}
	e.Detail = why
	e.PlayingMS, e.RebufferMS = ms(p.totals.playing), ms(p.totals.rebuffering)
	c := p.stats
	e.Nums = map[string]float64{"fetches": float64(c.fetches), "fetched": float64(c.fetched), "failures": float64(c.failures),
		"early": float64(c.early), "cancelled": float64(c.cancelled), "wrong": float64(c.wrong), "gaps": float64(c.gaps),
		"skipped_ms": ms(c.skipped), "resyncs": float64(c.resyncs), "stalls": float64(c.stall),
		"edge_switches": float64(c.edgeSwitches), "rendition_switches": float64(c.upDown)}
	p.do(Emit{e})
	p.do(Done{})
}

// event fills what every event of this viewer carries. Session is the viewer from Play to the end, and not what a
// playback service calls it: that is unknown before the first answer, and one watch would count as two.
func (p *Player) event(k event.Kind) event.Event {
	e := event.Event{At: p.now, Kind: k, Component: "player", Session: p.cfg.Viewer, Device: p.cfg.Device,
		ISP: p.cfg.ISP, Home: p.cfg.Region, Region: p.cfg.Region}
	if p.current != nil {
		e.Edge, e.Region = p.current.id, p.current.region
	}
	switch p.state {
	case Playing, Rebuffering:
		e.State = string(p.state)
	default:
		e.State = string(Starting)
	}
	return e
}

func (p *Player) heartbeat() {
	e := p.event(event.Heartbeat)
	e.PlayingMS, e.RebufferMS = ms(p.beat.playing), ms(p.beat.rebuffering)
	e.BufferMS = ms(p.level())
	if !p.startedAt.IsZero() {
		// A playlist without dates tells the live edge to a segment only: no picture comes from the future.
		e.LatencyMS = max(0, ms(p.now.Sub(p.pos)))
		e.Rendition, e.BitrateKbps, e.Segment = p.shown.rendition, p.shown.kbps, p.shown.number
	}
	p.beat = clocks{}
	p.do(Emit{e})
}

func (p *Player) emitEdge(next *path, why string) {
	e := p.event(event.EdgeSwitch)
	e.Edge, e.Region, e.Detail = next.id, next.region, why
	p.do(Emit{e})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// nextWake is when the player must be asked again though nothing has happened.
func (p *Player) nextWake() time.Time {
	w := p.nextBeat
	at := func(t time.Time) {
		if t.After(p.now) && t.Before(w) { // what is past was due, and decide saw no use in it
			w = t
		}
	}
	at(p.cfg.End)
	at(p.pressed.Add(p.tune.StartTimeout))
	if p.state == Rebuffering {
		at(p.stalled.Add(p.tune.GiveUpStall))
	}
	for _, f := range p.flights {
		t, _ := f.due()
		at(t)
	}
	switch p.state {
	case Requesting:
		if len(p.flights) == 0 {
			at(p.play.due)
		}
	case Playing:
		at(p.now.Add(min(p.runway(), time.Minute)))
	}
	if p.state != Requesting && !p.inFlight(Manifest) {
		at(p.manifest.due)
	}
	for _, t := range p.tracks {
		if t.over {
			continue
		}
		if t.load == nil {
			at(t.due)
		}
		if t.list == nil {
			at(t.listDue)
		}
	}
	return w
}

func (p *Player) inFlight(purpose Purpose) bool {
	return slices.ContainsFunc(p.flights, func(f *flight) bool { return f.purpose == purpose })
}

func (p *Player) flight(id uint64) *flight {
	for _, f := range p.flights {
		if f.id == id {
			return f
		}
	}
	return nil
}
