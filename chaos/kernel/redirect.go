package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// MaxMark is the highest mark that Mark sets and Redirect knows; those from 1 on may be used.
const MaxMark = markLow

func checkMark(mark uint32) error {
	if mark == 0 || mark > MaxMark {
		return fmt.Errorf("a mark is from 1 to %d, not %d", MaxMark, mark)
	}
	return nil
}

// RedirectConfig is a way round for a flow: what it meets at Interface leaves at Via instead, a TUN's for one, where a
// process reads it.
type RedirectConfig struct {
	Interface int
	Hook      Hook
	Flow      Flow
	Via       int    // index of the interface by which packets leave, in the same network namespace
	Except    uint32 // packets with this mark have been round: they go on as if nothing were there
}

// Validate says everything that is wrong with a RedirectConfig.
func (c RedirectConfig) Validate() error {
	errs := []error{checkInterface(c.Interface), checkInterface(c.Via), c.Hook.validate(), c.Flow.Validate(), checkMark(c.Except)}
	if c.Interface == c.Via && c.Interface > 0 {
		errs = append(errs, errors.New("a way round leads by another interface"))
	}
	return errors.Join(errs...)
}

// Redirect puts a program there, before all others, that sends a flow's packets round. Its counts say how many it has seen
// and sent: those with the mark are not among them.
func Redirect(cfg RedirectConfig) (*Program, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return spec{name: Prefix + "redirect", ifindex: cfg.Interface, hook: cfg.Hook, first: true, write: func(c *code, fds []int) {
		c.passClones(0)
		c.add(asm.LoadMem(asm.R2, asm.R6, skbMark, asm.Word), asm.JEq.Imm(asm.R2, int32(cfg.Except), "next"))
		cfg.Flow.match(c, fds[0])
		c.count(seen)
		c.add(asm.Mov.Imm(asm.R1, int32(cfg.Via)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
	}}.load()
}

// Mark puts a program at an interface's ingress, before all others, that marks every IPv4 packet, so that Redirect knows what
// comes back from a TUN. The mark goes when a packet goes to another network namespace.
func Mark(ifindex int, mark uint32) (*Program, error) {
	if err := errors.Join(checkInterface(ifindex), checkMark(mark)); err != nil {
		return nil, err
	}
	return spec{name: Prefix + "mark", ifindex: ifindex, first: true, write: func(c *code, fds []int) {
		Flow{}.match(c, fds[0])
		c.count(seen)
		c.add(asm.Mov.Imm(asm.R2, int32(mark)), asm.StoreMem(asm.R6, skbMark, asm.R2, asm.Word))
	}}.load()
}
