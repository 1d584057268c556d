package processes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
	"github.com/tminus-live/tminus/chaos/procfs"
)

// What a fault is expected to do.
const (
	Hung    = "hang"
	Starved = "cpu"
	Pressed = "memory"
)

// Watch figures that no caller has had reason to set.
const (
	sampleEvery = 100 * time.Millisecond
	getEvery    = 250 * time.Millisecond
	getTimeout  = time.Second
	getsOpen    = 8
	samplesKept = 40_000
	bodyRead    = 64 << 10 // bytes of an answer
)

// Expect says what is watched for.
type Expect struct {
	What  string        // Hung, Starved or Pressed
	Cores float64       // of Starved: what is left
	Room  int64         // of Pressed: what is left, in bytes
	For   time.Duration // how long the fault lasts
	URL   string        // answers GET when all is well; "": it is not asked from outside
	Mute  bool          // it may be that nothing at URL speaks HTTP: who never answers a GET is judged by /proc alone
	Now   func() time.Time
}

// Observer measures what became of a target, from /proc and from outside: it looks every 100 ms and asks URL every 250 ms, less
// often at faults so long that it could not keep the 40,000 looks that it keeps at the most. It knows nothing of an injector:
// which group a process is in, and what limits that has, it reads from the kernel.
type Observer struct {
	target Target
	expect Expect
	every  time.Duration
	client *http.Client

	mu      sync.Mutex
	samples []sample
	gets    []get
	missed  int // neither taken nor kept
}

// sample is one look at /proc.
type sample struct {
	at        time.Time
	took      time.Duration // to look
	alive     int
	stopped   int
	used      time.Duration // processor time, since the sample before
	since     time.Duration // from the sample before
	cpuGroup  string        // of the first process
	throttled uint64        // periods in which that group was held back
	memGroup  string
	limit     int64 // of that group, in bytes; -1: none
	usage     int64
	held      uint64 // times that the group wanted more than its limit
}

// get is one request from outside.
type get struct {
	start, end time.Time
	status     int // 0: no answer
}

// NewObserver makes an Observer. An effect that there is none of is an error that wraps evidence.ErrUnknown; no clock is one too.
func NewObserver(t Target, e Expect) (*Observer, error) {
	switch e.What {
	case Hung, Starved, Pressed:
	default:
		return nil, fmt.Errorf("%w effect %q on processes", evidence.ErrUnknown, e.What)
	}
	if e.Now == nil {
		return nil, errors.New("an observer needs a clock")
	}
	o := &Observer{target: t, expect: e, every: max(sampleEvery, (e.For+time.Minute)/samplesKept)}
	o.client = &http.Client{
		Timeout: getTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true, // a new viewer each time
			DialContext:       (&net.Dialer{Timeout: getTimeout}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return o, nil
}

// Watch measures until ctx ends; a request that is under way then says nothing. What cannot be read, asked in time (eight requests are
// open at the most, a second each) or kept is counted as missed.
func (o *Observer) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if o.expect.URL != "" {
		wg.Go(func() { o.ask(ctx) })
	}
	ticker := time.NewTicker(o.every)
	defer ticker.Stop()
	look := looker{target: o.target, last: make(map[Ref]time.Duration)}
	for {
		s, err := look.at(o.expect.Now())
		s.took = o.expect.Now().Sub(s.at)
		o.mu.Lock()
		if err == nil && len(o.samples) < samplesKept {
			o.samples = append(o.samples, s)
		} else {
			o.missed++
		}
		o.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask sends requests at a pace, whether earlier ones have been answered or not.
func (o *Observer) ask(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	open := make(chan struct{}, getsOpen)
	ticker := time.NewTicker(max(getEvery, o.every))
	defer ticker.Stop()
	for {
		select {
		case open <- struct{}{}:
			wg.Go(func() {
				defer func() { <-open }()
				g := get{start: o.expect.Now()}
				g.status = o.get(ctx)
				g.end = o.expect.Now()
				if ctx.Err() != nil && g.status == 0 {
					return // broken off: it says nothing
				}
				o.mu.Lock()
				if len(o.gets) < samplesKept {
					o.gets = append(o.gets, g)
				} else {
					o.missed++
				}
				o.mu.Unlock()
			})
		default:
			o.mu.Lock()
			o.missed++
			o.mu.Unlock()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (o *Observer) get(ctx context.Context) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.expect.URL, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("User-Agent", "tminus-probe")
	resp, err := o.client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, bodyRead)); err != nil {
		return 0
	}
	return resp.StatusCode
}

// Judge says what was measured: in % of looks (Hung), cores (Starved), or % of the room that was left (Pressed).
func (o *Observer) Judge(w evidence.Window) evidence.Evidence {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := judge(o.expect, w, o.samples, o.gets)
	if o.missed > 0 {
		e.Detail += fmt.Sprintf("; %d looks were missed", o.missed)
	}
	return e
}

// looker takes samples of a target.
type looker struct {
	target Target
	last   map[Ref]time.Duration
	before time.Time
}

func (l *looker) at(now time.Time) (sample, error) {
	s := sample{at: now, limit: -1}
	if !l.before.IsZero() {
		s.since = now.Sub(l.before)
	}
	l.before = now
	family, err := l.target.family()
	if err != nil {
		return s, err
	}
	seen := make(map[Ref]time.Duration, len(family))
	for _, p := range family {
		s.alive++
		if p.State == procfs.Stopped {
			s.stopped++
		}
		used, err := procfs.CPU(p.PID)
		if err != nil {
			continue
		}
		ref := Ref{p.PID, p.Start}
		if before, ok := l.last[ref]; ok {
			s.used += max(0, used-before)
		}
		seen[ref] = used
	}
	l.last = seen
	if len(family) > 0 {
		s.groups(family[0].PID)
	}
	return s, nil
}

// groups reads what the kernel says of the groups that a process is in. What cannot be read stays empty.
func (s *sample) groups(pid int) {
	mounts, err := readText("/proc/self/mountinfo")
	if err != nil {
		return
	}
	text, err := readText(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return
	}
	all, groups := parseMounts(mounts), parseGroups(text)
	if dir := dirOf("cpu", all, groups); dir != "" {
		s.cpuGroup = dir
		s.throttled = field(filepath.Join(dir, "cpu.stat"), "nr_throttled")
	}
	if dir := dirOf("memory", all, groups); dir != "" {
		s.memGroup = dir
		s.memory(dir)
	}
}

func (s *sample) memory(dir string) {
	// What version 1 says when there is no limit is the largest number of whole pages.
	const unlimited = 1 << 62
	for _, f := range []string{"memory.high", "memory.max", "memory.limit_in_bytes"} {
		if v, ok := number(filepath.Join(dir, f)); ok && v < unlimited && (s.limit < 0 || v < s.limit) {
			s.limit = v
		}
	}
	for _, f := range []string{"memory.current", "memory.usage_in_bytes"} {
		if v, ok := number(filepath.Join(dir, f)); ok {
			s.usage = v
		}
	}
	events := filepath.Join(dir, "memory.events")
	s.held = field(events, "high") + field(events, "max")
	if v, ok := number(filepath.Join(dir, "memory.failcnt")); ok {
		s.held = uint64(v)
	}
}

// dirOf finds the group that a process is in as to a controller: of version 1 where that has it, of version 2 otherwise.
func dirOf(controller string, mounts []hierarchy, groups map[string]string) string {
	for _, h := range mounts {
		if group, ok := groups[controller]; ok && h.version == 1 {
			for _, c := range h.controllers {
				if c == controller {
					return h.dir(group)
				}
			}
		}
	}
	for _, h := range mounts {
		if group, ok := groups[""]; ok && h.version == 2 {
			if dir := h.dir(group); dir != "" {
				return dir
			}
		}
	}
	return ""
}

// number reads a file that holds a number; "max" is none.
func number(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return v, err == nil
}

// field reads one value of a file of "name value" lines; 0 where there is none.
func field(path, name string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(l, name+" "); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
			return v
		}
	}
	return 0
}
