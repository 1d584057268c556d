package k6

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.k6.io/k6/lib"
)

func TestOptionsAreReadStrictly(t *testing.T) {
	const service = `"services":[{"region":"us-east","url":"http://127.0.1.5:8080/v1/play"}],"title":"fight",`
	const other = `"services":[{"region":"us-east","url":"http://127.0.1.5:8080/session?v={{viewer}}"}],"rate":1,"for":"5s",`
	for _, tc := range []struct{ text, problem string }{
		{`{` + service + `"rate":100,"for":"5s"}`, ""},
		{`{` + service + `"starts":[{"at":"0s","rate":10},{"at":2000,"rate":50,"for":"1s","curve":"spike"}],"for":"1m","connections":{"kind":"fresh"},"people":{"human":0.3}}`, ""},
		{`{` + service + `"rate":100,"for":"5s","rates":3}`, `unknown field "rates"`},
		{`{` + service + `"rate":100,"starts":[{"rate":1}],"for":"5s"}`, "one of them"},
		{`{` + service + `"for":"5s"}`, "one of them"},
		{`{` + service + `"rate":100}`, "for: 0s"},
		{`{` + service + `"rate":100,"for":"five"}`, "is no duration"},
		{`{` + service + `"rate":"fast","for":"5s"}`, "rate: a string"},
		{`{` + service + `"rate":2000000,"for":"5s"}`, "outside 0 to 1e+06"},
		{`{"services":[{"region":"a","url":"127.0.1.5:8080"}],"rate":1,"for":"1s"}`, "none that begins with http"},
		{`{"services":[{"region":"a","url":"http://127.0.1.5/other"}],"rate":1,"for":"1s"}`, "want the playback service's address"},
		{`{"services":[{"region":"a","url":"http://127.0.1.5"},{"region":"a","url":"http://127.0.1.6"}],"rate":1,"for":"1s"}`, "twice"},
		{`{` + service + `"rate":100,"for":"5s","shard":{"i":4,"of":4}}`, "shard: 4 of 4"},
		{`{` + service + `"rate":-5,"for":"5s"}`, "rate: -5, want more than 0"},
		{`{"services":[{"region":"a","url":"http://127.0.1.5"}],"rate":1,"for":"1s"}`, "title: want the event's"},
		{`{` + other + `"request":{"method":"GET","session":"result.0.id"}}`, ""},
		{`{` + other + `"request":{"body":"{\"who\":\"{{viewer}}\"}","session":"id","headers":{"X-Event":"{{title}}"}}}`, ""},
		{`{` + other + `"request":{"method":"GET"}}`, "request: want session"},
		{`{` + other + `"request":{"body":"{{nobody}}","session":"id"}}`, "unknown variable {{nobody}}"},
		{`{` + other + `"request":{"path":"/x","session":"id"}}`, `unknown field "path"`},
		{`{` + other + `"title":"x"}`, "another play API needs request"},
		{`{"services":[{"region":"a","url":"http://127.0.1.5/x"},{"region":"b","url":"http://127.0.1.6/y"}],"rate":1,"for":"1s","request":{"session":"id"}}`, "the same path"},
		{`[]`, "want an object"},
		{`7`, "want an object"},
		{`{} {}`, "want one object"},
	} {
		var o startsOptions
		err := decode([]byte(tc.text), &o)
		if err == nil {
			err = o.check()
		}
		if err == nil {
			_, err = o.schedule()
		}
		if tc.problem == "" && err != nil || tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
			t.Errorf("%s: %v, want %q", tc.text, err, tc.problem)
		}
	}
}

// A load outside loopback has a ceiling of its own, consent or not; a ceiling that is set holds everywhere.
func TestLimits(t *testing.T) {
	const load = `"starts":[{"rate":100},{"at":"10s","rate":900,"for":"2s","curve":"spike"}],"for":"1m"`
	for _, tc := range []struct {
		limits    string
		near, far string // problem; "": none
	}{
		{``, "", "within limits alone"},
		{`,"limits":{}`, "", "within limits alone"},
		{`,"limits":{"rate":1000}`, "", "within limits alone"},
		{`,"limits":{"duration":"5m"}`, "", "within limits alone"},
		{`,"limits":{"rate":1000,"duration":"5m"}`, "", ""},
		{`,"limits":{"rate":900,"duration":60000}`, "", ""},
		{`,"limits":{"rate":899,"duration":"5m"}`, "peaks at 900", "peaks at 900"},
		{`,"limits":{"rate":1000,"duration":"59s"}`, "lasts 1m0s", "lasts 1m0s"},
		{`,"limits":{"rate":-1,"duration":"5m"}`, "a ceiling of -1", "a ceiling of -1"},
		{`,"limits":{"rate":2e6,"duration":"5m"}`, "a ceiling of 2e+06", "a ceiling of 2e+06"},
		{`,"limits":{"rate":1000,"duration":"25h"}`, "a ceiling of 25h", "a ceiling of 25h"},
	} {
		var o startsOptions
		if err := decode([]byte(`{`+load+tc.limits+`}`), &o); err != nil {
			t.Fatalf("%s: %v", tc.limits, err)
		}
		s, err := o.schedule()
		if err != nil {
			t.Fatal(err)
		}
		for far, want := range map[bool]string{false: tc.near, true: tc.far} {
			if err := o.limited(s, far); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s, far %v: %v, want %q", tc.limits, far, err, want)
			}
		}
	}
}

// A pod that outgrows its volume is evicted: what waits for Kafka stays a good deal smaller.
func TestSpoolFitsThePodsVolume(t *testing.T) {
	b, err := os.ReadFile("deploy/testrun.yaml")
	if err != nil {
		t.Fatal(err)
	}
	size := regexp.MustCompile(`sizeLimit: (\d+)Gi\b`).FindSubmatch(b)
	if size == nil {
		t.Fatal("deploy/testrun.yaml gives its volume no size in Gi")
	}
	if gib, err := strconv.Atoi(string(size[1])); err != nil || spoolBytes > (gib-1)<<30 {
		t.Errorf("a spool of %d bytes in a volume of %d GiB (%v): want 1 GiB to spare", int64(spoolBytes), gib, err)
	}
}

func TestZeroIsNotLongOver(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for at, ok := range map[string]bool{"": true, "2026-11-21T20:00:05Z": true, "2026-11-21T19:59:59.5Z": true, "2026-11-21T19:59:00Z": false, "tomorrow": false, "2027-11-21T20:00:05Z": false} {
		o := crowdOptions{At: at}
		if got, err := o.zero(now); (err == nil) != ok {
			t.Errorf("at %q: %v, %v", at, got, err)
		}
	}
}

// The k6 operator gives each of its pods an execution segment: that is its share of the crowd.
func TestShardFollowsTheExecutionSegment(t *testing.T) {
	segment := func(text, sequence string) lib.Options {
		var o lib.Options
		if text != "" {
			s, err := lib.NewExecutionSegmentFromString(text)
			if err != nil {
				t.Fatal(err)
			}
			o.ExecutionSegment = s
		}
		if sequence != "" {
			s, err := lib.NewExecutionSegmentSequenceFromString(sequence)
			if err != nil {
				t.Fatal(err)
			}
			o.ExecutionSegmentSequence = &s
		}
		return o
	}
	for _, tc := range []struct {
		name    string
		own     *shardOption
		env     string
		options lib.Options
		want    shard
		bad     string
	}{
		{"alone", nil, "", segment("", ""), shard{0, 1}, ""},
		{"first of four", nil, "", segment("0:1/4", "0,1/4,2/4,3/4,1"), shard{0, 4}, ""},
		{"last of four", nil, "", segment("3/4:1", "0,1/4,2/4,3/4,1"), shard{3, 4}, ""},
		{"third of three", nil, "", segment("2/3:1", "0,1/3,2/3,1"), shard{2, 3}, ""},
		{"the script's own word", &shardOption{1, 5}, "", segment("3/4:1", "0,1/4,2/4,3/4,1"), shard{1, 5}, ""},
		{"the environment's", nil, "2/7", segment("", ""), shard{2, 7}, ""},
		{"nonsense in the environment", nil, "7/2", segment("", ""), shard{}, "want i/of"},
		{"unequal", nil, "", segment("0:1/3", "0,1/3,1"), shard{}, "not of one size"},
		{"no sequence", nil, "", segment("0:1/3", ""), shard{}, "no sequence"},
	} {
		got, err := shardOf(tc.own, func(string) string { return tc.env }, tc.options)
		if got != tc.want || tc.bad == "" && err != nil || tc.bad != "" && (err == nil || !strings.Contains(err.Error(), tc.bad)) {
			t.Errorf("%s: %v, %v; want %v, %q", tc.name, got, err, tc.want, tc.bad)
		}
	}
	for n := range 30 {
		sum := 0
		for i := range 7 {
			sum += shard{i, 7}.part(n)
		}
		if sum != n {
			t.Errorf("the parts of %d add up to %d", n, sum)
		}
	}
}

func FuzzOptions(f *testing.F) {
	f.Add([]byte(`{"services":[{"region":"us-east","url":"http://127.0.1.5:8080/v1/play"}],"rate":100,"for":"5s","at":"2026-11-21T20:00:05Z"}`))
	f.Add([]byte(`{"starts":[{"at":1e300,"rate":-1,"for":"-5s","curve":"sinus","amplitude":1,"period":1}],"for":86400000,"people":{"after":-3}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o startsOptions
		if decode(b, &o) != nil || o.check() != nil {
			return
		}
		_, _ = o.zero(time.Unix(0, 0))
		_ = o.people().Validate()
		if s, err := o.schedule(); err == nil && (s.Total() == 0 || s.End() != time.Duration(o.For)) {
			t.Errorf("%s: a schedule of %d starts that ends at %v", b, s.Total(), s.End())
		}
	})
}
