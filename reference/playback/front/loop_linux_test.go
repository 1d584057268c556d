package front

import (
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
