package probe

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tminus-live/tminus/chaos/link"
)

// Record is what became of one packet. Times are since the probe began.
type Record struct {
	Sent    time.Duration
	Arrived time.Duration // the first time
	Copies  int           // that arrived; 0: lost
	Corrupt bool
	Lag     time.Duration // by how much later it was sent than it was to be
}

// Measures sum up a number of packets.
type Measures struct {
	Packets    int
	Loss       float64 // share of packets sent
	Burst      float64 // mean number lost in a row; 0: none was
	Bursts     int
	Delay      time.Duration // median, one way
	Spread     time.Duration // of the delay, from its 5th to its 95th percentile
	Jitter     time.Duration // mean difference between neighbours' transit times: RFC 3550's D
	Duplicates float64       // share of packets sent
	Reordered  float64       // share of packets that arrived
	Corrupt    float64       // share of packets that arrived
	Rate       float64       // bit/s of trains, IP and UDP headers included, median; 0: no train could be measured
}

const (
	ipHeaders = 28 // bytes, of IPv4 and UDP
	// lowEnd and highEnd bound the spread of delays.
	lowEnd, highEnd = 0.05, 0.95
)

// Measure sums up packets in the order they were sent, which went in trains of so many with size bytes each.
func Measure(records []Record, train, size int) Measures {
	m := measure(records, train, size)
	m.Jitter = jitter(records)
	return m
}

// measure is Measure without what takes long and is not compared with the model.
func measure(records []Record, train, size int) Measures {
	m := Measures{Packets: len(records)}
	if len(records) == 0 {
		return m
	}
	delays := make([]time.Duration, 0, len(records))
	arrived, lost, twice, corrupt, before := 0, 0, 0, 0, false
	for _, r := range records {
		gone := r.Copies == 0
		if gone {
			lost++
			if !before {
				m.Bursts++
			}
		} else {
			arrived++
			delays = append(delays, r.Arrived-r.Sent)
		}
		before = gone
		if r.Copies > 1 {
			twice++
		}
		if r.Corrupt {
			corrupt++
		}
	}
	n := float64(len(records))
	m.Loss, m.Duplicates = float64(lost)/n, float64(twice)/n
	if lost > 0 {
		m.Burst = float64(lost) / float64(m.Bursts)
	}
	if arrived == 0 {
		return m
	}
	m.Reordered, m.Corrupt = float64(overtaken(records))/float64(arrived), float64(corrupt)/float64(arrived)
	slices.Sort(delays)
	at := func(share float64) time.Duration { return delays[int(share*float64(len(delays)-1))] }
	m.Delay, m.Spread = at(0.5), at(highEnd)-at(lowEnd)
	if train > 1 {
		m.Rate = trainRate(records, train, size)
	}
	return m
}

// jitter is the mean of |D(i-1, i)| in the order of arrival.
func jitter(records []Record) time.Duration {
	in := make([]Record, 0, len(records))
	for _, r := range records {
		if r.Copies > 0 {
			in = append(in, r)
		}
	}
	if len(in) < 2 {
		return 0
	}
	byArrival := func(a, b Record) int { return cmp.Compare(a.Arrived, b.Arrived) }
	if !slices.IsSortedFunc(in, byArrival) {
		slices.SortStableFunc(in, byArrival)
	}
	var sum time.Duration
	for i := 1; i < len(in); i++ {
		d := (in[i].Arrived - in[i].Sent) - (in[i-1].Arrived - in[i-1].Sent)
		sum += d.Abs()
	}
	return sum / time.Duration(len(in)-1)
}

// trainRate is the pace at which trains arrive: what came after a train's first packet, over the time it took.
func trainRate(records []Record, train, size int) float64 {
	var rates []float64
	for i := 0; i+train <= len(records); i += train {
		n, first, last := 0, time.Duration(math.MaxInt64), time.Duration(0)
		for _, r := range records[i : i+train] {
			if r.Copies > 0 {
				n++
				first, last = min(first, r.Arrived), max(last, r.Arrived)
			}
		}
		if n >= max(3, train/2) && last > first {
			rates = append(rates, float64((n-1)*(size+ipHeaders)*8)/(last-first).Seconds())
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// runs of the model, and the most packets of each; more packets than that are as precise as many runs.
const (
	modelRuns    = 64
	modelPackets = 8_000
)

// expectation is what a measure would be on the promised path: its mean over many seeds, and how far it strays.
type expectation struct{ mean, deviation float64 }

// model sends the same packets over links of the promised kind.
func model(i link.Impairment, records []Record, train, size int) func(func(Measures) float64) expectation {
	scale := 1.0
	if len(records) > modelPackets {
		// As many as a train divides, so that trains stay whole.
		keep := modelPackets / max(1, train) * max(1, train)
		scale = math.Sqrt(float64(keep) / float64(len(records)))
		records = records[:keep]
	}
	runs, out := make([]Measures, modelRuns), make([]Record, len(records))
	trace := i.Loss.Trace
	for seed := range runs {
		i.Seed = link.Flow(0x70726f6265, uint64(seed)+1) // others than any path has by chance
		if n := uint64(len(trace)); n > 0 {
			from := link.Flow(i.Seed, 1) % n // where in it the path is, nobody knows
			i.Loss.Trace = append(append(make([]bool, 0, n), trace[from:]...), trace[:from]...)
		}
		simulate(i, records, size, out)
		runs[seed] = measure(out, train, size)
	}
	return func(of func(Measures) float64) expectation {
		var e expectation
		for _, m := range runs {
			e.mean += of(m) / modelRuns
		}
		for _, m := range runs {
			e.deviation += (of(m) - e.mean) * (of(m) - e.mean) / (modelRuns - 1)
		}
		e.deviation = math.Sqrt(e.deviation) * scale
		return e
	}
}

// simulate sends packets over one link; out is what becomes of them.
func simulate(i link.Impairment, records []Record, size int, out []Record) {
	l := link.New(i)
	for k, r := range records {
		d, n := l.Send(r.Sent, size+ipHeaders)
		out[k] = Record{Sent: r.Sent, Copies: n}
		if n > 0 {
			out[k].Arrived, out[k].Corrupt = d[0].At, d[0].CorruptBit >= 0
		}
		if n > 1 {
			out[k].Arrived = min(d[0].At, d[1].At)
		}
	}
}

// overtaken counts the packets that arrived after one that was sent later.
func overtaken(records []Record) int {
	n, soonest := 0, time.Duration(math.MaxInt64)
	for _, r := range slices.Backward(records) {
		if r.Copies == 0 {
			continue
		}
		if r.Arrived > soonest {
			n++
		}
		soonest = min(soonest, r.Arrived)
	}
	return n
}
