package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// expectSentence checks that a failure is one clear line on standard error, names what it should, and that standard
// output stayed clean.
func expectSentence(res result, status int, words ...string) {
	GinkgoHelper()
	Expect(res.status).To(Equal(status), res.stderr)
	Expect(res.stdout).To(BeEmpty())
	lines := strings.Split(strings.TrimSpace(res.stderr), "\n")
	last := lines[len(lines)-1]
	Expect(last).To(HavePrefix("tminus: "))
	for _, w := range words {
		Expect(last).To(ContainSubstring(w))
	}
}

var _ = Describe("Bad input", Label("input"), func() {
	It("every mistake in a scenario is reported at once, with its place and the nearest word", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		path := write(dir, "typos.yaml", `apiVersion: tminus/v1
name: typos
event: {duration: soon}
topology:
  regions: [us-east, us-west]
  edges: {us-esat: 2, us-west: 2}
audiense: {players: 3}
faults:
  - {at: 5s, for: 5s, fail: regoin, where: us-east}
objectives:
  startup_tme: ["p(95)<2s"]
`)
		res := run(ctx, dir, "rehearse", path, "--json")
		Expect(res.status).To(Equal(exitInvalid))
		Expect(res.stdout).To(BeEmpty())
		for _, want := range []string{"typos.yaml:3:", "typos.yaml:6:", "typos.yaml:7:", "typos.yaml:9:", "typos.yaml:11:",
			`"us-east"`, `"audience"`, `"region"`, `"startup_time"`} {
			Expect(res.stderr).To(ContainSubstring(want))
		}
	}, SpecTimeout(20*time.Second))

	It("a scenario that does not exist", func(ctx context.Context) {
		expectSentence(run(ctx, GinkgoT().TempDir(), "rehearse", "first-lihgt"), exitUsage, `"first-lihgt"`, "first-light")
	}, SpecTimeout(20*time.Second))

	It("a flag that does not exist", func(ctx context.Context) {
		expectSentence(run(ctx, GinkgoT().TempDir(), "rehearse", "--sed", "7"), exitUsage, "--sed")
	}, SpecTimeout(20*time.Second))

	It("a target elsewhere that has not agreed to be loaded, private addresses included", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		for _, host := range []string{"192.0.2.1", "10.0.0.1:8000", "[fd00::1]"} {
			path := write(dir, "away.yaml", fmt.Sprintf("apiVersion: tminus/v1\nname: away\nevent: {duration: 10s}\ntarget: {manifest: \"http://%s/live.mpd\"}\naudience: {players: 1}\nobjectives:\n  startup_time: [\"p(95)<2s\"]\n", host))
			expectSentence(run(ctx, dir, "rehearse", path), exitUsage, "must agree to be loaded", "/.well-known/tminus-consent.txt")
		}
		expectSentence(run(ctx, dir, "load", "http://10.0.0.1/v1/play"), exitUsage, "agrees to be loaded")
	}, SpecTimeout(20*time.Second))
})

var _ = Describe("A missing part", Label("input"), func() {
	It("a port already taken is named, and nothing is left running", func(ctx context.Context) {
		port := freePort()
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.1.11:%d", port))
		Expect(err).NotTo(HaveOccurred())
		defer l.Close()
		res := run(ctx, GinkgoT().TempDir(), "rehearse", "--json", "--port", strconv.Itoa(port))
		expectSentence(res, exitError, fmt.Sprintf("127.0.1.11:%d", port))
	}, SpecTimeout(time.Minute))

	It("an unreachable Kafka", func(ctx context.Context) {
		res := run(ctx, GinkgoT().TempDir(), "rehearse", "--json", "--kafka", "127.0.0.1:1")
		expectSentence(res, exitError, "Kafka", "127.0.0.1:1")
	}, SpecTimeout(time.Minute))

	It("an unreachable ClickHouse", func(ctx context.Context) {
		res := run(ctx, GinkgoT().TempDir(), "rehearse", "--json", "--clickhouse", "http://127.0.0.1:1")
		expectSentence(res, exitError, "ClickHouse", "127.0.0.1:1")
	}, SpecTimeout(time.Minute))

	It("a target that nobody serves", func(ctx context.Context) {
		dir := GinkgoT().TempDir()
		path := write(dir, "dead.yaml", "apiVersion: tminus/v1\nname: dead\nevent: {duration: 10s}\ntarget: {manifest: \"http://127.0.0.1:1/live.mpd\"}\naudience: {players: 1}\nobjectives:\n  startup_time: [\"p(95)<2s\"]\n")
		expectSentence(run(ctx, dir, "rehearse", path, "--json"), exitError, "http://127.0.0.1:1/live.mpd", "connection refused")
	}, SpecTimeout(20*time.Second))

	It("a missing library", func(ctx context.Context) {
		GinkgoT().Setenv("TMINUS_CHDB_LIB", "/nowhere/libchdb.so")
		res := run(ctx, GinkgoT().TempDir(), "rehearse", "--json")
		expectSentence(res, exitError, "/nowhere/libchdb.so")
	}, SpecTimeout(time.Minute))

	It("a full disk", Label("root"), func(ctx context.Context) {
		if os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				Fail("a small file system needs root, and this is CI")
			}
			Skip("SKIPPED: mounting a small file system needs root")
		}
		dir := GinkgoT().TempDir()
		out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", dir).CombinedOutput()
		Expect(err).NotTo(HaveOccurred(), string(out))
		DeferCleanup(func() {
			out, err := exec.Command("umount", dir).CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), string(out))
		})
		res := run(ctx, dir, "rehearse", "--json", "--port", strconv.Itoa(freePort()))
		expectSentence(res, exitError, "no space", "runs", "2 MB")
	}, SpecTimeout(3*time.Minute))
})
