package starts

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/answer"
	"github.com/tminus-live/tminus/telemetry/event"
)

// shard sends every shards-th start of the schedule, over connections of its own, from one thread. Shards share nothing
// but the sink.
type shard struct {
	g     *Generator
	id    int
	zero  time.Time
	poll  poller
	stop  atomic.Bool
	ended bool // nothing is sent any more

	idle    time.Duration // up to when the loop had nothing left to do: what waited then, waited for others
	drained bool          // everything that had come was taken in the last turn

	mu sync.Mutex // held by the loop but while it waits, and by who reads its counters

	pacer    pacer // guarded by mu, as all that follows
	saturate uint64
	slab     slab
	services []service
	conns    []*conn
	free     []uint32 // closed conns
	queued   int
	flight   list // starts whose request is on a connection, the oldest first
	parked   *wheel
	ceiling  ceiling
	breaks   []*interruption
	returns  uint64 // how many came back: their numbers
	jobs     int    // attempts that dialers have in hand
	results  results

	last struct { // the viewer who was looked up last: most are, twice in a row
		k  uint64
		v  audience.Viewer
		ok bool
	}
	in      []byte // what was gathered, from any connection
	got     int    // of it
	arrived []arrived
	out     []byte // what is staged, for any connection
	staged  []staged
	rest    []byte // what is read besides
	again   []byte // what is sent again
	heads   answer.Heads
	values  *answer.Values
	session []byte // unescaped
	stats   stats
}

// service is one region's playback service, as one shard sees it.
type service struct {
	region, addr string
	remote       remote
	template     *template
	queue        list    // starts that wait for a connection
	avail        []*conn // kept ones with room, the one used last on top
	conns, max   int
	kept         bool
	rings        []*ring // who gets a session here may be interrupted later
}

func newShard(g *Generator, id int, templates []*template) *shard {
	c := &g.c
	s := &shard{
		g: g, id: id, slab: newSlab(), flight: newList(), parked: newWheel(),
		in: make([]byte, 8*maxRead), rest: make([]byte, 4*maxRead), out: make([]byte, 0, 2*highWater),
		values: g.reading.paths.Values(),
		stats:  newStats(g.horizon),
	}
	s.pacer = newPacer(c.Schedule, uint64(id), uint64(c.Shards))
	s.ceiling = newCeiling(c, id)
	if c.Saturate {
		s.pacer.total = 0
	}
	s.saturate = uint64(id)
	for i, svc := range c.Services {
		addr := svc.Addr.Addr().Unmap()
		sv := service{region: svc.Region, addr: unmapped(svc.Addr).String(), remote: newRemote(unmapped(svc.Addr)), template: templates[i].clone(), queue: newList()}
		sv.kept = c.Connections == KeepAlive
		sv.remote.spread = addr.Is4() && addr.IsLoopback()
		sv.max = g.part(c.PerService, id, 1)
		if !sv.kept {
			sv.max = g.part(c.MaxInFlight, id, 1)
		}
		s.services = append(s.services, sv)
	}
	s.breaks = newInterruptions(s)
	s.results.poke = make(chan struct{}, 1)
	return s
}

func (s *shard) open() error { return s.poll.open() }

func (s *shard) close() { s.poll.close() }

// interrupt ends the loop soon; safe from any goroutine, also after close.
func (s *shard) interrupt() {
	s.stop.Store(true)
	s.poll.wake()
	s.results.wake()
}

// now is the time since T+0.
func (s *shard) now() time.Duration { return time.Since(s.zero) }

// run is the loop. It returns when every start has ended.
func (s *shard) run(zero time.Time) error {
	if s.g.tls == nil {
		// The thread is never given back: its timer slack and priority are for this loop, and it ends with the goroutine.
		runtime.LockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // where it is refused, wake-ups are 50 µs late
		if nice := s.g.c.Nice; nice != 0 {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, nice) // without the privilege the loop waits its turn as all do
		}
	}
	s.zero = zero
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialAll()
	var err error
	for {
		// What has ended makes room for what waits: it is taken first, or the last of a crowd would wait for somebody
		// after it to be due.
		s.takeResults()
		now := s.now()
		if s.stop.Load() || err != nil {
			s.cancel(now)
		} else {
			s.tick(now)
		}
		if s.done(now) {
			s.hangUp()
			return err
		}
		wake, timed := s.wake(now)
		n, failed := s.wait(wake, timed)
		if failed != nil && err == nil {
			err = failed
		}
		for _, ev := range s.poll.events[:n] {
			s.ready(ev)
		}
		s.digest()
	}
}

// wait polls, and if there is nothing lets go of the lock and sleeps until wake.
func (s *shard) wait(wake time.Duration, timed bool) (int, error) {
	now, pause := s.now(), time.Duration(-1)
	if timed {
		pause = max(wake-now, 0)
	} else {
		wake = math.MaxInt64
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	if s.g.tls != nil {
		if s.results.wait(pause) {
			s.idle = min(s.now(), wake)
		}
		return 0, nil
	}
	if lie := s.g.c.Coalesce; lie > 0 && pause != 0 {
		if pause > 0 {
			lie = min(lie, pause)
		}
		s.poll.sleep(lie)
		if s.drained { // the pause was of its own free will: nothing could have been done
			s.idle = now + lie
		}
		if pause > 0 {
			pause = max(pause-lie, 0)
		}
	}
	n, err := s.poll.now()
	s.drained = n < len(s.poll.events)
	if n > 0 || err != nil {
		return n, err
	}
	if pause == 0 {
		s.idle = max(s.idle, wake) // all that had come was taken, but what was due since has not been sent
		return n, err
	}
	n, err = s.poll.wait(pause)
	s.drained = n < len(s.poll.events)
	s.idle = min(s.now(), wake) // what is later than was asked for is the machine's doing
	return n, err
}

// sent notes that a start's first attempt went out at now.
func (s *shard) sent(st *start, now time.Duration) {
	st.sent = now
	s.stats.sentLate(max(ownLag(st.intended, s.idle, now), st.lateness()), now)
}

// tick does what is due.
func (s *shard) tick(now time.Duration) {
	s.timeOuts(now)
	s.parked.due(&s.slab, now, func(i uint32) { s.comeBack(i, now) })
	s.interruptions(now)
	s.pacer.release(now, func(k uint64, intended time.Duration) { s.release(k, intended, now) })
	for i := range s.services {
		s.expire(&s.services[i], now)
		s.pump(&s.services[i], now)
	}
}

// done reports whether every start has ended and none will come.
func (s *shard) done(now time.Duration) bool {
	if s.ended {
		return s.jobs == 0
	}
	return s.pacer.next >= s.pacer.total && !s.saturating(now) && s.queued == 0 && s.flight.n == 0 && s.parked.n == 0 && s.jobs == 0 && !s.interrupting()
}

// saturating reports whether there are starts without end.
func (s *shard) saturating(now time.Duration) bool {
	return s.g.c.Saturate && now < s.pacer.schedule.End() && !s.ended
}

// wake returns when tick must run next; false: not before something happens.
func (s *shard) wake(now time.Duration) (at time.Duration, timed bool) {
	sooner := func(t time.Duration, ok bool) {
		if ok && (!timed || t < at) {
			at, timed = t, true
		}
	}
	if s.ended {
		return 0, false
	}
	sooner(s.pacer.wake(now))
	sooner(s.parked.wake())
	sooner(s.nextInterruption(now))
	if s.flight.n > 0 {
		sooner(s.slab.at(s.flight.head).began+s.g.c.AttemptTimeout, true)
	}
	if s.queued > 0 {
		for i := range s.services {
			svc := &s.services[i]
			if svc.queue.n == 0 {
				continue
			}
			sooner(s.slab.at(svc.queue.head).ready+s.g.c.MaxSendLag+1, true)
			// A connection that was lost while it was written to has made room, or sent its starts on to a service that was
			// looked at before.
			sooner(now, svc.conns < svc.max || svc.pick() != nil)
		}
	}
	if s.g.c.Saturate {
		sooner(max(s.pacer.schedule.End(), 0), now < s.pacer.schedule.End())
	}
	return at, timed
}

// release takes one start of the schedule that is due.
func (s *shard) release(k uint64, intended, now time.Duration) *start {
	i := s.slab.get()
	st := s.slab.at(i)
	st.k, st.number, st.intended, st.ready = k, k, intended, intended
	s.intend(i, now)
	return st
}

// intend counts a start and queues it for its home's service.
func (s *shard) intend(i uint32, now time.Duration) {
	st := s.slab.at(i)
	st.late = micros(now - st.intended)
	s.stats.intended++
	sec := s.stats.second(st.intended)
	sec.Intended++
	if st.returns {
		s.stats.returned++
		sec.Returned++
	}
	v := s.viewer(st.k)
	if s.queued >= maxQueue/s.g.c.Shards {
		s.drop(i, v, queueFull, now)
		return
	}
	for j := range s.services { // a home without a service starts at the first
		if s.services[j].region == v.Home {
			st.service = uint16(j)
		}
	}
	s.enqueue(i)
}

func (s *shard) enqueue(i uint32) {
	s.services[s.slab.at(i).service].queue.push(&s.slab, i)
	s.queued++
}

func (s *shard) dequeue(svc *service) uint32 {
	i := svc.queue.head
	svc.queue.remove(&s.slab, i)
	s.queued--
	return i
}

// next returns the next start for a service; none: there is none.
func (s *shard) next(svc *service, now time.Duration) uint32 {
	if svc.queue.n == 0 && s.saturating(now) {
		for range 64 { // of many regions, most starts are for the others
			s.release(s.saturate, now, now)
			s.saturate += uint64(s.g.c.Shards)
			if svc.queue.n > 0 || s.queued > 1<<14 {
				break
			}
		}
	}
	for svc.queue.n > 0 {
		if i := s.dequeue(svc); !s.tooLate(i, now) {
			return i
		}
	}
	return none
}

// tooLate ends a start, or an attempt of it, that has waited for a connection for too long.
func (s *shard) tooLate(i uint32, now time.Duration) bool {
	st := s.slab.at(i)
	if now-st.ready <= s.g.c.MaxSendLag {
		return false
	}
	v := s.viewer(st.k)
	if st.attempts == 0 {
		s.drop(i, v, late, now)
	} else {
		s.pressed(i, v, isFailed, late, policy{}, now)
	}
	return true
}

// expire ends what has waited in a queue for too long.
func (s *shard) expire(svc *service, now time.Duration) {
	for svc.queue.n > 0 && now-s.slab.at(svc.queue.head).ready > s.g.c.MaxSendLag {
		s.tooLate(s.dequeue(svc), now)
	}
}

// viewer is who makes the k-th start, good until the next call.
func (s *shard) viewer(k uint64) *audience.Viewer {
	if l := &s.last; l.k != k || !l.ok {
		l.k, l.v, l.ok = k, s.g.c.Crowd.Viewer(k), true
	}
	return &s.last.v
}

// begin makes a start's next attempt and appends its request to the bytes for the service.
func (s *shard) begin(i uint32, svc *service, v *audience.Viewer, now time.Duration, out []byte) []byte {
	st := s.slab.at(i)
	if st.attempts == 0 {
		st.sent = now
		s.stats.sent++
		s.stats.second(now).Sent++
	}
	st.attempts++
	st.began = now
	s.stats.attempts++
	s.stats.second(now).Attempts++
	return svc.template.render(out, v, st.number)
}

// policy is how a server guides its clients' backoff.
type policy struct {
	guided bool
	max    int
	after  time.Duration
}

// reply is one whole answer.
type reply struct {
	status     int
	retryAfter int // seconds, of the header; -1: none
	body       []byte
}

// take is what becomes of a start whose attempt was answered at now.
func (s *shard) take(i uint32, v *audience.Viewer, r reply, now time.Duration) {
	st := s.slab.at(i)
	svc := &s.services[st.service]
	good := r.status == 200 || s.g.reading.any2xx && r.status/100 == 2
	switch {
	case good:
		session, p, problem := s.read(r.body)
		if problem != noReason {
			s.stats.wrong(r, problem, s.g.lookedFor(problem))
			s.stats.attemptFailures.add(problem)
			s.pressed(i, v, isFailed, problem, policy{}, now)
			return
		}
		for _, ring := range svc.rings {
			ring.remember(st.k, p, now)
		}
		s.finish(i, v, isOK, noReason, session, now)
	case r.status == 503 || r.status == 429:
		p, problem := s.readPolicy(r)
		if p.guided {
			s.stats.attemptFailures.add(shed)
			s.pressed(i, v, isShed, shed, p, now)
			return
		}
		s.stats.wrong(r, noReason, "")
		s.attemptFailed(i, or(problem, answered+reason(r.status)), now)
	case r.status < 500: // the service understood and said no: another region would too
		s.stats.wrong(r, noReason, "")
		s.stats.attemptFailures.add(answered + reason(r.status))
		s.pressed(i, v, isFailed, answered+reason(r.status), policy{}, now)
	default:
		s.stats.wrong(r, noReason, "")
		s.attemptFailed(i, answered+reason(r.status), now)
	}
}

// lookedFor names the path that was looked for in vain, for a person.
func (g *Generator) lookedFor(problem reason) string {
	switch t := g.c.Target; {
	case t != nil && problem == noSession:
		return " at " + t.Session
	case t != nil && problem == noManifest && t.Manifest != "":
		return " at " + t.Manifest
	}
	return ""
}

// maxSession bounds a session's name.
const maxSession = 1 << 10

// read returns what a good answer has, and what is wrong with it. The session is valid until the next read.
func (s *shard) read(body []byte) (session string, p policy, problem reason) {
	rd := &s.g.reading
	if rd.any2xx && rd.session < 0 && len(rd.manifests) == 0 {
		if rd.paths.Read(body, s.values) { // or anything else
			p, _ = s.policy()
		}
		return "", p, noReason
	}
	if !rd.paths.Read(body, s.values) {
		return "", p, notJSON
	}
	vs := s.values
	if at := rd.session; at >= 0 {
		kind, n := vs.Kind(at), vs.Len(at)
		if kind != answer.String && (kind != answer.Number || !rd.any2xx) || n == 0 || n > maxSession {
			return "", p, noSession
		}
		text, ok := vs.Plain(at)
		if !ok {
			s.session = vs.Append(at, s.session[:0])
			text = s.session
		}
		session = unsafe.String(unsafe.SliceData(text), len(text))
	}
	for _, at := range rd.manifests {
		if vs.Kind(at) != answer.String || vs.Len(at) == 0 || rd.urls && !vs.HasPrefix(at, "http://") && !vs.HasPrefix(at, "https://") {
			return "", p, noManifest
		}
	}
	p, problem = s.policy()
	return session, p, problem
}

// policy returns the retry policy of the answer that was read last.
func (s *shard) policy() (policy, reason) {
	at := s.g.reading.policy
	switch s.values.Kind(at) {
	case answer.Absent, answer.Null:
		return policy{}, noReason
	}
	most, ok := s.values.Int(at + 1)
	after, ok2 := s.values.Float(at + 2)
	if s.values.Kind(at) != answer.Object || !ok || !ok2 || after < 0 {
		return policy{}, badPolicy
	}
	return policy{true, most, time.Duration(min(after, maxRetryAfter.Seconds()) * 1e9)}, noReason
}

// readPolicy returns the retry policy of an answer that is no good one. Of a target's answer the Retry-After header is
// guidance too.
func (s *shard) readPolicy(r reply) (policy, reason) {
	if s.g.reading.paths.Read(r.body, s.values) {
		if p, problem := s.policy(); p.guided || problem != noReason {
			return p, problem
		}
	}
	if r.retryAfter >= 0 && s.g.c.Target != nil {
		return policy{true, s.g.c.MaxRetries, min(time.Duration(r.retryAfter)*time.Second, maxRetryAfter)}, noReason
	}
	return policy{}, noReason
}

// attemptFailed sends a start on to the next region's service, or ends this press of Play when all were tried.
func (s *shard) attemptFailed(i uint32, why reason, now time.Duration) {
	s.stats.attemptFailures.add(why)
	st := s.slab.at(i)
	st.tried++
	if int(st.tried) < len(s.services) && !s.ended && s.ceiling.take(now) {
		s.goOn(st)
		st.ready = now
		s.enqueue(i)
		return
	}
	v := s.viewer(st.k)
	s.pressed(i, v, isFailed, why, policy{}, now)
}

func (s *shard) goOn(st *start) { st.service = uint16((int(st.service) + 1) % len(s.services)) }

// pressed is the end of one press of Play that came to nothing: the viewer comes back, or not.
func (s *shard) pressed(i uint32, v *audience.Viewer, how status, why reason, p policy, now time.Duration) {
	st := s.slab.at(i)
	if st.press < 1<<16-1 {
		st.press++
	}
	if !s.ended {
		c := &s.g.c
		after, again := c.People.Next(c.Seed, *v, int(st.press), audience.Outcome{
			Status: statusNames[how], Guided: p.guided, MaxRetries: min(p.max, c.MaxRetries), RetryAfter: p.after,
		})
		if again && !c.People.Stays(*v, now+after-st.intended) {
			again = false
			s.stats.left++
		}
		if again && now+after <= s.g.horizon && s.parked.n < maxParked/c.Shards {
			if int(st.tried) == len(s.services) { // full circle: at the home region's again
				s.goOn(st)
			}
			st.tried, st.last, st.why = 0, how, why
			st.ready = now + after
			s.parked.add(&s.slab, i)
			return
		}
	}
	s.finish(i, v, how, why, "", now)
}

// comeBack takes a parked start whose moment has come.
func (s *shard) comeBack(i uint32, now time.Duration) {
	st := s.slab.at(i)
	if !s.ceiling.take(now) {
		s.waitForRoom(i, now)
		return
	}
	if st.returns && st.attempts == 0 {
		st.intended = st.ready
		s.intend(i, now)
		return
	}
	if s.queued >= maxQueue/s.g.c.Shards {
		v := s.viewer(st.k)
		s.finish(i, v, st.last, queueFull, "", now)
		return
	}
	s.enqueue(i)
}

// waitForRoom keeps a parked start from coming back beyond the ceiling: it comes when there may be room, or no more.
func (s *shard) waitForRoom(i uint32, now time.Duration) {
	st := s.slab.at(i)
	st.ready = s.ceiling.next(now)
	switch {
	case st.ready <= s.g.horizon:
		s.parked.add(&s.slab, i)
	case st.returns && st.attempts == 0:
		s.slab.put(i) // it never came
	default:
		s.finish(i, s.viewer(st.k), st.endedAs(), st.why, "", now)
	}
}

// drop ends a start that was never sent.
func (s *shard) drop(i uint32, v *audience.Viewer, why reason, now time.Duration) {
	s.finish(i, v, isDropped, why, "", now)
}

// finish counts a start and puts it on the timeline: exactly once for each intended start.
func (s *shard) finish(i uint32, v *audience.Viewer, how status, why reason, session string, now time.Duration) {
	st := s.slab.at(i)
	ev := event.Event{
		At:        s.zero.Add(now),
		Kind:      event.PlayStart,
		Status:    statusNames[how],
		Component: "starts",
		Region:    v.Home,
		Session:   session,
		Device:    v.Device,
		ISP:       v.ISP,
		Home:      v.Home,
		Value:     millis(now - st.intended),
		Attempts:  st.attempts,
	}
	if how != isOK {
		ev.Detail = why.String()
		s.stats.failures.add(why)
	}
	if st.returns {
		ev.State = Returned
	}
	if how == isDropped {
		ev.LagMS = ev.Value
	} else {
		ev.LagMS = millis(st.sent - st.intended)
		svc := &s.services[st.service]
		ev.Edge = svc.addr
		if how != isFailed {
			ev.Region = svc.region
		}
		record(s.stats.fromIntended, now-st.intended)
		record(s.stats.fromSent, now-st.sent)
		record(s.stats.sendLag, st.sent-st.intended)
	}
	s.stats.ended[how]++
	sec := s.stats.second(now)
	switch how {
	case isOK:
		sec.OK++
	case isShed:
		sec.Shed++
	case isFailed:
		sec.Failed++
	case isDropped:
		sec.Dropped++
	}
	s.slab.put(i)
	s.g.c.Sink.Emit(ev)
}

// timeOuts fails the attempts that have taken too long. Their connection is closed when nobody else waits for it;
// else the answer, if it comes yet, is thrown away.
func (s *shard) timeOuts(now time.Duration) {
	for s.flight.n > 0 {
		i := s.flight.head
		st := s.slab.at(i)
		if now-st.began < s.g.c.AttemptTimeout {
			return
		}
		c := s.conns[st.conn]
		s.abandon(c, i)
		s.attemptFailed(i, timeOut, now)
		if c.live == 0 {
			s.hangUpOn(c, true)
		}
	}
}

// cancel ends everything: nothing is sent any more, and what was on its way has failed.
func (s *shard) cancel(now time.Duration) {
	if s.ended {
		return
	}
	s.ended = true
	viewer := func(i uint32) *audience.Viewer { return s.viewer(s.slab.at(i).k) }
	for j := range s.services {
		for svc := &s.services[j]; svc.queue.n > 0; {
			i := s.dequeue(svc)
			if st := s.slab.at(i); st.attempts == 0 {
				s.drop(i, viewer(i), cancelled, now)
			} else {
				s.finish(i, viewer(i), st.endedAs(), cancelled, "", now)
			}
		}
	}
	for s.flight.n > 0 {
		i := s.flight.head
		s.abandon(s.conns[s.slab.at(i).conn], i)
		s.stats.attemptFailures.add(cancelled)
		s.finish(i, viewer(i), isFailed, cancelled, "", now)
	}
	s.parked.all(&s.slab, func(i uint32) {
		if st := s.slab.at(i); st.returns && st.attempts == 0 {
			s.slab.put(i) // it was not due
		} else {
			s.finish(i, viewer(i), st.endedAs(), cancelled, "", now)
		}
	})
}

// endedAs is how a start that was between two attempts ends when it is not to come back.
func (st *start) endedAs() status {
	if st.last == isShed {
		return isShed
	}
	return isFailed
}
