package chaos

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParameters(t *testing.T) {
	for _, c := range []struct {
		p     Parameter
		text  string
		want  float64
		wrong string // "": nothing
	}{
		{Parameter{Type: TypeShare}, "5%", .05, ""},
		{Parameter{Type: TypeShare}, "0.1%", .001, ""},
		{Parameter{Type: TypeShare}, "5", 0, `want a percentage such as 5%, got "5"`},
		{Parameter{Type: TypeShare}, "101%", 0, "101% is outside 0% to 100%"},
		{Parameter{Type: TypeShare}, "NaN%", 0, "want a percentage"},
		{Parameter{Type: TypeShare, Least: .01, Most: .5}, "60%", 0, "outside 1% to 50%"},
		{Parameter{Type: TypeDuration}, "250ms", .25, ""},
		{Parameter{Type: TypeDuration}, "-1s", 0, "outside 0s to 24h0m0s"},
		{Parameter{Type: TypeDuration}, "soon", 0, "want a duration such as 250ms"},
		{Parameter{Type: TypeOffset}, "-3s", -3, ""},
		{Parameter{Type: TypeWhole}, "3", 3, ""},
		{Parameter{Type: TypeWhole}, "3.5", 0, "want a whole number"},
		{Parameter{Type: TypeWhole, Least: 1, Most: 9}, "0", 0, "outside 1 to 9"},
		{Parameter{Type: TypeNumber}, "1e9", 0, "want a number"},
		{Parameter{Type: TypeRate}, "5Mbit", 5e6, ""},
		{Parameter{Type: TypeRate}, "800 kbit/s", 8e5, ""},
		{Parameter{Type: TypeRate}, "5MB", 0, "want a rate such as 5Mbit"},
		{Parameter{Type: TypeSize}, "64kB", 64000, ""},
		{Parameter{Type: TypeSize}, "64", 0, "want a size such as 64kB"},
		{Parameter{Type: TypeSwitch}, "true", 1, ""},
		{Parameter{Type: TypeSwitch}, "yes", 0, "want true or false"},
		{Parameter{Type: TypeWord, Words: []string{"up", "down"}}, "left", 0, `unknown word "left" (there is up, down)`},
		{Parameter{Type: TypeText}, strings.Repeat("x", 5000), 0, "5000 bytes"},
	} {
		err := c.p.Check(c.text)
		switch {
		case c.wrong == "" && err != nil, c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s %.20q: %v, want %q", c.p.Type, c.text, err, c.wrong)
		case c.wrong == "":
			if v, _ := amount(c.p.Type, c.text); math.Abs(v-c.want) > 1e-9*math.Abs(c.want) {
				t.Errorf("%s %q is %v, want %v", c.p.Type, c.text, v, c.want)
			}
		}
	}
}

func TestBoundsAreSaidAsAPersonWould(t *testing.T) {
	for _, c := range []struct {
		p    Parameter
		want string
	}{
		{Parameter{Type: TypeRate, Least: 16e3, Most: 1e12}, "16kbit to 1000Gbit"},
		{Parameter{Type: TypeRate, Least: 500, Most: 1e11}, "500bit to 100Gbit"},
		{Parameter{Type: TypeSize, Most: 1 << 30}, "0B to 1.07374GB"},
		{Parameter{Type: TypeDuration, Least: .001, Most: 60}, "1ms to 1m0s"},
		{Parameter{Type: TypeShare, Least: .001, Most: 1}, "0.1% to 100%"},
		{Parameter{Type: TypeWhole, Least: 400, Most: 599}, "400 to 599"},
		{Parameter{Type: TypeShare}, ""},
	} {
		if got := c.p.Bounds(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.p, got, c.want)
		}
	}
}

func TestGettersReadWhatWasWritten(t *testing.T) {
	f := Fault{Params: map[string]string{"loss": "5%", "delay": "-20ms", "rate": "2Mbit", "size": "1kB", "every": "3", "on": "true", "word": "up"}}
	if f.Share("loss") != .05 || f.Duration("delay") != -20*time.Millisecond || f.Rate("rate") != 2e6 || f.Size("size") != 1000 || f.Whole("every") != 3 || !f.Switch("on") || f.Text("word") != "up" {
		t.Errorf("%+v", f)
	}
	if f.Share("none") != 0 || f.Duration("none") != 0 || f.Switch("none") {
		t.Error("what is not there is zero")
	}
}

func TestCompleteFillsInAndComplainsOfEverything(t *testing.T) {
	m := Model{Name: "gilbert-elliott", Parameters: []Parameter{
		{Name: "loss", Type: TypeShare, Required: true, Summary: "share of packets lost"},
		{Name: "burst", Type: TypeNumber, Default: "3"},
		{Name: "trace", Type: TypeText},
	}}
	got, errs := m.complete(map[string]string{"loss": "5%"})
	if len(errs) != 0 || len(got) != 2 || got["loss"] != "5%" || got["burst"] != "3" {
		t.Errorf("%v, %v", got, errs)
	}
	_, errs = m.complete(map[string]string{"burst": "many", "los": "5%"})
	var all []string
	for _, err := range errs {
		all = append(all, err.Error())
	}
	equal(t, "complaints", all, []string{
		"loss is missing: share of packets lost", `burst: want a number such as 1.5, got "many"`,
		`unknown parameter "los" of model gilbert-elliott (there is loss, burst, trace)`,
	})
	if _, err := (Fault{ID: "region-1", Fail: "region", Params: map[string]string{"x": "1"}}).Complete(); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "fault region-1: unknown parameter") {
		t.Error(err)
	}
}

// What is wrong with parameters each of which is right by itself is said before anything runs.
func TestParametersFitTogether(t *testing.T) {
	for _, c := range []struct {
		fail, model string
		params      string // name=value, with blanks between them
		want        string // "": nothing is wrong
	}{
		{"packet-delay", "delay", "delay=20ms jitter=30ms", "jitter of 30ms needs a delay as long at least"},
		{"packet-delay", "delay", "delay=20ms reorder=true", "reorder needs a jitter"},
		{"packet-delay", "delay", "delay=20ms jitter=20ms reorder=true", ""},
		{"brown-out", "slow", "delay=20ms rate=30Mbit", "jitter of 30ms needs a delay as long at least"},
		{"brown-out", "slow", "rate=30Mbit", ""},
		{"packet-loss", "trace", "file=x", `trace x: 1:4: '2' is neither 0`},
		{"packet-loss", "gilbert-elliott", "loss=90% burst=2", "burst"},
		{"http", "status", "path=(", "path: error parsing regexp"},
		{"http", "status", "retry-after=10ms", "retry-after"},
		{"http", "latency", "delay=10ms jitter=20ms", "jitter of 20ms is not between 0 and the delay of 10ms"},
		{"segments", "missing", "live=nonsense", `live: "nonsense" is no position`},
		{"segments", "wrong-timestamp", "shift=0s", "a shift of 0s is nothing"},
		{"dns", "address", "name=a.b address=foo", `address: want an IPv4 address such as 127.9.9.9, got "foo"`},
		{"dns", "address", "name=a.b address=127.9.9.9", ""},
		{"dns", "silence", "name=.", `"." is no name`},
	} {
		f := Fault{ID: "it", Fail: c.fail, Model: c.model, Params: map[string]string{}, Files: map[string]string{"file": "0012"}}
		for _, p := range strings.Fields(c.params) {
			name, value, _ := strings.Cut(p, "=")
			f.Params[name] = value
		}
		_, err := f.Complete()
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), "fault it: ") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s %s: %v, want %q", c.fail, c.model, c.params, err, c.want)
		}
	}
}

func FuzzParameter(f *testing.F) {
	for _, s := range []string{"5%", "-3s", "5Mbit/s", "64kB", "1e400", "--1", "9999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []string{TypeShare, TypeDuration, TypeOffset, TypeWhole, TypeNumber, TypeRate, TypeSize, TypeSwitch} {
			if (Parameter{Type: kind}).Check(text) != nil {
				continue
			}
			least, most := bounds(kind)
			if v, ok := amount(kind, text); !ok || !(v >= least && v <= most) {
				t.Errorf("%s %q: %v, %v", kind, text, v, ok)
			}
		}
	})
}
