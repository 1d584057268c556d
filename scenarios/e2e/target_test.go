package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
)

// somebodysStream makes a live HLS stream with ffmpeg, behind a plain file server, until the spec ends.
func somebodysStream(ctx context.Context, options ...string) (url string, encoder *os.Process) {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	args := append([]string{"-hide_banner", "-loglevel", "error", "-re",
		"-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
		"-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-keyint_min", "50", "-c:a", "aac",
		"-f", "hls", "-hls_time", "2", "-hls_list_size", "6"}, options...)
	ffmpeg := exec.Command("ffmpeg", append(args, "live.m3u8")...)
	ffmpeg.Dir = dir
	ffmpeg.Stderr = GinkgoWriter
	ffmpeg.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	Expect(ffmpeg.Start()).To(Succeed(), "ffmpeg is missing: run make setup-ffmpeg")
	DeferCleanup(func() {
		_ = ffmpeg.Process.Kill()
		_ = ffmpeg.Wait()
	})
	// Three segments are what a player wants to begin with.
	Eventually(ctx, func() int {
		found, _ := filepath.Glob(filepath.Join(dir, "live*[0-9].*"))
		return len(found)
	}, "30s", "100ms").Should(BeNumerically(">=", 4))
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	DeferCleanup(srv.Close)
	return srv.URL + "/live.m3u8", ffmpeg.Process
}

const theirs = `apiVersion: tminus/v1
name: theirs
event:    {duration: 15s}
target:   {manifest: "%s"}
audience: {players: 5}
objectives:
  startup_time:         ["p(95)<3s"]
  video_start_failures: ["rate<1%%"]
  rebuffer_ratio:       ["avg<1%%"]
`

var _ = Describe("A stream that somebody else made", Label("target"), func() {
	for name, options := range map[string][]string{
		"TS segments":   nil,
		"fMP4 segments": {"-hls_segment_type", "fmp4"},
	} {
		It("is played and judged by the same objectives: HLS with "+name, func(ctx context.Context) {
			dir := GinkgoT().TempDir()
			url, _ := somebodysStream(ctx, options...)
			scenario := write(dir, "theirs.yaml", fmt.Sprintf(theirs, url))
			status, rep, folder := rehearse(ctx, dir, scenario)
			Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
			Expect(status).To(Equal(exitGo))
			Expect(rep.Players.Sessions).To(BeNumerically("==", 5))
			expectWhole(ctx, rep, folder)
		}, SpecTimeout(2*time.Minute))
	}

	It("whose encoder hangs in the middle is a NO-GO", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		url, encoder := somebodysStream(ctx)
		c := start(dir, "rehearse", write(dir, "theirs.yaml", fmt.Sprintf(theirs, url)), "--json")
		Eventually(ctx, c.stderr.String, "30s", "100ms").Should(ContainSubstring("on air"))
		Expect(encoder.Signal(syscall.SIGSTOP)).To(Succeed())
		res := c.wait(ctx)
		rep := decode[report.Report](res.stdout)
		Expect(rep.Verdict).To(Equal(report.NoGo), "%v", rep.Reasons)
		Expect(res.status).To(Equal(exitNoGo))
	}, SpecTimeout(2*time.Minute))

	It("that is over before the event is inconclusive", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		url, _ := somebodysStream(ctx, "-t", "14")
		status, rep, _ := rehearse(ctx, dir, write(dir, "theirs.yaml", fmt.Sprintf(theirs, url)))
		Expect(rep.Verdict).To(Equal(report.Inconclusive), "%v", rep.Reasons)
		Expect(status).To(Equal(exitUnsure))
		Expect(rep.Reasons[0]).To(ContainSubstring("the stream was over"))
	}, SpecTimeout(2*time.Minute))
})
