package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func full() Event {
	return Event{
		Run: "r-1", Source: "region/us-east#2", Seq: 7,
		At:      time.Date(2026, 11, 21, 20, 0, 0, 123456000, time.UTC),
		Written: time.Date(2026, 11, 21, 20, 0, 1, 0, time.UTC),
		Kind:    Heartbeat, Status: "ok", Region: "us-east", Component: "edge/us-east/1", Session: "s-9", Device: "tv",
		ISP: "cable", Home: "us-west", Edge: "us-east-1", Rendition: "720p", Segment: 896421600, Fault: "region-1", State: "playing",
		Detail: "360p→720p \"fast\" \\ \n\t\x01", Value: 12.5, LagMS: 0.25, BufferMS: 6000, LatencyMS: 5200.75, PlayingMS: 1000,
		RebufferMS: 3, BitrateKbps: 3200, Bytes: 1 << 40, Attempts: 2, Nums: map[string]float64{"hits": 10, "misses": 1e-3},
	}
}

// every field of Event is set in full(), so a field that the codec forgets makes the round trip fail.
func TestFullSetsEveryField(t *testing.T) {
	v := reflect.ValueOf(full())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("full() leaves %s zero", v.Type().Field(i).Name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	want := full()
	line := Append(nil, &want)
	if !json.Valid(line) {
		t.Fatalf("not JSON: %s", line)
	}
	if bytes.ContainsRune(line, '\n') {
		t.Fatalf("a newline inside a line: %q", line)
	}
	var got Event
	if err := new(Decoder).Decode(line, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRoundTripOfAnyEvent(t *testing.T) {
	var d Decoder
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 100, MaxString)
		float := rapid.Float64()
		when := func(label string) time.Time {
			if rapid.Bool().Draw(t, label+" none") {
				return time.Time{}
			}
			return time.UnixMicro(rapid.Int64Range(-2208988800_000000, 10413791999_999999).Draw(t, label)).UTC()
		}
		want := Event{
			Run: text.Draw(t, "run"), Source: text.Draw(t, "source"), Seq: rapid.Uint64().Draw(t, "seq"), At: when("at"), Written: when("written"),
			Kind: Kind(text.Draw(t, "kind")), Status: text.Draw(t, "status"), Region: text.Draw(t, "region"), Component: text.Draw(t, "component"),
			Session: text.Draw(t, "session"), Device: text.Draw(t, "device"), ISP: text.Draw(t, "isp"), Home: text.Draw(t, "home"), Edge: text.Draw(t, "edge"),
			Rendition: text.Draw(t, "rendition"), Segment: rapid.Uint64().Draw(t, "segment"), Fault: text.Draw(t, "fault"), State: text.Draw(t, "state"),
			Detail: text.Draw(t, "detail"), Value: float.Draw(t, "value"), LagMS: float.Draw(t, "lag"), BufferMS: float.Draw(t, "buffer"),
			LatencyMS: float.Draw(t, "latency"), PlayingMS: float.Draw(t, "playing"), RebufferMS: float.Draw(t, "rebuffer"),
			BitrateKbps: float.Draw(t, "bitrate"), Bytes: rapid.Uint64().Draw(t, "bytes"), Attempts: rapid.Uint32().Draw(t, "attempts"),
		}
		if n := rapid.MapOfN(rapid.StringN(0, 20, 100), float, 0, MaxNums).Draw(t, "nums"); len(n) > 0 {
			want.Nums = n
		}
		line := Append(nil, &want)
		var got Event
		if err := d.Decode(line, &got); err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if again := Append(nil, &got); !bytes.Equal(line, again) {
			t.Fatalf("encoded again:\n%s\n%s", line, again)
		}
	})
}

func TestAppendCutsWhatIsTooLong(t *testing.T) {
	e := Event{Kind: Fault, Region: strings.Repeat("é", MaxString), Detail: strings.Repeat("\x00", 10*MaxDetail), Nums: map[string]float64{}}
	for i := range 2 * MaxNums {
		e.Nums[strings.Repeat("k", i+1)] = 1
	}
	line := Append(nil, &e)
	var got Event
	if err := new(Decoder).Decode(line, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Region) > MaxString || len(got.Detail) != MaxDetail || len(got.Nums) != MaxNums {
		t.Errorf("kept %d, %d bytes and %d numbers", len(got.Region), len(got.Detail), len(got.Nums))
	}
}

func TestAppendLeavesOutWhatJSONCannotSay(t *testing.T) {
	e := Event{Value: math.NaN(), LagMS: math.Inf(1), At: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Nums: map[string]float64{"a": math.NaN()}}
	if got := string(Append(nil, &e)); got != `{"run":"","source":"","seq":0,"nums":{}}` {
		t.Errorf("got %s", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":             ``,
		"a list":              `[]`,
		"half an object":      `{"run":"a"`,
		"half a string":       `{"run":"a`,
		"trailing text":       `{"run":"a"} x`,
		"two objects":         `{"run":"a"}{"run":"b"}`,
		"an unknown key":      `{"colour":"red"}`,
		"a repeated key":      `{"run":"a","run":"b"}`,
		"a wrong type":        `{"run":1}`,
		"a negative seq":      `{"seq":-1}`,
		"seq past 64 bits":    `{"seq":18446744073709551616}`,
		"a fraction":          `{"seq":1.5}`,
		"attempts past 32":    `{"attempts":4294967296}`,
		"a number like 01":    `{"value":01}`,
		"infinity":            `{"value":1e999}`,
		"a word":              `{"value":NaN}`,
		"null":                `{"run":null}`,
		"31 February":         `{"at":"2026-02-31T00:00:00.000000Z"}`,
		"a zone":              `{"at":"2026-02-01T00:00:00.000000+1"}`,
		"year 1":              `{"at":"0001-02-01T00:00:00.000000Z"}`,
		"a raw newline":       "{\"run\":\"a\nb\"}",
		"not UTF-8":           "{\"run\":\"\xff\"}",
		"a long string":       `{"region":"` + strings.Repeat("x", MaxString+3) + `"}`,
		"a long line":         `{"detail":"` + strings.Repeat("x", MaxLine) + `"}`,
		"a broken escape":     `{"run":"\x"}`,
		"a trailing comma":    `{"run":"a",}`,
		"a deep object":       `{"nums":{"a":{}}}`,
		"a repeated number":   `{"nums":{"a":1,"a":2}}`,
		"a backslash at last": `{"run":"\`,
	} {
		var e Event
		err := new(Decoder).Decode([]byte(line), &e)
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, e)
		} else if !errors.Is(err, ErrWire) {
			t.Errorf("%s: %v does not wrap ErrWire", name, err)
		}
	}
}

// FuzzDecode: no input panics; what is accepted is JSON, and is the same event after a second round.
func FuzzDecode(f *testing.F) {
	e := full()
	f.Add(Append(nil, &e))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"nums":{"a":1e5,"":-0.1}}`))
	f.Add([]byte(`{"run":"\ud800\u0041\"","at":"2026-11-21T00:00:00.000001Z"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var d Decoder
		var first, second Event
		if err := d.Decode(line, &first); err != nil {
			return
		}
		if !json.Valid(line) {
			t.Fatalf("accepted what is not JSON: %q", line)
		}
		once := Append(nil, &first)
		if err := d.Decode(once, &second); err != nil {
			t.Fatalf("%v\n%q", err, once)
		}
		if twice := Append(nil, &second); !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s", once, twice)
		}
	})
}

func TestTimesAreWrittenAsTheLayoutSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(minMicro/1e6-1000, endMicro/1e6+1000).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
		want := ""
		if y := at.UTC().Year(); y >= minYear && y <= maxYear {
			want = at.UTC().Format(`"` + timeLayout + `"`)
		}
		if got := string(appendTime(nil, `"`, at)); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
	for day := time.Date(minYear, 1, 1, 12, 0, 0, 0, time.UTC); day.Year() <= maxYear; day = day.AddDate(0, 0, 1) {
		if got, want := string(appendTime(nil, `"`, day)), day.Format(`"`+timeLayout+`"`); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
}

func TestNumbersReadBackExactly(t *testing.T) {
	var d Decoder
	check := func(f float64) {
		t.Helper()
		line := append(appendNumber([]byte(`{"bitrate_kbps":`), f), '}')
		var e Event
		if err := d.Decode(line, &e); err != nil || e.BitrateKbps != f {
			t.Fatalf("%v became %v (%s), %v", f, e.BitrateKbps, line, err)
		}
		var std struct{ Bitrate_kbps float64 }
		if err := json.Unmarshal(line, &std); err != nil || std.Bitrate_kbps != f {
			t.Fatalf("%v became %v (%s), %v", f, std.Bitrate_kbps, line, err)
		}
	}
	for _, f := range []float64{0, 1, -1, 0.1, 0.000001, 0.0000001, 1e15, 1 << 53, 1<<53 + 2, 1e21, 9007199254.740992, 9007199254.740993, -0.000001, math.MaxFloat64, math.SmallestNonzeroFloat64, 5e-7, 1.5e-6} {
		check(f)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(rapid.Float64().Draw(t, "any"))
		check(float64(rapid.Int64Range(-1e18, 1e18).Draw(t, "ns")) / 1e6)
	})
}

// A play start's times are whole microseconds; 40 ns of a lag are not.
func TestPlayStartsAreWrittenToTheMicrosecond(t *testing.T) {
	e := Event{Kind: PlayStart, Value: 12.3456789, LagMS: 0.00004}
	if got := string(AppendBody(nil, &e)); got != `,"kind":"play_start","value":12.346}` {
		t.Error(got)
	}
	e.Kind = FirstFrame
	if got := string(AppendBody(nil, &e)); got != `,"kind":"first_frame","value":12.3456789,"lag_ms":0.00004}` {
		t.Error(got)
	}
}

func TestAliasedStringsAreTheLine(t *testing.T) {
	line := []byte(`{"session":"abc","detail":"why","region":"us-east"}`)
	d := Decoder{Alias: true}
	var e Event
	if err := d.Decode(line, &e); err != nil {
		t.Fatal(err)
	}
	copy(line, bytes.ToUpper(line))
	if e.Session != "ABC" || e.Detail != "WHY" || e.Region != "us-east" {
		t.Errorf("%+v", e)
	}
}

// playStart is an event as the open-loop crowd writes it: the kind that there are millions of.
func playStart() Event {
	at := time.Date(2026, 11, 21, 20, 0, 0, 123456789, time.UTC)
	return Event{Run: "20261121-200000-title-fight-1f2e", Source: "conductor#1", Seq: 1234567, At: at, Written: at.Add(1850 * time.Microsecond),
		Kind: PlayStart, Status: "ok", Region: "us-east", Component: "starts", Session: "aebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4",
		Device: "tv", ISP: "fibre-1", Home: "us-east", Edge: "us-east", Value: 1.823517, LagMS: 0.104219, Attempts: 1}
}

func BenchmarkAppendPlayStart(b *testing.B) {
	e := playStart()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], &e)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodePlayStart(b *testing.B) {
	e := playStart()
	line := Append(nil, &e)
	d := Decoder{Alias: true}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(line, &e); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(line)))
}

func BenchmarkAppend(b *testing.B) {
	e := full()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Append(buf[:0], &e)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecode(b *testing.B) {
	e := full()
	line := Append(nil, &e)
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(line, &e); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(line)))
}
