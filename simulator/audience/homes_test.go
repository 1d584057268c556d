package audience

import (
	"math"
	"testing"
	"time"
)

// The shares are those that a crowd's viewers have.
func TestHomes(t *testing.T) {
	regions := []string{"us-east", "us-west", "eu"}
	homes, err := Homes(DefaultMix, regions)
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := NewCrowd(DefaultMix, regions, 1)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	seen := map[string]float64{}
	for k := range uint64(n) {
		seen[crowd.Viewer(k).Home]++
	}
	for _, h := range homes {
		if got := seen[h.Name] / n; math.Abs(got-h.Share) > 0.01 {
			t.Errorf("%s: %.3f of the viewers, want %.3f", h.Name, got, h.Share)
		}
	}
	if _, err := Homes("no such mix", regions); err == nil {
		t.Error("a mix that is not there")
	}
}

// Halves of a crowd by home differ in nothing else: devices, providers and patience are drawn alike, so that a difference
// between them is not theirs.
func TestHomesAreDrawnFromOneCrowd(t *testing.T) {
	crowd, err := NewCrowd(DefaultMix, []string{"us-east", "us-west"}, 7)
	if err != nil {
		t.Fatal(err)
	}
	const n = 200_000
	of := map[string]float64{}
	shares := map[string]map[string]float64{} // of a device with a provider, and of the patient, by home
	for k := range uint64(n) {
		v := crowd.Viewer(k)
		of[v.Home]++
		what := []string{v.Device, v.ISP, v.Device + " on " + v.ISP}
		if v.Patience(time.Minute) > time.Minute {
			what = append(what, "patient")
		}
		for _, w := range what {
			if shares[w] == nil {
				shares[w] = map[string]float64{}
			}
			shares[w][v.Home]++
		}
	}
	for what, by := range shares {
		a, b := by["us-east"]/of["us-east"], by["us-west"]/of["us-west"]
		p := (by["us-east"] + by["us-west"]) / n
		// Four standard errors of the difference: of some forty shares one in five hundred runs would have one beyond.
		if limit := 4 * math.Sqrt(p*(1-p)*(1/of["us-east"]+1/of["us-west"])); math.Abs(a-b) > limit {
			t.Errorf("%s: %.4f of one half, %.4f of the other", what, a, b)
		}
	}
}
