package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/scenarios/process"
)

// TestMain lets this binary be a benchmark's child process.
func TestMain(m *testing.M) {
	if process.WatchLifeline() && len(os.Args) > 1 && os.Args[1] == PartCommand {
		os.Exit(part())
	}
	os.Exit(m.Run())
}

func part() int {
	var p Part
	raw, err := process.Config()
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil {
		err = RunPart(context.Background(), p, slog.New(slog.DiscardHandler))
	}
	if err != nil {
		_ = process.Fail(err)
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var update = flag.Bool("update", false, "rewrite the golden files")

// a report with everything that one can have: a figure that was measured, one that is missing, ratios of both.
func example() *Report {
	bare := &Figure{Key: "bare_per_s", What: "bare pair", Rounds: []float64{100_000, 120_000, 110_000}, Seconds: 3, Connections: 64, InFlight: 1,
		Cores: "server on core 0, client on core 1", client: []float64{1, 0.9, 0.8}, server: []float64{0.5, 0.5, 0.5}, others: []float64{0.01, 0.3, 0.02}}
	service := &Figure{Key: "service_per_s", What: "generator, playback service", Rounds: []float64{60_000, 60_000, 55_000}, Seconds: 3,
		Connections: 64, InFlight: 1, Cores: "server on core 0, client on core 1", Target: 250_000, Settings: "as it comes"}
	gone := &Figure{Key: "vegeta_per_s", What: "vegeta", Missing: true, Settings: "none"}
	r := &Report{
		Bench: "play-starts", Rounds: 3, Seconds: 3, Machine: Machine{CPU: "a processor", Cores: 2, Kernel: "6.1", Go: "go1.26"},
		Figures: []*Figure{bare, service, gone}, Facts: map[string]any{"request_bytes": 270},
		Ratios: []*Ratio{
			ratio("service_ratio", service, bare, 0.6, "share of the bare exchange that is left"),
			ratio("vs_vegeta", service, gone, 3, "times what vegeta gets"),
		},
	}
	r.problem("vegeta is missing")
	r.problem("vegeta is missing")
	r.settle()
	return r
}

func TestReport(t *testing.T) {
	r := example()
	for name, write := range map[string]func(io.Writer) error{"report.json": r.WriteJSON, "report.txt": r.WriteTable} {
		var got bytes.Buffer
		if err := write(&got); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s is now:\n%s", name, got.String())
		}
	}
}

func TestARatioIsTheMedianOfItsRounds(t *testing.T) {
	// The machine slows down to a half; the ratio in each round is 0.5.
	by := &Figure{Key: "by", Rounds: []float64{100, 50, 50}}
	of := &Figure{Key: "of", Rounds: []float64{50, 25, 25}}
	lame := &Figure{Key: "lame", Rounds: []float64{0, 10, 40}} // its first round failed
	r := &Report{Figures: []*Figure{by, of, lame}, Ratios: []*Ratio{ratio("half", of, by, 0, ""), ratio("lame", lame, by, 0, "")}}
	r.settle()
	if half := r.Ratios[0]; half.Median != 0.5 || half.Spread != 0 {
		t.Errorf("%+v, want 0.5 without spread", half)
	}
	if lame := r.Ratios[1]; lame.Median != 0.5 || len(lame.Rounds) != 2 {
		t.Errorf("%+v, want the median of two rounds", lame)
	}
}

func TestFind(t *testing.T) {
	for _, b := range All() {
		if found, err := Find(b.Name); err != nil || found.Name != b.Name {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
	if _, err := Find("play-stops"); err == nil || !strings.Contains(err.Error(), `"play-stops"`) || !strings.Contains(err.Error(), "play-starts") {
		t.Errorf("%v, want a sentence that names what was asked for and what there is", err)
	}
}

func TestOptions(t *testing.T) {
	o := Options{}
	if err := o.Validate(); err != nil || o.Seconds != DefaultSeconds || o.Rounds != DefaultRounds {
		t.Errorf("%+v, %v", o, err)
	}
	o = Options{Seconds: -1, Rounds: 1}
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "seconds") || !strings.Contains(err.Error(), "rounds") {
		t.Errorf("%v, want both mistakes", err)
	}
}

// What vegeta does while it warms up is not counted, but for what goes wrong then; what comes after the end is not either.
func TestVegetasResultsAreCountedAfterTheWarmUp(t *testing.T) {
	csv := func(sent, latency time.Duration, status int) string {
		return fmt.Sprintf("%d,%d,%d,10,20,,,,0,POST,http://127.0.0.1:9/v1/play,\n", int64(1e18)+int64(sent), status, int64(latency))
	}
	const ms = time.Millisecond
	var m measured
	// They need not be in order.
	err := m.countVegeta(strings.NewReader(csv(250*ms, 100*ms, 200)+csv(0, ms, 200)+csv(100*ms, ms, 503)+csv(500*ms, ms, 200)+csv(1299*ms, 10*ms, 200)), 300*ms, time.Second)
	if err != nil || m.Done != 2 || m.Wrong != 1 || m.Seconds != 1 || m.Detail != "503" {
		t.Errorf("%+v, %v", m, err)
	}
	if err := new(measured).countVegeta(strings.NewReader("what?\n"), 0, 1); err == nil {
		t.Error("no error")
	}
}

// The whole benchmark, far too short to mean anything and without peers: every figure of ours is there, no answer is wrong, and
// what is missing is said.
func TestPlayStarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes for half a minute")
	}
	r, err := playStarts(t.Context(), Options{Seconds: minSeconds, Rounds: minRounds, Peers: t.TempDir()})
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("%v, want %v: there are no peers", err, ErrInvalid)
	}
	for _, f := range r.Figures {
		peer := strings.HasPrefix(f.Key, "vegeta_") || strings.HasPrefix(f.Key, "k6_")
		if f.Missing != peer || !peer && (f.Median <= 0 || f.Wrong+f.Dropped > 0) {
			t.Errorf("%+v", *f)
		}
	}
	if len(r.Problems) != 2 || !strings.Contains(strings.Join(r.Problems, ""), "make setup-peers") {
		t.Errorf("problems %q, want the two peers", r.Problems)
	}
	var top map[string]any
	var out bytes.Buffer
	if err := r.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &top); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"bare_per_s", "generator_per_s", "ratio", "service_per_s", "service_ratio", "service_pipelined_per_s",
		"bare_pipelined_per_s", "bare_accept_per_s", "fresh_tcp_per_s", "fresh_ratio", "bare_tls_per_s", "fresh_tls_per_s", "fresh_tls_ratio"} {
		if v, ok := top[key].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v", key, top[key])
		}
	}
	for _, key := range []string{"vs_vegeta", "vs_k6"} {
		if v, ok := top[key]; !ok || v != nil {
			t.Errorf("%s is %v, want null", key, v)
		}
	}
}

func TestPeersGetTheSameRequest(t *testing.T) {
	headers, body := split([]byte("POST /v1/play HTTP/1.1\r\nHost: x\r\nUser-Agent: tminus\r\nContent-Length: 2\r\n\r\n{}"))
	if string(body) != "{}" || headers.Get("User-Agent") != "tminus" || len(headers) != 1 {
		t.Errorf("%v %q", headers, body)
	}
}

func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	folder, err := peerFolder()
	if err != nil {
		t.Skip(err)
	}
	serverCore, clientCore, _, err := twoCores()
	if err != nil {
		t.Skip(err)
	}
	o := Options{Seconds: 0.5}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	request, err := recordRequest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range []string{vegeta, k6} {
		tool := filepath.Join(folder, peer)
		if _, err := os.Stat(tool); err != nil {
			t.Logf("%s is not installed: make setup-peers", peer)
			continue
		}
		ask := func(request []byte, check bool) (measured, error) {
			m := measurement{figure: &Figure{}, server: Part{Role: serviceServer, Core: serverCore},
				client: Part{Role: peer, Core: clientCore, Tool: tool, Procs: 1, GC: 100, Connections: 2, Request: request, Check: check}}
			return m.once(t.Context(), o, firstPort+8100)
		}
		for _, check := range []bool{false, true} {
			if got, err := ask(request, check); err != nil || got.Done == 0 || got.Wrong > 0 || got.Seconds <= 0 {
				t.Errorf("%s: %+v, %v", peer, got, err)
			}
			// A service that says no makes the figure worth nothing.
			unknown := bytes.Replace(request, []byte(title), []byte("no-such-way"), 1)
			if got, err := ask(unknown, check); err != nil || got.Wrong == 0 || got.Done > 0 {
				t.Errorf("%s with answers of 404: %+v, %v", peer, got, err)
			}
		}
	}
}
