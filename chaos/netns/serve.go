package netns

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
)

// childArg makes this binary the process that holds packets up. It is a flag that nobody else knows, so that a program whose
// main does not ask IsChild refuses it and ends, instead of doing once more whatever it does.
const childArg = "--netns-hold-packets-up"

const (
	maxOrder     = 1 << 20 // bytes of an order or an answer
	maxWires     = 2 * MaxRegions
	maxStretches = 64 // on one wire
)

// order is what the wires' process is told: one line of JSON.
type order struct {
	Wire      string         `json:"wire"`          // its interface; it is laid when it is not there
	Set       bool           `json:"set,omitempty"` // false: asks for the tallies alone
	Stretches []stretchOrder `json:"stretches,omitempty"`
}

// stretchOrder is what is to happen to one flow. One whose ID is on the wire already goes on as it is.
type stretchOrder struct {
	ID         uint64          `json:"id"`
	Flow       kernel.Flow     `json:"flow"`
	Impairment link.Impairment `json:"impairment"`
}

// answer is one line of JSON for each order.
type answer struct {
	Error   string  `json:"error,omitempty"`
	Index   int     `json:"index,omitempty"`   // of the wire's interface
	Tallies []tally `json:"tallies,omitempty"` // of every stretch before and after the order
	Lost    uint64  `json:"lost,omitempty"`    // packets, as Count.Overrun
}

type tally struct {
	ID     uint64 `json:"id"`
	Held   uint64 `json:"held,omitempty"`
	NoRoom uint64 `json:"no_room,omitempty"`
}

// validate keeps an order to what a network has.
func (o order) validate() error {
	if len(o.Wire) == 0 || len(o.Wire) >= unix.IFNAMSIZ {
		return fmt.Errorf("a wire called %q", o.Wire)
	}
	if len(o.Stretches) > maxStretches {
		return fmt.Errorf("%d flows are held up on one wire; at most %d are possible", len(o.Stretches), maxStretches)
	}
	var errs []error
	for _, s := range o.Stretches {
		errs = append(errs, s.Flow.Validate(), s.Impairment.Validate())
	}
	return errors.Join(errs...)
}

// IsChild reports whether this process was started to hold packets up: main, or a test's TestMain, then calls Serve before
// anything else, and exits with its status.
func IsChild() bool { return len(os.Args) == 2 && os.Args[1] == childArg }

// Serve holds packets up until standard input ends, with the network or with the process that built it.
func Serve() int {
	c := carrier{wires: make(map[string]*wire)}
	var err error
	if c.kernel, err = openNetlink(); err == nil {
		err = c.serve(os.Stdin, os.Stdout)
	}
	for _, w := range c.wires {
		err = errors.Join(err, w.close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// carrier has the wires of one network. It lives in the hub's namespace.
type carrier struct {
	kernel *rtnetlink
	wires  map[string]*wire
}

func (c *carrier) serve(orders io.Reader, answers io.Writer) error {
	lines := bufio.NewScanner(orders)
	lines.Buffer(nil, maxOrder)
	for lines.Scan() {
		o, err := readOrder(lines.Bytes())
		var a answer
		if err == nil {
			a, err = c.obey(o)
		}
		if err != nil {
			a.Error = err.Error()
		}
		line, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if _, err := answers.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return lines.Err()
}

func readOrder(line []byte) (o order, err error) {
	if err := json.Unmarshal(line, &o); err != nil {
		return order{}, fmt.Errorf("an order that is no order: %w", err)
	}
	return o, o.validate()
}

func (c *carrier) obey(o order) (answer, error) {
	w := c.wires[o.Wire]
	if w == nil {
		if len(c.wires) == maxWires {
			return answer{}, fmt.Errorf("there are %d wires already", maxWires)
		}
		var err error
		if w, err = newWire(c.kernel, o.Wire); err != nil {
			return answer{}, err
		}
		c.wires[o.Wire] = w
	}
	select {
	case <-w.done:
		return answer{}, fmt.Errorf("wire %s has ended: %w", o.Wire, w.err)
	default:
	}
	before := *w.stretches.Load()
	a := answer{Index: w.index, Lost: w.lost.Load()}
	if o.Set {
		after := make([]*stretch, 0, len(o.Stretches))
		for _, s := range o.Stretches {
			if i := slices.IndexFunc(before, func(b *stretch) bool { return b.id == s.ID }); i >= 0 {
				after = append(after, before[i])
				continue
			}
			after = append(after, &stretch{id: s.ID, flow: s.Flow, link: link.New(s.Impairment)})
		}
		if err := w.set(after); err != nil {
			return answer{}, err
		}
	}
	for _, s := range before {
		a.Tallies = append(a.Tallies, tally{ID: s.id, Held: s.held.Load(), NoRoom: s.noRoom.Load()})
	}
	return a, nil
}
