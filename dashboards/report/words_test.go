package report

import "testing"

func TestObjectiveWords(t *testing.T) {
	for _, c := range []struct {
		o                      Objective
		state, measured, limit string
		aggregate, margin      string
	}{
		{Objective{Expression: "p(95)<2s", Measured: 1.284, Threshold: 2, Unit: "s", Samples: 1, Pass: true}, Met, "1.28 s", "under 2 s", "95th percentile", "35 % to spare"},
		{Objective{Expression: "p(99.9) < 2s", Measured: 1.9996, Threshold: 2, Unit: "s", Samples: 1, Pass: true}, Met, "1.9996 s", "under 2 s", "99.9th percentile", "0.02 % to spare"},
		{Objective{Expression: "avg<=0.4%", Measured: 0.4, Threshold: 0.4, Unit: "%", Samples: 1, Pass: true}, Met, "0.4 %", "at most 0.4 %", "average", "nothing to spare"},
		{Objective{Expression: "avg<0.4%", Measured: 0.5, Threshold: 0.4, Unit: "%", Samples: 1}, Missed, "0.5 %", "under 0.4 %", "average", "25 % over"},
		{Objective{Expression: "rate<0.1%", Measured: 26.12, Threshold: 0.1, Unit: "%", Samples: 1}, Missed, "26.1 %", "under 0.1 %", "rate", "261× the limit"},
		{Objective{Expression: "avg>=1500kb/s", Measured: 1200, Threshold: 1500, Unit: "kb/s", Samples: 1}, Missed, "1,200 kb/s", "at least 1,500 kb/s", "average", "20 % short"},
		{Objective{Expression: "count<10", Measured: 3, Threshold: 10, Unit: "count", Samples: 1, Pass: true}, Met, "3", "under 10", "count", "70 % to spare"},
		{Objective{Expression: "count==0", Measured: 0, Threshold: 0, Unit: "count", Samples: 1, Pass: true}, Met, "0", "exactly 0", "count", "none seen"},
		{Objective{Expression: "max<2s", Threshold: 2, Unit: "s"}, NoData, "no data", "under 2 s", "highest", ""},
	} {
		for _, got := range []struct{ what, got, want string }{
			{"state", c.o.State(), c.state},
			{"measured", c.o.MeasuredWords(), c.measured},
			{"limit", c.o.LimitWords(), c.limit},
			{"aggregate", c.o.AggregateWords(), c.aggregate},
			{"margin", c.o.MarginWords(), c.margin},
		} {
			if plain(got.got) != got.want {
				t.Errorf("%s %v: %s is %q, want %q", c.o.Expression, c.o.Measured, got.what, got.got, got.want)
			}
		}
	}
}

func TestFaultWords(t *testing.T) {
	for want, f := range map[string]Fault{
		"crash of us-east":   {Fail: "region", Model: "crash", Where: "us-east"},
		"failure of us-east": {Fail: "region", Where: "us-east"},
		"packet loss on contribution/a (gilbert-elliott)": {Fail: "packet-loss", Where: "contribution/a", Model: "gilbert-elliott"},
		"HTTP status at us-east/edge-1":                   {Fail: "http", Where: "us-east/edge-1", Model: "status"},
		"missing segments at us-east/origin":              {Fail: "segments", Where: "us-east/origin", Model: "missing"},
		"hang of the processes of nginx":                  {Fail: "process", Where: "nginx", Model: "hang"},
		"kafka (gone)":                                    {Fail: "kafka", Where: "kafka", Model: "gone"},
	} {
		if got := f.Words(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func plain(s string) string {
	out := []rune(s)
	for i, r := range out {
		if r == '\u00a0' {
			out[i] = ' '
		}
	}
	return string(out)
}

func TestSmallTimesAreMilliseconds(t *testing.T) {
	for _, c := range []struct {
		o               Objective
		measured, limit string
	}{
		{Objective{Expression: "p(95)<2s", Measured: 0.00734, Threshold: 2, Unit: "s", Samples: 1}, "7.34 ms", "under 2 s"},
		{Objective{Expression: "p(95)<50ms", Measured: 0.00734, Threshold: 0.05, Unit: "s", Samples: 1}, "7.34 ms", "under 50 ms"},
		{Objective{Expression: "p(95)<50ms", Measured: 0.05, Threshold: 0.05, Unit: "s", Samples: 1}, "50 ms", "under 50 ms"},
		{Objective{Expression: "p(95)<100ms", Measured: 0.09999, Threshold: 0.1, Unit: "s", Samples: 1}, "99.99 ms", "under 0.1 s"},
		{Objective{Expression: "p(95)<2s", Measured: 0.00021, Threshold: 2, Unit: "s", Samples: 1}, "210 µs", "under 2 s"},
	} {
		if m, l := plain(c.o.MeasuredWords()), plain(c.o.LimitWords()); m != c.measured || l != c.limit {
			t.Errorf("%v s against %v s: %q, %q; want %q, %q", c.o.Measured, c.o.Threshold, m, l, c.measured, c.limit)
		}
	}
}

func TestEvidenceOfAFaultThatNeverCame(t *testing.T) {
	f := Fault{Evidence: Evidence{Status: Inconclusive, Unit: "% of probes"}}
	if got := f.EvidenceWords(); f.Injected() || got != "not reached" {
		t.Errorf("without a detail: %q", got)
	}
	f.Evidence.Detail = "the run ended before the fault was due"
	if got := f.EvidenceWords(); got != f.Evidence.Detail {
		t.Errorf("with a detail: %q", got)
	}
	f.ForS = 20
	if got := plain(f.EvidenceWords()); !f.Injected() || got != f.Evidence.Detail {
		t.Errorf("injected: %q", got)
	}
	f.Evidence = Evidence{Status: Inconclusive, Expected: 100, Measured: 100, Unit: "% of requests", Detail: "too little was measured: 2 requests during the fault"}
	if got := plain(f.EvidenceWords()); got != f.Evidence.Detail {
		t.Errorf("too little: %q", got)
	}
	f.Evidence.Status = Mismatch
	if got := plain(f.EvidenceWords()); got != "expected 100 % of requests, measured 100 % of requests" {
		t.Errorf("mismatch: %q", got)
	}
}
