package pipeline_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/defect/orders"
	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// bench is a small pipeline of two regions, and the hand that breaks it.
type bench struct {
	*testing.T
	c      pipeline.Config
	stream manifest.Stream
	east   pipeline.RegionConfig
}

// lease is short, so that a test sees what happens when nobody renews it.
const lease = 1500 * time.Millisecond

// order sends one order to the region's playback service.
func (b bench) order(method, id, body string) (int, string) {
	b.Helper()
	path := orders.Path + "/" + id
	req, err := http.NewRequest(method, b.east.PlaybackURL()+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set(orders.Header, orders.Sign(b.c.Key, method, path, []byte(body)))
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

// breaks keeps a defect in force while seen is called, again and again, until it is true; then nobody renews its lease, and back has to
// come true: it was true before, too.
func (b bench) breaks(part, kind, params string, seen, back func() bool) {
	b.Helper()
	eventually(b.T, kind+": all is well before", back)
	body := fmt.Sprintf(`{"part":%q,"kind":%q,"params":{%s},"lease_ms":%d}`, part, kind, params, lease.Milliseconds())
	if status, answer := b.order("PUT", kind, body); status != 201 {
		b.Fatalf("%s: %d %s", kind, status, answer)
	}
	ctx, stop := context.WithCancel(context.Background())
	var renewing sync.WaitGroup
	renewing.Go(func() {
		tick := time.NewTicker(lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if status, answer := b.order("PUT", kind, body); status != 200 {
					b.Errorf("%s: renewed: %d %s", kind, status, answer)
				}
			}
		}
	})
	eventually(b.T, kind+" is seen from outside", seen)
	stop()
	renewing.Wait()
	eventually(b.T, kind+" ends by itself", func() bool {
		_, _, list := fetch(b.T, b.east.PlaybackURL()+orders.Path)
		return string(list) == `{"defects":[]}`+"\n"
	})
	eventually(b.T, kind+": all is well after", back)
}

// path is that of a segment so many before the one that is being captured now.
func (b bench) path(rendition string, ago uint64) string {
	return fmt.Sprintf("/%s/%s/%d.m4s", b.c.Event, rendition, b.stream.Timeline.At(time.Now())-ago)
}

// ask is fetch where it may fail.
func ask(url string) (status int, h http.Header, body []byte, took time.Duration) {
	began := time.Now()
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, nil, time.Since(began)
	}
	defer resp.Body.Close()
	body, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, time.Since(began)
}

// is is a condition that holds ten times in a row.
func is(ok func() bool) func() bool {
	return func() bool {
		for range 10 {
			if !ok() {
				return false
			}
		}
		return true
	}
}

// off is how far a component's clock is ahead, as its /time and its Date say.
func off(url string) (full, seconds time.Duration) {
	_, h, body, _ := ask(url + "/time")
	now := time.Now()
	at, _ := time.Parse(time.RFC3339Nano, string(body))
	date, _ := http.ParseTime(h.Get("Date"))
	return at.Sub(now), date.Sub(now)
}

func near(d, want time.Duration) bool {
	return d > want-500*time.Millisecond && d < want+500*time.Millisecond
}

// mdat is the media of a segment.
func mdat(segment []byte) []byte {
	if i := bytes.Index(segment, []byte("mdat")); i >= 0 {
		return segment[i:]
	}
	return nil
}

func start2(t *testing.T) bench {
	c := liveConfig(t)
	c.LeadIn = 3
	c.First -= 10
	c.Regions = pipeline.Regions(c.Regions[0].Port, []string{"us-east", "us-west"}, map[string]int{"us-east": 2, "us-west": 1})
	east, _ := start(t, c, 0, event.Discard)
	west, _ := start(t, c, 1, event.Discard)
	ready(t, east, west)
	stream, err := c.Stream()
	if err != nil {
		t.Fatal(err)
	}
	return bench{t, c, stream, c.Regions[0]}
}

// Every kind of defect, on a real pipeline: it is ordered, it is seen from outside, it ends by itself when its lease is not renewed,
// and everything is as before.
func TestEveryDefectIsSeenAndEndsByItself(t *testing.T) {
	if testing.Short() {
		t.Skip("runs on the wall clock for a minute")
	}
	b := start2(t)
	east, west := b.east, b.c.Regions[1]
	edge1, edge2 := east.EdgeURL(1), east.EdgeURL(2)
	under := func(name string, test func(b bench)) {
		t.Run(name, func(t *testing.T) { b := b; b.T = t; test(b) })
	}
	status := func(url string) int { s, _, _, _ := ask(url); return s }

	under("encoder-restart", func(b bench) {
		made := func(ago uint64) bool { return status(east.PackagerURL()+b.path("v360", ago)) == 200 }
		b.breaks("us-east/encoder", "encoder-restart", "", func() bool {
			// The other region's is served meanwhile, by the broken region's own edge.
			_, h, _, _ := ask(edge1 + b.path("v360", 1))
			return !made(1) && h.Get("Tminus-Pipeline") == "us-west"
		}, func() bool { return made(1) })
	})
	under("encoder-frozen", func(b bench) {
		same := func(rendition string) bool {
			_, _, old, _ := ask(east.PackagerURL() + b.path(rendition, 2))
			_, _, young, _ := ask(east.PackagerURL() + b.path(rendition, 1))
			return old != nil && bytes.Equal(mdat(old), mdat(young)) && !bytes.Equal(old, young)
		}
		differ := func() bool { return status(east.PackagerURL()+b.path("v720", 1)) == 200 && !same("v720") }
		b.breaks("us-east/encoder", "encoder-frozen", `"rendition":"v720"`, func() bool { return same("v720") && !same("v360") && !same("a-en") }, differ)
	})
	for _, part := range []string{"packager", "origin", "playback", "edge-1"} {
		under("clock of "+part, func(b bench) {
			addr, _ := east.Component(part)
			url := "http://" + addr.String()
			b.breaks("us-east/"+part, "clock", `"offset_ms":-30000`, func() bool {
				full, seconds := off(url)
				other, _ := off(edge2)
				return near(full, -30*time.Second) && seconds < -29*time.Second && seconds > -32*time.Second && near(other, 0)
			}, func() bool { full, seconds := off(url); return near(full, 0) && near(seconds, -500*time.Millisecond) })
		})
	}
	for name, params := range map[string]string{"ahead": `"offset_ms":7000`, "behind": `"offset_ms":-3000`} {
		under("clock of the encoder "+name, func(b bench) {
			// When a segment is there tells the encoder's time.
			lag := func(ago uint64) bool { return status(east.PackagerURL()+b.path("v360", ago)) == 200 }
			b.breaks("us-east/encoder", "clock", params, func() bool {
				if name == "ahead" {
					return status(east.PackagerURL()+fmt.Sprintf("/%s/v360/%d.m4s", b.c.Event, b.stream.Timeline.At(time.Now())+2)) == 200
				}
				return !lag(1) && lag(3)
			}, func() bool {
				_, h, _, _ := ask(east.OriginURL() + b.path("v360", 1))
				return lag(1) && strings.HasPrefix(h.Get("Tminus-Candidates"), "us-east")
			})
		})
	}
	under("store-latency", func(b bench) {
		took := func() time.Duration { _, _, _, d := ask(east.OriginURL() + b.path("v360", 1)); return d }
		b.breaks("us-east/origin", "store-latency", `"delay_ms":600,"on":"read"`, is(func() bool { return took() > 550*time.Millisecond }), is(func() bool { return took() < 300*time.Millisecond }))
	})
	under("store-throttle", func(b bench) {
		_, _, segment, _ := ask(east.OriginURL() + b.path("v720", 2))
		took := func() time.Duration { _, _, _, d := ask(east.OriginURL() + b.path("v720", 2)); return d }
		rate := len(segment) * 8 // a second for a segment
		b.breaks("us-east/origin", "store-throttle", fmt.Sprintf(`"bits_per_s":%d,"on":"read"`, rate), func() bool { return took() > 800*time.Millisecond }, is(func() bool { return took() < 300*time.Millisecond }))
	})
	under("store-failure", func(b bench) {
		fails := func() bool { return status(east.OriginURL()+b.path("v360", 1)) == 500 }
		b.breaks("us-east/origin", "store-failure", `"on":"read"`, func() bool {
			return fails() && status(edge2+b.path("v540", 1)) == 200 // from the other region
		}, is(func() bool { return status(east.OriginURL()+b.path("v360", 1)) == 200 }))
	})
	under("publish-failure", func(b bench) {
		candidates := func() string {
			_, h, _, _ := ask(east.OriginURL() + b.path("v360", 1))
			return h.Get("Tminus-Candidates")
		}
		b.breaks("us-east/packager", "publish-failure", `"origin":"us-east"`, func() bool {
			_, h, _, _ := ask(west.OriginURL() + b.path("v360", 1))
			return candidates() == "us-west" && h.Get("Tminus-Candidates") == "us-east,us-west"
		}, func() bool {
			// What was missed is made good.
			_, h, _, _ := ask(east.OriginURL() + b.path("v360", 3))
			return candidates() == "us-east,us-west" && h.Get("Tminus-Candidates") == "us-east,us-west"
		})
	})
	under("cache-wipe", func(b bench) {
		how := func(url string) string { _, h, _, _ := ask(url + b.path("v540", 3)); return h.Get("X-Cache") }
		hits := func() bool { how(edge1); return is(func() bool { return how(edge1) == "HIT" })() }
		b.breaks("us-east/edge-1", "cache-wipe", `"every_ms":50`, func() bool {
			time.Sleep(60 * time.Millisecond)
			return how(edge1) == "MISS"
		}, hits)
	})
	under("edge-overload", func(b bench) {
		at := func(url string) (ok, refused int) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					s, h, _, _ := ask(url + b.path("v360", 3))
					mu.Lock()
					defer mu.Unlock()
					if s == 200 {
						ok++
					} else if s == 503 && h.Get("Retry-After") != "" {
						refused++
					}
				})
			}
			wg.Wait()
			return ok, refused
		}
		b.breaks("us-east/edge-1", "edge-overload", `"slots":2,"service_ms":500`, func() bool {
			ok, refused := at(edge1)
			other, _ := at(edge2)
			return ok == 2 && refused == 6 && other == 8 && status(edge1+"/healthz") == 200
		}, func() bool { ok, _ := at(edge1); return ok == 8 })
	})
	under("steering-gone", func(b bench) {
		p := play(b.T, east.PlaybackURL(), `{"title":"first-light"}`)
		url := east.PlaybackURL() + "/v1/steering/" + p.Session
		b.breaks("us-east/playback", "steering-gone", `"status":0`, func() bool {
			return status(url) == 0 && status(p.Manifests.HLS) == 200 // the connection is dropped
		}, func() bool { return status(url) == 200 })
	})
	begin := func() (status int, took time.Duration) {
		began := time.Now()
		resp, err := client.Post(east.PlaybackURL()+"/v1/play", "application/json", strings.NewReader(`{"title":"first-light"}`))
		if err != nil {
			return 0, time.Since(began)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, time.Since(began)
	}
	quick := is(func() bool { s, took := begin(); return s == 200 && took < 300*time.Millisecond })
	under("playback-slow", func(b bench) {
		b.breaks("us-east/playback", "playback-slow", `"delay_ms":500,"share":0.5,"endpoint":"play","seed":7`, func() bool {
			slow := make(chan int, 40)
			var wg sync.WaitGroup
			for range cap(slow) {
				wg.Go(func() {
					if s, took := begin(); s == 200 && took > 450*time.Millisecond {
						slow <- 1
					}
				})
			}
			wg.Wait()
			return len(slow) >= 12 && len(slow) <= 28
		}, quick)
	})
	under("playback-error", func(b bench) {
		b.breaks("us-east/playback", "playback-error", `"share":0.5,"status":502,"seed":7`, func() bool {
			count := map[int]int{}
			for range 100 {
				s, _ := begin()
				count[s]++
			}
			return count[502] > 30 && count[200] > 30 && count[200]+count[502] == 100
		}, quick)
	})
}

// A play start that is made to wait for longer than its request may take to come in is answered all the same.
func TestASlowPlayStartIsAnswered(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for longer than a real time-out")
	}
	b := start2(t)
	if status, answer := b.order("PUT", "d", `{"part":"us-east/playback","kind":"playback-slow","params":{"delay_ms":6000},"lease_ms":10000}`); status != 201 {
		t.Fatal(answer)
	}
	conn, err := net.Dial("tcp", b.east.PlaybackAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	const body = `{"title":"first-light"}`
	fmt.Fprintf(conn, "POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body))
	time.Sleep(100 * time.Millisecond) // in a packet of its own
	began := time.Now()
	io.WriteString(conn, body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if took := time.Since(began); resp.StatusCode != 200 || took < 5500*time.Millisecond {
		t.Errorf("%d after %s", resp.StatusCode, took)
	}
}

// Whoever is held up when a defect is ended by order goes on at once.
func TestAnEndedDefectLetsGo(t *testing.T) {
	if testing.Short() {
		t.Skip("runs on the wall clock for some seconds")
	}
	b := start2(t)
	for _, d := range [][3]string{
		{"us-east/playback", `"playback-slow","params":{"delay_ms":8000}`, b.east.PlaybackURL() + "/v1/steering/x"},
		{"us-east/origin", `"store-latency","params":{"delay_ms":8000,"on":"read"}`, b.east.OriginURL() + b.path("v360", 2)},
		{"us-east/edge-1", `"edge-overload","params":{"service_ms":8000,"wait_ms":8000}`, b.east.EdgeURL(1) + b.path("v360", 2)},
	} {
		if status, answer := b.order("PUT", "d", fmt.Sprintf(`{"part":%q,"kind":%s,"lease_ms":10000}`, d[0], d[1])); status != 201 {
			t.Fatal(answer)
		}
		var took []time.Duration
		done := make(chan time.Duration, 3)
		for range 3 {
			go func() { _, _, _, d := ask(d[2]); done <- d }()
		}
		select {
		case <-done:
			t.Errorf("%s: nobody waits", d[1])
		case <-time.After(300 * time.Millisecond):
		}
		if status, _ := b.order("DELETE", "d", ""); status != 204 {
			t.Errorf("%s: %d", d[1], status)
		}
		for range 3 {
			took = append(took, <-done)
		}
		if slices.Max(took) > 2*time.Second {
			t.Errorf("%s: whoever waited went on after %s", d[1], took)
		}
	}
	// What is in force can be read by anybody.
	var list struct{ Defects []json.RawMessage }
	_, _, body := fetch(t, b.east.PlaybackURL()+orders.Path)
	if err := json.Unmarshal(body, &list); err != nil || len(list.Defects) != 0 {
		t.Errorf("%s %v", body, err)
	}
}
