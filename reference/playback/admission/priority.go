package admission

import "math"

// Kind is what a play start is for.
type Kind uint8

// Kinds of play starts, by importance: what somebody waits for now, then what can be watched later, then what nobody asked
// for.
const (
	Live     Kind = iota // the event as it happens
	CatchUp              // the event from an earlier point
	VOD                  // something recorded
	Prefetch             // a device's guess at what will be wanted

	Kinds = 4
)

// Priorities of the kinds, from 1, the most important, to 100.
var priorities = [Kinds]int{Live: 10, CatchUp: 40, VOD: 60, Prefetch: 90}

var kindNames = [Kinds]string{Live: "live", CatchUp: "catchup", VOD: "vod", Prefetch: "prefetch"}

// LowPriority is the largest priority number that the lever LowStarts spares.
const LowPriority = 50

// spares is the largest priority number that each lever spares.
var spares = [Levers]int{100, 100, 100, LowStarts: LowPriority, LiveOnly: priorities[Live]}

// ParseKind finds a kind by name; no name is Live.
func ParseKind[T string | []byte](name T) (Kind, bool) {
	if len(name) == 0 {
		return Live, true
	}
	for k, n := range kindNames {
		if string(name) == n {
			return Kind(k), true
		}
	}
	return 0, false
}

// String is the kind's name in a play request.
func (k Kind) String() string { return kindNames[k] }

// Priority is the kind's, from 1 to 100; smaller is more important.
func (k Kind) Priority() int { return priorities[k] }

// Threshold is the largest priority number that is admitted in overload x: 100(1−x³). At 0.35 it is 96, at 0.8 49, at 0.95 14.
func Threshold(x float64) float64 {
	x = min(max(x, 0), 1)
	return 100 * (1 - x*x*x)
}

// bearable is Threshold the other way round: the overload beyond which a priority is shed.
func bearable(priority int) float64 { return math.Cbrt(1 - float64(priority)/100) }
