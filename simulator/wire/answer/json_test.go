package answer

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

const good = `{"session":"s-1","manifests":{"dash":"http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd","hls":"http://127.0.1.5:8080/v1/sessions/s-1/master.m3u8"},"steering":["us-east-1","us-east-2"],"licence":"http://127.0.1.5:8080/v1/licence","bookmark":{"positionSeconds":1234.5},"retryPolicy":{"maxRetries":3,"retryAfterSeconds":1.25}}`

func compile(t testing.TB, paths ...string) *Paths {
	t.Helper()
	p, err := CompilePaths(paths...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPaths(t *testing.T) {
	paths := []string{"session", "manifests.dash", "retryPolicy", "$.retryPolicy.maxRetries", `["retryPolicy"]['retryAfterSeconds']`, "steering[1]", "steering.0", "nowhere.session"}
	p := compile(t, paths...)
	out := p.Values()
	if !p.Read([]byte(good), out) {
		t.Fatal("not JSON")
	}
	for i, want := range []string{"s-1", "http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd", "", "3", "1.25", "us-east-2", "us-east-1", ""} {
		if got := string(out.Append(i, nil)); want != "" && got != want {
			t.Errorf("%s: %q, want %q", paths[i], got, want)
		}
	}
	if n, ok := out.Int(3); !ok || n != 3 {
		t.Error(n, ok)
	}
	if x, ok := out.Float(4); !ok || x != 1.25 {
		t.Error(x, ok)
	}
	if out.Kind(2) != Object || out.Kind(7) != Absent {
		t.Error(out.Kind(2), out.Kind(7))
	}
	if _, ok := out.Int(0); ok {
		t.Error("a string is no number")
	}
}

func TestValues(t *testing.T) {
	p := compile(t, "v")
	out := p.Values()
	for text, want := range map[string]any{
		`1`: 1.0, `-0.5e-3`: -0.5e-3, `1e300`: 1e300, `123456789012345`: 123456789012345.0, `0.1`: 0.1, `9007199254740993`: 9007199254740992.0,
		`"a\"\\\/\b\f\n\r\tz"`: "a\"\\/\b\f\n\r\tz", `"\u00e9\ud83d\ude00\ud83dx"`: "é😀\ufffdx", `"http:\/\/a"`: "http://a",
	} {
		if !p.Read([]byte(`{"v":`+text+`}`), out) {
			t.Errorf("%s: not JSON", text)
			continue
		}
		switch want := want.(type) {
		case float64:
			if got, ok := out.Float(0); !ok || got != want {
				t.Errorf("%s: %v %v", text, got, ok)
			}
		case string:
			if got := string(out.Append(0, nil)); got != want {
				t.Errorf("%s: %q", text, got)
			}
		}
	}
	if p.Read([]byte(`{"v":"http:\/\/a"}`), out); !out.HasPrefix(0, "http://") || out.HasPrefix(0, "https://") {
		t.Error("prefix of an escaped string")
	}
	if p.Read([]byte(`{"\u0076":"x"}`), out); string(out.Append(0, nil)) != "x" {
		t.Error("an escaped key is a key")
	}
	if p.Read([]byte(`{"v":1e400}`), out); out.Kind(0) != Number {
		t.Error(out.Kind(0))
	} else if _, ok := out.Float(0); ok {
		t.Error("a number beyond all bounds")
	}
	if p.Read([]byte(strings.Repeat("[", 1<<20)), out) {
		t.Error("a nest without end")
	}
}

func TestBadPaths(t *testing.T) {
	for _, path := range []string{"", "$", ".", "a..b", "a.", "a[", "a[x]", `a["b]`, "$a", strings.Repeat("a.", 60) + "a"} {
		if path == "" || path == "$" {
			if _, err := CompilePaths(path); err != nil && path == "$" {
				t.Errorf("%q is the whole text: %v", path, err)
			}
			continue
		}
		if _, err := CompilePaths(path); err == nil {
			t.Errorf("%q: no error", path)
		}
	}
	if _, err := CompilePaths("a.b", "$.a['b']"); err == nil {
		t.Error("one path twice: no error")
	}
}

// Paths accepts what encoding/json accepts, and finds what that finds.
func FuzzPaths(f *testing.F) {
	for _, s := range []string{good, `{"a":{"b":[1,{"c":"\u0041\ud800"}]}}`, `[]`, `{"a":{"b":[null,{"c":-1.5e+7}]},"a":7}`, `"x`, `01`, `{"a":{},}`, "\"\x7f\x1f\"", ` true `} {
		f.Add([]byte(s))
	}
	p, err := CompilePaths("session", "a.b[1].c", "a", "retryPolicy.maxRetries")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		out := p.Values()
		got, want := p.Read(text, out), json.Valid(text)
		if got != want && !(want && depth(text) >= MaxDepth) {
			t.Fatalf("%q: %v, encoding/json says %v", text, got, want)
		}
		if !got || !utf8.Valid(text) {
			return
		}
		var all any
		if err := json.Unmarshal(text, &all); err != nil {
			return // a number out of range
		}
		m, _ := all.(map[string]any)
		if n := strings.Count(string(text), `"a"`) + strings.Count(string(text), `\u`) + strings.Count(string(text), `"session"`); n > 2 {
			return // a key given twice: the values merge in another order
		}
		check(t, "session", out, 0, m["session"])
	})
}

func check(t *testing.T, path string, v *Values, i int, want any) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if v.Kind(i) != Absent && v.Kind(i) != Null {
			t.Errorf("%s: %v %q, want nothing", path, v.Kind(i), v.raw(i))
		}
	case string:
		if s := string(v.Append(i, nil)); v.Kind(i) != String || s != want {
			t.Errorf("%s: %v %q, want %q", path, v.Kind(i), s, want)
		}
	case float64:
		if x, ok := v.Float(i); !ok || x != want {
			t.Errorf("%s: %v, want %v", path, x, want)
		}
	case bool:
		if v.Kind(i) != Bool || string(v.raw(i)) != strconv.FormatBool(want) {
			t.Errorf("%s: %v %q", path, v.Kind(i), v.raw(i))
		}
	default:
		if kind := map[reflect.Kind]Kind{reflect.Map: Object, reflect.Slice: Array}[reflect.TypeOf(want).Kind()]; v.Kind(i) != kind {
			t.Errorf("%s: %v, want %v", path, v.Kind(i), kind)
		}
	}
}

func depth(text []byte) (most int) {
	now := 0
	for _, c := range text {
		switch c {
		case '[', '{':
			now++
			most = max(most, now)
		case ']', '}':
			now--
		}
	}
	return most
}

func TestReadDoesNotAllocate(t *testing.T) {
	p := compile(t, "session", "manifests.dash", "manifests.hls", "retryPolicy.retryAfterSeconds")
	out := p.Values()
	text := []byte(strings.ReplaceAll(good, "/v1", `\/v1`))
	buf := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() {
		p.Read(text, out)
		buf = out.Append(1, buf[:0])
		out.HasPrefix(1, "http://")
		out.Float(3)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Short cuts change no result: what is read after another text is what is read alone.
func FuzzMemo(f *testing.F) {
	f.Add([]byte(good), uint16(12), byte('"'), uint16(200), byte('\\'), uint16(3), byte('x'))
	f.Add([]byte(good), uint16(12), byte('7'), uint16(320), byte('7'), uint16(14), byte(0x1f))
	f.Add([]byte(`{"session":"#\"abc","n":[10,0.25,-7,1e5],"retryPolicy":{"maxRetries":12}}`), uint16(30), byte('0'), uint16(33), byte('9'), uint16(12), byte('#'))
	f.Add([]byte(`1234567890`), uint16(0), byte('0'), uint16(5), byte('.'), uint16(9), byte('e'))
	p, err := CompilePaths("session", "a.b[1].c", "a", "retryPolicy.maxRetries", "manifests.dash")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, at1 uint16, c1 byte, at2 uint16, c2 byte, at3 uint16, c3 byte) {
		if len(text) == 0 {
			return
		}
		first := bytes.Clone(text)
		used, alone := p.Values(), p.Values()
		p.Read(text, used)
		text[int(at1)%len(text)] = c1
		text[int(at2)%len(text)] = c2
		text[int(at3)%len(text)] = c3
		for _, next := range [][]byte{text, first, text} {
			if got, want := p.Read(next, used), p.scan(next, alone.at); got != want || got && !slices.Equal(used.at, alone.at) {
				t.Fatalf("%q after %q: %v %v, alone %v %v", next, first, got, used.at, want, alone.at)
			}
		}
	})
}

// The short cut is taken by answers that differ in names and numbers alone, and by no others.
func TestMemo(t *testing.T) {
	p := compile(t, "session", "retryPolicy.retryAfterSeconds")
	v := p.Values()
	if !p.Read([]byte(good), v) {
		t.Fatal("not JSON")
	}
	m := &v.memos[len(good)%memos]
	for text, want := range map[string]bool{
		good:                                           true,
		strings.ReplaceAll(good, "s-1", "x_9"):         true,
		strings.Replace(good, "1.25", "9.07", 1):       true,
		strings.Replace(good, "1234.5", "9876.0", 1):   true,
		strings.Replace(good, "1234.5", "0234.5", 1):   false, // no number
		strings.Replace(good, "1.25", "1e25", 1):       false,
		strings.Replace(good, "1.25", "true", 1):       false,
		strings.ReplaceAll(good, "s-1", `s\"`):         false,
		strings.ReplaceAll(good, "s-1", "s\n1"):        false,
		strings.ReplaceAll(good, "session", "sessiom"): false,
		good[1:]: false,
	} {
		if got := m.matches([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	p.Read([]byte(strings.ReplaceAll(good, "s-1", "x_9")), v)
	if got := string(v.Append(0, nil)); got != "x_9" {
		t.Error(got)
	}
}

func BenchmarkPaths(b *testing.B) {
	p := compile(b, "session", "manifests.dash", "manifests.hls", "retryPolicy", "retryPolicy.maxRetries", "retryPolicy.retryAfterSeconds")
	out := p.Values()
	texts := [][]byte{[]byte(good), []byte(strings.ReplaceAll(good, "s-1", "x_9"))}
	b.Run("alike", func(b *testing.B) {
		b.SetBytes(int64(len(good)))
		for i := 0; b.Loop(); i++ {
			if !p.Read(texts[i%2], out) {
				b.Fatal("not JSON")
			}
		}
	})
	b.Run("any", func(b *testing.B) {
		b.SetBytes(int64(len(good)))
		for i := 0; b.Loop(); i++ {
			if !p.scan(texts[i%2], out.at) {
				b.Fatal("not JSON")
			}
		}
	})
}
