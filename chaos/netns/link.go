package netns

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tminus-live/tminus/chaos/kernel"
	"github.com/tminus-live/tminus/chaos/link"
)

// Ways over a cable.
const (
	up   = 0 // from the region to everybody else
	down = 1 // from everybody else to the region
)

// place is where on a cable a program sits.
type place int

const (
	atHub    place = iota // the hub's end, as packets come in from the region: the way up
	atWire                // the way up's wire, as packets come back from it
	atRegion              // the region's end, as packets come in: the way down
)

// Link is the cable between a region and everybody else, for one flow over it: a region's own traffic with itself does not
// touch it. Several may be held, for several flows or the same; a packet meets every one that it is part of.
type Link struct {
	network *Network
	region  *region
	ways    [2]*way
}

// way is one direction of a Link.
type way struct {
	flow       kernel.Flow
	impairment link.Impairment

	programs [3]*kernel.Program // by place; nil: none there
	stretch  *stretchOrder      // nil: it does not go round by the wire
	redirect *kernel.Program    // sends the flow there
	links    []uint32           // ids of all bpf links ever made
	past     Count              // of programs and stretches that are gone
}

// Counts is what has happened to a Link's packets since it was made.
type Counts struct{ Up, Down Count }

// Count is what has happened to the packets of one direction.
type Count struct {
	Seen       uint64 // by the kernel's programs
	Lost       uint64
	Duplicated uint64
	Corrupted  uint64
	Held       uint64 // held up on the wire
	NoRoom     uint64 // dropped at the tail of the queue before the rate
	Overrun    uint64 // lost because the wire was not kept up with, whichever Link's: more than 0 says that the machine is too slow for the test
}

func (c Count) plus(o Count) Count {
	return Count{
		Seen: c.Seen + o.Seen, Lost: c.Lost + o.Lost, Duplicated: c.Duplicated + o.Duplicated, Corrupted: c.Corrupted + o.Corrupted,
		Held: c.Held + o.Held, NoRoom: c.NoRoom + o.NoRoom, Overrun: c.Overrun + o.Overrun,
	}
}

// Link is a handle of its own on a region's cable, for one flow; the zero Flow is everything. A Flow without a Direction
// means both: which way it is broken, Impair says.
func (n *Network) Link(region string, flow kernel.Flow) (*Link, error) {
	if flow.Direction == "" {
		flow.Direction = kernel.Both
	}
	if err := flow.Validate(); err != nil {
		return nil, err
	}
	r, err := n.region(region)
	if err != nil {
		return nil, err
	}
	return &Link{network: n, region: r, ways: [2]*way{{flow: flow}, {flow: flow}}}, nil
}

// Impair breaks the flow: up is the way from the region, down the way to it. It replaces what the Link did before. A rate
// and its queue count IP packets, headers and all. After an error Clear undoes what was done.
func (l *Link) Impair(up, down link.Impairment) error {
	if err := errors.Join(up.Validate(), down.Validate()); err != nil {
		return err
	}
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if l.network.closed {
		return errLeft
	}
	for i, impairment := range [2]link.Impairment{up, down} {
		if err := l.network.set(l.region, i, l.ways[i], impairment); err != nil {
			return fmt.Errorf("impair the link of region %s: %w", l.region.name, err)
		}
	}
	return nil
}

// Clear lets the flow pass as it is again; what is held up on the wire arrives at once, unless others use the wire. Clearing
// twice, or after the network was closed, is fine.
func (l *Link) Clear() error {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if l.network.closed {
		return nil
	}
	var errs []error
	for i := range l.ways {
		errs = append(errs, l.network.set(l.region, i, l.ways[i], link.Impairment{}))
	}
	return errors.Join(errs...)
}

// Counts says what was done to the flow's packets so far.
func (l *Link) Counts() (Counts, error) {
	n := l.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed != nil {
		return Counts{}, n.failed
	}
	var c [2]Count
	for i, w := range l.ways {
		s := &l.region.sections[i]
		lost, err := n.overrun(s)
		if err != nil {
			return Counts{}, err
		}
		c[i] = w.past
		c[i].Overrun = lost
		for _, p := range w.programs {
			if p == nil {
				continue
			}
			done, err := p.Counts()
			if err != nil {
				return Counts{}, err
			}
			c[i] = c[i].plus(countOf(done))
		}
		if w.stretch != nil {
			c[i] = c[i].plus(s.tallies[w.stretch.ID])
		}
	}
	return Counts{Up: c[up], Down: c[down]}, nil
}

// LinkIDs are the ids of every bpf link that was made for this Link, for whoever wants to see that none is left.
func (l *Link) LinkIDs() []uint32 {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	return slices.Concat(l.ways[up].links, l.ways[down].links)
}

func countOf(c kernel.Counts) Count {
	t := c.Total()
	return Count{Seen: t.Seen.Packets, Lost: t.Lost.Packets, Duplicated: t.Duplicated, Corrupted: t.Corrupted}
}

// section is one direction of a region's cable: the Links that break it, and the wire that they share.
type section struct {
	ways    []*way
	wire    laid
	mark    *kernel.Program  // on the wire, of the way down
	tallies map[uint64]Count // by stretch, when the wires' process last said
}

// laid is a wire as this process knows it.
type laid struct {
	name  string
	index int    // of its interface, in the hub; 0: not laid yet
	lost  uint64 // packets, when its process last said
}

func (s *section) close() error {
	var errs []error
	for _, w := range s.ways {
		errs = append(errs, w.withdraw())
	}
	s.ways = nil
	if s.mark != nil {
		errs = append(errs, s.mark.Close())
	}
	s.mark = nil
	return errors.Join(errs...)
}

// held reports whether any Link of the section sends packets round by the wire.
func (s *section) held() bool {
	return slices.ContainsFunc(s.ways, func(w *way) bool { return w.stretch != nil })
}

// inKernel and onWire are the two parts of an impairment. What the kernel does, it does at line rate and to the packet; it
// has no means to hold one up.
func inKernel(i link.Impairment) link.Impairment {
	return link.Impairment{Loss: i.Loss, Duplicate: i.Duplicate, Corrupt: i.Corrupt, Cut: i.Cut, Seed: i.Seed}
}

func onWire(i link.Impairment) link.Impairment {
	return link.Impairment{Delay: i.Delay, Jitter: i.Jitter, Reorder: i.Reorder, Rate: i.Rate, Queue: i.Queue, Seed: i.Seed}
}

// set makes a way do something else than before. The new is there before the old goes, so that no packet slips through.
func (n *Network) set(r *region, direction int, w *way, to link.Impairment) error {
	s := &r.sections[direction]
	old := *w
	w.impairment, w.programs, w.stretch = to, [3]*kernel.Program{}, nil
	if !slices.Contains(s.ways, w) {
		s.ways = append(s.ways, w)
	}
	err := n.install(r, direction, s, w)

	// What there was goes in any case: a fault that cannot be changed ends.
	if w.stretch == nil && w.redirect != nil {
		err = errors.Join(err, w.redirect.Close())
		w.redirect = nil
	}
	if old.stretch != nil {
		w.past = w.past.plus(s.tallies[old.stretch.ID])
	}
	err = errors.Join(err, w.retire(old.programs[:]))
	if to.None() {
		s.ways = slices.DeleteFunc(s.ways, func(other *way) bool { return other == w })
	}
	return errors.Join(err, n.tidy(s))
}

// install puts a way's parts in place, and those of others that a wire makes necessary.
func (n *Network) install(r *region, direction int, s *section, w *way) error {
	if wired := onWire(w.impairment); !wired.None() {
		if err := n.lay(r, direction, s); err != nil {
			return err
		}
		n.stretches++
		w.stretch = &stretchOrder{ID: n.stretches, Flow: w.flow, Impairment: wired}
	}
	// A wire whose process is gone has nothing on it.
	if s.wire.index > 0 && n.failed == nil {
		if err := n.tell(s, order{Set: true, Stretches: s.stretches()}); err != nil {
			return err
		}
	}
	for _, other := range s.ways {
		if err := n.place(r, direction, s, other); err != nil {
			return err
		}
	}
	if w.stretch == nil || w.redirect != nil {
		return nil
	}
	cfg := kernel.RedirectConfig{Interface: r.hubEnd, Hook: kernel.Ingress, Flow: w.flow, Via: s.wire.index, Except: r.mark()}
	if direction == down {
		cfg.Hook = kernel.Egress
	}
	var err error
	w.redirect, err = w.attach(n.hub, func() (*kernel.Program, error) { return kernel.Redirect(cfg) })
	return err
}

func (s *section) stretches() []stretchOrder {
	var all []stretchOrder
	for _, w := range s.ways {
		if w.stretch != nil {
			all = append(all, *w.stretch)
		}
	}
	return all
}

// places says where a way's programs belong so that each packet meets one: on the way down where the cable ends, behind any
// wire; on the way up in front of the hub, unless the packet goes round by the wire, which takes it away before: then
// where it comes back.
func (s *section) places(direction int, w *way) []place {
	switch {
	case inKernel(w.impairment).None():
		return nil
	case direction == down:
		return []place{atRegion}
	case w.stretch != nil:
		return []place{atWire}
	case s.held(): // some of its packets may be another Link's too
		return []place{atHub, atWire}
	}
	return []place{atHub}
}

func (n *Network) place(r *region, direction int, s *section, w *way) error {
	for _, at := range s.places(direction, w) {
		if w.programs[at] != nil {
			continue
		}
		i := w.impairment
		cfg := kernel.Config{Flow: w.flow, Loss: i.Loss, Duplicate: i.Duplicate, Corrupt: i.Corrupt, Cut: i.Cut, Seed: i.Seed}
		in := n.hub
		switch at {
		case atHub:
			cfg.Interface = r.hubEnd
		case atWire:
			cfg.Interface = s.wire.index
			if w.stretch == nil {
				cfg.Seed = link.Flow(i.Seed, 1) // beside the one at the hub, which has the seed itself
			}
		case atRegion:
			cfg.Interface, in = r.ownEnd, r.space
		}
		program, err := w.attach(in, func() (*kernel.Program, error) { return kernel.Impair(cfg) })
		if err != nil {
			return err
		}
		w.programs[at] = program
	}
	return nil
}

// attach puts a program into the kernel from a namespace's thread.
func (w *way) attach(in *space, put func() (*kernel.Program, error)) (p *kernel.Program, err error) {
	err = in.do(func() (err error) {
		p, err = put()
		return err
	})
	if err != nil {
		return nil, err
	}
	w.links = append(w.links, p.LinkID())
	return p, nil
}

// lay lays a section's wire if there is none yet. It stays for the network's life: idle, it costs nothing.
func (n *Network) lay(r *region, direction int, s *section) (err error) {
	if n.failed != nil {
		return n.failed
	}
	if n.wires == nil {
		if n.wires, err = startWires(n.hub); err != nil {
			return fmt.Errorf("start the process that holds packets up: %w", err)
		}
		n.watched = make(chan struct{})
		go n.watch(n.wires)
	}
	if s.wire.index == 0 {
		s.wire.name = fmt.Sprintf("%s%d", [2]string{up: "up", down: "down"}[direction], r.k)
		if err := n.tell(s, order{Set: true}); err != nil {
			return err
		}
	}
	if direction == up || s.mark != nil {
		return nil
	}
	// What comes back is routed, and meets the same end of the cable again.
	return n.hub.do(func() (err error) {
		s.mark, err = kernel.Mark(s.wire.index, r.mark())
		return err
	})
}

// tell gives a section's wire an order and keeps what it answers.
func (n *Network) tell(s *section, o order) error {
	o.Wire = s.wire.name
	a, err := n.wires.ask(o)
	if err != nil {
		return err
	}
	s.wire.index, s.wire.lost = a.Index, a.Lost
	s.tallies = make(map[uint64]Count, len(a.Tallies))
	for _, t := range a.Tallies {
		s.tallies[t.ID] = Count{Held: t.Held, NoRoom: t.NoRoom}
	}
	return nil
}

// watch lets packets pass again if the process that holds them up ends before it is told to: what is sent to a wire that is
// not there is lost. The network has no wires from then on, and every Link says so.
func (n *Network) watch(w *wires) {
	defer close(n.watched)
	<-w.ended
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.failed = fmt.Errorf("the process that holds packets up has ended: %v%s", w.err, w.words.quoted())
	for _, r := range n.regions {
		for i := range r.sections {
			for _, way := range r.sections[i].ways {
				way.stretch = nil
				if way.redirect != nil {
					_ = way.redirect.Close() // Clear tries again, and says
				}
			}
		}
	}
}

// mark is what packets bear that have been on a region's wire.
func (r *region) mark() uint32 { return uint32(r.k) }

// tidy withdraws what no Link of a section needs any more.
func (n *Network) tidy(s *section) error {
	var errs []error
	for _, w := range s.ways {
		if w.stretch == nil && !s.held() && w.programs[atWire] != nil {
			errs = append(errs, w.retire(w.programs[atWire:atWire+1]))
		}
	}
	return errors.Join(errs...)
}

// withdraw takes everything of a way out of the kernel.
func (w *way) withdraw() error {
	var errs []error
	if w.redirect != nil {
		errs = append(errs, w.redirect.Close())
	}
	errs = append(errs, w.retire(w.programs[:]))
	w.redirect, w.stretch = nil, nil
	return errors.Join(errs...)
}

// retire takes programs out of the kernel and keeps what they counted.
func (w *way) retire(programs []*kernel.Program) error {
	var errs []error
	for i, p := range programs {
		if p == nil {
			continue
		}
		errs = append(errs, p.Close())
		if done, err := p.Counts(); err == nil {
			w.past = w.past.plus(countOf(done))
		}
		programs[i] = nil
	}
	return errors.Join(errs...)
}

// overrun is how many packets a section's wire has lost because nobody took them in time.
func (n *Network) overrun(s *section) (uint64, error) {
	if s.wire.index == 0 {
		return 0, nil
	}
	if n.closed {
		return s.wire.lost, nil
	}
	if err := n.tell(s, order{}); err != nil {
		return 0, err
	}
	state, err := n.hub.netlink.find(s.wire.name)
	if err != nil {
		return 0, err
	}
	return s.wire.lost + state.droppedTo, nil
}
