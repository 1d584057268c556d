package audience_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tminus-live/tminus/simulator/audience"
)

func TestCrowdIsAFunctionOfSeedAndK(t *testing.T) {
	regions := []string{"us-east", "us-west"}
	a, err := audience.NewCrowd(audience.DefaultMix, regions, 7)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := audience.NewCrowd(audience.DefaultMix, regions, 7)
	other, _ := audience.NewCrowd(audience.DefaultMix, regions, 8)
	same := 0
	seen := map[uint64]bool{}
	for k := range uint64(10_000) {
		v := a.Viewer(k)
		if v != b.Viewer(k) {
			t.Fatalf("viewer %d differs between two crowds of one seed", k)
		}
		if v == other.Viewer(k) {
			same++
		}
		if seen[v.ID] {
			t.Fatalf("viewer %d has an id that another has", k)
		}
		seen[v.ID] = true
	}
	if same != 0 {
		t.Errorf("%d viewers are the same under another seed", same)
	}
	// A golden: a seed must mean the same crowd in every release, or old runs cannot be repeated.
	for k, want := range []audience.Viewer{
		{ID: 0xbf42d6865fd08322, Device: "tv", ISP: "cable-1", Home: "us-east"},
		{ID: 0x08e571ab1ef69a8b, Device: "tablet", ISP: "mobile-1", Home: "us-east"},
		{ID: 0xbbab0d8242ce343e, Device: "tv", ISP: "fibre-1", Home: "us-west"},
	} {
		if got := a.Viewer(uint64(k)); got != want {
			t.Errorf("viewer %d = %+v, want %+v", k, got, want)
		}
	}
}

func TestMixesHoldTheirShares(t *testing.T) {
	const n = 50_000
	for _, name := range audience.Mixes() {
		c, err := audience.NewCrowd(name, []string{"a", "b"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		devices, isps, homes := map[string]int{}, map[string]int{}, map[string]int{}
		for k := range uint64(n) {
			v := c.Viewer(k)
			devices[v.Device]++
			isps[v.ISP]++
			homes[v.Home]++
		}
		if len(devices) != len(audience.Devices(name)) || len(isps) != len(audience.ISPs(name)) || len(homes) != 2 {
			t.Errorf("%s: %d devices, %d providers, %d homes drawn", name, len(devices), len(isps), len(homes))
		}
		if name == audience.DefaultMix {
			for device, want := range map[string]float64{"tv": .58, "phone": .14, "tablet": .06} {
				if got := float64(devices[device]) / n; math.Abs(got-want) > .01 {
					t.Errorf("%s: %.3f of the crowd has a %s, want %.2f", name, got, device, want)
				}
			}
			if got := float64(homes["a"]) / n; math.Abs(got-.54) > .01 {
				t.Errorf("%s: %.3f of the crowd lives in the first region, want .54", name, got)
			}
		}
	}
}

func TestUnknownMix(t *testing.T) {
	if _, err := audience.NewCrowd("nobody", nil, 1); err == nil {
		t.Error("no error")
	}
	if !slices.Contains(audience.Mixes(), audience.DefaultMix) {
		t.Error("the default mix is no mix")
	}
}

func TestViewerName(t *testing.T) {
	v := audience.Viewer{ID: 0x0123456789abcdef}
	if got := v.Name(); got != "0123456789abcdef" {
		t.Error(got)
	}
	if got := string(v.AppendName([]byte("v-"))); got != "v-0123456789abcdef" {
		t.Error(got)
	}
	buf := make([]byte, 0, 16)
	if n := testing.AllocsPerRun(100, func() { buf = v.AppendName(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRegionsHaveTheirShares(t *testing.T) {
	const n = 50_000
	c, err := audience.NewCrowdIn(audience.DefaultMix, []audience.Region{{"us-east", 5}, {"us-west", 3}, {"eu", 0}, {"asia", 2}}, 4)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := audience.NewCrowd(audience.DefaultMix, []string{"us-east"}, 4)
	homes := map[string]int{}
	for k := range uint64(n) {
		v := c.Viewer(k)
		homes[v.Home]++
		p := plain.Viewer(k)
		if v.Home = p.Home; v != p {
			t.Fatalf("viewer %d is %+v in one region and %+v in four", k, p, v)
		}
	}
	for region, want := range map[string]float64{"us-east": .5, "us-west": .3, "eu": 0, "asia": .2} {
		if got := float64(homes[region]) / n; math.Abs(got-want) > .01 {
			t.Errorf("%.3f of the crowd lives in %s, want %v", got, region, want)
		}
	}
	for _, bad := range [][]audience.Region{{{"a", -1}}, {{"a", math.NaN()}}, {{"a", math.Inf(1)}}, {{"a", 0}, {"b", 0}}, make([]audience.Region, audience.MaxRegions+1)} {
		if _, err := audience.NewCrowdIn(audience.DefaultMix, bad, 1); err == nil {
			t.Errorf("no error for %v", bad)
		}
	}
}

func TestPatience(t *testing.T) {
	const n = 20_000
	c, _ := audience.NewCrowd(audience.DefaultMix, nil, 2)
	var all []time.Duration
	for k := range uint64(n) {
		v := c.Viewer(k)
		all = append(all, v.Patience(10*s))
	}
	slices.Sort(all)
	if got := all[n/2]; math.Abs(got.Seconds()-10) > .2 {
		t.Errorf("median patience %v, want 10s", got)
	}
	if got, want := all[n*9/10].Seconds(), 10*math.Exp(1.2816*.5); math.Abs(got-want) > .5 {
		t.Errorf("90th percentile of patience %.2f s, want %.2f s", got, want)
	}
	if all[n-1] > 74*s || all[0] <= 0 {
		t.Errorf("patience from %v to %v", all[0], all[n-1])
	}
}

func BenchmarkViewer(b *testing.B) {
	c, _ := audience.NewCrowd(audience.DefaultMix, []string{"a", "b"}, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_ = c.Viewer(uint64(i))
	}
}
