package chtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tminus-live/tminus/telemetry/clickhouse/engine"
)

const (
	childEnv = "TMINUS_TEST_CLICKHOUSE_DIR"
	addrEnv  = "TMINUS_TEST_CLICKHOUSE_ADDR"
)

// Main is for TestMain: it serves the engine where this process was started to do so, and runs the tests otherwise.
func Main(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		serve(dir)
	}
	os.Exit(m.Run())
}

func serve(dir string) {
	s, err := engine.Listen(engine.Config{Dir: dir, Addr: os.Getenv(addrEnv)})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println(s.URL())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // the lifeline: the parent is gone when standard input ends
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := s.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Process is a running engine.
type Process struct {
	*exec.Cmd
	URL string
}

// Start runs an engine on dir until the test ends. Without the engine's library it skips the test, or fails it where
// CI is set: make setup installs it.
func Start(t testing.TB, dir string) *Process { return StartAt(t, dir, "127.0.0.1:0") }

// StartAt is Start on an address: that of an engine that was killed.
func StartAt(t testing.TB, dir, addr string) *Process {
	t.Helper()
	if _, err := engine.FindLib(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, NOT TESTED: ", err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, addrEnv+"="+addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	line = strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(line, "http://") {
		t.Fatalf("the engine's process said %q, %v", line, err)
	}
	return &Process{Cmd: cmd, URL: line}
}
