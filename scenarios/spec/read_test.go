package spec_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos"
	"github.com/tminus-live/tminus/scenarios/library"
	"github.com/tminus-live/tminus/scenarios/spec"
	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/wire/sessions"
)

var update = flag.Bool("update", false, "write the golden files")

const s = time.Second

const titleFight = `apiVersion: tminus/v1
name: title-fight
seed: 7
event:     {duration: 90s, ladder: sports}
topology:
  regions: [us-east, us-west]
  edges:   {us-east: 2, us-west: 3}
audience:
  mix:     mobile-heavy
  starts:                       # open loop: play starts a second
    - {at: 0s,  rate: 500}
    - {at: 15s, rate: 100000.5, for: 5s, curve: ramp}
  players: 100
faults:
  - {at: 30s, for: 20s, fail: region, where: us-east}
  - {at: 55s, for: 20s, fail: region, where: us-east, model: cut}
objectives:
  startup_time:               ["p(95)<2s", "p(99.9) <= 2500ms"]
  video_start_failures:       ["rate<0.1%"]
  edge_switches:              ["count==0"]
  bitrate:                    ["min>1.5Mb/s"]
  'live_latency{region=us-west, device=tv, from=20s, to=1m}': ["p(95)<12s"]
`

func TestRead(t *testing.T) {
	got, err := spec.Read("title-fight.yaml", []byte(titleFight), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &spec.Scenario{
		APIVersion: "tminus/v1", Name: "title-fight", Seed: 7,
		Event:    spec.Event{Duration: 90 * s, Ladder: "sports"},
		Topology: spec.Topology{Regions: []string{"us-east", "us-west"}, Edges: map[string]int{"us-east": 2, "us-west": 3}},
		Playback: spec.Playback{GuidedBackoff: true, Tokens: true},
		Audience: spec.Audience{Mix: "mobile-heavy", Players: 100, Starts: []spec.Start{
			{Rate: 500, Curve: "constant"},
			{At: 15 * s, Rate: 100000.5, For: 5 * s, Curve: "ramp"},
		}},
		Faults: []spec.Fault{
			{ID: "region-1", At: 30 * s, For: 20 * s, Fail: "region", Where: "us-east", Model: "crash", Seed: 7},
			{ID: "region-2", At: 55 * s, For: 20 * s, Fail: "region", Where: "us-east", Model: "cut", Seed: 7},
		},
		Objectives: []spec.Objective{
			{Metric: "startup_time", Expression: "p(95)<2s", Aggregate: "p", Quantile: 95, Op: "<", Threshold: 2},
			{Metric: "startup_time", Expression: "p(99.9) <= 2500ms", Aggregate: "p", Quantile: 99.9, Op: "<=", Threshold: 2.5},
			{Metric: "video_start_failures", Expression: "rate<0.1%", Aggregate: "rate", Op: "<", Threshold: 0.1},
			{Metric: "edge_switches", Expression: "count==0", Aggregate: "count", Op: "=="},
			{Metric: "bitrate", Expression: "min>1.5Mb/s", Aggregate: "min", Op: ">", Threshold: 1500},
			{Metric: "live_latency", Expression: "p(95)<12s", Aggregate: "p", Quantile: 95, Op: "<", Threshold: 12,
				Where: map[string]string{"region": "us-west", "device": "tv"}, WhereText: "region=us-west, device=tv, from=20s, to=1m", From: 20 * s, To: time.Minute},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

const storm = `apiVersion: tminus/v1
name: storm
event:    {duration: 90s}
topology: {regions: [east, west]}
playback: {capacity: 20000, guidedBackoff: true}
audience:
  starts:
    - {at: 0s, curve: csv, file: friday.csv, for: 20s}
    - {at: 20s, curve: sinus, rate: 500, amplitude: 200, period: 10s}
  connections:   {kind: keep-alive, perService: 32, inFlight: 8}
  people:        {human: 30%, again: 80%, after: 2s, presses: 4, patience: 12s}
  interruptions:
    - {at: 30s, region: east, viewers: 20000}
    - {at: 60s, region: west, viewers: 10000, guided: false}
limits: {rate: 120000, duration: 2m}
objectives: {video_start_failures: ["rate<0.1%"]}
`

func TestReadTheCrowd(t *testing.T) {
	curve := []byte("0,100\n10,500\n20,100\n")
	got, err := spec.Read("storm.yaml", []byte(storm), func(name string) ([]byte, error) {
		if name != "friday.csv" {
			return nil, os.ErrNotExist
		}
		return curve, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Audience{
		Mix: audience.DefaultMix,
		Starts: []spec.Start{
			{For: 20 * s, Curve: "csv", File: "friday.csv", Points: []audience.Point{{Rate: 100}, {At: 10 * s, Rate: 500}, {At: 20 * s, Rate: 100}}},
			{At: 20 * s, Rate: 500, Curve: "sinus", Amplitude: 200, Period: 10 * s},
		},
		Connections: spec.Connections{Kind: spec.KeepAlive, PerService: 32, InFlight: 8},
		People:      audience.People{Human: 0.3, Again: 0.8, After: 2 * s, Presses: 4, Patience: 12 * s},
		Interruptions: []spec.Interruption{
			{At: 30 * s, Region: "east", Viewers: 20000, Guided: true},
			{At: 60 * s, Region: "west", Viewers: 10000},
		},
	}
	if !reflect.DeepEqual(got.Audience, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got.Audience, want)
	}
	if got.Playback != (spec.Playback{Capacity: 20000, GuidedBackoff: true, Tokens: true}) || got.Limits != (spec.Limits{Rate: 120000, Duration: 2 * time.Minute}) {
		t.Errorf("got %+v, %+v", got.Playback, got.Limits)
	}
	for _, tc := range []struct{ old, new, want string }{
		{"friday.csv, for", "../friday.csv, for", `f:8:34: audience.starts[0].file: want the name of a file beside the scenario, without a folder, got "../friday.csv"`},
		{"friday.csv, for", "monday.csv, for", `f:8:34: audience.starts[0].file: cannot read monday.csv: file does not exist`},
		{"friday.csv, for", "torn.csv, for", `f:8:34: audience.starts[0].file: torn.csv:2: "ten" is neither a number of seconds nor a time such as 2026-11-21T19:58:00Z`},
		{"curve: csv, file", "rate: 5, file", `f:8:31: audience.starts[0].file: only the curve csv has a file`},
		{", amplitude: 200", "", `f:9:7: audience.starts[1].amplitude: missing: how far the rate swings up and down, play starts a second`},
		{"amplitude: 200", "amplitude: 501", `f:9:53: audience.starts[1].amplitude: the rate would fall below 0: at most 500`},
		{"keep-alive", "fresh", `f:10:58: audience.connections.inFlight: a fresh connection carries one play start: leave out inFlight, or keep connections alive`},
		{"keep-alive", "keepalive", `f:10:25: audience.connections.kind: unknown kind of connections "keepalive"; did you mean "keep-alive"?`},
		{"30%", "0.3", `f:11:26: audience.people.human: want a percentage from 0% to 100%, such as 30%, got the number 0.3`},
		{"region: east, v", "region: eats, v", `f:13:25: audience.interruptions[0].region: unknown region "eats"; did you mean "east"?`},
		{"at: 60s", "at: 95s", `f:14:12: audience.interruptions[1].at: the interruption begins at 1m35s, but the event lasts 1m30s`},
		{"guided: false}", "guided: no}", `f:14:55: audience.interruptions[1].guided: want true or false, got the text "no"`},
		{"duration: 2m", "duration: 1m", `f:3:22: event.duration: 1m30s is beyond the limit of 1m that this scenario sets itself`},
		{"rate: 120000", "rate: 600", `f:8:5: audience.starts: they peak at 700 a second, beyond the limit of 600 that this scenario sets itself`},
	} {
		_, err := spec.Read("f", []byte(strings.Replace(storm, tc.old, tc.new, 1)), func(name string) ([]byte, error) {
			switch name {
			case "monday.csv":
				return nil, errors.New("file does not exist")
			case "torn.csv":
				return []byte("0,100\nten,100\n"), nil
			}
			return curve, nil
		})
		if fmt.Sprint(err) != tc.want {
			t.Errorf("%s → %s: got\n%v\nwant\n%s", tc.old, tc.new, err, tc.want)
		}
	}
}

func TestReadAForecast(t *testing.T) {
	src := `apiVersion: tminus/v1
name: launch
event: {duration: 60s}
topology: {regions: [east, west]}
playback: {instance: 500, lead: 10s}
audience:
  forecast: {kind: launch, viewers: 100000, from: -30s, past: past.csv}
  starts: [{at: 0s, curve: forecast, times: 2}]
objectives: {video_start_failures: ["rate<0.1%"]}
`
	files := map[string]string{"past.csv": "name,kind,total,expected\nspring,launch,90000,80000\n", "torn.csv": "name,kind,total\nspring,lunch,90000\n"}
	read := func(src string) (*spec.Scenario, error) {
		return spec.Read("f", []byte(src), func(name string) ([]byte, error) {
			if b, ok := files[name]; ok {
				return []byte(b), nil
			}
			return nil, errors.New("file does not exist")
		})
	}
	sc, err := read(src)
	if err != nil {
		t.Fatal(err)
	}
	f := sc.Audience.Forecast
	if f.Result == nil || f.Result.Learnt != 1 || f.From != -30*s || len(f.Curve) == 0 || sc.Playback.Instance != 500 || sc.Playback.Lead != 10*s {
		t.Fatalf("forecast %+v, playback %+v", f, sc.Playback)
	}
	schedule, err := sc.Audience.Schedule(sc.Event.Duration)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := schedule.Rate(30*s-time.Millisecond), 2*f.Result.Rate(-time.Millisecond).P50; math.Abs(got-want) > want/100 {
		t.Errorf("%.0f a second as the event begins, want twice the forecast's %.0f", got, want/2)
	}
	for _, tc := range []struct{ old, new, want string }{
		{"kind: launch", "kind: lunch", `f:7:20: audience.forecast.kind: unknown kind of event "lunch"; did you mean "launch"?`},
		{"past.csv", "torn.csv", `f:7:63: audience.forecast.past: torn.csv:2: unknown kind of event "lunch"; the kinds are title-fight, league-match, launch, concert, premiere`},
		{"from: -30s", "from: soon", `f:7:51: audience.forecast.from: want when the rehearsal begins, seen from the event's start, such as -2m, got "soon"`},
		{"{instance: 500, lead: 10s}", "{lead: 10s}", `f:5:18: playback.lead: only instances have a lead time`},
		{"instance: 500", "capacity: 9, instance: 500", `f:5:22: playback.capacity: instances make the capacity: leave out one of the two`},
		{"curve: forecast, times: 2", "rate: 5, times: 2", `f:8:37: audience.starts[0].times: only the curve forecast comes so many times as large`},
	} {
		if _, err := read(strings.Replace(src, tc.old, tc.new, 1)); fmt.Sprint(err) != tc.want {
			t.Errorf("%s → %s: got\n%v\nwant\n%s", tc.old, tc.new, err, tc.want)
		}
	}
	without := strings.Replace(src, "  forecast: {kind: launch, viewers: 100000, from: -30s, past: past.csv}\n", "", 1)
	if _, err := read(without); err == nil || !strings.Contains(err.Error(), "needs a forecast") {
		t.Errorf("a forecast's curve without a forecast: %v", err)
	}
}

func TestReadAPlayAPI(t *testing.T) {
	src := `apiVersion: tminus/v1
name: theirs
event: {duration: 90s}
audience: {starts: [{at: 0s, rate: 5}]}
target:
  play:
    url: http://127.0.0.1:9000/session
    headers: {X-Title: "{{title}}", Content-Type: application/json}
    body: '{"who":"{{viewer}}","on":"{{device}}"}'
    session: data.id
  consent: abc
objectives: {video_start_failures: ["rate<0.1%"]}
`
	got, err := spec.Read("theirs.yaml", []byte(src), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &spec.Target{Consent: "abc", Play: &spec.Play{Method: "POST", URL: "http://127.0.0.1:9000/session", Session: "data.id",
		Headers: []spec.Header{{"X-Title", "{{title}}"}, {"Content-Type", "application/json"}}, Body: `{"who":"{{viewer}}","on":"{{device}}"}`}}
	if !reflect.DeepEqual(got.Target, want) || !got.Target.Loopback() {
		t.Errorf("got %+v, want %+v", got.Target.Play, want.Play)
	}
	var manyHeaders strings.Builder
	for i := range 64 {
		fmt.Fprintf(&manyHeaders, "H%d: x, ", i)
	}
	piped := strings.NewReplacer("http:", "https:", "rate: 5}]", "rate: 5}], connections: {inFlight: 2}").Replace(src)
	if _, err := spec.Read("f", []byte(piped), nil); fmt.Sprint(err) != `f:7:5: target.play: over https a connection carries one request at a time: leave out audience.connections.inFlight` {
		t.Error(err)
	}
	for _, tc := range []struct{ old, new, want string }{
		{"{{device}}", "{{devise}}", `f:9:11: target.play.body: unknown variable {{devise}}; did you mean "device"?`},
		{"{{device}}", "{{token}}", `f:9:11: target.play.body: unknown variable {{token}}; want one of viewer, device, isp, region, title, number`},
		{"X-Title:", "Host:", `f:7:5: target.play: the header Host is the generator's own`},
		{"X-Title:", "User-Agent:", `f:7:5: target.play: the header User-Agent is the generator's own`},
		{"X-Title: \"{{title}}\"", manyHeaders.String() + "X-Title: x", `f:7:5: target.play: 66 headers, at most 64`},
		{"{{title}}", `a\rb`, `f:7:5: target.play: the value of X-Title is not one line of text`},
		{"{{device}}", "{{device", `f:7:5: target.play: {{ without }} before "device\"}"`},
		{"/session", "/sessión", `f:7:5: target.play: the URL "http://127.0.0.1:9000/sessión" has characters that must be percent-encoded`},
		{"{starts: [{at: 0s, rate: 5}]}", "{starts: [{at: 0s, rate: 5}], connections: {kind: fresh-tls}}", `f:7:5: target.play: connections of the kind fresh-tls need an https URL`},
		{"http://127.0.0.1:9000/session", "http://127.0.0.1:9000/{{number}}/{{isp}}", "<nil>"},
		{"    session: data.id\n", "", `f:7:5: target.play.session: missing: where the answer has the session, such as data.session.id`},
		{"{starts: [{at: 0s, rate: 5}]}", "{starts: [{at: 0s, rate: 5}], players: 3}", `f:4:50: audience.players: players need a stream: give the target's manifest, or leave them out`},
	} {
		if _, err := spec.Read("f", []byte(strings.Replace(src, tc.old, tc.new, 1)), nil); fmt.Sprint(err) != tc.want {
			t.Errorf("%s → %s: got\n%v\nwant\n%s", tc.old, tc.new, err, tc.want)
		}
	}
}

const least = `apiVersion: tminus/v1
name: least
event: {duration: 10s}
topology: {regions: [here]}
audience: {players: 1}
objectives: {startup_time: ["p(95)<2s"]}
`

func TestWhatIsLeftOutIsFilled(t *testing.T) {
	got, err := spec.Read("least.yaml", []byte(least), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Seed != 1 || got.Event.Ladder != "sports" || got.Audience.Mix != "broadband-tv-heavy" || got.Topology.Edges["here"] != 2 || got.Target != nil {
		t.Errorf("%+v", got)
	}
}

// Without a full player there is still all that the play starts bring, at the address of the playback service that took them.
func TestPlayStartsAloneAreJudged(t *testing.T) {
	for _, objectives := range []string{
		`send_lag: ["p(99)<10ms"]`, `play_starts_on_time: ["rate>99%"]`, `retry_amplification: ["avg<2"]`, `play_starts_per_second: ["min>10"]`, `load_amplification: ["max<2"]`,
		`play_start_time: ["p(95)<2s"]`, `video_start_failures: ["rate<1%"]`, `telemetry_loss: ["rate==0%"]`, `'send_lag{edge=127.0.1.5:8080}': ["p(99)<10ms"]`,
	} {
		src := strings.NewReplacer("players: 1", "starts: [{at: 0s, rate: 1}]", `startup_time: ["p(95)<2s"]`, objectives).Replace(least)
		if _, err := spec.Read("f", []byte(src), nil); err != nil {
			t.Errorf("%s: %v", objectives, err)
		}
	}
}

func TestEveryMistakeIsReportedAtItsPlace(t *testing.T) {
	mistakes, err := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = spec.Read("testdata/mistakes.yaml", mistakes, nil)
	var all *spec.Errors
	if !errors.As(err, &all) {
		t.Fatalf("error %v, want *spec.Errors", err)
	}
	got := err.Error() + "\n"
	golden := filepath.Join("testdata", "mistakes.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The places do not depend on how lines end, nor on a byte order mark.
	unix, _ := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	for _, src := range []string{strings.ReplaceAll(string(unix), "\n", "\r\n"), "\ufeff" + string(unix)} {
		_, err := spec.Read("testdata/mistakes.yaml", []byte(src), nil)
		if err == nil || err.Error()+"\n" != string(want) {
			t.Errorf("got\n%v\nfor\n%.30q…", err, src)
		}
	}
	// Each column points into its line at something the problem is about.
	src, _ := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	lines := strings.Split(string(src), "\n")
	for _, p := range all.Problems {
		if p.Line > len(lines) || p.Col > len(lines[p.Line-1]) || lines[p.Line-1][p.Col-1] == ' ' {
			t.Errorf("nothing stands at %d:%d", p.Line, p.Col)
		}
	}
}

// with replaces one piece of the smallest scenario.
func with(old, new string) string { return strings.Replace(least, old, new, 1) }

func kindsOfFault() string {
	var names []string
	for _, k := range chaos.Catalogue() {
		names = append(names, k.Fail)
	}
	return strings.Join(names, ", ")
}

func TestOneMistake(t *testing.T) {
	target := with("topology: {regions: [here]}", "target: {manifest: %q}")
	for _, tc := range []struct{ name, src, want string }{
		{"flow over lines", with("{players: 1}", "{\n  # how many?\n  players: many, # too many\n  mix: 'mobile-heavy'\n}"), `f:7:12: audience.players: want a whole number, got the text "many"`},
		{"after quotes over lines", with("name: least", "name: \"lea\\\n  st\"") + "x: 1\n", `f:8:1: x: unknown key; want one of apiVersion, name, seed, event, topology, playback, audience, limits, target, faults, experiment, objectives`},
		{"wide characters", with("{players: 1}", "{'größe': 1, players: 1}"), `f:5:12: audience.größe: unknown key; want one of mix, starts, players, playersWithin, connections, people, forecast, interruptions`},
		{"after wide characters", with("{players: 1}", "{mix: '日本', players: -1}"), "f:5:17: audience.mix: unknown mix \"日本\"; want one of broadband-tv-heavy, mobile-heavy, browser-heavy, even\nf:5:32: audience.players: want a whole number from 0 to 5000, got -1"},
		{"empty", "", `f:1:1: the file holds no scenario; it must start with apiVersion: tminus/v1`},
		{"only a comment", "# hello\n", `f:1:1: the file holds no scenario; it must start with apiVersion: tminus/v1`},
		{"a list", "- a\n", `f:1:1: want a mapping, got a list`},
		{"not YAML", least + "x: [1, 2\n", `f:7:4: not valid YAML: sequence end token ']' not found`},
		{"a tab", "event:\n\tduration: 1s\n", `f:2:1: not valid YAML: found character '	' that cannot start any token`},
		{"not UTF-8", "name: a\nseed: \xff\n", `f:2:1: this line is not UTF-8 text`},
		{"NUL", "name: a\n\nseed: \x00\n", `f:3:1: this line holds a NUL byte`},
		{"two documents", least + "---\nname: b\n", `f:8:1: a scenario file holds one document, this is a second one`},
		{"anchor", with("players: 1", "players: &n 1"), `f:5:21: anchors (&) are not allowed in a scenario`},
		{"alias", with("players: 1", "players: *n"), `f:5:21: aliases (*) are not allowed in a scenario`},
		{"tag", with("players: 1", "players: !!int 1"), `f:5:21: tags (!) are not allowed in a scenario`},
		{"explicit key", "? name\n: x\n", `f:1:1: explicit keys (?) are not allowed in a scenario`},
		{"nesting", with("[here]", strings.Repeat("[", 40)+strings.Repeat("]", 40)), `f:4:36: nested too deeply`},
		{"nested entries", strings.Repeat("- ", 40) + "x\n", `f:1:33: nested too deeply`},
		{"a huge file", strings.Repeat("#\n", spec.MaxBytes), `f:1:1: the file is larger than 1024 KiB`},
		{"a long file", strings.Repeat("a: 1\n", 10_000), `f:6667:4: the file is too long: more than 20000 YAML tokens`},
		{"null", with("{duration: 10s}", ""), `f:3:7: event: want a mapping, got nothing`},
		{"no topology", with("topology: {regions: [here]}\n", ""), `f:1:1: topology: missing: the regions of the reference pipeline, such as {regions: [us-east, us-west]}, or a target`},
		{"no regions", with("[here]", "[]"), `f:4:21: topology.regions: want at least one region`},
		{"nine regions", with("[here]", "[a, b, c, d, e, f, g, h, i]"), `f:4:21: topology.regions: 9 items, at most 8 are allowed`},
		{"too long", with("10s", "25h"), `f:3:19: event.duration: want a duration from 2s to 24h, got 25h`},
		{"too short", with("10s", "1s"), `f:3:19: event.duration: want a duration from 2s to 24h, got 1s`},
		{"negative", with("10s", "-10s"), `f:3:19: event.duration: want a duration from 2s to 24h, got -10s`},
		{"hex", with("players: 1", "players: 0x10"), `f:5:21: audience.players: want a whole number, got the number 0x10`},
		{"yes", with("players: 1", "players: true"), `f:5:21: audience.players: want a whole number, got true`},
		{"nobody", with("{players: 1}", "{}"), `f:5:11: audience: nobody comes: want starts, players or both`},
		{"no objectives", with(`{startup_time: ["p(95)<2s"]}`, "{}"), `f:6:13: objectives: want at least one objective: without any, every run would be a GO`},
		{"no URL", fmt.Sprintf(target, "live.mpd"), `f:4:20: target.manifest: want the http or https URL of a DASH or HLS manifest, got "live.mpd"`},
		{"a password", fmt.Sprintf(target, "http://u:p@127.0.0.1/a"), `f:4:20: target.manifest: leave the user and the password out of the URL`},
		{"target and topology", least + "target: {manifest: http://localhost/a.m3u8}\n", `f:4:11: topology: a target brings its own pipeline: leave out the topology`},
		{"target and starts", strings.Replace(fmt.Sprintf(target, "http://localhost/a.m3u8"), "players: 1", "starts: [{at: 0s, rate: 1}], players: 1", 1), `f:5:20: audience.starts: play starts need a play API: give the target one under target.play, or leave them out`},
		{"target and interruption", strings.Replace(fmt.Sprintf(target, "http://localhost/a.m3u8"), "players: 1", "interruptions: [{at: 3s, for: 2s, region: mars, viewers: 5}], players: 1", 1), `f:5:27: audience.interruptions: a target has no regions that viewers could lose: interruptions are of the reference pipeline`},
		{"target and fault", fmt.Sprintf(target, "http://localhost/a.m3u8") + "faults: [{at: 2s, for: 2s, fail: region, where: here}]\n", `f:7:34: faults[0].fail: region needs the reference pipeline: leave it out, or leave out the target`},
		{"nothing measures it", with("players: 1", "starts: [{at: 0s, rate: 1}]"), `f:6:14: objectives.startup_time: nothing would measure startup_time: it comes from full players, and the audience has none`},
		{"target by region", strings.Replace(fmt.Sprintf(target, "http://localhost/a.m3u8"), "startup_time", "'startup_time{region=a}'", 1), `f:6:14: objectives.startup_time{region=a}: a target has no regions to filter by`},
		{"a part past the end", strings.Replace(least, "startup_time", "'startup_time{from=5s, to=11s}'", 1), `f:6:14: objectives.startup_time{from=5s, to=11s}: to=11s lies past the end of the event, which lasts 10s`},
		{"a part of half seconds", strings.Replace(least, "startup_time", "'startup_time{from=1.5s}'", 1), `f:6:14: objectives.startup_time{from=1.5s}: want whole seconds such as from=15s, got "1.5s"`},
		{"a part without length", strings.Replace(least, "startup_time", "'startup_time{from=5s, to=5s}'", 1), `f:6:14: objectives.startup_time{from=5s, to=5s}: the part from 5s to 5s has no length`},
		{"a part of the whole", strings.Replace(least, "startup_time: [\"p(95)<2s\"]", "'telemetry_loss{from=5s}': [\"rate==0%\"]", 1), `f:6:14: objectives.telemetry_loss{from=5s}: telemetry_loss is known of the whole event only: leave out from`},
		{"legs overlap", with("{players: 1}", "{starts: [{at: 0s, rate: 1, for: 3s}, {at: 2s, rate: 1}], players: 1}"), `f:5:54: audience.starts[1].at: the leg before this one lasts until 3s`},
		{"a leg past the end", with("{players: 1}", "{starts: [{at: 8s, rate: 1, for: 3s}], players: 1}"), `f:5:44: audience.starts[0].for: the leg ends at 11s, but the event lasts 10s`},
		{"a fault past the end", least + "faults: [{at: 8s, for: 3s, fail: region, where: here}]\n", `f:7:24: faults[0].for: the fault ends at 11s, but the event lasts 10s`},
		{"a fault after the end", least + "faults: [{at: 10s, for: 3s, fail: region, where: here}]\n", `f:7:15: faults[0].at: the fault begins at 10s, but the event lasts 10s`},
		{"a fault too short to measure", least + "faults: [{at: 2s, for: 1s, fail: region, where: here}]\n", `f:7:24: faults[0].for: want a duration from 2s to 24h, got 1s`},
		{"a fault at once", least + "faults: [{at: 1900ms, for: 3s, fail: region, where: here}]\n", `f:7:15: faults[0].at: the fault begins at 1.9s: it has to be watched before it can be proven, so 2s at the earliest`},
		{"faults too close", strings.Replace(least, "10s", "60s", 1) + "faults:\n- {at: 5s, for: 5s, fail: region, where: here}\n- {at: 14s, for: 5s, fail: region, where: here}\n",
			`f:9:8: faults[1]: too close to the fault of "here" on line 8, which lasts from 5s to 10s: neither can be proven with less than 5s between them`},
		{"too many players", with("players: 1", "players: 5001"), `f:5:21: audience.players: want a whole number from 0 to 5000, got 5001`},
		{"no such rendition", with("startup_time", "'live_latency{rendition=v70}'"), `f:6:14: objectives.live_latency{rendition=v70}: unknown rendition "v70"; did you mean "v720"?`},
		{"nothing like a rendition", with("startup_time", "'live_latency{rendition=nope}'"), `f:6:14: objectives.live_latency{rendition=nope}: unknown rendition "nope"; want one of v360, v540, v720`},
		{"a fault of nothing of one's own", strings.Replace(least, "10s", "60s", 1) + "faults: [{at: 10s, for: 3s, fail: dns, where: resolver, model: {nxdomain: {name: a.b}}}]\n",
			`f:7:35: faults[0].fail: dns needs something of your own to break: declare it under target.own, or leave the fault out`},
		{"a fault of a rung that the ladder lacks", strings.Replace(least, "10s", "60s", 1) + "faults: [{at: 10s, for: 3s, fail: segments, where: here/edge-1, model: {missing: {rung: 999p}}}]\n",
			`f:7:83: faults[0].model.missing.rung: unknown rung "999p"; want one of v360, 360p, v540, 540p, v720, 720p, a-en, a-es`},
		{"a fault of a sound's pictures", strings.Replace(least, "10s", "60s", 1) + "faults: [{at: 10s, for: 3s, fail: segments, where: here/edge-1, model: {missing: {rung: v720, track: audio}}}]\n",
			`f:7:83: faults[0].model.missing.rung: unknown rung "v720"; want one of a-en, a-es`},
		{"a fault of a sound at an encoder", strings.Replace(least, "10s", "60s", 1) + "faults: [{at: 10s, for: 3s, fail: encoder, where: here/encoder, model: {frozen: {rung: a-en}}}]\n",
			`f:7:82: faults[0].model.frozen.rung: unknown rung "a-en"; want one of v360, 360p, v540, 540p, v720, 720p`},
		{"a fault of the future", least + "faults: [{at: 2s, for: 3s, fail: earthquake, where: here}]\n", `f:7:34: faults[0].fail: unknown kind of fault "earthquake"; want one of ` + kindsOfFault()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := spec.Read("f", []byte(tc.src), nil)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got\n%v\nwant\n%s", err, tc.want)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	for _, u := range []string{"http://localhost:8000/live.m3u8", "http://127.0.0.1/a.mpd", "https://127.250.3.9:8443/a.mpd", "http://[::1]:80/a.mpd", "http://LOCALHOST/a"} {
		got, err := spec.Read("f", []byte(with("topology: {regions: [here]}", "target: {manifest: '"+u+"'}")), nil)
		if err != nil || got.Target == nil || got.Target.Manifest != u || got.Event.Ladder != "" {
			t.Errorf("%s: %+v, %v", u, got, err)
		}
	}
}

func TestProblemsAreBounded(t *testing.T) {
	_, err := spec.Read("f", []byte(strings.Repeat("x", 100)+": 1\n"+manyKeys(3000)), nil)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 101 || !strings.HasSuffix(lines[100], "more problems") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	return b.String()
}

// What a fault may be is what chaos can inject: neither list is written down twice. Each example is one that can be used.
func TestEveryFaultOfTheCatalogueCanBeAskedFor(t *testing.T) {
	ours := strings.NewReplacer("10s", "120s", "[here]", "[us-east, us-west]").Replace(least)
	theirs := strings.Replace(ours, "topology: {regions: [us-east, us-west]}",
		"target: {manifest: 'http://127.0.0.1:9080/live.m3u8', own: {nginx: {address: '127.0.0.1:8080', relay: '127.0.0.1:9080'}, resolver: {address: '127.0.0.1:5353', relay: '127.0.0.1:9053', protocol: udp}}}", 1)
	for _, k := range chaos.Catalogue() {
		for i, m := range k.Models {
			src := ours
			if slices.Equal(k.On, []string{chaos.PartService}) {
				src = theirs
			}
			got, err := spec.Read("f", []byte(src+"faults: ["+m.Example+"]\n"), func(string) ([]byte, error) { return []byte("0001"), nil })
			if err != nil || got.Faults[0].Fail != k.Fail || got.Faults[0].Model != m.Name {
				t.Errorf("%s: %+v, %v", m.Example, got, err)
				continue
			}
			if f, err := got.Faults[0].Complete(); err != nil || !maps.Equal(f.Params, got.Faults[0].Params) {
				t.Errorf("%s: read as %v, completed to %v, %v", m.Example, got.Faults[0].Params, f.Params, err)
			}
			if !strings.Contains(m.Example, "model:") && i != 0 {
				t.Errorf("%s: an example of model %s that does not name it", m.Example, m.Name)
			}
		}
	}
}

// What the reader accepts, the injector and the crowd accept too.
func TestLimitsAreThoseOfWhoRunsIt(t *testing.T) {
	long := strings.Replace(least, "10s", "60s", 1)
	pair := func(gap time.Duration) string {
		return long + fmt.Sprintf("faults: [{at: 5s, for: 5s, fail: region, where: here}, {at: %s, for: 5s, fail: region, where: here}]\n", 10*s+gap)
	}
	for _, src := range []string{pair(chaos.MinApart), with("players: 1", fmt.Sprint("players: ", sessions.MaxPlayers))} {
		got, err := spec.Read("f", []byte(src), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := chaos.Preflight(got.Faults); err != nil {
			t.Error(err)
		}
	}
	for _, src := range []string{pair(chaos.MinApart - time.Millisecond), with("players: 1", fmt.Sprint("players: ", sessions.MaxPlayers+1))} {
		if _, err := spec.Read("f", []byte(src), nil); err == nil {
			t.Errorf("accepted:\n%s", src)
		}
	}
}

func TestLibrary(t *testing.T) {
	scenarios := map[string]*spec.Scenario{}
	for _, name := range library.Names() {
		src, err := library.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := spec.Read(name+".yaml", src, library.Beside)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if sc.Name != name {
			t.Errorf("%s.yaml calls itself %s", name, sc.Name)
		}
		scenarios[name] = sc
	}
	// The twins differ in what they are twins about and in nothing else.
	ready, unready, cut := scenarios["first-light"], scenarios["first-light-unprepared"], scenarios["first-light-cut"]
	if d := ready.Event.Duration; d < 60*s || d > 90*s || ready.Audience.Players != 40 || len(ready.Faults) != 1 {
		t.Errorf("first-light is not what it should be: %+v", ready)
	}
	unready.Name, unready.Topology = ready.Name, ready.Topology
	cut.Name, cut.Faults[0].Model = ready.Name, ready.Faults[0].Model
	if !reflect.DeepEqual(ready, unready) || !reflect.DeepEqual(ready, cut) {
		t.Error("the twins differ in more than their topology or the fault's model")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(titleFight))
	f.Add([]byte(least))
	mistakes, err := os.ReadFile(filepath.Join("testdata", "mistakes.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mistakes)
	f.Add([]byte("a: &a [x]\nb: &b [*a, *a]\n<<: {c: *b}\n"))
	f.Add([]byte("%YAML 1.2\n---\n? {a: 1}\n: !!map {b: |\n  text\n}\n...\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		sc, err := spec.Read("f", src, nil)
		if (sc == nil) == (err == nil) {
			t.Fatalf("scenario %v, error %v", sc, err)
		}
		if err == nil {
			if len(sc.Objectives) == 0 || sc.Event.Duration < spec.MinDuration || sc.Event.Duration > spec.MaxDuration ||
				(sc.Target == nil) == (len(sc.Topology.Regions) == 0) || len(sc.Topology.Edges) != len(sc.Topology.Regions) {
				t.Fatalf("accepted %+v", sc)
			}
			return
		}
		var all *spec.Errors
		if !errors.As(err, &all) || len(all.Problems) == 0 {
			t.Fatalf("error %v", err)
		}
		for _, p := range all.Problems {
			if p.File != "f" || p.Line < 1 || p.Col < 1 || p.Problem == "" || len(p.String()) > 2000 {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}

// A leg that would not be sent as it is written is a mistake, and a number with an exponent is a number.
func TestLegsAreSentAsTheyAreWritten(t *testing.T) {
	csv := func(string) ([]byte, error) { return []byte("0,1\n60,5\n"), nil }
	for leg, want := range map[string]string{
		"{at: 0s, rate: 10, curve: ramp}":                  "audience.starts[0].for: missing: how long the rate takes to get there",
		"{at: 0s, rate: 10, for: 5s, curve: ramp}":         "",
		"{at: 0s, curve: csv, file: c.csv}":                "audience.starts[0].file: the curve lasts until 1m, but the event until 10s",
		"{at: 0s, for: 5s, curve: csv, file: c.csv}":       "",
		"{at: 0s, rate: 1e3}":                              "",
		"{at: 0s, rate: 1e9}":                              "want a number from 0 to 1000000, got 1e9",
		`{at: 0s, rate: "1e3"}`:                            `want a number, got the text "1e3"`,
		"{at: 0s, for: 5s, curve: csv, file: two-bad.csv}": `two-bad.csv:3: "y" is neither`,
	} {
		open := csv
		if strings.Contains(leg, "two-bad") {
			open = func(string) ([]byte, error) { return []byte("0,1\nx,1\ny,1\n"), nil }
		}
		_, err := spec.Read("f", []byte(with("{players: 1}", "{starts: ["+leg+"], players: 1}")), open)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", leg, err, want)
		}
	}
}
