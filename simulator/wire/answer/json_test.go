package answer

import (
	"encoding/json"
	"reflect"
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
	out := make([]Value, len(paths))
	if !compile(t, paths...).Read([]byte(good), out) {
		t.Fatal("not JSON")
	}
	for i, want := range []string{"s-1", "http://127.0.1.5:8080/v1/sessions/s-1/manifest.mpd", "", "3", "1.25", "us-east-2", "us-east-1", ""} {
		if got := string(out[i].Append(nil)); want != "" && got != want {
			t.Errorf("%s: %q, want %q", paths[i], got, want)
		}
	}
	if n, ok := out[3].Int(); !ok || n != 3 {
		t.Error(n, ok)
	}
	if x, ok := out[4].Float(); !ok || x != 1.25 {
		t.Error(x, ok)
	}
	if out[2].Kind != Object || out[7].Kind != Absent {
		t.Error(out[2].Kind, out[7].Kind)
	}
	if _, ok := out[0].Int(); ok {
		t.Error("a string is no number")
	}
}

func TestValues(t *testing.T) {
	p := compile(t, "v")
	out := make([]Value, 1)
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
			if got, ok := out[0].Float(); !ok || got != want {
				t.Errorf("%s: %v %v", text, got, ok)
			}
		case string:
			if got := string(out[0].Append(nil)); got != want {
				t.Errorf("%s: %q", text, got)
			}
		}
	}
	if p.Read([]byte(`{"v":"http:\/\/a"}`), out); !out[0].HasPrefix("http://") || out[0].HasPrefix("https://") {
		t.Error("prefix of an escaped string")
	}
	if p.Read([]byte(`{"\u0076":"x"}`), out); string(out[0].Append(nil)) != "x" {
		t.Error("an escaped key is a key")
	}
	if p.Read([]byte(`{"v":1e400}`), out); out[0].Kind != Number {
		t.Error(out[0].Kind)
	} else if _, ok := out[0].Float(); ok {
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
		out := make([]Value, 4)
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
		check(t, "session", out[0], m["session"])
	})
}

func check(t *testing.T, path string, got Value, want any) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if got.Kind != Absent && got.Kind != Null {
			t.Errorf("%s: %v %q, want nothing", path, got.Kind, got.raw)
		}
	case string:
		if s := string(got.Append(nil)); got.Kind != String || s != want {
			t.Errorf("%s: %v %q, want %q", path, got.Kind, s, want)
		}
	case float64:
		if x, ok := got.Float(); !ok || x != want {
			t.Errorf("%s: %v, want %v", path, x, want)
		}
	case bool:
		if got.Kind != Bool || string(got.raw) != strconv.FormatBool(want) {
			t.Errorf("%s: %v %q", path, got.Kind, got.raw)
		}
	default:
		if kind := map[reflect.Kind]Kind{reflect.Map: Object, reflect.Slice: Array}[reflect.TypeOf(want).Kind()]; got.Kind != kind {
			t.Errorf("%s: %v, want %v", path, got.Kind, kind)
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
	out := make([]Value, 4)
	text := []byte(strings.ReplaceAll(good, "/v1", `\/v1`))
	buf := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() {
		p.Read(text, out)
		buf = out[1].Append(buf[:0])
		out[1].HasPrefix("http://")
		out[3].Float()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPaths(b *testing.B) {
	p := compile(b, "session", "manifests.dash", "manifests.hls", "retryPolicy", "retryPolicy.maxRetries", "retryPolicy.retryAfterSeconds")
	out := make([]Value, 6)
	text := []byte(good)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if !p.Read(text, out) {
			b.Fatal("not JSON")
		}
	}
}
