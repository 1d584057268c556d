package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// endPeer is end when the client was a child that has ended.
func (m *meter) endPeer(r *measured) {
	now := m.read()
	r.Server = now.server - m.before.server
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u) == nil {
		r.Client = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	r.machine(now.machine - m.before.machine)
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
	args := append([]string{"attack", "-format=json", "-targets=target", "-output=results", "-duration=" + p.For.String()}, vegetaFlags(p.Connections)...)
	cpu := meter{server: p.Server}
	cpu.begin()
	if _, err := runTool(ctx, dir, p.Tool, env, args...); err != nil {
		return measured{}, err
	}
	m := measured{}
	cpu.endPeer(&m)
	out, err := runTool(ctx, dir, p.Tool, nil, "report", "-type=json", "results")
	if err != nil {
		return measured{}, err
	}
	var r struct {
		Requests   uint64            `json:"requests"`
		Throughput float64           `json:"throughput"` // good answers a second, to the last answer
		Codes      map[string]uint64 `json:"status_codes"`
		Errors     []string          `json:"errors"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return measured{}, fmt.Errorf("vegeta's report: %w", err)
	}
	m.Done = r.Codes["200"]
	m.Wrong = r.Requests - m.Done
	m.Detail = strings.Join(r.Errors, ", ")
	if r.Throughput > 0 {
		m.Seconds = float64(m.Done) / r.Throughput
	}
	return m, nil
}

// k6Script posts play starts as fast as answers come. Many posts in one iteration spare k6 what it does for each of them. With
// check it does the generator's work: another viewer each time, and a look into the answer; otherwise the same bytes go
// out again and again and answers are thrown away unread, which is the fastest that k6 does.
const k6Script = `import http from 'k6/http';
import { Counter } from 'k6/metrics';
const c = JSON.parse(open('./config.json'));
const wrong = new Counter('wrong');
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
export default function () {
  for (let i = 0; i < c.posts; i++) {
    if (c.check) { one(); } else { http.post(c.url, c.body, params); }
  }
}
export function handleSummary(data) {
  const m = data.metrics;
  return { 'summary.json': JSON.stringify({
    requests: m.http_reqs.values.count, rate: m.http_reqs.values.rate,
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
		"vus": p.Connections, "duration": max(p.For, time.Second).String(), "posts": k6Posts,
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
	cpu := meter{server: p.Server}
	cpu.begin()
	if _, err := runTool(ctx, dir, p.Tool, env, "run", "--quiet", "--no-color", "--no-usage-report", "--no-thresholds", "--address", "",
		"--log-output", "none", "script.js"); err != nil {
		return measured{}, err
	}
	m := measured{}
	cpu.endPeer(&m)
	out, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		return measured{}, fmt.Errorf("k6's summary: %w", err)
	}
	var r struct {
		Requests uint64  `json:"requests"`
		Rate     float64 `json:"rate"`
		Failed   uint64  `json:"failed"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return measured{}, fmt.Errorf("k6's summary: %w", err)
	}
	if r.Failed > r.Requests {
		return measured{}, errors.New("k6's summary counts more failures than requests")
	}
	m.Done, m.Wrong = r.Requests-r.Failed, r.Failed
	if r.Rate > 0 {
		m.Seconds = float64(r.Requests) / r.Rate
	}
	return m, nil
}
