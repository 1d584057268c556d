package sessions

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/telemetry/event"
)

// recorder is a sink that keeps everything.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Emit(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) of(k event.Kind) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []event.Event
	for _, e := range r.events {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

func TestOnlyLoopbackIsPlayed(t *testing.T) {
	for _, c := range []struct {
		url string
		ok  bool
	}{
		{"http://127.0.0.1:8080/live.mpd", true},
		{"http://127.99.3.4/x.m3u8", true},
		{"http://localhost/x.m3u8", true},
		{"http://[::1]:80/x", true},
		{"http://[::ffff:127.0.0.1]/x", true},
		{"http://10.0.0.1/x", false},
		{"http://192.0.2.1/x", false},
		{"http://0.0.0.0/x", false},
		{"http://[::]/x", false},
		{"http://[fe80::1]/x", false},
		{"https://198.51.100.7/x", false},
	} {
		_, err := New(Config{Players: 1, Manifest: c.url, Sink: event.Discard})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v", c.url, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("more than one sentence: %q", err)
		}
	}
	for _, u := range []string{"file:///etc/passwd", "127.0.0.1/x", "", "http://"} {
		if _, err := New(Config{Players: 1, Manifest: u, Sink: event.Discard}); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
	if _, err := New(Config{Players: 1, Play: []player.Service{{Region: "a", URL: "http://192.0.2.1:80"}}, Sink: event.Discard}); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("playback service elsewhere: %v", err)
	}
}

// A manifest or a redirect that leads off this machine ends the run; nothing is sent there.
func TestNothingLeadsOffThisMachine(t *testing.T) {
	const elsewhere = "http://192.0.2.1:9"
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) },
		"BaseURL": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(`<MPD type="dynamic" availabilityStartTime="2020-01-01T00:00:00Z" profiles=""><BaseURL>` + elsewhere + `/</BaseURL><Period start="PT0S"><AdaptationSet contentType="video"><SegmentTemplate duration="2" media="$Number$"/><Representation id="v" bandwidth="1"/></AdaptationSet></Period></MPD>`))
		},
		"playlist": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" + elsewhere + "/a.ts\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(h)
			defer srv.Close()
			sink := &recorder{}
			c, err := New(Config{Players: 2, Manifest: srv.URL + "/x", Sink: sink})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.Run(ctx); !errors.Is(err, ErrNotLoopback) || !strings.Contains(err.Error(), "192.0.2.1") {
				t.Errorf("got %v", err)
			}
			if ctx.Err() != nil {
				t.Error("it took the whole time")
			}
			if n := len(sink.of(event.SessionEnd)); n > 2 || n == 0 {
				t.Errorf("%d session_end", n)
			}
		})
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	err := Config{Players: -1, Spread: -1}.Validate()
	for _, want := range []string{"-1 players", "playback services or a manifest", "no sink", "spread"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestArrivalsAreSpreadAndSeeded(t *testing.T) {
	start := time.Unix(0, 0)
	a, b, c := arrivals(1, 100, start, 10*time.Second), arrivals(1, 100, start, 10*time.Second), arrivals(2, 100, start, 10*time.Second)
	same := true
	for i := range a {
		slot := start.Add(time.Duration(i) * 100 * time.Millisecond)
		if a[i].Before(slot) || a[i].After(slot.Add(100*time.Millisecond)) || !a[i].Equal(b[i]) {
			t.Errorf("arrival %d at %s", i, a[i].Sub(start))
		}
		same = same && a[i].Equal(c[i])
	}
	if same {
		t.Error("the seed changes nothing")
	}
}

func TestPlayersLiveWhereTheirViewersDo(t *testing.T) {
	play := []player.Service{{Region: "east", URL: "http://127.0.1.5"}, {Region: "west", URL: "http://127.0.2.5"}}
	c, err := New(Config{Players: 3, Play: play, Sink: event.Discard, Viewer: func(i int) Viewer {
		if i == 2 {
			return Viewer{ID: "me", Home: "west", Device: "tv", Format: player.HLS}
		}
		return Viewer{}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"east", "west", "west"} {
		pc := c.player(i)
		if pc.Region != want || pc.Services[0].Region != want || len(pc.Services) != 2 {
			t.Errorf("player %d: %+v", i, pc)
		}
	}
	if pc := c.player(2); pc.Viewer != "me" || pc.Format != player.HLS || pc.Device != "tv" {
		t.Errorf("%+v", pc)
	}
}
