package forecast_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
	"github.com/tminus-live/tminus/simulator/audience/forecast"
)

const s = time.Second

var twoRegions = []audience.Region{{Name: "us-east", Share: 54}, {Name: "us-west", Share: 46}}

// fight is what is forecast for the minutes around a title fight: T+0 is five minutes before the bell.
func fight(t testing.TB) []audience.Point {
	t.Helper()
	p, err := forecast.Predict(forecast.Event{Kind: "title-fight", Audience: 3_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return p.Points(-5*time.Minute, 10*time.Minute)
}

// night plays an event in virtual time: each second's starts are drawn around times·forecast, per region, with noise
// (relative, of a second) that has some memory.
type night struct {
	*forecast.Nowcast
	rng    *rand.Rand
	actual func(region int, at time.Duration) float64 // rate
	noise  float64
	wander [2]float64
	seen   []float64 // all regions, by the second
}

func newNight(t testing.TB, seed uint64, c forecast.NowcastConfig, actual func(int, time.Duration) float64) *night {
	t.Helper()
	n, err := forecast.NewNowcast(c)
	if err != nil {
		t.Fatal(err)
	}
	return &night{Nowcast: n, rng: rand.New(rand.NewPCG(seed, 1)), actual: actual, noise: .05}
}

// second lets the second that ends at `to` happen and returns its starts.
func (n *night) second(t testing.TB, to time.Duration) []float64 {
	t.Helper()
	out := make([]float64, 2)
	sum := 0.0
	for r := range out {
		n.wander[r] = .8*n.wander[r] + .6*n.noise*n.rng.NormFloat64()
		mean := n.actual(r, to-s/2) * math.Exp(n.wander[r])
		out[r] = math.Max(0, math.Round(mean+math.Sqrt(mean)*n.rng.NormFloat64()))
		sum += out[r]
	}
	n.seen = append(n.seen, sum)
	if err := n.Observe(to, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func rateOf(points []audience.Point, at time.Duration) float64 {
	for i := 1; i < len(points); i++ {
		if a, b := points[i-1], points[i]; at >= a.At && at < b.At {
			return a.Rate + (b.Rate-a.Rate)*float64(at-a.At)/float64(b.At-a.At)
		}
	}
	return 0
}

// scaled is an actual audience that is times as large as forecast from a moment on.
func scaled(points []audience.Point, times float64, from time.Duration) func(int, time.Duration) float64 {
	return func(r int, at time.Duration) float64 {
		rate := rateOf(points, at) * twoRegions[r].Share / 100
		if at >= from {
			rate *= times
		}
		return rate
	}
}

// An event twice as large as forecast is recognised within 20 s of its first ramp, although until then it was as forecast.
func TestTwiceTheAudienceIsRecognisedIn20Seconds(t *testing.T) {
	points := fight(t)
	const ramp = 4 * time.Minute // a minute before the bell the rush sets in
	for seed := range uint64(20) {
		for _, times := range []float64{2, .5} {
			n := newNight(t, seed, forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 1000, Lead: 30 * s}, scaled(points, times, ramp))
			for at := s; at <= ramp; at += s {
				n.second(t, at)
				if sc := n.Scale(); at > 30*s && (sc.P50 < .85 || sc.P50 > 1.15) {
					t.Fatalf("seed %d: at %v the event is taken for %.2f times its forecast, and it is as forecast", seed, at, sc.P50)
				}
			}
			for at := ramp + s; at <= ramp+20*s; at += s {
				n.second(t, at)
			}
			if sc := n.Scale(); math.Abs(sc.P50/times-1) > .15 {
				t.Errorf("seed %d: 20 s after the ramp began the event is taken for %.2f times its forecast, and it is %v", seed, sc.P50, times)
			}
		}
	}
}

// Whatever the size, capacity is there in time and nothing flaps: instances are only given back after the hold time, and
// never asked for again within it.
func TestCapacityIsPlannedInTimeAndDoesNotFlap(t *testing.T) {
	points := fight(t)
	const lead = 30 * s
	for seed := range uint64(10) {
		for _, times := range []float64{.5, 1, 2} {
			t.Run(fmt.Sprintf("seed %d, %v times", seed, times), func(t *testing.T) {
				c := forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 500, Lead: lead}
				n := newNight(t, seed, c, scaled(points, times, 0))
				short, most, reversals := 0, 0, 0
				var peak float64
				lastDown := make([]time.Duration, 2)
				for at := s; at <= 14*time.Minute; at += s {
					starts := n.second(t, at)
					plan := n.Plan(at)
					for r, p := range plan.Regions {
						peak = max(peak, starts[r])
						most = max(most, p.Instances)
						if starts[r] > float64(p.Ready)*c.InstanceRate && at > 20*s {
							short++
						}
						switch {
						case p.Change > 0 && lastDown[r] > 0 && at-lastDown[r] < 2*time.Minute:
							reversals++
						case p.Change < 0:
							lastDown[r] = at
						}
						if p.Instances < p.Ready {
							t.Fatalf("at %v %s has %d instances, %d of them ready", at, p.Region, p.Instances, p.Ready)
						}
					}
				}
				if short > 0 {
					t.Errorf("a region was short of capacity in %d s", short)
				}
				if reversals > 0 {
					t.Errorf("%d times instances were given back and asked for again within two minutes", reversals)
				}
				if most > int(3*peak/c.InstanceRate)+2 {
					t.Errorf("%d instances at the most for a peak of %.0f starts a second", most, peak)
				}
			})
		}
	}
}

// The spike of a rehearsal, up to 1.4 times as high as forecast and as noisy as counts are, finds its capacity there; so does
// an event that its people have put off. Noise moves no instances to and fro.
func TestCapacityOfASpikeAndOfALateEvent(t *testing.T) {
	spike := []audience.Point{{At: 0, Rate: 500}, {At: 15 * s, Rate: 500}, {At: 20 * s, Rate: 100_000}, {At: 80 * s, Rate: 100_000}, {At: 80 * s, Rate: 500}, {At: 10 * time.Minute, Rate: 500}}
	night := fight(t)
	const late = 3 * time.Minute
	for _, tc := range []struct {
		name    string
		points  []audience.Point
		noise   float64
		late    time.Duration
		actual  func(int, time.Duration) float64
		changes int // at most
	}{
		{"as forecast", spike, .02, 0, scaled(spike, 1, 0), 12},
		{"higher", spike, .02, 0, scaled(spike, 1.4, 15*s), 12},
		{"noisy", night, .15, 0, scaled(night, 1, 0), 50},
		{"put off", night, .05, late, func(r int, at time.Duration) float64 { return scaled(night, 1, 0)(r, max(0, at-late)) }, 50},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := forecast.NowcastConfig{Points: tc.points, Regions: twoRegions, InstanceRate: 500, Lead: 30 * s}
			n := newNight(t, 5, c, tc.actual)
			n.noise = tc.noise
			short, changes := 0, 0
			for at := s; at <= 9*time.Minute; at += s {
				if at == 10*s {
					n.PutOff(tc.late)
				}
				starts := n.second(t, at)
				for r, p := range n.Plan(at).Regions {
					if starts[r] > float64(p.Ready)*c.InstanceRate {
						short++
					}
					if p.Change != 0 {
						changes++
					}
				}
			}
			if short > 0 {
				t.Errorf("a region was short of capacity in %d s", short)
			}
			if changes > tc.changes {
				t.Errorf("%d changes of plan, want %d at most", changes, tc.changes)
			}
		})
	}
}

// The rush of one region is larger: it is warned of by name, before it comes, and the other region is left alone.
func TestARegionIsWarnedOf(t *testing.T) {
	points := fight(t)
	actual := func(r int, at time.Duration) float64 {
		return scaled(points, []float64{2.2, 1}[r], time.Minute)(r, at)
	}
	n := newNight(t, 3, forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 500, Lead: 30 * s}, actual)
	var said []string
	for at := s; at <= 10*time.Minute; at += s {
		n.second(t, at)
		for _, w := range n.Plan(at).Warnings {
			said = append(said, fmt.Sprintf("%v: %s", at, w.Text))
			if w.By < at {
				t.Errorf("at %v it warns of %v", at, w.By)
			}
		}
	}
	all := strings.Join(said, "\n")
	if !strings.Contains(all, "region us-east will need") || !strings.Contains(all, "at T+") {
		t.Errorf("nothing is said of us-east:\n%s", all)
	}
	if len(said) > 25 {
		t.Errorf("%d warnings are a nuisance:\n%s", len(said), all)
	}
	t.Log("\n" + all)
}

// 30 s ahead the nowcast is nearer to what comes than the forecast was, when the forecast is wrong, and about as near when
// it is right.
func TestTheNowcastIsNearerThanTheForecast(t *testing.T) {
	points := fight(t)
	for seed := range uint64(5) {
		for _, times := range []float64{.5, 1, 2} {
			n := newNight(t, seed, forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 500, Lead: 30 * s}, scaled(points, times, 0))
			for at := s; at <= 12*time.Minute; at += s {
				n.second(t, at)
			}
			now, was := n.Score()
			t.Logf("seed %d, %v times: nowcast %.1f %%, forecast %.1f %% (WAPE of %d s)", seed, times, now.WAPE, was.WAPE, now.Bins)
			if now.Bins < 600 {
				t.Fatalf("%d seconds scored", now.Bins)
			}
			if times != 1 && now.WAPE > was.WAPE/2 || times == 1 && now.WAPE > was.WAPE+5 {
				t.Errorf("seed %d, %v times: 30 s ahead the nowcast is off by %.1f %%, the forecast by %.1f %%", seed, times, now.WAPE, was.WAPE)
			}
			bins, fc := forecast.Compare(points, n.seen)
			if len(bins) != 144 || math.Abs(fc.Bias-100*(1/times-1)) > 5 {
				t.Errorf("%d bins, bias %.1f %%", len(bins), fc.Bias)
			}
		}
	}
}

// Starts where none were forecast do not make it believe anything silly, and are carried on for a while.
func TestStartsWithoutAForecast(t *testing.T) {
	points := []audience.Point{{At: 0, Rate: 0}, {At: time.Minute, Rate: 0}, {At: 2 * time.Minute, Rate: 1000}, {At: 3 * time.Minute, Rate: 1000}}
	n := newNight(t, 1, forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 100}, func(int, time.Duration) float64 { return 300 })
	for at := s; at <= 50*s; at += s {
		n.second(t, at)
	}
	if sc := n.Scale(); sc.P50 != 1 {
		t.Errorf("scale %v after nothing to compare", sc)
	}
	if p := n.Predict(0, 51*s); p.P50 < 200 || p.P50 > 400 {
		t.Errorf("a second ahead %v, seen 300", p)
	}
	if p := n.Predict(0, 10*time.Minute); p.P50 > 1 {
		t.Errorf("ten minutes ahead %v", p)
	}
	// Long silence changes nothing either, and nothing is ever not a number.
	for at := 51 * s; at <= time.Hour; at += s {
		if err := n.Observe(at, []float64{0, 0}); err != nil {
			t.Fatal(err)
		}
		p := n.Plan(at)
		for _, r := range p.Regions {
			if math.IsNaN(r.Need) || r.Instances < 1 {
				t.Fatalf("at %v: %+v", at, r)
			}
		}
	}
}

func TestBadNowcasts(t *testing.T) {
	_, err := forecast.NewNowcast(forecast.NowcastConfig{Sigma: -1, Lead: -1, Headroom: math.NaN(), Hold: -1, Regions: []audience.Region{{Name: "a", Share: -1}}, Fewest: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"a curve of 0 points", "sigma -1", "region a: share -1", "carries 0", "lead time", "headroom NaN", "hold time", "at least -1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	points := fight(t)
	if _, err := forecast.NewNowcast(forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 1, Instances: []int{1}}); err == nil {
		t.Error("no error for instances of one region in two")
	}
	n, err := forecast.NewNowcast(forecast.NowcastConfig{Points: points, Regions: twoRegions, InstanceRate: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n.Observe(s, []float64{1}) == nil {
		t.Error("no error for starts of one region in two")
	}
}

func BenchmarkSecond(b *testing.B) {
	n, err := forecast.NewNowcast(forecast.NowcastConfig{Points: fight(b), Regions: twoRegions, InstanceRate: 500, Lead: 30 * s})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Duration(0)
	for b.Loop() {
		at += s
		_ = n.Observe(at, []float64{5000, 4000})
		_ = n.Plan(at)
	}
}
