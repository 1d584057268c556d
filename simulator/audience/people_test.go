package audience_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tminus-live/tminus/simulator/audience"
)

var shed = audience.Outcome{Status: audience.StatusShed, Guided: true, MaxRetries: 3, RetryAfter: 2 * s}

func viewers(t testing.TB, seed uint64) *audience.Crowd {
	t.Helper()
	c, err := audience.NewCrowd(audience.DefaultMix, []string{"us-east", "us-west"}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheZeroCrowdFollowsThePolicyAndNothingElse(t *testing.T) {
	v := viewers(t, 1).Viewer(0)
	var p audience.People
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; attempt <= 5; attempt++ {
		after, again := p.Next(1, v, attempt, shed)
		if want := attempt <= shed.MaxRetries; again != want || again && after != shed.RetryAfter {
			t.Errorf("attempt %d: again %v after %v", attempt, again, after)
		}
		if _, again := p.Next(1, v, attempt, audience.Outcome{Status: audience.StatusFailed}); again {
			t.Errorf("attempt %d: presses again without a policy", attempt)
		}
		if _, again := p.Next(1, v, attempt, audience.Outcome{Status: audience.StatusOK, Guided: true, MaxRetries: 9}); again {
			t.Errorf("attempt %d: presses again after a success", attempt)
		}
	}
}

// Over many viewers the shares that were asked for are met, and humans' delays have the median that was asked for.
func TestPeopleMeetTheirShares(t *testing.T) {
	const n = 40_000
	c := viewers(t, 3)
	p := audience.People{Human: .3, Again: .8, After: 3 * s, Presses: 6}
	follow, pressed := 0, 0
	var delays []time.Duration
	for k := range uint64(n) {
		v := c.Viewer(k)
		after, again := p.Next(9, v, 1, shed)
		if again && after == shed.RetryAfter {
			follow++
		} else if again {
			pressed++
			delays = append(delays, after)
		}
	}
	if got := float64(follow) / n; math.Abs(got-.7) > .01 {
		t.Errorf("%.3f of the viewers follow the policy, want 0.7", got)
	}
	if got := float64(pressed) / n; math.Abs(got-.3*.8) > .01 {
		t.Errorf("%.3f of the viewers press again by themselves, want 0.24", got)
	}
	slices.Sort(delays)
	if got := delays[len(delays)/2]; math.Abs(got.Seconds()-3) > .1 {
		t.Errorf("median delay %v, want 3s", got)
	}
	// Log-normal with sigma 0.6: the 90th percentile is at exp(1.2816 · 0.6) medians.
	if got, want := delays[len(delays)*9/10].Seconds(), 3*math.Exp(1.2816*.6); math.Abs(got-want) > .2 {
		t.Errorf("90th percentile of the delays %.2f s, want %.2f s", got, want)
	}
	// Without a policy everybody is human.
	pressed = 0
	for k := range uint64(n) {
		if _, again := p.Next(9, c.Viewer(k), 1, audience.Outcome{Status: audience.StatusFailed}); again {
			pressed++
		}
	}
	if got := float64(pressed) / n; math.Abs(got-.8) > .01 {
		t.Errorf("%.3f of the viewers press again where there is no policy, want 0.8", got)
	}
}

// Pressing again is drawn each time anew: the share that presses a third time is the square of Again.
func TestEachPressIsDrawnByItself(t *testing.T) {
	const n = 40_000
	c := viewers(t, 3)
	p := audience.People{Human: 1, Again: .6, After: s, Presses: 10}
	third := 0
	for k := range uint64(n) {
		v := c.Viewer(k)
		if _, again := p.Next(1, v, 1, shed); again {
			if _, again := p.Next(1, v, 2, shed); again {
				third++
			}
		}
	}
	if got := float64(third) / n; math.Abs(got-.36) > .01 {
		t.Errorf("%.3f press a third time, want 0.36", got)
	}
}

// Half of a crowd has left after its median patience, and who stays longer also stayed before.
func TestPatientPeople(t *testing.T) {
	const n = 40_000
	c := viewers(t, 3)
	p := audience.People{Patience: 10 * s}
	stay := 0
	for k := range uint64(n) {
		v := c.Viewer(k)
		if p.Stays(v, 10*s) {
			stay++
			if !p.Stays(v, s) {
				t.Fatalf("viewer %d leaves after 1s and is there after 10s", k)
			}
		}
		if p.Stays(v, 75*s) {
			t.Fatalf("viewer %d waits for more than 7.4 medians", k)
		}
		if (audience.People{}).Stays(v, 24*time.Hour) != true {
			t.Fatal("a crowd without patience: has none rather than no bound")
		}
	}
	if got := float64(stay) / n; math.Abs(got-.5) > .01 {
		t.Errorf("%.3f stay for the median, want 0.5", got)
	}
	if err := (audience.People{Patience: -s}).Validate(); err == nil {
		t.Error("negative patience")
	}
}

func TestPeopleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := audience.People{
			Human:   rapid.Float64Range(0, 1).Draw(t, "human"),
			Again:   rapid.Float64Range(0, 1).Draw(t, "again"),
			After:   time.Duration(rapid.Int64Range(1, int64(audience.MaxAfter)).Draw(t, "after")),
			Presses: rapid.IntRange(0, 20).Draw(t, "presses"),
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		v := audience.Viewer{ID: rapid.Uint64().Draw(t, "id"), Device: "tv"}
		o := audience.Outcome{Status: rapid.SampledFrom([]string{audience.StatusShed, audience.StatusFailed}).Draw(t, "status"),
			Guided:     rapid.Bool().Draw(t, "guided"),
			MaxRetries: rapid.IntRange(-1, 10).Draw(t, "retries"),
			RetryAfter: time.Duration(rapid.Int64Range(-1, int64(time.Minute)).Draw(t, "retry after"))}
		follower := p
		follower.Human = 0
		retries, presses := 0, 1
		for attempt := 1; attempt <= 30; attempt++ {
			after, again := p.Next(seed, v, attempt, o)
			after2, again2 := p.Next(seed, v, attempt, o)
			if after != after2 || again != again2 {
				t.Fatalf("two answers to one question: %v %v, %v %v", after, again, after2, again2)
			}
			if again {
				presses++
			}
			if after < 0 || after > 12*max(p.After, o.RetryAfter) {
				t.Fatalf("waits %v", after)
			}
			if o.Guided {
				after, again := follower.Next(seed, v, attempt, o)
				if again {
					retries++
				}
				if again && after < o.RetryAfter {
					t.Fatalf("a guided viewer comes back after %v, told %v", after, o.RetryAfter)
				}
			}
		}
		if retries > max(0, o.MaxRetries) {
			t.Fatalf("a guided viewer came back %d times, allowed %d", retries, o.MaxRetries)
		}
		if limit := max(1, p.Presses, 1+o.MaxRetries); presses > limit {
			t.Fatalf("%d presses, at most %d", presses, limit)
		}
		if !o.Guided && presses > max(1, p.Presses) {
			t.Fatalf("%d presses without a policy, at most %d", presses, p.Presses)
		}
	})
}

func TestBadPeopleAreToldEverything(t *testing.T) {
	err := audience.People{Human: math.NaN(), Again: 2, After: -1, Presses: -1}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"humans NaN", "again 2", "delay", "-1 presses"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if (audience.People{Again: 1, Presses: 2}).Validate() == nil {
		t.Error("no error for humans who press again at once")
	}
}

func BenchmarkNext(b *testing.B) {
	v := viewers(b, 1).Viewer(0)
	p := audience.People{Human: .3, Again: .8, After: 3 * s, Presses: 6}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Next(uint64(i), v, 1, shed)
	}
}
