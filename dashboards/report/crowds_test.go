package report

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// The reports of big crowds, made from formulas and a seed like the other samples.

// sampleTitleFight holds 100,000 play starts a second for a minute.
func sampleTitleFight() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.DurationS = "20261122-190000-title-fight-7", "title-fight", 131
	r.Reasons = []string{"All 5 objectives were met: 100,000 play starts a second for a minute, while contribution/us-west/path-a lost packets."}
	r.Objectives = []Objective{
		{Metric: "video_start_failures", Expression: "rate<0.01%", Measured: 0.00031, Threshold: 0.01, Unit: "%", Samples: 6_591_500, Pass: true},
		{Metric: "startup_time", Expression: "p(95)<2s", Measured: 0.412, Threshold: 2, Unit: "s", Samples: 50, Pass: true},
		{Metric: "rebuffer_ratio", Expression: "avg<0.4%", Measured: 0, Threshold: 0.4, Unit: "%", Samples: 4120, Pass: true},
		{Metric: "live_latency", Expression: "p(95)<12s", Measured: 7.9, Threshold: 12, Unit: "s", Samples: 4120, Pass: true},
		{Metric: "telemetry_loss", Expression: "rate==0%", Measured: 0, Threshold: 0, Unit: "%", Samples: 6_612_004, Pass: true},
	}
	r.Faults = []Fault{{ID: "packet-loss-1", Fail: "packet-loss", Model: "gilbert-elliott", Where: "contribution/us-west/path-a", AtS: 20, ForS: 40, Restored: true,
		Evidence: Evidence{Status: Confirmed, Expected: 5, Measured: 4.81, Unit: "% of packets"}}}
	r.Timeline = sampleTimeline(90, 0, 50, 1e6, 1e6, 1)
	rnd := rand.New(rand.NewPCG(11, 11))
	var sum float64
	for t := range r.Timeline {
		s := &r.Timeline[t]
		s.RebufferRatio = 0
		s.Scheduled = 500 + 99_500*math.Min(1, math.Max(0, (float64(t)-9.5)/10))
		if t >= 80 {
			s.Scheduled = 500
		}
		s.PlayStarts = math.Round(s.Scheduled + 60*(rnd.Float64()-0.5))
		if t == 47 {
			s.PlayFailures = 20
		}
		s.Requests = s.PlayStarts + s.PlayFailures
		s.Capacity = 120_000
		sum += s.Scheduled
	}
	n := uint64(sum)
	r.Load = Load{
		PlayStarts:    PlayStarts{Intended: n, Sent: n, OK: n - 20, Failed: 20},
		LatencyMS:     Quantiles{0.61, 2.4, 6.1, 14.8, 41},
		SentToDoneMS:  &Quantiles{0.38, 1.3, 3.2, 9.7, 33},
		SendLagMS:     Quantiles{0.2, 0.9, 2.8, 6.6, 12.4},
		InTimePercent: 99.9986, Attempts: n + 20,
		Failures: []Count{{"timeout after 5 s", 12}, {"connection reset", 8}},
	}
	r.Safety[3].Detail = "99.9986 % of play starts were sent within 10 ms of their moment"
	r.Players = Players{Sessions: 50, StartupP50S: 0.31, StartupP95S: 0.412, PlayingS: 4120, LiveLatencyP95: 7.9}
	r.Telemetry = Telemetry{Emitted: n + 20_504, Stored: n + 20_504, LagS: 3.2, LeftOut: n - 20, Kafka: "embedded", ClickHouse: "embedded"}
	r.Processes = []Process{
		{Name: "conductor", RSSAt10S: 148_000_000, RSSPeak: 161_000_000, RSSLast: 151_000_000, CPUS: 21.4, GrowthPct: 2, Incarnated: 1},
		{Name: "starts", RSSAt10S: 61_200_000, RSSPeak: 66_000_000, RSSLast: 64_100_000, CPUS: 62.9, GrowthPct: 4.7, Incarnated: 1},
		{Name: "region/us-east", RSSAt10S: 212_000_000, RSSPeak: 231_000_000, RSSLast: 220_000_000, CPUS: 34, GrowthPct: 3.8, Incarnated: 1},
		{Name: "region/us-west", RSSAt10S: 209_000_000, RSSPeak: 229_000_000, RSSLast: 219_000_000, CPUS: 33.2, GrowthPct: 4.8, Incarnated: 1},
		{Name: "store", RSSAt10S: 1_020_000_000, RSSPeak: 1_344_000_000, RSSLast: 1_081_000_000, CPUS: 18.8, GrowthPct: 6, Incarnated: 1},
	}
	r.Moments = []Moment{
		{0, "phase", "The event starts: 500 play starts a second."},
		{10, "viewers", "The crowd comes: up to 100,000 play starts a second in 10 s."},
		{20, "fault", "contribution/us-west/path-a begins to lose packets."},
		{80, "viewers", "The crowd is in: back to 500 play starts a second."},
		{90, "phase", "The event ends; players drain."},
	}
	return r
}

// sampleRetryStorm interrupts the same region twice: its viewers come back guided, then as people do.
func sampleRetryStorm() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.DurationS = "20261122-200000-retry-storm-5", "retry-storm", 272
	r.Reasons = []string{"All 6 objectives were met: with guided backoff the return of 20,000 viewers stayed below twice the usual load."}
	r.Faults = nil
	r.Timeline = sampleTimeline(240, 0, 40, 1e6, 1e6, 1)
	rnd := rand.New(rand.NewPCG(5, 5))
	const usual, viewers = 2000.0, 20_000.0
	// Guided viewers come back over a window that the service widened to 60 s; people press again and again while there is
	// no picture, and all at once when there is.
	extra := func(t, at float64, guided bool) float64 {
		d := t - at
		switch {
		case d < 0:
			return 0
		case guided && d < 12:
			return 40 * d
		case guided && d < 55:
			return 480 - 2*(d-12)
		case guided:
			return math.Max(0, 394-60*(d-55))
		case d < 30:
			return viewers * (0.42*math.Exp(-d/5) + 0.28)
		default:
			return 18_600 * math.Exp(-(d-30)/4)
		}
	}
	at := []struct {
		at     float64
		guided bool
	}{{40, true}, {140, false}}
	var due, requests float64
	for i := range r.Timeline {
		s := &r.Timeline[i]
		s.RebufferRatio = 0
		s.Scheduled, s.Capacity = usual, 4200
		s.PlayStarts = usual
		s.Requests = math.Round(usual * (0.98 + 0.04*rnd.Float64()))
		for _, a := range at {
			e := extra(float64(i), a.at, a.guided)
			s.Requests += math.Round(e * (0.96 + 0.08*rnd.Float64()))
			if d := float64(i) - a.at; d >= 0 && d < 30 && !a.guided {
				s.Shed = math.Round(e * 0.8)
			} else if e > 0 && s.Requests > s.Capacity {
				s.PlayStarts = 4100
				s.Shed = s.Requests - 4100
			} else {
				s.PlayStarts += e * 0.9
			}
		}
		s.PlayStarts = math.Round(s.PlayStarts)
		s.PlayFailures = s.Shed
		due, requests = due+s.Scheduled, requests+s.Requests
	}
	for _, a := range at {
		m := Storm{Name: fmt.Sprintf("interruption of us-east at T+%.0f s", a.at), Region: "us-east", AtS: a.at, ForS: 30, Viewers: viewers, Guided: a.guided,
			BasePerS: usual, Attempts: 1.04, BackS: 58}
		if !a.guided {
			m.Attempts, m.BackS = 9.7, 47
		}
		for i := int(a.at) - 10; i < min(int(a.at)+90, 240); i++ {
			v := r.Timeline[i].Requests
			m.Series = append(m.Series, v)
			if i >= int(a.at) {
				m.PeakPerS = math.Max(m.PeakPerS, v)
				if v > 2*usual {
					m.AboveS++
				}
			}
		}
		m.Amplification = m.PeakPerS / m.BasePerS
		r.Storms = append(r.Storms, m)
	}
	n, q := uint64(due), uint64(requests)
	r.Load = Load{
		PlayStarts: PlayStarts{Intended: n, Sent: n, OK: n - 1320, Shed: 1310, Failed: 10},
		LatencyMS:  Quantiles{0.7, 1.9, 41, 212, 1840}, SentToDoneMS: &Quantiles{0.4, 1.1, 4.4, 19, 230}, SendLagMS: Quantiles{0.2, 0.7, 1.4, 5.1, 9},
		InTimePercent: 99.994, Attempts: q,
		Failures: []Count{{"shed with a retry policy", 1310}, {"connection refused", 10}},
	}
	r.Moments = []Moment{
		{40, "viewers", "20,000 viewers of us-east lose their picture for 30 s; they follow the service's retry policy."},
		{140, "viewers", "20,000 viewers of us-east lose their picture for 30 s; they press Play as people do."},
	}
	return r
}

// sampleForecast expected a title fight and got a bigger one.
func sampleForecast() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.DurationS = "20261122-210000-forecast-night-3", "forecast-night", 640
	r.Reasons = []string{"All 6 objectives were met, although a quarter more viewers came than forecast."}
	r.Faults = nil
	r.Timeline = sampleTimeline(600, 0, 40, 1e6, 1e6, 1)
	rnd := rand.New(rand.NewPCG(3, 3))
	curve := func(t, scale float64) float64 {
		d := t - 180
		if d < 0 {
			return scale * (300 + 11_000*math.Exp(d/40))
		}
		return scale * (300 + 11_000*math.Exp(-d/110))
	}
	f := &Forecast{Kind: "title-fight", Viewers: 2_000_000, PeakPerS: curve(180, 1)}
	capacity := 12_000.0
	var off, nowOff, all float64
	for t := range r.Timeline {
		s := &r.Timeline[t]
		s.RebufferRatio = 0
		s.Scheduled = math.Round(curve(float64(t), 1.24))
		s.PlayStarts = math.Round(s.Scheduled * (0.97 + 0.06*rnd.Float64()))
		for _, step := range []struct {
			at int
			to float64
		}{{96, 15_000}, {126, 18_500}, {330, 12_000}, {450, 8000}} {
			if t == step.at {
				capacity = step.to
				f.Scaling = append(f.Scaling, Scaling{float64(t), "us-east", step.to * 0.6}, Scaling{float64(t), "us-west", step.to * 0.4})
			}
		}
		s.Capacity = capacity
		f.ActualPerS = math.Max(f.ActualPerS, s.PlayStarts)
		if t%5 == 4 {
			b := Bin{T: float64(t - 4), P50: curve(float64(t)-2, 1), P90: curve(float64(t)-2, 1.38), Nowcast: -1}
			for _, v := range r.Timeline[t-4 : t+1] {
				b.Actual += v.PlayStarts / 5
			}
			if t > 30 {
				learnt := 1 + 0.24*(1-math.Exp(-float64(t-30)/45))
				b.Nowcast = math.Round(curve(float64(t)-2, learnt) * (0.97 + 0.06*rnd.Float64()))
				nowOff += math.Abs(b.Nowcast - b.Actual)
			}
			b.P50, b.P90 = math.Round(b.P50), math.Round(b.P90)
			off, all = off+math.Abs(b.P50-b.Actual), all+b.Actual
			f.Bins = append(f.Bins, b)
		}
	}
	f.ErrorPct, f.NowcastPct = math.Round(1000*off/all)/10, math.Round(1000*nowOff/all)/10
	f.Warnings = []string{
		"T+1:34: the event is 1.2 times as large as forecast",
		"T+1:36: region us-east will need 25 % more at T+2:40",
		"T+2:06: region us-west will need 23 % more at T+3:00",
	}
	r.Forecast = f
	r.Moments = []Moment{{94, "viewers", "The event is 1.2 times as large as forecast."}, {96, "phase", "us-east is scaled to 9,000/s, us-west to 6,000/s."}}
	n := uint64(all * 5)
	r.Load = Load{
		PlayStarts: PlayStarts{Intended: n, Sent: n, OK: n},
		LatencyMS:  Quantiles{0.6, 1.2, 3.1, 8.8, 22}, SentToDoneMS: &Quantiles{0.4, 0.8, 2.2, 6.1, 19}, SendLagMS: Quantiles{0.2, 0.5, 1.1, 3.7, 9},
		InTimePercent: 100, Attempts: n,
	}
	r.Processes = []Process{
		{Name: "conductor", RSSAt10S: 140_000_000, RSSPeak: 290_000_000, RSSLast: 281_000_000, CPUS: 81, GrowthPct: 100.7, Incarnated: 1},
		{Name: "starts", RSSAt10S: 58_000_000, RSSPeak: 60_000_000, RSSLast: 59_000_000, CPUS: 240, GrowthPct: 1.7, Incarnated: 1},
		{Name: "region/us-east", RSSAt10S: 201_000_000, RSSPeak: 204_000_000, RSSLast: 170_000_000, CPUS: 190, GrowthPct: -15.4, Incarnated: 2},
		{Name: "probe", RSSPeak: 30_000_000, RSSLast: 28_000_000, CPUS: 1.2, Incarnated: 1},
	}
	return r
}

// sampleOverload offers six times what the service can take.
func sampleOverload() *Report {
	r := sampleGo()
	r.Run, r.Scenario, r.DurationS = "20261122-220000-overload-9", "overload", 121
	r.Reasons = []string{"All 6 objectives were met: at six times its capacity the service went on starting 20,000 viewers a second."}
	r.Faults = nil
	r.Timeline = sampleTimeline(90, 0, 40, 1e6, 1e6, 1)
	rnd := rand.New(rand.NewPCG(9, 9))
	var due, ok, shed float64
	for t := range r.Timeline {
		s := &r.Timeline[t]
		s.RebufferRatio, s.Capacity = 0, 20_000
		s.Scheduled = 8000
		if t >= 15 && t < 75 {
			s.Scheduled = 120_000
		}
		s.PlayStarts = math.Min(s.Scheduled, math.Round(19_800-400*rnd.Float64()))
		s.Shed = s.Scheduled - s.PlayStarts
		s.PlayFailures = s.Shed
		if t >= 15 && t < 20 {
			s.PlayFailures += 900
		}
		s.Requests = s.Scheduled
		due, ok, shed = due+s.Scheduled, ok+s.PlayStarts, shed+s.Shed
	}
	r.Moments = []Moment{{15, "viewers", "120,000 play starts a second arrive at a service that can take 20,000."}, {75, "viewers", "The load falls."}}
	r.Load = Load{
		PlayStarts: PlayStarts{Intended: uint64(due), Sent: uint64(due), OK: uint64(ok), Shed: uint64(shed)},
		LatencyMS:  Quantiles{0.9, 2.9, 7.1, 18, 44}, SentToDoneMS: &Quantiles{0.6, 1.7, 4.2, 12, 35}, SendLagMS: Quantiles{0.2, 1, 3, 8.2, 16},
		InTimePercent: 99.95, Attempts: uint64(due),
	}
	return r
}
