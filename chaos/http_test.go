package chaos

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/audit"
	"github.com/tminus-live/tminus/chaos/httprelay"
	"github.com/tminus-live/tminus/chaos/media"
)

// answering is a part of the reference pipeline that answers HTTP.
func answering(name, kind string) Part {
	region, _, _ := strings.Cut(name, "/")
	p := Part{Name: name, Kind: kind, Region: region, URL: "http://127.0.0.1:1", Look: "/healthz", Layout: media.ReferenceEvent("final", 2*time.Second), Rungs: []string{"v1080", "v360"}}
	switch kind {
	case PartPlayback:
		p.Asks = func(endpoint string, _ time.Time) Ask {
			if endpoint == "play" || endpoint == "licence" {
				return Ask{Method: "POST", Path: "/" + endpoint, Body: []byte("{}")}
			}
			return Ask{Method: "GET", Path: "/" + endpoint}
		}
	case PartEdge:
		p.Pass = func(time.Time) string { return "/t/token" }
	}
	return p
}

// What a fault breaks is asked for to prove it; what cannot be asked for is refused.
func TestAnswersAreProvenByWhatBreaks(t *testing.T) {
	own := Part{Name: "nginx", Kind: PartService, URL: "http://127.0.0.1:1"}
	now := func() time.Time { return time.Unix(1_800_000_001, 0) }
	for _, c := range []struct {
		name   string
		part   Part
		model  string
		params map[string]string
		asked  string // "": refused,
		why    string // with this in its sentence
	}{
		{"an edge", answering("us-east/edge-1", PartEdge), "status", nil, "GET /t/token/final/v1080/899999998.m4s", ""},
		{"a rung of an edge", answering("us-east/edge-1", PartEdge), "status", map[string]string{"path": "/v360/"}, "GET /t/token/final/v360/899999998.m4s", ""},
		{"an edge's health", answering("us-east/edge-1", PartEdge), "status", map[string]string{"path": "health", "method": "GET"}, "GET /healthz", ""},
		{"some segments of an edge", answering("us-east/edge-1", PartEdge), "status", map[string]string{"path": "8.m4s$"}, "", "GET /t/token/final/v1080/"},
		{"an edge, by what it is asked", answering("us-east/edge-1", PartEdge), "status", map[string]string{"path": "init", "ask": "final/v360/init.mp4"}, "GET /t/token/final/v360/init.mp4", ""},
		{"an edge, by something else", answering("us-east/edge-1", PartEdge), "status", map[string]string{"path": "init", "ask": "/final/v360/media.m3u8"}, "", "GET /t/token/final/v360/media.m3u8"},
		{"an edge that nobody posts to", answering("us-east/edge-1", PartEdge), "status", map[string]string{"method": "POST"}, "", "a playback service alone"},
		{"a playback service", answering("us-east/playback", PartPlayback), "status", nil, "POST /play", ""},
		{"what is posted to it", answering("us-east/playback", PartPlayback), "latency", map[string]string{"method": "POST", "delay": "1s"}, "POST /play", ""},
		{"what is got from it", answering("us-east/playback", PartPlayback), "status", map[string]string{"method": "GET"}, "GET /manifest", ""},
		{"its licences", answering("us-east/playback", PartPlayback), "status", map[string]string{"path": "^/licence"}, "POST /licence", ""},
		{"its bytes", answering("us-east/playback", PartPlayback), "corrupt", nil, "GET /manifest", ""},
		{"nothing of it", answering("us-east/playback", PartPlayback), "status", map[string]string{"path": "^/nothing"}, "", "POST /play, GET /manifest, GET /steering, POST /licence, GET /healthz"},
		{"one's own", own, "status", nil, "GET /", ""},
		{"one's own, and no path to ask for", own, "status", map[string]string{"path": "^/live/"}, "", "ask: /path names another one"},
		{"one's own, by a path", own, "status", map[string]string{"path": "^/live/", "ask": "/live/index.m3u8?x=1"}, "GET /live/index.m3u8?x=1", ""},
		{"one's own that is posted to", own, "status", map[string]string{"method": "POST", "ask": "/"}, "", "a playback service alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay, err := httprelay.Listen(httprelay.Config{Listen: "127.0.0.1:0", Upstream: "127.0.0.1:1", Now: now})
			if err != nil {
				t.Fatal(err)
			}
			defer relay.Close()
			c.part.HTTP = relay
			f := Fault{ID: "http-1", Fail: "http", Model: c.model, Where: c.part.Name, At: Lead, For: 20 * time.Second, Params: c.params}
			cfg := Config{Faults: []Fault{f}, Parts: []Part{c.part}, Now: now}
			_, foreseen := f.Foresee(Anywhere(c.part.Kind, false))
			_, planned := Plan(cfg)
			if err := errors.Join(foreseen, planned); c.asked == "" {
				if !errors.Is(planned, ErrUnsupported) || !strings.Contains(err.Error(), c.why) {
					t.Errorf("%v", err)
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			if f, err = f.Complete(); err != nil {
				t.Fatal(err)
			}
			rule, err := answerRule(f, httprelay.Action{Kind: httprelay.Reset})
			if err != nil {
				t.Fatal(err)
			}
			q, err := provenBy(rule, c.part, questions(c.part, f.Text("ask"), audit.Want{Kind: c.model}, &cfg), now())
			if err != nil {
				t.Fatal(err)
			}
			url, err := q.url(c.part)
			if err != nil {
				t.Fatal(err)
			}
			if got := q.method + " " + strings.TrimPrefix(url(now()), c.part.URL); got != c.asked {
				t.Errorf("it is asked %s, want %s", got, c.asked)
			}
		})
	}
}

// A fault's control depends on nothing that another fault breaks.
func TestNeighboursAreUntroubled(t *testing.T) {
	var all []Part
	for _, name := range []string{"a/edge-1", "a/edge-2", "b/edge-1", "c/edge-1"} {
		all = append(all, answering(name, PartEdge))
	}
	fault := func(id, fail, where string) Fault {
		return Fault{ID: id, Fail: fail, Where: where, At: Lead, For: 20 * time.Second}
	}
	f := fault("http-1", "http", "a/edge-1")
	for _, c := range []struct {
		name   string
		parts  []Part
		others []Fault
		want   string
	}{
		{"another region", all, nil, "b/edge-1"},
		{"a region without troubles", all, []Fault{fault("store-1", "store", "b/origin")}, "c/edge-1"},
		{"the same region, where there is no other", all[:2], nil, "a/edge-2"},
		{"the same region, whose origin is broken too", all[:2], []Fault{fault("store-1", "store", "a/origin")}, ""},
		{"nothing but itself", all[:1], nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := neighbour(all[0], f, &Config{Faults: append(slices.Clone(c.others), f), Parts: c.parts})
			if got.Name != c.want || ok != (c.want != "") {
				t.Errorf("%q, want %q", got.Name, c.want)
			}
		})
	}
}
