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
