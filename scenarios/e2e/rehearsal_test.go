package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
	"github.com/tminus-live/tminus/reference/timeline"
)

// expectWhole checks what every finished run owes: its folder, and as many events stored as emitted.
func expectWhole(ctx context.Context, rep *report.Report, folder string) {
	GinkgoHelper()
	for _, f := range []string{report.JSONFile, report.HTMLFile, report.JUnitFile, report.TimelineFile} {
		Expect(filepath.Join(folder, f)).To(BeARegularFile())
	}
	t := rep.Telemetry
	Expect(t.Stored).To(Equal(t.Emitted))
	Expect(t.Lost).To(BeZero())
	// The store itself says so, asked by somebody else, who cannot change it.
	Expect(run(ctx, filepath.Dir(filepath.Dir(folder)), "query", folder, "DROP TABLE events").status).NotTo(Equal(0))
	counted := run(ctx, filepath.Dir(filepath.Dir(folder)), "query", folder, "SELECT count() FROM events")
	Expect(counted.status).To(Equal(0), counted.stderr)
	Expect(strings.TrimSpace(counted.stdout)).To(Equal(strconv.FormatUint(t.Emitted, 10)))
	timeline, err := os.ReadFile(filepath.Join(folder, report.TimelineFile))
	Expect(err).NotTo(HaveOccurred())
	Expect(strings.Count(string(timeline), "\n")).To(BeEquivalentTo(t.Emitted))
	p := rep.Load.PlayStarts
	Expect(p.Sent + p.Dropped).To(Equal(p.Intended))
	Expect(p.OK + p.Shed + p.Failed).To(Equal(p.Sent))
}

var _ = Describe("The twins", Label("slow", "twins"), func() {
	It("first-light survives the crash of a region: GO", func(ctx context.Context) {
		status, rep, folder := rehearse(ctx, GinkgoT().TempDir(), "first-light")
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		expectWhole(ctx, rep, folder)
		Expect(rep.Load.PlayStarts.Intended).To(BeNumerically(">=", 20_000))
		Expect(rep.Players.Sessions).To(BeEquivalentTo(40))
		Expect(rep.Faults).To(HaveLen(1))
		Expect(rep.Faults[0].Evidence.Status).To(Equal("confirmed"))
	}, SpecTimeout(4*time.Minute))

	It("its unprepared twin does not: NO-GO, and the report points at the fault", func(ctx context.Context) {
		status, rep, folder := rehearse(ctx, GinkgoT().TempDir(), "first-light-unprepared")
		Expect(rep.Verdict).To(Equal(report.NoGo), "%v", rep.Reasons)
		Expect(status).To(Equal(exitNoGo))
		expectWhole(ctx, rep, folder)
		var suspects []string
		for _, o := range rep.Objectives {
			if !o.Pass {
				suspects = append(suspects, o.Suspect)
			}
		}
		Expect(suspects).To(ContainElement(rep.Faults[0].ID))
	}, SpecTimeout(4*time.Minute))
})

// small is a scenario of a few seconds; more is added to it.
const small = `apiVersion: tminus/v1
name: small
event:     {duration: %s}
topology:
  regions: [us-east, us-west]
  edges:   {us-east: 2, us-west: 2}
audience:
  starts:  [{at: 0s, rate: 50}]
  players: 4
objectives:
  startup_time: ["p(95)<3s"]
%s`

var _ = Describe("A fault", Label("faults"), func() {
	It("cut: clients of the region see time-outs, and viewers go on", Label("root"), func(ctx context.Context) {
		if os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				Fail("cutting a region needs root, and this is CI")
			}
			Skip("SKIPPED: cutting a region needs root (CAP_BPF and CAP_NET_ADMIN)")
		}
		dir := GinkgoT().TempDir()
		scenario := write(dir, "cut.yaml", fmt.Sprintf(small, "26s", "  rebuffer_ratio: [\"avg<0.4%\"]\nfaults:\n  - {at: 8s, for: 8s, fail: region, where: us-east, model: cut}\n"))
		status, rep, folder := rehearse(ctx, dir, scenario)
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(rep.Faults[0].Evidence.Status).To(Equal("confirmed"))
		Expect(rep.Faults[0].Restored).To(BeTrue())
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("The two regions", Label("identity"), func() {
	It("make byte-identical segments without a word between them, and an edge's streams play in ffprobe", func(ctx context.Context) {
		up := pipelineUp(ctx, "first-light")
		east, west := up.Regions[0], up.Regions[1]
		from, _ := timeline.Default.LastComplete(time.Now())
		Expect(segmentSums(ctx, west.Packager+"/first-light", from, 10)).To(Equal(segmentSums(ctx, east.Packager+"/first-light", from, 10)))
		for _, url := range []string{east.Edges[0].DASH, east.Edges[0].HLS, west.Edges[1].DASH, west.Edges[1].HLS} {
			out, err := exec.CommandContext(ctx, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", url).CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), "%s: %s", url, out)
			Expect(string(out)).To(And(ContainSubstring("h264"), ContainSubstring("aac")), url)
		}
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("The end of a run", Label("lifecycle"), func() {
	onAir := func(ctx context.Context) *command {
		dir := GinkgoT().TempDir()
		scenario := write(dir, "long.yaml", fmt.Sprintf(small, "10m", "faults:\n  - {at: 3s, for: 9m, fail: region, where: us-east}\n"))
		c := start(dir, "rehearse", scenario, "--port", strconv.Itoa(freePort()))
		Eventually(ctx, c.stderr.String, "60s", "100ms").Should(ContainSubstring("injected"))
		Expect(living()).NotTo(BeEmpty())
		return c
	}

	It("Ctrl-C undoes everything in order and leaves a report", func(ctx context.Context) {
		c := onAir(ctx)
		Expect(c.Process.Signal(syscall.SIGINT)).To(Succeed())
		res := c.wait(ctx)
		Expect(res.status).To(Equal(exitUnsure), res.stderr)
		Expect(living()).To(BeEmpty())
		folders, _ := filepath.Glob(filepath.Join(c.Dir, "runs", "*", report.JSONFile))
		Expect(folders).To(HaveLen(1))
		rep, err := report.Read(folders[0])
		Expect(err).NotTo(HaveOccurred())
		Expect(rep.Verdict).To(Equal(report.Inconclusive))
		Expect(rep.Reasons[0]).To(ContainSubstring("interrupted"))
		Expect(rep.Telemetry.Stored).To(Equal(rep.Telemetry.Emitted))
	}, SpecTimeout(2*time.Minute))

	It("kill -9 of the conductor leaves nothing running", func(ctx context.Context) {
		c := onAir(ctx)
		Expect(c.Process.Signal(syscall.SIGKILL)).To(Succeed())
		<-c.done
		Eventually(living, "3s", "50ms").Should(BeEmpty())
	}, SpecTimeout(2*time.Minute))

	for part, want := range map[string]int{"region": exitUnsure, "store": exitError} {
		It("a "+part+" that dies unasked ends the event, and the reason is told", func(ctx context.Context) {
			dir := GinkgoT().TempDir()
			c := start(dir, "rehearse", write(dir, "small.yaml", fmt.Sprintf(small, "5m", "")), "--port", strconv.Itoa(freePort()))
			Eventually(ctx, c.stderr.String, "60s", "100ms").Should(ContainSubstring("on air"))
			for _, p := range living() {
				if pid, cmdline, _ := strings.Cut(p, " "); strings.Contains(cmdline, " "+part) {
					n, err := strconv.Atoi(pid)
					Expect(err).NotTo(HaveOccurred())
					Expect(syscall.Kill(n, syscall.SIGKILL)).To(Succeed())
					break
				}
			}
			res := c.wait(ctx)
			Expect(res.status).To(Equal(want), res.stdout+res.stderr)
			said := strings.Join(strings.Fields(res.stdout+res.stderr), " ") // a summary is wrapped
			Expect(said).To(MatchRegexp(part + `.*ended unexpectedly: killed by SIGKILL`))
		}, SpecTimeout(time.Minute))
	}
})
