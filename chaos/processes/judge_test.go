package processes

import (
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/chaos/evidence"
)

var t0 = time.Unix(1_700_000_000, 0)

// window is a fault from 5 s to 15 s.
var window = evidence.Window{Inject: t0.Add(5 * time.Second), Injected: t0.Add(5 * time.Second), Restore: t0.Add(15 * time.Second), Restored: t0.Add(15 * time.Second)}

// look makes samples every 100 ms for 20 s, and requests every 250 ms, as change says for each moment.
func look(change func(at time.Duration, s *sample), ask func(at time.Duration) (status int, took time.Duration)) ([]sample, []get) {
	var samples []sample
	for at := time.Duration(0); at < 20*time.Second; at += 100 * time.Millisecond {
		s := sample{at: t0.Add(at), since: 100 * time.Millisecond, alive: 2, limit: -1, cpuGroup: "/", memGroup: "/", used: 50 * time.Millisecond}
		if change != nil {
			change(at, &s)
		}
		samples = append(samples, s)
	}
	var gets []get
	for at := time.Duration(0); ask != nil && at < 20*time.Second; at += 250 * time.Millisecond {
		status, took := ask(at)
		gets = append(gets, get{start: t0.Add(at), end: t0.Add(at + took), status: status})
	}
	return samples, gets
}

func within(at, from, to time.Duration) bool { return at >= from*time.Second && at < to*time.Second }

func TestJudge(t *testing.T) {
	well := func(time.Duration) (int, time.Duration) { return 200, time.Millisecond }
	silent := func(at time.Duration) (int, time.Duration) {
		if within(at, 5, 15) {
			return 0, time.Second
		}
		return 200, time.Millisecond
	}
	stop := func(at time.Duration, s *sample) {
		if within(at, 5, 15) {
			s.stopped, s.used = s.alive, 0
		}
	}
	die := func(at time.Duration, s *sample) {
		if within(at, 5, 16) { // it takes a second to come back
			s.alive, s.used = 0, 0
		}
	}
	starve := func(cores float64, throttled uint64, group string) func(time.Duration, *sample) {
		return func(at time.Duration, s *sample) {
			if within(at, 5, 15) {
				s.used = time.Duration(cores * float64(100*time.Millisecond))
				s.cpuGroup = group
				s.throttled = throttled * uint64(at/(100*time.Millisecond))
			}
		}
	}
	turns := func(cores float64, of10 int) func(time.Duration, *sample) {
		return func(at time.Duration, s *sample) {
			if within(at, 5, 15) {
				s.used = time.Duration(cores * float64(100*time.Millisecond))
				if int(at/(100*time.Millisecond))%10 < of10 {
					s.stopped = s.alive
				}
			}
		}
	}
	press := func(usage int64, held uint64) func(time.Duration, *sample) {
		return func(at time.Duration, s *sample) {
			if within(at, 5, 15) {
				s.limit, s.usage, s.held, s.memGroup = 8<<20, usage, held, "/tminus-1"
			}
		}
	}
	mute := func(time.Duration) (int, time.Duration) { return 0, time.Millisecond }
	hung, own := Expect{What: Hung, URL: "http://x/"}, Expect{What: Hung, URL: "http://x/", Mute: true}
	starved := Expect{What: Starved, Cores: 0.2}
	pressed := Expect{What: Pressed, Room: 8 << 20}
	for _, c := range []struct {
		name   string
		expect Expect
		change func(time.Duration, *sample)
		ask    func(time.Duration) (int, time.Duration)
		status string
		detail string
	}{
		{"a hang", hung, stop, silent, evidence.Confirmed, "every process was stopped at 100% of"},
		{"a hang that did not happen", hung, nil, well, evidence.Mismatch, "stopped at 0%"},
		{"a hang of one process of two", hung, func(at time.Duration, s *sample) {
			if within(at, 5, 15) {
				s.stopped = 1
			}
		}, silent, evidence.Mismatch, "stopped at 0%"},
		{"a hang behind which somebody answers", hung, stop, well, evidence.Mismatch, "100% of"},
		{"a hang that does not end", hung, func(at time.Duration, s *sample) {
			if at >= 5*time.Second {
				s.stopped = 2
			}
		}, silent, evidence.Mismatch, "outlived its end"},
		{"a hang of what was not well", hung, stop, func(time.Duration) (int, time.Duration) { return 503, 0 }, evidence.Inconclusive, "not well before"},
		{"a hang of what never speaks HTTP", own, stop, mute, evidence.Confirmed, "every process was stopped at 100% of"},
		{"no hang of what never speaks HTTP", own, nil, mute, evidence.Mismatch, "stopped at 0%"},
		{"a hang of what should speak HTTP, and does not", hung, stop, mute, evidence.Inconclusive, "not well before"},
		{"a hang of what speaks HTTP although it might not", own, stop, well, evidence.Mismatch, "100% of"},
		{"a hang of what might not speak HTTP, and is not well", own, stop, func(time.Duration) (int, time.Duration) { return 503, 0 }, evidence.Inconclusive, "not well before"},
		{"a hang of what did not run", hung, func(_ time.Duration, s *sample) { s.alive = 0 }, well, evidence.Inconclusive, "did not run before"},
		{"a crash instead of a hang", hung, die, silent, evidence.Mismatch, "stopped at 0%"},
		{"too little time", starved, starve(0.2, 1, "/tminus-1"), nil, evidence.Confirmed, "used 0.500 cores before the fault and 0.200 during it"},
		{"enough time", starved, nil, nil, evidence.Mismatch, "0.500 during it"},
		{"less use, and nobody holds it back", starved, starve(0.1, 0, "/"), nil, evidence.Mismatch, "never held it back"},
		{"stopped and continued by turns", starved, turns(0.2, 6), nil, evidence.Confirmed, "0.200 during it"},
		{"stopped throughout", starved, stop, nil, evidence.Mismatch, "it was stopped at 100% of looks"},
		{"stopped throughout, and it needs little", Expect{What: Starved, Cores: 0.8}, stop, nil, evidence.Mismatch, "it was stopped at 100% of looks"},
		{"as good as stopped throughout, as it was to be", Expect{What: Starved, Cores: 0.01}, turns(0.01, 10), nil, evidence.Confirmed, "0.010 during it"},
		{"stopped far more than a limit would", starved, turns(0.02, 9), nil, evidence.Mismatch, "it was stopped at 90% of looks"},
		{"stopped now and then by a limit that it hardly reaches", starved, turns(0.02, 1), nil, evidence.Inconclusive, "hardly felt"},
		{"more than it needs", Expect{What: Starved, Cores: 0.8}, starve(0.5, 0, "/tminus-1"), nil, evidence.Inconclusive, "not felt"},
		{"a group it is not moved back from", starved, func(at time.Duration, s *sample) {
			starve(0.2, 1, "/tminus-1")(at, s)
			if at >= 15*time.Second {
				s.cpuGroup = "/tminus-1"
			}
		}, nil, evidence.Mismatch, "another control group"},
		{"it ended for want of time", starved, die, nil, evidence.Mismatch, "ended during the fault"},
		{"too little memory", pressed, press(8<<20, 12), nil, evidence.Confirmed, "held back 12 times"},
		{"no limit", pressed, nil, nil, evidence.Mismatch, "no limit of memory was in force"},
		{"a limit that is lifted too early", pressed, func(at time.Duration, s *sample) {
			if within(at, 5, 10) {
				press(8<<20, 12)(at, s)
			}
		}, nil, evidence.Mismatch, "in force at 48% of looks"},
		{"one look that was missed", pressed, func(at time.Duration, s *sample) {
			if press(8<<20, 12)(at, s); at == 7*time.Second {
				s.alive, s.limit = 0, -1
			}
		}, nil, evidence.Confirmed, "held back 12 times"},
		{"a limit that is not reached", pressed, press(2<<20, 0), nil, evidence.Inconclusive, "not felt"},
		{"killed where it should wait", pressed, func(at time.Duration, s *sample) {
			press(8<<20, 12)(at, s)
			if within(at, 10, 15) {
				s.alive = 0
			}
		}, nil, evidence.Mismatch, "it ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			samples, gets := look(c.change, c.ask)
			x := c.expect
			if c.ask == nil {
				x.URL = ""
			}
			if e := judge(x, window, samples, gets); e.Status != c.status || !strings.Contains(e.Detail, c.detail) {
				t.Errorf("%+v, want %s: %q", e, c.status, c.detail)
			}
		})
	}
	if e := judge(hung, evidence.Window{}, nil, nil); e.Status != evidence.Inconclusive {
		t.Errorf("of nothing: %+v", e)
	}
}

// What was stopped when it had used its share goes on when a half of the next has come in, and over time uses what it may.
func TestAllowance(t *testing.T) {
	for _, c := range []struct{ cores, wants float64 }{{0.1, 1}, {0.25, 2}, {0.9, 1}, {1.5, 2}, {0.5, 0.2}} {
		a := allowance{cores: c.cores}
		running, used := true, time.Duration(0)
		const step, all = 5 * time.Millisecond, 20 * time.Second
		for at := time.Duration(0); at < all; at += step {
			took := time.Duration(0)
			if running {
				took = time.Duration(c.wants * float64(step))
			}
			used += took
			running = a.after(step, took, running)
		}
		got, want := used.Seconds()/all.Seconds(), min(c.cores, c.wants)
		if got < want*0.95 || got > want*1.05 {
			t.Errorf("%g cores for who wants %g: used %.3f", c.cores, c.wants, got)
		}
	}
}
