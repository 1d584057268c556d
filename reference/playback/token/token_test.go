package token_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/playback/token"
)

var now = time.Unix(1_800_000_000, 0)

func ring(t testing.TB, event string, keys ...token.Key) *token.Ring {
	t.Helper()
	if keys == nil {
		keys = []token.Key{{ID: 1, Secret: []byte("0123456789abcdef")}}
	}
	r, err := token.NewRing(event, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestATokenIsGoodUntilItExpires(t *testing.T) {
	r := ring(t, "final")
	text := string(r.Append(nil, 42, now.Add(time.Hour)))
	if len(text) != token.Chars || strings.ContainsAny(text, "+/=") {
		t.Errorf("%q does not go into a path", text)
	}
	for _, c := range []struct {
		after time.Duration
		want  error
	}{{0, nil}, {time.Hour, nil}, {time.Hour + time.Second, token.ErrExpired}, {-time.Hour, nil}} {
		subject, expires, err := r.Verify(text, now.Add(c.after))
		if !errors.Is(err, c.want) || subject != 42 || !expires.Equal(now.Add(time.Hour)) {
			t.Errorf("after %v: %v %v %v, want %v", c.after, subject, expires, err, c.want)
		}
	}
}

func TestNothingElseIsGood(t *testing.T) {
	r := ring(t, "final")
	text := string(r.Append(nil, 42, now.Add(time.Hour)))
	gate := token.NewGate(r)
	for range 2 { // before and after the good one is known
		for i := range text {
			changed := []byte(text)
			changed[i] ^= 1
			if err := gate.Check(string(changed), now); !errors.Is(err, token.ErrToken) {
				t.Errorf("character %d changed: %v", i, err)
			}
		}
		for _, other := range []string{"", "x", text + "A", text[:35], strings.ToUpper(text), text[:35] + "\n"} {
			if err := gate.Check(other, now); !errors.Is(err, token.ErrToken) {
				t.Errorf("%q: %v", other, err)
			}
		}
		if err := gate.Check(text, now); err != nil {
			t.Error(err)
		}
	}
	if err := gate.Check(text, now.Add(2*time.Hour)); !errors.Is(err, token.ErrExpired) {
		t.Errorf("known and expired: %v", err)
	}
	for what, stranger := range map[string]*token.Ring{
		"another event": ring(t, "semifinal"), "another key": ring(t, "final", token.Key{ID: 1, Secret: []byte("another run's key")}),
		"another id": ring(t, "final", token.Key{ID: 2, Secret: []byte("0123456789abcdef")}),
	} {
		if _, _, err := stranger.Verify(text, now); !errors.Is(err, token.ErrToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeysCanBeChanged(t *testing.T) {
	old, fresh := token.Key{ID: 1, Secret: []byte("0123456789abcdef")}, token.Key{ID: 2, Secret: []byte("fedcba9876543210")}
	text := string(ring(t, "final", old).Append(nil, 1, now))
	both := ring(t, "final", fresh, old)
	if _, _, err := both.Verify(text, now); err != nil {
		t.Errorf("signed with the old key: %v", err)
	}
	if _, _, err := ring(t, "final", fresh).Verify(string(both.Append(nil, 1, now)), now); err != nil {
		t.Errorf("the first key does not sign: %v", err)
	}
	for _, wrong := range [][]token.Key{nil, {{ID: 1, Secret: []byte("short")}}, {old, old}} {
		if _, err := token.NewRing("final", wrong...); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
}

func TestCut(t *testing.T) {
	for path, want := range map[string][3]string{
		"/t/abc/final/v1/7.m4s": {"abc", "/final/v1/7.m4s", "y"}, "/final/v1/7.m4s": {"", "/final/v1/7.m4s", ""},
		"/t/abc": {"abc", "", "y"}, "/t/": {"", "", "y"}, "/t//x": {"", "/x", "y"}, "/table/x": {"", "/table/x", ""},
	} {
		if tok, rest, ok := token.Cut(path); tok != want[0] || rest != want[1] || ok != (want[2] == "y") {
			t.Errorf("%s is %q %q %v", path, tok, rest, ok)
		}
	}
}

func FuzzVerify(f *testing.F) {
	r := ring(f, "final")
	f.Add(string(r.Append(nil, 7, now)), uint64(7), int64(0))
	f.Add("", uint64(0), int64(-1))
	f.Add(strings.Repeat("\n", token.Chars), uint64(0), int64(1<<40))
	f.Fuzz(func(t *testing.T, text string, subject uint64, seconds int64) {
		if s, end, err := r.Verify(text, now); err == nil && string(r.Append(nil, s, end)) != text {
			t.Fatalf("%q is taken and is not what was signed", text)
		}
		if s, _, err := r.Verify(string(r.Append(nil, subject, time.Unix(seconds, 0))), time.Unix(0, 0)); err != nil || s != subject {
			t.Fatalf("%d comes back as %d, %v", subject, s, err)
		}
	})
}

func BenchmarkGate(b *testing.B) {
	r := ring(b, "final")
	gate := token.NewGate(r)
	text := string(r.Append(nil, 7, now))
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if gate.Check(text, now) != nil {
				b.Fatal()
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Verify(text, now) //nolint:errcheck // it is good
		}
	})
}
