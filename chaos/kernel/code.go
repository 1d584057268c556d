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
)

// What a program returns (linux/bpf.h, enum tcx_action_base).
const (
	tcxNext = -1 // let others decide, and pass in the end
	tcxDrop = 2
)

// networkHeader is where helpers count offsets from: linux/bpf.h, BPF_HDR_START_NET. It is the same with and without Ethernet.
const networkHeader = 1

// code is a program being written. R6 is the packet throughout.
type code struct {
	asm.Instructions
	label  string // of the next instruction
	labels int
}

func begin() *code { return &code{Instructions: asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}} }

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

// load reads size bytes of the packet, at the offset in R2 from its IP header on, onto the stack; what does not have them goes
// to "next".
func (c *code) load(stack, size int32) {
	c.add(
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, size),
		asm.Mov.Imm(asm.R5, networkHeader),
		asm.FnSkbLoadBytesRelative.Call(),
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

// draw puts the next number of splitmix64 into R2, as link.Draw makes it of the state at an offset from R7.
func (c *code) draw(state int16) {
	constant := func(n uint64) asm.Instruction { return asm.LoadImm(asm.R3, int64(n), asm.DWord) }
	mix := func(shift int32) []asm.Instruction {
		return []asm.Instruction{asm.Mov.Reg(asm.R4, asm.R2), asm.RSh.Imm(asm.R4, shift), asm.Xor.Reg(asm.R2, asm.R4)}
	}
	c.add(
		asm.LoadMem(asm.R2, asm.R7, state, asm.DWord),
		constant(0x9e3779b97f4a7c15),
		asm.Add.Reg(asm.R2, asm.R3),
		asm.StoreMem(asm.R7, state, asm.R2, asm.DWord),
	)
	c.add(mix(30)...)
	c.add(constant(0xbf58476d1ce4e5b9), asm.Mul.Reg(asm.R2, asm.R3))
	c.add(mix(27)...)
	c.add(constant(0x94d049bb133111eb), asm.Mul.Reg(asm.R2, asm.R3))
	c.add(mix(31)...)
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
