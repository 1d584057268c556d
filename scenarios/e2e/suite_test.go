package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	. "github.com/onsi/gomega"

	"github.com/tminus-live/tminus/dashboards/report"
)

// Exit statuses of the contract.
const (
	exitGo      = 0
	exitError   = 1
	exitUsage   = 2
	exitUnsure  = 98
	exitNoGo    = 99
	exitInvalid = 104
)

var tminus string // the built binary

func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: the end-to-end scenarios take minutes; run without -short")
	}
	RegisterFailHandler(Fail)
	suite, reporter := GinkgoConfiguration()
	if reporter.JUnitReport == "" {
		reporter.JUnitReport = "junit-e2e.xml"
	}
	configure(&suite, &reporter)
	RunSpecs(t, "tminus end to end", suite, reporter)
}

func configure(suite *types.SuiteConfig, reporter *types.ReporterConfig) {
	suite.Timeout = 24 * time.Minute // before go test's own end, which is not an orderly one
	reporter.Succinct = false
}

var _ = BeforeSuite(func() {
	// The binary is built in a folder of its own name, so that a process of this suite can be told from any other.
	tminus = filepath.Join(GinkgoT().TempDir(), "tminus")
	out, err := exec.Command("go", "build", "-o", tminus, "../../cmd/tminus").CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
})

var _ = BeforeEach(func() {
	// Registered first, so it runs last: after what a spec started has been told to end.
	DeferCleanup(func() {
		Eventually(living, "5s", "100ms").Should(BeEmpty(), "processes of tminus are left running")
	})
})

// living lists the processes that run the suite's binary.
func living() []string {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	Expect(err).NotTo(HaveOccurred())
	var found []string
	for _, d := range dirs {
		exe, err := os.Readlink(filepath.Join(d, "exe"))
		if err != nil || !strings.HasPrefix(exe, tminus) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		found = append(found, filepath.Base(d)+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	}
	return found
}

// freePort is a port that is free on every address. It lies below the range that the kernel takes local ports from:
// components dial from the addresses they listen on.
func freePort() int {
	GinkgoHelper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)); err == nil {
			Expect(l.Close()).To(Succeed())
			return port
		}
	}
	Fail("no free port from 10000 to 30000")
	return 0
}

// result is a finished command.
type result struct {
	status         int
	stdout, stderr string
}

// command is a running tminus.
type command struct {
	*exec.Cmd
	stdout, stderr *buffer
	done           chan struct{}
}

// start starts tminus in a folder of its own for runs.
func start(runs string, args ...string) *command {
	c := &command{Cmd: exec.Command(tminus, args...), stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	c.Dir = runs
	c.Env = append(os.Environ(), "NO_COLOR=1")
	c.Stdout = io.MultiWriter(c.stdout, GinkgoWriter)
	c.Stderr = io.MultiWriter(c.stderr, GinkgoWriter)
	Expect(c.Start()).To(Succeed())
	go func() {
		defer close(c.done)
		_ = c.Wait() // the status is read from ProcessState
	}()
	DeferCleanup(func() {
		_ = c.Process.Kill() // it has usually ended
		<-c.done
	})
	return c
}

// wait returns when the command has ended.
func (c *command) wait(ctx context.Context) result {
	GinkgoHelper()
	select {
	case <-c.done:
	case <-ctx.Done():
		_ = c.Process.Signal(syscall.SIGQUIT) // its goroutines tell what it waits for
		Fail(fmt.Sprintf("%s did not end: %v", strings.Join(c.Args, " "), ctx.Err()))
	}
	return result{c.ProcessState.ExitCode(), c.stdout.String(), c.stderr.String()}
}

// run runs tminus to its end.
func run(ctx context.Context, runs string, args ...string) result {
	GinkgoHelper()
	return start(runs, args...).wait(ctx)
}

// rehearse runs a scenario with --json and returns its status and report.
func rehearse(ctx context.Context, runs, scenario string, args ...string) (int, *report.Report, string) {
	GinkgoHelper()
	res := run(ctx, runs, append([]string{"rehearse", scenario, "--json", "--port", strconv.Itoa(freePort())}, args...)...)
	rep, err := report.Parse([]byte(res.stdout))
	Expect(err).NotTo(HaveOccurred(), "standard output is not report.json and nothing else:\n%s\nstandard error:\n%s", res.stdout, res.stderr)
	return res.status, rep, filepath.Join(runs, "runs", rep.Run)
}

// write puts a file into dir and returns its path.
func write(dir, name, text string) string {
	path := filepath.Join(dir, name)
	Expect(os.WriteFile(path, []byte(text), 0o644)).To(Succeed())
	return path
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func decode[T any](text string) (v T) {
	GinkgoHelper()
	Expect(json.Unmarshal([]byte(text), &v)).To(Succeed(), text)
	return v
}
