package link

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
)

// Models of loss.
const (
	Bernoulli      = "bernoulli"       // every packet is lost with the same probability, whatever happened to the one before
	GilbertElliott = "gilbert-elliott" // losses come in bursts
	Trace          = "trace"           // what happened somewhere once happens again
)

// MaxTrace is the longest trace, in packets: 15 minutes at 1,000 packets a second, and room for it in a kernel's map.
const MaxTrace = 1 << 20

// maxTraceBytes bounds what is read of a trace with its comments and line ends.
const maxTraceBytes = 4 * MaxTrace

// Loss is which packets are lost. The zero Loss loses none.
//
// Gilbert-Elliott is meant in its simplest form (Gilbert 1960 with everything lost in the bad state and nothing in the good
// one), which is what the two figures that people measure determine: a packet after a lost one is lost with
// probability 1 - 1/Burst, and one after an arrived one with Share / (Burst × (1 - Share)).
type Loss struct {
	Model string  // Bernoulli, GilbertElliott or Trace; "" = Bernoulli
	Share float64 // of packets that are lost in the long run, 0 to 1
	Burst float64 // GilbertElliott: mean number of packets lost in a row, 1 or more
	Trace []bool  // Trace: true = lost; begins again at its end
}

// Validate says everything that is wrong with a Loss.
func (l Loss) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	switch l.Model {
	case "", Bernoulli, GilbertElliott, Trace:
	default:
		bad("unknown model of loss %q (there is %s, %s, %s)", l.Model, Bernoulli, GilbertElliott, Trace)
	}
	if !(l.Share >= 0 && l.Share <= 1) {
		bad("a share of %g of packets cannot be lost: it is from 0 to 1", l.Share)
	}
	switch l.Model {
	case GilbertElliott:
		switch {
		case !(l.Burst >= 1) || math.IsInf(l.Burst, 1):
			bad("bursts of %g packets cannot be: 1 is the shortest", l.Burst)
		case l.Share > l.Burst/(1+l.Burst):
			bad("bursts of %g packets cannot lose a share of %g: with one packet between any two of them it is %.3g at most", l.Burst, l.Share, l.Burst/(1+l.Burst))
		}
	default:
		if l.Burst != 0 {
			bad("the length of bursts belongs to the model %s", GilbertElliott)
		}
	}
	switch n := len(l.Trace); {
	case l.Model != Trace && n > 0:
		bad("a trace belongs to the model %s", Trace)
	case l.Model == Trace && n == 0:
		bad("the trace is empty")
	case n > MaxTrace:
		bad("a trace of %d packets is too long: %d is the longest", n, MaxTrace)
	}
	if l.Model == Trace && l.Share != 0 {
		bad("a trace says by itself what share is lost")
	}
	return errors.Join(errs...)
}

// Expect is what to measure in the long run: the share of packets that are lost, and how many are lost in a row on average:
// 0 where none is, +Inf where all are.
func (l Loss) Expect() (share, burst float64) {
	switch {
	case l.Model == Trace:
		return expectTrace(l.Trace)
	case l.Share == 0:
		return 0, 0
	case l.Model == GilbertElliott:
		return l.Share, l.Burst
	}
	return l.Share, 1 / (1 - l.Share)
}

// expectTrace counts bursts around the trace's end, where it begins again.
func expectTrace(trace []bool) (share, burst float64) {
	lost, bursts := 0, 0
	for i, is := range trace {
		if is {
			lost++
			if !trace[(i+len(trace)-1)%len(trace)] {
				bursts++
			}
		}
	}
	if lost == 0 {
		return 0, 0
	}
	return float64(lost) / float64(len(trace)), float64(lost) / float64(bursts)
}

// Rule decides packet after packet with nothing but integers, so that a program in the kernel decides the same: draw the
// next number of splitmix64 (Steele, Lea and Flood 2014) from State, halve it, and the packet is lost if that is below
// Limits[Lost]; then Lost is whether it was. With a Trace, State counts packets instead, and the packet is lost if
// Trace[State mod its length].
type Rule struct {
	State  uint64
	Lost   int // 1: the packet before was lost
	Limits [2]uint64
	Trace  []bool
}

// Rule is how the loss is decided from its first packet on. The packet before the first is drawn too, so that the shares
// hold from the beginning. The Loss must be valid.
func (l Loss) Rule(seed uint64) Rule {
	if l.Model == Trace {
		return Rule{Trace: l.Trace}
	}
	share := limit(l.Share)
	r := Rule{State: seed, Limits: [2]uint64{share, share}}
	r.Next()
	if l.Model == GilbertElliott {
		r.Limits = [2]uint64{limit(l.Share / (l.Burst * (1 - l.Share))), limit(1 - 1/l.Burst)}
	}
	return r
}

// limit is how many of the 2^63 halved draws are below a share.
func limit(share float64) uint64 {
	return uint64(math.Round(min(max(share, 0), 1) * (1 << 63)))
}

// Draw is splitmix64: the next of a sequence of numbers that the state's first value determines.
func Draw(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Dropper says of one packet after another whether it is lost: the same seed, the same sequence. It is one direction's, and
// for one goroutine.
type Dropper struct{ rule Rule }

// NewDropper begins a sequence. The Loss must be valid.
func NewDropper(l Loss, seed uint64) *Dropper { return &Dropper{l.Rule(seed)} }

// Next says whether the next packet is lost.
func (d *Dropper) Next() (lost bool) { return d.rule.Next() }

// Next decides one packet.
func (r *Rule) Next() (lost bool) {
	if n := uint64(len(r.Trace)); n > 0 {
		lost = r.Trace[r.State%n]
		r.State++
		return lost
	}
	lost = Draw(&r.State)>>1 < r.Limits[r.Lost]
	r.Lost = 0
	if lost {
		r.Lost = 1
	}
	return lost
}

// ParseTrace reads a recorded trace: a 0 for each packet that arrived and a 1 for each that was lost, in the order they were
// sent, with blanks and line ends wherever it suits, and comments from # to the end of a line.
func ParseTrace(r io.Reader) ([]bool, error) {
	in := bufio.NewReader(io.LimitReader(r, maxTraceBytes+1))
	var trace []bool
	line, column, comment := 1, 0, false
	for read := 0; ; read++ {
		c, err := in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			if len(trace) == 0 {
				return nil, errors.New("the trace is empty")
			}
			return trace, nil
		case err != nil:
			return nil, fmt.Errorf("read the trace: %w", err)
		case read == maxTraceBytes:
			return nil, fmt.Errorf("the trace is longer than %d bytes", maxTraceBytes)
		}
		column++
		switch {
		case c == '\n':
			line, column, comment = line+1, 0, false
		case comment, c == ' ', c == '\t', c == '\r':
		case c == '#':
			comment = true
		case c == '0', c == '1':
			if len(trace) == MaxTrace {
				return nil, fmt.Errorf("%d:%d: the trace is longer than %d packets", line, column, MaxTrace)
			}
			trace = append(trace, c == '1')
		default:
			return nil, fmt.Errorf("%d:%d: %q is neither 0 (arrived) nor 1 (lost)", line, column, c)
		}
	}
}
