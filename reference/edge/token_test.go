package edge

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/playback/token"
)

// Every viewer has a token of its own, and all share one object; without a good one there is nothing.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := token.NewRing("final", token.Key{ID: 1, Secret: []byte("0123456789abcdef")})
		if err != nil {
			t.Fatal(err)
		}
		e, n := newEdge(t, func(c *Config) { c.Tokens = token.NewGate(ring) })
		pass := func(viewer uint64) string {
			return string(ring.Append([]byte(token.Prefix), viewer, time.Now().Add(time.Minute)))
		}
		path := e.path(1)
		for viewer, how := range []string{miss, hit, hit} {
			if w := get(e, pass(uint64(viewer))+path); w.Code != 200 || w.Body.String() != "from east" || w.Header().Get("X-Cache") != how {
				t.Errorf("viewer %d: %d %q %s, want %s", viewer, w.Code, w.Body, w.Header().Get("X-Cache"), how)
			}
		}
		if east, west := n.counts(); east != 1 || west != 0 {
			t.Errorf("three tokens made %d and %d fills", east, west)
		}
		if len(n.paths) != 1 || n.paths[0] != path {
			t.Errorf("the origin was asked for %q", n.paths)
		}
		old := pass(7)
		forged := []byte(pass(8))
		forged[20] ^= 1
		for what, p := range map[string]string{"none": path, "forged": string(forged) + path, "cut": old[:20] + path, "no path": old, "prefix alone": "/t/" + path} {
			w := get(e, p)
			want := 403
			if what == "no path" {
				want = 404
			}
			if w.Code != want || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: %d %v", what, w.Code, w.Header())
			}
		}
		if w := get(e, old+path); w.Code != 200 {
			t.Errorf("before it expires: %d", w.Code)
		}
		time.Sleep(62 * time.Second)
		if w := get(e, old+e.path(1)); w.Code != 403 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("expired: %d %v", w.Code, w.Header())
		}
		for _, open := range []string{"/time", pass(1) + "/time"} {
			if w := get(e, open); w.Code != 200 {
				t.Errorf("%s: %d", open, w.Code)
			}
		}
		e.cfg.Bare = true
		if w := get(e, e.path(1)); w.Code != 200 {
			t.Errorf("bare paths are allowed, but %d", w.Code)
		}
		if w := get(e, old+e.path(1)); w.Code != 403 {
			t.Errorf("bare paths are allowed, expired tokens are not, but %d", w.Code)
		}
	})
}
