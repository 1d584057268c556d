package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
)

// nginxUp serves an HLS stream with ffmpeg and nginx on a port, until the spec ends.
func nginxUp(ctx context.Context, port int) {
	GinkgoHelper()
	serve := exec.Command("nginx/serve.sh", fmt.Sprint(port))
	serve.Stderr = GinkgoWriter
	serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := serve.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(serve.Start()).To(Succeed())
	ended := make(chan struct{})
	DeferCleanup(func() {
		_ = syscall.Kill(-serve.Process.Pid, syscall.SIGTERM)
		Eventually(ended, "10s").Should(BeClosed())
	})
	ready := make(chan string, 1)
	go func() {
		defer close(ended)
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- line
		_ = serve.Wait()
	}()
	Eventually(ctx, ready, "60s").Should(Receive(ContainSubstring("master.m3u8")), "make setup-nginx installs what it needs")
}

var _ = Describe("A stack of one's own", Label("own"), Serial, func() {
	It("is broken in what it answers, in its packets and in its processes, and put back", func(ctx context.Context) {
		nginxUp(ctx, 8088)
		status, rep, folder := rehearse(ctx, GinkgoT().TempDir(), "own-nginx")
		Expect(rep.Verdict).To(Equal(report.Go), "%v", rep.Reasons)
		Expect(status).To(Equal(exitGo))
		Expect(rep.Faults).To(HaveLen(4))
		for _, f := range rep.Faults {
			Expect(f.Evidence.Status).To(Equal(report.Confirmed), "%s: %s", f.ID, f.Evidence.Detail)
			Expect(f.Restored).To(BeTrue())
		}
		expectWhole(ctx, rep, folder)
	}, SpecTimeout(3*time.Minute))

	It("is broken by hand, and nothing else is", func(ctx context.Context) {
		port := freePort()
		nginxUp(ctx, port)
		at := fmt.Sprintf("127.0.0.1:%d", port)
		dir := GinkgoT().TempDir()

		would := run(ctx, dir, "chaos", "run", "--fail", "process", "--where", at, "--dry-run")
		Expect(would.status).To(Equal(0), would.stderr)
		Expect(would.stdout).To(ContainSubstring("would break " + at))

		hung := run(ctx, dir, "chaos", "run", "--fail", "process", "--where", at, "--for", "3s", "--json")
		Expect(hung.status).To(Equal(0), hung.stderr)
		Expect(hung.stdout).To(ContainSubstring(`"status": "confirmed"`))

		for args, word := range map[string]string{
			"--fail process --where 192.0.2.1:80":                         "only what listens on this machine's loopback can be broken",
			"--fail process --where 127.0.0.1:1":                          "nobody listens there, in this network namespace",
			"--fail proces --where " + at:                                 `unknown kind of fault "proces"; did you mean "process"?`,
			"--fail packet-loss --where " + at:                            "loss is missing",
			"--fail packet-loss --set loss=200% --where " + at:            "loss: 200% is outside 0% to 100%",
			"--fail packet-loss --set lss=2% --set loss=1% --where " + at: `unknown parameter "lss"`,
			"--fail http --model status --where " + at:                    "needs a relay in front of it",
			"--where " + at: "--fail is missing",
		} {
			expectSentence(run(ctx, dir, append([]string{"chaos", "run"}, strings.Fields(args)...)...), 2, word)
		}
	}, SpecTimeout(2*time.Minute))
})
