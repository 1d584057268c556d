package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
)

// trial is a system of one region that is broken for half a minute, unless somebody puts an end to it.
const trial = `apiVersion: tminus/v1
name: trial
event:    {duration: %s}
topology: {regions: [us-east]}
audience: {players: 30, playersWithin: 5s}
faults:
  - {at: 10s, for: 30s, fail: region, where: us-east, model: %s}
experiment:
  steadyState:
    %s
  settle: 3s
  stop:
    rebuffer_ratio: ["avg>20%%"]
objectives:
  telemetry_loss: ["rate==0%%"]
`

var _ = Describe("An experiment", Label("experiment"), func() {
	It("shows what a fault does to those who live where it is, and not to the others", Label("slow"), func(ctx context.Context) {
		status, rep, folder := rehearse(ctx, GinkgoT().TempDir(), "canary")
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		expectWhole(ctx, rep, folder)
		e := rep.Experiment
		Expect(e.Stopped).To(BeNil())
		Expect(e.Watch.Looks).To(BeNumerically(">", 30))
		var phases []string
		for _, s := range e.SteadyState {
			Expect(s.Pass).To(BeTrue(), "%+v", s)
			phases = append(phases, s.Phase)
		}
		Expect(slices.Compact(phases)).To(Equal([]string{"before", "during", "after"}))
		at := slices.IndexFunc(e.Comparison, func(c report.Comparison) bool { return c.Metric == "edge_switches" })
		Expect(at).To(BeNumerically(">=", 0))
		switches := e.Comparison[at]
		Expect(switches.Significant).To(BeTrue(), "%+v", switches)
		Expect(switches.Low).To(BeNumerically(">", 0))
		Expect(switches.Canary.Value).To(BeNumerically(">", switches.Baseline.Value))
		junit, err := os.ReadFile(filepath.Join(folder, report.JUnitFile))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(junit)).To(And(ContainSubstring("canary us-east against baseline us-west: edge_switches"), ContainSubstring("steady state during: rebuffer_ratio")))
		// Both halves are in the events by their homes.
		homes := run(ctx, filepath.Dir(filepath.Dir(folder)), "query", folder, "SELECT DISTINCT home FROM events WHERE kind IN ('heartbeat', 'play_start') ORDER BY home")
		Expect(strings.Fields(homes.stdout)).To(Equal([]string{"us-east", "us-west"}), homes.stderr)
	}, SpecTimeout(3*time.Minute))

	It("is ended by a stop condition, and the event goes on: NO-GO", Label("slow"), func(ctx context.Context) {
		status, rep, folder := rehearse(ctx, GinkgoT().TempDir(), "stop-condition")
		Expect(rep.Verdict).To(Equal(report.NoGo), "%v", rep.Reasons)
		Expect(status).To(Equal(exitNoGo))
		Expect(rep.Reasons[0]).To(HavePrefix("the experiment was stopped"))
		expectWhole(ctx, rep, folder)
		s, f := rep.Experiment.Stopped, rep.Faults[0]
		Expect(s.Condition).To(Equal("rebuffer_ratio avg>20%"))
		Expect(s.Measured).To(BeNumerically(">", 20))
		Expect(s.NoticedS).To(BeNumerically("<", 1))
		Expect(s.UndoneAfterS).To(BeNumerically("<=", report.UndoneWithin), "the region was killed, and has to be started again")
		AddReportEntry("undone after, seconds", s.UndoneAfterS)
		Expect(f.ForS).To(BeNumerically("<", 20), "the fault was to last 30 s")
		Expect(f.Restored).To(BeTrue())
		Expect(f.Evidence.Status).To(Equal("confirmed"), "it was watched to its end: %s", f.Evidence.Detail)
		Expect(rep.DurationS).To(BeNumerically("~", 55, 1))
	}, SpecTimeout(3*time.Minute))

	It("has a cut undone within 2 s of the moment its stop condition holds", Label("slow", "root"), func(ctx context.Context) {
		if os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				Fail("cutting a region needs root, and this is CI")
			}
			Skip("SKIPPED: cutting a region needs root (CAP_BPF and CAP_NET_ADMIN)")
		}
		dir := GinkgoT().TempDir()
		status, rep, _ := rehearse(ctx, dir, write(dir, "trial.yaml", fmt.Sprintf(trial, "50s", "cut", `rebuffer_ratio: ["avg<1%"]`)))
		Expect(status).To(Equal(exitNoGo), "%v", rep.Reasons)
		s := rep.Experiment.Stopped
		Expect(s).NotTo(BeNil())
		Expect(s.UndoneAfterS).To(BeNumerically("<=", report.UndoneWithin))
		AddReportEntry("undone after, seconds", s.UndoneAfterS)
	}, SpecTimeout(3*time.Minute))

	It("breaks nothing in a system that is not well: inconclusive", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		scenario := strings.Replace(fmt.Sprintf(trial, "24s", "crash", `startup_time: ["p(50)<1us"]`), "for: 30s", "for: 5s", 1)
		status, rep, folder := rehearse(ctx, dir, write(dir, "trial.yaml", scenario))
		Expect(rep.Verdict).To(Equal(report.Inconclusive), "%v", rep.Reasons)
		Expect(status).To(Equal(exitUnsure))
		Expect(rep.Reasons[0]).To(HavePrefix("the system was not in its steady state before anything was broken: Startup time"))
		Expect(rep.Reasons).To(HaveLen(1))
		Expect(rep.Faults[0].ForS).To(BeZero())
		Expect(rep.Players.LongestStallS).To(BeNumerically("<", 1))
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(2*time.Minute))
})
