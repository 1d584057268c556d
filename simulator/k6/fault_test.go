package k6

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
)

const childEnv = "TMINUS_TEST_SERVE"

func self() int { return os.Getpid() }

// TestMain is a service of one's own where it was started as one.
func TestMain(m *testing.M) {
	if addr := os.Getenv(childEnv); addr != "" {
		http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
		fmt.Fprintln(os.Stderr, http.ListenAndServe(addr, nil))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve starts a service in a process of its own.
func serve(t *testing.T, addr string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-reaped
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return cmd
		}
	}
	t.Fatalf("nothing serves %s", addr)
	return nil
}

func free(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A process of one's own is crashed, seen to be gone from outside, and started again.
func TestCrashOfAProcessOfOnesOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("a fault takes some seconds to be proven")
	}
	v := newVU(t, nil)
	addr, other := free(t, "127.77.0.5"), free(t, "127.77.1.5")
	cmd := serve(t, addr)
	serve(t, other)
	restart := fmt.Sprintf(`['/bin/sh', '-c', 'echo $$ > %[1]s/pid; exec env %[2]s=%[3]s %[4]s']`, t.TempDir(), childEnv, addr, os.Args[0])
	folder := strings.Split(strings.Split(restart, "> ")[1], "/pid")[0]
	t.Cleanup(func() { // the one that was started again outlives the test of its own accord
		b, err := os.ReadFile(folder + "/pid")
		if err != nil {
			t.Error(err)
			return
		}
		var pid int
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			t.Error(err)
			return
		}
		p, _ := os.FindProcess(pid)
		p.Kill()
	})
	got := v.call(t, fmt.Sprintf(`tminus.fault({fail: 'region', model: 'crash', where: 'us-east', at: '2s', for: '3s', pid: %d, restart: %s, addresses: ['%s'], elsewhere: ['%s']})`,
		cmd.Process.Pid, restart, addr, other))
	evidence := got["evidence"].(map[string]any)
	if evidence["status"] != chaos.Confirmed || got["restored"] != true {
		t.Errorf("%v", got)
	}
	v.settled(t, "tminus_faults_confirmed", 1)
}

// Addresses are cut off in the kernel, where this user may.
func TestCutOfAddresses(t *testing.T) {
	if testing.Short() {
		t.Skip("a fault takes some seconds to be proven")
	}
	if err := chaos.Preflight([]chaos.Fault{{ID: "x", Fail: "region", Model: "cut", Where: "x", For: chaos.MinFor}}); err != nil {
		t.Skip("SKIPPED, NOT TESTED: ", err)
	}
	v := newVU(t, nil)
	addr := free(t, "127.78.0.5")
	serve(t, addr)
	got := v.call(t, fmt.Sprintf(`tminus.fault({fail: 'region', model: 'cut', where: 'us-east', at: '2s', for: '3s', addresses: ['%s']})`, addr))
	if evidence := got["evidence"].(map[string]any); evidence["status"] != chaos.Confirmed || got["restored"] != true {
		t.Errorf("%v", got)
	}
}
