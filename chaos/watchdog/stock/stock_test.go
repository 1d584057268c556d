package stock

import "testing"

// On a machine of its own a test runs those of its subtests that were asked for.
func TestChosen(t *testing.T) {
	for _, c := range []struct{ name, pattern, want string }{
		{"TestA", "", "^TestA$"},
		{"TestA", "TestA", "^TestA$"},
		{"TestA", "A/true/http", "^TestA$/true/http"},
		{"TestA/loopback", "TestA/loop", "^TestA$/^loopback$"},
		{"TestA/loopback", "TestA/loop/true/http status", "^TestA$/^loopback$/true/http status"},
		{"TestA", "TestA|TestB/c", "^TestA$"},
		{"TestA/a+b", "", `^TestA$/^a\+b$`},
	} {
		if got := chosen(c.name, c.pattern); got != c.want {
			t.Errorf("%s of %q: %s, want %s", c.name, c.pattern, got, c.want)
		}
	}
}
