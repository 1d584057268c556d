package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The peers' pinned versions, as peers/install.sh builds them.
const (
	vegetaVersion = "v12.13.0"
	k6Version     = "v1.8.1"
)

// peerFolder is where peers/install.sh puts the binaries.
func peerFolder() (string, error) {
	cache, err := os.UserCacheDir() // $XDG_CACHE_HOME, or .cache in the home folder
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "tminus", "peers", "vegeta-"+vegetaVersion+"-k6-"+k6Version), nil
}

// split takes a recorded request apart into what a peer is told: the headers that it does not write by itself, and the body.
func split(request []byte) (headers http.Header, body []byte) {
	head, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
	headers = http.Header{}
	for _, line := range strings.Split(string(head), "\r\n")[1:] {
		name, value, _ := strings.Cut(line, ":")
		switch name := http.CanonicalHeaderKey(name); name {
		case "Host", "Content-Length", "Connection":
		default:
			headers.Add(name, strings.TrimSpace(value))
		}
	}
	return headers, body
}

// runTool runs a peer's binary in a folder of its own with nothing but the given environment, on this process's cores.
func runTool(ctx context.Context, dir, path string, env []string, args ...string) ([]byte, error) {
	// The kernel ends the peer with the thread that started it: that thread stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"HOME=" + dir, "PATH=/usr/bin:/bin"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %.300s", filepath.Base(path), err, strings.TrimSpace(problem.String()))
	}
	return out.Bytes(), nil
}

// endPeer is end when the client was a child that has ended; took is its whole life, start-up and warm-up included. The
// processors' time is told for the part of it that r.Seconds says.
func (m *meter) endPeer(r *measured, took time.Duration) {
	now := m.read()
	share := min(1, r.Seconds/took.Seconds())
	r.Server = (now.server - m.before.server) * share
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u) == nil {
		r.Client = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9 * share
	}
	r.machine((now.machine - m.before.machine) * share)
}

// vegetaFlags let a fixed number of workers attack as fast as answers come, a connection each, and keep no answers.
func vegetaFlags(workers int) []string {
	n := strconv.Itoa(workers)
	return []string{"-rate=0", "-workers=" + n, "-max-workers=" + n, "-connections=" + n, "-max-connections=" + n,
		"-http2=false", "-redirects=-1", "-max-body=0", "-timeout=5s"}
}

// driveVegeta runs one attack.
func driveVegeta(ctx context.Context, p Part) (measured, error) {
	dir, err := os.MkdirTemp("", "tminus-vegeta-")
	if err != nil {
		return measured{}, err
	}
	defer os.RemoveAll(dir)
	headers, body := split(p.Request)
	target := map[string]any{"method": "POST", "url": "http://" + p.Addr.String() + "/v1/play", "header": headers, "body": body}
	line, err := json.Marshal(target)
	if err != nil {
		return measured{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, "target"), append(line, '\n'), 0o600); err != nil {
		return measured{}, err
	}
	env := []string{"GOMAXPROCS=" + strconv.Itoa(p.Procs), "GOGC=" + strconv.Itoa(p.GC)}
	args := append([]string{"attack", "-format=json", "-targets=target", "-output=results", "-duration=" + (p.Warm + p.For).String()}, vegetaFlags(p.Connections)...)
	cpu, began := meter{server: p.Server}, time.Now()
	cpu.begin()
	if _, err := runTool(ctx, dir, p.Tool, env, args...); err != nil {
		return measured{}, err
	}
	m := measured{Seconds: p.For.Seconds()}
	cpu.endPeer(&m, time.Since(began))
	if _, err := runTool(ctx, dir, p.Tool, nil, "encode", "-to=csv", "-output=results.csv", "results"); err != nil {
		return measured{}, err
	}
	f, err := os.Open(filepath.Join(dir, "results.csv"))
	if err != nil {
		return measured{}, fmt.Errorf("vegeta's results: %w", err)
	}
	defer f.Close()
	return m, m.countVegeta(f, p.Warm, p.For)
}

// countVegeta counts what vegeta did, from its results as CSV: the good answers that came after the warm-up, which begins with
// the first request, and what was wrong at any time.
func (m *measured) countVegeta(r io.Reader, warm, length time.Duration) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10)
	var first, last int64
	var done []int64 // when good answers came, in ns
	for lines.Scan() {
		f := strings.SplitN(lines.Text(), ",", 7) // when it was sent, status, latency, bytes out and in, error, …
		if len(f) < 7 {
			return fmt.Errorf("vegeta's results: %.100q", lines.Text())
		}
		sent, e1 := strconv.ParseInt(f[0], 10, 64)
		latency, e2 := strconv.ParseInt(f[2], 10, 64)
		if err := errors.Join(e1, e2); err != nil {
			return fmt.Errorf("vegeta's results: %w", err)
		}
		if first == 0 || sent < first {
			first = sent
		}
		last = max(last, sent+latency)
		if f[1] == "200" {
			done = append(done, sent+latency)
		} else {
			m.Wrong, m.Detail = m.Wrong+1, strings.TrimSpace(f[1]+" "+f[5])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("vegeta's results: %w", err)
	}
	from := first + int64(warm)
	to := min(from+int64(length), last)
	for _, at := range done {
		if at >= from && at < to {
			m.Done++
		}
	}
	m.Seconds = float64(to-from) / 1e9
	return nil
}

// k6Script posts play starts as fast as answers come. Many posts in one iteration spare k6 what it does for each of them. With
// check it does the generator's work: another viewer each time, and a look into the answer; otherwise the same bytes go
// out again and again and answers are thrown away unread, which is the fastest that k6 does. What counts are the iterations that
// a VU began after its warm-up, and the milliseconds that they took it.
const k6Script = `import http from 'k6/http';
import { Counter } from 'k6/metrics';
const c = JSON.parse(open('./config.json'));
const wrong = new Counter('wrong');
const posted = new Counter('posted'), spent = new Counter('spent');
export const options = {
  scenarios: { starts: { executor: 'constant-vus', vus: c.vus, duration: c.duration, gracefulStop: '2s' } },
  discardResponseBodies: !c.check, noUsageReport: true, systemTags: ['status'], summaryTrendStats: ['avg'],
};
const params = { headers: c.headers, redirects: 0 };
let viewer = 0;
function one() {
  viewer++;
  const name = (__VU * 4294967296 + viewer).toString(16).padStart(16, '0');
  const answer = http.post(c.url, c.before + name + c.after, params);
  if (answer.status !== 200) { return; } // http_req_failed counts it
  const got = answer.json();
  if (!got.session || !got.manifests.dash || !got.manifests.hls) { wrong.add(1); }
}
let began = 0, last = 0;
export default function () {
  if (!began) { began = last = Date.now(); }
  for (let i = 0; i < c.posts; i++) {
    if (c.check) { one(); } else { http.post(c.url, c.body, params); }
  }
  const now = Date.now();
  if (last - began >= c.warm) { posted.add(c.posts); spent.add(now - last); }
  last = now;
}
export function handleSummary(data) {
  const m = data.metrics;
  return { 'summary.json': JSON.stringify({
    requests: m.http_reqs.values.count, posted: m.posted ? m.posted.values.count : 0, spent: m.spent ? m.spent.values.count : 0,
    failed: m.http_req_failed.values.passes + (m.wrong ? m.wrong.values.count : 0) }) };
}
`

// aroundViewer takes a body apart before and after the viewer's name.
func aroundViewer(body []byte) (before, after string, err error) {
	const key = `"viewer":"`
	head, rest, ok := strings.Cut(string(body), key)
	_, tail, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		return "", "", fmt.Errorf("no viewer in %.100q", body)
	}
	return head + key, `"` + tail, nil
}

func driveK6(ctx context.Context, p Part) (measured, error) {
	dir, err := os.MkdirTemp("", "tminus-k6-")
	if err != nil {
		return measured{}, err
	}
	defer os.RemoveAll(dir)
	headers, body := split(p.Request)
	flat := map[string]string{}
	for name := range headers {
		flat[name] = headers.Get(name)
	}
	before, after, err := aroundViewer(body)
	if err != nil {
		return measured{}, err
	}
	// k6 runs no scenario of less than a second.
	config, err := json.Marshal(map[string]any{
		"check": p.Check, "before": before, "after": after,
		"vus": p.Connections, "duration": (p.Warm + max(p.For, time.Second)).String(), "warm": p.Warm.Milliseconds(), "posts": k6Posts,
		"url": "http://" + p.Addr.String() + "/v1/play", "headers": flat, "body": string(body),
	})
	if err != nil {
		return measured{}, err
	}
	for name, b := range map[string][]byte{"config.json": config, "script.js": []byte(k6Script)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return measured{}, err
		}
	}
	// Neither a report of its use, nor an extension fetched, nor a server of its own: nothing leaves loopback.
	env := []string{"GOMAXPROCS=" + strconv.Itoa(p.Procs), "GOGC=" + strconv.Itoa(p.GC), "K6_NO_USAGE_REPORT=true", "K6_AUTO_EXTENSION_RESOLUTION=false"}
	cpu, began := meter{server: p.Server}, time.Now()
	cpu.begin()
	if _, err := runTool(ctx, dir, p.Tool, env, "run", "--quiet", "--no-color", "--no-usage-report", "--no-thresholds", "--address", "",
		"--log-output", "none", "script.js"); err != nil {
		return measured{}, err
	}
	took := time.Since(began)
	out, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		return measured{}, fmt.Errorf("k6's summary: %w", err)
	}
	var r struct {
		Requests uint64  `json:"requests"`
		Posted   uint64  `json:"posted"` // after the warm-up
		Spent    float64 `json:"spent"`  // on those, ms of all VUs together
		Failed   uint64  `json:"failed"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return measured{}, fmt.Errorf("k6's summary: %w", err)
	}
	if r.Failed > r.Requests {
		return measured{}, errors.New("k6's summary counts more failures than requests")
	}
	// Which of the failures came after the warm-up is not known; a figure that has any is worth nothing.
	m := measured{Done: r.Posted - min(r.Posted, r.Failed), Wrong: r.Failed, Seconds: r.Spent / 1e3 / float64(p.Connections)}
	cpu.endPeer(&m, took)
	return m, nil
}
