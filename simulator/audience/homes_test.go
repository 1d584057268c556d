package audience

import (
	"math"
	"testing"
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
