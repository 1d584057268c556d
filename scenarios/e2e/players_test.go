package e2e

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/scenarios/rehearsal"
)

//go:embed players/page.html
var page embed.FS

// pipelineUp runs `tminus up` until the spec ends and returns its URLs.
func pipelineUp(ctx context.Context, scenario string) rehearsal.URLs {
	GinkgoHelper()
	c := start(GinkgoT().TempDir(), "up", scenario, "--json", "--port", strconv.Itoa(freePort()))
	DeferCleanup(func(ctx context.Context) {
		Expect(c.Process.Signal(syscall.SIGINT)).To(Succeed())
		res := c.wait(ctx)
		Expect(res.status).To(Equal(exitGo), res.stderr)
		Expect(living()).To(BeEmpty())
	}, NodeTimeout(30*time.Second))
	Eventually(ctx, c.stdout.String, "60s", "100ms").Should(HaveSuffix("}\n"))
	return decode[rehearsal.URLs](c.stdout.String())
}

// segmentSums are the SHA-256 sums of count segments of every rendition from one number on, and of the init segments, as
// a packager serves them.
func segmentSums(ctx context.Context, base string, from uint64, count int) map[string]string {
	GinkgoHelper()
	sums := map[string]string{}
	for _, rendition := range []string{"v360", "v540", "v720", "a-en", "a-es"} {
		names := []string{"init.mp4"}
		for i := range count {
			names = append(names, fmt.Sprintf("%d.m4s", from+uint64(i)))
		}
		for _, name := range names {
			url := fmt.Sprintf("%s/%s/%s", base, rendition, name)
			Eventually(ctx, func() (int, error) {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
				if err != nil {
					return 0, err
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return 0, err
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				sums[strings.TrimPrefix(url, base)] = fmt.Sprintf("%x", sha256.Sum256(body))
				return resp.StatusCode, err
			}, "30s", "200ms").Should(Equal(http.StatusOK), url)
		}
	}
	return sums
}

// beat is what one browser player has lived through so far.
type beat struct {
	ID           string   `json:"id"`
	StartedMS    float64  `json:"started_ms"`
	PlayedS      float64  `json:"played_s"`
	LongestStall float64  `json:"longest_stall_ms"`
	StalledMS    float64  `json:"stalled_ms"`
	LiveLatency  float64  `json:"live_latency_s"`
	Height       int      `json:"height"`
	Fatal        bool     `json:"fatal"`
	Errors       []string `json:"errors"`
}

// stream is one stream for a browser player: hls, dash or shaka.
type stream struct {
	ID     string `json:"id"`
	Player string `json:"player"`
	URL    string `json:"url"`
}

// browse plays streams in headless Chromium until the spec ends; the function returned gives the latest beats by id.
func browse(streams []stream) func() map[string]beat {
	GinkgoHelper()
	cache, err := os.UserCacheDir()
	Expect(err).NotTo(HaveOccurred())
	found, _ := filepath.Glob(filepath.Join(cache, "tminus", "players", "*", "node_modules", ".complete"))
	Expect(found).NotTo(BeEmpty(), "the browser players are missing: run make setup-players")
	modules := filepath.Dir(found[len(found)-1])

	var mu sync.Mutex
	latest := map[string]beat{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, page, "players/page.html") })
	for name, file := range map[string]string{
		"hls":   "hls.js/dist/hls.min.js",
		"dash":  "dashjs/dist/modern/umd/dash.all.min.js",
		"shaka": "shaka-player/dist/shaka-player.compiled.js",
	} {
		mux.HandleFunc("GET /js/"+name+".js", func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, filepath.Join(modules, file))
		})
	}
	mux.HandleFunc("GET /config.json", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(streams) })
	mux.HandleFunc("POST /beat", func(_ http.ResponseWriter, r *http.Request) {
		var beats []beat
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&beats); err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, b := range beats {
			latest[b.ID] = b
		}
	})
	srv := httptest.NewServer(mux)
	DeferCleanup(srv.Close)

	chromium := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
		"--autoplay-policy=no-user-gesture-required", "--user-data-dir="+GinkgoT().TempDir(), "--window-size=1280,900",
		"--remote-debugging-port=0", srv.URL)
	chromium.Stderr = GinkgoWriter
	chromium.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	Expect(chromium.Start()).To(Succeed(), "chromium is missing: run make setup-chromium")
	DeferCleanup(func() {
		_ = syscall.Kill(-chromium.Process.Pid, syscall.SIGKILL)
		_ = chromium.Wait()
	})
	return func() map[string]beat {
		mu.Lock()
		defer mu.Unlock()
		copied := make(map[string]beat, len(latest))
		for id, b := range latest {
			copied[id] = b
		}
		return copied
	}
}

var _ = Describe("Browser players", Label("slow", "browsers"), func() {
	It("play both formats from an edge of the region that crashes, without a stall longer than 6 s", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		// The pages ask the edges themselves: without a play start there is no token.
		scenario := write(dir, "small.yaml", fmt.Sprintf(small, "60s", "playback: {tokens: false}\nfaults:\n  - {at: 20s, for: 20s, fail: region, where: us-east}\n"))
		port := freePort()
		c := start(dir, "rehearse", scenario, "--json", "--port", strconv.Itoa(port))
		Eventually(ctx, c.stderr.String, "60s", "100ms").Should(ContainSubstring("countdown"))
		east := fmt.Sprintf("http://127.0.1.11:%d/small/", port)
		west := fmt.Sprintf("http://127.0.2.11:%d/small/", port)

		beats := browse([]stream{
			{"hls.js", "hls", east + "master.m3u8"},
			{"dash.js", "dash", east + "manifest.mpd"},
			{"shaka DASH", "shaka", east + "manifest.mpd"},
			{"shaka HLS", "shaka", east + "master.m3u8"},
		})
		// ffprobe knows nothing of other edges: it reads from the region that stays.
		var wg sync.WaitGroup
		var probes [2]error
		for i, url := range []string{west + "manifest.mpd", west + "master.m3u8"} {
			wg.Go(func() {
				out, err := exec.CommandContext(ctx, "ffprobe", "-v", "error", "-read_intervals", "%+40", "-count_packets",
					"-show_entries", "stream=codec_name,nb_read_packets", "-of", "csv=p=0", url).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "h264") {
					probes[i] = fmt.Errorf("%s: %w: %s", url, err, out)
				}
			})
		}

		res := c.wait(ctx)
		last := beats() // now: the players still live on what they have buffered, and soon there is no stream any more
		wg.Wait()
		for id, b := range last {
			AddReportEntry(id, fmt.Sprintf("started %.0f ms, played %.1f s, longest stall %.0f ms, live latency %.1f s, %dp, errors %q",
				b.StartedMS, b.PlayedS, b.LongestStall, b.LiveLatency, b.Height, b.Errors))
		}
		Expect(res.status).To(Equal(exitGo), res.stdout+res.stderr)
		Expect(probes).To(HaveEach(BeNil()))
		Expect(last).To(HaveLen(4))
		for id, b := range last {
			Expect(b.StartedMS).To(BeNumerically(">=", 0), "%s never started: %q", id, b.Errors)
			Expect(b.PlayedS).To(BeNumerically(">=", 40), "%s: %q", id, b.Errors)
			Expect(b.LongestStall).To(BeNumerically("<=", 6000), "%s: %q", id, b.Errors)
		}
	}, SpecTimeout(4*time.Minute))
})
