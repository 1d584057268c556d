package k6

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grafana/sobek"
	"github.com/sirupsen/logrus"
	"go.k6.io/k6/js/modulestest"
	"go.k6.io/k6/lib"
	"go.k6.io/k6/metrics"

	"github.com/tminus-live/tminus/telemetry/kafka"
)

// vu is one VU with the module in it, and what k6 would have got of it.
type vu struct {
	*modulestest.Runtime
	module *Module
	log    *strings.Builder

	mu      sync.Mutex
	samples []metrics.Sample
}

func newVU(t *testing.T, env map[string]string) *vu {
	t.Helper()
	v := &vu{Runtime: modulestest.NewRuntime(t), module: New(), log: &strings.Builder{}}
	v.VU.InitEnvField.RuntimeOptions = lib.RuntimeOptions{Env: env}
	registry := v.VU.InitEnvField.Registry
	exports := v.module.NewModuleInstance(v.VU).Exports()
	if err := v.VU.RuntimeField.Set("tminus", exports.Default); err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(hook{v})
	samples := make(chan metrics.SampleContainer, 100)
	v.MoveToVUContext(&lib.State{Samples: samples, Tags: lib.NewVUStateTags(registry.RootTagSet().With("scenario", "test")), Logger: log})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for c := range samples {
			v.mu.Lock()
			v.samples = append(v.samples, c.GetSamples()...)
			v.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		close(samples)
		<-ended
		if err := v.module.closeEvents(); err != nil {
			t.Error(err)
		}
	})
	return v
}

type hook struct{ v *vu }

func (hook) Levels() []logrus.Level { return logrus.AllLevels }
func (h hook) Fire(e *logrus.Entry) error {
	h.v.mu.Lock()
	defer h.v.mu.Unlock()
	fmt.Fprintln(h.v.log, e.Message)
	return nil
}

// call runs a script and returns its value as plain data.
func (v *vu) call(t *testing.T, script string) map[string]any {
	t.Helper()
	got, err := v.VU.RuntimeField.RunString(script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	m, ok := got.Export().(map[string]any)
	if !ok {
		t.Fatalf("%s: %v", script, got)
	}
	return m
}

// refused runs a script that must end the test, and returns why.
func (v *vu) refused(t *testing.T, script string) string {
	t.Helper()
	got, err := v.VU.RuntimeField.RunString(script + "; 'went on'")
	if err == nil {
		t.Fatalf("%s: %v, want the test to be ended", script, got)
	}
	var interrupted *sobek.InterruptedError
	if !asInterrupted(err, &interrupted) {
		t.Fatalf("%s: %v, want an interruption", script, err)
	}
	v.VU.RuntimeField.ClearInterrupt()
	return interrupted.Value().(error).Error()
}

func asInterrupted(err error, to **sobek.InterruptedError) bool {
	i, ok := err.(*sobek.InterruptedError)
	*to = i
	return ok
}

// of is the samples of one metric that have all the tags, once the sum of their values (or, for trends, their number) is want.
func (v *vu) of(name string, tags ...string) (values []float64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.samples {
		fits := s.Metric.Name == name
		for i := 0; i < len(tags) && fits; i += 2 {
			got, _ := s.Tags.Get(tags[i])
			fits = got == tags[i+1]
		}
		if fits {
			values = append(values, s.Value)
		}
	}
	return values
}

func sum(values []float64) (s float64) {
	for _, v := range values {
		s += v
	}
	return s
}

// settled waits until k6's end of the channel has taken everything.
func (v *vu) settled(t *testing.T, name string, want float64) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for sum(v.of(name)) < want {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, want %v", name, sum(v.of(name)), want)
		}
		time.Sleep(time.Millisecond)
	}
}

const yes = `{"session":"s-%d","manifests":{"dash":"http://127.0.1.5:8080/v1/sessions/s/manifest.mpd","hls":"http://127.0.1.5:8080/v1/sessions/s/master.m3u8"},"steering":["us-east-1"]}`

// service is a playback service: every bad-th start is refused.
func service(t *testing.T, bad int, slow func(k int) time.Duration) string {
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		mu.Lock()
		n++
		k := n
		mu.Unlock()
		if slow != nil {
			time.Sleep(slow(k))
		}
		if bad > 0 && k%bad == 0 {
			http.Error(w, "{}", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, yes, k)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func number(t *testing.T, m map[string]any, path ...string) float64 {
	t.Helper()
	var v any = m
	for _, p := range path {
		v = v.(map[string]any)[p]
	}
	switch v := v.(type) {
	case uint64:
		return float64(v)
	case int:
		return float64(v)
	case float64:
		return v
	}
	t.Fatalf("%v is %v", path, v)
	return 0
}

// One call sends a thousand starts; what k6 gets of them is what the call returns.
func TestPlayStarts(t *testing.T) {
	v := newVU(t, nil)
	url := service(t, 10, func(int) time.Duration { return 2 * time.Millisecond })
	got := v.call(t, fmt.Sprintf(`tminus.playStarts({services: [{region: 'us-east', url: '%s/v1/play'}], title: 'fight', rate: 500, for: '2s', seed: 7})`, url))
	for name, want := range map[string]float64{"scheduled": 1000, "intended": 1000, "sent": 1000, "ok": 900, "failed": 100, "shed": 0, "dropped": 0} {
		if n := number(t, got, name); n != want {
			t.Errorf("%s: %v, want %v", name, n, want)
		}
	}
	if got["complete"] != true {
		t.Errorf("complete: %v", got["complete"])
	}
	if got["firstFailure"] != "HTTP 403: {}" || number(t, got, "late") > 1000 || number(t, got, "ownLag", "p50") > number(t, got, "sendLag", "max")+1 {
		t.Errorf("first failure %v, %v late, by %v ms", got["firstFailure"], got["late"], got["ownLag"])
	}
	v.settled(t, "tminus_play_starts", 1000)
	if n := sum(v.of("tminus_play_starts", "status", "ok", "region", "us-east", "scenario", "test")); n != 900 {
		t.Errorf("tminus_play_starts{status:ok}: %v, want 900", n)
	}
	if failed := v.of("tminus_video_start_failures"); len(failed) != 1000 || sum(failed) != 100 {
		t.Errorf("tminus_video_start_failures: %v of %d", sum(failed), len(failed))
	}
	if n := sum(v.of("tminus_dropped")); n != 0 {
		t.Errorf("tminus_dropped: %v", n)
	}
	for name, own := range map[string]string{"tminus_play_start_time": "playStartTime", "tminus_send_lag": "sendLag"} {
		sink := metrics.NewTrendSink()
		for _, s := range v.of(name) {
			sink.Add(metrics.Sample{Value: s})
		}
		for level, q := range map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1} {
			if a, b := sink.P(q), number(t, got, own, level); math.Abs(a-b) > a/128+0.002 {
				t.Errorf("%s: %s is %v to a threshold and %v to the script", name, level, a, b)
			}
		}
	}
	if p := number(t, got, "playStartTime", "p50"); p < 2 || p > 1000 {
		t.Errorf("half of the starts took %v ms or less from a service that takes 2", p)
	}
	q := v.call(t, `tminus.qoe()`)
	if n := number(t, q, "videoStartFailures"); n != 10 {
		t.Errorf("qoe: %v %% of starts failed, want 10", n)
	}
	if n := number(t, q, "playStarts", "ok"); n != 900 {
		t.Errorf("qoe: %v starts, want 900", n)
	}
}

// Any HTTP play API can be sent at, as by a scenario's target.
func TestPlayStartsAtAnotherAPI(t *testing.T) {
	v := newVU(t, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPut || r.URL.Path != "/start" || r.URL.Query().Get("v") == "" || r.Header.Get("X-Event") != "theirs" || !strings.HasPrefix(string(body), `{"who":"`) {
			http.Error(w, "not what was agreed", http.StatusBadRequest)
			return
		}
		io.WriteString(w, `{"result":[{"id":"s"}]}`)
	}))
	defer srv.Close()
	got := v.call(t, fmt.Sprintf(`tminus.playStarts({services: [{region: 'a', url: '%s/start?v={{viewer}}'}], title: 'theirs', rate: 100, for: '1s',
		request: {method: 'PUT', headers: {'X-Event': '{{title}}'}, body: '{"who":"{{viewer}}"}', session: 'result.0.id'}})`, srv.URL))
	if n := number(t, got, "ok"); n != 100 {
		t.Errorf("%v", got)
	}
}

// A crowd that is large enough is thinned, and thresholds agree with the generator's own figures all the same.
func TestThresholdsAgreeWithTheGenerator(t *testing.T) {
	if testing.Short() {
		t.Skip("sends for 2 s")
	}
	v := newVU(t, nil)
	v.module.record.startsEvery = 7 // as for 700,000 starts
	url := service(t, 0, func(k int) time.Duration {
		if k%20 == 0 {
			return 20 * time.Millisecond
		}
		return 0
	})
	got := v.call(t, fmt.Sprintf(`tminus.playStarts({services: [{region: 'a', url: '%s'}], title: 'fight', rate: 2000, for: '2s'})`, url))
	v.settled(t, "tminus_play_starts", 4000)
	sink := metrics.NewTrendSink()
	for _, s := range v.of("tminus_play_start_time") {
		sink.Add(metrics.Sample{Value: s})
	}
	if c := sink.Count(); c < 400 || c > 800 {
		t.Errorf("%d samples of 4000 starts, want about one in seven", c)
	}
	// 4000/7 = 571 samples: a percentile may be off by a few of them.
	for level, q := range map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99} {
		low, high := sink.P(max(0, q-0.03)), sink.P(min(1, q+0.03))
		if own := number(t, got, "playStartTime", level); own < low*0.99-0.01 || own > high*1.01+0.01 {
			t.Errorf("%s is %v to the script, and %v to a threshold (%v to %v)", level, own, sink.P(q), low, high)
		}
	}
	if own := number(t, got, "playStartTime", "max"); own != sink.Max() {
		t.Errorf("max is %v to the script and %v to a threshold", own, sink.Max())
	}
}

// Whatever a script says, nothing is sent to a machine that did not agree to it, and the test does not pass.
func TestFarTargetsAreRefused(t *testing.T) {
	v := newVU(t, nil)
	for _, script := range []string{
		`tminus.playStarts({services: [{region: 'a', url: 'http://192.0.2.1:80/v1/play'}], title: 'fight', rate: 10, for: '1s'})`,
		`tminus.playStarts({services: [{region: 'a', url: 'http://10.0.0.1:80'}], title: 'fight', rate: 10, for: '1s'})`,
		`tminus.players({services: [{region: 'a', url: 'http://192.0.2.1:80/v1/play'}], title: 'fight', players: 1, for: '1s'})`,
		`tminus.players({manifest: 'http://192.0.2.1/live.m3u8', players: 1, for: '1s'})`,
	} {
		if why := v.refused(t, script); !strings.Contains(why, "agrees to be loaded") || !strings.Contains(why, "give it in the call as consent: or in the environment as TMINUS_CONSENT") {
			t.Errorf("%s: %s", script, why)
		}
	}
	for script, want := range map[string]string{
		`tminus.fault({fail: 'region', model: 'cut', addresses: ['192.0.2.1:80'], for: '2s'})`:                                       "refused to touch",
		`tminus.fault({fail: 'region', model: 'cut', addresses: ['127.0.0.1:80'], for: '2s'})`:                                       "refused to touch",
		`tminus.fault({fail: 'region', model: 'cut', addresses: ['127.0.9.1:80'], prefix: '127.0.0.0/8', for: '2s'})`:                "refused to touch",
		`tminus.fault({fail: 'region', model: 'crash', addresses: ['127.0.9.1:80'], for: '2s'})`:                                     "pid:",
		`tminus.fault({fail: 'region', model: 'crash', addresses: ['127.0.9.1:80'], pid: 1, for: '2s'})`:                             "pid:",
		`tminus.fault({fail: 'region', addresses: ['127.0.9.1:80'], pid: 77777, for: '2s'})`:                                         "restart:",
		`tminus.fault({fail: 'region', addresses: ['127.0.9.1:80'], pid: ` + fmt.Sprint(self()) + `, restart: ['true'], for: '2s'})`: "listens at none",
		`tminus.fault({fail: 'weather', addresses: ['127.0.9.1:80'], for: '2s'})`:                                                    `unknown fail: "weather"`,
		`tminus.fault({fail: 'region', model: 'cut', addresses: ['127.0.9.1:80'], for: '100ms'})`:                                    "cannot be measured",
		`tminus.playStarts({rate: 10, for: '1s'})`:                                                                                   "services: want one or more",
		`tminus.playStarts()`: "want an object",
		`tminus.playStarts({services: [{region: 'a', url: 'http://192.0.2.1'}], title: 'fight', rate: 11, for: '1s', limits: {rate: 10, duration: '1m'}})`:  "above the ceiling of 10",
		`tminus.playStarts({services: [{region: 'a', url: 'http://127.0.0.1:1'}], title: 'fight', rate: 1, for: '2s', limits: {rate: 10, duration: '1s'}})`: "above the ceiling of 1s",
		`tminus.players({services: [{region: 'a', url: 'http://127.0.0.1:1'}], for: '1s'})`:                                                                 "players: 0",
		`tminus.playStarts({services: [{region: 'a', url: 'http://127.0.0.1:1'}], title: 'fight', rate: 1, for: '1s', run: 'x'})`:                           "nowhere to go",
		`tminus.playStarts({services: [{region: 'a', url: 'http://127.0.0.1:1'}], title: 'fight', rate: 1, for: '1s', kafka: '127.0.0.1:1'})`:               "needs run",
	} {
		if why := v.refused(t, script); !strings.Contains(why, want) {
			t.Errorf("%s: %s, want %q", script, why, want)
		}
	}
	if n := sum(v.of("tminus_play_starts")); n != 0 {
		t.Errorf("%v starts were sent", n)
	}
}

// k6's abort and Ctrl-C end the VU's context: a call is over within a second, and what it came to is told.
func TestCancellationEndsACallWithinASecond(t *testing.T) {
	v := newVU(t, nil)
	stuck := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // takes connections and never answers
		for {
			c, err := listener.Accept()
			if err != nil {
				close(stuck)
				return
			}
			defer c.Close()
		}
	}()
	defer func() { listener.Close(); <-stuck }()
	for _, script := range []string{
		`tminus.playStarts({services: [{region: 'a', url: 'http://%s'}], title: 'fight', rate: 200, for: '60s'})`,
		`tminus.players({services: [{region: 'a', url: 'http://%s'}], title: 'fight', players: 20, for: '60s'})`,
	} {
		ctx, cancel := context.WithCancel(context.Background())
		v.VU.CtxField = ctx
		var cancelled time.Time
		time.AfterFunc(500*time.Millisecond, func() { cancelled = time.Now(); cancel() })
		got := v.call(t, fmt.Sprintf(script, listener.Addr()))
		if late := time.Since(cancelled); late > time.Second {
			t.Errorf("%s: ended %v after it was cancelled", script, late)
		}
		if got["complete"] != false {
			t.Errorf("%s: complete: %v", script, got["complete"])
		}
	}
	if n := sum(v.of("tminus_play_starts")); n < 20 {
		t.Errorf("k6 has %v of the starts that were sent before the end", n)
	}
}

// Everything that happens goes to Kafka under the run's id, and the source says at its end that it is done.
func TestEventsReachKafka(t *testing.T) {
	broker, err := kafka.ListenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- broker.Run(ctx) }()
	defer func() { stop(); <-ran }()

	v := newVU(t, map[string]string{"TMINUS_RUN": "saturday-1", "TMINUS_KAFKA": broker.Addr()})
	url := service(t, 0, nil)
	v.call(t, fmt.Sprintf(`tminus.playStarts({services: [{region: 'a', url: '%s'}], title: 'fight', rate: 300, for: '1s', shard: {i: 1, of: 3}})`, url))
	if why := v.refused(t, fmt.Sprintf(`tminus.playStarts({services: [{region: 'a', url: '%s'}], title: 'fight', rate: 300, for: '1s', run: 'sunday-1'})`, url)); !strings.Contains(why, "saturday-1") {
		t.Errorf("a second run: %s", why)
	}
	if err := v.module.closeEvents(); err != nil {
		t.Fatal(err)
	}
	client, err := kafka.New(kafka.Config{Address: broker.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	partitions, err := client.Partitions(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var lines, sources []string
	for p := range partitions {
		messages, _, err := client.Fetch(ctx, "saturday-1", p, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			lines = append(lines, strings.Split(strings.TrimSpace(string(m.Value)), "\n")...)
			sources = append(sources, m.Source)
		}
	}
	slices.Sort(sources)
	if s := slices.Compact(sources); len(s) != 1 || !strings.HasPrefix(s[0], "k6/") {
		t.Errorf("sources: %v", s)
	}
	count := func(word string) (n int) {
		for _, l := range lines {
			if strings.Contains(l, word) {
				n++
			}
		}
		return n
	}
	if n := count(`"kind":"play_start"`); n != 100 {
		t.Errorf("%d play starts, want this shard's 100 of 300", n)
	}
	if count(`"kind":"source_end"`) != 1 || !strings.Contains(lines[len(lines)-1], `"kind":"source_end"`) || !strings.Contains(lines[len(lines)-1], `"status":"ok"`) {
		t.Errorf("the last event is %s", lines[len(lines)-1])
	}
	if n := count(`"kind":"load_stats"`); n < 1 || count(`"scheduled":100`) != 1 {
		t.Errorf("the crowd's seconds are told %d times", n)
	}
	if count(`"detail":"on air"`) != 1 {
		t.Errorf("no T+0 in %d events", len(lines))
	}
}
