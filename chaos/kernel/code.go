package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Offsets in struct __sk_buff (linux/bpf.h).
const (
	skbLen      = 0
	skbMark     = 8
	skbProtocol = 16 // network byte order
	skbData     = 76
	skbDataEnd  = 80
)

// What a program returns (linux/bpf.h, enum tcx_action_base).
const (
	tcxNext = -1 // let others decide, and pass in the end
	tcxDrop = 2
)

// code is a program being written. R6 is the packet throughout.
type code struct {
	asm.Instructions
	linkHeader int32  // bytes of the packet before its IP header
	label      string // of the next instruction
	labels     int
}

func begin(linkHeader int) *code {
	return &code{Instructions: asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, linkHeader: int32(linkHeader)}
}

func (c *code) add(ins ...asm.Instruction) {
	if c.label != "" {
		ins[0] = ins[0].WithSymbol(c.label)
		c.label = ""
	}
	c.Instructions = append(c.Instructions, ins...)
}

// here names the place of the next instruction.
func (c *code) here(label string) {
	if c.label != "" {
		c.add(asm.Mov.Reg(asm.R6, asm.R6)) // a place has one name: this one is for the other
	}
	c.label = label
}

// unique makes a label of which there may be more than one.
func (c *code) unique(label string) string {
	c.labels++
	return fmt.Sprintf("%s%d", label, c.labels)
}

// part is some of what fetch copies.
type part struct {
	at   int16
	size asm.Size
}

// fetch copies parts of size bytes of the packet, from the offset in R2 behind the beginning of its IP header on, onto the stack; what does
// not have them goes to "next". Nearly every packet has its headers where a program can read them itself, which takes a tenth of
// the time that asking a helper takes.
//
// Parts that the way through the program depends on are bytes and halves: Linux 6.18's verifier follows what was stored in eight bytes and
// is read by one, and stumbles where the helper has written it.
func (c *code) fetch(stack int16, size int32, parts ...part) {
	slow, done := c.unique("slow"), c.unique("done")
	c.add(
		asm.LoadMem(asm.R4, asm.R6, skbData, asm.Word),
		asm.LoadMem(asm.R5, asm.R6, skbDataEnd, asm.Word),
		asm.Add.Reg(asm.R4, asm.R2),
		asm.Mov.Reg(asm.R3, asm.R4),
		asm.Add.Imm(asm.R3, c.linkHeader+size),
		asm.JGT.Reg(asm.R3, asm.R5, slow),
	)
	for _, p := range parts {
		c.add(
			asm.LoadMem(asm.R3, asm.R4, int16(c.linkHeader)+p.at, p.size),
			asm.StoreMem(asm.RFP, stack+p.at, asm.R3, p.size),
		)
	}
	c.add(asm.Ja.Label(done))
	c.here(slow)
	c.load(int32(stack), size)
	c.here(done)
}

// load is fetch by a helper, which finds every packet's bytes, wherever in its memory they are.
func (c *code) load(stack, size int32) {
	c.add(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Add.Imm(asm.R2, c.linkHeader),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
	)
}

// headerLength puts the length of the IP header, which stands in its first byte in words of four, into a register.
func (c *code) headerLength(r asm.Register) {
	c.add(
		asm.LoadMem(r, asm.RFP, ipHeader, asm.Byte),
		asm.And.Imm(r, 0x0f),
		asm.LSh.Imm(r, 2),
	)
}

// unlessFirst jumps with fragments behind a datagram's first: they have no header of TCP or UDP.
func (c *code) unlessFirst(label string) {
	c.add(
		asm.LoadMem(asm.R2, asm.RFP, fragment, asm.Half),
		asm.And.Imm(asm.R2, network(0x1fff)),
		asm.JNE.Imm(asm.R2, 0, label),
	)
}

// fetching is an atomic operation of 64 bits that says what was there before. The library (v0.22.0) writes such an operation's number
// into the instruction too late, which leaves a plain addition.
func fetching(op asm.AtomicOp, dst, src asm.Register, at int16) asm.Instruction {
	ins := op.Mem(dst, src, asm.DWord, at)
	ins.Constant = int64(op >> 8)
	return ins
}

// constant loads 64 bits.
func constant(r asm.Register, n uint64) asm.Instruction { return asm.LoadImm(r, int64(n), asm.DWord) }

// splitmix64's step.
const golden = 0x9e3779b97f4a7c15

// mix makes the number of splitmix64 that belongs to the state in R2, as link.Draw does.
func (c *code) mix() {
	xor := func(shift int32) {
		c.add(asm.Mov.Reg(asm.R4, asm.R2), asm.RSh.Imm(asm.R4, shift), asm.Xor.Reg(asm.R2, asm.R4))
	}
	xor(30)
	c.add(constant(asm.R3, 0xbf58476d1ce4e5b9), asm.Mul.Reg(asm.R2, asm.R3))
	xor(27)
	c.add(constant(asm.R3, 0x94d049bb133111eb), asm.Mul.Reg(asm.R2, asm.R3))
	xor(31)
}

// draw puts the next number of splitmix64 into R2; its state is at an offset from R7. Whichever processor comes first, each
// number is drawn once.
func (c *code) draw(state int16) {
	c.add(
		constant(asm.R3, golden),
		asm.Mov.Reg(asm.R2, asm.R3),
		fetching(asm.FetchAdd, asm.R7, asm.R2, state),
		asm.Add.Reg(asm.R2, asm.R3),
	)
	c.mix()
}

// count adds the packet to the traffic at an offset of the tally in R8.
func (c *code) count(at int16) {
	c.add(
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R8, asm.R1, asm.DWord, at),
		asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
		asm.AddAtomic.Mem(asm.R8, asm.R1, asm.DWord, at+8),
	)
}

// countOne adds one to the number at an offset of the tally in R8.
func (c *code) countOne(at int16) {
	c.add(asm.Mov.Imm(asm.R1, 1), asm.AddAtomic.Mem(asm.R8, asm.R1, asm.DWord, at))
}

// next ends a program: the packet goes on.
func (c *code) next() {
	c.here("next")
	c.add(asm.Mov.Imm(asm.R0, tcxNext), asm.Return())
}

// network is how two bytes in network order look to this processor.
func network(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}
