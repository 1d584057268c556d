package pipeline_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/reference/pipeline"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/telemetry/event"
)

// freePort is a port that is free at every address of two regions. It lies below those that the system gives to outgoing
// connections: one of these could take it in between.
func freePort(t *testing.T) int {
	t.Helper()
	const from, to = 20000, 32000
	for i := range 100 {
		port := from + (os.Getpid()*37+i*101)%(to-from)
		if free(port) {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func free(port int) bool {
	for _, host := range []string{"127.0.1.3", "127.0.1.4", "127.0.1.5", "127.0.1.11", "127.0.1.12", "127.0.2.3", "127.0.2.4", "127.0.2.5", "127.0.2.11", "127.0.2.12"} {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		ln.Close()
	}
	return true
}

// liveConfig is an event that starts with the segment being captured now.
func liveConfig(t *testing.T) pipeline.Config {
	c := config()
	c.First = timeline.Default.At(time.Now())
	c.Regions = pipeline.Regions(freePort(t), []string{"us-east", "us-west"}, map[string]int{"us-east": 2, "us-west": 2})
	return c
}

// start runs region i of c until the returned function is called, or the test ends.
func start(t *testing.T, c pipeline.Config, i int, sink event.Sink) (region *pipeline.Region, stop func()) {
	t.Helper()
	c.Region = i
	region, err := pipeline.Listen(c, sink, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- region.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("region %d: %v", i, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("region %d does not end", i)
		}
	})
	t.Cleanup(stop)
	return region, stop
}

func ready(t *testing.T, regions ...*pipeline.Region) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for _, r := range regions {
		select {
		case <-r.Ready():
		case <-deadline:
			t.Fatalf("region %s is not ready", r.Config().Here().Name)
		}
	}
}

// eventually waits for a condition, with a deadline.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true: %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

var client = &http.Client{Timeout: 10 * time.Second}

func fetch(t *testing.T, url string) (int, http.Header, []byte) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return 0, nil, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, body
}

type playStart struct {
	Session   string
	Manifests struct{ DASH, HLS string }
	Steering  []string
}

func play(t *testing.T, base, body string) (p playStart) {
	t.Helper()
	resp, err := client.Post(base+"/v1/play", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || resp.StatusCode != 200 {
		t.Fatalf("play start: %d %v", resp.StatusCode, err)
	}
	return p
}

func TestTwoRegionsServeOneStream(t *testing.T) {
	if testing.Short() {
		t.Skip("runs on the wall clock for ten seconds")
	}
	c := liveConfig(t)
	sinks := [2]*sink{new(sink), new(sink)}
	east, stopEast := start(t, c, 0, sinks[0])
	west, _ := start(t, c, 1, sinks[1])
	ready(t, east, west)
	stream, err := c.Stream()
	if err != nil {
		t.Fatal(err)
	}

	// Both kinds of manifest, from every edge, and personalised from every playback service for either's session.
	for _, e := range c.Edges() {
		for path, want := range map[string]string{"/manifest.mpd": "<MPD", "/master.m3u8": "#EXTM3U", "/" + stream.Renditions[0].ID + "/media.m3u8": ".m4s"} {
			eventually(t, e.ID+path, func() bool { // a playlist lists its first segment a moment after that is ready
				status, h, body := fetch(t, e.URL+"/"+c.Event+path)
				return status == 200 && bytes.Contains(body, []byte(want)) && h.Get("Access-Control-Allow-Origin") == "*"
			})
		}
	}
	begun := play(t, c.Regions[0].PlaybackURL(), `{"title":"first-light","device":"phone","viewer":"v-1","region":"us-east"}`)
	for _, r := range c.Regions {
		for _, name := range []string{"/manifest.mpd", "/master.m3u8"} {
			if status, _, body := fetch(t, r.PlaybackURL()+"/v1/sessions/"+begun.Session+name); status != 200 || !bytes.Contains(body, []byte(c.Edges()[3].URL)) {
				t.Errorf("%s %s: %d %.300s", r.Name, name, status, body)
			}
		}
	}

	// Every rendition's segment is the same from every edge and from both packagers.
	n := stream.Timeline.At(time.Now())
	for _, r := range stream.Renditions {
		for _, name := range []string{"init.mp4", strconv.FormatUint(n, 10) + ".m4s"} {
			path := "/" + c.Event + "/" + r.ID + "/" + name
			var made [2][]byte
			eventually(t, "both packagers have "+path, func() bool {
				for i := range made {
					var status int
					if status, _, made[i] = fetch(t, c.Regions[i].PackagerURL()+path); status != 200 {
						return false
					}
				}
				return true
			})
			if !bytes.Equal(made[0], made[1]) || len(made[0]) < 100 {
				t.Errorf("%s: the packagers made %d and %d bytes, or they differ", path, len(made[0]), len(made[1]))
			}
			for _, e := range c.Edges() {
				if status, _, got := fetch(t, e.URL+path); status != 200 || !bytes.Equal(got, made[0]) {
					t.Errorf("%s%s: %d, %d bytes, not the %d that were made", e.URL, path, status, len(got), len(made[0]))
				}
			}
		}
	}

	// The next segment, asked for by 50 viewers before it exists, is filled once and held open until it does.
	next := stream.Timeline.At(time.Now()) + 1
	url := fmt.Sprintf("%s/%s/%s/%d.m4s", c.Edges()[1].URL, c.Event, stream.Renditions[0].ID, next)
	eventually(t, "it is the next one", func() bool { return stream.Timeline.At(time.Now()) >= next })
	how := make(chan string, 50)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			status, h, body := fetch(t, url)
			if status != 200 || len(body) == 0 {
				t.Errorf("held: %d %s", status, body)
			}
			how <- h.Get("X-Cache")
		})
	}
	wg.Wait()
	close(how)
	count := map[string]int{}
	for x := range how {
		count[x]++
	}
	if count["MISS"] != 1 || count["COLLAPSED"] != 49 {
		t.Errorf("50 viewers at once: %v, want 1 MISS and 49 COLLAPSED", count)
	}
	late := time.Since(stream.Timeline.End(next)) // how late depends on what else the machine does
	if t.Logf("50 held viewers had their segment %v after it was due", late); late < 0 {
		t.Error("a segment was there before its last frame")
	}

	// One region ends; the other notices, goes on, and takes its viewers.
	stopEast()
	eventually(t, "viewers of a region that is gone are sent to the other", func() bool {
		p := play(t, c.Regions[1].PlaybackURL(), `{"title":"first-light","viewer":"v-1","region":"us-east"}`)
		return strings.HasPrefix(p.Steering[0], "us-west")
	})
	n = stream.Timeline.At(time.Now())
	for _, e := range c.Regions[1].EdgeList() {
		if status, _, _ := fetch(t, fmt.Sprintf("%s/%s/%s/%d.m4s", e.URL, c.Event, stream.Renditions[1].ID, n)); status != 200 {
			t.Errorf("%s alone: %d", e.ID, status)
		}
	}
	// It comes back, with nothing but its configuration.
	back, _ := start(t, c, 0, event.Discard)
	ready(t, back)
	for i, kinds := range []map[event.Kind]bool{sinks[0].kinds(), sinks[1].kinds()} {
		for _, k := range []event.Kind{event.EdgeStats, event.OriginStats, event.PlaybackStats, event.SegmentPublished} {
			if !kinds[k] {
				t.Errorf("region %d told nothing of kind %s", i, k)
			}
		}
	}
	if !sinks[1].kinds()[event.RegionHealth] {
		t.Error("the surviving region did not tell that the other is down")
	}
}

type sink struct {
	mu   sync.Mutex
	seen map[event.Kind]bool
}

func (s *sink) Emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[event.Kind]bool{}
	}
	s.seen[e.Kind] = true
}

func (s *sink) kinds() map[event.Kind]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[event.Kind]bool{}
	for k := range s.seen {
		out[k] = true
	}
	return out
}

func TestATakenAddressIsNamedAndNothingIsLeftBound(t *testing.T) {
	c := liveConfig(t)
	here := c.Regions[0]
	for what, addr := range map[string]string{
		"packager us-east": here.PackagerAddr().String(), "origin us-east": here.OriginAddr().String(),
		"edge us-east-2": here.EdgeAddr(2).String(), "playback us-east": here.PlaybackAddr().String(),
	} {
		taken, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pipeline.Listen(c, nil, nil)
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s taken: %v", addr, err)
		}
		taken.Close()
	}
	region, err := pipeline.Listen(c, nil, nil)
	if err != nil {
		t.Fatalf("a failed start left something bound: %v", err)
	}
	region.Close()
	region, err = pipeline.Listen(c, nil, nil)
	if err != nil {
		t.Fatalf("a closed region left something bound: %v", err)
	}
	region.Close()
}

// Servers that wait for answers under way wait side by side, however many edges there are.
func TestARegionOfManyEdgesEndsSoon(t *testing.T) {
	c := liveConfig(t)
	c.Regions = pipeline.Regions(c.Regions[0].Port, []string{"us-east"}, map[string]int{"us-east": 16})
	here := c.Regions[0]
	region, stop := start(t, c, 0, event.Discard)
	ready(t, region)
	addrs := []string{here.OriginAddr().String(), here.PlaybackAddr().String()}
	for k := range here.Edges {
		addrs = append(addrs, here.EdgeAddr(k+1).String())
	}
	for _, addr := range addrs { // a body that does not come keeps an answer under way
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the region took %s to end", took)
	}
}

// A client that sends its header, or its body, a byte now and then must not keep a connection for ever.
func TestSlowClientsAreCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for real time-outs")
	}
	c := liveConfig(t)
	start(t, c, 0, event.Discard)
	here := c.Regions[0]
	var wg sync.WaitGroup
	for what, p := range map[string]struct{ addr, sends string }{
		"header": {here.EdgeAddr(1).String(), "GET / HTTP/1.1\r\nHost: x\r\nX: "},
		"body":   {here.PlaybackAddr().String(), "POST /v1/play HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"},
		"huge":   {here.EdgeAddr(2).String(), "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10)},
	} {
		wg.Go(func() {
			conn, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(12 * time.Second))
			io.WriteString(conn, p.sends)
			if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("slow %s: still connected after 12 s", what)
			}
		})
	}
	wg.Wait()
}
