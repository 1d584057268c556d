package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/tminus-live/tminus/reference/manifest"
	"github.com/tminus-live/tminus/reference/timeline"
	"github.com/tminus-live/tminus/simulator/player"
	"github.com/tminus-live/tminus/telemetry/event"
)

// pipeline is two regions of the reference pipeline's surface, each on a server of its own: play starts, manifests and
// CMAF segments made on the spot.
type pipeline struct {
	stream manifest.Stream
	silent [2]atomic.Bool // an edge that takes requests and never answers
	wrong  atomic.Bool    // the first edge serves the segment before the one asked for
	edges  [2]*httptest.Server
	plays  [2]*httptest.Server
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	p := &pipeline{stream: manifest.Stream{Event: "ev", Timeline: timeline.Default, First: timeline.Default.At(time.Now()) - 30, DVR: time.Minute,
		Renditions: []manifest.Rendition{
			{ID: "v360", Kind: manifest.Video, Codecs: "avc1.4D401E", Bandwidth: 600_000, Timescale: 90_000, Width: 640, Height: 360, FrameRate: "30"},
			{ID: "v720", Kind: manifest.Video, Codecs: "avc1.64001F", Bandwidth: 2_000_000, Timescale: 90_000, Width: 1280, Height: 720, FrameRate: "30"},
			{ID: "a-en", Kind: manifest.Audio, Codecs: "mp4a.40.2", Bandwidth: 96_000, Timescale: 48_000, Language: "en", SampleHz: 48_000, Channels: 2},
		}}}
	for i, region := range []string{"us-east", "us-west"} {
		p.edges[i] = httptest.NewServer(p.edge(t, i))
		p.plays[i] = httptest.NewServer(p.play(i))
		t.Cleanup(p.edges[i].Close)
		t.Cleanup(p.plays[i].Close)
		p.stream.Edges = append(p.stream.Edges, manifest.Edge{ID: region + "-1", Region: region, URL: p.edges[i].URL})
	}
	return p
}

func (p *pipeline) services() []player.Service {
	return []player.Service{{Region: "us-east", URL: p.plays[0].URL}, {Region: "us-west", URL: p.plays[1].URL}}
}

func (p *pipeline) play(region int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/play", func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Title, Viewer string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Title != "ev" || q.Viewer == "" {
			http.Error(w, "bad play request", http.StatusBadRequest)
			return
		}
		base := p.plays[region].URL + "/v1/sessions/s-" + q.Viewer
		_ = json.NewEncoder(w).Encode(map[string]any{"session": "s-" + q.Viewer, "steering": []string{"us-east-1", "us-west-1"},
			"manifests": map[string]string{"dash": base + "/manifest.mpd", "hls": base + "/master.m3u8"}, "retryPolicy": map[string]any{"maxRetries": 3, "retryAfterSeconds": 1}})
	})
	mux.HandleFunc("GET /v1/sessions/{session}/manifest.mpd", func(w http.ResponseWriter, r *http.Request) {
		b, err := manifest.DASH(p.stream, manifest.Options{})
		p.send(w, b, err)
	})
	mux.HandleFunc("GET /v1/sessions/{session}/master.m3u8", func(w http.ResponseWriter, r *http.Request) {
		b, err := manifest.HLSMaster(p.stream, manifest.Options{})
		p.send(w, b, err)
	})
	return mux
}

func (p *pipeline) send(w http.ResponseWriter, b []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}

func (p *pipeline) edge(t *testing.T, region int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ev/{rendition}/{name}", func(w http.ResponseWriter, r *http.Request) {
		if p.silent[region].Load() {
			<-r.Context().Done()
			return
		}
		rendition, name, now := r.PathValue("rendition"), r.PathValue("name"), time.Now()
		info, ok := p.stream.Rendition(rendition)
		if !ok {
			http.NotFound(w, r)
			return
		}
		switch {
		case name == "media.m3u8":
			b, err := manifest.HLSMedia(p.stream, rendition, now, manifest.Options{})
			p.send(w, b, err)
		case name == "init.mp4":
			init := mp4.CreateEmptyInit()
			init.AddEmptyTrack(info.Timescale, info.Kind, "und")
			var b bytes.Buffer
			p.send(w, nil, init.Encode(&b))
			_, _ = w.Write(b.Bytes())
		default:
			n, err := strconv.ParseUint(strings.TrimSuffix(name, ".m4s"), 10, 64)
			if due := p.stream.Timeline.End(n).Add(150 * time.Millisecond); err != nil || now.Before(due) {
				w.Header().Set("Tminus-Max-Age-Ms", strconv.FormatInt(time.Until(due).Milliseconds(), 10))
				http.NotFound(w, r)
				return
			}
			if region == 0 && p.wrong.Load() {
				n -= 5
			}
			_, _ = w.Write(cmaf(t, info, p.stream.Timeline.DecodeTime(n, info.Timescale)))
		}
	})
	return mux
}

// cmaf makes one 2 s segment of the rendition's bitrate.
func cmaf(t *testing.T, info manifest.Rendition, decode uint64) []byte {
	f, err := mp4.CreateFragment(1, 1)
	if err != nil {
		t.Error(err)
		return nil
	}
	s := mp4.NewMediaSegment()
	s.AddFragment(f)
	const samples = 20
	data := make([]byte, info.Bandwidth*2/8/samples)
	for i := range uint64(samples) {
		d := info.Timescale * 2 / samples
		f.AddFullSample(mp4.FullSample{Sample: mp4.Sample{Dur: d, Size: uint32(len(data)), Flags: mp4.SyncSampleFlags}, DecodeTime: decode + i*uint64(d), Data: data})
	}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

// A region falls silent under eight viewers, four of DASH and four of HLS: nobody's picture stops.
func TestARegionFallsSilent(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: takes 14 s of real time")
	}
	p := newPipeline(t)
	sink := &recorder{}
	crowd, err := New(Config{Players: 8, Seed: 7, Play: p.services(), Title: "ev", Sink: sink, Spread: time.Second, End: time.Now().Add(14 * time.Second),
		Viewer: func(i int) Viewer {
			return Viewer{Device: "tv", Home: []string{"us-east", "us-west"}[i%2], Format: []string{player.DASH, player.HLS}[i/4]}
		}})
	if err != nil {
		t.Fatal(err)
	}
	if s := crowd.Snapshot(); s.Waiting != 8 || s.OnAir() != 0 {
		t.Errorf("before: %+v", s)
	}
	time.AfterFunc(5*time.Second, func() {
		if s := crowd.Snapshot(); s.Playing != 8 || s.OnAir() != 8 || s.BitrateKbps < 600 || s.StartupP95 == 0 {
			t.Errorf("in the middle: %+v", s)
		}
		p.silent[0].Store(true)
	})
	if err := crowd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.silent[0].Store(false)
	for _, e := range sink.of(event.Rebuffer) {
		t.Errorf("%s stalled for %.0f ms", e.Session, e.Value)
	}
	for _, e := range sink.of(event.SessionEnd) {
		if e.Status != "ok" || e.PlayingMS < 12_000 || e.Nums["wrong"] > 0 || e.Nums["gaps"] > 0 || !strings.HasPrefix(e.Session, "viewer-") {
			t.Errorf("%s: %s %+v", e.Session, e.Status, e.Nums)
		}
	}
	moved := map[string]bool{}
	for _, e := range sink.of(event.EdgeSwitch) {
		if e.Edge == "us-west-1" && e.Region == "us-west" {
			moved[e.Session] = true
		}
	}
	s := crowd.Snapshot()
	if len(moved) != 8 || s.Ended != 8 || s.EdgeSwitches < 8 {
		t.Errorf("%d viewers moved to the other region; %+v", len(moved), s)
	}
	for _, e := range sink.of(event.Heartbeat) {
		if e.State == "playing" && (e.LatencyMS < 5500 || e.LatencyMS > 9000) {
			t.Errorf("latency %.0f ms", e.LatencyMS)
		}
	}
}

// The home region's playback service is gone, an edge serves the wrong segments, and the run is stopped in the middle:
// viewers start at the other region, play the other edge's segments, and say goodbye.
func TestWrongBytesAndAnEarlyEnd(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.plays[0].Close()
	sink := &recorder{}
	crowd, err := New(Config{Players: 2, Seed: 7, Play: p.services(), Title: "ev", Sink: sink, Viewer: func(int) Viewer { return Viewer{Home: "us-east"} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(500*time.Millisecond, func() { p.wrong.Store(true) })
	time.AfterFunc(4*time.Second, cancel)
	if err := crowd.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for _, e := range sink.of(event.PlayStart) {
		if e.Status != "ok" || e.Region != "us-west" || e.Attempts != 2 {
			t.Errorf("play start %+v", e)
		}
	}
	wrong := 0
	for _, e := range sink.of(event.FetchFailed) {
		if strings.Contains(e.Detail, "wrong segment: its media is -10s") && e.Edge == "us-east-1" {
			wrong++
		}
	}
	ends := sink.of(event.SessionEnd)
	if wrong < 2 || len(ends) != 2 {
		t.Fatalf("%d wrong segments, %d goodbyes", wrong, len(ends))
	}
	for _, e := range ends {
		if e.Status != "ok" || e.Detail != "the run was stopped" || e.RebufferMS > 0 || e.PlayingMS < 3000 {
			t.Errorf("%+v", e)
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		junk := bytes.Repeat([]byte("x"), 1<<20)
		for {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	sink := &recorder{}
	crowd, err := New(Config{Players: 1, Manifest: srv.URL, Sink: sink, Tuning: player.Tuning{StartTimeout: 2 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	if err := crowd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := sink.of(event.FetchFailed)
	if len(failed) == 0 || !strings.Contains(failed[0].Detail, fmt.Sprint("longer than ", 4<<20)) {
		t.Errorf("%+v", failed)
	}
	if s := crowd.Snapshot(); s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}
