package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/tminus-live/tminus/chaos/link"
)

// Config is what is done to a flow's packets at one hook of one interface. What is not lost may be duplicated, and then
// corrupted: the copy stays whole.
type Config struct {
	Interface int  // its index
	Hook      Hook // neither tells the sender of a loss
	Flow      Flow
	Loss      link.Loss
	Duplicate float64 // share of packets that arrive twice, 0 to 1
	Corrupt   float64 // share of packets that arrive with one bit of what TCP or UDP carries flipped, their checksum agreeing with it, 0 to 1
	Cut       bool    // nothing passes; then there is nothing else to do
	Seed      uint64
}

// Validate says everything that is wrong with a Config.
func (c Config) Validate() error {
	errs := []error{checkInterface(c.Interface), c.Hook.validate(), c.Flow.Validate(), c.Loss.Validate()}
	for what, share := range map[string]float64{"duplicated": c.Duplicate, "corrupted": c.Corrupt} {
		if !(share >= 0 && share <= 1) {
			errs = append(errs, fmt.Errorf("a share of %g of packets cannot be %s: it is from 0 to 1", share, what))
		}
	}
	return errors.Join(errs...)
}

func checkInterface(index int) error {
	if index <= 0 {
		return fmt.Errorf("there is no interface %d", index)
	}
	return nil
}

// Streams of random numbers beside the losses', which are drawn from the seed itself: one does not shift the other.
const (
	duplicates = 1
	corrupts   = 2
)

// stream is how one of the yes-or-no draws begins.
func stream(seed, number uint64, share float64) link.Rule {
	return link.Loss{Share: share}.Rule(link.Flow(seed, number))
}

// markLow is what is left of a packet's mark for others: see the package's comment.
const (
	markOurs = 0x7c
	markLow  = 0xffff
)

// marks numbers programs, as their duplicates' marks do: 1 to 255, those of another process from elsewhere on.
var marks atomic.Uint32

func nextMark() uint8 { return uint8(1 + (uint32(os.Getpid())*31+marks.Add(1))%255) }

// Impair puts a program there that does what cfg says.
func Impair(cfg Config) (*Program, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	w := impairer{Config: cfg, mark: nextMark()}
	w.loss = cfg.Loss.Rule(cfg.Seed)
	w.duplicate, w.corrupt = stream(cfg.Seed, duplicates, cfg.Duplicate), stream(cfg.Seed, corrupts, cfg.Corrupt)
	if i, err := net.InterfaceByIndex(cfg.Interface); err == nil { // if not, it is said below
		w.loopback = i.Flags&net.FlagLoopback != 0
	}
	s := spec{name: Prefix + "impair", ifindex: cfg.Interface, hook: cfg.Hook, write: w.write}
	if cfg.Cut {
		s.name = Prefix + "cut"
	}
	binary.NativeEndian.PutUint64(s.state[stateChain:], uint64(w.loss.Lost))
	binary.NativeEndian.PutUint64(s.state[stateDuplicate:], w.duplicate.State)
	binary.NativeEndian.PutUint64(s.state[stateCorrupt:], w.corrupt.State)
	if len(w.loss.Trace) > 0 && !cfg.Cut {
		s.maps = append(s.maps, w.trace())
	}
	return s.load()
}

// impairer writes the program.
type impairer struct {
	Config
	mark                     uint8
	loopback                 bool
	loss, duplicate, corrupt link.Rule
	traceMask                int32 // bytes of the trace's map but the last word's
}

// trace is a map that holds the trace, a bit for each packet. Its size is a power of two, for the kernel wants to see that no
// packet looks behind its end.
func (w *impairer) trace() *ebpf.MapSpec {
	size := 8
	for size*8 < len(w.loss.Trace) {
		size *= 2
	}
	w.traceMask = int32(size - 8)
	bits := make([]byte, size)
	for i, is := range w.loss.Trace {
		if is {
			word := bits[i/64*8:]
			binary.NativeEndian.PutUint64(word, binary.NativeEndian.Uint64(word)|1<<(i%64))
		}
	}
	return &ebpf.MapSpec{
		Name: Prefix + "trace", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1, Flags: unix.BPF_F_RDONLY_PROG,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: bits}},
	}
}

// Where the program keeps things on its stack, below the headers.
const (
	drawn   = -40 // uint64: the draw that decided on corruption
	word    = -48 // two bytes of the packet as they were, and
	newWord = -46 // as they become
	oldMark = -56 // uint64
)

func (w *impairer) write(c *code, fds []int) {
	state := fds[0]
	c.passClones(w.mark)
	w.Flow.match(c, state)
	c.count(seen)
	if w.Cut {
		c.count(lost)
		w.drop(c)
		return
	}
	c.add(asm.LoadMapValue(asm.R7, state, 0))
	if len(fds) > 1 {
		w.decideByTrace(c, fds[1])
	} else {
		w.decide(c)
	}
	c.add(asm.JEq.Imm(asm.R9, 0, "kept"))
	c.count(lost)
	w.drop(c)
	c.here("kept")
	if w.Duplicate > 0 {
		c.draw(stateDuplicate)
		c.add(asm.RSh.Imm(asm.R2, 1), constant(asm.R3, w.duplicate.Limits[0]), asm.JGE.Reg(asm.R2, asm.R3, "single"))
		w.copy(c)
		c.here("single")
	}
	if w.Corrupt > 0 {
		c.draw(stateCorrupt)
		c.add(
			asm.StoreMem(asm.RFP, drawn, asm.R2, asm.DWord),
			asm.RSh.Imm(asm.R2, 1), constant(asm.R3, w.corrupt.Limits[0]), asm.JGE.Reg(asm.R2, asm.R3, "next"),
		)
		w.flip(c)
	}
}

// tries bounds how often a packet's fate is decided anew because another processor was faster; each of them has come further then.
const tries = 64

// decide sets R9 to whether the packet is lost, as link.Rule does. Its n-th draw is that of the state it began with and n steps,
// so n and whether the packet before was lost are all that changes, and they change at once.
func (w *impairer) decide(c *code) {
	c.add(asm.Mov.Imm(asm.R1, tries))
	c.here("try")
	c.add(
		asm.LoadMem(asm.R9, asm.R7, stateChain, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.RSh.Imm(asm.R2, 1),
		asm.Add.Imm(asm.R2, 1),
		constant(asm.R3, golden),
		asm.Mul.Reg(asm.R2, asm.R3),
		constant(asm.R3, w.loss.State),
		asm.Add.Reg(asm.R2, asm.R3),
	)
	c.mix()
	c.add(
		asm.RSh.Imm(asm.R2, 1),
		asm.Mov.Reg(asm.R5, asm.R9),
		asm.And.Imm(asm.R5, -2),
		asm.Add.Imm(asm.R5, 2),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.And.Imm(asm.R3, 1),
		constant(asm.R4, w.loss.Limits[0]),
		asm.JEq.Imm(asm.R3, 0, "limit"),
		constant(asm.R4, w.loss.Limits[1]),
	)
	c.here("limit")
	c.add(asm.JGE.Reg(asm.R2, asm.R4, "decided"), asm.Or.Imm(asm.R5, 1))
	c.here("decided")
	c.add(
		asm.Mov.Reg(asm.R0, asm.R9),
		fetching(asm.CmpXchg, asm.R7, asm.R5, stateChain),
		asm.JEq.Reg(asm.R0, asm.R9, "agreed"),
		asm.Sub.Imm(asm.R1, 1),
		asm.JNE.Imm(asm.R1, 0, "try"),
	)
	c.countOne(undecided)
	c.add(asm.Ja.Label("next"))
	c.here("agreed")
	c.add(asm.Mov.Reg(asm.R9, asm.R5), asm.And.Imm(asm.R9, 1))
}

// decideByTrace sets R9 to whether the packet is lost, as the trace has it.
func (w *impairer) decideByTrace(c *code, trace int) {
	c.add(
		asm.Mov.Imm(asm.R2, 1),
		fetching(asm.FetchAdd, asm.R7, asm.R2, stateChain),
		asm.Mod.Imm(asm.R2, int32(len(w.loss.Trace))),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.RSh.Imm(asm.R3, 3), // the byte, and by the mask its word
		asm.And.Imm(asm.R3, w.traceMask),
		asm.LoadMapValue(asm.R4, trace, 0),
		asm.Add.Reg(asm.R4, asm.R3),
		asm.LoadMem(asm.R9, asm.R4, 0, asm.DWord),
		asm.And.Imm(asm.R2, 63),
		asm.RSh.Reg(asm.R9, asm.R2),
		asm.And.Imm(asm.R9, 1),
	)
}

// drop loses the packet without a word. At egress a dropping program's verdict would reach the sender, whose TCP would
// know of the loss at once: a packet that is redirected to an interface that is not there is gone in silence.
func (w *impairer) drop(c *code) {
	if w.Hook != Egress {
		c.add(asm.Mov.Imm(asm.R0, tcxDrop), asm.Return())
		return
	}
	c.add(asm.Mov.Imm(asm.R1, 0), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
}

// passClones lets duplicates pass: those that this program made get their mark back as far as it is known, and go on as any
// packet; those of one behind it go on to that one.
func (c *code) passClones(own uint8) {
	c.add(
		asm.LoadMem(asm.R2, asm.R6, skbMark, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.RSh.Imm(asm.R3, 24),
		asm.JNE.Imm(asm.R3, markOurs, "fresh"),
	)
	if own > 0 {
		c.add(
			asm.Mov.Reg(asm.R3, asm.R2),
			asm.RSh.Imm(asm.R3, 16),
			asm.And.Imm(asm.R3, 0xff),
			asm.JNE.Imm(asm.R3, int32(own), "next"),
			asm.And.Imm(asm.R2, markLow),
			asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word),
		)
	}
	c.add(asm.Ja.Label("next"))
	c.here("fresh")
}

// copy sends a second packet to the same hook; its mark keeps it from being taken for another.
// On loopback it has to leave to come in: only what has been routed out may have an address of 127.0.0.0/8.
func (w *impairer) copy(c *code) {
	const bpfIngress = 1 // linux/bpf.h, BPF_F_INGRESS
	flags := int32(bpfIngress)
	if w.Hook == Egress || w.loopback {
		flags = 0
	}
	c.add(
		asm.LoadMem(asm.R2, asm.R6, skbMark, asm.Word),
		asm.StoreMem(asm.RFP, oldMark, asm.R2, asm.DWord),
		asm.And.Imm(asm.R2, markLow),
		asm.Or.Imm(asm.R2, markOurs<<24|int32(w.mark)<<16),
		asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, int32(w.Interface)),
		asm.Mov.Imm(asm.R3, flags),
		asm.FnCloneRedirect.Call(),
		asm.LoadMem(asm.R2, asm.RFP, oldMark, asm.DWord),
		asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word),
		asm.JNE.Imm(asm.R0, 0, "single"),
	)
	c.countOne(duplicated)
}

// flip flips one bit of what TCP or UDP carries, and makes the checksum agree: a bit that no
// checksum missed would be a loss. A packet that carries less than two bytes stays whole.
func (w *impairer) flip(c *code) {
	const (
		udpHeader, udpChecksum, tcpChecksum = 8, 6, 16
		tcpOffset                           = 12
		mangledZero                         = 0x20 // linux/bpf.h, BPF_F_MARK_MANGLED_0: UDP's "no checksum" stays so
	)
	c.unlessFirst("next")
	c.headerLength(asm.R9) // from here on where the header of TCP or UDP begins
	c.add(
		asm.Mov.Reg(asm.R7, asm.R9), // and where what it carries does
		asm.LoadMem(asm.R2, asm.RFP, protocol, asm.Byte),
		asm.JEq.Imm(asm.R2, int32(UDP), "udp"),
		asm.JNE.Imm(asm.R2, int32(TCP), "next"),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.Add.Imm(asm.R2, tcpOffset),
	)
	c.load(word, 1)
	c.add(
		asm.LoadMem(asm.R2, asm.RFP, word, asm.Byte),
		asm.RSh.Imm(asm.R2, 4),
		asm.LSh.Imm(asm.R2, 2),
		asm.Add.Reg(asm.R7, asm.R2),
		asm.Add.Imm(asm.R9, tcpChecksum),
		asm.Ja.Label("payload"),
	)
	c.here("udp")
	c.add(asm.Add.Imm(asm.R7, udpHeader), asm.Add.Imm(asm.R9, udpChecksum))
	c.here("payload")
	c.add(
		asm.Add.Imm(asm.R7, c.linkHeader),
		asm.Add.Imm(asm.R9, c.linkHeader),
		asm.LoadMem(asm.R2, asm.R6, skbLen, asm.Word),
		asm.Sub.Reg(asm.R2, asm.R7),
		asm.JSLT.Imm(asm.R2, 2, "next"),
		asm.RSh.Imm(asm.R2, 1),
		// One of the words, by bits of the draw that did not decide.
		asm.LoadMem(asm.R3, asm.RFP, drawn, asm.DWord),
		asm.RSh.Imm(asm.R3, 4),
		asm.And.Imm(asm.R3, 0xffffff),
		asm.Mul.Reg(asm.R2, asm.R3),
		asm.RSh.Imm(asm.R2, 24),
		asm.LSh.Imm(asm.R2, 1),
		asm.Add.Reg(asm.R7, asm.R2),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, word),
		asm.Mov.Imm(asm.R4, 2),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),

		asm.LoadMem(asm.R2, asm.RFP, drawn, asm.DWord),
		asm.And.Imm(asm.R2, 15),
		asm.Mov.Imm(asm.R3, 1),
		asm.LSh.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R2, asm.RFP, word, asm.Half),
		asm.Xor.Reg(asm.R2, asm.R3),
		asm.StoreMem(asm.RFP, newWord, asm.R2, asm.Half),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, newWord),
		asm.Mov.Imm(asm.R4, 2),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),

		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.LoadMem(asm.R3, asm.RFP, word, asm.Half),
		asm.LoadMem(asm.R4, asm.RFP, newWord, asm.Half),
		asm.Mov.Imm(asm.R5, 2|mangledZero),
		asm.FnL4CsumReplace.Call(),
	)
	c.countOne(corrupted)
}
