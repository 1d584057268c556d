package spec

import (
	"bytes"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

// Limits on the crowd's connections and on what people do.
const (
	MaxConnections   = 4096 // kept per service
	MaxInFlight      = 64   // on one connection
	MaxPresses       = 50   // of one viewer
	MaxInterruptions = 20
	MaxInterrupted   = 1_000_000 // viewers of one interruption
)

// The kinds of connections that play starts come over.
const (
	KeepAlive = "keep-alive"
	Fresh     = "fresh"
	FreshTLS  = "fresh-tls"
)

var connectionKinds = []string{KeepAlive, Fresh, FreshTLS}

// crowdNodes are the parts of the audience that are read when the rest of the scenario is known.
type crowdNodes struct{ starts, players, interruptions, forecast noted[struct{}] }

func keep(n ast.Node, path string) noted[struct{}] {
	return noted[struct{}]{node: n, path: path, ok: true}
}

func (r *reader) audience(n ast.Node, path string, a *Audience, later *crowdNodes) {
	r.mapping(n, path, []field{
		{"mix", "", func(n ast.Node, path string) { a.Mix = r.word(n, path, "mix", audience.Mixes()) }},
		{"starts", "", func(n ast.Node, path string) { later.starts = keep(n, path) }},
		{"players", "", func(n ast.Node, path string) {
			later.players = keep(n, path)
			v, ok := r.whole(n, path, 0, MaxPlayers)
			if !ok {
				v = 1 // a wrong number is one mistake, not one for each objective too
			}
			a.Players = int(v)
		}},
		{"playersWithin", "", func(n ast.Node, path string) { a.PlayersWithin, _ = r.duration(n, path, time.Second, MaxDuration) }},
		{"connections", "", func(n ast.Node, path string) { r.connections(n, path, &a.Connections) }},
		{"people", "", func(n ast.Node, path string) { r.people(n, path, &a.People) }},
		{"forecast", "", func(n ast.Node, path string) { later.forecast = keep(n, path) }},
		{"interruptions", "", func(n ast.Node, path string) { later.interruptions = keep(n, path) }},
	})
	if !later.starts.ok && !later.players.ok {
		if _, mapping := n.(*ast.MappingNode); mapping {
			r.bad(n, path, "nobody comes: want starts, players or both")
		}
	}
}

func (r *reader) connections(n ast.Node, path string, c *Connections) {
	inFlight := noted[struct{}]{}
	r.mapping(n, path, []field{
		{"kind", "", func(n ast.Node, path string) { c.Kind = r.word(n, path, "kind of connections", connectionKinds) }},
		{"perService", "", func(n ast.Node, path string) {
			v, _ := r.whole(n, path, 1, MaxConnections)
			c.PerService = int(v)
		}},
		{"inFlight", "", func(n ast.Node, path string) {
			v, _ := r.whole(n, path, 1, MaxInFlight)
			c.InFlight = int(v)
			inFlight = keep(n, path)
		}},
	})
	if c.Kind != "" && c.Kind != KeepAlive && c.InFlight > 1 {
		r.bad(inFlight.node, inFlight.path, "a fresh connection carries one play start: leave out inFlight, or keep connections alive")
	}
}

func (r *reader) people(n ast.Node, path string, p *audience.People) {
	p.Again, p.After, p.Presses = 1, 3*time.Second, 5
	r.mapping(n, path, []field{
		{"human", "", func(n ast.Node, path string) { p.Human, _ = r.share(n, path) }},
		{"again", "", func(n ast.Node, path string) { p.Again, _ = r.share(n, path) }},
		{"after", "", func(n ast.Node, path string) { p.After, _ = r.duration(n, path, 10*time.Millisecond, time.Hour) }},
		{"presses", "", func(n ast.Node, path string) {
			v, _ := r.whole(n, path, 1, MaxPresses)
			p.Presses = int(v)
		}},
		{"patience", "", func(n ast.Node, path string) {
			p.Patience, _ = r.duration(n, path, 100*time.Millisecond, audience.MaxPatience)
		}},
	})
}

// crowd reads what depends on the event's length and the regions.
func (r *reader) crowd(later crowdNodes, s *Scenario, end time.Duration) {
	if later.forecast.ok {
		s.Audience.Forecast = r.forecast(later.forecast.node, later.forecast.path, end)
	}
	if later.starts.ok && (s.Target == nil || s.Target.Play != nil) {
		s.Audience.Starts = r.starts(later.starts.node, later.starts.path, end)
	}
	for i := range s.Audience.Starts {
		if leg := &s.Audience.Starts[i]; leg.Curve == string(audience.Forecast) {
			r.expected(later.starts, leg, s.Audience.Forecast)
		}
	}
	if later.interruptions.ok && s.Target != nil {
		r.bad(later.interruptions.node, later.interruptions.path, "a target has no regions that viewers could lose: interruptions are of the reference pipeline")
	} else if later.interruptions.ok {
		s.Audience.Interruptions = r.interruptions(later.interruptions.node, later.interruptions.path, s, end)
	}
}

func (r *reader) interruptions(n ast.Node, path string, s *Scenario, end time.Duration) []Interruption {
	var out []Interruption
	r.list(n, path, MaxInterruptions, ` such as [{at: 60s, region: us-east, viewers: 20000}]`, func(n ast.Node, path string, _ int) {
		i := Interruption{Guided: s.Playback.GuidedBackoff}
		r.mapping(n, path, []field{
			{"at", "when viewers lose their picture, such as 60s", func(n ast.Node, path string) {
				d, ok := r.duration(n, path, 0, MaxDuration)
				switch i.At = d; {
				case ok && end > 0 && d >= end:
					r.bad(n, path, "the interruption begins at %s, but the event lasts %s", Short(d), Short(end))
				case ok && len(out) > 0 && d <= out[len(out)-1].At:
					r.bad(n, path, "interruptions must be in order: %s is not after %s", Short(d), Short(out[len(out)-1].At))
				}
			}},
			{"for", "", func(n ast.Node, path string) { i.For, _ = r.duration(n, path, 0, MaxDuration) }},
			{"region", "the region whose viewers lose it", func(n ast.Node, path string) {
				v, ok := r.text(n, path, "the name of a region")
				if i.Region = v; ok && len(s.Topology.Regions) > 0 && !slices.Contains(s.Topology.Regions, v) {
					r.bad(n, path, "unknown region %q%s", clip(v), oneOf(v, s.Topology.Regions))
				}
			}},
			{"viewers", "how many of them", func(n ast.Node, path string) {
				v, _ := r.whole(n, path, 1, MaxInterrupted)
				i.Viewers = int(v)
			}},
			{"guided", "", func(n ast.Node, path string) {
				if i.Guided, _ = r.boolean(n, path); i.Guided && !s.Playback.GuidedBackoff {
					r.bad(n, path, "nobody holds a retry policy: playback.guidedBackoff is off")
				}
			}},
		})
		if len(s.Audience.Starts) == 0 {
			r.bad(n, path, "nobody can be interrupted: interruptions take viewers who came with starts")
		}
		out = append(out, i)
	})
	return out
}

// curve checks that a leg has what its curve needs, and nothing else.
func (r *reader) curve(n ast.Node, at string, leg *Start, rate, amplitude, period, file noted[struct{}]) {
	wants := func(ok bool, key, what string) {
		if !ok {
			r.bad(n, join(at, key), "missing: %s", what)
		}
	}
	useless := func(k noted[struct{}], curves string) {
		if k.ok {
			r.bad(k.node, k.path, "only %s", curves)
		}
	}
	switch audience.Curve(leg.Curve) {
	case audience.CSV:
		wants(file.ok, "file", "the name of a CSV file beside this one, with lines of seconds,rate")
		if file.ok && leg.File != "" {
			leg.Points = r.beside(file, leg.File)
		}
	case audience.Sinus:
		wants(rate.ok, "rate", "play starts a second")
		wants(amplitude.ok, "amplitude", "how far the rate swings up and down, play starts a second")
		wants(period.ok, "period", "the time from one peak to the next, such as 20s")
		if leg.Amplitude > leg.Rate {
			r.bad(amplitude.node, amplitude.path, "the rate would fall below 0: at most %g", leg.Rate)
		}
	case audience.Forecast:
		// Its points come with the audience's forecast; a rate scales them.
	default:
		wants(rate.ok, "rate", "play starts a second")
	}
	if leg.Curve != string(audience.Sinus) {
		useless(amplitude, "the curve sinus has an amplitude")
		useless(period, "the curve sinus has a period")
	}
	if leg.Curve != string(audience.CSV) {
		useless(file, "the curve csv has a file")
	}
}

// expected gives a leg the forecast's curve.
func (r *reader) expected(at noted[struct{}], leg *Start, f *Forecast) {
	if f == nil {
		r.bad(at.node, at.path, "the curve forecast needs a forecast: give one under audience.forecast")
		return
	}
	times := leg.Times
	if times == 0 {
		times = 1
	}
	for _, p := range f.Curve {
		if p.At >= leg.At {
			leg.Points = append(leg.Points, audience.Point{At: p.At - leg.At, Rate: p.Rate * times})
		}
	}
}

// forecast reads what is expected of the crowd and works out its curve.
func (r *reader) forecast(n ast.Node, path string, end time.Duration) *Forecast {
	f := &Forecast{}
	before := len(r.problems)
	file := func(n ast.Node, path string, read func(name string, b []byte) error) {
		name, ok := r.text(n, path, "the name of a CSV file beside this one")
		if !ok {
			return
		}
		if b, ok := r.fileBeside(keep(n, path), name); ok {
			if err := read(name, b); err != nil {
				r.bad(n, path, "%s", err)
			}
		}
	}
	r.mapping(n, path, []field{
		{"kind", "", func(n ast.Node, path string) { f.Event.Kind = r.word(n, path, "kind of event", forecast.Kinds()) }},
		{"viewers", "", func(n ast.Node, path string) { f.Event.Audience, _ = r.number(n, path, 1e9) }},
		{"from", "", func(n ast.Node, path string) {
			text, ok := r.text(n, path, "a duration such as -2m")
			if !ok {
				return
			}
			d, err := time.ParseDuration(text)
			if err != nil || d < -MaxDuration || d > MaxDuration {
				r.bad(n, path, "want when the rehearsal begins, seen from the event's start, such as -2m, got %q", clip(text))
			}
			f.From = d
		}},
		{"past", "", func(n ast.Node, path string) {
			file(n, path, func(name string, b []byte) (err error) {
				f.Event.Past, err = forecast.ReadPast(name, bytes.NewReader(b))
				return err
			})
		}},
		{"marketing", "", func(n ast.Node, path string) {
			file(n, path, func(name string, b []byte) (err error) {
				f.Event.Marketing, err = forecast.ReadMarketing(name, bytes.NewReader(b))
				return err
			})
		}},
	})
	if len(r.problems) > before || end <= 0 {
		return f
	}
	var err error
	if f.Result, err = forecast.Predict(f.Event); err != nil {
		r.bad(n, path, "%s", err)
		return f
	}
	f.Curve = f.Result.Points(f.From, f.From+end)
	return f
}

// beside reads a measured curve.
func (r *reader) beside(at noted[struct{}], name string) []audience.Point {
	b, ok := r.fileBeside(at, name)
	if !ok {
		return nil
	}
	points, err := audience.ReadCurve(name, bytes.NewReader(b))
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") { // one sentence each
			r.bad(at.node, at.path, "%s", line)
		}
	}
	return points
}

// fileBeside reads a file that a scenario names: one in the same folder, so that a scenario can be moved with what it
// needs.
func (r *reader) fileBeside(at noted[struct{}], name string) ([]byte, bool) {
	if name != path.Base(name) || name == "." || name == ".." {
		r.bad(at.node, at.path, "want the name of a file beside the scenario, without a folder, got %q", clip(name))
		return nil, false
	}
	b, err := r.open(name)
	if err != nil {
		r.bad(at.node, at.path, "cannot read %s: %s", clip(name), err)
		return nil, false
	}
	return b, true
}

// ceilings refuses a load beyond the scenario's limits.
func (r *reader) ceilings(starts noted[struct{}], s *Scenario, duration noted[time.Duration]) {
	if l := s.Limits.Duration; l > 0 && duration.ok && duration.value > l {
		r.bad(duration.node, duration.path, "%s is beyond the limit of %s that this scenario sets itself", Short(duration.value), Short(l))
	}
	if s.Limits.Rate == 0 || !starts.ok {
		return
	}
	schedule, err := s.Audience.Schedule(duration.value)
	if err != nil {
		return // what is wrong with the legs has been said where they stand
	}
	if peak := schedule.Peak(); peak > s.Limits.Rate {
		r.bad(starts.node, starts.path, "they peak at %.0f a second, beyond the limit of %.0f that this scenario sets itself", peak, s.Limits.Rate)
	}
}

// Schedule is the open-loop schedule of the crowd's starts over an event.
func (a Audience) Schedule(end time.Duration) (*audience.Schedule, error) {
	var legs []audience.Leg
	for _, s := range a.Starts {
		legs = append(legs, audience.Leg{At: s.At, Rate: s.Rate, For: s.For, Curve: audience.Curve(s.Curve),
			Amplitude: s.Amplitude, Period: s.Period, Points: s.Points})
	}
	return audience.NewSchedule(legs, end)
}

func (r *reader) starts(n ast.Node, path string, end time.Duration) []Start {
	var out []Start
	var at, last noted[time.Duration] // the leg's start, and the start of the leg before it
	var reach time.Duration           // where the leg before it ends, when it says so
	r.list(n, path, MaxStarts, ` such as [{at: 0s, rate: 500}]`, func(n ast.Node, path string, _ int) {
		leg := Start{Curve: string(audience.Constant)}
		at = noted[time.Duration]{}
		var length noted[time.Duration]
		var rate, amplitude, period, file, times noted[struct{}]
		r.mapping(n, path, []field{
			{"at", "when the leg starts, such as 15s", func(n ast.Node, path string) {
				d, ok := r.duration(n, path, 0, MaxDuration)
				at, leg.At = noted[time.Duration]{d, n, path, ok}, d
			}},
			{"rate", "", func(n ast.Node, path string) {
				leg.Rate, _ = r.number(n, path, audience.MaxRate)
				rate = keep(n, path)
			}},
			{"for", "", func(n ast.Node, path string) {
				d, ok := r.duration(n, path, time.Millisecond, MaxDuration)
				length, leg.For = noted[time.Duration]{d, n, path, ok}, d
			}},
			{"curve", "", func(n ast.Node, path string) { leg.Curve = r.word(n, path, "curve", audience.Curves()) }},
			{"amplitude", "", func(n ast.Node, path string) {
				leg.Amplitude, _ = r.number(n, path, audience.MaxRate)
				amplitude = keep(n, path)
			}},
			{"period", "", func(n ast.Node, path string) {
				leg.Period, _ = r.duration(n, path, time.Second, MaxDuration)
				period = keep(n, path)
			}},
			{"times", "", func(n ast.Node, path string) { leg.Times, _ = r.number(n, path, 100); times = keep(n, path) }},
			{"file", "", func(n ast.Node, path string) {
				leg.File, _ = r.text(n, path, "the name of a CSV file beside this one")
				file = keep(n, path)
			}},
		})
		r.curve(n, path, &leg, rate, amplitude, period, file)
		if leg.Curve == string(audience.Ramp) && rate.ok && length.node == nil {
			r.bad(n, join(path, "for"), "missing: how long the rate takes to get there, such as 30s")
		}
		if k := len(leg.Points); leg.Curve == string(audience.CSV) && k > 0 && end > 0 && leg.At < end && !length.ok && leg.At+leg.Points[k-1].At > end {
			r.bad(file.node, file.path, "the curve lasts until %s, but the event until %s: say with for how much of it is sent", Short(leg.At+leg.Points[k-1].At), Short(end))
		}
		if times.ok && leg.Curve != string(audience.Forecast) {
			r.bad(times.node, times.path, "only the curve forecast comes so many times as large")
		}
		if at.ok {
			switch {
			case end > 0 && leg.At >= end:
				r.bad(at.node, at.path, "the leg starts at %s, but the event lasts %s", Short(leg.At), Short(end))
			case last.ok && leg.At <= last.value:
				r.bad(at.node, at.path, "legs must be in order of their start: %s is not after %s", Short(leg.At), Short(last.value))
			case reach > leg.At:
				r.bad(at.node, at.path, "the leg before this one lasts until %s", Short(reach))
			}
			if length.ok && end > 0 && leg.At < end && leg.At+leg.For > end {
				r.bad(length.node, length.path, "the leg ends at %s, but the event lasts %s", Short(leg.At+leg.For), Short(end))
			}
			last, reach = at, 0
			if length.ok {
				reach = leg.At + leg.For
			}
		}
		out = append(out, leg)
	})
	return out
}
