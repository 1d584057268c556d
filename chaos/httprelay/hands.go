package httprelay

import "context"

// hands bounds the bytes of segments that are fetched, spoiled and sent at a time: a crowd waits rather than fill the memory.
type hands struct {
	turn chan struct{} // one takes at a time, so that two that have some do not wait for each other's
	full chan struct{} // one for each handful that is taken
}

const (
	handful = 1 << 20 // bytes
	maxHeld = 512     // handfuls
)

func newHands() hands {
	return hands{turn: make(chan struct{}, 1), full: make(chan struct{}, maxHeld)}
}

// hold is what one request has in hand.
type hold struct {
	hands hands
	n     int64 // handfuls
}

func handfuls(size int64) int64 { return min((size+handful-1)/handful, maxHeld) }

// take waits until there is room for so many bytes; more than there is altogether is all there is. It ends with ctx, and with an
// error that wraps errNothing when gone is closed.
func (h hands) take(ctx context.Context, gone <-chan struct{}, size int64) (*hold, error) {
	wait := func(c chan<- struct{}) error {
		select {
		case c <- struct{}{}:
			return nil
		case <-gone:
			return errNothing
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(h.turn); err != nil {
		return nil, err
	}
	defer func() { <-h.turn }()
	out := &hold{hands: h}
	for range handfuls(size) {
		if err := wait(h.full); err != nil {
			out.give(0)
			return nil, err
		}
		out.n++
	}
	return out, nil
}

// give gives back all but what so many bytes take.
func (h *hold) give(keep int64) {
	for h.n > handfuls(keep) {
		<-h.hands.full
		h.n--
	}
}
