package rehearsal

import (
	"context"
	"fmt"
	"time"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/telemetry/clickhouse"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// before is how many seconds before an interruption its base load is taken from.
const before = 10

// storm is one interruption, seen in the play requests of each second of the event. It ends where the next begins.
func storm(i spec.Interruption, until time.Duration, seconds []qoe.LoadSecond) report.Storm {
	s := report.Storm{
		Name: fmt.Sprintf("interruption of %s", i.Region), Region: i.Region,
		AtS: i.At.Seconds(), ForS: i.For.Seconds(), Viewers: uint64(i.Viewers), Guided: i.Guided, BackS: -1,
	}
	at := int(i.At / time.Second)
	end := min(int(until/time.Second), len(seconds))
	from := max(0, at-before)
	for t := from; t < min(at, len(seconds)); t++ {
		s.BasePerS += seconds[t].Requests / float64(at-from)
	}
	for t := from; t < end; t++ {
		s.Series = append(s.Series, seconds[t].Requests)
		if t < at {
			continue
		}
		s.PeakPerS = max(s.PeakPerS, seconds[t].Requests)
		if seconds[t].Requests > 2*s.BasePerS {
			s.AboveS++
		}
	}
	if s.BasePerS > 0 {
		s.Amplification = s.PeakPerS / s.BasePerS
	}
	return s
}

// storms is every interruption of the event and how its viewers came back, from what was stored.
// cutOff is how many lost their picture in each, where it is known.
func (r *Rehearsal) storms(ctx context.Context, db *clickhouse.DB, ran time.Duration, seconds []qoe.LoadSecond, cutOff []uint64) (out []report.Storm, err error) {
	all := r.cfg.Scenario.Audience.Interruptions
	for k, i := range all {
		if i.At >= ran {
			continue
		}
		until := ran
		if k+1 < len(all) {
			until = min(until, all[k+1].At)
		}
		s := storm(i, until, seconds)
		if k < len(cutOff) {
			s.Viewers = cutOff[k] // fewer were watching than the scenario takes
		}
		back, err := qoe.ReturnsOf(ctx, db, r.id, r.zero.Add(i.At), r.zero.Add(until), s.Viewers)
		if err != nil {
			return nil, err
		}
		s.Attempts, s.BackS, s.Back = back.Attempts, back.BackS, min(back.OK, s.Viewers) // who was cut off before may come back now
		if i.At+time.Duration(s.BackS)*time.Second > until {
			s.BackS = -1
		}
		out = append(out, s)
	}
	return out, nil
}
