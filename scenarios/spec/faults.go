package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/chaos/media"
	"github.com/tminus-live/tminus/reference/encoder"
)

// fails and models are the words of the catalogue.
var (
	kinds  = chaos.Catalogue()
	fails  = kindNames()
	models = modelNames(kinds...)
)

func kindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.Fail)
	}
	return names
}

// modelNames lists the models of some kinds of fault, each once.
func modelNames(kinds ...chaos.Kind) (names []string) {
	for _, k := range kinds {
		for _, m := range k.Models {
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// kindsOfPart are those that some fault is about: of an unknown kind of fault any may be meant.
var kindsOfPart = func() (on []string) {
	for _, k := range kinds {
		on = append(on, k.On...)
	}
	return on
}()

// Part names something of a scenario that a fault may be about.
type Part struct {
	Name   string // "us-east", "us-east/edge-1", "clickhouse"
	Kind   string // one of chaos's kinds of part
	Region string // that it is in; "": none
}

// Parts lists what of the scenario's system can be broken.
func (s *Scenario) Parts() []Part {
	var parts []Part
	for _, region := range s.Topology.Regions {
		parts = append(parts, Part{region, chaos.PartRegion, region})
		in := func(name, kind string) { parts = append(parts, Part{region + "/" + name, kind, region}) }
		in("encoder", chaos.PartEncoder)
		in("packager", chaos.PartPackager)
		in("origin", chaos.PartOrigin)
		in("playback", chaos.PartPlayback)
		for k := range s.Topology.Edges[region] {
			in("edge-"+strconv.Itoa(k+1), chaos.PartEdge)
		}
	}
	if s.Target != nil {
		for _, o := range s.Target.Own {
			parts = append(parts, Part{Name: o.Name, Kind: chaos.PartService})
		}
	}
	return append(parts, Part{Name: "kafka", Kind: chaos.PartKafka}, Part{Name: "clickhouse", Kind: chaos.PartClickHouse})
}

// faults reads the faults, in the file's order.
func (r *reader) faults(n ast.Node, path string, s *Scenario, end time.Duration) []Fault {
	var out []Fault
	count := map[string]int{}
	parts := s.Parts()
	type placed struct {
		Fault
		line int
	}
	var before []placed
	r.list(n, path, MaxFaults, " such as [{at: 30s, for: 20s, fail: region, where: us-east}]", func(n ast.Node, path string, _ int) {
		f := Fault{Seed: s.Seed}
		var at, length noted[time.Duration]
		var fail, where noted[string]
		var model noted[struct{}]
		r.mapping(n, path, []field{
			{"at", "when it begins, such as 30s", func(n ast.Node, path string) {
				d, ok := r.duration(n, path, 0, MaxDuration)
				at, f.At = noted[time.Duration]{d, n, path, ok}, d
			}},
			{"for", "how long it lasts, such as 20s", func(n ast.Node, path string) {
				d, ok := r.duration(n, path, chaos.MinFor, MaxDuration)
				length, f.For = noted[time.Duration]{d, n, path, ok}, d
			}},
			{"fail", "what fails: " + strings.Join(fails, ", "), func(n ast.Node, path string) {
				f.Fail = r.word(n, path, "kind of fault", fails)
				fail = noted[string]{f.Fail, n, path, f.Fail != ""}
			}},
			{"where", "what it is about, such as a region's name", func(n ast.Node, path string) {
				v, ok := r.text(n, path, "the name of a part, such as us-east or us-east/edge-1")
				where, f.Where = noted[string]{v, n, path, ok}, v
			}},
			{"model", "", func(n ast.Node, path string) { model = keep(n, path) }},
			{"seed", "", func(n ast.Node, path string) { f.Seed, _ = r.whole(n, path, 0, 1<<63-1) }},
		})
		count[f.Fail]++
		f.ID = f.Fail + "-" + strconv.Itoa(count[f.Fail])
		where.ok = r.broken(f.Fail, fail, where, parts, s) && where.ok
		if r.model(n, path, model, &f, s) && where.ok {
			r.fronted(where, s, out, f)
		}
		if at.ok && f.At < chaos.MinBefore {
			r.bad(at.node, at.path, "the fault begins at %s: it has to be watched before it can be proven, so %s at the earliest", Short(f.At), Short(chaos.MinBefore))
		}
		if at.ok && end > 0 {
			switch {
			case f.At >= end:
				r.bad(at.node, at.path, "the fault begins at %s, but the event lasts %s", Short(f.At), Short(end))
			case length.ok && f.At+f.For > end:
				r.bad(length.node, length.path, "the fault ends at %s, but the event lasts %s", Short(f.At+f.For), Short(end))
			}
		}
		if at.ok && length.ok && where.ok {
			line, _ := position(n)
			for _, b := range before {
				same := chaos.Inside(b.Where, f.Where) || chaos.Inside(f.Where, b.Where)
				switch {
				case !same || !chaos.Clash(b.Fault, f):
				case f.At < b.At+b.For && b.At < f.At+f.For:
					r.bad(at.node, path, "overlaps the fault of %q on line %d, which lasts from %s to %s", b.Where, b.line, Short(b.At), Short(b.At+b.For))
				default:
					r.bad(at.node, path, "too close to the fault of %q on line %d, which lasts from %s to %s: neither can be proven with less than %s between them",
						b.Where, b.line, Short(b.At), Short(b.At+b.For), Short(chaos.MinApart))
				}
			}
			before = append(before, placed{f, line})
		}
		out = append(out, f)
	})
	return out
}

// fronted checks that what a fault needs in front of something of one's own can be there, whatever the machine, beside what the
// faults before it need.
func (r *reader) fronted(where noted[string], s *Scenario, before []Fault, f Fault) {
	if s.Target == nil {
		return
	}
	i := slices.IndexFunc(s.Target.Own, func(o Own) bool { return o.Name == f.Where })
	if i < 0 {
		return
	}
	own, terms := s.Target.Own[i], chaos.Anywhere(chaos.PartService, s.Target.Own[i].Datagrams)
	if _, err := own.Fronts(terms, before); err != nil {
		return // that is said already
	}
	if _, err := own.Fronts(terms, append(before, f)); err != nil {
		r.bad(where.node, where.path, "%s", err)
	}
}

// broken checks that the scenario has what a fault is about, and that this kind of fault can be about it.
func (r *reader) broken(kind string, fail, where noted[string], parts []Part, s *Scenario) bool {
	on := kindsOfPart
	if k := slices.IndexFunc(kinds, func(k chaos.Kind) bool { return k.Fail == kind }); k >= 0 {
		on = kinds[k].On
	}
	var fitting []string
	for _, p := range parts {
		if slices.Contains(on, p.Kind) {
			fitting = append(fitting, p.Name)
		}
	}
	only := !slices.ContainsFunc(on, func(kind string) bool { return kind != chaos.PartService }) // for the reference pipeline there is none
	if len(fitting) == 0 && (s.Target != nil || only) {
		hint := "declare it under target.own, or leave the fault out"
		if !slices.Contains(on, chaos.PartService) {
			hint = "leave it out, or leave out the target"
		}
		r.bad(fail.node, fail.path, "%s needs %s: %s", kind, needs(on), hint)
		return false
	}
	if !where.ok || len(fitting) == 0 {
		return true
	}
	if i := slices.IndexFunc(parts, func(p Part) bool { return p.Name == where.value }); i >= 0 {
		if slices.Contains(on, parts[i].Kind) {
			return true
		}
		r.bad(where.node, where.path, "%s cannot befall %q, which is of kind %s%s", kind, clip(where.value), parts[i].Kind, oneOf("", fitting))
		return false
	}
	hint := oneOf(where.value, fitting)
	if s.Target != nil && slices.Contains(on, chaos.PartService) {
		hint += "; something of your own is declared under target.own"
	}
	r.bad(where.node, where.path, "unknown place %q%s", clip(where.value), hint)
	return false
}

// rung checks that the reference pipeline's ladder has the rung that a fault is about. Somebody else's stream names its rungs as it
// likes.
func (r *reader) rung(s *Scenario, f Fault, at noted[struct{}]) {
	if s.Target != nil || f.Params["rung"] == "" {
		return
	}
	ladder, err := encoder.Load(s.Event.Ladder)
	if err != nil {
		return // that is said already
	}
	selector := media.Selector{Rung: f.Params["rung"]}
	track := f.Params["track"]
	if f.Fail == "encoder" { // which makes pictures
		track = media.Video
	}
	var names []string
	for _, rendition := range ladder.Renditions() {
		if (track == media.Video || track == media.Audio) && track != rendition.Kind {
			continue
		}
		names = append(names, rendition.ID)
		if rendition.Height > 0 {
			names = append(names, fmt.Sprintf("%dp", rendition.Height))
		}
		if selector.Named(media.Ref{Rung: rendition.ID}) {
			return
		}
	}
	r.bad(at.node, at.path, "unknown rung %q%s", clip(selector.Rung), oneOf(selector.Rung, names))
}

// needs says which system a kind of fault is made for.
func needs(on []string) string {
	if slices.Contains(on, chaos.PartService) {
		return "something of your own to break"
	}
	return "the reference pipeline"
}

// model reads a fault's model, a word or {word: {parameter: value}}, and fills in the parameters that are left out; false: the
// fault is not one that could be.
func (r *reader) model(n ast.Node, path string, model noted[struct{}], f *Fault, s *Scenario) bool {
	before := len(r.problems)
	k := slices.IndexFunc(kinds, func(k chaos.Kind) bool { return k.Fail == f.Fail })
	words := models // of an unknown kind any may be meant
	if k >= 0 {
		words = modelNames(kinds[k])
	}
	f.Model = words[0]
	given := map[string]string{}
	at := map[string]noted[struct{}]{}
	if model.ok {
		if m, ok := model.node.(*ast.MappingNode); ok {
			entries, ok := r.entries(m, model.path)
			if !ok {
				return false
			}
			if len(entries) != 1 {
				r.bad(m, model.path, "want one model, such as {%s: {…}}, got %d", words[0], len(entries))
				return false
			}
			e := entries[0]
			if !slices.Contains(words, e.key) {
				r.bad(e.node, join(model.path, e.key), "unknown model %q%s", clip(e.key), oneOf(e.key, words))
				return false
			}
			f.Model = e.key
			r.parameters(e.value, join(model.path, e.key), given, at)
		} else if f.Model = r.word(model.node, model.path, "model", words); f.Model == "" {
			return false
		}
	}
	if k < 0 {
		return false
	}
	m := kinds[k].Models[slices.IndexFunc(kinds[k].Models, func(m chaos.Model) bool { return m.Name == f.Model })]
	var names []string
	for _, p := range m.Parameters {
		names = append(names, p.Name)
		text, ok := given[p.Name]
		switch {
		case ok:
			if err := p.Check(text); err != nil {
				r.bad(at[p.Name].node, at[p.Name].path, "%s", err)
			} else if p.Type == chaos.TypeFile {
				if text, ok := r.fileBeside(at[p.Name], text); ok {
					f.Files = map[string]string{p.Name: string(text)}
				}
			}
		case p.Required:
			where, on := n, join(path, "model")
			if model.ok {
				where, on = model.node, model.path
			}
			r.bad(where, on, "%s is missing: %s, such as %s", p.Name, p.Summary, m.Example)
		case p.Default != "":
			given[p.Name] = p.Default
		}
	}
	for name, stands := range at {
		if !slices.Contains(names, name) {
			r.bad(stands.node, stands.path, "unknown parameter%s", oneOf(name, names))
		}
	}
	if len(given) > 0 {
		f.Params = given
	}
	if at["rung"].ok {
		r.rung(s, *f, at["rung"])
	}
	if len(r.problems) > before {
		return false
	}
	if err := m.Check(*f); err != nil {
		for line := range strings.Lines(err.Error()) { // one sentence each
			r.bad(cmp.Or(model.node, n), cmp.Or(model.path, path), "%s", strings.TrimSuffix(line, "\n"))
		}
		return false
	}
	return true
}

// parameters reads a model's parameters as they are written.
func (r *reader) parameters(n ast.Node, path string, given map[string]string, at map[string]noted[struct{}]) {
	entries, ok := r.entries(n, path)
	if !ok {
		return
	}
	for _, e := range entries {
		at[e.key] = keep(e.node, join(path, e.key))
		switch v := e.value.(type) {
		case *ast.StringNode:
			given[e.key] = v.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			given[e.key] = v.GetToken().Value
		default:
			r.bad(e.value, join(path, e.key), "want a single value, got %s", describe(e.value))
		}
	}
}
