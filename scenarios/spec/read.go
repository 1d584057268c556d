package spec

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/tminus-live/tminus/reference/encoder"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/sessions"
	"github.com/tminus-live/tminus/telemetry/qoe"
)

// APIVersion is the version of the scenario format that this package reads.
const APIVersion = "tminus/v1"

// Limits on a scenario. They bound what a run can ask of a machine, and what a file can ask of the reader.
const (
	MaxBytes      = 1 << 20  // of a scenario file
	MaxBeside     = 16 << 20 // bytes of a file beside it: a trace of packets, a measured curve
	MaxDuration   = 24 * time.Hour
	MinDuration   = 2 * time.Second  // one segment
	MinDVR        = 12 * time.Second // a player begins three segments behind the live edge, and may fall behind
	MaxDVR        = 30 * time.Minute // it is held in memory
	MaxRegions    = 8
	MaxEdges      = 16 // in a region
	MaxPlayers    = sessions.MaxPlayers
	MaxStarts     = 1000 // legs
	MaxFaults     = 100
	MaxOwn        = 20 // parts of a target that faults may break
	MaxThresholds = 20 // on one metric

	defaultLadder = "sports"

	maxTokens = 20_000 // YAML tokens: the parser's work grows with their square
	maxNested = 16
)

// ladders are the words of the encoder.
var ladders = encoder.Names()

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Read reads a scenario; file is its name in errors. It is strict: what it does not know it refuses. The error is
// an *Errors with every mistake of the file. Keys that may be left out are filled: seed 1, ladder "sports", 2 edges a
// region, the default mix, curve "constant", model "crash". open reads a file beside the scenario, of which it is given
// the bare name; nil: there are none.
func Read(file string, src []byte, open func(name string) ([]byte, error)) (*Scenario, error) {
	if open == nil {
		open = func(string) ([]byte, error) { return nil, errors.New("there are no files beside this scenario") }
	}
	r := &reader{file: file, open: open}
	root := r.parse(src)
	if root == nil {
		return nil, r.err()
	}
	s := r.scenario(root)
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// parse turns the file into one YAML document within the bounds, or returns nil with the problem noted.
func (r *reader) parse(src []byte) (root ast.Node) {
	switch {
	case len(src) > MaxBytes:
		r.at(1, 1, "", "the file is larger than %d KiB", MaxBytes>>10)
		return nil
	case !utf8.Valid(src):
		line := 1 + bytes.Count(src[:invalidAt(src)], []byte("\n"))
		r.at(line, 1, "", "this line is not UTF-8 text")
		return nil
	case bytes.IndexByte(src, 0) >= 0:
		r.at(1+bytes.Count(src[:bytes.IndexByte(src, 0)], []byte("\n")), 1, "", "this line holds a NUL byte")
		return nil
	}
	// The YAML library is given files from strangers: should it fail on one, that is the file's problem, not a crash.
	defer func() {
		if p := recover(); p != nil {
			r.at(1, 1, "", "the file is not YAML that can be read")
			root = nil
		}
	}()
	src = bytes.TrimPrefix(src, []byte("\ufeff")) // a byte order mark, as some editors write
	// One kind of line break: with CRLF the lexer counts a line too many after each comment.
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	tokens := lexer.Tokenize(string(src))
	if !r.checkTokens(tokens) {
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
			p := at.GetToken().Position
			r.at(p.Line, p.Column, "", "not valid YAML: %s", at.GetMessage())
		} else {
			r.at(1, 1, "", "not valid YAML: %s", clip(err.Error()))
		}
		return nil
	}
	for _, d := range f.Docs {
		body := bare(d.Body)
		if body == nil {
			continue
		}
		if _, comment := body.(*ast.CommentGroupNode); comment {
			continue
		}
		if _, directive := body.(*ast.DirectiveNode); directive {
			continue // already refused
		}
		if root != nil {
			r.bad(body, "", "a scenario file holds one document, this is a second one")
			return root
		}
		root = body
	}
	if root == nil && len(r.problems) == 0 {
		r.at(1, 1, "", "the file holds no scenario; it must start with apiVersion: %s", APIVersion)
	}
	return root
}

func invalidAt(src []byte) int {
	for i := 0; i < len(src); {
		c, n := utf8.DecodeRune(src[i:])
		if c == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(src)
}

// checkTokens refuses, before the parser builds anything, what a scenario has no use for and what would let a small
// file ask for much work: anchors and aliases, tags, directives, explicit keys, deep nesting. It is false when parsing
// must not go on.
func (r *reader) checkTokens(tokens token.Tokens) bool {
	flow, entries, line, count := 0, 0, 0, 0
	refuse := func(tk *token.Token, what string) {
		r.at(tk.Position.Line, tk.Position.Column, "", "%s are not allowed in a scenario", what)
	}
	for _, tk := range tokens {
		if tk == nil || tk.Position == nil || tk.Type == token.CommentType {
			continue
		}
		if count++; count > maxTokens {
			r.at(tk.Position.Line, tk.Position.Column, "", "the file is too long: more than %d YAML tokens", maxTokens)
			return false
		}
		if tk.Position.Line != line {
			line, entries = tk.Position.Line, 0
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType:
			entries++
		case token.AnchorType:
			refuse(tk, "anchors (&)")
		case token.AliasType:
			refuse(tk, "aliases (*)")
		case token.MergeKeyType:
			refuse(tk, "merge keys (<<)")
		case token.TagType:
			refuse(tk, "tags (!)")
		case token.DirectiveType:
			refuse(tk, "directives (%)")
		case token.MappingKeyType:
			refuse(tk, "explicit keys (?)")
			return false
		}
		if flow > maxNested || entries > maxNested || tk.Position.IndentNum > 20*maxNested {
			r.at(tk.Position.Line, tk.Position.Column, "", "nested too deeply")
			return false
		}
	}
	return true
}

// noted remembers where a value stands, for the checks between values.
type noted[T any] struct {
	value T
	node  ast.Node
	path  string
	ok    bool
}

func (r *reader) scenario(root ast.Node) *Scenario {
	s := &Scenario{
		Seed:     1,
		Event:    Event{Ladder: defaultLadder},
		Playback: Playback{GuidedBackoff: true, Tokens: true},
		Audience: Audience{Mix: audience.DefaultMix},
	}
	var duration noted[time.Duration]
	var ladder, dvr, topology, playback, instance, faults, experiment, objectives, target noted[struct{}]
	var crowd crowdNodes
	var ways targetNodes

	// What later keys are checked against is read first, whatever the order in the file: the fields note their nodes and
	// the checks follow.
	ok := r.mapping(root, "", []field{
		{"apiVersion", "the version of the format: " + APIVersion, func(n ast.Node, path string) {
			if v, ok := r.text(n, path, "text"); ok && v != APIVersion {
				r.bad(n, path, "unknown version %q; this program reads %q", clip(v), APIVersion)
			}
			s.APIVersion = APIVersion
		}},
		{"name", "a short name of lower-case letters, digits and dashes, such as title-fight", func(n ast.Node, path string) {
			s.Name = r.name(n, path)
		}},
		{"seed", "", func(n ast.Node, path string) { s.Seed, _ = r.whole(n, path, 0, 1<<63-1) }},
		{"event", "what is streamed, such as {duration: 90s}", func(n ast.Node, path string) {
			r.mapping(n, path, []field{
				{"duration", "the length of the event, such as 90s", func(n ast.Node, path string) {
					d, ok := r.duration(n, path, MinDuration, MaxDuration)
					duration = noted[time.Duration]{d, n, path, ok}
					s.Event.Duration = d
				}},
				{"ladder", "", func(n ast.Node, path string) {
					s.Event.Ladder = r.word(n, path, "ladder", ladders)
					ladder = keep(n, path)
				}},
				{"dvr", "", func(n ast.Node, path string) {
					s.Event.DVR, _ = r.duration(n, path, MinDVR, MaxDVR)
					dvr = keep(n, path)
				}},
			})
		}},
		{"topology", "", func(n ast.Node, path string) {
			topology = keep(n, path)
			r.topology(n, path, &s.Topology)
		}},
		{"playback", "", func(n ast.Node, path string) {
			playback = keep(n, path)
			instance = r.playback(n, path, &s.Playback)
		}},
		{"audience", "the crowd, such as {players: 40}", func(n ast.Node, path string) { r.audience(n, path, &s.Audience, &crowd) }},
		{"limits", "", func(n ast.Node, path string) {
			r.mapping(n, path, []field{
				{"rate", "", func(n ast.Node, path string) {
					if v, ok := r.number(n, path, audience.MaxRate); ok {
						s.Limits.Rate = v
					}
				}},
				{"duration", "", func(n ast.Node, path string) { s.Limits.Duration, _ = r.duration(n, path, MinDuration, MaxDuration) }},
			})
		}},
		{"target", "", func(n ast.Node, path string) {
			target = keep(n, path)
			s.Target, ways = r.target(n, path)
		}},
		{"faults", "", func(n ast.Node, path string) { faults = keep(n, path) }},
		{"experiment", "", func(n ast.Node, path string) { experiment = keep(n, path) }},
		{"objectives", `what GO means, such as startup_time: ["p(95)<2s"]`, func(n ast.Node, path string) { objectives = keep(n, path) }},
	})
	if !ok {
		return s
	}

	switch {
	case target.ok:
		s.Event.Ladder = ""
		for _, k := range []struct {
			noted[struct{}]
			why string
		}{
			{ladder, "the ladder"}, {dvr, "the DVR window"}, {topology, "the topology"}, {playback, "the playback services"},
		} {
			if k.ok {
				r.bad(k.node, k.path, "a target brings its own pipeline: leave out %s", k.why)
			}
		}
		if ways.play.ok {
			r.reachable(ways.play, s.Target.Play, s.Audience.Connections)
		}
		if crowd.starts.ok && !ways.play.ok {
			r.bad(crowd.starts.node, crowd.starts.path, "play starts need a play API: give the target one under target.play, or leave them out")
		}
		if s.Audience.Players > 0 && !ways.manifest.ok {
			r.bad(crowd.players.node, crowd.players.path, "players need a stream: give the target's manifest, or leave them out")
		}
	case !topology.ok:
		r.bad(root, "topology", "missing: the regions of the reference pipeline, such as {regions: [us-east, us-west]}, or a target")
	}
	r.crowd(crowd, s, duration.value)
	if instance.ok && s.Audience.Forecast == nil {
		r.bad(instance.node, instance.path, "instances are asked for by the nowcast, which needs a forecast: give one under audience.forecast")
	}
	r.ceilings(crowd.starts, s, duration)
	if faults.ok {
		s.Faults = r.faults(faults.node, faults.path, s, duration.value)
		r.throughRelays(ways, s)
	}
	if experiment.ok {
		s.Experiment = r.experiment(experiment.node, experiment.path, s, faults)
	}
	if objectives.ok {
		s.Objectives = r.thresholds(objectives.node, objectives.path, s, asObjectives)
	}
	return s
}

func (r *reader) name(n ast.Node, path string) string {
	v, ok := r.text(n, path, "a name of lower-case letters, digits and dashes")
	if ok && !nameForm.MatchString(v) {
		r.bad(n, path, "want a name of at most 63 lower-case letters, digits and dashes, got %q", clip(v))
		return ""
	}
	return v
}

func (r *reader) topology(n ast.Node, path string, t *Topology) {
	var edges noted[struct{}]
	first := map[string]int{}
	r.mapping(n, path, []field{
		{"regions", "the regions in order, such as [us-east, us-west]", func(n ast.Node, path string) {
			if r.list(n, path, MaxRegions, " of regions", func(n ast.Node, path string, _ int) {
				name := r.name(n, path)
				if name == "" {
					return
				}
				if line, again := first[name]; again {
					r.bad(n, path, "region %q is already on line %d", name, line)
					return
				}
				first[name], _ = position(n)
				t.Regions = append(t.Regions, name)
			}) && len(n.(*ast.SequenceNode).Values) == 0 {
				r.bad(n, path, "want at least one region")
			}
		}},
		{"edges", "", func(n ast.Node, path string) { edges = noted[struct{}]{node: n, path: path, ok: true} }},
	})
	t.Edges = map[string]int{}
	for _, name := range t.Regions {
		t.Edges[name] = 2
	}
	if !edges.ok {
		return
	}
	entries, _ := r.entries(edges.node, edges.path)
	for _, e := range entries {
		if !slices.Contains(t.Regions, e.key) {
			if len(t.Regions) > 0 {
				r.bad(e.node, join(edges.path, e.key), "unknown region%s", oneOf(e.key, t.Regions))
			}
			continue
		}
		if v, ok := r.whole(e.value, join(edges.path, e.key), 1, MaxEdges); ok {
			t.Edges[e.key] = int(v)
		}
	}
}

// thresholds reads thresholds by metric.
func (r *reader) thresholds(n ast.Node, path string, s *Scenario, as asked) []Objective {
	entries, ok := r.entries(n, path)
	if ok && len(entries) == 0 {
		r.bad(n, path, "%s", as.empty)
	}
	if len(entries) > MaxFaults {
		r.bad(n, path, "%d metrics, at most %d are allowed", len(entries), MaxFaults)
		return nil
	}
	var out []Objective
	for _, e := range entries {
		p := join(path, e.key)
		name, filter, filtered := strings.Cut(e.key, "{")
		m, known := qoe.Lookup(name)
		if !known {
			r.bad(e.node, p, "unknown metric %q%s", clip(name), oneOf(name, metricNames()))
			continue
		}
		if as.part && m.Whole {
			r.bad(e.node, p, "%s is known of the whole event only, and an experiment looks at parts of it", name)
			continue
		}
		if as.live && m.Instead != "" {
			r.bad(e.node, p, "%s is written when it is over: too late to stop what goes on; use %s", name, m.Instead)
			continue
		}
		if m.Players && s.Audience.Players == 0 && len(s.Audience.Starts) > 0 {
			r.bad(e.node, p, "nothing would measure %s: it comes from full players, and the audience has none", name)
		}
		var where map[string]string
		var from, to time.Duration
		if filtered {
			inner, closed := strings.CutSuffix(filter, "}")
			if !closed {
				r.bad(e.node, p, "want a filter such as %s{region=us-east}", name)
				continue
			}
			filter = inner
			where = r.where(e.node, p, inner, m, s)
			if _, bounded := where["from"]; as.part && (bounded || where["to"] != "") {
				r.bad(e.node, p, "the experiment says which part of the event is looked at: leave out from and to")
				continue
			}
			from, to = r.window(e.node, p, where, m, s)
		}
		seen := map[string]bool{}
		if r.list(e.value, p, MaxThresholds, ` such as ["p(95)<2s"]`, func(n ast.Node, p string, _ int) {
			text, ok := r.text(n, p, `an expression such as "p(95)<2s"`)
			if !ok {
				return
			}
			o, err := ParseExpression(m, text)
			if err != nil {
				r.bad(n, p, "%s", err)
				return
			}
			if seen[text] {
				r.bad(n, p, "the expression %q is there already", clip(text))
				return
			}
			seen[text] = true
			o.Where, o.WhereText, o.From, o.To = where, filter, from, to
			out = append(out, o)
		}) && len(e.value.(*ast.SequenceNode).Values) == 0 {
			r.bad(e.value, p, "want at least one expression")
		}
	}
	return out
}

// where reads a dimension filter: "region=us-west,device=tv".
func (r *reader) where(n ast.Node, path, text string, m qoe.Metric, s *Scenario) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		dim, value, ok := strings.Cut(part, "=")
		dim, value = strings.TrimSpace(dim), strings.TrimSpace(value)
		if !ok || dim == "" || value == "" {
			r.bad(n, path, "want a filter such as region=us-east, got %q", clip(part))
			continue
		}
		if dim == "from" || dim == "to" {
			if _, again := out[dim]; again {
				r.bad(n, path, "%q is there already", dim)
			}
			out[dim] = value
			continue
		}
		if !slices.Contains(m.Dimensions, dim) {
			if len(m.Dimensions) == 0 {
				r.bad(n, path, "%s has no dimensions to filter by", m.Name)
			} else {
				r.bad(n, path, "unknown dimension %q%s", clip(dim), oneOf(dim, m.Dimensions))
			}
			continue
		}
		if _, again := out[dim]; again {
			r.bad(n, path, "dimension %q is there already", dim)
			continue
		}
		out[dim] = value
		var values []string
		switch dim {
		case "region", "home":
			values = s.Topology.Regions
			if s.Target != nil {
				r.bad(n, path, "a target has no regions to filter by")
				continue
			}
		case "device":
			values = audience.Devices(s.Audience.Mix)
		case "isp":
			values = audience.ISPs(s.Audience.Mix)
		case "rendition":
			if s.Target == nil { // somebody else's stream names its renditions as it likes
				values = videoRenditions(s.Event.Ladder)
			}
		case "edge":
			if m.Players { // of a play start it is the playback service's address
				for _, region := range s.Topology.Regions {
					for i := range s.Topology.Edges[region] {
						values = append(values, region+"-"+strconv.Itoa(i+1))
					}
				}
			}
		}
		if len(values) > 0 && !slices.Contains(values, value) {
			r.bad(n, path, "unknown %s %q%s", dim, clip(value), oneOf(value, values))
		}
	}
	return out
}

// window takes from and to out of a filter: the part of the event that an objective looks at.
func (r *reader) window(n ast.Node, path string, where map[string]string, m qoe.Metric, s *Scenario) (from, to time.Duration) {
	end := s.Event.Duration
	read := func(key string, d *time.Duration) {
		text, ok := where[key]
		if !ok {
			return
		}
		delete(where, key)
		v, err := time.ParseDuration(text)
		switch {
		case m.Whole:
			r.bad(n, path, "%s is known of the whole event only: leave out %s", m.Name, key)
		case err != nil || v < 0 || v%time.Second != 0:
			r.bad(n, path, "want whole seconds such as %s=15s, got %q", key, clip(text))
		case end > 0 && v > end:
			r.bad(n, path, "%s=%s lies past the end of the event, which lasts %s", key, Short(v), Short(end))
		default:
			*d = v
		}
	}
	read("from", &from)
	read("to", &to)
	if to > 0 && from >= to {
		r.bad(n, path, "the part from %s to %s has no length", Short(from), Short(to))
	}
	return from, to
}

// videoRenditions lists the rungs of a ladder, which is what players report as theirs; none of an unknown ladder.
func videoRenditions(name string) (ids []string) {
	ladder, err := encoder.Load(name)
	if err != nil {
		return nil
	}
	for _, r := range ladder.Renditions() {
		if r.Kind == manifest.Video {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
