package front

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A connection that was accepted for a loop that has left is the acceptor's to close.
func TestALoopThatHasLeftTakesNoConnection(t *testing.T) {
	f, err := New(Config{Play: echo, Rest: paths, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{worker: worker{f: f}}
	if !l.offer(-1) || len(l.incoming) != 1 {
		t.Error("a running loop takes no connection")
	}
	f.conns.Add(1)
	l.leave()
	if l.offer(-1) || len(l.incoming) != 0 || f.conns.Load() != 0 {
		t.Errorf("a loop that has left holds %d connections, %d are counted", len(l.incoming), f.conns.Load())
	}
}

// slow is a service that needs a millisecond for a play start, on a clock that nothing else moves, and what a loop before it observes.
type slow struct {
	dial    func() net.Conn
	passed  atomic.Int64  // nanoseconds
	stuck   chan struct{} // a start with the body "hold" holds the loop
	release chan struct{} // until then
	mu      sync.Mutex
	queue   time.Duration // the longest
	most    int           // starts in hand
	heard   int
}

func newSlow(t *testing.T) *slow {
	s := &slow{stuck: make(chan struct{}), release: make(chan struct{})}
	began := time.Now()
	s.dial, _ = serve(t, "loop", func(c *Config) {
		c.Loops = 1
		c.HeadTime, c.IdleTime, c.SendTime = time.Hour, time.Hour, time.Hour
		c.Now = func() time.Time { return began.Add(time.Duration(s.passed.Load())) }
		c.Play = func(dst []byte, now time.Time, body []byte) ([]byte, int, int) {
			if string(body) == "hold" {
				s.stuck <- struct{}{}
				<-s.release
			} else {
				s.passed.Add(int64(time.Millisecond))
			}
			return echo(dst, now, body)
		}
		c.Observe = func(_ time.Time, n int, queue time.Duration) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.queue, s.most, s.heard = max(s.queue, queue), max(s.most, n), s.heard+1
		}
	})
	return s
}

// seen is what was observed since the last call: the last observation comes after its answers, so it waits for one of least.
func (s *slow) seen(least time.Duration) (queue time.Duration, most int) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		queue, most = s.queue, s.most
		done := s.heard > 0 && queue >= least || time.Now().After(deadline)
		if done {
			s.queue, s.most, s.heard = 0, 0, 0
		}
		s.mu.Unlock()
		if done {
			return queue, most
		}
	}
}

// The delay is how long clients waited for each other, however many batches that takes, and not how long an answer takes.
func TestTheQueueingDelayIsThatOfTheClients(t *testing.T) {
	s := newSlow(t)
	one := s.dial()
	br := bufio.NewReader(one)
	for range 5 {
		io.WriteString(one, post("x"))
		read(t, br)
		if queue, most := s.seen(0); queue > time.Millisecond || most != 1 { // it came after the last batch began
			t.Errorf("one client alone waited for %v among %d", queue, most)
		}
	}

	const clients = 900
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial()
		io.WriteString(conns[i], post("x"))
		read(t, bufio.NewReader(conns[i]))
	}
	for _, n := range []int{100, clients} {
		io.WriteString(one, post("hold"))
		<-s.stuck
		s.mu.Lock()
		s.queue, s.most = 0, 0
		s.mu.Unlock()
		for round := range 3 { // the clients of the second and third round have waited since their last answer
			for _, c := range conns[:n] {
				io.WriteString(c, post("x"))
			}
			if round == 0 {
				s.release <- struct{}{}
				read(t, br)
			}
			for _, c := range conns[:n] {
				read(t, bufio.NewReader(c))
			}
		}
		want := time.Duration(n) * time.Millisecond
		if queue, most := s.seen(want * 3 / 4); queue < want*3/4 || queue > want*5/4 || most < n*3/4 || most > n*5/4 {
			t.Errorf("%d clients of 1 ms each: a delay of %v, %d in hand", n, queue, most)
		}
	}
}

// A loop that is never idle has the delay of one round of its clients, not of all the time that it was busy.
func TestTheQueueingDelayOfALoopThatIsNeverIdle(t *testing.T) {
	s := newSlow(t)
	const clients, rounds = 600, 10
	var conns [clients]net.Conn
	for i := range conns {
		conns[i] = s.dial()
	}
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			br := bufio.NewReader(c)
			for range rounds {
				io.WriteString(c, post("x"))
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	wg.Wait()
	if queue, most := s.seen(0); queue > 2*clients*time.Millisecond || most > 2*clients {
		t.Errorf("%d clients of 1 ms each, %d times: a delay of %v, %d in hand", clients, rounds, queue, most)
	}
}

// The delay counts what clients wait in the backlog for their connections to be accepted.
func TestTheQueueingDelayOfTheBacklog(t *testing.T) {
	s := newSlow(t)
	one := s.dial()
	io.WriteString(one, post("hold"))
	<-s.stuck
	const clients = 600
	conns := make([]net.Conn, clients)
	for i := range conns {
		conns[i] = s.dial()
		io.WriteString(conns[i], post("x"))
	}
	s.release <- struct{}{}
	for _, c := range conns {
		read(t, bufio.NewReader(c))
	}
	if queue, most := s.seen(clients * 3 / 4 * time.Millisecond); queue < clients*3/4*time.Millisecond || queue > clients*5/4*time.Millisecond || most < clients*3/4 || most > clients*5/4 {
		t.Errorf("%d new clients of 1 ms each: a delay of %v, %d in hand", clients, queue, most)
	}
}
