package playback

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/playback/steering"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

var testKey = []byte("0123456789abcdef")

var testStream = manifest.Stream{
	Event: "final", Timeline: timeline.Default, First: 1000, DVR: time.Minute,
	Renditions: []manifest.Rendition{
		{ID: "v360", Kind: manifest.Video, Codecs: "avc1.64001e", Bandwidth: 800_000, Timescale: 90000, Width: 640, Height: 360, FrameRate: "30"},
		{ID: "v540", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 1_600_000, Timescale: 90000, Width: 960, Height: 540, FrameRate: "30"},
		{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001f", Bandwidth: 3_000_000, Timescale: 90000, Width: 1280, Height: 720, FrameRate: "30"},
		{ID: "v1080", Kind: manifest.Video, Codecs: "avc1.640028", Bandwidth: 6_000_000, Timescale: 90000, Width: 1920, Height: 1080, FrameRate: "30"},
		{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 128_000, Timescale: 48000, Language: "en", SampleHz: 48000, Channels: 2},
	},
	Edges: []manifest.Edge{
		{ID: "us-east-1", Region: "us-east", URL: "http://127.0.1.11:8080"}, {ID: "us-east-2", Region: "us-east", URL: "http://127.0.1.12:8080"},
		{ID: "us-west-1", Region: "us-west", URL: "http://127.0.2.11:8080"}, {ID: "us-west-2", Region: "us-west", URL: "http://127.0.2.12:8080"},
	},
}

var now = time.Unix(1_800_000_000, 0)

func newService(t testing.TB, change func(*Config)) *Service {
	t.Helper()
	cfg := Config{
		Stream: testStream, Region: "us-east", URL: "http://127.0.1.5:8080", Key: testKey, Now: func() time.Time { return now },
		Probe: func(context.Context, manifest.Edge) error { return nil },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answer is what a player reads from a play start.
type answer struct {
	Session     string
	Manifests   struct{ DASH, HLS string }
	Steering    []string
	Licence     string
	Bookmark    *struct{ PositionSeconds int }
	RetryPolicy struct {
		MaxRetries        int
		RetryAfterSeconds float64
	}
	Error string
}

func play(t testing.TB, s *Service, at time.Time, body string) (answer, int) {
	t.Helper()
	raw, status := s.Play(nil, at, []byte(body))
	var a answer
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("the answer is not what a player reads: %v: %s", err, raw)
	}
	return a, status
}

func TestAPlayStart(t *testing.T) {
	s := newService(t, nil)
	a, status := play(t, s, now, `{"title":"final","device":"tv","viewer":"v-1","region":"us-west","token":"x"}`)
	if status != 200 || len(a.Session) != sessionChars || a.RetryPolicy.MaxRetries != 3 || a.RetryPolicy.RetryAfterSeconds < 1 || a.RetryPolicy.RetryAfterSeconds > 2 {
		t.Errorf("%d %+v", status, a)
	}
	base := "http://127.0.1.5:8080/v1/sessions/" + a.Session
	if a.Manifests.DASH != base+"/manifest.mpd" || a.Manifests.HLS != base+"/master.m3u8" {
		t.Errorf("manifests: %+v", a.Manifests)
	}
	if len(a.Steering) != 4 || !strings.HasPrefix(a.Steering[0], "us-west") || !strings.HasPrefix(a.Steering[3], "us-east") {
		t.Errorf("a viewer from us-west is sent to %v", a.Steering)
	}
	again, _ := play(t, s, now, `{"title":"final","device":"tv","viewer":"v-1","region":"us-west"}`)
	if again.Session == a.Session || !slices.Equal(again.Steering, a.Steering) {
		t.Error("the same viewer's next start must have a session of its own and the same steering")
	}
	if bare, status := play(t, s, now, `{"title":"final"}`); status != 200 || !strings.HasPrefix(bare.Steering[0], "us-east") {
		t.Errorf("a title alone: %d %+v, want the service's own region first", status, bare)
	}
	if _, status := play(t, s, now, `{"title":"final","region":"mars"}`); status != 200 {
		t.Errorf("a region that is not in the topology: %d", status)
	}
}

func TestARefusedPlayStartSaysWhy(t *testing.T) {
	s := newService(t, nil)
	for body, want := range map[string]struct {
		status int
		says   string
	}{
		`{"title":"other"}`:                 {404, `no title "other"`},
		`{"title":"a\"b\u0000"}`:            {404, `no title`},
		``:                                  {400, "not a JSON object"},
		`[]`:                                {400, "not a JSON object"},
		`{}`:                                {400, "no title"},
		`{"title":""}`:                      {400, "no title"},
		`{"title":1}`:                       {400, `"title" is not a string`},
		`{"title":null}`:                    {400, `"title" is not a string`},
		`{"title":"final","Device":"tv"}`:   {400, `"Device" that is not known`},
		`{"title":"final","title":"final"}`: {400, "twice"},
		`{"title":"final"} x`:               {400, "not a JSON object"},
		`{"title":"final",}`:                {400, "not a JSON object"},
		`{"title":"final"`:                  {400, "not a JSON object"},
		`{"title":"` + strings.Repeat("x", 200) + `"}`:        {400, "more than 128 bytes"},
		`{"title":"` + strings.Repeat("x", MaxRequest) + `"}`: {400, "more than 4096 bytes"},
	} {
		if a, status := play(t, s, now, body); status != want.status || !strings.Contains(a.Error, want.says) {
			t.Errorf("%.60s: %d %q, want %d %q", body, status, a.Error, want.status, want.says)
		}
	}
}

func TestAnyRegionAnswersForASession(t *testing.T) {
	east := newService(t, nil)
	west := newService(t, func(c *Config) { c.Region, c.URL = "us-west", "http://127.0.2.5:8080" })
	stranger := newService(t, func(c *Config) { c.Key = []byte("another run's key") })
	a, _ := play(t, east, now, `{"title":"final","device":"phone","viewer":"v-1"}`)
	later := now.Add(time.Hour)
	mpd, err := west.DASH(later, a.Session)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mpd), `"v720"`) || !strings.Contains(string(mpd), `"v540"`) {
		t.Errorf("a phone gets rungs above 540, or not the one at 540:\n%s", mpd)
	}
	if !strings.Contains(string(mpd), "http://127.0.2.5:8080/v1/steering/"+a.Session) {
		t.Errorf("the manifest does not steer by the service that rendered it:\n%s", mpd)
	}
	at := -1
	// The manifest's base URLs stand in steering order, but for the second, which lies in the other region.
	for _, id := range []string{a.Steering[0], a.Steering[2], a.Steering[1], a.Steering[3]} {
		i := strings.Index(string(mpd), `serviceLocation="`+id+`"`)
		if i <= at {
			t.Errorf("%s is out of order (%v) in\n%s", id, a.Steering, mpd)
		}
		at = i
	}
	hls, err := west.HLS(later, a.Session)
	if err != nil || strings.Contains(string(hls), "v720") || !strings.Contains(string(hls), "http://127.0.1.11:8080/final/v540/media.m3u8") {
		t.Errorf("%v\n%s", err, hls)
	}
	st, err := west.Steering(later, a.Session)
	var m steering.Manifest
	if err != nil || json.Unmarshal(st, &m) != nil || !slices.Equal(m.Priority, a.Steering) || m.Version != 1 || m.TTL < 8 || m.TTL > 12 {
		t.Errorf("%v %s, want priority %v", err, st, a.Steering)
	}
	if _, err := stranger.DASH(later, a.Session); !errors.Is(err, ErrSession) {
		t.Errorf("another run takes the session: %v", err)
	}
	if _, err := west.DASH(now.Add(25*time.Hour), a.Session); !errors.Is(err, ErrExpired) {
		t.Errorf("after 25 h: %v", err)
	}
	for i := range a.Session {
		changed := []byte(a.Session)
		changed[i] = "01"[(changed[i]&1)^1]
		if changed[i] == a.Session[i] {
			continue
		}
		if _, err := west.DASH(later, string(changed)); err == nil {
			t.Errorf("changing character %d goes unnoticed", i)
		}
	}
}

func TestDevicesGetWhatTheyCanShow(t *testing.T) {
	s := newService(t, nil)
	for device, tallest := range map[string]string{"phone": "v540", "tablet": "v720", "tv": "v1080", "browser": "v1080", "console": "v1080", "fridge": "v1080"} {
		a, _ := play(t, s, now, `{"title":"final","device":"`+device+`"}`)
		hls, err := s.HLS(now, a.Session)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range []string{"v360", "v540", "v720", "v1080"} {
			if strings.Contains(string(hls), "/"+r+"/") {
				got = r
			}
		}
		if got != tallest {
			t.Errorf("%s gets up to %s, want %s", device, got, tallest)
		}
	}
}

func TestSessionsDoNotRepeat(t *testing.T) {
	seen := map[string]bool{}
	east := newService(t, nil)
	// Restarted within the same second, and the other region's.
	again := newService(t, func(c *Config) { c.Now = func() time.Time { return now.Add(time.Millisecond) } })
	west := newService(t, func(c *Config) { c.Region = "us-west" })
	for range 1000 {
		for _, s := range []*Service{east, again, west} {
			a, _ := play(t, s, now, `{"title":"final","viewer":"v-1","region":"us-east"}`)
			if seen[a.Session] {
				t.Fatal("a session repeats")
			}
			seen[a.Session] = true
		}
	}
}

func TestStartsBeyondTheRateAreShedWithAdvice(t *testing.T) {
	s := newService(t, func(c *Config) { c.Capacity = 100 })
	var ok, shed int
	after := map[int]int{} // by whole seconds
	exact := map[float64]bool{}
	for i := range 1000 { // 1000 starts in one second
		a, status := play(t, s, now.Add(time.Duration(i)*time.Millisecond), `{"title":"final"}`)
		switch status {
		case 200:
			ok++
		case 503:
			shed++
			after[int(a.RetryPolicy.RetryAfterSeconds)]++
			exact[a.RetryPolicy.RetryAfterSeconds] = true
			if a.RetryPolicy.MaxRetries != 3 || a.Session != "" {
				t.Fatalf("%+v", a)
			}
		default:
			t.Fatal(status)
		}
	}
	if ok < 100 || ok > 126 || ok+shed != 1000 {
		t.Errorf("%d of 1000 starts were admitted at 100 a second", ok)
	}
	for seconds, n := range after {
		if seconds < 1 || seconds > 60 || n > shed/4 {
			t.Errorf("the crowd is sent away unevenly: %v", after)
		}
	}
	if len(exact) < shed/2 {
		t.Errorf("%d viewers share %d instants to come back at", shed, len(exact))
	}
}

// gate is a client that never sends the end of its request.
type gate struct{ opened chan struct{} }

func (g gate) Read([]byte) (int, error) { <-g.opened; return 0, io.EOF }

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t, func(c *Config) { c.MaxConcurrent = 2 })
		g := gate{make(chan struct{})}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, playPath, g))
			})
		}
		synctest.Wait()
		w := post(s, `{"title":"final"}`)
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 503 || a.RetryPolicy.MaxRetries != 3 || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third at once: %d %s", w.Code, w.Body)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Error("shed without CORS: a web page could not read the advice")
		}
		if w := httptest.NewRecorder(); true {
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			if w.Code != 200 {
				t.Errorf("a busy service is not a dead one: /healthz %d", w.Code)
			}
		}
		close(g.opened)
		wg.Wait()
		if w := post(s, `{"title":"final"}`); w.Code != 200 {
			t.Errorf("afterwards: %d", w.Code)
		}
	})
}

func post(s *Service, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, playPath, strings.NewReader(body)))
	return w
}

func TestHTTP(t *testing.T) {
	s := newService(t, nil)
	a, _ := play(t, s, now, `{"title":"final"}`)
	for _, c := range []struct {
		method, path, body string
		status             int
		kind               string
	}{
		{"POST", playPath, `{"title":"final"}`, 200, "application/json"},
		{"POST", playPath, `{"title":"none"}`, 404, "application/json"},
		{"POST", playPath, `{`, 400, "application/json"},
		{"POST", playPath, strings.Repeat(" ", MaxRequest+1), 413, "application/json"},
		{"GET", playPath, "", 405, "application/json"},
		{"OPTIONS", playPath, "", 204, ""},
		{"GET", "/v1/sessions/" + a.Session + "/manifest.mpd", "", 200, "application/dash+xml"},
		{"GET", "/v1/sessions/" + a.Session + "/master.m3u8", "", 200, "application/vnd.apple.mpegurl"},
		{"GET", "/v1/sessions/" + a.Session + "/other", "", 404, "application/json"},
		{"GET", "/v1/sessions/nobody/manifest.mpd", "", 404, "application/json"},
		{"DELETE", "/v1/sessions/" + a.Session, "", 405, "application/json"},
		{"GET", "/v1/steering/" + a.Session + "?_DASH_pathway=us-east-1", "", 200, "application/json"},
		{"GET", "/v1/steering/nobody", "", 404, "application/json"},
		{"GET", "/", "", 404, "application/json"},
	} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || w.Header().Get("Content-Type") != c.kind || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s %s: %d %v %s", c.method, c.path, w.Code, w.Header(), w.Body)
		}
	}
}

func TestProbesMoveViewersAwayAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		dead := map[string]bool{}
		events := make(chan event.Event, 100)
		s := newService(t, func(c *Config) {
			c.Now = time.Now
			c.Sink = sink(events)
			c.Probe = func(ctx context.Context, e manifest.Edge) error {
				mu.Lock()
				d := dead[e.Region]
				mu.Unlock()
				if d { // silent, not refusing
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		first := func() string {
			a, _ := play(t, s, time.Now(), `{"title":"final","viewer":"v","region":"us-east"}`)
			return a.Steering[0][:7]
		}
		set := func(region string, is bool) { mu.Lock(); dead[region] = is; mu.Unlock() }
		time.Sleep(2050 * time.Millisecond) // never at the moment of a probe
		if first() != "us-east" {
			t.Error("all is well, but the home region is not first")
		}
		set("us-east", true)
		time.Sleep(400 * time.Millisecond)
		if first() != "us-east" {
			t.Error("one slow probe must not move everybody")
		}
		time.Sleep(1100 * time.Millisecond)
		if first() != "us-west" {
			t.Error("the home region has been silent for 1.5 s, and viewers are still sent there")
		}
		set("us-east", false)
		time.Sleep(2 * time.Second)
		if first() != "us-east" {
			t.Error("the home region is back for 2 s, and viewers are not")
		}
		stop()
		<-ended
		close(events)
		var told []string
		for e := range events {
			if e.Kind == event.RegionHealth {
				told = append(told, e.Region+"/"+e.Edge+" "+e.Status)
			}
		}
		want := []string{"us-east/us-east-1 down", "us-east/us-east-2 down", "us-east/ down", "us-east/us-east-1 up", "us-east/us-east-2 up", "us-east/ up"}
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

type sink chan event.Event

func (s sink) Emit(e event.Event) {
	select {
	case s <- e:
	default:
	}
}

func TestStatsEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan event.Event, 10)
		s := newService(t, func(c *Config) { c.Now, c.Sink = time.Now, sink(events) })
		ctx, stop := context.WithCancel(t.Context())
		defer func() { stop(); synctest.Wait() }()
		go s.Run(ctx)
		post(s, `{"title":"final"}`)
		post(s, `{"title":"none"}`)
		post(s, `{`)
		e := <-events
		for k, v := range map[string]float64{"requests": 3, "started": 1, "unknown": 1, "bad": 1, "shed": 0, "in_flight_max": 1, "edges_up": 4, "edges": 4} {
			if got, ok := e.Nums[k]; !ok || got != v {
				t.Errorf("%s is %v, want %v", k, got, v)
			}
		}
		if e.Kind != event.PlaybackStats || e.Component != "playback/us-east" {
			t.Errorf("%+v", e)
		}
	})
}

// What is taken is taken as any JSON reader takes it.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		`{"title":"final","device":"tv","viewer":"v-1","region":"us-west","token":"x","kind":"vod"}`, ` { "title" : "a\u00e9\n" } `, `{"title":"é"}`, `{"title":"a\"b"}`,
		`{"title":"\ud800"}`, `{"title":"x","title":"y"}`, `{"title":"x"}{`, `{"title":null}`, "{\"title\":\"\xff\"}", `{"titl\u0065":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseRequest(slices.Clone(body))
		if err != nil {
			return
		}
		var want struct{ Title, Device, Viewer, Region, Token, Kind string }
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.DisallowUnknownFields()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q is taken, but %v", body, err)
		}
		if string(got.title) != want.Title || string(got.device) != want.Device || string(got.viewer) != want.Viewer || string(got.region) != want.Region || string(got.token) != want.Token || string(got.kind) != want.Kind {
			t.Fatalf("%q is taken as %q, want %q", body, got, want)
		}
	})
}

func FuzzSession(f *testing.F) {
	s := NewSessions(testKey, "final")
	f.Add("", uint32(0), uint32(0), uint8(0))
	f.Add(strings.Repeat("0", 40), uint32(1), uint32(2), uint8(3))
	f.Add(string(s.Append(nil, Session{Device: TV, Home: 1, Issued: now, Nonce: 7})), uint32(1), uint32(2), uint8(255))
	f.Fuzz(func(t *testing.T, id string, viewer, nonce uint32, small uint8) {
		if v, err := s.Parse(id, now); err == nil && string(s.Append(nil, v)) != id {
			t.Fatalf("%q is taken as %+v, which is %q", id, v, s.Append(nil, v))
		}
		want := Session{Device: Device(small % 16), Home: int(small), Issuer: int(small ^ 1), Viewer: viewer, Issued: now.UTC(), Nonce: nonce}
		if got, err := s.Parse(string(s.Append(nil, want)), now); err != nil || got != want {
			t.Fatalf("%+v comes back as %+v, %v", want, got, err)
		}
	})
}

func BenchmarkPlay(b *testing.B) {
	s := newService(b, nil)
	body := []byte(`{"title":"final","device":"tv","viewer":"viewer-000000001","region":"us-west","token":"abcdefgh"}`)
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		var status int
		if out, status = s.Play(out[:0], now, body); status != 200 {
			b.Fatal(status)
		}
	}
}

// BenchmarkPlayHTTP is a play start over a socket, client included: what net/http leaves of BenchmarkPlay.
func BenchmarkPlayHTTP(b *testing.B) {
	s := newService(b, nil)
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	body := `{"title":"final","device":"tv","viewer":"viewer-000000001","region":"us-west","token":"abcdefgh"}`
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Post(server.URL+playPath, "application/json", strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Error(resp.Status)
				return
			}
		}
	})
}
