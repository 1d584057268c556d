package sessions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/simulator/stream"
	"github.com/tminus-live/tminus/telemetry/event"
)

// viewer drives one player: one goroutine that steps it, and one for each fetch in flight.
type viewer struct {
	crowd  *Crowd
	player *player.Player
	inbox  chan player.Event
	fetch  map[uint64]context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	last facts
}

// facts are what a snapshot tells of one viewer.
type facts struct {
	state                player.State
	startup, latency     time.Duration
	playing, rebuffering time.Duration
	kbps                 float64
	stalls               int
	switches, failed     int
}

func newViewer(c *Crowd, i int) *viewer {
	return &viewer{crowd: c, player: player.New(c.player(i)), fetch: map[uint64]context.CancelFunc{},
		inbox: make(chan player.Event, 16), last: facts{state: player.Idle}}
}

func (v *viewer) facts() facts {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

// run presses Play at the given time and stays until the player is done or ctx ends.
func (v *viewer) run(ctx context.Context, at time.Time) {
	now := v.crowd.cfg.Now
	// Fetches outlive ctx only until the player has said goodbye.
	fetches, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer v.wg.Wait()
	defer cancel()

	wake := time.NewTimer(at.Sub(now()))
	defer wake.Stop()
	var ev player.Event = player.Press{At: at}
	for first := true; ; first = false {
		if !first {
			ev = player.Tick{}
		}
		select {
		case <-ctx.Done():
			if first {
				return // never pressed Play: no session to end
			}
			ev = player.Leave{Why: "the run was stopped"}
		case ev = <-v.inbox:
		case <-wake.C:
		}
		if v.step(fetches, now(), ev, wake) {
			return
		}
	}
}

// step lets the player take an event and does what it asks for; it says whether the player is done.
func (v *viewer) step(ctx context.Context, now time.Time, ev player.Event, wake *time.Timer) bool {
	done := false
	for _, a := range v.player.Step(now, ev) {
		switch a := a.(type) {
		case player.Fetch:
			fctx, cancel := context.WithCancel(ctx)
			v.fetch[a.ID] = cancel
			v.wg.Go(func() { v.get(fctx, a) })
		case player.Cancel:
			if cancel := v.fetch[a.ID]; cancel != nil {
				cancel()
				delete(v.fetch, a.ID)
			}
		case player.Emit:
			v.note(a.Event)
			v.crowd.cfg.Sink.Emit(a.Event)
		case player.Wake:
			wake.Reset(a.At.Sub(v.crowd.cfg.Now()))
		case player.Done:
			done = true
		}
	}
	if a, ok := ev.(player.Answer); ok {
		if cancel := v.fetch[a.ID]; cancel != nil {
			cancel()
			delete(v.fetch, a.ID)
		}
	}
	v.mu.Lock()
	v.last.state = v.player.State()
	v.mu.Unlock()
	return done
}

// note keeps what a snapshot tells.
func (v *viewer) note(e event.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case event.FirstFrame:
		v.last.startup = time.Duration(e.Value * float64(time.Millisecond))
	case event.Heartbeat:
		v.last.playing += time.Duration(e.PlayingMS * float64(time.Millisecond))
		v.last.rebuffering += time.Duration(e.RebufferMS * float64(time.Millisecond))
		v.last.latency = time.Duration(e.LatencyMS * float64(time.Millisecond))
		v.last.kbps = e.BitrateKbps
	case event.Rebuffer:
		v.last.stalls++
	case event.EdgeSwitch:
		v.last.switches++
	case event.FetchFailed:
		v.last.failed++
	}
}

// tell hands the player an event, unless the fetch it is about has been withdrawn.
func (v *viewer) tell(ctx context.Context, ev player.Event) {
	select {
	case v.inbox <- ev:
	case <-ctx.Done():
	}
}

// get does one fetch. The player gives up before the driver's own time-out; that is for a player that is stuck.
func (v *viewer) get(ctx context.Context, f player.Fetch) {
	limited, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	a := v.answer(limited, f)
	a.ID = f.ID
	v.tell(ctx, a)
}

// progressEvery bounds how often a fetch says that it is alive.
const progressEvery = 200 * time.Millisecond

func (v *viewer) answer(ctx context.Context, f player.Fetch) (a player.Answer) {
	method, body := http.MethodGet, io.Reader(nil)
	if f.Post != nil {
		method, body = http.MethodPost, bytes.NewReader(f.Post)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.URL, body)
	if err != nil {
		a.Err = "not a URL"
		return a
	}
	if f.Post != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r := f.Range; r.Length > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1))
	}
	told := time.Now()
	resp, err := v.crowd.client.Do(req)
	if err != nil {
		a.Err = reason(err)
		return a
	}
	defer resp.Body.Close()
	a.Status, a.URL, a.Retry = resp.StatusCode, resp.Request.URL.String(), retryAfter(resp.Header)
	buf := buffers.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= maxKept {
			buf.Reset()
			buffers.Put(buf)
		}
	}()
	began := time.Now() // an origin may hold a request open: that is no measure of the path
	limit := f.Limit
	if resp.StatusCode >= 300 {
		limit = min(limit, 64<<10) // an error page
	}
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	chunk := chunks.Get().(*[]byte)
	defer chunks.Put(chunk)
	for {
		if now := time.Now(); now.Sub(told) >= progressEvery {
			told = now
			v.tell(ctx, player.Progress{ID: f.ID, Bytes: int64(buf.Len())})
		}
		n, err := resp.Body.Read(*chunk)
		buf.Write((*chunk)[:n])
		if int64(buf.Len()) > limit {
			return player.Answer{Err: fmt.Sprintf("the answer is longer than %d bytes", limit)}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return player.Answer{Err: "cut off: " + reason(err)}
		}
	}
	a.Bytes, a.Took = int64(buf.Len()), max(time.Since(began), time.Millisecond)
	good := a.Status == http.StatusOK || a.Status == http.StatusPartialContent
	switch {
	case !good:
		if f.Purpose == player.Play {
			a.Body = bytes.Clone(buf.Bytes())
		}
	case f.Purpose == player.Init:
		a.Media, err = stream.InspectInit(cut(buf.Bytes(), f.Range, a.Status))
	case f.Purpose == player.Segment:
		a.Media, err = stream.Inspect(cut(buf.Bytes(), f.Range, a.Status), f.Init)
	default:
		a.Body = bytes.Clone(buf.Bytes())
	}
	if err != nil && good {
		a.Wrong = err.Error()
	}
	return a
}

// cut takes the range asked for out of a whole resource, for servers that ignore Range.
func cut(b []byte, r stream.ByteRange, status int) []byte {
	if r.Length == 0 || status == http.StatusPartialContent {
		return b
	}
	from := min(r.Offset, int64(len(b)))
	return b[from:min(from+r.Length, int64(len(b)))]
}

const maxKept = 4 << 20 // bytes of a buffer worth keeping for the next fetch

var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	chunks  = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
)

// retryAfter is how long the server asks to be left alone: Tminus-Max-Age-Ms, or Retry-After in seconds (RFC 9110
// section 10.2.3).
func retryAfter(h http.Header) time.Duration {
	if n, err := strconv.ParseUint(h.Get("Tminus-Max-Age-Ms"), 10, 31); err == nil {
		return time.Duration(n) * time.Millisecond
	}
	if n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 20); err == nil {
		return time.Duration(n) * time.Second
	}
	return 0
}

// reason says in a few words why there was no answer.
func reason(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, ErrNotLoopback):
		return ErrNotLoopback.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timed out"
	case errors.Is(err, context.Canceled):
		return "withdrawn"
	}
	s := err.Error()
	if len(s) > 120 {
		s = s[:120] + "…"
	}
	return s
}
