package spec

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// maxProblems bounds what one file can make a person read.
const maxProblems = 100

// reader collects the mistakes of one file while it reads.
type reader struct {
	file     string
	open     func(name string) ([]byte, error) // a file beside the scenario
	problems []Problem
	more     int // problems beyond maxProblems
}

func (r *reader) at(line, col int, path, format string, args ...any) {
	if len(r.problems) >= maxProblems {
		r.more++
		return
	}
	r.problems = append(r.problems, Problem{r.file, max(1, line), max(1, col), path, fmt.Sprintf(format, args...)})
}

func (r *reader) bad(n ast.Node, path, format string, args ...any) {
	line, col := position(n)
	r.at(line, col, path, format, args...)
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	e := &Errors{r.problems}
	e.sort()
	if r.more > 0 {
		last := e.Problems[len(e.Problems)-1]
		e.Problems = append(e.Problems, Problem{r.file, last.Line, last.Col, "", fmt.Sprintf("and %d more problems", r.more)})
	}
	return e
}

// position is where a node begins; a block mapping's own token is its first colon, so its first key stands for it.
func position(n ast.Node) (line, col int) {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if n == nil {
		return 1, 1
	}
	tk := n.GetToken()
	if tk == nil || tk.Position == nil {
		return 1, 1
	}
	return tk.Position.Line, tk.Position.Column
}

// bare takes anchors and tags off a node: they have been refused already, and what they wrap is still to be checked.
func bare(n ast.Node) ast.Node {
	for {
		switch w := n.(type) {
		case *ast.AnchorNode:
			n = w.Value
		case *ast.TagNode:
			n = w.Value
		default:
			return n
		}
	}
}

// describe says what a node is, in the words of a person who writes YAML.
func describe(n ast.Node) string {
	switch v := n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return fmt.Sprintf("%v", v.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "the number " + clip(n.GetToken().Value)
	case *ast.StringNode:
		return fmt.Sprintf("the text %q", clip(v.Value))
	case *ast.LiteralNode:
		return "a block of text"
	case *ast.AliasNode:
		return "an alias"
	default:
		return "something else"
	}
}

// field is one key of a mapping.
type field struct {
	key      string
	required string // what to write, when the key must be there: "the length of the event, such as 90s"
	read     func(n ast.Node, path string)
}

// mapping reads a mapping strictly: unknown and repeated keys, and required ones that are missing, are problems.
func (r *reader) mapping(n ast.Node, path string, fields []field) bool {
	entries, ok := r.entries(n, path)
	if !ok {
		return false
	}
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.key] = true
		known := false
		for _, f := range fields {
			if f.key == e.key {
				known = true
				f.read(e.value, join(path, e.key))
			}
		}
		if !known {
			r.bad(e.node, join(path, e.key), "unknown key%s", oneOf(e.key, keys))
		}
	}
	for _, f := range fields {
		if f.required != "" && !seen[f.key] {
			r.bad(n, join(path, f.key), "missing: %s", f.required)
		}
	}
	return true
}

type entry struct {
	key   string
	node  ast.Node // the key's
	value ast.Node
}

// entries lists a mapping's entries in order, without those whose key is repeated.
func (r *reader) entries(n ast.Node, path string) ([]entry, bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		if _, alias := n.(*ast.AliasNode); !alias {
			r.bad(n, path, "want a mapping, got %s", describe(n))
		}
		return nil, false
	}
	first := map[string]int{}
	var out []entry
	for _, v := range m.Values {
		key, ok := keyText(v.Key)
		if !ok {
			r.bad(v.Key, path, "want a plain word as key, got %s", describe(v.Key))
			continue
		}
		if line, again := first[key]; again {
			r.bad(v.Key, join(path, clip(key)), "this key is already on line %d", line)
			continue
		}
		first[key], _ = position(v.Key)
		out = append(out, entry{key, v.Key, bare(v.Value)})
	}
	return out, true
}

func keyText(n ast.MapKeyNode) (string, bool) {
	switch k := n.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.MergeKeyNode:
		return "<<", true
	}
	return "", false
}

func join(path, key string) string {
	key = clip(key)
	if path == "" {
		return key
	}
	return path + "." + key
}

// list reads a list's items.
func (r *reader) list(n ast.Node, path string, most int, hint string, each func(n ast.Node, path string, i int)) bool {
	l, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, alias := n.(*ast.AliasNode); !alias {
			r.bad(n, path, "want a list%s, got %s", hint, describe(n))
		}
		return false
	}
	if len(l.Values) > most {
		r.bad(n, path, "%d items, at most %d are allowed", len(l.Values), most)
		return false
	}
	for i, v := range l.Values {
		each(bare(v), path+"["+strconv.Itoa(i)+"]", i)
	}
	return true
}

// text reads a string.
func (r *reader) text(n ast.Node, path, hint string) (string, bool) {
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value, true
	}
	if _, alias := n.(*ast.AliasNode); !alias {
		r.bad(n, path, "want %s, got %s", hint, describe(n))
	}
	return "", false
}

// word reads one word of a closed set.
func (r *reader) word(n ast.Node, path, what string, words []string) string {
	s, ok := r.text(n, path, "text")
	if !ok {
		return ""
	}
	for _, w := range words {
		if s == w {
			return s
		}
	}
	r.bad(n, path, "unknown %s %q%s", what, clip(s), oneOf(s, words))
	return ""
}

// whole reads a whole number from least to most.
func (r *reader) whole(n ast.Node, path string, least, most uint64) (uint64, bool) {
	if i, ok := n.(*ast.IntegerNode); ok && i.GetToken().Type == token.IntegerType {
		v, err := strconv.ParseUint(i.GetToken().Value, 10, 64)
		if err == nil && v >= least && v <= most {
			return v, true
		}
		r.bad(n, path, "want a whole number from %d to %d, got %s", least, most, clip(i.GetToken().Value))
		return 0, false
	}
	if _, alias := n.(*ast.AliasNode); !alias {
		r.bad(n, path, "want a whole number, got %s", describe(n))
	}
	return 0, false
}

// exponent is a number that the YAML reader takes for text.
var exponent = regexp.MustCompile(`^[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+$`)

// number reads a number from 0 to most.
func (r *reader) number(n ast.Node, path string, most float64) (float64, bool) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		v, err := strconv.ParseFloat(n.GetToken().Value, 64)
		if err == nil && v >= 0 && v <= most {
			return v, true
		}
		r.bad(n, path, "want a number from 0 to %s, got %s", strconv.FormatFloat(most, 'f', -1, 64), clip(n.GetToken().Value))
	case *ast.StringNode:
		if tok := n.GetToken(); tok.Type == token.StringType && exponent.MatchString(tok.Value) { // a number as YAML 1.2 has them
			v, err := strconv.ParseFloat(tok.Value, 64)
			if err == nil && v >= 0 && v <= most {
				return v, true
			}
			r.bad(n, path, "want a number from 0 to %s, got %s", strconv.FormatFloat(most, 'f', -1, 64), clip(tok.Value))
			break
		}
		r.bad(n, path, "want a number, got %s", describe(n))
	case *ast.AliasNode:
	default:
		r.bad(n, path, "want a number, got %s", describe(n))
	}
	return 0, false
}

// share reads a percentage from 0% to 100% as a number from 0 to 1.
func (r *reader) share(n ast.Node, path string) (float64, bool) {
	if s, ok := n.(*ast.StringNode); ok {
		if digits, ok := strings.CutSuffix(s.Value, "%"); ok {
			if v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64); err == nil && v >= 0 && v <= 100 {
				return v / 100, true
			}
		}
	}
	if _, alias := n.(*ast.AliasNode); !alias {
		r.bad(n, path, "want a percentage from 0%% to 100%%, such as 30%%, got %s", describe(n))
	}
	return 0, false
}

func (r *reader) boolean(n ast.Node, path string) (bool, bool) {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value, true
	}
	if _, alias := n.(*ast.AliasNode); !alias {
		r.bad(n, path, "want true or false, got %s", describe(n))
	}
	return false, false
}

// duration reads a duration from least to most.
func (r *reader) duration(n ast.Node, path string, least, most time.Duration) (time.Duration, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		if _, alias := n.(*ast.AliasNode); alias {
			return 0, false
		}
		hint := ""
		if _, number := n.(*ast.IntegerNode); number {
			hint = "; is it " + clip(n.GetToken().Value) + "s?"
		}
		r.bad(n, path, "want a duration such as 90s or 1m30s, got %s%s", describe(n), hint)
		return 0, false
	}
	d, err := time.ParseDuration(s.Value)
	if err != nil || d == math.MinInt64 {
		r.bad(n, path, "want a duration such as 90s or 1m30s, got %q", clip(s.Value))
		return 0, false
	}
	if d < least || d > most {
		r.bad(n, path, "want a duration from %s to %s, got %s", Short(least), Short(most), clip(s.Value))
		return 0, false
	}
	return d, true
}

// Short writes a duration as a person would, without its zero parts: 24h, not 24h0m0s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
