package sessions

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tminus-live/tminus/telemetry/event"
)

// live starts an ffmpeg that makes a live stream in a folder, and serves the folder as a plain file server would. The
// last of args is ffmpeg's output. It returns the URL of the file to watch, and how to wait until that is worth watching.
func live(t *testing.T, watch string, args []string) (string, func()) {
	t.Helper()
	bin, err := exec.LookPath("ffmpeg")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ffmpeg is not installed: apt-get install ffmpeg")
		}
		t.Skip("SKIPPED: ffmpeg is not installed, so players were not tried on a stream that somebody else made")
	}
	dir := t.TempDir()
	// Real time, one second of lead, key frames every second so that segments are exact.
	all := append([]string{"-hide_banner", "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=160x90:rate=15",
		"-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", "120",
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "15", "-keyint_min", "15", "-sc_threshold", "0", "-b:v", "100k",
		"-c:a", "aac", "-b:a", "48k", "-threads", "1"}, args...)
	cmd := exec.Command(bin, all...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	return srv.URL + "/" + watch, func() {
		t.Helper()
		deadline := time.After(20 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for segmentsIn(dir) < 4 {
			select {
			case <-exited:
				t.Fatalf("ffmpeg stopped: %s", stderr.String())
			case <-deadline:
				t.Fatalf("no %s from ffmpeg within 20 s: %s", watch, stderr.String())
			case <-tick.C:
			}
		}
	}
}

// segmentsIn counts the segments that a manifest in dir lists or that lie there.
func segmentsIn(dir string) int {
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	files, listed, manifest := 0, 0, false
	for _, n := range names {
		switch filepath.Ext(n) {
		case ".ts", ".m4s":
			if !strings.Contains(n, "init") {
				files++
			}
		case ".m3u8":
			manifest = true
			if b, err := os.ReadFile(n); err == nil {
				listed = max(listed, bytes.Count(b, []byte("#EXTINF")))
			}
		case ".mpd":
			manifest = true
			listed = files / 2 // video and audio
		}
	}
	if !manifest {
		return 0
	}
	return listed
}

func TestPlaysStreamsThatFFmpegMade(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED: takes 15 s of real time")
	}
	hls := func(flags string, more ...string) []string {
		return append([]string{"-f", "hls", "-hls_time", "1", "-hls_list_size", "8", "-hls_flags", flags}, more...)
	}
	fmp4 := []string{"-hls_segment_type", "fmp4"}
	dash := func(timeline string, more ...string) []string {
		return append(append([]string{"-f", "dash", "-seg_duration", "1", "-window_size", "8", "-extra_window_size", "5",
			"-use_template", "1", "-use_timeline", timeline}, more...), "live.mpd")
	}
	cases := map[string]struct {
		watch string
		args  []string
	}{
		"HLS TS":        {"live.m3u8", hls("delete_segments", "-hls_segment_filename", "s%d.ts", "live.m3u8")},
		"HLS TS, dated": {"live.m3u8", hls("delete_segments+program_date_time", "-hls_segment_filename", "s%d.ts", "live.m3u8")},
		"HLS fMP4":      {"live.m3u8", hls("delete_segments", append(fmp4, "-hls_segment_filename", "s%d.m4s", "live.m3u8")...)},
		// Byte ranges of one file. With a window ffmpeg 5.1 forgets to advance EXT-X-MEDIA-SEQUENCE there, so it has none.
		"HLS fMP4 whole": {"live.m3u8", hls("single_file", append(fmp4, "-hls_list_size", "0", "live.m3u8")...)},
		"HLS demuxed": {"master.m3u8", hls("delete_segments", append(fmp4, "-map", "0:v", "-map", "1:a", "-master_pl_name", "master.m3u8",
			"-var_stream_map", "v:0,agroup:aud a:0,agroup:aud,default:yes", "-hls_fmp4_init_filename", "init-%v.mp4",
			"-hls_segment_filename", "s%v-%d.m4s", "v%v.m3u8")...)},
		"DASH by time":   {"live.mpd", dash("1", "-media_seg_name", "c-$RepresentationID$-$Time$.m4s")},
		"DASH by list":   {"live.mpd", dash("1")},
		"DASH by number": {"live.mpd", dash("0")},
	}
	// All at once: what takes time here is the wall clock.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type run struct {
		url   string
		sink  *recorder
		crowd *Crowd
		err   error
	}
	runs := map[string]*run{}
	var waits []func()
	for name, c := range cases {
		url, wait := live(t, c.watch, c.args)
		runs[name] = &run{url: url, sink: &recorder{}}
		waits = append(waits, wait)
	}
	for _, wait := range waits {
		wait()
	}
	var wg sync.WaitGroup
	for _, r := range runs {
		if r.crowd, r.err = New(Config{Players: 3, Seed: 1, Manifest: r.url, Spread: 500 * time.Millisecond, Sink: r.sink}); r.err != nil {
			t.Fatal(r.err)
		}
		wg.Go(func() { r.err = r.crowd.Run(ctx) })
	}
	time.AfterFunc(10*time.Second, cancel)
	wg.Wait()
	for name, r := range runs {
		t.Run(name, func(t *testing.T) {
			if r.err != nil {
				t.Fatal(r.err)
			}
			for _, k := range []event.Kind{event.PlayStart, event.FirstFrame, event.SessionEnd} {
				if n := len(r.sink.of(k)); n != 3 {
					t.Errorf("%d %s events of 3 players", n, k)
				}
			}
			beats := 0
			for _, b := range r.sink.of(event.Heartbeat) {
				if b.State != "playing" {
					continue
				}
				beats++
				if l := b.LatencyMS / 1000; l < 1.5 || l > 8 {
					t.Errorf("latency %.2f s", l)
				}
			}
			if beats < 20 {
				t.Errorf("%d heartbeats of playing viewers in 3 x 9 s", beats)
			}
			for _, e := range r.sink.of(event.SessionEnd) {
				if e.Status != "ok" || e.Nums["wrong"] > 0 || e.Nums["fetched"] < 8 {
					t.Errorf("session %s: %s %s %v", e.Session, e.Status, e.Detail, e.Nums)
				}
			}
			for _, e := range r.sink.of(event.FetchFailed) {
				t.Logf("fetch failed: %s", e.Detail)
			}
			s := r.crowd.Snapshot()
			t.Logf("startup %s, played %s, stalled %s", s.StartupP50, s.PlayingTime, s.RebufferTime)
			if s.RebufferRatio > 0.05 || s.Ended != 3 {
				t.Errorf("snapshot %+v", s)
			}
		})
	}
}
