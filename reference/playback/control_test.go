package playback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/playback/admission"
	"github.com/tminus-live/tminus/reference/playback/token"
	"github.com/tminus-live/tminus/telemetry/event"
)

func TestAPlayStartHasALicenceAndABookmark(t *testing.T) {
	s := newService(t, nil)
	a, _ := play(t, s, now, `{"title":"final","viewer":"v-1"}`)
	b, _ := play(t, s, now, `{"title":"final","viewer":"v-1"}`)
	c, _ := play(t, s, now, `{"title":"final","viewer":"v-2"}`)
	if a.Bookmark == nil || *a.Bookmark != *b.Bookmark || *a.Bookmark == *c.Bookmark {
		t.Errorf("bookmarks %v, %v and another viewer's %v", a.Bookmark, b.Bookmark, c.Bookmark)
	}
	path, ok := strings.CutPrefix(a.Licence, "http://127.0.1.5:8080")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if !ok || w.Code != 200 || w.Body.String() != `{"keys":[],"type":"temporary"}` {
		t.Errorf("licence %s: %d %s", a.Licence, w.Code, w.Body)
	}
	if w = httptest.NewRecorder(); true {
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path+"x", nil))
		if w.Code != 404 {
			t.Errorf("a licence for no session: %d", w.Code)
		}
	}
}

func TestKindsOfPlayStarts(t *testing.T) {
	s := newService(t, nil)
	for kind, want := range map[string]int{"": 200, "live": 200, "catchup": 200, "vod": 200, "prefetch": 200, "Live": 400, "x": 400} {
		if _, status := play(t, s, now, `{"title":"final","kind":"`+kind+`"}`); status != want {
			t.Errorf("%q: %d, want %d", kind, status, want)
		}
	}
	order(t, s, `{"lever":"live-only","pull":true}`, 200)
	for kind, want := range map[string]int{"live": 200, "catchup": 503, "vod": 503, "prefetch": 503} {
		if _, status := play(t, s, now, `{"title":"final","kind":"`+kind+`"}`); status != want {
			t.Errorf("live only, %q: %d, want %d", kind, status, want)
		}
	}
}

// order sends an operator's order and returns the state.
func order(t *testing.T, s *Service, body string, want int) (state admission.State) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", OperatorPath, strings.NewReader(body))
	r.Header.Set(OperatorHeader, SignOrder(testKey, []byte(body)))
	s.Handler().ServeHTTP(w, r)
	if w.Code != want {
		t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, want)
	}
	if want == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &state); err != nil {
			t.Error(err)
		}
	}
	return state
}

func TestLeversAct(t *testing.T) {
	s := newService(t, nil)
	a, _ := play(t, s, now, `{"title":"final","device":"phone"}`)
	tallest := func() (top string) {
		t.Helper()
		mpd, err := s.DASH(now, a.Session)
		hls, err2 := s.HLS(now, a.Session)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for _, r := range []string{"v360", "v540", "v720", "v1080"} {
			if in := strings.Contains(string(mpd), `"`+r+`"`); in != strings.Contains(string(hls), "/"+r+"/") {
				t.Errorf("%s is in one manifest only", r)
			} else if in {
				top = r
			}
		}
		return top
	}
	if got := tallest(); got != "v540" {
		t.Errorf("a phone gets %s", got)
	}
	order(t, s, `{"lever":"personalisation","pull":true}`, 200)
	if got := tallest(); got != "v1080" {
		t.Errorf("without personalisation a phone gets %s", got)
	}
	order(t, s, `{"lever":"top-rung","pull":true}`, 200)
	if got := tallest(); got != "v720" {
		t.Errorf("without the top rung everybody gets %s", got)
	}
	if a.Bookmark == nil {
		t.Error("no bookmark")
	}
	order(t, s, `{"lever":"bookmarks","pull":true}`, 200)
	if a, _ := play(t, s, now, `{"title":"final"}`); a.Bookmark != nil {
		t.Error("a bookmark, though the lever is pulled")
	}
	state := order(t, s, `{"lever":"bookmarks","pull":false}`, 200)
	if a, _ := play(t, s, now, `{"title":"final"}`); a.Bookmark == nil {
		t.Error("no bookmark, though the lever is kept off")
	}
	want := []admission.LeverState{{Name: "bookmarks", By: "operator", Pull: "off"}, {Name: "personalisation", Engaged: true, By: "operator", Pull: "on"}}
	if len(state.Levers) != admission.Levers || !slices.Equal(state.Levers[:2], want) {
		t.Errorf("state %+v", state.Levers)
	}
}

func TestTheOperatorsInterface(t *testing.T) {
	events := make(chan event.Event, 100)
	s := newService(t, func(c *Config) { c.Sink = sink(events) })
	if state := order(t, s, `{"capacity":20000,"guidedBackoff":false,"evacuate":true}`, 200); state.Capacity != 20000 || state.GuidedBackoff || !state.Evacuating {
		t.Errorf("%+v", state)
	}
	raw, status := s.Play(nil, now, []byte(`{"title":"final"}`))
	if status != 200 || strings.Contains(string(raw), "retryPolicy") {
		t.Errorf("backoff is not guided, but %s", raw)
	}
	for body, want := range map[string]int{
		`{"lever":"bookmarks","pull":"auto"}`: 200, `{}`: 200, `{"lever":"handbrake","pull":true}`: 400, `{"lever":"bookmarks"}`: 400, `{"pull":true}`: 400,
		`{"lever":"bookmarks","pull":"on"}`: 400, `{"capacity":-1}`: 400, `{"capacity":1e300}`: 400, `{"unknown":1}`: 400, `{}{}`: 400, ``: 400, `{"capacity":5,"lever":"x","pull":true}`: 400,
	} {
		order(t, s, body, want)
	}
	if c := s.State().Capacity; c != 20000 {
		t.Errorf("a refused order changed the capacity to %v", c)
	}
	for what, signature := range map[string]string{"none": "", "no hex": "zz", "another key's": SignOrder([]byte("another run's key"), []byte(`{}`)), "another body's": SignOrder(testKey, []byte(`{"evacuate":true}`))} {
		r := httptest.NewRequest("POST", OperatorPath, strings.NewReader(`{}`))
		r.Header.Set(OperatorHeader, signature)
		w := httptest.NewRecorder()
		if s.Handler().ServeHTTP(w, r); w.Code != 403 {
			t.Errorf("signature %s: %d", what, w.Code)
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", OperatorPath, nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"capacity":20000`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	order(t, s, `{"lever":"bookmarks","pull":true}`, 200)
	close(events)
	var told []string
	for e := range events {
		told = append(told, fmt.Sprintf("%s %s %s %s %s %s", e.Kind, e.Status, e.Region, e.Component, e.State, e.Detail))
	}
	for _, want := range []string{
		`operator done us-east playback/us-east  {"capacity":20000,"guidedBackoff":false,"evacuate":true}`,
		`lever engaged us-east playback/us-east operator bookmarks`,
	} {
		if !slices.Contains(told, want) {
			t.Errorf("not told: %s; told: %q", want, told)
		}
	}
}

func TestSessionsCarryTokens(t *testing.T) {
	ring, err := token.NewRing("final", token.Key{ID: 1, Secret: testKey})
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, func(c *Config) { c.Tokens, c.TokenLife = ring, time.Hour })
	a, _ := play(t, s, now, `{"title":"final"}`)
	for name, render := range map[string]func(time.Time, string) ([]byte, error){"dash": s.DASH, "hls": s.HLS} {
		body, err := render(now, a.Session)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := render(now.Add(time.Minute), a.Session)
		if string(again) != string(body) {
			t.Errorf("%s: the same session's manifest differs a minute later", name)
		}
		_, rest, ok := strings.Cut(string(body), "http://127.0.1.11:8080")
		text, path, cut := token.Cut(rest)
		if !ok || !cut || !strings.HasPrefix(path, "/final/") {
			t.Fatalf("%s: no token in\n%s", name, body)
		}
		if _, expires, err := ring.Verify(text, now.Add(time.Hour)); err != nil || !expires.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: %v, expires %v", name, err, expires)
		}
		if _, _, err := ring.Verify(text, now.Add(time.Hour+time.Second)); !errors.Is(err, token.ErrExpired) {
			t.Errorf("%s: after its life: %v", name, err)
		}
	}
}

// Two services tell each other their load; the full one hands starts to the other, whose service and edges go into the answers.
func TestRegionsShareTheirLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		services := map[string]*Service{}
		events := make(chan event.Event, 1000)
		ask := func(_ context.Context, p Peer) (r admission.Report, err error) {
			mu.Lock()
			s := services[p.Region]
			mu.Unlock()
			if s == nil {
				return r, errors.New("nobody there")
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, loadPath, nil))
			return r, unmarshalStrict(w.Body.Bytes(), &r)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for region, other := range map[string]string{"us-east": "us-west", "us-west": "us-east"} {
			s := newService(t, func(c *Config) {
				c.Region, c.URL, c.Now, c.Ask, c.Capacity = region, "http://"+region, time.Now, ask, 1000
				c.Peers = []Peer{{Region: other, URL: "http://" + other}}
				if region == "us-east" {
					c.Sink = sink(events)
				}
			})
			mu.Lock()
			services[region] = s
			mu.Unlock()
			wg.Go(func() { s.Run(ctx) })
		}
		east := services["us-east"]
		offer := func(rate int, d time.Duration) (ok, shed, spilled int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second / time.Duration(rate)) {
				a, status := play(t, east, time.Now(), `{"title":"final","region":"us-east"}`)
				switch {
				case status == 503:
					shed++
				case strings.HasPrefix(a.Manifests.DASH, "http://us-west/v1/sessions/"):
					if ok++; !strings.HasPrefix(a.Steering[0], "us-west") || !strings.HasPrefix(a.Licence, "http://us-west/") {
						t.Fatalf("half handed over: %+v", a)
					}
					spilled++
				default:
					if ok++; !strings.HasPrefix(a.Steering[0], "us-east") {
						t.Fatalf("half kept: %+v", a)
					}
				}
			}
			return
		}
		if _, shed, spilled := offer(500, 2*time.Second); shed+spilled > 0 {
			t.Errorf("at half its capacity: %d shed, %d handed over", shed, spilled)
		}
		offer(1500, 6*time.Second)
		if ok, shed, spilled := offer(1500, 2*time.Second); shed > ok/100 || spilled < ok/4 {
			t.Errorf("at 150 %% of its capacity: %d started, %d shed, %d handed over", ok, shed, spilled)
		}
		order(t, east, `{"evacuate":true,"capacity":0}`, 200)
		offer(100, 6*time.Second)
		if ok, shed, spilled := offer(100, time.Second); spilled != ok || shed > 0 {
			t.Errorf("evacuated: %d started, %d shed, %d handed over", ok, shed, spilled)
		}
		stop()
		wg.Wait()
		close(events)
		told := map[string]int{}
		for e := range events {
			if e.Kind != event.PlaybackStats {
				told[fmt.Sprint(e.Kind, " ", e.Status, " ", e.State)]++
			}
		}
		for _, want := range []string{"spill_over begun load", "lever engaged load", "region_weight moving operator", "region_weight settled operator"} {
			if told[want] == 0 {
				t.Errorf("%q is not told: %v", want, told)
			}
		}
	})
}

// The hot path does not allocate, admitted or shed.
func TestAPlayStartDoesNotAllocate(t *testing.T) {
	if raced {
		t.Skip("pools forget on purpose under the race detector")
	}
	for _, capacity := range []float64{0, 1} {
		s := newService(t, func(c *Config) { c.Capacity = capacity })
		body := []byte(`{"title":"final","device":"tv","viewer":"viewer-000000001","region":"us-west","token":"abcdefgh","kind":"live"}`)
		var out []byte
		for range 100 { // the bucket is empty, the buffers are there
			out, _, _ = s.Answer(out[:0], now, body)
		}
		if n := testing.AllocsPerRun(1000, func() { out, _, _ = s.Answer(out[:0], now, body) }); n > 0 {
			t.Errorf("capacity %v: %v allocations", capacity, n)
		}
	}
}
