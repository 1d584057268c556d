package answer

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// MaxDepth bounds the nesting of a JSON text: deeper ones count as not JSON.
const MaxDepth = 100

// Kind is what stands at a path.
type Kind uint8

// Kinds of a value.
const (
	Absent Kind = iota
	Null
	Bool
	Number
	String
	Object
	Array
)

// Values are what stands at the paths of a Paths, in one text. They are good until the next Read, or the text changes.
type Values struct {
	text  []byte
	at    []value
	memos [memos]memo
}

// value is a string's place without its quotes, a number's digits, or any other value's place.
type value struct {
	from, end int32
	kind      Kind
	escaped   bool
}

// Paths finds values in JSON texts. It is immutable and safe for concurrent use.
type Paths struct {
	nodes []node
	n     int
}

// node is one step of the paths: what is of interest under an object's keys or an array's places.
type node struct {
	children []child
	capture  int // index of the path that ends here; -1: none does
}

type child struct {
	key   string
	place int // in an array, where the key is a number; else -1
	node  int
}

// CompilePaths reads paths such as "data.session.id", "$.streams[0].url" or "streams.0.url": keys and places in arrays
// from the outside to the inside. Keys that contain a dot or a bracket are written ["like.this"].
func CompilePaths(paths ...string) (*Paths, error) {
	p := &Paths{nodes: []node{{capture: -1}}, n: len(paths)}
	for i, path := range paths {
		keys, err := splitPath(path)
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", path, err)
		}
		at := 0
		for _, key := range keys {
			at = p.step(at, key)
		}
		if p.nodes[at].capture >= 0 {
			return nil, fmt.Errorf("path %q is given twice", path)
		}
		p.nodes[at].capture = i
	}
	return p, nil
}

func (p *Paths) step(at int, key string) int {
	for _, c := range p.nodes[at].children {
		if c.key == key {
			return c.node
		}
	}
	place := -1
	if n, ok := digits([]byte(key)); ok {
		place = n
	}
	p.nodes = append(p.nodes, node{capture: -1})
	p.nodes[at].children = append(p.nodes[at].children, child{key, place, len(p.nodes) - 1})
	return len(p.nodes) - 1
}

func splitPath(path string) (keys []string, err error) {
	rest := strings.TrimPrefix(path, "$")
	if len(rest) == len(path) && !strings.HasPrefix(rest, "[") { // without $ the first key has no dot before it
		rest = "." + rest
	}
	for rest != "" {
		switch {
		case rest[0] == '.':
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			if end == 1 {
				return nil, fmt.Errorf("a key is missing")
			}
			keys, rest = append(keys, rest[1:end]), rest[end:]
		case strings.HasPrefix(rest, `["`), strings.HasPrefix(rest, `['`):
			end := strings.Index(rest[2:], rest[1:2]+"]")
			if end < 0 {
				return nil, fmt.Errorf("a bracket is not closed")
			}
			keys, rest = append(keys, rest[2:end+2]), rest[end+4:]
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return nil, fmt.Errorf("a bracket is not closed")
			}
			if _, ok := digits([]byte(rest[1:end])); !ok {
				return nil, fmt.Errorf("%q is no place in an array", rest[1:end])
			}
			keys, rest = append(keys, rest[1:end]), rest[end+1:]
		default:
			return nil, fmt.Errorf("want a dot or a bracket before %q", rest)
		}
	}
	if len(keys) > MaxDepth/2 {
		return nil, fmt.Errorf("%d keys deep", len(keys))
	}
	return keys, nil
}

// Values returns the place for a text's values.
func (p *Paths) Values() *Values { return &Values{at: make([]value, p.n)} }

// Read finds the paths' values in a JSON text; where a key is given twice, the later counts. It returns false where the
// text is not JSON, which is checked to its last byte. v is the Paths' own. It does not allocate.
func (p *Paths) Read(text []byte, v *Values) bool {
	v.text = text
	m := &v.memos[len(text)%memos]
	if m.matches(text) {
		copy(v.at, m.at)
		return true
	}
	if !p.scan(text, v.at) {
		return false
	}
	if m.missed++; (m.missed > relearn || m.text == nil) && len(text) <= memoBytes {
		m.learn(text, v.at)
	}
	return true
}

func (p *Paths) scan(text []byte, at []value) bool {
	clear(at)
	if len(text) > math.MaxInt32 {
		return false
	}
	s := scan{text, p.nodes, at}
	i := s.value(s.space(0), 0, 0)
	return i >= 0 && s.space(i) == len(text)
}

type scan struct {
	b     []byte
	nodes []node
	at    []value
}

func (s *scan) capture(n int, kind Kind, from, end int, escaped bool) {
	if n >= 0 && s.nodes[n].capture >= 0 {
		s.at[s.nodes[n].capture] = value{int32(from), int32(end), kind, escaped}
	}
}

func (s *scan) space(i int) int {
	for i < len(s.b) {
		switch s.b[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

// value reads the value at i, of which the paths from node n on are of interest (n < 0: none is), and returns where it
// ends; -1: it is no value.
func (s *scan) value(i, n, depth int) int {
	if i >= len(s.b) || depth > MaxDepth {
		return -1
	}
	var kind Kind
	end, escaped := -1, false
	from := i
	switch c := s.b[i]; c {
	case '"':
		end, escaped = stringEnd(s.b, i+1)
		kind, from = String, i+1
	case '{':
		kind, end = Object, s.object(i+1, n, depth+1)
	case '[':
		kind, end = Array, s.array(i+1, n, depth+1)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		kind, end = Number, numberEnd(s.b, i)
	case 't':
		kind, end = Bool, s.word(i, "true")
	case 'f':
		kind, end = Bool, s.word(i, "false")
	case 'n':
		kind, end = Null, s.word(i, "null")
	}
	if end < 0 {
		return -1
	}
	s.capture(n, kind, from, end, escaped)
	if kind == String {
		end++ // its quote
	}
	return end
}

// word returns where a literal at i ends; -1: it is another.
func (s *scan) word(i int, word string) int {
	if hasPrefix(s.b[i:], word) {
		return i + len(word)
	}
	return -1
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

func (s *scan) object(i, n, depth int) int {
	b := s.b
	i = s.space(i)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return -1
		}
		from := i + 1
		end, escaped := stringEnd(b, from)
		if end < 0 {
			return -1
		}
		next := -1
		if n >= 0 {
			next = s.under(n, b[from:end], escaped)
		}
		if i = end + 1; i < len(b) && b[i] != ':' {
			i = s.space(i)
		}
		if i >= len(b) || b[i] != ':' {
			return -1
		}
		i++
		if i < len(b) && b[i] == '"' { // most values are strings: no call for them
			end, escaped := stringEnd(b, i+1)
			if end < 0 {
				return -1
			}
			s.capture(next, String, i+1, end, escaped)
			i = end + 1
		} else if i = s.value(s.space(i), next, depth); i < 0 {
			return -1
		}
		if i < len(b) && b[i] <= ' ' {
			i = s.space(i)
		}
		if i >= len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			if i++; i < len(b) && b[i] != '"' {
				i = s.space(i)
			}
		default:
			return -1
		}
	}
}

// under returns the node under a key of node n's object; -1: the key is of no interest.
func (s *scan) under(n int, key []byte, escaped bool) int {
	if escaped {
		return s.underEscaped(n, key)
	}
	children := s.nodes[n].children
	for i := range children {
		if c := &children[i]; len(c.key) == len(key) && c.key == string(key) {
			return c.node
		}
	}
	return -1
}

func (s *scan) underEscaped(n int, key []byte) int {
	var room [256]byte
	if len(key) > len(room) {
		return -1 // six bytes a character: no key of ours
	}
	return s.under(n, unescape(room[:0], key), false)
}

func (s *scan) array(i, n, depth int) int {
	i = s.space(i)
	if i < len(s.b) && s.b[i] == ']' {
		return i + 1
	}
	for place := 0; ; place++ {
		next := -1
		if n >= 0 {
			for _, c := range s.nodes[n].children {
				if c.place == place {
					next = c.node
				}
			}
		}
		if i = s.value(i, next, depth); i < 0 {
			return -1
		}
		if i = s.space(i); i >= len(s.b) {
			return -1
		}
		switch s.b[i] {
		case ']':
			return i + 1
		case ',':
			i = s.space(i + 1)
		default:
			return -1
		}
	}
}

const ones, highs = 0x0101010101010101, 0x8080808080808080

// special has the high bit of the first byte of eight that is a quote, a backslash or a control character, and no other
// bit below it: with its second bit flipped a quote is below 0x21, and so are the control characters but no other; x < n is
// where (x-n)&^x has its high bit, and no byte below the first such has it wrongly.
func special(w uint64) uint64 {
	flip, slash := w^0x02*ones, w^'\\'*ones
	return ((flip-0x21*ones)&^flip | (slash-ones)&^slash) & highs
}

// stringEnd returns where the string that begins at i, after its quote, has its closing quote; -1: it is none.
func stringEnd(b []byte, i int) (end int, escaped bool) {
	for i < len(b) {
		for len(b)-i >= 8 {
			if hit := special(binary.LittleEndian.Uint64(b[i:])); hit != 0 {
				i += bits.TrailingZeros64(hit) >> 3
				break
			}
			i += 8
		}
		if i == len(b) {
			break
		}
		switch c := b[i]; {
		case c == '"':
			return i, escaped
		case c < ' ':
			return -1, false
		case c != '\\':
			i++
			continue
		}
		escaped = true
		if i+1 >= len(b) {
			return -1, false
		}
		switch b[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			if i+6 > len(b) {
				return -1, false
			}
			for _, c := range b[i+2 : i+6] {
				if hex(c) < 0 {
					return -1, false
				}
			}
			i += 6
		default:
			return -1, false
		}
	}
	return -1, false
}

func hex(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c && c <= 'f':
		return rune(c - 'a' + 10)
	case 'A' <= c && c <= 'F':
		return rune(c - 'A' + 10)
	}
	return -1
}

// numberEnd returns where the number at i ends; -1: it is none.
func numberEnd(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	from := i
	if i = digitsEnd(b, i); i == from || i > from+1 && b[from] == '0' {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		from = i + 1
		if i = digitsEnd(b, from); i == from {
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from = i
		if i = digitsEnd(b, from); i == from {
			return -1
		}
	}
	return i
}

func digitsEnd(b []byte, i int) int {
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i
}

func (v *Values) raw(i int) []byte { return v.text[v.at[i].from:v.at[i].end] }

// Kind is the kind of the i-th path's value.
func (v *Values) Kind(i int) Kind { return v.at[i].kind }

// Append appends the characters of the i-th value, a string, or its digits, a number's, to dst.
func (v *Values) Append(i int, dst []byte) []byte {
	if v.at[i].escaped {
		return unescape(dst, v.raw(i))
	}
	return append(dst, v.raw(i)...)
}

// Len is the length of what Append appends at most.
func (v *Values) Len(i int) int { return int(v.at[i].end - v.at[i].from) }

// Plain returns what Append appends without copying it, and false where the string has escapes: then use Append.
func (v *Values) Plain(i int) ([]byte, bool) { return v.raw(i), !v.at[i].escaped }

// HasPrefix reports whether the i-th value is a string that begins with prefix, which has ten characters at most.
func (v *Values) HasPrefix(i int, prefix string) bool {
	switch raw := v.raw(i); {
	case v.at[i].kind != String:
		return false
	case v.at[i].escaped:
		var room [64]byte // six for each character
		return hasPrefix(unescape(room[:0], raw[:min(len(raw), len(room))]), prefix)
	default:
		return hasPrefix(raw, prefix)
	}
}

// Int returns the i-th value where it is a whole number from 0 to 999,999,999, written without a point or an exponent.
func (v *Values) Int(i int) (int, bool) {
	if v.at[i].kind != Number {
		return 0, false
	}
	return digits(v.raw(i))
}

// Float returns the i-th value where it is a number.
func (v *Values) Float(i int) (float64, bool) {
	raw := v.raw(i)
	if v.at[i].kind != Number || len(raw) > 400 {
		return 0, false
	}
	// A number of few digits, as backoff in seconds is, is an integer over a power of ten, both exact.
	var n uint64
	point, exact := 0, len(raw) <= 15
	for i, c := range raw {
		switch {
		case '0' <= c && c <= '9':
			n = n*10 + uint64(c-'0')
		case c == '.':
			point = len(raw) - 1 - i
		default:
			exact = false
		}
	}
	if exact {
		return float64(n) / powers[point], true
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(raw), len(raw)), 64)
	return f, err == nil
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// unescape appends the characters that a valid JSON string stands for; a cut one's last escape may be missing.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		if i+1 >= len(raw) {
			break
		}
		switch c := raw[i+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := point(raw[i:])
			if r < 0 {
				return dst
			}
			i += 6
			if utf16.IsSurrogate(r) {
				if both := utf16.DecodeRune(r, point(raw[i:])); both != utf8.RuneError {
					r = both
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
			continue
		default:
			dst = append(dst, c)
		}
		i += 2
	}
	return dst
}

// point returns the code unit of \uXXXX at the beginning of b; -1: there is none.
func point(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		h := hex(c)
		if h < 0 {
			return -1
		}
		r = r<<4 | h
	}
	return r
}
